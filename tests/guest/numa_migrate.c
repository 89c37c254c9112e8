/*
 * numa_migrate.c - memory moves to the node that is named, with what is in it; what cannot move is an
 * error with a name; looking tells what the kernel tells and brings nothing back.
 *
 * Owner:     a test owns its segment.
 * Lifetime, death: nothing outlives a test.
 */
#include "nodes.h"

#include <shale/numa.h>

VARIANT_SET(pages) = {
	{"4k", SHALE_PAGES_4K, NULL}, {"thp", SHALE_PAGES_THP, NULL}, {"2m", SHALE_PAGES_2M, NULL}};

enum { LOTS = 5 };

struct load {
	unsigned char *large[LOTS];
	unsigned char *small[512];
};

static void fill_load(struct shale_segment *segment, struct load *load)
{
	for (unsigned i = 0; i < LOTS; i++) {
		load->large[i] = shale_alloc(segment, BLOCK_BYTES);
		ASSERT_NOT_NULL(load->large[i]);
		memset(load->large[i], 'a' + (int)i, BLOCK_BYTES);
	}
	for (unsigned i = 0; i < 512; i++) {
		load->small[i] = shale_alloc(segment, 1024);
		ASSERT_NOT_NULL(load->small[i]);
		memset(load->small[i], (int)i & 0xff, 1024);
	}
}

static void check_load(const struct load *load)
{
	for (unsigned i = 0; i < LOTS; i++)
		for (size_t at = 0; at < BLOCK_BYTES; at += 997)
			ASSERT_EQ(load->large[i][at], 'a' + i);
	for (unsigned i = 0; i < 512; i++)
		for (size_t at = 0; at < 1024; at++)
			ASSERT_EQ(load->small[i][at], i & 0xff);
}

static struct spread spread_of_load(const struct load *load)
{
	struct spread spread = {0};

	for (unsigned i = 0; i < LOTS; i++)
		add_spread(&spread, load->large[i], BLOCK_BYTES);
	for (unsigned i = 0; i < 512; i++)
		add_spread(&spread, load->small[i], 1024);
	return spread;
}

/* What shale_numa_look() found, in bytes. */
struct found {
	uint64_t on_node[MAX_NODES];
	uint64_t unknown;
	unsigned arenas, at_home[MAX_NODES];
};

static void on_part(const struct shale_numa_part *part, void *context)
{
	struct found *found = context;

	for (unsigned node = 0; node < part->node_count && node < MAX_NODES; node++)
		found->on_node[node] += part->node_bytes[node];
	found->unknown += part->unknown_bytes;
	if (part->arena < 0)
		return;
	found->arenas++;
	if (part->home >= 0 && part->home < MAX_NODES && part->home == part->placed)
		found->at_home[part->home]++;
}

static struct found look(struct shale_segment *segment)
{
	struct found found = {0};

	EXPECT_GT(shale_numa_look(segment, on_part, &found), 0);
	EXPECT_EQ(found.unknown, 0);
	return found;
}

TEST_V_TIMEOUT(numa_migrate, a_segment_moves_with_all_that_is_in_it, pages, 60)
{
	enum shale_pages pages = (enum shale_pages)variant->value;
	static struct load load;
	struct shale_segment *segment;
	struct spread spread;
	struct found found;
	unsigned first, second, arenas;

	need_two_nodes(&first, &second);
	need_pool(pages);
	run_on_node(first);
	segment = create(pages, SHALE_PLACE_LOCAL, 0);
	fill_load(segment, &load);
	arenas = figures_of(segment).arenas_committed;
	EXPECT_EQ(figures_of(segment).arenas_on_node[first], arenas);
	EXPECT_GE(shale_migrate(segment, NULL, second), (int64_t)arenas * 2 * MIB);
	spread = spread_of_load(&load);
	expect_all_on(&spread, second);
	check_load(&load);
	EXPECT_EQ(figures_of(segment).arenas_on_node[second], arenas);
	EXPECT_EQ(figures_of(segment).arenas_elsewhere, 0);
	found = look(segment);
	EXPECT_EQ(found.on_node[first], 0);
	EXPECT_EQ(found.at_home[second], arenas);
	/* again: there already; and back */
	EXPECT_EQ(shale_migrate(segment, NULL, second), 0);
	EXPECT_GT(shale_migrate(segment, NULL, first), 0);
	spread = spread_of_load(&load);
	expect_all_on(&spread, first);
	check_load(&load);
	EXPECT_EQ(shale_check(segment, NULL, NULL), 0);
	ASSERT_OK(shale_segment_detach(segment));
}

/* A huge page stays one. */
TEST_TIMEOUT(numa_migrate, one_block_moves_alone, 60)
{
	static struct load load;
	struct shale_segment *segment;
	struct spread spread = {0}, rest = {0};
	unsigned first, second;

	need_two_nodes(&first, &second);
	run_on_node(first);
	segment = create(SHALE_PAGES_4K, SHALE_PLACE_LOCAL, 0);
	fill_load(segment, &load);
	EXPECT_EQ(shale_migrate(segment, load.large[2], second), BLOCK_BYTES);
	add_spread(&spread, load.large[2], BLOCK_BYTES);
	expect_all_on(&spread, second);
	add_spread(&rest, load.large[1], BLOCK_BYTES);
	add_spread(&rest, load.large[3], BLOCK_BYTES);
	add_spread(&rest, load.small[0], 1024);
	expect_all_on(&rest, first);
	EXPECT_EQ(shale_migrate(segment, load.small[9], second), 4096);
	check_load(&load);
	ASSERT_OK(shale_segment_detach(segment));
}

/* Threads of the node to which it went are at home in it. */
TEST_TIMEOUT(numa_migrate, what_has_moved_is_used_there, 60)
{
	struct shale_segment *segment;
	struct spread spread = {0};
	unsigned first, second, arenas;
	char *block;

	need_two_nodes(&first, &second);
	run_on_node(first);
	segment = create(SHALE_PAGES_4K, SHALE_PLACE_LOCAL, 0);
	ASSERT_NOT_NULL(shale_alloc(segment, 1024));
	EXPECT_GT(shale_migrate(segment, NULL, second), 0);
	arenas = figures_of(segment).arenas_committed;
	run_on_node(second);
	for (unsigned i = 0; i < 512; i++) {
		block = shale_alloc(segment, 512);
		ASSERT_NOT_NULL(block);
		*block = 1;
		add_spread(&spread, block, 512);
	}
	expect_all_on(&spread, second);
	EXPECT_EQ(figures_of(segment).arenas_committed, arenas);
	ASSERT_OK(shale_segment_detach(segment));
}

TEST_V(numa_migrate, bad_nodes_and_bad_blocks_have_their_error, pages)
{
	enum shale_pages pages = (enum shale_pages)variant->value;
	struct shale_attach_options read_only = {.size = sizeof(read_only), .read_only = true};
	struct shale_segment *segment, *reader = NULL;
	uint64_t nodes = memory_nodes(), absent = ~nodes & (nodes + 1);
	unsigned first, second;
	char *block;

	need_two_nodes(&first, &second);
	need_pool(pages);
	segment = create(pages, SHALE_PLACE_LOCAL, 0);
	block = shale_alloc(segment, 4096);
	ASSERT_NOT_NULL(block);
	EXPECT_EQ(shale_migrate(segment, NULL, (unsigned)__builtin_ctzll(absent)), -EINVAL);
	EXPECT_EQ(shale_migrate(segment, NULL, 5000), -EINVAL);
	EXPECT_EQ(shale_migrate(segment, block + 16, second), -EINVAL);
	EXPECT_EQ(shale_migrate(segment, &first, second), -EINVAL);
	ASSERT_OK(shale_free(segment, block));
	EXPECT_EQ(shale_migrate(segment, block, second), -EINVAL);
	ASSERT_OK(shale_segment_attach(shale_segment_fd(segment), &read_only, &reader));
	EXPECT_EQ(shale_migrate(reader, NULL, second), -EROFS);
	(void)look(reader);
	ASSERT_OK(shale_segment_detach(reader));
	ASSERT_OK(shale_segment_detach(segment));
}

/* As another user, who has none of root's rights. */
static void migrate_without_rights(int fd, unsigned node, unsigned other)
{
	struct shale_segment *segment = NULL;
	int64_t moved;

	ASSERT_SYS(setresgid(65534, 65534, 65534));
	ASSERT_SYS(setresuid(65534, 65534, 65534));
	ASSERT_OK(shale_segment_attach(fd, NULL, &segment));
	EXPECT_EQ(shale_migrate(segment, NULL, node), -EPERM);
	moved = shale_migrate(segment, NULL, other);
	TEST_LOG("back: %lld", (long long)moved);
	ASSERT_OK(shale_segment_detach(segment));
}

TEST_V_TIMEOUT(numa_migrate, what_others_have_mapped_needs_a_right, pages, 60)
{
	enum shale_pages pages = (enum shale_pages)variant->value;
	static struct load load;
	struct shale_segment *segment;
	struct spread spread;
	unsigned first, second;
	pid_t pid;

	need_two_nodes(&first, &second);
	need_pool(pages);
	if (geteuid() != 0)
		SKIP("needs root");
	run_on_node(first);
	segment = create(pages, SHALE_PLACE_LOCAL, 0);
	fill_load(segment, &load);
	pid = test_fork();
	ASSERT_SYS(pid);
	if (pid == 0) {
		migrate_without_rights(shale_segment_fd(segment), second, first);
		test_child_exit();
	}
	EXPECT_TRUE(test_join(pid, 60000));
	check_load(&load);
	spread = spread_of_load(&load);
	expect_all_on(&spread, first);
	/* with it, although two have it mapped */
	EXPECT_GT(shale_migrate(segment, NULL, second), 0);
	check_load(&load);
	ASSERT_OK(shale_segment_detach(segment));
}

/* A hole stays one: what was given back is not brought back by asking or moving. */
TEST(numa_migrate, holes_stay_holes)
{
	struct shale_segment *segment;
	unsigned first, second;
	uint64_t backing;
	void *block;

	need_two_nodes(&first, &second);
	run_on_node(first);
	segment = create(SHALE_PAGES_4K, SHALE_PLACE_LOCAL, 0);
	ASSERT_NOT_NULL(shale_alloc(segment, 1024));
	block = shale_alloc(segment, 16 * MIB);
	ASSERT_NOT_NULL(block);
	ASSERT_OK(shale_free(segment, block));
	EXPECT_GT(shale_trim(segment, 0), 0);
	backing = figures_of(segment).backing_bytes;
	(void)look(segment);
	EXPECT_EQ(figures_of(segment).backing_bytes, backing);
	EXPECT_GT(shale_migrate(segment, NULL, second), 0);
	EXPECT_EQ(figures_of(segment).backing_bytes, backing);
	ASSERT_OK(shale_segment_detach(segment));
}
