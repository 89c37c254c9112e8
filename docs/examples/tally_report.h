/*
 * tally_report.h - what the coordinator says when all is counted.
 */
#ifndef TALLY_REPORT_H
#define TALLY_REPORT_H

#include "compare.h"
#include "tally.h"

#include <stdio.h>

/* All counts, sorted by count_order(). */
struct totals {
	struct count *counts;
	size_t used, room;
	uint64_t identifiers; /* the sum */
};

/* Moves the totals out of the map: it is empty afterwards. */
void totals_take(struct totals *totals, struct shale_segment *segment);
void totals_free(struct totals *totals);

/* Prints the most frequent ones. */
void totals_print_top(const struct totals *totals, size_t most);

struct summary {
	uint64_t files, bytes, chunks;
	uint64_t unread; /* inputs that the user has named */
	unsigned int workers, processes, killed;
	double seconds;
};
void report_print(struct shale_segment *segment, const struct summary *summary);
int report_write_json(FILE *file, const struct totals *totals, const struct summary *summary);

/* Recovers what there is to recover and checks every structure; returns the number of findings. */
int report_check(struct shale_segment *segment);

#endif
