/*
 * target.c - open the descriptor that the user named, attach to it, and say what is wrong if not.
 *
 * Owner:     the command; descriptors are closed before target_attach() returns (a view has its own).
 * Invariant: T1  nothing but a regular file is ever opened: no pipe blocks, no device is disturbed
 *            T2  a file that is only looked at is opened read-only
 * Ordering, lifetime: private to the process.
 * Death:     see target.h.
 */
#include "target.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KIND_MEND    "give the descriptor that shale_segment_fd() returned"
#define TARGET_FORMS "write /proc/PID/fd/N, PID:N, or fd:N for an inherited one"

/* The two numbers of a target; *ret_pid is 0 for fd:N. */
static bool target_parse(const char *text, int *ret_pid, int *ret_fd)
{
	int end = 0;

	*ret_pid = 0;
	if (sscanf(text, "fd:%9d%n", ret_fd, &end) == 1 && end && !text[end])
		return *ret_fd >= 0;
	end = 0;
	if (sscanf(text, "/proc/self/fd/%9d%n", ret_fd, &end) == 1 && end && !text[end])
		return *ret_fd >= 0;
	end = 0;
	if (sscanf(text, "/proc/%9d/fd/%9d%n", ret_pid, ret_fd, &end) == 2 && end && !text[end])
		return *ret_pid > 0 && *ret_fd >= 0;
	end = 0;
	if (sscanf(text, "%9d:%9d%n", ret_pid, ret_fd, &end) == 2 && end && !text[end])
		return *ret_pid > 0 && *ret_fd >= 0;
	return false;
}

static int open_error(const char *command, const char *text, int pid, int error)
{
	char path[64], mend[128];

	snprintf(path, sizeof(path), "/proc/%d", pid);
	switch (error) {
	case ENOENT:
		if (access("/proc/self/fd", F_OK) < 0)
			return cli_error(command, "mend: mount -t proc proc /proc",
					 "%s: /proc is not mounted", text);
		if (access(path, F_OK) < 0)
			return cli_error(command, "list processes with: ps -e", "%s: no process %d",
					 text, pid);
		snprintf(mend, sizeof(mend), "list them with: ls -l /proc/%d/fd", pid);
		return cli_error(command, mend, "%s: process %d has no such descriptor", text, pid);
	case EACCES:
	case EPERM:
		return cli_error(command, "run this as the user of that process, or as root",
				 "%s: %s", text, strerror(error));
	default:
		return cli_error(command, KIND_MEND, "%s: %s", text, strerror(error));
	}
}

static const char *kind_of(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFIFO:
		return "a pipe";
	case S_IFSOCK:
		return "a socket";
	case S_IFDIR:
		return "a directory";
	case S_IFCHR:
	case S_IFBLK:
		return "a device";
	default:
		return "no regular file";
	}
}

/* Opens /proc/PID/fd/N anew. The fd, or CLI_NO_ANSWER negated with the error printed. */
static int target_open(const char *command, const char *text, int pid, int number, bool writable)
{
	char path[64];
	struct stat status;
	int name, fd;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, number);
	name = open(path, O_PATH | O_CLOEXEC);
	if (name < 0)
		return -open_error(command, text, pid, errno);
	if (fstat(name, &status) < 0 || !S_ISREG(status.st_mode)) {
		close(name);
		return -cli_error(command, KIND_MEND, "%s: not a segment but %s", text,
				  kind_of(status.st_mode));
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", name);
	fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		fd = -open_error(command, text, pid, errno);
	close(name);
	return fd;
}

static const char *attach_mend(int error)
{
	switch (error) {
	case EMEDIUMTYPE:
	case EBADMSG:
	case ETXTBSY:
		return KIND_MEND;
	case EPROTONOSUPPORT:
		return "use the shale tool of the version that made it";
	case EAGAIN:
		return "try again when its creator is done, or end it";
	case EUSERS:
		return "look without writing, or end a peer";
	case EBADF:
		return "open it with the access that is needed, and pass it on: command 9<>FILE";
	case EOPNOTSUPP:
		return "mount -t proc proc /proc";
	case ENOMEM:
		return "raise the address space limit: ulimit -v unlimited";
	default:
		return "see what is missing here with: shale doctor";
	}
}

int target_attach(const char *command, const char *text, bool writable, struct target *ret_target)
{
	char reason[256] = "";
	struct shale_attach_options options = {
		.size = sizeof(options),
		.read_only = !writable,
		.reason = reason,
		.reason_size = sizeof(reason),
	};
	int pid, number, fd, r;

	if (!target_parse(text, &pid, &number))
		return cli_error(command, TARGET_FORMS, "%s: not a descriptor", text);
	fd = pid ? target_open(command, text, pid, number, writable) : number;
	if (fd < 0)
		return -fd;
	r = shale_segment_attach(fd, &options, &ret_target->segment);
	if (pid)
		close(fd);
	if (r < 0)
		return cli_error(command, attach_mend(-r), "%s: %s (%s)", text,
				 reason[0] ? reason : "cannot attach", strerror(-r));
	ret_target->pid = pid;
	return 0;
}

void target_detach(struct target *target)
{
	shale_segment_detach(target->segment);
	target->segment = NULL;
}
