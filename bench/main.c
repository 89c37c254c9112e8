/*
 * main.c - shale-bench: ours and every peer that is installed, on the same work.
 *
 *   shale-bench AREA ...                 the driver: see options.c and shale-bench(1)
 *   shale-bench --worker ...             one run of one row with one subject: see worker.c
 *   shale-bench --probe LIBRARY          exit status 0 if LIBRARY is mapped here
 *
 * Exit status: 0 measured (a peer that is missing or crashes is part of the result), 1 interrupted,
 * 2 wrong words.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "entrants.h"
#include "json.h"
#include "machine.h"
#include "options.h"
#include "rows.h"
#include "spawn.h"
#include "subjects.h"
#include "table.h"

static const struct subject *const subjects[] = {
	&subject_tlfl,
	&subject_none,
	&subject_malloc,
	&subject_shale,
};

/* Is a library mapped whose path has this in it? */
static int probe(const char *soname)
{
	char line[512];
	int found = 1;
	FILE *file = fopen("/proc/self/maps", "re");

	while (file && found != 0 && fgets(line, sizeof(line), file))
		if (strchr(line, '/') && strstr(strchr(line, '/'), soname))
			found = 0;
	if (file)
		fclose(file);
	return found;
}

static void print_list(const char *area, const struct entrant *entrants, size_t count)
{
	puts("workloads:");
	for (size_t i = 0; i < ROW_COUNT; i++) {
		const struct row *row = &bench_rows[i];

		if (strcmp(row->area, area) == 0)
			printf("  %-10s %s\n", row->name, row->text);
	}
	puts("subjects:");
	for (size_t i = 0; i < count; i++) {
		printf("  %-20s %-12s %s\n", entrants[i].name, entrants[i].variant,
		       entrants[i].missing   ? entrants[i].missing
		       : entrants[i].preload ? entrants[i].preload
					     : "");
	}
}

static int open_json(const struct options *options, struct json *json)
{
	if (!options->json)
		return 0;
	if (strcmp(options->json, "-") == 0) { /* what people read goes to standard error then */
		json->file = fdopen(dup(1), "w");
		dup2(2, 1);
	} else {
		json->file = fopen(options->json, "we");
	}
	if (json->file)
		return 0;
	fprintf(stderr, "shale-bench: %s: %s\n", options->json, strerror(errno));
	return 2;
}

static void run_all(const struct options *options, const struct entrant *entrants, size_t count,
		    struct json *json)
{
	machine_write(json, options);
	machine_print(options);
	for (size_t i = 0; i < ROW_COUNT; i++) {
		const struct row *row = &bench_rows[i];
		unsigned modes = options->modes ? options->modes & row->modes : row->modes;

		if (strcmp(row->area, options->area) != 0 ||
		    (options->only && !list_has(options->only, row->name)))
			continue;
		for (unsigned mode = MODE_1T; mode <= MODE_2P && !spawn_interrupted; mode <<= 1)
			if (modes & mode)
				table_run(row, mode, entrants, count, options, json);
	}
}

int main(int argc, char **argv)
{
	struct entrant entrants[ENTRANTS_MAX];
	struct options options;
	struct json json = {0};
	size_t count;
	int r;

	if (argc > 1 && strcmp(argv[1], "--worker") == 0)
		return worker_main(argc, argv, subjects, sizeof(subjects) / sizeof(subjects[0]));
	if (argc > 2 && strcmp(argv[1], "--probe") == 0)
		return probe(argv[2]);
	r = options_parse(argc, argv, &options);
	if (r != 0)
		return r > 0 ? 0 : 2;
	spawn_catch_signals();
	count = entrants_gather(&options, entrants);
	if (options.list) {
		print_list(options.area, entrants, count);
		return 0;
	}
	r = open_json(&options, &json);
	if (r == 0)
		run_all(&options, entrants, count, &json);
	return r != 0 ? r : spawn_interrupted ? 1 : 0;
}
