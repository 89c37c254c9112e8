/*
 * event.c - events: announce, test again, sleep; and wake without a system call if nobody waits.
 *
 *   63     62         32 31            0
 *   +------+------------+--------------+
 *   | mark | stamp      | sequence     |      8 bytes anywhere in a segment; zeroes are an event
 *   +------+------------+--------------+
 *                        ^--- the 32 bits that the kernel compares and sleeps on
 *
 *   prepare     mark = 1, stamp += 1            one CAS; the ticket is the sequence it saw
 *   wake        if mark: sequence += 1          CAS, the mark stays
 *               futex wake, all
 *               mark = 0, if the word is still what the first CAS left
 *
 * Owner:     nobody; every change is a CAS of the whole word.
 *
 * No wake-up is lost. The announcement and the test are a store and a load on either side:
 *
 *   waiter                                    waker
 *   w1  mark = 1, ticket = sequence           k1  condition = true
 *       (fence)                                   (fence)
 *   w2  if (condition) return                 k2  if (!mark) return
 *   w3  futex_wait(sequence == ticket)        k3  sequence += 1;  futex_wake(all);  mark = 0
 *
 * pairs: event.announce - of the two fences one is first. If the waiter's, then k2 sees the mark
 * of w1, or a word that is later than it. If the waker's, then w2 sees the condition of k1. A word
 * later than w1 that has no mark was made by some waker's clearing, whose CAS named the stamp of
 * w1 or a later one: that waker's k3 had raised the sequence after w1 (a raise before w1 leaves a
 * word with an older stamp, and its clearing fails). So the sequence is not the ticket any more,
 * and w3 does not sleep; or it slept before the raise, and that waker's futex_wake, which is before
 * its clearing, has woken it.
 *
 * The mark is cleared after the wake and not before, so that a waker stopped or killed in between
 * does not swallow the mark: the next waker still sees it and wakes everybody. The price is a
 * needless wake when two wakers overlap.
 *
 * Stamps: 2^31 prepares without one wake, all between two steps of one waker, would be needed for
 * its clearing to hit a word that only looks the same.
 *
 * Progress:  prepare and wake lock-free (a CAS fails because another one succeeded), wait blocks.
 * Ordering:  event.announce, above. A waiter that returns 0 has seen the sequence with acquire:
 *            event.sequence, everything before the wake is visible to it.
 * Death:     a killed waiter leaves the mark: one needless wake. A waker killed before its
 *            futex_wake leaves the mark too; sleepers are woken by the next waker or their own
 *            deadline. Whoever waits for what may never come again waits in slices and looks
 *            again (channel_wait()).
 * Read-only: prepare stores; on a mapping without write access it faults. Views that are read-only
 *            have no events to prepare.
 */
#include <errno.h>
#include <limits.h>
#include <stddef.h>

#include "os/os.h"
#include "sync/event.h"

#define SPIN_START   32u
#define SPIN_MOST    256u
#define SPIN_LEAST   8u
#define SPIN_PAUSE   64u  /* waits without a spin after spinning has not helped */
#define SPIN_RECOUNT 256u /* waits between two looks at the CPUs that we may use */

/* How much this thread spins: learned, private, of no consequence for correctness. */
static _Thread_local struct {
	unsigned limit;
	unsigned pause;
	unsigned recount;
	bool single;
	bool begun;
} spin;

unsigned event_spin_begin(void)
{
	if (!spin.begun) {
		spin.begun = true;
		spin.limit = SPIN_START;
	}
	if (spin.recount == 0) {
		spin.recount = SPIN_RECOUNT;
		spin.single = os_cpu_usable() < 2;
	}
	spin.recount--;
	if (spin.single)
		return 0;
	if (spin.pause > 0) {
		spin.pause--;
		return 0;
	}
	return spin.limit;
}

void event_spin_end(bool helped)
{
	if (spin.single || spin.pause > 0)
		return;
	if (helped) {
		spin.limit = spin.limit * 2 < SPIN_MOST ? spin.limit * 2 : SPIN_MOST;
		return;
	}
	spin.limit /= 2;
	if (spin.limit < SPIN_LEAST) {
		spin.limit = SPIN_LEAST;
		spin.pause = SPIN_PAUSE;
	}
}

static bool event_misaligned(const struct shale_event *event)
{
	return event == NULL || ((uintptr_t)event & 7) != 0;
}

SHALE_API uint64_t shale_deadline_in(uint64_t nanoseconds)
{
	uint64_t now = os_clock_ns();

	return nanoseconds < SHALE_NO_DEADLINE - now ? now + nanoseconds : SHALE_NO_DEADLINE;
}

SHALE_API uint32_t shale_event_prepare(struct shale_event *event)
{
	uint64_t *word, old, marked;

	if (event_misaligned(event))
		return 0; /* shale_event_wait() says so */
	word = event_word(event);
	old = load_relaxed(word); /* relaxed: the CAS decides */
	do
		marked = (old & EVENT_SEQUENCE_MASK) | EVENT_MARK |
			 ((old + EVENT_STAMP_ONE) & EVENT_STAMP_MASK);
	while (!cas_seq_cst(word, &old, marked)); /* retried: another waiter or waker came first */
	/* pairs: event.announce - the mark is stored before the caller tests its condition. */
	fence_seq_cst();
	return (uint32_t)(old & EVENT_SEQUENCE_MASK);
}

SHALE_API void shale_event_cancel(struct shale_event *event, uint32_t ticket)
{
	/* The mark may stand for others as well: it stays, and costs the next waker a needless call. */
	(void)event;
	(void)ticket;
}

static bool event_moved(struct shale_event *event, uint32_t ticket)
{
	/* pairs: event.sequence - what the waker did before is visible to who sees the new number. */
	return (uint32_t)(load_acquire(event_word(event)) & EVENT_SEQUENCE_MASK) != ticket;
}

static bool event_spin(struct shale_event *event, uint32_t ticket)
{
	unsigned turns = event_spin_begin();
	bool moved = false;

	for (unsigned i = 0; i < turns && !moved; i++) {
		os_cpu_relax();
		moved = event_moved(event, ticket);
	}
	if (turns > 0)
		event_spin_end(moved);
	return moved;
}

SHALE_API int shale_event_wait(struct shale_event *event, uint32_t ticket, uint64_t deadline)
{
	int r;

	if (event_misaligned(event))
		return -EINVAL;
	if (event_moved(event, ticket))
		return 0;
	if (deadline == SHALE_NO_WAIT)
		return -ETIMEDOUT;
	if (event_spin(event, ticket))
		return 0;
	r = os_futex_wait(&event->sequence, ticket, OS_FUTEX_ANY, deadline);
	if (r == -EAGAIN)
		r = 0;
	/* A wake that came together with the deadline or a signal counts as a wake. */
	if (event_moved(event, ticket))
		r = 0;
	return r;
}

SHALE_COLD int event_wake_marked(struct shale_event *event)
{
	uint64_t *word = event_word(event);
	uint64_t old = load_relaxed(word); /* relaxed: the CAS decides */
	uint64_t raised;
	int woken;

	do {
		if ((old & EVENT_MARK) == 0)
			return 0; /* a waker that came after that mark has woken its waiter */
		raised = (old & ~EVENT_SEQUENCE_MASK) | ((old + 1) & EVENT_SEQUENCE_MASK);
		/* pairs: event.sequence - our condition is stored before the number is raised. */
	} while (!cas_seq_cst(word, &old, raised));

	woken = os_futex_wake(&event->sequence, INT_MAX, OS_FUTEX_ANY);

	/* Fails if anybody prepared or woke since: then the mark is theirs. */
	old = raised;
	(void)cas_seq_cst(word, &old, raised & ~EVENT_MARK);
	return woken;
}

SHALE_API int shale_event_wake(struct shale_event *event)
{
	if (event_misaligned(event))
		return -EINVAL;
	return event_wake(event);
}
