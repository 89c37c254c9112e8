/*
 * large.h - spans: blocks above 32 KiB.
 */
#ifndef SHALE_HEAP_LARGE_H
#define SHALE_HEAP_LARGE_H

#include <stdbool.h>
#include <stdint.h>

#include "segment/lanes.h"
#include "segment/view.h"

/* A span of `size` bytes at least, its offset a multiple of alignment (at most 2 MiB). -ENOMEM. */
int span_alloc(struct lane *lane, uint64_t size, uint64_t alignment, uint64_t *ret_offset);

/*
 * Frees the span whose head word was loaded as `word`, for the lane of that number, which may be
 * dead. -EALREADY somebody else has freed it.
 */
int span_free(struct shale_segment *view, uint32_t lane_index, uint64_t slab, uint64_t word);

/* Ends a span whose head is SPAN_CLAIM by the caller or by a dead lane. */
void span_dismantle(struct shale_segment *view, uint64_t head);

/* Its length in slabs, bounded by the heap. */
uint64_t span_slab_count(struct shale_segment *view, uint64_t slab);

#endif
