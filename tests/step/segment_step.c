/*
 * segment_step.c - attach, detach, a lane's claim and recovery, killed at every instruction.
 *
 * Owner:     each scene has a segment of its own, made in its setup.
 * Invariant: a survivor recovers, the check is clean, exactly one peer and no foreign lane are left.
 * Ordering:  fork and wait.
 * Lifetime:  a segment ends with its scene.
 * Death:     what is tested.
 */
#include "unit/segment_test.h"

#include "lib/step.h"

struct scene {
	struct shale_segment *segment; /* the survivor's */
	struct shale_segment *victim;
	struct lane *lane;
};

static void setup(void *ctx)
{
	struct scene *scene = ctx;

	memset(scene, 0, sizeof(*scene));
	scene->segment = segment_make(SHALE_PAGES_4K);
}

/* 0: nothing was there to recover; 1: a dead peer was recovered. */
static int check(void *ctx)
{
	struct scene *scene = ctx;
	struct shale_segment *late;
	int recovered = shale_recover(scene->segment);

	EXPECT_GE(recovered, 0);
	EXPECT_EQ(segment_look(scene->segment).peers, 1);
	EXPECT_EQ(segment_look(scene->segment).peers_dead, 0);
	EXPECT_EQ(segment_look(scene->segment).lanes, 0);
	segment_expect_clean(scene->segment);
	/* and everything goes on: a newcomer gets slot and lane */
	late = segment_join(shale_segment_fd(scene->segment));
	EXPECT_EQ(late->peer, 2);
	EXPECT_OK(lane_enter(late, &scene->lane));
	EXPECT_EQ(scene->lane->index, 1);
	shale_segment_detach(late);
	return recovered;
}

static void attach(void *ctx)
{
	struct scene *scene = ctx;

	scene->victim = segment_join(shale_segment_fd(scene->segment));
}

static void enter(void *ctx)
{
	struct scene *scene = ctx;

	(void)lane_enter(scene->victim, &scene->lane);
}

static void attach_and_enter(void *ctx)
{
	attach(ctx);
	enter(ctx);
}

static void detach(void *ctx)
{
	struct scene *scene = ctx;

	shale_segment_detach(scene->victim);
}

/* In the scene, before the victim: a peer with a lane that is dead already. */
static void setup_with_a_dead_peer(void *ctx)
{
	pid_t child;

	setup(ctx);
	child = test_fork();
	if (child == 0) {
		attach_and_enter(ctx);
		test_child_exit();
	}
	test_join(child, 5000);
}

static void recover(void *ctx)
{
	struct scene *scene = ctx;

	/* the victim is a forked child of the survivor: it recovers without a slot of its own */
	(void)shale_recover(scene->segment);
}

static void play(const struct step_case *step, uint64_t outcome, uint64_t stride)
{
	struct step_options options = {.dense = 1, .stride = stride, .max_steps = 2000000};
	struct step_result result;

	step_kill(step, &options, &result);
	TEST_LOG("%s: %llu points of %llu, outcomes %llu/%llu", step->name,
		 (unsigned long long)result.points, (unsigned long long)result.instructions,
		 (unsigned long long)result.outcomes[0], (unsigned long long)result.outcomes[1]);
	EXPECT_TRUE(result.complete);
	EXPECT_EQ(result.problems, 0);
	EXPECT_GT(result.outcomes[0] + result.outcomes[1], 10);
	EXPECT_GT(result.outcomes[outcome], 0);
}

TEST_TIMEOUT(segment_step, attach_killed, 600)
{
	struct scene scene;
	struct step_case step = {.name = "attach",
				 .setup = setup,
				 .operation = attach,
				 .check = check,
				 .ctx = &scene};

	play(&step, 1, 997);
}

TEST_TIMEOUT(segment_step, lane_claim_killed, 600)
{
	struct scene scene;
	struct step_case step = {.name = "lane claim",
				 .setup = setup,
				 .prepare = attach,
				 .operation = enter,
				 .check = check,
				 .ctx = &scene};

	play(&step, 1, 13);
}

TEST_TIMEOUT(segment_step, detach_killed, 600)
{
	struct scene scene;
	struct step_case step = {.name = "detach",
				 .setup = setup,
				 .prepare = attach_and_enter,
				 .operation = detach,
				 .check = check,
				 .ctx = &scene};

	play(&step, 1, 13);
}

TEST_TIMEOUT(segment_step, recovery_killed, 600)
{
	struct scene scene;
	struct step_case step = {.name = "recovery",
				 .setup = setup_with_a_dead_peer,
				 .operation = recover,
				 .check = check,
				 .ctx = &scene};

	play(&step, 0, 331);
}

static void create(void *ctx)
{
	struct scene *scene = ctx;

	scene->victim = segment_make(SHALE_PAGES_4K);
}

/* What a killed creator leaves is gone with it: nobody else had the descriptor. */
static int check_created(void *ctx)
{
	(void)ctx;
	return 0;
}

TEST_TIMEOUT(segment_step, create_killed, 600)
{
	struct scene scene;
	struct step_case step = {
		.name = "create", .operation = create, .check = check_created, .ctx = &scene};

	play(&step, 0, 211);
}
