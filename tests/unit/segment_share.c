/*
 * segment_share.c - a segment over a socket: the right message, and every wrong one.
 *
 * Owner:     each test owns both ends.
 * Invariant: a refused message leaves no descriptor behind.
 * Ordering:  none.
 * Lifetime:  sockets end with their test.
 * Death:     a sender that is gone is an error.
 */
#include "unit/segment_test.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>

static void pair_make(int *pair)
{
	ASSERT_SYS(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
}

/* `count` descriptors with a message of `size` bytes. */
static void send_raw(int socket, int fd, unsigned count, const void *data, size_t size)
{
	struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(253 * sizeof(int))] = {0};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

	if (count > 0) {
		struct cmsghdr *header;

		message.msg_control = control;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(count * sizeof(int));
		for (unsigned i = 0; i < count; i++)
			memcpy(CMSG_DATA(header) + i * sizeof(int), &fd, sizeof(int));
	}
	ASSERT_SYS(sendmsg(socket, &message, MSG_NOSIGNAL));
}

static void expect_refused(int socket, int error)
{
	struct shale_segment *segment = NULL;
	unsigned fds = test_fd_count();

	EXPECT_ERRNO(error, shale_segment_receive(socket, NULL, &segment));
	EXPECT_NULL(segment);
	EXPECT_EQ(test_fd_count(), fds);
}

TEST(segment_share, sent_and_received)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_4K), *other;
	int pair[2];

	test_expect_no_fd_leak();
	pair_make(pair);
	ASSERT_OK(shale_segment_send(segment, pair[0]));
	ASSERT_OK(shale_segment_receive(pair[1], NULL, &other));
	EXPECT_MEM_EQ(segment_look(segment).id, segment_look(other).id, 16);
	EXPECT_EQ(fcntl(shale_segment_fd(other), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	shale_segment_detach(other);
	shale_segment_detach(segment);
	close(pair[0]);
	close(pair[1]);
}

TEST(segment_share, wrong_messages)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_4K), *second;
	struct {
		uint64_t magic;
		uint8_t id[16];
		char more[8];
	} message = {UINT64_C(0x64666d6765736873), {0}, {0}};
	int fd = shale_segment_fd(segment), pair[2];

	pair_make(pair);
	memcpy(message.id, segment->header.id, 16);
	send_raw(pair[0], fd, 0, &message, 24);
	expect_refused(pair[1], -ENOMSG);
	send_raw(pair[0], fd, 2, &message, 24);
	expect_refused(pair[1], -E2BIG);
	send_raw(pair[0], fd, 253, &message, 24);
	expect_refused(pair[1], -E2BIG);
	send_raw(pair[0], fd, 1, &message, 23);
	expect_refused(pair[1], -EBADMSG);
	send_raw(pair[0], fd, 1, &message, 25);
	expect_refused(pair[1], -EMSGSIZE);
	send_raw(pair[0], pair[0], 1, &message, 24);
	expect_refused(pair[1], -EMEDIUMTYPE);
	message.magic++;
	send_raw(pair[0], fd, 1, &message, 24);
	expect_refused(pair[1], -EBADMSG);
	message.magic--;
	/* another segment than the one announced */
	second = segment_make(SHALE_PAGES_4K);
	send_raw(pair[0], shale_segment_fd(second), 1, &message, 24);
	expect_refused(pair[1], -EBADMSG);
	EXPECT_EQ(segment_look(second).peers, 1);
	/* the control */
	send_raw(pair[0], fd, 1, &message, 24);
	ASSERT_OK(shale_segment_receive(pair[1], NULL, &second));
	close(pair[0]);
	expect_refused(pair[1], -ECONNRESET);
	EXPECT_ERRNO(-EPIPE, shale_segment_send(segment, pair[1]));
	EXPECT_ERRNO(-EBADF, shale_segment_send(segment, pair[0]));
}

TEST(segment_share, receiver_without_a_free_descriptor)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_4K), *other;
	struct rlimit limit, none;
	int pair[2];

	pair_make(pair);
	ASSERT_SYS(getrlimit(RLIMIT_NOFILE, &limit));
	ASSERT_OK(shale_segment_send(segment, pair[0]));
	ASSERT_OK(shale_segment_send(segment, pair[0]));
	none = limit;
	none.rlim_cur = 3;
	ASSERT_SYS(setrlimit(RLIMIT_NOFILE, &none));
	EXPECT_ERRNO(-EMFILE, shale_segment_receive(pair[1], NULL, &other));
	ASSERT_SYS(setrlimit(RLIMIT_NOFILE, &limit));
	ASSERT_OK(shale_segment_receive(pair[1], NULL, &other));
	shale_segment_detach(other);
	shale_segment_detach(segment);
}
