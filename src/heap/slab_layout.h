/*
 * slab_layout.h - arenas, slab words and the facts of a block.
 *
 * arena_shm (2 KiB in the arena table):
 *
 *   +--------------+-----------------+----------+--------------+--------------+---------+
 *   | state, lease | hints of others | word[32] | span lengths | owner's hint | witness | ...
 *   | line 0       | line 1          | 2..5     | 6..7         | 8            | 9       |
 *   +--------------+-----------------+----------+--------------+--------------+---------+
 *   +---------+----------------------+------------------+
 *   | punched | rank of 64, 4096, 2^18 arenas | sparse facts |
 *   | line 10 | lines 11..15         | lines 16..31     |
 *   +---------+----------------------+------------------+
 *
 * Slab word, 64 bits, the only truth about a slab; changed only by CAS:
 *
 *   63            32 31 28   27    26    25   24    23      12 11     4 3     0
 *   +---------------+-----+-----+------+----+-----+----------+--------+-------+
 *   | generation    | 0   |dirty|sparse|held| pub | lane     | bin    | state |
 *   +---------------+-----+-----+------+----+-----+----------+--------+-------+
 *   BODY: bits 4..31 are the head's slab number
 *
 *   FREE -> CLAIMED(lane) -> OWNED(lane, bin) <-> PARKED(lane, bin)   filled and left; reopened
 *   PARKED(lane) -> ORPHAN(bin)                     its lane is dead: published blocks live on
 *   PARKED, ORPHAN -> CLAIMED(taker, dirty, bin) -> FREE    nothing lives in it: by anyone; dirty:
 *                                                   facts of that bin are still to be zeroed
 *   PARKED, ORPHAN +held                            by the holder of the arena's lease: nobody else
 *                                                   takes, reopens or adopts it
 *   PARKED, ORPHAN +sparse                          the facts are in sparse[slab] of the arena
 *   ORPHAN -> OWNED(lane')                          adopted
 *   OWNED -> CLAIMED -> FREE                        when no block is live, by the owner
 *   FREE -> SPAN_CLAIM(lane) -> SPAN(lane, pub=0) -> SPAN(lane or 0, pub=1)
 *   SPAN -> SPAN_CLAIM(freer) -> FREE               bodies first, head last
 *   SPAN_CLAIM -> SPAN_CACHED(lane) -> SPAN(lane)   kept whole for the next one; anyone may take it
 *   SPAN_CACHED -> SPAN_CLAIM(taker) -> FREE        apart
 *   FREE -> BODY(head) -> FREE                      with the head in SPAN_CLAIM
 *
 * Facts of block i of a slab: own[i] and shared[i], one byte each, on different cache lines.
 *   own[i]     0 free, 1 allocated, 3 allocated and published; written by the owning lane only, and
 *              by the lane that has parked the slab, to 0
 *   shared[i]  0, 4 published by someone else, 8 freed by someone else; written by the holder of
 *              the block, and cleared by the owner
 *   live(i)      = own[i] != 0 && shared[i] != 8
 *   published(i) = live(i) && (own[i] == 3 || shared[i] == 4)
 *   own[i] > shared[i] says: live, and nobody but the owner has touched it
 * Invariants (heap_check.c):
 *   H1 a FREE slab has only zero facts           H2 own[i] is 0, 1 or 3; shared[i] is 0, 4 or 8
 *   H3 own[i] == 0 implies shared[i] == 0, but for a collect that was cut off (owner repairs)
 *   H4 facts beyond the slab's last block are 0  H5 every BODY names a head whose span covers it
 *   H6 a CLAIMED, OWNED, PARKED or SPAN word names a lane in use
 *   H7 only committed arenas have words other than FREE
 *   H8 a HELD slab is parked or an orphan, in an arena with a lease
 *   H9 a SPARSE slab is parked or an orphan; its entries name different blocks of it
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
	SLAB_PARKED = 7,
	SLAB_SPAN_CACHED = 8,
};

enum own_fact { OWN_FREE = 0, OWN_ALLOCATED = 1, OWN_PUBLISHED = 3 };
enum shared_fact { SHARED_NONE = 0, SHARED_PUBLISHED = 4, SHARED_FREED = 8 };
_Static_assert(SHARED_PUBLISHED > (int)OWN_PUBLISHED,
	       "one compare tells a block nobody else touched");

/* Arena state word: bits 0..3 state, bits 12..23 lane, bits 32..63 generation. */
enum arena_state { ARENA_NONE = 0, ARENA_COMMITTING = 1, ARENA_COMMITTED = 2, ARENA_RETURNING = 3 };

/* What the holder of an arena's lease is doing; 0 in the word: nobody holds it. */
enum lease_phase {
	LEASE_CONVERT = 1, /* dense facts of SPARSE slabs may say what the entries lack */
	LEASE_PUNCH = 2,   /* dense facts of SPARSE slabs are not read again */
};

#define SHORT_FACTS_BLOCKS 512u                      /* blocks of 128 bytes and more */
#define LONG_FACTS_BLOCKS  4096u                     /* blocks of 16 to 112 bytes */
#define SHORT_FACTS_STRIDE (2u * SHORT_FACTS_BLOCKS) /* own[512], shared[512] */
#define LONG_FACTS_STRIDE  (2u * LONG_FACTS_BLOCKS)  /* own[4096], shared[4096] */

#define SPARSE_FACTS       8u /* live blocks that a slab without dense facts has at most */
#define RANKS              8u /* classes of arenas by their free slabs: heap/rank.h */

/*
 * A fact that has moved out of the dense areas; own == 0: the entry is not used. Changed as one
 * 32-bit word, by CAS (heap/sparse.h): an entry may be another block's by the time of a late store.
 */
struct sparse_fact {
	uint16_t index; /* of the block in its slab */
	uint8_t own;
	uint8_t shared;
} __attribute__((aligned(4)));

struct arena_shm {
	uint64_t state;
	uint64_t lease; /* lane (bits 12..23) that purges or expands slabs here, enum lease_phase */
	uint32_t long_committed; /* bit s: long facts of slab s are committed */
	uint32_t fresh;          /* bit s: slab s has not been handed out since it was committed */
	uint32_t sparse_used;    /* bit s: sparse[s] holds facts; changed under the lease */
	uint8_t node;            /* home: 1 + NUMA node that it was committed for; 0: unknown */
	uint8_t page_kind;       /* enum shale_pages as committed; 0: as the segment */
	uint8_t rank;            /* hint: the class in whose masks the arena is */
	uint8_t placed;          /* 1 + NUMA node that its pages came from; 0: unknown */
	uint32_t empty_since_ms; /* hint: low 32 bits of CLOCK_MONOTONIC ms when it became empty */
	uint32_t purged_ms;      /* hint: when look_sum was first seen */
	uint32_t facts_gone; /* bit s: facts of slab s were purged: to be committed and zeroed */
	uint32_t look_sum;   /* hint: what the purger's last look saw: heap/purge.c */
	uint64_t reserved1[2];
	uint8_t remote_hint[SLABS_PER_ARENA]; /* someone else changed shared[] since last looked */
	uint8_t reserved_hint[SLABS_PER_ARENA];
	uint64_t word[SLABS_PER_ARENA];
	uint32_t span_slabs[SLABS_PER_ARENA]; /* of a span whose head is here */
	uint8_t local_hint[SLABS_PER_ARENA];  /* the owner freed a block since it last scanned */
	uint64_t reserved2[4];
	uint16_t witness[SLABS_PER_ARENA]; /* hint: a block of a parked slab that was seen live */
	uint16_t punched[SLABS_PER_ARENA]; /* bit p: page p (4 KiB) of the slab was given back */
	/* in the first of each 64, 4096, 2^18 arenas: bit i of [c]: arena or group i is in class c */
	uint64_t rank_arenas[RANKS];
	uint64_t rank_groups[RANKS];
	uint64_t rank_supergroups[RANKS];
	uint64_t node_groups[RANKS]; /* the same, by node % RANKS */
	uint64_t node_supergroups[RANKS];
	struct sparse_fact sparse[SLABS_PER_ARENA][SPARSE_FACTS];
};

_Static_assert(sizeof(struct arena_shm) == 2048, "arena table entry");

#define SLAB_STATE_MASK   UINT64_C(0xf)
#define SLAB_BIN_SHIFT    4u
#define SLAB_LANE_SHIFT   12u
#define SLAB_PUBLISHED    (UINT64_C(1) << 24)
#define SLAB_HELD         (UINT64_C(1) << 25)
#define SLAB_SPARSE       (UINT64_C(1) << 26)
#define SLAB_DIRTY        (UINT64_C(1) << 27)
#define SLAB_PAYLOAD_MASK UINT64_C(0xffffffff)
#define SLAB_GENERATION   (UINT64_C(1) << 32)

static inline enum slab_state slab_word_state(uint64_t word)
{
	return (enum slab_state)(word & SLAB_STATE_MASK);
}

/* Let go by its owner, or by nobody alive any more: blocks of it are only freed. */
static inline bool slab_word_let_go(uint64_t word)
{
	return slab_word_state(word) == SLAB_PARKED || slab_word_state(word) == SLAB_ORPHAN;
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
