/* SPDX-License-Identifier: MIT */
/*
 * psi.c - pressure stall information: being told when the machine runs short of memory.
 *
 * Owner:     the caller owns both descriptors.
 * Invariant: N1  a descriptor that is no longer ours ends the wait and never makes it spin
 * Ordering:  none.
 * Death:     a trigger goes with its descriptor.
 */
#define _GNU_SOURCE
#include "os/os.h"

#include <pthread.h>
#include <stdio.h>

#include "os/sys.h"

int os_psi_open(unsigned stall_us, unsigned window_us)
{
	_cleanup_os_close_ int fd = -EBADF;
	char trigger[64];
	int size, taken;
	ssize_t n;

	retry_eintr(fd, sys_open("/proc/pressure/memory", O_RDWR | O_NONBLOCK));
	if (fd < 0)
		return fd;
	size = snprintf(trigger, sizeof(trigger), "some %u %u", stall_us, window_us);
	/* the kernel wants the final zero, too */
	retry_eintr(n, sys_write(fd, trigger, (size_t)size + 1));
	if (n < 0)
		return (int)n;
	taken = fd;
	fd = -EBADF;
	return taken;
}

int os_notice_open(void)
{
	return sys_eventfd();
}

int os_notice_give(int notice)
{
	uint64_t one = 1;
	ssize_t n;

	if (!os_fd_is(notice, OS_FD_NOTICE))
		return -EBADF;
	retry_eintr(n, sys_write(notice, &one, sizeof(one)));
	/* full: it is readable already */
	return n < 0 && n != -EAGAIN ? (int)n : 0;
}

int os_psi_wait(int psi, int notice)
{
	struct pollfd fds[2] = {
		{.fd = notice, .events = POLLIN},
		{.fd = psi, .events = POLLPRI},
	};
	int state, r;

	/* os_thread_end_wait() ends the thread here, where it holds nothing */
	(void)pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state);
	r = sys_poll(fds, 2, -1);
	(void)pthread_setcancelstate(state, NULL);
	if (r < 0)
		return r;
	if (fds[0].revents != 0)
		return fds[0].revents & POLLIN ? 0 : -EBADF;
	return fds[1].revents == POLLPRI ? 1 : -EBADF;
}
