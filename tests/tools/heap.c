/*
 * heap.c - shale heap: sizes of any segment, owners and findings of a debug segment.
 */
#include <string.h>
#include <unistd.h>

#include <shale/debug.h>

#include "heaps.h"
#include "tool.h"

static struct tool_run answer;

static struct shale_segment *debug_segment(uint32_t debug)
{
	struct shale_segment_options options = {
		.size = sizeof(options),
		.capacity_bytes = 16u << 20,
		.pages = SHALE_PAGES_4K,
		.debug = debug,
	};
	struct shale_segment *segment;

	ASSERT_OK(shale_segment_create(&options, &segment));
	return segment;
}

static cJSON *heap_json(struct shale_segment *segment)
{
	TOOL(&answer, shale_segment_fd(segment), "heap", "--json", "fd:3");
	EXPECT_EQ(answer.status, 0);
	return tool_json(&answer);
}

static double number(const cJSON *object, const char *key)
{
	return cJSON_GetNumberValue(cJSON_GetObjectItem(object, key));
}

TEST(tool_heap, sizes_of_any_segment)
{
	struct shale_segment *segment = debug_segment(0);
	cJSON *document, *sizes;

	for (unsigned i = 0; i < 10; i++)
		ASSERT_NOT_NULL(shale_alloc(segment, 100));
	document = heap_json(segment);
	sizes = cJSON_GetObjectItem(document, "sizes");
	ASSERT_EQ(cJSON_GetArraySize(sizes), 1);
	EXPECT_EQ((int)number(cJSON_GetArrayItem(sizes, 0), "block_bytes"), 112);
	EXPECT_EQ((int)number(cJSON_GetArrayItem(sizes, 0), "blocks"), 10);
	EXPECT_EQ(cJSON_GetArraySize(cJSON_GetObjectItem(document, "owners")), 0);
	cJSON_Delete(document);
	TOOL(&answer, shale_segment_fd(segment), "heap", "fd:3");
	EXPECT_EQ(answer.status, 0);
	EXPECT_NOT_NULL(strstr(answer.out, "112"));
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(tool_heap, owners_and_findings_of_a_debug_segment)
{
	struct shale_segment *segment = debug_segment(SHALE_DEBUG_POISON);
	unsigned char *block = shale_alloc(segment, 100);
	cJSON *document, *owner;

	ASSERT_NOT_NULL(shale_alloc(segment, 50));
	ASSERT_NOT_NULL(block);
	block[100] = 1;
	ASSERT_OK(shale_free(segment, block));
	document = heap_json(segment);
	owner = cJSON_GetArrayItem(cJSON_GetObjectItem(document, "owners"), 0);
	EXPECT_EQ((int)number(owner, "thread"), gettid());
	EXPECT_EQ((int)number(owner, "requested_bytes"), 50);
	EXPECT_EQ((int)number(cJSON_GetObjectItem(document, "debug"), "writes_behind_end"), 1);
	cJSON_Delete(document);
	TOOL(&answer, shale_segment_fd(segment), "heap", "fd:3");
	EXPECT_NOT_NULL(strstr(answer.out, "1 behind the end"));
	TOOL(&answer, shale_segment_fd(segment), "check", "fd:3");
	EXPECT_EQ(answer.status, 1);
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(tool_heap, what_is_no_segment_is_refused)
{
	TOOL(&answer, -1, "heap", "fd:77");
	tool_expect_error(&answer, "heap");
}
