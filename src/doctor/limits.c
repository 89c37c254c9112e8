/*
 * limits.c - the doctor on limits: of this process, of its control group, of the kernel.
 *
 * Owner:     the caller of shale_doctor_run(); everything is on its stack.
 * Invariant: a control group's limit is the smallest on the way from the group to the root.
 * Ordering, lifetime, death: no shared memory.
 */
#include "doctor/doctor.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "os/os.h"

#define OPEN_FILES_WANTED 64u
#define MAP_COUNT_WANTED  1024u
#define ADDRESS_SPACE_WANTED \
	(UINT64_C(1) << 37) /* the default segment is 64 GiB of address space */
#define MEMORY_WANTED (UINT64_C(64) << 20)

/* The soft limit of a line of /proc/self/limits; UINT64_MAX: unlimited, or not there. */
static uint64_t process_limit(const char *text, const char *key)
{
	const char *at = strstr(text, key);
	uint64_t value;

	if (!at || sscanf(at + strlen(key), " %" SCNu64, &value) != 1)
		return UINT64_MAX;
	return value;
}

static void limit_report(struct doctor *doctor, const char *name, bool ok, const char *detail,
			 const char *effect, const char *mend)
{
	doctor_report(doctor, &(struct shale_doctor_report){
				      .name = name,
				      .status = ok ? SHALE_DOCTOR_OK : SHALE_DOCTOR_DEGRADED,
				      .detail = detail,
				      .effect = ok ? "" : effect,
				      .mend = ok ? "" : mend,
			      });
}

static void limits_process(struct doctor *doctor)
{
	char text[4096], detail[64];
	uint64_t value;

	if (os_read_text("/proc/self/limits", text, sizeof(text)) < 0)
		text[0] = '\0';
	value = process_limit(text, "Max open files");
	if (value == UINT64_MAX)
		snprintf(detail, sizeof(detail), "unlimited");
	else
		snprintf(detail, sizeof(detail), "%" PRIu64, value);
	limit_report(doctor, "limit.open_files", value >= OPEN_FILES_WANTED, detail,
		     "create, attach and receive answer EMFILE when it is reached",
		     "ulimit -n 1024");
	value = process_limit(text, "Max locked memory");
	doctor_bytes(value, detail, sizeof(detail));
	/* shale locks no memory; rings of old kernels are charged to this limit */
	limit_report(doctor, "limit.locked_memory", value >= (UINT64_C(64) << 10), detail,
		     "io_uring rings may be refused on kernels before 5.12", "ulimit -l 65536");
	value = process_limit(text, "Max address space");
	doctor_bytes(value, detail, sizeof(detail));
	limit_report(doctor, "limit.address_space", value >= ADDRESS_SPACE_WANTED, detail,
		     "create and attach answer ENOMEM for segments whose capacity does not fit",
		     "ulimit -v unlimited, or give a smaller capacity");
}

/*
 * The path of this process in the hierarchy of `controller` ("" is version 2) from the text of
 * /proc/self/cgroup. False when it is in none.
 */
static bool group_path(const char *text, const char *controller, char *path, size_t size)
{
	for (const char *line = text; line && *line; line = strchr(line, '\n')) {
		char names[128], where[512];

		line += *line == '\n';
		names[0] = '\0';
		if (sscanf(line, "%*u:%127[^:\n]:%511[^\n]", names, where) != 2 &&
		    sscanf(line, "0::%511[^\n]", where) != 1)
			continue;
		if (strcmp(names, controller) == 0) {
			snprintf(path, size, "%s", where);
			return true;
		}
	}
	return false;
}

/* The smallest limit of `file` from the group up to the root of its mount. False: no such file. */
static bool group_limit(const char *mount, const char *group, const char *file, uint64_t *ret_limit)
{
	char path[512], full[768];
	uint64_t least = UINT64_MAX, value;
	bool found = false;
	char *slash;

	snprintf(path, sizeof(path), "%s", group);
	do {
		snprintf(full, sizeof(full), "%s%s/%s", mount, strcmp(path, "/") == 0 ? "" : path,
			 file);
		if (doctor_read_u64(full, &value) == 0) {
			found = true;
			if (value < least)
				least = value;
		}
		slash = strrchr(path, '/');
		if (slash)
			*slash = '\0';
	} while (slash);
	*ret_limit = least;
	return found;
}

/* Version 2 first, then version 1; version 1 says "no limit" with a number near 2^63. */
static bool group_find(const char *text, const char *controller, const char *v2_file,
		       const char *v1_file, uint64_t *ret_limit)
{
	char group[512], mount[64];

	if (group_path(text, "", group, sizeof(group)) &&
	    group_limit("/sys/fs/cgroup", group, v2_file, ret_limit))
		return true;
	snprintf(mount, sizeof(mount), "/sys/fs/cgroup/%s", controller);
	if (!group_path(text, controller, group, sizeof(group)) ||
	    !group_limit(mount, group, v1_file, ret_limit))
		return false;
	if (*ret_limit >= UINT64_C(1) << 62)
		*ret_limit = UINT64_MAX;
	return true;
}

static void limits_group(struct doctor *doctor)
{
	char text[4096], detail[64];
	uint64_t limit = UINT64_MAX;
	bool found;

	if (os_read_text("/proc/self/cgroup", text, sizeof(text)) < 0)
		text[0] = '\0';
	found = group_find(text, "memory", "memory.max", "memory.limit_in_bytes", &limit);
	limit = found ? limit : UINT64_MAX;
	doctor_bytes(limit, detail, sizeof(detail));
	limit_report(
		doctor, "limit.cgroup_memory", limit >= MEMORY_WANTED,
		found ? detail : "no such control group",
		"the kernel kills the process when a segment passes it: set budget_bytes below",
		"raise memory.max of the group, or give segments a smaller budget");
	limit = UINT64_MAX;
	found = group_find(text, "hugetlb", "hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes",
			   &limit);
	limit = found ? limit : UINT64_MAX;
	doctor_bytes(limit, detail, sizeof(detail));
	limit_report(
		doctor, "limit.cgroup_hugetlb", limit >= MEMORY_WANTED,
		found ? detail : "no such control group",
		"allocation answers ENOMEM when it is reached; page kind auto takes other pages",
		"raise hugetlb.2MB.max of the group");
}

static void limit_overcommit(struct doctor *doctor)
{
	static const char *const details[] = {"0: heuristic", "1: always", "2: never"};
	uint64_t mode = 0;
	bool there = doctor_read_u64("/proc/sys/vm/overcommit_memory", &mode) == 0 && mode <= 2;

	limit_report(doctor, "vm.overcommit_memory", !there || mode < 2,
		     there ? details[mode] : "not readable",
		     "private segments are charged for their whole capacity and may get ENOMEM; "
		     "shared ones are not",
		     "sysctl vm.overcommit_memory=0");
}

static void limit_noexec(struct doctor *doctor)
{
	static const char *const details[] = {"0: memfds may be executable",
					      "1: not executable unless asked for",
					      "2: executable ones are refused"};
	uint64_t mode = 0;
	bool there = doctor_read_u64("/proc/sys/vm/memfd_noexec", &mode) == 0 && mode <= 2;

	limit_report(doctor, "vm.memfd_noexec", true,
		     there ? details[mode] : "this kernel has no such switch", "", "");
}

static void limit_map_count(struct doctor *doctor)
{
	uint64_t count = 0;
	char detail[64] = "not readable";
	bool there = doctor_read_u64("/proc/sys/vm/max_map_count", &count) == 0;

	if (there)
		snprintf(detail, sizeof(detail), "%" PRIu64 " mappings a process", count);
	limit_report(doctor, "vm.max_map_count", !there || count >= MAP_COUNT_WANTED, detail,
		     "create and attach answer ENOMEM when it is reached",
		     "sysctl vm.max_map_count=65530");
}

static void limit_uring(struct doctor *doctor)
{
	static const char *const details[] = {"0: everybody may", "1: only a privileged group may",
					      "2: nobody may"};
	uint64_t mode = 0;
	bool there = doctor_read_u64("/proc/sys/kernel/io_uring_disabled", &mode) == 0 && mode <= 2;

	limit_report(doctor, "kernel.io_uring_disabled", !there || mode == 0,
		     there ? details[mode] : "this kernel has no such switch",
		     "nothing can wait through io_uring; futexes are not affected",
		     "sysctl kernel.io_uring_disabled=0");
}

void doctor_limits(struct doctor *doctor)
{
	limits_process(doctor);
	limits_group(doctor);
	limit_overcommit(doctor);
	limit_noexec(doctor);
	limit_map_count(doctor);
	limit_uring(doctor);
}
