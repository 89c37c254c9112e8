/* Spans: growing and shrinking where they lie, the lane's cache, alignment, zeroes, where they come from. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "heap/arena.h"
#include "heap/heap_lane.h"
#include "heap/large.h"
#include "heap/rank.h"
#include "heap/slab.h"
#include "heap/span_cache.h"
#include "heaps.h"
#include "segment/lanes.h"

#define SLAB  SLAB_SIZE
#define ARENA ARENA_SIZE

static struct lane *my_lane(struct shale_segment *segment)
{
	struct lane *lane;

	ASSERT_OK(lane_enter(segment, &lane));
	return lane;
}

static uint64_t offset_of(struct shale_segment *segment, const void *ptr)
{
	return shale_ref_of(segment, ptr).off - segment->heap_offset;
}

static void finish(struct shale_segment *segment)
{
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

VARIANT_SET(pages) = {{"4k", SHALE_PAGES_4K, NULL}, {"private", SHALE_PAGES_PRIVATE, NULL}};

TEST_V(span_resize, grows_where_it_lies, pages)
{
	struct shale_segment *segment = heap_segment(8 * ARENA, (enum shale_pages)variant->value);
	unsigned char *span = shale_alloc(segment, 2 * SLAB);

	ASSERT_NOT_NULL(span);
	memset(span, 7, 2 * SLAB);
	/* in its arena, into arenas without memory, and to the end of the segment */
	for (uint64_t size = 3 * SLAB; size <= 8 * ARENA; size += 11 * SLAB) {
		ASSERT_PTR_EQ(shale_resize(segment, span, size), span);
		EXPECT_EQ(shale_usable_size(segment, span), round_up(size, SLAB));
		span[size - 1] = 8;
		EXPECT_EQ(span[2 * SLAB - 1], 7);
	}
	EXPECT_NULL(shale_resize(segment, span, 8 * ARENA + 1));
	EXPECT_EQ(errno, ENOMEM);
	EXPECT_EQ(heap_counts(segment).live_blocks, 1);
	ASSERT_OK(shale_free(segment, span));
	EXPECT_EQ(heap_counts(segment).live_bytes, 0);
	finish(segment);
}

TEST_V(span_resize, moves_when_there_is_somebody_in_the_way, pages)
{
	struct shale_segment *segment = heap_segment(8 * ARENA, (enum shale_pages)variant->value);
	unsigned char *span = shale_alloc(segment, 2 * SLAB), *next = shale_alloc(segment, SLAB);
	unsigned char *moved;

	ASSERT_EQ(offset_of(segment, next), offset_of(segment, span) + 2 * SLAB);
	memset(span, 7, 2 * SLAB);
	moved = shale_resize(segment, span, 3 * SLAB);
	ASSERT_NOT_NULL(moved);
	EXPECT_PTR_NE(moved, span);
	EXPECT_EQ(moved[2 * SLAB - 1], 7);
	EXPECT_EQ(heap_counts(segment).live_blocks, 2);
	finish(segment);
}

TEST_V(span_resize, gives_its_tail_back, pages)
{
	struct shale_segment *segment = heap_segment(4 * ARENA, (enum shale_pages)variant->value);
	unsigned char *span = shale_alloc(segment, 4 * ARENA);

	ASSERT_NOT_NULL(span);
	span[0] = 7;
	EXPECT_NULL(shale_alloc(segment, SLAB));
	EXPECT_PTR_EQ(shale_resize(segment, span, 3 * SLAB), span);
	EXPECT_EQ(shale_usable_size(segment, span), 3 * SLAB);
	EXPECT_EQ(heap_counts(segment).live_bytes, 3 * SLAB);
	EXPECT_GE(shale_trim(segment, 0), 3 * ARENA);
	EXPECT_NOT_NULL(shale_alloc(segment, 4 * ARENA - 3 * SLAB));
	/* a little slack stays: no tail of less than a quarter goes */
	EXPECT_PTR_EQ(shale_resize(segment, span, 3 * SLAB - 1), span);
	/* and what is small becomes a small block, when there is room for one */
	EXPECT_PTR_EQ(shale_resize(segment, span, 100), span);
	EXPECT_EQ(shale_usable_size(segment, span), SLAB);
	EXPECT_PTR_NE(shale_resize(segment, span, 100), span);
	finish(segment);
}

TEST(span_resize, of_a_published_span_never_moves_it)
{
	struct shale_segment *segment = heap_segment(4 * ARENA, SHALE_PAGES_4K);
	unsigned char *span = shale_alloc(segment, 2 * SLAB), *next;

	ASSERT_OK(shale_publish(segment, span));
	EXPECT_PTR_EQ(shale_resize(segment, span, 4 * SLAB), span);
	EXPECT_EQ(shale_usable_size(segment, span), 4 * SLAB);
	next = shale_alloc(segment, SLAB);
	ASSERT_EQ(offset_of(segment, next), offset_of(segment, span) + 4 * SLAB);
	EXPECT_NULL(shale_resize(segment, span, 5 * SLAB));
	EXPECT_EQ(errno, EBUSY);
	EXPECT_PTR_EQ(shale_resize(segment, span, 1), span);
	EXPECT_EQ(shale_usable_size(segment, span), 4 * SLAB);
	finish(segment);
}

/* -- the cache ------------------------------------------------------------------------------------ */

TEST(span_cache, gives_the_same_span_again)
{
	struct shale_segment *segment = heap_segment(8 * ARENA, SHALE_PAGES_4K);
	void *span = shale_alloc(segment, 10 * SLAB);

	ASSERT_OK(shale_free(segment, span));
	EXPECT_ERRNO(-EALREADY, shale_free(segment, span));
	EXPECT_EQ(heap_counts(segment).live_blocks, 0);
	EXPECT_PTR_EQ(shale_alloc(segment, 9 * SLAB), span);
	EXPECT_EQ(shale_usable_size(segment, span), 10 * SLAB);
	ASSERT_OK(shale_free(segment, span));
	/* not for one that would waste more than a quarter, as long as there is another */
	EXPECT_PTR_NE(shale_alloc(segment, 5 * SLAB), span);
	finish(segment);
}

TEST(span_cache, holds_back_nothing)
{
	struct shale_segment *segment = heap_segment(4 * ARENA, SHALE_PAGES_4K);
	void *span = shale_alloc(segment, 4 * ARENA);

	ASSERT_OK(shale_free(segment, span));
	for (unsigned i = 0; i < 4 * SLABS_PER_ARENA; i++)
		ASSERT_NOT_NULL(shale_alloc(segment, 30000));
	finish(segment);
}

static void cache_in_child(struct shale_segment *segment, int ready, int go)
{
	void *span = shale_alloc(segment, 4 * ARENA);
	char byte;

	ASSERT_OK(shale_free(segment, span));
	ASSERT_EQ(write(ready, "", 1), 1);
	ASSERT_EQ(read(go, &byte, 1), 1);
	test_child_exit();
}

/* The other process is alive and does nothing: what it has cached is taken all the same. */
TEST(span_cache, of_a_sleeping_process_can_be_had)
{
	struct shale_segment *segment = heap_segment(4 * ARENA, SHALE_PAGES_4K);
	int ready[2], go[2];
	char byte;
	pid_t child;

	ASSERT_SYS(pipe(ready));
	ASSERT_SYS(pipe(go));
	child = test_fork();
	ASSERT_SYS(child);
	if (child == 0)
		cache_in_child(segment, ready[1], go[0]);
	ASSERT_EQ(read(ready[0], &byte, 1), 1);
	EXPECT_NOT_NULL(shale_alloc(segment, 3 * ARENA));
	for (unsigned i = 0; i < SLABS_PER_ARENA; i++)
		EXPECT_NOT_NULL(shale_alloc(segment, 30000));
	ASSERT_EQ(write(go[1], "", 1), 1);
	ASSERT_TRUE(test_join(child, 5000));
	finish(segment);
}

TEST(span_cache, keeps_no_more_than_its_limits)
{
	struct shale_segment *segment = heap_segment(128 * ARENA, SHALE_PAGES_PRIVATE);
	struct span_cache *cache = &heap_lane(my_lane(segment))->spans;
	void *spans[200];

	for (unsigned i = 0; i < 200; i++)
		ASSERT_NOT_NULL(spans[i] = shale_alloc(segment, (i % 19 + 1) * SLAB));
	for (unsigned i = 0; i < 200; i++) {
		ASSERT_OK(shale_free(segment, spans[i]));
		ASSERT_LE(__builtin_popcountll(cache->used), (int)SPAN_CACHE_SPANS);
		ASSERT_LE(cache->slabs, SPAN_CACHE_SLABS);
	}
	EXPECT_EQ(cache->used, UINT64_MAX);
	/* the newest are the ones that were kept */
	EXPECT_PTR_EQ(shale_alloc(segment, (199 % 19 + 1) * SLAB), spans[199]);
	EXPECT_EQ(heap_counts(segment).live_blocks, 1);
	finish(segment);
}

/* -- where spans and slabs come from --------------------------------------------------------------- */

TEST(spans, are_aligned_as_asked)
{
	struct shale_segment *segment = heap_segment(64 * ARENA, SHALE_PAGES_PRIVATE);

	for (uint64_t alignment = SLAB; alignment <= ARENA; alignment *= 2)
		for (unsigned slabs = 1; slabs < 80; slabs += 13) {
			void *span = shale_alloc_aligned(segment, slabs * SLAB, alignment);

			ASSERT_NOT_NULL(span);
			EXPECT_EQ(offset_of(segment, span) % alignment, 0);
			if (slabs % 2)
				ASSERT_OK(shale_free(segment, span));
		}
	finish(segment);
}

/* Live and used spans of one kind and another; whatever is given zeroed is zero. */
TEST_V(spans, are_zero_when_asked_for, pages)
{
	struct shale_segment *segment = heap_segment(64 * ARENA, (enum shale_pages)variant->value);
	unsigned char *blocks[16] = {NULL};

	for (unsigned i = 0; i < 400; i++) {
		unsigned slot = (unsigned)test_random_below(16);
		size_t size = (size_t)test_random_below(30 * SLAB) + 40000;

		if (blocks[slot])
			ASSERT_OK(shale_free(segment, blocks[slot]));
		blocks[slot] = shale_alloc_zeroed(segment, size);
		ASSERT_NOT_NULL(blocks[slot]);
		ASSERT_TRUE(blocks[slot][0] == 0 &&
			    memcmp(blocks[slot], blocks[slot] + 1, size - 1) == 0);
		memset(blocks[slot], 0xee, shale_usable_size(segment, blocks[slot]));
		if (i % 100 == 50)
			ASSERT_GE(shale_trim(segment, 0), 0);
	}
	finish(segment);
}

/* On private memory untouched pages are not there: what is fresh must not be written. */
TEST(spans, that_are_fresh_are_not_touched_for_zeroes)
{
	struct shale_segment *segment = heap_segment(16 * ARENA, SHALE_PAGES_PRIVATE);
	unsigned char *span = shale_alloc_zeroed(segment, 4 * ARENA);
	unsigned char resident[4 * ARENA / 4096];
	unsigned pages = 0;

	ASSERT_NOT_NULL(span);
	ASSERT_SYS(mincore(span, 4 * ARENA, resident));
	for (unsigned i = 0; i < sizeof(resident); i++)
		pages += resident[i] & 1;
	EXPECT_EQ(pages, 0);
	finish(segment);
}

TEST(arenas, the_fullest_gives_the_next_slab_and_an_empty_one_stays_so)
{
	struct shale_segment *segment = heap_segment(16 * ARENA, SHALE_PAGES_4K);
	void *spans[6][SLABS_PER_ARENA];
	struct lane *lane = my_lane(segment);
	static const unsigned left[6] = {32, 10, 0, 25, 31, 4};

	for (unsigned a = 0; a < 6; a++)
		for (unsigned i = 0; i < SLABS_PER_ARENA; i++)
			ASSERT_NOT_NULL(spans[a][i] = shale_alloc(segment, SLAB));
	for (unsigned a = 0; a < 6; a++)
		for (unsigned i = left[a]; i < SLABS_PER_ARENA; i++)
			ASSERT_OK(shale_free(segment, spans[a][i]));
	(void)span_steal_cached(lane, true);
	/* 1 + 7 + 22 + 28 slabs, the fullest first; the arena that is empty last */
	for (unsigned n = 0; n < 58; n++) {
		unsigned expected = n < 1 ? 4 : n < 8 ? 3 : n < 30 ? 1 : 5;
		void *block = shale_alloc(segment, SLAB);

		ASSERT_NOT_NULL(block);
		EXPECT_EQ(offset_of(segment, block) / ARENA, expected);
	}
	EXPECT_EQ(rank_update(segment, 2), RANK_EMPTY);
	EXPECT_EQ(heap_counts(segment).committed_bytes, 6 * ARENA);
	EXPECT_EQ(offset_of(segment, shale_alloc(segment, SLAB)) / ARENA, 2);
	finish(segment);
}

TEST(arenas, given_back_come_again_before_new_ones)
{
	struct shale_segment *segment = heap_segment(16 * ARENA, SHALE_PAGES_4K);
	void *first = shale_alloc(segment, ARENA), *second = shale_alloc(segment, ARENA);
	void *third = shale_alloc(segment, ARENA);

	ASSERT_NOT_NULL(first);
	ASSERT_NOT_NULL(third);
	ASSERT_OK(shale_free(segment, second));
	EXPECT_GE(shale_trim(segment, 0), ARENA);
	EXPECT_PTR_EQ(shale_alloc(segment, ARENA), second);
	EXPECT_EQ(view_arena_high(segment), 3);
	finish(segment);
}
