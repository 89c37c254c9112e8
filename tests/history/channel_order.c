/*
 * channel_order.c - recorded histories of a channel, and their judge.
 *
 * Threads send and receive; each call is recorded with two numbers of one shared counter, taken
 * before and after it. A history is good if
 *   - every message sent was received once, and not before its send began (loss, duplication)
 *   - of two messages of a sender the later one was not wholly received before the receive of the
 *     earlier one began (order)
 *   - no receive said "nothing there" while a message was there during the whole call (false empty)
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include <shale/channel.h>
#include <shale/segment.h>

#include "base/atomic.h"
#include "harness.h"

#define SENDERS   3u
#define RECEIVERS 3u
#define MOST      20000u /* messages of a sender */
#define EMPTIES   4096u  /* recorded of each receiver */

struct span {
	uint64_t begin;
	uint64_t end;
};

struct history {
	struct shale_channel *channel;
	uint32_t messages; /* of each sender */
	uint64_t clock;
	uint64_t received_count;
	struct span sent[SENDERS][MOST];
	struct span received[SENDERS][MOST];
	uint32_t times[SENDERS][MOST];
	struct span empty[RECEIVERS][EMPTIES];
	unsigned empties[RECEIVERS];
};

struct worker {
	struct history *history;
	unsigned index;
	uint64_t state;
};

static uint64_t tick(struct history *history)
{
	return fetch_add_seq_cst(&history->clock, UINT64_C(1)) + 1;
}

static void *send_all(void *argument)
{
	struct worker *worker = argument;
	struct history *history = worker->history;
	static const uint32_t sizes[] = {8, 8, 24, 100, 600};
	uint32_t message[256] = {worker->index};

	for (uint32_t i = 0; i < history->messages; i++) {
		struct span *span = &history->sent[worker->index][i];

		message[1] = i;
		span->begin = tick(history);
		ASSERT_OK(shale_channel_send(history->channel, message,
					     sizes[test_random_next(&worker->state) % 5],
					     shale_deadline_in(60000000000)));
		span->end = tick(history);
		if (test_random_next(&worker->state) % 16 == 0)
			sched_yield();
	}
	return NULL;
}

static void note(struct history *history, const uint32_t *message, struct span span)
{
	ASSERT_LT(message[0], SENDERS);
	ASSERT_LT(message[1], history->messages);
	history->received[message[0]][message[1]] = span;
	(void)fetch_add_relaxed(&history->times[message[0]][message[1]],
				1u);                                    /* judged after join */
	(void)fetch_add_relaxed(&history->received_count, UINT64_C(1)); /* tells when to end */
}

static void *receive_all(void *argument)
{
	struct worker *worker = argument;
	struct history *history = worker->history;
	uint64_t all = (uint64_t)SENDERS * history->messages;
	uint32_t message[256];
	size_t size;

	while (load_relaxed(&history->received_count) < all) { /* nothing rides on it */
		struct span span = {.begin = tick(history)};
		int r = shale_channel_receive(history->channel, message, sizeof(message), &size,
					      SHALE_NO_WAIT);

		span.end = tick(history);
		if (r == 0)
			note(history, message, span);
		else if (history->empties[worker->index] < EMPTIES)
			history->empty[worker->index][history->empties[worker->index]++] = span;
		ASSERT_TRUE(r == 0 || r == -EAGAIN);
		if (r == -EAGAIN)
			sched_yield();
	}
	return NULL;
}

static void judge_messages(struct history *history)
{
	for (unsigned s = 0; s < SENDERS; s++) {
		uint64_t later_end = UINT64_MAX; /* the earliest end among the later messages */

		for (uint32_t i = history->messages; i-- > 0;) {
			struct span *span = &history->received[s][i];

			ASSERT_EQ(history->times[s][i], 1);
			ASSERT_GT(span->end, history->sent[s][i].begin);
			ASSERT_GT(later_end, span->begin);
			later_end = span->end < later_end ? span->end : later_end;
		}
	}
}

/* Was a message there, sent before the call and received only after it? */
static void judge_empties(struct history *history)
{
	for (unsigned r = 0; r < RECEIVERS; r++)
		for (unsigned e = 0; e < history->empties[r]; e++) {
			struct span empty = history->empty[r][e];

			for (unsigned s = 0; s < SENDERS; s++)
				for (uint32_t i = 0; i < history->messages; i++) {
					if (history->sent[s][i].end > empty.begin)
						break; /* and so are the later ones */
					ASSERT_LT(history->received[s][i].begin, empty.end);
				}
		}
}

TEST_TIMEOUT(channel_history, nothing_lost_doubled_or_out_of_order, 300)
{
	struct shale_segment_options segment = {
		.size = sizeof(segment),
		.capacity_bytes = 64u << 20,
		.pages = SHALE_PAGES_4K,
	};
	struct shale_channel_options channel = {
		.size = sizeof(channel),
		.capacity_bytes = 4096,
		.max_senders = SENDERS,
	};
	struct history *history = calloc(1, sizeof(*history));
	struct worker workers[SENDERS + RECEIVERS];
	pthread_t threads[SENDERS + RECEIVERS];
	struct shale_segment *view;

	ASSERT_NOT_NULL(history);
	ASSERT_OK(shale_segment_create(&segment, &view));
	ASSERT_OK(shale_channel_open(view, "h", &channel, &history->channel));
	history->messages = TEST_ROUNDS(3000u, MOST);
	for (unsigned i = 0; i < SENDERS + RECEIVERS; i++) {
		workers[i] =
			(struct worker){history, i < SENDERS ? i : i - SENDERS, test_random_u64()};
		ASSERT_EQ(pthread_create(&threads[i], NULL, i < SENDERS ? send_all : receive_all,
					 &workers[i]),
			  0);
	}
	for (unsigned i = 0; i < SENDERS + RECEIVERS; i++)
		pthread_join(threads[i], NULL);
	judge_messages(history);
	judge_empties(history);
	EXPECT_EQ(shale_check(view, NULL, NULL), 0);
	TEST_LOG("%u, %u and %u empty looks", history->empties[0], history->empties[1],
		 history->empties[2]);
	shale_channel_close(history->channel);
	EXPECT_OK(shale_segment_detach(view));
	free(history);
}
