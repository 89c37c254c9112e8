/* What giving back asks of the kernel: batches of punches, pressure, threads without signals. */
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

#include "os_test.h"

enum { PUNCHES = OS_URING_BATCH };

static int file_of(unsigned arenas)
{
	int fd = os_memfd_create("punch", OS_PAGES_4K);

	ASSERT_OK(fd);
	ASSERT_OK(os_memfd_set_size(fd, arenas * HUGE_2));
	ASSERT_OK(os_commit(fd, 0, arenas * HUGE_2));
	return fd;
}

static uint64_t backing(int fd)
{
	uint64_t bytes = 0;

	ASSERT_OK(os_backing_bytes(fd, &bytes));
	return bytes;
}

static bool ring_or_skip(struct os_uring *ring)
{
	int r = os_uring_open(ring);

	if (r < 0)
		SKIP("no io_uring: %s", test_errno_name(r));
	return true;
}

TEST(os_uring, a_batch_gives_back_what_it_names_and_nothing_else)
{
	int fd = file_of(2 * PUNCHES);
	struct os_uring_punch punches[PUNCHES];
	struct os_uring ring;

	ring_or_skip(&ring);
	for (unsigned round = 0; round < 50; round++) {
		ASSERT_OK(os_commit(fd, 0, 2 * PUNCHES * HUGE_2));
		for (unsigned i = 0; i < PUNCHES; i++)
			punches[i] = (struct os_uring_punch){2 * i * HUGE_2, HUGE_2, 1};
		ASSERT_OK(os_uring_decommit(&ring, fd, punches, PUNCHES - round % 3));
		for (unsigned i = 0; i < PUNCHES; i++)
			EXPECT_EQ(punches[i].result, i >= PUNCHES - round % 3);
		EXPECT_EQ(backing(fd), (PUNCHES + round % 3) * HUGE_2);
	}
	os_uring_close(&ring);
	close(fd);
}

TEST(os_uring, each_range_has_its_own_result)
{
	int fd = file_of(2), sealed = file_of(1);
	struct os_uring_punch punches[2] = {{0, HUGE_2, 1}, {HUGE_2, 0, 1}};
	struct os_uring ring;

	ring_or_skip(&ring);
	ASSERT_OK(os_uring_decommit(&ring, fd, punches, 2));
	EXPECT_EQ(punches[0].result, 0);
	EXPECT_EQ(punches[1].result, -EINVAL);
	ASSERT_SYS(fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE));
	ASSERT_OK(os_uring_decommit(&ring, sealed, punches, 1));
	EXPECT_EQ(punches[0].result, -EPERM);
	EXPECT_ERRNO(-EINVAL, os_uring_decommit(&ring, fd, punches, OS_URING_BATCH + 1));
	os_uring_close(&ring);
	close(fd);
	close(sealed);
}

/* Whichever call fails: every result is set, nothing is in flight, and the ring works on. */
TEST(os_uring, a_call_that_fails_leaves_nothing_in_flight)
{
	int fd = file_of(PUNCHES);
	struct os_uring ring;
	bool reached = true;

	ring_or_skip(&ring);
	for (unsigned nth = 1; reached; nth++) {
		struct os_uring_punch punches[PUNCHES];
		unsigned done = 0;

		ASSERT_OK(os_commit(fd, 0, PUNCHES * HUGE_2));
		for (unsigned i = 0; i < PUNCHES; i++)
			punches[i] = (struct os_uring_punch){i * HUGE_2, HUGE_2, 1};
		os_fault_arm(OS_CALL_URING, nth, EBADF);
		(void)os_uring_decommit(&ring, fd, punches, PUNCHES);
		reached = os_fault_count(OS_CALL_URING) >= nth;
		os_fault_disarm();
		for (unsigned i = 0; i < PUNCHES; i++) {
			EXPECT_TRUE(punches[i].result == 0 || punches[i].result == -EBADF);
			done += punches[i].result == 0;
		}
		EXPECT_EQ(backing(fd), (PUNCHES - done) * HUGE_2);
		EXPECT_EQ(done == PUNCHES, nth > 1);
	}
	os_uring_close(&ring);
	close(fd);
}

/*
 * A process that is killed with punches in flight is not dead, as its life lock tells, before the last
 * of them is done: what is stored after that stays.
 */
TEST_TIMEOUT(os_uring, nothing_is_punched_after_the_life_lock_is_gone, 60)
{
	int fd = file_of(PUNCHES);
	unsigned char *base =
		mmap(NULL, PUNCHES * HUGE_2, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	struct os_uring probe;

	ASSERT_TRUE(base != MAP_FAILED);
	ring_or_skip(&probe);
	os_uring_close(&probe);
	for (unsigned round = 0; round < TEST_ROUNDS(60, 1000); round++) {
		int ready[2];
		pid_t child;

		memset(base, 1, PUNCHES * HUGE_2);
		ASSERT_SYS(pipe(ready));
		child = test_fork();
		if (child == 0) {
			struct os_uring_punch punches[PUNCHES];
			struct os_uring ring;
			struct os_life life;

			ASSERT_OK(os_life_take(fd, 7, true, &life));
			ASSERT_OK(os_uring_open(&ring));
			for (unsigned i = 0; i < PUNCHES; i++)
				punches[i] = (struct os_uring_punch){i * HUGE_2, HUGE_2, 1};
			ASSERT_TRUE(test_say(ready[1]));
			for (;;)
				(void)os_uring_decommit(&ring, fd, punches, PUNCHES);
		}
		ASSERT_TRUE(test_hear(ready[0]));
		usleep((useconds_t)test_random_below(1500));
		kill(child, SIGKILL);
		while (os_life_probe(fd, 7) == 1)
			;
		/* recovery would commit the arenas again, and somebody use them */
		for (size_t at = 0; at < PUNCHES * HUGE_2; at += PAGE)
			base[at] = 2;
		test_end_child(child);
		usleep(500);
		for (size_t at = 0; at < PUNCHES * HUGE_2; at += PAGE)
			ASSERT_EQ(base[at], 2);
		close(ready[0]);
		close(ready[1]);
	}
	close(fd);
}

TEST(os_psi, the_notice_ends_the_wait_and_stays_given)
{
	_cleanup_os_close_ int psi = os_psi_open(100000, 2000000);
	_cleanup_os_close_ int notice = os_notice_open();

	if (psi < 0)
		SKIP("no PSI: %s", test_errno_name(psi));
	ASSERT_OK(notice);
	ASSERT_OK(os_notice_give(notice));
	EXPECT_EQ(os_psi_wait(psi, notice), 0);
	ASSERT_OK(os_notice_give(notice));
	EXPECT_EQ(os_psi_wait(psi, notice), 0);
}

/* The program has closed our numbers, or has something else there: an error, not a spin. */
TEST(os_psi, descriptors_that_are_not_ours_end_the_wait)
{
	_cleanup_os_close_ int notice = os_notice_open();
	_cleanup_os_close_ int other = os_notice_open();

	ASSERT_OK(notice);
	EXPECT_ERRNO(-EBADF, os_psi_wait(9999, notice));
	EXPECT_ERRNO(-EBADF, os_psi_wait(other, 9999));
}

TEST(os_psi, a_window_that_the_kernel_does_not_take_is_an_error)
{
	unsigned fds = test_fd_count();

	EXPECT_LT(os_psi_open(100000, 1), 0);
	EXPECT_EQ(test_fd_count(), fds);
}

static void look_at_mask(void *argument)
{
	sigset_t *mask = argument;

	(void)sigprocmask(SIG_SETMASK, NULL, mask);
}

TEST(os_thread, every_signal_is_blocked_in_it_and_none_here)
{
	struct os_thread thread;
	sigset_t before, after, inside;

	sigprocmask(SIG_SETMASK, NULL, &before);
	ASSERT_OK(os_thread_start("a-name-that-is-too-long", look_at_mask, &inside, &thread));
	os_thread_join(&thread);
	sigprocmask(SIG_SETMASK, NULL, &after);
	for (int signal = 1; signal < 65; signal++) {
		EXPECT_EQ(sigismember(&before, signal), sigismember(&after, signal));
		if (signal != SIGKILL && signal != SIGSTOP && signal != 32 && signal != 33)
			EXPECT_TRUE(sigismember(&inside, signal));
	}
}

TEST(os_clock, the_coarse_clock_goes_with_the_fine_one)
{
	uint64_t before = os_clock_coarse_ms(), fine = os_clock_ns() / 1000000u;

	EXPECT_LE(before, fine);
	EXPECT_LE(fine, os_clock_coarse_ms() + 20);
}
