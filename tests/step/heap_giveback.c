/*
 * What a keeper does, and a pin, killed and paused at each instruction.
 *
 * The scene has four empty arenas, old enough to go, and a published block in a fifth. The victim, a
 * peer of its own, returns them as a keeper's round does. Afterwards every arena is either committed
 * or back, the checker is content, and all of the segment can be used.
 */
#include <string.h>

#include <shale/keeper.h>

#include "heap/giveback.h"
#include "heap/heap_lane.h"
#include "heap/pin.h"
#include "heap/slab.h"
#include "heap/span_cache.h"
#include "heaps.h"
#include "step.h"

#define ARENA ((size_t)ARENA_SIZE)
enum { ARENAS = 8, EMPTY = 4 };

struct world {
	struct shale_segment *segment;
	unsigned char *block;
	struct lane *lane; /* the victim's */
	struct os_uring ring;
	bool uring;
};

static struct world world;

static void make(void *context)
{
	struct world *w = context;
	void *much;

	giveback_test_clock(1000);
	w->segment = heap_segment(ARENAS * ARENA, SHALE_PAGES_4K);
	much = shale_alloc(w->segment, EMPTY * ARENA);
	w->block = shale_alloc(w->segment, 5000);
	ASSERT_NOT_NULL(much);
	ASSERT_OK(shale_publish(w->segment, w->block));
	memset(w->block, 7, 5000);
	ASSERT_OK(shale_free(w->segment, much));
	ASSERT_OK(lane_enter(w->segment, &w->lane));
	(void)span_steal_cached(w->lane, true);
	ASSERT_EQ(heap_counts(w->segment).committed_bytes, (EMPTY + 1) * ARENA);
}

static void prepare(void *context)
{
	struct world *w = context;
	void *block = shale_alloc(w->segment, 100);

	ASSERT_NOT_NULL(block);
	ASSERT_OK(shale_free(w->segment, block));
	ASSERT_OK(lane_enter(w->segment, &w->lane));
	if (w->uring && os_uring_open(&w->ring) < 0)
		w->uring = false; /* then it is the same by calls */
}

static void do_round(void *context)
{
	struct world *w = context;
	struct giveback_wish wish = {
		.decay_ms = 1000, .keep = 1, .ring = w->uring ? &w->ring : NULL};
	struct giveback_done done;

	giveback_test_clock(100000); /* not before: a tick would return them */
	giveback_arenas(w->lane, &wish, &done);
}

/* All that is free can be had, and is zero or what somebody wrote, never a hole that is said to be there. */
static void use_everything(struct world *w)
{
	unsigned char *all = NULL;

	for (size_t arenas = ARENAS - 1; arenas >= 1 && !all; arenas--) {
		all = shale_alloc(w->segment, arenas * ARENA);
		/* the block's arena may lie between */
		EXPECT_TRUE(all || arenas > EMPTY - 1);
		if (all)
			memset(all, 9, arenas * ARENA);
	}
	ASSERT_NOT_NULL(all);
	for (size_t i = 0; i < 5000; i++)
		ASSERT_EQ(w->block[i], 7);
	ASSERT_OK(shale_free(w->segment, all));
}

static int judge(void *context)
{
	struct world *w = context;
	uint64_t committed;

	EXPECT_GE(shale_recover(w->segment), 0);
	EXPECT_EQ(shale_check(w->segment, heap_finding, NULL), 0);
	committed = heap_counts(w->segment).committed_bytes / ARENA;
	for (unsigned arena = 0; arena < ARENAS; arena++)
		EXPECT_TRUE(arena >= view_arena_high(w->segment) ||
			    (heap_arena(w->segment, arena)->state & SLAB_STATE_MASK) <=
				    ARENA_COMMITTED);
	EXPECT_EQ(heap_counts(w->segment).live_blocks, 1);
	use_everything(w);
	EXPECT_GE(shale_trim(w->segment, 0), 0);
	EXPECT_EQ(heap_counts(w->segment).committed_bytes, ARENA);
	EXPECT_EQ(shale_check(w->segment, heap_finding, NULL), 0);
	return test_has_failed() ? -1 : (int)committed;
}

VARIANT_SET(ways) = {{"call", 0, NULL}, {"uring", 1, NULL}};

TEST_V_TIMEOUT(giveback_kill, a_round_that_returns_arenas, ways, 300)
{
	struct step_case step = {.name = "round",
				 .setup = make,
				 .prepare = prepare,
				 .operation = do_round,
				 .check = judge,
				 .ctx = &world};
	struct step_options options = {.dense = 60, .stride = 29};
	struct step_result result;

	world.uring = variant->value != 0;
	step_kill(&step, &options, &result);
	TEST_LOG("%llu instructions, %llu kills, %u outcomes",
		 (unsigned long long)result.instructions, (unsigned long long)result.points,
		 result.distinct);
	EXPECT_TRUE(result.complete);
	/* none returned, all but the kept one, and with single calls those between */
	EXPECT_GT(result.outcomes[EMPTY + 1], 0);
	EXPECT_GT(result.outcomes[2], 0);
}

/* -- a pin --------------------------------------------------------------------------------------- */

static unsigned char *arena_bytes(const struct world *w, unsigned arena)
{
	return (unsigned char *)view_at(w->segment, w->segment->heap_offset) + arena * ARENA;
}

static void do_pin(void *context)
{
	struct world *w = context;

	(void)shale_pin(w->segment, arena_bytes(w, 1), 2 * ARENA);
	(void)shale_unpin(w->segment, arena_bytes(w, 1), 2 * ARENA);
}

static int judge_pins(void *context)
{
	struct world *w = context;

	EXPECT_GE(shale_recover(w->segment), 0);
	for (unsigned arena = 0; arena < ARENAS; arena++)
		EXPECT_FALSE(arena_is_pinned(w->segment, arena));
	return judge(context);
}

TEST_TIMEOUT(giveback_kill, pin_and_unpin, 120)
{
	struct step_case step = {.name = "pin",
				 .setup = make,
				 .prepare = prepare,
				 .operation = do_pin,
				 .check = judge_pins,
				 .ctx = &world};
	struct step_options options = {.dense = 30, .stride = 5};
	struct step_result result;

	step_kill(&step, &options, &result);
	EXPECT_TRUE(result.complete);
}

/* -- pauses -------------------------------------------------------------------------------------- */

static void rival_allocates(void *context)
{
	struct world *w = context;

	for (unsigned i = 0; i < 50; i++) {
		size_t size = i % 5 ? 30000 : ARENA + 1000;
		unsigned char *block = shale_alloc(w->segment, size);

		ASSERT_NOT_NULL(block);
		memset(block, 3, size);
		ASSERT_OK(shale_free(w->segment, block));
	}
	EXPECT_OK(shale_segment_detach(w->segment));
}

TEST_V_TIMEOUT(giveback_pause, others_allocate_meanwhile, ways, 300)
{
	struct step_case step = {.name = "round",
				 .setup = make,
				 .prepare = prepare,
				 .operation = do_round,
				 .rival = rival_allocates,
				 .check = judge,
				 .ctx = &world};
	struct step_options options = {.dense = 30, .stride = 53, .limit_ms = 20000};
	struct step_result result;

	world.uring = variant->value != 0;
	step_pause(&step, &options, &result);
	EXPECT_TRUE(result.complete);
	EXPECT_EQ(result.stuck, 0);
}

/*
 * The rival pins an arena. If that succeeds, what a device writes there is seen, whatever the one who
 * gives back does when he goes on. The rival dies with its pin, which holds until it is recovered.
 */
static void rival_pins(void *context)
{
	struct world *w = context;

	if (shale_pin(w->segment, arena_bytes(w, 2), 1) == 0)
		arena_bytes(w, 2)[4096] = 77;
}

static int judge_pinned(void *context)
{
	struct world *w = context;
	bool pinned = arena_is_pinned(w->segment, 2);

	if (pinned) {
		EXPECT_EQ(heap_arena(w->segment, 2)->state & SLAB_STATE_MASK, ARENA_COMMITTED);
		EXPECT_EQ(arena_bytes(w, 2)[4096], 77);
		EXPECT_GE(shale_trim(w->segment, 0), 0);
		EXPECT_EQ(arena_bytes(w, 2)[4096], 77);
	}
	return judge(context) < 0 ? -1 : pinned;
}

TEST_TIMEOUT(giveback_pause, somebody_pins_meanwhile, 300)
{
	struct step_case step = {.name = "round",
				 .setup = make,
				 .prepare = prepare,
				 .operation = do_round,
				 .rival = rival_pins,
				 .check = judge_pinned,
				 .ctx = &world};
	struct step_options options = {.dense = 1, .stride = 61, .limit_ms = 20000};
	struct step_result result;

	world.uring = false;
	step_pause(&step, &options, &result);
	TEST_LOG("%llu pauses, pinned in %llu", (unsigned long long)result.points,
		 (unsigned long long)result.outcomes[1]);
	EXPECT_TRUE(result.complete);
	EXPECT_GT(result.outcomes[0], 0);
	EXPECT_GT(result.outcomes[1], 0);
}

/* The other way round: the pinner stands still, and the arenas are returned under its eyes. */
static void rival_returns(void *context)
{
	struct world *w = context;

	ASSERT_OK(lane_enter(w->segment, &w->lane));
	do_round(context);
}

static void do_pin_and_write(void *context)
{
	rival_pins(context);
}

TEST_TIMEOUT(giveback_pause, arenas_go_while_somebody_pins, 300)
{
	struct step_case step = {.name = "pin",
				 .setup = make,
				 .prepare = prepare,
				 .operation = do_pin_and_write,
				 .rival = rival_returns,
				 .check = judge_pinned,
				 .ctx = &world};
	struct step_options options = {.dense = 300, .stride = 3, .limit_ms = 20000};
	struct step_result result;

	world.uring = false;
	step_pause(&step, &options, &result);
	TEST_LOG("%llu pauses, pinned in %llu", (unsigned long long)result.points,
		 (unsigned long long)result.outcomes[1]);
	EXPECT_TRUE(result.complete);
	EXPECT_GT(result.outcomes[0], 0);
	EXPECT_GT(result.outcomes[1], 0);
}
