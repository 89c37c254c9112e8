/* SPDX-License-Identifier: MIT */
/*
 * os.h - the contract with the kernel: every system call of shale is made behind one of these.
 *
 * Owner:     nobody; the functions keep no state apart from the fork callbacks (process.c), the
 *            fork mutex (process.c) and the fault table (fault.c). All are safe to call from any
 *            thread; none is async-signal-safe unless it says so.
 * Results:   0 or a non-negative value, or a negative errno. `errno` itself means nothing.
 *            ret_* is written only on success and must not be NULL unless the text says so.
 * Interrupt: EINTR is retried inside, except where a caller sleeps (futexes).
 * Faults:    each kernel call first asks os_fault (sys.h, fault.c), so a test can make the n-th
 *            call of any kind fail. An injected error takes the path the real one would take.
 * Floor:     Linux 6.1 (Debian 12). What came later has a fallback, named at the function and by
 *            os_probe(). The other floor is /proc: only os_reopen() and os_life_take() need it.
 * Death:     what a killed process leaves is said at os_life_take(); no other function leaves
 *            anything that outlives the process, except the bytes of a memfd others hold.
 *
 * Errors that every function taking an fd can return and that are not repeated below:
 *   -EBADF   not an open descriptor, or not open in the mode the call needs
 *   -ENOSYS, -EPERM   a seccomp filter refuses the call
 */
#ifndef SHALE_OS_OS_H
#define SHALE_OS_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- fault.c: making calls fail ------------------------------------------------------------- */

/* One name for each kind of kernel call; os_call_name() spells it in lower case. */
enum os_call {
	OS_CALL_MEMFD_CREATE,
	OS_CALL_FTRUNCATE,
	OS_CALL_FCHMOD,
	OS_CALL_ADD_SEALS,
	OS_CALL_GET_SEALS,
	OS_CALL_GETFL,
	OS_CALL_DUP,
	OS_CALL_FSTAT,
	OS_CALL_FSTATFS,
	OS_CALL_OPEN,
	OS_CALL_READ,
	OS_CALL_CLOSE,
	OS_CALL_FALLOCATE,
	OS_CALL_PUNCH,
	OS_CALL_LOCK,
	OS_CALL_LOCK_PROBE,
	OS_CALL_MMAP,
	OS_CALL_MUNMAP,
	OS_CALL_MADVISE,
	OS_CALL_MPROTECT,
	OS_CALL_MINCORE,
	OS_CALL_FUTEX_WAIT,
	OS_CALL_FUTEX_WAKE,
	OS_CALL_FUTEX_WAITV,
	OS_CALL_SENDMSG,
	OS_CALL_RECVMSG,
	OS_CALL_PIDFD_OPEN,
	OS_CALL_POLL,
	OS_CALL_RANDOM,
	OS_CALL_AFFINITY,
	OS_CALL_MEMBARRIER,
	OS_CALL_MBIND,
	OS_CALL_SET_MEMPOLICY,
	OS_CALL_GET_MEMPOLICY,
	OS_CALL_MOVE_PAGES,
	OS_CALL_URING,
	OS_CALL_ATFORK,
	OS_CALL_WRITE,
	OS_CALL_EVENTFD,
	OS_CALL_THREAD,
	OS_CALL_COUNT
};

/*
 * The nth (1 = the next) following call of that kind, by any thread of this process, fails with
 * -error without reaching the kernel (a close is still done, so that no test leaks). nth 0 only
 * counts. Several kinds may be armed at once; arming one kind again replaces its order and starts
 * its count again. `error` is a positive errno. Inherited by a forked child as it stands.
 */
void os_fault_arm(enum os_call call, unsigned nth, int error);
/* Forget every order and every count: all calls reach the kernel again. */
void os_fault_disarm(void);
/* Calls of that kind since it was armed (0 when nothing is armed), the failed one included. */
unsigned os_fault_count(enum os_call call);
/* "memfd_create", ...; never NULL. */
const char *os_call_name(enum os_call call);
/*
 * The form of SHALE_FAULT: "call:nth:errno", errno as number or as ENAME, several joined by ','.
 * -EINVAL when it does not parse (nothing is armed then). Builds with SHALE_FAULT_ENV defined do
 * this at load time with the environment variable SHALE_FAULT; other builds never look at it.
 */
int os_fault_arm_text(const char *text);

/* ---- memfd.c: the file behind a segment ------------------------------------------------------ */

/* The pages a memfd is made of. THP is a 4 KiB memfd that asks for huge ones by os_advise(). */
enum os_page_kind { OS_PAGES_4K, OS_PAGES_THP, OS_PAGES_2M, OS_PAGES_1G };

/*
 * A new, empty, unsealed memfd; CLOEXEC, sealing allowed, never executable: NOEXEC_SEAL where the
 * kernel has it (6.3), else fchmod 0666. `label` shows in /proc/PID/maps as /memfd:label; at most
 * 249 bytes. Returns the fd. Creating says nothing about pages being there: os_commit() does.
 *   -EINVAL      label too long, or kind out of range
 *   -ENODEV      this kernel has no huge pages of that size
 *   -EMFILE, -ENFILE   descriptor table of the process, of the system, is full
 *   -EACCES      vm.memfd_noexec=2 refuses what the fallback asks (never with NOEXEC_SEAL)
 *   -ENOMEM      no kernel memory; -EPERM: hugetlb refused to this user (vm.hugetlb_shm_group)
 */
int os_memfd_create(const char *label, enum os_page_kind kind);
/*
 * ftruncate. The new part is a hole: no page is taken.
 *   -EINVAL   beyond INT64_MAX, or not a multiple of the huge page of a hugetlb memfd
 *   -EPERM    sealed against it;  -EFBIG  beyond what the file system can index
 */
int os_memfd_set_size(int fd, uint64_t size_bytes);
/*
 * Adds SHRINK, GROW and SEAL: from here on the size is a fact. Idempotent: 0 when they are there.
 *   -EPERM    SEAL is already set without the others (a plain tmpfs file, a foreign memfd), or the
 *             fd is read-only;   -EINVAL  not a memfd
 */
int os_memfd_seal(int fd);

struct os_memfd_info {
	uint64_t size_bytes;
	uint64_t dev, ino;  /* identity, for os_memfd_same() */
	uint64_t page_size; /* 4096, or the huge page size of a hugetlb memfd */
	unsigned seals;     /* F_SEAL_* */
	bool hugetlb;
	bool writable;   /* this description was opened for reading and writing */
	bool executable; /* any x bit in the mode: nothing of ours has one */
};
/*
 * Is that really a memfd, and which? Asks nothing of a foreign file system before the kernel itself
 * has said "shmem or hugetlb": a FUSE or NFS file that never answers cannot hang us.
 *   -EBADF        not an open descriptor
 *   -EBADFD       O_PATH: a name, nothing can be done through it
 *   -EACCES       opened write-only: cannot be mapped
 *   -EMEDIUMTYPE  no seals there, so not a memfd: pipe, socket, directory, device, eventfd, pidfd,
 *                 file of ext4, FUSE, NFS, secretmem; or a file system that is neither tmpfs nor
 *                 hugetlbfs, or not a regular file
 * A plain file on a tmpfs mount does pass: it has the seal SEAL alone, and the caller refuses it
 * for the missing SHRINK|GROW.
 */
int os_memfd_identify(int fd, struct os_memfd_info *ret_info);
/* True when fd is open and still is that file: the program may have closed and reused the number. */
bool os_memfd_same(int fd, uint64_t dev, uint64_t ino);

/* Can nobody shrink or grow the file any more? (of the seals that os_memfd_identify() read) */
bool os_memfd_size_is_sealed(const struct os_memfd_info *info);
/*
 * A fresh open file description of the same file through /proc/thread-self/fd, CLOEXEC: it shares
 * no lock and no offset with fd. Use only on what os_memfd_identify() accepted. Returns the fd.
 *   -EOPNOTSUPP   /proc is not mounted, or shows another pid namespace, or is not the real one
 *   -EACCES       file mode forbids it (a read-only export to another user)
 *   -EMFILE, -ENFILE, -ENOMEM
 */
int os_reopen(int fd, bool writable);
/* Duplicate, CLOEXEC, number 3 or above; the same description. -EMFILE */
int os_fd_dup(int fd);
/* Close. Whatever the result, the number is free. Negative fd: 0. -EIO, -EINTR */
int os_fd_close(int fd);

/* What the library opens, and closes much later: the program may have other files there by then. */
enum os_fd_kind { OS_FD_URING, OS_FD_NOTICE, OS_FD_PSI };
/* Is there such a one at the number? False also where /proc does not tell. */
bool os_fd_is(int fd, enum os_fd_kind kind);
/* Closes it if so. -EBADF */
int os_fd_close_if(int fd, enum os_fd_kind kind);

static inline void os_closep(int *fd)
{
	if (*fd >= 0)
		(void)os_fd_close(*fd);
}
#define _cleanup_os_close_ __attribute__((cleanup(os_closep)))

/*
 * Commit: give [offset, offset + size) real pages, zeroed where there were none; what was there
 * stays. Placement: the inode's policy on shmem, the calling thread's on hugetlb (numa below).
 * Interrupted by signals it goes on in smaller pieces, so a profiling timer cannot starve it. On
 * error part of the range may have got pages; they are zero, give them back with os_decommit()
 * if the range was a hole before.
 *   -ENOMEM   memory, or huge-page pool, or hugetlb limit exhausted (the kernel's ENOSPC)
 *   -EINVAL   size 0 or offset + size beyond INT64_MAX;  -EPERM  beyond the end of a sealed file
 *   -EFBIG    beyond the largest file;  -ENODEV, -ESPIPE, -EOPNOTSUPP  not a memfd
 */
int os_commit(int fd, uint64_t offset, uint64_t size);
/*
 * Give the whole pages inside the range back to the kernel; they read as zero and are holes. Parts
 * of pages at the edges are only zeroed on shmem, left alone on hugetlb. All mappings everywhere
 * lose the pages.
 *   -EPERM    sealed WRITE or FUTURE_WRITE;  -EINVAL  size 0;  -EBADF  also: read-only
 */
int os_decommit(int fd, uint64_t offset, uint64_t size);
/* Bytes of memory the file holds now, swapped-out ones included. */
int os_backing_bytes(int fd, uint64_t *ret_bytes);

/*
 * Locks of an open file description on one byte, best beyond the end of the file: no byte need be
 * there. They belong to the description: a dup, a forked child and a passed fd share them, and
 * they go when the last of these goes. Taking again converts; never waits.
 *   -EAGAIN   another description holds a lock that conflicts
 *   -EBADF    also: exclusive on a read-only, shared on a write-only description
 *   -EINVAL   byte above INT64_MAX - 1;  -ENOLCK  no kernel memory for locks
 */
int os_lock_byte(int fd, uint64_t byte, bool exclusive);
/* Drops it; 0 when there was none. */
int os_unlock_byte(int fd, uint64_t byte);
/* 1: some other description holds the byte, shared or exclusive; 0: free. Read-only will do. */
int os_lock_probe(int fd, uint64_t byte);

/*
 * A lock that lives exactly as long as this process's memory. It sits on a description that only
 * one mapping keeps alive: never touched, not inherited by fork. So it is held although the program
 * closes every fd, and goes with exit, SIGKILL (even while a forked child lives), exec or
 * os_life_drop(). Exclusive when writable, else shared. The few calls that have the fd open run
 * under the fork guard; a child made by a bare clone() in that window holds the lock until it
 * execs or exits: a false "alive", bounded by that child.
 *   -EAGAIN      held by another process, or by this one (each take opens its own description)
 *   -EOPNOTSUPP  no /proc (os_reopen)
 *   -EACCES, -EMFILE, -ENFILE, -ENOMEM, -ENOLCK, -EINVAL as at os_reopen, os_lock_byte, mmap
 */
struct os_life {
	void *pin;
	size_t pin_size; /* 0: nothing held */
};
int os_life_take(int fd, uint64_t byte, bool writable, struct os_life *ret_life);
/* Gives it up; harmless on an empty or dropped one. Not for a forked child: there it is a no-op
 * on the lock, and the caller must forget the struct instead. */
void os_life_drop(struct os_life *life);
/*
 * os_lock_probe() under the name its reader expects: 1 the holder lives, 0 nobody holds it. Final
 * once the holder's pidfd is readable or it has been reaped. A socket of the holder may be at its
 * end a moment earlier than the lock goes, and a vfork child, or somebody who just reads
 * /proc/PID/maps, keeps its memory, hence the lock, for that long: ask again.
 */
int os_life_probe(int fd, uint64_t byte);

/* ---- mapping.c ------------------------------------------------------------------------------- */

/*
 * MAP_SHARED|MAP_NORESERVE at an address aligned to `alignment` (0: a page; else a power of two).
 * offset, size and alignment must be multiples of the file's page size. Nothing is touched or
 * reserved: a page is there only after os_commit().
 *   -EINVAL   size 0, alignment not a power of two, or something not a multiple as said
 *   -EACCES   writable on a read-only description
 *   -EPERM    sealed against new writable mappings
 *   -ENOMEM   address space, number of mappings (vm.max_map_count) or RLIMIT_AS
 *   -ENODEV   that file cannot be mapped
 */
int os_map_shared(int fd, uint64_t offset, size_t size, bool writable, size_t alignment,
		  void **ret_base);
/* Anonymous, zero, NORESERVE, not shared; size a multiple of 4096. -EINVAL, -ENOMEM as above. */
int os_map_private(size_t size, size_t alignment, void **ret_base);
/* Anonymous and private; a forked child finds zeroes there. -EINVAL, -ENOMEM */
int os_map_wipe_on_fork(size_t size, void **ret_base);
/* base and size as mapped (or a part, in whole pages). -EINVAL; -ENOMEM: would split too many */
int os_unmap(void *base, size_t size);

enum os_advice {
	OS_DONTFORK,
	OS_HUGEPAGE,
	OS_NOHUGEPAGE,
	OS_COLLAPSE,
	OS_DONTNEED,
	OS_DONTDUMP,
	OS_POPULATE_READ,
	OS_POPULATE_WRITE,
	OS_GUARD_INSTALL, /* touching the pages is SIGSEGV; kernel 6.15 for shared memory */
	OS_GUARD_REMOVE
};
/*
 * madvise on whole pages.
 *   -EINVAL   range not aligned to the mapping's pages; kernel without transparent huge pages
 *             (HUGEPAGE, NOHUGEPAGE, COLLAPSE); COLLAPSE: kernel before 6.1, hugetlb, or no page of
 *             the 2 MiB is resident
 *   -ENOMEM   not mapped; no memory or no huge page for COLLAPSE and POPULATE_* (the kernel says
 *             EFAULT for an empty huge-page pool)
 *   -EAGAIN, -EBUSY  COLLAPSE: the pages are in use just now; try later
 *   -EPERM    POPULATE_WRITE where a seal forbids it; -EHWPOISON a bad page in the range
 */
int os_advise(void *base, size_t size, enum os_advice advice);
/* Lets this process read and write the pages, or not touch them. -ENOMEM: would split too many mappings. */
int os_protect(void *base, size_t size, bool accessible);

/*
 * Which 4 KiB pages of a mapping of shmem are in memory; ret_there[i] is 1 or 0. Touches nothing and
 * brings nothing back. On hugetlb it only says what this process has mapped. A description that
 * could not be opened for writing by this user is told 1 for every page.
 *   -EINVAL  base not aligned to 4096;  -ENOMEM  not mapped;  -ENOSYS
 */
int os_resident(void *base, size_t size, unsigned char *ret_there);

/* ---- futex.c: shared futexes only ------------------------------------------------------------ */

/* Deadlines: absolute nanoseconds of CLOCK_MONOTONIC as os_clock_ns() gives them. 0: only look. */
#define OS_NO_DEADLINE UINT64_MAX
/* Mask that meets every other mask. */
#define OS_FUTEX_ANY UINT32_MAX

/*
 * Sleeps while *word == expected. The word may lie in a mapping without write access.
 *   0          woken, or woken for nothing: test again
 *   -EAGAIN    *word is not expected
 *   -ETIMEDOUT the deadline came
 *   -EINTR     a signal handler ran
 *   -EINVAL    mask 0 or word not aligned to 4
 *   -EFAULT    not mapped, or its page is gone (file truncated, pool empty)
 */
int os_futex_wait(const uint32_t *word, uint32_t expected, uint32_t mask, uint64_t deadline_ns);
/* Wakes up to count waiters whose mask meets `mask`; returns how many. -EINVAL, -EFAULT as above */
int os_futex_wake(const uint32_t *word, unsigned count, uint32_t mask);

struct os_futex_waiter {
	const uint32_t *word;
	uint32_t expected;
};
#define OS_FUTEX_WAIT_ANY_MAX 128
/*
 * Sleeps while every word has its expected value; returns the index of a woken one, or as
 * os_futex_wait(). -EINVAL: count 0 or above OS_FUTEX_WAIT_ANY_MAX. Fallback "poll" on kernels
 * before 5.16 or where seccomp hides futex_waitv: waits on the first word in slices of at most
 * 2 ms and looks at all words between; a wake of another word is then seen only by its new value
 * (-EAGAIN).
 */
int os_futex_wait_any(const struct os_futex_waiter *waiters, unsigned count, uint64_t deadline_ns);

/* ---- fdpass.c: one descriptor over a Unix socket --------------------------------------------- */

/* Longest message beside the fd: short enough that a stream socket takes it whole or not at all. */
#define OS_SEND_FD_MESSAGE_MAX 4096
/*
 * Sends message and fd together. No SIGPIPE.
 *   -EINVAL    size 0 or no message; -EMSGSIZE above OS_SEND_FD_MESSAGE_MAX
 *   -EBADF     fd or socket not open;  -ENOTSOCK, -EOPNOTSUPP  not a Unix socket
 *   -EPIPE, -ECONNRESET, -ENOTCONN, -ECONNREFUSED  nobody at the other end
 *   -EAGAIN    socket is non-blocking and full; nothing was sent
 *   -ETOOMANYREFS  this user has too many fds in flight (RLIMIT_NOFILE)
 *   -EPERM     the receiver refuses fds (SO_PASSRIGHTS);  -ENOBUFS, -ENOMEM
 */
int os_send_fd(int socket, int fd, const void *message, size_t size);
/*
 * Receives one message with exactly one fd (CLOEXEC). In every other case each fd that came is
 * closed again, the message is consumed, nothing is written:
 *   -ENOMSG      a message without an fd
 *   -E2BIG       two or more
 *   -EMFILE      the kernel could not give us all (RLIMIT_NOFILE, MSG_CTRUNC)
 *   -EMSGSIZE    message longer than size (MSG_TRUNC)
 *   -ECONNRESET  the other end is closed (also: an empty message)
 *   -EINVAL      size 0
 *   -EAGAIN      non-blocking and nothing there, or the socket's own receive timeout
 */
int os_receive_fd(int socket, void *buffer, size_t size, size_t *ret_size, int *ret_fd);

/* ---- process.c: identity, time, randomness, fork --------------------------------------------- */

/* For people and statistics; who lives is decided by os_life_probe(). */
struct os_process_id {
	uint32_t pid; /* in its own pid namespace */
	uint32_t reserved;
	uint64_t start_ticks; /* clock ticks from boot to its start; 0: no /proc */
	uint64_t pid_ns;      /* inode of its pid namespace; 0: no /proc */
	uint64_t pidfs_ino;   /* unique for this boot; 0 before kernel 6.9 */
};
/* Never fails for a missing /proc or pidfs: the field is 0 then. */
int os_process_self(struct os_process_id *ret_id);
/*
 * 1: seen running with the same start; 0: gone, a zombie, or the number is another's by now.
 *   -ESRCH        of another pid namespace, or not known which: cannot be looked at
 *   -EOPNOTSUPP   neither pidfs nor /proc here to compare with
 *   -EMFILE, -ENFILE, -ENOMEM
 */
int os_process_visible(const struct os_process_id *id);

/* CLOCK_MONOTONIC in nanoseconds; async-signal-safe. */
uint64_t os_clock_ns(void);
/*
 * The same clock in whole milliseconds, as coarse as the kernel's tick (at most 10 ms late), for a few
 * nanoseconds: no system call, no counter read. Async-signal-safe.
 */
uint64_t os_clock_coarse_ms(void);
/* Cryptographic random bytes, all of them. -EPERM, -ENOSYS only under seccomp */
int os_random(void *buffer, size_t size);
/* The kernel's number of this thread in its pid namespace; async-signal-safe. */
uint32_t os_thread_id(void);

/*
 * No fork() of this process runs between enter and leave (posix_spawn and bare clone may). Not
 * recursive, and nothing that may fork inside. Costs a mutex.
 *   -ENOMEM   the handlers could not be registered, first call only; not entered then
 */
int os_fork_guard_enter(void);
void os_fork_guard_leave(void);
/*
 * Runs callback in the child after every fork(), in the order of registration, as long as the
 * library is loaded. Registering the same again is 0 and keeps the one. At most 16. The callback
 * may use only what is async-signal-safe if the program has threads.
 *   -ENOMEM, -ENOSPC (17th)
 */
int os_on_fork_child(void (*callback)(void));

/*
 * Reads a small text file of the kernel (/proc, /sys) whole, NUL-terminated and without the last
 * newline, at most size - 1 bytes; returns the length. -ENOENT, -EACCES, -EINVAL (size 0), ...
 */
int os_read_text(const char *path, char *ret_text, size_t size);

/* ---- thread.c: background threads ------------------------------------------------------------- */

struct os_thread {
	unsigned long handle;
};
/*
 * Runs body(argument) in a thread that has every signal blocked from its first instruction, so that
 * no handler of the program ever runs on it. `name` shows in ps; at most 15 bytes. Must be joined.
 *   -EAGAIN   no thread left (RLIMIT_NPROC, cgroup), or no memory for its stack
 */
int os_thread_start(const char *name, void (*body)(void *argument), void *argument,
		    struct os_thread *ret_thread);
/*
 * Ends the thread in os_psi_wait(), now or when it comes there; elsewhere it goes on. To be joined. For
 * want of anything better: glibc needs libgcc_s.so.1 for it.
 */
void os_thread_end_wait(const struct os_thread *thread);
/* Waits until its body has returned. Never from the thread itself. */
void os_thread_join(const struct os_thread *thread);

/* ---- psi.c: memory pressure -------------------------------------------------------------------- */

/*
 * A descriptor on which the kernel tells when tasks of the machine have been stalled for memory for
 * stall_us out of window_us. Unprivileged callers need a window that is a multiple of 2 s.
 *   -ENOENT, -EOPNOTSUPP   no PSI in this kernel, or switched off (psi=0)
 *   -EACCES, -EPERM, -EROFS   not for this user, or not in this container
 *   -EINVAL   the kernel does not take the window;  -EMFILE, -ENFILE, -ENOMEM
 */
int os_psi_open(unsigned stall_us, unsigned window_us);
/* A descriptor that os_notice_give() makes readable, once and for all. -EMFILE, -ENFILE, -ENOMEM */
int os_notice_open(void);
/* -EBADF: the number is no notice (any more) */
int os_notice_give(int notice);
/*
 * Sleeps until there is pressure or the notice was given.
 *   1          pressure
 *   0          the notice
 *   -EBADF     one of the two is no longer what it was (the program has closed the number)
 *   -EINTR     a signal handler ran
 */
int os_psi_wait(int psi, int notice);

/* ---- uring.c: hole punches in a batch ---------------------------------------------------------- */

#define OS_URING_BATCH 8u
struct os_uring {
	int fd;
	void *ring;  /* head, tail and array of submissions, completions */
	void *slots; /* submission entries */
	size_t ring_size, slots_size;
	uint32_t *sq_tail, *sq_array, *cq_head, *cq_tail;
	uint32_t sq_mask, cq_mask;
	void *completions;
};
/*
 * A ring of OS_URING_BATCH entries. Used by one thread at a time.
 *   -ENOSYS, -EPERM   no io_uring, or not for this user (kernel.io_uring_disabled, seccomp)
 *   -EOPNOTSUPP       it lacks what is used here (before 5.6)
 *   -ENOMEM, -EMFILE, -ENFILE
 */
int os_uring_open(struct os_uring *ret_ring);
void os_uring_close(struct os_uring *ring);

struct os_uring_punch {
	uint64_t offset, size;
	int result; /* as os_decommit() would say it */
};
/*
 * Gives up to OS_URING_BATCH ranges back in one batch and waits for all: whatever is returned, every
 * `result` is set, and nothing is in flight any more. 0, or -errno when the ring itself failed; a
 * range that could not be submitted then has that as its result.
 */
int os_uring_decommit(struct os_uring *ring, int fd, struct os_uring_punch *punches,
		      unsigned count);

/* ---- cpu.c ----------------------------------------------------------------------------------- */

/* CPUs this machine may ever have (highest possible number + 1), at least 1. */
unsigned os_cpu_count(void);
/* CPUs this thread may run on now, at least 1: one means that spinning cannot help. */
unsigned os_cpu_usable(void);
/* Where this thread runs just now: stale at once, good as a hint. Either may be NULL. */
void os_cpu_current(unsigned *ret_cpu, unsigned *ret_node);
/* In a spin loop: lets the sibling hardware thread run. */
static inline void os_cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
	__asm__ volatile("yield" ::: "memory");
#else
	__asm__ volatile("" ::: "memory");
#endif
}
/*
 * Asks to be reached by other processes' os_membarrier_global(); once per process, a forked child
 * has it too, exec loses it. Idempotent.
 *   -EOPNOTSUPP  the kernel (before 4.16) or a seccomp filter refuses. Fallback: readers fence.
 */
int os_membarrier_register(void);
/* A full barrier on every CPU that runs a registered process. -EOPNOTSUPP as above */
int os_membarrier_global(void);

/* ---- numa.c ---------------------------------------------------------------------------------- */

enum os_placement {
	OS_PLACE_LOCAL,
	OS_PLACE_BIND,
	OS_PLACE_PREFERRED_MANY,
	OS_PLACE_INTERLEAVE,
	OS_PLACE_WEIGHTED
};
struct os_nodes {
	uint64_t bits[16]; /* node n is bit n % 64 of bits[n / 64] */
};
struct os_numa_saved {
	int mode; /* the kernel's number, flags included */
	struct os_nodes nodes;
};

/* Nodes with memory that this process may use. Node 0 alone without NUMA, or without libnuma. */
int os_numa_nodes(struct os_nodes *ret_nodes);
/* Has this machine more than one node with memory, whoever may use it? False without libnuma. */
bool os_numa_several(void);
/*
 * Policy for pages that will be allocated in the mapping; pages there already stay. On a shmem
 * mapping it is the inode's and holds for everybody; on hugetlb it is this mapping's alone and
 * os_commit() does not ask it (use os_numa_task_push()). `nodes` is not looked at for LOCAL.
 *   0           done as asked
 *   1           done by the fallback: PREFERRED_MANY -> PREFERRED of the first node (before 5.15),
 *               WEIGHTED -> INTERLEAVE (before 6.9); without libnuma anything -> nothing, when all
 *               that is asked is node 0
 *   -EINVAL     no node given, or none of them is usable; range not of whole pages
 *   -EFAULT     range not mapped;  -ENOMEM
 *   -EOPNOTSUPP no NUMA in kernel or build or by seccomp, and nodes other than node 0 asked
 */
int os_numa_place(void *base, size_t size, enum os_placement mode, const struct os_nodes *nodes);
/* The same for all that this thread allocates until popped; around a commit on hugetlb. */
int os_numa_task_push(enum os_placement mode, const struct os_nodes *nodes,
		      struct os_numa_saved *ret_saved);
int os_numa_task_pop(const struct os_numa_saved *saved);
/*
 * On which node is each page of this mapping; touches nothing. ret_nodes[i] is the node, or
 * negative: -ENOENT or -EFAULT not in our page table (be it a hole or another's page: populate
 * for reading first), -EBUSY, ...
 *   -EOPNOTSUPP  built without libnuma, or refused
 */
int os_numa_page_nodes(void *base, size_t page_size, size_t page_count, int *ret_nodes);

/* The same for pages at any addresses, at most 512. */
int os_numa_nodes_of(void **pages, size_t count, int *ret_nodes);
/*
 * On which node is the page at this address; brings it into our page table, and into memory if it
 * is not there: only for what has been committed. The node, or
 *   -EFAULT      nothing mapped there;  -EOPNOTSUPP  as above
 */
int os_numa_node_of(const void *address);
/*
 * Moves pages of our mappings (pages[i]: any address in the page) to the node; only what is in our
 * page table. With CAP_SYS_NICE also pages that other processes have mapped, else these stay.
 * ret_nodes[i] is where the page is afterwards, or why that is not known (os_numa_page_nodes).
 *   0            all are there;  1  not all
 *   -ENOMEM      the node has no room: some may have been moved
 *   -EPERM       (some) are mapped by other processes, and we lack CAP_SYS_NICE
 *   -EBUSY       (some) are in use by the kernel just now
 *   -EINVAL      no such node, no memory there, or our cpuset forbids it
 *   -EOPNOTSUPP  as above
 */
int os_numa_move(void **pages, size_t count, unsigned node, int *ret_nodes);

/* ---- room.c ---------------------------------------------------------------------------------- */

/*
 * About how many bytes of shared memory can be committed before the kernel would rather kill a
 * process than give them: by memory.max of our cgroup (v2) and those above it, and, unless `nodes`
 * is NULL, by what these nodes have left. UINT64_MAX: no limit known. An estimate; what is needed
 * for it that cannot be read is taken as no limit. Opens and closes files under /proc and /sys.
 */
uint64_t os_memory_room(const struct os_nodes *nodes);

/* ---- probe.c: what this kernel can do -------------------------------------------------------- */

enum os_feature {
	OS_FEATURE_NOEXEC_SEAL,
	OS_FEATURE_COLLAPSE,
	OS_FEATURE_URING,
	OS_FEATURE_URING_FUTEX,
	OS_FEATURE_FUTEX_WAITV,
	OS_FEATURE_PIDFS,
	OS_FEATURE_MEMBARRIER,
	OS_FEATURE_OFD_LOCK,
	OS_FEATURE_HUGETLB_2M,
	OS_FEATURE_HUGETLB_1G,
	OS_FEATURE_THP_SHMEM,
	OS_FEATURE_POPULATE,
	OS_FEATURE_PREFERRED_MANY,
	OS_FEATURE_WEIGHTED_INTERLEAVE,
	OS_FEATURE_GUARD,
	OS_FEATURE_COUNT
};
/* DEGRADED: the kernel has it, but not usable as things stand (pool empty, switched off). */
enum os_status { OS_MISSING, OS_DEGRADED, OS_OK };
struct os_feature_report {
	enum os_status status;
	const char *name;
	const char *fallback; /* what shale does without it */
	const char *since;    /* kernel release that brought it */
	char detail[128];     /* what was seen, one line; may be empty */
};
/* Really tries the call and leaves nothing behind. -EINVAL: no such feature. */
int os_probe(enum os_feature feature, struct os_feature_report *ret_report);

struct os_huge_pool {
	uint64_t page_size;                                  /* bytes */
	uint64_t total, free, reserved, surplus, overcommit; /* pages */
};
/* The pool of that page size; -ENOENT: the kernel has none (or no /sys). */
int os_huge_pool(uint64_t page_size, struct os_huge_pool *ret_pool);
/* The part of it on one node; reserved and overcommit are not kept by node and read 0. */
int os_huge_pool_node(uint64_t page_size, unsigned node, struct os_huge_pool *ret_pool);
/* The chosen words of transparent_hugepage/enabled and shmem_enabled; -ENOENT: not built in. */
int os_thp_modes(char *ret_anon, size_t anon_size, char *ret_shmem, size_t shmem_size);

#endif
