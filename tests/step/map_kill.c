/*
 * Killed at every instruction of put, replace, insert, delete: after recovery the map is as before
 * or as after, the checker finds nothing, and the heap holds exactly the bytes of one of the two.
 */
#include "map/map.h"
#include "maps.h"
#include "step.h"

enum { BEFORE = 0, AFTER = 1 };
enum { OTHERS = 5, FULL = 7, LARGE = 33000, VALUE_MAX = 34000 };

struct scene {
	struct shale_segment *segment;
	struct shale_map *map;
	const char *old; /* value before, or NULL */
	const char *new; /* value after, or NULL */
	unsigned others; /* keys besides */
	bool insert;
	unsigned stride; /* 0: 3 */
	uint64_t base;   /* live bytes without the key */
	bool may_grow;   /* a child bucket may stay */
};

static const char key[] = "the key";

static uint64_t live_bytes(struct scene *scene)
{
	return heap_counts(scene->segment).live_bytes;
}

static void scene_setup(void *ctx)
{
	struct scene *scene = ctx;

	scene->segment = heap_segment(4u << 20, SHALE_PAGES_4K);
	scene->map = map_named(scene->segment, "m", 1);
	for (uint64_t i = 0; i < scene->others; i++)
		ASSERT_EQ(put_u64(scene->map, i, i), 0);
	scene->base = live_bytes(scene);
	if (scene->old)
		ASSERT_EQ(put_text(scene->map, key, scene->old), 0);
}

/* The victim is a peer of its own with a lane, before its first step. */
static void scene_prepare(void *ctx)
{
	struct scene *scene = ctx;

	ASSERT_OK(shale_free(scene->segment, shale_alloc(scene->segment, 16)));
}

static void scene_operation(void *ctx)
{
	struct scene *scene = ctx;

	if (!scene->new)
		(void)delete_text(scene->map, key);
	else if (scene->insert)
		(void)insert_text(scene->map, key, scene->new);
	else
		(void)put_text(scene->map, key, scene->new);
}

/* The map works on, on the chain where the death was. */
static void expect_usable(struct scene *scene)
{
	static char value[VALUE_MAX];

	for (uint64_t i = 0; i < scene->others; i++)
		EXPECT_EQ(put_u64(scene->map, i, i + 1), 1);
	EXPECT_OK(put_text(scene->map, key, "a last value"));
	EXPECT_OK(get_text(scene->map, key, value, sizeof(value)));
	EXPECT_OK(delete_text(scene->map, key));
	EXPECT_EQ(shale_map_count(scene->map), scene->others);
}

static bool bytes_are(struct scene *scene, uint64_t more)
{
	uint64_t live = live_bytes(scene);

	if (live == scene->base + more || (scene->may_grow && live == scene->base + more + 64))
		return true;
	TEST_FAIL("%llu live bytes, not %llu", (unsigned long long)live,
		  (unsigned long long)(scene->base + more));
	return false;
}

static void recover_all(struct scene *scene)
{
	struct shale_segment_figures stat = {.size = sizeof(stat)};

	EXPECT_GE(shale_recover(scene->segment), 1);
	EXPECT_EQ(shale_recover(scene->segment), 0);
	ASSERT_OK(shale_segment_stat(scene->segment, &stat));
	EXPECT_EQ(stat.peers_dead, 0);
}

static int scene_check(void *ctx)
{
	static char value[VALUE_MAX];
	struct scene *scene = ctx;
	int r, outcome;

	recover_all(scene);
	heap_expect_clean(scene->segment);
	r = get_text(scene->map, key, value, sizeof(value));
	if (r == -ENOENT)
		outcome = !scene->new ? AFTER : !scene->old ? BEFORE : -1;
	else if (scene->new &&strcmp(value, scene->new) == 0)
		outcome = AFTER;
	else
		outcome = scene->old && strcmp(value, scene->old) == 0 ? BEFORE : -1;
	EXPECT_EQ(shale_map_count(scene->map), scene->others + (r == 0));
	if (r == 0)
		EXPECT_EQ(delete_text(scene->map, key), 0);
	if (!bytes_are(scene, 0))
		return -1;
	expect_usable(scene);
	heap_expect_clean(scene->segment);
	return bytes_are(scene, 0) ? outcome : -1;
}

static void kill_everywhere(struct scene scene)
{
	struct step_case step = {
		.name = "map",
		.setup = scene_setup,
		.prepare = scene_prepare,
		.operation = scene_operation,
		.check = scene_check,
		.ctx = &scene,
	};
	struct step_options options = {.dense = 1, .stride = scene.stride ? scene.stride : 3};
	struct step_result result;

	step_kill(&step, &options, &result);
	TEST_LOG("%llu points, %llu instructions, before %llu, after %llu",
		 (unsigned long long)result.points, (unsigned long long)result.instructions,
		 (unsigned long long)result.outcomes[BEFORE],
		 (unsigned long long)result.outcomes[AFTER]);
	EXPECT_TRUE(result.complete);
	EXPECT_GT(result.outcomes[BEFORE], 0);
	EXPECT_GT(result.outcomes[AFTER], 0);
}

TEST_TIMEOUT(map_kill, put_of_a_new_key, 300)
{
	kill_everywhere((struct scene){.new = "a value of some bytes", .others = OTHERS});
}

TEST_TIMEOUT(map_kill, put_of_a_key_that_is_there, 300)
{
	kill_everywhere(
		(struct scene){.old = "the old value", .new = "the newer value", .others = OTHERS});
}

TEST_TIMEOUT(map_kill, insert, 300)
{
	kill_everywhere((struct scene){.new = "v", .others = OTHERS, .insert = true});
}

TEST_TIMEOUT(map_kill, delete, 300)
{
	kill_everywhere((struct scene){.old = "the old value", .others = OTHERS});
}

TEST_TIMEOUT(map_kill, put_that_adds_a_bucket, 300)
{
	kill_everywhere(
		(struct scene){.new = "a value of some bytes", .others = FULL, .may_grow = true});
}

/* A block above 32 KiB is a span of slabs: freeing it has steps of its own. */
TEST_TIMEOUT(map_kill, put_of_a_large_value, 300)
{
	static char old[LARGE + 1], new[LARGE + 1];

	memset(old, 'o', LARGE);
	memset(new, 'n', LARGE);
	kill_everywhere((struct scene){.old = old, .new = new, .others = OTHERS, .stride = 41});
}

/* -- the recoverer is killed, too -------------------------------------------------------------- */

struct double_fault {
	struct scene scene;
	struct step_case first;
	uint64_t k; /* where the first one dies */
	uint32_t lane;
};

static void double_setup(void *ctx)
{
	struct double_fault *fault = ctx;

	scene_setup(&fault->scene);
	(void)step_kill_at(&fault->first, fault->k);
}

static void double_prepare(void *ctx)
{
	struct double_fault *fault = ctx;
	struct shale_segment *view = fault->scene.segment;

	for (uint32_t lane = 1; lane < view_lane_high(view); lane++) {
		uint64_t word = view_lane(view, lane)->word;

		if (lane_word_active(word) && peer_is_dead(view, lane_word_peer(word)) == 1)
			fault->lane = lane;
	}
	scene_prepare(&fault->scene);
}

/* The map's part of recovery, alone: the rest looks at a thousand peer slots. */
static void double_operation(void *ctx)
{
	struct double_fault *fault = ctx;

	if (fault->lane != 0)
		(void)map_settle_lane(fault->scene.segment, fault->lane);
}

static int double_check(void *ctx)
{
	return scene_check(&((struct double_fault *)ctx)->scene);
}

static void kill_recoverer(struct scene scene, unsigned count)
{
	struct double_fault fault = {.scene = scene};
	struct step_case step = {
		.name = "recovery",
		.setup = double_setup,
		.prepare = double_prepare,
		.operation = double_operation,
		.check = double_check,
		.ctx = &fault,
	};
	struct step_options options = {.dense = 1, .stride = 53};
	struct step_result result;
	uint64_t length;

	fault.first = (struct step_case){
		.name = "map",
		.setup = scene_setup,
		.prepare = scene_prepare,
		.operation = scene_operation,
		.ctx = &fault.scene,
	};
	length = step_count(&fault.first);
	for (unsigned i = 0; i < count; i++) {
		fault.k = length / 2 +
			  test_random_below(length / 2); /* where there is something to settle */
		step_kill(&step, &options, &result);
		EXPECT_TRUE(result.complete);
	}
}

TEST_TIMEOUT(map_kill, recovery_of_a_killed_put, 300)
{
	kill_recoverer((struct scene){.old = "old", .new = "new", .others = OTHERS},
		       (unsigned)TEST_ROUNDS(5, 60));
}

TEST_TIMEOUT(map_kill, recovery_of_a_killed_put_that_adds_a_bucket, 300)
{
	kill_recoverer(
		(struct scene){.new = "a value of some bytes", .others = FULL, .may_grow = true},
		(unsigned)TEST_ROUNDS(5, 60));
}

TEST_TIMEOUT(map_kill, recovery_of_a_killed_delete, 300)
{
	kill_recoverer((struct scene){.old = "the old value", .others = OTHERS},
		       (unsigned)TEST_ROUNDS(5, 60));
}
