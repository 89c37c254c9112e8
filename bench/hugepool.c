/*
 * hugepool.c - 2 MiB pages for one run: reserved before it, given back after it.
 */
#include "hugepool.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { LEFT_MAX = 64 };

#define POOL "/sys/kernel/mm/hugepages/hugepages-2048kB/"

static const char lock_file[] = "/run/lock/shale-test-hugepages";
static int lock_fd = -1;
static long pool_before = -1;

static long pool_read(const char *path)
{
	long value = -1;
	FILE *file = fopen(path, "re");

	if (!file)
		return -1;
	if (fscanf(file, "%ld", &value) != 1)
		value = -1;
	fclose(file);
	return value;
}

static int pool_write(const char *path, long value)
{
	FILE *file = fopen(path, "we");
	int r;

	if (!file)
		return -1;
	r = fprintf(file, "%ld\n", value) < 0 ? -1 : 0;
	return fclose(file) != 0 ? -1 : r;
}

/* What a killed program left: "PATH VALUE" lines, the oldest value of a setting first. */
static void restore_leftover(void)
{
	char paths[LEFT_MAX][160], values[LEFT_MAX][64];
	size_t count = 0;
	FILE *file = fopen(lock_file, "re");

	if (!file)
		return;
	while (count < LEFT_MAX && fscanf(file, "%159s %63s", paths[count], values[count]) == 2)
		count++;
	fclose(file);
	while (count-- > 0) {
		if (strncmp(paths[count], "/sys/", 5) != 0 || strstr(paths[count], ".."))
			continue; /* nothing that any of us writes */
		file = fopen(paths[count], "we");
		if (!file)
			continue;
		fputs(values[count], file);
		fclose(file);
	}
}

static int lock_take(void)
{
	lock_fd = open(lock_file, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (lock_fd < 0)
		return -1;
	if (flock(lock_fd, LOCK_EX) != 0) {
		close(lock_fd);
		lock_fd = -1;
		return -1;
	}
	restore_leftover();
	return ftruncate(lock_fd, 0);
}

int hugepool_reserve(unsigned pages, char *reason, size_t size)
{
	long free;

	if (geteuid() != 0 || lock_take() != 0) {
		snprintf(reason, size, "reserving 2 MiB pages needs root");
		hugepool_restore();
		return -1;
	}
	pool_before = pool_read(POOL "nr_hugepages");
	free = pool_read(POOL "free_hugepages");
	if (pool_before < 0 || free < 0) {
		snprintf(reason, size, "this kernel has no pool of 2 MiB pages");
		hugepool_restore();
		return -1;
	}
	if (free < (long)pages) {
		dprintf(lock_fd, POOL "nr_hugepages %ld\n", pool_before);
		pool_write(POOL "nr_hugepages", pool_before + (long)pages - free);
		free = pool_read(POOL "free_hugepages");
	}
	if (free < (long)pages) {
		snprintf(reason, size, "%u free 2 MiB pages wanted, %ld to be had", pages, free);
		hugepool_restore();
		return -1;
	}
	return 0;
}

void hugepool_restore(void)
{
	if (lock_fd < 0)
		return;
	if (pool_before >= 0)
		pool_write(POOL "nr_hugepages", pool_before);
	pool_before = -1;
	if (ftruncate(lock_fd, 0) != 0)
		perror("shale-bench: the lock file of the pool");
	close(lock_fd);
	lock_fd = -1;
}
