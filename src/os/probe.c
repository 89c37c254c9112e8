/* SPDX-License-Identifier: MIT */
/*
 * probe.c - what this kernel can do, found out by doing it; and the huge pages it has set aside.
 *
 * Owner:     nobody; each probe makes what it needs and takes it away again.
 * Invariant: B1  after a probe no descriptor, mapping, lock or policy is left
 *            B2  a version number is never asked: kernels are patched, and seccomp filters lie
 * Ordering:  none.
 * Death:     the kernel cleans up after a probe that is killed.
 *
 * A huge-page probe reserves one page for a moment; a commit elsewhere may fail in that moment.
 */
#define _GNU_SOURCE
#include "os/os.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os/sys.h"

#define SMALL_PAGE ((size_t)4096)
#define HUGE_2M    ((size_t)2 << 20)
#define HUGE_1G    ((size_t)1 << 30)

__attribute__((format(printf, 2, 3))) static void tell(struct os_feature_report *report,
						       const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(report->detail, sizeof(report->detail), format, arguments);
	va_end(arguments);
}

/* The common end: r >= 0 is good, else the feature is missing and this is why. */
static enum os_status missing_if(struct os_feature_report *report, const char *call, int r)
{
	const char *name;

	if (r >= 0)
		return OS_OK;
	name = strerrorname_np(-r);
	tell(report, "%s: %s", call, name != NULL ? name : "unknown error");
	return OS_MISSING;
}

/* ---- something to try on --------------------------------------------------------------------- */

struct trial {
	int fd; /* -EBADF: anonymous */
	void *base;
	size_t size;
};

static void trial_end(struct trial *trial)
{
	if (trial->base != NULL)
		(void)os_unmap(trial->base, trial->size);
	(void)os_fd_close(trial->fd);
}
#define _cleanup_trial_ __attribute__((cleanup(trial_end)))
#define TRIAL_NONE           \
	{                    \
		.fd = -EBADF \
	}

static int trial_shared(struct trial *trial, size_t size, size_t alignment)
{
	int r;

	trial->size = size;
	trial->fd = os_memfd_create("shale-probe", OS_PAGES_4K);
	if (trial->fd < 0)
		return trial->fd;
	r = os_memfd_set_size(trial->fd, size);
	if (r < 0)
		return r;
	return os_map_shared(trial->fd, 0, size, true, alignment, &trial->base);
}

static int trial_private(struct trial *trial, size_t size)
{
	trial->size = size;
	return os_map_private(size, 0, &trial->base);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static enum os_status probe_noexec_seal(struct os_feature_report *report)
{
	_cleanup_os_close_ int fd = -EBADF;
	int seals;

	fd = sys_memfd_create("shale-probe", MFD_CLOEXEC | MFD_NOEXEC_SEAL);
	if (fd < 0)
		return missing_if(report, "memfd_create(NOEXEC_SEAL)", fd);
	seals = sys_get_seals(fd);
	if (seals >= 0 && (seals & F_SEAL_EXEC) != 0)
		return OS_OK;
	tell(report, "accepted, but the seal is not there");
	return OS_DEGRADED;
}

static enum os_status probe_collapse(struct os_feature_report *report)
{
	_cleanup_trial_ struct trial trial = TRIAL_NONE;
	int r;

	r = trial_shared(&trial, HUGE_2M, HUGE_2M);
	if (r < 0)
		return missing_if(report, "mapping to try on", r);
	*(volatile char *)trial.base = 1;
	r = os_advise(trial.base, trial.size, OS_COLLAPSE);
	if (r != -EAGAIN && r != -ENOMEM && r != -EBUSY)
		return missing_if(report, "madvise(COLLAPSE)", r);
	tell(report, "no huge page could be made just now");
	return OS_DEGRADED;
}

static enum os_status probe_thp_shmem(struct os_feature_report *report)
{
	_cleanup_trial_ struct trial trial = TRIAL_NONE;
	char anon[32], shmem[32] = "";
	uint64_t bytes = 0;
	int r;

	r = os_thp_modes(anon, sizeof(anon), shmem, sizeof(shmem));
	if (r < 0)
		return missing_if(report, "transparent_hugepage/shmem_enabled", r);
	r = trial_shared(&trial, HUGE_2M, HUGE_2M);
	if (r < 0)
		return missing_if(report, "mapping to try on", r);
	r = os_advise(trial.base, trial.size, OS_HUGEPAGE);
	if (r < 0)
		return missing_if(report, "madvise(HUGEPAGE)", r);
	*(volatile char *)trial.base = 1;
	r = os_backing_bytes(trial.fd, &bytes);
	tell(report, "shmem_enabled=%s, a touch brought %llu KiB", shmem,
	     (unsigned long long)bytes / 1024);
	return r == 0 && bytes >= HUGE_2M ? OS_OK : OS_DEGRADED;
}

static enum os_status probe_populate(struct os_feature_report *report)
{
	_cleanup_trial_ struct trial trial = TRIAL_NONE;
	int r;

	r = trial_private(&trial, SMALL_PAGE);
	if (r == 0)
		r = os_advise(trial.base, trial.size, OS_POPULATE_WRITE);
	return missing_if(report, "madvise(POPULATE_WRITE)", r);
}

static enum os_status probe_guard(struct os_feature_report *report)
{
	_cleanup_trial_ struct trial trial = TRIAL_NONE;
	int r;

	r = trial_shared(&trial, SMALL_PAGE, 0);
	if (r == 0)
		r = sys_madvise(trial.base, trial.size, MADV_GUARD_INSTALL);
	return missing_if(report, "madvise(GUARD_INSTALL) on shared memory", r);
}

/* Mapping without NORESERVE reserves the page: the honest question, at no page's cost. */
static enum os_status probe_hugetlb(struct os_feature_report *report, enum os_page_kind kind,
				    size_t page_size)
{
	_cleanup_trial_ struct trial trial = TRIAL_NONE;
	struct os_huge_pool pool = {0};
	int r;

	trial.fd = os_memfd_create("shale-probe", kind);
	if (trial.fd < 0)
		return missing_if(report, "memfd_create(HUGETLB)", trial.fd);
	r = os_memfd_set_size(trial.fd, page_size);
	if (r < 0)
		return missing_if(report, "ftruncate", r);
	trial.size = page_size;
	r = sys_mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_SHARED, trial.fd, 0, &trial.base);
	if (r < 0 && r != -ENOMEM)
		return missing_if(report, "mmap", r);
	(void)os_huge_pool(page_size, &pool);
	tell(report, "pool: %llu pages, %llu free, %llu of them reserved, overcommit %llu",
	     (unsigned long long)pool.total, (unsigned long long)pool.free,
	     (unsigned long long)pool.reserved, (unsigned long long)pool.overcommit);
	return r == 0 ? OS_OK : OS_DEGRADED;
}

static enum os_status probe_hugetlb_2m(struct os_feature_report *report)
{
	return probe_hugetlb(report, OS_PAGES_2M, HUGE_2M);
}

static enum os_status probe_hugetlb_1g(struct os_feature_report *report)
{
	return probe_hugetlb(report, OS_PAGES_1G, HUGE_1G);
}

/* A fallback answers 1, and that is what is being asked here. */
static enum os_status probe_placement(struct os_feature_report *report, enum os_placement mode)
{
	_cleanup_trial_ struct trial trial = TRIAL_NONE;
	struct os_nodes nodes;
	int r;

	r = os_numa_nodes(&nodes);
	if (r == 0)
		r = trial_private(&trial, SMALL_PAGE);
	if (r == 0)
		r = os_numa_place(trial.base, trial.size, mode, &nodes);
	if (r != 1)
		return missing_if(report, "mbind", r);
#ifdef SHALE_HAVE_NUMA
	tell(report, "mbind took the fallback only");
#else
	tell(report, "built without libnuma");
#endif
	return OS_MISSING;
}

static enum os_status probe_preferred_many(struct os_feature_report *report)
{
	return probe_placement(report, OS_PLACE_PREFERRED_MANY);
}

static enum os_status probe_weighted(struct os_feature_report *report)
{
	return probe_placement(report, OS_PLACE_WEIGHTED);
}

/* ---- io_uring -------------------------------------------------------------------------------- */

/* struct io_uring_params and io_uring_probe, as much as is asked; the kernel wants all bytes. */
struct uring_params {
	uint32_t sq_entries, cq_entries, flags, sq_thread_cpu, sq_thread_idle, features, wq_fd;
	uint32_t reserved[3];
	uint8_t offsets[80];
};
_Static_assert(sizeof(struct uring_params) == 120, "the kernel's struct io_uring_params");

struct uring_op {
	uint8_t op, reserved;
	uint16_t flags; /* 1: supported */
	uint32_t reserved2;
};

#define URING_OPS            256
#define URING_REGISTER_PROBE 8
#define URING_OP_FUTEX_WAIT  51 /* 6.7 */

struct uring_ops {
	uint8_t last_op, ops_len;
	uint16_t reserved;
	uint32_t reserved2[3];
	struct uring_op ops[URING_OPS];
};

static int uring_open(void)
{
	struct uring_params params = {0};

	return sys_uring_setup(1, &params);
}

static enum os_status probe_uring(struct os_feature_report *report)
{
	_cleanup_os_close_ int ring = uring_open();

	return missing_if(report, "io_uring_setup", ring);
}

static enum os_status probe_uring_futex(struct os_feature_report *report)
{
	_cleanup_os_close_ int ring = uring_open();
	struct uring_ops ops = {0};
	int r;

	if (ring < 0)
		return missing_if(report, "io_uring_setup", ring);
	r = sys_uring_register(ring, URING_REGISTER_PROBE, &ops, URING_OPS);
	if (r < 0)
		return missing_if(report, "io_uring_register(PROBE)", r);
	if (ops.ops_len > URING_OP_FUTEX_WAIT && (ops.ops[URING_OP_FUTEX_WAIT].flags & 1) != 0)
		return OS_OK;
	tell(report, "ring opens, its last operation is %u", ops.last_op);
	return OS_MISSING;
}

/* ---- waiting, identity, locks ---------------------------------------------------------------- */

static enum os_status probe_futex_waitv(struct os_feature_report *report)
{
	uint32_t word = 0;
	struct sys_futex_waitv waiter = {
		.val = 1,
		.uaddr = (uintptr_t)&word,
		.flags = SYS_FUTEX_32,
	};
	int r = sys_futex_waitv(&waiter, 1, NULL);

	/* The word differs from what is expected, and a kernel that knows the call says so. */
	return missing_if(report, "futex_waitv", r == -EAGAIN ? 0 : r);
}

static enum os_status probe_pidfs(struct os_feature_report *report)
{
	struct os_process_id id;
	int r = os_process_self(&id);

	if (r < 0)
		return missing_if(report, "pidfd_open", r);
	if (id.pidfs_ino != 0)
		return OS_OK;
	tell(report, "a pidfd has no inode of its own");
	return OS_MISSING;
}

/* Calling needs no registration, so trying it leaves none. */
static enum os_status probe_membarrier(struct os_feature_report *report)
{
	return missing_if(report, "membarrier(GLOBAL_EXPEDITED)", os_membarrier_global());
}

/* The whole chain that liveness stands on: reopen, pin, lock, and another description sees it. */
static enum os_status probe_ofd_lock(struct os_feature_report *report)
{
	_cleanup_os_close_ int fd = os_memfd_create("shale-probe", OS_PAGES_4K);
	struct os_life life;
	int r;

	if (fd < 0)
		return missing_if(report, "memfd_create", fd);
	r = os_life_take(fd, 1, true, &life);
	if (r < 0)
		return missing_if(report, "lock kept by a mapping", r);
	r = os_life_probe(fd, 1);
	os_life_drop(&life);
	if (r == 1 && os_life_probe(fd, 1) == 0)
		return OS_OK;
	tell(report, "the lock is not seen, or stays after its mapping");
	return OS_MISSING;
}

/* ---- the table ------------------------------------------------------------------------------- */

struct feature {
	const char *name;
	const char *since;
	const char *fallback;
	enum os_status (*probe)(struct os_feature_report *report);
};

static const struct feature features[OS_FEATURE_COUNT] = {
	[OS_FEATURE_NOEXEC_SEAL] = {"memfd noexec seal", "6.3",
				    "fchmod 0666: not executable, but not sealed against it",
				    probe_noexec_seal},
	[OS_FEATURE_COLLAPSE] = {"madvise collapse", "6.1",
				 "huge pages only where the kernel gives them at first touch",
				 probe_collapse},
	[OS_FEATURE_URING] = {"io_uring", "5.1", "blocking system calls; the broker needs it",
			      probe_uring},
	[OS_FEATURE_URING_FUTEX] = {"io_uring futex wait", "6.7",
				    "event loops wait through a helper descriptor",
				    probe_uring_futex},
	[OS_FEATURE_FUTEX_WAITV] = {"futex_waitv", "5.16",
				    "poll: sleeps of at most 2 ms on the first word",
				    probe_futex_waitv},
	[OS_FEATURE_PIDFS] = {"pidfs", "6.9", "pid, start time and pid namespace from /proc",
			      probe_pidfs},
	[OS_FEATURE_MEMBARRIER] = {"membarrier global expedited", "4.16", "a fence in every reader",
				   probe_membarrier},
	[OS_FEATURE_OFD_LOCK] = {"lock kept by a mapping", "3.15",
				 "none: peers cannot attach without it (is /proc mounted?)",
				 probe_ofd_lock},
	[OS_FEATURE_HUGETLB_2M] = {"2 MiB huge pages", "2.6", "transparent huge pages, else 4 KiB",
				   probe_hugetlb_2m},
	[OS_FEATURE_HUGETLB_1G] = {"1 GiB huge pages", "2.6", "2 MiB huge pages", probe_hugetlb_1g},
	[OS_FEATURE_THP_SHMEM] = {"transparent huge pages for shared memory", "4.8",
				  "madvise collapse on filled arenas, else 4 KiB", probe_thp_shmem},
	[OS_FEATURE_POPULATE] = {"madvise populate", "5.14", "pages are mapped at first touch",
				 probe_populate},
	[OS_FEATURE_PREFERRED_MANY] = {"mbind preferred-many", "5.15",
				       "preferred: the first node of the set",
				       probe_preferred_many},
	[OS_FEATURE_WEIGHTED_INTERLEAVE] = {"mbind weighted interleave", "6.9",
					    "interleave with equal weights", probe_weighted},
	[OS_FEATURE_GUARD] = {"guard pages in shared memory", "6.15",
			      "none: overruns into a neighbour page are not trapped", probe_guard},
};

int os_probe(enum os_feature feature, struct os_feature_report *ret_report)
{
	struct os_feature_report report = {0};

	if ((unsigned)feature >= OS_FEATURE_COUNT)
		return -EINVAL;
	report.name = features[feature].name;
	report.since = features[feature].since;
	report.fallback = features[feature].fallback;
	report.status = features[feature].probe(&report);
	*ret_report = report;
	return 0;
}

/* ---- pools and modes ------------------------------------------------------------------------- */

/* One number of a directory of /sys. */
static int read_count(const char *directory, const char *name, uint64_t *ret_count)
{
	char path[192], text[32];
	int r;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	r = os_read_text(path, text, sizeof(text));
	if (r < 0)
		return r;
	*ret_count = strtoull(text, NULL, 10);
	return 0;
}

/* What the machine and each of its nodes both keep. */
static int read_pool(const char *directory, struct os_huge_pool *pool)
{
	int r;

	r = read_count(directory, "nr_hugepages", &pool->total);
	if (r < 0)
		return r;
	r = read_count(directory, "free_hugepages", &pool->free);
	if (r < 0)
		return r;
	return read_count(directory, "surplus_hugepages", &pool->surplus);
}

int os_huge_pool(uint64_t page_size, struct os_huge_pool *ret_pool)
{
	struct os_huge_pool pool = {.page_size = page_size};
	char directory[128];
	int r;

	snprintf(directory, sizeof(directory), "/sys/kernel/mm/hugepages/hugepages-%llukB",
		 (unsigned long long)page_size / 1024);
	r = read_pool(directory, &pool);
	if (r < 0)
		return r;
	r = read_count(directory, "resv_hugepages", &pool.reserved);
	if (r < 0)
		return r;
	r = read_count(directory, "nr_overcommit_hugepages", &pool.overcommit);
	if (r < 0)
		return r;
	*ret_pool = pool;
	return 0;
}

int os_huge_pool_node(uint64_t page_size, unsigned node, struct os_huge_pool *ret_pool)
{
	struct os_huge_pool pool = {.page_size = page_size};
	char directory[128];
	int r;

	snprintf(directory, sizeof(directory),
		 "/sys/devices/system/node/node%u/hugepages/hugepages-%llukB", node,
		 (unsigned long long)page_size / 1024);
	r = read_pool(directory, &pool);
	if (r < 0)
		return r;
	*ret_pool = pool;
	return 0;
}

/* "always [madvise] never": the word in brackets. */
static int read_chosen(const char *path, char *ret_word, size_t size)
{
	char text[128];
	char *from, *to;
	int r;

	r = os_read_text(path, text, sizeof(text));
	if (r < 0)
		return r;
	from = strchr(text, '[');
	to = from != NULL ? strchr(from, ']') : NULL;
	if (to == NULL)
		return -EBADMSG;
	*to = '\0';
	if (strlen(from + 1) >= size)
		return -ENAMETOOLONG;
	strcpy(ret_word, from + 1);
	return 0;
}

int os_thp_modes(char *ret_anon, size_t anon_size, char *ret_shmem, size_t shmem_size)
{
	char anon[32], shmem[32];
	int r;

	r = read_chosen("/sys/kernel/mm/transparent_hugepage/enabled", anon, sizeof(anon));
	if (r < 0)
		return r;
	r = read_chosen("/sys/kernel/mm/transparent_hugepage/shmem_enabled", shmem, sizeof(shmem));
	if (r < 0)
		return r;
	if (strlen(anon) >= anon_size || strlen(shmem) >= shmem_size)
		return -ENAMETOOLONG;
	strcpy(ret_anon, anon);
	strcpy(ret_shmem, shmem);
	return 0;
}
