/*
 * nodes.h - what the tests of this folder share: the machine's nodes, segments placed on them, and
 * where their blocks lie as the kernel tells it (move_pages), not the library.
 *
 * Owner:     the test; nothing is kept but the text of the last failure.
 * Invariant: a node's number is below MAX_NODES.
 * Lifetime, death: a test's own.
 */
#ifndef SHALE_TESTS_GUEST_NODES_H
#define SHALE_TESTS_GUEST_NODES_H

#include "lib/harness.h"
#include "lib/hugepages.h"

#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shale/heap.h>
#include <shale/segment.h>

enum { MAX_NODES = 64, MAX_PAGES = 4096, MIB = 1 << 20 };
enum { BLOCKS = 8, BLOCK_BYTES = 2 * MIB, POOL_PAGES = 16 };

/* ---- the machine ---- */

/* The numbers of a list like "0-1,4" as bits; those above 63 are left out. */
static inline uint64_t read_list(const char *path)
{
	char text[256] = "", *at = text;
	uint64_t bits = 0;
	FILE *file = fopen(path, "re");

	if (!file)
		return 0;
	if (!fgets(text, sizeof(text), file))
		text[0] = '\0';
	fclose(file);
	while (*at >= '0' && *at <= '9') {
		unsigned long first = strtoul(at, &at, 10), last = first;

		if (*at == '-')
			last = strtoul(at + 1, &at, 10);
		for (; first <= last && first < 64; first++)
			bits |= UINT64_C(1) << first;
		at += *at == ',';
	}
	return bits;
}

static inline uint64_t memory_nodes(void)
{
	uint64_t nodes = read_list("/sys/devices/system/node/has_memory");

	return nodes ? nodes : 1;
}

/* The lowest node with memory, and the next; fewer end the test as skipped. */
static inline void need_two_nodes(unsigned *ret_first, unsigned *ret_second)
{
	uint64_t nodes = memory_nodes();

	if ((nodes & (nodes - 1)) == 0)
		SKIP("only one NUMA node");
	*ret_first = (unsigned)__builtin_ctzll(nodes);
	*ret_second = (unsigned)__builtin_ctzll(nodes & (nodes - 1));
}

static inline uint64_t cpu_nodes(void)
{
	uint64_t nodes = read_list("/sys/devices/system/node/has_cpu");

	return nodes ? nodes : 1;
}

static inline bool is_node(uint64_t nodes, unsigned node)
{
	return node < MAX_NODES && (nodes >> node & 1) != 0;
}

/* As the kernel lists them, for each node that is there, in order; 0: no such node. */
static inline unsigned distance_between(unsigned from, unsigned to)
{
	uint64_t online = read_list("/sys/devices/system/node/online");
	unsigned distance = 0;
	char path[96];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%u/distance", from);
	file = fopen(path, "re");
	if (!file || !is_node(online, to)) {
		if (file)
			fclose(file);
		return 0;
	}
	for (unsigned node = 0; node <= to; node++)
		if (is_node(online, node) && fscanf(file, "%u", &distance) != 1)
			distance = 0;
	fclose(file);
	return distance;
}

/* Those of `nodes` that are nearest to `from`, itself left out. */
static inline uint64_t nearest_nodes(unsigned from, uint64_t nodes)
{
	unsigned best = UINT32_MAX;
	uint64_t nearest = 0;

	for (unsigned node = 0; node < MAX_NODES; node++) {
		unsigned distance;

		if (node == from || !is_node(nodes, node))
			continue;
		distance = distance_between(from, node);
		if (distance < best)
			nearest = 0;
		if (distance <= best) {
			best = distance;
			nearest |= UINT64_C(1) << node;
		}
	}
	return nearest;
}

static inline void run_on_node(unsigned node)
{
	char path[96];
	uint64_t cpus;
	cpu_set_t set;

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%u/cpulist", node);
	cpus = read_list(path);
	if (cpus == 0)
		SKIP("fewer than two NUMA nodes with CPUs");
	CPU_ZERO(&set);
	CPU_SET((unsigned)__builtin_ctzll(cpus), &set);
	ASSERT_SYS(sched_setaffinity(0, sizeof(set), &set));
}

/* ---- segments and their pages ---- */

static char reason[256];

static inline struct shale_segment_options
options_for(enum shale_pages pages, enum shale_placement placement, uint64_t nodes)
{
	reason[0] = '\0';
	return (struct shale_segment_options){
		.size = sizeof(struct shale_segment_options),
		.capacity_bytes = 64 * MIB,
		.pages = pages,
		.placement = placement,
		.nodes = {{nodes}},
		.reason = reason,
		.reason_size = sizeof(reason),
	};
}

static inline struct shale_segment *create(enum shale_pages pages, enum shale_placement placement,
					   uint64_t nodes)
{
	struct shale_segment_options options = options_for(pages, placement, nodes);
	struct shale_segment *segment = NULL;
	int r = shale_segment_create(&options, &segment);

	if (r < 0)
		TEST_LOG("%s", reason);
	ASSERT_OK(r);
	return segment;
}

/* Enough for a test on each node, when huge pages are what it runs on. */
static inline void need_pool(enum shale_pages pages)
{
	uint64_t nodes = memory_nodes();

	if (pages != SHALE_PAGES_2M)
		return;
	for (unsigned node = 0; node < MAX_NODES; node++)
		if (nodes >> node & 1)
			hugepages_require_free(2 * MIB, (int)node, POOL_PAGES);
}

struct spread {
	unsigned pages[MAX_NODES];
	unsigned total;
};

/* Adds where each 4 KiB of the block lies. Written to by the caller: every page is there. */
static inline void add_spread(struct spread *spread, void *block, size_t size)
{
	static void *pages[MAX_PAGES];
	static int nodes[MAX_PAGES];
	uintptr_t first = (uintptr_t)block & ~UINT64_C(4095);
	size_t count = ((uintptr_t)block + size - first + 4095) / 4096;

	ASSERT_LE(count, MAX_PAGES);
	for (size_t i = 0; i < count; i++)
		pages[i] = (char *)first + i * 4096;
	ASSERT_SYS(syscall(SYS_move_pages, 0, count, pages, NULL, nodes, 0));
	for (size_t i = 0; i < count; i++) {
		ASSERT_GE(nodes[i], 0);
		ASSERT_LT(nodes[i], MAX_NODES);
		spread->pages[nodes[i]]++;
	}
	spread->total += (unsigned)count;
}

/* Blocks of 2 MiB and of 1 KiB, written to; where they lie. They are not freed. */
static inline struct spread spread_of_blocks(struct shale_segment *segment)
{
	struct spread spread = {0};

	for (unsigned i = 0; i < BLOCKS; i++) {
		char *block = shale_alloc(segment, BLOCK_BYTES);

		ASSERT_NOT_NULL(block);
		memset(block, 1, BLOCK_BYTES);
		add_spread(&spread, block, BLOCK_BYTES);
	}
	for (unsigned i = 0; i < 512; i++) {
		char *block = shale_alloc(segment, 1024);

		ASSERT_NOT_NULL(block);
		memset(block, 2, 1024);
		add_spread(&spread, block, 1024);
	}
	return spread;
}

static inline unsigned spread_on(const struct spread *spread, uint64_t nodes)
{
	unsigned pages = 0;

	for (unsigned node = 0; node < MAX_NODES; node++)
		pages += is_node(nodes, node) ? spread->pages[node] : 0;
	return pages;
}

static inline void show_spread(const struct spread *spread)
{
	for (unsigned node = 0; node < MAX_NODES; node++)
		if (spread->pages[node] > 0)
			TEST_LOG("node %u: %u pages", node, spread->pages[node]);
}

static inline void expect_all_on(const struct spread *spread, unsigned node)
{
	if (!EXPECT_EQ(spread->pages[node], spread->total))
		show_spread(spread);
}

static inline struct shale_segment_figures figures_of(struct shale_segment *segment)
{
	struct shale_segment_figures figures = {.size = sizeof(figures)};

	ASSERT_OK(shale_segment_stat(segment, &figures));
	return figures;
}

/* ---- a cgroup of one's own (v2) ---- */

#define CGROUP "/sys/fs/cgroup/shale-test"

static inline bool write_text(const char *path, const char *text)
{
	FILE *file = fopen(path, "we");
	bool good = file && fputs(text, file) >= 0;

	if (file && fclose(file) != 0)
		good = false;
	return good;
}

/* This process alone, with one limit: "memory.max", "64M". Only in a guest. */
static inline void enter_cgroup(const char *file, const char *limit)
{
	char path[128];

	if (!getenv("SHALE_GUEST"))
		SKIP("only in a guest");
	ASSERT_TRUE(
		write_text("/sys/fs/cgroup/cgroup.subtree_control", "+cpuset +memory +hugetlb"));
	if (mkdir(CGROUP, 0755) < 0)
		ASSERT_EQ(errno, EEXIST);
	snprintf(path, sizeof(path), CGROUP "/%s", file);
	ASSERT_TRUE(write_text(path, limit));
	ASSERT_TRUE(write_text(CGROUP "/cgroup.procs", "0"));
}

/* When the processes in it have ended. */
static inline void remove_cgroup(void)
{
	EXPECT_TRUE(TEST_EVENTUALLY(rmdir(CGROUP) == 0 || errno == ENOENT, 20000));
}

#endif
