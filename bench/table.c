/*
 * table.c - runs one row in one mode, all entrants interleaved, and prints and writes the result.
 *
 *   round 0:  limit  ours 4k  ours thp  ...  mimalloc  jemalloc ...      one program each,
 *   round 1:  ours 4k  ours thp  ...  mimalloc  jemalloc ...  limit      one after the other,
 *   round 2:  ...                                                        starting one further on
 *
 * A figure is the multiple of the limit in the same round, so that what slows a round slows both.
 * An entrant that cannot run, crashes or fails gets a line that says so.
 */
#include "table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hugepool.h"
#include "spawn.h"
#include "stats.h"

struct result {
	const struct entrant *entrant;
	struct sheet *sheets; /* one a round */
	enum run_status status;
	const char *reason;
	struct quartiles plain;    /* in the row's unit */
	struct quartiles multiple; /* of the limit */
};

/* ---- running ---- */

static bool takes_part(const struct row *row, unsigned mode, const struct entrant *entrant)
{
	if (entrant->is_limit)
		return row->limit && strcmp(row->limit, entrant->name) == 0;
	return (entrant->rows & ROW_BIT(row->id)) && (entrant->modes & mode);
}

static void run_once(const struct row *row, unsigned mode, const struct entrant *entrant,
		     const struct options *options, unsigned round, struct sheet *sheet)
{
	if (spawn_interrupted || entrant->missing) {
		sheet->status = entrant->missing ? RUN_MISSING : RUN_SKIPPED;
		snprintf(sheet->reason, sizeof(sheet->reason), "%s",
			 entrant->missing ? entrant->missing : "interrupted");
		return;
	}
	if (entrant->needs_pool &&
	    hugepool_reserve(row->huge_pages, sheet->reason, sizeof(sheet->reason)) != 0) {
		sheet->status = RUN_SKIPPED;
		return;
	}
	spawn_run(row, mode, entrant, options, round, sheet);
	if (entrant->needs_pool)
		hugepool_restore();
}

static size_t gather(const struct row *row, unsigned mode, const struct entrant *entrants,
		     size_t count, unsigned rounds, struct result *results)
{
	size_t taken = 0;

	for (size_t i = 0; i < count; i++) {
		if (!takes_part(row, mode, &entrants[i]))
			continue;
		results[taken] = (struct result){.entrant = &entrants[i]};
		results[taken].sheets = calloc(rounds, sizeof(struct sheet));
		if (!results[taken].sheets) {
			perror("shale-bench");
			exit(1);
		}
		taken++;
	}
	return taken;
}

/* ---- judging ---- */

static double value_of(const struct sheet *sheet, const char *name)
{
	size_t count;
	const double *values = sheet_find(sheet, name, &count);

	return sheet->status == RUN_OK && values && count > 0 ? values[0] : NAN;
}

/* Quartiles of a name over the rounds; divided by the limit's first number where one is given. */
static struct quartiles over_rounds(const struct result *result, const char *name,
				    const struct result *limit, unsigned rounds)
{
	double values[ROUNDS_MAX];
	size_t count = 0;

	for (unsigned i = 0; i < rounds; i++) {
		double value = value_of(&result->sheets[i], name);

		if (limit)
			value /= value_of(&limit->sheets[i], "value");
		if (isfinite(value))
			values[count++] = value;
	}
	return stats_quartiles(values, count);
}

/* One bad round spoils the entrant: a number beside a crash would be misread. */
static void judge(struct result *result, const struct result *limit, unsigned rounds)
{
	for (unsigned i = 0; i < rounds && result->status == RUN_OK; i++) {
		struct sheet *sheet = &result->sheets[i];

		if (sheet->status == RUN_OK && value_of(sheet, "corrupt") > 0) {
			sheet->status = RUN_FAILED;
			snprintf(sheet->reason, sizeof(sheet->reason),
				 "%.0f objects did not hold what was written",
				 sheet_find(sheet, "corrupt", &(size_t){0})[0]);
		}
		result->status = sheet->status;
		result->reason = sheet->reason;
	}
	if (result->status != RUN_OK)
		return;
	result->plain = over_rounds(result, "value", NULL, rounds);
	if (limit && limit->status == RUN_OK && limit != result)
		result->multiple = over_rounds(result, "value", limit, rounds);
}

/* ---- the answer ---- */

static void write_head(struct json *json, const struct row *row, unsigned mode,
		       const struct result *result)
{
	json_begin(json);
	json_text(json, "area", row->area);
	json_text(json, "workload", row->name);
	json_text(json, "mode", mode_name(mode));
	json_text(json, "subject", result->entrant->name);
	json_text(json, "variant", result->entrant->variant);
	json_text(json, "status", status_name(result->status));
	if (result->status != RUN_OK)
		json_text(json, "reason", result->reason);
}

static void write_quartiles(struct json *json, const struct quartiles *quartiles)
{
	json_number(json, "median", quartiles->median);
	json_number(json, "q1", quartiles->q1);
	json_number(json, "q3", quartiles->q3);
}

/* What else the row measured: the median of a number, the last round's of a list. */
static void write_rest(struct json *json, const struct result *result, unsigned rounds)
{
	const struct sheet *last = &result->sheets[rounds - 1];

	for (size_t i = 0; i < last->count; i++) {
		const char *name = last->entries[i].name;

		if (strcmp(name, "value") == 0 || strcmp(name, "corrupt") == 0)
			continue;
		if (!last->entries[i].is_list)
			json_number(json, name, over_rounds(result, name, NULL, rounds).median);
		else
			json_list(json, name, last->entries[i].values, last->entries[i].count);
	}
	if (last->library[0])
		json_text(json, "library", last->library);
}

static void write_result(struct json *json, const struct row *row, unsigned mode,
			 const struct result *result, const struct result *limit, unsigned rounds)
{
	write_head(json, row, mode, result);
	if (result->status == RUN_OK) {
		bool multiple = result->multiple.count > 0;

		json_text(json, "unit", multiple ? "limit" : row->unit);
		write_quartiles(json, multiple ? &result->multiple : &result->plain);
		json_number(json, "rounds", (double)result->plain.count);
		if (multiple) {
			json_text(json, "limit", row->limit);
			json_number(json, "limit_ns", limit->plain.median);
		}
		json_number(json, row->unit, result->plain.median);
		write_rest(json, result, rounds);
	}
	json_end(json);
}

static int compare_results(const void *a, const void *b)
{
	const struct result *left = a, *right = b;
	int bad = (left->status != RUN_OK) - (right->status != RUN_OK);

	if (bad != 0 || left->status != RUN_OK)
		return bad;
	return (left->plain.median > right->plain.median) -
	       (left->plain.median < right->plain.median);
}

static void print_extras(const struct result *result, unsigned rounds)
{
	const struct sheet *last = &result->sheets[rounds - 1];

	for (size_t i = 0; i < last->count; i++) {
		const char *name = last->entries[i].name;

		if (strcmp(name, "value") != 0 && strcmp(name, "corrupt") != 0 &&
		    strcmp(name, "operations") != 0 && !last->entries[i].is_list)
			printf("  %s %.3g", name, over_rounds(result, name, NULL, rounds).median);
	}
}

static void print_result(const struct row *row, const struct result *result, unsigned rounds)
{
	char name[64];

	snprintf(name, sizeof(name), "%s%s%s", result->entrant->name,
		 result->entrant->variant[0] ? " " : "", result->entrant->variant);
	printf("  %-22s", name);
	if (result->status != RUN_OK) {
		printf("%s: %s\n", status_name(result->status), result->reason);
		return;
	}
	printf("%10.4g %s", result->plain.median, row->unit);
	if (result->multiple.count > 0)
		printf(" %8.3g x  [%.3g .. %.3g]", result->multiple.median, result->multiple.q1,
		       result->multiple.q3);
	print_extras(result, rounds);
	putchar('\n');
}

static void answer(const struct row *row, unsigned mode, struct result *results, size_t count,
		   const struct options *options, struct json *json)
{
	const struct result *limit = NULL;

	for (size_t i = 0; i < count; i++) {
		if (i == 0 && results[i].entrant->is_limit)
			limit = &results[i];
		judge(&results[i], limit, options->rounds);
		write_result(json, row, mode, &results[i], limit, options->rounds);
	}
	qsort(results, count, sizeof(results[0]), compare_results);
	printf("\n%s %s: %s\n", row->name, mode_name(mode), row->text);
	for (size_t i = 0; i < count; i++)
		print_result(row, &results[i], options->rounds);
	fflush(stdout);
}

void table_run(const struct row *row, unsigned mode, const struct entrant *entrants, size_t count,
	       const struct options *options, struct json *json)
{
	struct result results[ENTRANTS_MAX];
	size_t taken = gather(row, mode, entrants, count, options->rounds, results);

	for (unsigned round = 0; round < options->rounds; round++)
		for (size_t i = 0; i < taken; i++) {
			struct result *result = &results[(i + round) % taken];

			run_once(row, mode, result->entrant, options, round,
				 &result->sheets[round]);
		}
	if (!spawn_interrupted) /* half a row would be misread */
		answer(row, mode, results, taken, options, json);
	for (size_t i = 0; i < taken; i++) {
		for (unsigned round = 0; round < options->rounds; round++)
			sheet_free(&results[i].sheets[round]);
		free(results[i].sheets);
	}
}
