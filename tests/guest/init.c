/*
 * init.c - the first process of the test guest: runs the programs of a list, reports KTAP, powers off.
 *
 *   /programs   one program a line, fields divided by tabs:  tap|plain  NAME  PATH  [ARGUMENT ...]
 *               tap: prints TAP itself; plain: its exit status is its one result
 *   kernel's command line (words it does not know become our environment):
 *               GUEST_KERNEL=6.1   start of the release that must be running
 *               GUEST_NODES=0-2    NUMA nodes that must be there, as the kernel lists them,
 *               GUEST_MEMORY=0-1   those of them that have memory,
 *               GUEST_CPUS=0-2     and those that have a CPU
 *               GUEST_DISTANCES=10,21,21   of node 0 to each
 *               GUEST_PAGES=N      2 MiB pages to reserve on each node
 *               GUEST_LIMIT=S      seconds for each program
 *               SHALE_...=...      for the programs
 *
 * The second serial line carries KTAP: each program's output indented by four spaces, then its result.
 * QEMU's exit status is the verdict: 65 all passed, 67 something failed; anything else means that
 * the guest did not come to its end.
 *
 * Owner:     everything in the guest is ours: what a program leaves running is killed after it.
 * Invariant: one result for each line of the list, in its order, and five before them: the kernel
 *            and the nodes are what was asked for
 * Lifetime:  to the end of the guest.
 * Death:     the kernel panics, which with panic=-1 and -no-reboot ends QEMU with status 0.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { LIST_BYTES = 65536, MAX_ARGUMENTS = 32, MAX_PROGRAMS = 256 };
enum { DEBUG_PORT = 0xf4, VERDICT_PASSED = 32, VERDICT_FAILED = 33 };

struct program {
	bool plain;
	char *name;
	char *arguments[MAX_ARGUMENTS + 1];
};

static unsigned results, failures;

/* ---- small things ---- */

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Never fails: what cannot be read is empty. */
static char *read_file(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t used = 0;
	ssize_t n = fd < 0 ? 0 : 1;

	while (n > 0 && used + 1 < size) {
		n = read(fd, text + used, size - 1 - used);
		used += n > 0 ? (size_t)n : 0;
	}
	if (fd >= 0)
		close(fd);
	while (used > 0 && text[used - 1] == '\n')
		used--;
	text[used] = '\0';
	return text;
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		printf("# %s: %s\n", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

static const char *word(const char *name, const char *otherwise)
{
	const char *value = getenv(name);

	return value ? value : otherwise;
}

static void result(bool good, const char *name, const char *remark)
{
	results++;
	failures += !good;
	printf("%sok %u - %s # %s\n", good ? "" : "not ", results, name, remark);
	fflush(stdout);
}

/* ---- the guest itself ---- */

static bool folder_is_empty(const char *folder)
{
	DIR *dir = opendir(folder);
	unsigned entries = 0;

	if (!dir)
		return true;
	while (readdir(dir))
		entries++;
	closedir(dir);
	return entries <= 2; /* itself and its parent */
}

static void make_mount(const char *type, const char *folder, const char *options)
{
	mkdir(folder, 0755);
	if (mount(type, folder, type, MS_NOSUID, options) < 0)
		printf("# mounting %s on %s: %s\n", type, folder, strerror(errno));
}

static void mount_all(void)
{
	make_mount("proc", "/proc", NULL);
	make_mount("sysfs", "/sys", NULL);
	/* the build folder lies where it lies on the host, which may be below one of these */
	if (folder_is_empty("/tmp"))
		make_mount("tmpfs", "/tmp", "mode=1777");
	if (folder_is_empty("/run"))
		make_mount("tmpfs", "/run", "mode=755");
	mkdir("/run/lock", 01777);
	make_mount("tmpfs", "/dev/shm", "mode=1777");
	make_mount("cgroup2", "/sys/fs/cgroup", NULL);
}

/* Raw, so that no line end is changed; the kernel's own messages go to the first line. */
static void open_report(void)
{
	struct termios settings;
	int fd = open("/dev/ttyS1", O_RDWR | O_NOCTTY);

	if (fd < 0)
		return;
	if (tcgetattr(fd, &settings) == 0) {
		cfmakeraw(&settings);
		tcsetattr(fd, TCSANOW, &settings);
	}
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	close(fd);
	fd = open("/dev/null", O_RDWR);
	dup2(fd, STDIN_FILENO);
	close(fd);
}

static void check_kernel(void)
{
	const char *wanted = word("GUEST_KERNEL", "?");
	size_t length = strlen(wanted);
	struct utsname names;

	uname(&names);
	result(strncmp(names.release, wanted, length) == 0 && names.release[length] == '.',
	       "the kernel is the one asked for", names.release);
}

/* One line of text under the nodes' folder, blanks as commas, must be what the word says. */
static void check_nodes(const char *file, const char *wanted, const char *name)
{
	char path[96], text[256], remark[320];

	snprintf(path, sizeof(path), "/sys/devices/system/node/%s", file);
	read_file(path, text, sizeof(text));
	for (char *at = text; *at != '\0'; at++)
		if (*at == ' ')
			*at = ',';
	snprintf(remark, sizeof(remark), "%s: %s", file, text);
	result(strcmp(text, word(wanted, "?")) == 0, name, remark);
}

static void check_topology(void)
{
	check_nodes("online", "GUEST_NODES", "the nodes are those asked for");
	check_nodes("has_memory", "GUEST_MEMORY", "memory is on the nodes asked for");
	check_nodes("has_cpu", "GUEST_CPUS", "CPUs are on the nodes asked for");
	check_nodes("node0/distance", "GUEST_DISTANCES", "the distances are those asked for");
}

/* A node's pages come one by one from what is free: at boot that is nearly all. */
static void reserve_pages(void)
{
	char path[160], got[64];

	for (unsigned node = 0; node < 64; node++) {
		snprintf(path, sizeof(path), "/sys/devices/system/node/node%u/hugepages/%s/%s",
			 node, "hugepages-2048kB", "nr_hugepages");
		if (access(path, F_OK) < 0)
			continue;
		write_file(path, word("GUEST_PAGES", "0"));
		printf("# node %u: %s pages of 2 MiB\n", node, read_file(path, got, sizeof(got)));
	}
}

/* The limits of an ordinary login; the kernel's own for its first process are lower. */
static void raise_limits(void)
{
	struct rlimit files = {1024, 524288};

	setrlimit(RLIMIT_NOFILE, &files);
}

static _Noreturn void leave(void)
{
	fflush(stdout);
	tcdrain(STDOUT_FILENO);
	if (ioperm(DEBUG_PORT, 4, 1) == 0)
		outl(failures ? VERDICT_FAILED : VERDICT_PASSED, DEBUG_PORT);
	reboot(RB_POWER_OFF); /* no such device: QEMU's status 0 is no verdict */
	for (;;)
		pause();
}

/* ---- one program ---- */

static _Noreturn void become(const struct program *program, int output)
{
	setsid();
	dup2(output, STDOUT_FILENO);
	dup2(output, STDERR_FILENO);
	if (chdir("/tmp") == 0)
		execv(program->arguments[0], program->arguments);
	dprintf(STDOUT_FILENO, "# cannot run %s: %s\n", program->arguments[0], strerror(errno));
	_exit(127);
}

/* Copies what is in the pipe to the report, each line indented; false at the pipe's end. */
static bool relay(int from, const char *indent, bool *at_start)
{
	char bytes[4096];
	ssize_t n = read(from, bytes, sizeof(bytes));

	for (ssize_t i = 0; i < n; i++) {
		if (*at_start)
			fputs(indent, stdout);
		putchar(bytes[i]);
		*at_start = bytes[i] == '\n';
	}
	fflush(stdout);
	return n > 0;
}

/* Relays until the program has ended; kills it, and all that it started, at the end of its time. */
static int watch(pid_t pid, int output, const char *indent, bool *ret_late)
{
	uint64_t end = now_ms() + strtoull(word("GUEST_LIMIT", "120"), NULL, 10) * 1000;
	struct pollfd wait = {.fd = output, .events = POLLIN};
	bool at_start = true;
	int status = 0;

	*ret_late = false;
	for (;;) {
		if (poll(&wait, 1, 50) > 0 && !relay(output, indent, &at_start))
			wait.fd = -1; /* its end: only the program itself is waited for */
		if (waitpid(pid, &status, WNOHANG) == pid)
			break;
		if (!*ret_late && now_ms() > end) {
			*ret_late = true;
			kill(-1, SIGKILL);
		}
	}
	kill(-1, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0)
		;
	while (wait.fd >= 0 && relay(output, indent, &at_start))
		;
	if (!at_start)
		putchar('\n');
	return status;
}

static void run(const struct program *program)
{
	uint64_t begin = now_ms();
	int ends[2], status;
	char remark[96];
	bool late, good;
	pid_t pid;

	printf("# Subtest: %s\n", program->name);
	fflush(stdout);
	if (pipe2(ends, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
		result(false, program->name, strerror(errno));
		return;
	}
	if (pid == 0)
		become(program, ends[1]);
	close(ends[1]);
	status = watch(pid, ends[0], program->plain ? "    # " : "    ", &late);
	close(ends[0]);
	good = !late && WIFEXITED(status) && WEXITSTATUS(status) == 0;
	if (program->plain)
		printf("    1..1\n    %sok 1 - %s\n", good ? "" : "not ", program->name);
	snprintf(remark, sizeof(remark), "%s %d, %.1f s",
		 late                ? "timeout"
		 : WIFEXITED(status) ? "exit"
				     : "signal",
		 WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status),
		 (double)(now_ms() - begin) / 1000);
	result(good, program->name, remark);
}

/* ---- the list ---- */

/* Cuts one line into a program; false when it is none. */
static bool parse(char *line, struct program *ret_program)
{
	char *kind = strsep(&line, "\t"), *argument;
	unsigned count = 0;

	*ret_program = (struct program){.plain = strcmp(kind, "plain") == 0};
	ret_program->name = strsep(&line, "\t");
	while (count < MAX_ARGUMENTS && (argument = strsep(&line, "\t")) != NULL)
		ret_program->arguments[count++] = argument;
	return ret_program->name != NULL && count > 0;
}

int main(void)
{
	static struct program programs[MAX_PROGRAMS];
	static char list[LIST_BYTES];
	char *rest = list, *line;
	unsigned count = 0;

	make_mount("devtmpfs", "/dev", NULL);
	open_report();
	mount_all();
	raise_limits();
	setenv("PATH", "/usr/bin:/bin", 1);
	unsetenv("TERM");
	if (access("/proc/sys/kernel/numa_balancing", F_OK) == 0)
		write_file("/proc/sys/kernel/numa_balancing", "0"); /* it moves pages by itself */
	read_file("/programs", list, sizeof(list));
	while (count < MAX_PROGRAMS && (line = strsep(&rest, "\n")) != NULL)
		count += parse(line, &programs[count]);
	printf("KTAP version 1\n1..%u\n", count + 5);
	check_kernel();
	check_topology();
	reserve_pages();
	for (unsigned i = 0; i < count; i++)
		run(&programs[i]);
	leave();
}
