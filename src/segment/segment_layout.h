/*
 * segment_layout.h - the bytes of a segment: where everything is, and who writes it.
 *
 *   0        4K      8K       136K     (the rest starts at multiples of min(page, 2 MiB))
 *   +--------+-------+--------+--------+-------------+-------------+------------+---------------+
 *   | header | roots | peers  | lanes  | arena table | short facts | long facts | arena 0, 1 .. |
 *   +--------+-------+--------+--------+-------------+-------------+------------+---------------+
 *   |<- committed at creation ->|<- committed page by page as lanes and arenas come ->| 2 MiB each|
 *
 *   header       immutable half written by the creator before `ready`; the mutable half holds hints
 *   roots        512 words: ref of a named record, set once by CAS
 *   peers        one slot per attached process
 *   lanes        one slot per thread that allocates or changes anything
 *   arena table  per arena: state, the 32 slab words, span sizes, remote-free hints
 *   short facts  per slab 512 + 512 bytes: blocks of 128 bytes and more
 *   long facts   per slab 4096 + 4096 bytes: blocks of 16 to 112 bytes, committed when first needed
 *   arenas       nothing but blocks
 *
 * All integers are in the byte order of the machine. No pointer, no size_t. A fresh page of zeroes
 * is a valid state of everything but the header: slot FREE, slab FREE, fact "free".
 *
 * Death: every transition here is one store or one CAS; docs/design/death.md lists what each leaves.
 */
#ifndef SHALE_SEGMENT_SEGMENT_LAYOUT_H
#define SHALE_SEGMENT_SEGMENT_LAYOUT_H

#include <stdint.h>

#define SEGMENT_MAGIC          UINT64_C(0x6d6765734c414853) /* "SHALsegm" */
#define SEGMENT_FORMAT_VERSION 1u

#define ARENA_SHIFT            21u
#define ARENA_SIZE             (UINT64_C(1) << ARENA_SHIFT)
#define SLAB_SHIFT             16u
#define SLAB_SIZE              (UINT64_C(1) << SLAB_SHIFT)
#define SLABS_PER_ARENA        32u
#define CAPACITY_MAX           (UINT64_C(1) << 44)
#define CAPACITY_DEFAULT       (UINT64_C(1) << 36)

#define PEER_COUNT             1024u /* slot 0 is never used: 0 means none */
#define LANE_COUNT             4096u /* slot 0 is never used: 0 means none */
#define ROOT_COUNT             512u

/*
 * Where the parts of fixed size begin, whatever the page size. The heap's tables follow the lanes;
 * geometry.c computes their places from capacity and page size alone.
 */
#define ROOTS_OFFSET UINT64_C(0x1000)
#define PEERS_OFFSET UINT64_C(0x2000)
#define LANES_OFFSET UINT64_C(0x22000)

/* Bytes of the heap's tables for one arena; the heap lays them out (heap/slab_layout.h). */
#define ARENA_TABLE_STRIDE UINT64_C(2048)
#define SHORT_FACTS_ARENA  (UINT64_C(1024) * SLABS_PER_ARENA)
#define LONG_FACTS_ARENA   (UINT64_C(8192) * SLABS_PER_ARENA)

/* Bytes of open-file-description locks, far beyond any file's end. */
#define LOCK_LIFE_BASE    (UINT64_C(1) << 62)                /* + peer: held while it lives */
#define LOCK_RECOVER_BASE ((UINT64_C(1) << 62) + (1u << 20)) /* + peer: held by its recoverer */
#define LOCK_KEEPER       ((UINT64_C(1) << 62) + (2u << 20)) /* held by the acting keeper */

/*
 * Written once, before `ready`; `checksum` is the hash of the bytes before it with seed 0.
 * Attach copies the struct, checks the copy, and never reads it again.
 */
struct header_shm {
	uint64_t magic;
	uint32_t format_version;
	uint32_t header_size;
	uint64_t features_compat;    /* unknown bits are ignored */
	uint64_t features_ro_compat; /* unknown bits: attach read-only only */
	uint64_t features_incompat;  /* unknown bits: no attach */
	uint64_t layout_hash;
	uint8_t id[16];
	uint64_t file_size;
	uint64_t page_size; /* of the backing file; the unit of commit */
	uint64_t capacity_bytes;
	uint64_t budget_bytes;
	uint32_t arena_count;
	uint32_t peer_count;
	uint32_t lane_count;
	uint32_t root_count;
	uint64_t roots_offset;
	uint64_t peers_offset;
	uint64_t lanes_offset;
	uint64_t arena_table_offset;
	uint64_t short_facts_offset;
	uint64_t long_facts_offset;
	uint64_t heap_offset;
	uint64_t hash_seed;
	uint64_t created_ns; /* CLOCK_REALTIME */
	uint32_t pages;      /* enum shale_pages */
	uint32_t placement;  /* enum shale_placement */
	uint64_t nodes[16];
	char label[32];
	char pages_reason[128];
	uint64_t checksum;
};

/* features_ro_compat: the numbers of enum shale_debug. features_compat, upper half: one block in N. */
#define FEATURES_DEBUG       UINT64_C(7)
#define FEATURE_SAMPLE_SHIFT 32u

#define HEADER_READY         0x59444552u /* "REDY" */

/*
 * The mutable half of the header page, at HEADER_MUTABLE_OFFSET. `ready` is stored last by the
 * creator. Everything else is a hint or a high-water mark that only rises.
 */
struct header_mutable_shm {
	uint32_t ready;
	uint32_t reserved0[15];
	/* line 1: high-water marks, raised by CAS after the memory below them is committed */
	uint32_t lane_high;  /* lanes 1 .. lane_high - 1 have been used */
	uint32_t arena_high; /* arenas 0 .. arena_high - 1 have a committed table entry */
	uint64_t reserved1[7];
	/* line 2: hints */
	uint32_t reserved_hint;
	uint32_t orphan_hint;    /* grows when slabs become orphans */
	uint64_t returned_bytes; /* statistics */
	uint64_t reserved2[6];
	/* line 3: an event (shale/wait.h) that a recovered or detached peer wakes */
	uint32_t peer_event[2];
	uint64_t reserved3[7];
	/* line 4: an event that memory which became free wakes; the budget */
	uint32_t memory_event[2];
	uint32_t keeper;      /* hint: peer whose keeper gives memory back */
	uint32_t giveback_ms; /* hint: low 32 bits of the time of the last tick: heap/giveback.h */
	uint32_t keeper_event[2]; /* an event on which keepers sleep */
	uint64_t budget_bytes;    /* committed bytes at most; 0: as in the immutable half */
	uint64_t wanted_ns; /* until then somebody wants memory (heap/alloc_wait.c); 0: nobody */
	uint64_t reserved5[3];
	/* lines 5 and 6: the top of the ranks: bit i of [c]: a run of 2^18 arenas has one of class c */
	uint64_t rank_top[8];
	uint64_t node_top[8];
	/* line 7: statistics of give-back */
	uint64_t purged_bytes; /* pages punched in half-used slabs and arenas */
	uint64_t releases;     /* whole arenas given back, times */
	uint64_t reserved6[3];
	/* debug segments: what was found; these only grow (heap/debug.h) */
	uint64_t debug_written; /* writes after free */
	uint64_t debug_overrun; /* writes behind the end */
	uint64_t debug_first;   /* ref of the first such block */
};
#define HEADER_MUTABLE_OFFSET 1024u

/*
 * A peer slot. word: bits 0..3 state, bits 32..63 generation.
 *   FREE -> ACTIVE  by the attaching process, which holds life lock `slot` (generation + 1)
 *   ACTIVE -> DEAD  by a recoverer, who holds the recover lock and saw the life lock free; or by
 *                   the peer itself when it detaches, its life lock still held
 *   DEAD -> FREE    by whoever made it DEAD or found it so with the life lock free and holds the
 *                   recover lock, when nothing of the peer is left
 * The rest is written by the peer between taking the lock and ACTIVE, and is for people only.
 */
#define PEER_STATE_MASK UINT64_C(0xf)
#define PEER_GENERATION (UINT64_C(1) << 32)
enum peer_flag { PEER_MEMBARRIER = 1 }; /* reached by membarrier(GLOBAL_EXPEDITED) */
enum peer_state { PEER_FREE = 0, PEER_ACTIVE = 1, PEER_DEAD = 2 };

struct peer_shm {
	uint64_t word;
	uint32_t pid;
	uint32_t flags; /* enum peer_flag, set before ACTIVE */
	uint64_t start_ticks;
	uint64_t pid_ns;
	uint64_t pidfs_ino;
	uint64_t attached_ns;
	char command[16];
	uint64_t reserved[8];
};

/*
 * What a lane is in the middle of: the names recovery needs. `word`: bits 0..7 kind, 8..15 status,
 * 16..63 sequence number. The owner stores the arguments, then the word; a helper may move the
 * status by CAS. block[0] and block[1] *name* blocks (0: none): a named block is never collected,
 * so that recovery can ask its facts whether a free had happened.
 */
struct intent_shm {
	uint64_t word;
	uint64_t block[2];
	uint64_t argument[5];
};

enum intent_kind {
	INTENT_NONE = 0,
	INTENT_PUBLISH_AT = 1,     /* heap: block[0] into the word at argument[0] */
	INTENT_TAKE_AT = 2,        /* heap: block[0] out of the word at argument[0] */
	INTENT_SPAN_RESIZE = 3,    /* heap: span at slab argument[0], lengths [1] and [2] */
	INTENT_MAP_FIRST = 16,     /* 16..31 belong to the map */
	INTENT_CHANNEL_FIRST = 32, /* 32..47 belong to the channel */
};

#define LANE_HAZARDS 8u
#define LANE_RETIRED 32u
#define LANE_PINS    8u

/*
 * A lane slot: one thread's state. word: bits 0..3 state, bits 4..15 peer, bits 32..63 generation.
 *   FREE -> ACTIVE     by the thread (its process keeps it until the end)
 *   ACTIVE -> FREE     by recovery or detach, when slabs, intents and retired blocks are settled
 * hazards: refs that the lane is reading; retired: refs unlinked from a map and not yet freed. Both
 * are written by the lane alone, and by recovery when it is dead. Retired refs are *named*, and so is
 * the block in `freeing`.
 */
#define LANE_STATE_MASK UINT64_C(0xf)
#define LANE_GENERATION (UINT64_C(1) << 32)
enum lane_state { LANE_FREE = 0, LANE_ACTIVE = 1 };

struct lane_shm {
	uint64_t word;
	uint32_t thread_id; /* for people only */
	uint32_t reserved0;
	uint64_t freeing; /* ref of the block that the lane is freeing: named, see below */
	uint64_t reserved1[5];
	struct intent_shm intent;
	uint64_t hazards[LANE_HAZARDS];
	uint64_t retired[LANE_RETIRED];
	uint64_t
		pins[LANE_PINS]; /* first arena | arena count << 32: not to be given back; 0 none */
};

_Static_assert(sizeof(struct header_shm) <= HEADER_MUTABLE_OFFSET, "the halves must not overlap");
_Static_assert(sizeof(struct header_mutable_shm) == 512, "eight cache lines");
_Static_assert(sizeof(struct peer_shm) == 128, "two cache lines");
_Static_assert(sizeof(struct intent_shm) == 64, "one cache line");
_Static_assert(sizeof(struct lane_shm) == 512, "eight cache lines");
_Static_assert(ROOTS_OFFSET + ROOT_COUNT * 8u <= PEERS_OFFSET, "roots fit");
_Static_assert(PEERS_OFFSET + PEER_COUNT * sizeof(struct peer_shm) == LANES_OFFSET, "peers fit");

#endif
