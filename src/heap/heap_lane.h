/*
 * heap_lane.h - the private half of a lane: caches that may vanish at any instruction.
 *
 * For each bin a LIFO of blocks freed last, a mask over the 64 blocks scanned last, and the list of
 * slabs that the lane owns. All of it holds only blocks that are free in the truth (own[i] == 0), so
 * losing it loses nothing. Zero bytes are a valid empty state: that is what a forked child sees.
 */
#ifndef SHALE_HEAP_HEAP_LANE_H
#define SHALE_HEAP_HEAP_LANE_H

#include <stdbool.h>
#include <stdint.h>

#include "heap/heap.h"
#include "heap/size_class.h"
#include "heap/slab_layout.h"
#include "segment/lanes.h"

#define HEAP_LIFO 16u

struct heap_free_block {
	unsigned char *block;
	uint8_t *own; /* its fact */
};

struct heap_bin {
	uint32_t lifo_count;
	uint32_t scan_next;        /* next block index to scan in the current slab */
	uint64_t mask;             /* free blocks among the 64 from mask_first on */
	unsigned char *mask_block; /* address of block mask_first */
	uint8_t *mask_own;         /* its fact */
	uint64_t slab;             /* current slab, valid if has_slab */
	bool has_slab;
	uint32_t owned_count;
	uint32_t owned_room;
	uint32_t owned_cursor;
	uint32_t orphans_seen; /* value of the orphan hint when none was found */
	uint64_t *owned;       /* slabs that we own, as far as remembered */
	struct heap_free_block lifo[HEAP_LIFO];
};

struct heap_lane {
	uint64_t own_word;      /* state and lane bits that mark a slab as ours; 0: not set up */
	uint64_t arena_current; /* where the last free slab was found */
	uint32_t orphans_swept; /* value of the orphan hint when empty ones were last looked for */
	struct heap_bin bins[BIN_COUNT];
};

_Static_assert(sizeof(struct heap_lane) <= LANE_HEAP_BYTES, "the lane reserves enough");

#define SLAB_OWNER_MASK (SLAB_STATE_MASK | (UINT64_C(0xfff) << SLAB_LANE_SHIFT))

static inline struct heap_lane *heap_lane(struct lane *lane)
{
	return (struct heap_lane *)(void *)lane->heap;
}

/* -- From an offset to the words that tell about it. Slabs are numbered over the whole heap. -- */

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

/*
 * Set before a block is published by someone who does not own its slab, and never cleared while the
 * slab is owned: unlike remote_hint, which a collect clears, it is not a hint that may be lost.
 */
static inline uint8_t *slab_publish_hint(const struct shale_segment *view, uint64_t slab)
{
	return &slab_arena(view, slab)->publish_hint[slab % SLABS_PER_ARENA];
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

/* A block found from an offset that somebody gave us: every field is checked and private. */
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

/* -- arena.c -- */
int arena_take_slab(struct lane *lane, const struct bin_info *bin, bool commit, uint64_t *ret_slab);
int arena_commit_any(struct lane *lane, uint64_t from, uint64_t *ret_arena);
void arena_note_free(struct shale_segment *view, uint64_t slab);
bool arena_committed(struct shale_segment *view, uint64_t arena);
uint64_t arena_committed_bytes(struct shale_segment *view);
uint64_t arena_long_facts_bytes(struct shale_segment *view);

/* -- slab.c -- */
unsigned char *slab_alloc_slow(struct lane *lane, unsigned bin, int *ret_error);
/*
 * Gives the lane's empty slabs back, and every orphan in which nothing lives any more. Hints say
 * which may be so; thorough: they are not asked, and every slab is looked into.
 */
void slab_release_empty(struct lane *lane, bool thorough);
void slab_normalise(struct shale_segment *view, uint64_t slab, const struct bin_info *bin);
bool slab_is_empty(struct shale_segment *view, uint64_t slab, const struct bin_info *bin);
void slab_remember(struct lane *lane, unsigned bin, uint64_t slab);
void slab_orphans_changed(struct shale_segment *view);

/* -- slab_remote.c -- */
int block_free_remote(struct shale_segment *view, const struct block_place *place);
/* True if any block was taken back. */
bool slab_collect(struct shale_segment *view, uint64_t slab, const struct bin_info *bin);
/* The same whatever the hint says: what a lost one hides is found. */
bool slab_collect_all(struct shale_segment *view, uint64_t slab, const struct bin_info *bin);

/* -- large.c -- */
int span_alloc(struct lane *lane, uint64_t size, uint64_t alignment, uint64_t *ret_offset);
int span_free(struct shale_segment *view, uint32_t lane_index, uint64_t slab, uint64_t word);
void span_dismantle(struct shale_segment *view, uint64_t head);
uint64_t span_slab_count(struct shale_segment *view, uint64_t slab);

/* -- heap.c -- */
int heap_alloc_aligned(struct lane *lane, size_t size, size_t alignment, uint64_t *ret_offset);
int heap_setup_lane(struct lane *lane);

#endif
