/*
 * compare.h - our counts against those of grep, sort and uniq.
 */
#ifndef TALLY_COMPARE_H
#define TALLY_COMPARE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* An identifier and how often it is there. */
struct count {
	unsigned char *word; /* not terminated */
	size_t size;
	uint64_t count;
};

/* In the order of bytes, as `LC_ALL=C sort` has them. */
int count_order(const void *a, const void *b);

/*
 * Compares our counts, sorted by count_order(), with the lines of `uniq -c`, and writes the first
 * few differences to `report`. Returns how many words differ, or -EINVAL for a line that is not
 * a number, a space, and a word.
 */
int64_t compare_counts(const struct count *counts, size_t count_count, FILE *lines, FILE *report);

/*
 * Runs grep, sort and uniq on the files whose NUL-separated names are in `list`, and compares.
 * Returns as compare_counts(), or another negative errno if they cannot be run.
 */
int64_t compare_with_grep(const struct count *counts, size_t count_count, int list, FILE *report);

#endif
