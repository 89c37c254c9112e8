/*
 * testlib_peers.c - the multi-process helper: messages, descriptors, exec, namespaces, stop and kill.
 *
 * Owner:     each test owns its peers.
 * Invariant: a peer started by exec has its socket and the report, and nothing else of ours.
 * Ordering:  messages only.
 * Lifetime:  peers end with their test.
 * Death:     peers are killed on purpose; the socket must say so.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "lib/harness.h"
#include "lib/peers.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { READY = 1, GO = 2, DONE = 3, LIMIT_MS = 10000 };

/* Without a word about it a program started anew has: 0, 1, 2, the socket, the report. */
PEER_ROLE(reader)
{
	char text[6] = {0};
	int fd;

	EXPECT_LE(test_fd_count(), 5);
	EXPECT_STR_EQ(argument, "an argument");
	fd = peer_receive_fd(parent, LIMIT_MS);
	ASSERT_OK(fd);
	EXPECT_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	ASSERT_EQ(pread(fd, text, 5, 0), 5);
	ASSERT_OK(peer_send(parent, text, sizeof(text)));
}

TEST(testlib_peers, exec_gets_a_descriptor_over_the_socket)
{
	struct peer peer;
	char text[16];
	int fd = memfd_create("test", MFD_CLOEXEC);

	test_expect_no_fd_leak();
	ASSERT_SYS(fd);
	ASSERT_EQ(pwrite(fd, "hello", 5, 0), 5);
	ASSERT_OK(peer_exec(&peer, "reader", "an argument"));
	ASSERT_OK(peer_send_fd(&peer, fd));
	ASSERT_EQ(peer_receive(&peer, text, sizeof(text), LIMIT_MS), 6);
	EXPECT_STR_EQ(text, "hello");
	peer_join(&peer, LIMIT_MS);
	close(fd);
}

static void meet(struct peer *parent, void *ctx)
{
	volatile int *counter = ctx;

	for (int round = 0; round < 10; round++) {
		ASSERT_OK(peer_meet(parent, GO, LIMIT_MS));
		EXPECT_EQ(*counter, round);
		ASSERT_OK(peer_meet(parent, DONE, LIMIT_MS));
	}
}

TEST(testlib_peers, all_meet_in_every_round)
{
	struct peer peers[3];
	volatile int *counter =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	for (size_t i = 0; i < 3; i++)
		ASSERT_OK(peer_fork(&peers[i], meet, (void *)(uintptr_t)counter));
	for (int round = 0; round < 10; round++) {
		*counter = round;
		ASSERT_OK(peer_meet_all(peers, 3, GO, LIMIT_MS));
		ASSERT_OK(peer_meet_all(peers, 3, DONE, LIMIT_MS));
	}
	for (size_t i = 0; i < 3; i++)
		peer_join(&peers[i], LIMIT_MS);
}

static void wait_for_ever(struct peer *parent, void *ctx)
{
	(void)ctx;
	peer_signal(parent, READY);
	for (;;)
		pause();
}

TEST(testlib_peers, waits_have_limits_and_death_is_seen)
{
	struct peer peer;

	ASSERT_OK(peer_fork(&peer, wait_for_ever, NULL));
	ASSERT_ERRNO(-EBADMSG, peer_wait(&peer, DONE, LIMIT_MS));
	ASSERT_ERRNO(-ETIMEDOUT, peer_wait(&peer, READY, 20));
	ASSERT_OK(peer_stop(&peer));
	ASSERT_OK(peer_continue(&peer));
	ASSERT_SYS(kill(peer.pid, SIGKILL));
	ASSERT_ERRNO(-EPIPE, peer_wait(&peer, READY, LIMIT_MS));
	peer_kill(&peer);
	EXPECT_TRUE(WIFSIGNALED(peer.status) && WTERMSIG(peer.status) == SIGKILL);
}

static void say_pid(struct peer *parent, void *ctx)
{
	(void)ctx;
	peer_signal(parent, (uint64_t)getpid());
}

PEER_ROLE(say_pid)
{
	say_pid(parent, NULL);
}

VARIANT_SET(starts) = {{"fork", 0, NULL}, {"exec", 1, NULL}};
TEST_V(testlib_peers, new_namespaces_make_it_pid_one, starts)
{
	const unsigned int flags = PEER_NEW_USER_NS | PEER_NEW_PID_NS;
	struct peer peer;
	int r;

	if (variant->value == 0)
		r = peer_fork_ns(&peer, flags, say_pid, NULL);
	else
		r = peer_exec_ns(&peer, flags, "say_pid", NULL);
	if (peer_ns_refused(r))
		SKIP("user namespaces are refused here: %s", test_errno_name(r));
	ASSERT_OK(r);
	EXPECT_NE(peer.pid, 1);
	ASSERT_OK(peer_wait(&peer, 1, LIMIT_MS));
	peer_join(&peer, LIMIT_MS);
}
