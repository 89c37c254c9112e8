/*
 * numa_spill.c - a node that is full: memory comes from the next one by distance and the figures say
 * so; with BIND it is ENOMEM, and nobody is killed for it.
 *
 * Owner:     a test owns its segment; what fills the node is the pool of huge pages (hugepages.h).
 * Invariant: the node that is filled is not the first one, where the kernel itself lives.
 * Lifetime:  the pool is as before when the test has ended.
 * Death:     nothing outlives a test.
 */
#include "nodes.h"

enum { SPILL_BYTES = 56 * MIB };

VARIANT_SET(small_pages) = {{"4k", SHALE_PAGES_4K, NULL}, {"thp", SHALE_PAGES_THP, NULL}};

/* So much of a node is the kernel's own, and `more` beside it. */
static uint64_t kernels_part_and(uint64_t more)
{
	unsigned nodes = (unsigned)__builtin_popcountll(memory_nodes());
	unsigned long kib = 0;
	FILE *file = fopen("/proc/sys/vm/min_free_kbytes", "re");

	if (file) {
		if (fscanf(file, "%lu", &kib) != 1)
			kib = 0;
		fclose(file);
	}
	return (uint64_t)kib * 1024 / nodes * 3 / 2 + more;
}

/* Blocks of 2 MiB, written to, until `bytes` are there or it is refused; the error, or 0. */
static int take(struct shale_segment *segment, uint64_t bytes, struct spread *spread)
{
	for (uint64_t taken = 0; taken < bytes; taken += BLOCK_BYTES) {
		char *block = shale_alloc(segment, BLOCK_BYTES);

		if (!block)
			return errno;
		memset(block, 1, BLOCK_BYTES);
		add_spread(spread, block, BLOCK_BYTES);
	}
	return 0;
}

static void expect_spill(const struct spread *spread, unsigned node)
{
	uint64_t nearest = nearest_nodes(node, memory_nodes());

	if (!EXPECT_GT(spread_on(spread, nearest), 0) ||
	    !EXPECT_EQ(spread_on(spread, nearest) + spread->pages[node], spread->total))
		show_spread(spread);
}

TEST_V_TIMEOUT(numa_spill, local_goes_on_on_the_nearest_node, small_pages, 60)
{
	struct shale_segment_figures figures;
	struct shale_segment *segment;
	struct spread spread = {0};
	unsigned first, second, counted = 0;

	need_two_nodes(&first, &second);
	run_on_node(second);
	hugepages_fill_node((int)second, kernels_part_and(16 * MIB));
	segment = create((enum shale_pages)variant->value, SHALE_PLACE_LOCAL, 0);
	EXPECT_EQ(take(segment, SPILL_BYTES, &spread), 0);
	expect_spill(&spread, second);
	figures = figures_of(segment);
	EXPECT_GT(figures.arenas_elsewhere, 0);
	EXPECT_EQ(figures.arenas_elsewhere + figures.arenas_on_node[second],
		  figures.arenas_committed);
	for (unsigned node = 0; node < 64; node++)
		counted += figures.arenas_on_node[node];
	EXPECT_EQ(counted, figures.arenas_committed);
	EXPECT_EQ(shale_check(segment, NULL, NULL), 0);
	ASSERT_OK(shale_segment_detach(segment));
}

/* Many small blocks: a spilled arena is filled like any other, not one committed for each slab. */
TEST_TIMEOUT(numa_spill, a_spilled_arena_is_used_to_its_end, 60)
{
	struct shale_segment_figures figures;
	struct shale_segment *segment;
	unsigned first, second;

	need_two_nodes(&first, &second);
	run_on_node(second);
	hugepages_fill_node((int)second, 0);
	segment = create(SHALE_PAGES_4K, SHALE_PLACE_LOCAL, 0);
	for (unsigned i = 0; i < 12 * MIB / 1024; i++)
		ASSERT_NOT_NULL(shale_alloc(segment, 1024));
	figures = figures_of(segment);
	EXPECT_GT(figures.arenas_elsewhere, 0);
	EXPECT_LE(figures.arenas_committed, 8);
	ASSERT_OK(shale_segment_detach(segment));
}

TEST_V_TIMEOUT(numa_spill, bind_to_a_full_node_is_enomem_and_kills_nobody, small_pages, 60)
{
	struct shale_segment *segment;
	struct spread spread = {0};
	unsigned first, second;

	need_two_nodes(&first, &second);
	run_on_node(first);
	hugepages_fill_node((int)second, kernels_part_and(16 * MIB));
	segment = create((enum shale_pages)variant->value, SHALE_PLACE_BIND, UINT64_C(1) << second);
	EXPECT_EQ(take(segment, 64 * MIB, &spread), ENOMEM);
	EXPECT_GT(spread.total, 0);
	expect_all_on(&spread, second);
	EXPECT_EQ(figures_of(segment).arenas_elsewhere, 0);
	EXPECT_EQ(shale_check(segment, NULL, NULL), 0);
	ASSERT_OK(shale_segment_detach(segment));
}

TEST_TIMEOUT(numa_spill, local_huge_pages_come_from_the_nearest_pool, 60)
{
	struct shale_segment_options options = options_for(SHALE_PAGES_2M, SHALE_PLACE_LOCAL, 0);
	struct shale_segment *segment = NULL;
	struct spread spread = {0};
	unsigned first, second;
	uint64_t pool;

	need_two_nodes(&first, &second);
	need_pool(SHALE_PAGES_2M);
	run_on_node(second);
	pool = hugepages_free(2 * MIB, (int)second);
	options.capacity_bytes = (pool + 32) * 2 * MIB;
	ASSERT_OK(shale_segment_create(&options, &segment));
	EXPECT_EQ(take(segment, (pool + 4) * 2 * MIB, &spread), 0);
	expect_spill(&spread, second);
	EXPECT_EQ(hugepages_free(2 * MIB, (int)second), 0);
	EXPECT_GT(figures_of(segment).arenas_elsewhere, 0);
	EXPECT_EQ(shale_check(segment, NULL, NULL), 0);
	ASSERT_OK(shale_segment_detach(segment));
}

/* All pools: ENOMEM, not SIGBUS, and what was there stays good. */
TEST_TIMEOUT(numa_spill, no_huge_page_anywhere_is_enomem, 60)
{
	struct shale_segment_options options = options_for(SHALE_PAGES_2M, SHALE_PLACE_LOCAL, 0);
	struct shale_segment *segment = NULL;
	struct spread spread = {0};
	unsigned first, second;
	uint64_t pool;

	need_two_nodes(&first, &second);
	need_pool(SHALE_PAGES_2M);
	pool = hugepages_free(2 * MIB, HUGEPAGES_ANY_NODE);
	options.capacity_bytes = (pool + 32) * 2 * MIB;
	ASSERT_OK(shale_segment_create(&options, &segment));
	EXPECT_EQ(take(segment, (pool + 16) * 2 * MIB, &spread), ENOMEM);
	EXPECT_EQ(hugepages_free(2 * MIB, HUGEPAGES_ANY_NODE), 0);
	EXPECT_EQ(shale_check(segment, NULL, NULL), 0);
	ASSERT_OK(shale_segment_detach(segment));
	EXPECT_EQ(hugepages_free(2 * MIB, HUGEPAGES_ANY_NODE), pool);
}
