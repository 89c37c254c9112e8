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

#include "heap/arena.h"
#include "heap/giveback.h"
#include "heap/heap_lane.h"
#include "heap/large.h"
#include "heap/memory_wait.h"
#include "heap/slab.h"

/* -- the list ---------------------------------------------------------------------------------- */

static struct span_cache *cache_of(struct lane *lane)
{
	return &heap_lane(lane)->spans;
}

/* 1 to 8 slabs one by one, then eight classes to each doubling; length <= SPAN_CACHE_SLABS. */
static unsigned class_of(uint64_t length)
{
	unsigned exponent;

	if (length <= 8)
		return (unsigned)length - 1;
	exponent = log2_floor(length - 1);
	return 8 + (exponent - 3) * 8 + ((unsigned)((length - 1) >> (exponent - 3)) & 7);
}

static struct span_cached entry_remove(struct span_cache *cache, unsigned i)
{
	struct span_cached entry = cache->span[i];
	unsigned class = class_of(entry.length);

	cache->used &= ~(UINT64_C(1) << i);
	cache->class[class] &= ~(UINT64_C(1) << i);
	if (cache->class[class] == 0)
		cache->classes &= ~(UINT64_C(1) << class);
	cache->slabs -= entry.length;
	return entry;
}

static void entry_add(struct span_cache *cache, uint64_t head, uint32_t length, uint64_t word)
{
	unsigned i = lowest_bit(~cache->used), class = class_of(length);

	cache->span[i] = (struct span_cached){word, head, length, ++cache->stamp};
	cache->used |= UINT64_C(1) << i;
	cache->class[class] |= UINT64_C(1) << i;
	cache->classes |= UINT64_C(1) << class;
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

static bool drop(struct lane *lane, unsigned i)
{
	struct span_cached entry = entry_remove(cache_of(lane), i);

	return steal(lane->view, lane->index, entry.head, entry.word);
}

static void drop_oldest(struct lane *lane)
{
	struct span_cache *cache = cache_of(lane);
	unsigned oldest = lowest_bit(cache->used);

	for (uint64_t rest = cache->used; rest != 0; rest &= rest - 1) {
		unsigned i = lowest_bit(rest);

		/* the difference is right also when the stamp has gone round */
		if ((int32_t)(cache->span[i].stamp - cache->span[oldest].stamp) < 0)
			oldest = i;
	}
	(void)drop(lane, oldest);
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

	while (cache_of(lane)->used != 0)
		any |= drop(lane, lowest_bit(cache_of(lane)->used));
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

	while (cache->used == UINT64_MAX || cache->slabs + length > SPAN_CACHE_SLABS)
		drop_oldest(lane);
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

	/* one that its last holder died in resizing is not kept: it has not all of its length */
	if (length > SPAN_CACHE_SLABS || span_slabs_there(view, slab) != length) {
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
	/* somebody who waits for memory takes it apart; looked at behind the change of the word */
	if (unlikely(memory_wanted(view)))
		memory_freed(view);
	keep(lane, slab, length, word);
	return 0;
}

/* -- using again --------------------------------------------------------------------------------- */

#define NO_SPAN SPAN_CACHE_SPANS

/* The newest of the spans in `slots` that will do, or NO_SPAN. */
static unsigned newest(const struct span_cache *cache, uint64_t slots, uint64_t count,
		       uint64_t step)
{
	unsigned best = NO_SPAN;

	for (; slots != 0; slots &= slots - 1) {
		unsigned i = lowest_bit(slots);

		if (cache->span[i].length >= count && cache->span[i].head % step == 0 &&
		    (best == NO_SPAN ||
		     (int32_t)(cache->span[i].stamp - cache->span[best].stamp) > 0))
			best = i;
	}
	return best;
}

/* In the lowest class that has one of `count` slabs at least, up to the class of `longest`. */
static unsigned best_fit(const struct span_cache *cache, uint64_t count, uint64_t step,
			 uint64_t longest)
{
	uint64_t classes = cache->classes >> class_of(count) << class_of(count);
	unsigned last = class_of(longest), best = NO_SPAN;

	for (; classes != 0 && best == NO_SPAN && lowest_bit(classes) <= last;
	     classes &= classes - 1)
		best = newest(cache, cache->class[lowest_bit(classes)], count, step);
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
	uint64_t low = slab_low(SLAB_SPAN, lane->index, 0);
	uint64_t longest = cut ? SPAN_CACHE_SLABS : count + count / 4;
	bool taken = false;
	unsigned i;

	if (count > SPAN_CACHE_SLABS)
		return false;
	if (longest > SPAN_CACHE_SLABS)
		longest = SPAN_CACHE_SLABS;
	/* repeats only for entries that were stolen */
	while (!taken && (i = best_fit(cache, count, step, longest)) != NO_SPAN) {
		struct span_cached span = entry_remove(cache, i);

		*ret_head = span.head;
		if (cut && span.length > count)
			taken = take_cut(lane, span.head, span.word, span.length, count);
		else
			/* pairs: slab.word - as in steal() */
			taken = cas_acq_rel(slab_word(lane->view, span.head), &span.word,
					    slab_word_next(span.word, low));
	}
	return taken;
}
