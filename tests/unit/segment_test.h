/*
 * segment_test.h - what the tests of the segment layer share: make one, look at it, count leaks.
 */
#ifndef SHALE_TESTS_SEGMENT_TEST_H
#define SHALE_TESTS_SEGMENT_TEST_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <shale/segment.h>

#include "lib/harness.h"
#include "segment/lanes.h"
#include "segment/recovery.h"
#include "segment/view.h"

#define TEST_CAPACITY (UINT64_C(64) << 20)

static inline struct shale_segment *segment_make(enum shale_pages pages)
{
	struct shale_segment_options options = {
		.size = sizeof(options),
		.capacity_bytes = TEST_CAPACITY,
		.pages = pages,
	};
	struct shale_segment *segment = NULL;

	ASSERT_OK(shale_segment_create(&options, &segment));
	return segment;
}

static inline struct shale_segment *segment_join(int fd)
{
	struct shale_segment *segment = NULL;

	ASSERT_OK(shale_segment_attach(fd, NULL, &segment));
	return segment;
}

static inline struct shale_segment_figures segment_look(struct shale_segment *segment)
{
	struct shale_segment_figures stat = {.size = sizeof(stat)};

	ASSERT_OK(shale_segment_stat(segment, &stat));
	return stat;
}

static inline void segment_print_finding(const struct shale_finding *finding, void *context)
{
	(void)context;
	TEST_LOG("%s at %llx: %s", finding->invariant, (unsigned long long)finding->offset,
		 finding->text);
}

static inline void segment_expect_clean(struct shale_segment *segment)
{
	EXPECT_EQ(shale_check(segment, segment_print_finding, NULL), 0);
}

/* Mappings of this process, the heap and the stack left out, which grow when they like. */
static inline unsigned segment_count_mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned count = 0;
	char line[512];

	ASSERT_NOT_NULL(maps);
	while (fgets(line, sizeof(line), maps))
		count += strstr(line, "memfd:") != NULL;
	fclose(maps);
	return count;
}

#endif
