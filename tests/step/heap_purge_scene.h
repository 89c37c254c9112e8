/*
 * heap_purge_scene.h - an arena that is worth purging, and what may happen to it.
 *
 * One arena: four slabs that the survivor has filled, thinned and parked, four orphans of a peer that
 * was killed, the rest free. The blocks that were kept are in a table that all processes share; each is
 * full of its number, and set to NULL by who frees it for good.
 */
#ifndef SHALE_TESTS_STEP_HEAP_PURGE_SCENE_H
#define SHALE_TESTS_STEP_HEAP_PURGE_SCENE_H

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "heap/heap_lane.h"
#include "heap/purge.h"
#include "heap/slab.h"
#include "heap/sparse.h"
#include "heaps.h"
#include "step.h"

enum { SLABS = 4, BLOCKS_MAX = SLABS * 600, KEPT_MAX = 64 };

struct table {
	unsigned char *block; /* the victim's own; it may be published or not */
	unsigned count;
	unsigned char *kept[KEPT_MAX];
};

struct world {
	struct shale_segment *segment;
	struct table *table; /* shared by all processes of the scene */
	size_t size;
	unsigned keep; /* every so many blocks one is kept */
};

static struct world world;

static inline struct lane *my_lane(struct world *w)
{
	struct lane *lane;

	ASSERT_OK(lane_enter(w->segment, &lane));
	return lane;
}

/* Fills `slabs` slabs, keeps and publishes a few blocks, frees the rest, parks the slabs. */
static inline void populate(struct world *w, unsigned slabs)
{
	unsigned count = slabs * (unsigned)(SLAB_SIZE / w->size);
	unsigned char *blocks[BLOCKS_MAX];

	ASSERT_LE(count, BLOCKS_MAX);
	for (unsigned i = 0; i < count; i++)
		ASSERT_NOT_NULL(blocks[i] = shale_alloc(w->segment, w->size));
	for (unsigned i = 0; i < count; i++) {
		struct table *table = w->table;

		if (i % w->keep != w->keep / 2) {
			ASSERT_OK(shale_free(w->segment, blocks[i]));
			continue;
		}
		ASSERT_LT(table->count, KEPT_MAX);
		memset(blocks[i], (int)table->count + 1, w->size);
		table->kept[table->count++] = blocks[i];
		ASSERT_OK(shale_publish(w->segment, blocks[i]));
	}
	slab_close_all(my_lane(w));
}

static inline void make_orphans(struct world *w)
{
	pid_t pid = test_fork();

	ASSERT_SYS(pid);
	if (pid == 0) {
		populate(w, SLABS);
		(void)raise(SIGKILL);
	}
	ASSERT_EQ(waitpid(pid, NULL, 0), pid);
	ASSERT_EQ(shale_recover(w->segment), 1);
}

static inline void make_without_orphans(void *context)
{
	struct world *w = context;

	/* room for another arena: a purger that stands still keeps this one from being allocated from */
	w->segment = heap_segment(4u << 20, SHALE_PAGES_4K);
	w->table = mmap(NULL, sizeof(*w->table), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	ASSERT_TRUE(w->table != MAP_FAILED);
	populate(w, SLABS);
}

static inline void make(void *context)
{
	make_without_orphans(context);
	make_orphans(context);
}

static inline void purge_now(struct world *w)
{
	const struct purge_limits limits = {.facts = true};

	slab_close_all(my_lane(w));
	ASSERT_GE(purge_run(my_lane(w), &limits), 0);
}

static inline void make_purged(void *context)
{
	make(context);
	purge_now(context);
}

static inline unsigned kept_now(const struct world *w)
{
	unsigned count = 0;

	for (unsigned i = 0; i < w->table->count; i++)
		count += w->table->kept[i] != NULL;
	return count;
}

static inline void expect_whole(const struct world *w)
{
	for (unsigned i = 0; i < w->table->count; i++)
		for (size_t b = 0; w->table->kept[i] && b < w->size; b++)
			ASSERT_EQ(w->table->kept[i][b], i + 1);
}

static inline unsigned sparse_slabs(struct world *w)
{
	unsigned count = 0;

	for (unsigned s = 0; s < SLABS_PER_ARENA; s++) {
		uint64_t word = heap_arena(w->segment, 0)->word[s];

		count += slab_word_let_go(word) && (word & SLAB_SPARSE);
	}
	return count;
}

/* The victim is gone: what it had published lives on. */
static inline void free_block(struct world *w)
{
	if (w->table->block && shale_usable_size(w->segment, w->table->block) != 0)
		ASSERT_OK(shale_free(w->segment, w->table->block));
}

/* All that is live is in the table; it is whole, and the segment works. */
static inline void judge_rest(struct world *w)
{
	void *block;

	free_block(w);
	EXPECT_EQ(heap_counts(w->segment).live_blocks, kept_now(w));
	expect_whole(w);
	for (unsigned i = 0; i < 100; i++) {
		ASSERT_NOT_NULL(block = shale_alloc(w->segment, w->size));
		memset(block, 0xcc, w->size);
	}
	expect_whole(w);
	EXPECT_EQ(shale_check(w->segment, heap_finding, NULL), 0);
	for (unsigned i = 0; i < w->table->count; i++)
		if (w->table->kept[i])
			ASSERT_OK(shale_free(w->segment, w->table->kept[i]));
	EXPECT_EQ(heap_counts(w->segment).live_blocks, 100);
	EXPECT_EQ(heap_arena(w->segment, 0)->lease, 0);
	purge_now(w);
	EXPECT_EQ(shale_check(w->segment, heap_finding, NULL), 0);
}

/* Outcome: how many slabs are sparse, in steps of the groups that share a page of facts. */
static inline int judge(void *context)
{
	struct world *w = context;
	int outcome;

	EXPECT_GE(shale_recover(w->segment), 0);
	EXPECT_EQ(shale_check(w->segment, heap_finding, NULL), 0);
	outcome = (int)(sparse_slabs(w) + 3) / 4;
	judge_rest(w);
	return test_has_failed() ? -1 : outcome;
}

/* The victim's last operation was to free kept[0]: it has or it has not. */
static inline int judge_free(void *context)
{
	struct world *w = context;
	bool freed;

	EXPECT_GE(shale_recover(w->segment), 0);
	EXPECT_EQ(shale_check(w->segment, heap_finding, NULL), 0);
	freed = shale_usable_size(w->segment, w->table->kept[0]) == 0;
	if (freed)
		w->table->kept[0] = NULL;
	judge_rest(w);
	return test_has_failed() ? -1 : freed;
}

/* 1: the block that the victim was publishing lives on. */
static inline int judge_published(void *context)
{
	struct world *w = context;
	int published;

	EXPECT_GE(shale_recover(w->segment), 0);
	published = shale_usable_size(w->segment, w->table->block) != 0;
	return judge(context) < 0 ? -1 : published;
}

/* -- what a victim does --------------------------------------------------------------------------- */

static inline void attach_only(void *context)
{
	(void)my_lane(context);
}

static inline void do_purge(void *context)
{
	const struct purge_limits limits = {.facts = true};
	struct world *w = context;

	(void)purge_run(my_lane(w), &limits);
}

static inline void do_alloc(void *context)
{
	struct world *w = context;

	(void)shale_alloc(w->segment, w->size);
}

static inline void do_free(void *context)
{
	struct world *w = context;

	(void)shale_free(w->segment, w->table->kept[0]);
}

static inline void do_publish(void *context)
{
	struct world *w = context;

	(void)shale_publish(w->segment, w->table->block);
}

static inline void do_recover(void *context)
{
	struct world *w = context;

	(void)shale_recover(w->segment);
}

/* Blocks of the victim's own in slabs that it has parked; not one of them is published. */
static inline void park_own(void *context)
{
	struct world *w = context;
	unsigned char *blocks[64];

	for (unsigned i = 0; i < 64; i++)
		ASSERT_NOT_NULL(blocks[i] = shale_alloc(w->segment, w->size));
	for (unsigned i = 1; i < 64; i++)
		ASSERT_OK(shale_free(w->segment, blocks[i]));
	w->table->block = blocks[0];
	slab_close_all(my_lane(w));
}

/* As park_own(), and the LIFOs are full, so that a free reopens nothing; nobody allocates from them. */
static inline void park_own_for_good(void *context)
{
	struct world *w = context;

	park_own(context);
	for (unsigned index = 0; index < BIN_COUNT; index++) {
		struct heap_bin *bin = heap_bin(my_lane(w), index);

		bin->top = heap_lifo_base(bin) + HEAP_LIFO_SLOTS - 1;
		bin->open_count = HEAP_OPEN_FEW;
		ASSERT_FALSE(heap_opens(bin));
	}
}

/*
 * Blocks 255, 256 and 257 of a parked slab of the victim's own: read as an entry of sparse facts, their
 * dense ones name block 257.
 */
static inline void park_own_that_look_sparse(void *context)
{
	struct world *w = context;
	unsigned count = (unsigned)(SLAB_SIZE / w->size);
	unsigned char *blocks[600];

	for (unsigned i = 0; i < count; i++)
		ASSERT_NOT_NULL(blocks[i] = shale_alloc(w->segment, w->size));
	for (unsigned i = 0; i < count; i++)
		if (i < 255 || i > 257)
			ASSERT_OK(shale_free(w->segment, blocks[i]));
	w->table->block = blocks[257];
	ASSERT_EQ((uint64_t)(blocks[257] - blocks[0]), 257 * w->size);
	ASSERT_EQ((shale_ref_of(w->segment, blocks[0]).off % SLAB_SIZE), 0);
	slab_close_all(my_lane(w));
}

static inline void park_own_and_purge(void *context)
{
	park_own(context);
	purge_now(context);
}

static inline void do_free_own(void *context)
{
	struct world *w = context;

	(void)shale_free(w->segment, w->table->block);
}

/* -- killing it ------------------------------------------------------------------------------------ */

VARIANT_SET(sizes) = {{"1536", 1536, NULL}, {"112", 112, NULL}};

static inline void world_init(size_t size)
{
	world = (struct world){.size = size, .keep = (unsigned)(SLAB_SIZE / size / 3)};
}

static inline void run_kill(const char *name, struct step_case step, struct step_options options,
			    unsigned outcomes)
{
	struct step_result result;
	unsigned different = 0;

	step.name = name;
	step.ctx = &world;
	if (!step.check)
		step.check = judge;
	step_kill(&step, &options, &result);
	TEST_LOG("%s: %llu instructions, %llu kills, outcomes %llu/%llu/%llu", name,
		 (unsigned long long)result.instructions, (unsigned long long)result.points,
		 (unsigned long long)result.outcomes[0], (unsigned long long)result.outcomes[1],
		 (unsigned long long)result.outcomes[2]);
	EXPECT_TRUE(result.complete);
	for (unsigned i = 0; i < STEP_OUTCOMES; i++)
		different += result.outcomes[i] > 0;
	EXPECT_GE(different, outcomes);
}

#endif
