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

/* Takes a free slab for the bin; commits an arena if need be and allowed. -ENOMEM. */
int arena_take_slab(struct lane *lane, const struct bin_info *bin, bool commit, uint64_t *ret_slab);

/* Commits the first arena at or after `from` that is not committed. -ENOMEM. */
int arena_commit_any(struct lane *lane, uint64_t from, uint64_t *ret_arena);

/* Tells searches that this slab has become free. */
void arena_note_free(struct shale_segment *view, uint64_t slab);

/* The long facts of a slab that is the caller's: committed and zero. -ENOMEM. */
int arena_commit_long_facts(struct shale_segment *view, uint64_t slab);

bool arena_committed(struct shale_segment *view, uint64_t arena);

/* For budget and statistics: arenas, those on their way included; facts of small blocks. */
uint64_t arena_committed_bytes(struct shale_segment *view);
uint64_t arena_long_facts_bytes(struct shale_segment *view);

#endif
