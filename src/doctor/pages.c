/*
 * pages.c - the doctor on memory: page sizes, huge-page pools, transparent huge pages, NUMA nodes.
 *
 * Owner:     the caller of shale_doctor_run(); everything is on its stack.
 * Invariant: pools and nodes are read, never changed; what cannot be read is reported as such.
 * Ordering, lifetime, death: no shared memory.
 */
#include "doctor/doctor.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "os/os.h"

#define NODE_COUNT 1024u

struct pool_row {
	uint64_t page_size;
	const char *name;
	unsigned wanted;     /* a useful number of pages, for the command that gets them */
	const char *without; /* what shale does when no page is free */
	const char *get;
};

static const struct pool_row pools[] = {
	{UINT64_C(2) << 20, "hugepages.2M", 512,
	 "page kind auto takes transparent huge or 4 KiB pages; 2M is refused with ENOMEM",
	 "sysctl vm.nr_hugepages=512"},
	{UINT64_C(1) << 30, "hugepages.1G", 1, "page kind 1G is refused with ENOMEM",
	 "echo 1 > /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages"},
};

#ifdef SHALE_HAVE_NUMA
static const bool built_with_numa = true;
#else
static const bool built_with_numa = false;
#endif

static bool node_in(const struct os_nodes *nodes, unsigned node)
{
	return nodes->bits[node / 64] >> (node % 64) & 1;
}

/* The smallest page size among the first mappings: a program's text may lie in huge pages. */
static void page_size(struct doctor *doctor)
{
	char text[8192], detail[64] = "not readable";
	const char *at = NULL;
	uint64_t kib = 4, least = UINT64_MAX;
	bool ok;

	if (os_read_text("/proc/self/smaps", text, sizeof(text)) >= 0)
		at = strstr(text, "KernelPageSize:");
	for (; at; at = strstr(at + 1, "KernelPageSize:")) {
		if (sscanf(at, "KernelPageSize: %" SCNu64, &kib) == 1 && kib < least)
			least = kib;
	}
	if (least != UINT64_MAX) {
		kib = least;
		snprintf(detail, sizeof(detail), "%" PRIu64 " KiB", kib);
	}
	ok = kib == 4;
	doctor_report(doctor, &(struct shale_doctor_report){
				      .name = "pages.size",
				      .status = ok ? SHALE_DOCTOR_OK : SHALE_DOCTOR_MISSING,
				      .needed = true,
				      .detail = detail,
				      .effect = ok ? "" : "segments are laid out in 4 KiB pages",
				      .mend = ok ? "" : "boot a kernel with 4 KiB pages",
			      });
}

static void pool_node(struct doctor *doctor, const struct pool_row *row, unsigned node)
{
	char name[64], detail[DOCTOR_TEXT], mend[DOCTOR_TEXT];
	struct os_huge_pool pool;

	if (os_huge_pool_node(row->page_size, node, &pool) < 0)
		return;
	snprintf(name, sizeof(name), "%s.node%u", row->name, node);
	snprintf(detail, sizeof(detail), "total %" PRIu64 ", free %" PRIu64, pool.total, pool.free);
	snprintf(mend, sizeof(mend),
		 "echo %u > /sys/devices/system/node/node%u/hugepages/hugepages-%" PRIu64
		 "kB/nr_hugepages",
		 row->wanted, node, row->page_size / 1024);
	doctor_report(doctor, &(struct shale_doctor_report){
				      .name = name,
				      .status = pool.free ? SHALE_DOCTOR_OK : SHALE_DOCTOR_DEGRADED,
				      .detail = detail,
				      .effect = pool.free ? "" : row->without,
				      .mend = pool.free ? "" : mend,
			      });
}

static void pool_report(struct doctor *doctor, const struct pool_row *row)
{
	struct os_huge_pool pool;
	char detail[DOCTOR_TEXT];
	uint64_t usable;

	if (os_huge_pool(row->page_size, &pool) < 0) {
		doctor_report(doctor, &(struct shale_doctor_report){
					      .name = row->name,
					      .status = SHALE_DOCTOR_MISSING,
					      .detail = "this kernel has no such pages",
					      .effect = row->without,
				      });
		return;
	}
	usable = pool.free > pool.reserved ? pool.free - pool.reserved : 0;
	snprintf(detail, sizeof(detail),
		 "total %" PRIu64 ", free %" PRIu64 ", reserved %" PRIu64 ", overcommit %" PRIu64,
		 pool.total, pool.free, pool.reserved, pool.overcommit);
	usable += pool.overcommit > pool.surplus ? pool.overcommit - pool.surplus : 0;
	doctor_report(doctor, &(struct shale_doctor_report){
				      .name = row->name,
				      .status = usable ? SHALE_DOCTOR_OK : SHALE_DOCTOR_DEGRADED,
				      .detail = detail,
				      .effect = usable ? "" : row->without,
				      .mend = usable ? "" : row->get,
			      });
}

static void thp_report(struct doctor *doctor)
{
	char anon[32] = "", shmem[32] = "";
	bool there = os_thp_modes(anon, sizeof(anon), shmem, sizeof(shmem)) >= 0;
	bool anon_ok = there && anon[0] && strcmp(anon, "never") != 0;
	bool shmem_ok =
		there && shmem[0] && strcmp(shmem, "never") != 0 && strcmp(shmem, "deny") != 0;

	doctor_report(doctor,
		      &(struct shale_doctor_report){
			      .name = "thp.enabled",
			      .status = anon_ok ? SHALE_DOCTOR_OK
					: there ? SHALE_DOCTOR_DEGRADED
						: SHALE_DOCTOR_MISSING,
			      .detail = there ? anon : "not built into this kernel",
			      .effect = anon_ok ? "" : "private segments have 4 KiB pages",
			      .mend = anon_ok || !there
					      ? ""
					      : "echo madvise > "
						"/sys/kernel/mm/transparent_hugepage/enabled",
		      });
	doctor_report(
		doctor,
		&(struct shale_doctor_report){
			.name = "thp.shmem_enabled",
			.status = shmem_ok ? SHALE_DOCTOR_OK
				  : there  ? SHALE_DOCTOR_DEGRADED
					   : SHALE_DOCTOR_MISSING,
			.detail = there ? shmem : "not built into this kernel",
			.effect = shmem_ok ? ""
					   : "huge pages only where madvise(MADV_COLLAPSE) makes "
					     "them of filled arenas, else 4 KiB",
			.mend = shmem_ok || !there
					? ""
					: "echo advise > "
					  "/sys/kernel/mm/transparent_hugepage/shmem_enabled",
		});
}

void doctor_pages(struct doctor *doctor)
{
	struct os_nodes nodes = {{0}};

	os_numa_nodes(&nodes);
	page_size(doctor);
	for (size_t i = 0; i < sizeof(pools) / sizeof(pools[0]); i++) {
		pool_report(doctor, &pools[i]);
		for (unsigned node = 0; node < NODE_COUNT; node++) {
			if (node_in(&nodes, node))
				pool_node(doctor, &pools[i], node);
		}
	}
	thp_report(doctor);
}

/* The value of "Node 0 MemFree:   1234 kB" in bytes, or UINT64_MAX. */
static uint64_t node_memory(const char *meminfo, const char *key)
{
	const char *at = strstr(meminfo, key);
	uint64_t kib;

	if (!at || sscanf(at + strlen(key), " %" SCNu64, &kib) != 1)
		return UINT64_MAX;
	return kib * 1024;
}

static void numa_node(struct doctor *doctor, unsigned node)
{
	char path[96], name[32], meminfo[4096], cpus[64] = "?", distance[64] = "?";
	char detail[DOCTOR_TEXT], total[32], available[32];

	snprintf(name, sizeof(name), "numa.node%u", node);
	snprintf(path, sizeof(path), "/sys/devices/system/node/node%u/cpulist", node);
	os_read_text(path, cpus, sizeof(cpus));
	snprintf(path, sizeof(path), "/sys/devices/system/node/node%u/distance", node);
	os_read_text(path, distance, sizeof(distance));
	snprintf(path, sizeof(path), "/sys/devices/system/node/node%u/meminfo", node);
	if (os_read_text(path, meminfo, sizeof(meminfo)) < 0)
		meminfo[0] = '\0';
	snprintf(detail, sizeof(detail), "memory %s, free %s, CPUs %s, distances %s",
		 meminfo[0] ? doctor_bytes(node_memory(meminfo, "MemTotal:"), total, sizeof(total))
			    : "?",
		 meminfo[0] ? doctor_bytes(node_memory(meminfo, "MemFree:"), available,
					   sizeof(available))
			    : "?",
		 cpus[0] ? cpus : "none", distance);
	doctor_report(doctor, &(struct shale_doctor_report){
				      .name = name,
				      .status = SHALE_DOCTOR_OK,
				      .detail = detail,
			      });
}

void doctor_numa(struct doctor *doctor)
{
	struct os_nodes nodes = {{0}};
	char detail[DOCTOR_TEXT];
	unsigned count = 0;

	os_numa_nodes(&nodes);
	for (unsigned node = 0; node < NODE_COUNT; node++)
		count += node_in(&nodes, node);
	snprintf(detail, sizeof(detail), "%u with memory that this process may use%s", count,
		 built_with_numa ? "" : "; shale was built without libnuma");
	doctor_report(
		doctor,
		&(struct shale_doctor_report){
			.name = "numa.nodes",
			.status = built_with_numa ? SHALE_DOCTOR_OK : SHALE_DOCTOR_DEGRADED,
			.detail = detail,
			.effect = built_with_numa ? "" : "pages fall where the kernel puts them",
			.mend = built_with_numa
					? ""
					: "install libnuma-dev and build with -Dnuma=enabled",
		});
	for (unsigned node = 0; node < NODE_COUNT; node++) {
		if (node_in(&nodes, node))
			numa_node(doctor, node);
	}
}
