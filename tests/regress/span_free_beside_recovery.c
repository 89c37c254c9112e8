/*
 * A published span freed by its holder while recovery takes the dead allocator's lane out of its
 * word: the free lost the race, said "free already", and the span was nobody's for ever.
 */
#include "heap/large.h"
#include "heap/slab.h"
#include "heaps.h"
#include "heap/heap.h"
#include "segment/lanes.h"

TEST(span_free_beside_recovery, is_not_taken_for_a_double_free)
{
	struct shale_segment *segment = heap_segment(8u << 20, SHALE_PAGES_4K);
	pid_t child = test_fork();
	uint64_t word, offset;
	struct lane *lane;
	void *span;

	ASSERT_SYS(child);
	if (child == 0) {
		span = shale_alloc(segment, 100000);
		ASSERT_OK(shale_publish(segment, span));
		ASSERT_OK(shale_root_publish(segment, "span", span));
		test_child_exit();
	}
	ASSERT_TRUE(test_join(child, 5000));
	ASSERT_OK(shale_root_find(segment, "span", (shale_ref *)&offset));
	ASSERT_OK(lane_enter(segment, &lane));
	/* a freer has looked at the word; then comes recovery, then the freer's CAS */
	word = *slab_word(segment, slab_of_offset(segment, offset));
	ASSERT_NE(slab_word_lane(word), 0);
	EXPECT_EQ(shale_recover(segment), 1);
	EXPECT_OK(span_free(segment, lane->index, slab_of_offset(segment, offset), word));
	EXPECT_EQ(heap_counts(segment).spans, 0);
	/* and a real double free is still one, with this word and with a look of its own */
	EXPECT_ERRNO(-EALREADY,
		     span_free(segment, lane->index, slab_of_offset(segment, offset), word));
	EXPECT_ERRNO(-EALREADY, heap_free_block(segment, lane, offset));
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}
