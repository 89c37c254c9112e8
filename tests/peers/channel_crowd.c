/*
 * channel_crowd.c - many processes on one channel, some of which are killed or stopped.
 *
 * Each sender numbers its messages and notes in a log, which lies in the segment as well, which one
 * it is about to send; each receiver counts there what it has got. At the end every message was
 * counted exactly once, but for these: one that a killed sender was sending may be missing, and for
 * each killed receiver one may be missing that it had taken and not yet counted.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <shale/channel.h>
#include <shale/heap.h>
#include <shale/segment.h>

#include "base/atomic.h"
#include "channel/channel.h"
#include "harness.h"
#include "peers.h"

#define SENDERS      3u
#define RECEIVERS    3u
#define MESSAGES     200000u /* of a sender, at most */
#define MESSAGE_MOST 40000u

struct sender_log {
	uint32_t next;                    /* the message that is being sent, or will be */
	uint32_t doubtful[MESSAGES / 32]; /* bit: its sender was killed while sending it */
	uint32_t received[MESSAGES];
};

struct log {
	uint32_t target; /* messages of each sender */
	uint32_t total;  /* counted by receivers */
	struct sender_log sender[SENDERS];
};

struct header {
	uint32_t sender;
	uint32_t number;
	uint32_t size;
	uint32_t check;
};

static void attach(struct peer *parent, struct shale_segment **ret_segment,
		   struct shale_channel **ret_channel, struct log **ret_log)
{
	int fd = peer_receive_fd(parent, PEER_LIMIT_MS);
	shale_ref ref;

	ASSERT_GE(fd, 0);
	ASSERT_OK(shale_segment_attach(fd, NULL, ret_segment));
	close(fd);
	ASSERT_OK(shale_channel_open(*ret_segment, "crowd", NULL, ret_channel));
	ASSERT_OK(shale_root_find(*ret_segment, "log", &ref));
	*ret_log = shale_ptr(*ret_segment, ref, sizeof(struct log));
	ASSERT_NOT_NULL(*ret_log);
}

static size_t message_make(unsigned char *bytes, uint32_t sender, uint32_t number)
{
	uint64_t dice = sender * UINT64_C(1000003) + number;
	uint64_t roll = test_random_next(&dice);
	size_t size = roll % 32 == 0 ? (roll >> 16) % MESSAGE_MOST : (roll >> 16) % 300;
	struct header header = {sender, number, 0, (uint32_t)roll};

	if (size < sizeof(header))
		size = sizeof(header);
	header.size = (uint32_t)size;
	memset(bytes, (int)(roll >> 40) & 0xff, size);
	memcpy(bytes, &header, sizeof(header));
	return size;
}

PEER_ROLE(sender)
{
	static unsigned char bytes[MESSAGE_MOST];
	uint32_t me = (uint32_t)atoi(argument), number;
	struct shale_segment *segment;
	struct shale_channel *channel;
	struct log *log;

	attach(parent, &segment, &channel, &log);
	ASSERT_OK(peer_signal(parent, 1));
	while ((number = load_relaxed(&log->sender[me].next)) < load_relaxed(&log->target)) {
		size_t size = message_make(bytes, me, number);

		ASSERT_OK(shale_channel_send(channel, bytes, size, shale_deadline_in(60000000000)));
		store_release(&log->sender[me].next, number + 1);
	}
	shale_channel_close(channel);
	ASSERT_OK(shale_segment_detach(segment));
}

static void receive_all(struct shale_channel *channel, struct log *log)
{
	static unsigned char got[MESSAGE_MOST], want[MESSAGE_MOST];
	int64_t last[SENDERS] = {-1, -1, -1};
	struct header header;
	size_t size;
	int r;

	while ((r = shale_channel_receive(channel, got, sizeof(got), &size,
					  shale_deadline_in(60000000000))) == 0) {
		memcpy(&header, got, sizeof(header));
		ASSERT_LT(header.sender, SENDERS);
		ASSERT_LT(header.number, MESSAGES);
		ASSERT_EQ(message_make(want, header.sender, header.number), size);
		ASSERT_MEM_EQ(want, got, size);
		/* what one receiver gets of one sender comes in the order of sending */
		ASSERT_GT(header.number, last[header.sender]);
		last[header.sender] = header.number;
		(void)fetch_add_acq_rel(&log->sender[header.sender].received[header.number], 1u);
		(void)fetch_add_acq_rel(&log->total, 1u);
	}
	ASSERT_ERRNO(-EPIPE, r);
}

PEER_ROLE(receiver)
{
	struct shale_segment *segment;
	struct shale_channel *channel;
	struct log *log;

	attach(parent, &segment, &channel, &log);
	ASSERT_OK(peer_signal(parent, 1));
	receive_all(channel, log);
	shale_channel_close(channel);
	ASSERT_OK(shale_segment_detach(segment));
}

FIXTURE(crowd)
{
	struct shale_segment *segment;
	struct shale_channel *channel;
	struct log *log;
	uint64_t blocks; /* live before the crowd came */
	struct peer peers[SENDERS + RECEIVERS];
	unsigned killed_receivers;
};

static uint64_t live_blocks(struct shale_segment *segment)
{
	struct shale_heap_figures stat = {.size = sizeof(stat)};

	ASSERT_OK(shale_heap_stat(segment, &stat));
	return stat.live_blocks;
}

FIXTURE_SETUP(crowd)
{
	struct shale_segment_options segment = {
		.size = sizeof(segment),
		.capacity_bytes = 256u << 20,
		.pages = SHALE_PAGES_4K,
	};
	struct shale_channel_options channel = {
		.size = sizeof(channel),
		.capacity_bytes = 8192,
		.max_senders = SENDERS + 1,
	};

	ASSERT_OK(shale_segment_create(&segment, &self->segment));
	ASSERT_OK(shale_channel_open(self->segment, "crowd", &channel, &self->channel));
	self->log = shale_alloc_zeroed(self->segment, sizeof(struct log));
	ASSERT_NOT_NULL(self->log);
	ASSERT_OK(shale_root_publish(self->segment, "log", self->log));
	self->blocks = live_blocks(self->segment);
}

FIXTURE_TEARDOWN(crowd)
{
	shale_channel_close(self->channel);
	EXPECT_OK(shale_segment_detach(self->segment));
}

static void start(struct crowd_fixture *self, unsigned index)
{
	char argument[16];

	snprintf(argument, sizeof(argument), "%u", index);
	ASSERT_OK(
		peer_exec(&self->peers[index], index < SENDERS ? "sender" : "receiver", argument));
	ASSERT_OK(peer_send_fd(&self->peers[index], shale_segment_fd(self->segment)));
	ASSERT_OK(peer_wait(&self->peers[index], 1, PEER_LIMIT_MS));
}

static void start_all(struct crowd_fixture *self, uint32_t target)
{
	store_release(&self->log->target, target);
	for (unsigned i = SENDERS + RECEIVERS; i-- > 0;)
		start(self, i);
}

/* Kills one and starts another in its place. */
static void replace(struct crowd_fixture *self, unsigned index)
{
	struct sender_log *sender = &self->log->sender[index];
	uint32_t number;

	peer_kill(&self->peers[index]);
	if (index < SENDERS) {
		number = load_acquire(&sender->next);
		if (number == MESSAGES)
			return start(self, index); /* it had nothing left to send */
		sender->doubtful[number / 32] |= 1u << (number % 32);
		store_release(&sender->next, number + 1);
	} else {
		self->killed_receivers++;
	}
	start(self, index);
}

static bool all_sent(struct crowd_fixture *self)
{
	for (unsigned i = 0; i < SENDERS; i++)
		if (load_acquire(&self->log->sender[i].next) < self->log->target)
			return false;
	return true;
}

static void finish(struct crowd_fixture *self)
{
	uint32_t target = self->log->target, missing = 0, number;
	struct sender_log *sender;
	struct ring_shm *ring;
	unsigned rings = 0;

	for (unsigned i = 0; i < SENDERS; i++)
		EXPECT_TRUE(peer_join(&self->peers[i], 60000));
	ASSERT_OK(shale_channel_shutdown(self->channel));
	for (unsigned i = 0; i < RECEIVERS; i++)
		EXPECT_TRUE(peer_join(&self->peers[SENDERS + i], 60000));
	EXPECT_GE(shale_recover(self->segment), 0);
	for (unsigned i = 0; i < SENDERS; i++) {
		sender = &self->log->sender[i];
		for (number = 0; number < target; number++) {
			EXPECT_LE(sender->received[number], 1);
			if (sender->received[number] == 0 &&
			    (sender->doubtful[number / 32] >> (number % 32) & 1) == 0)
				missing++;
		}
	}
	TEST_LOG("%u counted, %u missing, %u receivers killed", self->log->total, missing,
		 self->killed_receivers);
	EXPECT_LE(missing, self->killed_receivers);
	EXPECT_EQ(shale_channel_depth(self->channel), 0);
	EXPECT_EQ(shale_check(self->segment, NULL, NULL), 0);
	while (rings < self->channel->max_senders && ring_at(self->channel, rings, &ring) == 0)
		rings++;
	EXPECT_EQ(live_blocks(self->segment), self->blocks + rings);
}

TEST_F_TIMEOUT(crowd, every_message_is_received_exactly_once, 300)
{
	start_all(self, TEST_ROUNDS(4000u, MESSAGES));
	finish(self);
	EXPECT_EQ(self->log->total, SENDERS * self->log->target);
}

TEST_F_TIMEOUT(crowd, killed_senders_and_receivers_lose_only_what_they_held, 300)
{
	unsigned kills = TEST_ROUNDS(24u, 400u);

	start_all(self, MESSAGES);
	for (unsigned i = 0; i < kills && !all_sent(self); i++) {
		usleep((useconds_t)test_random_below(2000));
		replace(self, (unsigned)test_random_below(SENDERS + RECEIVERS));
	}
	store_release(&self->log->target, 0u); /* the senders end */
	for (unsigned i = 0; i < SENDERS; i++)
		EXPECT_TRUE(peer_join(&self->peers[i], 60000));
	for (unsigned i = 0; i < SENDERS; i++) {
		uint32_t next = self->log->sender[i].next;

		if (next > self->log->target)
			self->log->target = next;
	}
	/* judged up to what was sent: what was never sent is as if in doubt */
	for (unsigned i = 0; i < SENDERS; i++) {
		struct sender_log *sender = &self->log->sender[i];

		for (uint32_t n = sender->next; n < self->log->target; n++)
			sender->doubtful[n / 32] |= 1u << (n % 32);
		ASSERT_OK(peer_exec(&self->peers[i], "nothing", NULL));
	}
	finish(self);
}

PEER_ROLE(nothing)
{
}

TEST_F_TIMEOUT(crowd, a_stopped_sender_or_receiver_delays_nobody, 300)
{
	start_all(self, MESSAGES);
	for (unsigned i = 0; i < TEST_ROUNDS(12u, 200u) && !all_sent(self); i++) {
		unsigned index = (unsigned)test_random_below(SENDERS + RECEIVERS);
		uint32_t seen;
		int r;

		usleep((useconds_t)test_random_below(3000));
		if (index < SENDERS && load_acquire(&self->log->sender[index].next) == MESSAGES)
			continue; /* it has sent everything and is about to end */
		r = peer_stop(&self->peers[index]);
		if (r == -ESRCH) { /* it has ended since */
			EXPECT_EQ(self->peers[index].status, 0);
			ASSERT_OK(peer_exec(&self->peers[index], "nothing", NULL));
			continue;
		}
		ASSERT_OK(r);
		seen = load_acquire(&self->log->total);
		EXPECT_TRUE(TEST_EVENTUALLY(
			load_acquire(&self->log->total) > seen + 100 || all_sent(self), 10000));
		ASSERT_OK(peer_continue(&self->peers[index]));
	}
	finish(self);
	EXPECT_EQ(self->log->total, SENDERS * self->log->target);
}
