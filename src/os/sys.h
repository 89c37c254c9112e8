/* SPDX-License-Identifier: MIT */
/*
 * sys.h - the raw kernel calls, each once: hook, call, -errno. Only files of src/os include it.
 *
 * Every sys_x() first asks os_fault(): an injected error takes the place of the call. A result is
 * 0 or the call's own non-negative value, or -errno. Nothing here retries; that is policy and
 * belongs to the caller (retry_eintr).
 *
 * Numbers that Debian 12's headers may lack are given here under #ifndef; a kernel that lacks the
 * call answers ENOSYS or EINVAL, and the caller has the fallback.
 */
#ifndef SHALE_OS_SYS_H
#define SHALE_OS_SYS_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/atomic.h"
#include "os/os.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* 6.3 */
#endif
#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21U << 26)
#define MFD_HUGE_1GB (30U << 26)
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x0020 /* 6.3 */
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22 /* 5.14 */
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* 6.1 */
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* 6.13 */
#endif
#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449 /* 5.16; the same number on every architecture */
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434 /* 5.3 */
#endif
#ifndef SYS_io_uring_setup
#define SYS_io_uring_setup    425 /* 5.1 */
#define SYS_io_uring_enter    426
#define SYS_io_uring_register 427
#endif

#define FS_TMPFS     0x01021994L
#define FS_HUGETLBFS 0x958458f6L
#define FS_PIDFS     0x50494446L /* 6.9 */

/* ---- the hook: fault.c has the other half ---------------------------------------------------- */

/* 0 while nothing is armed. Relaxed: arming orders nothing, a test arms before it calls. */
extern uint32_t os_fault_armed;
int os_fault_slow(enum os_call call);

/* 0, or the injected -errno that takes the call's place. */
static inline int os_fault(enum os_call call)
{
	if (__builtin_expect(load_relaxed(&os_fault_armed) == 0, 1))
		return 0;
	return os_fault_slow(call);
}

/* libc's -1 and errno become -errno. */
static inline int sys_result(int r)
{
	return r < 0 ? -errno : r;
}

/*
 * retry_eintr(r, expression): expression again until it is not interrupted. Each turn of the loop
 * means that a signal handler ran, so it is bounded by the signals that arrive.
 */
#define retry_eintr(r, expression)  \
	do                          \
		(r) = (expression); \
	while ((r) == -EINTR)

/* ---- descriptors and files ------------------------------------------------------------------- */

static inline int sys_memfd_create(const char *label, unsigned flags)
{
	int r = os_fault(OS_CALL_MEMFD_CREATE);

	return r < 0 ? r : sys_result(memfd_create(label, flags));
}

static inline int sys_ftruncate(int fd, off_t size)
{
	int r = os_fault(OS_CALL_FTRUNCATE);

	return r < 0 ? r : sys_result(ftruncate(fd, size));
}

static inline int sys_fchmod(int fd, mode_t mode)
{
	int r = os_fault(OS_CALL_FCHMOD);

	return r < 0 ? r : sys_result(fchmod(fd, mode));
}

static inline int sys_add_seals(int fd, int seals)
{
	int r = os_fault(OS_CALL_ADD_SEALS);

	return r < 0 ? r : sys_result(fcntl(fd, F_ADD_SEALS, seals));
}

static inline int sys_get_seals(int fd)
{
	int r = os_fault(OS_CALL_GET_SEALS);

	return r < 0 ? r : sys_result(fcntl(fd, F_GET_SEALS));
}

static inline int sys_getfl(int fd)
{
	int r = os_fault(OS_CALL_GETFL);

	return r < 0 ? r : sys_result(fcntl(fd, F_GETFL));
}

static inline int sys_dup(int fd)
{
	int r = os_fault(OS_CALL_DUP);

	return r < 0 ? r : sys_result(fcntl(fd, F_DUPFD_CLOEXEC, 3));
}

static inline int sys_fstat(int fd, struct stat *ret_stat)
{
	int r = os_fault(OS_CALL_FSTAT);

	return r < 0 ? r : sys_result(fstat(fd, ret_stat));
}

static inline int sys_fstatfs(int fd, struct statfs *ret_statfs)
{
	int r = os_fault(OS_CALL_FSTATFS);

	return r < 0 ? r : sys_result(fstatfs(fd, ret_statfs));
}

static inline int sys_open(const char *path, int flags)
{
	int r = os_fault(OS_CALL_OPEN);

	return r < 0 ? r : sys_result(open(path, flags | O_CLOEXEC | O_NOCTTY));
}

static inline ssize_t sys_read(int fd, void *buffer, size_t size)
{
	int r = os_fault(OS_CALL_READ);
	ssize_t n;

	if (r < 0)
		return r;
	n = read(fd, buffer, size);
	return n < 0 ? -errno : n;
}

static inline ssize_t sys_write(int fd, const void *buffer, size_t size)
{
	int r = os_fault(OS_CALL_WRITE);
	ssize_t n;

	if (r < 0)
		return r;
	n = write(fd, buffer, size);
	return n < 0 ? -errno : n;
}

static inline int sys_eventfd(void)
{
	int r = os_fault(OS_CALL_EVENTFD);

	return r < 0 ? r : sys_result(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

/* The number is free afterwards in any case, so the injected error comes after the close. */
static inline int sys_close(int fd)
{
	int r = os_fault(OS_CALL_CLOSE);
	int closed = sys_result(close(fd));

	return r < 0 ? r : closed;
}

static inline int sys_fallocate(int fd, int mode, off_t offset, off_t size)
{
	int r = os_fault(mode == 0 ? OS_CALL_FALLOCATE : OS_CALL_PUNCH);

	return r < 0 ? r : sys_result(fallocate(fd, mode, offset, size));
}

static inline int sys_lock(int fd, const struct flock *lock)
{
	int r = os_fault(OS_CALL_LOCK);

	return r < 0 ? r : sys_result(fcntl(fd, F_OFD_SETLK, lock));
}

static inline int sys_lock_probe(int fd, struct flock *lock)
{
	int r = os_fault(OS_CALL_LOCK_PROBE);

	return r < 0 ? r : sys_result(fcntl(fd, F_OFD_GETLK, lock));
}

/* ---- mappings -------------------------------------------------------------------------------- */

static inline int sys_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset,
			   void **ret_base)
{
	int r = os_fault(OS_CALL_MMAP);
	void *base;

	if (r < 0)
		return r;
	base = mmap(at, size, protection, flags, fd, offset);
	if (base == MAP_FAILED)
		return -errno;
	*ret_base = base;
	return 0;
}

static inline int sys_munmap(void *base, size_t size)
{
	int r = os_fault(OS_CALL_MUNMAP);

	return r < 0 ? r : sys_result(munmap(base, size));
}

static inline int sys_madvise(void *base, size_t size, int advice)
{
	int r = os_fault(OS_CALL_MADVISE);

	return r < 0 ? r : sys_result(madvise(base, size, advice));
}

static inline int sys_mprotect(void *base, size_t size, int protection)
{
	int r = os_fault(OS_CALL_MPROTECT);

	return r < 0 ? r : sys_result(mprotect(base, size, protection));
}

static inline int sys_mincore(void *base, size_t size, unsigned char *ret_there)
{
	int r = os_fault(OS_CALL_MINCORE);

	return r < 0 ? r : sys_result(mincore(base, size, ret_there));
}

/* ---- waiting --------------------------------------------------------------------------------- */

static inline int sys_futex_wait(const uint32_t *word, uint32_t expected, uint32_t mask,
				 const struct timespec *deadline)
{
	int r = os_fault(OS_CALL_FUTEX_WAIT);

	return r < 0 ? r
		     : sys_result((int)syscall(SYS_futex, word, FUTEX_WAIT_BITSET, expected,
					       deadline, NULL, mask));
}

static inline int sys_futex_wake(const uint32_t *word, unsigned count, uint32_t mask)
{
	int r = os_fault(OS_CALL_FUTEX_WAKE);

	return r < 0 ? r
		     : sys_result((int)syscall(SYS_futex, word, FUTEX_WAKE_BITSET, count, NULL,
					       NULL, mask));
}

/* struct futex_waitv as the kernel reads it, for headers before 5.16. */
struct sys_futex_waitv {
	uint64_t val;
	uint64_t uaddr;
	uint32_t flags;
	uint32_t reserved;
};
#define SYS_FUTEX_32 2U

static inline int sys_futex_waitv(const struct sys_futex_waitv *waiters, unsigned count,
				  const struct timespec *deadline)
{
	int r = os_fault(OS_CALL_FUTEX_WAITV);

	return r < 0 ? r
		     : sys_result((int)syscall(SYS_futex_waitv, waiters, count, 0, deadline,
					       CLOCK_MONOTONIC));
}

static inline int sys_poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
	int r = os_fault(OS_CALL_POLL);

	return r < 0 ? r : sys_result(poll(fds, count, timeout_ms));
}

/* ---- sockets --------------------------------------------------------------------------------- */

static inline ssize_t sys_sendmsg(int socket, const struct msghdr *message)
{
	int r = os_fault(OS_CALL_SENDMSG);
	ssize_t n;

	if (r < 0)
		return r;
	n = sendmsg(socket, message, MSG_NOSIGNAL);
	return n < 0 ? -errno : n;
}

static inline ssize_t sys_recvmsg(int socket, struct msghdr *message)
{
	int r = os_fault(OS_CALL_RECVMSG);
	ssize_t n;

	if (r < 0)
		return r;
	n = recvmsg(socket, message, MSG_CMSG_CLOEXEC);
	return n < 0 ? -errno : n;
}

/* ---- processes and CPUs ---------------------------------------------------------------------- */

static inline int sys_pidfd_open(pid_t pid)
{
	int r = os_fault(OS_CALL_PIDFD_OPEN);

	return r < 0 ? r : sys_result((int)syscall(SYS_pidfd_open, pid, 0));
}

static inline ssize_t sys_getrandom(void *buffer, size_t size)
{
	int r = os_fault(OS_CALL_RANDOM);
	ssize_t n;

	if (r < 0)
		return r;
	n = getrandom(buffer, size, 0);
	return n < 0 ? -errno : n;
}

static inline int sys_affinity(size_t size, cpu_set_t *ret_set)
{
	int r = os_fault(OS_CALL_AFFINITY);

	return r < 0 ? r : sys_result(sched_getaffinity(0, size, ret_set));
}

static inline int sys_membarrier(int command)
{
	int r = os_fault(OS_CALL_MEMBARRIER);

	return r < 0 ? r : sys_result((int)syscall(SYS_membarrier, command, 0, 0));
}

static inline int sys_uring_setup(unsigned entries, void *parameters)
{
	int r = os_fault(OS_CALL_URING);

	return r < 0 ? r : sys_result((int)syscall(SYS_io_uring_setup, entries, parameters));
}

static inline int sys_uring_enter(int ring, unsigned submit, unsigned wait, unsigned flags)
{
	int r = os_fault(OS_CALL_URING);

	return r < 0 ? r
		     : sys_result((int)syscall(SYS_io_uring_enter, ring, submit, wait, flags, NULL,
					       0));
}

static inline int sys_uring_register(int ring, unsigned what, void *argument, unsigned count)
{
	int r = os_fault(OS_CALL_URING);

	return r < 0 ? r
		     : sys_result((int)syscall(SYS_io_uring_register, ring, what, argument, count));
}

#endif
