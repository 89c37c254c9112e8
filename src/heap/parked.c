/*
 * parked.c - slabs that their lane has filled and left.
 *
 *   OWNED(L) --slab_park--> PARKED(L) --slab_open, slab_reopen_for_free--> OWNED(L)      by L
 *                           PARKED(L), ORPHAN --slab_look--> CLAIMED(taker, dirty) --> FREE   by anyone
 *
 * Nobody hands out a block of a PARKED slab or an ORPHAN, so their blocks only die. Whoever frees one
 * looks whether any is left:
 *
 *   last freer A                                  last freer B
 *   shared[a] = FREED      (exchange: a fence)    shared[b] = FREED      (exchange: a fence)
 *   freeing = 0                                   freeing = 0
 *   look: does anything live?                     look: does anything live?
 *   fence                                         fence
 *   names in the slab's range? then leave it      names in the slab's range? then leave it
 *   CAS word -> CLAIMED(A, dirty)                 CAS word -> CLAIMED(B, dirty)
 *
 * One exchange is later than the other: its look finds everything dead. If both looks do, both names
 * are dropped before both fences, so one of the two finds no name. If only A's does, B has dropped its
 * name before a look that was over when A freed: names.c waits for that store. The CAS expects the word
 * from before the look, so nothing has come to life since, and no dead block has become named.
 * The owner of a parked slab frees with a plain store, and may look before it is seen: its hint is set.
 *
 * pairs: slab.moved - who parks a slab changes the word, then looks; who frees, frees and then looks at
 * the word: one of them sees the last free and the state together.
 *
 * Owner:    own[] of PARKED(L) is L's, and only to 0; a CLAIMED slab is the claimer's.
 * Invariant: PK1 no block of a PARKED slab is in its lane's LIFO or mask
 * Progress: lock-free: a CAS that fails means that somebody else has the slab. The searches for a live
 *           block are linear in the blocks over the life of a parked slab (the witness only goes round).
 * Ordering: slab.word, slab.shared, slab.moved, lane.freeing.
 * Death:    before a CAS nothing has happened but a hint; CLAIMED names the taker, and the dirty bit tells
 *           its recovery to zero the facts.
 */
#include "heap/parked.h"

#include <errno.h>

#include "heap/arena.h"
#include "heap/facts.h"
#include "heap/giveback.h"
#include "heap/heap_lane.h"
#include "heap/memory_wait.h"
#include "heap/names.h"
#include "heap/slab.h"
#include "heap/sparse.h"

/* -- taking ------------------------------------------------------------------------------------ */

void slab_wipe(struct shale_segment *view, uint64_t slab, uint64_t word)
{
	const struct bin_info *bin = &bin_table[slab_word_bin(word)];

	if (bin->size != 0)
		slab_forget_facts(view, slab, bin);
	/* hints: nobody has a block here; a late one costs a look */
	store_relaxed(slab_remote_hint(view, slab), (uint8_t)0);
	store_relaxed(slab_local_hint(view, slab), (uint8_t)0);
	/* pairs: slab.word - the facts are zero before others may take the slab. */
	if (cas_acq_rel(slab_word(view, slab), &word, slab_word_next(word, SLAB_FREE)))
		arena_note_free(view, slab);
}

/*
 * Does a block of the slab live? Notes which one for the next to ask. Downwards, because blocks are handed
 * out upwards and often freed in that order: then the last one is the witness until the end.
 */
static bool slab_has_witness(struct shale_segment *view, uint64_t slab, const struct bin_info *bin)
{
	uint16_t *witness = &slab_arena(view, slab)->witness[slab % SLABS_PER_ARENA];
	const uint8_t *own = slab_own_facts(view, bin, slab);
	const uint8_t *shared = own + bin->facts_half;
	uint32_t seen = load_relaxed(witness); /* a hint */
	uint32_t live;

	if (seen >= bin->count)
		seen = 0;
	live = facts_last_live(own, shared, 0, seen + 1);
	if (live > seen) {
		live = facts_last_live(own, shared, seen + 1, bin->count);
		if (live == bin->count)
			return false;
	}
	if (live != seen)
		store_relaxed(witness, (uint16_t)live); /* a hint */
	return true;
}

/* `word` says where the facts are. */
static bool slab_has_live(struct shale_segment *view, uint64_t slab, uint64_t word)
{
	return word & SLAB_SPARSE ? sparse_any_live(view, slab)
				  : slab_has_witness(view, slab, &bin_table[slab_word_bin(word)]);
}

static bool slab_is_named(const struct shale_segment *view, uint64_t slab)
{
	uint64_t first = slab_offset(view, slab);

	/* pairs: lane.freeing - our name is dropped; of two that get here one sees no name. */
	fence_seq_cst();
	return names_any(view, first, first + SLAB_SIZE, 0);
}

enum slab_look slab_look(struct shale_segment *view, uint32_t lane, uint64_t slab, uint64_t word)
{
	unsigned index = slab_word_bin(word);
	uint64_t claimed = slab_word_next(word, slab_low(SLAB_CLAIMED, lane, index) | SLAB_DIRTY);

	/* held: its holder looks when it lets go */
	if (bin_table[index].size == 0 || (word & SLAB_HELD) || slab_has_live(view, slab, word))
		return SLAB_LIVES;
	if (slab_is_named(view, slab))
		return SLAB_NAMED;
	/* pairs: slab.word - what the last holders did with their blocks is over. */
	if (!cas_acq_rel(slab_word(view, slab), &word, claimed))
		return SLAB_LIVES;
	slab_wipe(view, slab, claimed);
	return SLAB_TAKEN;
}

void slab_look_later(struct lane *lane, uint64_t slab)
{
	heap_lane(lane)->left_slab = slab + 1;
	slab_orphans_changed(lane->view);
}

void slab_look_again(struct lane *lane, uint64_t slab)
{
	/* pairs: slab.word - the facts that its last owner left. */
	uint64_t word = load_acquire(slab_word(lane->view, slab));

	if (slab_word_let_go(word) && slab_look(lane->view, lane->index, slab, word) == SLAB_NAMED)
		slab_look_later(lane, slab);
}

void slab_take_dead(struct lane *lane, bool thorough)
{
	struct shale_segment *view = lane->view;
	uint32_t hint = load_relaxed(&view_hints(view)->orphan_hint); /* a hint */
	uint64_t slabs = (uint64_t)view_arena_high(view) * SLABS_PER_ARENA;

	if (!thorough && hint == heap_lane(lane)->orphans_swept)
		return;
	for (uint64_t slab = 0; slab < slabs; slab++) {
		/* pairs: slab.word - the facts that its last owner left. */
		uint64_t word = load_acquire(slab_word(view, slab));

		if (slab_word_let_go(word))
			(void)slab_look(view, lane->index, slab, word);
	}
	heap_lane(lane)->orphans_swept = hint;
}

/* -- letting go, and coming back --------------------------------------------------------------- */

void slab_park(struct lane *lane, unsigned index, uint64_t slab)
{
	struct shale_segment *view = lane->view;
	uint64_t word = load_relaxed(slab_word(view, slab)); /* nobody else changes it: OWNED */
	uint64_t parked = slab_word_next(word, slab_low(SLAB_PARKED, lane->index, index));

	heap_slab_closes(lane, index, slab);
	/* pairs: slab.moved - now the look: a last free that found OWNED is found by it. */
	if (!cas_seq_cst(slab_word(view, slab), &word, parked))
		return;
	if (slab_look(view, lane->index, slab, parked) == SLAB_NAMED)
		slab_look_later(lane, slab);
	giveback_tick(lane);
}

int slab_recommit(struct shale_segment *view, uint64_t slab)
{
	uint16_t *punched = &slab_arena(view, slab)->punched[slab % SLABS_PER_ARENA];
	int r;

	/* relaxed: changed by who holds the slab, which is us now */
	if (load_relaxed(punched) == 0)
		return 0;
	r = view_commit(view, slab_offset(view, slab), SLAB_SIZE);
	if (r == 0)
		store_relaxed(punched, (uint16_t)0);
	return r;
}

/* PARKED by us, with this word -> OWNED. *word is changed with the slab's, not by a failure. */
static bool reopen(struct lane *lane, unsigned index, uint64_t slab, uint64_t *word)
{
	uint64_t owned = slab_word_next(*word, slab_low(SLAB_OWNED, lane->index, index));
	uint64_t expected = *word;

	/* pairs: slab.word - what others did to the facts meanwhile is visible to us. */
	if (!cas_acq_rel(slab_word(lane->view, slab), &expected, owned))
		return false;
	heap_slab_opened(lane, index, slab);
	if (slab_recommit(lane->view, slab) < 0) {
		slab_park(lane, index, slab);
		return false;
	}
	*word = owned;
	return true;
}

enum slab_opening slab_open(struct lane *lane, unsigned index, uint64_t slab)
{
	/* pairs: slab.word - whose it is now. */
	uint64_t word = load_acquire(slab_word(lane->view, slab));
	uint64_t low = word & SLAB_PAYLOAD_MASK;

	if (low == slab_low(SLAB_OWNED, lane->index, index))
		return SLAB_OPEN;
	if ((low & ~(SLAB_HELD | SLAB_SPARSE)) != slab_low(SLAB_PARKED, lane->index, index))
		return SLAB_GONE;
	if (low & SLAB_HELD)
		return SLAB_BUSY;
	if (low & SLAB_SPARSE) {
		if (sparse_expand(lane, slab, word) < 0)
			return SLAB_BUSY;
		heap_slab_opened(lane, index, slab);
		return SLAB_OPEN;
	}
	return reopen(lane, index, slab, &word) ? SLAB_OPEN : SLAB_BUSY;
}

/* -- coming back by a free ----------------------------------------------------------------------- */

#define CLOSE_TRIES 4u /* reopened slabs looked at to find one that can be let go */

static bool is_open(const struct lane *lane, unsigned index, uint64_t slab)
{
	/* a look: nobody else changes the word while it is ours */
	return (load_relaxed(slab_word(lane->view, slab)) & SLAB_PAYLOAD_MASK) ==
	       slab_low(SLAB_OWNED, lane->index, index);
}

static bool is_cached(struct lane *lane, unsigned index, uint64_t slab)
{
	const struct heap_bin *bin = heap_bin(lane, index);
	const unsigned char *first = view_at(lane->view, slab_offset(lane->view, slab));

	return (bin->has_slab && bin->slab == slab) ||
	       (bin->mask != 0 && (uintptr_t)bin->mask_block - (uintptr_t)first < SLAB_SIZE) ||
	       heap_lifo_has(bin, first);
}

/*
 * A place in the ring for a slab that is about to be opened: that of one which is not open any more, or
 * of one that is let go now. NULL: there is none near the hand.
 */
static uint32_t *reopened_place(struct lane *lane, unsigned index)
{
	struct heap_reopened *ring = &heap_lane(lane)->reopened[index];

	for (unsigned tries = 0; tries < CLOSE_TRIES; tries++) {
		uint32_t *place = &ring->slab[ring->hand];

		ring->hand = (ring->hand + 1) % HEAP_OPEN_MAX;
		if (*place == 0 || !is_open(lane, index, *place - 1))
			return place;
		if (!is_cached(lane, index, *place - 1)) {
			slab_park(lane, index, *place - 1);
			return place;
		}
	}
	return NULL;
}

/*
 * A block for the LIFO is worth two changes of slab words: this slab is opened, and the one that was
 * opened longest ago is let go. When the LIFO is full the block would have to be searched for anyway.
 */
bool slab_reopen_for_free(struct lane *lane, struct block_place *place)
{
	unsigned index = slab_word_bin(place->word);
	uint32_t *slot;

	if ((place->word & SLAB_PAYLOAD_MASK) != slab_low(SLAB_PARKED, lane->index, index))
		return false;
	/* a burst of frees fills the LIFO and then leaves its slabs where everybody can take them */
	if (!heap_opens(heap_bin(lane, index)))
		return false;
	/* somebody waits for memory: while it is parked, the last free is seen */
	if (unlikely(memory_wanted(lane->view)) && memory_look(lane))
		return false;
	slot = reopened_place(lane, index);
	if (!slot || !reopen(lane, index, place->slab, &place->word))
		return false;
	*slot = (uint32_t)place->slab + 1;
	return true;
}
