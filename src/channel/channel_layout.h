/*
 * channel_layout.h - the bytes of a channel: a root record, and a ring for each sending lane.
 *
 *   root record (published block, kind ROOT_CHANNEL)
 *   +-----------+----------+-------+------+---------------------------------------+
 *   | root_shm  | geometry | flags | data | ring[0] ring[1] ... ring[max_senders] |
 *   +-----------+----------+-------+------+---------------------------------------+
 *                 64-byte aligned, a line each              |  0, or the ref of a ring block
 *                                                           v
 *   ring block (published)
 *   +-------+-----------------+------------+----------------------------------------+
 *   | owner | tail, head_seen | head, room | 2^capacity_shift bytes of records      |
 *   +-------+-----------------+------------+----------------------------------------+
 *    line 0   line 1            line 2       64-byte aligned
 *
 * Positions count units of 16 bytes and only rise, modulo 2^51; a position's place in the ring is
 * its low bits. A ring starts shortly below the wrap, so that the wrap is no rare thing.
 *
 *   head word   63                        13     12      11         0
 *               +---------------------------+--------+-------------+
 *               | position                  | by_ref | taker lane  |
 *               +---------------------------+--------+-------------+
 *   owner word  generation of the lane's word (32..63) | lane (4..15) | 1; 0: nobody's
 *
 *   record      header word: kind (32..63), size of the payload (0..31); then the payload, padded to
 *               16 bytes. Never crosses the end of the ring: a pad record fills the rest, and is
 *               sent and taken together with the record behind it.
 *
 * Who writes what
 *   geometry       the maker, before the record is reachable
 *   flags          anybody, fetch-or; only ever set
 *   ring[i]        0 -> ref, once, by CAS; filled from the front
 *   owner          0 or the word of a lane that is gone -> own word, by CAS
 *   tail           the owner alone, one store a message: that store sends it
 *   head_seen      the owner alone: a head it has read, to read it less often
 *   head           receivers, by CAS: that CAS takes one message
 *   records        the owner alone, outside [head, tail)
 *
 * Intents (lane.intent.argument[]): 0 offset of the ring, 1 position where the message starts,
 * 2 position where it ends; block[0] the message's heap block.
 *   SEND      before the block is published. Settled: if tail is `end` or beyond, it was sent, else
 *             the block is freed.
 *   RECEIVE   before the CAS of head. Settled: taken if head is {end, by_ref, lane}, or if the
 *             status is TAKEN (the next taker of the ring sets that before it replaces the head
 *             word); then the block is freed if it still lives.
 *
 * Invariants (channel_check.c)
 *   C1  geometry is in range and the directory fits into its record
 *   C2  the directory is a run of refs of distinct published blocks, then zeroes
 *   C3  tail - head is at most the capacity, and head_seen lies between tail - capacity and head
 *   C4  [head, tail) is a run of well-formed records that ends at tail
 *   C5  a record by reference names a published block that is large enough, and no other does
 *   C6  the owner is 0 or a well-formed word, and no lane owns two rings of a channel
 *
 * Death: every transition is one store or one CAS; a hand-over of a block is named by an intent
 *        first, which channel_settle_lane() settles. docs/design/channel.md lists what each leaves.
 */
#ifndef SHALE_CHANNEL_CHANNEL_LAYOUT_H
#define SHALE_CHANNEL_CHANNEL_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

#include <shale/wait.h>

#include "segment/segment_layout.h"

#define CHANNEL_MAGIC         UINT64_C(0x6c6e6e6168435f53) /* "S_Channl" */

#define CHANNEL_SHIFT_LEAST   12u /* 4 KiB */
#define CHANNEL_SHIFT_MOST    30u /* 1 GiB */
#define CHANNEL_SHIFT_DEFAULT 18u /* 256 KiB */
#define CHANNEL_SENDERS_MOST  4095u
#define CHANNEL_INLINE_MOST   4096u /* bytes; larger messages go by reference */

#define CHANNEL_SHUTDOWN      1u /* flags */

struct channel_shm {
	uint64_t magic;
	uint32_t capacity_shift;
	uint32_t max_senders;
	uint64_t reserved0[6];
	uint32_t flags;
	uint32_t reserved1[15];
	struct shale_event data; /* somebody sent, or the channel was shut down */
	uint64_t reserved2[7];
	/* uint64_t ring[max_senders] */
};

struct ring_shm {
	uint64_t owner;
	uint64_t reserved0[7];
	uint64_t tail;
	uint64_t head_seen;
	uint64_t reserved1[6];
	uint64_t head;
	struct shale_event room; /* somebody took a message out of this ring */
	uint64_t reserved2[6];
	/* 2^capacity_shift bytes of records */
};

_Static_assert(sizeof(struct channel_shm) == 192, "three cache lines");
_Static_assert(sizeof(struct ring_shm) == 192, "three cache lines");

#define CHANNEL_ALIGNMENT 64u

#define POSITION_BITS     51u
#define POSITION_MASK     ((UINT64_C(1) << POSITION_BITS) - 1)
#define RECORD_UNIT       16u
#define RECORD_HEADER     8u
#define HEAD_LANE_MASK    UINT64_C(0xfff)
#define HEAD_BY_REF       (UINT64_C(1) << 12)
#define HEAD_SHIFT        13u

enum record_kind {
	RECORD_INLINE = 0x53680001, /* the payload is the message */
	RECORD_BY_REF = 0x53680002, /* the payload is struct reference_shm */
	RECORD_PAD = 0x53680003,    /* no message: the ring continues at its start */
};

struct reference_shm {
	uint64_t block;
	uint64_t size; /* of the message */
};

enum channel_intent {
	INTENT_CHANNEL_SEND = INTENT_CHANNEL_FIRST,
	INTENT_CHANNEL_RECEIVE = INTENT_CHANNEL_FIRST + 1,
};
#define INTENT_STATUS_TAKEN (UINT64_C(1) << 8) /* status byte of a RECEIVE intent's word */

static inline uint64_t head_position(uint64_t head)
{
	return head >> HEAD_SHIFT;
}

static inline uint32_t head_lane(uint64_t head)
{
	return (uint32_t)(head & HEAD_LANE_MASK);
}

static inline uint64_t head_make(uint64_t position, bool by_ref, uint32_t lane)
{
	return position << HEAD_SHIFT | (by_ref ? HEAD_BY_REF : 0) | lane;
}

/* Units from `from` up to `to`. */
static inline uint64_t position_distance(uint64_t from, uint64_t to)
{
	return (to - from) & POSITION_MASK;
}

static inline uint64_t position_after(uint64_t position, uint64_t units)
{
	return (position + units) & POSITION_MASK;
}

static inline uint64_t record_units(uint64_t payload_size)
{
	return (RECORD_HEADER + payload_size + RECORD_UNIT - 1) / RECORD_UNIT;
}

static inline uint64_t record_word(enum record_kind kind, uint32_t size)
{
	return (uint64_t)(unsigned)kind << 32 | size;
}

#define OWNER_OWNED UINT64_C(1)

static inline uint64_t owner_make(uint32_t lane, uint64_t lane_word)
{
	return (lane_word & ~UINT64_C(0xffffffff)) | (uint64_t)lane << 4 | OWNER_OWNED;
}

static inline uint32_t owner_lane(uint64_t owner)
{
	return (uint32_t)(owner >> 4) & (LANE_COUNT - 1);
}

#endif
