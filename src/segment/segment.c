/*
 * segment.c - making a segment.
 *
 *   memfd, size, seals -> map -> place -> commit the first pages -> header -> own peer slot -> ready
 *
 * Owner:     the creator, alone until it hands the descriptor on; what opens it earlier through
 *            /proc finds `ready` 0 and is told to try again.
 * Invariant: the seals are there before the first byte is written; the header never changes once
 *            `ready` is set.
 * Ordering:  header.ready (release here, acquire in attach.c).
 * Lifetime:  the file lives as long as anyone has it open or mapped.
 * Death:     a creator that dies before `ready` leaves nothing: the file goes with its descriptor.
 *            One held open by someone else stays "not finished" for ever.
 */
#include "segment/internal.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/hash.h"

#define OPTIONS_FIRST_SIZE   (offsetof(struct shale_segment_options, reason_size) + sizeof(size_t))
#define LABEL_DEFAULT        "shale"
#define GUARD_SAMPLE_DEFAULT 64u

static struct reason options_reason(const struct shale_segment_options *options)
{
	return (struct reason){options->reason, options->reason_size};
}

static int check_nodes(const struct shale_segment_options *options, struct reason reason)
{
	struct os_nodes usable;
	bool any = false;
	int r;

	if (options->placement == SHALE_PLACE_LOCAL)
		return 0;
	r = os_numa_nodes(&usable);
	if (r < 0) {
		reason_set(reason, "the NUMA nodes of this machine cannot be read");
		return r;
	}
	for (unsigned node = 0; node < 1024; node++) {
		uint64_t bit = UINT64_C(1) << (node % 64);

		if (!(options->nodes.bits[node / 64] & bit))
			continue;
		any = true;
		if (!(usable.bits[node / 64] & bit)) {
			reason_set(reason,
				   "node %u does not exist, has no memory or is not allowed", node);
			return -EINVAL;
		}
	}
	if (!any)
		reason_set(reason, "a placement other than local needs nodes");
	return any ? 0 : -EINVAL;
}

static int check_options(struct shale_segment_options *options)
{
	struct reason reason = options_reason(options);

	if (options->capacity_bytes == 0)
		options->capacity_bytes = CAPACITY_DEFAULT;
	if (options->capacity_bytes > CAPACITY_MAX) {
		reason_set(reason, "capacity_bytes is above 16 TiB");
		return -EINVAL;
	}
	options->capacity_bytes = round_up(options->capacity_bytes, ARENA_SIZE);
	if ((unsigned)options->pages > SHALE_PAGES_PRIVATE) {
		reason_set(reason, "pages %u is not a page kind", (unsigned)options->pages);
		return -EINVAL;
	}
	if ((unsigned)options->placement > SHALE_PLACE_WEIGHTED) {
		reason_set(reason, "placement %u is not a placement", (unsigned)options->placement);
		return -EINVAL;
	}
	if (options->debug & ~(unsigned)FEATURES_DEBUG) {
		reason_set(reason, "debug 0x%x has flags that are none", (unsigned)options->debug);
		return -EINVAL;
	}
	if (options->guard_sample == 0 && (options->debug & SHALE_DEBUG_GUARD))
		options->guard_sample = GUARD_SAMPLE_DEFAULT;
	if (!options->label)
		options->label = LABEL_DEFAULT;
	return check_nodes(options, reason);
}

static int check_budget(const struct shale_segment_options *options,
			const struct geometry *geometry, struct reason reason)
{
	uint64_t least = geometry_least_budget(geometry);

	if (options->budget_bytes == 0 || options->budget_bytes >= least)
		return 0;
	reason_set(reason, "budget_bytes is below %llu, the least for this page size",
		   (unsigned long long)least);
	return -EINVAL;
}

static uint64_t realtime_ns(void)
{
	struct timespec now;

	/* the C library's call; needs no kernel entry and cannot fail for this clock */
	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int header_fill(struct header_shm *h, const struct shale_segment_options *options,
		       const struct geometry *geometry, const struct page_choice *choice)
{
	int r;

	*h = (struct header_shm){0};
	h->magic = SEGMENT_MAGIC;
	h->format_version = SEGMENT_FORMAT_VERSION;
	h->header_size = sizeof(*h);
	h->layout_hash = geometry_layout_hash();
	r = os_random(h->id, sizeof(h->id));
	if (r < 0)
		return r;
	r = os_random(&h->hash_seed, sizeof(h->hash_seed));
	if (r < 0)
		return r;
	h->file_size = geometry->file_size;
	h->page_size = geometry->page_size;
	h->capacity_bytes = geometry->capacity_bytes;
	h->budget_bytes = options->budget_bytes;
	if (h->budget_bytes == 0 || h->budget_bytes > geometry->file_size)
		h->budget_bytes = geometry->file_size;
	h->features_ro_compat = options->debug;
	h->features_compat = (uint64_t)options->guard_sample << FEATURE_SAMPLE_SHIFT;
	h->arena_count = geometry->arena_count;
	h->peer_count = PEER_COUNT;
	h->lane_count = LANE_COUNT;
	h->root_count = ROOT_COUNT;
	h->roots_offset = ROOTS_OFFSET;
	h->peers_offset = PEERS_OFFSET;
	h->lanes_offset = LANES_OFFSET;
	h->arena_table_offset = geometry->arena_table_offset;
	h->short_facts_offset = geometry->short_facts_offset;
	h->long_facts_offset = geometry->long_facts_offset;
	h->heap_offset = geometry->heap_offset;
	h->created_ns = realtime_ns();
	h->pages = choice->pages;
	h->placement = options->placement;
	memcpy(h->nodes, options->nodes.bits, sizeof(h->nodes));
	strncpy(h->label, options->label, sizeof(h->label) - 1);
	strncpy(h->pages_reason, choice->reason, sizeof(h->pages_reason) - 1);
	h->checksum = hash_bytes(h, offsetof(struct header_shm, checksum), 0);
	return 0;
}

static enum os_page_kind page_kind(enum shale_pages pages)
{
	switch (pages) {
	case SHALE_PAGES_2M:
		return OS_PAGES_2M;
	case SHALE_PAGES_1G:
		return OS_PAGES_1G;
	case SHALE_PAGES_THP:
		return OS_PAGES_THP;
	default:
		return OS_PAGES_4K;
	}
}

static int create_file(struct shale_segment *view, const struct geometry *geometry,
		       struct reason reason)
{
	struct os_memfd_info info;
	int r;

	view->fd = os_memfd_create(view->header.label, page_kind(view->header.pages));
	if (view->fd < 0) {
		r = view->fd;
		reason_set(reason, "memfd_create failed%s",
			   r == -ENODEV ? ": this kernel has no pages of that size" : "");
		return r == -ENODEV ? -ENOMEM : r;
	}
	r = os_memfd_identify(view->fd, &info);
	if (r < 0) {
		reason_set(reason, "the new memfd cannot be looked at");
		(void)os_fd_close(view->fd);
		view->fd = -1;
		return r;
	}
	view->dev = info.dev;
	view->ino = info.ino;
	r = os_memfd_set_size(view->fd, geometry->file_size);
	if (r == 0)
		r = os_memfd_seal(view->fd);
	if (r < 0)
		reason_set(reason, "the memfd cannot be sized to %llu bytes and sealed",
			   (unsigned long long)geometry->file_size);
	return r;
}

static int create_map(struct shale_segment *view, struct reason reason)
{
	int r;

	r = view_map(view);
	if (r < 0) {
		reason_set(reason, "no address space for %llu bytes",
			   (unsigned long long)view->file_size);
		return r;
	}
	r = view_place(view);
	if (r < 0) {
		reason_set(reason, "the kernel refuses the placement");
		return r;
	}
	r = view_commit(view, 0, GEOMETRY_FIRST_BYTES);
	if (r < 0)
		reason_set(reason, "no memory for the first %llu bytes%s",
			   (unsigned long long)round_up(GEOMETRY_FIRST_BYTES, view->page_size),
			   view->page_size > KIB(4) ? ": the huge page pool is empty" : "");
	return r;
}

/* `ready` is the last store: whoever sees it sees the whole header and the creator's peer slot. */
static int create_bytes(struct shale_segment *view, struct reason reason)
{
	int r;

	memcpy(view->base, &view->header, sizeof(view->header));
	/* relaxed: seen through `ready` */
	store_relaxed(&view_hints(view)->lane_high, 1u);
	r = peer_join(view);
	if (r < 0) {
		reason_set(reason, r == -EOPNOTSUPP
					   ? "/proc is not mounted: liveness locks need it"
					   : "the creator's liveness lock cannot be taken");
		return r;
	}
	/* pairs: header.ready - attach sees the whole header, or not this. */
	store_release(&view_hints(view)->ready, HEADER_READY);
	return 0;
}

static int create_as(const struct shale_segment_options *options, const struct page_choice *choice,
		     struct shale_segment **ret_view)
{
	struct reason reason = options_reason(options);
	_cleanup_(view_freep) struct shale_segment *view = NULL;
	struct geometry geometry;
	int r;

	r = geometry_compute(options->capacity_bytes, pages_size(choice->pages), &geometry);
	if (r == 0)
		r = check_budget(options, &geometry, reason);
	if (r < 0)
		return r;
	r = view_new(&view);
	if (!view)
		return r;
	r = header_fill(&view->header, options, &geometry, choice);
	if (r < 0) {
		reason_set(reason, "no random bytes from the kernel");
		return r;
	}
	view_set_geometry(view, &geometry);
	view->budget_bytes = view->header.budget_bytes;
	view->hash_seed = view->header.hash_seed;
	view_set_debug(view);
	view->private_memory = choice->pages == SHALE_PAGES_PRIVATE;
	if (!view->private_memory)
		r = create_file(view, &geometry, reason);
	if (r == 0)
		r = create_map(view, reason);
	if (r == 0)
		r = create_bytes(view, reason);
	if (r < 0)
		return r;
	view_register(view);
	*ret_view = TAKE_PTR(view);
	return 0;
}

/* Errors of one kind of pages that another kind may not meet. */
static bool another_may_work(int error)
{
	return error == -ENOMEM || error == -ENODEV || error == -EPERM || error == -EINVAL;
}

int shale_segment_create(const struct shale_segment_options *options,
			 struct shale_segment **ret_segment)
{
	struct shale_segment_options own;
	struct page_choice choices[PAGE_CHOICES_MAX];
	unsigned count;
	int r;

	r = options_copy(&own, sizeof(own), OPTIONS_FIRST_SIZE, options);
	if (r < 0)
		return r;
	reason_set(options_reason(&own), "no memory");
	r = check_options(&own);
	if (r < 0)
		return r;
	count = pages_choose(&own, choices);
	for (unsigned i = 0; i < count; i++) {
		r = create_as(&own, &choices[i], ret_segment);
		if (r == 0 || !another_may_work(r))
			break;
	}
	if (r == 0)
		reason_set(options_reason(&own), "%s", "");
	return r;
}

int shale_segment_detach(struct shale_segment *segment)
{
	if (!segment)
		return 0;
	if (segment->keeper_stop)
		segment->keeper_stop(segment);
	if (!segment->private_memory && !segment->read_only && view_attached(segment))
		peer_leave(segment);
	view_free(segment);
	return 0;
}

int shale_segment_fd(const struct shale_segment *segment)
{
	return view_fd(segment);
}

void *shale_segment_base(const struct shale_segment *segment)
{
	return segment->base;
}
