/*
 * shale/debug.h - what a segment made with shale_segment_options.debug knows about its blocks.
 *
 * GUARD: one block in guard_sample lies at the end of pages of its own, and the process that
 * allocated it gets SIGSEGV when it touches the page behind or before it; other processes do not.
 * POISON: freed bytes become 0xdf, new ones are 0xab; a write after free is noticed when the block is
 * handed out again or by shale_check(), a write behind the end when it is freed or by shale_check().
 * Any of the flags keeps, for each block, its size and who allocated it; shale_usable_size() is
 * then the size asked for. A segment without flags pays nothing for all this.
 */
#ifndef SHALE_DEBUG_H
#define SHALE_DEBUG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <shale/segment.h>
#include <shale/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What was found so far. Set `size` to sizeof(struct ...) before the call. Since 0.1. */
struct shale_debug_figures {
	size_t size;
	uint32_t flags;                /* enum shale_debug; 0: not a debug segment */
	uint32_t guard_sample;         /* one block in so many is guarded */
	uint64_t writes_after_free;    /* times one was noticed */
	uint64_t writes_behind_end;    /* times one was noticed */
	shale_ref first;               /* the block of the first of them; null: none */
	uint32_t guarded_by_this_view; /* blocks that have guards in this process now */
};

/* Fills *ret_stat. -EINVAL: its size is unknown. Works on read-only views. Since 0.1. */
SHALE_API int shale_debug_stat(struct shale_segment *segment, struct shale_debug_figures *ret_stat);

/* A live block. Since 0.1. */
struct shale_block {
	shale_ref ref;
	uint64_t usable_bytes; /* that the heap gave it */
	bool published;
	/* of a debug segment; else 0 */
	bool guarded;
	uint32_t peer;            /* slot of the process that allocated it, which may be gone */
	uint32_t lane;            /* slot of the thread's state */
	uint32_t thread;          /* the kernel's number of that thread */
	uint64_t requested_bytes; /* what was asked for */
};

/*
 * Who allocated the block at ptr. -EINVAL no live block begins there; -ENODATA not a debug segment, or
 * what was kept about the block has been overwritten. Since 0.1.
 */
SHALE_API int shale_debug_block(struct shale_segment *segment, const void *ptr,
				struct shale_block *ret_block);

typedef void (*shale_block_callback)(const struct shale_block *block, void *context);

/*
 * Calls back for each live block, in the order of addresses; works on every segment and on read-only
 * views. callback may be NULL. Returns the number of blocks. A snapshot that others change meanwhile.
 * Threads and processes: safe. Since 0.1.
 */
SHALE_API int64_t shale_debug_walk(struct shale_segment *segment, shale_block_callback callback,
				   void *context);

/* The live blocks of one size class. Since 0.1. */
struct shale_size_row {
	uint64_t block_bytes; /* of each block; 0: blocks of whole slabs, above 32 KiB */
	uint64_t blocks;
	uint64_t usable_bytes;    /* of all */
	uint64_t requested_bytes; /* of all; usable_bytes where nothing is known */
};

/*
 * Fills at most `count` rows, one for each class in ascending order and one for larger blocks, and
 * returns how many there are (73). Since 0.1.
 */
SHALE_API int shale_debug_sizes(struct shale_segment *segment, struct shale_size_row *rows,
				unsigned count);

#ifdef __cplusplus
}
#endif

#endif
