/*
 * commit.c - giving parts of a segment their pages, on the nodes where its placement wants them, and
 * counting them against the budget. docs/design/numa.md says why it is done this way.
 *
 * Owner:     nobody: committing a page twice is harmless, and so is committing it for nothing.
 * Invariant: C1 a page is read only after it was committed; who raises a high-water mark has
 *               committed what lies below it
 *            C2 shmem is committed only where os_memory_room() saw room for it
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

static struct os_nodes wanted_nodes(const struct shale_segment *view)
{
	struct os_nodes nodes;

	_Static_assert(sizeof(nodes.bits) == sizeof(view->header.nodes), "the same set");
	memcpy(nodes.bits, view->header.nodes, sizeof(nodes.bits));
	return nodes;
}

static bool on_shmem(const struct shale_segment *view)
{
	return view->page_size == KIB(4);
}

/* ---- room ------------------------------------------------------------------------------------ */

/* An answer of os_memory_room() holds for so much, and for so long if there is a limit. */
#define ROOM_MOST     MIB(64)
#define ROOM_PART     4u
#define ROOM_VALID_NS UINT64_C(100000000)

/* What is needed now, and what may be committed afterwards without asking again. */
static bool ask_room(struct shale_segment *view, uint64_t size)
{
	struct os_nodes nodes = wanted_nodes(view);
	bool bound = view->several_nodes && view->header.placement == SHALE_PLACE_BIND;
	uint64_t room = os_memory_room(bound ? &nodes : NULL), lasts;

	if (room < size)
		return false;
	lasts = (room - size) / ROOM_PART < ROOM_MOST ? (room - size) / ROOM_PART : ROOM_MOST;
	/* relaxed: an estimate of this process alone; a lost update asks a little earlier or later */
	store_relaxed(&view->room_bytes, lasts);
	store_relaxed(&view->room_until_ns,
		      room == UINT64_MAX ? UINT64_C(0) : os_clock_ns() + ROOM_VALID_NS);
	return true;
}

/* Only for shmem: hugetlb says ENOSPC by itself. */
static bool has_room(struct shale_segment *view, uint64_t size)
{
	/* relaxed: as above */
	uint64_t left = load_relaxed(&view->room_bytes);
	uint64_t until = load_relaxed(&view->room_until_ns);

	if (left < size || (until != 0 && os_clock_ns() > until))
		return ask_room(view, size);
	store_relaxed(&view->room_bytes, left - size);
	return true;
}

/* ---- placement ------------------------------------------------------------------------------- */

/* Of a BIND, is there a node that this process may use now? The kernel itself would take any other. */
static bool bind_is_possible(const struct shale_segment *view)
{
	struct os_nodes usable;
	uint64_t common = 0;

	if (view->header.placement != SHALE_PLACE_BIND || !view->several_nodes ||
	    os_numa_nodes(&usable) < 0)
		return true;
	for (unsigned i = 0; i < 16; i++)
		common |= usable.bits[i] & view->header.nodes[i];
	return common != 0;
}

/* The policy of the calling thread for this commit; false: it needs none. */
static bool policy_wanted(const struct shale_segment *view, uint8_t home,
			  enum os_placement *ret_mode, struct os_nodes *ret_nodes)
{
	*ret_nodes = wanted_nodes(view);
	*ret_mode = (enum os_placement)view->header.placement;
	if (view->header.placement != SHALE_PLACE_LOCAL)
		return !on_shmem(view);
	if (home == 0 || !view->several_nodes || home == view_home())
		return false;
	*ret_mode = OS_PLACE_PREFERRED_MANY;
	*ret_nodes = (struct os_nodes){{0}};
	ret_nodes->bits[(home - 1u) / 64] = UINT64_C(1) << (home - 1u) % 64;
	return true;
}

/*
 * On hugetlb the policy of the committing thread decides, on shmem that of the file, and without one
 * that of the thread. Nodes that this process may not use are an error for BIND alone.
 */
static int commit_placed(struct shale_segment *view, int fd, uint64_t offset, uint64_t size,
			 uint8_t home)
{
	struct os_numa_saved saved;
	enum os_placement mode;
	bool possible = bind_is_possible(view), pushed = false;
	struct os_nodes nodes;
	int r;

	/* tables that all need may lie elsewhere, arenas not */
	if ((!possible && offset >= view->heap_offset) || (on_shmem(view) && !has_room(view, size)))
		return -ENOMEM;
	if (possible && policy_wanted(view, home, &mode, &nodes)) {
		r = os_numa_task_push(mode, &nodes, &saved);
		if (r < 0 && (r != -EINVAL || mode == OS_PLACE_BIND))
			return r == -EINVAL ? -ENOMEM : r;
		pushed = r >= 0;
	}
	r = os_commit(fd, offset, size);
	if (pushed)
		(void)os_numa_task_pop(&saved);
	return r;
}

/* ---- the doors ------------------------------------------------------------------------------- */

/* The range in whole pages; 1: there is nothing to commit. */
static int commit_range(struct shale_segment *view, uint64_t *offset, uint64_t *size)
{
	uint64_t from = round_down(*offset, view->page_size);
	uint64_t to = round_up(*offset + *size, view->page_size);

	if (!range_fits(*offset, *size, view->file_size) || *size == 0)
		return -EINVAL;
	if (view->read_only)
		return -EROFS;
	*offset = from;
	*size = to - from;
	return view->private_memory;
}

int view_commit(struct shale_segment *view, uint64_t offset, uint64_t size)
{
	int r = commit_range(view, &offset, &size), fd;

	if (r != 0)
		return r < 0 ? r : 0;
	fd = view_fd(view);
	return fd < 0 ? fd : commit_placed(view, fd, offset, size, 0);
}

uint8_t view_home(void)
{
	unsigned node;

	os_cpu_current(NULL, &node);
	return node < UINT8_MAX ? (uint8_t)(node + 1) : 0;
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

int view_collapse_arena(struct shale_segment *view, uint64_t offset)
{
	return os_advise(view->base + offset, ARENA_SIZE, OS_COLLAPSE);
}

/*
 * One resident page is enough for the kernel to make the whole arena one huge page. False: it has not
 * become one, and is to be committed in 4 KiB pages, which are as good.
 */
static bool commit_huge(struct shale_segment *view, int fd, uint64_t offset, uint8_t home)
{
	return has_room(view, ARENA_SIZE) &&
	       commit_placed(view, fd, first_page_of(offset), KIB(4), home) == 0 &&
	       view_collapse_arena(view, offset) == 0;
}

/*
 * Where the pages of the arena are: its last one, as they are committed upwards and a full node shows
 * at the end. Small pages in turn on several nodes are on none.
 */
static uint8_t ask_placed(const struct shale_segment *view, uint64_t offset, uint8_t page_kind)
{
	int node;

	if (!view->several_nodes)
		return view_home();
	if (view->header.placement >= SHALE_PLACE_INTERLEAVE && page_kind == SHALE_PAGES_4K)
		return 0;
	node = os_numa_node_of(view->base + offset + ARENA_SIZE - KIB(4));
	return node >= 0 && node < UINT8_MAX ? (uint8_t)(node + 1) : 0;
}

int view_commit_arena(struct shale_segment *view, uint64_t offset, struct arena_place *place)
{
	uint64_t from = offset, size = ARENA_SIZE;
	int r = commit_range(view, &from, &size), fd;

	place->placed = 0;
	place->page_kind = (uint8_t)view->header.pages;
	if (r != 0)
		return r < 0 ? r : 0;
	fd = view_fd(view);
	if (fd < 0)
		return fd;
	if (view->header.pages != SHALE_PAGES_THP || !place->huge ||
	    !commit_huge(view, fd, from, place->home)) {
		r = commit_placed(view, fd, from, size, place->home);
		if (view->header.pages == SHALE_PAGES_THP)
			place->page_kind = SHALE_PAGES_4K;
	}
	if (r == 0)
		place->placed = ask_placed(view, offset, place->page_kind);
	else if (size == ARENA_SIZE)
		/* the page of a collapse that failed; a larger page has other arenas in it */
		(void)os_decommit(fd, from, size);
	return r;
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
