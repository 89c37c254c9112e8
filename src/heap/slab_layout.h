/*
 * slab_layout.h - arenas, slab words and the facts of a block.
 *
 * arena_shm (1 KiB in the arena table):
 *
 *   +--------------+-----------------+------------------+----------------+----------------+
 *   | state, masks | hints of others | word[32]         | span_slabs[32] | local_hint[32] | ...
 *   | line 0       | line 1 (freers) | lines 2..5       | lines 6..7     | line 8 (owner) |
 *   +--------------+-----------------+------------------+----------------+----------------+
 *
 * Slab word, 64 bits, the only truth about a slab; changed only by CAS:
 *
 *   63            32 31   25 24     23      12 11     4 3     0
 *   +---------------+-------+-------+----------+--------+-------+
 *   | generation    | 0     | pub   | lane     | bin    | state |    BODY: bits 4..31 = head slab
 *   +---------------+-------+-------+----------+--------+-------+
 *
 *   FREE -> CLAIMED(lane) -> OWNED(lane, bin) -> ORPHAN(bin) -> OWNED(lane', bin) ...
 *   OWNED -> CLAIMED -> FREE                        when no block is live, by the owner
 *   FREE -> SPAN_CLAIM(lane) -> SPAN(lane, pub=0) -> SPAN(lane or 0, pub=1)
 *   SPAN -> SPAN_CLAIM(freer) -> FREE               bodies first, head last
 *   FREE -> BODY(head) -> FREE                      with the head in SPAN_CLAIM
 *
 * Facts of block i of a slab: own[i] and shared[i], one byte each, on different cache lines.
 *   own[i]     0 free, 1 allocated, 3 allocated and published; written by the owning lane only
 *   shared[i]  0, 1 published by someone else, 2 freed by someone else; written by the holder of
 *              the block, and cleared by the owner
 *   live(i)      = own[i] != 0 && shared[i] != 2
 *   published(i) = live(i) && (own[i] == 3 || shared[i] == 1)
 * Invariants (heap_check.c):
 *   H1 a FREE slab has only zero facts           H2 own[i] is 0, 1 or 3; shared[i] is 0, 1 or 2
 *   H3 own[i] == 0 implies shared[i] == 0, but for a collect that was cut off (owner repairs)
 *   H4 facts beyond the slab's last block are 0  H5 every BODY names a head whose span covers it
 *   H6 a CLAIMED, OWNED or SPAN word names a lane in use
 *   H7 only committed arenas have words other than FREE
 * Death: own[] of a dead lane is settled by recovery, which frees what is not published; CLAIMED
 * and SPAN_CLAIM words name the doer, and recovery undoes them.
 */
#ifndef SHALE_HEAP_SLAB_LAYOUT_H
#define SHALE_HEAP_SLAB_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "segment/segment_layout.h"

enum slab_state {
	SLAB_FREE = 0,
	SLAB_CLAIMED = 1,
	SLAB_OWNED = 2,
	SLAB_ORPHAN = 3,
	SLAB_SPAN_CLAIM = 4,
	SLAB_SPAN = 5,
	SLAB_BODY = 6,
};

enum own_fact { OWN_FREE = 0, OWN_ALLOCATED = 1, OWN_PUBLISHED = 3 };
enum shared_fact { SHARED_NONE = 0, SHARED_PUBLISHED = 1, SHARED_FREED = 2 };

/* Arena state word: bits 0..3 state, bits 12..23 lane, bits 32..63 generation. */
enum arena_state { ARENA_NONE = 0, ARENA_COMMITTING = 1, ARENA_COMMITTED = 2, ARENA_RETURNING = 3 };

#define SHORT_FACTS_BLOCKS 512u                      /* blocks of 128 bytes and more */
#define LONG_FACTS_BLOCKS  4096u                     /* blocks of 16 to 112 bytes */
#define SHORT_FACTS_STRIDE (2u * SHORT_FACTS_BLOCKS) /* own[512], shared[512] */
#define LONG_FACTS_STRIDE  (2u * LONG_FACTS_BLOCKS)  /* own[4096], shared[4096] */

struct arena_shm {
	uint64_t state;
	uint32_t long_committed; /* bit s: long facts of slab s are committed (hint, set only) */
	uint32_t free_hint;      /* reserved for ranking */
	uint64_t reserved0[6];
	uint8_t remote_hint[SLABS_PER_ARENA]; /* someone else changed shared[] since last looked */
	uint8_t publish_hint
		[SLABS_PER_ARENA]; /* someone else published here; until the slab is free */
	uint64_t word[SLABS_PER_ARENA];
	uint32_t span_slabs[SLABS_PER_ARENA]; /* of a span whose head is here */
	uint8_t local_hint[SLABS_PER_ARENA];  /* the owner freed a block since it last scanned */
	uint64_t reserved2[60];
};

_Static_assert(sizeof(struct arena_shm) == 1024, "arena table entry");

#define SLAB_STATE_MASK   UINT64_C(0xf)
#define SLAB_BIN_SHIFT    4u
#define SLAB_LANE_SHIFT   12u
#define SLAB_PUBLISHED    (UINT64_C(1) << 24)
#define SLAB_PAYLOAD_MASK UINT64_C(0xffffffff)
#define SLAB_GENERATION   (UINT64_C(1) << 32)

static inline enum slab_state slab_word_state(uint64_t word)
{
	return (enum slab_state)(word & SLAB_STATE_MASK);
}

static inline unsigned slab_word_bin(uint64_t word)
{
	return (unsigned)(word >> SLAB_BIN_SHIFT) & 0xffu;
}

static inline uint32_t slab_word_lane(uint64_t word)
{
	return (uint32_t)(word >> SLAB_LANE_SHIFT) & 0xfffu;
}

/* The head of a BODY word, as a slab number of the whole segment. */
static inline uint64_t slab_word_head(uint64_t word)
{
	return (word & SLAB_PAYLOAD_MASK) >> 4;
}

/* The successor of `word` with this low half: the generation moves on with every transition. */
static inline uint64_t slab_word_next(uint64_t word, uint64_t low_half)
{
	return (word & ~SLAB_PAYLOAD_MASK) + SLAB_GENERATION + low_half;
}

static inline uint64_t slab_low(enum slab_state state, uint32_t lane, unsigned bin)
{
	return (uint64_t)state | ((uint64_t)lane << SLAB_LANE_SHIFT) |
	       ((uint64_t)bin << SLAB_BIN_SHIFT);
}

static inline uint64_t slab_low_body(uint64_t head)
{
	return (uint64_t)SLAB_BODY | (head << 4);
}

#endif
