/*
 * cmd_help.c - `shale help`, `shale help COMMAND`, `shale version`: from the table of commands.
 *
 * Owner:     one process, one thread; the table is constant.
 * Invariant: what help says about a command comes from the row that also runs it.
 * Ordering, lifetime, death: private memory only.
 */
#include "cli.h"

#include <stdio.h>

#include <shale/types.h>

static cJSON *command_json(const struct cli_command *command)
{
	cJSON *item = cJSON_CreateObject();

	cli_json_text(item, "name", command->name);
	cli_json_text(item, "usage", command->usage);
	cli_json_text(item, "summary", command->summary);
	return item;
}

static int help_all(const struct cli_arguments *arguments)
{
	cJSON *document, *commands;

	if (arguments->json) {
		document = cJSON_CreateObject();
		commands = cJSON_AddArrayToObject(document, "commands");
		for (const struct cli_command *row = cli_commands; row->name; row++)
			cJSON_AddItemToArray(commands, command_json(row));
		return cli_print_json(arguments->command, document, CLI_GOOD);
	}
	puts("usage: shale COMMAND [--json] [ARGUMENT]\n");
	for (const struct cli_command *row = cli_commands; row->name; row++)
		printf("  %-8s %s\n", row->name, row->summary);
	puts("\nTARGET is /proc/PID/fd/N, PID:N, or fd:N for a descriptor that the tool "
	     "inherited.\n"
	     "More: shale help COMMAND, man 1 shale, man 7 shale.");
	return cli_flush(arguments->command, CLI_GOOD);
}

int cmd_help(const struct cli_arguments *arguments)
{
	const struct cli_command *command;
	cJSON *document;

	if (!arguments->operand)
		return help_all(arguments);
	command = cli_find(arguments->operand);
	if (!command)
		return cli_error(arguments->command, "list them with: shale help", "no command %s",
				 arguments->operand);
	if (arguments->json) {
		document = command_json(command);
		cJSON_AddStringToObject(document, "help", command->help);
		return cli_print_json(arguments->command, document, CLI_GOOD);
	}
	printf("usage: %s\n\n%s\n\n%s\n", command->usage, command->summary, command->help);
	return cli_flush(arguments->command, CLI_GOOD);
}

int cmd_version(const struct cli_arguments *arguments)
{
	cJSON *document;

	if (arguments->json) {
		document = cJSON_CreateObject();
		cli_json_text(document, "tool", SHALE_VERSION_STRING);
		cli_json_text(document, "library", shale_version_string());
		return cli_print_json(arguments->command, document, CLI_GOOD);
	}
	printf("shale %s, library %s\n", SHALE_VERSION_STRING, shale_version_string());
	return cli_flush(arguments->command, CLI_GOOD);
}
