/*
 * span_cache.c - freed spans that a lane keeps whole for its next ones.
 *
 *   SPAN -> [SPAN_CLAIM(freer) ->] SPAN_CACHED(freer) -> SPAN(freer)             used again
 *                                  SPAN_CACHED(x) -> SPAN_CLAIM(thief) -> FREE   taken apart
 *
 * The bodies stay BODY(head) all the while, and span_slabs the length. The lane's list is private
 * and may vanish; each entry has the head's whole word, so that one whose span was stolen fits nothing.
 *
 * Owner:     whoever moves the head from SPAN_CACHED by CAS; the list is the lane's.
 * Invariant: SC1 a cached span is named by no lane that has freed it: names go before, while the
 *            word is SPAN_CLAIM by the freer
 * Ordering:  slab.word.
 * Progress:  lock-free; a CAS that fails means that somebody stole the span.
 * Death:     SPAN_CACHED and SPAN_CLAIM name the lane: recovery takes the span apart.
 */
#include "heap/span_cache.h"

#include <errno.h>
#include <string.h>

#include "heap/arena.h"
#include "heap/giveback.h"
#include "heap/heap_lane.h"
#include "heap/large.h"
#include "heap/slab.h"

/* -- the list ---------------------------------------------------------------------------------- */

static struct span_cache *cache_of(struct lane *lane)
{
	return &heap_lane(lane)->spans;
}

static void entry_remove(struct span_cache *cache, uint32_t i)
{
	uint32_t after = --cache->count - i;

	cache->slabs -= cache->length[i];
	memmove(&cache->length[i], &cache->length[i + 1], after * sizeof(cache->length[0]));
	memmove(&cache->head[i], &cache->head[i + 1], after * sizeof(cache->head[0]));
	memmove(&cache->word[i], &cache->word[i + 1], after * sizeof(cache->word[0]));
}

static void entry_add(struct span_cache *cache, uint64_t head, uint32_t length, uint64_t word)
{
	cache->length[cache->count] = length;
	cache->head[cache->count] = head;
	cache->word[cache->count++] = word;
	cache->slabs += length;
}

/* -- taking apart ------------------------------------------------------------------------------ */

static bool steal(struct shale_segment *view, uint32_t lane, uint64_t head, uint64_t word)
{
	/* pairs: slab.word - its last holder is done with it; the lane is named from here on. */
	if (!cas_acq_rel(slab_word(view, head), &word,
			 slab_word_next(word, slab_low(SLAB_SPAN_CLAIM, lane, 0))))
		return false;
	span_dismantle(view, head);
	return true;
}

void span_cache_settle(struct shale_segment *view, uint32_t dead_lane, uint64_t slab, uint64_t word)
{
	(void)steal(view, dead_lane, slab, word);
}

static bool drop_oldest(struct lane *lane)
{
	struct span_cache *cache = cache_of(lane);
	uint64_t head = cache->head[0], word = cache->word[0];

	entry_remove(cache, 0);
	return steal(lane->view, lane->index, head, word);
}

static bool steal_in_arena(struct lane *lane, uint64_t arena)
{
	bool any = false;

	for (uint64_t slab = arena * SLABS_PER_ARENA; slab < (arena + 1) * SLABS_PER_ARENA;
	     slab++) {
		uint64_t word = load_relaxed(slab_word(lane->view, slab)); /* the CAS decides */

		if (slab_word_state(word) == SLAB_SPAN_CACHED)
			any |= steal(lane->view, lane->index, slab, word);
	}
	return any;
}

bool span_steal_cached(struct lane *lane, bool all)
{
	bool any = false;

	while (cache_of(lane)->count > 0)
		any |= drop_oldest(lane);
	for (uint64_t arena = 0, high = all ? view_arena_high(lane->view) : 0; arena < high;
	     arena++)
		if (arena_committed(lane->view, arena))
			any |= steal_in_arena(lane, arena);
	return any;
}

/* -- keeping ------------------------------------------------------------------------------------- */

static void keep(struct lane *lane, uint64_t head, uint64_t length, uint64_t word)
{
	struct span_cache *cache = cache_of(lane);

	while (cache->count == SPAN_CACHE_SPANS || cache->slabs + length > SPAN_CACHE_SLABS)
		(void)drop_oldest(lane);
	entry_add(cache, head, (uint32_t)length, word);
	giveback_tick(lane);
}

int span_cache_free(struct lane *lane, uint64_t slab, uint64_t word)
{
	struct shale_segment *view = lane->view;
	uint64_t low = slab_low(SLAB_SPAN_CACHED, lane->index, 0);
	uint64_t length = span_slab_count(view, slab);
	bool named = span_named(lane->shm, slab_offset(view, slab));
	int r;

	if (length > SPAN_CACHE_SLABS) {
		r = span_free(view, lane->index, slab, word);
		giveback_tick(lane);
		return r;
	}
	r = span_leave(view, slab, &word, named ? slab_low(SLAB_SPAN_CLAIM, lane->index, 0) : low);
	if (r < 0)
		return r;
	if (named) {
		uint64_t claim = word;

		span_unname(lane->shm, slab_offset(view, slab));
		order_for_death();
		word = slab_word_next(claim, low);
		/* pairs: slab.word - nobody but us changes our SPAN_CLAIM. */
		(void)cas_acq_rel(slab_word(view, slab), &claim, word);
	}
	keep(lane, slab, length, word);
	return 0;
}

/* -- using again --------------------------------------------------------------------------------- */

/* Index of the entry that fits best, or SPAN_CACHE_SPANS. */
static uint32_t best_fit(const struct span_cache *cache, uint64_t count, uint64_t step,
			 uint64_t longest)
{
	uint32_t best = SPAN_CACHE_SPANS;

	for (uint32_t i = 0; i < cache->count; i++) {
		if (cache->length[i] < count || cache->length[i] > longest ||
		    cache->head[i] % step != 0)
			continue;
		longest = cache->length[i];
		best = i;
		if (longest == count)
			break;
	}
	return best;
}

/* SPAN_CACHED -> SPAN_CLAIM; the tail FREE; -> SPAN. */
static bool take_cut(struct lane *lane, uint64_t head, uint64_t word, uint64_t length,
		     uint64_t count)
{
	struct shale_segment *view = lane->view;
	uint64_t claim = slab_word_next(word, slab_low(SLAB_SPAN_CLAIM, lane->index, 0));

	/* pairs: slab.word - as in steal() */
	if (!cas_acq_rel(slab_word(view, head), &word, claim))
		return false;
	span_free_bodies(view, head, count, length);
	/* ours while the head is SPAN_CLAIM; after the bodies, which it covers */
	span_set_slabs(view, head, count);
	order_for_death();
	/* pairs: slab.word - the length is stored before the word says SPAN. */
	return cas_acq_rel(slab_word(view, head), &claim,
			   slab_word_next(claim, slab_low(SLAB_SPAN, lane->index, 0)));
}

bool span_cache_take(struct lane *lane, uint64_t count, uint64_t step, bool cut, uint64_t *ret_head)
{
	struct span_cache *cache = cache_of(lane);
	uint64_t span = slab_low(SLAB_SPAN, lane->index, 0);
	uint64_t longest = cut ? SPAN_CACHE_SLABS : count + count / 4;
	uint32_t i;

	/* repeats only for entries that were stolen */
	while ((i = best_fit(cache, count, step, longest)) < SPAN_CACHE_SPANS) {
		uint64_t head = cache->head[i], word = cache->word[i], length = cache->length[i];
		bool taken;

		entry_remove(cache, i);
		if (cut && length > count)
			taken = take_cut(lane, head, word, length, count);
		else
			/* pairs: slab.word - as in steal() */
			taken = cas_acq_rel(slab_word(lane->view, head), &word,
					    slab_word_next(word, span));
		*ret_head = head;
		if (taken)
			return true;
	}
	return false;
}
