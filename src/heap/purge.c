/*
 * purge.c - pages between live blocks, and pages of facts that nobody needs, go back to the kernel.
 *
 *   look (nothing held) -> lease, pins -> phase 1: hold, convert -> phase 2: hold and claim, punch
 *                                                                -> let go
 *
 * Owner:     the holder of the arena's lease holds PARKED and ORPHAN slabs and claims FREE ones; what is
 *            punched belongs to those. Frees and publishes go on meanwhile.
 * Invariant: PU1 a page is punched only while its slab is HELD or CLAIMED by us, and no live or named
 *                block touches it
 *            PU2 "gone" (punched, facts_gone) is said before the punch and taken back after a commit
 * Progress:  never waits; an arena that somebody else has leased is passed over.
 * Ordering:  slab.word, sparse.switch, arena.lease, arena.pin, facts.gone; docs/design/purge.md.
 * Death:     the table in docs/design/purge.md; sparse_settle_lane() repairs.
 */
#include "heap/purge.h"

#include <errno.h>

#include "heap/arena.h"
#include "heap/giveback.h"
#include "heap/heap.h"
#include "heap/names.h"
#include "heap/parked.h"
#include "heap/pin.h"
#include "heap/slab.h"
#include "heap/sparse.h"

#define PAGE_BYTES      UINT64_C(4096)
#define PAGES_PER_SLAB  ((unsigned)(SLAB_SIZE / PAGE_BYTES))
#define SLABS_PER_FACTS 4u /* slabs whose short facts share a page */

/* What is known about one slab of the arena at hand. */
struct purge_slab {
	const struct bin_info *bin;             /* PARKED and ORPHAN; else NULL */
	uint32_t live;                          /* blocks live or named */
	uint16_t live_pages;                    /* bit p: such a block touches page p */
	struct sparse_fact facts[SPARSE_FACTS]; /* of the first of them */
};

struct purge {
	struct lane *lane;
	struct shale_segment *view;
	uint64_t number; /* of the arena */
	struct arena_shm *arena;
	uint32_t held;    /* bit s: HELD by us */
	uint32_t sparse;  /* ... and its facts are in the arena's entry */
	uint32_t claimed; /* bit s: CLAIMED by us, was FREE */
	uint32_t wiped;   /* bit s: ... and all its pages were punched by us */
	bool spent;       /* as many bytes as the caller allows: from here on only looks */
	bool asked;       /* whether the kernel lets us have barriers ... */
	bool barriers;    /* ... it does */
	int fd;
	int error;
	int64_t bytes; /* given back */
	struct purge_slab slabs[SLABS_PER_ARENA];
};

static uint64_t purge_slab_number(const struct purge *p, unsigned s)
{
	return p->number * SLABS_PER_ARENA + s;
}

/* -- which pages are needed --------------------------------------------------------------------- */

static void keep_block(struct purge_slab *slab, uint32_t index, uint8_t own, uint8_t shared)
{
	uint64_t first = (uint64_t)index * slab->bin->size;
	uint64_t last = first + slab->bin->size - 1;

	for (uint64_t page = first / PAGE_BYTES; page <= last / PAGE_BYTES; page++)
		slab->live_pages |= (uint16_t)(1u << page);
	if (slab->live < SPARSE_FACTS)
		slab->facts[slab->live] = (struct sparse_fact){(uint16_t)index, own, shared};
	slab->live++;
}

static void scan_eight(struct purge_slab *slab, const uint8_t *own, uint32_t first)
{
	for (uint32_t i = first; i < first + 8 && i < slab->bin->count; i++) {
		uint8_t mine =
			load_relaxed(own + i); /* dead ones stay dead while the slab is held */
		/* pairs: slab.shared - a free that is seen has a name that is seen later. */
		uint8_t others = mine ? load_acquire(own + slab->bin->facts_half + i) : 0;

		if (mine != OWN_FREE && others != SHARED_FREED)
			keep_block(slab, i, mine, others);
	}
}

static void scan_dense(const struct purge *p, unsigned s, struct purge_slab *slab)
{
	const uint8_t *own = slab_own_facts(p->view, slab->bin, purge_slab_number(p, s));

	for (uint32_t i = 0; i < slab->bin->count; i += 8) {
		const uint64_t __attribute__((may_alias)) *eight = (const void *)(own + i);

		if (load_relaxed(eight) != 0) /* as in scan_eight() */
			scan_eight(slab, own, i);
	}
}

static void scan_sparse(const struct purge *p, unsigned s, struct purge_slab *slab)
{
	for (unsigned k = 0; k < SPARSE_FACTS; k++) {
		struct sparse_fact fact =
			sparse_load(sparse_entry(p->view, purge_slab_number(p, s), k));

		if (sparse_fact_live(fact) && fact.index < slab->bin->count)
			keep_block(slab, fact.index, fact.own, fact.shared);
	}
}

static bool facts_readable(const struct purge *p, unsigned s, uint64_t word)
{
	/* pairs: arena.long_facts - committed before the bit; looked at without the slab: a hint. */
	uint32_t committed = load_acquire(&p->arena->long_committed);

	return (word & SLAB_SPARSE) || !p->slabs[s].bin->facts_long || (committed >> s & 1);
}

/* Fills slabs[s] from the facts that this word says are the good ones; false: nothing can be said. */
static bool scan_slab(struct purge *p, unsigned s, uint64_t word)
{
	struct purge_slab *slab = &p->slabs[s];

	*slab = (struct purge_slab){.bin = &bin_table[slab_word_bin(word)]};
	if (slab->bin->size == 0 || !facts_readable(p, s, word))
		return false;
	if (word & SLAB_SPARSE)
		scan_sparse(p, s, slab);
	else
		scan_dense(p, s, slab);
	return true;
}

static bool is_kept(const struct purge_slab *slab, uint32_t index)
{
	for (uint32_t k = 0; k < slab->live && k < SPARSE_FACTS; k++)
		if (slab->facts[k].index == index)
			return true;
	return false;
}

/* A named block keeps its page and its facts, live or not; a block that its owner freed has none. */
static void keep_named(struct purge *p, uint64_t name)
{
	uint64_t number = slab_of_offset(p->view, name);
	unsigned s = (unsigned)(number % SLABS_PER_ARENA);
	struct purge_slab *slab = &p->slabs[s];
	uint32_t index;
	const struct sparse_fact *entry;
	const uint8_t *own;

	if (!(p->held >> s & 1))
		return;
	index = bin_block_index(slab->bin, (uint32_t)(name % SLAB_SIZE));
	if (index == UINT32_MAX || is_kept(slab, index))
		return;
	own = slab_own_facts(p->view, slab->bin, number) + index;
	if (p->sparse >> s & 1) {
		entry = sparse_find(p->view, number, index);
		if (entry) /* a free that comes now changes nothing: it is kept */
			keep_block(slab, index, OWN_ALLOCATED, SHARED_FREED);
	} else if (load_relaxed(own) != OWN_FREE) { /* named: nobody but its lane frees it */
		/* a block beyond the first eight may be counted twice: no harm */
		keep_block(slab, index, load_relaxed(own),
			   load_relaxed(own + slab->bin->facts_half));
	}
}

/* The facts of all held slabs, then the names. False: too many names to say what is dead. */
static bool scan_held(struct purge *p, uint32_t slabs)
{
	uint64_t first = slab_offset(p->view, purge_slab_number(p, 0));
	uint64_t names[NAMES_MAX];
	uint32_t count;

	for (unsigned s = 0; s < SLABS_PER_ARENA; s++)
		if ((slabs >> s & 1) &&
		    /* ours: it changes by recovery of its lane at most, which keeps the facts */
		    !scan_slab(p, s, load_relaxed(&p->arena->word[s])))
			return false;
	if (!names_gather(p->view, first, first + ARENA_SIZE, names, &count))
		return false;
	for (uint32_t i = 0; i < count; i++)
		if (slabs >> (slab_of_offset(p->view, names[i]) % SLABS_PER_ARENA) & 1)
			keep_named(p, names[i]);
	return true;
}

/* -- a look, with nothing held ----------------------------------------------------------------- */

static uint16_t pages_punched(const struct purge *p, unsigned s)
{
	return load_relaxed(&p->arena->punched[s]); /* a look, or the slab is ours */
}

/* Of `slabs` those whose page of short facts all four neighbours can do without. */
static uint32_t whole_groups(uint32_t slabs)
{
	uint32_t whole = 0;

	for (unsigned s = 0; s < SLABS_PER_ARENA; s += SLABS_PER_FACTS)
		if ((slabs >> s & 0xf) == 0xf)
			whole |= UINT32_C(0xf) << s;
	return whole;
}

/* What the slabs of an arena look like while nothing is held. */
struct purge_sight {
	uint32_t sum;
	uint32_t empty;    /* FREE slabs */
	uint32_t few;      /* FREE, SPARSE, or with few live blocks: without long facts, and */
	uint32_t no_short; /* ... these, and those of small blocks: without short facts */
	bool pages;        /* some pages of blocks could go */
};

static void look_parked(struct purge *p, unsigned s, uint64_t word, struct purge_sight *sight)
{
	const struct purge_slab *slab = &p->slabs[s];
	uint32_t bit = UINT32_C(1) << s;

	if (slab->live <= SPARSE_FACTS)
		sight->few |= bit;
	if (slab->live <= SPARSE_FACTS || slab->bin->facts_long)
		sight->no_short |= bit;
	sight->pages |= (uint16_t) ~(slab->live_pages | pages_punched(p, s)) != 0;
	sight->sum = sight->sum * 31 + (uint32_t)(word >> 32) + slab->live;
}

static void look_slab(struct purge *p, unsigned s, struct purge_sight *sight)
{
	/* pairs: slab.word - the facts belong to this word; what is seen is looked at again. */
	uint64_t word = load_acquire(&p->arena->word[s]);
	uint32_t bit = UINT32_C(1) << s;

	if (slab_word_state(word) == SLAB_FREE) {
		sight->empty |= bit;
		sight->few |= bit;
		sight->no_short |= bit;
		sight->pages |= pages_punched(p, s) != UINT16_MAX;
		sight->sum = sight->sum * 31 + (uint32_t)(word >> 32);
	} else if (slab_word_let_go(word) && !(word & SLAB_HELD) && scan_slab(p, s, word)) {
		look_parked(p, s, word, sight);
	}
}

static bool facts_to_gain(const struct purge *p, const struct purge_sight *sight)
{
	/* a look: the bits move with the slabs */
	return (sight->few & load_relaxed(&p->arena->long_committed)) != 0 ||
	       (whole_groups(sight->no_short) & ~load_relaxed(&p->arena->facts_gone)) != 0;
}

static bool unchanged_long_enough(struct purge *p, uint32_t sum, uint32_t wanted_ms)
{
	uint32_t now = (uint32_t)(os_clock_ns() / 1000000u);

	if (wanted_ms == 0)
		return true;
	/* hints: two lookers may disturb each other, which costs time */
	if (load_relaxed(&p->arena->look_sum) != sum) {
		store_relaxed(&p->arena->look_sum, sum);
		store_relaxed(&p->arena->purged_ms, now);
		return false;
	}
	return now - load_relaxed(&p->arena->purged_ms) >= wanted_ms;
}

/* Is the arena worth a lease? */
static bool look_arena(struct purge *p, const struct purge_limits *limits)
{
	struct purge_sight sight = {0};
	bool committed = arena_committed(p->view, p->number), gain;

	for (unsigned s = 0; s < SLABS_PER_ARENA; s++)
		look_slab(p, s, &sight);
	gain = limits->facts && facts_to_gain(p, &sight);
	/* an empty arena goes back as a whole, or is kept as it is; its facts go after it */
	if (committed == (sight.empty == UINT32_MAX) || !(gain || (committed && sight.pages)))
		return false;
	if (unchanged_long_enough(p, sight.sum, limits->unchanged_ms))
		return true;
	if (limits->ret_later)
		*limits->ret_later = true;
	return false;
}

/* -- holding ----------------------------------------------------------------------------------- */

static void hold_parked(struct purge *p, bool sparse)
{
	for (unsigned s = 0; s < SLABS_PER_ARENA; s++) {
		uint64_t word = load_relaxed(&p->arena->word[s]); /* the CAS decides */

		if (!slab_word_let_go(word) || (word & SLAB_HELD) ||
		    sparse != ((word & SLAB_SPARSE) != 0) ||
		    bin_table[slab_word_bin(word)].size == 0)
			continue;
		if (slab_hold(p->view, purge_slab_number(p, s), word)) {
			p->held |= UINT32_C(1) << s;
			p->sparse |= (uint32_t)sparse << s;
		}
	}
}

static void claim_free(struct purge *p)
{
	for (unsigned s = 0; s < SLABS_PER_ARENA; s++) {
		uint64_t word = load_relaxed(&p->arena->word[s]); /* the CAS decides */
		uint64_t claimed = slab_word_next(word, slab_low(SLAB_CLAIMED, p->lane->index, 0));

		/* pairs: slab.word - the last owner is done with pages and facts. */
		if (slab_word_state(word) == SLAB_FREE &&
		    cas_seq_cst(&p->arena->word[s], &word, claimed))
			p->claimed |= UINT32_C(1) << s;
	}
}

static void let_go(struct purge *p)
{
	for (unsigned s = 0; s < SLABS_PER_ARENA; s++) {
		uint64_t word = load_relaxed(&p->arena->word[s]); /* ours */

		if (p->held >> s & 1)
			slab_unhold(p->view, p->lane->index, purge_slab_number(p, s));
		if (!(p->claimed >> s & 1))
			continue;
		if (p->error == 0 && (p->wiped >> s & 1))
			/* relaxed: read by whoever takes the slab */
			(void)fetch_or_relaxed(&p->arena->fresh, UINT32_C(1) << s);
		/* pairs: slab.word - what is gone is marked. */
		(void)cas_acq_rel(&p->arena->word[s], &word, slab_word_next(word, SLAB_FREE));
	}
	lease_drop(p->view, p->number);
	/* who looked meanwhile took our slabs for used ones */
	arena_note_free(p->view, purge_slab_number(p, 0));
}

/* -- phase 1: converting ------------------------------------------------------------------------- */

/* What is switched and then gets no barrier stays held: so this is asked before, once. */
static bool barriers_work(struct purge *p)
{
	if (!p->asked)
		p->barriers = os_membarrier_global() == 0;
	p->asked = true;
	return p->barriers;
}

/* Does the barrier reach the lane that parked this slab? */
static bool barrier_reaches(struct purge *p, uint64_t word)
{
	uint32_t lane = slab_word_lane(word), peer;

	if (slab_word_state(word) == SLAB_ORPHAN || lane == p->lane->index)
		return true;
	/* the lane is in use as long as the slab that we hold names it */
	peer = lane_word_peer(load_relaxed(&view_lane(p->view, lane)->word));
	/* relaxed: set before the peer had lanes */
	return (load_relaxed(&view_peer(p->view, peer)->flags) & PEER_MEMBARRIER) &&
	       barriers_work(p);
}

/* Slabs that may be converted, whether it pays or not. */
static uint32_t convertible(struct purge *p)
{
	uint32_t can = 0;

	for (unsigned s = 0; s < SLABS_PER_ARENA; s++)
		if ((p->held >> s & 1) && p->slabs[s].live <= SPARSE_FACTS &&
		    barrier_reaches(p, load_relaxed(&p->arena->word[s]))) /* held: it stays */
			can |= UINT32_C(1) << s;
	return can;
}

static uint32_t long_slabs(const struct purge *p)
{
	uint32_t slabs = 0;

	for (unsigned s = 0; s < SLABS_PER_ARENA; s++)
		if ((p->held >> s & 1) && p->slabs[s].bin->facts_long)
			slabs |= UINT32_C(1) << s;
	return slabs;
}

/* A look: slabs that phase 2 will find FREE or SPARSE. */
static uint32_t without_facts(const struct purge *p)
{
	uint32_t slabs = 0;

	for (unsigned s = 0; s < SLABS_PER_ARENA; s++) {
		uint64_t word = load_relaxed(&p->arena->word[s]); /* a look */

		if (slab_word_state(word) == SLAB_FREE ||
		    (slab_word_let_go(word) && (word & SLAB_SPARSE)))
			slabs |= UINT32_C(1) << s;
	}
	return slabs;
}

/* The switched slabs take over what happened to their dense facts meanwhile. */
static int transfer_all(struct purge *p, uint32_t slabs)
{
	bool barrier = false;
	int r = 0;

	for (unsigned s = 0; s < SLABS_PER_ARENA; s++) {
		uint64_t word = load_relaxed(&p->arena->word[s]); /* held */

		barrier |= (slabs >> s & 1) && slab_word_state(word) == SLAB_PARKED &&
			   slab_word_lane(word) != p->lane->index;
	}
	if (barrier)
		r = os_membarrier_global();
	for (unsigned s = 0; s < SLABS_PER_ARENA && r == 0; s++)
		if (slabs >> s & 1)
			sparse_transfer(p->view, purge_slab_number(p, s), p->slabs[s].facts);
	return r;
}

/*
 * Converts what is held and pays. -errno: no barrier; the slabs stay held and the lease ours until a
 * next try, or until recovery.
 */
static int convert(struct purge *p)
{
	uint32_t can = convertible(p), is_long = long_slabs(p);
	uint32_t take = can & (is_long | whole_groups(can | is_long | without_facts(p)));
	int r;

	for (unsigned s = 0; s < SLABS_PER_ARENA; s++)
		if (take >> s & 1)
			sparse_switch(p->view, purge_slab_number(p, s), p->slabs[s].facts);
	r = transfer_all(p, take);
	p->sparse |= take;
	return r;
}

/* -- phase 2: punching ----------------------------------------------------------------------------- */

static void punch(struct purge *p, uint64_t offset, uint64_t size)
{
	int r;

	if (p->error < 0)
		return;
	if (p->view->private_memory)
		r = os_advise(view_at(p->view, offset), size, OS_DONTNEED);
	else
		r = os_decommit(p->fd, offset, size);
	if (r < 0)
		p->error = r;
	else
		p->bytes += (int64_t)size;
}

/* Marks the pages of our slabs that nobody needs; bit i of ret_pages: page i of the arena. */
static void mark_pages(struct purge *p, uint64_t *ret_pages)
{
	for (unsigned s = 0; s < SLABS_PER_ARENA; s++) {
		uint16_t gone = pages_punched(p, s), idle = 0;

		if (p->held >> s & 1)
			idle = (uint16_t) ~(p->slabs[s].live_pages | gone);
		else if ((p->claimed >> s & 1) && gone != UINT16_MAX)
			idle = UINT16_MAX;
		p->wiped |= (uint32_t)(idle == UINT16_MAX) << s;
		/* the slab is ours; said before it is done */
		store_relaxed(&p->arena->punched[s], (uint16_t)(gone | idle));
		ret_pages[s / 4] |= (uint64_t)idle << (s % 4 * PAGES_PER_SLAB);
	}
	order_for_death();
}

static void punch_pages(struct purge *p)
{
	uint64_t pages[SLABS_PER_ARENA / 4] = {0};
	uint64_t base = slab_offset(p->view, purge_slab_number(p, 0));
	unsigned all = SLABS_PER_ARENA * PAGES_PER_SLAB, end;

	mark_pages(p, pages);
	for (unsigned i = 0; i < all; i = end + 1) {
		for (end = i; end < all && (pages[end / 64] >> (end % 64) & 1); end++)
			;
		if (end > i)
			punch(p, base + i * PAGE_BYTES, (end - i) * PAGE_BYTES);
	}
	if (p->bytes > 0 && p->view->header.pages == SHALE_PAGES_THP)
		/* a hint: what was a huge page is none any more */
		store_relaxed(&p->arena->page_kind, (uint8_t)SHALE_PAGES_4K);
}

static void punch_short_facts(struct purge *p)
{
	uint32_t idle = whole_groups(p->claimed | p->sparse | long_slabs(p));
	uint64_t base = p->view->short_facts_offset +
			purge_slab_number(p, 0) * (uint64_t)SHORT_FACTS_STRIDE;
	/* bits of our slabs: ours; a group that is gone already is passed over */
	uint32_t gone = load_relaxed(&p->arena->facts_gone);

	for (unsigned s = 0; s < SLABS_PER_ARENA; s += SLABS_PER_FACTS) {
		uint32_t group = UINT32_C(0xf) << s;

		if (!(idle & group) || (gone & group) == group)
			continue;
		/* pairs: facts.gone - said before the punch. */
		(void)fetch_or_acq_rel(&p->arena->facts_gone, group);
		punch(p, base + s * (uint64_t)SHORT_FACTS_STRIDE, PAGE_BYTES);
	}
}

static void punch_long_facts(struct purge *p)
{
	uint32_t idle = (p->claimed | (p->sparse & p->held)) &
			load_relaxed(&p->arena->long_committed); /* bits of our slabs: ours */

	for (unsigned s = 0; s < SLABS_PER_ARENA; s++) {
		if (!(idle >> s & 1))
			continue;
		/* pairs: facts.gone - said before the punch: they are zeroed when they come back. */
		(void)fetch_or_acq_rel(&p->arena->facts_gone, UINT32_C(1) << s);
		punch(p, p->view->long_facts_offset + purge_slab_number(p, s) * LONG_FACTS_STRIDE,
		      LONG_FACTS_STRIDE);
		if (p->error == 0)
			/* pairs: arena.long_facts - after the punch: the budget counts by it. */
			(void)fetch_and_acq_rel(&p->arena->long_committed, ~(UINT32_C(1) << s));
	}
}

/* -- one arena, all arenas ------------------------------------------------------------------------ */

/* 0; -errno: the slabs stay held. */
static int purge_phase_1(struct purge *p, bool facts)
{
	int r = 0;

	hold_parked(p, false);
	if (!scan_held(p, p->held))
		return 1;
	if (facts)
		r = convert(p);
	return r;
}

static void purge_phase_2(struct purge *p, bool facts)
{
	uint32_t before = p->held;

	lease_phase_set(p->lane, p->number, LEASE_PUNCH);
	hold_parked(p, true);
	if ((p->held & ~before) && !scan_held(p, p->held & ~before))
		return;
	claim_free(p);
	/* of an arena that was returned meanwhile, or before, the facts go */
	if (arena_committed(p->view, p->number))
		punch_pages(p);
	if (facts) {
		punch_short_facts(p);
		punch_long_facts(p);
	}
}

/* The descriptor is looked at each time: the program may have closed it, and the number is another's. */
static bool purge_open(struct purge *p)
{
	int fd = p->view->private_memory ? 0 : view_fd(p->view);

	p->fd = fd;
	p->error = fd < 0 ? fd : 0;
	return fd >= 0;
}

static void purge_arena(struct purge *p, const struct purge_limits *limits)
{
	int r;

	if (!look_arena(p, limits))
		return;
	if (p->spent) {
		/* it has been looked at, so that it is old enough in time */
		if (limits->ret_later)
			*limits->ret_later = true;
		return;
	}
	if (!purge_open(p) || !lease_take(p->lane, p->number, LEASE_CONVERT))
		return;
	if (arena_is_pinned(p->view, p->number)) {
		lease_drop(p->view, p->number);
		return;
	}
	r = purge_phase_1(p, limits->facts);
	if (r < 0) {
		p->error = r;
		return;
	}
	if (r == 0)
		purge_phase_2(p, limits->facts);
	let_go(p);
}

int64_t purge_run(struct lane *lane, const struct purge_limits *limits)
{
	struct shale_segment *view = lane->view;
	struct purge p = {.lane = lane, .view = view};
	int64_t bytes = 0;

	if (view->page_size != PAGE_BYTES)
		return 0;
	for (uint64_t arena = 0, high = view_arena_high(view); arena < high && p.error == 0;
	     arena++) {
		p.number = arena;
		p.arena = heap_arena(view, arena);
		p.held = p.sparse = p.claimed = p.wiped = 0;
		p.bytes = 0;
		purge_arena(&p, limits);
		bytes += p.bytes;
		p.spent = limits->max_bytes != 0 && (uint64_t)bytes >= limits->max_bytes;
	}
	/* statistics */
	(void)fetch_add_relaxed(&view_hints(view)->purged_bytes, (uint64_t)bytes);
	return p.error < 0 && bytes == 0 ? p.error : bytes;
}
