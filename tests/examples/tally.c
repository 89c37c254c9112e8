/*
 * tally.c - the main job on small trees: exact counts with killed workers, on every kind of page,
 * against a counter that is neither the tally's nor grep's (regexec).
 *
 * Owner:     each test owns a directory of its own under TMPDIR.
 * Invariant: the counts do not depend on chunk size, workers, kills, seed or pages.
 * Ordering:  the tally has ended before its output is read.
 * Lifetime:  the directory goes with the test.
 * Death:     workers are killed by the tally itself.
 */
#include "lib/harness.h"
#include "lib/hugepages.h"

#include <cjson/cJSON.h>
#include <ftw.h>
#include <regex.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_ARGUMENTS 24

FIXTURE(tally)
{
	char directory[64];
	char tree[80];
	char json[80];
	char output[80];
};

FIXTURE_SETUP(tally)
{
	strcpy(self->directory, "/tmp/shale-tally-XXXXXX");
	ASSERT_NOT_NULL(mkdtemp(self->directory));
	snprintf(self->tree, sizeof(self->tree), "%s/tree", self->directory);
	snprintf(self->json, sizeof(self->json), "%s/json", self->directory);
	snprintf(self->output, sizeof(self->output), "%s/output", self->directory);
	ASSERT_SYS(mkdir(self->tree, 0700));
}

static int remove_one(const char *path, const struct stat *stat, int flag, struct FTW *walk)
{
	(void)stat;
	(void)flag;
	(void)walk;
	return remove(path);
}

FIXTURE_TEARDOWN(tally)
{
	nftw(self->directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- input ---- */

static void put(struct tally_fixture *self, const char *name, const void *bytes, size_t size)
{
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", self->tree, name);
	file = fopen(path, "w");
	ASSERT_NOT_NULL(file);
	ASSERT_EQ(fwrite(bytes, 1, size, file), size);
	ASSERT_EQ(fclose(file), 0);
}

/* Words of all lengths, digits before letters, NUL, bytes above 127, few line ends. */
static void put_noise(struct tally_fixture *self, const char *name, size_t size)
{
	static const char *const pieces[] = {"int",
					     "x",
					     " ",
					     "0x1f",
					     "9abc",
					     "_",
					     "\xff",
					     "\xc3\xa9",
					     "\n",
					     "12",
					     "a_b_c_d_e_f_g_h",
					     "+",
					     "struct "};
	char *noise = malloc(size + 32);
	size_t used = 0;

	ASSERT_NOT_NULL(noise);
	while (used < size) {
		uint64_t i = test_random_below(14);

		if (i == 13)
			noise[used++] = '\0';
		else
			used += (size_t)(stpcpy(noise + used, pieces[i]) - (noise + used));
	}
	put(self, name, noise, size);
	free(noise);
}

static void put_tree(struct tally_fixture *self)
{
	char path[256];

	put(self, "empty", "", 0);
	put(self, "no end", "alpha beta", 10);
	put(self, "no start", "gamma", 5); /* must not join the file before */
	put(self, "-dash", "dash dash", 9);
	put(self, "line\nend", "newline in a name\n", 18);
	put(self, "digits", "0x1f 9abc 12ab34cd 77 0b_1 1_2", 30);
	put_noise(self, "noise", 60000);
	put_noise(self, "more noise", 3001);
	snprintf(path, sizeof(path), "%s/deep er", self->tree);
	ASSERT_SYS(mkdir(path, 0700));
	put_noise(self, "deep er/noise", 20000);
	snprintf(path, sizeof(path), "%s/link", self->tree);
	ASSERT_SYS(symlink("noise", path)); /* not followed: counted once */
	snprintf(path, sizeof(path), "%s/loop", self->tree);
	ASSERT_SYS(symlink(".", path));
}

/* ---- the program ---- */

/* Runs tally with these arguments (NULL ends them) and returns its exit status. */
static int run_tally(struct tally_fixture *self, ...)
{
	char program[4096];
	char *arguments[MAX_ARGUMENTS + 4] = {program, NULL, self->json};
	int count = 3, status = -1;
	static char json_option[] = "--json";
	va_list list;
	pid_t pid;

	ASSERT_NOT_NULL(getenv("SHALE_BUILD_ROOT"));
	snprintf(program, sizeof(program), "%s/docs/examples/tally", getenv("SHALE_BUILD_ROOT"));
	arguments[1] = json_option;
	va_start(list, self);
	while (count < MAX_ARGUMENTS && (arguments[count] = va_arg(list, char *)))
		count++;
	va_end(list);
	pid = fork();
	ASSERT_SYS(pid);
	if (pid == 0) {
		if (!freopen(self->output, "w", stdout) || dup2(1, 2) < 0)
			_exit(126);
		execv(program, arguments);
		_exit(127);
	}
	ASSERT_OK(test_reap(pid, 60000, &status));
	ASSERT_TRUE(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static char *read_all(const char *path)
{
	FILE *file = fopen(path, "r");
	char *text = NULL;
	size_t room = 0;

	ASSERT_NOT_NULL(file);
	if (getdelim(&text, &room, '\0', file) < 0)
		ASSERT_NOT_NULL(text = strdup(""));
	fclose(file);
	return text;
}

/* The last line, without its end. */
static char *last_line(struct tally_fixture *self)
{
	char *text = read_all(self->output);
	size_t size = strlen(text);
	char *line;

	if (size > 0 && text[size - 1] == '\n')
		text[size - 1] = '\0';
	line = strrchr(text, '\n');
	line = strdup(line ? line + 1 : text);
	free(text);
	ASSERT_NOT_NULL(line);
	return line;
}

static void show_output(struct tally_fixture *self)
{
	char *text = read_all(self->output);

	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		test_log("%s", line);
	free(text);
}

/* ---- the other counter ---- */

static cJSON *expected;
static regex_t identifier;

static void count_word(const char *word, size_t size)
{
	char name[4096];
	cJSON *item;

	ASSERT_LT(size, sizeof(name));
	memcpy(name, word, size);
	name[size] = '\0';
	item = cJSON_GetObjectItemCaseSensitive(expected, name);
	if (item)
		cJSON_SetNumberValue(item, item->valuedouble + 1);
	else
		cJSON_AddNumberToObject(expected, name, 1);
}

static int count_file(const char *path, const struct stat *stat, int flag, struct FTW *walk)
{
	char *text = malloc((size_t)stat->st_size + 1);
	FILE *file;
	size_t size;
	regmatch_t match = {.rm_so = 0};

	(void)walk;
	if (flag == FTW_F && S_ISREG(stat->st_mode) && text && (file = fopen(path, "r"))) {
		size = fread(text, 1, (size_t)stat->st_size, file);
		fclose(file);
		text[size] = 0; /* for sanitizers, which look for an end */
		match.rm_eo = (regoff_t)size;
		while (regexec(&identifier, text, 1, &match, REG_STARTEND) == 0) {
			count_word(text + match.rm_so, (size_t)(match.rm_eo - match.rm_so));
			match.rm_so = match.rm_eo;
			match.rm_eo = (regoff_t)size;
		}
	}
	free(text);
	return 0;
}

static void expect_same_counts(struct tally_fixture *self)
{
	char *text = read_all(self->json);
	cJSON *json = cJSON_Parse(text);
	cJSON *counts = cJSON_GetObjectItemCaseSensitive(json, "counts");
	cJSON *item;

	ASSERT_NOT_NULL(counts);
	ASSERT_EQ(regcomp(&identifier, "[A-Za-z_][A-Za-z0-9_]*", REG_EXTENDED), 0);
	expected = cJSON_CreateObject();
	ASSERT_EQ(nftw(self->tree, count_file, 16, FTW_PHYS), 0);
	cJSON_ArrayForEach(item, expected)
	{
		cJSON *ours = cJSON_GetObjectItemCaseSensitive(counts, item->string);

		if (!ours || ours->valuedouble < item->valuedouble ||
		    ours->valuedouble > item->valuedouble)
			TEST_FAIL("%s: %.0f counted, %.0f there", item->string,
				  ours ? ours->valuedouble : 0, item->valuedouble);
	}
	EXPECT_EQ(cJSON_GetArraySize(counts), cJSON_GetArraySize(expected));
	cJSON_Delete(expected);
	cJSON_Delete(json);
	regfree(&identifier);
	free(text);
}

/* The run has ended with this status, and must say "equal", with that many files and kills. */
static void expect_line(struct tally_fixture *self, int wanted, int status, int files, int kills)
{
	char start[32], end[32];
	char *line = last_line(self);
	size_t size = strlen(line), tail;

	snprintf(start, sizeof(start), "equal: %d files,", files);
	tail = (size_t)snprintf(end, sizeof(end), " %d killed", kills);
	if (!EXPECT_EQ(status, wanted) || !EXPECT_EQ(strncmp(line, start, strlen(start)), 0) ||
	    !EXPECT_STR_EQ(line + (size > tail ? size - tail : 0), end))
		show_output(self);
	free(line);
}

static void expect_equal(struct tally_fixture *self, int status, int files, int kills)
{
	expect_line(self, 0, status, files, kills);
}

/* ---- tests ---- */

TEST_F_TIMEOUT(tally, counts_are_exact_though_workers_are_killed, 120)
{
	put_tree(self);
	expect_equal(self, run_tally(self, "--chunk", "777", "--kills", "5", self->tree, NULL), 9,
		     5);
	expect_same_counts(self);
}

/* Chunks shorter than some identifiers: they grow. */
TEST_F_TIMEOUT(tally, identifiers_longer_than_a_chunk_stay_whole, 120)
{
	put_noise(self, "noise", 5000);
	expect_equal(self, run_tally(self, "--chunk", "16", "--kills", "2", self->tree, NULL), 1,
		     2);
	expect_same_counts(self);
}

static void expect_equal_on(struct tally_fixture *self, const char *pages)
{
	expect_equal(self, run_tally(self, "--pages", pages, self->tree, NULL), 9, 1);
	expect_same_counts(self);
}

TEST_F_TIMEOUT(tally, small_pages_give_the_same, 120)
{
	put_tree(self);
	expect_equal_on(self, "4k");
	expect_equal_on(self, "thp");
}

TEST_F_TIMEOUT(tally, huge_pages_give_the_same, 120)
{
	hugepages_require_free(2 << 20, HUGEPAGES_ANY_NODE, 64);
	put_tree(self);
	expect_equal_on(self, "2m");
	expect_equal_on(self, "auto");
}

TEST_F_TIMEOUT(tally, without_huge_pages_it_runs_as_well, 120)
{
	hugepages_require_none(2 << 20);
	put_tree(self);
	expect_equal_on(self, "auto");
}

TEST_F_TIMEOUT(tally, more_kills_than_workers_and_chunks, 120)
{
	put(self, "one", "one two two", 11);
	expect_equal(self, run_tally(self, "--workers", "1", "--kills", "4", self->tree, NULL), 1,
		     4);
	expect_same_counts(self);
}

TEST_F(tally, nothing_to_count)
{
	char *text;

	expect_equal(self, run_tally(self, self->tree, NULL), 0, 0);
	text = read_all(self->output);
	EXPECT_NOT_NULL(strstr(text, "\nnothing     there is no file to count\nequal: "));
	free(text);
	put(self, "empty", "", 0);
	put(self, "empty too", "", 0);
	expect_equal(self, run_tally(self, self->tree, NULL), 2, 0);
}

TEST_F(tally, what_cannot_be_read_is_reported_and_left_out)
{
	char missing[256], device[] = "/dev/null", *text;

	put(self, "one", "one", 3);
	snprintf(missing, sizeof(missing), "%s/missing", self->tree);
	/* The rest is counted and compared all the same. */
	expect_line(self, 1, run_tally(self, self->tree, missing, device, NULL), 1, 1);
	text = read_all(self->output);
	EXPECT_NOT_NULL(strstr(text, "missing: No such file or directory"));
	EXPECT_NOT_NULL(strstr(text, "/dev/null: not a regular file"));
	EXPECT_NOT_NULL(strstr(text, "\nincomplete  2 of what was named"));
	free(text);
}

/* A link to nowhere that nobody has named is no error. */
TEST_F(tally, only_what_was_named_must_be_there)
{
	char path[256];

	put(self, "one", "one", 3);
	snprintf(path, sizeof(path), "%s/nowhere", self->tree);
	ASSERT_SYS(symlink("not there", path));
	expect_equal(self, run_tally(self, self->tree, NULL), 1, 1);
	expect_line(self, 1, run_tally(self, path, NULL), 0, 0);
}

static void expect_words(struct tally_fixture *self, const char *words)
{
	char *text = read_all(self->output);

	if (!EXPECT_NOT_NULL(strstr(text, words)))
		show_output(self);
	free(text);
}

TEST_F(tally, words_it_cannot_use_end_it_with_2)
{
	static const char *const wrong[][2] = {{"--workers", "x"}, {"--workers", "0"},
					       {"--kills", "-1"},  {"--chunk", "1k"},
					       {"--pages", "3m"},  {"--bogus", "1"}};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		EXPECT_EQ(run_tally(self, wrong[i][0], wrong[i][1], self->tree, NULL), 2);
		expect_words(self, wrong[i][0]);
	}
}

/* Before anything is counted. */
TEST_F(tally, json_that_cannot_be_written_is_said_at_once)
{
	char *text;

	snprintf(self->json, sizeof(self->json), "%s/no/json", self->directory);
	EXPECT_EQ(run_tally(self, self->tree, NULL), 1);
	expect_words(self, "no/json: No such file or directory");
	text = read_all(self->output);
	EXPECT_NULL(strstr(text, "\ninput "));
	free(text);
}

TEST_F_TIMEOUT(tally, one_long_line_without_an_end, 120)
{
	static char line[3 << 20];

	memset(line, 'a', sizeof(line));
	for (size_t i = 40; i < sizeof(line); i += 1 + test_random_below(40))
		line[i] = "+ 1_"[test_random_below(4)];
	put(self, "line", line, sizeof(line));
	expect_equal(self, run_tally(self, self->tree, NULL), 1, 1);
}

/*
 * What is left after a run are the job, the channels' rings and the maps' tables. A ring comes into
 * being with a sender that finds none to adopt, so their number varies a little; it does not grow
 * with the chunks (500 here) nor with the deaths (40).
 */
static long live_blocks(struct tally_fixture *self)
{
	char *text = read_all(self->output);
	const char *memory = strstr(text, "\nmemory ");
	long blocks = -1;

	ASSERT_NOT_NULL(memory);
	ASSERT_EQ(sscanf(memory, " memory live %*d bytes in %ld blocks", &blocks), 1);
	free(text);
	return blocks;
}

TEST_F_TIMEOUT(tally, nothing_is_left_of_chunks_and_results, 120)
{
	long few, many;

	put_noise(self, "noise", 100000);
	expect_equal(self, run_tally(self, "--workers", "1", self->tree, NULL), 1, 1);
	few = live_blocks(self);
	expect_equal(self,
		     run_tally(self, "--workers", "1", "--chunk", "200", "--kills", "40",
			       self->tree, NULL),
		     1, 40);
	many = live_blocks(self);
	EXPECT_LE(many, few + 8);
}
