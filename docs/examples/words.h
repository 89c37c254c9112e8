/*
 * words.h - identifiers: where they start and end, and a table that counts them.
 *
 * An identifier is a longest match of [A-Za-z_][A-Za-z0-9_]* in bytes, as `grep -aoE` finds them
 * in the C locale: "0x1f" holds "x1f", and a NUL or a byte above 127 is no letter.
 */
#ifndef TALLY_WORDS_H
#define TALLY_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <shale/segment.h>

/* A letter, digit or underscore. */
bool words_is_part(unsigned char byte);

/* The next identifier at or after *position: false when there is none. */
bool words_next(const unsigned char *text, size_t size, size_t *position, size_t *ret_start,
		size_t *ret_size);

/*
 * The largest n <= size where the text may be cut so that no identifier is split, whatever comes
 * behind it; 0 if all of it may be the beginning of one identifier.
 */
size_t words_cut(const unsigned char *text, size_t size);

/* A word that was counted: text and size name its bytes, wherever they lie. */
struct word {
	uint64_t at;    /* offset from the `text` of its table */
	uint64_t count; /* 0: this cell is empty */
	uint32_t size;
	uint32_t hash;
};

/*
 * Counts words. The cells are in unpublished memory of `segment`: nobody else knows of them, and if
 * this process dies they are free again. Without a segment they are ordinary private memory.
 */
struct words {
	struct shale_segment *segment;
	const unsigned char *text; /* what `at` counts from */
	struct word *cells;
	size_t cell_count; /* power of two */
	size_t used;       /* distinct words */
};

int words_init(struct words *words, struct shale_segment *segment, const unsigned char *text);
void words_finish(struct words *words);

uint32_t words_hash(const unsigned char *word, size_t size);

/*
 * The cell of that word, or the empty one where it belongs: the caller sets at, size and hash
 * of an empty one and counts it in `used`; words_grow() must have been called before.
 */
struct word *words_find(struct words *words, const unsigned char *word, size_t size, uint32_t hash);

/* Makes room for one more word. 0 or -ENOMEM. */
int words_grow(struct words *words);

/* Adds every identifier of the text (that was given to words_init()). 0, -ENOMEM, -E2BIG. */
int words_tally(struct words *words, size_t size);

/*
 * The counted words as bytes: for each one count (8 bytes), size (4 bytes), and its text.
 * words_unpack() takes the next one from there: false at the end, or when the bytes are damaged.
 */
size_t words_packed_size(const struct words *words);
void words_pack(const struct words *words, unsigned char *packed);
bool words_unpack(const unsigned char *packed, size_t size, size_t *position,
		  const unsigned char **ret_word, uint32_t *ret_size, uint64_t *ret_count);

#endif
