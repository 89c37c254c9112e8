/*
 * Killed at every instruction of put, replace, insert, delete: after recovery the map is as before
 * or as after, the checker finds nothing, and the heap holds exactly the bytes of one of the two.
 */
#include "maps.h"
#include "step.h"

enum { BEFORE = 0, AFTER = 1 };
enum { OTHERS = 5, FULL = 7 };

struct scene {
	struct shale_segment *segment;
	struct shale_map *map;
	const char *old; /* value before, or NULL */
	const char *new; /* value after, or NULL */
	unsigned others; /* keys besides */
	bool insert;
	uint64_t base; /* live bytes without the key */
	bool may_grow; /* a child bucket may stay */
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
	char value[64];

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

static int scene_check(void *ctx)
{
	struct scene *scene = ctx;
	char value[64];
	int r, outcome;

	EXPECT_EQ(shale_recover(scene->segment), 1);
	heap_expect_clean(scene->segment);
	EXPECT_EQ(shale_recover(scene->segment), 0);
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
	struct step_options options = {.dense = 1, .stride = 3};
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
