/*
 * figures.c - the arithmetic and the JSON of shale-bench.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "stats.h"

#include "lib/harness.h"

TEST(bench_stats, quartiles_of_any_order)
{
	double values[] = {5, 1, 4, 2, 3};
	struct quartiles quartiles = stats_quartiles(values, 5);

	EXPECT_TRUE(quartiles.median == 3);
	EXPECT_TRUE(quartiles.q1 == 2);
	EXPECT_TRUE(quartiles.q3 == 4);
	EXPECT_EQ(quartiles.count, 5);
}

TEST(bench_stats, quartiles_lie_between_values)
{
	double values[] = {10, 20};
	struct quartiles quartiles = stats_quartiles(values, 2);

	EXPECT_TRUE(quartiles.median == 15);
	EXPECT_TRUE(quartiles.q1 == 12.5);
	EXPECT_TRUE(quartiles.q3 == 17.5);
}

TEST(bench_stats, one_value_and_none)
{
	double value = 7;
	struct quartiles quartiles = stats_quartiles(&value, 1);

	EXPECT_TRUE(quartiles.median == 7 && quartiles.q1 == 7 && quartiles.q3 == 7);
	EXPECT_EQ(stats_quartiles(&value, 0).count, 0);
}

TEST(bench_json, texts_and_numbers_are_quoted_as_json_wants)
{
	static const double list[] = {1.5, INFINITY};
	struct json json = {0};
	char *written = NULL;
	size_t size;

	json.file = open_memstream(&written, &size);
	ASSERT_NOT_NULL(json.file);
	json_begin(&json);
	json_text(&json, "name", "a\"b\\c\nd\xc3");
	json_number(&json, "nothing", NAN);
	json_bool(&json, "yes", true);
	json_list(&json, "list", list, 2);
	json_list(&json, "empty", NULL, 0);
	json_end(&json);
	fclose(json.file);
	EXPECT_STR_EQ(written, "{\"name\": \"a\\\"b\\\\c?d?\", \"nothing\": null, \"yes\": true, "
			       "\"list\": [1.5, null], \"empty\": []}\n");
	free(written);
}

TEST(bench_json, writer_without_a_file_writes_nothing)
{
	struct json json = {0};

	json_begin(&json);
	json_text(&json, "name", "text");
	json_end(&json);
	EXPECT_NULL(json.file);
}
