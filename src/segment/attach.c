/*
 * attach.c - letting in a descriptor that anybody may have made.
 *
 *   identify -> seals -> size -> one page mapped -> ready -> copy of the header -> every field -> map
 *   the whole -> placement -> peer slot -> recover the dead
 *
 * Owner:     the header is read-only for all from `ready` on; we check and keep a private copy.
 * Invariant: A1 nothing is read from the segment before kind, seals and size are known
 *            A2 every offset that we use is computed here from capacity and page size; the header's
 *               are only compared
 *            A3 our own duplicate of the descriptor is checked, so the caller cannot change the file
 * Ordering:  header.ready.
 * Death:     before the slot is ACTIVE: nothing in the segment. After: a dead peer without lanes.
 */
#include "segment/internal.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "segment/recovery.h"

#define OPTIONS_FIRST_SIZE (offsetof(struct shale_attach_options, reason_size) + sizeof(size_t))

#define FEATURES_INCOMPAT  UINT64_C(0) /* that this library knows */
#define FEATURES_RO_COMPAT FEATURES_DEBUG

/* What kind of file is it? Fills fd, dev and ino of the view. */
static int attach_identify(struct shale_segment *view, int fd, struct os_memfd_info *info,
			   struct reason reason)
{
	int r;

	r = os_memfd_identify(fd, info);
	if (r == -EBADFD || r == -EACCES)
		r = -EBADF;
	if (r < 0) {
		reason_set(reason, r == -EMEDIUMTYPE ? "not a memfd"
				   : r == -EBADF     ? "not a descriptor open for reading"
						     : "the descriptor cannot be looked at");
		return r;
	}
	if (!view->read_only && !info->writable) {
		reason_set(reason, "the descriptor is open for reading only");
		return -EBADF;
	}
	view->fd = os_fd_dup(fd);
	if (view->fd < 0) {
		reason_set(reason, "no file descriptor left");
		return view->fd;
	}
	view->dev = info->dev;
	view->ino = info->ino;
	/* once more: the caller may have changed what its number stands for */
	r = os_memfd_identify(view->fd, info);
	if (r == 0 && (info->dev != view->dev || info->ino != view->ino)) {
		view->dev = info->dev;
		view->ino = info->ino;
		r = -EBADF;
	}
	if (r < 0)
		reason_set(reason, "the descriptor changed while it was looked at");
	return r;
}

static int attach_check_file(const struct os_memfd_info *info, struct reason reason)
{
	if (!os_memfd_size_is_sealed(info)) {
		reason_set(reason, "the memfd is not sealed against shrinking and growing");
		return -ETXTBSY;
	}
	if (info->executable) {
		reason_set(reason, "the memfd is executable: no segment is");
		return -EBADMSG;
	}
	if (info->size_bytes < GEOMETRY_FIRST_BYTES || info->size_bytes % info->page_size != 0) {
		reason_set(reason, "%llu bytes are no size of a segment",
			   (unsigned long long)info->size_bytes);
		return -EBADMSG;
	}
	return 0;
}

/* Reads the header page once; *ret_ready is the word that guards it. */
static int attach_read_header(const struct shale_segment *view, const struct os_memfd_info *info,
			      struct header_shm *ret_header, uint32_t *ret_ready,
			      struct reason reason)
{
	const struct header_mutable_shm *hints;
	void *page;
	int r;

	r = os_map_shared(view->fd, 0, info->page_size, false, info->page_size, &page);
	if (r < 0) {
		reason_set(reason, "the header cannot be mapped");
		return r;
	}
	/* a hole of a huge page file is an error here, where a load would be SIGBUS */
	r = os_advise(page, info->page_size, OS_POPULATE_READ);
	if (r == 0) {
		hints = (const void *)((const char *)page + HEADER_MUTABLE_OFFSET);
		/* pairs: header.ready - the header is whole when it reads READY. */
		*ret_ready = load_acquire(&hints->ready);
		memcpy(ret_header, page, sizeof(*ret_header));
	} else {
		reason_set(reason, "no memory behind the header");
	}
	(void)os_unmap(page, info->page_size);
	return r;
}

static int attach_check_ready(const struct header_shm *h, uint32_t ready, struct reason reason)
{
	if (ready == HEADER_READY && h->magic == SEGMENT_MAGIC)
		return 0;
	if (ready == 0 && (h->magic == SEGMENT_MAGIC || h->magic == 0)) {
		reason_set(reason, "its creator has not finished, or died before it had");
		return -EAGAIN;
	}
	reason_set(reason, "not a segment: no magic number");
	return -EBADMSG;
}

static int attach_check_version(const struct header_shm *h, bool read_only, struct reason reason)
{
	if (h->format_version > SEGMENT_FORMAT_VERSION) {
		reason_set(reason, "format version %u; this library knows %u", h->format_version,
			   SEGMENT_FORMAT_VERSION);
		return -EPROTONOSUPPORT;
	}
	if (h->format_version == 0 || h->header_size != sizeof(*h) ||
	    h->checksum != hash_bytes(h, offsetof(struct header_shm, checksum), 0)) {
		reason_set(reason, "the header is damaged");
		return -EBADMSG;
	}
	if ((h->features_incompat & ~FEATURES_INCOMPAT) ||
	    (!read_only && (h->features_ro_compat & ~FEATURES_RO_COMPAT))) {
		reason_set(reason, "made with features that this library does not know");
		return -EPROTONOSUPPORT;
	}
	if (h->layout_hash != geometry_layout_hash()) {
		reason_set(reason, "made by a library with another layout");
		return -EPROTONOSUPPORT;
	}
	return 0;
}

static bool geometry_agrees(const struct header_shm *h, const struct geometry *g)
{
	return h->file_size == g->file_size && h->page_size == g->page_size &&
	       h->capacity_bytes == g->capacity_bytes && h->arena_count == g->arena_count &&
	       h->peer_count == PEER_COUNT && h->lane_count == LANE_COUNT &&
	       h->root_count == ROOT_COUNT && h->roots_offset == ROOTS_OFFSET &&
	       h->peers_offset == PEERS_OFFSET && h->lanes_offset == LANES_OFFSET &&
	       h->arena_table_offset == g->arena_table_offset &&
	       h->short_facts_offset == g->short_facts_offset &&
	       h->long_facts_offset == g->long_facts_offset && h->heap_offset == g->heap_offset &&
	       h->budget_bytes > 0 && h->budget_bytes <= g->file_size;
}

static bool pages_agree(const struct header_shm *h, const struct os_memfd_info *info)
{
	bool huge = h->pages == SHALE_PAGES_2M || h->pages == SHALE_PAGES_1G;

	return h->pages > SHALE_PAGES_AUTO && h->pages < SHALE_PAGES_PRIVATE &&
	       pages_size((enum shale_pages)h->pages) == h->page_size && huge == info->hugetlb &&
	       h->page_size == info->page_size && h->placement <= SHALE_PLACE_WEIGHTED;
}

static bool text_ends(const char *text, size_t size)
{
	return memchr(text, 0, size) != NULL;
}

static int attach_check_fields(const struct header_shm *h, const struct os_memfd_info *info,
			       struct geometry *ret_geometry, struct reason reason)
{
	if (geometry_compute(h->capacity_bytes, h->page_size, ret_geometry) < 0 ||
	    !geometry_agrees(h, ret_geometry)) {
		reason_set(reason, "the header's geometry contradicts itself");
		return -EBADMSG;
	}
	if (h->file_size != info->size_bytes) {
		reason_set(reason, "the file has %llu bytes, its header says %llu",
			   (unsigned long long)info->size_bytes, (unsigned long long)h->file_size);
		return -EBADMSG;
	}
	if (!pages_agree(h, info) || !text_ends(h->label, sizeof(h->label)) ||
	    !text_ends(h->pages_reason, sizeof(h->pages_reason))) {
		reason_set(reason, "the header does not fit the file's pages, or is damaged");
		return -EBADMSG;
	}
	return 0;
}

/* Everything up to a private, checked copy of header and geometry. */
static int attach_validate(struct shale_segment *view, int fd, struct reason reason)
{
	struct os_memfd_info info;
	struct geometry geometry;
	uint32_t ready = 0;
	int r;

	r = attach_identify(view, fd, &info, reason);
	if (r == 0)
		r = attach_check_file(&info, reason);
	if (r == 0)
		r = attach_read_header(view, &info, &view->header, &ready, reason);
	if (r == 0)
		r = attach_check_ready(&view->header, ready, reason);
	if (r == 0)
		r = attach_check_version(&view->header, view->read_only, reason);
	if (r == 0)
		r = attach_check_fields(&view->header, &info, &geometry, reason);
	if (r < 0)
		return r;
	view_set_geometry(view, &geometry);
	view->budget_bytes = view->header.budget_bytes;
	view->hash_seed = view->header.hash_seed;
	view_set_debug(view);
	return 0;
}

static int attach_map(struct shale_segment *view, struct reason reason)
{
	int r;

	r = view_map(view);
	if (r < 0) {
		reason_set(reason, "no address space for %llu bytes",
			   (unsigned long long)view->file_size);
		return r;
	}
	/* the policy of a shmem file was set by its creator; one of hugetlb belongs to the mapping */
	if (view->page_size > KIB(4))
		(void)view_place(view);
	if (view->read_only)
		return 0;
	/* no hole among what we read without asking, whoever made the file */
	r = view_commit(view, 0,
			LANES_OFFSET + (uint64_t)view_lane_high(view) * sizeof(struct lane_shm));
	if (r < 0)
		reason_set(reason, "no memory for the segment's first pages");
	return r;
}

static int attach_join(struct shale_segment *view, struct reason reason)
{
	int r;

	if (view->read_only)
		return 0;
	r = peer_join(view);
	if (r == 0) {
		/* what cannot be recovered now is left to the next caller */
		(void)recovery_run(view);
		return 0;
	}
	if (r == -EUSERS)
		reason_set(reason, "all %u peer slots are taken by living processes",
			   PEER_COUNT - 1);
	else if (r == -EOPNOTSUPP)
		reason_set(reason, "/proc is not mounted: liveness locks need it");
	else
		reason_set(reason, "the liveness lock of a peer slot cannot be taken");
	return r;
}

int shale_segment_attach(int fd, const struct shale_attach_options *options,
			 struct shale_segment **ret_segment)
{
	_cleanup_(view_freep) struct shale_segment *view = NULL;
	struct shale_attach_options own;
	struct reason reason;
	int r;

	r = options_copy(&own, sizeof(own), OPTIONS_FIRST_SIZE, options);
	if (r < 0)
		return r;
	reason = (struct reason){own.reason, own.reason_size};
	reason_set(reason, "no memory");
	r = view_new(&view);
	if (r < 0)
		return r;
	view->read_only = own.read_only;
	r = attach_validate(view, fd, reason);
	if (r == 0)
		r = attach_map(view, reason);
	if (r == 0)
		r = attach_join(view, reason);
	if (r < 0)
		return r;
	view_register(view);
	reason_set(reason, "%s", "");
	*ret_segment = TAKE_PTR(view);
	return 0;
}
