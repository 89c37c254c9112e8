/*
 * span_search.h - where a run of free slabs is.
 */
#ifndef SHALE_HEAP_SPAN_SEARCH_H
#define SHALE_HEAP_SPAN_SEARCH_H

#include <stdbool.h>
#include <stdint.h>

#include "segment/lanes.h"

struct span_want {
	uint64_t count; /* slabs in a row */
	uint64_t step;  /* the first is a multiple of it: a power of two, at most 32 */
	bool zero;      /* all bytes 0 */
};

/*
 * Finds a run by the ranks and claims it; with `commit` arenas without memory are part of it and
 * get theirs. -EAGAIN there is none (or, with commit, others were faster), -ENOMEM.
 */
int span_search(struct lane *lane, const struct span_want *want, bool commit, uint64_t *ret_head);

/* The same without the ranks, in committed arenas: walks every slab word. */
int span_search_all(struct lane *lane, const struct span_want *want, uint64_t *ret_head);

/* large.c: claims the run that begins at `head`. -EAGAIN somebody has a slab of it; -ENOMEM. */
int span_claim(struct lane *lane, const struct span_want *want, uint64_t head);

#endif
