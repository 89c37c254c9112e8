/*
 * large.c - blocks above 32 KiB: spans of neighbouring slabs, across arenas if need be.
 *
 * The head's word carries all facts: SPAN(lane, published). Every other slab of the span is
 * BODY(head). span_slabs[head] is the length, written by the claimer while the head is SPAN_CLAIM,
 * and by the holder who resizes it (resize.c). Freed spans are kept by span_cache.c; where a run of
 * free slabs is looked for is in span_search.c.
 *
 *   claim: head FREE -> SPAN_CLAIM(lane); span_slabs; bodies FREE -> BODY(head); head -> SPAN(lane)
 *   free:  head SPAN -> SPAN_CLAIM(freer); bodies BODY(head) -> FREE; head -> FREE
 *
 * Progress: lock-free; who fails a CAS has met a slab that somebody else took.
 * Ordering: slab.word; arena.state as in arena.c.
 * Death:    SPAN_CLAIM names the doer; recovery frees the bodies that name the head, then the head.
 *           SPAN unpublished of a dead lane is freed, published loses its lane and lives on. A lane
 *           that frees a span which it names elsewhere (intent, retired) drops that name while the
 *           head still names the lane, so that nobody is ever named after the slabs are free.
 */
#include "heap/large.h"

#include <errno.h>
#include <string.h>

#include "heap/arena.h"
#include "heap/giveback.h"
#include "heap/heap.h"
#include "heap/heap_lane.h"
#include "heap/rank.h"
#include "heap/slab.h"
#include "heap/span_search.h"
#include "segment/recovery.h"

static uint64_t slab_total(const struct shale_segment *view)
{
	return (uint64_t)view->arena_count * SLABS_PER_ARENA;
}

uint64_t span_slab_count(struct shale_segment *view, uint64_t slab)
{
	/* written by the claimer before the word became SPAN; a peer may lie: bounded */
	uint64_t count = load_relaxed(&slab_arena(view, slab)->span_slabs[slab % SLABS_PER_ARENA]);
	uint64_t room = slab_total(view) - slab;

	return count == 0 || count > room ? 1 : count;
}

static bool is_body_of(const struct shale_segment *view, uint64_t slab, uint64_t head)
{
	uint64_t word;

	if (!slab_known(view, slab))
		return false;
	/* pairs: slab.word - whose it is now. */
	word = load_acquire(slab_word(view, slab));
	return slab_word_state(word) == SLAB_BODY && slab_word_head(word) == head;
}

/* Bodies come first to last and go last to first: what is there has no gap. */
static SHALE_COLD uint64_t count_bodies(const struct shale_segment *view, uint64_t head,
					uint64_t count)
{
	uint64_t have = 1;

	while (have < count && is_body_of(view, head + have, head))
		have++;
	return have;
}

uint64_t span_slabs_there(struct shale_segment *view, uint64_t slab)
{
	uint64_t count = span_slab_count(view, slab);

	return count == 1 || is_body_of(view, slab + count - 1, slab)
		       ? count
		       : count_bodies(view, slab, count);
}

void span_set_slabs(struct shale_segment *view, uint64_t head, uint64_t count)
{
	/* relaxed: the claimer's word publishes it, or the holder hands the block on himself */
	store_relaxed(&slab_arena(view, head)->span_slabs[head % SLABS_PER_ARENA], (uint32_t)count);
}

void span_rank(struct shale_segment *view, uint64_t first, uint64_t count)
{
	uint64_t high = view_arena_high(view);
	uint64_t last = (first + count - 1) / SLABS_PER_ARENA;

	for (uint64_t arena = first / SLABS_PER_ARENA; arena <= last && arena < high; arena++)
		(void)rank_update(view, arena);
}

/* -- taking apart ------------------------------------------------------------------------------ */

static void free_bodies(struct shale_segment *view, uint64_t head, uint64_t from, uint64_t to)
{
	uint64_t known = (uint64_t)view_arena_high(view) * SLABS_PER_ARENA;
	uint64_t end = head + to < known ? head + to : known;

	for (uint64_t slab = end; slab-- > head + from;) {
		uint64_t word = load_relaxed(slab_word(view, slab)); /* the CAS decides */

		if (slab_word_state(word) == SLAB_BODY && slab_word_head(word) == head)
			/* pairs: slab.word - the span's holder is done with its bytes. */
			(void)cas_acq_rel(slab_word(view, slab), &word,
					  slab_word_next(word, SLAB_FREE));
	}
}

/* The slabs [first, first + count) have become free. */
static void note_free(struct shale_segment *view, uint64_t first, uint64_t count)
{
	uint64_t high = view_arena_high(view);
	uint64_t last = (first + count - 1) / SLABS_PER_ARENA;

	for (uint64_t arena = first / SLABS_PER_ARENA; arena <= last && arena < high; arena++)
		arena_note_free(view, arena * SLABS_PER_ARENA);
}

void span_free_bodies(struct shale_segment *view, uint64_t head, uint64_t from, uint64_t to)
{
	if (to <= from)
		return;
	free_bodies(view, head, from, to);
	note_free(view, head + from, to - from);
}

/* The head is SPAN_CLAIM by us or by a dead lane: frees every body that names it, then the head. */
void span_dismantle(struct shale_segment *view, uint64_t head)
{
	uint64_t count = span_slab_count(view, head);
	uint64_t word;

	free_bodies(view, head, 1, count);
	word = load_relaxed(slab_word(view, head)); /* only the doer changes SPAN_CLAIM */
	if (slab_word_state(word) == SLAB_SPAN_CLAIM)
		/* pairs: slab.word - the span's holder is done with its bytes. */
		(void)cas_acq_rel(slab_word(view, head), &word, slab_word_next(word, SLAB_FREE));
	note_free(view, head, count);
}

/* Some bits of every name of the lane; mostly there is none. */
static uint64_t names_together(const struct lane_shm *lane)
{
	const uint64_t *retired = lane->retired;
	uint64_t all = load_relaxed(&lane->freeing); /* its lane is us, or dead: all of these */

	all |= load_relaxed(&lane->intent.block[0]) | load_relaxed(&lane->intent.block[1]);
	for (unsigned i = 0; i < LANE_RETIRED; i += 4)
		all |= load_relaxed(retired + i) | load_relaxed(retired + i + 1) |
		       load_relaxed(retired + i + 2) | load_relaxed(retired + i + 3);
	return all;
}

/* A guarded block's name is an offset inside the head of its span. */
static bool names_head(const uint64_t *name, uint64_t offset)
{
	return load_relaxed(name) - offset < SLAB_SIZE; /* its lane is us, or dead */
}

bool span_named(const struct lane_shm *lane, uint64_t offset)
{
	bool named;

	if (names_together(lane) == 0)
		return false;
	named = names_head(&lane->freeing, offset);
	for (unsigned i = 0; i < 2; i++)
		named |= names_head(&lane->intent.block[i], offset);
	for (unsigned i = 0; i < LANE_RETIRED; i++)
		named |= names_head(&lane->retired[i], offset);
	return named;
}

void span_unname(struct lane_shm *lane, uint64_t offset)
{
	/* relaxed: as above */
	if (names_head(&lane->freeing, offset))
		store_relaxed(&lane->freeing, UINT64_C(0));
	for (unsigned i = 0; i < 2; i++)
		if (names_head(&lane->intent.block[i], offset))
			store_relaxed(&lane->intent.block[i], UINT64_C(0));
	for (unsigned i = 0; i < LANE_RETIRED; i++)
		if (names_head(&lane->retired[i], offset))
			store_relaxed(&lane->retired[i], UINT64_C(0));
}

int span_leave(struct shale_segment *view, uint64_t slab, uint64_t *word, uint64_t low)
{
	uint64_t settled = slab_word_next(*word, slab_low(SLAB_SPAN, 0, 0) | SLAB_PUBLISHED);
	bool published = *word & SLAB_PUBLISHED;
	uint64_t left = slab_word_next(*word, low);

	/* pairs: slab.word - one freer wins; a second free finds another word. */
	if (!cas_acq_rel(slab_word(view, slab), word, left)) {
		/* recovery of the dead lane in the word may have come between: the same span still */
		if (!published || *word != settled)
			return -EALREADY;
		left = slab_word_next(*word, low);
		/* pairs: slab.word - as above. */
		if (!cas_acq_rel(slab_word(view, slab), word, left))
			return -EALREADY;
	}
	*word = left;
	return 0;
}

int span_free(struct shale_segment *view, uint32_t lane_index, uint64_t slab, uint64_t word)
{
	int r = span_leave(view, slab, &word, slab_low(SLAB_SPAN_CLAIM, lane_index, 0));

	if (r < 0)
		return r;
	span_unname(view_lane(view, lane_index), slab_offset(view, slab));
	order_for_death();
	span_dismantle(view, slab);
	return 0;
}

/* -- claiming ---------------------------------------------------------------------------------- */

/* FREE -> `low`, and the arena is still committed after it. */
static bool claim_slab(struct shale_segment *view, uint64_t slab, uint64_t low)
{
	uint64_t *place = slab_word(view, slab);
	uint64_t word = load_relaxed(place); /* the CAS decides */
	uint64_t claimed = slab_word_next(word, low);

	/* pairs: slab.word - the last holder is done with the slab. */
	if (slab_word_state(word) != SLAB_FREE || !cas_seq_cst(place, &word, claimed))
		return false;
	if (arena_committed(view, slab / SLABS_PER_ARENA))
		return true;
	(void)cas_acq_rel(place, &claimed, slab_word_next(claimed, SLAB_FREE));
	return false;
}

bool span_claim_body(struct shale_segment *view, uint64_t slab, uint64_t head)
{
	return claim_slab(view, slab, slab_low_body(head));
}

int span_prepare(struct shale_segment *view, uint64_t first, uint64_t count, bool zero)
{
	uint64_t slab = first, end = first + count;

	while (slab < end) {
		uint64_t arena = slab / SLABS_PER_ARENA, from = slab % SLABS_PER_ARENA;
		uint64_t n =
			SLABS_PER_ARENA - from < end - slab ? SLABS_PER_ARENA - from : end - slab;
		uint32_t mask = (UINT32_MAX >> (SLABS_PER_ARENA - n)) << from;
		int r = arena_prepare(view, arena, mask, zero, NULL);

		if (r < 0)
			return r;
		slab += n;
	}
	return 0;
}

static int claim_bodies(struct shale_segment *view, const struct span_want *want, uint64_t head)
{
	for (uint64_t slab = head + 1; slab < head + want->count; slab++)
		if (!span_claim_body(view, slab, head))
			return -EAGAIN;
	return span_prepare(view, head, want->count, want->zero);
}

int span_claim(struct lane *lane, const struct span_want *want, uint64_t head)
{
	struct shale_segment *view = lane->view;
	uint64_t word;
	int r;

	if (!claim_slab(view, head, slab_low(SLAB_SPAN_CLAIM, lane->index, 0)))
		return -EAGAIN;
	/* ours while the head is SPAN_CLAIM; published by the word below */
	span_set_slabs(view, head, want->count);
	order_for_death();
	r = claim_bodies(view, want, head);
	if (r < 0) {
		span_dismantle(view, head);
		return r;
	}
	word = load_relaxed(slab_word(view, head)); /* ours */
	/* pairs: slab.word - the length is stored before the word says SPAN. */
	(void)cas_acq_rel(slab_word(view, head), &word,
			  slab_word_next(word, slab_low(SLAB_SPAN, lane->index, 0)));
	span_rank(view, head, want->count);
	return 0;
}

/* -- allocating ----------------------------------------------------------------------------------- */

/* Cut from a longer one of the cache: its bytes are as they were. */
static int take_cached(struct lane *lane, const struct span_want *want, bool cut,
		       uint64_t *ret_head)
{
	if (!span_cache_take(lane, want->count, want->step, cut, ret_head))
		return -EAGAIN;
	if (want->zero)
		memset(view_at(lane->view, slab_offset(lane->view, *ret_head)), 0,
		       want->count * SLAB_SIZE);
	return 0;
}

/* What the lane keeps for itself goes, and is looked through again. */
static int take_own(struct lane *lane, const struct span_want *want, uint64_t *ret_head)
{
	int r = take_cached(lane, want, true, ret_head);

	if (r != -EAGAIN)
		return r;
	if (heap_lane(lane)->spans.slabs > SPAN_CACHE_SLABS / 2)
		(void)span_steal_cached(lane, false);
	slab_release_empty(lane, false);
	return span_search(lane, want, false, ret_head);
}

static int take_committing(struct lane *lane, const struct span_want *want, uint64_t *ret_head)
{
	int r = -EAGAIN;

	/* again only when others took slabs of what we committed: then there is less and less */
	for (unsigned tries = 0; r == -EAGAIN && tries < 64; tries++)
		r = span_search(lane, want, true, ret_head);
	return r == -EAGAIN ? -ENOMEM : r;
}

/* `commit`: there is more than when the kernel said no. */
static int take_anywhere(struct lane *lane, const struct span_want *want, bool commit,
			 uint64_t *ret_head)
{
	int r = span_search_all(lane, want, ret_head);

	if (r == -EAGAIN)
		r = commit ? take_committing(lane, want, ret_head) : -ENOMEM;
	return r;
}

/* The kernel has no more: what everybody has cached, what hints hide, and what the dead hold. */
static int take_hidden(struct lane *lane, const struct span_want *want, uint64_t *ret_head)
{
	bool stolen = span_steal_cached(lane, true);
	int r;

	slab_release_empty(lane, true);
	rank_repair(lane->view);
	r = take_anywhere(lane, want, stolen, ret_head);
	if (r == -ENOMEM && recovery_run(lane->view) > 0)
		r = take_anywhere(lane, want, true, ret_head);
	return r;
}

int span_alloc(struct lane *lane, uint64_t size, uint64_t alignment, bool zero,
	       uint64_t *ret_offset)
{
	struct span_want want = {
		.count = span_slabs_for(size),
		.step = alignment > SLAB_SIZE ? alignment / SLAB_SIZE : 1,
		.zero = zero,
	};
	uint64_t head = 0;
	int r;

	if (size > lane->view->capacity_bytes)
		return -ENOMEM;
	r = take_cached(lane, &want, false, &head);
	if (r == -EAGAIN)
		r = span_search(lane, &want, false, &head);
	if (r == -EAGAIN)
		r = take_own(lane, &want, &head);
	if (r == -EAGAIN)
		r = take_committing(lane, &want, &head);
	if (r == -ENOMEM && giveback_settle(lane->view))
		r = take_committing(lane, &want, &head);
	giveback_tick(lane);
	if (r == -ENOMEM) {
		r = take_hidden(lane, &want, &head);
		if (r < 0)
			/* what was committed for nothing is not kept from others */
			(void)giveback_empty(lane, 0);
	}
	if (r == 0)
		*ret_offset = slab_offset(lane->view, head);
	return r;
}
