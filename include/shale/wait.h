/*
 * shale/wait.h - events: sleep until another process has done something.
 *
 * An event is 8 bytes anywhere in a segment; zero bytes are a valid event. The waiter prepares,
 * tests its condition, and only then sleeps; whoever makes the condition true wakes afterwards. No
 * wake-up is lost, and a wake costs no system call while nobody waits.
 *
 *     for (;;) {
 *         uint32_t ticket = shale_event_prepare(event);
 *         if (condition()) { shale_event_cancel(event, ticket); break; }
 *         r = shale_event_wait(event, ticket, deadline);
 *         if (r == -ETIMEDOUT) ...
 *     }
 */
#ifndef SHALE_WAIT_H
#define SHALE_WAIT_H

#include <stdint.h>

#include <shale/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Deadlines are absolute CLOCK_MONOTONIC nanoseconds. Since 0.1. */
#define SHALE_NO_DEADLINE UINT64_MAX  /* wait for ever */
#define SHALE_NO_WAIT     UINT64_C(0) /* do not wait at all */

/* 8-byte aligned, in a segment. Its members are private to the library. Since 0.1. */
struct shale_event {
	uint32_t sequence;
	uint32_t marks;
};

/* The deadline that lies `nanoseconds` ahead. Since 0.1. */
SHALE_API uint64_t shale_deadline_in(uint64_t nanoseconds);

/* Announces a waiter and returns the ticket to wait with. Threads, processes: safe. Since 0.1. */
SHALE_API uint32_t shale_event_prepare(struct shale_event *event);

/*
 * Gives up after shale_event_prepare(): the condition was true. At most one needless wake by
 * somebody else follows. Since 0.1.
 */
SHALE_API void shale_event_cancel(struct shale_event *event, uint32_t ticket);

/*
 * Sleeps until a wake that came after the ticket, or the deadline.
 * 0 woken, or a wake has already come; test the condition again
 * -ETIMEDOUT the deadline passed; -EINTR a signal handler ran; -EINVAL misaligned event
 * Since 0.1.
 */
SHALE_API int shale_event_wait(struct shale_event *event, uint32_t ticket, uint64_t deadline);

/*
 * Wakes every waiter that prepared before. No system call if there is none.
 * Returns the number of sleepers woken. Threads and processes: safe. Since 0.1.
 */
SHALE_API int shale_event_wake(struct shale_event *event);

#ifdef __cplusplus
}
#endif

#endif
