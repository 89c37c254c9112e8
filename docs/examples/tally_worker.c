/*
 * tally_worker.c - takes chunks, counts the identifiers of each, and puts one result per chunk
 * into the map. Any worker may be killed at any instruction.
 *
 * Owner:     of a chunk: the worker whose pid is in the place's word.
 * Invariant: K1 the map gets one result for a chunk, however many workers have died over it
 * Ordering:  tally.place (tally.h); map and channel order what they carry.
 * Lifetime:  the chunk is freed by the reducer, so it stays while we, or those after us, read it.
 * Death:     our tables were never published: shale frees them. The place still names us, so the
 *            coordinator gives the chunk to somebody else, unless the result is in the map already.
 */
#include "tally.h"
#include "words.h"

#include <errno.h>
#include <unistd.h>

struct worker {
	struct shale_segment *segment;
	struct tally_job *job;
	struct shale_channel *chunks;
	struct shale_channel *done;
	struct shale_channel *news;
	struct shale_map *results;
};

/* A chunk in which a worker is to be killed: say so, to be killed at any moment from now on. */
static void announce_doom(struct worker *worker, uint64_t number)
{
	struct tally_news news = {
		.kind = TALLY_NEWS_DOOMED,
		.pid = (uint32_t)getpid(),
		.number = number,
	};
	int r = shale_channel_send(worker->news, &news, sizeof(news), SHALE_NO_DEADLINE);

	if (r < 0)
		tally_die(r, "sending news");
}

/*
 * Counting a small chunk takes less time than killing a process. So a doomed worker that has got
 * as far as this waits here, and is certain to die between taking its chunk and publishing.
 */
static _Noreturn void await_doom(void)
{
	for (;;)
		pause();
}

/* One insert makes the result visible, whole and once: there is no half-published result. */
static void publish_result(struct worker *worker, uint64_t number, const struct words *words)
{
	size_t size = words_packed_size(words);
	unsigned char *packed = shale_alloc(worker->segment, size);
	int r;

	if (!packed)
		tally_die(errno, "a result of %zu bytes", size);
	words_pack(words, packed);
	r = shale_map_insert(worker->results, &number, sizeof(number), packed, size);
	if (r < 0 && r != -EEXIST) /* somebody before us got further than it seemed: as good */
		tally_die(r, "result of chunk %llu", (unsigned long long)number);
	shale_free(worker->segment, packed);
}

static void count_chunk(struct worker *worker, struct tally_place *place, uint64_t number)
{
	size_t size = atomic_load_explicit(&place->size, memory_order_relaxed);
	bool doomed = atomic_load_explicit(&place->doomed, memory_order_relaxed) > 0;
	const unsigned char *text =
		shale_ptr(worker->segment, (shale_ref){.off = place->chunk}, size);
	struct words words;
	int r;

	if (!text)
		tally_die(0, "chunk %llu is not in the segment", (unsigned long long)number);
	if (doomed)
		announce_doom(worker, number);
	r = words_init(&words, worker->segment, text);
	if (r == 0)
		r = words_tally(&words, size);
	if (r < 0)
		tally_die(r, "counting chunk %llu", (unsigned long long)number);
	if (doomed)
		await_doom();
	publish_result(worker, number, &words);
	words_finish(&words);
}

/* A message is a hint that there is work; the work is ours if the place lets us take it. */
static void work_at(struct worker *worker, const struct tally_chunk *chunk)
{
	struct tally_place *place = &worker->job->places[chunk->place];
	uint64_t ready = tally_state(TALLY_READY, chunk->number, 0);
	int r;

	if (!tally_move(place, ready, tally_state(TALLY_TAKEN, chunk->number, getpid())))
		return;
	count_chunk(worker, place, chunk->number);
	r = shale_channel_send(worker->done, chunk, sizeof(*chunk), SHALE_NO_DEADLINE);
	if (r < 0)
		tally_die(r, "telling the reducer");
}

int main(int argc, char **argv)
{
	struct worker worker = {.segment = tally_join(argc, argv)};
	struct tally_chunk chunk;
	size_t size;
	int r;

	worker.job = tally_find_job(worker.segment);
	worker.chunks = tally_channel(worker.segment, TALLY_CHUNKS);
	worker.done = tally_channel(worker.segment, TALLY_DONE);
	worker.news = tally_channel(worker.segment, TALLY_NEWS);
	worker.results = tally_map(worker.segment, TALLY_RESULTS, 0);
	for (;;) {
		r = shale_channel_receive(worker.chunks, &chunk, sizeof(chunk), &size,
					  SHALE_NO_DEADLINE);
		if (r == -EPIPE) /* shut down and empty: the day is over */
			break;
		if (r == -EINTR)
			continue;
		if (r < 0 || size != sizeof(chunk) || chunk.place >= worker.job->place_count)
			tally_die(r, "channel %s", TALLY_CHUNKS);
		work_at(&worker, &chunk);
	}
	shale_map_close(worker.results);
	shale_channel_close(worker.news);
	shale_channel_close(worker.done);
	shale_channel_close(worker.chunks);
	shale_segment_detach(worker.segment);
	return 0;
}
