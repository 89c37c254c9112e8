/*
 * commit.c - giving parts of a segment their pages, and counting them against the budget.
 *
 * Owner:     nobody: committing a page twice is harmless, and so is committing it for nothing.
 * Invariant: C1 a page is read only after it was committed; who raises a high-water mark has
 *               committed what lies below it
 * Ordering:  by the callers (lane.high, arena.high).
 * Death:     pages that were committed and not yet announced: zero, and taken up by the next commit.
 */
#include "segment/internal.h"

#include <errno.h>
#include <string.h>

#include "segment/recovery.h"

_Static_assert((int)SHALE_PLACE_LOCAL == (int)OS_PLACE_LOCAL, "the same numbers");
_Static_assert((int)SHALE_PLACE_BIND == (int)OS_PLACE_BIND, "the same numbers");
_Static_assert((int)SHALE_PLACE_PREFERRED_MANY == (int)OS_PLACE_PREFERRED_MANY, "the same numbers");
_Static_assert((int)SHALE_PLACE_INTERLEAVE == (int)OS_PLACE_INTERLEAVE, "the same numbers");
_Static_assert((int)SHALE_PLACE_WEIGHTED == (int)OS_PLACE_WEIGHTED, "the same numbers");

/* On hugetlb the policy of the committing thread decides, on shmem that of the file. */
static int commit_placed(struct shale_segment *view, int fd, uint64_t offset, uint64_t size)
{
	struct os_nodes nodes;
	struct os_numa_saved saved;
	int r;

	if (view->page_size == KIB(4) || view->header.placement == SHALE_PLACE_LOCAL)
		return os_commit(fd, offset, size);
	memcpy(nodes.bits, view->header.nodes, sizeof(nodes.bits));
	r = os_numa_task_push((enum os_placement)view->header.placement, &nodes, &saved);
	if (r < 0)
		return r;
	r = os_commit(fd, offset, size);
	(void)os_numa_task_pop(&saved);
	return r;
}

/*
 * The page of an arena that is committed first, and whose node the huge page takes. Interleaving on
 * shmem goes by the number of the 4 KiB page in the file: the first pages of arenas are 512 apart and
 * would all be of one node of two. Taken this way they are 521 apart, a prime, and so go through any
 * number of nodes, or of weights, in turn.
 */
static uint64_t first_page_of(uint64_t offset)
{
	return offset + (offset >> ARENA_SHIFT) * KIB(4) * 9 % ARENA_SIZE;
}

/*
 * One resident page is enough for the kernel to make the whole arena one huge page; the commit that
 * follows then finds nothing to do. Any failure leaves 4 KiB pages, which are as good.
 */
static void commit_huge(struct shale_segment *view, int fd, uint64_t offset)
{
	if (os_commit(fd, first_page_of(offset), KIB(4)) == 0)
		(void)os_advise(view->base + offset, ARENA_SIZE, OS_COLLAPSE);
}

int view_commit(struct shale_segment *view, uint64_t offset, uint64_t size)
{
	uint64_t from = round_down(offset, view->page_size);
	uint64_t to = round_up(offset + size, view->page_size);
	int fd;

	if (!range_fits(offset, size, view->file_size) || size == 0)
		return -EINVAL;
	if (view->read_only)
		return -EROFS;
	if (view->private_memory)
		return 0;
	fd = view_fd(view);
	if (fd < 0)
		return fd;
	if (view->header.pages == SHALE_PAGES_THP && from >= view->heap_offset &&
	    from % ARENA_SIZE == 0 && to - from == ARENA_SIZE)
		commit_huge(view, fd, from);
	return commit_placed(view, fd, from, to - from);
}

uint64_t view_metadata_bytes(const struct shale_segment *view)
{
	struct geometry geometry = geometry_of_view(view);

	return geometry_metadata_bytes(&geometry, view_lane_high(view), view_arena_high(view));
}

bool view_budget_allows(struct shale_segment *view, uint64_t extra_bytes)
{
	struct shale_segment_figures stat = {.size = sizeof(stat)};

	uint64_t budget = view_budget(view);

	if (budget >= view->file_size)
		return true;
	stat.metadata_bytes = view_metadata_bytes(view);
	stat.committed_bytes = stat.metadata_bytes;
	segment_stat_fill(view, &stat);
	return stat.committed_bytes <= budget && extra_bytes <= budget - stat.committed_bytes;
}
