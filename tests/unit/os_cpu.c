/* os_cpu.c - CPUs, and the refusals of the barrier that reaches other processes. */
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
	/* Exactly 0: the commands that only ask answer with a mask. */
	EXPECT_EQ(r, 0);
	EXPECT_EQ(os_membarrier_register(), 0);
	EXPECT_EQ(os_membarrier_global(), 0);
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
