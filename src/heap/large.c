/*
 * large.c - blocks above 32 KiB: spans of neighbouring slabs, across arenas if need be.
 *
 * The head's word carries all facts: SPAN(lane, published). Every other slab of the span is
 * BODY(head). span_slabs[head] is the length, written by the claimer while the head is SPAN_CLAIM.
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

#include "heap/arena.h"
#include "heap/giveback.h"
#include "heap/heap.h"
#include "heap/slab.h"
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

/* -- taking apart ------------------------------------------------------------------------------ */

/* The head is SPAN_CLAIM by us or by a dead lane: frees every body that names it, then the head. */
void span_dismantle(struct shale_segment *view, uint64_t head)
{
	uint64_t count = span_slab_count(view, head);
	uint64_t known = (uint64_t)view_arena_high(view) * SLABS_PER_ARENA;
	uint64_t word;

	for (uint64_t slab = head + 1; slab < head + count && slab < known; slab++) {
		word = load_relaxed(slab_word(view, slab)); /* the CAS decides */
		if (slab_word_state(word) == SLAB_BODY && slab_word_head(word) == head)
			(void)cas_acq_rel(slab_word(view, slab), &word,
					  slab_word_next(word, SLAB_FREE));
	}
	word = load_relaxed(slab_word(view, head)); /* only the doer changes SPAN_CLAIM */
	if (slab_word_state(word) == SLAB_SPAN_CLAIM)
		/* pairs: slab.word - the span's holder is done with its bytes. */
		(void)cas_acq_rel(slab_word(view, head), &word, slab_word_next(word, SLAB_FREE));
	arena_note_free(view, head);
}

/* A guarded block's name is an offset inside its span. */
static void unname(struct lane_shm *lane, uint64_t first, uint64_t end)
{
	uint64_t name;

	for (unsigned i = 0; i < 2; i++) {
		name = load_relaxed(&lane->intent.block[i]); /* its lane is us, or dead */
		if (name >= first && name < end)
			store_relaxed(&lane->intent.block[i], UINT64_C(0));
	}
	for (unsigned i = 0; i < LANE_RETIRED; i++) {
		name = load_relaxed(&lane->retired[i]); /* as above */
		if (name >= first && name < end)
			store_relaxed(&lane->retired[i], UINT64_C(0));
	}
}

int span_free(struct shale_segment *view, uint32_t lane_index, uint64_t slab, uint64_t word)
{
	uint64_t low = slab_low(SLAB_SPAN_CLAIM, lane_index, 0);
	uint64_t settled = slab_word_next(word, slab_low(SLAB_SPAN, 0, 0) | SLAB_PUBLISHED);
	bool published = word & SLAB_PUBLISHED;

	/* pairs: slab.word - one freer wins; a second free finds another word. */
	if (!cas_acq_rel(slab_word(view, slab), &word, slab_word_next(word, low))) {
		/* recovery of the dead lane in the word may have come between: the same span still */
		if (!published || word != settled)
			return -EALREADY;
		/* pairs: slab.word - as above. */
		if (!cas_acq_rel(slab_word(view, slab), &word, slab_word_next(word, low)))
			return -EALREADY;
	}
	unname(view_lane(view, lane_index), slab_offset(view, slab),
	       slab_offset(view, slab) + SLAB_SIZE);
	order_for_death();
	span_dismantle(view, slab);
	return 0;
}

/* -- claiming ---------------------------------------------------------------------------------- */

static bool slab_claimable(struct shale_segment *view, uint64_t slab)
{
	/* a look before the CAS that decides */
	return slab_word_state(load_relaxed(slab_word(view, slab))) == SLAB_FREE &&
	       arena_committed(view, slab / SLABS_PER_ARENA);
}

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

static bool span_claim(struct lane *lane, uint64_t head, uint64_t count)
{
	struct shale_segment *view = lane->view;
	uint64_t word;

	if (!claim_slab(view, head, slab_low(SLAB_SPAN_CLAIM, lane->index, 0)))
		return false;
	/* ours while the head is SPAN_CLAIM; published by the word below */
	store_relaxed(&slab_arena(view, head)->span_slabs[head % SLABS_PER_ARENA], (uint32_t)count);
	order_for_death();
	for (uint64_t slab = head + 1; slab < head + count; slab++) {
		if (!claim_slab(view, slab, slab_low_body(head))) {
			span_dismantle(view, head);
			return false;
		}
	}
	word = load_relaxed(slab_word(view, head)); /* ours */
	/* pairs: slab.word - the length is stored before the word says SPAN. */
	return cas_acq_rel(slab_word(view, head), &word,
			   slab_word_next(word, slab_low(SLAB_SPAN, lane->index, 0)));
}

/* The first run of `count` claimable slabs, its head a multiple of `step`; claims it. */
static bool span_search(struct lane *lane, uint64_t count, uint64_t step, uint64_t *ret_head)
{
	struct shale_segment *view = lane->view;
	uint64_t known = (uint64_t)view_arena_high(view) * SLABS_PER_ARENA;
	uint64_t head = 0, slab;

	while (head + count <= known) {
		for (slab = head; slab < head + count && slab_claimable(view, slab); slab++)
			;
		if (slab == head + count && span_claim(lane, head, count)) {
			*ret_head = head;
			return true;
		}
		head = round_up(slab < head + count ? slab + 1 : head + 1, step);
	}
	return false;
}

/* Commits enough neighbouring arenas for `count` slabs; gives up where capacity ends. */
static int span_commit(struct lane *lane, uint64_t count)
{
	uint64_t arenas = (count + SLABS_PER_ARENA - 1) / SLABS_PER_ARENA;
	uint64_t first, next, got;
	int r;

	if (count > slab_total(lane->view))
		return -ENOMEM;
	r = arena_commit_any(lane, 0, &first);
	for (next = first + 1; r == 0 && next < first + arenas; next++) {
		r = arena_commit_any(lane, next, &got);
		if (r == 0 && got != next) {
			first = got; /* not neighbours: start again from the new one */
			next = got;
		}
	}
	return r;
}

static bool span_reclaim(struct lane *lane, uint64_t count, uint64_t step, bool thorough,
			 uint64_t *ret_head)
{
	slab_release_empty(lane, thorough);
	return span_search(lane, count, step, ret_head);
}

int span_alloc(struct lane *lane, uint64_t size, uint64_t alignment, uint64_t *ret_offset)
{
	uint64_t step = alignment > SLAB_SIZE ? alignment / SLAB_SIZE : 1;
	uint64_t count = size == 0 ? 1 : (size - 1) / SLAB_SIZE + 1;
	uint64_t head = 0;
	int r = 0;

	if (size > lane->view->capacity_bytes)
		return -ENOMEM;
	if (!span_search(lane, count, step, &head) &&
	    !span_reclaim(lane, count, step, false, &head)) {
		do {
			r = span_commit(lane, count);
			/* repeats only when others took slabs of what we committed */
		} while (r == 0 && !span_search(lane, count, step, &head));
		/* what was committed before the end may make a run with what was free already */
		if (r == -ENOMEM &&
		    (span_reclaim(lane, count, step, true, &head) ||
		     (recovery_run(lane->view) > 0 && span_search(lane, count, step, &head))))
			r = 0;
		if (r == -ENOMEM)
			/* what was committed for nothing is not kept from others */
			(void)giveback_empty(lane, 0);
	}
	if (r == 0)
		*ret_offset = slab_offset(lane->view, head);
	return r;
}
