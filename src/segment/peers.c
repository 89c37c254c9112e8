/*
 * peers.c - attached processes: taking a slot, giving it back, seeing who is dead.
 *
 *   slot word    FREE --claim--> ACTIVE --recovery, or peer_leave--> DEAD --the same--> FREE
 *   life lock    free   taken .....................held.............  free when the memory map goes
 *
 * Owner:     the process that holds the slot's life lock, from before ACTIVE until its end.
 * Invariant: P1 an ACTIVE word whose life lock is free belongs to a dead process
 *            P2 a slot is claimed only under its life lock, so two claimers exclude each other
 * Progress:  a claim looks at each of 1023 slots once; another's claim costs it one slot.
 * Ordering:  peer.word (claim, recovery, stat); the kernel's lock orders a death before its recovery.
 * Lifetime:  the slots are in the first pages, never given back.
 * Death:     in a claim before ACTIVE: the word is FREE, the lock is gone: nothing happened. After:
 *            a dead peer without lanes. In peer_leave: DEAD with the lock free: recovered by others.
 */
#include "segment/internal.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "segment/lanes.h"
#include "segment/recovery.h"

static uint64_t peer_state(uint64_t word)
{
	return word & PEER_STATE_MASK;
}

/*
 * The wake half of an eventcount (shale/wait.h). The CAS of the slot word before it is a locked
 * instruction, the fence keeps that promise on every machine.
 */
static void wake_words(uint32_t *event)
{
	/* pairs: peer.event - a waiter marks itself, then looks at the slots; we wrote, now look. */
	fence_seq_cst();
	/* relaxed: ordered by the fence */
	if (load_relaxed(&event[1]) == 0)
		return;
	/* pairs: peer.event - the marks are taken before the new sequence number can be seen. */
	(void)exchange_seq_cst(&event[1], 0u);
	(void)fetch_add_seq_cst(&event[0], 1u);
	(void)os_futex_wake(&event[0], INT_MAX, OS_FUTEX_ANY);
}

/*
 * For people: who sits in the slot; and whether barriers reach it. Written under the life lock,
 * before ACTIVE.
 */
static void peer_describe(struct peer_shm *slot)
{
	struct os_process_id id = {0};
	char command[16] = "";

	(void)os_process_self(&id);
	(void)os_read_text("/proc/self/comm", command, sizeof(command));
	/* relaxed: text for people, which may be torn while a slot changes hands */
	store_relaxed(&slot->pid, id.pid);
	store_relaxed(&slot->start_ticks, id.start_ticks);
	store_relaxed(&slot->pid_ns, id.pid_ns);
	store_relaxed(&slot->pidfs_ino, id.pidfs_ino);
	store_relaxed(&slot->attached_ns, os_clock_ns());
	/* where the kernel refuses, nobody counts on a barrier in this peer */
	store_relaxed(&slot->flags, os_membarrier_register() == 0 ? (uint32_t)PEER_MEMBARRIER : 0u);
	memcpy(slot->command, command, sizeof(slot->command));
}

/* 1 claimed; 0 somebody else has it; -errno. */
static int peer_try_claim(struct shale_segment *view, uint32_t peer)
{
	struct peer_shm *slot = view_peer(view, peer);
	struct os_life life = {0};
	uint64_t word;
	int r;

	/* relaxed: looked at again under the lock */
	if (peer_state(load_relaxed(&slot->word)) != PEER_FREE)
		return 0;
	if (!view->private_memory) {
		r = view_fd(view);
		if (r >= 0)
			r = os_life_take(r, LOCK_LIFE_BASE + peer, true, &life);
		if (r < 0)
			return r == -EAGAIN ? 0 : r;
	}
	/* pairs: peer.word - whoever freed the slot has finished with it. */
	word = load_acquire(&slot->word);
	if (peer_state(word) == PEER_FREE) {
		peer_describe(slot);
		/* pairs: peer.word - the description is there when the slot reads ACTIVE. */
		if (cas_acq_rel(&slot->word, &word,
				(word & ~PEER_STATE_MASK) + PEER_GENERATION + PEER_ACTIVE)) {
			view->peer = peer;
			view->peer_word = (word & ~PEER_STATE_MASK) + PEER_GENERATION + PEER_ACTIVE;
			view->life = life;
			return 1;
		}
	}
	os_life_drop(&life);
	return 0;
}

int peer_claim(struct shale_segment *view)
{
	for (uint32_t peer = 1; peer < PEER_COUNT; peer++) {
		int r = peer_try_claim(view, peer);

		if (r == 0)
			continue;
		if (r < 0)
			return r;
		/* pairs: view.attached - peer and life are seen with it. */
		store_release(&view->attachment->attached, 1u);
		/* a keeper that was alone watches from now on whether we live */
		wake_words(view_hints(view)->keeper_event);
		return 0;
	}
	return -EUSERS;
}

int peer_join(struct shale_segment *view)
{
	int r = peer_claim(view);

	if (r == -EUSERS && recovery_run(view) > 0)
		r = peer_claim(view);
	return r;
}

/* Wakes who waits for a peer to go. */
void peer_event_wake(struct shale_segment *view)
{
	wake_words(view_hints(view)->peer_event);
}

/* The orderly death of this process as a peer. What the living still use stays for recovery. */
void peer_leave(struct shale_segment *view)
{
	struct peer_shm *slot = view_peer(view, view->peer);
	uint64_t word = view->peer_word;
	uint64_t dead = (word & ~PEER_STATE_MASK) | PEER_DEAD;

	/* pairs: peer.word - all that we did as a peer comes before its end. */
	if (cas_acq_rel(&slot->word, &word, dead) && recovery_settle_peer(view, view->peer) == 0) {
		/* pairs: peer.word - nothing of us is left when the slot reads FREE. */
		(void)cas_acq_rel(&slot->word, &dead, dead & ~PEER_STATE_MASK);
		peer_event_wake(view);
	}
	os_life_drop(&view->life);
	/* relaxed: detach is exclusive; keeps view_free from dropping it again */
	store_relaxed(&view->attachment->attached, 0u);
}

int peer_is_dead(struct shale_segment *view, uint32_t peer)
{
	uint64_t word;
	int fd, r;

	if (view->private_memory || peer == 0 || peer >= PEER_COUNT)
		return 0;
	/* pairs: peer.word - the slot's description is not older than its state. */
	word = load_acquire(&view_peer(view, peer)->word);
	if (peer_state(word) == PEER_FREE)
		return 0;
	fd = view_fd(view);
	if (fd < 0)
		return fd;
	r = os_life_probe(fd, LOCK_LIFE_BASE + peer);
	return r < 0 ? r : r == 0;
}

static uint32_t peer_lanes(const struct shale_segment *view, uint32_t peer)
{
	uint32_t high = view_lane_high(view), count = 0;

	for (uint32_t lane = 1; lane < high; lane++) {
		/* relaxed: a count for people */
		uint64_t word = load_relaxed(&view_lane(view, lane)->word);

		count += lane_word_active(word) && lane_word_peer(word) == peer;
	}
	return count;
}

static void peer_fill(struct shale_segment *view, uint32_t peer, struct shale_peer *ret_peer)
{
	struct peer_shm *slot = view_peer(view, peer);

	memset(ret_peer, 0, sizeof(*ret_peer));
	ret_peer->slot = peer;
	/* relaxed: text for people */
	ret_peer->pid = load_relaxed(&slot->pid);
	ret_peer->pid_ns = load_relaxed(&slot->pid_ns);
	ret_peer->start_ticks = load_relaxed(&slot->start_ticks);
	ret_peer->lanes = peer_lanes(view, peer);
	ret_peer->dead = peer_is_dead(view, peer) == 1;
	ret_peer->self = peer == view->peer && view_attached(view);
	memcpy(ret_peer->command, slot->command, sizeof(ret_peer->command));
	ret_peer->command[sizeof(ret_peer->command) - 1] = 0;
}

int shale_segment_peers(struct shale_segment *segment, struct shale_peer *peers, unsigned count)
{
	unsigned found = 0;

	for (uint32_t peer = 1; peer < PEER_COUNT; peer++) {
		/* pairs: peer.word - the description of an ACTIVE slot is there. */
		uint64_t word = load_acquire(&view_peer(segment, peer)->word);

		if (peer_state(word) == PEER_FREE)
			continue;
		if (peers && found < count)
			peer_fill(segment, peer, &peers[found]);
		found++;
	}
	return (int)found;
}
