/*
 * tool.c - run the built tool and look at what it answered.
 *
 * Owner:     the test; a run's files are memfds that are closed when it is over.
 * Lifetime:  the child is reaped before tool_run() returns.
 * Death:     a tool that hangs is ended with its test by the harness.
 */
#include "tool.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

void (*tool_before_exec)(void);

static const char *tool_path(void)
{
	static char path[4096];
	const char *root = getenv("SHALE_BUILD_ROOT");

	snprintf(path, sizeof(path), "%s/tools/shale", root ? root : ".");
	return path;
}

static void read_back(int fd, char *text, size_t size)
{
	ssize_t length = pread(fd, text, size - 1, 0);

	text[length > 0 ? length : 0] = '\0';
	close(fd);
}

void tool_run(struct tool_run *run, int keep_fd, const char *const *words)
{
	char *argv[10] = {(char *)(uintptr_t) "shale"};
	int out = memfd_create("out", MFD_CLOEXEC), err = memfd_create("err", MFD_CLOEXEC);
	int status = 0;
	pid_t pid;

	for (unsigned i = 0; words[i] && i < 8; i++)
		argv[i + 1] = (char *)(uintptr_t)words[i];
	ASSERT_GE(out, 0);
	ASSERT_GE(err, 0);
	tool_path();
	pid = fork();
	ASSERT_SYS(pid);
	if (pid == 0) {
		if (tool_before_exec)
			tool_before_exec();
		if (dup2(out, 1) < 0 || dup2(err, 2) < 0 ||
		    (keep_fd >= 0 && fcntl(keep_fd, F_SETFD, 0) < 0))
			_exit(126);
		execv(tool_path(), argv);
		_exit(127);
	}
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	run->status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	read_back(out, run->out, sizeof(run->out));
	read_back(err, run->err, sizeof(run->err));
}

cJSON *tool_json(const struct tool_run *run)
{
	const char *end = NULL;
	cJSON *document = cJSON_ParseWithOpts(run->out, &end, 0);

	if (!document || !end || strspn(end, "\n") != strlen(end)) {
		TEST_FAIL("not one JSON document: %.400s", run->out);
		test_abort();
	}
	return document;
}

static const cJSON *at_path(const cJSON *document, const char *path)
{
	char copy[128], *rest = copy, *key;

	snprintf(copy, sizeof(copy), "%s", path);
	while (document && (key = strsep(&rest, "/")))
		document = cJSON_GetObjectItemCaseSensitive(document, key);
	return document;
}

double tool_number(const cJSON *document, const char *path)
{
	const cJSON *item = at_path(document, path);

	if (!cJSON_IsNumber(item)) {
		TEST_FAIL("no number at %s", path);
		return -1.0;
	}
	return item->valuedouble;
}

const char *tool_text(const cJSON *document, const char *path)
{
	const cJSON *item = at_path(document, path);

	if (!cJSON_IsString(item)) {
		TEST_FAIL("no text at %s", path);
		return "";
	}
	return item->valuestring;
}

void tool_expect_error(const struct tool_run *run, const char *command)
{
	char head[64];

	snprintf(head, sizeof(head), "shale%s%s: ", command[0] ? " " : "", command);
	EXPECT_EQ(run->status, 2);
	EXPECT_STR_EQ(run->out, "");
	if (strncmp(run->err, head, strlen(head)) != 0 || !strstr(run->err, "; ") ||
	    strchr(run->err, '\n') != run->err + strlen(run->err) - 1)
		TEST_FAIL("not one line '%scause; mend': '%s'", head, run->err);
}
