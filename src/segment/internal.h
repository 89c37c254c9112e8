/*
 * internal.h - what the files of the segment layer share with each other and with nobody else.
 */
#ifndef SHALE_SEGMENT_INTERNAL_H
#define SHALE_SEGMENT_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "segment/geometry.h"
#include "segment/view.h"

/* The one line that explains a failure; text may be NULL. */
struct reason {
	char *text;
	size_t size;
};
void reason_set(struct reason reason, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/*
 * Copies a size-versioned options struct into one of `own_size` bytes; missing members become zero.
 * -EINVAL: shorter than `first_size` (the first version's), or a member unknown to us is not zero.
 */
int options_copy(void *own, size_t own_size, size_t first_size, const void *given);

/* view.c: the private handle, without any of the segment's bytes. */
int view_new(struct shale_segment **ret_view);
void view_free(
	struct shale_segment *view); /* unmaps, closes, forgets: what there is; NULL is ignored */
void view_set_geometry(struct shale_segment *view, const struct geometry *geometry);
void view_set_debug(struct shale_segment *view); /* out of the checked header */
int view_map(struct shale_segment *view);        /* needs fd, read_only and geometry */
void view_register(struct shale_segment *view);
int view_place(struct shale_segment *view); /* the placement of the header over the mapping */
/* Locks out view_register and view_free, so that a view found in the list stays. */
void view_list_lock(void);
void view_list_unlock(void);
struct shale_segment *view_list_first(void);

static inline void view_freep(struct shale_segment **view)
{
	view_free(*view);
}

static inline bool view_attached(const struct shale_segment *view)
{
	/* pairs: view.attached - what the joining thread stored (peer, life) is seen with it. */
	return load_acquire(&view->attachment->attached) != 0;
}

/* peers.c */
int peer_claim(struct shale_segment *view); /* -EUSERS: no slot free */
int peer_join(struct shale_segment *view);  /* the same with recovery when all are taken */
void peer_leave(struct shale_segment *view);
void peer_event_wake(struct shale_segment *view);

/* lanes.c */
void lane_release_slot(struct shale_segment *view, uint32_t lane, uint64_t word);
void lanes_forget(struct shale_segment *view);
void lane_thread_end(void *lane);

/* recovery.c: settles every lane of that peer; 0 none is left, 1 some must stay, -errno the same. */
int recovery_settle_peer(struct shale_segment *view, uint32_t peer);

/* pages.c: which page kinds to try, best first. */
struct page_choice {
	enum shale_pages pages;
	char reason[128];
};
#define PAGE_CHOICES_MAX 3u
unsigned pages_choose(const struct shale_segment_options *options, struct page_choice *ret_choices);
uint64_t pages_size(enum shale_pages pages);

#endif
