/*
 * heap_recovery.c - what a dead lane leaves in the heap, and how it is settled.
 *
 *   found                       means                                  becomes
 *   freeing                     was freeing a block: done or not       freed, if it lives
 *   intent PUBLISH_AT           was handing a block over               kept if placed, else freed
 *   slab OWNED(lane)            its blocks: published stay, rest freed ORPHAN, or FREE if none lives
 *   slab PARKED(lane)           the same; others may free and take it  ORPHAN, or FREE if none lives
 *   slab CLAIMED(lane)          taking a slab; facts are zero          FREE
 *   slab CLAIMED(lane, dirty)   took a dead slab; some facts are zero  zeroed, FREE
 *   span SPAN_CLAIM(lane)       building it or taking it apart         FREE, with its bodies
 *   span SPAN_CACHED(lane)      kept for the next allocation               FREE, with its bodies
 *   intent SPAN_RESIZE          the span is as long as it was or will be   one of the two
 *   span SPAN(lane)             unpublished: freed; published: stays   FREE, or SPAN(no lane)
 *   arena COMMITTING(lane)      may be committed or not                NONE (committing again is fine)
 *   arena RETURNING(lane)       all words CLAIMED(lane): punched?      NONE, punched again
 *                               else somebody has a slab of it         COMMITTED
 *
 * Runs in one process at a time per peer (recovery.h), on facts whose owner is dead; remote freers
 * may be at work in shared[] meanwhile. Every step may be cut off and repeated.
 *
 * Ordering: slab.word (the swept facts are visible to whoever adopts), slab.shared, slab.moved.
 * Death:    of the recoverer: the lane stays the lane of a dead peer; the next one starts again.
 */
#include "heap/heap_recovery.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "heap/arena.h"
#include "heap/debug.h"
#include "heap/block.h"
#include "heap/facts.h"
#include "heap/giveback.h"
#include "heap/heap.h"
#include "heap/heap_lane.h"
#include "heap/large.h"
#include "heap/memory_wait.h"
#include "heap/names.h"
#include "heap/parked.h"
#include "heap/publish.h"
#include "heap/rank.h"
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
	else if (intent_word_kind(word) == INTENT_SPAN_RESIZE)
		span_settle_resize(view, lane);
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

/*
 * A free that the dead lane had begun. The name in `freeing` stands while the block is freed for the
 * lane, and goes after it. What is no block is the guard of a recoverer that died.
 */
int heap_settle_free(struct shale_segment *view, uint32_t lane)
{
	uint64_t *freeing = &view_lane(view, lane)->freeing;

	/* the lane is dead: nobody else writes it */
	free_if_live(view, lane, load_relaxed(freeing));
	/* pairs: lane.freeing - what was named is settled. */
	store_release(freeing, UINT64_C(0));
	return 0;
}

/* -- open slabs ---------------------------------------------------------------------------------- */

/* Eight blocks of which nothing was shared: the published ones live on. Their high bits. */
static uint64_t sweep_unshared(uint8_t *own, uint64_t facts)
{
	/* the bit of a byte that tells 3 from 1; what is neither is damage, and goes */
	uint64_t published = (facts >> 1 & FACTS_ONES) * UINT64_C(0xff);

	if ((facts & ~published) != 0)
		facts_store(own, facts & published); /* its only writer is dead */
	return facts_nonzero(facts & published);
}

/* Settles one block; true if it lives on. `collectable`: others have freed it, nobody names it. */
static bool sweep_block(uint8_t *own, uint8_t *shared, bool collectable)
{
	uint8_t mine = load_relaxed(own); /* its owner is dead */
	/* pairs: slab.shared - a freer's accesses are over. */
	uint8_t others = load_acquire(shared);

	if (mine == OWN_FREE) {
		if (others != SHARED_NONE)
			store_relaxed(shared, (uint8_t)SHARED_NONE); /* a collect was cut off */
		return false;
	}
	/* freed, but named, or freed just now: whoever adopts the slab collects it */
	if (others == SHARED_FREED && !collectable)
		return true;
	if (others != SHARED_FREED && (mine == OWN_PUBLISHED || others == SHARED_PUBLISHED))
		return true;
	store_relaxed(own, (uint8_t)OWN_FREE);
	order_for_death();
	store_relaxed(shared, (uint8_t)SHARED_NONE); /* freed or never shared: nobody holds it */
	return false;
}

/* Which blocks were freed by others and are named by nobody: the names after the facts. */
static void gather_collectable(struct shale_segment *view, uint64_t slab,
			       const struct bin_info *bin, uint64_t *ret_freed)
{
	const uint8_t *shared = slab_own_facts(view, bin, slab) + bin->facts_half;
	uint64_t first = slab_offset(view, slab);
	uint64_t names[NAMES_MAX];
	uint32_t count;

	if (!facts_freed(shared, bin->count, ret_freed))
		return;
	if (!names_gather(view, first, first + SLAB_SIZE, names, &count)) {
		memset(ret_freed, 0, LONG_FACTS_BLOCKS / 8);
		return;
	}
	for (uint32_t i = 0; i < count; i++) {
		uint32_t index = bin_block_index(bin, (uint32_t)(names[i] - first));

		if (index != UINT32_MAX)
			ret_freed[index / 64] &= ~(UINT64_C(1) << (index % 64));
	}
}

/* True if something in it lives on. */
static bool sweep_slab(struct shale_segment *view, uint64_t slab, const struct bin_info *bin)
{
	uint8_t *own = slab_own_facts(view, bin, slab);
	uint8_t *shared = own + bin->facts_half;
	uint64_t collectable[LONG_FACTS_BLOCKS / 64] = {0};
	uint64_t live = 0;

	gather_collectable(view, slab, bin, collectable);
	for (uint32_t i = 0; i < bin->count; i += 8) {
		if (facts_load(shared + i) == 0) {
			live |= sweep_unshared(own + i, facts_load(own + i));
			continue;
		}
		for (uint32_t k = i; k < i + 8 && k < bin->count; k++)
			live |= sweep_block(own + k, shared + k,
					    collectable[k / 64] >> (k % 64) & 1);
	}
	return live != 0;
}

static uint64_t orphan_word(uint64_t word)
{
	uint64_t low = slab_low(SLAB_ORPHAN, 0, slab_word_bin(word)) | (word & SLAB_SPARSE);

	return slab_word_next(word, low);
}

/* From `word`; false: it is another by now. */
static bool make_orphan(struct shale_segment *view, uint64_t slab, uint64_t word)
{
	/* freers of an orphan do not wake anybody: whoever adopts it must look */
	store_relaxed(slab_remote_hint(view, slab), (uint8_t)1);
	/* pairs: slab.word - the swept facts come with the slab. pairs: slab.moved - then the look. */
	return cas_seq_cst(slab_word(view, slab), &word, orphan_word(word));
}

/* The last block may have been freed just before. */
static void look_at_orphan(struct shale_segment *view, uint32_t lane, uint64_t slab, uint64_t word)
{
	if (slab_look(view, lane, slab, word) != SLAB_TAKEN)
		slab_orphans_changed(view);
}

static void settle_owned(struct shale_segment *view, uint32_t lane, uint64_t slab, uint64_t word)
{
	const struct bin_info *bin = &bin_table[slab_word_bin(word)];
	uint64_t first = slab_offset(view, slab);

	if (bin->size == 0) {
		(void)view_damaged(view);
		return;
	}
	if (sweep_slab(view, slab, bin) || names_any(view, first, first + SLAB_SIZE, 0)) {
		if (make_orphan(view, slab, word))
			look_at_orphan(view, lane, slab, orphan_word(word));
		return;
	}
	store_relaxed(slab_remote_hint(view, slab),
		      (uint8_t)0); /* a hint; the slab has no blocks */
	/* pairs: slab.word - the facts are zero before others may take the slab. */
	(void)cas_acq_rel(slab_word(view, slab), &word, slab_word_next(word, SLAB_FREE));
	arena_note_free(view, slab);
}

/* -- parked slabs ---------------------------------------------------------------------------------- */

/* As the dead owner would: own[] to 0 for what is neither published nor freed by others. */
static void free_unpublished(struct shale_segment *view, uint64_t slab, const struct bin_info *bin)
{
	uint8_t *own = slab_own_facts(view, bin, slab);
	const uint8_t *shared = own + bin->facts_half;

	for (uint32_t i = 0; i < bin->count; i += 8) {
		uint64_t facts = facts_load(own + i);
		/* bytes that others have written to stay as they are: published there, or freed */
		uint64_t touched = (facts_nonzero(facts_load(shared + i)) >> 7) * UINT64_C(0xff);
		uint64_t published = (facts >> 1 & FACTS_ONES) * UINT64_C(0xff);
		uint64_t left = facts & (touched | published);

		if (left != facts)
			facts_store(own + i, left); /* its only other writer is dead */
	}
}

static void free_unpublished_sparse(struct shale_segment *view, uint64_t slab, uint64_t word)
{
	const struct sparse_fact *entries = slab_arena(view, slab)->sparse[slab % SLABS_PER_ARENA];

	for (unsigned i = 0; i < SPARSE_FACTS; i++) {
		struct block_place place = {
			.slab = slab,
			.word = word,
			.index = load_relaxed(&entries[i].index), /* as own */
		};

		/* relaxed: own of an entry does not change while the slab is sparse */
		if (load_relaxed(&entries[i].own) != OWN_ALLOCATED ||
		    load_relaxed(&entries[i].shared) != SHARED_NONE)
			continue;
		block_place_sparse(view, &place, i);
		(void)block_set_shared(&place, SHARED_FREED);
	}
}

/* Does a living lane move facts of this arena, so that HELD is its? */
static bool lease_of_another(const struct shale_segment *view, uint32_t lane, uint64_t slab)
{
	/* relaxed: a holder that comes and goes is met by the CAS on the word */
	uint32_t holder = slab_word_lane(load_relaxed(&slab_arena(view, slab)->lease));

	return holder != 0 && holder != lane && holder < view_lane_high(view) &&
	       lane_word_active(load_relaxed(&view_lane(view, holder)->word));
}

/*
 * One attempt under the guard: 0 an orphan (*ret_word), or not ours any more; 1 HELD by another;
 * -EAGAIN it changed.
 */
static int sweep_parked(struct shale_segment *view, uint32_t lane, uint64_t slab,
			uint64_t *ret_word)
{
	/* pairs: slab.word - the dead owner's facts. */
	uint64_t word = load_acquire(slab_word(view, slab));
	const struct bin_info *bin = &bin_table[slab_word_bin(word)];
	uint64_t ours = slab_word_next(word, word & SLAB_PAYLOAD_MASK);

	if (slab_word_state(word) != SLAB_PARKED || slab_word_lane(word) != lane)
		return 0;
	if ((word & SLAB_HELD) && lease_of_another(view, lane, slab))
		return 1;
	if (bin->size == 0) {
		(void)view_damaged(view);
		return 0;
	}
	/* who has looked before takes nothing; who looks later sees the guard */
	/* pairs: lane.freeing - the guard is there before the word changes. */
	if (!cas_seq_cst(slab_word(view, slab), &word, ours))
		return -EAGAIN;
	if (ours & SLAB_SPARSE)
		free_unpublished_sparse(view, slab, ours);
	else
		free_unpublished(view, slab, bin);
	/* pairs: slab.moved - the facts, then the word. */
	fence_seq_cst();
	if (load_seq_cst(slab_word(view, slab)) != ours || !make_orphan(view, slab, ours))
		return -EAGAIN;
	*ret_word = orphan_word(ours);
	return 0;
}

#define PARKED_TRIES 4096u /* a word that changes more often is played with */

/* 1: somebody who lives moves its facts, come back later. */
static int settle_parked(struct shale_segment *view, uint32_t lane, uint64_t slab)
{
	uint64_t *freeing = &view_lane(view, lane)->freeing;
	uint64_t orphan = 0;
	int r = -EAGAIN;

	/* no block starts there: a name that keeps others from taking the slab, and frees nothing */
	/* pairs: lane.freeing - the guard of the sweep. */
	store_release(freeing, slab_offset(view, slab) + 1);
	for (unsigned tries = 0; r == -EAGAIN && tries < PARKED_TRIES; tries++)
		r = sweep_parked(view, lane, slab, &orphan);
	/* pairs: lane.freeing - the slab is an orphan. */
	store_release(freeing, UINT64_C(0));
	if (orphan != 0)
		look_at_orphan(view, lane, slab, orphan);
	if (r == -EAGAIN)
		(void)view_damaged(view);
	return r;
}

/* -- all slabs ------------------------------------------------------------------------------------- */

static void settle_span(struct shale_segment *view, uint32_t lane, uint64_t slab, uint64_t word)
{
	if (!(word & SLAB_PUBLISHED))
		(void)span_free(view, lane, slab, word);
	else
		(void)cas_acq_rel(slab_word(view, slab), &word,
				  slab_word_next(word, slab_low(SLAB_SPAN, 0, 0) | SLAB_PUBLISHED));
}

static void settle_claimed(struct shale_segment *view, uint64_t slab, uint64_t word)
{
	if (word & SLAB_DIRTY)
		slab_wipe(view, slab, word);
	else
		(void)cas_acq_rel(slab_word(view, slab), &word, slab_word_next(word, SLAB_FREE));
}

/* 1: not yet. */
static int settle_word(struct shale_segment *view, uint32_t lane, uint64_t slab)
{
	/* pairs: slab.word - the dead owner's facts, or a helper's. */
	uint64_t word = load_acquire(slab_word(view, slab));

	if (slab_word_state(word) == SLAB_BODY || slab_word_lane(word) != lane)
		return 0;
	switch (slab_word_state(word)) {
	case SLAB_OWNED:
		settle_owned(view, lane, slab, word);
		break;
	case SLAB_PARKED:
		return settle_parked(view, lane, slab);
	case SLAB_CLAIMED:
		settle_claimed(view, slab, word);
		arena_note_free(view, slab);
		break;
	case SLAB_SPAN_CACHED:
		span_cache_settle(view, lane, slab, word);
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
	return 0;
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
	(void)rank_update(view, number);
}

int heap_settle_slabs(struct shale_segment *view, uint32_t lane)
{
	uint64_t high = view_arena_high(view);
	int later = 0;

	/* before the words, which tell how far the dead lane came with returning an arena */
	for (uint64_t arena = 0; arena < high; arena++)
		settle_arena(view, lane, arena);
	for (uint64_t slab = 0; slab < high * SLABS_PER_ARENA; slab++)
		later |= settle_word(view, lane, slab);
	if (view->debug)
		guard_settle(view, lane);
	memory_freed(view);
	return later;
}

void heap_lane_finish(struct lane *lane)
{
	for (unsigned i = 0; i < BIN_COUNT; i++)
		free(heap_bin(lane, i)->owned);
}
