/*
 * What a stopped owner holds back: its open slabs and no more. And how long the recovery of a dead peer
 * with very many blocks takes, in processor time.
 */
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "heap/heap_lane.h"
#include "heap/slab.h"
#include "heaps.h"
#include "peers.h"

enum { FILLED = 1, CAPACITY = 64 << 20, LIST = 1 << 20 };

struct scene {
	struct shale_segment *segment;
	size_t size;
	unsigned count;
	uint64_t *refs; /* all that the owner has handed over; its address is that of the fork */
};

static struct scene scene;

/* Fills the segment, publishes everything, says so, and is stopped. */
static void fill_all(struct peer *parent, void *context)
{
	struct scene *s = context;
	void *block;

	while (s->count < LIST && (block = shale_alloc(s->segment, s->size)) != NULL) {
		ASSERT_OK(shale_publish(s->segment, block));
		s->refs[s->count++] = shale_ref_of(s->segment, block).off;
	}
	ASSERT_OK(peer_send(parent, &s->count, sizeof(s->count)) < 0);
	ASSERT_OK(peer_signal(parent, FILLED));
	(void)peer_wait(parent, FILLED, 60000);
}

/* How many blocks of the size there are to be had; they are freed again. */
static unsigned fill_again(struct scene *s)
{
	unsigned count = 0;
	void *block;

	while (count < LIST && (block = shale_alloc(s->segment, s->size)) != NULL) {
		memset(block, 3, 8);
		s->refs[count++] = shale_ref_of(s->segment, block).off;
	}
	return count;
}

static void free_all(struct scene *s, unsigned count, uint64_t seed)
{
	/* in random order */
	for (unsigned i = count; i > 0; i--) {
		unsigned k;
		uint64_t ref;

		seed = seed * 6364136223846793005u + 1442695040888963407u;
		k = (unsigned)((seed >> 33) % i);
		ref = s->refs[k];
		s->refs[k] = s->refs[i - 1];
		ASSERT_OK(shale_free(s->segment, shale_ptr(s->segment, (shale_ref){ref}, 1)));
	}
}

VARIANT_SET(sizes) = {{"64", 64, NULL}, {"1000", 1000, NULL}, {"20000", 20000, NULL}};

TEST_V_TIMEOUT(heap_parked, a_stopped_owner_holds_back_what_it_allocates_from, sizes, 120)
{
	struct scene *s = &scene;
	struct peer owner;
	unsigned again;

	s->size = variant->value;
	s->segment = heap_segment(CAPACITY + (32u << 20), SHALE_PAGES_4K);
	ASSERT_NOT_NULL(s->refs = shale_alloc(s->segment, LIST * sizeof(*s->refs)));
	ASSERT_OK(shale_publish(s->segment, s->refs));
	/* the list is a third of the rest; what the owner fills is more than 64 MiB */
	ASSERT_OK(peer_fork(&owner, fill_all, s));
	ASSERT_EQ(peer_receive(&owner, &s->count, sizeof(s->count), 60000), sizeof(s->count));
	ASSERT_OK(peer_wait(&owner, FILLED, 60000));
	EXPECT_GT((uint64_t)s->count * s->size, (uint64_t)CAPACITY * 9 / 10);
	ASSERT_OK(peer_stop(&owner));
	free_all(s, s->count, 1);
	again = fill_again(s);
	/* one open slab of its bin at most: what its last block came from */
	EXPECT_GE(again + SLAB_SIZE / s->size, s->count);
	free_all(s, again, 2);
	heap_expect_clean(s->segment);
	ASSERT_OK(peer_continue(&owner));
	ASSERT_OK(peer_signal(&owner, FILLED));
	peer_join(&owner, 10000);
	EXPECT_EQ(shale_recover(s->segment), 1);
	ASSERT_OK(shale_free(s->segment, s->refs));
	EXPECT_GE(shale_trim(s->segment, 0), 0);
	EXPECT_EQ(heap_counts(s->segment).committed_bytes, 0);
	EXPECT_OK(shale_segment_detach(s->segment));
}

static uint64_t cpu_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* 100,000 blocks, of which every `published`-th is published (0: none). */
static void die_with_many(struct shale_segment *segment, size_t size, unsigned published)
{
	pid_t child = test_fork();

	ASSERT_SYS(child);
	if (child == 0) {
		for (unsigned i = 0; i < 100000; i++) {
			void *block = shale_alloc(segment, size);

			ASSERT_NOT_NULL(block);
			if (published != 0 && i % published == 0)
				ASSERT_OK(shale_publish(segment, block));
		}
		_exit(0);
	}
	ASSERT_EQ(waitpid(child, NULL, 0), child);
}

VARIANT_SET(published) = {{"none", 0, NULL}, {"all", 1, NULL}, {"tenth", 10, NULL}};

TEST_V_TIMEOUT(heap_parked, recovery_of_a_peer_with_many_blocks, published, 60)
{
	struct shale_segment *segment = heap_segment(64u << 20, SHALE_PAGES_4K);
	unsigned step = (unsigned)variant->value;
	uint64_t begin, spent;

	die_with_many(segment, 64, step);
	begin = cpu_ns();
	EXPECT_EQ(shale_recover(segment), 1);
	spent = cpu_ns() - begin;
	/* a figure for people; the promise is checked by counting */
	TEST_LOG("%llu us of processor time", (unsigned long long)spent / 1000);
	EXPECT_EQ(heap_counts(segment).live_blocks, step ? 100000 / step : 0);
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}
