/*
 * heap.h - what the heap offers to the layers above: blocks by offset, publishing, named roots.
 *
 * Offsets are refs: bytes from the start of the segment, 0 is none. Functions return 0 or more, or a
 * negative errno. A function that takes `lane` runs on the calling thread's own lane, except in
 * recovery, where the lane is the recoverer's.
 */
#ifndef SHALE_HEAP_HEAP_H
#define SHALE_HEAP_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "segment/lanes.h"
#include "segment/view.h"

/* Allocates an unpublished, uninitialised block. -ENOMEM, -EUCLEAN. */
int heap_alloc_block(struct lane *lane, size_t size, uint64_t *ret_offset);

/* The same with the offset a multiple of alignment, a power of two up to 2 MiB. */
int heap_alloc_aligned(struct lane *lane, size_t size, size_t alignment, uint64_t *ret_offset);

/* resize.c: shale_alloc_zeroed() above 32 KiB: what is known to be zero is not touched. */
void *heap_alloc_zeroed_span(struct shale_segment *view, size_t size);

/*
 * The same two and heap_free_block() without the debug aids, which call them (heap/debug.h).
 */
int heap_alloc_raw(struct lane *lane, size_t size, size_t alignment, uint64_t *ret_offset);
int heap_free_raw(struct shale_segment *view, struct lane *lane, uint64_t offset);

/*
 * Frees the block that starts at offset, whoever owns its slab. lane is the calling thread's.
 * -EINVAL not a block start, -EALREADY not live.
 */
int heap_free_block(struct shale_segment *view, struct lane *lane, uint64_t offset);

/*
 * The same, done by recovery for a dead lane whose intent or retired list names the block. A span
 * being taken apart names the doer in its head word instead, so the dead lane's names of it are
 * cleared before its slabs become free for others.
 */
int heap_free_for(struct shale_segment *view, uint32_t dead_lane, uint64_t offset);

/*
 * Publishes a live block. 1 it was not published before; 0 it was; -EINVAL, -EALREADY (not live).
 * lane may be NULL (recovery).
 */
int heap_publish_block(struct shale_segment *view, struct lane *lane, uint64_t offset);

enum heap_block { HEAP_BLOCK_FREE = 0, HEAP_BLOCK_LIVE = 1, HEAP_BLOCK_PUBLISHED = 2 };

/* What the facts say about the block at offset; *ret_usable (may be NULL) its size. -EINVAL. */
int heap_block_state(struct shale_segment *view, uint64_t offset, uint64_t *ret_usable);

/* The start of the block in which offset lies, live or not. -EINVAL there is none. */
int heap_block_around(struct shale_segment *view, uint64_t offset, uint64_t *ret_start);

/* The address of `size` bytes at offset if they lie in the heap, else NULL. */
static inline void *heap_at(const struct shale_segment *view, uint64_t offset, uint64_t size)
{
	return view_in_heap(view, offset, size) ? view_at(view, offset) : NULL;
}

/*
 * Places `offset` into the word at `place` if that is `expected`, publishing the block, and with it
 * `companion` (0: none): settled if we die in it. -EAGAIN the word was different.
 */
int heap_publish_at(struct shale_segment *view, struct lane *lane, uint64_t offset,
		    uint64_t companion, uint64_t place, uint64_t expected);

/* Is this block named by the intent or the retired list of any lane? (slow paths only) */
bool heap_block_named(struct shale_segment *view, uint64_t offset);

/* Named roots: roots.c. The record starts with this header; the payload follows it. */
enum root_kind { ROOT_USER = 1, ROOT_MAP = 2, ROOT_CHANNEL = 3 };

struct root_shm {
	uint32_t kind;
	uint32_t reserved;
	char name[48];
	uint64_t size; /* of the record, this header included */
};
_Static_assert(sizeof(struct root_shm) == 64, "one cache line");

/*
 * Fills the payload of a new, private record; may allocate one companion block, which is published
 * with the record or freed with it. 0 or -errno.
 */
typedef int (*root_init)(struct shale_segment *view, struct lane *lane, struct root_shm *record,
			 uint64_t *ret_companion, void *context);

/*
 * Finds the record of that name, or makes one of `size` bytes (init NULL: only find). The record's
 * kind must be `kind`. lane may be NULL for finding. *ret_made (may be NULL): it is new.
 * -ENOENT, -EPROTOTYPE another kind, -EINVAL bad name, -ENOSPC table full, -ENOMEM, -EUCLEAN.
 */
int root_open(struct shale_segment *view, struct lane *lane, const char *name, enum root_kind kind,
	      uint64_t size, root_init init, void *context, uint64_t *ret_offset, bool *ret_made);

/* Calls back for each root; a callback's non-zero result ends the walk and is returned. */
typedef int (*root_callback)(struct shale_segment *view, uint64_t offset,
			     const struct root_shm *record, void *context);
int root_walk(struct shale_segment *view, root_callback callback, void *context);

#endif
