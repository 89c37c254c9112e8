/*
 * view.h - struct shale_segment: this process's private handle on a segment, and the checked ways
 * from an offset to an address.
 *
 * Everything here is private memory. Geometry is copied and checked once, at attach or create;
 * nothing that a peer can change decides an address without a check against this copy.
 */
#ifndef SHALE_SEGMENT_VIEW_H
#define SHALE_SEGMENT_VIEW_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <shale/segment.h>

#include "base/atomic.h"
#include "base/bits.h"
#include "os/os.h"
#include "segment/segment_layout.h"

struct lane;
struct keeper;

/*
 * In a page that reads as zeroes in a forked child, whatever made the child (fork, clone): it finds
 * out that it is not attached, and a lock that another thread of the parent held is free here (a
 * mutex of zero bytes is an unlocked one). So are the keeper's mark and lock: the child has none.
 */
struct view_attachment {
	uint32_t attached;
	pthread_mutex_t lock; /* guards the lists of lanes and joining */
	uint32_t keeper_running;
	pthread_mutex_t keeper_lock; /* guards starting and stopping it */
};

/*
 * The guarded blocks of a debug segment that this process has allocated (heap/debug_guard.c). Under the
 * attachment's lock. `peer_word` is that of the process which installed them: a forked child's differs.
 */
#define VIEW_GUARDS 256u
struct view_guards {
	uint64_t peer_word;
	uint32_t count;
	uint32_t turn; /* allocations, to pick one in N */
	struct {
		uint64_t slab;
		uint32_t pages;    /* between the guards */
		uint32_t protects; /* by PROT_NONE, not by markers */
	} blocks[VIEW_GUARDS];
};

struct shale_segment {
	unsigned char *base;
	uint64_t serial; /* unique among the views that this process ever had; never 0 */
	/* geometry, a private copy */
	uint64_t file_size;
	uint64_t page_size;
	uint64_t capacity_bytes;
	uint64_t heap_offset;
	uint64_t heap_end;
	uint64_t arena_table_offset;
	uint64_t short_facts_offset;
	uint64_t long_facts_offset;
	uint64_t lanes_offset;
	uint64_t peers_offset;
	uint64_t roots_offset;
	uint32_t arena_count;
	uint64_t budget_bytes; /* as created: view_budget() */
	uint64_t hash_seed;
	struct header_shm header; /* the checked copy, for statistics */
	/* identity of the file */
	int fd; /* -1 for a private segment */
	uint64_t dev;
	uint64_t ino;
	bool read_only;
	bool private_memory;
	uint32_t damaged;      /* sticky: damage was met through this view */
	uint32_t debug;        /* enum shale_debug: chosen when the segment was made */
	uint32_t guard_sample; /* one block in so many is guarded */
	/* commit.c */
	bool several_nodes;     /* with memory in this machine */
	uint64_t room_bytes;    /* may be committed before os_memory_room() is asked again */
	uint64_t room_until_ns; /* and not after this moment; 0: whenever */
	/* this process as a peer */
	struct view_attachment *attachment; /* wiped on fork */
	uint32_t peer;                      /* our slot, 0 when read-only */
	uint64_t peer_word;
	struct os_life life;
	struct lane *lanes;        /* every lane of this process */
	struct lane *parked;       /* those whose thread has ended */
	struct lane **lane_memory; /* what to unmap at detach: the ancestors' wiped lanes too */
	uint32_t lane_memory_count;
	uint32_t lane_memory_size;
	pthread_key_t key; /* parks the lane when its thread ends */
	bool key_made;
	struct keeper *keeper; /* heap/keeper.c; a forked child's is its parent's */
	void (*keeper_stop)(struct shale_segment *view);
	struct shale_segment *next_view; /* of all views of the process */
	struct view_guards guards;
};

static inline void *view_at(const struct shale_segment *view, uint64_t offset)
{
	return view->base + offset;
}

static inline struct header_mutable_shm *view_hints(const struct shale_segment *view)
{
	return view_at(view, HEADER_MUTABLE_OFFSET);
}

static inline struct peer_shm *view_peer(const struct shale_segment *view, uint32_t peer)
{
	return (struct peer_shm *)view_at(view, view->peers_offset) + (peer & (PEER_COUNT - 1));
}

static inline struct lane_shm *view_lane(const struct shale_segment *view, uint32_t lane)
{
	return (struct lane_shm *)view_at(view, view->lanes_offset) + (lane & (LANE_COUNT - 1));
}

/* Lanes 1 .. result - 1 may be looked at; the value is a peer's word, clamped. */
static inline uint32_t view_lane_high(const struct shale_segment *view)
{
	/* pairs: lane.high - slots below the mark are committed before it is raised. */
	uint32_t high = load_acquire(&view_hints(view)->lane_high);

	return high > LANE_COUNT ? LANE_COUNT : high;
}

static inline uint32_t view_arena_high(const struct shale_segment *view)
{
	/* pairs: arena.high - table entries below the mark are committed before it is raised. */
	uint32_t high = load_acquire(&view_hints(view)->arena_high);

	return high > view->arena_count ? view->arena_count : high;
}

/* Offset of an address of this mapping, or 0. */
static inline uint64_t view_offset_of(const struct shale_segment *view, const void *ptr)
{
	uint64_t offset = (uint64_t)((uintptr_t)ptr - (uintptr_t)view->base);

	return offset < view->file_size ? offset : 0;
}

static inline bool view_in_heap(const struct shale_segment *view, uint64_t offset, uint64_t size)
{
	return offset >= view->heap_offset && range_fits(offset, size, view->heap_end);
}

/* Notes damage and returns the error to pass on. */
static inline int view_damaged(struct shale_segment *view)
{
	/* statistics and an early way out only: nothing rides on its order */
	store_relaxed(&view->damaged, 1u);
	return -117; /* -EUCLEAN */
}

/*
 * The view's descriptor, verified to be still the segment's file: a program that closes every
 * descriptor must not make us punch holes into another file. -EBADF.
 */
int view_fd(const struct shale_segment *view);

/*
 * Commits [offset, offset + size) of the file, rounded out to pages, where the segment's placement
 * wants them; what is committed already stays. Nothing to do for private memory. -ENOMEM, -EBADF
 * (see view_fd).
 */
int view_commit(struct shale_segment *view, uint64_t offset, uint64_t size);

/* What an arena is committed for, and what the kernel made of it. Nodes are 1 + node, 0: unknown. */
struct arena_place {
	uint8_t home;      /* in: the node that it is to serve */
	bool huge;         /* in: of a THP segment: one huge page, if the kernel has one */
	uint8_t placed;    /* out: where its pages came from */
	uint8_t page_kind; /* out: enum shale_pages */
};

/* The node of the CPU that runs this thread, as a home. */
uint8_t view_home(void);

/*
 * Commits the arena at `offset` of the heap, as docs/design/numa.md says. -ENOMEM also: where it
 * would be placed there is no room, or memory.max of a cgroup does not leave it; -EBADF.
 */
int view_commit_arena(struct shale_segment *view, uint64_t offset, struct arena_place *place);

/*
 * Makes one huge page of a committed arena of a THP segment; holes in it become zeroes. -ENOMEM,
 * -EAGAIN, -EBUSY (not now), -EINVAL (no page of it is there, or the kernel cannot).
 */
int view_collapse_arena(struct shale_segment *view, uint64_t offset);

/*
 * May `extra_bytes` more be committed? Counts what is committed now, which is a walk over the arenas
 * when the budget is smaller than the segment. Exact if the caller has announced its commit first
 * (an arena in COMMITTING counts) and takes it back when the answer is no; otherwise two callers at
 * once may pass the budget by one commit each.
 */
bool view_budget_allows(struct shale_segment *view, uint64_t extra_bytes);

/* The budget as it is now: the last one set, never more than the file. */
static inline uint64_t view_budget(const struct shale_segment *view)
{
	/* pairs: event.announce - who raises it wakes those who wait for memory afterwards. */
	uint64_t budget = load_acquire(&view_hints(view)->budget_bytes);

	if (budget == 0)
		return view->budget_bytes;
	return budget > view->file_size ? view->file_size : budget;
}

/* Bytes of header, roots, peers, lanes, arena table and short facts committed now (whole pages). */
uint64_t view_metadata_bytes(const struct shale_segment *view);

#endif
