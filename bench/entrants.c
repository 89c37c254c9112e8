/*
 * entrants.c - the table of peers, and the search for their libraries.
 */
#include "entrants.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rows.h"
#include "spawn.h"

#define MALLOC_MODES (MODE_1T | MODE_2T) /* what no other process can use */
#define MALLOC_ROWS  ROWS_PRIVATE
#define HOT_ROWS     (ROW_BIT(ROW_BURST) - 1)

static const struct entrant limits[] = {
	{.name = "tlfl",
	 .variant = "limit",
	 .subject = "tlfl",
	 .rows = ROWS_ALL,
	 .modes = MODES_ALL,
	 .is_limit = true},
	{.name = "none",
	 .variant = "limit",
	 .subject = "none",
	 .rows = ROWS_ALL,
	 .modes = MODES_ALL,
	 .is_limit = true},
};

static const struct entrant ours[] = {
	{.variant = "4k", .rows = ROWS_ALL, .modes = MODES_ALL},
	{.variant = "thp", .rows = ROWS_ALL, .modes = MODES_ALL},
	{.variant = "2m", .rows = ROWS_ALL, .modes = MODES_ALL, .needs_pool = true},
	{.variant = "private", .rows = ROWS_ALL & ~ROW_BIT(ROW_RECOVER), .modes = MALLOC_MODES},
#ifdef SHALE_BENCH_KEEPER
	{.variant = "4k+keeper", .rows = ROWS_ALL, .modes = MALLOC_MODES},
#endif
};

#define PRELOADED(...) \
	.subject = "malloc", .rows = MALLOC_ROWS, .modes = MALLOC_MODES, .sonames = {__VA_ARGS__}

static const struct entrant peers[] = {
	{.name = "glibc",
	 .variant = "",
	 .subject = "malloc",
	 .rows = MALLOC_ROWS,
	 .modes = MALLOC_MODES},
	{.name = "mimalloc", .variant = "", PRELOADED("libmimalloc.so.2", "libmimalloc.so")},
	{.name = "jemalloc", .variant = "", PRELOADED("libjemalloc.so.2", "libjemalloc.so")},
	{.name = "jemalloc",
	 .variant = "background",
	 /* it gives back what has been free for a second, as ours is asked to */
	 .environment = "MALLOC_CONF=background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0",
	 PRELOADED("libjemalloc.so.2", "libjemalloc.so")},
	{.name = "tcmalloc",
	 .variant = "",
	 PRELOADED("libtcmalloc_minimal.so.4", "libtcmalloc.so.4", "libtcmalloc_minimal.so")},
	{.name = "tbbmalloc",
	 .variant = "",
	 PRELOADED("libtbbmalloc_proxy.so.2", "libtbbmalloc_proxy.so")},
	{.name = "boost.interprocess",
	 .variant = "",
	 .program = "shale-bench-boost",
	 .subject = "boost",
	 .rows = HOT_ROWS | ROW_BIT(ROW_BURST),
	 .modes = MODES_ALL},
	{.name = "dpdk",
	 .variant = "rte_malloc",
	 .program = "shale-bench-dpdk",
	 .subject = "rte_malloc",
	 /* its free lists are walked: 100,000 live objects take it 0.1 ms an operation */
	 .rows = ROW_BIT(ROW_PAIR) | ROW_BIT(ROW_BATCH) | ROW_BIT(ROW_PRODCONS),
	 .modes = MALLOC_MODES},
	{.name = "dpdk",
	 .variant = "mempool",
	 .program = "shale-bench-dpdk",
	 .subject = "mempool",
	 .rows = ROW_BIT(ROW_PAIR),
	 .modes = MALLOC_MODES},
	{.name = "memkind",
	 .variant = "pmem",
	 .program = "shale-bench-memkind",
	 .subject = "memkind",
	 .rows = HOT_ROWS,
	 .modes = MALLOC_MODES},
};

/* ---- is it there? ---- */

static bool program_is_there(const char *name)
{
	char path[4096];

	spawn_path(name, path, sizeof(path));
	return access(path, X_OK) == 0;
}

/* A library is there if the loader puts it in front of a program that looks for it. */
static void find_library(struct entrant *entrant)
{
	for (size_t i = 0; i < SONAMES_MAX && entrant->sonames[i]; i++) {
		if (!spawn_can_preload(entrant->sonames[i]))
			continue;
		entrant->preload = entrant->sonames[i];
		return;
	}
	entrant->missing = "not installed: the loader finds no such library";
}

static void look_for(struct entrant *entrant)
{
	if (entrant->program && !program_is_there(entrant->program))
		entrant->missing = "not built: its library was not there at build time";
	else if (entrant->sonames[0])
		find_library(entrant);
}

/* ---- the list ---- */

static bool is_wanted(const struct options *options, const char *name)
{
	return strcmp(options->peers, "all") == 0 || list_has(options->peers, name);
}

/* NAME=LIBRARY: any other malloc, preloaded. */
static size_t gather_named(const char *list, struct entrant *entrants, size_t count)
{
	size_t length;
	const char *word;

	for (size_t n = 0; (word = list_word(list, n, &length)) && count < ENTRANTS_MAX; n++) {
		char *copy, *library;

		if (!memchr(word, '=', length))
			continue;
		copy = strndup(word, length); /* lives as long as the list: to the end */
		if (!copy)
			break;
		library = strchr(copy, '=');
		*library++ = '\0';
		entrants[count] = (struct entrant){.name = copy, .variant = "", PRELOADED(library)};
		look_for(&entrants[count++]);
	}
	return count;
}

size_t entrants_gather(const struct options *options, struct entrant entrants[ENTRANTS_MAX])
{
	size_t count = 0;

	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
		entrants[count++] = limits[i];
	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
		char kind[16];

		snprintf(kind, sizeof(kind), "%.*s", (int)strcspn(ours[i].variant, "+"),
			 ours[i].variant);
		if (options->pages && !list_has(options->pages, kind))
			continue;
		entrants[count] = ours[i];
		entrants[count].name = "shale";
		entrants[count++].subject = "shale";
	}
	for (size_t i = 0; i < sizeof(peers) / sizeof(peers[0]); i++) {
		if (!is_wanted(options, peers[i].name))
			continue;
		entrants[count] = peers[i];
		look_for(&entrants[count++]);
	}
	return gather_named(options->peers, entrants, count);
}
