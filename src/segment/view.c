/*
 * view.c - the private handle on a segment: made, mapped, listed, taken down again.
 *
 *   view_new -> fd, geometry -> view_map -> view_place -> (peer_join) -> view_register -> ... view_free
 *
 * Owner:     the process; every byte here is private memory. A forked child owns a copy.
 * Invariant: V1 serial is unique among all views this process and its ancestors made
 *            V2 a view is in the list from view_register to view_free
 *            V3 the list is whole at every instruction (one store links, one unlinks): a child that
 *               was forked in the middle of it can walk it
 * Progress:  one mutex for the list, held for a few instructions; set free again in a forked child.
 * Lifetime:  view_free() takes down whatever is there, so it also serves a half-made view.
 * Death:     nothing here outlives the process.
 */
#include "segment/internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "segment/lanes.h"

static pthread_mutex_t list_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct shale_segment *view_list;
static uint64_t last_serial;

void reason_set(struct reason reason, const char *format, ...)
{
	va_list arguments;

	if (!reason.text || reason.size == 0)
		return;
	va_start(arguments, format);
	(void)vsnprintf(reason.text, reason.size, format, arguments);
	va_end(arguments);
}

int options_copy(void *own, size_t own_size, size_t first_size, const void *given)
{
	const unsigned char *bytes = given;
	size_t size;

	memset(own, 0, own_size);
	if (!given)
		return 0;
	memcpy(&size, given, sizeof(size));
	if (size < first_size || size > 4096)
		return -EINVAL;
	for (size_t i = own_size; i < size; i++)
		if (bytes[i] != 0)
			return -EINVAL;
	memcpy(own, given, size < own_size ? size : own_size);
	return 0;
}

void view_list_lock(void)
{
	pthread_mutex_lock(&list_mutex);
}

void view_list_unlock(void)
{
	pthread_mutex_unlock(&list_mutex);
}

struct shale_segment *view_list_first(void)
{
	return view_list;
}

/*
 * In the child of fork(): the list's mutex may be held by a thread that is not here, and this
 * thread's lane is the parent's. (What a bare clone() leaves is noticed by the wiped pages.)
 */
static void view_forked(void)
{
	list_mutex = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
	lane_current = (struct lane_current){0};
}

static size_t attachment_size(void)
{
	return round_up(sizeof(struct view_attachment), KIB(4));
}

static int view_fill(struct shale_segment *view)
{
	void *page;
	int r;

	r = os_on_fork_child(view_forked);
	if (r < 0)
		return r;
	r = os_map_wipe_on_fork(attachment_size(), &page);
	if (r < 0)
		return r;
	view->attachment = page;
	r = pthread_key_create(&view->key, lane_thread_end);
	if (r != 0)
		return -ENOMEM;
	view->key_made = true;
	view->several_nodes = os_numa_several();
	return 0;
}

int view_new(struct shale_segment **ret_view)
{
	struct shale_segment *view = calloc(1, sizeof(*view));
	int r;

	if (!view)
		return -ENOMEM;
	view->fd = -1;
	/* relaxed: only uniqueness is wanted */
	view->serial = fetch_add_relaxed(&last_serial, 1) + 1;
	r = view_fill(view);
	if (r < 0) {
		view_free(view);
		return r;
	}
	*ret_view = view;
	return 0;
}

void view_register(struct shale_segment *view)
{
	view_list_lock();
	view->next_view = view_list;
	order_for_death(); /* a child forked between these two stores sees a whole list */
	view_list = view;
	view_list_unlock();
}

static void view_unregister(struct shale_segment *view)
{
	view_list_lock();
	for (struct shale_segment **at = &view_list; *at; at = &(*at)->next_view)
		if (*at == view) {
			*at = view->next_view;
			break;
		}
	view_list_unlock();
}

void view_free(struct shale_segment *view)
{
	if (!view)
		return;
	view_unregister(view);
	if (view->key_made)
		(void)pthread_key_delete(view->key);
	lanes_forget(view);
	/* in a forked child the lock is the parent's and its mapping is not here */
	if (view->attachment && view_attached(view))
		os_life_drop(&view->life);
	if (view->base)
		(void)os_unmap(view->base, view->file_size);
	/*
	 * The program may have closed our number and use it for something else. Asked twice, so that a
	 * question the kernel could not answer once does not leave the descriptor open for ever.
	 */
	for (unsigned ask = 0; ask < 2; ask++)
		if (view_fd(view) >= 0) {
			(void)os_fd_close(view->fd);
			break;
		}
	if (view->attachment)
		(void)os_unmap(view->attachment, attachment_size());
	free(view);
}

void view_set_geometry(struct shale_segment *view, const struct geometry *geometry)
{
	view->page_size = geometry->page_size;
	view->capacity_bytes = geometry->capacity_bytes;
	view->file_size = geometry->file_size;
	view->arena_table_offset = geometry->arena_table_offset;
	view->short_facts_offset = geometry->short_facts_offset;
	view->long_facts_offset = geometry->long_facts_offset;
	view->heap_offset = geometry->heap_offset;
	view->heap_end = geometry->heap_offset + geometry->capacity_bytes;
	view->arena_count = geometry->arena_count;
	view->roots_offset = ROOTS_OFFSET;
	view->peers_offset = PEERS_OFFSET;
	view->lanes_offset = LANES_OFFSET;
}

void view_set_debug(struct shale_segment *view)
{
	view->debug = (uint32_t)(view->header.features_ro_compat & FEATURES_DEBUG);
	view->guard_sample = (uint32_t)(view->header.features_compat >> FEATURE_SAMPLE_SHIFT);
}

int view_map(struct shale_segment *view)
{
	uint64_t alignment = view->page_size > ARENA_SIZE ? view->page_size : ARENA_SIZE;
	void *base;
	int r;

	if (view->private_memory)
		r = os_map_private(view->file_size, alignment, &base);
	else
		r = os_map_shared(view->fd, 0, view->file_size, !view->read_only, alignment, &base);
	if (r < 0)
		return r;
	view->base = base;
	return 0;
}

static struct os_nodes view_nodes(const struct shale_segment *view)
{
	struct os_nodes nodes;

	_Static_assert(sizeof(nodes.bits) == sizeof(view->header.nodes), "the same set");
	memcpy(nodes.bits, view->header.nodes, sizeof(nodes.bits));
	return nodes;
}

int view_place(struct shale_segment *view)
{
	struct os_nodes nodes = view_nodes(view);
	int r;

	if (view->header.pages == SHALE_PAGES_THP)
		/* a wish; whole arenas are collapsed when they are committed */
		(void)os_advise(view->base + view->heap_offset, view->capacity_bytes, OS_HUGEPAGE);
	if (view->header.placement == SHALE_PLACE_LOCAL || view->read_only)
		return 0;
	r = os_numa_place(view->base + view->heap_offset, view->capacity_bytes,
			  (enum os_placement)view->header.placement, &nodes);
	return r < 0 ? r : 0;
}

int view_fd(const struct shale_segment *view)
{
	if (view->fd < 0 || !os_memfd_same(view->fd, view->dev, view->ino))
		return -EBADF;
	return view->fd;
}
