/*
 * heap.c - the front door: allocate, free, resize.
 *
 * Reads and writes the facts of slabs that the calling lane owns (slab_layout.h has the bytes), by
 * plain one-byte stores that nobody else makes; everything else is in the slow paths: slab.c takes
 * and scans slabs, slab_remote.c frees other lanes' blocks, large.c does spans.
 *
 * Invariant: HL1 a block in a lane's LIFO or mask has own == 0 in the truth.
 * Progress:  the fast paths are wait-free; slow paths are lock-free but for the kernel's commit.
 * Ordering:  own[] is read by others only through slab words (slab.word) or, for a block that they
 *            hold, after whatever handed it to them.
 * Death:     before the store of own[i] = 1 the block is free, after it it is allocated and not
 *            published: recovery frees it. Before own[i] = 0 it is live and unpublished (freed by
 *            recovery) or published (it stays: the free had not happened). LIFO and mask vanish.
 */
#include "heap/heap.h"

#include <errno.h>
#include <string.h>

#include <shale/heap.h>

#include "heap/block.h"
#include "heap/heap_lane.h"
#include "heap/large.h"
#include "heap/memory_wait.h"
#include "heap/slab.h"
#include "segment/recovery.h"

/* -- allocate ------------------------------------------------------------------------------ */

static SHALE_COLD unsigned char *alloc_slow(struct lane *lane, unsigned bin, int *ret_error)
{
	int r = heap_setup_lane(lane);

	if (r < 0) {
		*ret_error = r;
		return NULL;
	}
	return slab_alloc_slow(lane, bin, ret_error);
}

/* A block of the bin: from the LIFO, else from the mask, else the slow path. */
static inline unsigned char *alloc_bin(struct lane *lane, unsigned index, int *ret_error)
{
	struct heap_bin *bin = &heap_lane(lane)->bins[index];
	struct heap_free_block *last;
	unsigned first;

	if (likely(bin->lifo_count != 0)) {
		last = &bin->lifo[--bin->lifo_count];
		/* only the owner writes own[]; a death before or after is a whole state */
		store_relaxed(last->own, (uint8_t)OWN_ALLOCATED);
		return last->block;
	}
	if (likely(bin->mask != 0)) {
		first = lowest_bit(bin->mask);
		bin->mask &= bin->mask - 1;
		/* as above */
		store_relaxed(bin->mask_own + first, (uint8_t)OWN_ALLOCATED);
		return bin->mask_block + (uint64_t)first * bin_table[index].size;
	}
	return alloc_slow(lane, index, ret_error);
}

int heap_setup_lane(struct lane *lane)
{
	struct heap_lane *heap = heap_lane(lane);

	if (lane->view->damaged)
		return -EUCLEAN;
	if (heap->own_word == 0) {
		heap->arena_current = UINT64_MAX;
		heap->own_word = slab_low(SLAB_OWNED, lane->index, 0);
	}
	return 0;
}

static int alloc_span(struct lane *lane, size_t size, size_t alignment, uint64_t *ret_offset)
{
	int r = heap_setup_lane(lane);

	return r < 0 ? r : span_alloc(lane, size, alignment, ret_offset);
}

int heap_alloc_aligned(struct lane *lane, size_t size, size_t alignment, uint64_t *ret_offset)
{
	unsigned char *block;
	int error = -ENOMEM;

	if (size > BIN_SIZE_MAX || alignment > BIN_SIZE_MAX)
		return alloc_span(lane, size, alignment, ret_offset);
	block = alloc_bin(lane, bin_of_aligned(size, alignment), &error);
	if (!block)
		return error;
	*ret_offset = (uint64_t)(block - lane->view->base);
	return 0;
}

int heap_alloc_block(struct lane *lane, size_t size, uint64_t *ret_offset)
{
	return heap_alloc_aligned(lane, size, 1, ret_offset);
}

void *shale_alloc(struct shale_segment *segment, size_t size)
{
	struct lane *lane;
	unsigned char *block;
	uint64_t offset;
	int r;

	r = lane_enter(segment, &lane);
	if (unlikely(r < 0)) {
		errno = -r;
		return NULL;
	}
	if (likely(size <= BIN_SIZE_MAX)) {
		r = -ENOMEM;
		block = alloc_bin(lane, bin_of_size(size), &r);
		if (unlikely(!block))
			errno = -r;
		return block;
	}
	r = alloc_span(lane, size, 1, &offset);
	if (r < 0) {
		errno = -r;
		return NULL;
	}
	return view_at(segment, offset);
}

void *shale_alloc_aligned(struct shale_segment *segment, size_t size, size_t alignment)
{
	struct lane *lane;
	uint64_t offset = 0;
	int r = -EINVAL;

	if (is_power_of_two(alignment) && alignment <= ARENA_SIZE)
		r = lane_enter(segment, &lane);
	if (r == 0)
		r = heap_alloc_aligned(lane, size, alignment, &offset);
	if (r < 0) {
		errno = -r;
		return NULL;
	}
	return view_at(segment, offset);
}

void *shale_alloc_zeroed(struct shale_segment *segment, size_t size)
{
	void *block = shale_alloc(segment, size);

	return block ? memset(block, 0, size) : NULL;
}

/* -- free ------------------------------------------------------------------------- */

/* The owner frees a block of a slab in which somebody else has changed shared[]. */
static SHALE_COLD int free_local_shared(const struct block_place *place)
{
	/* pairs: slab.shared - a freer's store is seen here or by a collect later. */
	uint8_t fact = load_acquire(place->shared);

	if (fact == SHARED_FREED)
		return -EALREADY;
	if (fact != SHARED_NONE) {
		/* an old "published" must not pass to the next holder; we hold the block now */
		store_relaxed(place->shared, (uint8_t)SHARED_NONE);
		order_for_death();
	}
	return 0;
}

static inline int free_local(struct lane *lane, const struct block_place *place, uint64_t offset)
{
	const struct shale_segment *view = lane->view;
	struct heap_bin *bin = &heap_lane(lane)->bins[slab_word_bin(place->word)];
	uint8_t *hint;

	/* only this lane writes own[] of its slabs */
	if (unlikely(load_relaxed(place->own) == OWN_FREE))
		return -EALREADY;
	/* a hint that comes too late belongs to a free that is itself a double free */
	if (unlikely((load_relaxed(slab_remote_hint(view, place->slab)) |
		      load_relaxed(slab_publish_hint(view, place->slab))) != 0)) {
		int r = free_local_shared(place);

		if (r < 0)
			return r;
	}
	/* one store: before it the block is live, after it free */
	store_relaxed(place->own, (uint8_t)OWN_FREE);
	if (likely(bin->lifo_count < HEAP_LIFO)) {
		bin->lifo[bin->lifo_count].block = view_at(view, offset);
		bin->lifo[bin->lifo_count++].own = place->own;
		return 0;
	}
	hint = slab_local_hint(view, place->slab);
	/* written by this lane alone; read first to keep the line clean */
	if (load_relaxed(hint) == 0)
		store_relaxed(hint, (uint8_t)1);
	if (unlikely(memory_wanted(view)))
		memory_local_free(lane, slab_word_bin(place->word), place->slab);
	return 0;
}

int heap_free_block(struct shale_segment *view, struct lane *lane, uint64_t offset)
{
	struct block_place place;
	int r = block_find(view, offset, &place);

	if (unlikely(r < 0))
		return r;
	if (!place.bin)
		return span_free(view, lane->index, place.slab, place.word);
	/* a wiped or fresh lane has own_word 0, which no owned slab matches */
	if (likely((place.word & SLAB_OWNER_MASK) == heap_lane(lane)->own_word))
		return free_local(lane, &place, offset);
	return block_free_remote(view, &place);
}

int heap_free_for(struct shale_segment *view, uint32_t dead_lane, uint64_t offset)
{
	struct block_place place;
	int r = block_find(view, offset, &place);

	if (r < 0)
		return r;
	if (!place.bin)
		return span_free(view, dead_lane, place.slab, place.word);
	return block_free_remote(view, &place);
}

int shale_free(struct shale_segment *segment, void *ptr)
{
	struct lane *lane;
	uint64_t offset;
	int r;

	if (!ptr)
		return 0;
	offset = view_offset_of(segment, ptr);
	if (unlikely(offset == 0))
		return -EINVAL;
	r = lane_enter(segment, &lane);
	if (unlikely(r < 0))
		return r;
	return heap_free_block(segment, lane, offset);
}

/* -- resize and inspect ---------------------------------------------------------------------- */

size_t shale_usable_size(struct shale_segment *segment, const void *ptr)
{
	uint64_t offset = view_offset_of(segment, ptr);
	uint64_t usable = 0;

	if (offset == 0 || heap_block_state(segment, offset, &usable) < HEAP_BLOCK_LIVE)
		return 0;
	return usable;
}

static void *resize_move(struct shale_segment *segment, void *ptr, size_t old_usable, size_t size)
{
	void *moved = shale_alloc(segment, size);

	if (!moved)
		return NULL;
	memcpy(moved, ptr, old_usable < size ? old_usable : size);
	(void)shale_free(segment, ptr);
	return moved;
}

void *shale_resize(struct shale_segment *segment, void *ptr, size_t size)
{
	uint64_t usable = 0;
	int state;

	if (!ptr)
		return shale_alloc(segment, size);
	state = heap_block_state(segment, view_offset_of(segment, ptr), &usable);
	if (state < HEAP_BLOCK_LIVE) {
		errno = EINVAL;
		return NULL;
	}
	/* stay while the block is large enough, and small or at least a quarter used */
	if (size <= usable && (size >= usable / 4 || usable <= 128))
		return ptr;
	if (state == HEAP_BLOCK_PUBLISHED) {
		if (size <= usable)
			return ptr;
		errno = EBUSY;
		return NULL;
	}
	return resize_move(segment, ptr, usable, size);
}

shale_ref shale_ref_of(const struct shale_segment *segment, const void *ptr)
{
	uint64_t offset = ptr ? view_offset_of(segment, ptr) : 0;

	return (shale_ref){view_in_heap(segment, offset, 0) ? offset : 0};
}

void *shale_ptr(const struct shale_segment *segment, shale_ref ref, size_t size)
{
	return ref.off == 0 ? NULL : heap_at(segment, ref.off, size);
}
