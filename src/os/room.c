/* SPDX-License-Identifier: MIT */
/*
 * room.c - how much memory can be committed before the kernel would kill somebody for it.
 *
 * fallocate on shared memory has no way to fail at a limit: at memory.max of a cgroup, and when the
 * nodes that a BIND names are full, the kernel starts its OOM killer. So we look before.
 *
 * Owner:     nobody; reads /proc and /sys, keeps nothing.
 * Invariant: L1 what cannot be read is no limit: looking never refuses what the kernel would grant
 *               for lack of /proc, /sys or a descriptor
 * Ordering:  none: an estimate, stale at once.
 * Death:     writes nothing.
 */
#define _GNU_SOURCE
#include "os/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os/sys.h"

#define CGROUP_MOUNT "/sys/fs/cgroup"
#define NODE_FOLDER  "/sys/devices/system/node"

/* The number that follows `name`, with blanks between; 0: not there. */
static uint64_t number_after(const char *text, const char *name)
{
	const char *at = strstr(text, name);

	return at != NULL ? strtoull(at + strlen(name), NULL, 10) : 0;
}

/* ---- the cgroup (v2) ------------------------------------------------------------------------- */

static int cgroup_file(const char *group, const char *name, char *ret_text, size_t size)
{
	char path[512];
	int length = snprintf(path, sizeof(path), CGROUP_MOUNT "%s/%s", group, name);

	if (length < 0 || (size_t)length >= sizeof(path))
		return -ENAMETOOLONG;
	return os_read_text(path, ret_text, size);
}

/* Our group's path below the mount, "/a/b"; empty for the root, which has no limit. */
static int own_cgroup(char *ret_group, size_t size)
{
	char text[1024], *at, *end;
	int r = os_read_text("/proc/self/cgroup", text, sizeof(text));

	if (r < 0)
		return r;
	at = strncmp(text, "0::/", 4) == 0 ? text : strstr(text, "\n0::/");
	if (at == NULL)
		return -ENOENT;
	at = strchr(at, '/');
	end = strchr(at, '\n');
	if (end != NULL)
		*end = '\0';
	/* "/..": a group outside our cgroup namespace */
	if (strlen(at) >= size || strstr(at, "/..") != NULL)
		return -ENOENT;
	strcpy(ret_group, strcmp(at, "/") == 0 ? "" : at);
	return 0;
}

/* What may still be charged to this one group; UINT64_MAX: it has no limit. */
static uint64_t group_room(const char *group)
{
	char text[4096];
	uint64_t limit, used, clean = 0;

	if (cgroup_file(group, "memory.max", text, sizeof(text)) <= 0 || text[0] < '0' ||
	    text[0] > '9')
		return UINT64_MAX;
	limit = strtoull(text, NULL, 10);
	if (cgroup_file(group, "memory.current", text, sizeof(text)) <= 0)
		return UINT64_MAX;
	used = strtoull(text, NULL, 10);
	if (cgroup_file(group, "memory.stat", text, sizeof(text)) > 0)
		clean = number_after(text, "\ninactive_file ") +
			number_after(text, "\nactive_file ");
	used -= clean < used ? clean : used;
	return used < limit ? limit - used : 0;
}

static uint64_t cgroup_room(void)
{
	uint64_t least = UINT64_MAX;
	char group[384];

	if (own_cgroup(group, sizeof(group)) < 0)
		return UINT64_MAX;
	while (group[0] != '\0') {
		uint64_t room = group_room(group);

		if (room < least)
			least = room;
		*strrchr(group, '/') = '\0';
	}
	return least;
}

/* ---- nodes ----------------------------------------------------------------------------------- */

/*
 * What the kernel keeps of a node of that size: its part of min_free_kbytes, below which it would
 * rather kill, and some for the pages that other CPUs hold ready.
 */
static uint64_t node_reserve(uint64_t node_bytes)
{
	char text[4096];
	uint64_t all, least = 0;

	if (os_read_text("/proc/meminfo", text, sizeof(text)) <= 0)
		return node_bytes / 16;
	all = number_after(text, "MemTotal:") << 10;
	if (os_read_text("/proc/sys/vm/min_free_kbytes", text, sizeof(text)) > 0)
		least = strtoull(text, NULL, 10) << 10;
	if (all < node_bytes || least > all)
		return node_bytes / 16;
	/* in MiB of the node: nothing overflows */
	least = least / ((all >> 20) + 1) * (node_bytes >> 20);
	return least + least / 4 + node_bytes / 256;
}

static uint64_t node_room(unsigned node)
{
	char path[96], text[4096];
	uint64_t total, room, keep;

	snprintf(path, sizeof(path), NODE_FOLDER "/node%u/meminfo", node);
	if (os_read_text(path, text, sizeof(text)) <= 0)
		return UINT64_MAX;
	total = number_after(text, " MemTotal:") << 10;
	room = (number_after(text, " MemFree:") + number_after(text, "Active(file):") +
		number_after(text, "Inactive(file):"))
	       << 10;
	keep = node_reserve(total);
	return room > keep ? room - keep : 0;
}

static uint64_t nodes_room(const struct os_nodes *nodes)
{
	uint64_t sum = 0;

	for (unsigned node = 0; node < 16 * 64; node++) {
		uint64_t room;

		if ((nodes->bits[node / 64] >> node % 64 & 1) == 0)
			continue;
		room = node_room(node);
		sum = room > UINT64_MAX - sum ? UINT64_MAX : sum + room;
	}
	return sum;
}

uint64_t os_memory_room(const struct os_nodes *nodes)
{
	uint64_t room = cgroup_room(), on_nodes;

	if (nodes == NULL)
		return room;
	on_nodes = nodes_room(nodes);
	return on_nodes < room ? on_nodes : room;
}
