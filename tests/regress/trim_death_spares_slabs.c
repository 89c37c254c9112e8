/*
 * A process killed in shale_trim() right after it has set an arena to RETURNING, while somebody else
 * had been faster and has a slab of it: recovery punched the arena, and with it the living blocks.
 */
#include <string.h>

#include "heap/arena.h"
#include "heap/slab.h"
#include "heaps.h"
#include "segment/lanes.h"

/* What arena_return() has stored when it is killed after its first CAS. */
static void begin_return(struct shale_segment *segment, uint64_t number)
{
	uint64_t *state = &heap_arena(segment, number)->state;
	struct lane *lane;

	ASSERT_OK(lane_enter(segment, &lane));
	*state = slab_word_next(*state, (uint64_t)ARENA_RETURNING |
						((uint64_t)lane->index << SLAB_LANE_SHIFT));
}

TEST(trim_death_spares_slabs, of_an_arena_that_was_not_empty_any_more)
{
	struct shale_segment *segment = heap_segment(8u << 20, SHALE_PAGES_4K);
	unsigned char *block = shale_alloc(segment, 1000);
	pid_t child;

	ASSERT_NOT_NULL(block);
	memset(block, 0x5a, 1000);
	child = test_fork();
	ASSERT_SYS(child);
	if (child == 0) {
		begin_return(segment, 0);
		test_child_exit();
	}
	ASSERT_TRUE(test_join(child, 5000));
	EXPECT_EQ(shale_recover(segment), 1);
	EXPECT_EQ(block[0], 0x5a);
	EXPECT_EQ(block[999], 0x5a);
	EXPECT_TRUE(arena_committed(segment, 0));
	heap_expect_clean(segment);
	EXPECT_OK(shale_free(segment, block));
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(trim_death_spares_slabs, and_returns_one_that_was_claimed_whole)
{
	struct shale_segment *segment = heap_segment(8u << 20, SHALE_PAGES_4K);
	struct lane *lane;
	pid_t child;

	EXPECT_OK(shale_free(segment, shale_alloc(segment, 1000)));
	ASSERT_OK(lane_enter(segment, &lane));
	slab_release_empty(lane, true);
	child = test_fork();
	ASSERT_SYS(child);
	if (child == 0) {
		begin_return(segment, 0);
		ASSERT_OK(lane_enter(segment, &lane));
		for (unsigned i = 0; i < SLABS_PER_ARENA; i++)
			*slab_word(segment, i) = slab_word_next(
				*slab_word(segment, i), slab_low(SLAB_CLAIMED, lane->index, 0));
		test_child_exit();
	}
	ASSERT_TRUE(test_join(child, 5000));
	EXPECT_EQ(shale_recover(segment), 1);
	EXPECT_FALSE(arena_committed(segment, 0));
	EXPECT_EQ(heap_counts(segment).committed_bytes, 0);
	heap_expect_clean(segment);
	ASSERT_NOT_NULL(shale_alloc(segment, 1000));
	EXPECT_EQ(heap_counts(segment).committed_bytes, 2u << 20);
	EXPECT_OK(shale_segment_detach(segment));
}
