/*
 * block.h - a block found from an offset that somebody gave us.
 *
 * The slab word is loaded once; everything else follows from it and from private geometry.
 */
#ifndef SHALE_HEAP_BLOCK_H
#define SHALE_HEAP_BLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "heap/size_class.h"
#include "segment/view.h"

struct block_place {
	uint64_t slab;
	uint64_t word; /* the slab word as it was loaded */
	const struct bin_info *bin;
	uint32_t index;
	uint8_t *own;    /* NULL for a span */
	uint8_t *shared; /* NULL for a span */
};

/* 0; -EINVAL no block starts at offset; -EALREADY the slab is free; -EUCLEAN a lying word. */
int block_find(struct shale_segment *view, uint64_t offset, struct block_place *ret_place);

/* slab_remote.c: frees a block of a slab that somebody else owns. -EALREADY it is not live. */
int block_free_remote(struct shale_segment *view, const struct block_place *place);

#endif
