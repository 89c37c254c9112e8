/*
 * heap_lane.h - the private half of a lane: caches that may vanish at any instruction.
 *
 * For each bin a LIFO of blocks freed last, a mask over the 64 blocks scanned last, and the list of
 * slabs that the lane owns. All of it holds only blocks that are free in the truth (own[i] == 0), so
 * losing it loses nothing. Zero bytes are a valid empty state: that is what a forked child sees.
 *
 *   struct lane  |index, shm ...| heap: base, counts | bins[73] x 128 | lifo[72] x 256 | size_bins |
 *                | slabs: 4 bytes for each slab of the segment ...                                 |
 *
 * Owner:     the thread that has the lane.
 * Invariant: FL1 slabs[s] names a bin only if the word of slab s is OWNED by this lane with that bin.
 *                Only the owner takes a word out of that state while it lives, so it clears its
 *                entry first (heap_slab_closes) and sets it last (heap_slab_opened); no peer can.
 *            FL2 bins[0] is all zero: a size, or a slab, that has no bin leads to it and fits nothing.
 *            FL3 the low byte of `top` is 0 when the LIFO is empty, and only then.
 * Lifetime:  from the lane's claim to detach.
 * Death:     everything here vanishes; nothing is lost.
 */
#ifndef SHALE_HEAP_HEAP_LANE_H
#define SHALE_HEAP_HEAP_LANE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "heap/size_class.h"
#include "heap/slab.h"
#include "heap/slab_layout.h"
#include "heap/span_cache.h"
#include "segment/lanes.h"

#define HEAP_LIFO_SLOTS 16u /* of which the first is never used */
#define HEAP_LIFO_BYTES 256u
#define HEAP_SIZE_STEP  16u
#define HEAP_OPEN_FEW   16u /* of these even with a full LIFO: what a burst of frees withholds */
#define HEAP_OPEN_MAX   64u /* slabs of a bin that frees keep open: what a stopped lane withholds */

struct heap_free_block {
	unsigned char *block;
	uint8_t *own; /* its fact */
};

/* What the owner of a slab knows about it without looking at the segment. */
struct heap_slab {
	uint16_t bin;  /* heap_bin_place() if the slab is ours, else 0 */
	uint8_t freed; /* a block was freed that the LIFO had no room for, since the last scan */
	uint8_t reserved;
};

struct heap_bin {
	/* first line: all that the fast paths touch */
	struct heap_free_block *top; /* last entry of the LIFO */
	uint64_t reciprocal;         /* of bin_info */
	uint32_t limit;              /* of bin_info */
	uint16_t half;               /* bytes from own[i] to shared[i] */
	uint16_t size;
	uint64_t stride;           /* bytes of facts of a slab */
	uint8_t *facts;            /* own[0] of slab 0, if it were of this bin */
	uint64_t mask;             /* free blocks among the 64 from mask_first on */
	unsigned char *mask_block; /* address of block mask_first */
	uint8_t *mask_own;         /* its fact */
	/* second line: the slow path's */
	uint64_t slab;      /* current slab, valid if has_slab */
	uint32_t scan_next; /* next block index to scan in it */
	bool has_slab;
	bool fresh; /* no block that the mask has was ever handed out, and their bytes are zero */
	uint32_t owned_count;
	uint32_t owned_room;
	uint32_t owned_cursor;
	uint32_t open_count;   /* slabs of the bin that are OWNED by us */
	uint32_t orphans_seen; /* value of the orphan hint when none was found */
	uint64_t *owned;       /* slabs that we own or have parked, as far as remembered */
	uint64_t reserved[2];
};

_Static_assert(sizeof(struct heap_bin) == 128, "two lines, and the step of heap_bin_at()");
_Static_assert(sizeof(struct heap_slab) == sizeof(((struct lane *)0)->slabs[0]), "one each");
_Static_assert(offsetof(struct heap_bin, slab) == 64, "the fast paths touch one line");
_Static_assert(BIN_SIZE_MAX <= UINT16_MAX && LONG_FACTS_BLOCKS <= UINT16_MAX, "16 bits");
_Static_assert(HEAP_LIFO_SLOTS * sizeof(struct heap_free_block) == HEAP_LIFO_BYTES, "FL3");

/* Slabs that a free has opened again, in the order in which they are let go: 1 + slab, 0 none. */
struct heap_reopened {
	uint32_t hand; /* the next to go */
	uint32_t slab[HEAP_OPEN_MAX];
};

struct heap_lane {
	uintptr_t base;         /* address of slab 0 */
	uint64_t slab_count;    /* slabs of the segment; 0: not set up, or a wiped lane */
	uint64_t own_word;      /* state and lane bits that mark a slab as ours; 0: not set up */
	uint64_t arena_current; /* where the last free slab was found */
	uint32_t orphans_swept; /* value of the orphan hint when empty ones were last looked for */
	uint64_t looked_ns;     /* when it last looked through its slabs because somebody waited */
	uint64_t left_slab;     /* 1 + a dead slab that a name kept us from taking; 0: none */
	uint32_t frees;         /* in slabs that were let go */
	bool taken_fresh; /* the slab taken last had not been written since it was committed */
	struct span_cache spans;
	struct heap_reopened reopened[BIN_COUNT];
	_Alignas(64) struct heap_bin bins_from_none[1 + BIN_COUNT]; /* bin i is entry 1 + i */
	_Alignas(HEAP_LIFO_BYTES) struct heap_free_block lifo[BIN_COUNT][HEAP_LIFO_SLOTS];
	/* heap_bin_place() for each 16 bytes of size */
	uint16_t size_bins[BIN_SIZE_MAX / HEAP_SIZE_STEP + 1];
};

_Static_assert(sizeof(struct heap_lane) <= LANE_HEAP_BYTES, "the lane reserves enough");

#define SLAB_OWNER_MASK (SLAB_STATE_MASK | (UINT64_C(0xfff) << SLAB_LANE_SHIFT))

static inline struct heap_lane *heap_lane(struct lane *lane)
{
	return (struct heap_lane *)(void *)lane->heap;
}

static inline struct heap_bin *heap_bin(struct lane *lane, unsigned index)
{
	return &heap_lane(lane)->bins_from_none[1 + index];
}

/*
 * A bin in size_bins and slabs is its entry's number times 16: the processor multiplies by eight
 * for nothing, and an entry is 128 bytes long. 0 is the entry that is none.
 */
static inline uint16_t heap_bin_place(unsigned index)
{
	return (uint16_t)((1 + index) * (sizeof(struct heap_bin) / 8));
}

static inline struct heap_bin *heap_bin_at(struct heap_lane *heap, uint64_t place)
{
	return (struct heap_bin *)(void *)((unsigned char *)heap->bins_from_none + place * 8);
}

/* slab is below slab_count */
static inline struct heap_slab *heap_slab(struct lane *lane, uint64_t slab)
{
	return (struct heap_slab *)(void *)lane->slabs + slab;
}

/* The word of the slab has become OWNED by this lane, with that bin. */
static inline void heap_slab_opened(struct lane *lane, unsigned index, uint64_t slab)
{
	*heap_slab(lane, slab) = (struct heap_slab){.bin = heap_bin_place(index)};
	heap_bin(lane, index)->open_count++;
}

/* It is about to become something else. What the lane alone knew of it is told to the segment. */
static inline void heap_slab_closes(struct lane *lane, unsigned index, uint64_t slab)
{
	if (heap_slab(lane, slab)->freed)
		store_relaxed(slab_local_hint(lane->view, slab), (uint8_t)1); /* a hint */
	*heap_slab(lane, slab) = (struct heap_slab){0};
	heap_bin(lane, index)->open_count--;
}

static inline bool heap_lifo_empty(const struct heap_bin *bin)
{
	return ((uintptr_t)bin->top & (HEAP_LIFO_BYTES - 1)) == 0;
}

/* The entry below the first one; NULL in a lane that was not set up. */
static inline struct heap_free_block *heap_lifo_base(const struct heap_bin *bin)
{
	uintptr_t top = (uintptr_t)bin->top;

	return (struct heap_free_block *)(top & ~(uintptr_t)(HEAP_LIFO_BYTES - 1));
}

static inline bool heap_lifo_full(const struct heap_bin *bin)
{
	return ((uintptr_t)(bin->top + 1) & (HEAP_LIFO_BYTES - 1)) == 0;
}

/* Is a free in a parked slab of our own worth opening the slab? */
static inline bool heap_opens(const struct heap_bin *bin)
{
	return !heap_lifo_full(bin) || bin->open_count < HEAP_OPEN_FEW;
}

/* Is a block of the slab that begins at first in the LIFO? */
static inline bool heap_lifo_has(const struct heap_bin *bin, const unsigned char *first)
{
	for (const struct heap_free_block *entry = heap_lifo_base(bin) + 1; entry <= bin->top;
	     entry++)
		if ((uintptr_t)entry->block - (uintptr_t)first < SLAB_SIZE)
			return true;
	return false;
}

/* Makes a lane usable by the heap; -EUCLEAN on a damaged view. */
int heap_setup_lane(struct lane *lane);

#endif
