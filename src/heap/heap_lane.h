/*
 * heap_lane.h - the private half of a lane: caches that may vanish at any instruction.
 *
 * For each bin a LIFO of blocks freed last, a mask over the 64 blocks scanned last, and the list of
 * slabs that the lane owns. All of it holds only blocks that are free in the truth (own[i] == 0), so
 * losing it loses nothing. Zero bytes are a valid empty state: that is what a forked child sees.
 */
#ifndef SHALE_HEAP_HEAP_LANE_H
#define SHALE_HEAP_HEAP_LANE_H

#include <stdbool.h>
#include <stdint.h>

#include "heap/size_class.h"
#include "heap/slab_layout.h"
#include "heap/span_cache.h"
#include "segment/lanes.h"

#define HEAP_LIFO 16u
#define HEAP_OPEN_MAX \
	64u /* slabs of a bin that a free may keep open: what a stopped lane withholds */

struct heap_free_block {
	unsigned char *block;
	uint8_t *own; /* its fact */
};

struct heap_bin {
	uint32_t lifo_count;
	uint32_t scan_next;        /* next block index to scan in the current slab */
	uint64_t mask;             /* free blocks among the 64 from mask_first on */
	unsigned char *mask_block; /* address of block mask_first */
	uint8_t *mask_own;         /* its fact */
	uint64_t slab;             /* current slab, valid if has_slab */
	bool has_slab;
	uint32_t owned_count;
	uint32_t owned_room;
	uint32_t owned_cursor;
	uint32_t open_count;   /* slabs of the bin that are OWNED by us */
	uint32_t orphans_seen; /* value of the orphan hint when none was found */
	uint64_t *owned;       /* slabs that we own or have parked, as far as remembered */
	struct heap_free_block lifo[HEAP_LIFO];
};

/* Slabs that a free has opened again, in the order in which they are let go: 1 + slab, 0 none. */
struct heap_reopened {
	uint32_t hand; /* the next to go */
	uint32_t slab[HEAP_OPEN_MAX];
};

struct heap_lane {
	uint64_t own_word;      /* state and lane bits that mark a slab as ours; 0: not set up */
	uint64_t arena_current; /* where the last free slab was found */
	uint32_t orphans_swept; /* value of the orphan hint when empty ones were last looked for */
	uint64_t left_slab;     /* 1 + a dead slab that a name kept us from taking; 0: none */
	struct heap_bin bins[BIN_COUNT];
	struct heap_reopened reopened[BIN_COUNT];
	struct span_cache spans;
	uint32_t frees;   /* in slabs that were let go */
	bool taken_fresh; /* the slab taken last had not been written since it was committed */
};

_Static_assert(sizeof(struct heap_lane) <= LANE_HEAP_BYTES, "the lane reserves enough");

#define SLAB_OWNER_MASK (SLAB_STATE_MASK | (UINT64_C(0xfff) << SLAB_LANE_SHIFT))

static inline struct heap_lane *heap_lane(struct lane *lane)
{
	return (struct heap_lane *)(void *)lane->heap;
}

static inline bool heap_lifo_full(const struct heap_bin *bin)
{
	return bin->lifo_count == HEAP_LIFO;
}

/* Is a block of the slab that begins at first in the LIFO? */
static inline bool heap_lifo_has(const struct heap_bin *bin, const unsigned char *first)
{
	for (uint32_t i = 0; i < bin->lifo_count; i++)
		if ((uintptr_t)bin->lifo[i].block - (uintptr_t)first < SLAB_SIZE)
			return true;
	return false;
}

/* Makes a lane usable by the heap; -EUCLEAN on a damaged view. */
int heap_setup_lane(struct lane *lane);

#endif
