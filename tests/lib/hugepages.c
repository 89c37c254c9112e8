/*
 * hugepages.c - saved settings, kept where they survive the test and even the runner.
 *
 *   lock file (flock'ed): "PATH VALUE\n" ... one line per setting to restore, in the order of saving
 *
 * Owner:     the lock's holder. The runner opens the file, so that the lock, taken by a test through
 *            the inherited descriptor, outlives that test.
 * Invariant: G1, G2 of hugepages.h; the file is empty when nothing is changed.
 * Ordering:  a line is in the file before its setting is changed; restored last to first, then emptied.
 * Lifetime:  the descriptor lives as long as the runner.
 * Death:     see hugepages.h.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "hugepages.h"

#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 160, VALUE_BYTES = 64, SAVED_MAX_BYTES = 16384, LOCK_WAIT_MS = 60000 };

static int lock_fd = -1;
static bool have_lock; /* in this process; a forked test starts without */

/* ---- one setting ---- */

/* The value of a file under /sys: its first word, or the one in brackets. */
static int setting_read(const char *path, char value[VALUE_BYTES])
{
	char text[256];
	const char *start = text;
	size_t length;
	ssize_t n;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return n < 0 ? -errno : -ENODATA;
	text[n] = '\0';
	if (strchr(text, '[') != NULL)
		start = strchr(text, '[') + 1;
	length = strcspn(start, " ]\n");
	if (length >= VALUE_BYTES)
		return -EMSGSIZE;
	memcpy(value, start, length);
	value[length] = '\0';
	return 0;
}

static int setting_write(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), r = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, value, strlen(value)) < 0)
		r = -errno;
	close(fd);
	return r;
}

static uint64_t setting_number(const char *path)
{
	char value[VALUE_BYTES];

	return setting_read(path, value) < 0 ? 0 : strtoull(value, NULL, 10);
}

/* ---- the lock file ---- */

/* The file may be anybody's who came first: only settings of memory are ever written back. */
static bool path_is_ours(const char *path)
{
	return strstr(path, "..") == NULL && (strncmp(path, "/sys/kernel/mm/", 15) == 0 ||
					      strncmp(path, "/sys/devices/system/node/", 25) == 0);
}

static void restore_line(char *line)
{
	char *value = strchr(line, ' ');

	if (value == NULL)
		return;
	*value++ = '\0';
	if (path_is_ours(line) && setting_write(line, value) < 0)
		fprintf(stderr, "hugepages: cannot restore %s to %s\n", line, value);
}

/* With the lock: put back what the file lists, last first, and empty it. */
static void restore_all(void)
{
	static char text[SAVED_MAX_BYTES];
	ssize_t n = pread(lock_fd, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return;
	text[n] = '\0';
	for (;;) {
		char *end = strrchr(text, '\n'), *line;

		if (end == NULL)
			break;
		*end = '\0';
		line = strrchr(text, '\n');
		line = line != NULL ? line + 1 : text;
		restore_line(line);
		*line = '\0';
	}
	if (ftruncate(lock_fd, 0) < 0)
		perror("hugepages: emptying the lock file");
}

static int lock_open(const char *path)
{
	struct stat stat;
	int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	if (fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode) && stat.st_uid == geteuid())
		return fd;
	close(fd);
	return -EPERM;
}

static void before_tests(void)
{
	int high;

	lock_fd = lock_open("/run/lock/shale-test-hugepages");
	if (lock_fd < 0)
		lock_fd = lock_open("/tmp/shale-test-hugepages");
	high = lock_fd < 0 ? -1 : fcntl(lock_fd, F_DUPFD_CLOEXEC, 700);
	if (high >= 0) {
		close(lock_fd);
		lock_fd = high;
	}
}

/* The lock was ours if it is free now or held through our descriptor; else it is no business of ours. */
static void after_test(void)
{
	have_lock = false;
	if (lock_fd < 0 || flock(lock_fd, LOCK_EX | LOCK_NB) < 0)
		return;
	restore_all();
	flock(lock_fd, LOCK_UN);
}

__attribute__((constructor)) static void hugepages_hook(void)
{
	test_set_runner_hooks(before_tests, after_test);
}

void hugepages_lock(void)
{
	uint64_t until = test_now_ms() + LOCK_WAIT_MS;

	if (have_lock)
		return;
	if (lock_fd < 0)
		SKIP("no lock file for changing huge pages");
	while (flock(lock_fd, LOCK_EX | LOCK_NB) < 0) {
		if (test_now_ms() >= until)
			SKIP("another test program keeps the huge-page settings");
		test_set_limit(TEST_LIMIT_S); /* our time begins with the lock */
		test_sleep_ms(20);
	}
	have_lock = true;
	restore_all(); /* what a killed program has left */
}

/* Is this setting in the file already? Then the value there is the older one. */
static bool is_saved(const char *path)
{
	static char text[SAVED_MAX_BYTES];
	ssize_t n = pread(lock_fd, text, sizeof(text) - 1, 0);
	size_t length = strlen(path);

	text[n > 0 ? n : 0] = '\0';
	for (const char *at = strstr(text, path); at != NULL; at = strstr(at + 1, path))
		if (at[length] == ' ' && (at == text || at[-1] == '\n'))
			return true;
	return false;
}

/* Save a setting, then change it; skips the test when that is refused. */
static void change(const char *path, const char *value)
{
	char line[PATH_BYTES + VALUE_BYTES + 2], before[VALUE_BYTES];
	int r = setting_read(path, before);

	if (r < 0)
		SKIP("%s cannot be read (%s)", path, test_errno_name(r));
	if (strcmp(before, value) == 0)
		return;
	if (!is_saved(path)) {
		int n = snprintf(line, sizeof(line), "%s %s\n", path, before);

		ASSERT_EQ(write(lock_fd, line, (size_t)n), n);
	}
	r = setting_write(path, value);
	if (r < 0)
		SKIP("%s cannot be set to %s (%s)", path, value, test_errno_name(r));
}

/* ---- pools ---- */

static const char *pool_path(char path[PATH_BYTES], size_t page_bytes, int node, const char *file)
{
	if (node == HUGEPAGES_ANY_NODE)
		snprintf(path, PATH_BYTES, "/sys/kernel/mm/hugepages/hugepages-%zukB/%s",
			 page_bytes / 1024, file);
	else
		snprintf(path, PATH_BYTES,
			 "/sys/devices/system/node/node%d/hugepages/hugepages-%zukB/%s", node,
			 page_bytes / 1024, file);
	return path;
}

static uint64_t pool_number(size_t page_bytes, int node, const char *file)
{
	char path[PATH_BYTES];

	return setting_number(pool_path(path, page_bytes, node, file));
}

static void pool_change(size_t page_bytes, int node, const char *file, uint64_t count)
{
	char path[PATH_BYTES], value[VALUE_BYTES];

	snprintf(value, sizeof(value), "%" PRIu64, count);
	change(pool_path(path, page_bytes, node, file), value);
}

uint64_t hugepages_total(size_t page_bytes, int node)
{
	return pool_number(page_bytes, node, "nr_hugepages");
}

uint64_t hugepages_free(size_t page_bytes, int node)
{
	uint64_t free = pool_number(page_bytes, node, "free_hugepages");
	uint64_t reserved =
		node == HUGEPAGES_ANY_NODE ? pool_number(page_bytes, node, "resv_hugepages") : 0;

	return free > reserved ? free - reserved : 0;
}

void hugepages_require_free(size_t page_bytes, int node, uint64_t count)
{
	uint64_t free;

	hugepages_lock();
	free = hugepages_free(page_bytes, node);
	if (free < count)
		pool_change(page_bytes, node, "nr_hugepages",
			    hugepages_total(page_bytes, node) + count - free);
	free = hugepages_free(page_bytes, node);
	if (free < count)
		SKIP("%" PRIu64 " free huge pages of %zu KiB wanted, %" PRIu64 " to be had", count,
		     page_bytes / 1024, free);
}

static uint64_t node_free_bytes(int node)
{
	char path[PATH_BYTES], text[4096] = "", *at;
	FILE *file;
	size_t n;

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo", node);
	file = fopen(path, "re");
	if (file == NULL)
		SKIP("%s cannot be read", path);
	n = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[n] = '\0';
	at = strstr(text, "MemFree:");
	return at != NULL ? strtoull(at + strlen("MemFree:"), NULL, 10) * 1024 : 0;
}

void hugepages_fill_node(int node, uint64_t leave_bytes)
{
	const size_t page = 2 << 20;

	if (getenv("SHALE_GUEST") == NULL)
		SKIP("only in a guest");
	hugepages_lock();
	/* what is free is not all in pieces of 2 MiB, and others free some meanwhile */
	for (unsigned try = 0; try < 8; try++) {
		uint64_t free = node_free_bytes(node), total = hugepages_total(page, node);

		if (free <= leave_bytes + page)
			return;
		pool_change(page, node, "nr_hugepages", total + (free - leave_bytes) / page);
		if (hugepages_total(page, node) == total)
			return;
	}
}

void hugepages_require_none(size_t page_bytes)
{
	hugepages_lock();
	if (hugepages_total(page_bytes, HUGEPAGES_ANY_NODE) != 0)
		pool_change(page_bytes, HUGEPAGES_ANY_NODE, "nr_hugepages", 0);
	if (pool_number(page_bytes, HUGEPAGES_ANY_NODE, "nr_overcommit_hugepages") != 0)
		pool_change(page_bytes, HUGEPAGES_ANY_NODE, "nr_overcommit_hugepages", 0);
	if (hugepages_free(page_bytes, HUGEPAGES_ANY_NODE) != 0)
		SKIP("the pool of %zu KiB pages cannot be emptied", page_bytes / 1024);
}

void hugepages_require_thp(const char *file, const char *mode)
{
	char path[PATH_BYTES];

	hugepages_lock();
	snprintf(path, sizeof(path), "/sys/kernel/mm/transparent_hugepage/%s", file);
	change(path, mode);
}
