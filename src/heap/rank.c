/*
 * rank.c - arenas in classes by their free slabs: masks of bits at four levels.
 *
 *   level 3   header.rank_top[class]                            a bit: a run of 2^18 arenas
 *   level 2   entry of the first of 2^18: rank_supergroups[class]      4096
 *   level 1   entry of the first of 4096: rank_groups[class]           64
 *   level 0   entry of the first of 64:   rank_arenas[class]           one arena
 *
 * Owner:     nobody: bits are set and cleared by locked or and and, by whoever has changed an arena
 *            or has found a bit wrong.
 * Invariant: RK1 nothing is decided by a bit: the words of the arena are
 *            RK2 at rest an arena is in the class of its free slabs (or in none), at all levels
 * Ordering:  rank.bits: bits are changed after the word that made it necessary, and the words are
 *            counted again after it. Who clears a bit looks at the word below it once more.
 * Progress:  lock-free; an update tries four times and leaves the rest to the next.
 * Death:     bits that say too much or too little. The first are repaired by who follows them, the
 *            others by the next update of the arena and by rank_repair(), before anybody is refused.
 */
#include "heap/rank.h"

#include "heap/slab.h"

#define RANK_LEVELS  4u
#define UPDATE_TRIES 4u   /* then the class is what somebody else makes of it */
#define NODE_LOOKS   128u /* arenas of other nodes that one search looks at */
#define RANK_GROUP   64u  /* arenas of a level 0 word */

#ifdef RANK_COUNT
static uint64_t rank_looks; /* words of arenas and of masks that were read; for a test */
#define RANK_LOOK() ((void)++rank_looks)
#else
#define RANK_LOOK() ((void)0)
#endif

unsigned rank_of_free(unsigned free_slabs)
{
	static const uint8_t classes[SLABS_PER_ARENA + 1] = {
		RANK_NOWHERE,
		1,
		1,
		2,
		2,
		3,
		3,
		3,
		3,
		4,
		4,
		4,
		4,
		4,
		4,
		4,
		4,
		5,
		5,
		5,
		5,
		5,
		5,
		5,
		5,
		6,
		6,
		6,
		6,
		6,
		6,
		6,
		7,
	};

	return classes[free_slabs <= SLABS_PER_ARENA ? free_slabs : SLABS_PER_ARENA];
}

unsigned rank_with_room(unsigned slabs)
{
	return rank_of_free(slabs);
}

uint32_t rank_free_mask(const struct shale_segment *view, uint64_t arena)
{
	const uint64_t *words = heap_arena(view, arena)->word;
	uint32_t mask = 0;

	for (unsigned i = 0; i < SLABS_PER_ARENA; i++)
		/* a look: whoever wants the slab decides by CAS. pairs: rank.bits */
		mask |= (uint32_t)(slab_word_state(load_acquire(&words[i])) == SLAB_FREE) << i;
	return mask;
}

static unsigned rank_now(const struct shale_segment *view, uint64_t arena)
{
	/* a look: the state decides at the take */
	uint64_t state = load_relaxed(&heap_arena(view, arena)->state) & SLAB_STATE_MASK;

	RANK_LOOK();
	if (state == ARENA_NONE)
		return RANK_UNCOMMITTED;
	if (state != ARENA_COMMITTED)
		return RANK_NOWHERE;
	return rank_of_free((unsigned)__builtin_popcount(rank_free_mask(view, arena)));
}

/* -- the words ---------------------------------------------------------------------------------- */

/* Arenas that a bit of this level stands for: 1, 64, 4096, 2^18. */
static uint64_t level_step(unsigned level)
{
	return UINT64_C(1) << (6 * level);
}

static uint64_t *level_word(const struct shale_segment *view, unsigned rank, unsigned level,
			    uint64_t arena)
{
	struct arena_shm *first;

	RANK_LOOK();
	if (level == RANK_LEVELS - 1)
		return &view_hints(view)->rank_top[rank];
	first = heap_arena(view, round_down(arena, level_step(level + 1)));
	return level == 0   ? &first->rank_arenas[rank]
	       : level == 1 ? &first->rank_groups[rank]
			    : &first->rank_supergroups[rank];
}

/* The same for nodes; there is none at level 0. */
static uint64_t *node_word(const struct shale_segment *view, unsigned node, unsigned level,
			   uint64_t arena)
{
	unsigned index = (node - 1) % RANKS;
	struct arena_shm *first;

	if (level == RANK_LEVELS - 1)
		return &view_hints(view)->node_top[index];
	first = heap_arena(view, round_down(arena, level_step(level + 1)));
	return level == 1 ? &first->node_groups[index] : &first->node_supergroups[index];
}

static uint64_t level_bit(unsigned level, uint64_t arena)
{
	return UINT64_C(1) << (arena / level_step(level) % 64);
}

static void set_from(struct shale_segment *view, unsigned rank, unsigned level, uint64_t arena)
{
	for (; level < RANK_LEVELS; level++) {
		uint64_t *word = level_word(view, rank, level, arena);
		uint64_t bit = level_bit(level, arena);

		/* pairs: rank.bits - who clears the bit looks below it again. */
		if (!(load_acquire(word) & bit))
			(void)fetch_or_seq_cst(word, bit);
	}
}

/* The word below the bit of this level is 0: clears it, and on upwards what became 0 by that. */
static void fold_from(struct shale_segment *view, unsigned rank, unsigned level, uint64_t arena)
{
	for (; level < RANK_LEVELS; level++) {
		uint64_t *below = level_word(view, rank, level - 1, arena);
		uint64_t *word = level_word(view, rank, level, arena);
		uint64_t bit = level_bit(level, arena);

		if ((load_acquire(word) & bit) == 0) /* pairs: rank.bits */
			return;
		/* pairs: rank.bits - cleared, then looked again: who sets looks after setting. */
		uint64_t left = fetch_and_acq_rel(word, ~bit) & ~bit;

		if (load_seq_cst(below) != 0) {
			set_from(view, rank, level, arena);
			return;
		}
		if (left != 0)
			return;
	}
}

static void leave_class(struct shale_segment *view, unsigned rank, uint64_t arena)
{
	uint64_t *word = level_word(view, rank, 0, arena);
	uint64_t bit = level_bit(0, arena);

	/* pairs: rank.bits - as in fold_from() */
	if ((fetch_and_acq_rel(word, ~bit) & ~bit) == 0)
		fold_from(view, rank, 1, arena);
}

/* -- an arena into its class --------------------------------------------------------------------- */

/* True if any bit of level 0 was wrong. */
static bool put(struct shale_segment *view, uint64_t arena, unsigned rank)
{
	uint64_t bit = level_bit(0, arena);
	bool moved = false;

	if (rank < RANKS) {
		/* pairs: rank.bits */
		moved = (load_acquire(level_word(view, rank, 0, arena)) & bit) == 0;
		set_from(view, rank, 0, arena);
	}
	for (unsigned other = 0; other < RANKS; other++) {
		if (other == rank ||
		    /* pairs: rank.bits */
		    !(load_acquire(level_word(view, other, 0, arena)) & bit))
			continue;
		leave_class(view, other, arena);
		moved = true;
	}
	return moved;
}

unsigned rank_update(struct shale_segment *view, uint64_t arena)
{
	unsigned rank = rank_now(view, arena);

	for (unsigned tries = 0; tries < UPDATE_TRIES; tries++) {
		unsigned again;

		if (!put(view, arena, rank))
			break;
		/* a hint, for people */
		store_relaxed(&heap_arena(view, arena)->rank, (uint8_t)rank);
		/* who changed a word after our count may have seen the bits as they were before */
		again = rank_now(view, arena);
		if (again == rank)
			break;
		rank = again;
	}
	return rank;
}

void rank_announce(struct shale_segment *view, uint64_t arena)
{
	set_from(view, RANK_UNCOMMITTED, 0, arena);
}

void rank_set_node(struct shale_segment *view, uint64_t arena, unsigned node)
{
	if (node == 0)
		return;
	for (unsigned level = 1; level < RANK_LEVELS; level++) {
		uint64_t *word = node_word(view, node, level, arena);

		if (!(load_relaxed(word) & level_bit(level, arena))) /* a hint */
			(void)fetch_or_relaxed(word, level_bit(level, arena));
	}
}

void rank_repair(struct shale_segment *view)
{
	for (uint64_t arena = 0, high = view_arena_high(view); arena < high; arena++)
		(void)rank_update(view, arena);
}

/* -- searching ----------------------------------------------------------------------------------- */

struct rank_search {
	struct shale_segment *view;
	unsigned rank;
	unsigned node;
	unsigned node_looks; /* what is left of NODE_LOOKS */
	uint64_t from;
	uint64_t high;
};

/* The bits of `level` around `base` that stand for arenas at or above `from` and below the mark. */
static uint64_t search_word(const struct rank_search *search, unsigned level, uint64_t base)
{
	uint64_t step = level_step(level);
	/* pairs: rank.bits - a hint; what it says is tested */
	uint64_t word = load_acquire(level_word(search->view, search->rank, level, base));
	uint64_t end = (search->high - base + step - 1) / step;

	if (search->node != 0 && level > 0)
		/* a hint */
		word &= load_relaxed(node_word(search->view, search->node, level, base));
	if (end < 64)
		word &= (UINT64_C(1) << end) - 1;
	if (search->from > base) {
		uint64_t first = (search->from - base) / step;

		word = first < 64 ? word & ~((UINT64_C(1) << first) - 1) : 0;
	}
	return word;
}

static bool arena_suits(struct rank_search *search, uint64_t arena)
{
	if (search->node == 0)
		return true;
	if (search->node_looks == 0)
		return false;
	search->node_looks--;
	return load_relaxed(&heap_arena(search->view, arena)->node) == search->node; /* a hint */
}

/* Depth first; at most four deep. */
static bool search_level(struct rank_search *search, unsigned level, uint64_t base,
			 uint64_t *ret_arena)
{
	uint64_t word = search_word(search, level, base);

	for (; word != 0; word &= word - 1) {
		uint64_t arena = base + lowest_bit(word) * level_step(level);

		if (level == 0 && arena_suits(search, arena)) {
			*ret_arena = arena;
			return true;
		}
		if (level > 0 && search_level(search, level - 1, arena, ret_arena))
			return true;
		if (search->node != 0 && search->node_looks == 0)
			return false;
		/* pairs: rank.bits - the bit says too much */
		if (level > 0 &&
		    load_acquire(level_word(search->view, search->rank, level - 1, arena)) == 0)
			fold_from(search->view, search->rank, level, arena);
	}
	return false;
}

bool rank_next(struct shale_segment *view, unsigned rank, uint64_t from, unsigned node,
	       uint64_t *ret_arena)
{
	struct rank_search search = {
		.view = view,
		.rank = rank,
		.node = node,
		.node_looks = NODE_LOOKS,
		.from = from,
		.high = view_arena_high(view),
	};

	return from < search.high && search_level(&search, RANK_LEVELS - 1, 0, ret_arena);
}

uint64_t rank_bits(struct shale_segment *view, unsigned rank, uint64_t arena)
{
	struct rank_search search = {.view = view, .rank = rank, .high = view_arena_high(view)};

	return arena < search.high ? search_word(&search, 0, round_down(arena, RANK_GROUP)) : 0;
}
