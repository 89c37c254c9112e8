/* os_life.c - a lock that lives exactly as long as the memory of the process that took it. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "os_test.h"

#define BYTE ((uint64_t)1 << 40)

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

FIXTURE(os_life)
{
	int fd;
	int there[2]; /* the child says it has the lock */
	int go[2];    /* the parent lets it go on */
};

FIXTURE_VARIANT(os_life)
{
	enum os_page_kind kind;
	bool writable;
};
FIXTURE_VARIANT_ADD(os_life, rw_4k){OS_PAGES_4K, true};
FIXTURE_VARIANT_ADD(os_life, ro_4k){OS_PAGES_4K, false};
FIXTURE_VARIANT_ADD(os_life, rw_2m){OS_PAGES_2M, true};
FIXTURE_VARIANT_ADD(os_life, ro_2m){OS_PAGES_2M, false};

FIXTURE_SETUP(os_life)
{
	test_expect_no_fd_leak();
	self->fd = os_memfd_create("life", variant->kind);
	if (self->fd == -ENODEV)
		SKIP("the kernel has no pages of that size");
	ASSERT_OK(self->fd);
	ASSERT_OK(os_memfd_set_size(self->fd, 4 * HUGE_2));
	ASSERT_OK(os_memfd_seal(self->fd));
	ASSERT_SYS(pipe2(self->there, O_CLOEXEC));
	ASSERT_SYS(pipe2(self->go, O_CLOEXEC));
}

FIXTURE_TEARDOWN(os_life)
{
	os_fault_disarm();
	if (self->fd < 0)
		return;
	close(self->fd);
	for (unsigned i = 0; i < 2; i++) {
		close(self->there[i]);
		close(self->go[i]);
	}
}

/* In a child: take it through the weakest descriptor that is enough. */
static void take(const struct os_life_fixture *self, bool writable, struct os_life *life)
{
	int fd = os_reopen(self->fd, writable);

	ASSERT_OK(fd);
	ASSERT_OK(os_life_take(fd, BYTE, writable, life));
	close(fd);
}

static void close_everything_but(int keep)
{
	ASSERT_SYS(syscall(SYS_close_range, 0, keep - 1, 0));
	ASSERT_SYS(syscall(SYS_close_range, keep + 1, ~0U, 0));
}

/* The holder closes every descriptor it has, then is killed. */
TEST_F(os_life, survives_close_all_and_ends_with_sigkill)
{
	struct os_life life;
	pid_t pid = test_fork();

	if (pid == 0) {
		take(self, variant->writable, &life);
		close_everything_but(self->there[1]);
		test_say(self->there[1]);
		for (;;)
			pause();
	}
	ASSERT_TRUE(test_hear(self->there[0]));
	EXPECT_EQ(os_life_probe(self->fd, BYTE), 1);
	EXPECT_EQ(os_life_probe(self->fd, BYTE + 1), 0);
	test_end_child(pid);
	EXPECT_EQ(os_life_probe(self->fd, BYTE), 0);
}

TEST_F(os_life, ends_with_a_normal_exit)
{
	struct os_life life;
	pid_t pid = test_fork();

	if (pid == 0) {
		take(self, variant->writable, &life);
		test_child_exit();
	}
	ASSERT_TRUE(test_join(pid, 10000));
	EXPECT_EQ(os_life_probe(self->fd, BYTE), 0);
}

/* A forked child has neither the mapping nor a descriptor of it: the parent's death is seen. */
TEST_F(os_life, ends_with_its_holder_while_a_forked_child_lives)
{
	struct os_life life;
	int grandchild_gone[2];
	pid_t pid;
	struct pollfd wait;

	ASSERT_SYS(pipe2(grandchild_gone, O_CLOEXEC));
	pid = test_fork();
	if (pid == 0) {
		take(self, variant->writable, &life);
		if (fork() == 0) {
			test_say(self->there[1]);
			close(self->go[1]);
			test_hear(self->go[0]);
			_exit(0);
		}
		for (;;)
			pause();
	}
	close(grandchild_gone[1]);
	ASSERT_TRUE(test_hear(self->there[0]));
	EXPECT_EQ(os_life_probe(self->fd, BYTE), 1);
	test_end_child(pid);
	EXPECT_EQ(os_life_probe(self->fd, BYTE), 0);
	wait = (struct pollfd){.fd = grandchild_gone[0], .events = POLLIN};
	EXPECT_EQ(poll(&wait, 1, 0), 0); /* and the grandchild was alive when we looked */
	close(grandchild_gone[0]);
	test_say(self->go[1]);
}

TEST_F(os_life, ends_with_exec)
{
	struct os_life life;
	int copy;
	pid_t pid = test_fork();

	if (pid == 0) {
		take(self, variant->writable, &life);
		copy = fcntl(self->fd, F_DUPFD, 400); /* the new program keeps the memfd itself */
		ASSERT_SYS(copy);
		test_say(self->there[1]);
		test_hear(self->go[0]);
		execlp("sleep", "sleep", "60", (char *)NULL);
		_exit(127);
	}
	close(self->there[1]);
	ASSERT_TRUE(test_hear(self->there[0]));
	EXPECT_EQ(os_life_probe(self->fd, BYTE), 1);
	test_say(self->go[1]);
	/*
	 * there[1] is CLOEXEC: its end of file is the exec. The kernel closes files and drops the
	 * old memory on the way back from exec, in no order that we could rely on.
	 */
	EXPECT_FALSE(test_hear(self->there[0]));
	EXPECT_TRUE(TEST_EVENTUALLY(os_life_probe(self->fd, BYTE) == 0, 10000));
	EXPECT_EQ(kill(pid, 0), 0);
	test_end_child(pid);
	self->there[1] = dup(self->there[0]);
}

static void *take_in_thread(void *argument)
{
	struct os_life life;
	const int *fd = argument;

	EXPECT_OK(os_life_take(*fd, BYTE, true, &life));
	return NULL;
}

TEST(os_life_thread, outlives_the_thread_that_took_it)
{
	int fd = os_memfd_create("life", OS_PAGES_4K);
	pthread_t thread;
	int other;

	ASSERT_OK(fd);
	ASSERT_OK(os_memfd_set_size(fd, HUGE_2));
	ASSERT_EQ(pthread_create(&thread, NULL, take_in_thread, &fd), 0);
	ASSERT_EQ(pthread_join(thread, NULL), 0);
	other = os_reopen(fd, false);
	EXPECT_EQ(os_life_probe(fd, BYTE), 1);
	EXPECT_EQ(os_life_probe(other, BYTE), 1);
	close(fd);
	EXPECT_EQ(os_life_probe(other, BYTE), 1);
	close(other);
}

TEST_F(os_life, is_taken_once_and_dropped)
{
	struct os_life first, second = {(void *)1, 7};
	unsigned long pages = test_mapped_pages();
	unsigned fds = test_fd_count();

	ASSERT_OK(os_life_take(self->fd, BYTE, true, &first));
	EXPECT_EQ(test_fd_count(), fds);
	EXPECT_ERRNO(-EAGAIN, os_life_take(self->fd, BYTE, true, &second));
	EXPECT_ERRNO(-EAGAIN, os_life_take(self->fd, BYTE, false, &second));
	EXPECT_EQ(second.pin_size, 7);
	EXPECT_EQ(os_life_probe(self->fd, BYTE), 1);
	os_life_drop(&first);
	os_life_drop(&first);
	EXPECT_EQ(os_life_probe(self->fd, BYTE), 0);
	EXPECT_EQ(test_mapped_pages(), pages);
	EXPECT_EQ(test_fd_count(), fds);
}

TEST_F(os_life, takes_no_page)
{
	struct os_life life;
	uint64_t bytes = 1;

	ASSERT_OK(os_life_take(self->fd, BYTE, variant->writable, &life));
	EXPECT_OK(os_backing_bytes(self->fd, &bytes));
	EXPECT_EQ(bytes, 0);
	os_life_drop(&life);
}

TEST(os_life_readers, share_one_byte)
{
	int fd = os_memfd_create("life", OS_PAGES_4K);
	struct os_life a, b;

	ASSERT_OK(fd);
	ASSERT_OK(os_memfd_set_size(fd, HUGE_2));
	ASSERT_OK(os_life_take(fd, BYTE, false, &a));
	ASSERT_OK(os_life_take(fd, BYTE, false, &b));
	os_life_drop(&a);
	EXPECT_EQ(os_life_probe(fd, BYTE), 1);
	os_life_drop(&b);
	EXPECT_EQ(os_life_probe(fd, BYTE), 0);
	close(fd);
}

/* ---- the window: a fork in the middle of a take must not copy the descriptor ------------------ */

struct taker {
	int fd;
	bool stop;
	unsigned takes;
};

static void *take_and_drop(void *argument)
{
	struct taker *taker = argument;
	struct os_life life;

	while (!__atomic_load_n(&taker->stop, __ATOMIC_RELAXED)) {
		EXPECT_OK(os_life_take(taker->fd, BYTE, true, &life));
		os_life_drop(&life);
		__atomic_add_fetch(&taker->takes, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* With a guard that does nothing about one child in ten of these inherits the description. */
TEST(os_life_fork, never_copies_the_description)
{
	enum { CHILDREN = 200 };
	struct taker taker = {.fd = os_memfd_create("life", OS_PAGES_4K)};
	pid_t children[CHILDREN];
	pthread_t thread;

	ASSERT_OK(taker.fd);
	ASSERT_OK(os_memfd_set_size(taker.fd, HUGE_2));
	ASSERT_EQ(pthread_create(&thread, NULL, take_and_drop, &taker), 0);
	for (unsigned i = 0; i < CHILDREN; i++) {
		children[i] = fork();
		ASSERT_GE(children[i], 0);
		if (children[i] == 0)
			for (;;)
				pause();
	}
	__atomic_store_n(&taker.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	EXPECT_GT(taker.takes, 0);
	EXPECT_EQ(os_life_probe(taker.fd, BYTE), 0);
	for (unsigned i = 0; i < CHILDREN; i++)
		test_end_child(children[i]);
	close(taker.fd);
}

TEST(os_life_fork, child_can_take_its_own)
{
	int fd = os_memfd_create("life", OS_PAGES_4K);
	struct os_life mine, childs;
	pid_t pid;

	ASSERT_OK(fd);
	ASSERT_OK(os_memfd_set_size(fd, HUGE_2));
	ASSERT_OK(os_life_take(fd, BYTE, true, &mine));
	pid = test_fork();
	if (pid == 0) {
		EXPECT_ERRNO(-EAGAIN, os_life_take(fd, BYTE, true, &childs));
		EXPECT_OK(os_life_take(fd, BYTE + 1, true, &childs));
		EXPECT_EQ(os_life_probe(fd, BYTE + 1), 1);
		test_child_exit();
	}
	ASSERT_TRUE(test_join(pid, 10000));
	EXPECT_EQ(os_life_probe(fd, BYTE), 1);
	EXPECT_EQ(os_life_probe(fd, BYTE + 1), 0);
	close(fd);
}
