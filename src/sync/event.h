/*
 * event.h - the parts of events that other layers use inline: the wake that costs no call while
 * nobody waits, and the bounded spin before a sleep. The rules are in event.c.
 */
#ifndef SHALE_SYNC_EVENT_H
#define SHALE_SYNC_EVENT_H

#include <stdbool.h>
#include <stdint.h>

#include <shale/wait.h>

#include "base/atomic.h"
#include "base/bits.h"

/* The event as one word: bits 0..31 sequence, 32..62 stamp, 63 mark. */
#define EVENT_MARK          (UINT64_C(1) << 63)
#define EVENT_STAMP_ONE     (UINT64_C(1) << 32)
#define EVENT_STAMP_MASK    (UINT64_C(0x7fffffff) << 32)
#define EVENT_SEQUENCE_MASK UINT64_C(0xffffffff)

_Static_assert(sizeof(struct shale_event) == 8, "an event is one word");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the sequence is the word's low half");

static inline uint64_t *event_word(struct shale_event *event)
{
	return (uint64_t *)(void *)event;
}

/* The slow half of a wake: somebody has announced himself. Returns the number of sleepers woken. */
int event_wake_marked(struct shale_event *event);

/* Wakes whoever prepared before; the caller has made the condition true before the call. */
static inline int event_wake(struct shale_event *event)
{
	/* pairs: event.announce - the condition is stored before the mark is looked at. */
	fence_seq_cst();
	/* relaxed: ordered by the fence; event_wake_marked() looks again */
	if (likely((load_relaxed(event_word(event)) & EVENT_MARK) == 0))
		return 0;
	return event_wake_marked(event);
}

/*
 * How often to test the condition before this thread announces itself and sleeps: 0 when the
 * thread may run on one CPU only, or when spinning has not helped lately (both sides share a CPU,
 * or the other side is slow). Each begin is followed by one end that says whether it helped.
 */
unsigned event_spin_begin(void);
void event_spin_end(bool helped);

#endif
