/*
 * memory_wait.h - threads that sleep until memory becomes free, seen from those who free it.
 *
 * The event lies in the header page (memory_event). Everything here is on slow paths: the fast path
 * of a free learns of a waiter by the remote hint of the slab, which it loads anyway. The rules are
 * in alloc_wait.c.
 */
#ifndef SHALE_HEAP_MEMORY_WAIT_H
#define SHALE_HEAP_MEMORY_WAIT_H

#include <stdbool.h>
#include <stdint.h>

#include "heap/slab.h"
#include "heap/slab_layout.h"
#include "segment/lanes.h"
#include "segment/view.h"
#include "sync/event.h"

/* So long a waiter sleeps before it looks after the dead; tests that count on wakes raise it. */
extern uint64_t memory_slice_ns __attribute__((visibility("hidden")));

static inline struct shale_event *memory_event(const struct shale_segment *view)
{
	return (struct shale_event *)(void *)view_hints(view)->memory_event;
}

/* Does anybody want memory, or has lately? A hint that expires: memory_local_free() clears it. */
static inline bool memory_wanted(const struct shale_segment *view)
{
	/* relaxed: behind a fence or a barrier, see the callers */
	return load_relaxed(&view_hints(view)->wanted_ns) != 0;
}

/* Memory has become free, or may be committed again: whoever waits for it looks again. */
static inline void memory_freed(const struct shale_segment *view)
{
	(void)event_wake(memory_event(view));
}

/*
 * A lane has taken a slab, or has looked through it and cleared its remote hint: while anybody waits,
 * the hint stays, so that each local free in the slab asks whether it was the last.
 */
static inline void memory_keep_asking(const struct shale_segment *view, uint64_t slab)
{
	uint8_t *hint = slab_remote_hint(view, slab), none = 0;

	/* pairs: memory.wanted - a waiter says so, then sets the hints of the slabs it finds. */
	fence_seq_cst();
	if (memory_wanted(view))
		(void)cas_relaxed(hint, &none, (uint8_t)REMOTE_HINT_WANTED); /* a freer's 1 stays */
}

/*
 * The rare half of a local free: somebody waits for memory, and a block of the lane's own slab has
 * just been freed. Gives the slab back if nothing lives in it.
 */
void memory_local_free(struct lane *lane, unsigned bin, uint64_t slab);

/* Now and then while somebody waits: gives back what the lane's slow paths would find empty. */
void memory_look(struct lane *lane);

#endif
