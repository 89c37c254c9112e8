/*
 * readme.c - what README.md shows is what is in docs/examples, and it runs.
 *
 * Owner:     the test owns both processes.
 * Invariant: a program in README.md is, byte for byte, a file that is compiled.
 * Ordering:  the consumer attaches while the producer waits for room in the channel.
 * Lifetime:  both processes have ended before the test does.
 * Death:     the harness kills what a failed test leaves.
 */
#include "lib/harness.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char *read_source(const char *name)
{
	char path[4096];
	char *text = NULL;
	size_t room = 0;
	FILE *file;

	ASSERT_NOT_NULL(getenv("SHALE_SOURCE_ROOT"));
	snprintf(path, sizeof(path), "%s/%s", getenv("SHALE_SOURCE_ROOT"), name);
	file = fopen(path, "r");
	if (!file)
		TEST_FAIL("%s is not there", path);
	ASSERT_NOT_NULL(file);
	ASSERT_TRUE(getdelim(&text, &room, '\0', file) > 0);
	fclose(file);
	return text;
}

/* The text between "```c" and "```" that is the n-th such block, or NULL. */
static char *code_block(const char *text, int n)
{
	const char *start = text, *end;

	for (;; start = end + 4) {
		start = strstr(start, "```c\n");
		if (!start)
			return NULL;
		start += 5;
		end = strstr(start, "```");
		ASSERT_NOT_NULL(end);
		if (n-- == 0)
			return strndup(start, (size_t)(end - start));
	}
}

static int count_lines(const char *text)
{
	int lines = 0;

	while ((text = strchr(text, '\n'))) {
		text++;
		lines++;
	}
	return lines;
}

static void expect_block(const char *readme, int n, const char *name)
{
	char *block = code_block(readme, n), *file = read_source(name);

	ASSERT_NOT_NULL(block);
	EXPECT_STR_EQ(block, file);
	EXPECT_EQ(count_lines(file), 15);
	free(block);
	free(file);
}

TEST(readme, shows_the_programs_that_are_compiled)
{
	char *readme = read_source("README.md");

	expect_block(readme, 0, "docs/examples/producer.c");
	expect_block(readme, 1, "docs/examples/consumer.c");
	EXPECT_NULL(code_block(readme, 2));
	free(readme);
}

/* Starts a program of docs/examples; *ret_output reads what it writes to `fd`. */
static pid_t start(const char *name, const char *argument, int fd, FILE **ret_output)
{
	char path[4096];
	int ends[2];
	pid_t pid;

	ASSERT_NOT_NULL(getenv("SHALE_BUILD_ROOT"));
	snprintf(path, sizeof(path), "%s/docs/examples/%s", getenv("SHALE_BUILD_ROOT"), name);
	ASSERT_SYS(pipe(ends));
	pid = fork();
	ASSERT_SYS(pid);
	if (pid == 0) {
		dup2(ends[1], fd);
		close(ends[0]);
		close(ends[1]);
		/* fifteen lines do not tidy up before they exit */
		setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
		execl(path, name, argument, (char *)NULL);
		_exit(127);
	}
	close(ends[1]);
	*ret_output = fdopen(ends[0], "r");
	ASSERT_NOT_NULL(*ret_output);
	return pid;
}

static void expect_success(pid_t pid)
{
	int status = -1;

	ASSERT_OK(test_reap(pid, 20000, &status));
	EXPECT_TRUE(WIFEXITED(status));
	EXPECT_EQ(WEXITSTATUS(status), 0);
}

static void expect_complaint(const char *argument)
{
	FILE *said;
	char line[256] = "";
	int status = -1;
	pid_t consumer = start("consumer", argument, STDERR_FILENO, &said);

	ASSERT_NOT_NULL(fgets(line, sizeof(line), said));
	EXPECT_EQ(strncmp(line, "usage: consumer /proc/", 22), 0);
	EXPECT_NULL(fgets(line, sizeof(line), said));
	ASSERT_OK(test_reap(consumer, 20000, &status));
	EXPECT_TRUE(WIFEXITED(status));
	EXPECT_EQ(WEXITSTATUS(status), 1);
	fclose(said);
}

TEST(readme, consumer_says_what_it_wants)
{
	expect_complaint(NULL);
	expect_complaint("/proc/self/fd/9999");
	expect_complaint("/dev/null");
}

TEST(readme, consumer_gets_all_that_the_producer_sends)
{
	FILE *said, *result;
	char place[256] = "", sum[64] = "";
	pid_t producer = start("producer", NULL, STDERR_FILENO, &said);
	pid_t consumer;

	ASSERT_EQ(fscanf(said, "run: consumer %255s", place), 1);
	consumer = start("consumer", place, STDOUT_FILENO, &result);
	ASSERT_NOT_NULL(fgets(sum, sizeof(sum), result));
	EXPECT_STR_EQ(sum, "sum 500000500000\n");
	expect_success(consumer);
	expect_success(producer);
	fclose(said);
	fclose(result);
}
