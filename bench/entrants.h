/*
 * entrants.h - who takes part: limits, ours in its variants, every peer that was asked for.
 *
 * An entrant says which worker program runs it, with which library in front of malloc and which
 * environment. Whether its library is on this machine is found out by trying; a peer that is missing
 * stays in the list and is named in every row.
 */
#ifndef SHALE_BENCH_ENTRANTS_H
#define SHALE_BENCH_ENTRANTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "options.h"

enum { ENTRANTS_MAX = 40, SONAMES_MAX = 4 };

struct entrant {
	const char *name;    /* as printed: "mimalloc" */
	const char *variant; /* "", or what distinguishes it from others of that name */
	const char *program; /* worker program beside this one; NULL: this one */
	const char *subject; /* the program's subject */
	const char
		*sonames[SONAMES_MAX]; /* to preload, the first that is there; none: no preload */
	const char *environment;       /* "NAME=VALUE" or NULL */
	uint64_t rows;
	unsigned modes;
	bool is_limit;
	bool needs_pool;     /* of 2 MiB pages */
	const char *preload; /* of sonames, the one that was found */
	const char *missing; /* why it cannot take part; NULL: it can */
};

/* Fills the list and looks for each one's library. Returns how many there are. */
size_t entrants_gather(const struct options *options, struct entrant entrants[ENTRANTS_MAX]);

#endif
