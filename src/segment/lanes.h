/*
 * lanes.h - a thread's working state: a slot in the segment plus private memory that may vanish.
 *
 * lane_enter() gives the calling thread its lane, claiming one at first use (and, in a forked child,
 * a new peer slot first). The private part lies in memory that reads as zeroes in a forked child, so
 * that even code that does not look finds empty caches there; zero bytes are a valid, empty lane.
 * A thread that ends parks its lane with the process; another thread takes it up with all its slabs.
 */
#ifndef SHALE_SEGMENT_LANES_H
#define SHALE_SEGMENT_LANES_H

#include <stdint.h>

#include "segment/view.h"

#define LANE_HEAP_BYTES (64u * 1024u)

struct lane {
	uint32_t index; /* slot in the segment; 0 in a forked child */
	uint32_t parked;
	struct shale_segment *view;
	struct lane_shm *shm;
	struct lane *next; /* all lanes of the process */
	struct lane *next_parked;
	uint64_t intent_sequence;
	uint32_t thread; /* kernel's number of the thread that has it */
	uint8_t home;    /* parked: the node on which its last thread ended (view_home) */
	_Alignas(256) unsigned char heap[LANE_HEAP_BYTES]; /* struct heap_lane */
	uint32_t slabs[]; /* struct heap_slab, one for each slab of the segment */
};

struct lane_current {
	uint64_t serial; /* of the view that `lane` belongs to */
	struct lane *lane;
};

extern _Thread_local struct lane_current lane_current
	__attribute__((tls_model("initial-exec"), visibility("hidden")));

/*
 * 0 and the lane; -EROFS, -ENOMEM (no slot, no memory, budget), and in a forked child what claiming
 * a peer slot can meet: -EUSERS, -EBADF (the program closed the view's descriptor), -EMFILE.
 */
int lane_enter_slow(struct shale_segment *view, struct lane **ret_lane);

/*
 * For fast paths that wiped memory sends to their slow path by itself: the lane that this thread used
 * last, if it is of this view. Two loads and a compare.
 */
static inline bool lane_last(const struct shale_segment *view, struct lane **ret_lane)
{
	*ret_lane = lane_current.lane;
	return likely(lane_current.serial == view->serial);
}

static inline int lane_enter(struct shale_segment *view, struct lane **ret_lane)
{
	if (likely(lane_current.serial == view->serial && lane_current.lane->index != 0)) {
		*ret_lane = lane_current.lane;
		return 0;
	}
	return lane_enter_slow(view, ret_lane);
}

/* Releases what the layers above keep in lane->heap; defined in src/steps.c. */
void lane_finish(struct lane *lane);

/* The lane of this thread without claiming one: NULL if it has none (a child's is wiped). */
static inline struct lane *lane_peek(const struct shale_segment *view)
{
	if (likely(lane_current.serial == view->serial && lane_current.lane->index != 0))
		return lane_current.lane;
	return NULL;
}

/* The peer that a lane slot belongs to, and whether the slot is in use. */
static inline uint32_t lane_word_peer(uint64_t word)
{
	return (uint32_t)(word >> 4) & (PEER_COUNT - 1);
}

static inline bool lane_word_active(uint64_t word)
{
	return (word & 0xf) == LANE_ACTIVE;
}

/*
 * Intents: name what is about to happen, do it, clear the name. Only the compiler's order matters
 * towards the owner's death; helpers and collectors read the word with acquire.
 */
static inline void intent_set(struct lane *lane, enum intent_kind kind)
{
	/* pairs: lane.intent - whoever reads the word sees the arguments stored before it. */
	store_release(&lane->shm->intent.word,
		      (++lane->intent_sequence << 16) | (uint64_t)(unsigned)kind);
}

static inline void intent_clear(struct lane *lane)
{
	/* pairs: lane.intent - what was named is settled before the name goes. */
	store_release(&lane->shm->intent.word, UINT64_C(0));
	/* pairs: lane.intent - a collector may reuse the blocks from here on. */
	store_release(&lane->shm->intent.block[0], UINT64_C(0));
	store_release(&lane->shm->intent.block[1], UINT64_C(0));
}

/*
 * A retired ref: named from before its block is freed until after. Only the lane itself (or its
 * recovery) writes the list.
 */
static inline void retired_set(struct lane_shm *lane, unsigned index, uint64_t offset)
{
	/* pairs: lane.retired - named before the free. */
	store_release(&lane->retired[index], offset);
}

static inline unsigned intent_word_kind(uint64_t word)
{
	return (unsigned)(word & 0xff);
}

#endif
