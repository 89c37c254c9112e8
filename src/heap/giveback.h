/*
 * giveback.h - memory back to the kernel: arenas, and the policy of when (docs/design/giveback.md).
 */
#ifndef SHALE_HEAP_GIVEBACK_H
#define SHALE_HEAP_GIVEBACK_H

#include <stdbool.h>
#include <stdint.h>

#include "segment/lanes.h"
#include "segment/view.h"

#define GIVEBACK_DECAY_MS \
	1000u /* how long an arena is empty before it goes, give or take a quarter */
#define GIVEBACK_TICK_MS  25u /* between two ticks of all callers together */
#define GIVEBACK_TICK_MAX 4u  /* arenas that a tick returns */
#define GIVEBACK_NEVER    UINT32_MAX

/* Punches the arena's 2 MiB. Its slabs must all be claimed by the caller, or by a dead lane. */
int arena_decommit(struct shale_segment *view, uint64_t arena);

struct giveback_wish {
	uint32_t decay_ms;     /* only what has been empty that long, or so; 0: whatever its age */
	uint64_t keep;         /* empty arenas that stay */
	uint64_t most;         /* arenas; 0: no bound */
	bool asked;            /* by the program: hugetlb with a map goes as well */
	struct os_uring *ring; /* punches through it, when set */
};

struct giveback_done {
	uint64_t arenas;  /* returned */
	uint32_t next_ms; /* until the next one's time comes; GIVEBACK_NEVER: none waits */
	int error;        /* of the first punch that failed, which ended it */
};

/* Returns empty arenas as wished. */
void giveback_arenas(struct lane *lane, const struct giveback_wish *wish,
		     struct giveback_done *ret_done);

/* Out of memory: returns empty arenas until at most `keep` of them are left. Bytes, or -errno. */
int64_t giveback_empty(struct lane *lane, uint64_t keep);

/* The arena has just become empty: its time starts. Whoever empties an arena calls it. */
void giveback_note_empty(struct shale_segment *view, uint64_t arena);

/*
 * Before somebody is refused memory: waits, for a tenth of a second at most, until no arena is being
 * returned or purged, while nobody can use what is free in it. True if any was.
 */
bool giveback_settle(struct shale_segment *view);

/* At the end of slow paths: gives back what has decayed, rarely and little (see the note). */
void giveback_tick(struct lane *lane);

/* Low 32 bits of CLOCK_MONOTONIC_COARSE in ms, never 0. For tests: a clock that stands at `ms`; 0 ends it. */
uint32_t giveback_now_ms(void);
void giveback_test_clock(uint32_t ms);

#endif
