/*
 * What processes saw, and an order that explains it.
 *
 * In each round a few processes run a few operations each on two keys, and write down when each began
 * and ended (one shared counter), and what it answered; some are killed on the way. Then the
 * history of each key is given to a checker (Wing and Gong's search, with a memory of what was tried),
 * which looks for an order of the operations that respects time and explains every answer. An operation
 * whose process was killed in it may have happened at any time after its beginning, or never.
 */
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/atomic.h"
#include "maps.h"

enum kind { PUT, INSERT, DELETE, GET, KINDS };
enum { KEYS = 2, PROCESSES = 4, OPS = 6, HISTORY_MAX = PROCESSES * OPS + 1 };

struct event {
	uint64_t begin; /* 0: never begun */
	uint64_t end;   /* 0: never ended */
	enum kind kind;
	uint64_t key;
	uint64_t value; /* put, inserted, or seen by a get */
	int result;
};

struct history {
	struct event events[HISTORY_MAX];
	unsigned count;
	uint64_t start; /* value before, 0 none */
};

/* -- the checker ------------------------------------------------------------------------------- */

enum { TRIED = 1 << 16 };

struct search {
	const struct history *history;
	struct {
		uint32_t done;
		uint32_t used;
		uint64_t state;
	} tried[TRIED];
};

/* Was this tried before? Remembers it. A full memory forgets; the search is right all the same. */
static bool search_tried(struct search *search, uint32_t done, uint64_t state)
{
	uint64_t at =
		(done * UINT64_C(0x9e3779b97f4a7c15)) ^ (state * UINT64_C(0xc2b2ae3d27d4eb4f));

	for (unsigned i = 0; i < 16; i++) {
		unsigned slot = (unsigned)((at >> 32) + i) % TRIED;

		if (!search->tried[slot].used) {
			search->tried[slot].used = 1;
			search->tried[slot].done = done;
			search->tried[slot].state = state;
			return false;
		}
		if (search->tried[slot].done == done && search->tried[slot].state == state)
			return true;
	}
	return false;
}

/* Can the event come now? Then *ret_state is what the key is bound to after it. */
static bool event_fits(const struct event *event, uint64_t state, uint64_t *ret_state)
{
	bool open = event->end == 0; /* its answer is not known */

	*ret_state = state;
	switch (event->kind) {
	case PUT:
		*ret_state = event->value;
		return open || event->result == (state != 0);
	case INSERT:
		if (state == 0)
			*ret_state = event->value;
		return open || event->result == (state != 0 ? -EEXIST : 0);
	case DELETE:
		*ret_state = 0;
		return open || event->result == (state != 0 ? 0 : -ENOENT);
	default:
		return open || (event->result == (state != 0 ? 0 : -ENOENT) &&
				(state == 0 || event->value == state));
	}
}

/* Has everything that ended before this one began been placed already? */
static bool event_is_next(const struct history *history, uint32_t done, const struct event *event)
{
	for (unsigned i = 0; i < history->count; i++) {
		const struct event *other = &history->events[i];

		if (!(done >> i & 1) && other->end != 0 && other->end < event->begin)
			return false;
	}
	return true;
}

static bool search_from(struct search *search, uint32_t done, uint64_t state)
{
	const struct history *history = search->history;
	bool all = true;

	for (unsigned i = 0; i < history->count; i++)
		if (!(done >> i & 1) && history->events[i].end != 0)
			all = false;
	if (all)
		return true;
	if (search_tried(search, done, state))
		return false;
	for (unsigned i = 0; i < history->count; i++) {
		const struct event *event = &history->events[i];
		uint64_t next;

		if ((done >> i & 1) || !event_is_next(history, done, event) ||
		    !event_fits(event, state, &next))
			continue;
		if (search_from(search, done | UINT32_C(1) << i, next))
			return true;
	}
	return false;
}

static bool is_linearizable(const struct history *history)
{
	static struct search search;

	memset(&search, 0, sizeof(search));
	search.history = history;
	return search_from(&search, 0, history->start);
}

/* -- recording --------------------------------------------------------------------------------- */

struct record {
	uint64_t clock;
	uint32_t ready;
	uint32_t go;
	struct event events[PROCESSES][OPS];
};

static int run_event(struct shale_map *map, struct event *event)
{
	switch (event->kind) {
	case PUT:
		return put_u64(map, event->key, event->value);
	case INSERT:
		return shale_map_insert(map, &event->key, 8, &event->value, 8);
	case DELETE:
		return delete_u64(map, event->key);
	default:
		return get_u64(map, event->key, &event->value);
	}
}

static void run_process(struct shale_map *map, struct record *record, unsigned process)
{
	(void)shale_map_delete(map, "warm", 4); /* become a peer first */
	fetch_add_seq_cst(&record->ready, 1u);
	while (load_acquire(&record->go) == 0)
		sched_yield();
	for (unsigned i = 0; i < OPS; i++) {
		struct event *event = &record->events[process][i];

		store_seq_cst(&event->begin, fetch_add_seq_cst(&record->clock, UINT64_C(1)));
		event->result = run_event(map, event);
		store_seq_cst(&event->end, fetch_add_seq_cst(&record->clock, UINT64_C(1)));
	}
}

static void plan_round(struct record *record, uint64_t *number)
{
	memset(record, 0, sizeof(*record));
	record->clock = 1;
	for (unsigned process = 0; process < PROCESSES; process++) {
		for (unsigned i = 0; i < OPS; i++) {
			struct event *event = &record->events[process][i];

			event->kind = (enum kind)test_random_below(KINDS);
			event->key = test_random_below(KEYS);
			event->value = event->kind == GET || event->kind == DELETE ? 0 : ++*number;
		}
	}
}

static void play_round(struct shale_map *map, struct record *record, bool kill_one)
{
	pid_t pids[PROCESSES];

	for (unsigned i = 0; i < PROCESSES; i++) {
		pids[i] = test_fork();
		ASSERT_SYS(pids[i]);
		if (pids[i] == 0) {
			run_process(map, record, i);
			_exit(0);
		}
	}
	ASSERT_TRUE(TEST_EVENTUALLY(load_acquire(&record->ready) == PROCESSES, 20000));
	store_release(&record->go, 1u);
	if (kill_one) {
		uint64_t until = load_acquire(&record->clock) + test_random_below(2 * OPS * 2);

		while (load_acquire(&record->clock) < until && load_acquire(&record->clock) < 30)
			sched_yield();
		kill(pids[test_random_below(PROCESSES)], SIGKILL);
	}
	for (unsigned i = 0; i < PROCESSES; i++) {
		int status;

		ASSERT_SYS(waitpid(pids[i], &status, 0));
		EXPECT_TRUE(kill_one || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
	}
}

/* The history of one key, and at its end what a get of the survivor says. */
static void gather(const struct record *record, uint64_t key, uint64_t start, uint64_t last,
		   struct history *ret_history)
{
	struct history history = {.start = start};

	for (unsigned process = 0; process < PROCESSES; process++)
		for (unsigned i = 0; i < OPS; i++)
			if (record->events[process][i].key == key &&
			    record->events[process][i].begin != 0)
				history.events[history.count++] = record->events[process][i];
	history.events[history.count++] = (struct event){.begin = record->clock + 1,
							 .end = record->clock + 2,
							 .kind = GET,
							 .value = last,
							 .result = last != 0 ? 0 : -ENOENT};
	*ret_history = history;
}

static void log_history(const struct history *history)
{
	static const char *const names[] = {"put", "insert", "delete", "get"};

	for (unsigned i = 0; i < history->count; i++) {
		const struct event *event = &history->events[i];

		TEST_LOG("%llu..%llu %s %llu = %d", (unsigned long long)event->begin,
			 (unsigned long long)event->end, names[event->kind],
			 (unsigned long long)event->value, event->result);
	}
}

/* A get that saw something else, or a deletion that answered otherwise, must be noticed. */
static bool spoil(struct history *history)
{
	for (unsigned i = 0; i < history->count; i++) {
		struct event *event = &history->events[i];

		if (event->kind == GET && event->end != 0 && event->result == 0) {
			event->value += UINT64_C(1) << 40;
			return true;
		}
	}
	return false;
}

static void play(unsigned rounds, unsigned kill_every)
{
	struct shale_segment *segment = heap_segment(8u << 20, SHALE_PAGES_4K);
	struct shale_map *map = map_named(segment, "m", 1);
	struct record *record = mmap(NULL, sizeof(*record), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t value[KEYS] = {0}, number = 0;
	unsigned spoiled = 0;

	ASSERT_TRUE(record != MAP_FAILED);
	for (unsigned round = 0; round < rounds; round++) {
		plan_round(record, &number);
		play_round(map, record, kill_every != 0 && round % kill_every == 0);
		ASSERT_OK(shale_recover(segment));
		for (uint64_t key = 0; key < KEYS; key++) {
			struct history history;
			uint64_t last = 0;

			if (get_u64(map, key, &last) < 0)
				last = 0;
			gather(record, key, value[key], last, &history);
			value[key] = last;
			if (!is_linearizable(&history)) {
				log_history(&history);
				TEST_FAIL("round %u, key %llu, from %llu: no order explains it",
					  round, (unsigned long long)key,
					  (unsigned long long)history.start);
			}
			if (spoil(&history)) {
				spoiled++;
				EXPECT_FALSE(is_linearizable(&history));
			}
		}
		heap_expect_clean(segment);
	}
	EXPECT_GT(spoiled, rounds / 2);
	shale_map_close(map);
	EXPECT_OK(shale_segment_detach(segment));
}

TEST_TIMEOUT(map_linearizability, of_four_processes, 110)
{
	play((unsigned)TEST_ROUNDS(250, 5000), 0);
}

TEST_TIMEOUT(map_linearizability, of_four_processes_one_of_them_killed, 110)
{
	play((unsigned)TEST_ROUNDS(250, 5000), 1);
}

/* -- the checker, checked ---------------------------------------------------------------------- */

TEST(map_linearizability, the_checker_refuses_what_cannot_be)
{
	struct history lost = {
		.start = 0,
		.count = 3,
		.events = {{1, 2, PUT, 0, 5, 0},
			   {3, 4, GET, 0, 0,
			    -ENOENT}, /* although it was put, and nothing deleted it */
			   {5, 6, GET, 0, 5, 0}}};
	struct history back = {
		.start = 7,
		.count = 3,
		.events = {{1, 8, PUT, 0, 9, 1},
			   {2, 3, GET, 0, 9, 0},
			   {4, 5, GET, 0, 7, 0}}}; /* the old value after the new one */
	struct history twice = {.start = 0,
				.count = 2,
				.events = {{1, 4, INSERT, 0, 1, 0}, {2, 3, INSERT, 0, 2, 0}}};
	struct history both = {.start = 4,
			       .count = 2,
			       .events = {{1, 4, DELETE, 0, 0, 0}, {2, 3, DELETE, 0, 0, 0}}};

	EXPECT_FALSE(is_linearizable(&lost));
	EXPECT_FALSE(is_linearizable(&back));
	EXPECT_FALSE(is_linearizable(&twice));
	EXPECT_FALSE(is_linearizable(&both));
}

TEST(map_linearizability, the_checker_accepts_what_can_be)
{
	struct history maybe = {.start = 0,
				.count = 3,
				.events = {{1, 0, PUT, 0, 5, 0}, /* killed: took effect late .. */
					   {2, 3, GET, 0, 0, -ENOENT},
					   {4, 5, GET, 0, 5, 0}}};
	struct history never = {.start = 0,
				.count = 2,
				.events = {{1, 0, PUT, 0, 5, 0}, /* .. or never */
					   {2, 3, GET, 0, 0, -ENOENT}}};
	struct history overlap = {
		.start = 7,
		.count = 3,
		.events = {{1, 8, PUT, 0, 9, 1}, {2, 3, GET, 0, 7, 0}, {4, 5, GET, 0, 9, 0}}};

	EXPECT_TRUE(is_linearizable(&maybe));
	EXPECT_TRUE(is_linearizable(&never));
	EXPECT_TRUE(is_linearizable(&overlap));
}
