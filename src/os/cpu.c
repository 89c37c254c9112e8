/* SPDX-License-Identifier: MIT */
/*
 * cpu.c - how many CPUs, which one, and a barrier that reaches other processes.
 *
 * Owner:     nobody; no state.
 * Ordering:  os_membarrier_global() is the heavy half of an asymmetric barrier: with it the light
 *            half may be a compiler barrier in every registered process. The words that pair are
 *            the caller's and are labelled there.
 * Death:     registration ends with exec or exit.
 */
#define _GNU_SOURCE
#include "os/os.h"

#include <stdlib.h>
#include <string.h>

#include "os/sys.h"

/* "0-3", "0,2-7": the last number plus one; 0 when it is none. */
static unsigned last_of_list(const char *list)
{
	const char *last = list + strlen(list);

	while (last > list && last[-1] >= '0' && last[-1] <= '9')
		last--;
	return *last == '\0' ? 0 : (unsigned)strtoul(last, NULL, 10) + 1;
}

unsigned os_cpu_count(void)
{
	char list[256];
	unsigned count = 0;
	long configured;

	if (os_read_text("/sys/devices/system/cpu/possible", list, sizeof(list)) > 0)
		count = last_of_list(list);
	if (count > 0)
		return count;
	configured = sysconf(_SC_NPROCESSORS_CONF);
	return configured > 0 ? (unsigned)configured : 1;
}

unsigned os_cpu_usable(void)
{
	cpu_set_t set;
	int count;

	/* EINVAL on machines of more than 1024 CPUs: then there are certainly several. */
	if (sys_affinity(sizeof(set), &set) < 0)
		return os_cpu_count();
	count = CPU_COUNT(&set);
	return count > 0 ? (unsigned)count : 1;
}

/* Answered by the vDSO: no hook. */
void os_cpu_current(unsigned *ret_cpu, unsigned *ret_node)
{
	unsigned cpu = 0, node = 0;

	if (getcpu(&cpu, &node) < 0)
		cpu = node = 0;
	if (ret_cpu != NULL)
		*ret_cpu = cpu;
	if (ret_node != NULL)
		*ret_node = node;
}

/* Old kernel, kernel built without it, or seccomp: all the same to the caller. */
static int membarrier(int command)
{
	int r = sys_membarrier(command);

	return r == -ENOSYS || r == -EINVAL || r == -EPERM ? -EOPNOTSUPP : r;
}

int os_membarrier_register(void)
{
	return membarrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED);
}

int os_membarrier_global(void)
{
	return membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED);
}
