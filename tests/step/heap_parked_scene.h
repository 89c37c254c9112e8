/*
 * heap_parked_scene.h - a segment whose slabs of 20 KiB blocks, three to a slab, are parked, and how it is
 * judged: every known block is freed, a trim gives everything back, nothing may be left committed.
 */
#ifndef SHALE_TESTS_STEP_HEAP_PARKED_SCENE_H
#define SHALE_TESTS_STEP_HEAP_PARKED_SCENE_H

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "heap/heap_lane.h"
#include "heap/slab.h"
#include "heaps.h"
#include "segment/lanes.h"
#include "step.h"

enum { SIZE = 20000, PER_SLAB = 3, BLOCKS_MAX = 1000 };

struct world {
	struct shale_segment *segment;
	void **blocks; /* in memory that all processes of a scene share */
	uint64_t before;
	uint64_t after;
	uint64_t slab; /* the one that it is about */
	bool taken;    /* ... must be free in the end, without a trim */
};

static struct world world;

static inline uint64_t slab_of(const struct world *w, unsigned block)
{
	return slab_of_offset(w->segment, shale_ref_of(w->segment, w->blocks[block]).off);
}

static inline enum slab_state state_of(const struct world *w, uint64_t slab)
{
	return slab_word_state(*slab_word(w->segment, slab));
}

/* Blocks [from, to) of the calling process, published. */
static inline void fill(struct world *w, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++) {
		ASSERT_NOT_NULL(w->blocks[i] = shale_alloc(w->segment, SIZE));
		ASSERT_OK(shale_publish(w->segment, w->blocks[i]));
	}
}

static inline void make(void *context)
{
	struct world *w = context;

	w->segment = heap_segment(16u << 20, SHALE_PAGES_4K);
	/* the segment is shared by all that are forked from here, and the list lies in it */
	w->blocks = shale_alloc_zeroed(w->segment, BLOCKS_MAX * sizeof(void *));
	ASSERT_OK(shale_publish(w->segment, w->blocks));
	w->taken = false;
}

/* One parked slab of the scene's: blocks 0, 1 and 2; 3 is in the next one. */
static inline void make_parked(void *context)
{
	struct world *w = context;

	make(context);
	fill(w, 0, PER_SLAB + 1);
	w->slab = slab_of(w, 0);
	ASSERT_EQ(state_of(w, w->slab), SLAB_PARKED);
	w->before = w->after = PER_SLAB + 2;
}

static inline void expect_nothing_left(struct world *w)
{
	for (unsigned i = 0; i < BLOCKS_MAX; i++)
		if (w->blocks[i] && shale_usable_size(w->segment, w->blocks[i]) != 0)
			EXPECT_OK(shale_free(w->segment, w->blocks[i]));
	EXPECT_EQ(heap_counts(w->segment).live_blocks, 1);
	EXPECT_OK(shale_free(w->segment, w->blocks));
	EXPECT_GE(shale_trim(w->segment, 0), 0);
	EXPECT_EQ(heap_counts(w->segment).committed_bytes, 0);
	EXPECT_EQ(shale_check(w->segment, heap_finding, NULL), 0);
}

static inline int judge(void *context)
{
	struct world *w = context;
	uint64_t live;
	int outcome;

	EXPECT_GE(shale_recover(w->segment), 0);
	EXPECT_EQ(shale_check(w->segment, heap_finding, NULL), 0);
	live = heap_counts(w->segment).live_blocks;
	if (live != w->before && live != w->after) {
		TEST_LOG("%llu live blocks", (unsigned long long)live);
		return -1;
	}
	outcome = w->before != w->after && live == w->after;
	if (w->taken && live == w->after && state_of(w, w->slab) != SLAB_FREE) {
		TEST_LOG("the slab is in state %d", state_of(w, w->slab));
		return -1;
	}
	expect_nothing_left(w);
	return test_has_failed() ? -1 : outcome;
}

static inline void attach_only(void *context)
{
	struct world *w = context;
	void *block = shale_alloc(w->segment, 16);

	ASSERT_NOT_NULL(block);
	ASSERT_OK(shale_free(w->segment, block));
}

static inline void run(bool kill, const char *name, struct step_case step,
		       struct step_options options)
{
	struct step_result result;

	step.name = name;
	step.ctx = &world;
	if (!step.check)
		step.check = judge;
	options.limit_ms = 20000;
	if (kill)
		step_kill(&step, &options, &result);
	else
		step_pause(&step, &options, &result);
	TEST_LOG("%s: %llu instructions, %llu points, outcomes %llu/%llu", name,
		 (unsigned long long)result.instructions, (unsigned long long)result.points,
		 (unsigned long long)result.outcomes[0], (unsigned long long)result.outcomes[1]);
	EXPECT_TRUE(result.complete);
	EXPECT_GT(result.points, 0);
	EXPECT_EQ(result.problems, 0);
}

#endif
