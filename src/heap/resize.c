/*
 * resize.c - a block made larger or smaller, and zeroed spans.
 *
 * A span grows into the slabs that follow it, whose arenas get memory if they have none, and gives
 * its tail back when it shrinks. Everything else moves. The lane's intent names head and both
 * lengths (docs/design/arenas.md has the steps):
 *
 *   grow:   intent; span_slabs = longer; slabs FREE -> BODY(head); intent cleared
 *   shrink: intent; bodies -> FREE, the last first; span_slabs = shorter; intent cleared
 *
 * Owner:     the holder of the block: nobody else resizes or frees it meanwhile.
 * Invariant: RS1 each BODY is covered by the length of its head, at every instruction (H5)
 * Ordering:  slab.word, arena.state as in large.c; lane.intent.
 * Progress:  lock-free but for the kernel's commit.
 * Death:     recovery keeps the longer length if all slabs of it are bodies, else does the shrink.
 */
#include <errno.h>
#include <string.h>

#include <shale/heap.h>

#include "heap/arena.h"
#include "heap/block.h"
#include "heap/debug.h"
#include "heap/heap.h"
#include "heap/heap_lane.h"
#include "heap/large.h"
#include "heap/rank.h"
#include "heap/slab.h"
#include "segment/recovery.h"

#define SETTLE_TRIES 4u /* a head that changes more often is not the dead one's any more */

/* -- the intent -------------------------------------------------------------------------------- */

static void resize_begin(struct lane *lane, uint64_t head, uint64_t shorter, uint64_t longer)
{
	struct intent_shm *intent = &lane->shm->intent;

	/* pairs: map.intent - a helper of our last gate that sees one of them sees the gate passed. */
	store_release(&intent->argument[0], head);
	store_release(&intent->argument[1], shorter); /* pairs: map.intent */
	store_release(&intent->argument[2], longer);  /* pairs: map.intent */
	intent_set(lane, INTENT_SPAN_RESIZE);
	order_for_death();
}

static void resize_end(struct lane *lane)
{
	order_for_death();
	intent_clear(lane);
}

/* The end of every shrink, and of a grow that met somebody: bodies first, so that they are covered. */
static void drop_tail(struct shale_segment *view, uint64_t head, uint64_t shorter, uint64_t longer)
{
	span_free_bodies(view, head, shorter, longer);
	order_for_death();
	span_set_slabs(view, head, shorter);
}

/* Are all slabs of the longer length bodies of this head? */
static bool tail_is_whole(struct shale_segment *view, uint64_t head, uint64_t shorter,
			  uint64_t longer)
{
	for (uint64_t slab = head + shorter; slab < head + longer; slab++) {
		uint64_t word = load_acquire(slab_word(view, slab)); /* pairs: slab.word */

		if (slab_word_state(word) != SLAB_BODY || slab_word_head(word) != head)
			return false;
	}
	return true;
}

void span_settle_resize(struct shale_segment *view, uint32_t dead_lane)
{
	const struct intent_shm *intent = &view_lane(view, dead_lane)->intent;
	/* the lane is dead: nobody writes its intent */
	uint64_t head = load_relaxed(&intent->argument[0]);
	uint64_t shorter = load_relaxed(&intent->argument[1]);
	uint64_t longer = load_relaxed(&intent->argument[2]);
	uint64_t known = (uint64_t)view_arena_high(view) * SLABS_PER_ARENA;

	if (shorter == 0 || shorter >= longer || !range_fits(head, longer, known))
		return;
	for (unsigned tries = 0; tries < SETTLE_TRIES; tries++) {
		/* pairs: slab.word - then its length */
		uint64_t word = load_acquire(slab_word(view, head));

		if (slab_word_state(word) != SLAB_SPAN || span_slab_count(view, head) != longer)
			return;
		/* a grow may have died before it had noted that the slabs are not fresh any more */
		if (tail_is_whole(view, head, shorter, longer) &&
		    span_prepare(view, head + shorter, longer - shorter, false) == 0)
			return;
		/* a published one may have been freed meanwhile, and be another span by now */
		/* pairs: slab.word - as above. */
		if (load_acquire(slab_word(view, head)) != word)
			continue;
		drop_tail(view, head, shorter, longer);
		return;
	}
}

/* -- spans in place ---------------------------------------------------------------------------- */

/* May slabs [first, end) be had? A look; those of arenas without memory count as free. */
static bool room_for(struct shale_segment *view, uint64_t first, uint64_t end)
{
	uint64_t high = view_arena_high(view);

	for (uint64_t slab = first; slab < end && slab / SLABS_PER_ARENA < high;) {
		uint64_t arena = slab / SLABS_PER_ARENA;
		uint64_t stop = (arena + 1) * SLABS_PER_ARENA;
		uint32_t wanted = UINT32_MAX << (slab % SLABS_PER_ARENA);

		if (end < stop)
			wanted &= UINT32_MAX >> (stop - end);
		if (wanted & ~rank_free_mask(view, arena))
			return false;
		slab = stop;
	}
	return true;
}

static int commit_for(struct lane *lane, uint64_t first, uint64_t end)
{
	unsigned node = arena_node_here(lane->view);
	int r = 0;

	for (uint64_t arena = first / SLABS_PER_ARENA;
	     r == 0 && arena <= (end - 1) / SLABS_PER_ARENA; arena++)
		r = arena_commit_at(lane, arena, node);
	return r;
}

static int claim_tail(struct shale_segment *view, uint64_t head, uint64_t shorter, uint64_t longer)
{
	for (uint64_t slab = head + shorter; slab < head + longer; slab++)
		if (!span_claim_body(view, slab, head))
			return -EAGAIN;
	return span_prepare(view, head + shorter, longer - shorter, false);
}

static int span_grow(struct lane *lane, uint64_t head, uint64_t now, uint64_t count)
{
	struct shale_segment *view = lane->view;
	uint64_t total = (uint64_t)view->arena_count * SLABS_PER_ARENA;
	int r;

	if (!range_fits(head, count, total) || !room_for(view, head + now, head + count))
		return -EAGAIN;
	r = commit_for(lane, head + now, head + count);
	if (r < 0)
		return r;
	resize_begin(lane, head, now, count);
	span_set_slabs(view, head, count); /* the holder writes it */
	order_for_death();
	r = claim_tail(view, head, now, count);
	if (r < 0)
		drop_tail(view, head, now, count);
	resize_end(lane);
	span_rank(view, head + now, count - now);
	return r;
}

static void span_shrink(struct lane *lane, uint64_t head, uint64_t now, uint64_t count)
{
	resize_begin(lane, head, count, now);
	drop_tail(lane->view, head, count, now);
	resize_end(lane);
}

/* -- the front --------------------------------------------------------------------------------- */

void *heap_alloc_zeroed_span(struct shale_segment *view, size_t size)
{
	struct lane *lane;
	uint64_t offset = 0;
	int r = lane_enter(view, &lane);

	if (r == 0)
		r = heap_setup_lane(lane);
	if (r == 0)
		r = span_alloc(lane, size, 1, true, &offset);
	if (r < 0) {
		errno = -r;
		return NULL;
	}
	return view_at(view, offset);
}

static void *resize_move(struct shale_segment *segment, void *ptr, size_t old_usable, size_t size)
{
	void *moved = shale_alloc(segment, size);

	if (!moved)
		return NULL;
	memcpy(moved, ptr, old_usable < size ? old_usable : size);
	(void)shale_free(segment, ptr);
	return moved;
}

/* Blocks of slabs: they do not grow in place. */
static void *resize_small(struct shale_segment *segment, void *ptr, bool published, size_t usable,
			  size_t size)
{
	/* stay while the block is large enough, and small or at least a quarter used */
	if (size <= usable && (published || size >= usable / 4 || usable <= 128))
		return ptr;
	if (published) {
		errno = EBUSY;
		return NULL;
	}
	return resize_move(segment, ptr, usable, size);
}

static void *resize_smaller(struct lane *lane, void *ptr, uint64_t slab, size_t usable, size_t size)
{
	uint64_t now = usable / SLAB_SIZE, count = span_slabs_for(size);
	void *moved = NULL;

	if (size <= BIN_SIZE_MAX / 2)
		moved = resize_move(lane->view, ptr, usable, size);
	if (moved)
		return moved;
	/* a little slack is kept: it may grow again */
	if (count < now && now - count > now / 4)
		span_shrink(lane, slab, now, count);
	return ptr;
}

/* A holder before us may have died in resizing it: that is settled first. */
static int settle_last_resize(struct shale_segment *view, uint64_t head, size_t *usable)
{
	if (likely(span_slabs_there(view, head) == span_slab_count(view, head)))
		return 0;
	(void)recovery_run(view);
	*usable = span_slabs_there(view, head) * SLAB_SIZE;
	return *usable == span_slab_count(view, head) * SLAB_SIZE ? 0 : -EBUSY;
}

static void *resize_span(struct lane *lane, void *ptr, const struct block_place *place,
			 size_t usable, size_t size)
{
	bool published = place->word & SLAB_PUBLISHED;
	int r = settle_last_resize(lane->view, place->slab, &usable);

	if (r < 0) {
		errno = -r;
		return NULL;
	}
	if (size > lane->view->capacity_bytes)
		r = -ENOMEM;
	/* who reads a published block may be anywhere in it */
	if (size <= usable)
		return published ? ptr : resize_smaller(lane, ptr, place->slab, usable, size);
	if (r == 0)
		r = span_grow(lane, place->slab, usable / SLAB_SIZE, span_slabs_for(size));
	if (r == 0)
		return ptr;
	if (!published)
		return resize_move(lane->view, ptr, usable, size);
	errno = EBUSY;
	return NULL;
}

void *shale_resize(struct shale_segment *segment, void *ptr, size_t size)
{
	struct block_place place = {0};
	uint64_t usable = 0, offset;
	struct lane *lane;
	int state, r;

	if (!ptr)
		return shale_alloc(segment, size);
	offset = view_offset_of(segment, ptr);
	state = heap_block_state(segment, offset, &usable);
	r = state < HEAP_BLOCK_LIVE ? -EINVAL : lane_enter(segment, &lane);
	if (r == 0)
		r = heap_setup_lane(lane);
	if (r == 0 && block_find(segment, offset, &place) < 0)
		r = -EINVAL;
	if (r < 0) {
		errno = -r;
		return NULL;
	}
	if (segment->debug)
		return debug_resize(segment, ptr, size);
	if (!place.bin)
		return resize_span(lane, ptr, &place, usable, size);
	return resize_small(segment, ptr, state == HEAP_BLOCK_PUBLISHED, usable, size);
}
