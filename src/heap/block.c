/*
 * block.c - which block starts at an offset, where its facts are, and what they say.
 *
 * The slab word is read first; it says whether the facts are dense (at an address that follows from slab
 * and bin) or among the sparse ones of the arena's table entry. A sparse fact is changed by a CAS on its
 * four bytes, index and all: an entry that has passed to another block is never hit.
 *
 * Writes only shared facts of blocks that the caller holds (block_set_shared).
 *
 * Ordering: slab.word (acquire: facts are read for the bin that the word names), slab.moved.
 * Death:    a change of a fact is one locked instruction.
 */
#include "heap/block.h"

#include <errno.h>
#include <stddef.h>

#include "heap/debug.h"
#include "heap/heap.h"
#include "heap/large.h"
#include "heap/slab.h"
#include "heap/sparse.h"

#define WORD_TRIES 4096u /* a word that changes more often during one look is played with */

/* -- sparse facts ------------------------------------------------------------------------------ */

/* 0; -EALREADY the block has no entry: it is free; -EAGAIN the word has changed. */
static SHALE_COLD int find_sparse(struct shale_segment *view, struct block_place *place)
{
	const struct sparse_fact *entries =
		slab_arena(view, place->slab)->sparse[place->slab % SLABS_PER_ARENA];

	for (unsigned i = 0; i < SPARSE_FACTS; i++) {
		struct sparse_fact fact = sparse_load(&entries[i]);

		if (fact.index != place->index || fact.own == OWN_FREE)
			continue;
		block_place_sparse(view, place, i);
		return 0;
	}
	/* pairs: slab.word - the entries were those of this word. */
	return load_acquire(slab_word(view, place->slab)) == place->word ? -EALREADY : -EAGAIN;
}

void block_place_sparse(struct shale_segment *view, struct block_place *place, unsigned i)
{
	struct sparse_fact *entry =
		&slab_arena(view, place->slab)->sparse[place->slab % SLABS_PER_ARENA][i];

	place->own = &entry->own;
	place->shared = &entry->shared;
}

static uint8_t set_sparse(const struct block_place *place, enum shared_fact value)
{
	struct sparse_fact *entry =
		(struct sparse_fact *)(void *)(place->own - offsetof(struct sparse_fact, own));
	struct sparse_fact from, to;

	do {
		from = sparse_load(entry);
		if (from.index != place->index || from.own == OWN_FREE)
			return SHARED_MOVED;
		if (from.shared == SHARED_FREED)
			return SHARED_FREED;
		to = from;
		to.shared = (uint8_t)value;
		/* repeats when the entry changes: its block is freed, or the entry another's */
	} while (!sparse_cas(entry, from, to));
	return from.shared;
}

uint8_t block_set_shared(const struct block_place *place, enum shared_fact value)
{
	uint8_t before;

	if (place->word & SLAB_SPARSE)
		return set_sparse(place, value);
	if (value == SHARED_FREED)
		/* pairs: slab.shared - our accesses to the block are over; slab.moved: then the word. */
		return exchange_seq_cst(place->shared, (uint8_t)value);
	/* relaxed: the CAS decides */
	before = load_relaxed(place->shared);
	do {
		if (before == SHARED_FREED)
			return before;
		/* pairs: slab.shared, read by the owner when it frees or collects; then the word. */
	} while (!cas_seq_cst(place->shared, &before, (uint8_t)value));
	return before;
}

/* -- finding ----------------------------------------------------------------------------------- */

/* Field by field: a copy of the whole would wait for all earlier stores of the caller to end. */
static int find_once(struct shale_segment *view, uint64_t offset, struct block_place *ret_place)
{
	uint64_t slab = slab_of_offset(view, offset);
	const struct bin_info *bin;
	enum slab_state state;
	uint32_t index;
	uint64_t word;

	if (!slab_known(view, slab))
		return -EINVAL;
	/* pairs: slab.word - facts are read for the bin that this word names. */
	word = load_acquire(slab_word(view, slab));
	state = slab_word_state(word);
	if (state == SLAB_SPAN) {
		*ret_place = (struct block_place){.slab = slab, .word = word};
		return offset % SLAB_SIZE == 0 ||
				       guard_read(view, slab, offset, &(struct debug_card){0})
			       ? 0
			       : -EINVAL;
	}
	if (state != SLAB_OWNED && state != SLAB_PARKED && state != SLAB_ORPHAN)
		return state == SLAB_BODY || offset % 16 != 0 ? -EINVAL : -EALREADY;
	bin = &bin_table[slab_word_bin(word)];
	if (bin->size == 0)
		return view_damaged(view);
	index = bin_block_index(bin, (uint32_t)(offset % SLAB_SIZE));
	if (index == UINT32_MAX)
		return -EINVAL;
	ret_place->slab = slab;
	ret_place->word = word;
	ret_place->bin = bin;
	ret_place->index = index;
	if (unlikely(word & SLAB_SPARSE))
		return find_sparse(view, ret_place);
	ret_place->own = slab_own_facts(view, bin, slab) + index;
	ret_place->shared = ret_place->own + bin->facts_half;
	return 0;
}

int block_find(struct shale_segment *view, uint64_t offset, struct block_place *ret_place)
{
	int r = -EINVAL;

	if (!view_in_heap(view, offset, 1))
		return -EINVAL;
	/* again only when somebody has moved the facts of the slab */
	for (unsigned tries = 0; tries < WORD_TRIES; tries++) {
		r = find_once(view, offset, ret_place);
		if (likely(r != -EAGAIN))
			return r;
	}
	return view_damaged(view);
}

int heap_block_around(struct shale_segment *view, uint64_t offset, uint64_t *ret_start)
{
	uint64_t slab = slab_of_offset(view, offset), word;
	const struct bin_info *bin;
	uint64_t inner;

	if (!view_in_heap(view, offset, 1) || !slab_known(view, slab))
		return -EINVAL;
	/* pairs: slab.word - the bin, or the head of the span. */
	word = load_acquire(slab_word(view, slab));
	if (slab_word_state(word) == SLAB_BODY)
		slab = slab_word_head(word);
	if (slab_word_state(word) == SLAB_BODY || slab_word_state(word) == SLAB_SPAN) {
		*ret_start = slab_offset(view, slab);
		return view_in_heap(view, *ret_start, 1) ? 0 : view_damaged(view);
	}
	bin = &bin_table[slab_word_bin(word)];
	if (bin->size == 0)
		return -EINVAL;
	inner = offset % SLAB_SIZE;
	*ret_start = offset - inner % bin->size;
	return 0;
}

static enum heap_block facts_say(uint8_t own, uint8_t shared)
{
	if (own == OWN_FREE || shared == SHARED_FREED)
		return HEAP_BLOCK_FREE;
	return own == OWN_PUBLISHED || shared == SHARED_PUBLISHED ? HEAP_BLOCK_PUBLISHED
								  : HEAP_BLOCK_LIVE;
}

/* What the facts of a slab block say, where its word says they are. -EINVAL, -EALREADY, -EUCLEAN. */
static int read_facts(struct shale_segment *view, uint64_t offset, struct block_place *place)
{
	for (unsigned tries = 0; tries < WORD_TRIES; tries++) {
		enum heap_block said;
		int r = block_find(view, offset, place);

		if (r < 0 || !place->bin)
			return r;
		/* pairs: slab.shared - both facts, and then the word that says they are the facts. */
		said = facts_say(load_acquire(place->own), load_acquire(place->shared));
		/* relaxed: not before the facts */
		if (load_relaxed(slab_word(view, place->slab)) == place->word)
			return (int)said;
	}
	return view_damaged(view);
}

int heap_block_state(struct shale_segment *view, uint64_t offset, uint64_t *ret_usable)
{
	struct block_place place;
	int r = read_facts(view, offset, &place);

	if (r == -EALREADY)
		return HEAP_BLOCK_FREE;
	if (r < 0)
		return r;
	if (ret_usable)
		*ret_usable = place.bin ? place.bin->size
					: span_slabs_there(view, place.slab) * SLAB_SIZE;
	if (!place.bin)
		return place.word & SLAB_PUBLISHED ? HEAP_BLOCK_PUBLISHED : HEAP_BLOCK_LIVE;
	return r;
}
