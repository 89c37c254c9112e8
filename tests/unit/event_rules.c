/*
 * event_rules.c - what the calls of shale/wait.h promise, seen from one process.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <shale/wait.h>

#include "harness.h"
#include "sync/event.h"

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static bool marked(struct shale_event *event)
{
	return (load_relaxed(event_word(event)) & EVENT_MARK) != 0;
}

TEST(event, zeroes_are_an_event_that_nobody_waits_for)
{
	_Alignas(8) struct shale_event event = {0};

	EXPECT_EQ(shale_event_wake(&event), 0);
	EXPECT_EQ(event.sequence, 0);
	EXPECT_EQ(event.marks, 0);
}

TEST(event, wake_after_prepare_is_seen_by_wait)
{
	_Alignas(8) struct shale_event event = {0};
	uint32_t ticket = shale_event_prepare(&event);

	EXPECT_TRUE(marked(&event));
	EXPECT_EQ(shale_event_wake(&event), 0); /* nobody sleeps yet */
	EXPECT_FALSE(marked(&event));
	EXPECT_OK(shale_event_wait(&event, ticket, SHALE_NO_DEADLINE));
	EXPECT_OK(shale_event_wait(&event, ticket, SHALE_NO_WAIT));
}

TEST(event, a_second_wake_costs_nothing)
{
	_Alignas(8) struct shale_event event = {0};
	uint32_t before;

	(void)shale_event_prepare(&event);
	(void)shale_event_wake(&event);
	before = event.sequence;
	(void)shale_event_wake(&event);
	EXPECT_EQ(event.sequence, before);
}

TEST(event, wait_without_a_wake_ends_at_the_deadline)
{
	_Alignas(8) struct shale_event event = {0};
	uint32_t ticket = shale_event_prepare(&event);
	uint64_t deadline = shale_deadline_in(20000000);

	EXPECT_ERRNO(-ETIMEDOUT, shale_event_wait(&event, ticket, SHALE_NO_WAIT));
	EXPECT_ERRNO(-ETIMEDOUT, shale_event_wait(&event, ticket, deadline));
	EXPECT_GE(now_ns(), deadline);
	EXPECT_ERRNO(-ETIMEDOUT, shale_event_wait(&event, ticket, 1)); /* long past */
}

TEST(event, cancel_leaves_one_needless_wake_at_most)
{
	_Alignas(8) struct shale_event event = {0};
	uint32_t ticket = shale_event_prepare(&event);

	shale_event_cancel(&event, ticket);
	(void)shale_event_wake(&event);
	EXPECT_FALSE(marked(&event));
}

/* A waiter that comes between a waker's wake and its clearing must keep its mark. */
TEST(event, each_prepare_changes_the_word)
{
	_Alignas(8) struct shale_event event = {0};
	uint64_t first, second;

	(void)shale_event_prepare(&event);
	first = load_relaxed(event_word(&event));
	(void)shale_event_prepare(&event);
	second = load_relaxed(event_word(&event));
	EXPECT_NE(first, second);
	EXPECT_EQ(first & EVENT_SEQUENCE_MASK, second & EVENT_SEQUENCE_MASK);
}

TEST(event, sequence_and_stamp_wrap)
{
	_Alignas(8) struct shale_event event = {0};
	uint32_t ticket;

	*event_word(&event) = ~EVENT_MARK; /* both at their last value */
	ticket = shale_event_prepare(&event);
	EXPECT_EQ(ticket, UINT32_MAX);
	EXPECT_TRUE(marked(&event));
	EXPECT_EQ(load_relaxed(event_word(&event)) & EVENT_STAMP_MASK, 0);
	(void)shale_event_wake(&event);
	EXPECT_EQ(event.sequence, 0);
	EXPECT_OK(shale_event_wait(&event, ticket, SHALE_NO_DEADLINE));
}

TEST(event, misaligned_events_are_refused)
{
	_Alignas(8) unsigned char bytes[24] = {0};
	struct shale_event *event = (struct shale_event *)(void *)(bytes + 4);
	uint32_t ticket = shale_event_prepare(event);

	EXPECT_ERRNO(-EINVAL, shale_event_wait(event, ticket, SHALE_NO_WAIT));
	EXPECT_ERRNO(-EINVAL, shale_event_wake(event));
	EXPECT_ERRNO(-EINVAL, shale_event_wait(NULL, 0, SHALE_NO_WAIT));
	for (unsigned i = 0; i < sizeof(bytes); i++)
		EXPECT_EQ(bytes[i], 0);
}

TEST(event, deadlines_do_not_overflow)
{
	EXPECT_EQ(shale_deadline_in(UINT64_MAX), SHALE_NO_DEADLINE);
	EXPECT_GT(shale_deadline_in(0), 0);
	EXPECT_LT(shale_deadline_in(1000), SHALE_NO_DEADLINE);
}

struct sleeper {
	struct shale_event *event;
	uint32_t *go;
	int result;
};

static void *sleep_until_go(void *argument)
{
	struct sleeper *sleeper = argument;

	sleeper->result = 0;
	while (sleeper->result == 0) {
		uint32_t ticket = shale_event_prepare(sleeper->event);

		if (load_acquire(sleeper->go) != 0) {
			shale_event_cancel(sleeper->event, ticket);
			return NULL;
		}
		sleeper->result =
			shale_event_wait(sleeper->event, ticket, shale_deadline_in(20000000000));
	}
	return NULL;
}

TEST(event, one_wake_wakes_all_sleepers)
{
	_Alignas(8) struct shale_event event = {0};
	struct sleeper sleepers[8];
	pthread_t threads[8];
	uint32_t go = 0;

	for (unsigned i = 0; i < 8; i++) {
		sleepers[i] = (struct sleeper){&event, &go, -1};
		ASSERT_EQ(pthread_create(&threads[i], NULL, sleep_until_go, &sleepers[i]), 0);
	}
	EXPECT_TRUE(TEST_EVENTUALLY(marked(&event), 5000));
	store_release(&go, 1u);
	EXPECT_GE(shale_event_wake(&event), 0);
	for (unsigned i = 0; i < 8; i++) {
		pthread_join(threads[i], NULL);
		EXPECT_OK(sleepers[i].result);
	}
}

static void on_signal(int number)
{
	(void)number;
}

static void *interrupt_sleeper(void *argument)
{
	pthread_t *main_thread = argument;

	/* again and again: the first may come before the sleep */
	for (unsigned i = 0; i < 50; i++) {
		test_sleep_ms(5);
		pthread_kill(*main_thread, SIGUSR1);
	}
	return NULL;
}

TEST(event, a_signal_handler_ends_the_wait)
{
	_Alignas(8) struct shale_event event = {0};
	struct sigaction action = {.sa_handler = on_signal};
	pthread_t thread, self = pthread_self();
	uint32_t ticket = shale_event_prepare(&event);

	sigaction(SIGUSR1, &action, NULL);
	ASSERT_EQ(pthread_create(&thread, NULL, interrupt_sleeper, &self), 0);
	EXPECT_ERRNO(-EINTR, shale_event_wait(&event, ticket, shale_deadline_in(20000000000)));
	pthread_join(thread, NULL);
}
