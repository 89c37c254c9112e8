/*
 * Arenas and spans, killed and paused at each instruction: taking a slab that needs an arena, building
 * a span, taking one from the cache whole or in part, freeing it into the cache and apart, growing,
 * shrinking, stealing.
 *
 * The scene makes a segment of three arenas and is the survivor. After each kill it recovers, the
 * checker must be content, every slab must be accounted for by its word, and all slabs that are not in
 * use must be had again, zeroed where zeroes are asked for: not one slab may be lost.
 */
#include <string.h>

#include "heap/arena.h"
#include "heap/heap.h"
#include "heap/heap_lane.h"
#include "heap/large.h"
#include "heap/slab.h"
#include "heap/span_cache.h"
#include "heaps.h"
#include "segment/lanes.h"
#include "step.h"

#define ARENAS 3u
#define SLABS  (ARENAS * SLABS_PER_ARENA)

struct world {
	struct shale_segment *segment;
	unsigned char *span;  /* the survivor's, with a pattern in its first slabs */
	unsigned char *block; /* the victim's */
	uint64_t slabs;       /* of the span, before */
	uint64_t resized;     /* after */
	bool published;       /* the span is */
	bool freed;           /* the operation frees the span */
	size_t size;          /* what the victim allocates */
	uint64_t fill;        /* slabs that the survivor takes, at the end of the segment */
	unsigned char *fillers[SLABS];
};

static struct world world;

static struct lane *my_lane(struct shale_segment *segment)
{
	struct lane *lane;

	ASSERT_OK(lane_enter(segment, &lane));
	return lane;
}

static void make(void *context)
{
	struct world *w = context;

	w->segment = heap_segment(ARENAS * ARENA_SIZE, SHALE_PAGES_4K);
	w->span = shale_alloc(w->segment, w->slabs * SLAB_SIZE);
	ASSERT_NOT_NULL(w->span);
	memset(w->span, 0x5a, w->slabs * SLAB_SIZE);
	if (w->published)
		ASSERT_OK(shale_publish(w->segment, w->span));
	for (uint64_t i = 0; i < w->fill; i++) {
		w->fillers[i] = shale_alloc(w->segment, SLAB_SIZE);
		ASSERT_NOT_NULL(w->fillers[i]);
		memset(w->fillers[i], 0x33, SLAB_SIZE);
	}
}

/* -- judging ----------------------------------------------------------------------------------------- */

/* Is [head, head + count) a whole span: its bodies, and nobody else's beyond? */
static void expect_whole(struct shale_segment *segment, uint64_t head, uint64_t count)
{
	for (uint64_t slab = head + 1; slab < head + count; slab++) {
		uint64_t word = *slab_word(segment, slab);

		EXPECT_EQ(slab_word_state(word), SLAB_BODY);
		EXPECT_EQ(slab_word_head(word), head);
	}
}

/* Slabs in use; everything else is FREE. What a cache holds is taken apart before. */
static uint64_t used_slabs(struct shale_segment *segment)
{
	uint64_t used = 0, high = view_arena_high(segment);

	(void)span_steal_cached(my_lane(segment), true);
	for (uint64_t slab = 0; slab < high * SLABS_PER_ARENA; slab++) {
		uint64_t word = *slab_word(segment, slab);

		used += slab_word_state(word) != SLAB_FREE;
		if (slab_word_state(word) == SLAB_SPAN)
			expect_whole(segment, slab, span_slab_count(segment, slab));
		else if (slab_word_state(word) == SLAB_BODY)
			EXPECT_EQ(slab_word_state(*slab_word(segment, slab_word_head(word))),
				  SLAB_SPAN);
		else if (slab_word_state(word) != SLAB_FREE)
			TEST_FAIL("slab %llu: state %d", (unsigned long long)slab,
				  (int)slab_word_state(word));
	}
	return used;
}

static bool is_zero(const unsigned char *bytes, size_t size)
{
	return bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0;
}

/* Takes all that is left, slab by slab; it must be as many, and zero. */
static void expect_all_can_be_had(struct shale_segment *segment, uint64_t used)
{
	for (uint64_t i = used; i < SLABS; i++) {
		unsigned char *block = shale_alloc_zeroed(segment, SLAB_SIZE);

		ASSERT_NOT_NULL(block);
		EXPECT_TRUE(is_zero(block, SLAB_SIZE));
		memset(block, 0x77, SLAB_SIZE);
	}
	EXPECT_NULL(shale_alloc(segment, SLAB_SIZE));
}

static int judge(void *context)
{
	struct world *w = context;
	uint64_t used, span, live;
	int outcome = 0;

	EXPECT_GE(shale_recover(w->segment), 0);
	EXPECT_EQ(shale_check(w->segment, heap_finding, NULL), 0);
	live = heap_counts(w->segment).live_bytes / SLAB_SIZE;
	used = used_slabs(w->segment);
	EXPECT_EQ(live, used);
	if (!w->freed || heap_block_state(w->segment, view_offset_of(w->segment, w->span), NULL) >=
				 HEAP_BLOCK_LIVE) {
		span = shale_usable_size(w->segment, w->span) / SLAB_SIZE;
		EXPECT_TRUE(span == w->slabs || span == w->resized);
		outcome = span != w->slabs;
		for (uint64_t i = 0; i < w->slabs && i < span; i++)
			EXPECT_EQ(w->span[i * SLAB_SIZE + i], 0x5a);
	} else {
		span = 0;
		outcome = 1;
	}
	EXPECT_EQ(used, span + w->fill);
	/* written all over and freed: what comes back must not be taken for fresh */
	if (span != 0) {
		memset(w->span, 0x99, span * SLAB_SIZE);
		ASSERT_OK(shale_free(w->segment, w->span));
	}
	expect_all_can_be_had(w->segment, used - span);
	heap_expect_clean(w->segment);
	return test_has_failed() ? -1 : outcome;
}

/*
 * Before anybody recovers the dead freer, its cached span is stolen and is somebody else's: a name that
 * had outlived the free would let recovery free it again.
 */
static int judge_named(void *context)
{
	struct world *w = context;
	void *block;

	(void)span_steal_cached(my_lane(w->segment), true);
	block = shale_alloc(w->segment, w->slabs * SLAB_SIZE);
	ASSERT_NOT_NULL(block);
	EXPECT_GE(shale_recover(w->segment), 0);
	EXPECT_EQ(shale_usable_size(w->segment, block), w->slabs * SLAB_SIZE);
	ASSERT_OK(shale_free(w->segment, block));
	return judge(context);
}

static void run_kill(const char *name, struct step_case step, struct step_options options,
		     bool both)
{
	struct step_result result;

	step.name = name;
	step.ctx = &world;
	step.setup = make;
	if (!step.check)
		step.check = judge;
	if (world.resized == 0)
		world.resized = world.slabs;
	step_kill(&step, &options, &result);
	TEST_LOG("%s: %llu instructions, %llu kills, outcomes %llu/%llu", name,
		 (unsigned long long)result.instructions, (unsigned long long)result.points,
		 (unsigned long long)result.outcomes[0], (unsigned long long)result.outcomes[1]);
	EXPECT_TRUE(result.complete);
	if (both) {
		EXPECT_GT(result.outcomes[0], 0);
		EXPECT_GT(result.outcomes[1], 0);
	}
}

/* Takes and gives spans of many lengths, and small blocks; trims in between. */
static void rival(void *context)
{
	struct world *w = context;
	void *blocks[24];

	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < 24; i++) {
			size_t size = i % 3 == 2 ? 3000 : (i % 7 + 1) * SLAB_SIZE;

			blocks[i] = shale_alloc(w->segment, size);
			if (blocks[i])
				memset(blocks[i], 0x44, size);
		}
		for (unsigned i = 0; i < 24; i++)
			if (blocks[i])
				ASSERT_OK(shale_free(w->segment, blocks[i]));
		ASSERT_GE(shale_trim(w->segment, 0), 0);
	}
}

static void run_pause(const char *name, struct step_case step, struct step_options options)
{
	struct step_result result;

	step.name = name;
	step.ctx = &world;
	step.setup = make;
	step.check = judge;
	step.rival = rival;
	options.limit_ms = 20000;
	if (world.resized == 0)
		world.resized = world.slabs;
	step_pause(&step, &options, &result);
	TEST_LOG("%s: %llu pauses", name, (unsigned long long)result.points);
	EXPECT_TRUE(result.complete);
	EXPECT_EQ(result.stuck, 0);
}

/* -- what the victim does ------------------------------------------------------------------------- */

static void attach_only(void *context)
{
	struct world *w = context;

	(void)my_lane(w->segment);
}

static void keep_one(void *context)
{
	struct world *w = context;
	unsigned char *block = shale_alloc(w->segment, w->size);

	ASSERT_NOT_NULL(block);
	memset(block, 0x11, w->size);
	ASSERT_OK(shale_free(w->segment, block));
}

/* A longer one in the cache than will be asked for. */
static void keep_longer(void *context)
{
	struct world *w = context;

	w->size *= 6;
	keep_one(context);
	w->size /= 6;
}

static void hold_one(void *context)
{
	struct world *w = context;

	w->block = shale_alloc(w->segment, w->size);
	ASSERT_NOT_NULL(w->block);
	memset(w->block, 0x22, w->size);
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

	(void)shale_free(w->segment, w->span);
}

/* As the map does: the block is named while it is freed. */
static void do_free_named(void *context)
{
	struct world *w = context;
	struct lane *lane = lane_peek(w->segment);

	retired_set(lane->shm, 3, view_offset_of(w->segment, w->span));
	(void)heap_free_block(w->segment, lane, view_offset_of(w->segment, w->span));
	retired_set(lane->shm, 3, 0);
}

static void do_free_apart(void *context)
{
	struct world *w = context;
	uint64_t slab = slab_of_offset(w->segment, view_offset_of(w->segment, w->span));

	(void)span_free(w->segment, lane_peek(w->segment)->index, slab,
			*slab_word(w->segment, slab));
}

static void do_steal(void *context)
{
	struct world *w = context;

	(void)span_steal_cached(lane_peek(w->segment), true);
}

static void do_resize(void *context)
{
	struct world *w = context;

	(void)shale_resize(w->segment, w->span, w->resized * SLAB_SIZE);
}

static const struct step_options thin = {.dense = 150, .stride = 13};
static const struct step_options all = {0};

/* -- taking --------------------------------------------------------------------------------------- */

/* All slabs of the first arena are in use: the block needs a new one. */
static const struct world full_arena = {.slabs = 2, .fill = 30, .size = 1000};

TEST_TIMEOUT(heap_arena_kill, take_slab_with_commit, 240)
{
	world = full_arena;
	run_kill("take slab", (struct step_case){.prepare = attach_only, .operation = do_alloc},
		 thin, false);
}

TEST_TIMEOUT(heap_arena_pause, take_slab_with_commit, 240)
{
	world = full_arena;
	run_pause("take slab", (struct step_case){.prepare = attach_only, .operation = do_alloc},
		  (struct step_options){.dense = 20, .stride = 53});
}

static const struct world some_room = {.slabs = 2, .fill = 10, .size = 3 * SLAB_SIZE};

TEST_TIMEOUT(heap_arena_kill, span_is_built, 240)
{
	world = some_room;
	run_kill("build", (struct step_case){.prepare = attach_only, .operation = do_alloc}, thin,
		 false);
}

TEST_TIMEOUT(heap_arena_pause, span_is_built, 240)
{
	world = some_room;
	run_pause("build", (struct step_case){.prepare = attach_only, .operation = do_alloc},
		  (struct step_options){.dense = 20, .stride = 29});
}

TEST_TIMEOUT(heap_arena_kill, span_is_built_with_commit, 240)
{
	world = some_room;
	world.size = 40 * SLAB_SIZE;
	run_kill("build, commit", (struct step_case){.prepare = attach_only, .operation = do_alloc},
		 (struct step_options){.dense = 50, .stride = 67}, false);
}

TEST_TIMEOUT(heap_arena_kill, span_from_the_cache, 240)
{
	world = some_room;
	run_kill("cached", (struct step_case){.prepare = keep_one, .operation = do_alloc}, all,
		 false);
}

TEST_TIMEOUT(heap_arena_pause, span_from_the_cache, 240)
{
	world = some_room;
	run_pause("cached", (struct step_case){.prepare = keep_one, .operation = do_alloc},
		  (struct step_options){.dense = 100, .stride = 5});
}

/* 18 slabs in the cache, none free in the segment: three are cut from them. */
static const struct world nearly_full = {.slabs = 2, .fill = SLABS - 20, .size = 3 * SLAB_SIZE};

TEST_TIMEOUT(heap_arena_kill, span_is_cut_from_a_cached_one, 240)
{
	world = nearly_full;
	run_kill("cut", (struct step_case){.prepare = keep_longer, .operation = do_alloc}, thin,
		 false);
}

TEST_TIMEOUT(heap_arena_pause, span_is_cut_from_a_cached_one, 240)
{
	world = nearly_full;
	run_pause("cut", (struct step_case){.prepare = keep_longer, .operation = do_alloc},
		  (struct step_options){.dense = 20, .stride = 23});
}

/* -- freeing -------------------------------------------------------------------------------------- */

TEST_TIMEOUT(heap_arena_kill, free_into_the_cache, 240)
{
	world = some_room;
	run_kill("free", (struct step_case){.prepare = hold_one, .operation = do_free}, all, false);
}

static const struct world theirs = {.slabs = 5, .published = true, .freed = true};

TEST_TIMEOUT(heap_arena_kill, free_of_anothers_span, 240)
{
	world = theirs;
	run_kill("free theirs",
		 (struct step_case){.prepare = attach_only, .operation = do_free_theirs}, all,
		 true);
}

TEST_TIMEOUT(heap_arena_kill, free_of_a_span_that_is_named, 240)
{
	world = theirs;
	run_kill("free named",
		 (struct step_case){
			 .prepare = attach_only, .operation = do_free_named, .check = judge_named},
		 all, true);
}

TEST_TIMEOUT(heap_arena_kill, free_apart, 240)
{
	world = theirs;
	run_kill("apart", (struct step_case){.prepare = attach_only, .operation = do_free_apart},
		 all, true);
}

TEST_TIMEOUT(heap_arena_pause, free_of_a_span_that_is_named, 240)
{
	world = theirs;
	run_pause("free named",
		  (struct step_case){.prepare = attach_only, .operation = do_free_named},
		  (struct step_options){.dense = 50, .stride = 7});
}

/* The survivor has a span in its cache, which the victim steals. */
static void make_cached(void *context)
{
	struct world *w = context;
	void *block;

	make(context);
	block = shale_alloc(w->segment, 9 * SLAB_SIZE);
	ASSERT_NOT_NULL(block);
	memset(block, 0x66, 9 * SLAB_SIZE);
	ASSERT_OK(shale_free(w->segment, block));
}

/* The survivor takes from its cache first: what was stolen from it must not be there. */
static int judge_stolen(void *context)
{
	struct world *w = context;
	void *block = shale_alloc(w->segment, 9 * SLAB_SIZE);

	ASSERT_NOT_NULL(block);
	heap_expect_clean(w->segment);
	ASSERT_OK(shale_free(w->segment, block));
	return judge(context);
}

static void run_steal(bool pause)
{
	struct step_case step = {.name = "steal",
				 .setup = make_cached,
				 .prepare = attach_only,
				 .operation = do_steal,
				 .rival = rival,
				 .check = judge_stolen,
				 .ctx = &world};
	struct step_options options = {.dense = 100, .stride = pause ? 37 : 11, .limit_ms = 20000};
	struct step_result result;

	world = some_room;
	world.resized = world.slabs;
	if (pause)
		step_pause(&step, &options, &result);
	else
		step_kill(&step, &options, &result);
	TEST_LOG("steal: %llu points", (unsigned long long)result.points);
	EXPECT_TRUE(result.complete);
}

TEST_TIMEOUT(heap_arena_kill, steal_from_a_cache, 240)
{
	run_steal(false);
}

TEST_TIMEOUT(heap_arena_pause, steal_from_a_cache, 240)
{
	run_steal(true);
}

/* -- resizing ------------------------------------------------------------------------------------- */

static const struct world grows = {.slabs = 2, .resized = 5, .published = true};

TEST_TIMEOUT(heap_arena_kill, grow_in_place, 240)
{
	world = grows;
	run_kill("grow", (struct step_case){.prepare = attach_only, .operation = do_resize}, all,
		 true);
}

TEST_TIMEOUT(heap_arena_pause, grow_in_place, 240)
{
	world = grows;
	run_pause("grow", (struct step_case){.prepare = attach_only, .operation = do_resize},
		  (struct step_options){.dense = 50, .stride = 17});
}

TEST_TIMEOUT(heap_arena_kill, grow_into_arenas_without_memory, 240)
{
	world = grows;
	world.resized = 70;
	run_kill("grow, commit", (struct step_case){.prepare = attach_only, .operation = do_resize},
		 (struct step_options){.dense = 50, .stride = 67}, true);
}

/* Not published: a block that the survivor has allocated and the victim resizes for it. */
static const struct world shrinks = {.slabs = 6, .resized = 2};

TEST_TIMEOUT(heap_arena_kill, shrink_in_place, 240)
{
	world = shrinks;
	run_kill("shrink", (struct step_case){.prepare = attach_only, .operation = do_resize}, all,
		 true);
}

TEST_TIMEOUT(heap_arena_pause, shrink_in_place, 240)
{
	world = shrinks;
	run_pause("shrink", (struct step_case){.prepare = attach_only, .operation = do_resize},
		  (struct step_options){.dense = 50, .stride = 17});
}
