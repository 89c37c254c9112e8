/*
 * testlib_harness.c - the harness must be able to fail: runs a program of bad tests and reads what it says.
 *
 * Owner:     one run of the other program per test; its path comes in SHALE_TEST_VICTIM, or is
 *            this program's with "_victim" behind it, here or in the folder "unit".
 * Invariant: H1..H3 of harness.h, seen from outside.
 * Ordering:  the output is read after the run has ended.
 * Lifetime:  the output is kept for the length of a test.
 * Death:     the other program's tests hang and die; the program itself must not.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "lib/harness.h"
#include "lib/hugepages.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char output[65536];

static const char *victim_path(char path[4096])
{
	const char *given = getenv("SHALE_TEST_VICTIM"), *name;
	char self[2000];
	ssize_t n;

	if (given != NULL)
		return given;
	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	ASSERT_GT(n, 0);
	self[n] = '\0';
	snprintf(path, 4096, "%s_victim", self);
	if (access(path, X_OK) == 0)
		return path;
	name = strrchr(self, '/') + 1;
	snprintf(path, 4096, "%.*sunit/%s_victim", (int)(name - self), self, name);
	return path;
}

/* Run the bad tests whose name fits; the exit status. The output is in `output`. */
static int run(const char *filter, const char *option, const char *value)
{
	char path[4096];
	const char *program = victim_path(path);
	int pipe_fds[2], status;
	size_t size = 0;
	ssize_t n;
	pid_t pid;

	ASSERT_SYS(pipe(pipe_fds));
	pid = test_fork();
	if (pid == 0) {
		dup2(pipe_fds[1], STDOUT_FILENO);
		execl(program, program, "--filter", filter, option, value, NULL);
		TEST_FAIL("%s: %s", program, test_errno_name(errno));
		_exit(127);
	}
	close(pipe_fds[1]);
	while ((n = read(pipe_fds[0], output + size, sizeof(output) - 1 - size)) > 0)
		size += (size_t)n;
	output[size] = '\0';
	close(pipe_fds[0]);
	ASSERT_SYS(waitpid(pid, &status, 0));
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void expect_output(const char *text, bool is_there)
{
	if ((strstr(output, text) != NULL) != is_there)
		TEST_FAIL("output should %scontain \"%s\":\n%s", is_there ? "" : "not ", text,
			  output);
}

struct expectation {
	int status;
	const char *contains[4];
	const char *lacks[2];
};

static const struct expectation passes = {
	0, {"TAP version 13\n1..1\n", "\nok 1 victim / passes\n"}, {"not ok"}};
static const struct expectation expect_fails = {1,
						{"not ok 1 victim / expect_fails_and_goes_on",
						 "expected 3 == 4\n#   left  3\n#   right 4\n",
						 "left  \"left one\"",
						 "expected 1 == 2 to be true"},
						{"\nok"}};
static const struct expectation max_is_not_minus_one = {
	1, {"not ok 1", "18446744073709551615"}, {0}};
static const struct expectation assert_in_helper = {
	1, {"not ok 1", "testlib_harness_victim.c:", "-ENOMEM"}, {"went on"}};
static const struct expectation assert_in_child = {
	1, {"not ok 1", "-EINVAL", "-EBADMSG"}, {"went on"}};
static const struct expectation child_killed = {1, {"not ok 1", "died by SIGKILL"}, {0}};
static const struct expectation hangs = {1, {"not ok 1", "not finished within its limit"}, {0}};
static const struct expectation crashes = {1, {"not ok 1", "died by SIGSEGV"}, {0}};
static const struct expectation exits_early = {1, {"not ok 1", "ended early"}, {0}};
static const struct expectation skips = {
	0, {"\nok 1 victim / skips # SKIP no luck here\n"}, {"not ok"}};
static const struct expectation fails_then_skips = {1, {"not ok 1"}, {"SKIP"}};
static const struct expectation leaks_fd = {1, {"not ok 1", "/dev/null) was left open"}, {0}};
static const struct expectation leaks_no_fd = {0, {"\nok 1"}, {0}};
static const struct expectation prints = {0, {"1..1\n", "\nok 1"}, {"forged"}};
static const struct expectation assert_one = {1,
					      {"1..2\n", "\nok 1 fix / assert_one [one]\n",
					       "not ok 2 fix / assert_one [two]", "teardown 2"},
					      {0}};
static const struct expectation sized = {
	0, {"1..2\n", "\nok 1 victim / sized [small]\n", "\nok 2 victim / sized [large]\n"}, {0}};

/* The variant's name is the filter. */
VARIANT_SET(bad_tests) = {
	{"passes", 0, &passes},
	{"expect_fails", 0, &expect_fails},
	{"max_is_not_minus_one", 0, &max_is_not_minus_one},
	{"assert_in_helper", 0, &assert_in_helper},
	{"assert_in_child", 0, &assert_in_child},
	{"child_killed", 0, &child_killed},
	{"hangs", 0, &hangs},
	{"crashes", 0, &crashes},
	{"exits_early", 0, &exits_early},
	{"/ skips", 0, &skips},
	{"fails_then_skips", 0, &fails_then_skips},
	{"leaks_fd", 0, &leaks_fd},
	{"leaks_no_fd", 0, &leaks_no_fd},
	{"prints_to_stdout", 0, &prints},
	{"assert_one", 0, &assert_one},
	{"sized", 0, &sized},
};

TEST_V(testlib_harness, reports_what_happened, bad_tests)
{
	const struct expectation *expectation = variant->data;

	EXPECT_EQ(run(variant->name, NULL, NULL), expectation->status);
	for (size_t i = 0; i < 4 && expectation->contains[i] != NULL; i++)
		expect_output(expectation->contains[i], true);
	for (size_t i = 0; i < 2 && expectation->lacks[i] != NULL; i++)
		expect_output(expectation->lacks[i], false);
}

TEST(testlib_harness, no_fork_reports_the_same)
{
	EXPECT_EQ(run("assert_one", "--no-fork", NULL), 1);
	expect_output("\nok 1 fix / assert_one [one]\n", true);
	expect_output("not ok 2 fix / assert_one [two]", true);
}

TEST(testlib_harness, same_seed_same_numbers)
{
	char first[sizeof(output)];

	EXPECT_EQ(run("/ random", "--seed", "77"), 0);
	memcpy(first, output, sizeof(first));
	EXPECT_EQ(run("/ random", "--seed", "77"), 0);
	EXPECT_STR_EQ(first, output);
	EXPECT_EQ(run("/ random", "--seed", "78"), 0);
	EXPECT_STR_NE(first, output);
}

TEST(testlib_harness, a_filter_that_fits_nothing_is_an_error)
{
	EXPECT_EQ(run("no such test", NULL, NULL), 2);
}

TEST(testlib_harness, nothing_outlives_a_test)
{
	const char *at;
	pid_t hidden = 0;

	EXPECT_EQ(run("leaves_process", NULL, NULL), 0);
	at = strstr(output, "hidden ");
	ASSERT_NOT_NULL(at);
	ASSERT_EQ(sscanf(at, "hidden %d", &hidden), 1);
	ASSERT_GT(hidden, 1);
	EXPECT_EQ(kill(hidden, 0), -1);
	EXPECT_EQ(errno, ESRCH);
}

TEST(testlib_harness, huge_page_pool_is_restored_after_a_death)
{
	int before = -1, raised = -1;
	const char *at;
	int status = run("raises_pool_and_dies", NULL, NULL);

	if (status == 0 && strstr(output, "# SKIP ") != NULL)
		SKIP("%.80s", strstr(output, "# SKIP ") + 7);
	EXPECT_EQ(status, 1);
	at = strstr(output, "before ");
	ASSERT_NOT_NULL(at);
	ASSERT_EQ(sscanf(at, "before %d", &before), 1);
	at = strstr(output, "raised ");
	ASSERT_NOT_NULL(at);
	ASSERT_EQ(sscanf(at, "raised %d", &raised), 1);
	EXPECT_GE(raised, before + 2);
	hugepages_lock();
	EXPECT_EQ(hugepages_total(2 << 20, HUGEPAGES_ANY_NODE), before);
}
