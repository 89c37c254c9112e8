/* Committed bytes, metadata included, never pass the budget, whatever is allocated. */
#include <string.h>

#include "heaps.h"

static struct shale_segment *segment_of(uint64_t budget, enum shale_pages pages)
{
	char reason[160] = "";
	struct shale_segment_options options = {
		.size = sizeof(options),
		.capacity_bytes = 1u << 30,
		.budget_bytes = budget,
		.pages = pages,
		.reason = reason,
		.reason_size = sizeof(reason),
	};
	struct shale_segment *segment = NULL;

	if (pages == SHALE_PAGES_2M)
		hugepages_require_free(2u << 20, HUGEPAGES_ANY_NODE, (budget >> 21) + 2);
	ASSERT_OK(shale_segment_create(&options, &segment));
	return segment;
}

static void expect_within(struct shale_segment *segment)
{
	struct shale_segment_figures stat = {.size = sizeof(stat)};

	ASSERT_OK(shale_segment_stat(segment, &stat));
	EXPECT_LE(stat.committed_bytes, stat.budget_bytes);
	EXPECT_LE(stat.backing_bytes, stat.budget_bytes);
}

/* Allocates blocks of `size` until there is no more, then frees every one. */
static unsigned fill_and_empty(struct shale_segment *segment, size_t size)
{
	static void *blocks[2000000];
	unsigned count = 0;

	while (count < 2000000 && (blocks[count] = shale_alloc(segment, size)) != NULL)
		memset(blocks[count++], 1, 16);
	EXPECT_EQ(errno, ENOMEM);
	expect_within(segment);
	for (unsigned i = 0; i < count; i++)
		ASSERT_OK(shale_free(segment, blocks[i]));
	return count;
}

VARIANT_SET(pages) = {{"4k", SHALE_PAGES_4K, NULL}, {"2m", SHALE_PAGES_2M, NULL}};

TEST_V(heap_budget, is_kept_by_large_and_by_small_blocks, pages)
{
	uint64_t budget = variant->value == SHALE_PAGES_2M ? 48u << 20 : 16u << 20;
	struct shale_segment *segment = segment_of(budget, (enum shale_pages)variant->value);
	unsigned spans = fill_and_empty(segment, 300000);

	EXPECT_GT(spans, 20);
	EXPECT_GT(fill_and_empty(segment, 16), 200000);
	EXPECT_GT(fill_and_empty(segment, 1000), 5000);
	/* the facts of small blocks stay committed: a few pages of whatever size */
	EXPECT_GE(fill_and_empty(segment, 300000) + 24, spans);
	expect_within(segment);
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(heap_budget, a_span_that_does_not_fit_keeps_nothing)
{
	struct shale_segment *segment = segment_of(16u << 20, SHALE_PAGES_4K);

	EXPECT_NULL(shale_alloc(segment, 20u << 20));
	EXPECT_EQ(errno, ENOMEM);
	EXPECT_EQ(heap_counts(segment).committed_bytes, 0);
	EXPECT_NOT_NULL(shale_alloc(segment, 10u << 20));
	expect_within(segment);
	EXPECT_OK(shale_segment_detach(segment));
}
