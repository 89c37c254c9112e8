/* Keepers of several processes: one acts, another takes over when it is killed; the dead are found. */
#include <string.h>
#include <unistd.h>

#include <shale/keeper.h>

#include "heap/slab.h"
#include "heaps.h"
#include "os/os.h"
#include "peers.h"

#define ARENA    ((size_t)ARENA_SIZE)
#define LIMIT_MS 20000

enum { READY = 1, GO, DONE, END };

static void start(struct shale_segment *segment, uint32_t flags)
{
	struct shale_keeper_options options = {
		.size = sizeof(options),
		.flags = flags,
		.decay_ms = 50,
		.period_ms = 50,
	};

	ASSERT_OK(shale_keeper_start(segment, &options));
}

static struct shale_keeper_figures look(struct shale_segment *segment)
{
	struct shale_keeper_figures figures = {.size = sizeof(figures)};

	ASSERT_OK(shale_keeper_stat(segment, &figures));
	return figures;
}

static struct shale_segment_figures segment_look(struct shale_segment *segment)
{
	struct shale_segment_figures stat = {.size = sizeof(stat)};

	ASSERT_OK(shale_segment_stat(segment, &stat));
	return stat;
}

static void burst(struct shale_segment *segment, unsigned arenas)
{
	void *block = shale_alloc(segment, arenas * ARENA);

	ASSERT_NOT_NULL(block);
	memset(block, 1, arenas * ARENA);
	ASSERT_OK(shale_free(segment, block));
}

static uint64_t committed(struct shale_segment *segment)
{
	return heap_counts(segment).committed_bytes;
}

static struct shale_segment *join(struct peer *parent)
{
	int fd = peer_receive_fd(parent, PEER_LIMIT_MS);
	struct shale_segment *segment = NULL;

	ASSERT_OK(fd);
	ASSERT_OK(shale_segment_attach(fd, NULL, &segment));
	close(fd);
	return segment;
}

/* Keeps, as the argument says through io_uring or not, and allocates and frees until it is killed. */
PEER_ROLE(keeper)
{
	struct shale_segment *segment = join(parent);

	start(segment, strcmp(argument, "uring") == 0 ? SHALE_KEEPER_URING : 0);
	ASSERT_TRUE(TEST_EVENTUALLY(look(segment).rounds > 0, LIMIT_MS));
	ASSERT_OK(peer_signal(parent, READY));
	for (unsigned i = 0;; i++) {
		/* NULL: the others have it all just now */
		if (*argument)
			(void)shale_free(segment, shale_alloc(segment, (1 + i % 8) * ARENA));
		test_sleep_ms(i % 7);
	}
}

/* Holds memory, and dies with it. */
PEER_ROLE(holder)
{
	struct shale_segment *segment = join(parent);

	for (unsigned i = 0; i < 1000; i++)
		ASSERT_NOT_NULL(shale_alloc(segment, 100 + i));
	ASSERT_NOT_NULL(shale_alloc(segment, 9 * ARENA));
	ASSERT_OK(peer_signal(parent, READY));
	(void)peer_wait(parent, END, 60000);
}

static void bring(struct peer *peer, const char *role, const char *argument, int fd)
{
	ASSERT_OK(peer_exec(peer, role, argument));
	ASSERT_OK(peer_send_fd(peer, fd));
	ASSERT_OK(peer_wait(peer, READY, LIMIT_MS));
}

TEST(heap_keepers, another_takes_over_when_the_acting_one_is_killed)
{
	struct shale_segment *segment = heap_segment(128u << 20, SHALE_PAGES_4K);
	struct peer first, second;
	uint32_t acting;

	bring(&first, "keeper", "", shale_segment_fd(segment));
	ASSERT_TRUE(TEST_EVENTUALLY((acting = look(segment).acting) != 0, LIMIT_MS));
	bring(&second, "keeper", "", shale_segment_fd(segment));
	test_sleep_ms(200);
	EXPECT_EQ(look(segment).acting, acting);
	burst(segment, 20);
	EXPECT_TRUE(TEST_EVENTUALLY(committed(segment) == ARENA, LIMIT_MS));

	peer_kill(&first);
	EXPECT_TRUE(TEST_EVENTUALLY(look(segment).acting != acting, LIMIT_MS));
	/* and it has recovered the one before it, without anybody calling */
	EXPECT_TRUE(TEST_EVENTUALLY(segment_look(segment).peers == 2, LIMIT_MS));
	burst(segment, 20);
	EXPECT_TRUE(TEST_EVENTUALLY(committed(segment) == ARENA, LIMIT_MS));

	peer_kill(&second);
	EXPECT_EQ(shale_recover(segment), 1);
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

/* The dead peer's memory comes back to the kernel, and nobody has called anything. */
TEST(heap_keepers, the_dead_are_recovered_and_their_memory_goes_back)
{
	struct shale_segment *segment = heap_segment(128u << 20, SHALE_PAGES_4K);
	struct shale_segment_figures stat;
	struct peer holder;

	start(segment, 0);
	for (unsigned i = 0; i < 5; i++) {
		bring(&holder, "holder", "", shale_segment_fd(segment));
		EXPECT_EQ(heap_counts(segment).live_blocks, 1001);
		EXPECT_GE(committed(segment), 9 * ARENA);
		peer_kill(&holder);
		EXPECT_TRUE(TEST_EVENTUALLY(segment_look(segment).peers == 1, LIMIT_MS));
		EXPECT_EQ(heap_counts(segment).live_blocks, 0);
		EXPECT_TRUE(TEST_EVENTUALLY(committed(segment) == ARENA, LIMIT_MS));
	}
	EXPECT_EQ(look(segment).recovered, 5);
	EXPECT_TRUE(TEST_EVENTUALLY(
		(stat = segment_look(segment), stat.backing_bytes <= ARENA + stat.metadata_bytes),
		LIMIT_MS));
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

/* It stood still while others freed: it is not waited for. */
TEST(heap_keepers, a_stopped_keeper_holds_nothing_back)
{
	struct shale_segment *segment = heap_segment(128u << 20, SHALE_PAGES_4K);
	struct peer keeper;

	bring(&keeper, "keeper", "", shale_segment_fd(segment));
	ASSERT_TRUE(TEST_EVENTUALLY(look(segment).acting != 0, LIMIT_MS));
	ASSERT_OK(peer_stop(&keeper));
	burst(segment, 40); /* more than a lane keeps for its next spans */
	/* callers' own ticks, after twice the usual time */
	EXPECT_TRUE(TEST_EVENTUALLY((shale_free(segment, shale_alloc(segment, 100000)),
				     heap_counts(segment).releases >= 38),
				    LIMIT_MS));
	ASSERT_OK(peer_continue(&keeper));
	EXPECT_TRUE(TEST_EVENTUALLY(committed(segment) == ARENA, LIMIT_MS));
	peer_kill(&keeper);
	EXPECT_OK(shale_segment_detach(segment));
}

VARIANT_SET(ways) = {{"call", 0, "call"}, {"uring", 0, "uring"}};

struct mine {
	unsigned char *block;
	size_t size;
};

static void renew(struct shale_segment *segment, struct mine *mine, unsigned char fill)
{
	size_t size = (size_t)test_random_below(3 * ARENA) + 1;

	if (mine->block)
		ASSERT_OK(shale_free(segment, mine->block));
	mine->block = shale_alloc(segment, size);
	mine->size = mine->block ? size : 0;
	if (mine->block)
		memset(mine->block, fill, size);
}

static void expect_whole(const struct mine *mine, unsigned char fill)
{
	for (size_t at = 0; at < mine->size; at += 1024)
		ASSERT_EQ(mine->block[at], fill);
}

/* Killed at random while it returns arenas, and others allocate. */
TEST_V_TIMEOUT(heap_keepers, are_killed_at_work, ways, 300)
{
	struct shale_segment *segment = heap_segment(128u << 20, SHALE_PAGES_4K);
	struct mine mine[16] = {0};

	for (unsigned round = 0; round < TEST_ROUNDS(40, 1000); round++) {
		uint64_t until;
		struct peer keeper;

		bring(&keeper, "keeper", variant->data, shale_segment_fd(segment));
		until = test_now_ms() + 20 + test_random_below(150);
		while (test_now_ms() < until) {
			unsigned i = (unsigned)test_random_below(16);

			renew(segment, &mine[i], (unsigned char)(i + 1));
		}
		peer_kill(&keeper);
		for (unsigned i = 0; i < 16; i++)
			expect_whole(&mine[i], (unsigned char)(i + 1));
		EXPECT_GE(shale_recover(segment), 0);
		heap_expect_clean(segment);
	}
	for (unsigned i = 0; i < 16; i++)
		ASSERT_OK(shale_free(segment, mine[i].block));
	EXPECT_EQ(heap_counts(segment).live_blocks, 0);
	EXPECT_GE(shale_trim(segment, 0), 0);
	EXPECT_EQ(committed(segment), 0);
	TEST_LOG("%llu releases", (unsigned long long)heap_counts(segment).releases);
	EXPECT_OK(shale_segment_detach(segment));
}
