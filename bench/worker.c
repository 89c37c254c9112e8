/*
 * worker.c - a worker program: runs one row once with one subject, and tells the driver what it saw.
 *
 *   PROGRAM --worker AREA ROW MODE SUBJECT VARIANT BUDGET_NS SEED QUICK CLOCK [NEEDLE]
 *
 * Answers on descriptor 3 with lines: "NAME VALUE", "NAME[] VALUE ...", or "reason TEXT" and
 * "library TEXT". NEEDLE is what /proc/self/maps must name: a preloaded library that the loader did not
 * find would otherwise be measured as glibc.
 *
 * Exit status: 0 done, 1 failed (the line "reason" says why), 77 the library is not there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "objects.h"
#include "subject.h"

enum { REPORT_FD = 3, EXIT_MISSING = 77, ARGUMENTS = 10 };

/* ---- the answer ---- */

/* No stdio: the answer must not allocate while memory is being looked at. */
static void report_values(const char *name, const char *mark, const double *values, size_t count)
{
	dprintf(REPORT_FD, "%s%s", name, mark);
	for (size_t i = 0; i < count; i++)
		dprintf(REPORT_FD, " %.10g", values[i]);
	dprintf(REPORT_FD, "\n");
}

void report_list(const char *name, const double *values, size_t count)
{
	report_values(name, "[]", values, count);
}

void report_number(const char *name, double value)
{
	report_values(name, "", &value, 1);
}

void report_text(const char *name, const char *text)
{
	dprintf(REPORT_FD, "%s %s\n", name, text);
}

/* ---- memory of this process ---- */

uint64_t stage_resident(struct stage *stage)
{
	unsigned long pages = 0;
	FILE *file;

	if (stage->subject->resident)
		return stage->subject->resident(stage);
	file = fopen("/proc/self/statm", "re");
	if (!file)
		return 0;
	if (fscanf(file, "%*u %lu", &pages) != 1)
		pages = 0;
	fclose(file);
	return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t stage_clock(const struct stage *stage)
{
	return stage->cpu_clock ? now_cpu_ns() : now_ns();
}

/* Reports the file whose path has `needle` as mapped here; false if there is none. */
static bool library_is_here(const char *needle)
{
	char line[512];
	bool found = false;
	FILE *file = fopen("/proc/self/maps", "re");

	while (file && !found && fgets(line, sizeof(line), file)) {
		char *path = strchr(line, '/');

		if (!path || !strstr(path, needle))
			continue;
		path[strcspn(path, "\n")] = '\0';
		report_text("library", path);
		found = true;
	}
	if (file)
		fclose(file);
	return found;
}

/* ---- one run ---- */

static const struct subject *subject_find(const struct subject *const *subjects, size_t count,
					  const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(subjects[i]->name, name) == 0)
			return subjects[i];
	return NULL;
}

static int stage_fill(struct stage *stage, char **words)
{
	unsigned mode = mode_find(words[2], strlen(words[2]));

	*stage = (struct stage){
		.row = row_find(words[0], words[1]),
		.processes = mode == MODE_2P,
		.workers = mode == MODE_1T ? 1 : 2,
		.variant = words[4],
		.budget_ns = strtoull(words[5], NULL, 10),
		.seed = strtoull(words[6], NULL, 10),
		.quick = strcmp(words[7], "1") == 0,
		.cpu_clock = strcmp(words[8], "cpu") == 0,
	};
	return stage->row && mode ? 0 : -1;
}

static int stage_run(struct stage *stage)
{
	const struct subject *subject = stage->subject;
	int r;

	stage->shared = mmap(NULL, sizeof(*stage->shared), PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (stage->shared == MAP_FAILED) {
		snprintf(stage->reason, sizeof(stage->reason), "no memory for the workers");
		return -1;
	}
	if (subject->open && subject->open(stage) != 0)
		return -1;
	r = stage->row->run ? stage->row->run(stage) : crew_run(stage);
	if (r == 0 && subject->close)
		subject->close(stage);
	return r;
}

int worker_main(int argc, char **argv, const struct subject *const *subjects, size_t count)
{
	struct stage stage;

	if (argc < 2 + ARGUMENTS - 1 || strcmp(argv[1], "--worker") != 0) {
		fprintf(stderr, "%s is started by shale-bench\n", argv[0]);
		return 2;
	}
	crew_init();
	argv += 2;
	argc -= 2;
	if (argc >= ARGUMENTS && argv[ARGUMENTS - 1][0] && !library_is_here(argv[ARGUMENTS - 1]))
		return EXIT_MISSING;
	if (stage_fill(&stage, argv) != 0) {
		report_text("reason", "no such row");
		return 1;
	}
	stage.subject = subject_find(subjects, count, argv[3]);
	if (!stage.subject) {
		report_text("reason", "no such subject in this program");
		return 1;
	}
	if (stage_run(&stage) != 0) {
		report_text("reason", stage.reason[0] ? stage.reason : "failed");
		return 1;
	}
	return 0;
}
