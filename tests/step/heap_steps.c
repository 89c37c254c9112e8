/*
 * Every heap operation, killed and paused at each of its instructions.
 *
 * The scene makes a segment and is the survivor; the victim, a forked child, is a peer of its own.
 * After the kill the survivor recovers, the checker must be content, and the count of live blocks
 * must be exactly one of the two that the operation allows.
 */
#include <string.h>

#include "heaps.h"
#include "step.h"

struct world {
	struct shale_segment *segment;
	uint64_t *place; /* a published block that may hold a ref */
	void *theirs;    /* published block of the survivor */
	void *block;     /* the victim's */
	size_t size;     /* what the victim allocates */
	uint64_t before; /* live blocks when the operation had not happened */
	uint64_t after;  /* ... when it had */
};

static struct world world;

static void make(void *context)
{
	struct world *w = context;

	w->segment = heap_segment(16u << 20, SHALE_PAGES_4K);
	w->place = shale_alloc_zeroed(w->segment, 64);
	ASSERT_OK(shale_publish(w->segment, w->place));
	w->theirs = shale_alloc(w->segment, w->size);
	ASSERT_OK(shale_publish(w->segment, w->theirs));
	w->before = 2;
	w->after = 2;
}

/* 0: as before the operation, 1: as after it. */
static int judge(void *context)
{
	struct world *w = context;
	unsigned more = w->size > 32768 ? 20 : 100;
	uint64_t live;
	int outcome;

	EXPECT_GE(shale_recover(w->segment), 0);
	EXPECT_EQ(shale_check(w->segment, heap_finding, NULL), 0);
	live = heap_counts(w->segment).live_blocks;
	EXPECT_EQ(heap_counts(w->segment).own_blocks, 0);
	if (live != w->before && live != w->after) {
		TEST_LOG("%llu live blocks", (unsigned long long)live);
		return -1;
	}
	outcome = w->before == w->after ? 0 : live == w->after;
	/* the segment still works, and what the dead used can be used again */
	for (unsigned i = 0; i < more; i++) {
		void *block = shale_alloc(w->segment, w->size);

		ASSERT_NOT_NULL(block);
		memset(block, 1, w->size);
	}
	EXPECT_EQ(heap_counts(w->segment).live_blocks, live + more);
	return test_has_failed() ? -1 : outcome;
}

static void warm(void *context)
{
	struct world *w = context;
	void *block = shale_alloc(w->segment, w->size);

	ASSERT_NOT_NULL(block);
	ASSERT_OK(shale_free(w->segment, block));
	w->block = shale_alloc(w->segment, w->size);
	ASSERT_NOT_NULL(w->block);
}

static void attach_only(void *context)
{
	struct world *w = context;
	void *block = shale_alloc(w->segment, 16);

	ASSERT_NOT_NULL(block);
	ASSERT_OK(shale_free(w->segment, block));
}

static void do_alloc(void *context)
{
	struct world *w = context;

	w->block = shale_alloc(w->segment, w->size);
}

static void do_free(void *context)
{
	struct world *w = context;

	(void)shale_free(w->segment, w->block);
}

static void do_free_theirs(void *context)
{
	struct world *w = context;

	(void)shale_free(w->segment, w->theirs);
}

static void do_publish(void *context)
{
	struct world *w = context;

	(void)shale_publish(w->segment, w->block);
}

static void do_publish_at(void *context)
{
	struct world *w = context;

	(void)shale_publish_at(w->segment, w->block, w->place, 0);
}

static void do_take_at(void *context)
{
	struct world *w = context;
	void *taken;

	(void)shale_take_at(w->segment, w->place, &taken);
}

static void do_root_publish(void *context)
{
	struct world *w = context;

	(void)shale_root_publish(w->segment, "root", w->block);
}

static void do_trim(void *context)
{
	struct world *w = context;

	(void)shale_trim(w->segment, 0);
}

static void run_kill(const char *name, struct step_case step, struct step_options options,
		     bool both)
{
	struct step_result result;

	step.name = name;
	step.ctx = &world;
	if (!step.setup)
		step.setup = make;
	if (!step.check)
		step.check = judge;
	step_kill(&step, &options, &result);
	TEST_LOG("%s: %llu instructions, %llu kills, outcomes %llu/%llu", name,
		 (unsigned long long)result.instructions, (unsigned long long)result.points,
		 (unsigned long long)result.outcomes[0], (unsigned long long)result.outcomes[1]);
	EXPECT_TRUE(result.complete);
	EXPECT_GT(result.points, 0);
	if (both) {
		EXPECT_GT(result.outcomes[0], 0);
		EXPECT_GT(result.outcomes[1], 0);
	}
}

VARIANT_SET(sizes) = {{"64", 64, NULL}, {"5000", 5000, NULL}, {"span", 150000, NULL}};

TEST_V_TIMEOUT(heap_kill, alloc_warm, sizes, 120)
{
	world.size = variant->value;
	run_kill("alloc", (struct step_case){.prepare = warm, .operation = do_alloc},
		 (struct step_options){.dense = 400, .stride = 5}, false);
}

TEST_V_TIMEOUT(heap_kill, alloc_of_the_first_slab, sizes, 240)
{
	world.size = variant->value;
	run_kill("first alloc", (struct step_case){.prepare = attach_only, .operation = do_alloc},
		 (struct step_options){.dense = 200, .stride = 23}, false);
}

TEST_V_TIMEOUT(heap_kill, free_of_ones_own_block, sizes, 120)
{
	world.size = variant->value;
	run_kill("free", (struct step_case){.prepare = warm, .operation = do_free},
		 (struct step_options){0}, false);
}

static void make_remote(void *context)
{
	struct world *w = context;

	make(context);
	w->after = 1;
}

TEST_V_TIMEOUT(heap_kill, free_of_anothers_block, sizes, 120)
{
	world.size = variant->value;
	run_kill("remote free",
		 (struct step_case){
			 .setup = make_remote, .prepare = attach_only, .operation = do_free_theirs},
		 (struct step_options){0}, true);
}

static void make_publish(void *context)
{
	struct world *w = context;

	make(context);
	w->after = 3;
}

/* A block of the survivor's that is free already, and handed out again before the recovery. */
static void make_freed(void *context)
{
	struct world *w = context;

	make(context);
	ASSERT_OK(shale_free(w->segment, w->theirs));
}

static int judge_handed_out(void *context)
{
	struct world *w = context;

	ASSERT_EQ((uintptr_t)shale_alloc(w->segment, w->size), (uintptr_t)w->theirs);
	EXPECT_GE(shale_recover(w->segment), 0);
	EXPECT_NE(shale_usable_size(w->segment, w->theirs), 0);
	EXPECT_OK(shale_free(w->segment, w->theirs));
	EXPECT_EQ(shale_check(w->segment, heap_finding, NULL), 0);
	return test_has_failed() ? -1 : 0;
}

TEST_TIMEOUT(heap_kill, freeing_twice_spares_the_next_holder, 120)
{
	world.size = 100;
	run_kill("double free",
		 (struct step_case){.setup = make_freed,
				    .prepare = attach_only,
				    .operation = do_free_theirs,
				    .check = judge_handed_out},
		 (struct step_options){0}, false);
}

TEST_V_TIMEOUT(heap_kill, publish, sizes, 120)
{
	world.size = variant->value;
	run_kill(
		"publish",
		(struct step_case){.setup = make_publish, .prepare = warm, .operation = do_publish},
		(struct step_options){0}, true);
}

/* The block lives on exactly if the place holds it. */
static int judge_place(void *context)
{
	struct world *w = context;
	int outcome = judge(context);

	if (outcome < 0)
		return outcome;
	EXPECT_EQ(*w->place != 0, outcome == 1);
	if (*w->place != 0)
		EXPECT_GE(shale_usable_size(w->segment,
					    shale_ptr(w->segment, (shale_ref){*w->place}, 1)),
			  w->size);
	return test_has_failed() ? -1 : outcome;
}

TEST_V_TIMEOUT(heap_kill, publish_at, sizes, 120)
{
	world.size = variant->value;
	run_kill("publish_at",
		 (struct step_case){.setup = make_publish,
				    .prepare = warm,
				    .operation = do_publish_at,
				    .check = judge_place},
		 (struct step_options){0}, true);
}

static void make_taking(void *context)
{
	struct world *w = context;

	make(context);
	ASSERT_OK(shale_publish_at(w->segment, w->theirs, w->place, 0));
}

TEST_V_TIMEOUT(heap_kill, take_at, sizes, 120)
{
	world.size = variant->value;
	run_kill("take_at",
		 (struct step_case){
			 .setup = make_taking, .prepare = attach_only, .operation = do_take_at},
		 (struct step_options){0}, false);
}

static int judge_root(void *context)
{
	struct world *w = context;
	shale_ref ref = {0};
	bool found;

	w->before = 2;
	w->after = 4; /* the block and the record of its name */
	EXPECT_GE(shale_recover(w->segment), 0);
	found = shale_root_find(w->segment, "root", &ref) == 0;
	if (judge(context) != (int)found)
		return -1;
	return found;
}

TEST_TIMEOUT(heap_kill, root_publish, 240)
{
	world.size = 64;
	run_kill("root_publish",
		 (struct step_case){
			 .prepare = warm, .operation = do_root_publish, .check = judge_root},
		 (struct step_options){.dense = 100, .stride = 3}, true);
}

static void use_much(void *context)
{
	struct world *w = context;
	void *block = shale_alloc(w->segment, 5u << 20);

	ASSERT_NOT_NULL(block);
	ASSERT_OK(shale_free(w->segment, block));
}

TEST_TIMEOUT(heap_kill, trim, 240)
{
	world.size = 64;
	run_kill("trim", (struct step_case){.prepare = use_much, .operation = do_trim},
		 (struct step_options){.dense = 50, .stride = 97}, false);
}

/* -- recovery, killed itself ---------------------------------------------------------------------- */

static void do_recover(void *context)
{
	struct world *w = context;

	(void)shale_recover(w->segment);
}

static void die_in_publish_at(void *context)
{
	struct world *w = context;
	struct step_case inner = {
		.name = "inner", .prepare = warm, .operation = do_publish_at, .ctx = w};

	make_publish(context);
	/* far enough in for the intent and the published fact */
	(void)step_kill_at(&inner, 230);
}

TEST_TIMEOUT(heap_kill, recovery_of_the_dead, 300)
{
	world.size = 64;
	run_kill("recover",
		 (struct step_case){.setup = die_in_publish_at,
				    .prepare = attach_only,
				    .operation = do_recover},
		 (struct step_options){.dense = 100, .stride = 61}, false);
}

/* -- pause, and let a rival run ------------------------------------------------------------------- */

static void rival_allocates(void *context)
{
	struct world *w = context;
	void *blocks[300];

	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < 300; i++) {
			blocks[i] = shale_alloc(w->segment, i % 100 ? w->size : 70000);
			ASSERT_NOT_NULL(blocks[i]);
			memset(blocks[i], 2, 16);
			if (i >= 40 && w->size > 10000)
				break;
		}
		for (unsigned i = 0; i < 300 && !(i > 40 && w->size > 10000); i++)
			ASSERT_OK(shale_free(w->segment, blocks[i]));
	}
}

static int judge_alive(void *context)
{
	struct world *w = context;

	EXPECT_GE(shale_recover(w->segment), 0);
	EXPECT_EQ(shale_check(w->segment, heap_finding, NULL), 0);
	EXPECT_EQ(heap_counts(w->segment).live_blocks, w->after);
	return test_has_failed() ? -1 : 0;
}

static void run_pause(const char *name, struct step_case step, struct step_options options)
{
	struct step_result result;

	step.name = name;
	step.ctx = &world;
	if (!step.setup)
		step.setup = make;
	step.rival = rival_allocates;
	step.check = judge_alive;
	options.limit_ms = 20000;
	step_pause(&step, &options, &result);
	TEST_LOG("%s: %llu pauses", name, (unsigned long long)result.points);
	EXPECT_TRUE(result.complete);
	EXPECT_EQ(result.stuck, 0);
}

TEST_V_TIMEOUT(heap_pause, alloc_of_the_first_slab, sizes, 240)
{
	world.size = variant->value;
	run_pause("first alloc", (struct step_case){.prepare = attach_only, .operation = do_alloc},
		  (struct step_options){.dense = 50, .stride = 41});
}

TEST_V_TIMEOUT(heap_pause, free_of_ones_own_block, sizes, 120)
{
	world.size = variant->value;
	run_pause("free", (struct step_case){.prepare = warm, .operation = do_free},
		  (struct step_options){.dense = 300, .stride = 3});
}

TEST_V_TIMEOUT(heap_pause, free_of_anothers_block, sizes, 120)
{
	world.size = variant->value;
	run_pause("remote free",
		  (struct step_case){.setup = make_remote,
				     .prepare = attach_only,
				     .operation = do_free_theirs},
		  (struct step_options){.dense = 300, .stride = 3});
}

TEST_TIMEOUT(heap_pause, trim, 240)
{
	world.size = 64;
	run_pause("trim", (struct step_case){.prepare = use_much, .operation = do_trim},
		  (struct step_options){.dense = 50, .stride = 211});
}
