/*
 * migrate.c - moving the pages of a segment to a node, and showing where they are.
 *
 * Owner:     the caller; pages move under the feet of all who use them, and no byte changes.
 * Invariant: MG1 only pages that are in memory are mapped and moved (residence.c)
 * Progress:  bounded: every chunk is tried a fixed number of times.
 * Ordering:  none: home and placed of an arena are hints.
 * Death:     some pages have moved, the others have not.
 */
#include <errno.h>

#include <shale/numa.h>

#include "heap/arena.h"
#include "heap/heap.h"
#include "heap/placement.h"
#include "heap/residence.h"
#include "heap/slab.h"

/* ---- moving ---------------------------------------------------------------------------------- */

/* Of pages in use by the kernel: that often, then -EBUSY. */
#define MOVE_TRIES 3u

struct move {
	unsigned node;
	uint64_t moved_bytes;
	int error; /* the first reason for which something stayed */
};

/* Those that are somewhere else, packed to the front; pages that the kernel does not tell are left. */
static unsigned others(const struct residence *residence, unsigned node, void **ret_pages)
{
	unsigned count = 0;

	for (unsigned i = 0; i < residence->count; i++)
		if (residence->nodes[i] >= 0 && residence->nodes[i] != (int)node)
			ret_pages[count++] = residence->pages[i];
	return count;
}

/*
 * The first page alone and then the rest: if it is part of a huge page, that has moved as a whole, and
 * the kernel would call its other parts busy.
 */
static int move_pages_of(struct residence *residence, unsigned node)
{
	void *pages[CHUNK_PAGES];
	int nodes[CHUNK_PAGES];
	unsigned count = others(residence, node, pages);
	int r = 0;

	for (unsigned try = 0; count > 0 && try < MOVE_TRIES + 1; try++) {
		r = os_numa_move(pages, try == 0 ? 1 : count, node, nodes);
		/* a reason of the first page alone need not be that of the others */
		if (r == -EOPNOTSUPP || r == -EINVAL || (r < 0 && r != -EBUSY && try > 0))
			break;
		r = os_numa_nodes_of(residence->pages, residence->count, residence->nodes);
		if (r < 0)
			break;
		count = others(residence, node, pages);
		r = count > 0 ? -EBUSY : 0;
	}
	(void)os_numa_nodes_of(residence->pages, residence->count, residence->nodes);
	return r;
}

static int move_chunk(struct shale_segment *view, struct move *move, uint64_t offset, uint64_t size)
{
	struct residence residence;
	void *pages[CHUNK_PAGES];
	unsigned before, after;
	int r = residence_look(view, offset, size, &residence);

	if (r < 0)
		return r;
	before = others(&residence, move->node, pages);
	if (before == 0)
		return 0;
	r = move_pages_of(&residence, move->node);
	after = others(&residence, move->node, pages);
	move->moved_bytes += (before > after ? before - after : 0) * residence.page_bytes;
	if (r < 0 && move->error == 0)
		move->error = r;
	return r;
}

static int move_part(struct shale_segment *view, const struct residence_part *part, void *context)
{
	struct move *move = context;
	int r = move_chunk(view, move, part->offset, part->size);

	if (r == -EOPNOTSUPP || r == -EINVAL)
		return r; /* no page will fare better */
	if (r == 0 && part->arena >= 0)
		placement_moved(view, (uint64_t)part->arena, move->node);
	return 0;
}

static int move_block(struct shale_segment *view, struct move *move, void *ptr)
{
	uint64_t offset = view_offset_of(view, ptr), usable, to;
	int r = offset ? heap_block_state(view, offset, &usable) : -EINVAL;

	if (r < 0)
		return r;
	if (r == HEAP_BLOCK_FREE)
		return -EINVAL;
	to = round_up(offset + usable, KIB(4));
	for (uint64_t from = round_down(offset, KIB(4)); from < to;) {
		uint64_t end = round_down(from, ARENA_SIZE) + ARENA_SIZE;

		r = move_chunk(view, move, from, (end < to ? end : to) - from);
		if (r == -EOPNOTSUPP || r == -EINVAL)
			return r;
		from = end;
	}
	return 0;
}

static int check_node(unsigned node)
{
	struct os_nodes usable;
	int r = os_numa_nodes(&usable);

	if (r < 0)
		return r;
	return node < 1024 && (usable.bits[node / 64] >> node % 64 & 1) ? 0 : -EINVAL;
}

int64_t shale_migrate(struct shale_segment *segment, void *ptr, unsigned node)
{
	struct move move = {.node = node};
	int r = segment->read_only ? -EROFS : check_node(node);

	if (r == 0)
		r = ptr ? move_block(segment, &move, ptr)
			: residence_walk(segment, move_part, &move);
	if (r >= 0)
		r = move.error;
	return r < 0 ? r : (int64_t)move.moved_bytes;
}

/* ---- looking --------------------------------------------------------------------------------- */

struct look {
	shale_numa_callback callback;
	void *context;
	uint64_t bytes[1024];
};

static void add_pages(const struct shale_segment *view, struct look *look,
		      const struct residence *residence, struct shale_numa_part *ret_part)
{
	for (unsigned i = 0; i < residence->count; i++) {
		int node = residence->nodes[i];

		if (node < 0 || node >= 1024) {
			/* private memory: what is not mapped is not there */
			ret_part->unknown_bytes += view->private_memory ? 0 : residence->page_bytes;
			continue;
		}
		look->bytes[node] += residence->page_bytes;
		if (ret_part->node_count <= (unsigned)node)
			ret_part->node_count = (unsigned)node + 1;
	}
}

static int look_part(struct shale_segment *view, const struct residence_part *part, void *context)
{
	struct shale_numa_part shown = {
		.offset = part->offset,
		.size = part->size,
		.arena = part->arena,
		.home = -1,
		.placed = -1,
		.pages = (enum shale_pages)view->header.pages,
	};
	struct residence residence;
	struct look *look = context;
	int r = residence_look(view, part->offset, part->size, &residence);

	if (r < 0)
		return r;
	if (part->arena >= 0)
		placement_show(view, (uint64_t)part->arena, &shown);
	for (unsigned node = 0; node < 1024; node++)
		look->bytes[node] = 0;
	add_pages(view, look, &residence, &shown);
	shown.node_bytes = look->bytes;
	if (look->callback)
		look->callback(&shown, look->context);
	return 0;
}

int shale_numa_look(struct shale_segment *segment, shale_numa_callback callback, void *context)
{
	struct look look = {.callback = callback, .context = context};

	return residence_walk(segment, look_part, &look);
}
