/*
 * map_layout.h - the bytes of a map: root record, buckets, slot words, the gate, records.
 *
 *   root record            table                                 record
 *   +-----------------+    +-----------+-----------+--           +-------------+ 0
 *   | root_shm        |    | bucket 0  | bucket 1  | ..          | incarnation |
 *   | table, buckets -+--->| gate      | gate      |             | hash        |
 *   +-----------------+    | slot 0 ---+-----------+------------>| state       |
 *                          | ..        |           |             | cell        |
 *                          | slot 6 -+ | slot 6    |             | sizes       |
 *                          +---------|-+-----------+             | key, value  |
 *                                    +--> child bucket --> ..    +-------------+
 *
 * Owner:     nobody; every shared word changes by CAS and can be finished by anybody.
 * Invariant: M1 .. M8, listed at the functions of map_check.c.
 * Lifetime:  table and children live as long as the map; a record until nobody can be reading it.
 * Death:     docs/design/map.md lists what a death after each step leaves, and who repairs it.
 *
 * All integers are in the byte order of the machine. Zero bytes are an empty, open bucket.
 */
#ifndef SHALE_MAP_MAP_LAYOUT_H
#define SHALE_MAP_MAP_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "heap/heap.h"
#include "segment/segment_layout.h"

/* What a lane is in the middle of. argument[MAP_BUCKET] is the ref of the root bucket in each. */
enum map_intent {
	INTENT_MAP_PUT = INTENT_MAP_FIRST, /* block[0] the new record, block[1] the old one or 0 */
	INTENT_MAP_LINK,                   /* block[0] the new record, block[1] the child or 0 */
	INTENT_MAP_DELETE,                 /* block[1] the record */
};
#define MAP_BUCKET   0 /* argument: the bucket whose gate guards this */
#define MAP_EXPECTED 1 /* argument: the slot word that the gate's operation replaces .. */
#define MAP_DESIRED  2 /* argument: .. by this one */

/* Hazards of a lane, by use; the rest are free. */
#define MAP_HAZARD_FIND 0 /* the record being looked at */
#define MAP_HAZARD_LINK \
	1 /* the record that a new child displaces, for as long as the gate is ours */
#define MAP_HAZARD_GATE 2 /* the same, while finishing somebody's gate */

/*
 * retired[0 .. MAP_RETIRED - 1] are single records; the last two entries head lists: of records that
 * were not looked at yet, and of such as were found in use.
 */
#define MAP_RETIRED      (LANE_RETIRED - 2u)
#define MAP_RETIRED_MORE (LANE_RETIRED - 2u)
#define MAP_RETIRED_HELD (LANE_RETIRED - 1u)

#define BUCKET_SLOTS     7u
#define CHAIN_MAX        8u /* buckets: a root and its children */

/* Members of the root record of a map. Written before it is published, then constant. */
struct map_shm {
	struct root_shm root;
	uint32_t kind;        /* enum map_kind */
	uint32_t bucket_bits; /* the table has 1 << bucket_bits buckets */
	uint64_t table;       /* ref of bucket 0 */
	uint64_t next_table;  /* 0; reserved for a table that this one moves to */
	uint64_t reserved[5];
};

enum map_kind {
	MAP_BYTES = 1, /* byte strings to byte strings; 2 is reserved for u64 to u64 */
};

struct bucket_shm {
	uint64_t gate; /* of a root bucket; 0 in a child */
	uint64_t slot[BUCKET_SLOTS];
};

/*
 * The key follows, then the value, each filled up to 8 bytes. A value of at most 8 bytes is in
 * `cell` instead, beside the state, so that a 16-byte CAS can change both one day.
 */
struct record_shm {
	uint64_t incarnation; /* odd: valid, unique to this use of the block; even: not a record */
	uint64_t hash;
	uint64_t state;
	uint64_t cell;
	uint32_t key_size;
	uint32_t expiry;     /* 0; reserved */
	uint64_t value_size; /* bits 0..47; the flags above are 0, reserved */
};

_Static_assert(sizeof(struct map_shm) == 128, "root record of a map");
_Static_assert(sizeof(struct bucket_shm) == 64, "one cache line");
_Static_assert(sizeof(struct record_shm) == 48, "record header");

/*
 * The gate: at most one insert or link is under way in a chain, and anybody can finish it.
 *
 *   63           22 21     10 9        4  3    2        1     0
 *   +--------------+---------+----------+----+---------+-------+
 *   | version      | lane    | position | op | waiters | state |
 *   +--------------+---------+----------+----+---------+-------+
 *
 * lane 0: idle. Idle(v) -> pending(v, lane, op, position) by the lane; pending(v) -> idle(v + 1) by
 * whoever finishes it. position is the slot, counted from the root bucket on. waiters and the
 * states other than OPEN are reserved.
 */
enum gate_state { GATE_OPEN = 0, GATE_FROZEN = 1, GATE_MOVED = 2 };
enum gate_op { GATE_INSERT = 0, GATE_LINK = 1 };

#define GATE_STATE_MASK     UINT64_C(3)
#define GATE_OP_SHIFT       3u
#define GATE_POSITION_SHIFT 4u
#define GATE_LANE_SHIFT     10u
#define GATE_VERSION_SHIFT  22u
#define GATE_VERSION_MAX    ((UINT64_C(1) << 42) - 1)

static inline bool gate_is_open(uint64_t gate)
{
	return (gate & GATE_STATE_MASK) == GATE_OPEN;
}

static inline uint32_t gate_lane(uint64_t gate)
{
	return (uint32_t)(gate >> GATE_LANE_SHIFT) & (LANE_COUNT - 1);
}

static inline enum gate_op gate_op(uint64_t gate)
{
	return (enum gate_op)((gate >> GATE_OP_SHIFT) & 1);
}

static inline unsigned gate_position(uint64_t gate)
{
	return (unsigned)(gate >> GATE_POSITION_SHIFT) & 63u;
}

static inline uint64_t gate_version(uint64_t gate)
{
	return gate >> GATE_VERSION_SHIFT;
}

static inline uint64_t gate_pending(uint64_t gate, uint32_t lane, enum gate_op op,
				    unsigned position)
{
	return gate | ((uint64_t)lane << GATE_LANE_SHIFT) | ((uint64_t)op << GATE_OP_SHIFT) |
	       ((uint64_t)position << GATE_POSITION_SHIFT);
}

/* The idle gate that follows a pending one; state and waiters stay. */
static inline uint64_t gate_idle_after(uint64_t gate)
{
	return ((gate_version(gate) + 1) << GATE_VERSION_SHIFT) | (gate & UINT64_C(7));
}

/*
 * A slot word.
 *
 *   63              23 22      7 6        3  2       1    0
 *   +-----------------+---------+----------+--------+------+
 *   | ref / 16        | tag     | hash     | frozen | kind |     RECORD, LINK
 *   +-----------------+---------+----------+--------+------+
 *   | stamp (63 .. 22)          | 0        | frozen | 0    |     EMPTY
 *   +---------------------------+----------+--------+------+
 *
 * The stamp is the gate's version when the slot was emptied: an EMPTY word never comes back, so a
 * helper that sleeps over its CAS cannot insert a record a second time. `hash` holds the hash bits
 * below those that choose the bucket: a table twice as large is filled without reading records.
 */
enum slot_kind { SLOT_EMPTY = 0, SLOT_RECORD = 1, SLOT_LINK = 2 };

#define SLOT_KIND_MASK  UINT64_C(3)
#define SLOT_FROZEN     (UINT64_C(1) << 2)
#define SLOT_BITS_SHIFT 3u
#define SLOT_TAG_SHIFT  7u
#define SLOT_REF_SHIFT  23u
#define SLOT_TAG_MASK   (UINT64_C(0xffff) << SLOT_TAG_SHIFT)
#define SLOT_REF_MASK   (~UINT64_C(0) << SLOT_REF_SHIFT)

/* A frozen word, or kind 3: not ours to understand. */
static inline bool slot_is_sane(uint64_t word)
{
	return (word & SLOT_FROZEN) == 0 && (word & SLOT_KIND_MASK) != 3;
}

static inline enum slot_kind slot_kind(uint64_t word)
{
	return (enum slot_kind)(word & SLOT_KIND_MASK);
}

static inline uint64_t slot_ref(uint64_t word)
{
	return word >> SLOT_REF_SHIFT << 4;
}

static inline uint64_t slot_with_ref(uint64_t word, uint64_t ref)
{
	return (word & ~SLOT_REF_MASK) | (ref >> 4 << SLOT_REF_SHIFT);
}

static inline uint64_t slot_empty(uint64_t version)
{
	return version << GATE_VERSION_SHIFT;
}

static inline uint64_t slot_link(uint64_t ref)
{
	return slot_with_ref(SLOT_LINK, ref);
}

/* What a record word of this hash has beside the ref. */
static inline uint64_t slot_of_hash(uint64_t hash, unsigned bucket_bits)
{
	uint64_t below = (hash << bucket_bits) >> 60;

	return SLOT_RECORD | (below << SLOT_BITS_SHIFT) | ((hash & 0xffff) << SLOT_TAG_SHIFT);
}

/*
 * The state of a record: the truth about its key. Changed once, by CAS.
 *   LIVE(version)      bound to this value
 *   DEAD(lane, op)     deleted, by that operation of that lane
 *   REPLACED(ref)      the record at ref has the value
 */
enum record_state { RECORD_LIVE = 1, RECORD_DEAD = 2, RECORD_REPLACED = 3 };

static inline enum record_state state_of(uint64_t state)
{
	return (enum record_state)(state & 3);
}

static inline uint64_t state_live(uint64_t version)
{
	return (version << 2) | RECORD_LIVE;
}

static inline uint64_t state_live_after(uint64_t state)
{
	return state_live((state >> 2) + 1);
}

static inline uint64_t state_dead(uint32_t lane, uint64_t sequence)
{
	return ((sequence & ((UINT64_C(1) << 48) - 1)) << 14) | ((uint64_t)lane << 2) | RECORD_DEAD;
}

static inline uint64_t state_replaced(uint64_t ref)
{
	return ref | RECORD_REPLACED;
}

static inline uint64_t state_next(uint64_t state)
{
	return state & ~UINT64_C(15);
}

#define RECORD_VALUE_MAX ((UINT64_C(1) << 48) - 1)

/* Bytes that key and value take behind the header. No overflow: 2^32 and 2^48 at most. */
static inline uint64_t record_key_bytes(uint32_t key_size)
{
	return round_up(key_size, 8);
}

static inline uint64_t record_value_bytes(uint64_t value_size)
{
	return value_size <= 8 ? 0 : round_up(value_size, 8);
}

static inline uint64_t record_bytes(uint32_t key_size, uint64_t value_size)
{
	return sizeof(struct record_shm) + record_key_bytes(key_size) +
	       record_value_bytes(value_size);
}

#endif
