/*
 * elsewhere.c - the short way of freeing a block of a slab that another lane owns or has parked.
 *
 * The protocol is slab_remote.c's, for the case that nothing comes between: the facts are dense, the word
 * does not change meanwhile, and another block of the slab is known to live.
 *
 *   freeing = block; old = exchange(shared, FREED); has the word changed? freeing = 0; hint; witness
 *
 * One locked instruction. Whatever else is the case goes the long way, which begins anew or goes on from
 * the exchange.
 *
 * In a slab that the freeing lane has parked itself, own[] is its own to clear:
 *
 *   freeing = block; own = FREE; has the word changed? freeing = 0; hint; witness
 *
 * No locked instruction: whoever moves the facts of a slab that another lane has parked makes all processors
 * pass a barrier between its change of the word and its look at the facts. When the LIFO has room, or few slabs
 * are open, this one is opened instead, which is the long way.
 *
 * Owner:    shared[] of a block is its holder's: the caller's. own[] of a slab is its lane's.
 * Progress: wait-free, but for the long way.
 * Ordering: slab.shared, slab.moved, lane.freeing, as in slab_remote.c.
 * Death:    as in slab_remote.c: before the exchange the block is named and lives, after it it is free.
 */
#include "heap/elsewhere.h"

#include <errno.h>

#include "heap/block.h"
#include "heap/heap_lane.h"
#include "heap/memory_wait.h"
#include "heap/parked.h"
#include "heap/slab.h"

/* A slab whose blocks another lane hands out, or nobody, and whose facts are where they belong. */
static inline bool word_is_plain(uint64_t word, uint32_t lane)
{
	enum slab_state state = slab_word_state(word);

	return (state == SLAB_OWNED || state == SLAB_PARKED || state == SLAB_ORPHAN) &&
	       !(word & (SLAB_HELD | SLAB_SPARSE)) && slab_word_lane(word) != lane &&
	       slab_word_bin(word) < BIN_COUNT;
}

/* Does the block that was last seen to live still do so? A hint that may be any number. */
static inline bool witness_lives(const struct arena_shm *arena, unsigned slab,
				 const struct heap_bin *bin, const uint8_t *own)
{
	uint32_t witness = load_relaxed(&arena->witness[slab]); /* a hint, checked */

	/* relaxed: one that lived when it was looked at is enough */
	return witness < bin->half && load_relaxed(own + witness) != OWN_FREE &&
	       load_relaxed(own + bin->half + witness) != SHARED_FREED;
}

/* The first one since its owner looked: the owner may wait for it. */
static SHALE_COLD void note_first(const struct shale_segment *view, uint8_t *hint)
{
	store_relaxed(hint, (uint8_t)1);
	memory_freed(view);
}

static inline void note_freed(const struct shale_segment *view, uint8_t *hint)
{
	/* a hint; a collect in between may have cleared it */
	if (load_relaxed(hint) == 0)
		note_first(view, hint);
}

/* A slab that the lane has parked, and whose facts are where they belong. */
static inline bool word_is_own(uint64_t word, uint32_t lane)
{
	return slab_word_state(word) == SLAB_PARKED && slab_word_lane(word) == lane &&
	       !(word & (SLAB_HELD | SLAB_SPARSE)) && slab_word_bin(word) < BIN_COUNT;
}

static int free_in_own(struct shale_segment *view, struct lane *lane, const void *block,
		       uint64_t slab, uint64_t word)
{
	struct arena_shm *arena = slab_arena(view, slab);
	unsigned inside = slab % SLABS_PER_ARENA;
	struct heap_bin *bin = heap_bin(lane, slab_word_bin(word));
	uint64_t product = (uint16_t)(uintptr_t)block * bin->reciprocal;
	uint8_t *own = bin->facts + slab * bin->stride;
	uint8_t *mine = own + (product >> 32);

	/* relaxed: only we write own[]; a shared fact is for the long way */
	if ((uint32_t)product >= bin->limit || heap_opens(bin) || load_relaxed(mine) == OWN_FREE ||
	    load_relaxed(mine + bin->half) != SHARED_NONE)
		return -EAGAIN;
	/* pairs: lane.freeing - named before the fact changes, which releases it. */
	store_release(&lane->shm->freeing, (uint64_t)((uintptr_t)block - (uintptr_t)view->base));
	/* pairs: slab.shared - our accesses to the block are over; the name is seen before. */
	store_release(mine, (uint8_t)OWN_FREE);
	order_for_death();
	/* pairs: slab.moved - after the fact; the mover's barrier is the fence. */
	if (unlikely(load_seq_cst(&arena->word[inside]) != word))
		return block_free_astray(view, lane, SHARED_NONE);
	/* pairs: lane.freeing - dropped before the look. */
	store_release(&lane->shm->freeing, UINT64_C(0));
	note_freed(view, &arena->local_hint[inside]);
	if (!witness_lives(arena, inside, bin, own))
		slab_look_again(lane, slab);
	return 0;
}

int block_free_elsewhere(struct shale_segment *view, struct lane *lane, const void *block)
{
	struct heap_lane *heap = heap_lane(lane);
	uint64_t slab = ((uintptr_t)block - heap->base) >> SLAB_SHIFT;
	unsigned inside = slab % SLABS_PER_ARENA;
	struct arena_shm *arena;
	struct heap_bin *bin;
	uint64_t word, product;
	uint8_t *own, before;

	if (slab >= heap->slab_count || !slab_known(view, slab) || heap->left_slab != 0)
		return -EAGAIN;
	arena = slab_arena(view, slab);
	/* pairs: slab.word - facts are read for the bin that this word names. */
	word = load_acquire(&arena->word[inside]);
	if (word_is_own(word, lane->index))
		return free_in_own(view, lane, block, slab, word);
	if (!word_is_plain(word, lane->index))
		return -EAGAIN;
	bin = heap_bin(lane, slab_word_bin(word));
	product = (uint16_t)(uintptr_t)block * bin->reciprocal;
	own = bin->facts + slab * bin->stride;
	if ((uint32_t)product >= bin->limit || load_relaxed(own + (product >> 32)) == OWN_FREE)
		return -EAGAIN;
	/* pairs: lane.freeing - named before the fact changes, which releases it. */
	store_release(&lane->shm->freeing, (uint64_t)((uintptr_t)block - (uintptr_t)view->base));
	/* pairs: slab.shared - our accesses to the block are over; slab.moved: then the word. */
	before = exchange_seq_cst(own + bin->half + (product >> 32), (uint8_t)SHARED_FREED);
	/* pairs: slab.moved - after the fact. */
	if (unlikely(load_seq_cst(&arena->word[inside]) != word))
		return block_free_astray(view, lane, before);
	/* pairs: lane.freeing - dropped before the look. */
	store_release(&lane->shm->freeing, UINT64_C(0));
	if (unlikely(before == SHARED_FREED))
		return -EALREADY;
	note_freed(view, &arena->remote_hint[inside]);
	if (slab_word_state(word) != SLAB_OWNED && !witness_lives(arena, inside, bin, own))
		slab_look_again(lane, slab);
	return 0;
}
