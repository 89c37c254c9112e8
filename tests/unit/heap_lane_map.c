/* What a lane knows privately about its slabs is what the slab words say (FL1 of heap_lane.h). */
#include <pthread.h>
#include <string.h>

#include "heap/heap_lane.h"
#include "heaps.h"

enum { BLOCKS = 3000 };

static void *blocks[BLOCKS];

/* Every slab: its private entry names a bin exactly if the word says OWNED by this lane, with that bin. */
static void expect_same(struct shale_segment *segment)
{
	uint32_t open[BIN_COUNT] = {0};
	struct lane *lane = NULL;
	uint64_t slabs;

	ASSERT_OK(lane_enter(segment, &lane));
	slabs = (uint64_t)view_arena_high(segment) * SLABS_PER_ARENA;
	for (uint64_t slab = 0; slab < slabs; slab++) {
		uint64_t word = load_acquire(slab_word(segment, slab));
		bool ours = (word & SLAB_OWNER_MASK) == slab_low(SLAB_OWNED, lane->index, 0);
		unsigned bin = slab_word_bin(word);

		ASSERT_EQ(heap_slab(lane, slab)->bin, ours ? heap_bin_place(bin) : 0);
		if (ours)
			open[bin]++;
	}
	for (unsigned bin = 0; bin < BIN_COUNT; bin++)
		ASSERT_EQ(heap_bin(lane, bin)->open_count, open[bin]);
}

/* Bins of few blocks, so that slabs fill and empty often. */
static size_t some_size(void)
{
	return 2000 + (size_t)test_random_below(30000);
}

static void allocate(struct shale_segment *segment, unsigned i)
{
	blocks[i] = shale_alloc(segment, some_size());
	ASSERT_NOT_NULL(blocks[i]);
}

static void *free_half(void *segment)
{
	for (unsigned i = 0; i < BLOCKS; i += 2) {
		EXPECT_OK(shale_free(segment, blocks[i]));
		blocks[i] = NULL;
	}
	return NULL;
}

TEST(heap_lane_map, agrees_with_the_slab_words)
{
	struct shale_segment *segment = heap_segment(256u << 20, SHALE_PAGES_4K);
	pthread_t thread;

	for (unsigned i = 0; i < BLOCKS; i++)
		allocate(segment, i);
	expect_same(segment);
	for (unsigned n = 0; n < 4 * BLOCKS; n++) {
		unsigned i = (unsigned)test_random_below(BLOCKS);

		ASSERT_OK(shale_free(segment, blocks[i]));
		allocate(segment, i);
		if (n % 1000 == 0)
			expect_same(segment);
	}
	ASSERT_EQ(pthread_create(&thread, NULL, free_half, segment), 0);
	ASSERT_EQ(pthread_join(thread, NULL), 0);
	expect_same(segment);
	for (unsigned i = 0; i < BLOCKS; i += 2)
		allocate(segment, i);
	expect_same(segment);
	for (unsigned i = 0; i < BLOCKS; i++)
		ASSERT_OK(shale_free(segment, blocks[i]));
	expect_same(segment);
	EXPECT_GE(shale_trim(segment, 0), 0);
	expect_same(segment);
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(heap_lane_map, a_word_that_claims_to_be_ours_is_not_believed)
{
	struct shale_segment *segment = heap_segment(8u << 20, SHALE_PAGES_4K);
	unsigned char *block = shale_alloc(segment, 64);
	struct lane *lane = NULL;
	uint64_t slab;

	ASSERT_NOT_NULL(block);
	ASSERT_OK(lane_enter(segment, &lane));
	slab = slab_of_offset(segment, shale_ref_of(segment, block).off);
	/* a slab that is free, said to be one of ours, with a block that lives */
	store_relaxed(slab_word(segment, slab + 5), load_relaxed(slab_word(segment, slab)));
	*(slab_own_facts(segment, &bin_table[bin_of_size(64)], slab + 5)) = OWN_ALLOCATED;
	EXPECT_ERRNO(-EUCLEAN,
		     shale_free(segment, view_at(segment, slab_offset(segment, slab + 5))));
	EXPECT_OK(shale_segment_detach(segment));
}
