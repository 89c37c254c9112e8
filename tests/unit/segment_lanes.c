/*
 * segment_lanes.c - threads, several views, forks: who has which lane.
 *
 * Owner:     each test owns its segments.
 * Invariant: a thread has one lane a view; a lane has one thread.
 * Ordering:  threads are joined before they are judged.
 * Lifetime:  a segment ends with its test.
 * Death:     children end by themselves; the killed are in tests/peers.
 */
#include "unit/segment_test.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static void *enter(void *segment)
{
	struct lane *lane = NULL;

	EXPECT_OK(lane_enter(segment, &lane));
	EXPECT_PTR_EQ(lane_peek(segment), lane);
	return (void *)(uintptr_t)lane->index;
}

static uintptr_t enter_in_thread(struct shale_segment *segment)
{
	pthread_t thread;
	void *index;

	ASSERT_EQ(pthread_create(&thread, NULL, enter, segment), 0);
	ASSERT_EQ(pthread_join(thread, &index), 0);
	return (uintptr_t)index;
}

TEST(segment_lanes, thread_end_parks_and_the_next_takes_it_up)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_4K);
	uintptr_t first;
	cpu_set_t here;

	/* of several NUMA nodes each has its own parked lanes */
	CPU_ZERO(&here);
	CPU_SET((unsigned)sched_getcpu(), &here);
	ASSERT_SYS(sched_setaffinity(0, sizeof(here), &here));
	first = enter_in_thread(segment);
	EXPECT_EQ(enter_in_thread(segment), first);
	EXPECT_EQ((uintptr_t)enter(segment), first);
	EXPECT_NE(enter_in_thread(segment), first);
	EXPECT_EQ(segment_look(segment).lanes, 2);
	segment_expect_clean(segment);
	shale_segment_detach(segment);
}

TEST(segment_lanes, two_views_in_one_process)
{
	struct shale_segment *a = segment_make(SHALE_PAGES_4K);
	struct shale_segment *b = segment_join(shale_segment_fd(a));
	struct shale_segment *c = segment_make(SHALE_PAGES_4K);
	uintptr_t in_a = (uintptr_t)enter(a), in_b = (uintptr_t)enter(b);

	EXPECT_PTR_NE(a->base, b->base);
	EXPECT_NE(in_a, in_b);
	EXPECT_EQ((uintptr_t)enter(a), in_a);
	EXPECT_EQ((uintptr_t)enter(c), 1);
	EXPECT_EQ((uintptr_t)enter(b), in_b);
	EXPECT_EQ(segment_look(a).peers, 2);
	EXPECT_EQ(segment_look(a).lanes, 2);
	shale_segment_detach(a);
	EXPECT_EQ(segment_look(b).peers, 1);
	EXPECT_EQ(segment_look(b).lanes, 1);
	EXPECT_EQ((uintptr_t)enter(b), in_b);
	segment_expect_clean(b);
	shale_segment_detach(c);
	shale_segment_detach(b);
	EXPECT_EQ(segment_count_mappings(), 0);
}

TEST(segment_lanes, read_only_view_has_no_slot_and_no_lane)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_4K), *reader;
	struct shale_attach_options options = {.size = sizeof(options), .read_only = true};
	struct lane *lane;

	ASSERT_OK(shale_segment_attach(shale_segment_fd(segment), &options, &reader));
	EXPECT_EQ(segment_look(reader).peers, 1);
	EXPECT_TRUE(segment_look(reader).read_only);
	EXPECT_ERRNO(-EROFS, lane_enter(reader, &lane));
	EXPECT_ERRNO(-EROFS, shale_recover(reader));
	EXPECT_ERRNO(-EROFS, view_commit(reader, 0, 4096));
	segment_expect_clean(reader);
	shale_segment_detach(reader);
	EXPECT_EQ(segment_look(segment).peers, 1);
	shale_segment_detach(segment);
}

TEST_TIMEOUT(segment_lanes, exhaustion_is_an_error_and_passes, 60)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_4K);
	struct lane *lane;

	ASSERT_OK(view_commit(segment, LANES_OFFSET, LANE_COUNT * sizeof(struct lane_shm)));
	store_relaxed(&view_hints(segment)->lane_high, LANE_COUNT);
	for (uint32_t slot = 1; slot < LANE_COUNT; slot++)
		store_relaxed(&view_lane(segment, slot)->word,
			      (uint64_t)segment->peer << 4 | LANE_ACTIVE);
	EXPECT_ERRNO(-ENOMEM, lane_enter(segment, &lane));
	store_relaxed(&view_lane(segment, 77)->word, UINT64_C(0));
	ASSERT_OK(lane_enter(segment, &lane));
	EXPECT_EQ(lane->index, 77);
	shale_segment_detach(segment);
}

/* ---- fork ---- */

static void child_is_a_new_peer(struct shale_segment *segment, uint32_t parent_peer,
				uintptr_t parent_lane)
{
	EXPECT_NULL(lane_peek(segment));
	EXPECT_NE((uintptr_t)enter(segment), parent_lane);
	EXPECT_NE(segment->peer, parent_peer);
	EXPECT_EQ(segment_look(segment).peers, 2);
	EXPECT_EQ(segment_look(segment).lanes, 2);
	EXPECT_EQ(shale_recover(segment), 0);
	segment_expect_clean(segment);
	shale_segment_detach(segment);
	EXPECT_EQ(segment_count_mappings(), 0);
}

static void expect_only_us(struct shale_segment *segment, uint32_t peer, uintptr_t lane)
{
	EXPECT_EQ(segment_look(segment).peers, 1);
	EXPECT_EQ(segment_look(segment).peers_dead, 0);
	EXPECT_EQ(segment->peer, peer);
	EXPECT_EQ((uintptr_t)enter(segment), lane);
	EXPECT_EQ(segment_look(segment).lanes, 1);
	segment_expect_clean(segment);
}

TEST(segment_lanes, forked_child_is_a_new_peer)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_4K);
	uintptr_t lane = (uintptr_t)enter(segment);
	uint32_t peer = segment->peer;
	pid_t child = test_fork();

	if (child == 0) {
		child_is_a_new_peer(segment, peer, lane);
		test_child_exit();
	}
	test_join(child, 5000);
	expect_only_us(segment, peer, lane);
	shale_segment_detach(segment);
}

/* A child that goes without a word to the library: detach must not touch the parent's slot. */
TEST(segment_lanes, forked_child_that_only_detaches)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_4K);
	uintptr_t lane = (uintptr_t)enter(segment);
	uint32_t peer = segment->peer;
	pid_t child = test_fork();

	if (child == 0) {
		shale_segment_detach(segment);
		EXPECT_EQ(segment_count_mappings(), 0);
		test_child_exit();
	}
	test_join(child, 5000);
	expect_only_us(segment, peer, lane);
	shale_segment_detach(segment);
}

/* clone() without the C library: no fork handler runs, the wiped pages must tell. */
TEST(segment_lanes, child_of_a_bare_clone)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_4K);
	uintptr_t lane = (uintptr_t)enter(segment);
	uint32_t peer = segment->peer;
	int status;
	pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (child == 0) {
		struct lane *own;
		int r = lane_enter(segment, &own);

		_exit(r == 0 && own->index != lane && segment->peer != peer ? 0 : 1);
	}
	ASSERT_EQ(waitpid(child, &status, 0), child);
	EXPECT_EQ(status, 0);
	EXPECT_EQ(shale_recover(segment), 1);
	expect_only_us(segment, peer, lane);
	shale_segment_detach(segment);
}

/* The lock of a view held by another thread at the fork is free in the child. */
TEST(segment_lanes, fork_while_the_view_is_locked)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_4K);
	pid_t child;

	pthread_mutex_lock(&segment->attachment->lock);
	child = test_fork();
	if (child == 0) {
		(void)enter(segment);
		test_child_exit();
	}
	test_join(child, 5000);
	pthread_mutex_unlock(&segment->attachment->lock);
	shale_segment_detach(segment);
}

TEST(segment_lanes, private_segment_in_a_forked_child)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_PRIVATE);
	uintptr_t lane = (uintptr_t)enter(segment);
	pid_t child = test_fork();

	if (child == 0) {
		EXPECT_NE((uintptr_t)enter(segment), lane);
		EXPECT_EQ(shale_recover(segment), 0);
		segment_expect_clean(segment);
		shale_segment_detach(segment);
		test_child_exit();
	}
	test_join(child, 5000);
	EXPECT_EQ(segment_look(segment).peers, 1);
	shale_segment_detach(segment);
}

/* ---- a program that closes every descriptor ---- */

TEST(segment_lanes, descriptor_closed_and_its_number_reused)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_4K), *other;
	int fd = shale_segment_fd(segment), keep = dup(fd), reused;

	close(fd);
	EXPECT_ERRNO(-EBADF, shale_segment_fd(segment));
	reused = memfd_create("another", MFD_CLOEXEC);
	ASSERT_EQ(reused, fd);
	ASSERT_EQ(write(reused, "precious", 8), 8);
	EXPECT_ERRNO(-EBADF, shale_segment_fd(segment));
	EXPECT_ERRNO(-EBADF, view_commit(segment, segment->heap_offset, ARENA_SIZE));
	EXPECT_EQ(lseek(reused, 0, SEEK_END), 8);
	/* still alive for others */
	other = segment_join(keep);
	EXPECT_EQ(segment_look(other).peers, 2);
	EXPECT_EQ(segment_look(other).peers_dead, 0);
	EXPECT_EQ(shale_recover(other), 0);
	/* and detach neither closes the number nor leaves the slot */
	shale_segment_detach(segment);
	EXPECT_EQ(lseek(reused, 0, SEEK_END), 8);
	EXPECT_EQ(segment_look(other).peers, 1);
	shale_segment_detach(other);
}

static void *come_and_go(void *segment)
{
	return enter(segment);
}

/* Threads that end while their view is detached elsewhere: the lane is only a number to them. */
TEST_TIMEOUT(segment_lanes, threads_end_while_others_detach, 60)
{
	for (unsigned round = 0; round < TEST_ROUNDS(30, 1000); round++) {
		struct shale_segment *segment = segment_make(SHALE_PAGES_4K);
		struct shale_segment *short_lived = segment_join(shale_segment_fd(segment));
		pthread_t threads[8];

		for (unsigned i = 0; i < 8; i++)
			ASSERT_EQ(pthread_create(&threads[i], NULL, come_and_go,
						 i % 2 ? segment : short_lived),
				  0);
		for (unsigned i = 0; i < 8; i += 2)
			pthread_join(threads[i], NULL);
		shale_segment_detach(short_lived);
		for (unsigned i = 1; i < 8; i += 2)
			pthread_join(threads[i], NULL);
		EXPECT_EQ(segment_look(segment).peers, 1);
		EXPECT_LE(segment_look(segment).lanes, 4);
		segment_expect_clean(segment);
		shale_segment_detach(segment);
	}
}
