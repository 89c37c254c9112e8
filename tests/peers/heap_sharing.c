/* Several processes, different base addresses: who frees what, who dies, what is left. */
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "heaps.h"
#include "peers.h"
#include "segment/view.h"

enum { READY = 1, GO = 2, DONE = 3 };
enum { BLOCKS = 500 };

static struct shale_segment *attach_to(int fd)
{
	struct shale_segment *segment = NULL;

	ASSERT_OK(shale_segment_attach(fd, NULL, &segment));
	return segment;
}

static struct shale_segment *role_segment(struct peer *parent)
{
	int fd = peer_receive_fd(parent, PEER_LIMIT_MS);
	struct shale_segment *segment;

	ASSERT_OK(fd);
	segment = attach_to(fd);
	close(fd);
	return segment;
}

/* Frees every ref that comes, and answers with the result. */
PEER_ROLE(freer)
{
	struct shale_segment *segment = role_segment(parent);
	uint64_t off;

	ASSERT_OK(peer_send(parent, &(uint64_t){(uintptr_t)shale_segment_base(segment)}, 8));
	while (peer_receive(parent, &off, sizeof(off), PEER_LIMIT_MS) == sizeof(off) && off != 0) {
		int64_t r = shale_free(segment, shale_ptr(segment, (shale_ref){off}, 1));

		ASSERT_OK(peer_send(parent, &r, sizeof(r)));
	}
	EXPECT_OK(shale_segment_detach(segment));
}

static int64_t free_by(struct peer *peer, uint64_t off)
{
	int64_t r = 1;

	ASSERT_OK(peer_send(peer, &off, sizeof(off)));
	ASSERT_EQ(peer_receive(peer, &r, sizeof(r), PEER_LIMIT_MS), sizeof(r));
	return r;
}

static void start(struct peer *peer, const char *role, struct shale_segment *segment)
{
	ASSERT_OK(peer_exec(peer, role, NULL));
	ASSERT_OK(peer_send_fd(peer, shale_segment_fd(segment)));
}

TEST(heap_sharing, another_process_frees_once_at_another_base_address)
{
	struct shale_segment *segment = heap_segment(64u << 20, SHALE_PAGES_4K);
	uint64_t base, off, span;
	struct peer peer;
	char *block = shale_alloc(segment, 200);

	start(&peer, "freer", segment);
	ASSERT_EQ(peer_receive(&peer, &base, sizeof(base), PEER_LIMIT_MS), sizeof(base));
	EXPECT_NE(base, (uintptr_t)shale_segment_base(segment));
	ASSERT_OK(shale_publish(segment, block));
	off = shale_ref_of(segment, block).off;
	EXPECT_EQ(free_by(&peer, off), 0);
	EXPECT_EQ(free_by(&peer, off), -EALREADY);
	EXPECT_EQ(free_by(&peer, off + 16), -EINVAL);
	EXPECT_ERRNO(-EALREADY, shale_free(segment, block));
	span = shale_ref_of(segment, shale_alloc(segment, 300000)).off;
	EXPECT_EQ(free_by(&peer, span), 0);
	EXPECT_EQ(free_by(&peer, span), -EALREADY);
	EXPECT_EQ(heap_counts(segment).live_blocks, 0);
	ASSERT_OK(peer_send(&peer, &(uint64_t){0}, 8));
	peer_join(&peer, PEER_LIMIT_MS);
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(heap_sharing, a_remotely_freed_block_is_reused_by_its_owner)
{
	struct shale_segment *segment = heap_segment(4u << 20, SHALE_PAGES_4K);
	struct peer peer;
	uint64_t base;

	start(&peer, "freer", segment);
	ASSERT_EQ(peer_receive(&peer, &base, sizeof(base), PEER_LIMIT_MS), sizeof(base));
	/* four times the capacity passes through: without reuse this is ENOMEM */
	for (unsigned i = 0; i < 4 * (4u << 20) / 30000; i++) {
		char *block = shale_alloc(segment, 30000);

		ASSERT_NOT_NULL(block);
		ASSERT_EQ(free_by(&peer, shale_ref_of(segment, block).off), 0);
	}
	ASSERT_OK(peer_send(&peer, &(uint64_t){0}, 8));
	peer_join(&peer, PEER_LIMIT_MS);
	EXPECT_EQ(heap_counts(segment).live_blocks, 0);
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

/* Allocates, publishes every second block, says so and waits to be killed. */
PEER_ROLE(doomed)
{
	struct shale_segment *segment = role_segment(parent);

	for (unsigned i = 0; i < BLOCKS; i++) {
		void *block = shale_alloc(segment, i % 50 == 0 ? 100000 : 16 + i * 7);

		ASSERT_NOT_NULL(block);
		memset(block, 1, 16);
		if (i % 2)
			ASSERT_OK(shale_publish(segment, block));
	}
	ASSERT_OK(peer_signal(parent, READY));
	pause();
}

TEST(heap_sharing, what_the_dead_published_lives_on_and_the_rest_is_freed)
{
	struct shale_segment *segment = heap_segment(64u << 20, SHALE_PAGES_4K);
	struct shale_heap_figures stat;
	struct peer peer;

	start(&peer, "doomed", segment);
	ASSERT_OK(peer_wait(&peer, READY, PEER_LIMIT_MS));
	EXPECT_EQ(heap_counts(segment).live_blocks, BLOCKS);
	peer_kill(&peer);
	EXPECT_EQ(shale_recover(segment), 1);
	EXPECT_EQ(shale_recover(segment), 0);
	stat = heap_counts(segment);
	EXPECT_EQ(stat.live_blocks, BLOCKS / 2);
	EXPECT_EQ(stat.published_blocks, BLOCKS / 2);
	EXPECT_EQ(stat.slabs_owned, 0);
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

static void keep_off(uint64_t off, uint64_t *offs, unsigned *count)
{
	offs[(*count)++] = off;
}

TEST(heap_sharing, orphans_are_adopted_and_emptied)
{
	struct shale_segment *segment = heap_segment(64u << 20, SHALE_PAGES_4K);
	static uint64_t offs[BLOCKS];
	unsigned count = 0;
	struct peer peer;
	void *block;

	start(&peer, "doomed", segment);
	ASSERT_OK(peer_wait(&peer, READY, PEER_LIMIT_MS));
	peer_kill(&peer);
	ASSERT_EQ(shale_recover(segment), 1);
	EXPECT_GT(heap_counts(segment).slabs_orphan, 0);
	/* one allocation of each size adopts what is there */
	for (unsigned i = 0; i < BLOCKS; i++) {
		block = shale_alloc(segment, 16 + i * 7);
		ASSERT_NOT_NULL(block);
		keep_off(shale_ref_of(segment, block).off, offs, &count);
	}
	EXPECT_LT(heap_counts(segment).slabs_orphan, 10);
	for (unsigned i = 0; i < count; i++)
		ASSERT_OK(shale_free(segment, shale_ptr(segment, (shale_ref){offs[i]}, 1)));
	EXPECT_EQ(heap_counts(segment).live_blocks, BLOCKS / 2);
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

/* Allocates, frees and publishes at random until it is killed. */
PEER_ROLE(stormy)
{
	struct shale_segment *segment = role_segment(parent);
	void *blocks[200] = {0};

	ASSERT_OK(peer_signal(parent, READY));
	for (;;) {
		unsigned i = (unsigned)test_random_below(200);

		if (blocks[i])
			ASSERT_OK(shale_free(segment, blocks[i]));
		blocks[i] = shale_alloc(segment, (size_t)test_random_below(i % 10 ? 500 : 70000));
		ASSERT_NOT_NULL(blocks[i]);
	}
}

TEST_TIMEOUT(heap_sharing, storms_of_kills_lose_nothing, 120)
{
	struct shale_segment *segment = heap_segment(128u << 20, SHALE_PAGES_4K);
	unsigned rounds = (unsigned)TEST_ROUNDS(40, 2000);
	void *keep = shale_alloc(segment, 64);

	for (unsigned round = 0; round < rounds; round++) {
		struct peer peers[2];

		for (unsigned i = 0; i < 2; i++) {
			start(&peers[i], "stormy", segment);
			ASSERT_OK(peer_wait(&peers[i], READY, PEER_LIMIT_MS));
		}
		usleep((useconds_t)test_random_below(3000));
		peer_kill(&peers[0]);
		if (round % 2)
			EXPECT_EQ(shale_recover(segment), 1);
		peer_kill(&peers[1]);
		EXPECT_GE(shale_recover(segment), 1);
		ASSERT_EQ(heap_counts(segment).live_blocks, 1);
		ASSERT_EQ(shale_check(segment, heap_finding, NULL), 0);
	}
	EXPECT_OK(shale_free(segment, keep));
	EXPECT_OK(shale_segment_detach(segment));
}

static void child_uses_heap(struct peer *parent, void *context)
{
	struct shale_segment *segment = context;
	void *block = shale_alloc(segment, 100);

	ASSERT_NOT_NULL(block);
	ASSERT_OK(peer_signal(parent, READY));
	ASSERT_OK(peer_wait(parent, GO, PEER_LIMIT_MS));
}

TEST(heap_sharing, a_forked_child_is_a_peer_of_its_own)
{
	struct shale_segment *segment = heap_segment(16u << 20, SHALE_PAGES_4K);
	void *mine = shale_alloc(segment, 100);
	struct shale_segment_figures stat = {.size = sizeof(stat)};
	struct peer peer;

	ASSERT_OK(peer_fork(&peer, child_uses_heap, segment));
	ASSERT_OK(peer_wait(&peer, READY, PEER_LIMIT_MS));
	ASSERT_OK(shale_segment_stat(segment, &stat));
	EXPECT_EQ(stat.peers, 2);
	EXPECT_EQ(heap_counts(segment).live_blocks, 2);
	EXPECT_EQ(heap_counts(segment).own_blocks, 1);
	peer_kill(&peer);
	EXPECT_EQ(shale_recover(segment), 1);
	EXPECT_EQ(heap_counts(segment).live_blocks, 1);
	EXPECT_OK(shale_free(segment, mine));
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(heap_sharing, orphans_emptied_by_others_go_back_to_the_kernel)
{
	struct shale_segment *segment = heap_segment(64u << 20, SHALE_PAGES_4K);
	unsigned char *base = shale_segment_base(segment);
	struct peer peer;

	start(&peer, "doomed", segment);
	ASSERT_OK(peer_wait(&peer, READY, PEER_LIMIT_MS));
	peer_kill(&peer);
	ASSERT_EQ(shale_recover(segment), 1);
	EXPECT_GT(heap_counts(segment).slabs_orphan, 0);
	/* whoever holds the published blocks frees them, wherever they are */
	for (uint64_t at = segment->heap_offset; at < segment->heap_offset + (16u << 20); at += 16)
		(void)shale_free(segment, base + at);
	EXPECT_EQ(heap_counts(segment).live_blocks, 0);
	EXPECT_GT(shale_trim(segment, 0), 0);
	EXPECT_EQ(heap_counts(segment).slabs_orphan, 0);
	EXPECT_EQ(heap_counts(segment).committed_bytes, 0);
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}
