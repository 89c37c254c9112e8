/*
 * spawn.h - runs a worker program once and reads its answer.
 *
 * Owner:     the driver, which has one worker program at a time.
 * Lifetime:  the program and whatever it forked has ended before spawn_run() returns.
 * Death:     a worker program that crashes or hangs is a result like any other; a driver that is
 *            killed takes its worker along (PR_SET_PDEATHSIG).
 */
#ifndef SHALE_BENCH_SPAWN_H
#define SHALE_BENCH_SPAWN_H

#include <stdbool.h>
#include <stddef.h>

#include "entrants.h"
#include "options.h"
#include "rows.h"

enum { SHEET_ENTRIES = 24, SHEET_TEXT = 256 };

enum run_status { RUN_OK, RUN_MISSING, RUN_SKIPPED, RUN_FAILED, RUN_CRASHED, RUN_TIMEOUT };

/* What one run answered: names with one number or many. */
struct sheet {
	enum run_status status;
	char reason[SHEET_TEXT];
	char library[SHEET_TEXT];
	size_t count;
	struct {
		char name[32];
		double *values;
		size_t count;
		bool is_list; /* even with one value */
	} entries[SHEET_ENTRIES];
};

/* The path of a worker program: in the folder of this one. NULL: this one. */
void spawn_path(const char *name, char *path, size_t size);
/* Does the loader find this library when it is to be preloaded? */
bool spawn_can_preload(const char *soname);
void spawn_run(const struct row *row, unsigned mode, const struct entrant *entrant,
	       const struct options *options, unsigned round, struct sheet *ret_sheet);
void sheet_free(struct sheet *sheet);
/* The values of a name, or NULL. */
const double *sheet_find(const struct sheet *sheet, const char *name, size_t *ret_count);
const char *status_name(enum run_status status);

/* SIGINT and SIGTERM end the program that runs, and set this; pools are put back before we end. */
extern volatile int spawn_interrupted;
void spawn_catch_signals(void);

#endif
