/*
 * A free that came late to dense facts that had been punched left a byte there. When the slab served
 * blocks with short facts before it served small ones again, nobody zeroed the byte: a block was handed
 * out that its owner could not free, and then a second time.
 */
#include <string.h>

#include "heap/arena.h"
#include "heap/purge.h"
#include "heap/slab.h"
#include "heap/sparse.h"
#include "heaps.h"

enum { SMALL = 64, LARGE = 1024, FILLED = 3 * SLAB_SIZE / SMALL };

/* Slabs of small blocks with one left over each, sparse and without dense facts. */
static unsigned leave_sparse(struct shale_segment *segment, struct lane *lane, void **kept)
{
	const struct purge_limits everything = {.facts = true};
	static void *blocks[FILLED];
	unsigned count = 0;

	for (unsigned i = 0; i < FILLED; i++)
		ASSERT_NOT_NULL(blocks[i] = shale_alloc(segment, SMALL));
	for (unsigned i = 0; i < FILLED; i++)
		if (i % (SLAB_SIZE / SMALL) == 7)
			kept[count++] = blocks[i];
		else
			ASSERT_OK(shale_free(segment, blocks[i]));
	slab_close_all(lane);
	ASSERT_GT(purge_run(lane, &everything), 0);
	return count;
}

/* What the exchange of a freer does that found the dense fact before it moved. */
static void come_late(struct shale_segment *segment, const void *block)
{
	uint64_t offset = view_offset_of(segment, block), slab = slab_of_offset(segment, offset);
	const struct bin_info *bin = &bin_table[bin_of_size(SMALL)];

	ASSERT_TRUE(*slab_word(segment, slab) & SLAB_SPARSE);
	slab_own_facts(segment, bin, slab)[bin->facts_half + offset % SLAB_SIZE / SMALL] =
		SHARED_FREED;
}

static void expect_free(struct shale_segment *segment, const void *block)
{
	uint64_t slab = slab_of_offset(segment, view_offset_of(segment, block));

	ASSERT_EQ(slab_word_state(*slab_word(segment, slab)), SLAB_FREE);
}

/* So many of them that every slab of the arena is used, then all freed. */
static void use_all(struct shale_segment *segment, struct lane *lane, size_t size)
{
	static void *blocks[ARENA_SIZE / SMALL];
	unsigned count = (unsigned)(ARENA_SIZE / size);

	for (unsigned i = 0; i < count; i++)
		ASSERT_NOT_NULL(blocks[i] = shale_alloc(segment, size));
	for (unsigned i = 0; i < count; i++)
		ASSERT_OK(shale_free(segment, blocks[i]));
	slab_release_empty(lane, true);
}

TEST(late_byte_in_punched_facts, is_gone_when_they_are_used_again)
{
	struct shale_segment *segment = heap_segment(2u << 20, SHALE_PAGES_4K);
	struct lane *lane;
	void *kept[4];
	unsigned count;

	ASSERT_OK(lane_enter(segment, &lane));
	count = leave_sparse(segment, lane, kept);
	ASSERT_EQ(count, 3);
	for (unsigned i = 0; i < count; i++) {
		come_late(segment, kept[i]);
		ASSERT_OK(shale_free(segment, kept[i]));
		expect_free(segment, kept[i]);
	}
	use_all(segment, lane, LARGE);
	use_all(segment, lane, SMALL);
	heap_expect_clean(segment);
	EXPECT_EQ(heap_counts(segment).live_blocks, 0);
	EXPECT_OK(shale_segment_detach(segment));
}
