/*
 * shale/numa.h - where the memory of a segment is, and moving it.
 *
 * Where memory is put in the first place is decided by the segment's placement (shale/segment.h).
 */
#ifndef SHALE_NUMA_H
#define SHALE_NUMA_H

#include <stdbool.h>
#include <stdint.h>

#include <shale/segment.h>
#include <shale/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Moves memory to a NUMA node: the pages of the block at ptr (and what else lies in them), or, ptr
 * NULL, all that the segment has committed. The segment may be in use; its bytes do not change.
 * What is committed later goes where the segment's placement says.
 *
 * Returns the number of bytes moved, 0 if all of it was there already. Or, after everything that
 * could be moved has been,
 * -EPERM      some pages are mapped by other processes too: that needs CAP_SYS_NICE
 * -ENOMEM     the node has no room, or no huge page left
 * -EBUSY      some pages are pinned or in use by the kernel: try again
 * or, with nothing moved,
 * -EINVAL     no such node, it has no memory, this process may not use it, or ptr is not the start
 *             of a live block
 * -EROFS      the view is read-only
 * -EOPNOTSUPP built without libnuma, or the kernel refuses
 * Threads and processes: safe. Since 0.1.
 */
SHALE_API int64_t shale_migrate(struct shale_segment *segment, void *ptr, unsigned node);

/* A committed part of a segment, as shale_numa_look() shows it. Since 0.1. */
struct shale_numa_part {
	uint64_t offset; /* in the segment */
	uint64_t size;
	int64_t arena;  /* its number; -1: not the heap's blocks but what is known about them */
	int32_t home;   /* node whose threads use it first; -1 not known */
	int32_t placed; /* node that its pages came from when it was committed; -1 not known */
	enum shale_pages
		pages; /* as committed: 4K in a THP segment is an arena without a huge page */
	uint64_t unknown_bytes; /* in memory, but the kernel does not tell where */
	uint32_t node_count;
	const uint64_t *node_bytes; /* node_count of them: in memory on each node */
};
typedef void (*shale_numa_callback)(const struct shale_numa_part *part, void *context);

/*
 * Asks the kernel where the pages of the segment are, and calls callback for each committed part: the
 * tables first, then the arenas. Works on read-only views. What is on disk (swap) is on no node.
 * Maps what is in memory into this process; does not change or touch it.
 *
 * Returns the number of parts; -EOPNOTSUPP built without libnuma, or the kernel refuses.
 * Threads and processes: safe; a snapshot. Since 0.1.
 */
SHALE_API int shale_numa_look(struct shale_segment *segment, shale_numa_callback callback,
			      void *context);

#ifdef __cplusplus
}
#endif

#endif
