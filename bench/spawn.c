/*
 * spawn.c - runs a worker program once and reads its answer.
 */
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "objects.h"

enum {
	ANSWER_FD = 3,
	ANSWER_BYTES = 1 << 20,
	LIMIT_S = 180,
	EXIT_MISSING = 77,
	WORDS = 16,
	QUICK_BUDGET_MS = 5,
	BUDGET_MS = 150,
};

volatile int spawn_interrupted;

static void on_signal(int signal)
{
	(void)signal;
	spawn_interrupted = 1;
}

void spawn_catch_signals(void)
{
	struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: poll() returns */

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

void spawn_path(const char *name, char *path, size_t size)
{
	ssize_t length = readlink("/proc/self/exe", path, size - 1);
	char *slash;

	path[length > 0 ? length : 0] = '\0';
	slash = strrchr(path, '/');
	if (name && slash)
		snprintf(slash + 1, size - (size_t)(slash + 1 - path), "%s", name);
}

const char *status_name(enum run_status status)
{
	static const char *const names[] = {"ok",     "missing", "skipped",
					    "failed", "crashed", "timeout"};

	return names[status];
}

/* ---- the answer ---- */

static void parse_numbers(char *text, double **ret_values, size_t *ret_count)
{
	size_t count = 0, room = 1;
	double *values;
	char *end;

	for (const char *at = text; *at; at++)
		room += *at == ' ';
	values = calloc(room, sizeof(*values));
	for (; values && *text; text = end) {
		double value = strtod(text, &end);

		if (end == text)
			break;
		values[count++] = value;
	}
	*ret_values = values;
	*ret_count = count;
}

static void parse_line(char *line, struct sheet *sheet)
{
	char *value = strchr(line, ' '), *mark;

	if (!value)
		return;
	*value++ = '\0';
	if (strcmp(line, "reason") == 0) {
		snprintf(sheet->reason, sizeof(sheet->reason), "%s", value);
	} else if (strcmp(line, "library") == 0) {
		snprintf(sheet->library, sizeof(sheet->library), "%s", value);
	} else if (sheet->count < SHEET_ENTRIES) {
		mark = strstr(line, "[]");
		sheet->entries[sheet->count].is_list = mark;
		if (mark)
			*mark = '\0';
		snprintf(sheet->entries[sheet->count].name, sizeof(sheet->entries[0].name), "%s",
			 line);
		parse_numbers(value, &sheet->entries[sheet->count].values,
			      &sheet->entries[sheet->count].count);
		sheet->count++;
	}
}

static void parse_answer(char *text, struct sheet *sheet)
{
	char *line;

	while ((line = strsep(&text, "\n")))
		parse_line(line, sheet);
}

const double *sheet_find(const struct sheet *sheet, const char *name, size_t *ret_count)
{
	for (size_t i = 0; i < sheet->count; i++) {
		if (strcmp(sheet->entries[i].name, name) != 0)
			continue;
		*ret_count = sheet->entries[i].count;
		return sheet->entries[i].values;
	}
	return NULL;
}

void sheet_free(struct sheet *sheet)
{
	for (size_t i = 0; i < sheet->count; i++)
		free(sheet->entries[i].values);
	sheet->count = 0;
}

/* ---- the program ---- */

struct child {
	pid_t pid;
	int answer; /* the end that we read */
	int errors; /* a memfd with its standard error */
};

/* Between fork and exec: descriptors, environment, and an end that comes with the driver's. */
static _Noreturn void child_exec(const struct entrant *entrant, char *const words[], int answer,
				 int errors, pid_t parent)
{
	char variable[64];
	const char *value;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setpgid(0, 0);
	if (getppid() != parent || dup2(errors, 1) < 0 || dup2(errors, 2) < 0 ||
	    dup2(answer, ANSWER_FD) < 0)
		_exit(126);
	if (answer == ANSWER_FD)
		fcntl(ANSWER_FD, F_SETFD, 0);
	if (entrant->preload)
		setenv("LD_PRELOAD", entrant->preload, 1);
	value = entrant->environment ? strchr(entrant->environment, '=') : NULL;
	if (value) {
		snprintf(variable, sizeof(variable), "%.*s", (int)(value - entrant->environment),
			 entrant->environment);
		setenv(variable, value + 1, 1);
	}
	execv(words[0], words);
	_exit(127);
}

static int child_start(const struct entrant *entrant, char *const words[], struct child *ret_child)
{
	pid_t parent = getpid();
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	ret_child->answer = ends[0];
	ret_child->errors = memfd_create("errors", MFD_CLOEXEC);
	ret_child->pid = fork();
	if (ret_child->pid == 0)
		child_exec(entrant, words, ends[1], ret_child->errors, parent);
	close(ends[1]);
	if (ret_child->pid < 0) {
		close(ends[0]);
		return -errno;
	}
	setpgid(ret_child->pid, ret_child->pid);
	return 0;
}

/* Reads to the end of the answer; false when the time was over, or we are to end. */
static bool child_read(const struct child *child, char *text, size_t size)
{
	uint64_t until = now_ns() + LIMIT_S * UINT64_C(1000000000);
	size_t length = 0;

	for (;;) {
		struct pollfd poll_fd = {.fd = child->answer, .events = POLLIN};
		ssize_t n;

		text[length] = '\0';
		if (spawn_interrupted || now_ns() >= until)
			return false;
		if (poll(&poll_fd, 1, 1000) <= 0)
			continue;
		n = read(child->answer, text + length, size - 1 - length);
		if (n <= 0)
			return n == 0;
		length += (size_t)n;
	}
}

/* The last line that the program wrote to standard error, for a reason that it gave nowhere else. */
static void last_error(int errors, char *reason, size_t size)
{
	char text[2048];
	off_t end = lseek(errors, 0, SEEK_END);
	off_t from = end > (off_t)sizeof(text) - 1 ? end - (off_t)sizeof(text) + 1 : 0;
	ssize_t n = pread(errors, text, sizeof(text) - 1, from);
	char *line;

	if (n <= 0)
		return;
	text[n] = '\0';
	while (n > 0 && text[n - 1] == '\n')
		text[--n] = '\0';
	line = strrchr(text, '\n');
	snprintf(reason, size, "%.200s", line ? line + 1 : text);
}

static void judge(int status, bool ended, const struct child *child, struct sheet *sheet)
{
	if (!ended) {
		sheet->status = spawn_interrupted ? RUN_SKIPPED : RUN_TIMEOUT;
		snprintf(sheet->reason, sizeof(sheet->reason),
			 spawn_interrupted ? "interrupted" : "not done after %d s", LIMIT_S);
	} else if (WIFSIGNALED(status)) {
		sheet->status = RUN_CRASHED;
		snprintf(sheet->reason, sizeof(sheet->reason), "%s", strsignal(WTERMSIG(status)));
	} else if (WEXITSTATUS(status) == EXIT_MISSING) {
		sheet->status = RUN_MISSING;
		snprintf(sheet->reason, sizeof(sheet->reason), "its library is not there");
	} else if (WEXITSTATUS(status) != 0) {
		sheet->status = RUN_FAILED;
		if (!sheet->reason[0])
			last_error(child->errors, sheet->reason, sizeof(sheet->reason));
	}
}

static void child_finish(const struct child *child, struct sheet *sheet)
{
	static char text[ANSWER_BYTES];
	bool ended = child_read(child, text, sizeof(text));
	int status = 0;

	if (!ended)
		kill(-child->pid, SIGKILL);
	close(child->answer);
	while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR)
		continue;
	kill(-child->pid, SIGKILL); /* what it may have left behind */
	parse_answer(text, sheet);
	judge(status, ended, child, sheet);
	close(child->errors);
}

void spawn_run(const struct row *row, unsigned mode, const struct entrant *entrant,
	       const struct options *options, unsigned round, struct sheet *ret_sheet)
{
	char path[4096], budget[24], seed[24], quick[2] = {options->quick ? '1' : '0', '\0'};
	const char *words[WORDS] = {path,
				    "--worker",
				    row->area,
				    row->name,
				    mode_name(mode),
				    entrant->subject,
				    entrant->variant,
				    budget,
				    seed,
				    quick,
				    options->cpu_clock ? "cpu" : "wall",
				    entrant->preload ? entrant->preload : ""};
	struct child child;
	int r;

	memset(ret_sheet, 0, sizeof(*ret_sheet));
	spawn_path(entrant->program, path, sizeof(path));
	snprintf(budget, sizeof(budget), "%" PRIu64,
		 (options->quick ? QUICK_BUDGET_MS : BUDGET_MS) * UINT64_C(1000000));
	snprintf(seed, sizeof(seed), "%u", round + 1);
	r = child_start(entrant, (char *const *)(uintptr_t)words, &child);
	if (r < 0) {
		ret_sheet->status = RUN_FAILED;
		snprintf(ret_sheet->reason, sizeof(ret_sheet->reason), "cannot start it: %s",
			 strerror(-r));
		return;
	}
	child_finish(&child, ret_sheet);
}

bool spawn_can_preload(const char *soname)
{
	struct entrant entrant = {.preload = soname};
	char path[4096];
	const char *words[] = {path, "--probe", soname, NULL};
	struct sheet sheet = {0};
	struct child child;

	spawn_path(NULL, path, sizeof(path));
	if (child_start(&entrant, (char *const *)(uintptr_t)words, &child) < 0)
		return false;
	child_finish(&child, &sheet);
	return sheet.status == RUN_OK;
}
