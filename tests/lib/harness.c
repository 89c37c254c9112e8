/*
 * harness.c - the runner: picks tests, gives each a process, watches it, and prints the result.
 *
 *   runner --fork--> test (own session) --> whatever it starts
 *     ^  |                  |                     |
 *     |  +-- waits, limit --+                     |
 *     +---- report file (appended to by all) -----+
 *
 * Owner:     the runner alone writes stdout; a test's own stdout is sent to stderr.
 * Invariant: H1..H3 of harness.h
 * Ordering:  `shared` is written by a test and read by the runner: the limit whenever it looks, the
 *            rest after the test was reaped.
 * Lifetime:  one runner a program; it adopts orphans (PR_SET_CHILD_SUBREAPER) so that none escapes.
 * Death:     runner told to end: kills the test, runs the hooks, dies by the same signal.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_USAGE = 2, NAME_MAX_BYTES = 256, REPORT_FD_MIN = 700, REPORT_MAX_BYTES = 1 << 20 };

/* Written by the test's process, read by the runner. */
struct test_shared {
	volatile uint64_t limit_at_ms;
	volatile bool expect_no_fd_leak;
	volatile bool finished;
};

struct selected {
	const struct test_case *test;
	const struct test_fixture_part *part; /* of this fixture, with a variant; or NULL */
	const struct test_variant *variant;   /* of this set; or NULL */
	char name[NAME_MAX_BYTES];
};

struct options {
	bool list, no_fork;
	const char *filter;
	uint64_t seed;
};

struct outcome {
	bool failed, skipped;
	char reason[NAME_MAX_BYTES];
};

static struct test_case *first_test, **last_test = &first_test;
static struct test_fixture_part *first_part, **last_part = &first_part;
static struct test_shared *shared;
static int (*role_runner)(int argc, char **argv);
static void (*hook_before)(void), (*hook_after)(void);
static sigset_t runner_signals, original_signals;

void test_register(struct test_case *test)
{
	*last_test = test;
	last_test = &test->next;
}

void test_register_part(struct test_fixture_part *part)
{
	*last_part = part;
	last_part = &part->next;
}

void test_set_role_runner(int (*run)(int argc, char **argv))
{
	role_runner = run;
}

void test_set_runner_hooks(void (*before)(void), void (*after)(void))
{
	hook_before = before;
	hook_after = after;
}

/* SHALE_TEST_SLOWER=10 stretches all limits; under valgrind they are long by default. */
static uint64_t limit_ms(unsigned int seconds)
{
	const char *text = getenv("SHALE_TEST_SLOWER");
	uint64_t factor = text != NULL ? strtoull(text, NULL, 10) : 0;

	if (factor == 0)
		factor = getenv("SHALE_TEST_VALGRIND") != NULL ? 20 : 1;
	return (uint64_t)seconds * 1000 * factor;
}

void test_set_limit(unsigned int seconds)
{
	if (shared != NULL) /* not in a role */
		shared->limit_at_ms = test_now_ms() + limit_ms(seconds);
}

void test_expect_no_fd_leak(void)
{
	if (shared != NULL)
		shared->expect_no_fd_leak = true;
}

/* ---- descriptors ---- */

/* Call for each open descriptor but the one used to look. */
static void for_each_fd(void (*call)(int fd, void *context), void *context)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;

	if (dir == NULL)
		return;
	while ((entry = readdir(dir)) != NULL) {
		int fd = atoi(entry->d_name);

		if (entry->d_name[0] != '.' && fd != dirfd(dir))
			call(fd, context);
	}
	closedir(dir);
}

static void count_fd(int fd, void *context)
{
	unsigned int *count = context;

	(void)fd;
	(*count)++;
}

unsigned int test_fd_count(void)
{
	unsigned int count = 0;

	for_each_fd(count_fd, &count);
	return count;
}

static void remember_fd(int fd, void *context)
{
	bool *open_before = context;

	if (fd < FD_SETSIZE)
		open_before[fd] = true;
}

static void report_new_fd(int fd, void *context)
{
	const bool *open_before = context;
	char path[64], target[256];
	ssize_t n;

	if (fd >= FD_SETSIZE || open_before[fd])
		return;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, target, sizeof(target) - 1);
	target[n > 0 ? n : 0] = '\0';
	TEST_FAIL("descriptor %d (%s) was left open", fd, target);
}

/* ---- the test's process ---- */

static const struct test_fixture_part *part_of(const char *fixture, bool is_setup)
{
	for (const struct test_fixture_part *part = first_part; part != NULL; part = part->next) {
		if (strcmp(part->fixture, fixture) != 0)
			continue;
		if (is_setup ? part->setup != NULL : part->teardown != NULL)
			return part;
	}
	return NULL;
}

static sigjmp_buf escape;

/* False when a failed ASSERT or a SKIP cut it short. */
static bool call_to_end(void (*call)(void *self, const void *variant), void *self,
			const void *variant)
{
	if (sigsetjmp(escape, 1) != 0)
		return false;
	call(self, variant);
	return true;
}

static void call_with_fixture(const struct selected *selected, void *self, const void *variant)
{
	const struct test_fixture_part *setup = part_of(selected->test->suite, true);
	const struct test_fixture_part *teardown = part_of(selected->test->suite, false);

	if (setup != NULL && !call_to_end(setup->setup, self, variant))
		return;
	call_to_end(selected->test->call, self, variant);
	if (teardown != NULL)
		call_to_end(teardown->teardown, self, variant);
}

/* The whole of a test, in the process where it lives; true when nothing failed in this process. */
static bool test_live(const struct selected *selected)
{
	static bool open_before[FD_SETSIZE];
	const struct test_case *test = selected->test;
	pid_t self_pid = getpid();
	bool failed;

	memset(open_before, 0, sizeof(open_before));
	for_each_fd(remember_fd, open_before);
	test_set_escape(&escape);
	if (test->has_fixture) {
		void *self = calloc(1, test->fixture_size + 1);

		call_with_fixture(selected, self,
				  selected->part != NULL ? selected->part->variant : NULL);
		free(self);
	} else {
		call_to_end(test->call, NULL, selected->variant);
	}
	if (getpid() != self_pid)
		test_child_exit(); /* a forked child ran off the end of the test */
	if (shared->expect_no_fd_leak)
		for_each_fd(report_new_fd, open_before);
	failed = test_has_failed();
	test_become_child();
	shared->finished = true;
	return !failed;
}

static _Noreturn void test_process(const struct selected *selected, pid_t runner)
{
	struct rlimit no_core = {0, 0};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != runner)
		_exit(EXIT_FAILURE);
	setsid();
	setrlimit(RLIMIT_CORE, &no_core);
	sigprocmask(SIG_SETMASK, &original_signals, NULL);
	dup2(STDERR_FILENO, STDOUT_FILENO);
	exit(test_live(selected) ? EXIT_SUCCESS : EXIT_FAILURE);
}

/* ---- the runner: watch, sweep, judge ---- */

static void kill_children(void)
{
	char path[64];
	FILE *file;
	int pid;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)gettid());
	file = fopen(path, "re");
	if (file == NULL)
		return;
	while (fscanf(file, "%d", &pid) == 1)
		kill(pid, SIGKILL);
	fclose(file);
}

/* End everything below us: orphans come to us one generation at a time. */
static void sweep(void)
{
	for (;;) {
		kill_children();
		if (waitpid(-1, NULL, __WALL) < 0 && errno == ECHILD)
			return;
	}
}

static _Noreturn void runner_end(int signal)
{
	sweep();
	if (hook_after != NULL)
		hook_after();
	fflush(NULL);
	kill(getpid(), signal);
	sigprocmask(SIG_SETMASK, &original_signals, NULL);
	_exit(128 + signal);
}

/* Wait for the test; its wait status, or -ETIMEDOUT when its limit has passed. */
static int watch(pid_t pid, int *ret_status)
{
	for (;;) {
		uint64_t now = test_now_ms(), limit = shared->limit_at_ms, left;
		struct timespec timeout;
		int signal;

		if (waitpid(pid, ret_status, WNOHANG) == pid)
			return 0;
		if (now >= limit)
			return -ETIMEDOUT;
		left = limit - now < 500 ? limit - now : 500; /* the test may move its limit */
		timeout.tv_sec = (time_t)(left / 1000);
		timeout.tv_nsec = (long)(left % 1000) * 1000000;
		signal = sigtimedwait(&runner_signals, NULL, &timeout);
		if (signal > 0 && signal != SIGCHLD)
			runner_end(signal);
	}
}

/* Print the report as comments, and note what it says about failing and skipping. */
static void report_read(struct outcome *outcome)
{
	off_t size = lseek(test_report_fd(), 0, SEEK_END);
	char *text, *line, *rest;
	ssize_t n;

	if (size <= 0)
		return;
	if (size > REPORT_MAX_BYTES)
		size = REPORT_MAX_BYTES;
	text = calloc(1, (size_t)size + 1);
	n = text != NULL ? pread(test_report_fd(), text, (size_t)size, 0) : 0;
	for (line = strtok_r(n > 0 ? text : NULL, "\n", &rest); line != NULL;
	     line = strtok_r(NULL, "\n", &rest)) {
		if (line[0] == 'S') {
			outcome->skipped = true;
			snprintf(outcome->reason, sizeof(outcome->reason), "%s", line + 1);
			continue;
		}
		outcome->failed |= line[0] == 'F';
		printf("# %s%s\n", line[0] == 'F' ? "" : "  ", line + 1);
	}
	free(text);
}

static void judge_status(const struct test_case *test, int watched, int status,
			 struct outcome *outcome)
{
	if (watched == -ETIMEDOUT)
		printf("# not finished within its limit (%u s unless it chose another), killed\n",
		       test->limit_s);
	else if (WIFSIGNALED(status))
		printf("# died by %s\n", test_signal_name(WTERMSIG(status)));
	else if (!shared->finished && !outcome->skipped && !outcome->failed)
		printf("# ended early, by exit(%d)\n", WEXITSTATUS(status));
	else if (shared->finished && WEXITSTATUS(status) != 0 && !outcome->failed)
		printf("# exit status %d after its end\n", WEXITSTATUS(status));
	else
		return;
	outcome->failed = true;
}

static void shared_reset(const struct test_case *test)
{
	shared->limit_at_ms = test_now_ms() + limit_ms(test->limit_s);
	shared->expect_no_fd_leak = false;
	shared->finished = false;
	if (ftruncate(test_report_fd(), 0) < 0)
		perror("emptying the report");
}

static void run_forked(const struct selected *selected, struct outcome *outcome)
{
	pid_t runner = getpid(), pid;
	int status = 0, watched;

	fflush(NULL);
	pid = fork();
	if (pid == 0)
		test_process(selected, runner);
	if (pid < 0) {
		printf("# fork: %s\n", test_errno_name(errno));
		outcome->failed = true;
		return;
	}
	watched = watch(pid, &status);
	kill(-pid, SIGKILL);
	sweep();
	report_read(outcome);
	judge_status(selected->test, watched, status, outcome);
}

static bool run_one(const struct selected *selected, const struct options *options, size_t number)
{
	struct outcome outcome = {0};

	shared_reset(selected->test);
	test_seed_random(options->seed, selected->name);
	if (options->no_fork) {
		outcome.failed = !test_live(selected);
		sweep();
		report_read(&outcome);
	} else {
		run_forked(selected, &outcome);
	}
	if (hook_after != NULL)
		hook_after();
	if (outcome.failed)
		printf("not ok %zu %s\n", number, selected->name);
	else if (outcome.skipped)
		printf("ok %zu %s # SKIP %s\n", number, selected->name, outcome.reason);
	else
		printf("ok %zu %s\n", number, selected->name);
	fflush(stdout);
	return !outcome.failed;
}

/* ---- which tests ---- */

static bool filter_takes(const char *filter, const char *name)
{
	return filter == NULL || strstr(name, filter) != NULL || fnmatch(filter, name, 0) == 0;
}

static void select_add(struct selected *list, size_t *count, const struct options *options,
		       struct selected one, const char *variant_name)
{
	snprintf(one.name, sizeof(one.name), "%s / %s%s%s%s", one.test->suite, one.test->name,
		 variant_name != NULL ? " [" : "", variant_name != NULL ? variant_name : "",
		 variant_name != NULL ? "]" : "");
	if (!filter_takes(options->filter, one.name))
		return;
	if (list != NULL)
		list[*count] = one;
	(*count)++;
}

/* Count the tests to run and, with a list, fill it. */
static size_t select_tests(struct selected *list, const struct options *options)
{
	size_t count = 0;

	for (const struct test_case *test = first_test; test != NULL; test = test->next) {
		struct selected one = {.test = test};
		bool has_variants = test->set_count > 0;

		for (size_t i = 0; i < test->set_count; i++) {
			one.variant = &test->set[i];
			select_add(list, &count, options, one, one.variant->name);
		}
		for (one.part = first_part; one.part != NULL; one.part = one.part->next) {
			if (!test->has_fixture || one.part->variant == NULL ||
			    strcmp(one.part->fixture, test->suite) != 0)
				continue;
			has_variants = true;
			select_add(list, &count, options, one, one.part->variant_name);
		}
		if (!has_variants)
			select_add(list, &count, options, one, NULL);
	}
	return count;
}

static bool run_all(const struct selected *list, size_t count, const struct options *options)
{
	bool good = true;

	if (hook_before != NULL)
		hook_before();
	printf("TAP version 13\n1..%zu\n# seed 0x%016" PRIx64 "\n", count, options->seed);
	for (size_t i = 0; i < count; i++)
		good &= run_one(&list[i], options, i + 1);
	if (!good)
		printf("# run again: SHALE_TEST_SEED=0x%016" PRIx64 " %s\n", options->seed,
		       program_invocation_name);
	return good;
}

/* ---- start ---- */

static void runner_prepare(void)
{
	int fd = memfd_create("test-report", MFD_CLOEXEC), high;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (fd < 0 || shared == MAP_FAILED) {
		perror("test runner");
		exit(EXIT_USAGE);
	}
	high = fcntl(fd, F_DUPFD_CLOEXEC,
		     REPORT_FD_MIN); /* out of the way of tests on fd numbers */
	if (high >= 0) {
		close(fd);
		fd = high;
	}
	fcntl(fd, F_SETFL, O_APPEND);
	test_adopt_report_fd(fd);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	sigemptyset(&runner_signals);
	sigaddset(&runner_signals, SIGCHLD);
	sigaddset(&runner_signals, SIGTERM);
	sigaddset(&runner_signals, SIGINT);
	sigaddset(&runner_signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &runner_signals, &original_signals);
}

static int usage(void)
{
	fprintf(stderr, "usage: %s [--list] [--filter PATTERN] [--no-fork] [--seed N]\n",
		program_invocation_short_name);
	return EXIT_USAGE;
}

static uint64_t seed_default(void)
{
	const char *text = getenv("SHALE_TEST_SEED");
	uint64_t seed;

	if (text != NULL && text[0] != '\0')
		return strtoull(text, NULL, 0);
	if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		seed = test_now_ms() ^ (uint64_t)getpid() << 32;
	return seed;
}

static bool options_parse(int argc, char **argv, struct options *options)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--list") == 0)
			options->list = true;
		else if (strcmp(argv[i], "--no-fork") == 0)
			options->no_fork = true;
		else if (strcmp(argv[i], "--filter") == 0 && i + 1 < argc)
			options->filter = argv[++i];
		else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
			options->seed = strtoull(argv[++i], NULL, 0);
		else
			return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	struct options options = {.seed = seed_default()};
	struct selected *list;
	bool good = true;
	size_t count;

	if (argc >= 3 && strcmp(argv[1], "--role") == 0 && role_runner != NULL)
		return role_runner(argc - 2, argv + 2);
	if (!options_parse(argc, argv, &options))
		return usage();
	count = select_tests(NULL, &options);
	list = calloc(count + 1, sizeof(*list));
	if (count == 0 || list == NULL) {
		free(list);
		fprintf(stderr, "%s: no test matches\n", program_invocation_short_name);
		return EXIT_USAGE;
	}
	select_tests(list, &options);
	for (size_t i = 0; options.list && i < count; i++)
		printf("%s\n", list[i].name);
	if (!options.list) {
		runner_prepare();
		good = run_all(list, count, &options);
	}
	free(list);
	return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
