/* SPDX-License-Identifier: MIT */
/*
 * thread.c - a background thread on which no signal handler of the program runs.
 *
 * Owner:     the caller keeps the struct and joins; the start block goes with the thread.
 * Invariant: T1  the caller's signal mask is what it was, whatever happens
 * Ordering:  creation and join order what is before and after them.
 * Death:     nothing here outlives the process; a forked child has no such thread.
 */
#define _GNU_SOURCE
#include "os/os.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "os/sys.h"

struct thread_start {
	void (*body)(void *argument);
	void *argument;
};

static void *thread_main(void *given)
{
	struct thread_start start = *(struct thread_start *)given;

	/* but for one place: os_thread_end_wait() */
	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	free(given);
	start.body(start.argument);
	return NULL;
}

/* The mask is inherited, so it is set here and not in the thread, which might get one before. */
static int create_masked(struct thread_start *start, pthread_t *ret_thread)
{
	sigset_t all, before;
	int r = os_fault(OS_CALL_THREAD);

	if (r < 0)
		return r;
	sigfillset(&all);
	r = pthread_sigmask(SIG_SETMASK, &all, &before);
	if (r != 0)
		return -r;
	r = pthread_create(ret_thread, NULL, thread_main, start);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -r;
}

int os_thread_start(const char *name, void (*body)(void *argument), void *argument,
		    struct os_thread *ret_thread)
{
	struct thread_start *start = malloc(sizeof(*start));
	pthread_t thread = 0;
	int r;

	if (start == NULL)
		return -EAGAIN;
	*start = (struct thread_start){body, argument};
	r = create_masked(start, &thread);
	if (r < 0) {
		free(start);
		return r;
	}
	(void)pthread_setname_np(thread, name); /* for people */
	ret_thread->handle = (unsigned long)thread;
	return 0;
}

void os_thread_end_wait(const struct os_thread *thread)
{
	(void)pthread_cancel((pthread_t)thread->handle);
}

void os_thread_join(const struct os_thread *thread)
{
	(void)pthread_join((pthread_t)thread->handle, NULL);
}
