/*
 * testlib_harness_victim.c - tests that fail, hang, crash and skip, for testlib_harness.c to run.
 *
 * Owner:     built as a program of its own and never run as a test by itself.
 * Invariant: each test here does what its name says, always.
 * Ordering, Lifetime: nothing is shared, nothing outlives a test.
 * Death:     two of the tests die on purpose; one leaves a process behind in another session.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "lib/harness.h"
#include "lib/hugepages.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

TEST(victim, passes)
{
	EXPECT_EQ(1u, 1);
	EXPECT_LT(-1, 1u);
	EXPECT_GT(UINT64_MAX, -1);
	EXPECT_STR_EQ("a", "a");
	EXPECT_STR_NE("a", NULL);
	EXPECT_MEM_EQ("abc", "abd", 2);
	EXPECT_NULL(NULL);
	EXPECT_OK(0);
	EXPECT_ERRNO(-ENOMEM, -ENOMEM);
	EXPECT_SYS(close(dup(2)));
}

TEST(victim, expect_fails_and_goes_on)
{
	EXPECT_EQ(3, 4);
	EXPECT_STR_EQ("left one", "right one");
	EXPECT_MEM_EQ("0123456789abcdefXY", "0123456789abcdefXZ", 18);
	EXPECT_NE(-1, -1);
	EXPECT_TRUE(1 == 2);
}

TEST(victim, unsigned_max_is_not_minus_one)
{
	EXPECT_EQ(UINT64_MAX, -1);
}

static void helper_that_asserts(void)
{
	ASSERT_OK(-ENOMEM);
}

TEST(victim, assert_in_helper_ends_it)
{
	helper_that_asserts();
	TEST_FAIL("went on after an ASSERT");
}

TEST(victim, assert_in_child_fails_it)
{
	pid_t pid = test_fork();

	if (pid == 0) {
		ASSERT_ERRNO(-EBADMSG, -EINVAL);
		TEST_FAIL("child went on after an ASSERT");
	}
	test_reap(pid, 5000, NULL);
}

TEST(victim, child_killed_is_noticed_by_join)
{
	pid_t pid = test_fork();

	if (pid == 0)
		raise(SIGKILL);
	test_join(pid, 5000);
}

TEST_TIMEOUT(victim, hangs, 1)
{
	pid_t pid = fork();

	signal(SIGTERM, SIG_IGN);
	for (;;)
		pid == 0 ? pause() : usleep(1000000);
}

TEST(victim, crashes)
{
	signal(SIGSEGV, SIG_DFL); /* a sanitizer has its own */
	raise(SIGSEGV);
}

TEST(victim, exits_early)
{
	exit(0);
}

TEST(victim, skips)
{
	SKIP("no %s here", "luck");
}

TEST(victim, fails_then_skips)
{
	EXPECT_EQ(1, 2);
	SKIP("too late");
}

TEST(victim, leaks_fd)
{
	test_expect_no_fd_leak();
	ASSERT_SYS(open("/dev/null", O_RDONLY | O_CLOEXEC));
}

TEST(victim, leaks_no_fd)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	test_expect_no_fd_leak();
	ASSERT_SYS(fd);
	close(fd);
}

/* An orphan in a session of its own: the runner must end it nevertheless. */
TEST(victim, leaves_process)
{
	int pipe_fds[2];
	char byte;

	ASSERT_SYS(pipe(pipe_fds));
	if (fork() == 0) {
		if (fork() == 0) {
			setsid();
			TEST_LOG("hidden %d", (int)getpid());
			close(pipe_fds[0]);
			close(pipe_fds[1]);
			for (;;)
				pause();
		}
		_exit(0);
	}
	close(pipe_fds[1]);
	EXPECT_EQ(read(pipe_fds[0], &byte, 1), 0); /* all writers closed it: the name is said */
}

TEST(victim, prints_to_stdout)
{
	ASSERT_EQ(write(STDOUT_FILENO, "not ok 77 forged\n", 17), 17);
}

TEST(victim, random)
{
	TEST_LOG("random %llx", (unsigned long long)test_random_u64());
}

FIXTURE(fix)
{
	int value;
};
FIXTURE_VARIANT(fix)
{
	int start;
};
FIXTURE_VARIANT_ADD(fix, one){.start = 1};
FIXTURE_VARIANT_ADD(fix, two){.start = 2};
FIXTURE_SETUP(fix)
{
	self->value = variant->start;
}
FIXTURE_TEARDOWN(fix)
{
	TEST_LOG("teardown %d", self->value);
}
TEST_F(fix, assert_one)
{
	ASSERT_EQ(self->value, 1);
}

VARIANT_SET(sizes) = {{"small", 1, NULL}, {"large", 2, NULL}};
TEST_V(victim, sized, sizes)
{
	EXPECT_GT(variant->value, 0);
	EXPECT_GE(strlen(variant->name), 5u);
}

/* The pool is raised when it dies; the runner puts it back. */
TEST(victim, raises_pool_and_dies)
{
	hugepages_lock();
	TEST_LOG("before %d", (int)hugepages_total(2 << 20, HUGEPAGES_ANY_NODE));
	hugepages_require_free(2 << 20, HUGEPAGES_ANY_NODE,
			       hugepages_free(2 << 20, HUGEPAGES_ANY_NODE) + 2);
	TEST_LOG("raised %d", (int)hugepages_total(2 << 20, HUGEPAGES_ANY_NODE));
	raise(SIGKILL);
}
