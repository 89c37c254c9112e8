/*
 * numa_topology.c - nodes that lack something: one without a CPU, one without memory.
 *
 * Owner:     a test owns its segment.
 * Lifetime, death: nothing outlives a test.
 */
#include "nodes.h"

VARIANT_SET(pages) = {
	{"4k", SHALE_PAGES_4K, NULL}, {"thp", SHALE_PAGES_THP, NULL}, {"2m", SHALE_PAGES_2M, NULL}};

static unsigned need_cpuless_node(void)
{
	uint64_t nodes = memory_nodes() & ~cpu_nodes();

	if (nodes == 0)
		SKIP("every node has a CPU");
	return (unsigned)__builtin_ctzll(nodes);
}

static unsigned need_memoryless_node(void)
{
	uint64_t nodes = cpu_nodes() & ~memory_nodes();

	if (nodes == 0)
		SKIP("every node has memory");
	return (unsigned)__builtin_ctzll(nodes);
}

static void check_all_on(enum shale_pages pages, enum shale_placement placement, uint64_t nodes,
			 unsigned node)
{
	struct shale_segment *segment = create(pages, placement, nodes);
	struct spread spread = spread_of_blocks(segment);

	expect_all_on(&spread, node);
	EXPECT_EQ(shale_check(segment, NULL, NULL), 0);
	ASSERT_OK(shale_segment_detach(segment));
}

TEST_V(numa_topology, memory_without_a_cpu_is_had_by_asking, pages)
{
	enum shale_pages pages = (enum shale_pages)variant->value;
	unsigned node = need_cpuless_node();

	need_pool(pages);
	check_all_on(pages, SHALE_PLACE_BIND, UINT64_C(1) << node, node);
	check_all_on(pages, SHALE_PLACE_PREFERRED_MANY, UINT64_C(1) << node, node);
}

/* Nobody runs there, so nobody's local memory is there while the own node has room. */
TEST_V(numa_topology, memory_without_a_cpu_is_nobodys_local_memory, pages)
{
	enum shale_pages pages = (enum shale_pages)variant->value;
	unsigned node = need_cpuless_node(), first = (unsigned)__builtin_ctzll(cpu_nodes());

	need_pool(pages);
	EXPECT_NE(first, node);
	run_on_node(first);
	check_all_on(pages, SHALE_PLACE_LOCAL, 0, first);
}

/* It is nearer than the other node with a CPU. */
TEST_TIMEOUT(numa_topology, a_full_node_spills_to_memory_without_a_cpu, 60)
{
	unsigned node = need_cpuless_node(), first = (unsigned)__builtin_ctzll(cpu_nodes());
	struct shale_segment *segment;
	struct spread spread;

	EXPECT_EQ(nearest_nodes(first, memory_nodes()), UINT64_C(1) << node);
	run_on_node(first);
	hugepages_fill_node((int)first, 8 * MIB);
	segment = create(SHALE_PAGES_4K, SHALE_PLACE_LOCAL, 0);
	spread = spread_of_blocks(segment);
	EXPECT_GT(spread.pages[node], 0);
	EXPECT_EQ(spread.pages[node] + spread.pages[first], spread.total);
	ASSERT_OK(shale_segment_detach(segment));
}

TEST_V(numa_topology, a_cpu_without_memory_gets_that_of_the_nearest_node, pages)
{
	enum shale_pages pages = (enum shale_pages)variant->value;
	unsigned node = need_memoryless_node();
	uint64_t nearest = nearest_nodes(node, memory_nodes());
	struct shale_segment *segment;
	struct spread spread;

	need_pool(pages);
	EXPECT_EQ(nearest & (nearest - 1), 0);
	run_on_node(node);
	segment = create(pages, SHALE_PLACE_LOCAL, 0);
	spread = spread_of_blocks(segment);
	expect_all_on(&spread, (unsigned)__builtin_ctzll(nearest));
	EXPECT_EQ(figures_of(segment).arenas_elsewhere, figures_of(segment).arenas_committed);
	EXPECT_EQ(shale_check(segment, NULL, NULL), 0);
	ASSERT_OK(shale_segment_detach(segment));
}

TEST_V(numa_topology, a_node_without_memory_cannot_be_asked_for, pages)
{
	enum shale_pages pages = (enum shale_pages)variant->value;
	unsigned node = need_memoryless_node();

	for (unsigned mode = SHALE_PLACE_BIND; mode <= SHALE_PLACE_WEIGHTED; mode++) {
		struct shale_segment_options options =
			options_for(pages, (enum shale_placement)mode, UINT64_C(1) << node);
		struct shale_segment *segment = NULL;

		EXPECT_ERRNO(-EINVAL, shale_segment_create(&options, &segment));
		if (!strstr(reason, "has no memory"))
			TEST_FAIL("the reason is: %s", reason);
	}
}
