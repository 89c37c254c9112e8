/*
 * tally_report.c - the totals, and what became of the memory.
 *
 * Owner:     the coordinator, when all others have left.
 * Invariant: P1 the sum of all counts is the number of identifiers
 * Ordering:  none, nobody else is there.
 * Lifetime:  the totals are copied out of the segment and outlive it.
 * Death:     nothing to leave behind.
 */
#include "tally_report.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- totals ---- */

static void totals_add(struct totals *totals, const void *word, size_t size, uint64_t count)
{
	struct count *last;

	if (totals->used == totals->room) {
		totals->room = totals->room * 2 + 1024;
		totals->counts = reallocarray(totals->counts, totals->room, sizeof(struct count));
	}
	last = totals->counts ? &totals->counts[totals->used++] : NULL;
	if (!last || !(last->word = malloc(size)))
		tally_die(ENOMEM, "the totals");
	memcpy(last->word, word, size);
	last->size = size;
	last->count = count;
	totals->identifiers += count;
}

/* The next entry of the map, with a key buffer that grows as needed. False: there are no more. */
static bool next_total(struct shale_map *map, struct shale_map_cursor *cursor, unsigned char **word,
		       size_t *room, size_t *ret_size, uint64_t *ret_count)
{
	size_t count_size;
	int r;

	while ((r = shale_map_cursor_next(map, cursor, *word, *room, ret_size, ret_count,
					  sizeof(*ret_count), &count_size)) == -EMSGSIZE) {
		*room = *ret_size;
		*word = realloc(*word, *room);
		if (!*word || count_size != sizeof(*ret_count))
			tally_die(ENOMEM, "a total of %zu bytes", *room);
	}
	if (r < 0)
		tally_die(r, "map %s", TALLY_TOTALS);
	return r == 1;
}

void totals_take(struct totals *totals, struct shale_segment *segment)
{
	struct shale_map *map = tally_map(segment, TALLY_TOTALS, 1);
	struct shale_map_cursor cursor;
	unsigned char *word = NULL;
	size_t room = 0, size;
	uint64_t count;

	*totals = (struct totals){0};
	shale_map_cursor_init(&cursor);
	while (next_total(map, &cursor, &word, &room, &size, &count))
		totals_add(totals, word, size, count);
	if (totals->used > 0)
		qsort(totals->counts, totals->used, sizeof(struct count), count_order);
	for (size_t i = 0; i < totals->used; i++) {
		int r = shale_map_delete(map, totals->counts[i].word, totals->counts[i].size);

		if (r < 0)
			tally_die(r, "map %s", TALLY_TOTALS);
	}
	free(word);
	shale_map_close(map);
}

void totals_free(struct totals *totals)
{
	for (size_t i = 0; i < totals->used; i++)
		free(totals->counts[i].word);
	free(totals->counts);
	*totals = (struct totals){0};
}

static int frequency_order(const void *a, const void *b)
{
	const struct count *x = *(const struct count *const *)a;
	const struct count *y = *(const struct count *const *)b;

	if (x->count != y->count)
		return x->count < y->count ? 1 : -1;
	return count_order(x, y);
}

void totals_print_top(const struct totals *totals, size_t most)
{
	const struct count **order = calloc(totals->used + 1, sizeof(*order));

	if (!order)
		tally_die(ENOMEM, "the order");
	for (size_t i = 0; i < totals->used; i++)
		order[i] = &totals->counts[i];
	qsort(order, totals->used, sizeof(*order), frequency_order);
	for (size_t i = 0; i < most && i < totals->used; i++)
		printf("%10" PRIu64 "  %.*s\n", order[i]->count, (int)order[i]->size,
		       (const char *)order[i]->word);
	free(order);
}

/* ---- the segment ---- */

static const char *pages_name(enum shale_pages pages)
{
	switch (pages) {
	case SHALE_PAGES_4K:
		return "4 KiB";
	case SHALE_PAGES_THP:
		return "4 KiB, transparent huge";
	case SHALE_PAGES_2M:
		return "2 MiB";
	case SHALE_PAGES_1G:
		return "1 GiB";
	default:
		return "private";
	}
}

/* Adds up the " N<node>=<pages>" of one line of numa_maps. */
static void count_nodes(const char *line, uint64_t *nodes, unsigned int node_count)
{
	unsigned int node;
	uint64_t pages;

	while ((line = strstr(line, " N"))) {
		line += 2;
		if (sscanf(line, "%u=%" SCNu64, &node, &pages) == 2 && node < node_count)
			nodes[node] += pages;
	}
}

/* Where the pages are that this process has touched, by the kernel's own account. */
static void print_nodes(struct shale_segment *segment, const struct shale_segment_figures *stat)
{
	uint64_t nodes[64] = {0};
	uintptr_t base = (uintptr_t)shale_segment_base(segment);
	FILE *file = fopen("/proc/self/numa_maps", "re");
	const char *comma = "";
	char *line = NULL;
	size_t room = 0;

	if (!file) {
		printf("nodes       0 (a kernel without NUMA)\n");
		return;
	}
	while (getline(&line, &room, file) >= 0) {
		uintptr_t address = strtoul(line, NULL, 16);

		if (address >= base && address - base < stat->capacity_bytes + stat->metadata_bytes)
			count_nodes(line, nodes, 64);
	}
	printf("nodes       ");
	for (unsigned int i = 0; i < 64; i++) {
		if (nodes[i] > 0)
			printf("%s%u (%" PRIu64 " pages seen)", comma, i, nodes[i]), comma = ", ";
	}
	printf("\n");
	free(line);
	fclose(file);
}

static struct shale_heap_figures heap_stat(struct shale_segment *segment)
{
	struct shale_heap_figures heap = {.size = sizeof(heap)};
	int r = shale_heap_stat(segment, &heap);

	if (r < 0)
		tally_die(r, "counting the blocks");
	return heap;
}

static void print_memory(struct shale_segment *segment)
{
	struct shale_heap_figures heap;

	shale_trim(segment, 0); /* now, rather than when somebody needs it */
	heap = heap_stat(segment);
	printf("memory      live %" PRIu64 " bytes in %" PRIu64 " blocks (job, channels, tables), "
	       "retained %" PRIu64 ", returned %" PRIu64 "\n",
	       heap.live_bytes, heap.live_blocks, heap.retained_bytes, heap.returned_bytes);
}

void report_print(struct shale_segment *segment, const struct summary *summary)
{
	struct shale_segment_figures stat = {.size = sizeof(stat)};
	double seconds = summary->seconds > 0 ? summary->seconds : 1e-9;

	printf("input       %" PRIu64 " files, %" PRIu64 " bytes, in %" PRIu64 " chunks\n",
	       summary->files, summary->bytes, summary->chunks);
	printf("speed       %.2f s, %.1f MB/s\n", summary->seconds,
	       (double)summary->bytes / 1e6 / seconds);
	printf("processes   %u: coordinator, reader, reducer, %u workers at a time; %u killed\n",
	       summary->processes, summary->workers, summary->killed);
	if (shale_segment_stat(segment, &stat) == 0) {
		printf("pages       %s (%s)\n", pages_name(stat.pages), stat.pages_reason);
		print_nodes(segment, &stat);
	}
	print_memory(segment);
}

static void print_finding(const struct shale_finding *finding, void *context)
{
	(void)context;
	fprintf(stderr, "tally: %s broken at %#" PRIx64 ": %s\n", finding->invariant,
		finding->offset, finding->text);
}

/* A block that is live and not published belonged to one who is dead: it should be free by now. */
static int count_orphans(struct shale_segment *segment)
{
	struct shale_heap_figures heap = heap_stat(segment);

	return (int)(heap.live_blocks - heap.published_blocks);
}

int report_check(struct shale_segment *segment)
{
	struct shale_segment_figures stat = {.size = sizeof(stat)};
	int recovered = shale_recover(segment);
	int findings = shale_check(segment, print_finding, NULL);
	int orphans = count_orphans(segment);

	if (recovered < 0 || findings < 0 || shale_segment_stat(segment, &stat) < 0)
		tally_die(recovered < 0 ? recovered : findings, "checking the segment");
	printf("check       %d findings, %d blocks of the dead, %u peers, %u of them dead\n",
	       findings, orphans, stat.peers, stat.peers_dead);
	return findings + orphans + (int)stat.peers_dead;
}

/* Identifiers need no escapes. */
int report_write_json(FILE *file, const struct totals *totals, const struct summary *summary)
{
	fprintf(file,
		"{\"files\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"chunks\": %" PRIu64
		", \"killed\": %u, \"seconds\": %.6f,\n \"identifiers\": %" PRIu64
		", \"distinct\": %zu,\n \"counts\": {",
		summary->files, summary->bytes, summary->chunks, summary->killed, summary->seconds,
		totals->identifiers, totals->used);
	for (size_t i = 0; i < totals->used; i++) {
		fputs(i > 0 ? ",\n  \"" : "\n  \"", file);
		fwrite(totals->counts[i].word, 1, totals->counts[i].size, file);
		fprintf(file, "\": %" PRIu64, totals->counts[i].count);
	}
	fputs("}}\n", file);
	return fflush(file) != 0 || ferror(file) ? -EIO : 0;
}
