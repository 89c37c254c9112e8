/*
 * pages.c - which pages a segment gets: what was asked for, or the best that this machine has.
 *
 * Owner:     nobody; asks the kernel, keeps nothing.
 * Invariant: at least one choice; with AUTO the last one is 4 KiB pages, which always work.
 * Death:     writes nothing.
 */
#include "segment/internal.h"

#include <stdio.h>
#include <string.h>

/* What AUTO wants to find free in the pool: header, lanes and tables, and this many arenas. */
#define AUTO_TABLE_PAGES 4u
#define AUTO_ARENAS      4u

uint64_t pages_size(enum shale_pages pages)
{
	if (pages == SHALE_PAGES_2M)
		return MIB(2);
	if (pages == SHALE_PAGES_1G)
		return GIB(1);
	return KIB(4);
}

static void choice_set(struct page_choice *choice, enum shale_pages pages, const char *reason)
{
	choice->pages = pages;
	(void)snprintf(choice->reason, sizeof(choice->reason), "%s", reason);
}

/* Free and not promised to others; with BIND only what the nodes asked for have. */
static uint64_t pool_free(const struct shale_segment_options *options,
			  const struct os_huge_pool *pool)
{
	uint64_t unpromised = pool->free > pool->reserved ? pool->free - pool->reserved : 0;
	uint64_t on_nodes = 0;

	if (options->placement != SHALE_PLACE_BIND)
		return unpromised;
	for (unsigned node = 0; node < 1024; node++) {
		struct os_huge_pool part;

		if ((options->nodes.bits[node / 64] >> (node % 64) & 1) &&
		    os_huge_pool_node(MIB(2), node, &part) == 0)
			on_nodes += part.free;
	}
	return on_nodes < unpromised ? on_nodes : unpromised;
}

static bool choose_2m(const struct shale_segment_options *options, struct page_choice *choice,
		      char *ret_why_not, size_t why_size)
{
	uint64_t arenas = options->capacity_bytes >> ARENA_SHIFT, wanted, have;
	struct os_huge_pool pool;

	if (os_huge_pool(MIB(2), &pool) < 0) {
		(void)snprintf(ret_why_not, why_size, "no 2 MiB pool in this kernel");
		return false;
	}
	wanted = AUTO_TABLE_PAGES + (arenas < AUTO_ARENAS ? arenas : AUTO_ARENAS);
	have = pool_free(options, &pool);
	if (have < wanted) {
		(void)snprintf(ret_why_not, why_size, "2 MiB pool has %llu of %llu pages%s",
			       (unsigned long long)have, (unsigned long long)wanted,
			       pool.overcommit > 0 ? " (overcommit not counted on)" : "");
		return false;
	}
	choice->pages = SHALE_PAGES_2M;
	(void)snprintf(choice->reason, sizeof(choice->reason),
		       "auto: 2 MiB pool has %llu free pages%s", (unsigned long long)have,
		       pool.overcommit > 0 ? " and overcommit" : "");
	return true;
}

static bool choose_thp(struct page_choice *choice, const char *why_not_2m, char *ret_why_not,
		       size_t why_size)
{
	struct os_feature_report report;
	char anon[32], shmem[32];

	if (os_thp_modes(anon, sizeof(anon), shmem, sizeof(shmem)) < 0 ||
	    strcmp(shmem, "deny") == 0) {
		(void)snprintf(ret_why_not, why_size, "no huge pages for shared memory");
		return false;
	}
	choice->pages = SHALE_PAGES_THP;
	if (strcmp(shmem, "never") != 0) {
		(void)snprintf(choice->reason, sizeof(choice->reason),
			       "auto: %s; shmem_enabled is %s", why_not_2m, shmem);
		return true;
	}
	if (os_probe(OS_FEATURE_COLLAPSE, &report) == 0 && report.status == OS_OK) {
		(void)snprintf(choice->reason, sizeof(choice->reason),
			       "auto: %s; MADV_COLLAPSE works", why_not_2m);
		return true;
	}
	(void)snprintf(ret_why_not, why_size, "shmem_enabled is never, no MADV_COLLAPSE");
	return false;
}

unsigned pages_choose(const struct shale_segment_options *options, struct page_choice *ret_choices)
{
	char no_2m[64] = "2 MiB pool ran out", no_thp[48] = "huge pages ran out";
	unsigned count = 0;

	if (options->pages != SHALE_PAGES_AUTO) {
		choice_set(&ret_choices[0], options->pages, "asked for");
		return 1;
	}
	count += choose_2m(options, &ret_choices[count], no_2m, sizeof(no_2m));
	count += choose_thp(&ret_choices[count], no_2m, no_thp, sizeof(no_thp));
	ret_choices[count].pages = SHALE_PAGES_4K;
	(void)snprintf(ret_choices[count].reason, sizeof(ret_choices[count].reason), "auto: %s; %s",
		       no_2m, no_thp);
	return count + 1;
}
