/*
 * block.c - which block starts at an offset, and what its facts say.
 *
 * Reads only: the slab word once, then at most the two facts of one block.
 *
 * Ordering: slab.word (acquire: facts are read for the bin that the word names).
 * Death:    nothing is written.
 */
#include "heap/block.h"

#include <errno.h>

#include "heap/debug.h"
#include "heap/heap.h"
#include "heap/large.h"
#include "heap/slab.h"

int block_find(struct shale_segment *view, uint64_t offset, struct block_place *ret_place)
{
	struct block_place place = {0};
	enum slab_state state;

	if (!view_in_heap(view, offset, 1))
		return -EINVAL;
	place.slab = slab_of_offset(view, offset);
	if (!slab_known(view, place.slab))
		return -EINVAL;
	/* pairs: slab.word - facts are read for the bin that this word names. */
	place.word = load_acquire(slab_word(view, place.slab));
	state = slab_word_state(place.word);
	if (state == SLAB_SPAN) {
		*ret_place = place;
		return offset % SLAB_SIZE == 0 ||
				       guard_read(view, place.slab, offset, &(struct debug_card){0})
			       ? 0
			       : -EINVAL;
	}
	if (state != SLAB_OWNED && state != SLAB_ORPHAN)
		return state == SLAB_BODY || offset % 16 != 0 ? -EINVAL : -EALREADY;
	place.bin = &bin_table[slab_word_bin(place.word)];
	if (place.bin->size == 0)
		return view_damaged(view);
	place.index = bin_block_index(place.bin, (uint32_t)(offset % SLAB_SIZE));
	if (place.index == UINT32_MAX)
		return -EINVAL;
	place.own = slab_own_facts(view, place.bin, place.slab) + place.index;
	place.shared = place.own + place.bin->facts_half;
	*ret_place = place;
	return 0;
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

int heap_block_state(struct shale_segment *view, uint64_t offset, uint64_t *ret_usable)
{
	struct block_place place;
	uint8_t own, shared;
	int r = block_find(view, offset, &place);

	if (r == -EALREADY)
		return HEAP_BLOCK_FREE;
	if (r < 0)
		return r;
	if (!place.bin) {
		if (ret_usable)
			*ret_usable = span_slab_count(view, place.slab) * SLAB_SIZE;
		return place.word & SLAB_PUBLISHED ? HEAP_BLOCK_PUBLISHED : HEAP_BLOCK_LIVE;
	}
	/* facts of a block that the caller holds or that recovery has named: nobody moves them */
	own = load_relaxed(place.own);
	shared = load_relaxed(place.shared);
	if (ret_usable)
		*ret_usable = place.bin->size;
	if (own == OWN_FREE || shared == SHARED_FREED)
		return HEAP_BLOCK_FREE;
	return own == OWN_PUBLISHED || shared == SHARED_PUBLISHED ? HEAP_BLOCK_PUBLISHED
								  : HEAP_BLOCK_LIVE;
}
