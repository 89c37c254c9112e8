/* SPDX-License-Identifier: MIT */
/*
 * memfd.c - the file behind a segment: made, sealed, recognised, committed, given back, locked.
 *
 * Owner:     callers own the descriptors; nothing is kept here.
 * Invariant: M1  every descriptor that leaves here is CLOEXEC
 *            M2  a memfd made here is never executable, on any kernel
 *            M3  while an os_life is held, exactly one mapping refers to its description and no
 *                descriptor does: nobody can close, dup or pass it
 * Ordering:  none; the kernel orders its calls.
 * Death:     the kernel drops descriptors and mappings. M3 makes the lock of an os_life go at that
 *            very moment, whatever children or passed fds live on; os_life_probe() then says 0.
 */
#define _GNU_SOURCE
#include "os/os.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "os/sys.h"

/* Offsets of the kernel are signed: a range that does not fit is our caller's mistake or a lie. */
static bool range_fits(uint64_t offset, uint64_t size)
{
	return size > 0 && size <= INT64_MAX && offset <= INT64_MAX - size;
}

/* ---- make and seal --------------------------------------------------------------------------- */

static int page_kind_flags(enum os_page_kind kind, unsigned *ret_flags)
{
	switch (kind) {
	case OS_PAGES_4K:
	case OS_PAGES_THP:
		*ret_flags = 0;
		return 0;
	case OS_PAGES_2M:
		*ret_flags = MFD_HUGETLB | MFD_HUGE_2MB;
		return 0;
	case OS_PAGES_1G:
		*ret_flags = MFD_HUGETLB | MFD_HUGE_1GB;
		return 0;
	}
	return -EINVAL;
}

/* Before 6.3 a memfd is born with mode 0777: take the x bits away (M2). */
static int create_without_noexec(const char *label, unsigned flags)
{
	_cleanup_os_close_ int fd = -EBADF;
	int r;

	fd = sys_memfd_create(label, flags);
	if (fd < 0)
		return fd;
	r = sys_fchmod(fd, 0666);
	if (r < 0)
		return r;
	r = fd;
	fd = -EBADF;
	return r;
}

int os_memfd_create(const char *label, enum os_page_kind kind)
{
	unsigned flags;
	int r;

	assert(label != NULL);
	r = page_kind_flags(kind, &flags);
	if (r < 0)
		return r;
	flags |= MFD_CLOEXEC | MFD_ALLOW_SEALING;
	r = sys_memfd_create(label, flags | MFD_NOEXEC_SEAL);
	if (r == -EINVAL)
		r = create_without_noexec(label, flags);
	/* hugetlbfs says ENOENT where it has no mount for that page size. */
	return r == -ENOENT ? -ENODEV : r;
}

int os_memfd_set_size(int fd, uint64_t size_bytes)
{
	int r;

	if (size_bytes > INT64_MAX)
		return -EINVAL;
	retry_eintr(r, sys_ftruncate(fd, (off_t)size_bytes));
	return r;
}

int os_memfd_seal(int fd)
{
	const int wanted = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	int seals = sys_get_seals(fd);

	if (seals < 0)
		return seals;
	if ((seals & wanted) == wanted)
		return 0;
	return sys_add_seals(fd, wanted);
}

/* ---- recognise ------------------------------------------------------------------------------- */

/*
 * The order matters. F_GET_SEALS is answered by the kernel itself, EINVAL for all but shmem and
 * hugetlb; fstatfs and fstat would ask the file system, and a FUSE one may never answer.
 */
int os_memfd_identify(int fd, struct os_memfd_info *ret_info)
{
	struct statfs fs;
	struct stat st;
	int mode, seals, r;

	mode = sys_getfl(fd);
	if (mode < 0)
		return mode;
	if ((mode & O_PATH) != 0)
		return -EBADFD;
	seals = sys_get_seals(fd);
	if (seals < 0)
		return seals == -EINVAL ? -EMEDIUMTYPE : seals;
	if ((mode & O_ACCMODE) == O_WRONLY)
		return -EACCES;
	r = sys_fstatfs(fd, &fs);
	if (r < 0)
		return r;
	if (fs.f_type != FS_TMPFS && fs.f_type != FS_HUGETLBFS)
		return -EMEDIUMTYPE;
	r = sys_fstat(fd, &st);
	if (r < 0)
		return r;
	if (!S_ISREG(st.st_mode) || st.st_size < 0)
		return -EMEDIUMTYPE;
	*ret_info = (struct os_memfd_info){
		.size_bytes = (uint64_t)st.st_size,
		.dev = st.st_dev,
		.ino = st.st_ino,
		.page_size = (uint64_t)fs.f_bsize,
		.seals = (unsigned)seals,
		.hugetlb = fs.f_type == FS_HUGETLBFS,
		.writable = (mode & O_ACCMODE) == O_RDWR,
		.executable = (st.st_mode & 0111) != 0,
	};
	return 0;
}

bool os_memfd_size_is_sealed(const struct os_memfd_info *info)
{
	return (info->seals & (F_SEAL_SHRINK | F_SEAL_GROW)) == (F_SEAL_SHRINK | F_SEAL_GROW);
}

bool os_memfd_same(int fd, uint64_t dev, uint64_t ino)
{
	struct stat st;

	/* The number may be anybody's by now: ask the kernel for seals before a file system. */
	if (sys_get_seals(fd) < 0 || sys_fstat(fd, &st) < 0)
		return false;
	return st.st_dev == dev && st.st_ino == ino;
}

/* ---- descriptors ----------------------------------------------------------------------------- */

/* What was opened through /proc must be the file we hold: something may be mounted over /proc. */
static int check_same_file(int fd, int other)
{
	struct stat a, b;
	int r;

	r = sys_fstat(fd, &a);
	if (r < 0)
		return r;
	r = sys_fstat(other, &b);
	if (r < 0)
		return r;
	return a.st_dev == b.st_dev && a.st_ino == b.st_ino ? 0 : -EOPNOTSUPP;
}

int os_reopen(int fd, bool writable)
{
	_cleanup_os_close_ int opened = -EBADF;
	char path[64];
	int r;

	r = sys_getfl(fd);
	if (r < 0)
		return r;
	/* thread-self, not self: a thread may have unshared its descriptor table. */
	snprintf(path, sizeof(path), "/proc/thread-self/fd/%d", fd);
	retry_eintr(opened, sys_open(path, writable ? O_RDWR : O_RDONLY));
	if (opened == -ENOENT || opened == -ENOTDIR)
		return -EOPNOTSUPP;
	if (opened < 0)
		return opened;
	r = check_same_file(fd, opened);
	if (r < 0)
		return r;
	r = opened;
	opened = -EBADF;
	return r;
}

int os_fd_dup(int fd)
{
	return sys_dup(fd);
}

int os_fd_close(int fd)
{
	return fd < 0 ? 0 : sys_close(fd);
}

bool os_fd_is(int fd, enum os_fd_kind kind)
{
	static const char *const names[] = {
		[OS_FD_URING] = "anon_inode:[io_uring]",
		[OS_FD_NOTICE] = "anon_inode:[eventfd]",
		[OS_FD_PSI] = "/pressure/memory",
	};
	char path[32], name[64];
	ssize_t n;

	if (fd < 0)
		return false;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, name, sizeof(name) - 1);
	if (n < 0)
		return false;
	name[n] = '\0';
	return strstr(name, names[kind]) != NULL;
}

int os_fd_close_if(int fd, enum os_fd_kind kind)
{
	return os_fd_is(fd, kind) ? os_fd_close(fd) : -EBADF;
}

/* ---- pages ----------------------------------------------------------------------------------- */

/*
 * shmem undoes an interrupted fallocate from its start, so a timer that fires more often than the
 * whole takes would starve it: each interruption halves the piece, down to one page.
 */
int os_commit(int fd, uint64_t offset, uint64_t size)
{
	const uint64_t smallest = 4096;
	uint64_t piece = size;
	int r;

	if (!range_fits(offset, size))
		return -EINVAL;
	while (size > 0) {
		if (piece > size)
			piece = size;
		r = sys_fallocate(fd, 0, (off_t)offset, (off_t)piece);
		if (r == -EINTR) {
			piece = piece / 2 > smallest ? piece / 2 : smallest;
			continue;
		}
		if (r < 0)
			return r == -ENOSPC ? -ENOMEM : r;
		offset += piece;
		size -= piece;
	}
	return 0;
}

int os_decommit(int fd, uint64_t offset, uint64_t size)
{
	int r;

	if (!range_fits(offset, size))
		return -EINVAL;
	retry_eintr(r, sys_fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
				     (off_t)size));
	return r;
}

int os_backing_bytes(int fd, uint64_t *ret_bytes)
{
	struct stat st;
	int r = sys_fstat(fd, &st);

	if (r < 0)
		return r;
	*ret_bytes = (uint64_t)st.st_blocks * 512;
	return 0;
}

/* ---- locks ----------------------------------------------------------------------------------- */

static int byte_lock(uint64_t byte, short type, struct flock *ret_lock)
{
	if (!range_fits(byte, 1))
		return -EINVAL;
	*ret_lock = (struct flock){
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = (off_t)byte,
		.l_len = 1,
	};
	return 0;
}

static int set_byte_lock(int fd, uint64_t byte, short type)
{
	struct flock lock;
	int r;

	r = byte_lock(byte, type, &lock);
	if (r < 0)
		return r;
	retry_eintr(r, sys_lock(fd, &lock));
	/* fcntl(2): a conflict is EAGAIN or EACCES. */
	return r == -EACCES ? -EAGAIN : r;
}

int os_lock_byte(int fd, uint64_t byte, bool exclusive)
{
	return set_byte_lock(fd, byte, exclusive ? F_WRLCK : F_RDLCK);
}

int os_unlock_byte(int fd, uint64_t byte)
{
	return set_byte_lock(fd, byte, F_UNLCK);
}

int os_lock_probe(int fd, uint64_t byte)
{
	struct flock lock;
	int r;

	/* Would an exclusive lock be refused? Asking needs no write access. */
	r = byte_lock(byte, F_WRLCK, &lock);
	if (r < 0)
		return r;
	retry_eintr(r, sys_lock_probe(fd, &lock));
	return r < 0 ? r : lock.l_type != F_UNLCK;
}

/* ---- a lock as long as our memory ------------------------------------------------------------ */

static int file_page_size(int fd, size_t *ret_size)
{
	struct statfs fs;
	int r = sys_fstatfs(fd, &fs);

	if (r < 0)
		return r;
	*ret_size = (size_t)fs.f_bsize;
	return 0;
}

/*
 * The mapping that keeps the description alive. Never touched, so it takes no page; not copied by
 * fork, so that only this process's end ends it; readable when the program reads maps of itself.
 */
static int life_pin(int fd, struct os_life *ret_life)
{
	struct os_life life = {0};
	int r;

	r = file_page_size(fd, &life.pin_size);
	if (r < 0)
		return r;
	r = sys_mmap(NULL, life.pin_size, PROT_NONE, MAP_SHARED | MAP_NORESERVE, fd, 0, &life.pin);
	if (r < 0)
		return r;
	r = sys_madvise(life.pin, life.pin_size, MADV_DONTFORK);
	if (r < 0) {
		os_life_drop(&life);
		return r;
	}
	*ret_life = life;
	return 0;
}

static int life_take_guarded(int fd, uint64_t byte, bool writable, struct os_life *ret_life)
{
	_cleanup_os_close_ int own = -EBADF;
	struct os_life life = {0};
	int r;

	own = os_reopen(fd, writable);
	if (own < 0)
		return own;
	r = life_pin(own, &life);
	if (r < 0)
		return r;
	r = os_lock_byte(own, byte, writable);
	if (r < 0) {
		os_life_drop(&life);
		return r;
	}
	*ret_life = life;
	return 0;
}

int os_life_take(int fd, uint64_t byte, bool writable, struct os_life *ret_life)
{
	int r;

	r = os_fork_guard_enter();
	if (r < 0)
		return r;
	r = life_take_guarded(fd, byte, writable, ret_life);
	os_fork_guard_leave();
	return r;
}

void os_life_drop(struct os_life *life)
{
	if (life->pin_size > 0)
		(void)sys_munmap(life->pin, life->pin_size);
	*life = (struct os_life){0};
}

int os_life_probe(int fd, uint64_t byte)
{
	return os_lock_probe(fd, byte);
}
