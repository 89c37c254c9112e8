/*
 * tally_reducer.c - adds the results of all chunks, frees the chunks, and leaves the totals in a
 * map for the coordinator.
 *
 * Owner:     of a chunk and its result from the moment when the result is in the map.
 * Invariant: R1 a result is added once: it is in the map until it has been added, and not after
 * Ordering:  tally.place (tally.h).
 * Lifetime:  the sums are in this process's own memory until all chunks are there.
 * Death:     not provided for here: the coordinator gives up. (The results it had not yet added
 *            are still in the map; the sums would have to live in the segment as well.)
 */
#include "tally.h"
#include "words.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct reducer {
	struct shale_segment *segment;
	struct tally_job *job;
	struct shale_map *results;
	struct words sums;
	unsigned char *text; /* the words that `sums` counts, one behind the other */
	size_t text_used, text_size;
	unsigned char *result; /* a copy of the result in hand */
	size_t result_room;
};

static void *grow(void *memory, size_t size)
{
	void *larger = realloc(memory, size);

	if (!larger)
		tally_die(ENOMEM, "%zu bytes for the sums", size);
	return larger;
}

/* Keeps the bytes of a new word; returns where in `text`. */
static size_t keep_text(struct reducer *reducer, const unsigned char *word, uint32_t size)
{
	size_t at = reducer->text_used;

	if (reducer->text_size - at < size) {
		reducer->text_size = reducer->text_size * 2 + size;
		reducer->text = grow(reducer->text, reducer->text_size);
		reducer->sums.text = reducer->text;
	}
	memcpy(reducer->text + at, word, size);
	reducer->text_used = at + size;
	return at;
}

static void add(struct reducer *reducer, const unsigned char *word, uint32_t size, uint64_t count)
{
	uint32_t hash = words_hash(word, size);
	struct word *cell;

	if (words_grow(&reducer->sums) < 0)
		tally_die(ENOMEM, "the sums");
	cell = words_find(&reducer->sums, word, size, hash);
	if (cell->count == 0) {
		cell->at = keep_text(reducer, word, size);
		cell->size = size;
		cell->hash = hash;
		reducer->sums.used++;
	}
	cell->count += count;
}

/* Copies the result of that chunk out of the map. False: it is not there. */
static bool get_result(struct reducer *reducer, uint64_t number, size_t *ret_size)
{
	int r;

	while ((r = shale_map_get(reducer->results, &number, sizeof(number), reducer->result,
				  reducer->result_room, ret_size)) == -EMSGSIZE) {
		reducer->result_room = *ret_size;
		reducer->result = grow(reducer->result, reducer->result_room);
	}
	if (r < 0 && r != -ENOENT)
		tally_die(r, "result of chunk %llu", (unsigned long long)number);
	return r == 0;
}

/*
 * The chunk is done with. First the place and then the result: as long as the place names a worker,
 * the result is in the map, and nobody thinks that the chunk has to be counted again.
 */
static void finish_chunk(struct reducer *reducer, const struct tally_chunk *chunk)
{
	struct tally_place *place = &reducer->job->places[chunk->place];
	void *block;
	int r = shale_take_at(reducer->segment, &place->chunk, &block);

	if (r == 0)
		r = shale_free(reducer->segment, block);
	if (r == 0 && !tally_move(place, tally_look(place), tally_state(TALLY_FREE, 0, 0)))
		r = -EUCLEAN;
	if (r == 0)
		r = shale_map_delete(reducer->results, &chunk->number, sizeof(chunk->number));
	if (r < 0)
		tally_die(r, "finishing chunk %llu", (unsigned long long)chunk->number);
	shale_event_wake(&reducer->job->room);
}

/* Adds what a worker has announced. False: an announcement that was made twice. */
static bool reduce(struct reducer *reducer, const struct tally_chunk *chunk)
{
	const unsigned char *word;
	size_t result_size, position = 0;
	uint64_t count;
	uint32_t size;

	if (!get_result(reducer, chunk->number, &result_size))
		return false;
	while (words_unpack(reducer->result, result_size, &position, &word, &size, &count))
		add(reducer, word, size, count);
	if (position != result_size)
		tally_die(0, "result of chunk %llu is damaged", (unsigned long long)chunk->number);
	finish_chunk(reducer, chunk);
	return true;
}

static void reduce_all(struct reducer *reducer)
{
	struct shale_channel *done = tally_channel(reducer->segment, TALLY_DONE);
	uint64_t added = 0, expected = UINT64_MAX;

	while (added != expected) {
		struct tally_chunk chunk;
		size_t size;
		int r = shale_channel_receive(done, &chunk, sizeof(chunk), &size,
					      SHALE_NO_DEADLINE);

		if (r == -EINTR)
			continue;
		if (r < 0 || size != sizeof(chunk))
			tally_die(r, "channel %s", TALLY_DONE);
		if (chunk.place == TALLY_END)
			expected = chunk.number;
		else if (chunk.place >= reducer->job->place_count)
			tally_die(0, "there is no place %llu", (unsigned long long)chunk.place);
		else
			added += reduce(reducer, &chunk);
	}
	shale_channel_close(done);
}

/* The map, unlike our own memory, is still there when we are not. */
static void leave_totals(struct reducer *reducer)
{
	const struct words *sums = &reducer->sums;
	uint64_t entries = sums->used > 0 ? sums->used : 1;
	struct shale_map *totals = tally_map(reducer->segment, TALLY_TOTALS, entries);

	for (size_t i = 0; i < sums->cell_count; i++) {
		const struct word *cell = &sums->cells[i];
		int r;

		if (cell->count == 0)
			continue;
		r = shale_map_put(totals, reducer->text + cell->at, cell->size, &cell->count,
				  sizeof(cell->count));
		if (r < 0)
			tally_die(r, "map %s", TALLY_TOTALS);
	}
	shale_map_close(totals);
}

int main(int argc, char **argv)
{
	struct reducer reducer = {.segment = tally_join(argc, argv)};

	reducer.job = tally_find_job(reducer.segment);
	reducer.results = tally_map(reducer.segment, TALLY_RESULTS, 0);
	if (words_init(&reducer.sums, NULL, NULL) < 0)
		tally_die(ENOMEM, "the sums");
	reduce_all(&reducer);
	leave_totals(&reducer);
	words_finish(&reducer.sums);
	free(reducer.text);
	free(reducer.result);
	shale_map_close(reducer.results);
	shale_segment_detach(reducer.segment);
	return 0;
}
