/*
 * arena.h - committing arenas, and a free slab in them. Functions return 0 or more, or -errno.
 */
#ifndef SHALE_HEAP_ARENA_H
#define SHALE_HEAP_ARENA_H

#include <stdbool.h>
#include <stdint.h>

#include "heap/size_class.h"
#include "segment/lanes.h"
#include "segment/view.h"

/*
 * Takes a free slab for the bin, from the fullest arena that has one; commits an arena if need be
 * and allowed. heap_lane.taken_fresh: its pages are zero. -ENOMEM.
 */
int arena_take_slab(struct lane *lane, const struct bin_info *bin, bool commit, uint64_t *ret_slab);

/* 1 + the node on which memory is wanted now; 0: it does not matter, or there is only one. */
unsigned arena_node_here(const struct shale_segment *view);

/* Commits some arena that is not; `node` as above. -ENOMEM. */
int arena_commit_any(struct lane *lane, unsigned node, uint64_t *ret_arena);

/* Commits this one, unless it is. -EAGAIN somebody is about to commit or to return it; -ENOMEM. */
int arena_commit_at(struct lane *lane, uint64_t arena, unsigned node);

/*
 * For slabs of the arena (bits of `mask`) that the caller has claimed: pages that were given back
 * come again, and the slabs are not fresh any more. *ret_fresh (may be NULL): those that were, which
 * are zero. With `zero` the others become so. -ENOMEM.
 */
int arena_prepare(struct shale_segment *view, uint64_t arena, uint32_t mask, bool zero,
		  uint32_t *ret_fresh);

/* Tells searches that this slab has become free. */
void arena_note_free(struct shale_segment *view, uint64_t slab);

/* The long facts of a slab that is the caller's: committed and zero. -ENOMEM. */
int arena_commit_long_facts(struct shale_segment *view, uint64_t slab);

bool arena_committed(struct shale_segment *view, uint64_t arena);

/* For budget and statistics: arenas, those on their way included; facts of small blocks. */
uint64_t arena_committed_bytes(struct shale_segment *view);
uint64_t arena_long_facts_bytes(struct shale_segment *view);

#endif
