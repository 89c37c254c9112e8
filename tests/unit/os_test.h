/*
 * os_test.h - what the tests of the os layer share: counting mappings, talking to children.
 *
 * These use libc directly, so that a fault armed in the layer under test never hits the test.
 */
#ifndef SHALE_TESTS_UNIT_OS_TEST_H
#define SHALE_TESTS_UNIT_OS_TEST_H

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/harness.h"
#include "lib/hugepages.h"
#include "os/os.h"

#define PAGE   ((size_t)4096)
#define HUGE_2 ((size_t)2 << 20)

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

/* A text file, whole, without allocating: a test compares mappings around its calls. */
static inline bool test_read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);

	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	return n > 0;
}

/* Pages of address space this process has mapped, touched or not. */
static inline unsigned long test_mapped_pages(void)
{
	char text[128];

	return test_read_text("/proc/self/statm", text, sizeof(text)) ? strtoul(text, NULL, 10) : 0;
}

/* ---- processes ------------------------------------------------------------------------------- */

/* A pipe on which a child says "I am there" and a parent waits for it. */
static inline bool test_say(int fd)
{
	return write(fd, "x", 1) == 1;
}

static inline bool test_hear(int fd)
{
	char byte;

	return read(fd, &byte, 1) == 1;
}

/* Kill a child and take its status away. */
static inline void test_end_child(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
}

#endif
