/*
 * rows.c - shale-bench answers with one JSON object a line for every row, and says what went wrong.
 *
 * Nothing here looks at how large a number is.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cjson/cJSON.h>

#include "lib/harness.h"

enum { LINES_MAX = 200, LINE_BYTES = 256 * 1024 };

static const char *const rows[] = {"pair",  "batch",   "replace", "replacex", "prodcons",
				   "large", "larget",  "burst",   "evans",    "thrash",
				   "cycle", "recover", "emptied"};

/* ---- the program ---- */

struct answer {
	cJSON *lines[LINES_MAX];
	size_t count;
	int status;
};

static const char *build_root(void)
{
	const char *root = getenv("SHALE_BUILD_ROOT");

	return root ? root : ".";
}

/* Runs shale-bench with these words; each line of its output must be one JSON object. */
static void bench_run(struct answer *answer, const char *words)
{
	char command[4096], *line = malloc(LINE_BYTES);
	FILE *pipe;
	int status;

	snprintf(command, sizeof(command), "'%s/bench/shale-bench' %s 2>/dev/null", build_root(),
		 words);
	pipe = popen(command, "r");
	ASSERT_NOT_NULL(pipe);
	ASSERT_NOT_NULL(line);
	answer->count = 0;
	while (fgets(line, LINE_BYTES, pipe) && answer->count < LINES_MAX) {
		const char *end = NULL;
		cJSON *object = cJSON_ParseWithOpts(line, &end, 0);

		if (!cJSON_IsObject(object) || !end || strcmp(end, "\n") != 0)
			TEST_FAIL("no JSON object and nothing else: %.200s", line);
		answer->lines[answer->count++] = object;
	}
	free(line);
	status = pclose(pipe);
	answer->status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void answer_free(struct answer *answer)
{
	for (size_t i = 0; i < answer->count; i++)
		cJSON_Delete(answer->lines[i]);
}

static const char *text(const cJSON *object, const char *key)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

	return cJSON_IsString(item) ? item->valuestring : "";
}

static double number(const cJSON *object, const char *key)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

	return cJSON_IsNumber(item) ? item->valuedouble : NAN;
}

static bool is(const cJSON *object, const char *key, const char *value)
{
	return strcmp(text(object, key), value) == 0;
}

/* The result of a subject in a row; the test fails without. */
static const cJSON *result_of(const struct answer *answer, const char *row, const char *subject)
{
	for (size_t i = 0; i < answer->count; i++)
		if (is(answer->lines[i], "workload", row) &&
		    is(answer->lines[i], "subject", subject))
			return answer->lines[i];
	TEST_FAIL("no line for %s in %s", subject, row);
	test_abort();
}

/* ---- the form ---- */

static void expect_machine(const cJSON *line)
{
	EXPECT_STR_EQ(text(line, "program"), "shale-bench");
	EXPECT_TRUE(text(line, "machine")[0] != '\0');
	EXPECT_TRUE(text(line, "kernel")[0] != '\0');
	EXPECT_TRUE(number(line, "cpus") >= 1);
	EXPECT_TRUE(number(line, "page_size") >= 4096);
}

static void expect_result(const cJSON *line)
{
	EXPECT_STR_EQ(text(line, "area"), "heap");
	EXPECT_TRUE(text(line, "unit")[0] != '\0');
	EXPECT_TRUE(is(line, "mode", "1T") || is(line, "mode", "2T") || is(line, "mode", "2P"));
	EXPECT_TRUE(number(line, "rounds") == 1);
	if (!(number(line, "median") > 0) || !(number(line, "q1") <= number(line, "median")) ||
	    !(number(line, "median") <= number(line, "q3")))
		TEST_FAIL("%s %s: median and quartiles are no such", text(line, "workload"),
			  text(line, "subject"));
}

/* Ours runs every row, in every mode, on two kinds of pages, and no object loses its bytes. */
TEST_TIMEOUT(bench, every_row_is_measured_and_well_formed, 120)
{
	struct answer answer;

	bench_run(&answer, "heap --quick --pages 4k,private --peers none --json -");
	EXPECT_EQ(answer.status, 0);
	ASSERT_GT(answer.count, 1);
	expect_machine(answer.lines[0]);
	for (size_t i = 1; i < answer.count; i++) {
		if (!is(answer.lines[i], "status", "ok"))
			TEST_FAIL("%s %s %s: %s", text(answer.lines[i], "workload"),
				  text(answer.lines[i], "subject"),
				  text(answer.lines[i], "variant"),
				  text(answer.lines[i], "reason"));
		else
			expect_result(answer.lines[i]);
	}
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		result_of(&answer, rows[i], "shale");
	answer_free(&answer);
}

TEST(bench, multiples_are_of_the_limit)
{
	struct answer answer;
	const cJSON *line;

	bench_run(&answer, "heap --quick --pages 4k --peers none --only pair,evans --json -");
	line = result_of(&answer, "pair", "tlfl");
	EXPECT_STR_EQ(text(line, "unit"), "ns");
	line = result_of(&answer, "pair", "shale");
	EXPECT_STR_EQ(text(line, "unit"), "limit");
	EXPECT_STR_EQ(text(line, "limit"), "tlfl");
	EXPECT_TRUE(fabs(number(line, "median") * number(line, "limit_ns") - number(line, "ns")) <
		    number(line, "ns") * 0.001);
	EXPECT_STR_EQ(text(result_of(&answer, "evans", "shale"), "unit"), "ns");
	answer_free(&answer);
}

/* ---- what goes wrong is said ---- */

TEST(bench, missing_peer_is_named)
{
	struct answer answer;
	const cJSON *line;

	bench_run(&answer, "heap --quick --pages 4k --only pair --mode 1T --json - "
			   "--peers ghost=libshale-ghost.so");
	EXPECT_EQ(answer.status, 0);
	line = result_of(&answer, "pair", "ghost");
	EXPECT_STR_EQ(text(line, "status"), "missing");
	EXPECT_TRUE(text(line, "reason")[0] != '\0');
	EXPECT_TRUE(isnan(number(line, "median")));
	answer_free(&answer);
}

/* Runs the row replace with a malloc that does this, and gives its line. */
static const cJSON *run_broken(struct answer *answer, const char *how)
{
	char words[2048];

	ASSERT_EQ(setenv("SHALE_TEST_MALLOC", how, 1), 0);
	snprintf(words, sizeof(words),
		 "heap --quick --pages 4k --only replace --mode 1T --json - --peers broken=%s%s",
		 build_root(), "/tests/bench/libbroken-malloc.so");
	bench_run(answer, words);
	return result_of(answer, "replace", "broken");
}

TEST(bench, sound_malloc_passes)
{
	struct answer answer;

	EXPECT_STR_EQ(text(run_broken(&answer, "sound"), "status"), "ok");
	answer_free(&answer);
}

TEST(bench, block_handed_out_twice_is_noticed)
{
	struct answer answer;
	const cJSON *line = run_broken(&answer, "twice");

	EXPECT_STR_EQ(text(line, "status"), "failed");
	EXPECT_NOT_NULL(strstr(text(line, "reason"), "did not hold"));
	EXPECT_STR_EQ(text(result_of(&answer, "replace", "shale"), "status"), "ok");
	answer_free(&answer);
}

TEST(bench, crash_is_named)
{
	struct answer answer;
	const cJSON *line = run_broken(&answer, "crash");

	EXPECT_STR_EQ(text(line, "status"), "crashed");
	EXPECT_STR_EQ(text(line, "reason"), "Aborted");
	answer_free(&answer);
}

/* ---- the report ---- */

static bool file_has(const char *path, const char *wanted)
{
	char *line = malloc(LINE_BYTES);
	FILE *file = fopen(path, "re");
	bool found = false;

	while (file && line && !found && fgets(line, LINE_BYTES, file))
		found = strstr(line, wanted) != NULL;
	if (file)
		fclose(file);
	free(line);
	return found;
}

/* The tables take the place of what was between the marks, and nothing else of the file changes. */
TEST(bench, report_replaces_the_tables)
{
	char folder[] = "/tmp/shale-bench-XXXXXX", command[4096], path[64];
	const char *source = getenv("SHALE_SOURCE_ROOT");

	ASSERT_NOT_NULL(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/docs.md", folder);
	snprintf(command, sizeof(command),
		 "cd %s && printf '%%s\n' head '<!-- tables begin -->' old '<!-- tables end -->' "
		 "tail "
		 ">docs.md && '%s/bench/shale-bench' heap --quick --pages 4k --peers none "
		 "--only pair,recover --json r.json >r.txt && '%s/bench/report' --docs docs.md "
		 "r.json",
		 folder, build_root(), source ? source : ".");
	EXPECT_EQ(system(command), 0);
	EXPECT_TRUE(file_has(path, "| pair 1T | tlfl "));
	EXPECT_TRUE(file_has(path, "| shale 4k | "));
	EXPECT_TRUE(file_has(path, "head"));
	EXPECT_TRUE(file_has(path, "tail"));
	EXPECT_FALSE(file_has(path, "old"));
	snprintf(command, sizeof(command), "rm -r %s", folder);
	EXPECT_EQ(system(command), 0);
}

/* ---- words ---- */

TEST(bench, wrong_words_are_refused)
{
	static const char *const wrong[] = {"",
					    "stack",
					    "heap bump",
					    "heap --only stack",
					    "heap --mode 3T",
					    "heap --rounds 0",
					    "heap --pages 8k",
					    "heap --clock sun",
					    "heap --fast"};
	struct answer answer;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		bench_run(&answer, wrong[i]);
		if (answer.status != 2 || answer.count != 0)
			TEST_FAIL("'%s': status %d, %zu lines", wrong[i], answer.status,
				  answer.count);
	}
}
