/*
 * residence.c - which pages of a segment are in memory, and on which node they are.
 *
 *   arenas    what is committed is there, but for the pages that were punched
 *   tables    on shmem what mincore() knows, on hugetlb what is committed
 *   private   what is mapped is there: nothing to do but ask
 *
 * (mincore calls a page of shmem absent that was fallocated and not touched yet: no use for arenas.)
 *
 * Owner:     nobody; writes nothing to the segment.
 * Invariant: RE1 only what mincore or the arena's words call there is mapped, and by the kernel
 *            (populate for reading): this process touches nothing, so nothing here can fault
 * Ordering:  none: a page that goes meanwhile is answered "unknown", or comes back as zeroes.
 * Death:     writes nothing.
 */
#include "heap/residence.h"

#include <errno.h>

#include "heap/arena.h"
#include "heap/slab.h"
#include "segment/geometry.h"

/* Maps the pages from..to of the chunk; a failure shows as pages that are not known. */
static void populate(struct shale_segment *view, uint64_t offset, unsigned from, unsigned to)
{
	if (to > from)
		(void)os_advise(view->base + offset + from * KIB(4), (to - from) * KIB(4),
				OS_POPULATE_READ);
}

static void add_page(struct shale_segment *view, uint64_t offset, struct residence *residence)
{
	residence->pages[residence->count++] = view->base + offset;
}

/* Of a committed arena: the pages that no purge has given back. */
static void there_in_arena(struct shale_segment *view, uint64_t offset, uint64_t size,
			   unsigned char *ret_there)
{
	uint64_t first = (offset - view->heap_offset) / KIB(4);

	for (uint64_t page = first; page < first + size / KIB(4); page++) {
		const struct arena_shm *arena = heap_arena(view, page * KIB(4) >> ARENA_SHIFT);
		uint64_t in_arena = page % CHUNK_PAGES;
		/* relaxed: a snapshot */
		uint16_t punched = load_relaxed(&arena->punched[in_arena / 16]);

		ret_there[page - first] = !(punched >> in_arena % 16 & 1);
	}
}

static int list_there(struct shale_segment *view, uint64_t offset, uint64_t size,
		      unsigned char *ret_there)
{
	int r;

	if (offset >= view->heap_offset) {
		there_in_arena(view, offset, size, ret_there);
		return 0;
	}
	for (uint64_t i = 0; i < size / KIB(4); i++)
		ret_there[i] = 1;
	r = view->private_memory ? 0 : os_resident(view->base + offset, size, ret_there);
	return r == -ENOSYS || r == -EPERM ? -EOPNOTSUPP : r;
}

static int list_small(struct shale_segment *view, uint64_t offset, uint64_t size,
		      struct residence *residence)
{
	unsigned pages = (unsigned)(size / KIB(4)), from = 0;
	unsigned char there[CHUNK_PAGES] = {0};
	int r = list_there(view, offset, size, there);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < pages; i++) {
		if (there[i]) {
			add_page(view, offset + i * KIB(4), residence);
			continue;
		}
		if (!view->private_memory)
			populate(view, offset, from, i);
		from = i + 1;
	}
	if (!view->private_memory)
		populate(view, offset, from, pages);
	return 0;
}

static int list_huge(struct shale_segment *view, uint64_t offset, uint64_t size,
		     struct residence *residence)
{
	populate(view, offset, 0, (unsigned)(size / KIB(4)));
	add_page(view, offset, residence);
	return 0;
}

int residence_look(struct shale_segment *view, uint64_t offset, uint64_t size,
		   struct residence *ret_residence)
{
	bool huge = view->page_size > KIB(4);
	int r;

	ret_residence->count = 0;
	ret_residence->page_bytes = huge ? size : KIB(4);
	r = huge ? list_huge(view, offset, size, ret_residence)
		 : list_small(view, offset, size, ret_residence);
	if (r < 0 || ret_residence->count == 0)
		return r;
	return os_numa_nodes_of(ret_residence->pages, ret_residence->count, ret_residence->nodes);
}

/* ---- the walk -------------------------------------------------------------------------------- */

struct walk {
	struct shale_segment *view;
	residence_callback callback;
	void *context;
	int parts;
};

static int visit(struct walk *walk, uint64_t offset, uint64_t size, int64_t arena)
{
	const struct residence_part part = {offset, size, arena};
	int r = walk->callback(walk->view, &part, walk->context);

	walk->parts += r >= 0;
	return r < 0 ? r : 0;
}

/* A committed part of the tables, whole pages of it, in pieces that end at multiples of 2 MiB. */
static int visit_table(struct walk *walk, uint64_t *done, uint64_t from, uint64_t to)
{
	uint64_t page = walk->view->page_size;
	int r = 0;

	from = round_down(from, page);
	to = round_up(to, page);
	if (from < *done)
		from = *done; /* the page in which the last table ends */
	while (r == 0 && from < to) {
		uint64_t end = round_down(from, ARENA_SIZE) + ARENA_SIZE;

		if (end > to)
			end = to;
		r = visit(walk, from, end - from, -1);
		from = end;
		*done = end;
	}
	return r;
}

/* Long facts are committed slab by slab: those of an arena as a whole, holes are not asked about. */
static int visit_long_facts(struct walk *walk, uint64_t *done)
{
	struct shale_segment *view = walk->view;
	int r = 0;

	for (uint64_t arena = 0, high = view_arena_high(view); r == 0 && arena < high; arena++) {
		uint64_t first = view->long_facts_offset + arena * LONG_FACTS_ARENA;
		/* pairs: arena.long_facts - what is behind a bit is committed. */
		uint32_t bits = load_acquire(&heap_arena(view, arena)->long_committed);

		if (bits != 0)
			r = visit_table(walk, done, first, first + LONG_FACTS_ARENA);
	}
	return r;
}

static int visit_tables(struct walk *walk)
{
	struct shale_segment *view = walk->view;
	uint64_t high = view_arena_high(view), done = 0;
	uint64_t lanes = view->lanes_offset + view_lane_high(view) * sizeof(struct lane_shm);
	int r = visit_table(walk, &done, 0, lanes);

	if (r == 0)
		r = visit_table(walk, &done, view->arena_table_offset,
				view->arena_table_offset + high * ARENA_TABLE_STRIDE);
	if (r == 0)
		r = visit_table(walk, &done, view->short_facts_offset,
				view->short_facts_offset + high * SHORT_FACTS_ARENA);
	return r == 0 ? visit_long_facts(walk, &done) : r;
}

int residence_walk(struct shale_segment *view, residence_callback callback, void *context)
{
	struct walk walk = {view, callback, context, 0};
	int r = visit_tables(&walk);

	for (uint64_t arena = 0, high = view_arena_high(view); r == 0 && arena < high; arena++)
		if (arena_committed(view, arena))
			r = visit(&walk, view->heap_offset + (arena << ARENA_SHIFT), ARENA_SIZE,
				  (int64_t)arena);
	return r < 0 ? r : walk.parts;
}
