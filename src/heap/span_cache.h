/*
 * span_cache.h - freed spans that a lane keeps whole for its next ones.
 */
#ifndef SHALE_HEAP_SPAN_CACHE_H
#define SHALE_HEAP_SPAN_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "segment/lanes.h"
#include "segment/view.h"

#define SPAN_CACHE_SPANS   64u
#define SPAN_CACHE_SLABS   1024u /* 64 MiB */
#define SPAN_CACHE_CLASSES 64u   /* by length: eight to each doubling */

struct span_cached {
	uint64_t word; /* of the head, as we left it */
	uint64_t head;
	uint32_t length;
	uint32_t stamp; /* grows with each span kept */
};

/* A memory aid: what is cached is in the slab words. Zero bytes are an empty cache. */
struct span_cache {
	uint64_t used;    /* bit i: span[i] is one */
	uint64_t classes; /* bit c: class[c] is not 0 */
	uint32_t slabs;   /* in all of them */
	uint32_t stamp;
	uint64_t class[SPAN_CACHE_CLASSES]; /* bit i: span[i] is of that class */
	struct span_cached span[SPAN_CACHE_SPANS];
};

/*
 * Frees the span whose head word was loaded as `word`, by the calling thread's lane: kept in its
 * cache, or taken apart. -EALREADY somebody else has freed it.
 */
int span_cache_free(struct lane *lane, uint64_t slab, uint64_t word);

/*
 * A cached span of `count` slabs at least, its head a multiple of `step`, now SPAN(lane): the one
 * that fits best, about a quarter longer at most. With `cut` any longer one; its tail is given back.
 */
bool span_cache_take(struct lane *lane, uint64_t count, uint64_t step, bool cut,
		     uint64_t *ret_head);

/* Takes apart the lane's cached spans, or with `all` everybody's. True if there was any. */
bool span_steal_cached(struct lane *lane, bool all);

/* Recovery: the lane of the SPAN_CACHED word is dead. */
void span_cache_settle(struct shale_segment *view, uint32_t dead_lane, uint64_t slab,
		       uint64_t word);

#endif
