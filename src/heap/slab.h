/*
 * slab.h - a slab by its number: its word, hints and facts; taking, scanning, collecting, releasing.
 *
 * Slabs are numbered over the whole heap. Addresses follow from the number and private geometry.
 */
#ifndef SHALE_HEAP_SLAB_H
#define SHALE_HEAP_SLAB_H

#include <stdbool.h>
#include <stdint.h>

#include "heap/size_class.h"
#include "heap/slab_layout.h"
#include "segment/lanes.h"
#include "segment/view.h"

static inline uint64_t slab_of_offset(const struct shale_segment *view, uint64_t offset)
{
	return (offset - view->heap_offset) >> SLAB_SHIFT;
}

static inline uint64_t slab_offset(const struct shale_segment *view, uint64_t slab)
{
	return view->heap_offset + (slab << SLAB_SHIFT);
}

static inline struct arena_shm *heap_arena(const struct shale_segment *view, uint64_t arena)
{
	return (struct arena_shm *)view_at(view, view->arena_table_offset) + arena;
}

static inline struct arena_shm *slab_arena(const struct shale_segment *view, uint64_t slab)
{
	return heap_arena(view, slab / SLABS_PER_ARENA);
}

static inline uint64_t *slab_word(const struct shale_segment *view, uint64_t slab)
{
	return &slab_arena(view, slab)->word[slab % SLABS_PER_ARENA];
}

static inline uint8_t *slab_remote_hint(const struct shale_segment *view, uint64_t slab)
{
	return &slab_arena(view, slab)->remote_hint[slab % SLABS_PER_ARENA];
}

static inline uint8_t *slab_local_hint(const struct shale_segment *view, uint64_t slab)
{
	return &slab_arena(view, slab)->local_hint[slab % SLABS_PER_ARENA];
}

static inline uint8_t *slab_own_facts(const struct shale_segment *view, const struct bin_info *bin,
				      uint64_t slab)
{
	uint64_t area = bin->facts_long ? view->long_facts_offset : view->short_facts_offset;

	return (uint8_t *)view_at(view, area + (slab << bin->facts_shift));
}

/* Is the table entry of this slab's arena committed, so that its word may be read? */
static inline bool slab_known(const struct shale_segment *view, uint64_t slab)
{
	return slab / SLABS_PER_ARENA < view_arena_high(view);
}

/* slab.c: a block of the bin when the caches are empty; NULL and *ret_error. */
unsigned char *slab_alloc_slow(struct lane *lane, unsigned bin, int *ret_error);

/*
 * Gives the lane's empty slabs back, and every parked slab or orphan, whosesoever, in which nothing
 * lives any more. Hints say which may be so; thorough: they are not asked, and every slab is looked
 * into.
 */
void slab_release_empty(struct lane *lane, bool thorough);

/* Parks every open slab of the lane, so that its pages can be purged. */
void slab_close_all(struct lane *lane);

/* Clears shared facts of free blocks, as a cut-off collect may leave them. */
void slab_normalise(struct shale_segment *view, uint64_t slab, const struct bin_info *bin);

bool slab_is_empty(struct shale_segment *view, uint64_t slab, const struct bin_info *bin);

/* Adds a slab to the lane's private list. */
void slab_remember(struct lane *lane, unsigned bin, uint64_t slab);

/* Tells allocators that there are orphans to look for. */
void slab_orphans_changed(struct shale_segment *view);

/* slab_remote.c: takes back what others freed, if the hint says so. True if any block was. */
bool slab_collect(struct shale_segment *view, uint64_t slab, const struct bin_info *bin);

/* The same whatever the hint says: what a lost one hides is found. */
bool slab_collect_all(struct shale_segment *view, uint64_t slab, const struct bin_info *bin);

#endif
