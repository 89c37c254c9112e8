/*
 * heap.c - the front door: allocate, free (resize.c has the rest).
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
#include "heap/debug.h"
#include "heap/elsewhere.h"
#include "heap/heap_lane.h"
#include "heap/large.h"
#include "heap/memory_wait.h"
#include "heap/parked.h"
#include "heap/slab.h"
#include "segment/recovery.h"

/* -- allocate ------------------------------------------------------------------------------ */

/* The LIFO is not empty. */
static inline unsigned char *bin_pop_last(struct heap_bin *bin)
{
	struct heap_free_block *top = bin->top;

	bin->top = top - 1;
	/* only the owner writes own[]; a death before or after is a whole state */
	store_relaxed(top->own, (uint8_t)OWN_ALLOCATED);
	return top->block;
}

/* The mask is not empty. */
static inline unsigned char *bin_pop_scanned(struct heap_bin *bin)
{
	unsigned first = lowest_bit(bin->mask);
	uint64_t size = bin->size;
	unsigned char *block = bin->mask_block + first * size;

	bin->mask &= bin->mask - 1;
	/* as above */
	store_relaxed(bin->mask_own + first, (uint8_t)OWN_ALLOCATED);
	/* where the next one begins and ends: scanned blocks were not used lately */
	prefetch_for_write(block + size);
	prefetch_for_write(block + 2 * size - 8);
	return block;
}

static SHALE_COLD unsigned char *alloc_refill(struct lane *lane, unsigned index, int *ret_error)
{
	int r = heap_setup_lane(lane);

	if (r < 0) {
		*ret_error = r;
		return NULL;
	}
	return slab_alloc_slow(lane, index, ret_error);
}

static inline unsigned char *alloc_bin(struct lane *lane, unsigned index, int *ret_error)
{
	struct heap_bin *bin = heap_bin(lane, index);

	if (likely(!heap_lifo_empty(bin)))
		return bin_pop_last(bin);
	if (likely(bin->mask != 0))
		return bin_pop_scanned(bin);
	return alloc_refill(lane, index, ret_error);
}

/* What the fast paths read of a lane, written once, before the first slab is taken. */
static void fill_lane(struct lane *lane)
{
	const struct shale_segment *view = lane->view;
	struct heap_lane *heap = heap_lane(lane);

	for (unsigned i = 0; i < BIN_COUNT; i++) {
		const struct bin_info *info = &bin_table[i];
		struct heap_bin *bin = heap_bin(lane, i);

		bin->top = heap->lifo[i];
		bin->reciprocal = info->reciprocal;
		bin->limit = info->limit;
		bin->half = info->facts_half;
		bin->size = (uint16_t)info->size;
		bin->stride = UINT64_C(1) << info->facts_shift;
		bin->facts = slab_own_facts(view, info, 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(heap->size_bins); i++)
		heap->size_bins[i] = heap_bin_place(bin_of_size(i * HEAP_SIZE_STEP));
	heap->base = (uintptr_t)view_at(view, view->heap_offset);
	heap->slab_count = (uint64_t)view->arena_count * SLABS_PER_ARENA;
}

int heap_setup_lane(struct lane *lane)
{
	struct heap_lane *heap = heap_lane(lane);

	if (lane->view->damaged)
		return -EUCLEAN;
	if (heap->own_word == 0) {
		fill_lane(lane);
		heap->arena_current = UINT64_MAX;
		heap->own_word = slab_low(SLAB_OWNED, lane->index, 0);
	}
	return 0;
}

static int alloc_span(struct lane *lane, size_t size, size_t alignment, uint64_t *ret_offset)
{
	int r = heap_setup_lane(lane);

	return r < 0 ? r : span_alloc(lane, size, alignment, false, ret_offset);
}

int heap_alloc_raw(struct lane *lane, size_t size, size_t alignment, uint64_t *ret_offset)
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

int heap_alloc_aligned(struct lane *lane, size_t size, size_t alignment, uint64_t *ret_offset)
{
	if (unlikely(lane->view->debug != 0))
		return debug_alloc(lane, size, alignment, false, ret_offset);
	return heap_alloc_raw(lane, size, alignment, ret_offset);
}

int heap_alloc_block(struct lane *lane, size_t size, uint64_t *ret_offset)
{
	return heap_alloc_aligned(lane, size, 1, ret_offset);
}

/* Everything but a block out of the caches of the lane that this thread used last. */
static SHALE_COLD void *alloc_any(struct shale_segment *segment, size_t size, size_t alignment)
{
	struct lane *lane;
	uint64_t offset = 0;
	int r = lane_enter(segment, &lane);

	if (r == 0)
		r = segment->debug ? debug_alloc(lane, size, alignment, true, &offset)
				   : heap_alloc_raw(lane, size, alignment, &offset);
	if (r < 0) {
		errno = -r;
		return NULL;
	}
	return view_at(segment, offset);
}

void *shale_alloc(struct shale_segment *segment, size_t size)
{
	struct heap_lane *heap;
	struct heap_bin *bin;
	struct lane *lane;

	/* a lane of zeroes, as a forked child has it, has no bin for any size */
	if (likely(lane_last(segment, &lane) && size <= BIN_SIZE_MAX)) {
		heap = heap_lane(lane);
		bin = heap_bin_at(heap,
				  heap->size_bins[(size + HEAP_SIZE_STEP - 1) / HEAP_SIZE_STEP]);
		if (likely(!heap_lifo_empty(bin)))
			return bin_pop_last(bin);
		if (likely(bin->mask != 0))
			return bin_pop_scanned(bin);
	}
	return alloc_any(segment, size, 1);
}

static SHALE_COLD void *alloc_any_class(struct shale_segment *segment, unsigned size_class)
{
	if (size_class < BIN_COUNT)
		return alloc_any(segment, bin_table[size_class].size, 1);
	errno = EINVAL;
	return NULL;
}

void *shale_alloc_class(struct shale_segment *segment, unsigned int size_class)
{
	struct heap_bin *bin;
	struct lane *lane;

	if (likely(lane_last(segment, &lane) && size_class < BIN_COUNT)) {
		bin = heap_bin(lane, size_class);
		if (likely(!heap_lifo_empty(bin)))
			return bin_pop_last(bin);
		if (likely(bin->mask != 0))
			return bin_pop_scanned(bin);
	}
	return alloc_any_class(segment, size_class);
}

void *shale_alloc_aligned(struct shale_segment *segment, size_t size, size_t alignment)
{
	if (is_power_of_two(alignment) && alignment <= ARENA_SIZE)
		return alloc_any(segment, size, alignment);
	errno = EINVAL;
	return NULL;
}

void *shale_alloc_zeroed(struct shale_segment *segment, size_t size)
{
	struct heap_bin *bin;
	struct lane *lane;
	void *block;

	if (size > BIN_SIZE_MAX && segment->debug == 0)
		return heap_alloc_zeroed_span(segment, size);
	if (likely(lane_last(segment, &lane))) {
		bin = heap_bin(lane, bin_of_size(size));
		/* what the kernel has just given is not zeroed again */
		if (bin->fresh && bin->mask != 0 && heap_lifo_empty(bin))
			return bin_pop_scanned(bin);
	}
	block = shale_alloc(segment, size);
	return block ? memset(block, 0, size) : NULL;
}

/* -- free ------------------------------------------------------------------------- */

/*
 * The LIFO is full: a scan will find the block. Has the arguments of shale_free() where they are, so
 * that the way there costs no register.
 */
static __attribute__((noinline)) int free_for_scan(const struct shale_segment *segment,
						   const void *block, struct lane *lane)
{
	uint64_t offset = (uint64_t)((uintptr_t)block - (uintptr_t)segment->base);
	uint64_t slab = slab_of_offset(segment, offset);

	heap_slab(lane, slab)->freed = 1;
	return 0;
}

/* One store: before it the block is live, after it free. Then it is remembered for an allocation. */
static inline int bin_free(const struct shale_segment *segment, struct lane *lane,
			   struct heap_bin *bin, void *block, uint8_t *own)
{
	struct heap_free_block *next = bin->top + 1;

	/* only the owner writes own[] */
	store_relaxed(own, (uint8_t)OWN_FREE);
	if (unlikely(((uintptr_t)next & (HEAP_LIFO_BYTES - 1)) == 0))
		return free_for_scan(segment, block, lane);
	*next = (struct heap_free_block){block, own};
	bin->top = next;
	return 0;
}

/*
 * Is it a live block of a slab that the lane owns, of which nobody else has touched the facts? Whatever
 * the address is, what is read is private memory, or a fact of a slab that is ours.
 */
static inline bool is_own(struct lane *lane, const void *block, struct heap_bin **ret_bin,
			  uint8_t **ret_own)
{
	struct heap_lane *heap = heap_lane(lane);
	uint64_t slab = ((uintptr_t)block - heap->base) >> SLAB_SHIFT;
	struct heap_bin *bin;
	uint64_t product;
	uint8_t *own;

	if (unlikely(slab >= heap->slab_count))
		return false;
	/* the entry that is none has the limit 0, for slabs that are not ours */
	bin = heap_bin_at(heap, heap_slab(lane, slab)->bin);
	product = (uint16_t)(uintptr_t)block * bin->reciprocal;
	if (unlikely((uint32_t)product >= bin->limit))
		return false;
	own = bin->facts + slab * bin->stride + (product >> 32);
	*ret_bin = bin;
	*ret_own = own;
	/* only this lane writes own[] of its slabs, hence a plain load; a free by somebody else that
	 * comes later than this look is itself a double free */
	return likely(*own > load_relaxed(own + bin->half));
}

/* The owner frees a block of a slab in which somebody else has changed shared[]. */
static int free_local_shared(const struct block_place *place)
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

/* Another way to a block of our own: found by the slab word. */
static int free_local(struct lane *lane, const struct block_place *place, uint64_t offset)
{
	unsigned index = slab_word_bin(place->word);
	int r;

	/* what we own we know: this word is somebody else's work */
	if (heap_slab(lane, place->slab)->bin != heap_bin_place(index))
		return view_damaged(lane->view);
	/* only this lane writes own[] of its slabs */
	if (load_relaxed(place->own) == OWN_FREE)
		return -EALREADY;
	r = free_local_shared(place);
	if (r < 0)
		return r;
	return bin_free(lane->view, lane, heap_bin(lane, index), view_at(lane->view, offset),
			place->own);
}

static SHALE_COLD int free_any(struct shale_segment *view, struct lane *lane, uint64_t offset)
{
	struct block_place place;
	int r = block_find(view, offset, &place);

	if (r < 0)
		return r;
	if (!place.bin)
		return span_cache_free(lane, place.slab, place.word);
	/* a thread that only frees is to have the short ways as well; a damaged view it frees in too */
	(void)heap_setup_lane(lane);
	/* a lane that could not be set up has own_word 0, which no owned slab matches */
	if ((place.word & SLAB_OWNER_MASK) == heap_lane(lane)->own_word)
		return free_local(lane, &place, offset);
	if (slab_reopen_for_free(lane, &place))
		return free_local(lane, &place, offset);
	return block_free_named(view, lane, lane->index, &place);
}

int heap_free_raw(struct shale_segment *view, struct lane *lane, uint64_t offset)
{
	void *block = view_at(view, offset);
	struct heap_bin *bin;
	uint8_t *own;
	int r;

	if (likely(is_own(lane, block, &bin, &own)))
		return bin_free(view, lane, bin, block, own);
	r = block_free_elsewhere(view, lane, block);
	return r != -EAGAIN ? r : free_any(view, lane, offset);
}

int heap_free_block(struct shale_segment *view, struct lane *lane, uint64_t offset)
{
	if (unlikely(view->debug != 0))
		return debug_free(view, lane, offset);
	return heap_free_raw(view, lane, offset);
}

int heap_free_for(struct shale_segment *view, uint32_t dead_lane, uint64_t offset)
{
	struct block_place place;
	int r = block_find(view, offset, &place);

	if (r < 0)
		return r;
	if (!place.bin)
		return span_free(view, dead_lane, place.slab, place.word);
	return block_free_named(view, NULL, dead_lane, &place);
}

/* Whatever is not a block. */
static SHALE_COLD int free_address(struct shale_segment *segment, void *ptr)
{
	struct lane *lane;
	uint64_t offset;
	int r;

	if (!ptr)
		return 0;
	offset = view_offset_of(segment, ptr);
	if (offset == 0)
		return -EINVAL;
	r = lane_enter(segment, &lane);
	return r < 0 ? r : heap_free_block(segment, lane, offset);
}

/* Not a block of the lane that this thread used last. */
static __attribute__((noinline)) int free_elsewhere(struct shale_segment *segment, void *ptr)
{
	struct lane *lane;
	int r = -EAGAIN;

	if (lane_last(segment, &lane))
		r = block_free_elsewhere(segment, lane, ptr);
	return r != -EAGAIN ? r : free_address(segment, ptr);
}

int shale_free(struct shale_segment *segment, void *ptr)
{
	struct heap_bin *bin;
	struct lane *lane;
	uint8_t *own;

	if (likely(lane_last(segment, &lane) && is_own(lane, ptr, &bin, &own)))
		return bin_free(segment, lane, bin, ptr, own);
	return free_elsewhere(segment, ptr);
}

/* -- inspect ---------------------------------------------------------------------- */

size_t shale_usable_size(struct shale_segment *segment, const void *ptr)
{
	uint64_t offset = view_offset_of(segment, ptr);
	uint64_t usable = 0;

	if (offset == 0 || heap_block_state(segment, offset, &usable) < HEAP_BLOCK_LIVE)
		return 0;
	return segment->debug ? debug_usable(segment, offset) : usable;
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
