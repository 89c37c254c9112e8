/*
 * debug_report.c - what is known about the blocks of a segment: walk, sizes, figures, and the checks
 * D1 to D3 of docs/design/debug.md.
 *
 * Reads only. What changes while it is looked at is looked at again; a page that was given back is not
 * touched.
 *
 * Death: nothing is written.
 */
#include "heap/debug.h"

#include <errno.h>
#include <string.h>

#include "heap/arena.h"
#include "heap/heap.h"
#include "heap/large.h"
#include "heap/slab.h"

#define LOOKS 64u /* what a running peer is in the middle of is over by then */

/* -- walking ------------------------------------------------------------------------------------- */

/* Calls back for each block of committed arenas, live or free. */
typedef void (*block_visitor)(struct shale_segment *view, uint64_t offset, uint64_t usable,
			      void *context);

static void visit_slab(struct shale_segment *view, uint64_t slab, block_visitor visit,
		       void *context)
{
	/* pairs: slab.word - the bin, or that it heads a span. */
	uint64_t word = load_acquire(slab_word(view, slab));
	const struct bin_info *bin = &bin_table[slab_word_bin(word)];
	uint64_t start = slab_offset(view, slab);
	struct debug_card card;

	switch (slab_word_state(word)) {
	case SLAB_SPAN:
		if (view->debug != 0 && guard_read_slab(view, slab, &card))
			start = card.block.self;
		visit(view, start, span_slab_count(view, slab) * SLAB_SIZE, context);
		break;
	case SLAB_OWNED:
	case SLAB_PARKED:
	case SLAB_ORPHAN:
		for (uint32_t i = 0; i < bin->count; i++)
			visit(view, start + (uint64_t)i * bin->size, bin->size, context);
		break;
	default:
		break;
	}
}

static void visit_all(struct shale_segment *view, block_visitor visit, void *context)
{
	for (uint64_t arena = 0, high = view_arena_high(view); arena < high; arena++)
		for (uint64_t i = 0; i < SLABS_PER_ARENA && arena_committed(view, arena); i++)
			visit_slab(view, arena * SLABS_PER_ARENA + i, visit, context);
}

/* HEAP_BLOCK_FREE, too, for a guarded block that waits for its process to take the guards away. */
static int describe(struct shale_segment *view, uint64_t offset, struct shale_block *block)
{
	struct debug_trailer trailer;
	struct debug_card card;
	uint64_t usable = 0;
	int state = heap_block_state(view, offset, &usable);

	*block = (struct shale_block){.ref = {offset}, .usable_bytes = usable};
	block->published = state == HEAP_BLOCK_PUBLISHED;
	if (state < HEAP_BLOCK_LIVE || view->debug == 0)
		return state;
	if (offset % SLAB_SIZE != 0 &&
	    guard_read(view, slab_of_offset(view, offset), offset, &card)) {
		trailer = card.block;
		block->guarded = true;
		if (card.state == GUARD_FREED)
			return HEAP_BLOCK_FREE;
	} else if (!debug_read(view, offset, usable, &trailer)) {
		return state;
	}
	block->peer = trailer.peer;
	block->lane = trailer.lane;
	block->thread = trailer.thread;
	block->requested_bytes = trailer.size;
	return state;
}

int shale_debug_block(struct shale_segment *segment, const void *ptr, struct shale_block *ret_block)
{
	struct shale_block block;
	uint64_t offset = ptr ? view_offset_of(segment, ptr) : 0;

	if (offset == 0 || describe(segment, offset, &block) < HEAP_BLOCK_LIVE)
		return -EINVAL;
	if (block.lane == 0)
		return -ENODATA;
	*ret_block = block;
	return 0;
}

struct walk {
	shale_block_callback callback;
	void *context;
	int64_t count;
};

static void walk_block(struct shale_segment *view, uint64_t offset, uint64_t usable, void *context)
{
	struct walk *walk = context;
	struct shale_block block;

	(void)usable;
	if (describe(view, offset, &block) < HEAP_BLOCK_LIVE)
		return;
	walk->count++;
	if (walk->callback)
		walk->callback(&block, walk->context);
}

int64_t shale_debug_walk(struct shale_segment *segment, shale_block_callback callback,
			 void *context)
{
	struct walk walk = {callback, context, 0};

	visit_all(segment, walk_block, &walk);
	return walk.count;
}

static void count_size(const struct shale_block *block, void *context)
{
	struct shale_size_row *rows = context;
	struct shale_size_row *row = &rows[BIN_COUNT];

	if (block->usable_bytes <= BIN_SIZE_MAX)
		row = &rows[bin_of_size(block->usable_bytes)];
	row->blocks++;
	row->usable_bytes += block->usable_bytes;
	row->requested_bytes += block->lane != 0 ? block->requested_bytes : block->usable_bytes;
}

int shale_debug_sizes(struct shale_segment *segment, struct shale_size_row *rows, unsigned count)
{
	struct shale_size_row all[BIN_COUNT + 1] = {{0}};

	for (unsigned i = 0; i < BIN_COUNT; i++)
		all[i].block_bytes = bin_table[i].size;
	(void)shale_debug_walk(segment, count_size, all);
	if (rows)
		memcpy(rows, all, (count < BIN_COUNT + 1 ? count : BIN_COUNT + 1) * sizeof(*rows));
	return BIN_COUNT + 1;
}

int shale_debug_stat(struct shale_segment *segment, struct shale_debug_figures *ret_stat)
{
	const struct header_mutable_shm *hints = view_hints(segment);

	if (ret_stat->size != sizeof(*ret_stat))
		return -EINVAL;
	*ret_stat = (struct shale_debug_figures){
		.size = sizeof(*ret_stat),
		.flags = segment->debug,
		.guard_sample = segment->guard_sample,
		/* relaxed: counts for people */
		.writes_after_free = load_relaxed(&hints->debug_written),
		.writes_behind_end = load_relaxed(&hints->debug_overrun),
		.first = {load_relaxed(&hints->debug_first)},
		.guarded_by_this_view = segment->guards.peer_word == segment->peer_word
						? load_relaxed(&segment->guards.count)
						: 0,
	};
	return 0;
}

/* -- checking ------------------------------------------------------------------------------------ */

/* May the bytes be read, or would that bring back a page that was given to the kernel? */
static bool is_backed(const struct shale_segment *view, uint64_t offset, uint64_t size)
{
	uint64_t slab = slab_of_offset(view, offset), inner = offset % SLAB_SIZE;
	uint32_t bits = load_relaxed(&slab_arena(view, slab)->punched[slab % SLABS_PER_ARENA]);

	for (uint64_t page = inner / DEBUG_PAGE;
	     page <= (inner + size - 1) / DEBUG_PAGE && page < SLAB_SIZE / DEBUG_PAGE; page++)
		if (bits >> page & 1)
			return false;
	return true;
}

/* NULL, or what is wrong with the block as it is at this moment. */
static const char *look_at(struct shale_segment *view, uint64_t offset, uint64_t usable,
			   const char **ret_invariant)
{
	struct debug_trailer trailer;
	struct shale_block block;
	int state = describe(view, offset, &block);

	if (state < 0 || block.guarded)
		return NULL;
	if (state >= HEAP_BLOCK_LIVE) {
		*ret_invariant = "D2";
		if (!debug_read(view, offset, usable, &trailer))
			return "the end of a live block has been overwritten";
		if (trailer.magic == DEBUG_LIVE && !debug_slack_whole(view, &trailer, usable))
			return "a live block has been written to behind its size";
		return NULL;
	}
	*ret_invariant = "D1";
	if (!(view->debug & SHALE_DEBUG_POISON) || !is_backed(view, offset, usable) ||
	    !debug_read(view, offset, usable, &trailer) || trailer.magic != DEBUG_DEAD)
		return NULL;
	if (debug_bytes_are(view_at(view, offset), usable - sizeof(trailer), DEBUG_FREED, true))
		return NULL;
	return "a free block has been written to";
}

static void check_block(struct shale_segment *view, uint64_t offset, uint64_t usable, void *context)
{
	struct check_context *check = context;
	const char *text = NULL, *invariant = NULL;

	for (unsigned look = 0; look < LOOKS; look++) {
		text = look_at(view, offset, usable, &invariant);
		if (!text)
			return;
		os_cpu_relax();
	}
	check_report(check, invariant, offset, text);
}

void debug_check(struct check_context *check)
{
	struct header_mutable_shm *hints = view_hints(check->view);

	if (check->view->debug == 0)
		return;
	visit_all(check->view, check_block, check);
	/* relaxed: counts */
	if (load_relaxed(&hints->debug_written) != 0)
		check_report(check, "D3", load_relaxed(&hints->debug_first),
			     "a block was written to after it was freed");
	if (load_relaxed(&hints->debug_overrun) != 0)
		check_report(check, "D3", load_relaxed(&hints->debug_first),
			     "a block was written to behind its end");
}
