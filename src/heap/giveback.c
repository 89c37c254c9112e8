/*
 * giveback.c - wholly empty arenas go back to the kernel: how, how many, and when.
 *
 *   state COMMITTED -> RETURNING(lane)      from here on nobody keeps a slab of it (arena.c re-checks)
 *   every word FREE -> CLAIMED(lane)        fails, or it is pinned: undo, the arena is in use
 *   punch the 2 MiB                         by a call, or several arenas through one ring
 *   state -> NONE, words -> FREE
 *
 * docs/design/giveback.md has the policy.
 *
 * Ordering: arena.state, slab.word, arena.pin.
 * Progress: bounded by the arenas; nobody waits for it.
 * Death:    RETURNING and CLAIMED name the lane: recovery punches again if every word was claimed,
 *           else leaves the arena to those who have slabs of it, and sets the words back. Punches in
 *           flight in a ring end before the process counts as dead.
 */
#include "heap/giveback.h"

#include <errno.h>

#include <shale/heap.h>

#include "heap/arena.h"
#include "heap/heap.h"
#include "heap/heap_lane.h"
#include "heap/memory_wait.h"
#include "heap/pin.h"
#include "heap/purge.h"
#include "heap/rank.h"
#include "heap/slab.h"
#include "sync/event.h"

#define SETTLE_TRIES 500u
#define SETTLE_NS    UINT64_C(200000)

/* -- the clock ------------------------------------------------------------------------------- */

static uint32_t test_clock; /* 0: the real one */

void giveback_test_clock(uint32_t ms)
{
	store_relaxed(&test_clock, ms); /* a test's own threads */
}

uint32_t giveback_now_ms(void)
{
	uint32_t now = load_relaxed(&test_clock); /* as above */

	if (now == 0)
		now = (uint32_t)os_clock_coarse_ms();
	return now ? now : 1;
}

static void stamp(struct shale_segment *view, uint64_t arena)
{
	/* a hint: a lost or late stamp makes the arena go early or late */
	store_relaxed(&heap_arena(view, arena)->empty_since_ms, giveback_now_ms());
}

/* -- one arena ------------------------------------------------------------------------------- */

int arena_decommit(struct shale_segment *view, uint64_t arena)
{
	uint64_t offset = view->heap_offset + (arena << ARENA_SHIFT);
	int fd;

	if (view->private_memory)
		return os_advise(view_at(view, offset), ARENA_SIZE, OS_DONTNEED);
	fd = view_fd(view);
	return fd < 0 ? fd : os_decommit(fd, offset, ARENA_SIZE);
}

static bool looks_empty(struct shale_segment *view, uint64_t arena)
{
	if (!arena_committed(view, arena))
		return false;
	for (unsigned i = 0; i < SLABS_PER_ARENA; i++)
		/* a look; the CASes decide */
		if (slab_word_state(load_relaxed(&heap_arena(view, arena)->word[i])) != SLAB_FREE)
			return false;
	return true;
}

static bool claim_word(uint64_t *place, uint32_t lane)
{
	uint64_t word = load_relaxed(place); /* the CAS decides */
	uint64_t claimed = slab_word_next(word, slab_low(SLAB_CLAIMED, lane, 0));

	/* pairs: arena.state - the state was set before; who claims after us looks at it. */
	return slab_word_state(word) == SLAB_FREE && cas_seq_cst(place, &word, claimed);
}

static void release_words(struct arena_shm *arena, uint32_t lane)
{
	for (unsigned i = 0; i < SLABS_PER_ARENA; i++) {
		uint64_t word = load_relaxed(&arena->word[i]); /* CLAIMED by us: nobody moves it */

		if (slab_word_state(word) == SLAB_CLAIMED && slab_word_lane(word) == lane)
			/* pairs: slab.word - the slab is free again. */
			(void)cas_acq_rel(&arena->word[i], &word, slab_word_next(word, SLAB_FREE));
	}
}

static bool claim_words(struct arena_shm *arena, uint32_t lane)
{
	for (unsigned i = 0; i < SLABS_PER_ARENA; i++)
		if (!claim_word(&arena->word[i], lane))
			return false;
	return true;
}

static int root_is_map(struct shale_segment *view, uint64_t offset, const struct root_shm *record,
		       void *context)
{
	(void)view;
	(void)offset;
	(void)context;
	return record->kind == ROOT_MAP;
}

/*
 * On hugetlb a reader of a map, stopped before it follows a ref, would fault in the hole. What decides
 * is the look when every word is claimed: what such a reader may follow was reachable through a root
 * before. The look at the start saves the claiming.
 */
static bool map_forbids(struct shale_segment *view)
{
	return view->page_size > KIB(4) && root_walk(view, root_is_map, NULL) != 0;
}

struct returning {
	uint64_t arena;
	uint64_t doing; /* the state word */
};

static void return_end(struct lane *lane, const struct returning *returning, enum arena_state after)
{
	struct arena_shm *arena = heap_arena(lane->view, returning->arena);
	uint64_t doing = returning->doing;

	if (after == ARENA_NONE)
		store_relaxed(&arena->empty_since_ms, 0u); /* a hint */
	/* pairs: arena.state - before the words become free: nobody takes a slab of a hole. */
	(void)cas_seq_cst(&arena->state, &doing, slab_word_next(doing, (uint64_t)after));
	release_words(arena, lane->index);
	(void)rank_update(lane->view, returning->arena);
}

/* Claims the arena whole; false: it is in use, pinned, or must stay. */
static bool return_begin(struct lane *lane, uint64_t number, bool asked,
			 struct returning *ret_returning)
{
	struct arena_shm *arena = heap_arena(lane->view, number);
	uint64_t before = load_relaxed(&arena->state); /* the CAS decides */
	uint64_t low = (uint64_t)ARENA_RETURNING | ((uint64_t)lane->index << SLAB_LANE_SHIFT);

	*ret_returning = (struct returning){number, slab_word_next(before, low)};
	/* pairs: arena.pin - set before the pins are read. */
	if ((before & SLAB_STATE_MASK) != ARENA_COMMITTED ||
	    !cas_seq_cst(&arena->state, &before, ret_returning->doing))
		return false;
	if (claim_words(arena, lane->index) && !arena_is_pinned(lane->view, number) &&
	    (asked || !map_forbids(lane->view)))
		return true;
	return_end(lane, ret_returning, ARENA_COMMITTED);
	stamp(lane->view, number); /* not again at once */
	return false;
}

/* -- several at once --------------------------------------------------------------------------- */

struct batch {
	struct lane *lane;
	const struct giveback_wish *wish;
	struct giveback_done *done;
	unsigned count;
	struct returning returning[OS_URING_BATCH];
};

static void batch_result(struct batch *batch, unsigned i, int result)
{
	return_end(batch->lane, &batch->returning[i], result < 0 ? ARENA_COMMITTED : ARENA_NONE);
	if (result == 0)
		batch->done->arenas++;
	else if (batch->done->error == 0)
		batch->done->error = result;
}

/* Through the ring; what that could not do is done by a call. */
static void batch_through_ring(struct batch *batch, int fd)
{
	struct os_uring_punch punches[OS_URING_BATCH];
	struct shale_segment *view = batch->lane->view;

	for (unsigned i = 0; i < batch->count; i++)
		punches[i] = (struct os_uring_punch){
			.offset = view->heap_offset + (batch->returning[i].arena << ARENA_SHIFT),
			.size = ARENA_SIZE,
		};
	(void)os_uring_decommit(batch->wish->ring, fd, punches, batch->count);
	for (unsigned i = 0; i < batch->count; i++) {
		if (punches[i].result < 0)
			punches[i].result = arena_decommit(view, batch->returning[i].arena);
		batch_result(batch, i, punches[i].result);
	}
}

static void batch_flush(struct batch *batch)
{
	int fd = batch->wish->ring ? view_fd(batch->lane->view) : -EBADF;

	if (fd >= 0 && batch->count > 0)
		batch_through_ring(batch, fd);
	else
		for (unsigned i = 0; i < batch->count; i++)
			batch_result(batch, i,
				     arena_decommit(batch->lane->view, batch->returning[i].arena));
	batch->count = 0;
}

/* Without a ring each arena is claimed only while it is punched. */
static void batch_add(struct batch *batch, uint64_t arena)
{
	struct returning *returning = &batch->returning[batch->count];

	if (return_begin(batch->lane, arena, batch->wish->asked, returning))
		batch->count++;
	if (batch->count == (batch->wish->ring ? OS_URING_BATCH : 1))
		batch_flush(batch);
}

/* -- which and when -------------------------------------------------------------------------- */

static void wake_keeper(const struct shale_segment *view)
{
	struct header_mutable_shm *hints = view_hints(view);

	if (load_relaxed(&hints->keeper) != 0) /* a hint */
		(void)event_wake((struct shale_event *)(void *)hints->keeper_event);
}

void giveback_note_empty(struct shale_segment *view, uint64_t arena)
{
	stamp(view, arena);
	wake_keeper(view);
}

/* Three to five quarters of the decay time, by the arena and the segment. */
static uint32_t decay_of(const struct shale_segment *view, uint64_t arena, uint32_t decay_ms)
{
	uint64_t mixed = (arena + 1) * UINT64_C(0x9e3779b97f4a7c15) ^ view->hash_seed;

	return decay_ms - decay_ms / 4 + (uint32_t)((mixed >> 32) % (decay_ms / 2 + 1));
}

/* Milliseconds until the empty arena's time comes; 0: it has. */
static uint32_t due_in(struct shale_segment *view, uint64_t arena, uint32_t decay_ms)
{
	uint32_t *place = &heap_arena(view, arena)->empty_since_ms;
	uint32_t since = load_relaxed(place); /* a hint */
	uint32_t now = giveback_now_ms();
	uint32_t wait = decay_of(view, arena, decay_ms);

	if (decay_ms == 0)
		return 0;
	if (since == 0) {
		store_relaxed(place, now);
		return wait;
	}
	/* a stamp of the future is another machine's, or damage: the age is not known */
	if (now - since >= wait)
		return 0;
	return wait - (now - since);
}

/*
 * The next empty arena at or after `from`: by the ranks, which may miss one, or by looking at every
 * arena.
 */
static bool next_empty(struct shale_segment *view, bool thorough, uint64_t from,
		       uint64_t *ret_arena)
{
	uint64_t arena = from;

	for (; arena < view_arena_high(view); arena++) {
		if (!thorough && !rank_next(view, RANK_EMPTY, arena, 0, &arena))
			return false;
		if (looks_empty(view, arena)) {
			*ret_arena = arena;
			return true;
		}
		if (!thorough)
			(void)rank_update(view, arena); /* the bit was wrong */
	}
	return false;
}

/* Arenas are taken lowest first, so the lowest empty ones are those that stay. */
static void walk_empty(struct batch *batch)
{
	const struct giveback_wish *wish = batch->wish;
	struct giveback_done *done = batch->done;
	struct shale_segment *view = batch->lane->view;
	uint64_t stay = wish->keep;
	uint64_t arena, wait;

	for (uint64_t from = 0; done->error == 0 && next_empty(view, wish->asked, from, &arena);
	     from = arena + 1) {
		if (stay > 0) {
			stay--;
			continue;
		}
		wait = due_in(view, arena, wish->decay_ms);
		if (wait == 0 && (wish->most == 0 || done->arenas + batch->count < wish->most))
			batch_add(batch, arena);
		else if (wait < done->next_ms)
			done->next_ms = (uint32_t)wait;
	}
	batch_flush(batch);
}

void giveback_arenas(struct lane *lane, const struct giveback_wish *wish,
		     struct giveback_done *ret_done)
{
	struct shale_segment *view = lane->view;
	struct giveback_done done = {.next_ms = GIVEBACK_NEVER};
	struct batch batch = {.lane = lane, .wish = wish, .done = &done};

	/* a larger page holds several arenas, which are not empty together */
	if (view->page_size <= ARENA_SIZE && (wish->asked || !map_forbids(view)))
		walk_empty(&batch);
	if (done.arenas > 0)
		memory_freed(view); /* within the budget there is room again */
	/* statistics */
	(void)fetch_add_relaxed(&view_hints(view)->returned_bytes, done.arenas * ARENA_SIZE);
	(void)fetch_add_relaxed(&view_hints(view)->releases, done.arenas);
	*ret_done = done;
}

static int64_t giveback_now(struct lane *lane, uint64_t keep, bool asked)
{
	struct giveback_wish wish = {.keep = keep, .asked = asked};
	struct giveback_done done;

	giveback_arenas(lane, &wish, &done);
	return done.arenas == 0 ? done.error : (int64_t)(done.arenas * ARENA_SIZE);
}

int64_t giveback_empty(struct lane *lane, uint64_t keep)
{
	return giveback_now(lane, keep, false);
}

/* Is any arena being returned, or purged? A look. */
static bool any_on_its_way(struct shale_segment *view)
{
	for (uint64_t arena = 0, high = view_arena_high(view); arena < high; arena++) {
		const struct arena_shm *entry = heap_arena(view, arena);

		/* relaxed: who is refused afterwards was refused by CASes */
		if ((load_relaxed(&entry->state) & SLAB_STATE_MASK) == ARENA_RETURNING ||
		    load_relaxed(&entry->lease) != 0)
			return true;
	}
	return false;
}

bool giveback_settle(struct shale_segment *view)
{
	uint32_t nothing = 0;
	bool any = false;

	for (unsigned tries = 0; tries < SETTLE_TRIES && any_on_its_way(view); tries++) {
		any = true;
		(void)os_futex_wait(&nothing, 0, OS_FUTEX_ANY, os_clock_ns() + SETTLE_NS);
	}
	return any;
}

/* -- by the way ---------------------------------------------------------------------------------- */

static SHALE_COLD void tick(struct lane *lane)
{
	struct header_mutable_shm *hints = view_hints(lane->view);
	/* a hint: with a keeper there is rarely anything left to do, without one nobody else does it */
	bool kept = load_relaxed(&hints->keeper) != 0;
	struct giveback_wish wish = {
		.decay_ms = kept ? 2 * GIVEBACK_DECAY_MS : GIVEBACK_DECAY_MS,
		.keep = 1,
		.most = GIVEBACK_TICK_MAX,
	};
	struct giveback_done done;

	wake_keeper(lane->view);
	giveback_arenas(lane, &wish, &done);
}

void giveback_tick(struct lane *lane)
{
	uint32_t *last = &view_hints(lane->view)->giveback_ms;
	uint32_t now = giveback_now_ms();
	uint32_t seen = load_relaxed(last); /* a hint */

	if (likely(now - seen < GIVEBACK_TICK_MS))
		return;
	/* elects one of those that came together; nothing rides on its order */
	if (cas_relaxed(last, &seen, now))
		tick(lane);
}

/* -- at once ------------------------------------------------------------------------------------- */

/* Pages between the live blocks of what is in use. */
static int64_t trim_inside(struct lane *lane)
{
	const struct purge_limits limits = {.facts = true};

	slab_close_all(lane);
	return purge_run(lane, &limits);
}

int64_t shale_trim(struct shale_segment *segment, uint64_t keep_bytes)
{
	int64_t returned, purged;
	struct lane *lane;
	int r = lane_enter(segment, &lane);

	if (r == 0)
		r = heap_setup_lane(lane);
	if (r < 0)
		return r;
	slab_release_empty(lane, true);
	returned = giveback_now(lane, keep_bytes / ARENA_SIZE, true);
	if (returned < 0)
		return returned;
	purged = trim_inside(lane);
	return purged < 0 && returned == 0 ? purged : returned + (purged > 0 ? purged : 0);
}
