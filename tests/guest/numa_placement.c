/*
 * numa_placement.c - blocks lie on the nodes that were asked for, whoever commits them, on every kind
 * of page; a full node is ENOMEM or the fallback, never a signal; a bad node is refused with a reason.
 *
 * What lies where is asked of the kernel (move_pages), not of the library. Runs on any machine; with
 * one node, which is most, only what needs one: tests/guest/run boots a guest with two.
 *
 * Owner:     a test owns its segment; the pools of huge pages are hugepages.h's to lend.
 * Invariant: the policy asked for is never that which the CPU alone would bring about: the test runs
 *            on a CPU of another node.
 * Lifetime:  segments go with their test, and with them their pages.
 * Death:     nothing outlives a test.
 */
#include "nodes.h"

VARIANT_SET(pages) = {
	{"4k", SHALE_PAGES_4K, NULL}, {"thp", SHALE_PAGES_THP, NULL}, {"2m", SHALE_PAGES_2M, NULL}};

/* ---- the asked nodes ---- */

static void check_one_node(enum shale_pages pages, enum shale_placement placement, unsigned cpu_of,
			   unsigned node)
{
	struct shale_segment *segment;
	struct spread spread;

	run_on_node(cpu_of);
	segment = create(pages, placement, UINT64_C(1) << node);
	spread = spread_of_blocks(segment);
	expect_all_on(&spread, node);
	EXPECT_EQ(shale_check(segment, NULL, NULL), 0);
	ASSERT_OK(shale_segment_detach(segment));
}

TEST_V(numa_placement, bind_is_the_node_asked_for_not_the_cpus, pages)
{
	enum shale_pages pages = (enum shale_pages)variant->value;
	unsigned first, second;

	need_two_nodes(&first, &second);
	need_pool(pages);
	check_one_node(pages, SHALE_PLACE_BIND, first, second);
	check_one_node(pages, SHALE_PLACE_BIND, second, first);
}

TEST_V(numa_placement, preferred_is_the_node_asked_for_while_it_has_room, pages)
{
	enum shale_pages pages = (enum shale_pages)variant->value;
	unsigned first, second;

	need_two_nodes(&first, &second);
	need_pool(pages);
	check_one_node(pages, SHALE_PLACE_PREFERRED_MANY, first, second);
	check_one_node(pages, SHALE_PLACE_PREFERRED_MANY, second, first);
}

TEST_V(numa_placement, local_is_the_node_of_who_commits, pages)
{
	enum shale_pages pages = (enum shale_pages)variant->value;
	unsigned first, second;

	need_two_nodes(&first, &second);
	need_pool(pages);
	check_one_node(pages, SHALE_PLACE_LOCAL, second, second);
	check_one_node(pages, SHALE_PLACE_LOCAL, first, first);
}

static void check_both_nodes(enum shale_pages pages, enum shale_placement placement)
{
	struct shale_segment *segment;
	struct spread spread;
	unsigned first, second;

	need_two_nodes(&first, &second);
	need_pool(pages);
	run_on_node(first);
	segment = create(pages, placement, UINT64_C(1) << first | UINT64_C(1) << second);
	spread = spread_of_blocks(segment);
	EXPECT_EQ(spread.pages[first] + spread.pages[second], spread.total);
	/* Turn by turn: equal, but for the small blocks and where the turns begin. */
	EXPECT_GE(spread.pages[first] * 5, spread.total * 2);
	EXPECT_GE(spread.pages[second] * 5, spread.total * 2);
	TEST_LOG("%u pages on the first, %u on the second", spread.pages[first],
		 spread.pages[second]);
	ASSERT_OK(shale_segment_detach(segment));
}

TEST_V(numa_placement, interleave_takes_the_nodes_in_turn, pages)
{
	check_both_nodes((enum shale_pages)variant->value, SHALE_PLACE_INTERLEAVE);
}

/* The kernel's weights are equal unless set; before 6.9 this is interleave. */
TEST_V(numa_placement, weighted_takes_the_nodes_in_turn, pages)
{
	check_both_nodes((enum shale_pages)variant->value, SHALE_PLACE_WEIGHTED);
}

/* Nodes 0 .. 7 of `nodes`: pages on each, at least 3/4 of an equal part. */
static void expect_equal_parts(const struct spread *spread, uint64_t nodes)
{
	unsigned count = (unsigned)__builtin_popcountll(nodes);

	EXPECT_EQ(spread_on(spread, nodes), spread->total);
	for (unsigned node = 0; node < MAX_NODES; node++)
		if (is_node(nodes, node) &&
		    !EXPECT_GE(spread->pages[node] * 4, spread->total / count * 3))
			show_spread(spread);
}

/* As many large blocks as make equal parts possible; where they lie. */
static struct spread spread_of_turns(struct shale_segment *segment, unsigned turns)
{
	struct spread spread = {0};

	for (unsigned i = 0; i < turns; i++) {
		char *block = shale_alloc(segment, BLOCK_BYTES);

		ASSERT_NOT_NULL(block);
		memset(block, 1, BLOCK_BYTES);
		add_spread(&spread, block, BLOCK_BYTES);
	}
	return spread;
}

TEST_V(numa_placement, interleave_reaches_every_node, pages)
{
	enum shale_pages pages = (enum shale_pages)variant->value;
	uint64_t nodes = memory_nodes();
	struct shale_segment *segment;
	struct spread spread;
	unsigned first, second;

	need_two_nodes(&first, &second);
	need_pool(pages);
	segment = create(pages, SHALE_PLACE_INTERLEAVE, nodes);
	spread = spread_of_turns(segment, 2 * (unsigned)__builtin_popcountll(nodes));
	if (pages == SHALE_PAGES_THP)
		/* the first arena of a segment is in small pages: on all nodes */
		EXPECT_EQ(spread_on(&spread, nodes), spread.total);
	else
		expect_equal_parts(&spread, nodes);
	ASSERT_OK(shale_segment_detach(segment));
}

static bool set_weight(unsigned node, const char *weight)
{
	char path[96];

	snprintf(path, sizeof(path), "/sys/kernel/mm/mempolicy/weighted_interleave/node%u", node);
	return access(path, F_OK) == 0 && write_text(path, weight);
}

/* 3 to 1; a kernel before 6.9 does not know weights, and takes turns. */
TEST_V(numa_placement, weights_are_followed_where_the_kernel_has_them, pages)
{
	enum shale_pages pages = (enum shale_pages)variant->value;
	struct shale_segment *segment;
	unsigned first, second;
	struct spread spread;
	bool weighted;

	need_two_nodes(&first, &second);
	need_pool(pages);
	if (!getenv("SHALE_GUEST"))
		SKIP("only in a guest");
	weighted = set_weight(first, "3") && set_weight(second, "1");
	segment = create(pages, SHALE_PLACE_WEIGHTED, UINT64_C(1) << first | UINT64_C(1) << second);
	spread = spread_of_turns(segment, 12);
	EXPECT_EQ(spread.pages[first] + spread.pages[second], spread.total);
	TEST_LOG("%s: %u and %u pages", weighted ? "3 to 1" : "in turn", spread.pages[first],
		 spread.pages[second]);
	EXPECT_GE(spread.pages[first] * 12, spread.total * (weighted ? 8 : 5));
	EXPECT_LE(spread.pages[first] * 12, spread.total * (weighted ? 10 : 7));
	(void)set_weight(first, "1");
	ASSERT_OK(shale_segment_detach(segment));
}

/* Of several nodes the one that is nearest to who commits. */
static void check_nearest_of_several(enum shale_pages pages, enum shale_placement placement)
{
	struct shale_segment *segment;
	unsigned first, second;
	struct spread spread;

	need_two_nodes(&first, &second);
	need_pool(pages);
	for (unsigned i = 0; i < 2; i++) {
		unsigned node = i == 0 ? second : first;

		run_on_node(node);
		segment = create(pages, placement, UINT64_C(1) << first | UINT64_C(1) << second);
		spread = spread_of_blocks(segment);
		expect_all_on(&spread, node);
		ASSERT_OK(shale_segment_detach(segment));
	}
}

TEST_V(numa_placement, bind_to_several_takes_the_nearest_of_them, pages)
{
	check_nearest_of_several((enum shale_pages)variant->value, SHALE_PLACE_BIND);
}

TEST_V(numa_placement, preferred_of_several_is_the_nearest_of_them, pages)
{
	check_nearest_of_several((enum shale_pages)variant->value, SHALE_PLACE_PREFERRED_MANY);
}

/* On huge pages a policy is that of the process that commits: each must know what was asked for. */
TEST_V(numa_placement, bind_holds_for_every_process, pages)
{
	enum shale_pages pages = (enum shale_pages)variant->value;
	struct shale_segment *segment, *other = NULL;
	struct spread spread;
	unsigned first, second;
	pid_t pid;

	need_two_nodes(&first, &second);
	need_pool(pages);
	run_on_node(first);
	segment = create(pages, SHALE_PLACE_BIND, UINT64_C(1) << second);
	pid = test_fork();
	ASSERT_SYS(pid);
	if (pid == 0) {
		ASSERT_OK(shale_segment_attach(shale_segment_fd(segment), NULL, &other));
		spread = spread_of_blocks(other);
		expect_all_on(&spread, second);
		ASSERT_OK(shale_segment_detach(other));
		test_child_exit();
	}
	EXPECT_TRUE(test_join(pid, 20000));
	ASSERT_OK(shale_segment_detach(segment));
}

/* ---- nodes without room ---- */

/* Blocks on 2 MiB pages of one node until that is refused, with the error it was refused with. */
static unsigned fill(struct shale_segment *segment, unsigned limit, struct spread *ret_spread,
		     int *ret_error)
{
	unsigned count = 0;

	*ret_spread = (struct spread){0};
	*ret_error = 0;
	while (count < limit) {
		char *block = shale_alloc(segment, BLOCK_BYTES);

		if (!block) {
			*ret_error = errno;
			break;
		}
		memset(block, 3, BLOCK_BYTES);
		add_spread(ret_spread, block, BLOCK_BYTES);
		count++;
	}
	return count;
}

/* A segment bound to the node, larger than the node's pool. */
static struct shale_segment *create_larger_than_pool(enum shale_placement placement, unsigned node,
						     uint64_t pool)
{
	struct shale_segment_options options =
		options_for(SHALE_PAGES_2M, placement, UINT64_C(1) << node);
	struct shale_segment *segment = NULL;

	options.capacity_bytes = (pool + 32) * 2 * MIB;
	ASSERT_OK(shale_segment_create(&options, &segment));
	return segment;
}

/* Then the node has no huge page at all: not for a new segment either, but AUTO finds others. */
static void check_nothing_left(unsigned node)
{
	struct shale_segment_options options =
		options_for(SHALE_PAGES_2M, SHALE_PLACE_BIND, UINT64_C(1) << node);
	struct shale_segment_figures stat = {.size = sizeof(stat)};
	struct shale_segment *segment = NULL;
	struct spread spread;

	EXPECT_ERRNO(-ENOMEM, shale_segment_create(&options, &segment));
	EXPECT_NE(reason[0], '\0');
	segment = create(SHALE_PAGES_AUTO, SHALE_PLACE_BIND, UINT64_C(1) << node);
	ASSERT_OK(shale_segment_stat(segment, &stat));
	EXPECT_NE(stat.pages, SHALE_PAGES_2M);
	spread = spread_of_blocks(segment);
	expect_all_on(&spread, node);
	ASSERT_OK(shale_segment_detach(segment));
}

TEST_TIMEOUT(numa_placement, bind_to_an_empty_pool_is_enomem, 60)
{
	struct shale_segment *segment;
	struct spread spread;
	unsigned first, second, count;
	uint64_t pool, elsewhere;
	int error;

	need_two_nodes(&first, &second);
	need_pool(SHALE_PAGES_2M);
	run_on_node(first);
	pool = hugepages_free(2 * MIB, (int)second);
	elsewhere = hugepages_free(2 * MIB, (int)first);
	segment = create_larger_than_pool(SHALE_PLACE_BIND, second, pool);
	count = fill(segment, (unsigned)pool + 32, &spread, &error);
	EXPECT_EQ(error, ENOMEM);
	EXPECT_GE(count, pool / 2);
	expect_all_on(&spread, second);
	EXPECT_EQ(hugepages_free(2 * MIB, (int)first), elsewhere);
	while (shale_alloc(segment, 16384))
		; /* the last page's remains */
	if (hugepages_free(2 * MIB, (int)second) == 0)
		check_nothing_left(second);
	else
		TEST_FAIL("the node still has huge pages");
	EXPECT_EQ(shale_check(segment, NULL, NULL), 0);
	ASSERT_OK(shale_segment_detach(segment));
	EXPECT_EQ(hugepages_free(2 * MIB, (int)second), pool);
}

TEST_TIMEOUT(numa_placement, preferred_goes_on_elsewhere_when_the_pool_is_empty, 60)
{
	struct shale_segment *segment;
	struct spread spread;
	unsigned first, second, wanted;
	uint64_t pool;
	int error;

	need_two_nodes(&first, &second);
	need_pool(SHALE_PAGES_2M);
	run_on_node(second);
	pool = hugepages_free(2 * MIB, (int)second);
	segment = create_larger_than_pool(SHALE_PLACE_PREFERRED_MANY, second, pool);
	wanted = (unsigned)pool + 4;
	EXPECT_EQ(fill(segment, wanted, &spread, &error), wanted);
	/* the nearest node first; where several are equally near, the kernel chooses among them */
	EXPECT_GT(spread_on(&spread, nearest_nodes(second, memory_nodes())), 0);
	EXPECT_EQ(spread_on(&spread, nearest_nodes(second, memory_nodes())) + spread.pages[second],
		  spread.total);
	EXPECT_GT(spread.pages[second], spread.total / 2);
	EXPECT_EQ(shale_check(segment, NULL, NULL), 0);
	ASSERT_OK(shale_segment_detach(segment));
}

/* ---- nodes that are none ---- */

static void expect_refused(enum shale_pages pages, enum shale_placement placement, uint64_t nodes,
			   const char *why)
{
	struct shale_segment_options options = options_for(pages, placement, nodes);
	struct shale_segment *segment = NULL;

	EXPECT_ERRNO(-EINVAL, shale_segment_create(&options, &segment));
	EXPECT_NULL(segment);
	if (!strstr(reason, why))
		TEST_FAIL("the reason is: %s", reason);
}

TEST_V(numa_placement, a_node_that_is_none_is_refused_with_a_reason, pages)
{
	enum shale_pages pages = (enum shale_pages)variant->value;
	uint64_t nodes = memory_nodes(), absent = ~nodes & (nodes + 1);
	char why[32];

	test_expect_no_fd_leak();
	snprintf(why, sizeof(why), "node %d", __builtin_ctzll(absent));
	for (unsigned mode = SHALE_PLACE_BIND; mode <= SHALE_PLACE_WEIGHTED; mode++) {
		expect_refused(pages, (enum shale_placement)mode, absent, why);
		expect_refused(pages, (enum shale_placement)mode, nodes | absent, why);
		expect_refused(pages, (enum shale_placement)mode, 0, "needs nodes");
	}
}
