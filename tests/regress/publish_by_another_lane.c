/*
 * A block published by another lane than its owner's, whose owner has collected since and then frees
 * it: the "published" stayed behind in shared[], and the next holder's block outlived its death.
 */
#include <pthread.h>

#include "heaps.h"

struct work {
	struct shale_segment *segment;
	void *published;
	void *freed;
};

static void *publish_and_free(void *argument)
{
	struct work *work = argument;

	ASSERT_OK(shale_publish(work->segment, work->published));
	ASSERT_OK(shale_free(work->segment, work->freed));
	return NULL;
}

static void scene(struct shale_segment *segment)
{
	struct work work = {.segment = segment};
	pthread_t thread;
	void *again;

	/* two of the sixteen blocks of a slab; the other fourteen keep it full */
	work.published = shale_alloc(segment, 4096);
	work.freed = shale_alloc(segment, 4096);
	for (unsigned i = 2; i < 16; i++)
		ASSERT_NOT_NULL(shale_alloc(segment, 4096));
	ASSERT_EQ(pthread_create(&thread, NULL, publish_and_free, &work), 0);
	ASSERT_EQ(pthread_join(thread, NULL), 0);
	/* collects, and so takes the hint away */
	again = shale_alloc(segment, 4096);
	EXPECT_PTR_EQ(again, work.freed);
	ASSERT_OK(shale_free(segment, work.published));
	heap_expect_clean(segment);
	EXPECT_EQ(heap_counts(segment).published_blocks, 0);
	/* handed out again it is as private as any other */
	ASSERT_PTR_EQ(shale_alloc(segment, 4096), work.published);
	EXPECT_EQ(heap_counts(segment).published_blocks, 0);
}

TEST(publish_by_another_lane, ends_when_the_owner_frees_the_block)
{
	struct shale_segment *segment = heap_segment(8u << 20, SHALE_PAGES_4K);
	pid_t child = test_fork();

	ASSERT_SYS(child);
	if (child == 0) {
		scene(segment);
		test_child_exit();
	}
	ASSERT_TRUE(test_join(child, 5000));
	EXPECT_EQ(shale_recover(segment), 1);
	EXPECT_EQ(heap_counts(segment).live_blocks, 0);
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}
