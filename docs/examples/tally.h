/*
 * tally.h - what the four programs of the tally agree on.
 *
 * The tally counts the identifiers of files. Its programs are unrelated processes: each is started
 * by exec, knows a socket path and nothing else, gets the segment through that socket, and finds in
 * it by name whatever the others have put there.
 *
 *             inputs                chunks                 results
 *   tally  ------------>  reader  ---------->  workers  ------------->  reducer
 *     ^     (channel)        |     (channel)      |       (channel and     |
 *     |                      |                    |        map by number)  |
 *     |        news          |                    |                        |  totals
 *     +----------------------+--------------------+    <-------------------+  (map)
 *
 * A chunk of input lies in a block of the segment; only its place and number travel. The table of
 * places is the truth about who works at what, so that a worker may be killed at any instruction:
 *
 *                reader                worker                    reducer
 *        FREE  ---------->  READY  ------------->  TAKEN by pid  --------->  FREE
 *                             ^                         |
 *                             +-------------------------+
 *                  tally: that worker is dead, and the map has no result of this chunk
 *
 * Exactly once, because each arrow is one compare-exchange of a word that holds the chunk's number
 * and the worker's pid, and a result comes into being by one shale_map_insert() under that number.
 * Messages are hints: one that is lost with its receiver is sent again, one too many is harmless.
 */
#ifndef TALLY_H
#define TALLY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <shale/shale.h>

/* The names by which a process that has just joined finds its way. */
#define TALLY_JOB     "tally.job"     /* root: struct tally_job */
#define TALLY_INPUTS  "tally.inputs"  /* channel: paths, as given by the user */
#define TALLY_CHUNKS  "tally.chunks"  /* channel: struct tally_chunk, to any worker */
#define TALLY_DONE    "tally.done"    /* channel: struct tally_chunk, to the reducer */
#define TALLY_NEWS    "tally.news"    /* channel: struct tally_news, to the coordinator */
#define TALLY_RESULTS "tally.results" /* map: chunk number -> its words and their counts */
#define TALLY_TOTALS  "tally.totals"  /* map: identifier -> count of all chunks */

/* State of a place, one 64-bit word: chunk number (40 bits), pid (22 bits), state (2 bits). */
enum tally_state { TALLY_FREE = 0, TALLY_READY = 1, TALLY_TAKEN = 2 };

struct tally_place {
	_Atomic uint64_t state;
	uint64_t chunk;          /* ref of the chunk's block; written by shale_publish_at() only */
	_Atomic uint64_t size;   /* bytes of input in it */
	_Atomic uint32_t doomed; /* so many workers are still to be killed while they work at it */
	uint32_t reserved;
};

/* The one block that everybody looks at: published under the root TALLY_JOB. */
struct tally_job {
	uint64_t chunk_size; /* options, written before anybody else joins */
	uint64_t seed;
	uint32_t kills;
	uint32_t place_count;
	_Atomic uint64_t files; /* what the reader has read; final once it has sent the end */
	_Atomic uint64_t bytes;
	_Atomic uint64_t chunks;
	_Atomic uint64_t unread; /* inputs named by the user that could not be read */
	struct shale_event room; /* a place has become free */
	struct tally_place places[];
};

/* In the channels "chunks" and "done". */
struct tally_chunk {
	uint64_t number; /* in "done" with place TALLY_END: how many chunks there are in all */
	uint64_t place;
};
#define TALLY_END UINT64_MAX

/* In the channel "news"; the path follows TALLY_NEWS_FILE. */
enum tally_news_kind { TALLY_NEWS_FILE = 1, TALLY_NEWS_DOOMED = 2 };

struct tally_news {
	uint32_t kind;
	uint32_t pid;    /* NEWS_DOOMED: of the worker that has taken a doomed chunk */
	uint64_t number; /* NEWS_DOOMED: of that chunk */
};

static inline uint64_t tally_state(enum tally_state state, uint64_t number, pid_t pid)
{
	return number << 24 | (uint64_t)(uint32_t)pid << 2 | (uint64_t)state;
}

static inline enum tally_state tally_state_of(uint64_t word)
{
	return (enum tally_state)(word & 3);
}

static inline pid_t tally_pid_of(uint64_t word)
{
	return (pid_t)(word >> 2 & 0x3fffff);
}

static inline uint64_t tally_number_of(uint64_t word)
{
	return word >> 24;
}

/*
 * One arrow of the picture above. Acquire and release, because the one who makes the next arrow
 * must see what the one before has written to the place and the chunk.
 * pairs: tally.place
 */
static inline bool tally_move(struct tally_place *place, uint64_t from, uint64_t to)
{
	return atomic_compare_exchange_strong_explicit(&place->state, &from, to,
						       memory_order_acq_rel, memory_order_acquire);
}

/* pairs: tally.place - what was written before the arrow that we see here, we see as well. */
static inline uint64_t tally_look(struct tally_place *place)
{
	return atomic_load_explicit(&place->state, memory_order_acquire);
}

/* tally_join.c: the socket through which a process comes to the segment, and ends with grace. */
struct tally_hub;
int tally_hub_open(struct shale_segment *segment, struct tally_hub **ret_hub);
const char *tally_hub_path(const struct tally_hub *hub);
void tally_hub_close(struct tally_hub *hub);
struct shale_segment *tally_join(int argc, char **argv);
struct tally_job *tally_find_job(struct shale_segment *segment);
struct shale_channel *tally_channel(struct shale_segment *segment, const char *name);
struct shale_map *tally_map(struct shale_segment *segment, const char *name, uint64_t entries);

/* Says "PROGRAM: WHAT: ERROR" for an error number (negative or not; 0: none), and ends it. */
_Noreturn void tally_die(int error, const char *what, ...) __attribute__((format(printf, 2, 3)));

#endif
