/*
 * heap_recovery.c - what a dead lane leaves in the heap, and how it is settled.
 *
 *   found                       means                                  becomes
 *   intent PUBLISH_AT           was handing a block over               kept if placed, else freed
 *   slab OWNED(lane)            its blocks: published stay, rest freed ORPHAN, or FREE if none lives
 *   slab CLAIMED(lane)          taking a slab; facts are zero          FREE
 *   span SPAN_CLAIM(lane)       building it or taking it apart         FREE, with its bodies
 *   span SPAN(lane)             unpublished: freed; published: stays   FREE, or SPAN(no lane)
 *   arena COMMITTING(lane)      may be committed or not                NONE (committing again is fine)
 *   arena RETURNING(lane)       all words CLAIMED(lane): punched?      NONE, punched again
 *                               else somebody has a slab of it         COMMITTED
 *
 * Runs in one process at a time per peer (recovery.h), on facts whose owner is dead; remote freers
 * may be at work in shared[] meanwhile. Every step may be cut off and repeated.
 *
 * Ordering: slab.word (the swept facts are visible to whoever adopts), slab.shared.
 * Death:    of the recoverer: the lane stays the lane of a dead peer; the next one starts again.
 */
#include "heap/heap_recovery.h"

#include <stdlib.h>

#include "heap/arena.h"
#include "heap/debug.h"
#include "heap/giveback.h"
#include "heap/heap.h"
#include "heap/heap_lane.h"
#include "heap/large.h"
#include "heap/memory_wait.h"
#include "heap/publish.h"
#include "heap/slab.h"

/* -- intents ----------------------------------------------------------------------------------- */

static void free_if_live(struct shale_segment *view, uint32_t lane, uint64_t offset)
{
	if (offset != 0 && heap_block_state(view, offset, NULL) >= HEAP_BLOCK_LIVE)
		(void)heap_free_for(view, lane, offset);
}

static void settle_publish(struct shale_segment *view, uint32_t lane, uint64_t intent_word)
{
	struct intent_shm *intent = &view_lane(view, lane)->intent;
	/* the lane is dead: nobody but takers (who move the status only) writes its intent */
	uint64_t offset = load_relaxed(&intent->block[0]);
	uint64_t companion = load_relaxed(&intent->block[1]);
	uint64_t place = load_relaxed(&intent->argument[0]);
	uint64_t *word = publish_place(view, place);

	if (!word || (intent_word & PUBLISH_DONE))
		return;
	/* pairs: heap.place - compared only. */
	if (load_acquire(word) == offset || publish_is_being_taken(view, offset, place))
		return;
	/* a taker that came and went since the look above has left its mark in the word */
	if (load_acquire(&intent->word) & PUBLISH_DONE)
		return;
	if (load_relaxed(&intent->argument[1]))
		free_if_live(view, lane, offset);
	if (load_relaxed(&intent->argument[2]))
		free_if_live(view, lane, companion);
}

int heap_settle_intent(struct shale_segment *view, uint32_t lane)
{
	struct intent_shm *intent = &view_lane(view, lane)->intent;
	/* pairs: lane.intent - the arguments were stored before the word. */
	uint64_t word = load_acquire(&intent->word);

	if (intent_word_kind(word) == INTENT_PUBLISH_AT)
		settle_publish(view, lane, word);
	else if (intent_word_kind(word) != INTENT_TAKE_AT)
		return 0;
	/* pairs: lane.intent - what was named is settled before the name goes. */
	store_release(&intent->word, UINT64_C(0));
	order_for_death();
	/* relaxed: the names go last; the sweep of the slabs would keep what they name */
	store_relaxed(&intent->block[0], UINT64_C(0));
	store_relaxed(&intent->block[1], UINT64_C(0));
	return 0;
}

/* -- slabs ------------------------------------------------------------------------------------- */

/* Settles block i of a dead lane's slab; true if it lives on. */
static bool sweep_block(struct shale_segment *view, uint8_t *own, uint8_t *shared, uint64_t offset)
{
	uint8_t mine = load_relaxed(own); /* its owner is dead */
	/* pairs: slab.shared - a freer's accesses are over. */
	uint8_t others = load_acquire(shared);

	if (mine == OWN_FREE) {
		if (others != SHARED_NONE)
			store_relaxed(shared, (uint8_t)SHARED_NONE); /* a collect was cut off */
		return false;
	}
	if (others == SHARED_FREED) {
		if (heap_block_named(view, offset))
			return true; /* its free is not settled yet: whoever adopts collects it */
	} else if (mine == OWN_PUBLISHED || others == SHARED_PUBLISHED) {
		return true;
	}
	store_relaxed(own, (uint8_t)OWN_FREE);
	order_for_death();
	store_relaxed(shared, (uint8_t)SHARED_NONE); /* freed or never shared: nobody holds it */
	return false;
}

static uint32_t sweep_slab(struct shale_segment *view, uint64_t slab, const struct bin_info *bin)
{
	uint8_t *own = slab_own_facts(view, bin, slab);
	uint64_t first = slab_offset(view, slab);
	uint32_t live = 0;

	for (uint32_t i = 0; i < bin->count; i++)
		live += sweep_block(view, own + i, own + bin->facts_half + i,
				    first + (uint64_t)i * bin->size);
	return live;
}

static void settle_owned(struct shale_segment *view, uint64_t slab, uint64_t word)
{
	unsigned index = slab_word_bin(word);
	uint64_t low;

	if (bin_table[index].size == 0) {
		(void)view_damaged(view);
		return;
	}
	low = sweep_slab(view, slab, &bin_table[index]) != 0 ? slab_low(SLAB_ORPHAN, 0, index)
							     : slab_low(SLAB_FREE, 0, 0);
	/* freers of an orphan do not wake anybody: whoever adopts it must look */
	store_relaxed(slab_remote_hint(view, slab), (uint8_t)1);
	/* pairs: slab.word - the swept facts come with the slab. */
	(void)cas_acq_rel(slab_word(view, slab), &word, slab_word_next(word, low));
	slab_orphans_changed(view);
	arena_note_free(view, slab);
}

static void settle_span(struct shale_segment *view, uint32_t lane, uint64_t slab, uint64_t word)
{
	if (!(word & SLAB_PUBLISHED))
		(void)span_free(view, lane, slab, word);
	else
		(void)cas_acq_rel(slab_word(view, slab), &word,
				  slab_word_next(word, slab_low(SLAB_SPAN, 0, 0) | SLAB_PUBLISHED));
}

static void settle_word(struct shale_segment *view, uint32_t lane, uint64_t slab)
{
	/* pairs: slab.word - the dead owner's facts, or a helper's. */
	uint64_t word = load_acquire(slab_word(view, slab));

	if (slab_word_state(word) == SLAB_BODY || slab_word_lane(word) != lane)
		return;
	switch (slab_word_state(word)) {
	case SLAB_OWNED:
		settle_owned(view, slab, word);
		break;
	case SLAB_CLAIMED:
		(void)cas_acq_rel(slab_word(view, slab), &word, slab_word_next(word, SLAB_FREE));
		break;
	case SLAB_SPAN_CLAIM:
		span_dismantle(view, slab);
		break;
	case SLAB_SPAN:
		settle_span(view, lane, slab, word);
		break;
	default:
		break;
	}
}

/* Only then may the dead lane have begun to punch: arena_return() claims every word first. */
static bool arena_claimed_whole(const struct arena_shm *arena, uint32_t lane)
{
	for (unsigned i = 0; i < SLABS_PER_ARENA; i++) {
		/* pairs: slab.word - whoever holds the slab has it from before the arena's state. */
		uint64_t word = load_acquire(&arena->word[i]);

		if (slab_word_state(word) != SLAB_CLAIMED || slab_word_lane(word) != lane)
			return false;
	}
	return true;
}

static void settle_arena(struct shale_segment *view, uint32_t lane, uint64_t number)
{
	struct arena_shm *arena = heap_arena(view, number);
	uint64_t word = load_acquire(&arena->state); /* pairs: arena.state - what it was doing */
	uint64_t kind = word & SLAB_STATE_MASK;
	enum arena_state after = ARENA_NONE;

	if ((kind != ARENA_COMMITTING && kind != ARENA_RETURNING) || slab_word_lane(word) != lane)
		return;
	if (kind == ARENA_RETURNING && !arena_claimed_whole(arena, lane))
		/* somebody was faster and has a slab of it: the arena stays as it was */
		after = ARENA_COMMITTED;
	else if (arena_decommit(view, number) < 0 && kind == ARENA_RETURNING)
		/* nobody has slabs of it, but the kernel does not take it: it stays, and is counted */
		after = ARENA_COMMITTED;
	/* pairs: arena.state - before the words become free: nobody takes a slab of a hole. */
	(void)cas_seq_cst(&arena->state, &word, slab_word_next(word, (uint64_t)after));
}

int heap_settle_slabs(struct shale_segment *view, uint32_t lane)
{
	uint64_t high = view_arena_high(view);

	/* before the words, which tell how far the dead lane came with returning an arena */
	for (uint64_t arena = 0; arena < high; arena++)
		settle_arena(view, lane, arena);
	for (uint64_t slab = 0; slab < high * SLABS_PER_ARENA; slab++)
		settle_word(view, lane, slab);
	if (view->debug)
		guard_settle(view, lane);
	memory_freed(view);
	return 0;
}

void heap_lane_finish(struct lane *lane)
{
	for (unsigned i = 0; i < BIN_COUNT; i++)
		free(heap_bin(lane, i)->owned);
}
