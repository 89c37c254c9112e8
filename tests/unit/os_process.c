/* os_process.c - who a process is, time, randomness, and what runs around fork. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "os_test.h"

/* The identity of a child, handed over a pipe. */
static void receive_id(int fd, struct os_process_id *ret_id)
{
	ASSERT_EQ(read(fd, ret_id, sizeof(*ret_id)), (ssize_t)sizeof(*ret_id));
}

static void send_own_id(int fd)
{
	struct os_process_id id;

	ASSERT_OK(os_process_self(&id));
	ASSERT_EQ(write(fd, &id, sizeof(id)), (ssize_t)sizeof(id));
}

TEST(os_process, sees_itself)
{
	struct os_process_id id, again;

	test_expect_no_fd_leak();
	memset(&id, 0xff, sizeof(id));
	ASSERT_OK(os_process_self(&id));
	ASSERT_OK(os_process_self(&again));
	EXPECT_MEM_EQ(&id, &again, sizeof(id));
	EXPECT_EQ(id.pid, getpid());
	EXPECT_EQ(id.reserved, 0);
	EXPECT_GT(id.start_ticks, 0);
	EXPECT_GT(id.pid_ns, 0);
	EXPECT_EQ(os_process_visible(&id), 1);
}

/* The name of a process is its own choice and stands in the middle of /proc/PID/stat. */
TEST(os_process, is_not_misled_by_its_name)
{
	struct os_process_id before, after;

	ASSERT_OK(os_process_self(&before));
	ASSERT_SYS(prctl(PR_SET_NAME, ") Z 1 2 (3) 4"));
	ASSERT_OK(os_process_self(&after));
	EXPECT_EQ(after.start_ticks, before.start_ticks);
	after.pidfs_ino = 0;
	EXPECT_EQ(os_process_visible(&after), 1);
}

VARIANT_SET(means) = {
	{"all", 0, NULL},
	{"no_pidfs", 1, NULL},
	{"no_pidfd_open", 2, NULL},
};

/* Kernels of several ages: arm before each look. */
static int visible(const struct test_variant *variant, const struct os_process_id *id)
{
	struct os_process_id old = *id;
	int r;

	if (variant->value >= 1)
		old.pidfs_ino = 0;
	if (variant->value == 2)
		os_fault_arm(OS_CALL_PIDFD_OPEN, 1, ENOSYS);
	r = os_process_visible(&old);
	os_fault_disarm();
	return r;
}

TEST_V(os_process, child_is_seen_until_it_is_dead, means)
{
	struct os_process_id id;
	int ends[2];
	siginfo_t info;
	pid_t pid;

	test_expect_no_fd_leak();
	ASSERT_SYS(pipe2(ends, O_CLOEXEC));
	pid = test_fork();
	if (pid == 0) {
		send_own_id(ends[1]);
		for (;;)
			pause();
	}
	receive_id(ends[0], &id);
	EXPECT_EQ(id.pid, pid);
	EXPECT_EQ(visible(variant, &id), 1);
	kill(pid, SIGKILL);
	ASSERT_SYS(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
	EXPECT_EQ(visible(variant, &id), 0); /* a zombie */
	test_end_child(pid);
	EXPECT_EQ(visible(variant, &id), 0);
	close(ends[0]);
	close(ends[1]);
}

/* The same number, but it began at another time: somebody else. */
TEST_V(os_process, reused_number_is_another_process, means)
{
	struct os_process_id id;

	ASSERT_OK(os_process_self(&id));
	id.start_ticks--;
	id.pidfs_ino += id.pidfs_ino != 0;
	EXPECT_EQ(visible(variant, &id), 0);
}

TEST(os_process, other_pid_namespace_cannot_be_looked_at)
{
	struct os_process_id id;
	int ends[2];
	pid_t pid;

	if (unshare(CLONE_NEWPID) < 0)
		SKIP("pid namespaces are refused here: %s", test_errno_name(errno));
	ASSERT_SYS(pipe2(ends, O_CLOEXEC));
	pid = test_fork();
	if (pid == 0) {
		send_own_id(ends[1]);
		test_child_exit();
	}
	receive_id(ends[0], &id);
	EXPECT_EQ(id.pid, 1);
	EXPECT_ERRNO(-ESRCH, os_process_visible(&id));
	id.pid_ns = 0;
	EXPECT_ERRNO(-ESRCH, os_process_visible(&id));
	EXPECT_TRUE(test_join(pid, 10000));
}

TEST(os_process, missing_proc_or_pidfs_leaves_zeroes)
{
	struct os_process_id id;

	test_expect_no_fd_leak();
	for (unsigned nth = 1; nth <= 2; nth++) {
		os_fault_arm(OS_CALL_OPEN, nth, ENOENT);
		ASSERT_OK(os_process_self(&id));
		EXPECT_EQ(id.start_ticks == 0, nth == 1);
		EXPECT_EQ(id.pid_ns == 0, nth == 2);
	}
	os_fault_disarm();
	os_fault_arm(OS_CALL_PIDFD_OPEN, 1, ENOSYS);
	ASSERT_OK(os_process_self(&id));
	EXPECT_EQ(id.pidfs_ino, 0);
	EXPECT_NE(id.start_ticks, 0);
	os_fault_disarm();
}

/* ---- time, randomness, text ------------------------------------------------------------------- */

TEST(os_clock, never_goes_back)
{
	uint64_t last = os_clock_ns();

	for (unsigned i = 0; i < 10000; i++) {
		uint64_t now = os_clock_ns();

		ASSERT_GE(now, last);
		last = now;
	}
	EXPECT_GT(last, 0);
}

TEST(os_random, fills_all_and_differs)
{
	unsigned char a[1024] = {0}, b[1024] = {0};
	unsigned zeroes = 0;

	ASSERT_OK(os_random(a, sizeof(a)));
	os_fault_arm(OS_CALL_RANDOM, 1, EINTR);
	ASSERT_OK(os_random(b, sizeof(b)));
	EXPECT_MEM_NE(a, b, sizeof(a));
	for (unsigned i = sizeof(a) - 64; i < sizeof(a); i++)
		zeroes += a[i] == 0;
	EXPECT_LT(zeroes, 32);
	EXPECT_OK(os_random(NULL, 0));
	os_fault_arm(OS_CALL_RANDOM, 1, ENOSYS);
	EXPECT_ERRNO(-ENOSYS, os_random(a, 1));
}

static void *own_thread_id(void *argument)
{
	*(uint32_t *)argument = os_thread_id();
	return NULL;
}

TEST(os_thread_id, is_the_threads_own)
{
	pthread_t thread;
	uint32_t other = 0;

	EXPECT_EQ(os_thread_id(), getpid());
	ASSERT_EQ(pthread_create(&thread, NULL, own_thread_id, &other), 0);
	pthread_join(thread, NULL);
	EXPECT_NE(other, 0);
	EXPECT_NE(other, os_thread_id());
}

TEST(os_read_text, reads_whole_cuts_and_ends)
{
	char text[16];
	int ends[2];
	char path[64];

	test_expect_no_fd_leak();
	ASSERT_SYS(pipe2(ends, O_CLOEXEC));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", ends[0]);
	ASSERT_EQ(write(ends[1], "0123456789abcdefghij\n", 21), 21);
	EXPECT_EQ(os_read_text(path, text, sizeof(text)), 15);
	EXPECT_STR_EQ(text, "0123456789abcde");
	close(ends[1]);
	EXPECT_EQ(os_read_text(path, text, sizeof(text)), 5);
	EXPECT_STR_EQ(text, "fghij");
	EXPECT_EQ(os_read_text("/dev/null", text, sizeof(text)), 0);
	EXPECT_STR_EQ(text, "");
	EXPECT_ERRNO(-ENOENT, os_read_text("/proc/no-such-file", text, sizeof(text)));
	EXPECT_ERRNO(-EINVAL, os_read_text("/dev/null", text, 0));
	os_fault_arm(OS_CALL_READ, 1, EIO);
	EXPECT_ERRNO(-EIO, os_read_text("/proc/self/status", text, sizeof(text)));
	os_fault_disarm();
	close(ends[0]);
}

/* ---- fork ------------------------------------------------------------------------------------- */

static char calls[64];

static void call_a(void)
{
	strcat(calls, "a");
}

static void call_b(void)
{
	strcat(calls, "b");
}

TEST(os_on_fork_child, runs_each_callback_once_in_order_in_the_child_only)
{
	pid_t pid;

	ASSERT_OK(os_on_fork_child(call_b));
	ASSERT_OK(os_on_fork_child(call_a));
	ASSERT_OK(os_on_fork_child(call_b));
	pid = test_fork();
	if (pid == 0) {
		EXPECT_STR_EQ(calls, "ba");
		pid = test_fork();
		if (pid == 0) {
			EXPECT_STR_EQ(calls, "baba");
			test_child_exit();
		}
		EXPECT_TRUE(test_join(pid, 10000));
		test_child_exit();
	}
	EXPECT_TRUE(test_join(pid, 10000));
	EXPECT_STR_EQ(calls, "");
}

/* Seventeen functions that differ: addresses inside an array of the right kind will do, they are
 * never called because this test does not fork. */
TEST(os_on_fork_child, takes_sixteen)
{
	static char places[17];

	for (unsigned i = 0; i < 16; i++)
		EXPECT_OK(os_on_fork_child((void (*)(void))(uintptr_t)&places[i]));
	EXPECT_OK(os_on_fork_child((void (*)(void))(uintptr_t)&places[3]));
	EXPECT_ERRNO(-ENOSPC, os_on_fork_child((void (*)(void))(uintptr_t)&places[16]));
}

struct guarded {
	uint32_t inside;
	uint32_t stop;
};

static void *enter_and_leave(void *argument)
{
	struct guarded *guarded = argument;

	while (__atomic_load_n(&guarded->stop, __ATOMIC_RELAXED) == 0) {
		EXPECT_OK(os_fork_guard_enter());
		__atomic_store_n(&guarded->inside, 1, __ATOMIC_RELAXED);
		sched_yield();
		__atomic_store_n(&guarded->inside, 0, __ATOMIC_RELAXED);
		os_fork_guard_leave();
		sched_yield();
	}
	return NULL;
}

/* The child of a fork sees nobody inside, and can enter itself. */
TEST(os_fork_guard, keeps_fork_out)
{
	struct guarded guarded = {0};
	pthread_t thread;
	unsigned bad = 0;

	ASSERT_EQ(pthread_create(&thread, NULL, enter_and_leave, &guarded), 0);
	for (unsigned i = 0; i < 300; i++) {
		int status;
		pid_t pid = fork();

		if (pid == 0) {
			bool inside = __atomic_load_n(&guarded.inside, __ATOMIC_RELAXED) != 0;

			if (os_fork_guard_enter() < 0)
				_exit(2);
			os_fork_guard_leave();
			_exit(inside);
		}
		ASSERT_EQ(waitpid(pid, &status, 0), pid);
		bad += status != 0;
	}
	__atomic_store_n(&guarded.stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	EXPECT_EQ(bad, 0);
}
