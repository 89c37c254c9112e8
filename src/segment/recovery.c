/*
 * recovery.c - finishing what the dead began and freeing what they held.
 *
 *   for each peer slot:  not FREE, life lock free -> recover lock -> look again -> DEAD
 *                        -> every step over every lane of it -> lanes FREE -> slot FREE -> wake
 *
 * Owner:     the holder of the peer's recover lock, a lock of its own that dies with it; or a peer
 *            that settles itself in detach, its life lock still held.
 * Invariant: R1 one recoverer a peer; R2 a lane is freed only when every step has said 0;
 *            R3 a peer slot is freed only when no lane names it
 * Progress:  whoever meets a held recover lock goes on: somebody is at work.
 * Ordering:  peer.word, lane.word; the kernel's locks order the dead before their recoverer.
 * Death:     of the recoverer, anywhere: its lock goes, the slot is still ACTIVE or DEAD with a free
 *            life lock, every step is idempotent, the next recoverer starts again.
 */
#include "segment/recovery.h"

#include <errno.h>
#include <string.h>

#include "segment/internal.h"
#include "segment/lanes.h"

struct lane_set {
	uint64_t bits[LANE_COUNT / 64];
};

static bool set_has(const struct lane_set *set, uint32_t lane)
{
	return set->bits[lane / 64] >> (lane % 64) & 1;
}

static void set_add(struct lane_set *set, uint32_t lane)
{
	set->bits[lane / 64] |= UINT64_C(1) << (lane % 64);
}

static bool lane_is_of(const struct shale_segment *view, uint32_t lane, uint32_t peer,
		       uint64_t *ret_word)
{
	/* pairs: lane.word - what the lane's claimer stored before it is seen. */
	*ret_word = load_acquire(&view_lane(view, lane)->word);
	return lane_word_active(*ret_word) && lane_word_peer(*ret_word) == peer;
}

/* The first error, or 0. Lanes that must stay are added to `stay`. */
static int run_steps(struct shale_segment *view, uint32_t peer, uint32_t high,
		     struct lane_set *stay)
{
	struct lane_set failed = {0};
	uint64_t word;
	int error = 0;

	for (const struct recovery_step *step = recovery_steps; step->name; step++)
		for (uint32_t lane = 1; lane < high; lane++) {
			int r;

			if (!lane_is_of(view, lane, peer, &word) || set_has(&failed, lane))
				continue;
			r = step->settle(view, lane);
			if (r != 0)
				set_add(stay, lane);
			if (r < 0) {
				set_add(&failed, lane);
				error = error ? error : r;
			}
		}
	return error;
}

int recovery_settle_peer(struct shale_segment *view, uint32_t peer)
{
	uint32_t high = view_lane_high(view);
	struct lane_set stay = {0};
	bool left = false;
	uint64_t word;
	int error;

	error = run_steps(view, peer, high, &stay);
	for (uint32_t lane = 1; lane < high; lane++) {
		if (!lane_is_of(view, lane, peer, &word))
			continue;
		if (set_has(&stay, lane))
			left = true;
		else
			lane_release_slot(view, lane, word);
	}
	return error ? error : left;
}

/* Under the recover lock: 1 recovered, 0 somebody did it before or something must stay, -errno. */
static int recover_locked(struct shale_segment *view, uint32_t peer)
{
	struct peer_shm *slot = view_peer(view, peer);
	uint64_t word, before, dead;
	int r;

	/* pairs: peer.word - read before the lock is probed, so that the answer is about it. */
	before = load_acquire(&slot->word);
	r = peer_is_dead(view, peer);
	if (r <= 0)
		return r;
	/* pairs: peer.word - what the dead peer stored comes before what we do about it. */
	word = load_acquire(&slot->word);
	/*
	 * The lock that was found free may have been that of a peer which was just leaving, and the
	 * slot somebody else's by now: only a claim moves the generation on.
	 */
	if ((word & PEER_STATE_MASK) == PEER_FREE ||
	    word / PEER_GENERATION != before / PEER_GENERATION)
		return 0;
	dead = (word & ~PEER_STATE_MASK) | PEER_DEAD;
	/* pairs: peer.word - from here on the slot is not ACTIVE for anybody. */
	if (word != dead && !cas_acq_rel(&slot->word, &word, dead))
		return 0;
	r = recovery_settle_peer(view, peer);
	if (r != 0)
		return r < 0 ? r : 0;
	/* pairs: peer.word - nothing of the peer is left when the slot reads FREE. */
	if (!cas_acq_rel(&slot->word, &dead, dead & ~PEER_STATE_MASK))
		return 0;
	peer_event_wake(view);
	return 1;
}

static int recover_peer(struct shale_segment *view, uint32_t peer)
{
	struct os_life lock = {0};
	int r;

	r = view_fd(view);
	if (r >= 0)
		r = os_life_take(r, LOCK_RECOVER_BASE + peer, true, &lock);
	if (r < 0)
		return r == -EAGAIN ? 0 : r;
	r = recover_locked(view, peer);
	os_life_drop(&lock);
	return r;
}

/* One look at every peer slot: how many were recovered; the first error, if there was one. */
static int recover_pass(struct shale_segment *view, int *ret_error)
{
	int recovered = 0;

	for (uint32_t peer = 1; peer < PEER_COUNT; peer++) {
		int r = peer_is_dead(view, peer);

		if (r > 0)
			r = recover_peer(view, peer);
		if (r > 0)
			recovered++;
		else if (r < 0 && *ret_error == 0)
			*ret_error = r;
	}
	return recovered;
}

int recovery_run(struct shale_segment *view)
{
	int recovered = 0, error = 0, now;

	if (view->read_only)
		return -EROFS;
	if (view->private_memory)
		return 0;
	/*
	 * Again while somebody was recovered: what one of the dead had retired may have been held by
	 * another that came later. No more often than there are slots, whoever dies meanwhile.
	 */
	do {
		now = recover_pass(view, &error);
		recovered += now;
	} while (now > 0 && recovered < (int)PEER_COUNT);
	return recovered > 0 ? recovered : error;
}

int shale_recover(struct shale_segment *segment)
{
	return recovery_run(segment);
}
