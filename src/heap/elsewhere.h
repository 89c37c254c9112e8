/*
 * elsewhere.h - the short way of freeing a block of a slab that another lane owns or has parked.
 */
#ifndef SHALE_HEAP_ELSEWHERE_H
#define SHALE_HEAP_ELSEWHERE_H

#include "segment/lanes.h"

/*
 * 0 freed; -EALREADY it was free; -EAGAIN nothing was done, and there is more to it than this knows: ask
 * block_find() and block_free_named(). The lane is the calling thread's.
 */
int block_free_elsewhere(struct shale_segment *view, struct lane *lane, const void *block);

#endif
