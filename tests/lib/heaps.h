/*
 * heaps.h - small segments for heap, map and channel tests, and exact counts of what they hold.
 */
#ifndef SHALE_TESTS_LIB_HEAPS_H
#define SHALE_TESTS_LIB_HEAPS_H

#include <errno.h>
#include <stdio.h>

#include <shale/heap.h>
#include <shale/segment.h>

#include "harness.h"
#include "hugepages.h"

/*
 * A segment of `capacity` bytes on the pages asked for; 2 MiB pages are reserved for it (in the
 * test's own process), with a few more for the tables.
 */
static inline struct shale_segment *heap_segment(uint64_t capacity, enum shale_pages pages)
{
	char reason[160] = "";
	struct shale_segment_options options = {
		.size = sizeof(options),
		.capacity_bytes = capacity,
		.pages = pages,
		.reason = reason,
		.reason_size = sizeof(reason),
	};
	struct shale_segment *segment = NULL;
	int r;

	if (pages == SHALE_PAGES_2M)
		hugepages_require_free(2u << 20, HUGEPAGES_ANY_NODE, (capacity >> 21) + 8);
	r = shale_segment_create(&options, &segment);

	if (r == -ENOMEM && (pages == SHALE_PAGES_2M || pages == SHALE_PAGES_1G))
		SKIP("no huge pages: %s", reason);
	ASSERT_OK(r);
	return segment;
}

static inline struct shale_heap_figures heap_counts(struct shale_segment *segment)
{
	struct shale_heap_figures stat = {.size = sizeof(stat)};

	ASSERT_OK(shale_heap_stat(segment, &stat));
	return stat;
}

static inline void heap_finding(const struct shale_finding *finding, void *context)
{
	(void)context;
	TEST_LOG("%s at 0x%llx: %s", finding->invariant, (unsigned long long)finding->offset,
		 finding->text);
}

/* The checker finds nothing wrong. */
static inline void heap_expect_clean(struct shale_segment *segment)
{
	EXPECT_EQ(shale_check(segment, heap_finding, NULL), 0);
}

#endif
