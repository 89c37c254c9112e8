/*
 * shale/heap.h lets whoever removes a placed ref call shale_publish() on the block first, instead
 * of shale_take_at(). Recovery of the placer, killed before it had cleared its intent, freed it.
 */
#include "heaps.h"
#include "segment/lanes.h"

static void place_and_die(struct shale_segment *segment, uint64_t *place)
{
	struct lane *lane;
	void *block;

	ASSERT_NOT_NULL(block = shale_alloc(segment, 64));
	ASSERT_OK(lane_enter(segment, &lane));
	ASSERT_OK(shale_publish_at(segment, block, place, 0));
	/* what publish_at had there until its last two stores */
	lane->shm->intent.block[0] = shale_ref_of(segment, block).off;
	lane->shm->intent.argument[0] = shale_ref_of(segment, place).off;
	lane->shm->intent.argument[1] = 1;
	lane->shm->intent.argument[2] = 0;
	intent_set(lane, INTENT_PUBLISH_AT);
	test_child_exit();
}

TEST(publish_keeps_placed, when_the_placer_dies_after_the_ref_is_gone)
{
	struct shale_segment *segment = heap_segment(8u << 20, SHALE_PAGES_4K);
	uint64_t *place = shale_alloc_zeroed(segment, 64);
	void *block;
	pid_t child;

	ASSERT_OK(shale_publish(segment, place));
	child = test_fork();
	ASSERT_SYS(child);
	if (child == 0)
		place_and_die(segment, place);
	ASSERT_TRUE(test_join(child, 5000));
	ASSERT_NOT_NULL(block = shale_ptr(segment, (shale_ref){*place}, 64));
	ASSERT_OK(shale_publish(segment, block));
	*place = 0;
	EXPECT_EQ(shale_recover(segment), 1);
	EXPECT_EQ(shale_usable_size(segment, block), 64);
	EXPECT_OK(shale_free(segment, block));
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}
