/*
 * kernel.c - the doctor's first groups: the kernel, /proc, memfds, and each feature that os can probe.
 *
 * Owner:     the caller of shale_doctor_run(); the tables are constant.
 * Invariant: every enum os_feature has exactly one row in `features` (the build checks the count).
 * Ordering, lifetime, death: no shared memory.
 */
#include "doctor/doctor.h"

#include <stddef.h>
#include <stdio.h>

#include "os/os.h"

/* The release that shale is built for; older ones may work, and are said to be degraded. */
#define KERNEL_FLOOR_MAJOR 6
#define KERNEL_FLOOR_MINOR 1

static void kernel_version(struct doctor *doctor)
{
	char release[128];
	unsigned major = 0, minor = 0;
	bool old;

	if (os_read_text("/proc/sys/kernel/osrelease", release, sizeof(release)) < 0 ||
	    sscanf(release, "%u.%u", &major, &minor) != 2) {
		doctor_report(doctor, &(struct shale_doctor_report){
					      .name = "kernel.version",
					      .status = SHALE_DOCTOR_DEGRADED,
					      .detail = "not readable",
					      .effect = "nothing: each feature below was tried",
				      });
		return;
	}
	old = major < KERNEL_FLOOR_MAJOR ||
	      (major == KERNEL_FLOOR_MAJOR && minor < KERNEL_FLOOR_MINOR);
	doctor_report(doctor,
		      &(struct shale_doctor_report){
			      .name = "kernel.version",
			      .status = old ? SHALE_DOCTOR_DEGRADED : SHALE_DOCTOR_OK,
			      .detail = release,
			      .effect = old ? "works where the features below do; not tested" : "",
			      .mend = old ? "boot Linux 6.1 or newer" : "",
		      });
}

static void kernel_proc(struct doctor *doctor)
{
	char text[64];
	bool there = os_read_text("/proc/self/stat", text, sizeof(text)) >= 0;

	doctor_report(doctor, &(struct shale_doctor_report){
				      .name = "kernel.proc",
				      .status = there ? SHALE_DOCTOR_OK : SHALE_DOCTOR_MISSING,
				      .needed = true,
				      .detail = there ? "/proc is mounted" : "/proc is not mounted",
				      .effect = there ? ""
						      : "create and attach answer EOPNOTSUPP: a "
							"peer's liveness lock is opened through "
							"/proc/self/fd",
				      .mend = there ? "" : "mount -t proc proc /proc",
			      });
}

/* What a segment stands on. */
static void kernel_memfd(struct doctor *doctor)
{
	int fd, sealed;

	fd = os_memfd_create("shale-doctor", OS_PAGES_4K);
	sealed = fd < 0 ? fd : os_memfd_seal(fd);
	if (fd >= 0)
		(void)os_fd_close(fd);
	doctor_report(doctor,
		      &(struct shale_doctor_report){
			      .name = "kernel.memfd",
			      .status = sealed == 0 ? SHALE_DOCTOR_OK : SHALE_DOCTOR_MISSING,
			      .needed = true,
			      .detail = sealed == 0 ? "made and sealed one" : "refused",
			      .effect = sealed == 0 ? "" : "segments cannot be made",
			      .mend = sealed == 0 ? ""
						  : "allow memfd_create and fcntl(F_ADD_SEALS) in "
						    "the seccomp filter",
		      });
}

static void kernel_yama(struct doctor *doctor)
{
	static const char *const details[] = {
		"0: any process of this user",
		"1: descendants only, which is what the tests trace",
		"2: only with CAP_SYS_PTRACE",
		"3: nobody",
	};
	uint64_t scope = 0;
	bool there = doctor_read_u64("/proc/sys/kernel/yama/ptrace_scope", &scope) == 0;

	if (scope > 3)
		scope = 3;
	doctor_report(
		doctor,
		&(struct shale_doctor_report){
			.name = "kernel.ptrace_scope",
			.status = scope < 2 ? SHALE_DOCTOR_OK : SHALE_DOCTOR_DEGRADED,
			.detail = there ? details[scope] : "not restricted",
			.effect = scope < 2 ? ""
					    : "nothing for programs; the tests that step through "
					      "an operation are skipped",
			.mend = scope < 2    ? ""
				: scope == 2 ? "sysctl kernel.yama.ptrace_scope=1"
					     : "boot with kernel.yama.ptrace_scope=1 (3 is final)",
		});
}

void doctor_kernel(struct doctor *doctor)
{
	kernel_version(doctor);
	kernel_proc(doctor);
	kernel_memfd(doctor);
	kernel_yama(doctor);
}

struct feature_row {
	enum os_feature feature;
	const char *name;
	bool needed;
	const char *mend; /* besides a newer kernel, or instead of it when needed */
};

static const struct feature_row features[] = {
	{OS_FEATURE_OFD_LOCK, "feature.ofd_lock", true,
	 "mount -t proc proc /proc; a seccomp filter must allow fcntl(F_OFD_SETLK)"},
	{OS_FEATURE_NOEXEC_SEAL, "feature.noexec_seal", false, NULL},
	{OS_FEATURE_COLLAPSE, "feature.collapse", false, NULL},
	{OS_FEATURE_POPULATE, "feature.populate", false, NULL},
	{OS_FEATURE_THP_SHMEM, "feature.thp_shmem", false,
	 "echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled"},
	{OS_FEATURE_HUGETLB_2M, "feature.hugetlb_2m", false, "sysctl vm.nr_hugepages=512"},
	{OS_FEATURE_HUGETLB_1G, "feature.hugetlb_1g", false,
	 "echo 1 > /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages"},
	{OS_FEATURE_FUTEX_WAITV, "feature.futex_waitv", false, NULL},
	{OS_FEATURE_URING, "feature.uring", false, "sysctl kernel.io_uring_disabled=0"},
	{OS_FEATURE_URING_FUTEX, "feature.uring_futex", false, "sysctl kernel.io_uring_disabled=0"},
	{OS_FEATURE_PIDFS, "feature.pidfs", false, NULL},
	{OS_FEATURE_MEMBARRIER, "feature.membarrier", false, NULL},
	{OS_FEATURE_PREFERRED_MANY, "feature.preferred_many", false, NULL},
	{OS_FEATURE_WEIGHTED_INTERLEAVE, "feature.weighted_interleave", false, NULL},
	{OS_FEATURE_GUARD, "feature.guard", false, NULL},
};
_Static_assert(sizeof(features) / sizeof(features[0]) == OS_FEATURE_COUNT, "a row per feature");

static enum shale_doctor_status feature_status(enum os_status status)
{
	switch (status) {
	case OS_OK:
		return SHALE_DOCTOR_OK;
	case OS_DEGRADED:
		return SHALE_DOCTOR_DEGRADED;
	case OS_MISSING:
		break;
	}
	return SHALE_DOCTOR_MISSING;
}

static void feature_report(struct doctor *doctor, const struct feature_row *row)
{
	struct os_feature_report seen = {.status = OS_MISSING};
	char mend[DOCTOR_TEXT] = "";
	bool ok;

	if (os_probe(row->feature, &seen) < 0)
		snprintf(seen.detail, sizeof(seen.detail), "could not be tried");
	ok = seen.status == OS_OK;
	if (ok && !seen.detail[0])
		snprintf(seen.detail, sizeof(seen.detail), "tried, works");
	if (!ok && row->mend && (row->needed || seen.status == OS_DEGRADED))
		snprintf(mend, sizeof(mend), "%s", row->mend);
	else if (!ok && seen.since)
		snprintf(mend, sizeof(mend),
			 "boot Linux %s or newer, or allow it in the seccomp filter%s%s",
			 seen.since, row->mend ? ", then: " : "", row->mend ? row->mend : "");
	doctor_report(doctor, &(struct shale_doctor_report){
				      .name = row->name,
				      .status = feature_status(seen.status),
				      .needed = row->needed,
				      .detail = seen.detail,
				      .effect = ok ? "" : seen.fallback,
				      .mend = mend,
			      });
}

void doctor_features(struct doctor *doctor)
{
	for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++)
		feature_report(doctor, &features[i]);
}
