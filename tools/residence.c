/*
 * residence.c - reads /proc/PID/maps for the mappings of a file, and /proc/PID/numa_maps for them.
 *
 * Owner:     the caller; two files are open while a function runs.
 * Invariant: a mapping is counted only if maps gives its device and inode; names prove nothing.
 * Ordering:  the two files are read one after the other; a mapping that goes between counts nothing.
 * Lifetime, death: private to the process.
 */
#include "residence.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#define RANGES_MAX 32u

static FILE *proc_open(int pid, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	return fopen(path, "re");
}

/* Start addresses of the mappings of the file, at most RANGES_MAX. */
static unsigned file_ranges(int pid, dev_t dev, ino_t ino, uint64_t *starts)
{
	FILE *file = proc_open(pid, "maps");
	unsigned count = 0;
	char *line = NULL;
	size_t size = 0;

	if (!file)
		return 0;
	while (count < RANGES_MAX && getline(&line, &size, file) > 0) {
		uint64_t start, inode;
		unsigned major_number, minor_number;

		if (sscanf(line, "%" SCNx64 "-%*x %*s %*x %x:%x %" SCNu64, &start, &major_number,
			   &minor_number, &inode) == 4 &&
		    inode == ino && makedev(major_number, minor_number) == dev)
			starts[count++] = start;
	}
	free(line);
	fclose(file);
	return count;
}

/* Adds what a line of numa_maps says: "ADDRESS POLICY ... N0=12 N1=3 kernelpagesize_kB=4". */
static void add_line(struct residence *sum, const char *line)
{
	const char *at = strstr(line, "kernelpagesize_kB=");
	uint64_t page_kib, pages;
	unsigned node;

	if (!at || sscanf(at, "kernelpagesize_kB=%" SCNu64, &page_kib) != 1)
		return;
	for (at = strstr(line, " N"); at; at = strstr(at + 1, " N")) {
		if (sscanf(at, " N%u=%" SCNu64, &node, &pages) == 2 && node < RESIDENCE_NODES)
			sum->bytes[node] += pages * page_kib * 1024;
	}
}

static bool among(uint64_t start, const uint64_t *starts, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		if (starts[i] == start)
			return true;
	}
	return false;
}

void residence_look(struct residence *residence, int pid, dev_t dev, ino_t ino)
{
	uint64_t starts[RANGES_MAX], start;
	unsigned count = file_ranges(pid, dev, ino, starts);
	struct residence sum = {{0}};
	char *line = NULL;
	size_t size = 0;
	FILE *file;

	file = count ? proc_open(pid, "numa_maps") : NULL;
	if (!file)
		return;
	while (getline(&line, &size, file) > 0) {
		if (sscanf(line, "%" SCNx64, &start) == 1 && among(start, starts, count))
			add_line(&sum, line);
	}
	free(line);
	fclose(file);
	for (unsigned node = 0; node < RESIDENCE_NODES; node++) {
		if (sum.bytes[node] > residence->bytes[node])
			residence->bytes[node] = sum.bytes[node];
	}
}
