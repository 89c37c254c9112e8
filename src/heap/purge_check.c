/*
 * purge_check.c - what a lease and sparse facts must look like; H8 and H9 (heap_check.c) say the rest.
 *
 *   PG1 the entries of a FREE slab do not count
 *   PG2 a lease names a lane in use, and a phase that is known
 *
 * Reads only the arena table. What is wrong counts if it stays wrong through many looks.
 *
 * Death: nothing is written.
 */
#include "heap/purge.h"

#include "heap/slab.h"

#define LOOKS 64u

static bool free_slab_has_entries(const struct arena_shm *arena, unsigned s)
{
	/* pairs: slab.word - the bit goes before the slab is free. */
	uint64_t word = load_acquire(&arena->word[s]);

	return slab_word_state(word) == SLAB_FREE &&
	       (load_relaxed(&arena->sparse_used) >> s & 1) != 0; /* looked at again */
}

static bool lease_is_wrong(struct shale_segment *view, const struct arena_shm *arena)
{
	/* pairs: arena.lease - a lane in use took it. */
	uint64_t lease = load_acquire(&arena->lease);
	uint64_t phase = lease & SLAB_STATE_MASK;
	uint32_t lane = slab_word_lane(lease);

	if (lease == 0)
		return false;
	return lane == 0 || lane >= view_lane_high(view) || phase < LEASE_CONVERT ||
	       phase > LEASE_PUNCH ||
	       !lane_word_active(load_relaxed(&view_lane(view, lane)->word)); /* looked at again */
}

static bool stays_free_with_entries(const struct arena_shm *arena, unsigned s)
{
	for (unsigned look = 0; look < LOOKS; look++) {
		if (!free_slab_has_entries(arena, s))
			return false;
		os_cpu_relax();
	}
	return true;
}

static bool lease_stays_wrong(struct shale_segment *view, const struct arena_shm *arena)
{
	for (unsigned look = 0; look < LOOKS; look++) {
		if (!lease_is_wrong(view, arena))
			return false;
		os_cpu_relax();
	}
	return true;
}

void purge_check(struct check_context *check)
{
	struct shale_segment *view = check->view;

	for (uint64_t number = 0, high = view_arena_high(view); number < high; number++) {
		const struct arena_shm *arena = heap_arena(view, number);

		if (lease_stays_wrong(view, arena))
			check_report(check, "PG2", view->heap_offset + (number << ARENA_SHIFT),
				     "an arena's lease names no lane in use, or no known phase");
		for (unsigned s = 0; s < SLABS_PER_ARENA; s++)
			if (stays_free_with_entries(arena, s))
				check_report(check, "PG1",
					     slab_offset(view, number * SLABS_PER_ARENA + s),
					     "the sparse facts of a free slab count");
	}
}
