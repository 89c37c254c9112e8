/*
 * keeper.c - a thread that gives memory back and recovers the dead, one acting keeper a segment.
 *
 *   view:     none --start--> running --stop, detach--> none          a forked child: none
 *   keeper:   STANDBY --lock LOCK_KEEPER taken--> ACTING --stop, death--> (the lock is free)
 *
 * Owner:     the view; its fields are the thread's, or atomics, or set before it starts.
 * Invariant: K1 who acts holds the lock, which goes with its address space
 *            K2 rounds are at least KEEPER_GAP_MS apart, whatever peers do to the event
 *            K3 `keeper_running` is set exactly while the thread is to be joined; it reads 0 in a
 *               forked child, where the struct is the parent's and only its descriptors are ours
 * Progress:  nobody waits for the keeper but who stops it.
 * Ordering:  keeper.bell; the event's own (sync/event.c); thread creation and join.
 * Death:     the keeper uses a lane like any other: recovery does the rest. The hint `keeper` may stay
 *            behind until the next one takes over.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <shale/heap.h>
#include <shale/keeper.h>

#include "base/cleanup.h"
#include "heap/giveback.h"
#include "heap/heap_lane.h"
#include "heap/placement.h"
#include "heap/purge.h"
#include "heap/slab.h"
#include "heap/span_cache.h"
#include "segment/recovery.h"
#include "sync/event.h"

#define KEEPER_GAP_MS    10u
#define KEEPER_PERIOD_MS 1000u
#define KEEPER_MOST_MS   3600000u
#define PSI_STALL_US     100000u
#define PSI_WINDOW_US    2000000u /* a multiple of 2 s is open to everybody */
#define MS_NS            UINT64_C(1000000)
#define STOP_NS          (10 * MS_NS) /* until a thread that does not end is woken again */
#define KEEPER_DECAY_MS  500u         /* so that a second of idling is enough for all of it */
#define LOOKS_PER_DECAY  5u
#define COLLAPSE_MOST    64u                   /* at a time; each copies 2 MiB at most */
#define PURGE_BYTES      (UINT64_C(256) << 20) /* in one round: who stops us waits for it */

enum bell { BELL_STOP = 1, BELL_PRESSURE = 2 };

struct keeper {
	struct shale_segment *view;
	struct shale_keeper_options options;
	struct os_thread thread;
	struct os_thread pressure_thread;
	bool watches_pressure;
	int psi;    /* descriptors of the pressure thread */
	int notice; /* ends it */
	struct os_life lock;
	struct os_uring ring;
	uint32_t bell;          /* a futex of the process: enum bell */
	uint32_t ended;         /* another: the thread is about to end */
	bool active;            /* callers have been at work lately */
	bool purge_later;       /* the last purge has seen what was not old enough */
	uint64_t recover_at_ns; /* not before */
	uint32_t taken_ms;      /* the tick after which cached spans were taken apart */
	/* for the status */
	uint32_t acting;
	int32_t psi_status;
	int32_t uring_status;
	int32_t error;
	uint64_t rounds, recovered, returned_bytes, purged_bytes, pressures;
};

static struct shale_event *keeper_event(const struct shale_segment *view)
{
	return (struct shale_event *)(void *)view_hints(view)->keeper_event;
}

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static uint32_t most(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

static bool asked(const struct keeper *keeper, uint32_t flag)
{
	return (keeper->options.flags & flag) != 0;
}

/* Only the keeper's thread writes the counts. */
static void add(uint64_t *count, uint64_t more)
{
	store_relaxed(count, load_relaxed(count) + more);
}

static void note_error(struct keeper *keeper, int r)
{
	if (r < 0)
		store_relaxed(&keeper->error, (int32_t)r); /* for people */
}

/* -- acting ------------------------------------------------------------------------------------ */

static void open_ring(struct keeper *keeper)
{
	int r = 0;

	if (asked(keeper, SHALE_KEEPER_URING) && !keeper->view->private_memory) {
		r = os_uring_open(&keeper->ring);
		r = r < 0 ? r : 1;
	}
	store_relaxed(&keeper->uring_status, (int32_t)r); /* for people */
}

static int take_lock(struct keeper *keeper)
{
	struct shale_segment *view = keeper->view;
	int fd;

	/* nobody else is on a private segment, and a view has one keeper */
	if (view->private_memory)
		return 0;
	fd = view_fd(view);
	if (fd < 0)
		return fd;
	/* a look first, which costs one call */
	if (os_life_probe(fd, LOCK_KEEPER) == 1)
		return -EAGAIN;
	return os_life_take(fd, LOCK_KEEPER, true, &keeper->lock);
}

static int enter(struct keeper *keeper, struct lane **ret_lane)
{
	int r = lane_enter(keeper->view, ret_lane);

	return r < 0 ? r : heap_setup_lane(*ret_lane);
}

static bool become_acting(struct keeper *keeper)
{
	struct lane *lane;
	int r;

	if (load_relaxed(&keeper->acting)) /* only we write it */
		return true;
	r = take_lock(keeper);
	if (r < 0) {
		if (r != -EAGAIN)
			note_error(keeper, r);
		return false;
	}
	/* in a forked child this is what gives it a peer slot */
	r = enter(keeper, &lane);
	if (r < 0) {
		note_error(keeper, r);
		os_life_drop(&keeper->lock);
		return false;
	}
	open_ring(keeper);
	/* the heap may have been quiet for long: one look at what there is to purge */
	keeper->purge_later = true;
	/* a hint for who ticks, and for people */
	store_relaxed(&view_hints(keeper->view)->keeper, keeper->view->peer);
	store_relaxed(&keeper->acting, 1u);
	return true;
}

static void end_acting(struct keeper *keeper)
{
	uint32_t peer = keeper->view->peer;

	if (keeper->ring.fd >= 0)
		os_uring_close(&keeper->ring);
	if (!load_relaxed(&keeper->acting))
		return;
	/* a hint: another's stays */
	(void)cas_relaxed(&view_hints(keeper->view)->keeper, &peer, 0u);
	os_life_drop(&keeper->lock);
}

/* -- a round --------------------------------------------------------------------------------------- */

static bool others_attached(const struct shale_segment *view)
{
	if (view->private_memory)
		return false;
	for (uint32_t peer = 1; peer < PEER_COUNT; peer++)
		/* relaxed: a peer that comes wakes us when its slot is taken */
		if (peer != view->peer &&
		    (load_relaxed(&view_peer(view, peer)->word) & PEER_STATE_MASK) != PEER_FREE)
			return true;
	return false;
}

/* One system call for each peer: no more often than once a period, however often we are woken. */
static void recover_when_due(struct keeper *keeper)
{
	uint64_t now = os_clock_ns();
	int r;

	if (now < keeper->recover_at_ns)
		return;
	keeper->recover_at_ns = now + keeper->options.period_ms * MS_NS / 2;
	r = recovery_run(keeper->view);
	note_error(keeper, r);
	if (r > 0)
		add(&keeper->recovered, (uint64_t)r);
}

/* Returns arenas; milliseconds until the next one's time. */
static uint32_t return_arenas(struct keeper *keeper, struct lane *lane, bool pressed)
{
	struct giveback_wish wish = {
		.decay_ms = pressed ? 0 : keeper->options.decay_ms,
		.keep = pressed ? 0 : 1,
		.ring = keeper->ring.fd >= 0 ? &keeper->ring : NULL,
	};
	struct giveback_done done;

	giveback_arenas(lane, &wish, &done);
	note_error(keeper, done.error);
	add(&keeper->returned_bytes, done.arenas * ARENA_SIZE);
	/* what the kernel did not take is not asked for at once again */
	return done.error < 0 ? keeper->options.decay_ms : done.next_ms;
}

/* Arenas of a THP segment that a purge has split, and that are mostly used again. */
static void collapse(struct shale_segment *view, struct lane *lane)
{
	unsigned done = 0;

	if (view->header.pages != SHALE_PAGES_THP)
		return;
	for (uint64_t arena = 0; arena < view_arena_high(view) && done < COLLAPSE_MOST; arena++)
		done += placement_collapse(lane, arena);
}

/*
 * Have callers been at work? They leave the time of their last tick, give or take one. When they have
 * been quiet for a while, what lanes keep for their next spans is taken from them, and huge pages are
 * made, once.
 */
static void look_for_activity(struct keeper *keeper, struct lane *lane)
{
	uint32_t last = load_relaxed(&view_hints(keeper->view)->giveback_ms); /* a hint */
	uint32_t quiet_ms = giveback_now_ms() - last;
	uint32_t decay_ms = keeper->options.decay_ms;
	/* who works so long after the last tick makes another one, which we shall see */
	uint32_t enough_ms = most(2 * decay_ms / LOOKS_PER_DECAY, 2 * GIVEBACK_TICK_MS);

	keeper->active = last != 0 && quiet_ms < enough_ms + 2 * decay_ms;
	if (keeper->taken_ms == last || quiet_ms < enough_ms)
		return;
	(void)span_steal_cached(lane, true);
	keeper->taken_ms = last;
	if (!asked(keeper, SHALE_KEEPER_NO_COLLAPSE))
		collapse(keeper->view, lane);
}

/*
 * Purges what has not changed for a while; milliseconds until there is more. Two looks that see the
 * same make it old enough, so this is done as long as callers are at work, and a little longer.
 */
static uint32_t purge(struct keeper *keeper, struct lane *lane, bool pressed)
{
	bool later = false;
	struct purge_limits limits = {
		.ret_later = &later,
		.unchanged_ms = pressed ? 0 : 2 * keeper->options.decay_ms / LOOKS_PER_DECAY,
		.facts = true,
		.max_bytes = PURGE_BYTES,
	};
	int64_t bytes;

	if (asked(keeper, SHALE_KEEPER_NO_PURGE) ||
	    !(pressed || keeper->active || keeper->purge_later))
		return GIVEBACK_NEVER;
	bytes = purge_run(lane, &limits);
	note_error(keeper, bytes < 0 ? (int)bytes : 0);
	if (bytes > 0)
		add(&keeper->purged_bytes, (uint64_t)bytes);
	keeper->purge_later = later;
	if (bytes >= (int64_t)PURGE_BYTES)
		return 0;
	return later ? keeper->options.decay_ms / LOOKS_PER_DECAY : GIVEBACK_NEVER;
}

/* What an acting keeper does; milliseconds until there is more. */
static uint32_t round_of_acting(struct keeper *keeper, bool pressed)
{
	bool others = others_attached(keeper->view);
	struct lane *lane;
	uint32_t next;
	int r = enter(keeper, &lane);

	if (others && !asked(keeper, SHALE_KEEPER_NO_RECOVER))
		recover_when_due(keeper);
	if (r < 0) {
		note_error(keeper, r);
		return keeper->options.period_ms;
	}
	look_for_activity(keeper, lane);
	slab_release_empty(lane, pressed);
	next = return_arenas(keeper, lane, pressed);
	next = least(next, purge(keeper, lane, pressed));
	return others ? least(next, keeper->options.period_ms) : next;
}

static bool stopping(const struct keeper *keeper)
{
	/* pairs: keeper.bell - rung before the wake. */
	return (load_acquire(&keeper->bell) & BELL_STOP) != 0;
}

/* Sleeps on the word that is the process's own: no peer can cut it short. */
static void sleep_alone(struct keeper *keeper, uint32_t ms)
{
	uint64_t until = os_clock_ns() + ms * MS_NS;

	/* pairs: keeper.bell - as above. */
	while (load_acquire(&keeper->bell) == 0 && os_clock_ns() < until)
		(void)os_futex_wait(&keeper->bell, 0, OS_FUTEX_ANY, until);
}

static void ring_bell(struct keeper *keeper, enum bell why)
{
	/* pairs: keeper.bell - rung before the wakes. */
	(void)fetch_or_acq_rel(&keeper->bell, (uint32_t)why);
	(void)os_futex_wake(&keeper->bell, 1, OS_FUTEX_ANY);
	(void)event_wake(keeper_event(keeper->view));
}

/*
 * While callers are at work they are not listened to: a look from time to time does. When they are
 * quiet, the event tells of the next tick. It was prepared before the round, so none is lost.
 */
static void sleep_acting(struct keeper *keeper, uint32_t ticket, uint32_t next_ms)
{
	uint32_t look_ms = keeper->options.decay_ms / LOOKS_PER_DECAY;
	uint32_t gap_ms = KEEPER_GAP_MS;
	uint64_t deadline = SHALE_NO_DEADLINE;

	if (keeper->active) {
		next_ms = least(next_ms, look_ms);
		/* next_ms 0: the last round left something undone */
		gap_ms = most(least(look_ms, next_ms), KEEPER_GAP_MS);
	}
	if (next_ms != GIVEBACK_NEVER)
		deadline = os_clock_ns() + next_ms * MS_NS;
	sleep_alone(keeper, gap_ms);
	if (load_relaxed(&keeper->bell) == 0) /* rung since: the event was woken, too */
		(void)shale_event_wait(keeper_event(keeper->view), ticket, deadline);
}

static void keeper_body(void *argument)
{
	struct keeper *keeper = argument;

	while (!stopping(keeper)) {
		/* pairs: keeper.bell - told before we were woken. */
		uint32_t rung = fetch_and_acq_rel(&keeper->bell, ~(uint32_t)BELL_PRESSURE);
		uint32_t ticket;

		add(&keeper->rounds, 1);
		if (!become_acting(keeper)) {
			sleep_alone(keeper, keeper->options.period_ms);
			continue;
		}
		ticket = shale_event_prepare(keeper_event(keeper->view));
		sleep_acting(keeper, ticket, round_of_acting(keeper, (rung & BELL_PRESSURE) != 0));
	}
	end_acting(keeper);
	/* pairs: keeper.ended - nothing of a round comes after it. */
	store_release(&keeper->ended, 1u);
	(void)os_futex_wake(&keeper->ended, 1, OS_FUTEX_ANY);
}

/* -- pressure ---------------------------------------------------------------------------------- */

static void pressure_body(void *argument)
{
	struct keeper *keeper = argument;
	int r;

	do {
		r = os_psi_wait(keeper->psi, keeper->notice);
		if (r > 0) {
			add(&keeper->pressures, 1);
			ring_bell(keeper, BELL_PRESSURE);
		}
	} while (r > 0 || r == -EINTR);
	if (r < 0)
		store_relaxed(&keeper->psi_status, (int32_t)r); /* for people */
}

static int open_pressure(struct keeper *keeper)
{
	keeper->psi = os_psi_open(PSI_STALL_US, PSI_WINDOW_US);
	if (keeper->psi < 0)
		return keeper->psi;
	keeper->notice = os_notice_open();
	return keeper->notice < 0 ? keeper->notice : 1;
}

/* What cannot be had is done without. */
static void start_pressure(struct keeper *keeper)
{
	int r = 0;

	if (!asked(keeper, SHALE_KEEPER_NO_PSI)) {
		r = open_pressure(keeper);
		if (r > 0) {
			keeper->psi_status = 1;
			r = os_thread_start("shale-pressure", pressure_body, keeper,
					    &keeper->pressure_thread);
			keeper->watches_pressure = r == 0;
		}
		if (r < 0)
			keeper->psi_status = (int32_t)r;
	}
}

/* -- start and stop ---------------------------------------------------------------------------- */

static void keeper_free(struct keeper *keeper)
{
	/* the program may have closed them, and have files of its own there */
	(void)os_fd_close_if(keeper->psi, OS_FD_PSI);
	(void)os_fd_close_if(keeper->notice, OS_FD_NOTICE);
	free(keeper);
}

/*
 * The event is every peer's: one that takes the mark away makes the wake a wake of nobody. So the
 * sleeper is woken in any case, and again if it was about to sleep just then.
 */
static void keeper_end_thread(struct keeper *keeper)
{
	struct shale_event *event = keeper_event(keeper->view);

	ring_bell(keeper, BELL_STOP);
	/* pairs: keeper.ended - the thread's last store. */
	while (load_acquire(&keeper->ended) == 0) {
		(void)os_futex_wake(&event->sequence, INT_MAX, OS_FUTEX_ANY);
		(void)os_futex_wait(&keeper->ended, 0, OS_FUTEX_ANY, os_clock_ns() + STOP_NS);
	}
	os_thread_join(&keeper->thread);
}

static void keeper_end_threads(struct keeper *keeper)
{
	keeper_end_thread(keeper);
	if (keeper->watches_pressure) {
		if (os_notice_give(keeper->notice) < 0)
			/* the number is another's by now, and the thread hears nothing */
			os_thread_end_wait(&keeper->pressure_thread);
		os_thread_join(&keeper->pressure_thread);
	}
}

/* Under keeper_lock. In a forked child there is no thread, only what the parent had open. */
static int stop_locked(struct shale_segment *view)
{
	struct keeper *keeper = view->keeper;
	bool running = view->attachment->keeper_running;

	if (!keeper)
		return -ENOENT;
	if (running)
		keeper_end_threads(keeper);
	else
		(void)os_fd_close_if(keeper->ring.fd, OS_FD_URING);
	view->keeper = NULL;
	view->attachment->keeper_running = 0;
	keeper_free(keeper);
	return running ? 0 : -ENOENT;
}

static void stop_at_detach(struct shale_segment *view)
{
	(void)shale_keeper_stop(view);
}

int shale_keeper_stop(struct shale_segment *segment)
{
	int r;

	pthread_mutex_lock(&segment->attachment->keeper_lock);
	r = stop_locked(segment);
	pthread_mutex_unlock(&segment->attachment->keeper_lock);
	return r;
}

/* -EINVAL: too short, a member that is not known, or out of range. */
static int read_options(const struct shale_keeper_options *given,
			struct shale_keeper_options *ret_options)
{
	struct shale_keeper_options options = {.size = sizeof(options)};

	if (given && given->size != sizeof(options))
		return -EINVAL;
	if (given)
		options = *given;
	if (options.decay_ms > KEEPER_MOST_MS || options.period_ms > KEEPER_MOST_MS ||
	    options.flags >= 2 * SHALE_KEEPER_NO_COLLAPSE)
		return -EINVAL;
	if (options.decay_ms == 0)
		options.decay_ms = KEEPER_DECAY_MS;
	if (options.period_ms == 0)
		options.period_ms = KEEPER_PERIOD_MS;
	*ret_options = options;
	return 0;
}

static int start_locked(struct shale_segment *view, const struct shale_keeper_options *options)
{
	struct keeper *keeper;
	int r;

	if (view->attachment->keeper_running)
		return -EALREADY;
	(void)stop_locked(view); /* what a fork has left */
	keeper = calloc(1, sizeof(*keeper));
	if (!keeper)
		return -ENOMEM;
	keeper->view = view;
	keeper->options = *options;
	keeper->psi = keeper->notice = keeper->ring.fd = -EBADF;
	start_pressure(keeper);
	r = os_thread_start("shale-keeper", keeper_body, keeper, &keeper->thread);
	if (r < 0) {
		if (keeper->watches_pressure) {
			(void)os_notice_give(keeper->notice);
			os_thread_join(&keeper->pressure_thread);
		}
		keeper_free(keeper);
		return r;
	}
	view->keeper = keeper;
	view->keeper_stop = stop_at_detach;
	view->attachment->keeper_running = 1;
	return 0;
}

int shale_keeper_start(struct shale_segment *segment, const struct shale_keeper_options *options)
{
	struct shale_keeper_options own;
	int r = read_options(options, &own);

	if (r == 0 && segment->read_only)
		r = -EROFS;
	if (r < 0)
		return r;
	pthread_mutex_lock(&segment->attachment->keeper_lock);
	r = start_locked(segment, &own);
	pthread_mutex_unlock(&segment->attachment->keeper_lock);
	return r;
}

static void fill_status(const struct keeper *keeper, struct shale_keeper_figures *status)
{
	/* relaxed: for people */
	status->state = load_relaxed(&keeper->acting) ? SHALE_KEEPER_ACTING : SHALE_KEEPER_STANDBY;
	status->psi = load_relaxed(&keeper->psi_status);
	status->uring = load_relaxed(&keeper->uring_status);
	status->error = load_relaxed(&keeper->error);
	status->rounds = load_relaxed(&keeper->rounds);
	status->recovered = load_relaxed(&keeper->recovered);
	status->returned_bytes = load_relaxed(&keeper->returned_bytes);
	status->purged_bytes = load_relaxed(&keeper->purged_bytes);
	status->pressures = load_relaxed(&keeper->pressures);
}

int shale_keeper_stat(struct shale_segment *segment, struct shale_keeper_figures *ret_status)
{
	struct shale_keeper_figures status = {.size = sizeof(status)};

	if (ret_status->size != sizeof(status))
		return -EINVAL;
	status.acting = load_relaxed(&view_hints(segment)->keeper); /* a hint */
	pthread_mutex_lock(&segment->attachment->keeper_lock);
	if (segment->attachment->keeper_running)
		fill_status(segment->keeper, &status);
	pthread_mutex_unlock(&segment->attachment->keeper_lock);
	*ret_status = status;
	return 0;
}
