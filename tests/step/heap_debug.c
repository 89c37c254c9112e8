/*
 * heap_debug.c - allocating and freeing in a debug segment, killed at each instruction.
 *
 * A guarded block is a span with a card and two guards, others have a trailer: whatever of it a death
 * leaves, recovery frees what was not published, and nobody is blamed for a bad write.
 */
#include <string.h>

#include <shale/debug.h>

#include "heaps.h"
#include "step.h"

struct world {
	struct shale_segment *segment;
	uint32_t debug;
	void *block;
	void *theirs;
	uint64_t before; /* live blocks of the survivor */
	uint64_t after;
};

static struct world world;

static void make(void *context)
{
	struct world *w = context;
	struct shale_segment_options options = {
		.size = sizeof(options),
		.capacity_bytes = 16u << 20,
		.pages = SHALE_PAGES_4K,
		.debug = w->debug,
		.guard_sample = 1,
	};

	ASSERT_OK(shale_segment_create(&options, &w->segment));
	w->theirs = shale_alloc(w->segment, 100);
	ASSERT_NOT_NULL(w->theirs);
	ASSERT_OK(shale_publish(w->segment, w->theirs));
	w->before = 1;
	w->after = 1;
}

static void make_freed(void *context)
{
	make(context);
	world.after = 0;
}

static void warm(void *context)
{
	struct world *w = context;

	w->block = shale_alloc(w->segment, 100);
	ASSERT_NOT_NULL(w->block);
}

static void do_alloc(void *context)
{
	struct world *w = context;

	w->block = shale_alloc(w->segment, 100);
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

static int judge(void *context)
{
	struct world *w = context;
	struct shale_debug_figures figures = {.size = sizeof(figures)};
	uint64_t live;

	EXPECT_GE(shale_recover(w->segment), 0);
	EXPECT_EQ(shale_check(w->segment, heap_finding, NULL), 0);
	live = heap_counts(w->segment).live_blocks;
	EXPECT_TRUE(live == w->before || live == w->after);
	for (unsigned i = 0; i < 20; i++) {
		void *block = shale_alloc(w->segment, 100);

		ASSERT_NOT_NULL(block);
		memset(block, 1, 100);
	}
	EXPECT_EQ(heap_counts(w->segment).live_blocks, live + 20);
	ASSERT_OK(shale_debug_stat(w->segment, &figures));
	EXPECT_EQ(figures.writes_after_free + figures.writes_behind_end, 0);
	return test_has_failed() ? -1 : (int)(live == w->after);
}

static void run(const struct test_variant *variant, struct step_case step)
{
	struct step_options options = {.dense = 100, .stride = 37};
	struct step_result result;

	world.debug = (uint32_t)variant->value;
	step.name = variant->name;
	step.check = judge;
	step.ctx = &world;
	if (!step.setup)
		step.setup = make;
	step_kill(&step, &options, &result);
	TEST_LOG("%llu instructions, %llu kills", (unsigned long long)result.instructions,
		 (unsigned long long)result.points);
	EXPECT_TRUE(result.complete);
	EXPECT_EQ(result.problems, 0);
}

VARIANT_SET(aids) = {{"poison", SHALE_DEBUG_POISON, NULL}, {"guard", SHALE_DEBUG_GUARD, NULL}};

TEST_V_TIMEOUT(heap_debug_kill, alloc, aids, 240)
{
	run(variant, (struct step_case){.prepare = warm, .operation = do_alloc});
}

TEST_V_TIMEOUT(heap_debug_kill, free_of_ones_own_block, aids, 240)
{
	run(variant, (struct step_case){.prepare = warm, .operation = do_free});
}

/* A guarded one keeps the guards of the survivor, who takes them away at its next allocation. */
TEST_V_TIMEOUT(heap_debug_kill, free_of_anothers_block, aids, 240)
{
	run(variant,
	    (struct step_case){.setup = make_freed, .prepare = warm, .operation = do_free_theirs});
}
