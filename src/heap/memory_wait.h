/*
 * memory_wait.h - threads that sleep until memory becomes free, seen from those who free it.
 *
 * The event lies in the header page (memory_event). Everything here is on slow paths: what a
 * lane's caches serve does not look. The rules are in alloc_wait.c.
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
/* So long others look out for a waiter after its last sign of life. */
extern uint64_t memory_wanted_ns __attribute__((visibility("hidden")));

static inline struct shale_event *memory_event(const struct shale_segment *view)
{
	return (struct shale_event *)(void *)view_hints(view)->memory_event;
}

/* Does anybody want memory, or has lately? A hint that expires: memory_local_free() clears it. */
static inline bool memory_wanted(const struct shale_segment *view)
{
	/* relaxed: who misses a waiter that is just coming was earlier than it */
	return load_relaxed(&view_hints(view)->wanted_ns) != 0;
}

/* Memory has become free, or may be committed again: whoever waits for it looks again. */
static inline void memory_freed(const struct shale_segment *view)
{
	(void)event_wake(memory_event(view));
}

/*
 * Does somebody wait for memory? If so, now and then, the lane lets go of all that it could allocate from,
 * so that the last free of each slab is seen, by whomever.
 */
bool memory_look(struct lane *lane);

#endif
