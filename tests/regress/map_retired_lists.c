/*
 * Records that left the map while stopped processes look at more of them than a lane has entries:
 * what nobody looks at is freed all the same; who still looks at one of the others finds no damage;
 * and a list that a peer has bent into a ring does not hold us.
 */
#include "map/map.h"
#include "maps.h"
#include "step.h"
#include "segment/lanes.h"
#include "segment/view.h"

enum {
	HELD_LANES = 5,                   /* lanes of the stopped, below a mark that is set here */
	HELD_FIRST = 4,                   /* lanes before them are those of the test's processes */
	HELD = HELD_LANES * LANE_HAZARDS, /* more than LANE_RETIRED */
	TARGET = 1000,                    /* a key that nobody looks at */
};

struct scene {
	struct shale_segment *segment;
	struct shale_map *map;
};

/* The record of a key. */
static uint64_t record_of(struct scene *scene, uint64_t key)
{
	struct map_key wanted = map_key_make(scene->map, &key, sizeof(key));
	uint64_t bucket = map_bucket_ref(scene->map, map_bucket_number(scene->map, wanted.hash));
	struct chain chain = chain_start(scene->segment, bucket_at(scene->segment, bucket));
	struct entry entry;
	uint64_t *slot, word;

	while (chain_next(&chain, &slot, &word) > 0)
		if (slot_kind(word) == SLOT_RECORD &&
		    entry_load(scene->segment, slot_ref(word), &entry) &&
		    entry_has_key(&entry, &wanted))
			return entry.ref;
	return 0;
}

static uint64_t *held_hazard(struct scene *scene, unsigned i)
{
	return &view_lane(scene->segment, HELD_FIRST + i / LANE_HAZARDS)->hazards[i % LANE_HAZARDS];
}

static void scene_setup(void *ctx)
{
	struct scene *scene = ctx;

	scene->segment = heap_segment(4u << 20, SHALE_PAGES_4K);
	scene->map = map_named(scene->segment, "m", 256);
	for (uint64_t key = 0; key < HELD; key++)
		ASSERT_EQ(put_u64(scene->map, key, key), 0);
	ASSERT_EQ(put_u64(scene->map, TARGET, 0), 0);
	ASSERT_OK(view_commit(scene->segment, scene->segment->lanes_offset,
			      (HELD_FIRST + HELD_LANES) * sizeof(struct lane_shm)));
	view_hints(scene->segment)->lane_high = HELD_FIRST + HELD_LANES;
	for (unsigned i = 0; i < HELD; i++) {
		*held_hazard(scene, i) = record_of(scene, i);
		ASSERT_NE(*held_hazard(scene, i), 0);
	}
}

/* Every record that somebody looks at leaves the map. */
static void retire_held(struct scene *scene)
{
	for (uint64_t key = 0; key < HELD; key++)
		ASSERT_EQ(put_u64(scene->map, key, key + 1), 1);
}

TEST(map_retired, what_nobody_looks_at_is_freed)
{
	struct scene scene;
	uint64_t before, after;

	scene_setup(&scene);
	before = heap_counts(scene.segment).live_bytes;
	retire_held(&scene);
	for (uint64_t i = 0; i < 5000; i++)
		ASSERT_EQ(put_u64(scene.map, TARGET, i), 1);
	after = heap_counts(scene.segment).live_bytes;
	TEST_LOG("%llu bytes live, then %llu", (unsigned long long)before,
		 (unsigned long long)after);
	EXPECT_LE(after, before + (uint64_t)(HELD + LANE_RETIRED) * 64);
	/* and the rest goes when they go on */
	for (unsigned i = 0; i < HELD; i++)
		*held_hazard(&scene, i) = 0;
	ASSERT_EQ(put_u64(scene.map, TARGET, 1), 1);
	EXPECT_LE(heap_counts(scene.segment).live_bytes, before);
	heap_expect_clean(scene.segment);
}

TEST_TIMEOUT(map_retired, a_ring_holds_nobody, 10)
{
	struct scene scene;
	struct lane *lane;
	uint64_t a, b;

	scene_setup(&scene);
	ASSERT_OK(lane_enter(scene.segment, &lane));
	retire_held(&scene);
	a = lane->shm->retired[0];
	b = lane->shm->retired[1];
	ASSERT_NE(a, 0);
	ASSERT_NE(b, 0);
	for (unsigned i = LANE_RETIRED - 2; i < LANE_RETIRED; i++)
		lane->shm->retired[i] = a;
	/* so that the record of the put has an entry, and the ring's head comes next */
	lane->shm->retired[2] = 0;
	record_at(scene.segment, a)->incarnation = b;
	record_at(scene.segment, b)->incarnation = a;
	EXPECT_GE(put_u64(scene.map, TARGET, 1), 0);
}

static void victim_operation(void *ctx)
{
	struct scene *scene = ctx;
	int r = put_u64(scene->map, TARGET, 1);

	EXPECT_TRUE(r == 0 || r == 1);
	EXPECT_EQ(scene->segment->damaged, 0);
}

static void victim_prepare(void *ctx)
{
	struct scene *scene = ctx;

	ASSERT_OK(shale_free(scene->segment, shale_alloc(scene->segment, 64)));
}

static void rival(void *ctx)
{
	struct scene *scene = ctx;

	retire_held(scene);
	EXPECT_EQ(put_u64(scene->map, TARGET, 2) < 0, 0);
}

static int scene_check(void *ctx)
{
	struct scene *scene = ctx;

	for (unsigned i = 0; i < HELD; i++)
		*held_hazard(scene, i) = 0;
	EXPECT_GE(shale_recover(scene->segment), 0);
	heap_expect_clean(scene->segment);
	return 0;
}

TEST_TIMEOUT(map_retired, a_list_is_no_damage_for_who_still_looks, 300)
{
	struct scene scene;
	struct step_case step = {
		.name = "find",
		.setup = scene_setup,
		.prepare = victim_prepare,
		.operation = victim_operation,
		.rival = rival,
		.check = scene_check,
		.ctx = &scene,
	};
	struct step_options options = {.dense = 1, .stride = 3};
	struct step_result result;

	step_pause(&step, &options, &result);
	EXPECT_TRUE(result.complete);
}
