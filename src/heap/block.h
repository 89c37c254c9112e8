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
#include "heap/slab_layout.h"
#include "segment/lanes.h"
#include "segment/view.h"

struct block_place {
	uint64_t slab;
	uint64_t word; /* the slab word as it was loaded */
	const struct bin_info *bin;
	uint32_t index;
	uint8_t *own;    /* NULL for a span; with SLAB_SPARSE a byte of struct sparse_fact */
	uint8_t *shared; /* as own */
};

/*
 * 0; -EINVAL no block starts at offset; -EALREADY the slab is free; -EUCLEAN a lying word. What is
 * written to *ret_place counts only with 0.
 */
int block_find(struct shale_segment *view, uint64_t offset, struct block_place *ret_place);

/*
 * The holder changes its block's shared fact, by one locked instruction: the value that was there.
 * SHARED_FREED: it is nobody's any more, and stays so. SHARED_MOVED: the fact is not there (any more).
 * The caller looks at the slab word afterwards: the fact counts only where the word says it is.
 */
#define SHARED_MOVED 0xffu
/* The facts are entry i of the slab's sparse ones. */
void block_place_sparse(struct shale_segment *view, struct block_place *place, unsigned i);
uint8_t block_set_shared(const struct block_place *place, enum shared_fact value);

/*
 * slab_remote.c: frees a block of a slab that is not open and the lane's own. `lane` is the calling
 * thread's, or NULL: recovery frees for the dead lane `index`. -EALREADY it is not live.
 */
int block_free_named(struct shale_segment *view, struct lane *lane, uint32_t index,
		     struct block_place *place);

/*
 * The same for a block that lane->freeing names, after its shared fact was exchanged for FREED (it was
 * `before`) and the slab word had changed meanwhile: the fact may have been elsewhere.
 */
int block_free_astray(struct shale_segment *view, struct lane *lane, uint8_t before);

#endif
