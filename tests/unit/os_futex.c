/* os_futex.c - sleeping on words that two processes map at different addresses. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

#include "os_test.h"

#define MS 1000000ULL

FIXTURE(os_futex)
{
	int fd;
	uint32_t *word;   /* this process's writable mapping */
	uint32_t *reader; /* the same bytes, elsewhere, PROT_READ */
};

FIXTURE_SETUP(os_futex)
{
	void *base;

	test_expect_no_fd_leak();
	self->fd = os_memfd_create("futex", OS_PAGES_4K);
	ASSERT_OK(self->fd);
	ASSERT_OK(os_memfd_set_size(self->fd, PAGE));
	ASSERT_OK(os_map_shared(self->fd, 0, PAGE, true, 0, &base));
	self->word = base;
	ASSERT_OK(os_map_shared(self->fd, 0, PAGE, false, 0, &base));
	self->reader = base;
}

FIXTURE_TEARDOWN(os_futex)
{
	os_fault_disarm();
	close(self->fd);
}

TEST_F(os_futex, differing_value_does_not_sleep)
{
	*self->word = 5;
	EXPECT_ERRNO(-EAGAIN, os_futex_wait(self->word, 4, OS_FUTEX_ANY, OS_NO_DEADLINE));
	EXPECT_ERRNO(-EAGAIN, os_futex_wait(self->reader, 4, OS_FUTEX_ANY, 0));
}

TEST_F(os_futex, deadline_in_the_past_only_looks)
{
	EXPECT_ERRNO(-ETIMEDOUT, os_futex_wait(self->word, 0, OS_FUTEX_ANY, 0));
	EXPECT_ERRNO(-ETIMEDOUT, os_futex_wait(self->word, 0, OS_FUTEX_ANY, 1));
	EXPECT_ERRNO(-ETIMEDOUT, os_futex_wait(self->word, 0, OS_FUTEX_ANY, os_clock_ns()));
	EXPECT_ERRNO(-ETIMEDOUT, os_futex_wait(self->reader, 0, OS_FUTEX_ANY, os_clock_ns()));
}

TEST_F(os_futex, never_returns_before_the_deadline)
{
	for (unsigned i = 0; i < 20; i++) {
		uint64_t deadline = os_clock_ns() + i * MS / 4;

		EXPECT_ERRNO(-ETIMEDOUT, os_futex_wait(self->word, 0, OS_FUTEX_ANY, deadline));
		EXPECT_GE(os_clock_ns(), deadline);
	}
}

/* The wake goes on until it has found somebody: the waiter may not have lain down yet. */
static bool wake_one(const uint32_t *word, uint32_t mask)
{
	return TEST_EVENTUALLY(os_futex_wake(word, 1, mask) == 1, 10000);
}

TEST_F(os_futex, wakes_another_process_at_another_address)
{
	pid_t pid = test_fork();

	if (pid == 0) {
		void *own;

		ASSERT_OK(os_map_shared(self->fd, 0, PAGE, true, HUGE_2, &own));
		ASSERT_PTR_NE(own, self->word);
		EXPECT_OK(os_futex_wait(own, 0, OS_FUTEX_ANY, OS_NO_DEADLINE));
		test_child_exit();
	}
	EXPECT_TRUE(wake_one(self->word, OS_FUTEX_ANY));
	EXPECT_TRUE(test_join(pid, 10000));
}

TEST_F(os_futex, waits_and_wakes_through_read_only_mappings)
{
	pid_t pid = test_fork();

	if (pid == 0) {
		EXPECT_OK(os_futex_wait(self->reader, 0, OS_FUTEX_ANY, OS_NO_DEADLINE));
		EXPECT_OK(os_futex_wait(self->word, 0, OS_FUTEX_ANY, OS_NO_DEADLINE));
		test_child_exit();
	}
	EXPECT_TRUE(wake_one(self->word, OS_FUTEX_ANY));
	EXPECT_TRUE(wake_one(self->reader, OS_FUTEX_ANY));
	EXPECT_TRUE(test_join(pid, 10000));
}

TEST_F(os_futex, wakes_only_who_shares_a_mask_bit)
{
	pid_t pid = test_fork();

	if (pid == 0) {
		EXPECT_OK(os_futex_wait(self->word, 0, 6, OS_NO_DEADLINE));
		EXPECT_OK(os_futex_wait(self->word, 0, 6, OS_NO_DEADLINE));
		test_child_exit();
	}
	EXPECT_TRUE(wake_one(self->word, 2));
	for (unsigned i = 0; i < 50; i++) {
		EXPECT_EQ(os_futex_wake(self->word, 10, 1 | 8), 0);
		test_sleep_ms(1);
	}
	EXPECT_TRUE(wake_one(self->word, 4));
	EXPECT_TRUE(test_join(pid, 10000));
}

TEST_F(os_futex, wakes_no_more_than_asked)
{
	pid_t pids[3];
	int woken;

	for (unsigned i = 0; i < 3; i++) {
		pids[i] = test_fork();
		if (pids[i] == 0) {
			EXPECT_OK(os_futex_wait(self->word, 0, OS_FUTEX_ANY, OS_NO_DEADLINE));
			test_child_exit();
		}
	}
	EXPECT_EQ(os_futex_wake(self->word, 0, OS_FUTEX_ANY), 0);
	EXPECT_TRUE(wake_one(self->word, OS_FUTEX_ANY));
	for (woken = 1; woken < 3;) {
		int r = os_futex_wake(self->word, UINT32_MAX, OS_FUTEX_ANY);

		ASSERT_OK(r);
		woken += r;
	}
	EXPECT_EQ(woken, 3);
	for (unsigned i = 0; i < 3; i++)
		EXPECT_TRUE(test_join(pids[i], 10000));
}

static void nothing(int number)
{
	(void)number;
}

TEST_F(os_futex, signal_handler_interrupts)
{
	struct sigaction action = {.sa_handler = nothing};
	timer_t timer;
	struct itimerspec every_ms = {{0, 1000000}, {0, 1000000}};

	ASSERT_SYS(sigaction(SIGALRM, &action, NULL));
	ASSERT_SYS(timer_create(CLOCK_MONOTONIC, NULL, &timer));
	ASSERT_SYS(timer_settime(timer, 0, &every_ms, NULL));
	EXPECT_ERRNO(-EINTR,
		     os_futex_wait(self->word, 0, OS_FUTEX_ANY, os_clock_ns() + 10000 * MS));
	timer_delete(timer);
}

TEST_F(os_futex, refuses_nonsense)
{
	EXPECT_ERRNO(-EINVAL, os_futex_wait(self->word, 0, 0, 0));
	EXPECT_ERRNO(-EINVAL, os_futex_wake(self->word, 1, 0));
	EXPECT_ERRNO(-EINVAL, os_futex_wake(self->word, 0, 0));
	EXPECT_ERRNO(-EINVAL, os_futex_wait((void *)((char *)self->word + 2), 0, OS_FUTEX_ANY, 0));
	ASSERT_SYS(munmap(self->reader, PAGE));
	EXPECT_ERRNO(-EFAULT, os_futex_wait(self->reader, 0, OS_FUTEX_ANY, 0));
	ASSERT_SYS(ftruncate(self->fd, 0));
	EXPECT_ERRNO(-EFAULT, os_futex_wait(self->word, 0, OS_FUTEX_ANY, 0));
	EXPECT_ERRNO(-EFAULT, os_futex_wake(self->word, 1, OS_FUTEX_ANY));
}

TEST(os_futex_huge, works_on_huge_pages)
{
	uint32_t *word;
	void *base;
	pid_t pid;
	int fd;

	hugepages_require_free(HUGE_2, HUGEPAGES_ANY_NODE, 1);
	fd = os_memfd_create("futex", OS_PAGES_2M);
	ASSERT_OK(fd);
	ASSERT_OK(os_memfd_set_size(fd, HUGE_2));
	ASSERT_OK(os_commit(fd, 0, HUGE_2));
	ASSERT_OK(os_map_shared(fd, 0, HUGE_2, true, HUGE_2, &base));
	word = base;
	pid = test_fork();
	if (pid == 0) {
		void *own;

		ASSERT_OK(os_map_shared(fd, 0, HUGE_2, false, HUGE_2, &own));
		EXPECT_OK(os_futex_wait(own, 0, OS_FUTEX_ANY, OS_NO_DEADLINE));
		test_child_exit();
	}
	EXPECT_TRUE(wake_one(word, OS_FUTEX_ANY));
	EXPECT_TRUE(test_join(pid, 10000));
	close(fd);
}

/* ---- any of several; once with futex_waitv, once with its fallback ---------------------------- */

VARIANT_SET(waitv) = {
	{"kernel", 0, NULL},
	{"poll", 1, NULL},
};

/* With the fallback every futex_waitv is refused: arm it again before each call. */
static int wait_any(const struct test_variant *variant, const struct os_futex_waiter *waiters,
		    unsigned count, uint64_t deadline_ns)
{
	int r;

	if (variant->value != 0)
		os_fault_arm(OS_CALL_FUTEX_WAITV, 1, ENOSYS);
	r = os_futex_wait_any(waiters, count, deadline_ns);
	if (variant->value == 0 && r == -ENOSYS)
		SKIP("the kernel has no futex_waitv");
	return r;
}

static uint32_t *shared_words(void)
{
	void *base = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	ASSERT_PTR_NE(base, MAP_FAILED);
	return base;
}

TEST_V(os_futex_any, sees_a_value_that_differs, waitv)
{
	uint32_t *words = shared_words();
	struct os_futex_waiter waiters[] = {{words, 0}, {words + 1, 0}, {words + 2, 1}};

	EXPECT_ERRNO(-EAGAIN, wait_any(variant, waiters, 3, OS_NO_DEADLINE));
}

TEST_V(os_futex_any, keeps_its_deadline, waitv)
{
	uint32_t *words = shared_words();
	struct os_futex_waiter waiters[] = {{words, 0}, {words + 1, 0}};
	uint64_t deadline = os_clock_ns() + 20 * MS;

	EXPECT_ERRNO(-ETIMEDOUT, wait_any(variant, waiters, 2, 0));
	EXPECT_ERRNO(-ETIMEDOUT, wait_any(variant, waiters, 2, deadline));
	EXPECT_GE(os_clock_ns(), deadline);
}

TEST_V(os_futex_any, wakes_on_a_change_of_any_word, waitv)
{
	for (unsigned which = 0; which < 3; which++) {
		uint32_t *words = shared_words();
		struct os_futex_waiter waiters[] = {{words, 0}, {words + 1, 0}, {words + 2, 0}};
		pid_t pid = test_fork();

		if (pid == 0) {
			int r = wait_any(variant, waiters, 3, OS_NO_DEADLINE);

			EXPECT_TRUE(r == (int)which || r == -EAGAIN);
			test_child_exit();
		}
		test_sleep_ms(5);
		__atomic_store_n(words + which, 1, __ATOMIC_SEQ_CST);
		os_futex_wake(words + which, 1, OS_FUTEX_ANY);
		EXPECT_TRUE(test_join(pid, 10000));
	}
}

TEST(os_futex_any, names_the_word_that_was_woken)
{
	uint32_t *words = shared_words();
	struct os_futex_waiter waiters[OS_FUTEX_WAIT_ANY_MAX];
	pid_t pid;

	for (unsigned i = 0; i < OS_FUTEX_WAIT_ANY_MAX; i++)
		waiters[i] = (struct os_futex_waiter){words + i, 0};
	if (os_futex_wait_any(waiters, 1, 0) == -ENOSYS)
		SKIP("the kernel has no futex_waitv");
	pid = test_fork();
	if (pid == 0) {
		EXPECT_EQ(os_futex_wait_any(waiters, OS_FUTEX_WAIT_ANY_MAX, OS_NO_DEADLINE), 77);
		test_child_exit();
	}
	EXPECT_TRUE(wake_one(words + 77, OS_FUTEX_ANY));
	EXPECT_TRUE(test_join(pid, 10000));
	EXPECT_ERRNO(-EINVAL, os_futex_wait_any(waiters, 0, 0));
	EXPECT_ERRNO(-EINVAL, os_futex_wait_any(waiters, OS_FUTEX_WAIT_ANY_MAX + 1, 0));
}
