/*
 * numa_limits.c - what a cgroup (v2) allows: cpusets, hugetlb.max, memory.max. A limit is an error or
 * another node, never a signal.
 *
 * Owner:     a test owns its segment; the cgroup belongs to the one test that runs.
 * Invariant: only a child enters the cgroup, so that the test itself can remove it.
 * Lifetime:  the cgroup goes when the child has ended.
 * Death:     a child that is killed fails the test: that is what is tested.
 */
#include "nodes.h"

VARIANT_SET(pages) = {
	{"4k", SHALE_PAGES_4K, NULL}, {"thp", SHALE_PAGES_THP, NULL}, {"2m", SHALE_PAGES_2M, NULL}};
VARIANT_SET(small_pages) = {{"4k", SHALE_PAGES_4K, NULL}, {"thp", SHALE_PAGES_THP, NULL}};

/* Runs in a child that is in the cgroup. */
typedef void (*in_cgroup)(struct shale_segment *segment, enum shale_pages pages, unsigned first,
			  unsigned second);

static void run_in_cgroup(const char *file, const char *limit, in_cgroup run,
			  struct shale_segment *segment, enum shale_pages pages, unsigned first,
			  unsigned second)
{
	struct shale_segment *own = NULL;
	pid_t pid;

	if (!getenv("SHALE_GUEST"))
		SKIP("only in a guest");
	pid = test_fork();
	ASSERT_SYS(pid);
	if (pid == 0) {
		enter_cgroup(file, limit);
		run_on_node(first);
		if (segment)
			ASSERT_OK(shale_segment_attach(shale_segment_fd(segment), NULL, &own));
		run(own, pages, first, second);
		ASSERT_OK(shale_segment_detach(own));
		test_child_exit();
	}
	EXPECT_TRUE(test_join(pid, 120000));
	remove_cgroup();
}

static const char *node_text(unsigned node)
{
	static char text[16];

	snprintf(text, sizeof(text), "%u", node);
	return text;
}

/* ---- cpusets ---- */

static void local_stays_inside(struct shale_segment *none, enum shale_pages pages, unsigned first,
			       unsigned second)
{
	struct shale_segment *segment = create(pages, SHALE_PLACE_LOCAL, 0);
	struct spread spread = spread_of_blocks(segment);

	(void)none, (void)second;
	expect_all_on(&spread, first);
	ASSERT_OK(shale_segment_detach(segment));
}

TEST_V_TIMEOUT(numa_limits, local_keeps_to_the_cpuset, pages, 60)
{
	enum shale_pages pages = (enum shale_pages)variant->value;
	unsigned first, second;

	need_two_nodes(&first, &second);
	need_pool(pages);
	run_in_cgroup("cpuset.mems", node_text(first), local_stays_inside, NULL, pages, first,
		      second);
}

static void bind_outside_is_refused(struct shale_segment *none, enum shale_pages pages,
				    unsigned first, unsigned second)
{
	struct shale_segment_options options =
		options_for(pages, SHALE_PLACE_BIND, UINT64_C(1) << second);
	struct shale_segment *segment = NULL;

	(void)none, (void)first;
	EXPECT_ERRNO(-EINVAL, shale_segment_create(&options, &segment));
	if (!strstr(reason, "not allowed"))
		TEST_FAIL("the reason is: %s", reason);
}

TEST_V_TIMEOUT(numa_limits, bind_outside_the_cpuset_is_refused_with_a_reason, pages, 60)
{
	enum shale_pages pages = (enum shale_pages)variant->value;
	unsigned first, second;

	need_two_nodes(&first, &second);
	need_pool(pages);
	run_in_cgroup("cpuset.mems", node_text(first), bind_outside_is_refused, NULL, pages, first,
		      second);
}

static void gets_nothing(struct shale_segment *segment, enum shale_pages pages, unsigned first,
			 unsigned second)
{
	(void)pages, (void)first, (void)second;
	EXPECT_NULL(shale_alloc(segment, BLOCK_BYTES));
	EXPECT_EQ(errno, ENOMEM);
}

/* The kernel alone would put the pages on a node that was not asked for, without a word. */
TEST_V_TIMEOUT(numa_limits, bind_is_kept_by_a_process_that_cannot_reach_the_node, pages, 60)
{
	enum shale_pages pages = (enum shale_pages)variant->value;
	struct shale_segment *segment;
	struct spread spread;
	unsigned first, second;

	need_two_nodes(&first, &second);
	need_pool(pages);
	segment = create(pages, SHALE_PLACE_BIND, UINT64_C(1) << second);
	run_in_cgroup("cpuset.mems", node_text(first), gets_nothing, segment, pages, first, second);
	spread = spread_of_blocks(segment);
	expect_all_on(&spread, second);
	ASSERT_OK(shale_segment_detach(segment));
}

static void gets_it_elsewhere(struct shale_segment *segment, enum shale_pages pages, unsigned first,
			      unsigned second)
{
	struct spread spread = spread_of_blocks(segment);

	(void)pages, (void)second;
	expect_all_on(&spread, first);
	EXPECT_GT(figures_of(segment).arenas_elsewhere, 0);
}

TEST_V_TIMEOUT(numa_limits, preferred_goes_where_the_cpuset_allows_and_it_shows, pages, 60)
{
	enum shale_pages pages = (enum shale_pages)variant->value;
	struct shale_segment *segment;
	unsigned first, second;

	need_two_nodes(&first, &second);
	need_pool(pages);
	segment = create(pages, SHALE_PLACE_PREFERRED_MANY, UINT64_C(1) << second);
	run_in_cgroup("cpuset.mems", node_text(first), gets_it_elsewhere, segment, pages, first,
		      second);
	ASSERT_OK(shale_segment_detach(segment));
}

static void gets_it_on_the_first(struct shale_segment *segment, enum shale_pages pages,
				 unsigned first, unsigned second)
{
	struct spread spread = spread_of_blocks(segment);

	(void)pages, (void)second;
	expect_all_on(&spread, first);
}

/* And its own limits do not become those of the others. */
TEST_V_TIMEOUT(numa_limits, interleave_is_cut_for_who_is_limited_alone, pages, 60)
{
	enum shale_pages pages = (enum shale_pages)variant->value;
	struct shale_segment *segment;
	struct spread spread;
	unsigned first, second;

	need_two_nodes(&first, &second);
	need_pool(pages);
	segment =
		create(pages, SHALE_PLACE_INTERLEAVE, UINT64_C(1) << first | UINT64_C(1) << second);
	run_in_cgroup("cpuset.mems", node_text(first), gets_it_on_the_first, segment, pages, first,
		      second);
	(void)shale_recover(segment);
	EXPECT_GE(shale_trim(segment, 0), 0);
	spread = spread_of_blocks(segment);
	EXPECT_GT(spread.pages[first], 0);
	EXPECT_GT(spread.pages[second], 0);
	ASSERT_OK(shale_segment_detach(segment));
}

/* ---- limits of size ---- */

/* Until it is refused: how many blocks of 1 MiB. */
static unsigned take_all(struct shale_segment *segment)
{
	unsigned count = 0;
	char *block;

	while (count < 1024 && (block = shale_alloc(segment, MIB)) != NULL) {
		memset(block, 1, MIB);
		count++;
	}
	EXPECT_EQ(errno, ENOMEM);
	return count;
}

static void fills_to_the_limit(struct shale_segment *none, enum shale_pages pages, unsigned first,
			       unsigned second)
{
	struct shale_segment *segment = create(pages, SHALE_PLACE_LOCAL, 0);
	unsigned count = take_all(segment);

	(void)none, (void)first, (void)second;
	TEST_LOG("%u blocks of 1 MiB", count);
	EXPECT_GE(count, 8);
	EXPECT_LT(count, 32);
	EXPECT_EQ(shale_check(segment, NULL, NULL), 0);
	ASSERT_OK(shale_segment_detach(segment));
}

/* A segment may have 64 MiB, the cgroup 32. */
TEST_V_TIMEOUT(numa_limits, memory_max_is_enomem_and_kills_nobody, small_pages, 120)
{
	run_in_cgroup("memory.max", "32M", fills_to_the_limit, NULL,
		      (enum shale_pages)variant->value, 0, 0);
}

TEST_TIMEOUT(numa_limits, hugetlb_max_is_enomem_and_no_signal, 60)
{
	need_pool(SHALE_PAGES_2M);
	run_in_cgroup("hugetlb.2MB.max", "32M", fills_to_the_limit, NULL, SHALE_PAGES_2M, 0, 0);
}
