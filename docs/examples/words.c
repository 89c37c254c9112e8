/*
 * words.c - finds and counts identifiers; knows nothing of processes.
 *
 * Owner:     a table belongs to one thread; its cells may lie in the segment, unpublished.
 * Invariant: W1 at least a quarter of the cells is empty, so that a search ends
 *            W2 a word has one cell: the first from its hash on that holds it or is empty
 * Ordering:  none, nothing here is shared.
 * Lifetime:  cells live from words_init() to words_finish().
 * Death:     unpublished cells are freed when somebody recovers the dead process.
 */
#include "words.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <shale/heap.h>

#define FIRST_CELLS 4096

static bool is_start(unsigned char byte)
{
	return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || byte == '_';
}

bool words_is_part(unsigned char byte)
{
	return is_start(byte) || (byte >= '0' && byte <= '9');
}

bool words_next(const unsigned char *text, size_t size, size_t *position, size_t *ret_start,
		size_t *ret_size)
{
	size_t start = *position;
	size_t end;

	while (start < size && !is_start(text[start]))
		start++;
	end = start;
	while (end < size && words_is_part(text[end]))
		end++;
	*position = end;
	*ret_start = start;
	*ret_size = end - start;
	return end > start;
}

size_t words_cut(const unsigned char *text, size_t size)
{
	size_t cut = size;

	while (cut > 0 && words_is_part(text[cut - 1]))
		cut--;
	/* What follows digits that follow no letter starts anew: "12" and "ab" for "12ab". */
	while (cut < size && !is_start(text[cut]))
		cut++;
	return cut;
}

uint32_t words_hash(const unsigned char *word, size_t size)
{
	uint64_t hash = 0xcbf29ce484222325u;

	for (size_t i = 0; i < size; i++)
		hash = (hash ^ word[i]) * 0x100000001b3u;
	return (uint32_t)(hash ^ hash >> 32);
}

static struct word *cells_alloc(struct words *words, size_t count)
{
	if (!words->segment)
		return calloc(count, sizeof(struct word));
	return shale_alloc_zeroed(words->segment, count * sizeof(struct word));
}

static void cells_free(struct words *words, struct word *cells)
{
	if (words->segment)
		shale_free(words->segment, cells);
	else
		free(cells);
}

int words_init(struct words *words, struct shale_segment *segment, const unsigned char *text)
{
	*words = (struct words){.segment = segment, .text = text, .cell_count = FIRST_CELLS};
	words->cells = cells_alloc(words, words->cell_count);
	return words->cells ? 0 : -ENOMEM;
}

void words_finish(struct words *words)
{
	cells_free(words, words->cells);
	*words = (struct words){0};
}

struct word *words_find(struct words *words, const unsigned char *word, size_t size, uint32_t hash)
{
	size_t mask = words->cell_count - 1;

	for (size_t i = hash & mask;; i = (i + 1) & mask) {
		struct word *cell = &words->cells[i];

		if (cell->count == 0)
			return cell;
		if (cell->hash == hash && cell->size == size &&
		    memcmp(words->text + cell->at, word, size) == 0)
			return cell;
	}
}

/* Where a word that is in no cell yet belongs. */
static struct word *empty_cell(struct word *cells, size_t count, uint32_t hash)
{
	size_t i = hash & (count - 1);

	while (cells[i].count != 0)
		i = (i + 1) & (count - 1);
	return &cells[i];
}

int words_grow(struct words *words)
{
	size_t count = words->cell_count * 2;
	struct word *cells;

	if (words->used < words->cell_count / 4 * 3)
		return 0;
	cells = cells_alloc(words, count);
	if (!cells)
		return -ENOMEM;
	for (size_t i = 0; i < words->cell_count; i++) {
		if (words->cells[i].count != 0)
			*empty_cell(cells, count, words->cells[i].hash) = words->cells[i];
	}
	cells_free(words, words->cells);
	words->cells = cells;
	words->cell_count = count;
	return 0;
}

int words_tally(struct words *words, size_t size)
{
	size_t position = 0;
	size_t start, length;

	while (words_next(words->text, size, &position, &start, &length)) {
		uint32_t hash = words_hash(words->text + start, length);
		struct word *cell;

		if (length > UINT32_MAX)
			return -E2BIG;
		if (words_grow(words) < 0)
			return -ENOMEM;
		cell = words_find(words, words->text + start, length, hash);
		if (cell->count == 0) {
			*cell = (struct word){.at = start, .size = (uint32_t)length, .hash = hash};
			words->used++;
		}
		cell->count++;
	}
	return 0;
}

size_t words_packed_size(const struct words *words)
{
	size_t size = 0;

	for (size_t i = 0; i < words->cell_count; i++) {
		if (words->cells[i].count != 0)
			size += sizeof(uint64_t) + sizeof(uint32_t) + words->cells[i].size;
	}
	return size;
}

void words_pack(const struct words *words, unsigned char *packed)
{
	for (size_t i = 0; i < words->cell_count; i++) {
		const struct word *cell = &words->cells[i];

		if (cell->count == 0)
			continue;
		memcpy(packed, &cell->count, sizeof(cell->count));
		packed += sizeof(cell->count);
		memcpy(packed, &cell->size, sizeof(cell->size));
		packed += sizeof(cell->size);
		memcpy(packed, words->text + cell->at, cell->size);
		packed += cell->size;
	}
}

bool words_unpack(const unsigned char *packed, size_t size, size_t *position,
		  const unsigned char **ret_word, uint32_t *ret_size, uint64_t *ret_count)
{
	const size_t head = sizeof(*ret_count) + sizeof(*ret_size);
	size_t at = *position;

	if (size - at < head)
		return false;
	memcpy(ret_count, packed + at, sizeof(*ret_count));
	memcpy(ret_size, packed + at + sizeof(*ret_count), sizeof(*ret_size));
	if (size - at - head < *ret_size)
		return false;
	*ret_word = packed + at + head;
	*position = at + head + *ret_size;
	return true;
}
