/*
 * shale/keeper.h - a background thread that gives memory back to the kernel and recovers the dead.
 *
 * Without one, whoever allocates and frees does a little of it by the way; a process that is idle
 * does none. Every process attached to a segment may start a keeper. One of them acts, the others
 * stand by, and one of these takes over when it stops or dies.
 */
#ifndef SHALE_KEEPER_H
#define SHALE_KEEPER_H

#include <stddef.h>
#include <stdint.h>

#include <shale/segment.h>
#include <shale/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Since 0.1. */
enum shale_keeper_flags {
	SHALE_KEEPER_URING = 1,       /* punch through io_uring, several arenas at a time */
	SHALE_KEEPER_NO_PSI = 2,      /* do not react to memory pressure */
	SHALE_KEEPER_NO_RECOVER = 4,  /* do not look for dead peers */
	SHALE_KEEPER_NO_PURGE = 8,    /* leave half-used slabs alone: whole arenas only */
	SHALE_KEEPER_NO_COLLAPSE = 16 /* do not make huge pages of refilled arenas */
};

/* Set `size` to sizeof(struct ...); what is 0 takes its default. Since 0.1. */
struct shale_keeper_options {
	size_t size;
	uint32_t flags;     /* enum shale_keeper_flags */
	uint32_t decay_ms;  /* how long memory is free before it goes; 500, at most an hour */
	uint32_t period_ms; /* how often peers are looked after, while there are any; 1000 */
};

/*
 * Starts the keeper of this view: a thread "shale-keeper" with every signal blocked, and, where the
 * kernel tells about memory pressure, a thread "shale-pressure" that sleeps until it does. It has a
 * lane of its own. shale_segment_detach() stops it. A forked child has none, and may start one.
 * options may be NULL.
 * -EALREADY it runs; -EINVAL an option is out of range; -EROFS the view is read-only
 * -EAGAIN   no thread left; -ENOMEM
 * What the kernel does not give (PSI, io_uring) is done without: shale_keeper_stat() says so.
 * Threads: safe. Since 0.1.
 */
SHALE_API int shale_keeper_start(struct shale_segment *segment,
				 const struct shale_keeper_options *options);

/* Stops it and waits until its thread has ended. -ENOENT none runs. Threads: safe. Since 0.1. */
SHALE_API int shale_keeper_stop(struct shale_segment *segment);

/* Since 0.1. */
enum shale_keeper_state {
	SHALE_KEEPER_NONE = 0, /* this view has none */
	SHALE_KEEPER_STANDBY,  /* another peer's acts */
	SHALE_KEEPER_ACTING,
};

/* What the keeper of this view does. Set `size` to sizeof(struct ...) first. Since 0.1. */
struct shale_keeper_figures {
	size_t size;
	uint32_t state;  /* enum shale_keeper_state */
	uint32_t acting; /* slot of the peer whose keeper acts (a hint); 0: none */
	int32_t psi;     /* 1 in use; 0 not asked for; -errno cannot be had */
	int32_t uring;   /* 1 in use; 0 not asked for, or standing by; -errno cannot be had */
	int32_t error;   /* the last one that a round met; 0: none yet */
	uint32_t reserved;
	uint64_t rounds;         /* how often it has woken up to look */
	uint64_t recovered;      /* dead peers */
	uint64_t returned_bytes; /* whole arenas */
	uint64_t purged_bytes;   /* inside arenas that stayed */
	uint64_t pressures;      /* times that the kernel told of memory pressure */
};

/* -EINVAL: its size is unknown. Threads: safe. Since 0.1. */
SHALE_API int shale_keeper_stat(struct shale_segment *segment,
				struct shale_keeper_figures *ret_status);

#ifdef __cplusplus
}
#endif

#endif
