/*
 * table.h - runs one row in one mode, all entrants interleaved, and prints and writes the result.
 */
#ifndef SHALE_BENCH_TABLE_H
#define SHALE_BENCH_TABLE_H

#include <stddef.h>

#include "entrants.h"
#include "json.h"
#include "options.h"
#include "rows.h"

void table_run(const struct row *row, unsigned mode, const struct entrant *entrants, size_t count,
	       const struct options *options, struct json *json);

#endif
