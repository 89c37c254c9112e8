/*
 * rows.h - the rows of each area: names, modes, limits. docs/benchmarks.md says what each measures.
 *
 * A row is one workload. Hot rows are loops compiled for each subject (heap_loops.h), run for a
 * fixed time; the others are functions of their own (row_*.c), run once a round.
 */
#ifndef SHALE_BENCH_ROWS_H
#define SHALE_BENCH_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct stage;

enum row_id {
	ROW_PAIR,
	ROW_BATCH,
	ROW_REPLACE,
	ROW_REPLACEX,
	ROW_PRODCONS,
	ROW_LARGE,
	ROW_LARGET,
	ROW_BURST,
	ROW_EVANS,
	ROW_THRASH,
	ROW_CYCLE,
	ROW_RECOVER,
	ROW_EMPTIED,
	ROW_COUNT,
};

#define ROW_BIT(id)  (UINT64_C(1) << (id))
#define ROWS_ALL     (ROW_BIT(ROW_COUNT) - 1)
#define ROWS_PRIVATE (ROW_BIT(ROW_RECOVER) - 1) /* the rows that any malloc can run */

/* Modes: bits, and the names "1T", "2T", "2P". */
enum { MODE_1T = 1, MODE_2T = 2, MODE_2P = 4, MODES_ALL = 7 };

struct row {
	const char *area;
	const char *name;
	enum row_id id;
	unsigned modes;
	const char *limit;   /* subject that every other is divided by; NULL: plain numbers */
	const char *unit;    /* of its first number */
	unsigned huge_pages; /* 2 MiB pages that a segment of those needs for it */
	int (*run)(struct stage *stage); /* NULL: a hot row, crew_run() */
	const char *text;                /* what it is, in one line */
};

extern const struct row bench_rows[ROW_COUNT];

/* NULL: no such row. */
const struct row *row_find(const char *area, const char *name);
const char *mode_name(unsigned mode);
/* The bit of "1T", "2T" or "2P"; 0: no such mode. */
unsigned mode_find(const char *name, size_t length);

int row_burst(struct stage *stage);
int row_evans(struct stage *stage);
int row_thrash(struct stage *stage);
int row_cycle(struct stage *stage);
int row_recover(struct stage *stage);
int row_emptied(struct stage *stage);

#endif
