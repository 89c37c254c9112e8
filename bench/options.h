/*
 * options.h - the command line of shale-bench. shale-bench(1) explains it.
 */
#ifndef SHALE_BENCH_OPTIONS_H
#define SHALE_BENCH_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

enum { ROUNDS_MAX = 1000 };

struct options {
	const char *area;
	const char *only; /* names of rows, with commas; NULL: all */
	const char
		*peers; /* "all", "none", or names with commas, NAME=LIBRARY for any other malloc */
	const char *pages; /* variants of ours, with commas; NULL: all */
	const char *json;  /* file; "-": standard output; NULL: none */
	unsigned modes;    /* MODE_*; 0: all that the row has */
	unsigned rounds;
	bool rounds_given;
	bool quick;
	bool cpu_clock; /* --clock cpu */
	bool list;
};

/* 0: go on; 1: done, exit 0 (help was printed); -2: wrong words, exit 2 (the cause was printed) */
int options_parse(int argc, char **argv, struct options *ret_options);

/* Is `name` one of the words of `list` (separated by commas; a word ends at '=' too)? */
bool list_has(const char *list, const char *name);
/* The n-th word of a list, as pointer and length; NULL after the last. */
const char *list_word(const char *list, size_t n, size_t *ret_length);

#endif
