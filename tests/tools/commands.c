/*
 * commands.c - the tool as a whole: help, versions, and what it says to words it does not know.
 */
#include <string.h>

#include <shale/types.h>

#include "harness.h"
#include "tool.h"

static struct tool_run answer;

static const char *const commands[] = {"doctor", "stat", "heap", "check",
				       "trim",   "numa", "help", "version"};

TEST(tool, help_lists_each_command)
{
	cJSON *document;

	TOOL(&answer, -1, "help");
	EXPECT_EQ(answer.status, 0);
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		EXPECT_NOT_NULL(strstr(answer.out, commands[i]));
	TOOL(&answer, -1, "--json", "help");
	document = tool_json(&answer);
	EXPECT_EQ(cJSON_GetArraySize(cJSON_GetObjectItem(document, "commands")),
		  (int)(sizeof(commands) / sizeof(commands[0])));
	cJSON_Delete(document);
}

TEST(tool, help_tells_more_about_each_command)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		cJSON *document;

		TOOL(&answer, -1, "help", commands[i]);
		EXPECT_EQ(answer.status, 0);
		EXPECT_EQ(strncmp(answer.out, "usage: shale ", 13), 0);
		TOOL(&answer, -1, commands[i], "--help");
		EXPECT_EQ(answer.status, 0);
		TOOL(&answer, -1, "help", "--json", commands[i]);
		document = tool_json(&answer);
		EXPECT_STR_EQ(tool_text(document, "name"), commands[i]);
		EXPECT_NE(tool_text(document, "help")[0], '\0');
		cJSON_Delete(document);
	}
}

TEST(tool, version_is_that_of_the_library)
{
	cJSON *document;

	TOOL(&answer, -1, "--version");
	EXPECT_EQ(answer.status, 0);
	EXPECT_NOT_NULL(strstr(answer.out, shale_version_string()));
	TOOL(&answer, -1, "--version", "--json");
	document = tool_json(&answer);
	EXPECT_STR_EQ(tool_text(document, "library"), shale_version_string());
	cJSON_Delete(document);
}

TEST(tool, refuses_what_it_does_not_know_in_one_line)
{
	tool_run(&answer, -1, (const char *const[]){NULL});
	tool_expect_error(&answer, "");
	TOOL(&answer, -1, "steal");
	tool_expect_error(&answer, "");
	TOOL(&answer, -1, "help", "steal");
	tool_expect_error(&answer, "help");
	TOOL(&answer, -1, "stat", "--recover", "fd:3");
	tool_expect_error(&answer, "stat");
	TOOL(&answer, -1, "doctor", "here");
	tool_expect_error(&answer, "doctor");
	TOOL(&answer, -1, "stat");
	tool_expect_error(&answer, "stat");
	TOOL(&answer, -1, "check", "--json");
	tool_expect_error(&answer, "check");
	TOOL(&answer, -1, "trim");
	tool_expect_error(&answer, "trim");
	TOOL(&answer, -1, "trim", "--recover", "fd:3");
	tool_expect_error(&answer, "trim");
	TOOL(&answer, -1, "stat", "fd:3", "fd:4");
	tool_expect_error(&answer, "stat");
}

/* Bytes that a terminal would obey must not come back as they went in. */
TEST(tool, errors_hold_no_control_characters)
{
	TOOL(&answer, -1, "stat", "\033[2J\nfd\377");
	tool_expect_error(&answer, "stat");
	EXPECT_NULL(strchr(answer.err, '\033'));
	EXPECT_NULL(strchr(answer.err, '\377'));
}
