/* SPDX-License-Identifier: MIT */
/*
 * fdpass.c - exactly one descriptor with a message over a Unix socket; anything else is refused.
 *
 * Owner:     a descriptor that arrived belongs to us until it is handed out or closed.
 * Invariant: D1  after a refusal this process has as many descriptors as before
 *            D2  what is handed out is CLOEXEC
 * Trust:     the other end may be hostile. The control buffer holds the most the kernel ever
 *            delivers (253 descriptors and what socket options can add), so nothing is hidden in
 *            padding or lost unseen, and the count is what was really received.
 * Ordering:  none.
 * Death:     the kernel drops descriptors in flight with the last socket that could receive them.
 */
#define _GNU_SOURCE
#include "os/os.h"

#include <string.h>
#include <sys/uio.h>

#include "os/sys.h"

#define SCM_MAX_FDS 253 /* the kernel's own limit */

#ifndef SCM_PIDFD
#define SCM_PIDFD 0x04 /* 6.5: comes only when the socket asked for it; carries an fd too */
#endif

/* ---- send ------------------------------------------------------------------------------------ */

int os_send_fd(int socket, int fd, const void *message, size_t size)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {{0}};
	/* sendmsg only reads; its struct cannot say so. */
	struct iovec part = {.iov_base = (void *)(uintptr_t)message, .iov_len = size};
	struct msghdr header = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	struct cmsghdr *item = CMSG_FIRSTHDR(&header);
	ssize_t n;

	if (message == NULL || size == 0)
		return -EINVAL;
	if (size > OS_SEND_FD_MESSAGE_MAX)
		return -EMSGSIZE;
	item->cmsg_level = SOL_SOCKET;
	item->cmsg_type = SCM_RIGHTS;
	item->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(item), &fd, sizeof(int));
	retry_eintr(n, sys_sendmsg(socket, &header));
	return n < 0 ? (int)n : 0;
}

/* ---- receive --------------------------------------------------------------------------------- */

union receive_control {
	char bytes[CMSG_SPACE(SCM_MAX_FDS * sizeof(int)) + 512];
	struct cmsghdr align;
};

struct received_fds {
	int fds[SCM_MAX_FDS + 1]; /* one more for a pidfd */
	unsigned count;
	bool foreign; /* an fd that did not come by SCM_RIGHTS */
};

static void collect_item(struct cmsghdr *item, struct received_fds *received)
{
	size_t count;

	if (item->cmsg_level != SOL_SOCKET ||
	    (item->cmsg_type != SCM_RIGHTS && item->cmsg_type != SCM_PIDFD))
		return;
	if (item->cmsg_type == SCM_PIDFD)
		received->foreign = true;
	count = (item->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	if (count > sizeof(received->fds) / sizeof(int) - received->count)
		count = sizeof(received->fds) / sizeof(int) - received->count;
	memcpy(received->fds + received->count, CMSG_DATA(item), count * sizeof(int));
	received->count += (unsigned)count;
}

static void collect_fds(struct msghdr *header, struct received_fds *received)
{
	received->count = 0;
	received->foreign = false;
	for (struct cmsghdr *item = CMSG_FIRSTHDR(header); item != NULL;
	     item = CMSG_NXTHDR(header, item))
		collect_item(item, received);
}

/* Why the message is refused; 0 when it is what we want. */
static int judge_message(ssize_t size, int flags, const struct received_fds *received)
{
	if ((flags & MSG_CTRUNC) != 0)
		return -EMFILE;
	if (received->count > 1 || received->foreign)
		return -E2BIG;
	if ((flags & MSG_TRUNC) != 0)
		return -EMSGSIZE;
	if (size == 0)
		return -ECONNRESET;
	return received->count == 1 ? 0 : -ENOMSG;
}

int os_receive_fd(int socket, void *buffer, size_t size, size_t *ret_size, int *ret_fd)
{
	union receive_control control;
	struct received_fds received = {0};
	struct iovec part = {.iov_base = buffer, .iov_len = size};
	struct msghdr header = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	ssize_t n;
	int r;

	if (size == 0)
		return -EINVAL;
	retry_eintr(n, sys_recvmsg(socket, &header));
	if (n < 0)
		return (int)n;
	collect_fds(&header, &received);
	r = judge_message(n, header.msg_flags, &received);
	if (r < 0) {
		for (unsigned i = 0; i < received.count; i++)
			(void)os_fd_close(received.fds[i]);
		return r;
	}
	*ret_size = (size_t)n;
	*ret_fd = received.fds[0];
	return 0;
}
