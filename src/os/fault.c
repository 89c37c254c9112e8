/* SPDX-License-Identifier: MIT */
/*
 * fault.c - makes the n-th kernel call of a kind fail, so that every error path can be walked.
 *
 * Owner:     the process; one order for each kind of call. Private memory only.
 * Invariant: F1  os_fault_armed == 0  <=>  no kind is armed: then sys_x() pays one relaxed load.
 *            F2  of calls racing in several threads exactly one sees its count reach `nth`.
 * Ordering:  none. Orders are given by a test before the calls it wants to see fail; threads that
 *            run at that moment may make a call more or less, which no test can tell.
 * Death:     nothing outlives the process; a forked child inherits orders and counts.
 */
#define _GNU_SOURCE
#include "os/os.h"

#include <stdlib.h>
#include <string.h>

#include "os/sys.h"

struct fault_order {
	uint32_t armed; /* 0: this kind is neither counted nor failed */
	uint32_t nth;   /* 0: only count */
	uint32_t error;
	uint32_t seen; /* calls since it was armed */
};

uint32_t os_fault_armed;
static struct fault_order orders[OS_CALL_COUNT];

static const char *const call_names[OS_CALL_COUNT] = {
	[OS_CALL_MEMFD_CREATE] = "memfd_create",
	[OS_CALL_FTRUNCATE] = "ftruncate",
	[OS_CALL_FCHMOD] = "fchmod",
	[OS_CALL_ADD_SEALS] = "add_seals",
	[OS_CALL_GET_SEALS] = "get_seals",
	[OS_CALL_GETFL] = "getfl",
	[OS_CALL_DUP] = "dup",
	[OS_CALL_FSTAT] = "fstat",
	[OS_CALL_FSTATFS] = "fstatfs",
	[OS_CALL_OPEN] = "open",
	[OS_CALL_READ] = "read",
	[OS_CALL_CLOSE] = "close",
	[OS_CALL_FALLOCATE] = "fallocate",
	[OS_CALL_PUNCH] = "punch",
	[OS_CALL_LOCK] = "lock",
	[OS_CALL_LOCK_PROBE] = "lock_probe",
	[OS_CALL_MMAP] = "mmap",
	[OS_CALL_MUNMAP] = "munmap",
	[OS_CALL_MADVISE] = "madvise",
	[OS_CALL_MPROTECT] = "mprotect",
	[OS_CALL_MINCORE] = "mincore",
	[OS_CALL_FUTEX_WAIT] = "futex_wait",
	[OS_CALL_FUTEX_WAKE] = "futex_wake",
	[OS_CALL_FUTEX_WAITV] = "futex_waitv",
	[OS_CALL_SENDMSG] = "sendmsg",
	[OS_CALL_RECVMSG] = "recvmsg",
	[OS_CALL_PIDFD_OPEN] = "pidfd_open",
	[OS_CALL_POLL] = "poll",
	[OS_CALL_RANDOM] = "random",
	[OS_CALL_AFFINITY] = "affinity",
	[OS_CALL_MEMBARRIER] = "membarrier",
	[OS_CALL_MBIND] = "mbind",
	[OS_CALL_SET_MEMPOLICY] = "set_mempolicy",
	[OS_CALL_GET_MEMPOLICY] = "get_mempolicy",
	[OS_CALL_MOVE_PAGES] = "move_pages",
	[OS_CALL_URING] = "uring",
	[OS_CALL_ATFORK] = "atfork",
	[OS_CALL_WRITE] = "write",
	[OS_CALL_EVENTFD] = "eventfd",
	[OS_CALL_THREAD] = "thread",
};

const char *os_call_name(enum os_call call)
{
	return (unsigned)call < OS_CALL_COUNT ? call_names[call] : "unknown";
}

int os_fault_slow(enum os_call call)
{
	struct fault_order *order = &orders[call];

	if (load_relaxed(&order->armed) == 0)
		return 0;
	/* The count itself elects the one call that fails (F2). */
	if (fetch_add_relaxed(&order->seen, 1) + 1 != load_relaxed(&order->nth))
		return 0;
	return -(int)load_relaxed(&order->error);
}

void os_fault_arm(enum os_call call, unsigned nth, int error)
{
	struct fault_order *order;

	if ((unsigned)call >= OS_CALL_COUNT || error < 0)
		return;
	order = &orders[call];
	store_relaxed(&order->armed, 0);
	store_relaxed(&order->seen, 0);
	store_relaxed(&order->nth, nth);
	store_relaxed(&order->error, (uint32_t)error);
	store_relaxed(&order->armed, 1);
	store_relaxed(&os_fault_armed, 1);
}

void os_fault_disarm(void)
{
	store_relaxed(&os_fault_armed, 0);
	for (unsigned call = 0; call < OS_CALL_COUNT; call++) {
		store_relaxed(&orders[call].armed, 0);
		store_relaxed(&orders[call].seen, 0);
	}
}

unsigned os_fault_count(enum os_call call)
{
	return (unsigned)call < OS_CALL_COUNT ? load_relaxed(&orders[call].seen) : 0;
}

/* ---- orders as text -------------------------------------------------------------------------- */

static int parse_call(const char *word)
{
	for (int call = 0; call < OS_CALL_COUNT; call++)
		if (strcmp(word, call_names[call]) == 0)
			return call;
	return -EINVAL;
}

static int parse_number(const char *word, unsigned long max)
{
	unsigned long value;
	char *end;

	if (word[0] < '0' || word[0] > '9')
		return -EINVAL;
	value = strtoul(word, &end, 10);
	return *end == '\0' && value <= max ? (int)value : -EINVAL;
}

/* A positive errno, by number or as ENAME. */
static int parse_error(const char *word)
{
	for (int error = 1; error < 4096; error++) {
		const char *name = strerrorname_np(error);

		if (name != NULL && strcmp(word, name) == 0)
			return error;
	}
	return parse_number(word, 4095);
}

/* One "call:nth:errno"; item is cut up. With arm false it is only checked. */
static int parse_order(char *item, bool arm)
{
	char *rest = NULL;
	char *words[3];
	int call, nth, error;

	for (unsigned i = 0; i < 3; i++) {
		words[i] = strtok_r(i == 0 ? item : NULL, ":", &rest);
		if (words[i] == NULL)
			return -EINVAL;
	}
	call = parse_call(words[0]);
	nth = parse_number(words[1], INT_MAX);
	error = parse_error(words[2]);
	if (call < 0 || nth < 0 || error < 0 || *rest != '\0')
		return -EINVAL;
	if (arm)
		os_fault_arm((enum os_call)call, (unsigned)nth, error);
	return 0;
}

static int parse_orders(const char *text, bool arm)
{
	char copy[512];
	char *rest = NULL;
	int r = -EINVAL;

	if (strlen(text) >= sizeof(copy))
		return -EINVAL;
	strcpy(copy, text);
	for (char *item = strtok_r(copy, ",", &rest); item != NULL;
	     item = strtok_r(NULL, ",", &rest)) {
		r = parse_order(item, arm);
		if (r < 0)
			return r;
	}
	return r;
}

int os_fault_arm_text(const char *text)
{
	int r = parse_orders(text, false);

	return r < 0 ? r : parse_orders(text, true);
}

#ifdef SHALE_FAULT_ENV
/* Only in builds for testing: a program under test is made to fail without changing it. */
__attribute__((constructor)) static void fault_from_environment(void)
{
	const char *text = getenv("SHALE_FAULT");

	if (text != NULL)
		(void)os_fault_arm_text(text);
}
#endif
