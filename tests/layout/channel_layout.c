/*
 * channel_layout.c - the bytes of a channel, pinned: a change here is a change of the format.
 */
#include <stddef.h>

#include "channel/channel_layout.h"
#include "harness.h"

TEST(channel_layout, channel_shm)
{
	EXPECT_EQ(offsetof(struct channel_shm, magic), 0);
	EXPECT_EQ(offsetof(struct channel_shm, capacity_shift), 8);
	EXPECT_EQ(offsetof(struct channel_shm, max_senders), 12);
	EXPECT_EQ(offsetof(struct channel_shm, flags), 64);
	EXPECT_EQ(offsetof(struct channel_shm, data), 128);
	EXPECT_EQ(sizeof(struct channel_shm), 192);
}

TEST(channel_layout, ring_shm)
{
	EXPECT_EQ(offsetof(struct ring_shm, owner), 0);
	EXPECT_EQ(offsetof(struct ring_shm, tail), 64);
	EXPECT_EQ(offsetof(struct ring_shm, head_seen), 72);
	EXPECT_EQ(offsetof(struct ring_shm, head), 128);
	EXPECT_EQ(offsetof(struct ring_shm, room), 136);
	EXPECT_EQ(sizeof(struct ring_shm), 192);
}

TEST(channel_layout, reference_shm_and_event)
{
	EXPECT_EQ(offsetof(struct reference_shm, block), 0);
	EXPECT_EQ(offsetof(struct reference_shm, size), 8);
	EXPECT_EQ(sizeof(struct reference_shm), 16);
	EXPECT_EQ(offsetof(struct shale_event, sequence), 0);
	EXPECT_EQ(offsetof(struct shale_event, marks), 4);
}

TEST(channel_layout, words)
{
	uint64_t head = head_make(POSITION_MASK, true, 0xabc);

	EXPECT_EQ(head, UINT64_C(0xfffffffffffffabc));
	EXPECT_EQ(head_position(head), POSITION_MASK);
	EXPECT_EQ(head_lane(head), 0xabc);
	EXPECT_EQ(head_make(1, false, 2), 0x2002);
	EXPECT_EQ(position_after(POSITION_MASK, 3), 2);
	EXPECT_EQ(position_distance(POSITION_MASK, 2), 3);
	EXPECT_EQ(record_word(RECORD_INLINE, 5), UINT64_C(0x5368000100000005));
	EXPECT_EQ(record_units(0), 1);
	EXPECT_EQ(record_units(8), 1);
	EXPECT_EQ(record_units(9), 2);
	EXPECT_EQ(owner_make(7, UINT64_C(0x0000000500000021)), UINT64_C(0x0000000500000071));
}
