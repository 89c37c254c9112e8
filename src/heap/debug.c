/*
 * debug.c - allocate and free in a debug segment: a trailer behind each block, and poison.
 *
 * Wraps heap_alloc_raw() and heap_free_raw(). Writes only bytes of blocks that the caller holds, and
 * the counters in the header.
 *
 * Owner:     a block's trailer belongs to who holds the block, and stays when it is free.
 * Invariant: D1 and D2 of docs/design/debug.md.
 * Ordering:  none of its own; the block's bytes go with the block.
 * Death:     between allocation and trailer: an unpublished block, freed by recovery. Between poison
 *            and free: the block lives and its trailer says DEAD, which the next free passes over.
 */
#include "heap/debug.h"

#include <errno.h>
#include <string.h>

#include <shale/heap.h>

#include "base/hash.h"
#include "heap/heap.h"
#include "heap/slab.h"

/* -- the trailer ------------------------------------------------------------------------------ */

/*
 * A number that is another one each time the slab is taken for a bin: what its blocks left before is no
 * trailer of those that are there now. Spans have none, and what a freed one left is not looked at.
 */
static uint32_t slab_birth(const struct shale_segment *view, uint64_t slab, uint64_t usable)
{
	const struct arena_shm *arena = slab_arena(view, slab);

	/* stored before the slab was OWNED */
	return usable <= BIN_SIZE_MAX ? load_relaxed(&arena->span_slabs[slab % SLABS_PER_ARENA])
				      : 0;
}

void debug_slab_taken(const struct shale_segment *view, uint64_t slab, uint64_t word)
{
	/* the slab is CLAIMED by us; no span has its head here */
	store_relaxed(&slab_arena(view, slab)->span_slabs[slab % SLABS_PER_ARENA],
		      (uint32_t)(word >> 32));
}

static uint32_t trailer_hash(const struct shale_segment *view, const struct debug_trailer *trailer,
			     uint64_t usable)
{
	uint64_t birth = slab_birth(view, slab_of_offset(view, trailer->self), usable);

	return (uint32_t)hash_bytes(&trailer->self,
				    sizeof(*trailer) - offsetof(struct debug_trailer, self),
				    trailer->magic + (birth << 32));
}

struct debug_trailer debug_describe(const struct lane *lane, uint64_t offset, uint64_t size)
{
	return (struct debug_trailer){
		.self = offset,
		.size = size,
		.thread = lane->thread,
		.lane = (uint16_t)lane->index,
		.peer = (uint16_t)lane->view->peer,
	};
}

static unsigned char *trailer_at(const struct shale_segment *view, uint64_t offset, uint64_t usable)
{
	return (unsigned char *)view_at(view, offset) + usable - sizeof(struct debug_trailer);
}

bool debug_read(const struct shale_segment *view, uint64_t offset, uint64_t usable,
		struct debug_trailer *ret_trailer)
{
	struct debug_trailer trailer;

	if (usable < sizeof(trailer) || !view_in_heap(view, offset, usable))
		return false;
	memcpy(&trailer, trailer_at(view, offset, usable), sizeof(trailer));
	if (trailer.self != offset || trailer.size > usable - sizeof(trailer) ||
	    trailer.check != trailer_hash(view, &trailer, usable))
		return false;
	*ret_trailer = trailer;
	return true;
}

static void trailer_write(const struct shale_segment *view, uint64_t usable,
			  struct debug_trailer trailer, enum debug_magic magic)
{
	trailer.magic = magic;
	trailer.check = trailer_hash(view, &trailer, usable);
	memcpy(trailer_at(view, trailer.self, usable), &trailer, sizeof(trailer));
}

/* -- bytes ------------------------------------------------------------------------------------- */

static bool all_are(const unsigned char *bytes, uint64_t size, int value)
{
	return size == 0 || (bytes[0] == value && memcmp(bytes, bytes + 1, size - 1) == 0);
}

/* holes: what lies in one page may be zeroes instead, as a page that was given back reads. */
bool debug_bytes_are(const unsigned char *bytes, uint64_t size, int value, bool holes)
{
	while (size > 0) {
		uint64_t here = DEBUG_PAGE - (uintptr_t)bytes % DEBUG_PAGE;

		here = here < size ? here : size;
		if (!all_are(bytes, here, value) && !(holes && all_are(bytes, here, 0)))
			return false;
		bytes += here;
		size -= here;
	}
	return true;
}

bool debug_slack_whole(const struct shale_segment *view, const struct debug_trailer *trailer,
		       uint64_t usable)
{
	const unsigned char *block = view_at(view, trailer->self);

	return !(view->debug & SHALE_DEBUG_POISON) ||
	       debug_bytes_are(block + trailer->size, usable - sizeof(*trailer) - trailer->size,
			       DEBUG_ALLOCATED, false);
}

void debug_found(struct shale_segment *view, uint64_t *counter, uint64_t offset)
{
	uint64_t none = 0;

	/* relaxed: counts for people */
	(void)fetch_add_relaxed(counter, UINT64_C(1));
	(void)cas_relaxed(&view_hints(view)->debug_first, &none, offset);
}

/* -- allocate ---------------------------------------------------------------------------------- */

/* The block is ours and nobody knows of it yet. */
static void hand_out(struct lane *lane, uint64_t offset, uint64_t size)
{
	struct shale_segment *view = lane->view;
	unsigned char *block = view_at(view, offset);
	struct debug_trailer old;
	uint64_t usable = 0;

	(void)heap_block_state(view, offset, &usable);
	if (view->debug & SHALE_DEBUG_POISON) {
		if (usable <= BIN_SIZE_MAX && debug_read(view, offset, usable, &old) &&
		    old.magic == DEBUG_DEAD &&
		    !debug_bytes_are(block, usable - sizeof(old), DEBUG_FREED, true))
			debug_found(view, &view_hints(view)->debug_written, offset);
		memset(block, DEBUG_ALLOCATED, usable - sizeof(old));
	} else if (usable > sizeof(struct debug_card)) {
		/* an old card must not be taken for one */
		memset(block, 0, sizeof(struct debug_card));
	}
	trailer_write(view, usable, debug_describe(lane, offset, size), DEBUG_LIVE);
}

int debug_alloc(struct lane *lane, size_t size, size_t alignment, bool sample, uint64_t *ret_offset)
{
	uint64_t offset = 0;
	int r;

	if (size > lane->view->capacity_bytes)
		return -ENOMEM;
	if (sample && guard_wanted(lane->view, size, alignment) &&
	    guard_alloc(lane, size, ret_offset) == 0)
		return 0;
	r = heap_alloc_raw(lane, size + sizeof(struct debug_trailer), alignment, &offset);
	if (r == -ENOMEM && guard_reap(lane) > 0)
		r = heap_alloc_raw(lane, size + sizeof(struct debug_trailer), alignment, &offset);
	if (r < 0)
		return r;
	hand_out(lane, offset, size);
	*ret_offset = offset;
	return 0;
}

/* -- free -------------------------------------------------------------------------------------- */

/* Looks for a write behind the end, and leaves the block as a free one is to look. */
static void retire(struct shale_segment *view, struct lane *lane, uint64_t offset, uint64_t usable)
{
	struct debug_trailer trailer;
	bool whole = debug_read(view, offset, usable, &trailer);

	/* DEAD: somebody died between this and the free that was to follow */
	if (!whole || (trailer.magic == DEBUG_LIVE && !debug_slack_whole(view, &trailer, usable)))
		debug_found(view, &view_hints(view)->debug_overrun, offset);
	if (!whole)
		trailer = debug_describe(lane, offset, 0);
	if (view->debug & SHALE_DEBUG_POISON)
		memset(view_at(view, offset), DEBUG_FREED, usable - sizeof(trailer));
	trailer_write(view, usable, trailer, DEBUG_DEAD);
}

int debug_free(struct shale_segment *view, struct lane *lane, uint64_t offset)
{
	struct block_place place;
	uint64_t usable = 0;
	int state = heap_block_state(view, offset, &usable);

	if (state < HEAP_BLOCK_LIVE)
		return state < 0 ? state : -EALREADY;
	if (block_find(view, offset, &place) == 0 && !place.bin && offset % SLAB_SIZE != 0)
		return guard_free(view, lane, &place, offset);
	if (usable >= sizeof(struct debug_trailer))
		retire(view, lane, offset, usable);
	return heap_free_raw(view, lane, offset);
}

/* -- resize and inspect ------------------------------------------------------------------------ */

uint64_t debug_usable(struct shale_segment *view, uint64_t offset)
{
	struct debug_trailer trailer;
	struct debug_card card;
	uint64_t usable = 0;

	if (heap_block_state(view, offset, &usable) < HEAP_BLOCK_LIVE)
		return 0;
	if (offset % SLAB_SIZE != 0 &&
	    guard_read(view, slab_of_offset(view, offset), offset, &card))
		return card.block.size;
	if (debug_read(view, offset, usable, &trailer))
		return trailer.size;
	return usable > sizeof(trailer) ? usable - sizeof(trailer) : 0;
}

/* In place only where moving is not allowed: what holds an old address is to be found out. */
static bool resize_published(struct shale_segment *view, uint64_t offset, uint64_t size)
{
	struct debug_trailer trailer;
	uint64_t usable = 0;

	(void)heap_block_state(view, offset, &usable);
	if (offset % SLAB_SIZE != 0 && debug_usable(view, offset) >= size)
		return true;
	if (!debug_read(view, offset, usable, &trailer) || size > usable - sizeof(trailer))
		return false;
	if (size < trailer.size && (view->debug & SHALE_DEBUG_POISON))
		memset((unsigned char *)view_at(view, offset) + size, DEBUG_ALLOCATED,
		       trailer.size - size);
	trailer.size = size;
	trailer_write(view, usable, trailer, DEBUG_LIVE);
	return true;
}

void *debug_resize(struct shale_segment *segment, void *ptr, size_t size)
{
	uint64_t offset = view_offset_of(segment, ptr);
	int state = heap_block_state(segment, offset, NULL);
	uint64_t old = debug_usable(segment, offset);
	void *moved;

	if (state == HEAP_BLOCK_PUBLISHED) {
		if (resize_published(segment, offset, size))
			return ptr;
		errno = EBUSY;
		return NULL;
	}
	moved = shale_alloc(segment, size);
	if (!moved)
		return NULL;
	memcpy(moved, ptr, old < size ? old : size);
	(void)shale_free(segment, ptr);
	return moved;
}
