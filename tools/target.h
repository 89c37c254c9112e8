/*
 * target.h - from what the user wrote to an attached segment.
 *
 *   /proc/PID/fd/N, PID:N   a descriptor of a running process, opened anew
 *   fd:N                    a descriptor that the tool inherited
 *
 * Owner:    the command; target_detach() ends it.
 * Death:    attached read-only the tool is no peer: killing it leaves nothing. Attached with write
 *           access it is one, and recovered like any other.
 */
#ifndef SHALE_TOOLS_TARGET_H
#define SHALE_TOOLS_TARGET_H

#include <stdbool.h>

#include <shale/segment.h>

#include "cli.h"

struct target {
	struct shale_segment *segment;
	int pid; /* whose descriptor it is; 0: ours */
};

/* 0, or CLI_NO_ANSWER with the error printed. */
int target_attach(const char *command, const char *text, bool writable, struct target *ret_target);
void target_detach(struct target *target);

#endif
