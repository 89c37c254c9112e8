/* os_cpu.c - CPUs, and the barrier that reaches other processes. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>

#include "os_test.h"

TEST(os_cpu, counts_possible_and_usable)
{
	cpu_set_t one;
	unsigned cpu = 9999, node = 9999;

	test_expect_no_fd_leak();
	EXPECT_GE(os_cpu_count(), 1);
	EXPECT_GE(os_cpu_count(), sysconf(_SC_NPROCESSORS_ONLN));
	EXPECT_GE(os_cpu_usable(), 1);
	EXPECT_LE(os_cpu_usable(), os_cpu_count());
	os_cpu_current(&cpu, &node);
	EXPECT_LT(cpu, os_cpu_count());
	EXPECT_LT(node, 1024);
	os_cpu_current(NULL, NULL);
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	ASSERT_SYS(sched_setaffinity(0, sizeof(one), &one));
	EXPECT_EQ(os_cpu_usable(), 1);
	os_cpu_current(&node, NULL);
	EXPECT_EQ(node, cpu);
	os_cpu_relax();
}

TEST(os_cpu, counts_without_sys_and_without_affinity)
{
	unsigned count = os_cpu_count();

	os_fault_arm(OS_CALL_OPEN, 1, ENOENT);
	EXPECT_GE(os_cpu_count(), 1);
	EXPECT_EQ(os_fault_count(OS_CALL_OPEN), 1);
	os_fault_disarm();
	os_fault_arm(OS_CALL_AFFINITY, 1, EINVAL);
	EXPECT_EQ(os_cpu_usable(), count);
}

TEST(os_membarrier, registers_again_and_again_and_reaches)
{
	int r = os_membarrier_register();

	if (r == -EOPNOTSUPP)
		SKIP("the kernel has no global expedited membarrier");
	EXPECT_OK(r);
	EXPECT_OK(os_membarrier_register());
	EXPECT_OK(os_membarrier_global());
}

/*
 * The light half only keeps the compiler in order; the barrier must make up for it. Two processes
 * store to their own word and then read the other's: never may both read the old value.
 */
struct words {
	uint32_t light __attribute__((aligned(64)));
	uint32_t heavy __attribute__((aligned(64)));
	uint32_t light_saw __attribute__((aligned(64)));
	uint32_t round __attribute__((aligned(64)));
	uint32_t done __attribute__((aligned(64)));
};

static void light_side(struct words *words, unsigned rounds)
{
	for (unsigned i = 1; i <= rounds; i++) {
		while (__atomic_load_n(&words->round, __ATOMIC_ACQUIRE) != i)
			sched_yield();
		__atomic_store_n(&words->light, i, __ATOMIC_RELAXED);
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
		words->light_saw = __atomic_load_n(&words->heavy, __ATOMIC_RELAXED);
		__atomic_store_n(&words->done, i, __ATOMIC_RELEASE);
	}
}

TEST(os_membarrier, orders_the_light_side_of_another_process)
{
	enum { ROUNDS = 2000 };
	struct words *words;
	unsigned both_blind = 0;
	void *base;
	pid_t pid;
	int fd;

	if (os_membarrier_register() < 0)
		SKIP("the kernel has no global expedited membarrier");
	fd = os_memfd_create("words", OS_PAGES_4K);
	ASSERT_OK(fd);
	ASSERT_OK(os_memfd_set_size(fd, PAGE));
	ASSERT_OK(os_map_shared(fd, 0, PAGE, true, 0, &base));
	words = base;
	pid = test_fork();
	if (pid == 0) {
		ASSERT_OK(os_membarrier_register());
		light_side(words, ROUNDS);
		test_child_exit();
	}
	for (unsigned i = 1; i <= ROUNDS; i++) {
		uint32_t saw;

		__atomic_store_n(&words->round, i, __ATOMIC_RELEASE);
		__atomic_store_n(&words->heavy, i, __ATOMIC_RELAXED);
		ASSERT_OK(os_membarrier_global());
		saw = __atomic_load_n(&words->light, __ATOMIC_RELAXED);
		while (__atomic_load_n(&words->done, __ATOMIC_ACQUIRE) != i)
			sched_yield();
		both_blind += saw != i && words->light_saw != i;
	}
	EXPECT_EQ(both_blind, 0);
	EXPECT_TRUE(test_join(pid, 20000));
	close(fd);
}

VARIANT_SET(refusals) = {
	{"enosys", ENOSYS, NULL},
	{"einval", EINVAL, NULL},
	{"eperm", EPERM, NULL},
};

TEST_V(os_membarrier, every_refusal_is_eopnotsupp, refusals)
{
	os_fault_arm(OS_CALL_MEMBARRIER, 1, (int)variant->value);
	EXPECT_ERRNO(-EOPNOTSUPP, os_membarrier_register());
	os_fault_arm(OS_CALL_MEMBARRIER, 1, (int)variant->value);
	EXPECT_ERRNO(-EOPNOTSUPP, os_membarrier_global());
}
