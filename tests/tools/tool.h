/*
 * tool.h - run the built tool and look at what it answered.
 *
 * Owner: the test; struct tool_run holds the text of both streams.
 */
#ifndef SHALE_TESTS_TOOLS_TOOL_H
#define SHALE_TESTS_TOOLS_TOOL_H

#include <stdbool.h>

#include <cjson/cJSON.h>

#define TOOL_TEXT (256 * 1024)

struct tool_run {
	int status; /* exit status; -1: it died by a signal or could not be run */
	char out[TOOL_TEXT];
	char err[4096];
};

/* Runs the tool with these words (NULL at the end; at most 8). keep_fd >= 0 is inherited. */
void tool_run(struct tool_run *run, int keep_fd, const char *const *words);
#define TOOL(run, keep_fd, ...) tool_run(run, keep_fd, (const char *const[]){__VA_ARGS__, NULL})

/* In the tool's process, before it is executed; NULL: nothing. */
extern void (*tool_before_exec)(void);

/* stdout as one JSON document, nothing behind it; fails the test if it is not. */
cJSON *tool_json(const struct tool_run *run);
/* A number at a path "segment/peers"; fails the test when it is not there. */
double tool_number(const cJSON *document, const char *path);
/* A text at a path, or NULL with the test failed. */
const char *tool_text(const cJSON *document, const char *path);

/* The answer is an error: status 2, nothing on stdout, one line on stderr with cause and mend. */
void tool_expect_error(const struct tool_run *run, const char *command);

#endif
