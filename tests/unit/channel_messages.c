/*
 * channel_messages.c - what shale/channel.h promises, seen from one process.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <shale/channel.h>
#include <shale/heap.h>
#include <shale/segment.h>

#include "channel/channel.h"
#include "harness.h"

FIXTURE(channel)
{
	struct shale_segment *segment;
	struct shale_channel *channel;
};

static void open_small(struct shale_segment *segment, const char *name, uint64_t capacity,
		       uint32_t senders, struct shale_channel **ret_channel)
{
	struct shale_channel_options options = {
		.size = sizeof(options),
		.capacity_bytes = capacity,
		.max_senders = senders,
	};

	ASSERT_OK(shale_channel_open(segment, name, &options, ret_channel));
}

FIXTURE_SETUP(channel)
{
	struct shale_segment_options options = {
		.size = sizeof(options),
		.capacity_bytes = 64u << 20,
		.pages = SHALE_PAGES_4K,
	};

	ASSERT_OK(shale_segment_create(&options, &self->segment));
	open_small(self->segment, "c", 4096, 4, &self->channel);
}

FIXTURE_TEARDOWN(channel)
{
	EXPECT_EQ(shale_check(self->segment, NULL, NULL), 0);
	shale_channel_close(self->channel);
	EXPECT_OK(shale_segment_detach(self->segment));
}

static uint64_t live_bytes(struct shale_segment *segment)
{
	struct shale_heap_figures stat = {.size = sizeof(stat)};

	ASSERT_OK(shale_heap_stat(segment, &stat));
	return stat.live_bytes;
}

static void fill(unsigned char *bytes, size_t size, uint64_t seed)
{
	for (size_t i = 0; i < size; i++)
		bytes[i] = (unsigned char)test_random_next(&seed);
}

/* Sends and receives one message of that size; its bytes must be the same. */
static void round_trip(struct shale_channel *channel, size_t size)
{
	unsigned char *sent = malloc(size + 1), *got = malloc(size + 1);
	size_t got_size = SIZE_MAX;

	fill(sent, size, size);
	memset(got, 0xa5, size + 1);
	ASSERT_OK(shale_channel_send(channel, sent, size, SHALE_NO_WAIT));
	EXPECT_EQ(shale_channel_depth(channel), 1);
	ASSERT_OK(shale_channel_receive(channel, got, size, &got_size, SHALE_NO_WAIT));
	ASSERT_EQ(got_size, size);
	ASSERT_MEM_EQ(sent, got, size);
	EXPECT_EQ(got[size], 0xa5);
	EXPECT_EQ(shale_channel_depth(channel), 0);
	free(sent);
	free(got);
}

TEST_F(channel, carries_messages_of_every_small_size)
{
	for (size_t size = 0; size <= 1200; size++)
		round_trip(self->channel, size);
}

TEST_F(channel, carries_large_messages_and_frees_their_blocks)
{
	static const size_t sizes[] = {4095,  4096,  4097,  16384,  32767,   32768,   32769,
				       65535, 65536, 65537, 131072, 1000003, 1u << 20};
	uint64_t before;

	round_trip(self->channel, 5000); /* the ring and the slabs are there from here on */
	before = live_bytes(self->segment);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		round_trip(self->channel, sizes[i]);
		EXPECT_EQ(live_bytes(self->segment), before);
	}
}

TEST_F(channel, keeps_the_order_at_every_position_of_the_ring)
{
	unsigned char message[600];
	uint64_t next = 0, want = 0;
	size_t size;

	/* Sizes and fill levels change all the time: every place of the ring is a record's start. */
	for (unsigned round = 0; round < 4000; round++) {
		unsigned burst = (unsigned)test_random_below(12);

		for (unsigned i = 0; i < burst; i++) {
			size = 8 + (size_t)test_random_below(round % 3 == 0 ? 593 : 40);
			fill(message, size, next);
			memcpy(message, &next, 8);
			int r = shale_channel_send(self->channel, message, size, SHALE_NO_WAIT);

			if (r == -EAGAIN)
				break;
			ASSERT_OK(r);
			next++;
		}
		burst = (unsigned)test_random_below(12);
		for (unsigned i = 0; i < burst && want < next; i++) {
			unsigned char expected[600];

			ASSERT_OK(shale_channel_receive(self->channel, message, sizeof(message),
							&size, SHALE_NO_WAIT));
			fill(expected, size, want);
			memcpy(expected, &want, 8);
			ASSERT_MEM_EQ(expected, message, size);
			want++;
		}
		ASSERT_EQ(shale_channel_depth(self->channel), next - want);
	}
	EXPECT_GT(want, 1000);
}

TEST_F(channel, full_is_eagain_and_empty_is_eagain)
{
	unsigned char message[16] = {0};
	int64_t sent = 0;
	size_t size = 77;
	int r;

	EXPECT_ERRNO(-EAGAIN,
		     shale_channel_receive(self->channel, message, 16, &size, SHALE_NO_WAIT));
	EXPECT_EQ(size, 77); /* written only on success */
	while ((r = shale_channel_send(self->channel, message, 8, SHALE_NO_WAIT)) == 0)
		sent++;
	EXPECT_EQ(r, -EAGAIN);
	EXPECT_EQ(sent, 4096 / 16); /* eight bytes and a header of eight: not one unit is lost */
	EXPECT_EQ(shale_channel_depth(self->channel), sent);
	for (; sent > 0; sent--)
		ASSERT_OK(shale_channel_receive(self->channel, message, 16, &size, SHALE_NO_WAIT));
	EXPECT_ERRNO(-EAGAIN,
		     shale_channel_receive(self->channel, message, 16, &size, SHALE_NO_WAIT));
}

TEST_F(channel, too_small_a_buffer_keeps_the_message)
{
	static const size_t sizes[] = {20, 300, 5000, 100000};
	unsigned char *sent = malloc(100000), *got = malloc(100000);

	for (size_t i = 0; i < 4; i++) {
		size_t size = 0;

		fill(sent, sizes[i], i);
		ASSERT_OK(shale_channel_send(self->channel, sent, sizes[i], SHALE_NO_WAIT));
		EXPECT_ERRNO(-EMSGSIZE,
			     shale_channel_receive(self->channel, NULL, 0, &size, SHALE_NO_WAIT));
		EXPECT_EQ(size, sizes[i]);
		size = 0;
		EXPECT_ERRNO(-EMSGSIZE, shale_channel_receive(self->channel, got, sizes[i] - 1,
							      &size, SHALE_NO_DEADLINE));
		EXPECT_EQ(size, sizes[i]);
		EXPECT_EQ(shale_channel_depth(self->channel), 1);
		ASSERT_OK(
			shale_channel_receive(self->channel, got, sizes[i], &size, SHALE_NO_WAIT));
		EXPECT_MEM_EQ(sent, got, sizes[i]);
	}
	free(sent);
	free(got);
}

TEST_F(channel, deadlines_end_both_waits)
{
	unsigned char message[64] = {0};
	size_t size;

	EXPECT_ERRNO(-ETIMEDOUT, shale_channel_receive(self->channel, message, 64, &size,
						       shale_deadline_in(5000000)));
	EXPECT_ERRNO(-ETIMEDOUT, shale_channel_receive(self->channel, message, 64, &size,
						       shale_deadline_in(250000000)));
	EXPECT_ERRNO(-ETIMEDOUT, shale_channel_receive(self->channel, message, 64, &size, 1));
	while (shale_channel_send(self->channel, message, 64, SHALE_NO_WAIT) == 0)
		;
	EXPECT_ERRNO(-ETIMEDOUT,
		     shale_channel_send(self->channel, message, 64, shale_deadline_in(5000000)));
	EXPECT_ERRNO(-ETIMEDOUT,
		     shale_channel_send(self->channel, message, 64, shale_deadline_in(250000000)));
	EXPECT_ERRNO(-ETIMEDOUT, shale_channel_send(self->channel, message, 64, 1));
}

TEST_F(channel, a_failed_large_send_leaves_no_block)
{
	unsigned char *message = calloc(1, 100000);
	uint64_t before;

	while (shale_channel_send(self->channel, message, 8, SHALE_NO_WAIT) == 0)
		;
	before = live_bytes(self->segment);
	EXPECT_ERRNO(-EAGAIN, shale_channel_send(self->channel, message, 100000, SHALE_NO_WAIT));
	EXPECT_EQ(live_bytes(self->segment), before);
	free(message);
}

TEST_F(channel, more_than_the_segment_holds_is_enomem)
{
	void *message = calloc(80, 1u << 20);

	EXPECT_ERRNO(-ENOMEM, shale_channel_send(self->channel, message, 80u << 20, SHALE_NO_WAIT));
	EXPECT_EQ(shale_channel_depth(self->channel), 0);
	free(message);
}

TEST_F(channel, shutdown_lets_the_rest_out_and_ends)
{
	unsigned char message[64] = {0};
	size_t size;

	ASSERT_OK(shale_channel_send(self->channel, message, 10, SHALE_NO_WAIT));
	ASSERT_OK(shale_channel_shutdown(self->channel));
	ASSERT_OK(shale_channel_shutdown(self->channel));
	EXPECT_ERRNO(-EPIPE, shale_channel_send(self->channel, message, 10, SHALE_NO_DEADLINE));
	EXPECT_OK(shale_channel_receive(self->channel, message, 64, &size, SHALE_NO_DEADLINE));
	EXPECT_ERRNO(-EPIPE,
		     shale_channel_receive(self->channel, message, 64, &size, SHALE_NO_WAIT));
	EXPECT_ERRNO(-EPIPE,
		     shale_channel_receive(self->channel, message, 64, &size, SHALE_NO_DEADLINE));
}

TEST_F(channel, another_handle_sees_the_same_and_uses_the_same_ring)
{
	struct shale_channel *again;
	unsigned char message[16] = {0};
	uint64_t before;
	size_t size;

	ASSERT_OK(shale_channel_send(self->channel, "one", 3, SHALE_NO_WAIT));
	before = live_bytes(self->segment);
	ASSERT_OK(shale_channel_open(self->segment, "c", NULL, &again));
	EXPECT_EQ(shale_channel_depth(again), 1);
	ASSERT_OK(shale_channel_send(again, "two", 3, SHALE_NO_WAIT));
	EXPECT_EQ(live_bytes(self->segment), before); /* no second ring */
	shale_channel_close(self->channel);
	self->channel = again;
	ASSERT_OK(shale_channel_receive(again, message, 16, &size, SHALE_NO_WAIT));
	EXPECT_MEM_EQ(message, "one", 3);
	ASSERT_OK(shale_channel_receive(again, message, 16, &size, SHALE_NO_WAIT));
	EXPECT_MEM_EQ(message, "two", 3);
}

TEST_F(channel, options_and_arguments_are_checked)
{
	struct shale_channel_options options = {.size = sizeof(options)};
	struct shale_channel *other = NULL;
	unsigned char byte = 0;
	size_t size;

	EXPECT_ERRNO(-EINVAL, shale_channel_open(self->segment, "", NULL, &other));
	EXPECT_ERRNO(-EINVAL, shale_channel_open(self->segment, NULL, NULL, &other));
	options.capacity_bytes = 4095;
	EXPECT_ERRNO(-EINVAL, shale_channel_open(self->segment, "x", &options, &other));
	options.capacity_bytes = (1u << 30) + 1;
	EXPECT_ERRNO(-EINVAL, shale_channel_open(self->segment, "x", &options, &other));
	options.capacity_bytes = 0;
	options.max_senders = 4096;
	EXPECT_ERRNO(-EINVAL, shale_channel_open(self->segment, "x", &options, &other));
	options.max_senders = 0;
	options.flags = 8;
	EXPECT_ERRNO(-EINVAL, shale_channel_open(self->segment, "x", &options, &other));
	options.flags = SHALE_CHANNEL_MUST_EXIST;
	EXPECT_ERRNO(-ENOENT, shale_channel_open(self->segment, "x", &options, &other));
	options.flags = SHALE_CHANNEL_MUST_MAKE;
	EXPECT_ERRNO(-EEXIST, shale_channel_open(self->segment, "c", &options, &other));
	options.size = 3;
	EXPECT_ERRNO(-EINVAL, shale_channel_open(self->segment, "x", &options, &other));
	EXPECT_NULL(other);
	EXPECT_ERRNO(-EINVAL, shale_channel_send(self->channel, NULL, 1, SHALE_NO_WAIT));
	EXPECT_OK(shale_channel_send(self->channel, NULL, 0, SHALE_NO_WAIT));
	EXPECT_ERRNO(-EINVAL, shale_channel_receive(self->channel, NULL, 1, &size, SHALE_NO_WAIT));
	EXPECT_OK(shale_channel_receive(self->channel, NULL, 0, &size, SHALE_NO_WAIT));
	EXPECT_EQ(size, 0);
	EXPECT_OK(shale_channel_send(self->channel, "x", 1, SHALE_NO_WAIT));
	EXPECT_OK(shale_channel_receive(self->channel, &byte, 1, NULL, SHALE_NO_WAIT));
	EXPECT_EQ(byte, 'x');
	shale_channel_close(NULL);
}

TEST_F(channel, read_only_views_have_no_channels)
{
	struct shale_attach_options options = {.size = sizeof(options), .read_only = true};
	struct shale_segment *view;
	struct shale_channel *other;

	ASSERT_OK(shale_segment_attach(shale_segment_fd(self->segment), &options, &view));
	EXPECT_ERRNO(-EROFS, shale_channel_open(view, "c", NULL, &other));
	ASSERT_OK(shale_channel_send(self->channel, "x", 1, SHALE_NO_WAIT));
	EXPECT_EQ(shale_check(view, NULL, NULL), 0); /* looking is possible */
	EXPECT_OK(shale_segment_detach(view));
}

TEST(channel, private_segments_have_channels_too)
{
	struct shale_segment_options options = {
		.size = sizeof(options),
		.capacity_bytes = 16u << 20,
		.pages = SHALE_PAGES_PRIVATE,
	};
	struct shale_segment *segment;
	struct shale_channel *channel;

	ASSERT_OK(shale_segment_create(&options, &segment));
	ASSERT_OK(shale_channel_open(segment, "c", NULL, &channel));
	round_trip(channel, 100);
	round_trip(channel, 100000);
	shale_channel_close(channel);
	EXPECT_OK(shale_segment_detach(segment));
}

struct waker {
	struct shale_channel *channel;
	uint32_t end;
};

static void *wake_always(void *argument)
{
	struct waker *waker = argument;

	while (__atomic_load_n(&waker->end, __ATOMIC_RELAXED) == 0) {
		(void)shale_event_prepare(&waker->channel->shm->data);
		(void)shale_event_wake(&waker->channel->shm->data);
	}
	return NULL;
}

/* A peer that wakes all the time must not keep a waiter for ever: else the time limit strikes. */
TEST_F(channel, needless_wakes_do_not_outlast_the_deadline)
{
	struct waker waker = {self->channel, 0};
	unsigned char byte;
	pthread_t thread;
	size_t size;

	ASSERT_EQ(pthread_create(&thread, NULL, wake_always, &waker), 0);
	EXPECT_ERRNO(-ETIMEDOUT, shale_channel_receive(self->channel, &byte, 1, &size,
						       shale_deadline_in(100000000)));
	__atomic_store_n(&waker.end, 1u, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
}

TEST_F(channel, odd_capacities_are_rounded_up)
{
	struct shale_channel *odd;
	unsigned char message[8] = {0};
	unsigned sent = 0;

	open_small(self->segment, "odd", 5000, 1, &odd);
	while (shale_channel_send(odd, message, 8, SHALE_NO_WAIT) == 0)
		sent++;
	EXPECT_EQ(sent, 8192 / 16);
	shale_channel_close(odd);
}

TEST_F(channel, a_root_of_another_kind_is_refused)
{
	struct shale_channel *other;
	void *block = shale_alloc(self->segment, 64);

	ASSERT_NOT_NULL(block);
	ASSERT_OK(shale_root_publish(self->segment, "plain", block));
	EXPECT_ERRNO(-EPROTOTYPE, shale_channel_open(self->segment, "plain", NULL, &other));
}

struct one_send {
	struct shale_channel *channel;
	pthread_barrier_t *hold; /* the lane is in use until everybody has sent */
	int result;
};

static void *send_and_hold(void *argument)
{
	struct one_send *one = argument;

	one->result = shale_channel_send(one->channel, "x", 1, SHALE_NO_WAIT);
	pthread_barrier_wait(one->hold);
	return NULL;
}

TEST_F(channel, one_sender_too_many_is_eusers)
{
	struct one_send ones[6];
	pthread_barrier_t hold;
	pthread_t threads[6];
	unsigned sent = 0, refused = 0;

	pthread_barrier_init(&hold, NULL, 6);
	for (unsigned i = 0; i < 6; i++) {
		ones[i] = (struct one_send){self->channel, &hold, -1};
		ASSERT_EQ(pthread_create(&threads[i], NULL, send_and_hold, &ones[i]), 0);
	}
	for (unsigned i = 0; i < 6; i++) {
		pthread_join(threads[i], NULL);
		sent += ones[i].result == 0;
		refused += ones[i].result == -EUSERS;
	}
	EXPECT_EQ(sent, 4);
	EXPECT_EQ(refused, 2);
	EXPECT_EQ(shale_channel_depth(self->channel), 4);
	pthread_barrier_destroy(&hold);
}

/* Threads that come one after the other share a parked lane, and so a ring. */
TEST_F(channel, threads_one_after_another_need_one_ring)
{
	for (unsigned i = 0; i < 20; i++) {
		struct one_send one = {self->channel, NULL, -1};
		pthread_barrier_t alone;
		pthread_t thread;

		pthread_barrier_init(&alone, NULL, 1);
		one.hold = &alone;
		ASSERT_EQ(pthread_create(&thread, NULL, send_and_hold, &one), 0);
		pthread_join(thread, NULL);
		pthread_barrier_destroy(&alone);
		ASSERT_OK(one.result);
	}
	EXPECT_EQ(shale_channel_depth(self->channel), 20);
}

static void *receive_one(void *argument)
{
	struct one_send *one = argument;
	unsigned char message[64];
	size_t size;

	one->result = shale_channel_receive(one->channel, message, 64, &size, SHALE_NO_DEADLINE);
	return NULL;
}

TEST_F(channel, a_blocked_receive_is_woken_by_send_and_by_shutdown)
{
	struct one_send ones[2] = {{self->channel, NULL, -1}, {self->channel, NULL, -1}};
	pthread_t threads[2];

	for (unsigned i = 0; i < 2; i++)
		ASSERT_EQ(pthread_create(&threads[i], NULL, receive_one, &ones[i]), 0);
	test_sleep_ms(20);
	ASSERT_OK(shale_channel_send(self->channel, "x", 1, SHALE_NO_WAIT));
	EXPECT_TRUE(TEST_EVENTUALLY(shale_channel_depth(self->channel) == 0, 5000));
	ASSERT_OK(shale_channel_shutdown(self->channel));
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	EXPECT_EQ(ones[0].result + ones[1].result, -EPIPE);
}

static void *send_blocked(void *argument)
{
	struct one_send *one = argument;
	unsigned char message[256] = {0};

	do
		one->result = shale_channel_send(one->channel, message, 256, SHALE_NO_DEADLINE);
	while (one->result == 0);
	return NULL;
}

TEST_F(channel, a_blocked_send_is_woken_by_receive_and_by_shutdown)
{
	struct one_send one = {self->channel, NULL, -1};
	unsigned char message[256];
	pthread_t thread;
	size_t size;

	ASSERT_EQ(pthread_create(&thread, NULL, send_blocked, &one), 0);
	for (unsigned i = 0; i < 100; i++)
		ASSERT_OK(shale_channel_receive(self->channel, message, 256, &size,
						shale_deadline_in(10000000000)));
	ASSERT_OK(shale_channel_shutdown(self->channel));
	pthread_join(thread, NULL);
	EXPECT_EQ(one.result, -EPIPE);
}

/* A receiver asks the rings in turn: a busy sender does not keep a quiet one waiting. */
TEST_F(channel, rings_are_served_in_turn)
{
	struct one_send ones[3];
	pthread_barrier_t hold;
	pthread_t threads[3];
	unsigned char message[8];
	unsigned quiet = 0;
	size_t size;

	for (unsigned i = 0; i < 50; i++)
		ASSERT_OK(shale_channel_send(self->channel, "busy", 4, SHALE_NO_WAIT));
	pthread_barrier_init(&hold, NULL, 3);
	for (unsigned i = 0; i < 3; i++) {
		ones[i] = (struct one_send){self->channel, &hold, -1};
		ASSERT_EQ(pthread_create(&threads[i], NULL, send_and_hold, &ones[i]), 0);
	}
	for (unsigned i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < 4; i++) {
		ASSERT_OK(shale_channel_receive(self->channel, message, 8, &size, SHALE_NO_WAIT));
		quiet += size == 1;
	}
	EXPECT_EQ(quiet, 3);
	pthread_barrier_destroy(&hold);
}
