/*
 * A published span whose holder died while it made it longer, used before anybody has recovered the
 * dead: its length said slabs that it did not have, which were handed out a second time with it.
 */
#include <string.h>

#include "heap/heap.h"
#include "heap/large.h"
#include "heap/slab.h"
#include "heaps.h"
#include "segment/lanes.h"

#define SLABS  2u /* before */
#define LONGER 8u
#define HAD    2u /* of the six that were to come */

static struct shale_segment *segment;
static uint64_t head;
static void *span, *behind;

/* As resize.c does it, up to the death. */
static void grow_and_die(void)
{
	struct lane *lane;

	ASSERT_OK(lane_enter(segment, &lane));
	store_release(&lane->shm->intent.argument[0], head);
	store_release(&lane->shm->intent.argument[1], (uint64_t)SLABS);
	store_release(&lane->shm->intent.argument[2], (uint64_t)LONGER);
	intent_set(lane, INTENT_SPAN_RESIZE);
	span_set_slabs(segment, head, LONGER);
	for (uint64_t slab = head + SLABS; slab < head + SLABS + HAD; slab++)
		ASSERT_TRUE(span_claim_body(segment, slab, head));
}

static void prepare(void)
{
	pid_t child;

	segment = heap_segment(8u << 20, SHALE_PAGES_4K);
	span = shale_alloc(segment, SLABS * SLAB_SIZE);
	ASSERT_OK(shale_publish(segment, span));
	head = slab_of_offset(segment, view_offset_of(segment, span));
	child = test_fork();
	ASSERT_SYS(child);
	if (child == 0) {
		grow_and_die();
		test_child_exit();
	}
	ASSERT_TRUE(test_join(child, 5000));
	/* what lies where the span was to end */
	behind = shale_alloc(segment, SLAB_SIZE);
	ASSERT_EQ(slab_of_offset(segment, view_offset_of(segment, behind)), head + SLABS + HAD);
	memset(behind, 0x5a, SLAB_SIZE);
}

static void finish(void)
{
	EXPECT_EQ(*(unsigned char *)behind, 0x5a);
	EXPECT_OK(shale_free(segment, behind));
	EXPECT_GE(shale_recover(segment), 0);
	EXPECT_EQ(heap_counts(segment).spans, 0);
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(span_grown_by_the_dead, is_as_long_as_what_it_has)
{
	prepare();
	EXPECT_LE(shale_usable_size(segment, span), (SLABS + HAD) * SLAB_SIZE);
	EXPECT_GE(shale_usable_size(segment, span), SLABS * SLAB_SIZE);
	EXPECT_EQ(shale_recover(segment), 1);
	EXPECT_EQ(shale_usable_size(segment, span), SLABS * SLAB_SIZE);
	EXPECT_OK(shale_free(segment, span));
	finish();
}

TEST(span_grown_by_the_dead, is_freed_without_what_it_has_not)
{
	void *again;

	prepare();
	EXPECT_OK(shale_free(segment, span));
	again = shale_alloc(segment, LONGER * SLAB_SIZE);
	ASSERT_NOT_NULL(again);
	memset(again, 0x33, LONGER * SLAB_SIZE);
	EXPECT_EQ(*(unsigned char *)behind, 0x5a);
	EXPECT_EQ(shale_recover(segment), 1);
	EXPECT_EQ(shale_usable_size(segment, again), LONGER * SLAB_SIZE);
	EXPECT_OK(shale_free(segment, again));
	finish();
}

TEST(span_grown_by_the_dead, is_recovered_before_it_grows_again)
{
	unsigned char *longer;

	prepare();
	longer = shale_resize(segment, span, (SLABS + 1) * SLAB_SIZE);
	EXPECT_PTR_EQ(longer, span);
	EXPECT_GE(shale_recover(segment), 0);
	EXPECT_EQ(shale_usable_size(segment, span), (SLABS + 1) * SLAB_SIZE);
	EXPECT_NULL(
		shale_resize(segment, span, LONGER * SLAB_SIZE)); /* EBUSY: somebody is behind */
	EXPECT_OK(shale_free(segment, span));
	finish();
}
