/* One process waits for memory; others free it, locally or remotely, are killed, detach, or are stopped. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shale/wait.h>

#include "heaps.h"
#include "peers.h"

enum { FULL = 1, GO = 2, DONE = 3, WAITING = 4 };
enum { BLOCKS_MAX = 4096, CAPACITY = 4 << 20 };

static void *blocks[BLOCKS_MAX];
static unsigned block_count;

static struct shale_segment *role_segment(struct peer *parent)
{
	int fd = peer_receive_fd(parent, PEER_LIMIT_MS);
	struct shale_segment *segment = NULL;

	ASSERT_OK(fd);
	ASSERT_OK(shale_segment_attach(fd, NULL, &segment));
	close(fd);
	return segment;
}

static void fill(struct shale_segment *segment, size_t size)
{
	block_count = 0;
	while (block_count < BLOCKS_MAX &&
	       (blocks[block_count] = shale_alloc(segment, size)) != NULL)
		block_count++;
	ASSERT_LT(block_count, BLOCKS_MAX);
	ASSERT_EQ(errno, ENOMEM);
}

static void start(struct peer *peer, const char *role, const char *argument,
		  struct shale_segment *segment)
{
	ASSERT_OK(peer_exec(peer, role, argument));
	ASSERT_OK(peer_send_fd(peer, shale_segment_fd(segment)));
}

/* Waits for a block of the size given, says so before and after, and holds it until told. */
PEER_ROLE(waiter)
{
	struct shale_segment *segment = role_segment(parent);
	size_t size = strtoul(argument, NULL, 10);
	void *block;

	/* the lane is made before the segment is full, and keeps no empty slab */
	ASSERT_NOT_NULL(shale_alloc(segment, 16));
	ASSERT_OK(peer_signal(parent, WAITING));
	ASSERT_OK(peer_wait(parent, GO, PEER_LIMIT_MS));
	block = shale_alloc_wait(segment, size, shale_deadline_in(15000000000));
	if (!EXPECT_NOT_NULL(block))
		TEST_LOG("%s", test_errno_name(errno));
	else
		memset(block, 5, size);
	ASSERT_OK(peer_signal(parent, DONE));
	EXPECT_OK(shale_free(segment, block));
	EXPECT_OK(shale_segment_detach(segment));
}

/* Fills the segment; then, when told, does what the argument says. */
PEER_ROLE(holder)
{
	struct shale_segment *segment = role_segment(parent);

	fill(segment, 3000);
	ASSERT_OK(peer_signal(parent, FULL));
	ASSERT_OK(peer_wait(parent, GO, PEER_LIMIT_MS));
	if (strcmp(argument, "free") == 0) {
		for (unsigned i = 0; i < block_count; i++)
			EXPECT_OK(shale_free(segment, blocks[i]));
		ASSERT_OK(peer_signal(parent, DONE));
		ASSERT_OK(peer_wait(parent, GO, PEER_LIMIT_MS));
	} else if (strcmp(argument, "half") == 0) {
		/* every block but one of each slab, and death comes */
		for (unsigned i = 0; i < block_count; i++)
			if (i % 21 != 3)
				EXPECT_OK(shale_free(segment, blocks[i]));
		ASSERT_OK(peer_signal(parent, DONE));
		pause();
	}
	EXPECT_OK(shale_segment_detach(segment));
}

/* Frees every ref that comes. */
PEER_ROLE(freer)
{
	struct shale_segment *segment = role_segment(parent);
	uint64_t off;

	ASSERT_OK(peer_signal(parent, FULL));
	while (peer_receive(parent, &off, sizeof(off), PEER_LIMIT_MS) == sizeof(off) && off != 0)
		EXPECT_OK(shale_free(segment, shale_ptr(segment, (shale_ref){off}, 1)));
	EXPECT_OK(shale_segment_detach(segment));
}

PEER_ROLE(budgeter)
{
	struct shale_segment *segment = role_segment(parent);

	ASSERT_OK(peer_signal(parent, FULL));
	ASSERT_OK(peer_wait(parent, GO, PEER_LIMIT_MS));
	EXPECT_OK(shale_segment_set_budget(segment, 0));
	EXPECT_OK(shale_segment_detach(segment));
}

/* The waiter is let loose and has had time to fall asleep. */
static void set_waiting(struct peer *waiter)
{
	ASSERT_OK(peer_signal(waiter, GO));
	test_sleep_ms(150);
}

static void expect_served(struct peer *waiter)
{
	EXPECT_OK(peer_wait(waiter, DONE, PEER_LIMIT_MS));
	peer_join(waiter, PEER_LIMIT_MS);
}

static struct shale_segment *segment;
static struct peer waiter, other;

static void open_with(const char *wanted, const char *role, const char *argument)
{
	segment = heap_segment(CAPACITY, SHALE_PAGES_4K);
	start(&waiter, "waiter", wanted, segment);
	ASSERT_OK(peer_wait(&waiter, WAITING, PEER_LIMIT_MS));
	start(&other, role, argument, segment);
	ASSERT_OK(peer_wait(&other, FULL, PEER_LIMIT_MS));
}

static void finish(void)
{
	EXPECT_GE(shale_recover(segment), 0);
	heap_expect_clean(segment);
	EXPECT_EQ(heap_counts(segment).live_blocks, 0);
	EXPECT_OK(shale_segment_detach(segment));
}

VARIANT_SET(sizes) = {{"small", 0, "50"}, {"span", 0, "500000"}};

TEST_V(heap_waiting, another_process_frees_its_own_blocks, sizes)
{
	open_with(variant->data, "holder", "free");
	set_waiting(&waiter);
	ASSERT_OK(peer_signal(&other, GO));
	ASSERT_OK(peer_wait(&other, DONE, PEER_LIMIT_MS));
	expect_served(&waiter);
	ASSERT_OK(peer_signal(&other, GO));
	peer_join(&other, PEER_LIMIT_MS);
	finish();
}

/* The freed slabs are let go of while the freer works, not when it leaves. */
TEST_V(heap_waiting, a_freer_that_is_stopped_afterwards_holds_nothing_back, sizes)
{
	open_with(variant->data, "holder", "free");
	set_waiting(&waiter);
	ASSERT_OK(peer_signal(&other, GO));
	ASSERT_OK(peer_wait(&other, DONE, PEER_LIMIT_MS));
	ASSERT_OK(peer_stop(&other));
	expect_served(&waiter);
	peer_kill(&other);
	finish();
}

TEST_V(heap_waiting, the_holder_is_killed, sizes)
{
	open_with(variant->data, "holder", "nothing");
	set_waiting(&waiter);
	peer_kill(&other);
	expect_served(&waiter);
	finish();
}

TEST_V(heap_waiting, the_holder_is_killed_in_the_middle_of_freeing, sizes)
{
	open_with(variant->data, "holder", "half");
	set_waiting(&waiter);
	ASSERT_OK(peer_signal(&other, GO));
	ASSERT_OK(peer_wait(&other, DONE, PEER_LIMIT_MS));
	peer_kill(&other);
	expect_served(&waiter);
	finish();
}

TEST_V(heap_waiting, the_holder_detaches, sizes)
{
	open_with(variant->data, "holder", "nothing");
	set_waiting(&waiter);
	ASSERT_OK(peer_signal(&other, GO));
	peer_join(&other, PEER_LIMIT_MS);
	expect_served(&waiter);
	finish();
}

/* The waiter's own slabs are full of published blocks that somebody else frees. */
TEST(heap_waiting, others_free_what_the_waiter_allocated)
{
	void *block;

	segment = heap_segment(CAPACITY, SHALE_PAGES_4K);
	start(&other, "freer", NULL, segment);
	ASSERT_OK(peer_wait(&other, FULL, PEER_LIMIT_MS));
	fill(segment, 3000);
	for (unsigned i = 0; i < block_count; i++) {
		uint64_t off = shale_ref_of(segment, blocks[i]).off;

		ASSERT_OK(peer_send(&other, &off, sizeof(off)));
		block = shale_alloc_wait(segment, 3000, shale_deadline_in(10000000000));
		ASSERT_NOT_NULL(block);
	}
	ASSERT_OK(peer_send(&other, &(uint64_t){0}, 8));
	peer_join(&other, PEER_LIMIT_MS);
	heap_expect_clean(segment);
	EXPECT_EQ(heap_counts(segment).live_blocks, block_count);
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(heap_waiting, another_process_grows_the_budget)
{
	struct shale_segment_options options = {
		.size = sizeof(options),
		.capacity_bytes = 64u << 20,
		.budget_bytes = 8u << 20,
		.pages = SHALE_PAGES_4K,
	};
	void *block;

	ASSERT_OK(shale_segment_create(&options, &segment));
	start(&other, "budgeter", NULL, segment);
	ASSERT_OK(peer_wait(&other, FULL, PEER_LIMIT_MS));
	fill(segment, 100000);
	ASSERT_OK(peer_signal(&other, GO));
	block = shale_alloc_wait(segment, 2000000, shale_deadline_in(10000000000));
	EXPECT_NOT_NULL(block);
	peer_join(&other, PEER_LIMIT_MS);
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

/* A killed waiter leaves nothing that costs the others more than a look. */
TEST(heap_waiting, a_killed_waiter_is_forgotten)
{
	struct peer second;

	segment = heap_segment(CAPACITY, SHALE_PAGES_4K);
	start(&waiter, "waiter", "500000", segment);
	ASSERT_OK(peer_wait(&waiter, WAITING, PEER_LIMIT_MS));
	start(&second, "waiter", "500000", segment);
	ASSERT_OK(peer_wait(&second, WAITING, PEER_LIMIT_MS));
	start(&other, "holder", "free", segment);
	ASSERT_OK(peer_wait(&other, FULL, PEER_LIMIT_MS));
	set_waiting(&waiter);
	set_waiting(&second);
	peer_kill(&waiter);
	ASSERT_OK(peer_signal(&other, GO));
	ASSERT_OK(peer_wait(&other, DONE, PEER_LIMIT_MS));
	expect_served(&second);
	ASSERT_OK(peer_signal(&other, GO));
	peer_join(&other, PEER_LIMIT_MS);
	finish();
}

enum { CROWD = 6 };

/* Takes turns with others on a segment that holds one such block at a time. */
PEER_ROLE(one_of_many)
{
	struct shale_segment *view = role_segment(parent);

	ASSERT_OK(peer_signal(parent, FULL));
	for (unsigned i = 0; i < 20; i++) {
		unsigned char *block =
			shale_alloc_wait(view, 3000000, shale_deadline_in(20000000000));

		ASSERT_NOT_NULL(block);
		memset(block, (int)i, 100);
		for (unsigned j = 0; j < 100; j++)
			ASSERT_EQ(block[j], i);
		ASSERT_OK(shale_free(view, block));
	}
	EXPECT_OK(shale_segment_detach(view));
}

TEST_TIMEOUT(heap_waiting, many_processes_share_one_place, 60)
{
	struct peer crowd[CROWD];

	segment = heap_segment(CAPACITY, SHALE_PAGES_4K);
	for (unsigned i = 0; i < CROWD; i++)
		start(&crowd[i], "one_of_many", NULL, segment);
	for (unsigned i = 0; i < CROWD; i++)
		ASSERT_OK(peer_wait(&crowd[i], FULL, PEER_LIMIT_MS));
	for (unsigned i = 0; i < CROWD; i++)
		peer_join(&crowd[i], 40000);
	finish();
}
