/* SPDX-License-Identifier: MIT */
/*
 * process.c - who we are, what time it is, random bytes, and what happens around fork.
 *
 * Owner:     the process. State: the fork mutex and the table of fork callbacks, both private.
 * Invariant: P1  while somebody is inside the fork guard, no fork() of this process proceeds
 *            P2  a forked child starts with the guard free, then runs every callback once
 * Ordering:  the mutex; no atomics.
 * Lifetime:  handlers are registered once and stay as long as the library is loaded.
 * Death:     nothing here outlives the process.
 */
#define _GNU_SOURCE
#include "os/os.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os/sys.h"

/* ---- time, randomness, numbers --------------------------------------------------------------- */

/* None of these three can fail with these arguments, so they have no hook. */
uint64_t os_clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

uint64_t os_clock_coarse_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

uint32_t os_thread_id(void)
{
	return (uint32_t)syscall(SYS_gettid);
}

int os_random(void *buffer, size_t size)
{
	char *next = buffer;

	while (size > 0) {
		ssize_t n;

		retry_eintr(n, sys_getrandom(next, size));
		if (n < 0)
			return (int)n;
		next += n;
		size -= (size_t)n;
	}
	return 0;
}

int os_read_text(const char *path, char *ret_text, size_t size)
{
	_cleanup_os_close_ int fd = -EBADF;
	size_t length = 0;
	ssize_t n;

	if (size == 0)
		return -EINVAL;
	retry_eintr(fd, sys_open(path, O_RDONLY));
	if (fd < 0)
		return fd;
	do {
		retry_eintr(n, sys_read(fd, ret_text + length, size - 1 - length));
		if (n < 0)
			return (int)n;
		length += (size_t)n;
	} while (n > 0 && length < size - 1);
	if (length > 0 && ret_text[length - 1] == '\n')
		length--;
	ret_text[length] = '\0';
	return (int)length;
}

/* ---- identity -------------------------------------------------------------------------------- */

/*
 * State letter and start time of /proc/PID/stat: fields 3 and 22. The name in field 2 may hold
 * blanks and brackets, so count from the last bracket.
 */
static int parse_stat(const char *text, char *ret_state, uint64_t *ret_start_ticks)
{
	const char *next = strrchr(text, ')');
	char state;

	if (next == NULL || next[1] != ' ' || next[2] == '\0')
		return -EBADMSG;
	state = next[2];
	next += 2;
	for (unsigned field = 3; field < 22; field++) {
		next = strchr(next, ' ');
		if (next == NULL)
			return -EBADMSG;
		next++;
	}
	*ret_state = state;
	*ret_start_ticks = strtoull(next, NULL, 10);
	return 0;
}

/* -ENOENT: no such process, or no /proc. */
static int read_stat(const char *path, char *ret_state, uint64_t *ret_start_ticks)
{
	char text[1024];
	int r = os_read_text(path, text, sizeof(text));

	if (r == -ESRCH)
		return -ENOENT;
	return r < 0 ? r : parse_stat(text, ret_state, ret_start_ticks);
}

/* Our pid namespace; 0 when /proc cannot say. */
static uint64_t own_pid_namespace(void)
{
	_cleanup_os_close_ int fd = -EBADF;
	struct stat st;

	retry_eintr(fd, sys_open("/proc/self/ns/pid", O_RDONLY));
	if (fd < 0 || sys_fstat(fd, &st) < 0)
		return 0;
	return st.st_ino;
}

/* The number pidfs gives this process for as long as the machine is up; 0 before kernel 6.9. */
static uint64_t pidfs_inode(int pidfd)
{
	struct statfs fs;
	struct stat st;

	if (sys_fstatfs(pidfd, &fs) < 0 || fs.f_type != FS_PIDFS || sys_fstat(pidfd, &st) < 0)
		return 0;
	return st.st_ino;
}

int os_process_self(struct os_process_id *ret_id)
{
	struct os_process_id id = {.pid = (uint32_t)getpid()};
	_cleanup_os_close_ int pidfd = -EBADF;
	char state;

	if (read_stat("/proc/self/stat", &state, &id.start_ticks) < 0)
		id.start_ticks = 0;
	id.pid_ns = own_pid_namespace();
	pidfd = sys_pidfd_open((pid_t)id.pid);
	if (pidfd >= 0)
		id.pidfs_ino = pidfs_inode(pidfd);
	*ret_id = id;
	return 0;
}

/* Readable: it has exited, be it reaped or not. */
static int pidfd_exited(int pidfd)
{
	struct pollfd wait = {.fd = pidfd, .events = POLLIN};
	int r;

	retry_eintr(r, sys_poll(&wait, 1, 0));
	return r;
}

/* Without pidfs: the same number with the same start is the same process. */
static int same_start(const struct os_process_id *id)
{
	char path[64];
	uint64_t start_ticks;
	char state;
	int r;

	snprintf(path, sizeof(path), "/proc/%u/stat", id->pid);
	r = read_stat(path, &state, &start_ticks);
	if (r == -ENOENT)
		return id->start_ticks == 0 ? -EOPNOTSUPP : 0;
	if (r < 0)
		return r;
	if (id->start_ticks == 0)
		return -EOPNOTSUPP;
	return start_ticks == id->start_ticks && state != 'Z' && state != 'X';
}

int os_process_visible(const struct os_process_id *id)
{
	_cleanup_os_close_ int pidfd = -EBADF;
	uint64_t pidfs_ino;
	int r;

	if (id->pid_ns == 0 || id->pid_ns != own_pid_namespace())
		return -ESRCH;
	pidfd = sys_pidfd_open((pid_t)id->pid);
	/* EINVAL and ENOENT: the number is a thread's by now. */
	if (pidfd == -ESRCH || pidfd == -EINVAL || pidfd == -ENOENT)
		return 0;
	if (pidfd == -ENOSYS || pidfd == -EPERM)
		return same_start(id);
	if (pidfd < 0)
		return pidfd;
	r = pidfd_exited(pidfd);
	if (r != 0)
		return r < 0 ? r : 0;
	pidfs_ino = pidfs_inode(pidfd);
	if (pidfs_ino != 0 && id->pidfs_ino != 0)
		return pidfs_ino == id->pidfs_ino;
	return same_start(id);
}

/* ---- fork ------------------------------------------------------------------------------------ */

#define FORK_CALLBACKS_MAX 16

static pthread_mutex_t fork_mutex = PTHREAD_MUTEX_INITIALIZER;
static bool fork_registered;
static void (*fork_callbacks[FORK_CALLBACKS_MAX])(void);
static unsigned fork_callback_count;

static void fork_prepare(void)
{
	pthread_mutex_lock(&fork_mutex);
}

static void fork_parent(void)
{
	pthread_mutex_unlock(&fork_mutex);
}

/* The forking thread took the mutex in fork_prepare and is the child's only thread: it may free it. */
static void fork_child(void)
{
	unsigned count = fork_callback_count;

	pthread_mutex_unlock(&fork_mutex);
	for (unsigned i = 0; i < count; i++)
		fork_callbacks[i]();
}

/* Under fork_mutex. */
static int fork_register_locked(void)
{
	int r;

	if (fork_registered)
		return 0;
	r = os_fault(OS_CALL_ATFORK);
	if (r < 0)
		return r;
	r = pthread_atfork(fork_prepare, fork_parent, fork_child);
	if (r != 0)
		return -r;
	fork_registered = true;
	return 0;
}

int os_fork_guard_enter(void)
{
	int r;

	pthread_mutex_lock(&fork_mutex);
	r = fork_register_locked();
	if (r < 0)
		pthread_mutex_unlock(&fork_mutex);
	return r;
}

/*
 * At load time: a fork() that began before the handlers were registered runs without them, so they
 * must be there before any guarded descriptor is. If this fails, the first guard says so.
 */
__attribute__((constructor)) static void fork_register_early(void)
{
	if (os_fork_guard_enter() == 0)
		os_fork_guard_leave();
}

void os_fork_guard_leave(void)
{
	pthread_mutex_unlock(&fork_mutex);
}

static int add_callback_locked(void (*callback)(void))
{
	for (unsigned i = 0; i < fork_callback_count; i++)
		if (fork_callbacks[i] == callback)
			return 0;
	if (fork_callback_count == FORK_CALLBACKS_MAX)
		return -ENOSPC;
	fork_callbacks[fork_callback_count++] = callback;
	return 0;
}

int os_on_fork_child(void (*callback)(void))
{
	int r;

	assert(callback != NULL);
	r = os_fork_guard_enter();
	if (r < 0)
		return r;
	r = add_callback_locked(callback);
	os_fork_guard_leave();
	return r;
}
