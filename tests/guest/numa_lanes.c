/*
 * numa_lanes.c - on a segment placed locally each thread is given memory of the node it runs on, new or
 * used before, whatever other nodes have to spare; only then that of others.
 *
 * Owner:     a test owns its segment; threads run one after the other, each on one node.
 * Lifetime, death: nothing outlives a test.
 */
#include <pthread.h>

#include "nodes.h"

enum { SMALL_BYTES = 1024, SMALL_BLOCKS = 6 * MIB / SMALL_BYTES - 500 };

VARIANT_SET(pages) = {
	{"4k", SHALE_PAGES_4K, NULL}, {"thp", SHALE_PAGES_THP, NULL}, {"2m", SHALE_PAGES_2M, NULL}};

struct worker {
	struct shale_segment *segment;
	unsigned node;
	unsigned count;
	size_t bytes;
	struct spread spread;
	void *blocks[SMALL_BLOCKS];
};

static void *work(void *argument)
{
	struct worker *worker = argument;

	run_on_node(worker->node);
	worker->spread = (struct spread){0};
	for (unsigned i = 0; i < worker->count; i++) {
		worker->blocks[i] = shale_alloc(worker->segment, worker->bytes);
		ASSERT_NOT_NULL(worker->blocks[i]);
		memset(worker->blocks[i], 1, worker->bytes);
		add_spread(&worker->spread, worker->blocks[i], worker->bytes);
	}
	return NULL;
}

/* In a thread of its own: a lane of its own. */
static void work_on(struct worker *worker, struct shale_segment *segment, unsigned node,
		    unsigned count, size_t bytes)
{
	pthread_t thread;

	worker->segment = segment;
	worker->node = node;
	worker->count = count;
	worker->bytes = bytes;
	ASSERT_EQ(pthread_create(&thread, NULL, work, worker), 0);
	ASSERT_EQ(pthread_join(thread, NULL), 0);
}

static void free_all(struct worker *worker)
{
	for (unsigned i = 0; i < worker->count; i++)
		EXPECT_OK(shale_free(worker->segment, worker->blocks[i]));
}

TEST_V_TIMEOUT(numa_lanes, each_has_its_own_nodes_memory, pages, 60)
{
	static struct worker one, other;
	enum shale_pages pages = (enum shale_pages)variant->value;
	struct shale_segment *segment;
	unsigned first, second;

	need_two_nodes(&first, &second);
	need_pool(pages);
	run_on_node(first);
	segment = create(pages, SHALE_PLACE_LOCAL, 0);
	for (unsigned round = 0; round < 2; round++) {
		work_on(&one, segment, first, SMALL_BLOCKS, SMALL_BYTES);
		expect_all_on(&one.spread, first);
		/* there is room in the last arena of the first node */
		work_on(&other, segment, second, SMALL_BLOCKS, SMALL_BYTES);
		expect_all_on(&other.spread, second);
		/* and now in all of them: used again by whom they are near to */
		free_all(&one);
		free_all(&other);
	}
	EXPECT_EQ(figures_of(segment).arenas_elsewhere, 0);
	EXPECT_EQ(shale_check(segment, NULL, NULL), 0);
	ASSERT_OK(shale_segment_detach(segment));
}

TEST_V_TIMEOUT(numa_lanes, spans_are_the_own_nodes_too, pages, 60)
{
	static struct worker one, other;
	enum shale_pages pages = (enum shale_pages)variant->value;
	struct shale_segment *segment;
	unsigned first, second;

	need_two_nodes(&first, &second);
	need_pool(pages);
	run_on_node(first);
	segment = create(pages, SHALE_PLACE_LOCAL, 0);
	/* 5.5 MiB, of 6 that are committed */
	work_on(&one, segment, first, 22, 256 * 1024);
	expect_all_on(&one.spread, first);
	work_on(&other, segment, second, 22, 256 * 1024);
	expect_all_on(&other.spread, second);
	EXPECT_EQ(shale_check(segment, NULL, NULL), 0);
	ASSERT_OK(shale_segment_detach(segment));
}

static void *move_and_work(void *argument)
{
	struct worker *worker = argument;
	unsigned first, second;

	need_two_nodes(&first, &second);
	worker->node = first;
	(void)work(worker);
	expect_all_on(&worker->spread, first);
	worker->node = second;
	return work(worker);
}

/* A thread that moves uses up the slabs that it has open, and then has memory of its new node. */
TEST_V_TIMEOUT(numa_lanes, who_moves_finds_memory_there, pages, 60)
{
	static struct worker worker;
	enum shale_pages pages = (enum shale_pages)variant->value;
	unsigned first, second;
	pthread_t thread;

	need_two_nodes(&first, &second);
	need_pool(pages);
	run_on_node(first);
	worker.segment = create(pages, SHALE_PLACE_LOCAL, 0);
	worker.count = SMALL_BLOCKS;
	worker.bytes = SMALL_BYTES;
	ASSERT_EQ(pthread_create(&thread, NULL, move_and_work, &worker), 0);
	ASSERT_EQ(pthread_join(thread, NULL), 0);
	EXPECT_EQ(worker.spread.pages[first] + worker.spread.pages[second], worker.spread.total);
	EXPECT_LE(worker.spread.pages[first], 65536 / SMALL_BYTES);
	ASSERT_OK(shale_segment_detach(worker.segment));
}

/* Better far memory than none. */
TEST_TIMEOUT(numa_lanes, the_last_room_is_anybodys, 60)
{
	static struct worker one, other;
	struct shale_segment_options options = options_for(SHALE_PAGES_4K, SHALE_PLACE_LOCAL, 0);
	struct shale_segment *segment = NULL;
	unsigned first, second;

	need_two_nodes(&first, &second);
	run_on_node(first);
	options.capacity_bytes = 8 * MIB;
	ASSERT_OK(shale_segment_create(&options, &segment));
	work_on(&one, segment, first, 24, 256 * 1024);
	free_all(&one);
	work_on(&other, segment, second, SMALL_BLOCKS, SMALL_BYTES);
	EXPECT_EQ(other.spread.pages[first] + other.spread.pages[second], other.spread.total);
	EXPECT_GT(other.spread.pages[first], 0);
	EXPECT_GT(other.spread.pages[second], 0);
	EXPECT_EQ(shale_check(segment, NULL, NULL), 0);
	ASSERT_OK(shale_segment_detach(segment));
}

TEST_TIMEOUT(numa_lanes, the_last_room_for_spans_is_anybodys, 60)
{
	static struct worker one, other;
	struct shale_segment_options options = options_for(SHALE_PAGES_4K, SHALE_PLACE_LOCAL, 0);
	struct shale_segment *segment = NULL;
	unsigned first, second;

	need_two_nodes(&first, &second);
	run_on_node(first);
	options.capacity_bytes = 8 * MIB;
	ASSERT_OK(shale_segment_create(&options, &segment));
	/* 3 MiB of 4, then 4 MiB of one's own and the last one */
	work_on(&one, segment, first, 12, 256 * 1024);
	work_on(&other, segment, second, 20, 256 * 1024);
	EXPECT_EQ(other.spread.pages[first] * 4, other.spread.pages[second]);
	EXPECT_EQ(shale_check(segment, NULL, NULL), 0);
	ASSERT_OK(shale_segment_detach(segment));
}
