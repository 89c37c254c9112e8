/* heap_placement.c - which arenas become huge pages, and that moving and looking keep to their errors. */
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include <shale/numa.h>

#include "heap/placement.h"
#include "heap/slab.h"
#include "heaps.h"
#include "os/os.h"

static struct shale_segment_figures figures_of(struct shale_segment *segment)
{
	struct shale_segment_figures figures = {.size = sizeof(figures)};

	ASSERT_OK(shale_segment_stat(segment, &figures));
	return figures;
}

/* And on one node, if there are several: a thread that moves begins another arena. */
static void need_collapse(void)
{
	struct os_feature_report report;
	cpu_set_t here;

	CPU_ZERO(&here);
	CPU_SET((unsigned)sched_getcpu(), &here);
	ASSERT_SYS(sched_setaffinity(0, sizeof(here), &here));

	ASSERT_OK(os_probe(OS_FEATURE_COLLAPSE, &report));
	if (report.status != OS_OK)
		SKIP("the kernel does not collapse shared memory");
	/* so that only we make huge pages */
	hugepages_require_thp("shmem_enabled", "never");
}

/* KiB of our mappings of shared memory that are huge pages. */
static unsigned long huge_kib(void)
{
	FILE *file = fopen("/proc/self/smaps", "re");
	unsigned long sum = 0, kib;
	char line[256];

	ASSERT_NOT_NULL(file);
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "ShmemPmdMapped: %lu", &kib) == 1)
			sum += kib;
	fclose(file);
	return sum;
}

static void *take(struct shale_segment *segment, size_t size)
{
	void *block = shale_alloc(segment, size);

	ASSERT_NOT_NULL(block);
	memset(block, 1, size);
	return block;
}

TEST(heap_placement, a_little_used_arena_takes_no_huge_page)
{
	struct shale_segment *segment;

	need_collapse();
	segment = heap_segment(MIB(64), SHALE_PAGES_THP);
	(void)take(segment, 1000);
	EXPECT_EQ(figures_of(segment).arenas_committed, 1);
	EXPECT_EQ(figures_of(segment).arenas_small, 1);
	EXPECT_EQ(huge_kib(), 0);
	ASSERT_OK(shale_segment_detach(segment));
}

TEST(heap_placement, a_heap_that_grows_takes_huge_pages_for_all)
{
	struct shale_segment *segment;

	need_collapse();
	segment = heap_segment(MIB(64), SHALE_PAGES_THP);
	while (figures_of(segment).arenas_committed < 3)
		(void)take(segment, 16384);
	EXPECT_EQ(figures_of(segment).arenas_small, 0);
	EXPECT_EQ(huge_kib(), 3 * 2048);
	heap_expect_clean(segment);
	ASSERT_OK(shale_segment_detach(segment));
}

static bool collapse_by_hand(struct shale_segment *segment, uint64_t arena)
{
	struct lane *lane;

	ASSERT_OK(lane_enter(segment, &lane));
	return placement_collapse(lane, arena);
}

/* Three quarters of the slabs, not one less; and never over a page that was given back. */
TEST(heap_placement, only_a_mostly_used_arena_is_collapsed_later)
{
	struct shale_segment *segment;
	struct arena_shm *arena;

	need_collapse();
	segment = heap_segment(MIB(64), SHALE_PAGES_THP);
	for (unsigned i = 0; i < 23; i++)
		(void)take(segment, 65536);
	EXPECT_FALSE(collapse_by_hand(segment, 0));
	(void)take(segment, 65536);
	arena = heap_arena(segment, 0);
	store_relaxed(&arena->punched[30], (uint16_t)1);
	EXPECT_FALSE(collapse_by_hand(segment, 0));
	store_relaxed(&arena->punched[30], (uint16_t)0);
	/* somebody is at it */
	store_relaxed(&arena->lease, UINT64_C(0x7002));
	EXPECT_FALSE(collapse_by_hand(segment, 0));
	store_relaxed(&arena->lease, UINT64_C(0));
	EXPECT_EQ(figures_of(segment).arenas_small, 1);
	EXPECT_TRUE(collapse_by_hand(segment, 0));
	EXPECT_EQ(load_relaxed(&arena->lease), 0);
	EXPECT_EQ(figures_of(segment).arenas_small, 0);
	/* once is enough */
	EXPECT_FALSE(collapse_by_hand(segment, 0));
	EXPECT_EQ(huge_kib(), 2048);
	ASSERT_OK(shale_segment_detach(segment));
}

/* Without huge pages to be had, small ones do. */
TEST(heap_placement, a_refused_collapse_is_small_pages_and_counted)
{
	struct shale_segment *segment;

	need_collapse();
	segment = heap_segment(MIB(64), SHALE_PAGES_THP);
	(void)take(segment, 1000);
	os_fault_arm(OS_CALL_MADVISE, 1, ENOMEM);
	(void)take(segment, MIB(3));
	os_fault_disarm();
	EXPECT_GE(figures_of(segment).arenas_small, 2);
	heap_expect_clean(segment);
	ASSERT_OK(shale_segment_detach(segment));
}

VARIANT_SET(pages) = {{"4k", SHALE_PAGES_4K, NULL},
		      {"thp", SHALE_PAGES_THP, NULL},
		      {"2m", SHALE_PAGES_2M, NULL},
		      {"private", SHALE_PAGES_PRIVATE, NULL}};

static void add_bytes(const struct shale_numa_part *part, void *context)
{
	uint64_t *sum = context;

	EXPECT_EQ(part->unknown_bytes, 0);
	for (unsigned node = 0; node < part->node_count; node++)
		*sum += part->node_bytes[node];
}

TEST_V(heap_placement, looking_finds_what_is_there, pages)
{
	struct shale_segment *segment = heap_segment(MIB(64), (enum shale_pages)variant->value);
	uint64_t bytes = 0;
	int r;

	(void)take(segment, MIB(3));
	r = shale_numa_look(segment, add_bytes, &bytes);
	if (r == -EOPNOTSUPP)
		SKIP("no NUMA in this kernel or build");
	EXPECT_GT(r, 0);
	EXPECT_GE(bytes, MIB(3));
	EXPECT_EQ(shale_numa_look(segment, NULL, NULL), r);
	ASSERT_OK(shale_segment_detach(segment));
}

TEST_V(heap_placement, where_it_is_already_nothing_moves, pages)
{
	struct shale_segment *segment = heap_segment(MIB(64), (enum shale_pages)variant->value);
	char *block = take(segment, MIB(3));
	struct os_nodes nodes;
	int64_t moved;

	ASSERT_OK(os_numa_nodes(&nodes));
	EXPECT_EQ(nodes.bits[0] & 1, 1);
	moved = shale_migrate(segment, NULL, 0);
	if (moved == -EOPNOTSUPP)
		SKIP("no NUMA in this kernel or build");
	if (nodes.bits[0] == 1)
		EXPECT_EQ(moved, 0);
	EXPECT_EQ(shale_migrate(segment, NULL, 0), 0);
	EXPECT_EQ(shale_migrate(segment, block, 0), 0);
	EXPECT_EQ(shale_migrate(segment, block + 4096, 0), -EINVAL);
	EXPECT_EQ(shale_migrate(segment, &nodes, 0), -EINVAL);
	EXPECT_EQ(shale_migrate(segment, NULL, 900), -EINVAL);
	EXPECT_EQ(shale_migrate(segment, NULL, UINT32_MAX), -EINVAL);
	ASSERT_OK(shale_segment_detach(segment));
}
