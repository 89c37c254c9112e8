/* os_fdpass.c - exactly one descriptor comes through; of all others none stays behind. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "os_test.h"

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif

FIXTURE(os_fdpass)
{
	int ends[2];
	int fd;
};

FIXTURE_VARIANT(os_fdpass)
{
	int type;
};
FIXTURE_VARIANT_ADD(os_fdpass, stream){SOCK_STREAM};
FIXTURE_VARIANT_ADD(os_fdpass, seqpacket){SOCK_SEQPACKET};
FIXTURE_VARIANT_ADD(os_fdpass, datagram){SOCK_DGRAM};

FIXTURE_SETUP(os_fdpass)
{
	test_expect_no_fd_leak();
	ASSERT_SYS(socketpair(AF_UNIX, variant->type | SOCK_CLOEXEC, 0, self->ends));
	self->fd = os_memfd_create("passed", OS_PAGES_4K);
	ASSERT_OK(self->fd);
}

FIXTURE_TEARDOWN(os_fdpass)
{
	os_fault_disarm();
	close(self->ends[0]);
	close(self->ends[1]);
	close(self->fd);
}

/* Sends `count` copies of fd; 0 sends the bytes alone. */
static void send_many(int socket, int fd, unsigned count, const char *text)
{
	char control[CMSG_SPACE(253 * sizeof(int))] __attribute__((aligned(16))) = {0};
	struct iovec part = {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};
	struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
	struct cmsghdr *item;

	if (count > 0) {
		header.msg_control = control;
		header.msg_controllen = CMSG_SPACE(count * sizeof(int));
		item = CMSG_FIRSTHDR(&header);
		item->cmsg_level = SOL_SOCKET;
		item->cmsg_type = SCM_RIGHTS;
		item->cmsg_len = CMSG_LEN(count * sizeof(int));
		for (unsigned i = 0; i < count; i++)
			memcpy(CMSG_DATA(item) + i * sizeof(int), &fd, sizeof(int));
	}
	ASSERT_SYS(sendmsg(socket, &header, 0));
}

/* A refusal writes nothing and leaves no descriptor. */
static void expect_refusal(int socket, int expected, size_t size)
{
	unsigned before = test_fd_count();
	size_t got = 1234;
	int fd = -77;
	char buffer[64];

	EXPECT_ERRNO(expected, os_receive_fd(socket, buffer, size, &got, &fd));
	EXPECT_EQ(got, 1234);
	EXPECT_EQ(fd, -77);
	EXPECT_EQ(test_fd_count(), before);
}

static void expect_one(int socket, int original, const char *text)
{
	struct stat a, b;
	char buffer[64] = {0};
	size_t got = 0;
	int fd = -1;

	ASSERT_OK(os_receive_fd(socket, buffer, sizeof(buffer), &got, &fd));
	EXPECT_EQ(got, strlen(text));
	EXPECT_MEM_EQ(buffer, text, strlen(text));
	EXPECT_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	ASSERT_SYS(fstat(original, &a));
	ASSERT_SYS(fstat(fd, &b));
	EXPECT_EQ(a.st_ino, b.st_ino);
	close(fd);
}

TEST_F(os_fdpass, one_comes_through_cloexec)
{
	for (unsigned i = 0; i < 100; i++) {
		ASSERT_OK(os_send_fd(self->ends[0], self->fd, "hello", 5));
		expect_one(self->ends[1], self->fd, "hello");
	}
}

TEST_F(os_fdpass, none_and_several_are_refused_and_the_next_is_served)
{
	static const unsigned counts[] = {2, 3, 5, 252, 253};

	for (unsigned round = 0; round < 20; round++) {
		send_many(self->ends[0], self->fd, 0, "bare");
		expect_refusal(self->ends[1], -ENOMSG, 64);
		for (unsigned i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
			send_many(self->ends[0], self->fd, counts[i], "many");
			expect_refusal(self->ends[1], -E2BIG, 64);
		}
		ASSERT_OK(os_send_fd(self->ends[0], self->fd, "good", 4));
		expect_one(self->ends[1], self->fd, "good");
	}
}

/* No number free, or one free for two: the kernel cuts the list, and what came must go. */
TEST_F(os_fdpass, full_descriptor_table_is_an_error_that_passes)
{
	struct rlimit old, tight;

	ASSERT_SYS(getrlimit(RLIMIT_NOFILE, &old));
	for (unsigned room = 0; room <= 2; room++) {
		int lowest = dup(0);

		close(lowest);
		tight = (struct rlimit){(rlim_t)lowest + room, old.rlim_max};
		send_many(self->ends[0], self->fd, room + 1, "x");
		ASSERT_SYS(setrlimit(RLIMIT_NOFILE, &tight));
		{
			size_t got;
			int fd;
			char byte;

			EXPECT_ERRNO(-EMFILE, os_receive_fd(self->ends[1], &byte, 1, &got, &fd));
		}
		ASSERT_SYS(setrlimit(RLIMIT_NOFILE, &old));
		EXPECT_EQ(dup(0), lowest);
		close(lowest);
	}
	ASSERT_OK(os_send_fd(self->ends[0], self->fd, "good", 4));
	expect_one(self->ends[1], self->fd, "good");
}

TEST_F(os_fdpass, longer_message_than_asked_is_refused)
{
	if (variant->type == SOCK_STREAM)
		SKIP("a stream has no message ends");
	ASSERT_OK(os_send_fd(self->ends[0], self->fd, "12345", 5));
	expect_refusal(self->ends[1], -EMSGSIZE, 4);
	ASSERT_OK(os_send_fd(self->ends[0], self->fd, "12345", 5));
	expect_one(self->ends[1], self->fd, "12345");
}

TEST_F(os_fdpass, closed_end_is_an_error_without_a_signal)
{
	if (variant->type == SOCK_DGRAM)
		SKIP("datagrams have no end");
	close(self->ends[0]);
	expect_refusal(self->ends[1], -ECONNRESET, 64);
	EXPECT_ERRNO(-EPIPE, os_send_fd(self->ends[1], self->fd, "x", 1));
	self->ends[0] = dup(self->fd);
}

TEST_F(os_fdpass, refuses_its_own_misuse)
{
	char big[OS_SEND_FD_MESSAGE_MAX + 1] = {0};
	int ends[2];

	EXPECT_ERRNO(-EINVAL, os_send_fd(self->ends[0], self->fd, "", 0));
	EXPECT_ERRNO(-EINVAL, os_send_fd(self->ends[0], self->fd, NULL, 1));
	EXPECT_ERRNO(-EMSGSIZE, os_send_fd(self->ends[0], self->fd, big, sizeof(big)));
	EXPECT_ERRNO(-EBADF, os_send_fd(self->ends[0], 1 << 19, "x", 1));
	EXPECT_ERRNO(-EBADF, os_send_fd(self->ends[0], -1, "x", 1));
	EXPECT_ERRNO(-ENOTSOCK, os_send_fd(self->fd, self->fd, "x", 1));
	expect_refusal(self->ends[1], -EINVAL, 0);
	expect_refusal(self->fd, -ENOTSOCK, 1);
	ASSERT_SYS(pipe(ends));
	expect_refusal(ends[0], -ENOTSOCK, 1);
	close(ends[0]);
	close(ends[1]);
	ASSERT_SYS(fcntl(self->ends[1], F_SETFL, O_NONBLOCK));
	expect_refusal(self->ends[1], -EAGAIN, 1);
}

TEST_F(os_fdpass, the_largest_message_arrives_whole)
{
	char sent[OS_SEND_FD_MESSAGE_MAX], received[OS_SEND_FD_MESSAGE_MAX];
	size_t got = 0;
	int fd = -1;

	for (size_t i = 0; i < sizeof(sent); i++)
		sent[i] = (char)(i * 7);
	ASSERT_OK(os_send_fd(self->ends[0], self->fd, sent, sizeof(sent)));
	ASSERT_OK(os_receive_fd(self->ends[1], received, sizeof(received), &got, &fd));
	EXPECT_EQ(got, sizeof(sent));
	EXPECT_MEM_EQ(received, sent, sizeof(sent));
	close(fd);
}

/* What a socket option adds to the control data must not push the fd out. */
TEST_F(os_fdpass, credentials_beside_the_fd_do_no_harm)
{
	int on = 1;

	ASSERT_SYS(setsockopt(self->ends[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)));
	ASSERT_OK(os_send_fd(self->ends[0], self->fd, "hello", 5));
	expect_one(self->ends[1], self->fd, "hello");
	send_many(self->ends[0], self->fd, 253, "many");
	expect_refusal(self->ends[1], -E2BIG, 64);
}

TEST_F(os_fdpass, pidfd_from_the_kernel_is_not_taken_for_the_fd)
{
	int on = 1;

	if (setsockopt(self->ends[1], SOL_SOCKET, SO_PASSPIDFD, &on, sizeof(on)) < 0)
		SKIP("no SO_PASSPIDFD: %s", test_errno_name(errno));
	send_many(self->ends[0], self->fd, 0, "bare");
	expect_refusal(self->ends[1], -E2BIG, 64);
	send_many(self->ends[0], self->fd, 1, "one");
	expect_refusal(self->ends[1], -E2BIG, 64);
}

TEST_F(os_fdpass, goes_on_after_interruption)
{
	os_fault_arm(OS_CALL_SENDMSG, 1, EINTR);
	os_fault_arm(OS_CALL_RECVMSG, 1, EINTR);
	ASSERT_OK(os_send_fd(self->ends[0], self->fd, "hello", 5));
	expect_one(self->ends[1], self->fd, "hello");
	EXPECT_EQ(os_fault_count(OS_CALL_SENDMSG), 2);
	EXPECT_EQ(os_fault_count(OS_CALL_RECVMSG), 2);
}
