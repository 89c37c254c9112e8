/*
 * rows.c - the table of rows.
 */
#include "rows.h"

#include <string.h>

#define HOT MODE_1T | MODE_2T | MODE_2P

/* Peers run no huge_pages; for ours they are twice what the row holds at most in two workers. */
const struct row bench_rows[ROW_COUNT] = {
	{"heap", "pair", ROW_PAIR, HOT, "tlfl", "ns", 16, NULL, "allocate 64 B, write, free; hot"},
	{"heap", "batch", ROW_BATCH, HOT, "tlfl", "ns", 32, NULL,
	 "10,000 objects of 16 to 512 B, then all freed in a random order"},
	{"heap", "replace", ROW_REPLACE, HOT, "tlfl", "ns", 256, NULL,
	 "100,000 live objects of 16 B to 4 KiB, one at random replaced"},
	{"heap", "replacex", ROW_REPLACEX, MODE_2T | MODE_2P, "tlfl", "ns", 256, NULL,
	 "the same, the objects shared by all workers: most frees are remote"},
	{"heap", "prodcons", ROW_PRODCONS, MODE_2T | MODE_2P, "none", "ns", 16, NULL,
	 "one worker allocates 16 to 512 B, the other frees"},
	{"heap", "large", ROW_LARGE, HOT, "none", "ns", 256, NULL,
	 "16 live objects of 64 KiB to 4 MiB, one at random replaced"},
	{"heap", "larget", ROW_LARGET, HOT, "none", "ns", 256, NULL,
	 "the same, every page touched"},
	{"heap", "burst", ROW_BURST, MODE_1T, "tlfl", "ns", 700, row_burst,
	 "1 GiB of small objects freed but for 0.1 %: time, and what stays resident"},
	{"heap", "evans", ROW_EVANS, MODE_1T, NULL, "ns", 160, row_evans,
	 "2,000,000 blocks, freed, again, dropped: live and resident bytes over time"},
	{"heap", "thrash", ROW_THRASH, MODE_1T, NULL, "ns", 16, row_thrash,
	 "2 MiB allocated and freed 10,000 times: what is given back meanwhile"},
	{"heap", "cycle", ROW_CYCLE, MODE_1T, NULL, "ns", 96, row_cycle,
	 "20 bursts of 64 MiB: time of the last over the first"},
	{"heap", "recover", ROW_RECOVER, MODE_1T, NULL, "us", 32, row_recover,
	 "a killed process held 100,000 blocks: time to recover it"},
	{"heap", "emptied", ROW_EMPTIED, MODE_1T, NULL, "ns", 2100, row_emptied,
	 "arenas emptied all at once at the end: time per arena"},
};

const struct row *row_find(const char *area, const char *name)
{
	for (size_t i = 0; i < ROW_COUNT; i++)
		if (strcmp(bench_rows[i].area, area) == 0 && strcmp(bench_rows[i].name, name) == 0)
			return &bench_rows[i];
	return NULL;
}

const char *mode_name(unsigned mode)
{
	return mode == MODE_1T ? "1T" : mode == MODE_2T ? "2T" : "2P";
}

unsigned mode_find(const char *name, size_t length)
{
	for (unsigned mode = MODE_1T; mode <= MODE_2P; mode <<= 1)
		if (length == 2 && memcmp(name, mode_name(mode), 2) == 0)
			return mode;
	return 0;
}
