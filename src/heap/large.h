/*
 * large.h - spans: blocks above 32 KiB.
 */
#ifndef SHALE_HEAP_LARGE_H
#define SHALE_HEAP_LARGE_H

#include <stdbool.h>
#include <stdint.h>

#include "segment/lanes.h"
#include "segment/view.h"

/*
 * A span of `size` bytes at least, its offset a multiple of alignment (at most 2 MiB), with `zero`
 * of zero bytes. -ENOMEM.
 */
int span_alloc(struct lane *lane, uint64_t size, uint64_t alignment, bool zero,
	       uint64_t *ret_offset);

/*
 * Frees the span whose head word was loaded as `word`, for the lane of that number, which may be
 * dead; nothing is kept. -EALREADY somebody else has freed it.
 */
int span_free(struct shale_segment *view, uint32_t lane_index, uint64_t slab, uint64_t word);

/* Ends a span whose head is SPAN_CLAIM by the caller or by a dead lane. */
void span_dismantle(struct shale_segment *view, uint64_t head);

/* Its length in slabs, bounded by the heap. */
uint64_t span_slab_count(struct shale_segment *view, uint64_t slab);

/*
 * The slabs that it has: fewer than its length while somebody resizes it, or has died in that and is
 * not recovered yet.
 */
uint64_t span_slabs_there(struct shale_segment *view, uint64_t slab);

/* Slabs that `size` bytes need. */
static inline uint64_t span_slabs_for(uint64_t size)
{
	return size == 0 ? 1 : (size - 1) / SLAB_SIZE + 1;
}

/* -- for span_cache.c and resize.c ------------------------------------------------------------- */

/*
 * SPAN -> `low`, by the freer; *word is what the head was loaded as, and then what it is. -EALREADY.
 */
int span_leave(struct shale_segment *view, uint64_t slab, uint64_t *word, uint64_t low);

/* Does the lane (the caller's, or a dead one) name this offset; drops those names. */
bool span_named(const struct lane_shm *lane, uint64_t offset);
void span_unname(struct lane_shm *lane, uint64_t offset);

/* Written by the claimer or holder of the span only. */
void span_set_slabs(struct shale_segment *view, uint64_t head, uint64_t count);

/* FREE -> BODY(head), in a committed arena. */
bool span_claim_body(struct shale_segment *view, uint64_t slab, uint64_t head);

/* The bodies [head + from, head + to) that name the head become FREE, the last first. */
void span_free_bodies(struct shale_segment *view, uint64_t head, uint64_t from, uint64_t to);

/*
 * Slabs [first, first + count) are claimed by the caller: commits what was punched in them; they are
 * not fresh any more. With `zero` they are zero. -ENOMEM.
 */
int span_prepare(struct shale_segment *view, uint64_t first, uint64_t count, bool zero);

/* Puts the arenas of these slabs into their classes. */
void span_rank(struct shale_segment *view, uint64_t first, uint64_t count);

/* -- resize.c ------------------------------------------------------------------------------------ */

/* Recovery: the dead lane's intent is INTENT_SPAN_RESIZE. */
void span_settle_resize(struct shale_segment *view, uint32_t dead_lane);

#endif
