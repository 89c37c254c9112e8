/*
 * rank.h - arenas in classes by their free slabs; the first arena of a class in a few loads.
 *
 * All of it is a hint (docs/design/arenas.md): an answer must be tested on the slab words, and
 * rank_update() called when it was wrong.
 */
#ifndef SHALE_HEAP_RANK_H
#define SHALE_HEAP_RANK_H

#include <stdbool.h>
#include <stdint.h>

#include "segment/view.h"

enum rank {
	RANK_UNCOMMITTED = 0,
	RANK_FULLEST = 1,
	RANK_EMPTY = 7,
	RANK_NOWHERE = 8, /* full, or on its way into or out of memory */
};

/* The class of a committed arena with that many free slabs. */
unsigned rank_of_free(unsigned free_slabs);

/* The lowest class in which an arena may have that many free slabs; 1 <= slabs <= 32. */
unsigned rank_with_room(unsigned slabs);

/* A bit for each slab of the arena whose word is FREE, whatever the arena's state. */
uint32_t rank_free_mask(const struct shale_segment *view, uint64_t arena);

/* Puts the arena into its class, whichever it was in; returns the class. The arena is below the mark. */
unsigned rank_update(struct shale_segment *view, uint64_t arena);

/* The same for an arena about to come below the mark: its entry is committed, and it has no memory. */
void rank_announce(struct shale_segment *view, uint64_t arena);

/* Notes that the arena is on the node (1 + its number; 0: unknown, nothing is noted). */
void rank_set_node(struct shale_segment *view, uint64_t arena, unsigned node);

/*
 * The first arena at or after `from` and below the mark that the bits have in the class; with `node`
 * (as above) only one that is on it. False: none.
 */
bool rank_next(struct shale_segment *view, unsigned rank, uint64_t from, unsigned node,
	       uint64_t *ret_arena);

/*
 * The bits of the 64 arenas from `arena` on, a multiple of 64 below the mark; those at or above the
 * mark are 0.
 */
uint64_t rank_bits(struct shale_segment *view, unsigned rank, uint64_t arena);

/* Counts every arena below the mark anew. */
void rank_repair(struct shale_segment *view);

#endif
