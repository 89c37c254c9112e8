/*
 * numa.c - shale numa on a live segment: what it says of nodes is what the kernel says of pages.
 */
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <shale/heap.h>
#include <shale/segment.h>

#include "harness.h"
#include "tool.h"

static struct tool_run answer;

enum { BLOCKS = 1024, BLOCK_BYTES = 4096 };

static struct shale_segment *segment;
static char target[64];

static void make_segment(void)
{
	struct shale_segment_options options = {
		.size = sizeof(options),
		.pages = SHALE_PAGES_4K,
		.label = "numa",
	};

	ASSERT_OK(shale_segment_create(&options, &segment));
	for (unsigned i = 0; i < BLOCKS; i++) {
		char *block = shale_alloc(segment, BLOCK_BYTES);

		ASSERT_NOT_NULL(block);
		memset(block, 1, BLOCK_BYTES);
	}
	snprintf(target, sizeof(target), "%d:%d", getpid(), shale_segment_fd(segment));
}

/* Is this build one that knows nodes, on a kernel that tells? Else the tool must explain. */
static bool nodes_are_told(void)
{
	TOOL(&answer, -1, "numa", target);
	if (answer.status == 0)
		return true;
	tool_expect_error(&answer, "numa");
	EXPECT_NOT_NULL(strstr(answer.err, "libnuma"));
	return false;
}

static double sum_of(const cJSON *nodes)
{
	const cJSON *item;
	double sum = 0;

	cJSON_ArrayForEach(item, nodes)
	{
		sum += tool_number(item, "bytes");
	}
	return sum;
}

TEST(numa, every_committed_byte_is_on_a_node)
{
	struct shale_segment_figures figures = {.size = sizeof(figures)};
	double arenas = 0, bytes = 0;
	const cJSON *item;
	cJSON *document;

	make_segment();
	if (!nodes_are_told())
		SKIP("no NUMA in this kernel or build");
	EXPECT_NOT_NULL(strstr(answer.out, "placement local"));
	ASSERT_OK(shale_segment_stat(segment, &figures));
	TOOL(&answer, -1, "numa", "--json", target);
	EXPECT_EQ(answer.status, 0);
	document = tool_json(&answer);
	EXPECT_STR_EQ(tool_text(document, "pages"), "4K");
	EXPECT_EQ((uint64_t)sum_of(cJSON_GetObjectItem(document, "heap")),
		  (uint64_t)figures.arenas_committed << 21);
	EXPECT_GT(sum_of(cJSON_GetObjectItem(document, "tables")), 0);
	EXPECT_EQ(tool_number(document, "unknown_bytes"), 0);
	cJSON_ArrayForEach(item, cJSON_GetObjectItem(document, "arenas"))
	{
		arenas += tool_number(item, "count");
		bytes += tool_number(item, "count") * sum_of(cJSON_GetObjectItem(item, "nodes"));
	}
	EXPECT_EQ((unsigned)arenas, figures.arenas_committed);
	EXPECT_EQ((uint64_t)bytes, (uint64_t)figures.arenas_committed << 21);
	cJSON_Delete(document);
	ASSERT_OK(shale_segment_detach(segment));
}

/* To look must not change: pages that were given back stay away. */
TEST(numa, looking_brings_nothing_into_memory)
{
	struct shale_segment_figures before = {.size = sizeof(before)}, after = before;
	void *block;

	make_segment();
	block = shale_alloc(segment, 64 << 20);
	ASSERT_NOT_NULL(block);
	ASSERT_OK(shale_free(segment, block));
	EXPECT_GT(shale_trim(segment, 0), 0);
	ASSERT_OK(shale_segment_stat(segment, &before));
	if (!nodes_are_told())
		SKIP("no NUMA in this kernel or build");
	ASSERT_OK(shale_segment_stat(segment, &after));
	EXPECT_EQ(after.backing_bytes, before.backing_bytes);
	ASSERT_OK(shale_segment_detach(segment));
}

TEST(numa, says_when_all_memory_is_alike)
{
	char list[64] = "";
	FILE *file = fopen("/sys/devices/system/node/has_memory", "re");

	if (file) {
		if (!fgets(list, sizeof(list), file))
			list[0] = '\0';
		fclose(file);
	}
	make_segment();
	if (nodes_are_told())
		EXPECT_EQ(strstr(answer.out, "all memory is alike") != NULL,
			  strpbrk(list, ",-") == NULL);
	ASSERT_OK(shale_segment_detach(segment));
}
