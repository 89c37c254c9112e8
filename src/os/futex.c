/* SPDX-License-Identifier: MIT */
/*
 * futex.c - sleeping on 32-bit words that several processes map.
 *
 * Owner:     nobody; the word belongs to the caller's structure.
 * Invariant: no FUTEX_PRIVATE_FLAG anywhere: the kernel finds the word by file and offset, so
 *            processes meet although their addresses differ.
 * Ordering:  none promised here. The caller's own protocol (sync/event.c) orders word and condition.
 * Death:     a killed sleeper is off the kernel's queue at once; a wake it had already taken is
 *            lost with it, so a waker that must reach somebody alive wakes more than one.
 */
#define _GNU_SOURCE
#include "os/os.h"

#include <assert.h>

#include "os/sys.h"

#define NS_PER_S 1000000000ULL

/* NULL: no deadline. */
static const struct timespec *deadline_to_timespec(uint64_t deadline_ns, struct timespec *storage)
{
	if (deadline_ns == OS_NO_DEADLINE)
		return NULL;
	storage->tv_sec = (time_t)(deadline_ns / NS_PER_S);
	storage->tv_nsec = (long)(deadline_ns % NS_PER_S);
	return storage;
}

int os_futex_wait(const uint32_t *word, uint32_t expected, uint32_t mask, uint64_t deadline_ns)
{
	struct timespec storage;

	return sys_futex_wait(word, expected, mask, deadline_to_timespec(deadline_ns, &storage));
}

int os_futex_wake(const uint32_t *word, unsigned count, uint32_t mask)
{
	/* The kernel's count is signed, and it takes 0 for 1. */
	if (count == 0)
		return mask == 0 ? -EINVAL : 0;
	return sys_futex_wake(word, count > INT_MAX ? INT_MAX : count, mask);
}

/* ---- any of several -------------------------------------------------------------------------- */

#define POLL_FIRST_NS 50000ULL
#define POLL_MAX_NS   2000000ULL

/* Relaxed: only whether to sleep rides on it; the caller tests its condition again. */
static bool any_changed(const struct os_futex_waiter *waiters, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (load_relaxed(waiters[i].word) != waiters[i].expected)
			return true;
	return false;
}

/* The fallback "poll": bounded by the deadline, by a wake, or by a change of any word. */
static int wait_any_poll(const struct os_futex_waiter *waiters, unsigned count,
			 uint64_t deadline_ns)
{
	uint64_t slice_ns = POLL_FIRST_NS;

	for (;;) {
		uint64_t now = os_clock_ns();
		uint64_t until;
		int r;

		if (any_changed(waiters, count))
			return -EAGAIN;
		if (now >= deadline_ns)
			return -ETIMEDOUT;
		until = deadline_ns - now > slice_ns ? now + slice_ns : deadline_ns;
		r = os_futex_wait(waiters[0].word, waiters[0].expected, OS_FUTEX_ANY, until);
		if (r != -ETIMEDOUT)
			return r;
		slice_ns = slice_ns * 2 < POLL_MAX_NS ? slice_ns * 2 : POLL_MAX_NS;
	}
}

int os_futex_wait_any(const struct os_futex_waiter *waiters, unsigned count, uint64_t deadline_ns)
{
	struct sys_futex_waitv list[OS_FUTEX_WAIT_ANY_MAX];
	struct timespec storage;
	int r;

	if (count == 0 || count > OS_FUTEX_WAIT_ANY_MAX)
		return -EINVAL;
	assert(waiters != NULL);
	for (unsigned i = 0; i < count; i++)
		list[i] = (struct sys_futex_waitv){
			.val = waiters[i].expected,
			.uaddr = (uintptr_t)waiters[i].word,
			.flags = SYS_FUTEX_32,
		};
	r = sys_futex_waitv(list, count, deadline_to_timespec(deadline_ns, &storage));
	/* A seccomp filter may say EPERM for a call it does not know. */
	if (r == -ENOSYS || r == -EPERM)
		return wait_any_poll(waiters, count, deadline_ns);
	return r;
}
