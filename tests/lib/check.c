/*
 * check.c - what a test says about itself: checks, remarks, skips, names of errors, random numbers.
 *
 * Owner:     every process below a test; the report file is the only thing they share.
 * Invariant: C1  one record is one write() to a file opened for appending, so records never mix
 *            C2  the first byte of each line is its kind: F failure, C its further lines and remarks, S skip
 * Ordering:  the kernel's, for appends to one file.
 * Lifetime:  the report file is opened by the runner before the first fork and outlives every test.
 * Death:     a process killed inside a check has either written its whole record or none of it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "harness.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { RECORD_MAX = 4096 };

static int report_fd = STDERR_FILENO;
static pid_t escape_process;
static pid_t escape_thread;
static sigjmp_buf *escape;
static volatile bool has_failed;
static uint64_t run_seed;
static uint64_t random_state;

int test_report_fd(void)
{
	return report_fd;
}

void test_adopt_report_fd(int fd)
{
	report_fd = fd;
}

bool test_has_failed(void)
{
	return has_failed;
}

void test_set_escape(void *jump_buffer)
{
	escape = jump_buffer;
	escape_process = getpid();
	escape_thread = gettid();
	has_failed = false;
}

void test_become_child(void)
{
	escape = NULL;
	has_failed = false;
}

/* Copy `text` so that every line of it begins with a kind byte: `first`, then C. */
static size_t record_fill(char *record, char first, const char *text)
{
	size_t n = 0;
	char kind = first;

	while (n < RECORD_MAX - 3) {
		const char *end = strchrnul(text, '\n');

		record[n++] = kind;
		while (text < end && n < RECORD_MAX - 2)
			record[n++] = *text++;
		record[n++] = '\n';
		text = end;
		if (*text == '\0' || *++text == '\0')
			break;
		kind = 'C';
	}
	return n;
}

static void record_write(char kind, const char *text)
{
	char record[RECORD_MAX];
	size_t size = record_fill(record, kind, text);
	int saved = errno;

	while (write(report_fd, record, size) < 0 && errno == EINTR)
		;
	errno = saved;
}

bool test_fail(const char *file, int line, const char *format, ...)
{
	char text[RECORD_MAX];
	va_list args;
	int n = snprintf(text, sizeof(text), "%s:%d: ", file, line);

	if (n > 0 && (size_t)n < sizeof(text)) {
		va_start(args, format);
		vsnprintf(text + n, sizeof(text) - (size_t)n, format, args);
		va_end(args);
	}
	has_failed = true;
	record_write('F', text);
	return false;
}

void test_log(const char *format, ...)
{
	char text[RECORD_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	record_write('C', text);
}

void test_abort(void)
{
	if (escape != NULL && escape_process == getpid() && escape_thread == gettid())
		siglongjmp(*escape, 1);
	_exit(has_failed ? EXIT_FAILURE : EXIT_SUCCESS);
}

void test_skip(const char *format, ...)
{
	char text[RECORD_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	record_write('S', text);
	test_abort();
}

static bool int_is_negative(struct test_int value)
{
	return value.is_signed && (int64_t)value.bits < 0;
}

/* -1, 0 or 1, whatever the two types were. */
static int int_compare(struct test_int a, struct test_int b)
{
	bool a_negative = int_is_negative(a);

	if (a_negative != int_is_negative(b))
		return a_negative ? -1 : 1;
	if (a.bits == b.bits)
		return 0;
	return a.bits < b.bits ? -1 : 1; /* two's complement: right for two negatives as well */
}

static bool op_holds(int compared, enum test_op op)
{
	switch (op) {
	case TEST_OP_EQ:
		return compared == 0;
	case TEST_OP_NE:
		return compared != 0;
	case TEST_OP_LT:
		return compared < 0;
	case TEST_OP_LE:
		return compared <= 0;
	case TEST_OP_GT:
		return compared > 0;
	case TEST_OP_GE:
		return compared >= 0;
	}
	return false;
}

static const char *op_text(enum test_op op)
{
	static const char *const texts[] = {"==", "!=", "<", "<=", ">", ">="};

	return texts[op];
}

static void int_format(char *buffer, size_t size, struct test_int value)
{
	if (int_is_negative(value))
		snprintf(buffer, size, "%" PRId64, (int64_t)value.bits);
	else if (value.bits < 4096)
		snprintf(buffer, size, "%" PRIu64, value.bits);
	else
		snprintf(buffer, size, "%" PRIu64 " (0x%" PRIx64 ")", value.bits, value.bits);
}

bool test_check_int(const char *file, int line, const char *a_text, const char *b_text,
		    struct test_int a, enum test_op op, struct test_int b)
{
	char a_value[64], b_value[64];

	if (op_holds(int_compare(a, b), op))
		return true;
	int_format(a_value, sizeof(a_value), a);
	int_format(b_value, sizeof(b_value), b);
	return test_fail(file, line, "expected %s %s %s\nleft  %s\nright %s", a_text, op_text(op),
			 b_text, a_value, b_value);
}

bool test_check_ptr(const char *file, int line, const char *a_text, const char *b_text,
		    const volatile void *a, enum test_op op, const volatile void *b)
{
	if (op_holds(a != b, op))
		return true;
	return test_fail(file, line, "expected %s %s %s\nleft  0x%" PRIxPTR "\nright 0x%" PRIxPTR,
			 a_text, op_text(op), b_text, (uintptr_t)a, (uintptr_t)b);
}

/* Up to 16 bytes from `start` on, in hex. */
static void bytes_format(char *buffer, size_t buffer_size, const unsigned char *bytes, size_t start,
			 size_t size)
{
	size_t n = 0;

	buffer[0] = '\0';
	for (size_t i = start; i < size && i < start + 16 && n + 4 < buffer_size; i++)
		n += (size_t)snprintf(buffer + n, buffer_size - n, " %02x", bytes[i]);
}

bool test_check_mem(const char *file, int line, const char *a_text, const char *b_text,
		    const void *a, enum test_op op, const void *b, size_t size)
{
	const unsigned char *left = a, *right = b;
	char a_value[64], b_value[64];
	size_t at = 0, start;

	while (at < size && left[at] == right[at])
		at++;
	if (op_holds(at < size, op))
		return true;
	if (op == TEST_OP_NE)
		return test_fail(file, line, "expected %s and %s to differ in their %zu bytes",
				 a_text, b_text, size);
	start = at - at % 16;
	bytes_format(a_value, sizeof(a_value), left, start, size);
	bytes_format(b_value, sizeof(b_value), right, start, size);
	return test_fail(
		file, line,
		"expected %s == %s over %zu bytes, differs at %zu; from %zu:\nleft %s\nright%s",
		a_text, b_text, size, at, start, a_value, b_value);
}

bool test_check_str(const char *file, int line, const char *a_text, const char *b_text,
		    const char *a, enum test_op op, const char *b)
{
	bool differ = a == NULL || b == NULL ? a != b : strcmp(a, b) != 0;

	if (op_holds(differ, op))
		return true;
	return test_fail(file, line, "expected %s %s %s\nleft  \"%s\"\nright \"%s\"", a_text,
			 op_text(op), b_text, a != NULL ? a : "(null)", b != NULL ? b : "(null)");
}

static void result_format(char *buffer, size_t size, int64_t result)
{
	if (result < 0 && result >= -4095)
		snprintf(buffer, size, "%" PRId64 " (-%s)", result, test_errno_name((int)result));
	else
		snprintf(buffer, size, "%" PRId64, result);
}

bool test_check_ok(const char *file, int line, const char *text, int64_t result)
{
	char value[64];

	if (result >= 0)
		return true;
	result_format(value, sizeof(value), result);
	return test_fail(file, line, "expected %s to succeed\nresult %s", text, value);
}

bool test_check_errno(const char *file, int line, const char *text, int expected, int64_t result)
{
	char value[64], wanted[64];

	if (result == expected)
		return true;
	result_format(value, sizeof(value), result);
	result_format(wanted, sizeof(wanted), expected);
	return test_fail(file, line, "expected %s to give %s\nresult %s", text, wanted, value);
}

bool test_check_sys(const char *file, int line, const char *text, int64_t result)
{
	if (result != -1)
		return true;
	return test_fail(file, line, "expected %s to succeed\nerrno %d (%s)", text, errno,
			 test_errno_name(errno));
}

bool test_fail_bool(const char *file, int line, const char *text, bool expected)
{
	return test_fail(file, line, "expected %s to be %s", text, expected ? "true" : "false");
}

const char *test_errno_name(int error)
{
	const char *name = strerrorname_np(error < 0 ? -error : error);

	return name != NULL ? name : "unknown errno";
}

const char *test_signal_name(int signal)
{
	static char name[32];
	const char *abbreviation = sigabbrev_np(signal);

	if (abbreviation != NULL)
		snprintf(name, sizeof(name), "SIG%s", abbreviation);
	else
		snprintf(name, sizeof(name), "signal %d", signal);
	return name;
}

/* splitmix64: a counter and a mixer, so every state gives a full period. */
uint64_t test_random_next(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

void test_seed_random(uint64_t seed, const char *name)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (; *name != '\0'; name++)
		hash = (hash ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
	run_seed = seed;
	random_state = seed ^ hash;
}

uint64_t test_seed(void)
{
	return run_seed;
}

uint64_t test_random_u64(void)
{
	return test_random_next(&random_state);
}

uint64_t test_random_below(uint64_t bound)
{
	return (uint64_t)(((unsigned __int128)test_random_u64() * bound) >> 64);
}

pid_t test_fork(void)
{
	uint64_t child_state = test_random_u64();
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		random_state = child_state;
		test_become_child();
	}
	return pid;
}

void test_child_exit(void)
{
	_exit(has_failed ? EXIT_FAILURE : EXIT_SUCCESS);
}

int test_reap(pid_t pid, unsigned int limit_ms, int *ret_status)
{
	uint64_t until = test_now_ms() + limit_ms;
	int status;

	for (;;) {
		pid_t reaped = waitpid(pid, &status, WNOHANG | __WALL);

		if (reaped == pid)
			break;
		if (reaped < 0)
			return -errno;
		if (test_now_ms() >= until)
			return -ETIMEDOUT;
		test_sleep_ms(1);
	}
	if (ret_status != NULL)
		*ret_status = status;
	return 0;
}

bool test_join_at(const char *file, int line, pid_t pid, unsigned int limit_ms)
{
	int status, r = test_reap(pid, limit_ms, &status);

	if (r == -ETIMEDOUT) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, __WALL);
		return test_fail(file, line, "child %d was not finished after %u ms", (int)pid,
				 limit_ms);
	}
	if (r < 0)
		return test_fail(file, line, "child %d: %s", (int)pid, test_errno_name(r));
	if (WIFSIGNALED(status))
		return test_fail(file, line, "child %d died by %s", (int)pid,
				 test_signal_name(WTERMSIG(status)));
	if (WEXITSTATUS(status) != 0)
		return test_fail(file, line, "child %d ended with status %d", (int)pid,
				 WEXITSTATUS(status));
	return true;
}

uint64_t test_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void test_sleep_ms(unsigned int ms)
{
	struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		;
}

bool test_long(void)
{
	const char *value = getenv("SHALE_TEST_LONG");

	return value != NULL && value[0] != '\0' && strcmp(value, "0") != 0;
}
