/*
 * A guarded block that one thread frees while another one of the process allocates: the allocator
 * reaps what it finds marked as freed. Both gave the span back, the second time as somebody else's.
 */
#include <pthread.h>
#include <string.h>

#include <shale/debug.h>

#include "base/hash.h"
#include "heaps.h"
#include "heap/debug.h"
#include "heap/large.h"
#include "heap/slab.h"
#include "segment/lanes.h"

#define ROUNDS 4000u

static struct shale_segment *segment;

static void open_guarded(void)
{
	struct shale_segment_options options = {
		.size = sizeof(options),
		.capacity_bytes = 64u << 20,
		.pages = SHALE_PAGES_4K,
		.debug = SHALE_DEBUG_GUARD,
		.guard_sample = 1,
	};

	ASSERT_OK(shale_segment_create(&options, &segment));
}

static void *alloc_and_free(void *tag)
{
	for (unsigned i = 0; i < ROUNDS && !test_has_failed(); i++) {
		size_t size = 100 + i % 5 * 4000;
		unsigned char *block = shale_alloc(segment, size);

		ASSERT_NOT_NULL(block);
		memset(block, *(unsigned char *)tag, size);
		EXPECT_TRUE(block[0] == *(unsigned char *)tag &&
			    memcmp(block, block + 1, size - 1) == 0);
		EXPECT_OK(shale_free(segment, block));
	}
	return NULL;
}

TEST_TIMEOUT(guard_freed_once, by_its_freer_or_by_who_reaps, 60)
{
	unsigned char tags[3] = {1, 2, 3};
	pthread_t threads[3];

	open_guarded();
	for (unsigned i = 0; i < 3; i++)
		ASSERT_EQ(pthread_create(&threads[i], NULL, alloc_and_free, &tags[i]), 0);
	for (unsigned i = 0; i < 3; i++)
		ASSERT_EQ(pthread_join(threads[i], NULL), 0);
	EXPECT_EQ(heap_counts(segment).spans, 0);
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

/* What a hostile peer writes into the card of a block that it holds. */
static void forge(void *block, uint64_t size, uint32_t pages)
{
	uint64_t slab = slab_of_offset(segment, view_offset_of(segment, block));
	struct debug_card *card = view_at(segment, slab_offset(segment, slab)), copy;

	card->block.size = size;
	card->pages = pages;
	card->peer_key = 0; /* nobody's: this process does not look into its list */
	copy = *card;
	copy.block.check = 0;
	copy.state = 0;
	card->block.check = (uint32_t)hash_bytes(&copy, sizeof(copy), DEBUG_CARD);
}

TEST(guard_freed_once, a_card_that_lies_leads_nowhere)
{
	const struct {
		uint64_t size;
		uint32_t pages;
	} lies[] = {
		{UINT64_MAX, 1},
		{UINT64_MAX - (1u << 20), 1}, /* behind the end is before the beginning */
		{4097, 1},
		{100, 256}, /* pages of others, with their guards */
		{100, 15},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(lies); i++) {
		unsigned char *block, *next;

		open_guarded();
		block = shale_alloc(segment, 100);
		next = shale_alloc(segment, 100);
		ASSERT_NOT_NULL(next);
		forge(block, lies[i].size, lies[i].pages);
		EXPECT_LE(shale_usable_size(segment, block), 4096);
		EXPECT_LT(shale_free(segment, block), 0);
		EXPECT_NULL(shale_resize(segment, block, 5u << 20));
		EXPECT_OK(shale_segment_detach(segment));
	}
}
