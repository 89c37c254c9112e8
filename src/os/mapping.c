/* SPDX-License-Identifier: MIT */
/*
 * mapping.c - address space: shared and private mappings at aligned addresses, advice.
 *
 * Owner:     callers own what they mapped; nothing is kept here.
 * Invariant: A1  the address is a multiple of the alignment asked
 *            A2  on error nothing stays mapped
 * Ordering:  none.
 * Death:     the kernel unmaps; the bytes of a shared mapping belong to its file.
 */
#define _GNU_SOURCE
#include "os/os.h"

#include "os/sys.h"

#define SMALL_PAGE 4096

static bool is_power_of_two(size_t n)
{
	return n != 0 && (n & (n - 1)) == 0;
}

static bool is_multiple(uint64_t n, uint64_t power_of_two)
{
	return (n & (power_of_two - 1)) == 0;
}

/*
 * Cuts the reservation down to [keep, keep + size). When the kernel refuses (too many mappings) what
 * is left of it goes too, and only that: the part already given back may be another thread's by now.
 */
static int trim(char *base, size_t reserved, char *keep, size_t size)
{
	char *end = base + reserved;
	int r = 0;

	if (keep > base)
		r = sys_munmap(base, (size_t)(keep - base));
	if (r == 0) {
		base = keep;
		if (end > keep + size)
			r = sys_munmap(keep + size, (size_t)(end - keep) - size);
	}
	if (r < 0)
		(void)sys_munmap(base, (size_t)(end - base));
	return r;
}

/* Address space of our own, aligned: reserve `alignment` too much, then trim. */
static int reserve_aligned(size_t size, size_t alignment, int protection, void **ret_base)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	size_t reserved;
	void *base = NULL;
	char *aligned;
	int r;

	if (__builtin_add_overflow(size, alignment > SMALL_PAGE ? alignment : 0, &reserved))
		return -ENOMEM;
	r = sys_mmap(NULL, reserved, protection, flags, -1, 0, &base);
	if (r < 0)
		return r;
	aligned = (char *)base + (-(uintptr_t)base & (alignment - 1));
	r = trim(base, reserved, aligned, size);
	if (r < 0)
		return r;
	*ret_base = aligned;
	return 0;
}

/* 0 means a small page, or the file's own. */
static int check_alignment(size_t *alignment, size_t page)
{
	if (*alignment == 0)
		*alignment = page;
	return is_power_of_two(*alignment) && *alignment >= page ? 0 : -EINVAL;
}

static int check_file_range(int fd, uint64_t offset, size_t size, size_t *alignment)
{
	struct statfs fs;
	size_t page;
	int r;

	r = sys_fstatfs(fd, &fs);
	if (r < 0)
		return r;
	page = (size_t)fs.f_bsize;
	if (!is_power_of_two(page) || size == 0 || offset > INT64_MAX ||
	    !is_multiple(offset, page) || !is_multiple(size, page))
		return -EINVAL;
	return check_alignment(alignment, page);
}

/* ---- map ------------------------------------------------------------------------------------- */

int os_map_shared(int fd, uint64_t offset, size_t size, bool writable, size_t alignment,
		  void **ret_base)
{
	int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
	int flags = MAP_SHARED | MAP_NORESERVE | MAP_FIXED;
	void *base = NULL;
	int r;

	r = check_file_range(fd, offset, size, &alignment);
	if (r < 0)
		return r;
	r = reserve_aligned(size, alignment, PROT_NONE, &base);
	if (r < 0)
		return r;
	r = sys_mmap(base, size, protection, flags, fd, (off_t)offset, &base);
	if (r < 0) {
		(void)sys_munmap(base, size);
		return r;
	}
	*ret_base = base;
	return 0;
}

int os_map_private(size_t size, size_t alignment, void **ret_base)
{
	int r;

	if (size == 0 || !is_multiple(size, SMALL_PAGE))
		return -EINVAL;
	r = check_alignment(&alignment, SMALL_PAGE);
	return r < 0 ? r : reserve_aligned(size, alignment, PROT_READ | PROT_WRITE, ret_base);
}

int os_map_wipe_on_fork(size_t size, void **ret_base)
{
	void *base = NULL;
	int r;

	r = os_map_private(size, 0, &base);
	if (r < 0)
		return r;
	r = sys_madvise(base, size, MADV_WIPEONFORK);
	if (r < 0) {
		(void)sys_munmap(base, size);
		return r;
	}
	*ret_base = base;
	return 0;
}

int os_unmap(void *base, size_t size)
{
	return sys_munmap(base, size);
}

/* ---- advise ---------------------------------------------------------------------------------- */

/* Newer than the C library's headers. */
#define GUARD_INSTALL 102
#define GUARD_REMOVE  103

static int advice_number(enum os_advice advice)
{
	switch (advice) {
	case OS_DONTFORK:
		return MADV_DONTFORK;
	case OS_HUGEPAGE:
		return MADV_HUGEPAGE;
	case OS_NOHUGEPAGE:
		return MADV_NOHUGEPAGE;
	case OS_COLLAPSE:
		return MADV_COLLAPSE;
	case OS_DONTNEED:
		return MADV_DONTNEED;
	case OS_DONTDUMP:
		return MADV_DONTDUMP;
	case OS_POPULATE_READ:
		return MADV_POPULATE_READ;
	case OS_POPULATE_WRITE:
		return MADV_POPULATE_WRITE;
	case OS_GUARD_INSTALL:
		return GUARD_INSTALL;
	case OS_GUARD_REMOVE:
		return GUARD_REMOVE;
	}
	return -EINVAL;
}

int os_advise(void *base, size_t size, enum os_advice advice)
{
	int number = advice_number(advice);
	int r;

	if (number < 0)
		return number;
	retry_eintr(r, sys_madvise(base, size, number));
	/* Where populating would have been a SIGBUS, the kernel says EFAULT. */
	if (r == -EFAULT && (advice == OS_POPULATE_READ || advice == OS_POPULATE_WRITE))
		return -ENOMEM;
	return r;
}

int os_protect(void *base, size_t size, bool accessible)
{
	return sys_mprotect(base, size, accessible ? PROT_READ | PROT_WRITE : PROT_NONE);
}

int os_resident(void *base, size_t size, unsigned char *ret_there)
{
	int r = sys_mincore(base, size, ret_there);

	/* the other bits are reserved */
	for (size_t i = 0; r == 0 && i < size / SMALL_PAGE; i++)
		ret_there[i] &= 1;
	return r;
}
