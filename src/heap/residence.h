/*
 * residence.h - which pages of a segment are in memory and on which node: the walk that looking and
 * moving share. Everything goes in chunks of at most an arena.
 */
#ifndef SHALE_HEAP_RESIDENCE_H
#define SHALE_HEAP_RESIDENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "segment/view.h"

#define CHUNK_PAGES ((unsigned)(ARENA_SIZE / 4096u))

/* Pages of a chunk that are in memory: 4 KiB each, or the one huge page in which the chunk lies. */
struct residence {
	uint64_t page_bytes;
	unsigned count;
	void *pages[CHUNK_PAGES];
	int nodes[CHUNK_PAGES]; /* of each, or why it is not known */
};

/*
 * Maps what is in memory of [offset, offset + size) and asks where it is. The range is committed, of
 * whole pages of 4 KiB, and inside one arena or one 2 MiB of the tables. -EOPNOTSUPP.
 */
int residence_look(struct shale_segment *view, uint64_t offset, uint64_t size,
		   struct residence *ret_residence);

/* Calls back for each committed part of the tables, then for each committed arena. */
struct residence_part {
	uint64_t offset;
	uint64_t size;
	int64_t arena; /* -1: tables */
};
typedef int (*residence_callback)(struct shale_segment *view, const struct residence_part *part,
				  void *context);
/* The number of parts, or the first negative result. */
int residence_walk(struct shale_segment *view, residence_callback callback, void *context);

#endif
