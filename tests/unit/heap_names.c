/* Rule N: a block that a lane names is not handed out again, even when it has been freed. */
#include <pthread.h>

#include "heap/heap.h"
#include "heaps.h"
#include "segment/lanes.h"

struct freer {
	struct shale_segment *segment;
	uint64_t offset;
	bool by_intent;
	pthread_barrier_t barrier;
};

/* Another thread is another lane: it names the block, frees it, and drops the name when told. */
static void *name_and_free(void *argument)
{
	struct freer *freer = argument;
	struct lane *lane;

	ASSERT_OK(lane_enter(freer->segment, &lane));
	if (freer->by_intent) {
		lane->shm->intent.block[0] = freer->offset;
		intent_set(lane, INTENT_TAKE_AT);
	} else {
		retired_set(lane->shm, 5, freer->offset);
	}
	ASSERT_OK(heap_free_block(freer->segment, lane, freer->offset));
	pthread_barrier_wait(&freer->barrier);
	pthread_barrier_wait(&freer->barrier);
	if (freer->by_intent)
		intent_clear(lane);
	else
		retired_set(lane->shm, 5, 0);
	pthread_barrier_wait(&freer->barrier);
	return NULL;
}

/* Allocates all of the segment; was `block` among it? Frees all again. */
static bool is_handed_out(struct shale_segment *segment, void *block)
{
	static void *blocks[5000];
	unsigned count = 0;
	bool seen = false;

	while (count < 5000 && (blocks[count] = shale_alloc(segment, 4096)) != NULL)
		seen |= blocks[count++] == block;
	ASSERT_LT(count, 5000);
	while (count > 0)
		ASSERT_OK(shale_free(segment, blocks[--count]));
	return seen;
}

VARIANT_SET(names) = {{"intent", true, NULL}, {"retired", false, NULL}};

TEST_V(heap_names, a_named_block_is_not_reused_until_its_name_goes, names)
{
	struct freer freer = {.by_intent = variant->value};
	pthread_t thread;
	void *block;

	freer.segment = heap_segment(4u << 20, SHALE_PAGES_4K);
	block = shale_alloc(freer.segment, 4096);
	freer.offset = shale_ref_of(freer.segment, block).off;
	ASSERT_EQ(pthread_barrier_init(&freer.barrier, NULL, 2), 0);
	ASSERT_EQ(pthread_create(&thread, NULL, name_and_free, &freer), 0);
	pthread_barrier_wait(&freer.barrier);
	EXPECT_EQ(heap_counts(freer.segment).live_blocks, 0);
	EXPECT_TRUE(heap_block_named(freer.segment, freer.offset));
	EXPECT_FALSE(is_handed_out(freer.segment, block));
	EXPECT_ERRNO(-EALREADY, shale_free(freer.segment, block));
	pthread_barrier_wait(&freer.barrier);
	pthread_barrier_wait(&freer.barrier);
	EXPECT_FALSE(heap_block_named(freer.segment, freer.offset));
	EXPECT_TRUE(is_handed_out(freer.segment, block));
	pthread_join(thread, NULL);
	heap_expect_clean(freer.segment);
	EXPECT_OK(shale_segment_detach(freer.segment));
}

TEST(heap_names, freeing_a_named_span_drops_the_name_first)
{
	struct shale_segment *segment = heap_segment(4u << 20, SHALE_PAGES_4K);
	struct lane *lane;
	void *span = shale_alloc(segment, 100000);
	uint64_t offset = shale_ref_of(segment, span).off;

	ASSERT_OK(lane_enter(segment, &lane));
	retired_set(lane->shm, 0, offset);
	lane->shm->intent.block[1] = offset;
	intent_set(lane, INTENT_TAKE_AT);
	EXPECT_OK(heap_free_block(segment, lane, offset));
	EXPECT_FALSE(heap_block_named(segment, offset));
	intent_clear(lane);
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}
