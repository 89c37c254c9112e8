/*
 * channel_mutation.c - a peer that stores anything it likes into a channel's bytes.
 *
 * Send, receive, depth, check and shutdown may then answer -EUCLEAN or give wrong data, but they
 * come back, and touch nothing outside the segment: the harness fails the test on a signal or at
 * its time limit.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <shale/channel.h>
#include <shale/heap.h>
#include <shale/segment.h>

#include "base/atomic.h"
#include "channel/channel.h"
#include "harness.h"

#define CAPACITY 4096u

FIXTURE(hostile)
{
	struct shale_segment *segment;
	struct shale_channel *channel;
	struct ring_shm *ring;
	unsigned char buffer[2 * CAPACITY];
};

FIXTURE_SETUP(hostile)
{
	struct shale_segment_options segment = {
		.size = sizeof(segment),
		.capacity_bytes = 16u << 20,
		.pages = SHALE_PAGES_4K,
	};
	struct shale_channel_options channel = {
		.size = sizeof(channel),
		.capacity_bytes = CAPACITY,
		.max_senders = 2,
	};

	ASSERT_OK(shale_segment_create(&segment, &self->segment));
	ASSERT_OK(shale_channel_open(self->segment, "c", &channel, &self->channel));
	memset(self->buffer, 0x5a, sizeof(self->buffer));
	ASSERT_OK(shale_channel_send(self->channel, self->buffer, 100, SHALE_NO_WAIT));
	ASSERT_OK(shale_channel_send(self->channel, self->buffer, 1000, SHALE_NO_WAIT));
	ASSERT_OK(shale_channel_send(self->channel, self->buffer, 0, SHALE_NO_WAIT));
	ASSERT_OK(ring_at(self->channel, 0, &self->ring));
}

FIXTURE_TEARDOWN(hostile)
{
	shale_channel_close(self->channel);
	EXPECT_OK(shale_segment_detach(self->segment));
}

/* Everything that can be called, on a channel in any state. */
static void use_all(struct hostile_fixture *self)
{
	struct shale_channel *again = NULL;
	size_t size = 0;
	int r;

	(void)shale_check(self->segment, NULL, NULL);
	(void)shale_channel_depth(self->channel);
	for (unsigned i = 0; i < 4; i++) {
		r = shale_channel_receive(self->channel, self->buffer, CAPACITY, &size,
					  SHALE_NO_WAIT);
		EXPECT_TRUE(r == 0 || r == -EAGAIN || r == -EUCLEAN || r == -EMSGSIZE ||
			    r == -EPIPE);
		EXPECT_TRUE(r != 0 || size <= CAPACITY);
	}
	for (unsigned i = 0; i < 2; i++) {
		r = shale_channel_send(self->channel, self->buffer, i ? 700 : 30, SHALE_NO_WAIT);
		EXPECT_TRUE(r == 0 || r == -EAGAIN || r == -EUCLEAN || r == -EUSERS ||
			    r == -ENOMEM || r == -EPIPE);
	}
	r = shale_channel_open(self->segment, "c", NULL, &again);
	EXPECT_TRUE(r == 0 || r == -EUCLEAN);
	if (r == 0) {
		(void)shale_channel_receive(again, self->buffer, CAPACITY, &size, SHALE_NO_WAIT);
		shale_channel_close(again);
	}
}

static const uint64_t values[] = {
	0,
	1,
	2,
	UINT64_MAX,
	UINT64_MAX >> 1,
	UINT64_C(1) << 63,
	0x53680001,
	0x5368000100000000u,
	0x53680001ffffffffu,
	0x5368000200000010u,
	0x53680002ffffffffu,
	0x5368000300000000u,
	0x53680003fffffff8u,
	0x5368000300000ff8u,
	UINT64_C(1) << 40,
	4096,
	1u << 12,
	1u << 13,
	0xfff,
};

/* One word at a time becomes each of the values; it is put back after use. */
static void mutate(struct hostile_fixture *self, uint64_t *word, bool quick)
{
	static unsigned char kept_ring[sizeof(struct ring_shm) + CAPACITY];
	static unsigned char kept_shm[sizeof(struct channel_shm) + 2 * sizeof(uint64_t)];

	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i += quick ? 3 : 1) {
		memcpy(kept_ring, self->ring, sizeof(kept_ring));
		memcpy(kept_shm, self->channel->shm, sizeof(kept_shm));
		*word = values[i] ^ (i % 2 ? test_random_u64() & *word : 0);
		use_all(self);
		memcpy(self->ring, kept_ring, sizeof(kept_ring));
		memcpy(self->channel->shm, kept_shm, sizeof(kept_shm));
	}
}

TEST_F_TIMEOUT(hostile, every_word_of_the_record, 120)
{
	uint64_t *words = (uint64_t *)(void *)self->channel->shm;
	size_t count = (sizeof(struct channel_shm) + 2 * sizeof(uint64_t)) / 8;

	for (size_t i = 0; i < count; i++)
		mutate(self, words + i, false);
}

TEST_F_TIMEOUT(hostile, every_word_of_the_ring, 120)
{
	uint64_t *words = (uint64_t *)(void *)self->ring;
	size_t lines = sizeof(struct ring_shm) / 8;

	for (size_t i = 0; i < lines; i++)
		mutate(self, words + i, false);
	/* the records, and what lies behind the tail */
	for (size_t i = 0; i < CAPACITY / 8; i += i < 40 ? 1 : 37)
		mutate(self, words + lines + i, !test_long());
}

struct spoiler {
	struct hostile_fixture *self;
	uint64_t state;
	uint32_t end;
};

static void *spoil(void *argument)
{
	struct spoiler *spoiler = argument;
	uint64_t *ring = (uint64_t *)(void *)spoiler->self->ring;
	size_t words = (sizeof(struct ring_shm) + CAPACITY) / 8;

	while (load_relaxed(&spoiler->end) == 0) {
		uint64_t dice = test_random_next(&spoiler->state);
		/* the first lines as often as all records together */
		size_t at = dice % 2 ? (dice >> 8) % 24 : (dice >> 8) % words;

		store_relaxed(&ring[at], dice % 3 ? values[(dice >> 32) % 19] : dice);
	}
	return NULL;
}

/* The bytes change while they are looked at: what was checked must be what is used. */
TEST_F_TIMEOUT(hostile, bytes_that_change_all_the_time, 120)
{
	struct spoiler spoiler = {self, test_random_u64(), 0};
	pthread_t thread;

	ASSERT_EQ(pthread_create(&thread, NULL, spoil, &spoiler), 0);
	for (unsigned i = 0; i < TEST_ROUNDS(2000u, 200000u); i++)
		use_all(self);
	store_release(&spoiler.end, 1u);
	pthread_join(thread, NULL);
}

/* A dead peer's intent may say anything. */
TEST_F_TIMEOUT(hostile, any_intent_is_settled, 120)
{
	struct intent_shm *intent = &view_lane(self->segment, 1)->intent;
	struct intent_shm kept = *intent;

	for (unsigned i = 0; i < 3000; i++) {
		intent->block[0] = test_random_below(3) ? test_random_below(32u << 20) & ~15ull
							: test_random_u64();
		for (unsigned j = 0; j < 3; j++)
			intent->argument[j] = test_random_below(3) ? test_random_below(32u << 20)
								   : test_random_u64();
		intent->argument[0] &= ~63ull;
		intent->word = (i % 2 ? INTENT_CHANNEL_SEND : INTENT_CHANNEL_RECEIVE) |
			       test_random_below(4) << 8 | 1u << 16;
		EXPECT_GE(channel_settle_lane(self->segment, 1), -EUCLEAN);
		EXPECT_EQ(intent->word, 0);
	}
	*intent = kept;
}
