/* Waiting for memory within one process: deadlines, what can never fit, the budget, threads. */
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>

#include <shale/wait.h>

#include "heaps.h"

enum { BLOCKS_MAX = 4096 };

static struct shale_segment *segment;
static void *blocks[BLOCKS_MAX];
static unsigned block_count;

/* Takes all that there is, in blocks of `size`. */
static void fill(size_t size)
{
	while (block_count < BLOCKS_MAX) {
		blocks[block_count] = shale_alloc(segment, size);
		if (!blocks[block_count])
			break;
		block_count++;
	}
	ASSERT_LT(block_count, BLOCKS_MAX);
	ASSERT_EQ(errno, ENOMEM);
}

static void open_full(uint64_t capacity, size_t size)
{
	segment = heap_segment(capacity, SHALE_PAGES_4K);
	block_count = 0;
	fill(size);
}

static void finish(void)
{
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(heap_wait, what_is_there_is_given_at_once)
{
	segment = heap_segment(4u << 20, SHALE_PAGES_4K);
	EXPECT_NOT_NULL(shale_alloc_wait(segment, 100, SHALE_NO_WAIT));
	EXPECT_NOT_NULL(shale_alloc_wait(segment, 100, SHALE_NO_DEADLINE));
	EXPECT_NOT_NULL(shale_alloc_wait(segment, 1u << 20, shale_deadline_in(1)));
	finish();
}

TEST(heap_wait, a_deadline_passes)
{
	uint64_t before;

	open_full(2u << 20, 30000);
	EXPECT_NULL(shale_alloc_wait(segment, 30000, SHALE_NO_WAIT));
	EXPECT_EQ(errno, ETIMEDOUT);
	before = test_now_ms();
	EXPECT_NULL(shale_alloc_wait(segment, 30000, shale_deadline_in(250000000)));
	EXPECT_EQ(errno, ETIMEDOUT);
	EXPECT_GE(test_now_ms(), before + 249);
	EXPECT_NULL(shale_alloc_wait(segment, 30000, 1)); /* long past */
	EXPECT_EQ(errno, ETIMEDOUT);
	finish();
}

TEST(heap_wait, what_can_never_fit_is_refused_at_once)
{
	struct shale_segment_options options = {
		.size = sizeof(options),
		.capacity_bytes = 64u << 20,
		.budget_bytes = 16u << 20,
		.pages = SHALE_PAGES_4K,
	};

	ASSERT_OK(shale_segment_create(&options, &segment));
	EXPECT_NULL(shale_alloc_wait(segment, 65u << 20, SHALE_NO_DEADLINE));
	EXPECT_EQ(errno, ENOMEM);
	EXPECT_NULL(shale_alloc_wait(segment, SIZE_MAX, SHALE_NO_DEADLINE));
	EXPECT_EQ(errno, ENOMEM);
	EXPECT_NULL(shale_alloc_wait(segment, 16u << 20, SHALE_NO_DEADLINE));
	EXPECT_EQ(errno, ENOMEM);
	EXPECT_NOT_NULL(shale_alloc_wait(segment, 13u << 20, SHALE_NO_DEADLINE));
	finish();
}

static void on_alarm(int number)
{
	(void)number;
}

TEST(heap_wait, a_signal_ends_the_wait)
{
	struct sigaction action = {.sa_handler = on_alarm};
	struct itimerval timer = {.it_value = {.tv_usec = 150000},
				  .it_interval = {.tv_usec = 20000}};

	open_full(2u << 20, 30000);
	ASSERT_SYS(sigaction(SIGALRM, &action, NULL));
	ASSERT_SYS(setitimer(ITIMER_REAL, &timer, NULL));
	EXPECT_NULL(shale_alloc_wait(segment, 30000, SHALE_NO_DEADLINE));
	EXPECT_EQ(errno, EINTR);
	timer = (struct itimerval){0};
	ASSERT_SYS(setitimer(ITIMER_REAL, &timer, NULL));
	finish();
}

TEST(heap_wait, a_read_only_view_cannot_wait)
{
	struct shale_attach_options options = {.size = sizeof(options), .read_only = true};
	struct shale_segment *reader;

	segment = heap_segment(2u << 20, SHALE_PAGES_4K);
	ASSERT_OK(shale_segment_attach(shale_segment_fd(segment), &options, &reader));
	EXPECT_NULL(shale_alloc_wait(reader, 100, SHALE_NO_DEADLINE));
	EXPECT_EQ(errno, EROFS);
	EXPECT_ERRNO(-EROFS, shale_segment_set_budget(reader, 0));
	EXPECT_OK(shale_segment_detach(reader));
	finish();
}

/* -- threads --------------------------------------------------------------------------------- */

struct waiter {
	pthread_t thread;
	size_t size;
	void *block;
	int error;
	bool free_it;
};

static void *wait_in_thread(void *argument)
{
	struct waiter *w = argument;

	w->block = shale_alloc_wait(segment, w->size, shale_deadline_in(20000000000));
	w->error = errno;
	if (w->block)
		memset(w->block, 7, w->size);
	if (w->block && w->free_it)
		EXPECT_OK(shale_free(segment, w->block));
	return NULL;
}

static void waiter_start(struct waiter *w, size_t size)
{
	*w = (struct waiter){.size = size};
	ASSERT_EQ(pthread_create(&w->thread, NULL, wait_in_thread, w), 0);
}

static void waiter_expect_block(struct waiter *w)
{
	ASSERT_EQ(pthread_join(w->thread, NULL), 0);
	if (!EXPECT_NOT_NULL(w->block))
		TEST_LOG("%s", test_errno_name(w->error));
}

/* The owner frees by its fast path, block by block; the last block of a slab is what counts. */
TEST(heap_wait, an_owners_local_frees_wake)
{
	struct waiter w;

	open_full(2u << 20, 4096);
	waiter_start(&w, 300000);
	test_sleep_ms(250);
	for (unsigned i = 0; i < block_count; i++)
		EXPECT_OK(shale_free(segment, blocks[i]));
	waiter_expect_block(&w);
	finish();
}

/* Every slab is emptied up to one block; then that goes, and its owner asks for something else once. */
TEST(heap_wait, the_last_block_of_a_slab_wakes)
{
	struct waiter w;

	open_full(2u << 20, 1024);
	for (unsigned i = 0; i < block_count; i++)
		if (i % 64 != 13)
			EXPECT_OK(shale_free(segment, blocks[i]));
	waiter_start(&w, 100000);
	test_sleep_ms(250);
	for (unsigned i = 64 + 13; i < block_count; i += 64)
		EXPECT_OK(shale_free(segment, blocks[i]));
	/* slabs that are open are let go of at the first call that the caches do not serve */
	EXPECT_NULL(shale_alloc(segment, 2u << 20));
	waiter_expect_block(&w);
	finish();
}

TEST(heap_wait, a_freed_span_wakes)
{
	struct waiter w;

	open_full(4u << 20, 500000);
	waiter_start(&w, 40000);
	test_sleep_ms(150);
	EXPECT_OK(shale_free(segment, blocks[2]));
	waiter_expect_block(&w);
	finish();
}

static void *free_all(void *argument)
{
	(void)argument;
	for (unsigned i = 0; i < block_count; i++)
		EXPECT_OK(shale_free(segment, blocks[i]));
	return NULL;
}

/* The waiter owns the slabs; another thread frees. */
TEST(heap_wait, frees_by_others_wake_the_owner)
{
	pthread_t freer;
	void *block;

	open_full(2u << 20, 2000);
	ASSERT_EQ(pthread_create(&freer, NULL, free_all, NULL), 0);
	for (unsigned i = 0; i < 20; i++) {
		block = shale_alloc_wait(segment, 2000, shale_deadline_in(20000000000));
		ASSERT_NOT_NULL(block);
	}
	ASSERT_EQ(pthread_join(freer, NULL), 0);
	finish();
}

static void *fill_in_thread(void *argument)
{
	fill(*(size_t *)argument);
	return free_all(NULL);
}

/* A thread fills the segment, empties it by fast frees only, and ends. */
TEST(heap_wait, what_an_ended_thread_left_is_found)
{
	size_t size = 1024;
	pthread_t thread;
	void *block;

	segment = heap_segment(2u << 20, SHALE_PAGES_4K);
	block_count = 0;
	ASSERT_EQ(pthread_create(&thread, NULL, fill_in_thread, &size), 0);
	ASSERT_EQ(pthread_join(thread, NULL), 0);
	block = shale_alloc_wait(segment, 1900000, shale_deadline_in(10000000000));
	EXPECT_NOT_NULL(block);
	finish();
}

TEST(heap_wait, many_waiters_all_get_theirs)
{
	enum { WAITERS = 8 };
	struct waiter w[WAITERS];

	open_full(4u << 20, 100000);
	for (unsigned i = 0; i < WAITERS; i++)
		waiter_start(&w[i], i % 2 ? 500000 : 20000);
	test_sleep_ms(200);
	for (unsigned i = 0; i < block_count; i++)
		EXPECT_OK(shale_free(segment, blocks[i]));
	for (unsigned i = 0; i < WAITERS; i++)
		waiter_expect_block(&w[i]);
	finish();
}

/* One slot for eight threads: each waits for it, uses it and passes it on. */
TEST(heap_wait, many_waiters_take_turns)
{
	enum { WAITERS = 8 };
	struct waiter w[WAITERS];

	open_full(2u << 20, 2000000);
	ASSERT_EQ(block_count, 1);
	for (unsigned i = 0; i < WAITERS; i++) {
		w[i] = (struct waiter){.size = 2000000, .free_it = true};
		ASSERT_EQ(pthread_create(&w[i].thread, NULL, wait_in_thread, &w[i]), 0);
	}
	test_sleep_ms(100);
	EXPECT_OK(shale_free(segment, blocks[0]));
	for (unsigned i = 0; i < WAITERS; i++)
		waiter_expect_block(&w[i]);
	EXPECT_EQ(heap_counts(segment).live_blocks, 0);
	finish();
}

/* -- the budget ------------------------------------------------------------------------------- */

static uint64_t budget_now(void)
{
	struct shale_segment_figures stat = {.size = sizeof(stat)};

	ASSERT_OK(shale_segment_stat(segment, &stat));
	return stat.budget_bytes;
}

static void open_with_budget(uint64_t budget)
{
	struct shale_segment_options options = {
		.size = sizeof(options),
		.capacity_bytes = 64u << 20,
		.budget_bytes = budget,
		.pages = SHALE_PAGES_4K,
	};

	ASSERT_OK(shale_segment_create(&options, &segment));
	block_count = 0;
}

TEST(heap_wait, a_budget_can_be_changed)
{
	open_with_budget(8u << 20);
	EXPECT_EQ(budget_now(), 8u << 20);
	fill(500000);
	EXPECT_OK(shale_segment_set_budget(segment, 16u << 20));
	EXPECT_EQ(budget_now(), 16u << 20);
	EXPECT_NOT_NULL(shale_alloc(segment, 3u << 20));
	EXPECT_ERRNO(-EINVAL, shale_segment_set_budget(segment, 1000));
	EXPECT_EQ(budget_now(), 16u << 20);
	/* below what is committed: nothing more */
	EXPECT_OK(shale_segment_set_budget(segment, 4u << 20));
	EXPECT_NULL(shale_alloc(segment, 4u << 20));
	EXPECT_OK(shale_segment_set_budget(segment, 0));
	EXPECT_GT(budget_now(), 64u << 20);
	EXPECT_NOT_NULL(shale_alloc(segment, 32u << 20));
	finish();
}

TEST(heap_wait, a_grown_budget_wakes)
{
	struct waiter w;

	open_with_budget(8u << 20);
	fill(500000);
	waiter_start(&w, 1u << 20);
	test_sleep_ms(150);
	EXPECT_OK(shale_segment_set_budget(segment, 12u << 20));
	waiter_expect_block(&w);
	finish();
}

TEST(heap_wait, bytes_given_back_wake)
{
	struct waiter w;

	open_with_budget(8u << 20);
	fill(60000);
	waiter_start(&w, 3u << 20);
	test_sleep_ms(150);
	for (unsigned i = 0; i < block_count; i++)
		EXPECT_OK(shale_free(segment, blocks[i]));
	EXPECT_GE(shale_trim(segment, 0), 0);
	waiter_expect_block(&w);
	finish();
}
