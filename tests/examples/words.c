/*
 * words.c - the pure parts of the tally: where identifiers lie, where a text may be cut, counting,
 * packing, and the comparison that must see every difference.
 *
 * Owner:     nothing is shared.
 * Invariant: a text counted in pieces has the counts of the whole, wherever words_cut() cut it.
 * Ordering:  none.
 * Lifetime:  each test frees what it makes, or ends.
 * Death:     not concerned.
 */
#include "lib/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../docs/examples/compare.h"
#include "../../docs/examples/words.h"

#define BYTES(literal) ((const unsigned char *)(literal)), (sizeof(literal) - 1)

static void expect_words(const unsigned char *text, size_t size, const char *expected)
{
	char found[256] = "";
	size_t position = 0, start, length;

	while (words_next(text, size, &position, &start, &length)) {
		strncat(found, (const char *)text + start, length);
		strcat(found, ",");
	}
	EXPECT_STR_EQ(found, expected);
}

TEST(words, are_those_of_grep)
{
	expect_words(BYTES(""), "");
	expect_words(BYTES("0123 + 45"), "");
	expect_words(BYTES("int a_1 = 0x1f"), "int,a_1,x1f,");
	expect_words(BYTES("9abc _ __x1"), "abc,_,__x1,");
	expect_words(BYTES("a\0b\nc"), "a,b,c,");
	expect_words(BYTES("\xff"
			   "ab\xc3\xa9"
			   "cd"),
		     "ab,cd,");
}

TEST(words, cut_leaves_identifiers_whole)
{
	EXPECT_EQ(words_cut(BYTES("")), 0);
	EXPECT_EQ(words_cut(BYTES("ab cd")), 3);
	EXPECT_EQ(words_cut(BYTES("ab ")), 3);
	EXPECT_EQ(words_cut(BYTES("abcd")), 0);
	EXPECT_EQ(words_cut(BYTES("ab1")), 0);
	EXPECT_EQ(words_cut(BYTES("123")), 3); /* digits alone begin no identifier */
	EXPECT_EQ(words_cut(BYTES("123ab")), 3);
	EXPECT_EQ(words_cut(BYTES(" 12ab3")), 3);
}

static void fill(unsigned char *text, size_t size)
{
	static const unsigned char alphabet[] = {'a', 'B', '_', '0', '9', ' ', '\n', '\0', 0xff};

	for (size_t i = 0; i < size; i++)
		text[i] = alphabet[test_random_below(sizeof(alphabet))];
}

/* Adds the words of one piece to the sums by way of packed bytes, as the reducer does. */
static void add_piece(struct words *sums, const unsigned char *text, size_t size)
{
	struct words piece;
	unsigned char *packed;
	const unsigned char *word;
	size_t packed_size, position = 0;
	uint64_t count;
	uint32_t length;

	ASSERT_OK(words_init(&piece, NULL, text));
	ASSERT_OK(words_tally(&piece, size));
	packed_size = words_packed_size(&piece);
	packed = malloc(packed_size + 1);
	ASSERT_NOT_NULL(packed);
	words_pack(&piece, packed);
	while (words_unpack(packed, packed_size, &position, &word, &length, &count)) {
		uint32_t hash = words_hash(word, length);
		struct word *cell;

		ASSERT_OK(words_grow(sums));
		cell = words_find(sums, word, length, hash);
		ASSERT_TRUE(cell->count >= count); /* the sums hold the whole text: counted down */
		cell->count -= count;
		if (cell->count == 0)
			cell->count = UINT64_MAX; /* an empty cell would end searches */
	}
	EXPECT_EQ(position, packed_size);
	free(packed);
	words_finish(&piece);
}

TEST(words, pieces_have_the_counts_of_the_whole)
{
	static unsigned char text[20000];

	for (size_t limit = 1; limit < 200; limit = limit * 2 + 1) {
		struct words whole;
		size_t at = 0;

		fill(text, sizeof(text));
		ASSERT_OK(words_init(&whole, NULL, text));
		ASSERT_OK(words_tally(&whole, sizeof(text)));
		while (at < sizeof(text)) {
			size_t size = sizeof(text) - at < limit ? sizeof(text) - at : limit;
			size_t cut = words_cut(text + at, size);

			while (cut == 0 && at + size < sizeof(text))
				cut = words_cut(text + at, ++size);
			if (at + size == sizeof(text))
				cut = size;
			add_piece(&whole, text + at, cut);
			at += cut;
		}
		for (size_t i = 0; i < whole.cell_count; i++)
			EXPECT_TRUE(whole.cells[i].count == 0 ||
				    whole.cells[i].count == UINT64_MAX);
		words_finish(&whole);
	}
}

TEST(words, unpack_refuses_damaged_bytes)
{
	const unsigned char short_head[11] = {1};
	const unsigned char long_word[13] = {1, 0, 0, 0, 0, 0, 0, 0, 200, 0, 0, 0, 'a'};
	const unsigned char *word;
	size_t position = 0;
	uint64_t count;
	uint32_t size;

	EXPECT_FALSE(words_unpack(short_head, sizeof(short_head), &position, &word, &size, &count));
	EXPECT_FALSE(words_unpack(long_word, sizeof(long_word), &position, &word, &size, &count));
	EXPECT_EQ(position, 0);
}

/* ---- the comparison ---- */

static unsigned char alpha[] = "alpha", beta[] = "beta", gamma_[] = "gamma";
static const struct count ours[] = {{alpha, 5, 3}, {beta, 4, 1}, {gamma_, 5, 70}};

static int64_t compare(const char *lines)
{
	FILE *file = tmpfile(), *report = fopen("/dev/null", "w");
	int64_t differences;

	ASSERT_TRUE(file && report);
	fputs(lines, file);
	rewind(file);
	differences = compare_counts(ours, 3, file, report);
	fclose(file);
	fclose(report);
	return differences;
}

TEST(compare, equal_lists_have_no_difference)
{
	EXPECT_EQ(compare("      3 alpha\n      1 beta\n     70 gamma\n"), 0);
}

TEST(compare, every_kind_of_difference_is_seen)
{
	EXPECT_EQ(compare(""), 3);
	EXPECT_EQ(compare("3 alpha\n1 beta\n71 gamma\n"), 1);           /* one count */
	EXPECT_EQ(compare("3 alpha\n70 gamma\n"), 1);                   /* we have one more */
	EXPECT_EQ(compare("3 alpha\n1 beta\n1 betb\n70 gamma\n"), 1);   /* one too few */
	EXPECT_EQ(compare("1 Alpha\n3 alpha\n1 beta\n70 gamma\n"), 1);  /* at the start */
	EXPECT_EQ(compare("3 alpha\n1 beta\n70 gamma\n1 gammas\n"), 1); /* at the end */
	EXPECT_EQ(compare("3 alphA\n2 beta\n70 gamma\n"), 3);
	EXPECT_ERRNO(-EINVAL, compare("3 alpha\nbeta\n70 gamma\n"));
}

/* The pipeline itself, on a file whose name has all that a shell would trip over. */
TEST(compare, grep_sees_what_the_list_names)
{
	char directory[] = "/tmp/shale-compare-XXXXXX";
	char path[128];
	FILE *file, *list = tmpfile(), *report = fopen("/dev/null", "w");

	ASSERT_TRUE(mkdtemp(directory) && list && report);
	snprintf(path, sizeof(path), "%s/a b\n'c\"$HOME", directory);
	file = fopen(path, "w");
	ASSERT_NOT_NULL(file);
	fputs("alpha alpha\n0alpha beta", file);
	for (int i = 0; i < 70; i++)
		fputs(" gamma", file);
	fclose(file);
	fwrite(path, 1, strlen(path) + 1, list);
	fflush(list);
	EXPECT_EQ(compare_with_grep(ours, 3, fileno(list), report), 0);
	EXPECT_EQ(compare_with_grep(ours, 2, fileno(list), report), 1);
	unlink(path);
	rmdir(directory);
	fclose(list);
	fclose(report);
}
