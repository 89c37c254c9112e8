/*
 * names.c - reads the names of all lanes: intents, retired refs, and blocks being freed.
 *
 * A name is set before the free that it is about and dropped after it. Who has seen a free and reads
 * the names afterwards therefore sees the name of a freer that is not done yet. `freeing` is also set
 * by recovery, for a dead lane, to an offset at which no block starts: a guard over one slab.
 *
 * Owner:    each lane writes its own names; recovery those of a dead lane.
 * Progress: bounded by the lanes; a name in `freeing` is read again at most NAME_LOOKS times.
 * Ordering: lane.intent, lane.retired, lane.freeing (acquire), lane.word.
 * Death:    nothing is written. Names of a dead lane stand until recovery has settled them.
 */
#include "heap/names.h"

#include "heap/heap.h"
#include "segment/lanes.h"

#define NAME_LOOKS    64u
#define NAMES_OF_LANE (3u + LANE_RETIRED)

static bool in_range(uint64_t name, uint64_t first, uint64_t end)
{
	return name >= first && name < end;
}

/* A FREE slot has no names: they are settled before it becomes free, and set after it was claimed. */
static bool lane_may_name(const struct lane_shm *lane)
{
	/* pairs: lane.word - the slot was cleaned before it became free. */
	return lane_word_active(load_acquire(&lane->word));
}

/* All but `freeing`. */
static uint32_t lane_names(const struct lane_shm *lane, uint64_t *ret_names)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < 2; i++)
		/* pairs: lane.intent - named before the free that we have seen. */
		ret_names[n++] = load_acquire(&lane->intent.block[i]);
	for (unsigned i = 0; i < LANE_RETIRED; i++)
		/* pairs: lane.retired - named before the free that we have seen. */
		ret_names[n++] = load_acquire(&lane->retired[i]);
	return n;
}

static bool lane_gather(const struct lane_shm *lane, uint64_t first, uint64_t end,
			uint64_t *ret_names, uint32_t *count)
{
	uint64_t names[NAMES_OF_LANE];
	uint32_t n = lane_names(lane, names);

	/* pairs: lane.freeing - named before the free that we have seen. */
	names[n++] = load_acquire(&lane->freeing);
	for (uint32_t i = 0; i < n; i++) {
		if (!in_range(names[i], first, end))
			continue;
		if (*count == NAMES_MAX)
			return false;
		ret_names[(*count)++] = names[i];
	}
	return true;
}

bool names_gather(const struct shale_segment *view, uint64_t first, uint64_t end,
		  uint64_t *ret_names, uint32_t *ret_count)
{
	uint32_t high = view_lane_high(view);

	*ret_count = 0;
	for (uint32_t i = 1; i < high; i++) {
		const struct lane_shm *lane = view_lane(view, i);

		if (lane_may_name(lane) && !lane_gather(lane, first, end, ret_names, ret_count))
			return false;
	}
	return true;
}

/*
 * A freer drops its name before it looks at the slab. If it has looked before our free, its store is
 * on the way: without a fence of its own, which a free cannot afford, we give it a moment.
 */
static bool freeing_stays(const struct lane_shm *lane, uint64_t first, uint64_t end,
			  uint64_t except)
{
	for (unsigned look = 0; look < NAME_LOOKS; look++) {
		/* pairs: lane.freeing - dropped before the freer looks at the slab. */
		uint64_t name = load_acquire(&lane->freeing);

		if (name == except || !in_range(name, first, end))
			return false;
		os_cpu_relax();
	}
	return true;
}

static bool lane_names_any(const struct lane_shm *lane, uint64_t first, uint64_t end,
			   uint64_t except)
{
	uint64_t names[NAMES_OF_LANE];
	uint32_t n = lane_names(lane, names);

	for (uint32_t i = 0; i < n; i++)
		if (in_range(names[i], first, end))
			return true;
	return freeing_stays(lane, first, end, except);
}

bool names_any(const struct shale_segment *view, uint64_t first, uint64_t end, uint64_t except)
{
	uint32_t high = view_lane_high(view);

	for (uint32_t i = 1; i < high; i++) {
		const struct lane_shm *lane = view_lane(view, i);

		if (lane_may_name(lane) && lane_names_any(lane, first, end, except))
			return true;
	}
	return false;
}

bool heap_block_named(struct shale_segment *view, uint64_t offset)
{
	uint64_t names[NAMES_MAX];
	uint32_t count;

	return !names_gather(view, offset, offset + 1, names, &count) || count != 0;
}
