/*
 * cli.h - what the commands of the tool share: options, one-line errors, text and JSON that are safe
 * to print whatever bytes a peer has written.
 *
 * Owner:    one process, one thread; nothing here outlives a command.
 * Exit:     0 good; 1 the answer is "not good" (something needed is missing, findings); 2 no answer.
 */
#ifndef SHALE_TOOLS_CLI_H
#define SHALE_TOOLS_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include <shale/segment.h>

enum cli_exit { CLI_GOOD = 0, CLI_NOT_GOOD = 1, CLI_NO_ANSWER = 2 };

struct cli_arguments {
	const char *command;
	const char *operand; /* TARGET, or a command's name for help; NULL: none given */
	bool json;
	bool recover;
};

enum cli_takes { CLI_TAKES_OPERAND = 1, CLI_NEEDS_OPERAND = 2, CLI_TAKES_RECOVER = 4 };

struct cli_command {
	const char *name;
	const char *usage;   /* "shale stat [--json] TARGET" */
	const char *summary; /* one line */
	const char *help;    /* paragraphs */
	unsigned takes;      /* CLI_* */
	int (*run)(const struct cli_arguments *arguments);
};
extern const struct cli_command cli_commands[]; /* ends with a NULL name */

const struct cli_command *cli_find(const char *name);

/* Reads what follows the command's name. 0, or CLI_NO_ANSWER with the error printed. */
int cli_parse(const struct cli_command *command, int argc, char **argv,
	      struct cli_arguments *arguments);

/* "shale COMMAND: cause; mend" on stderr, in one line. Returns CLI_NO_ANSWER. */
int cli_error(const char *command, const char *mend, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Prints the document, frees it, and looks whether stdout took it. Returns `code` if so. */
int cli_print_json(const char *command, cJSON *document, int code);
/* The same for text that has been printed already. */
int cli_flush(const char *command, int code);

/* A copy of at most size - 1 bytes that holds no control character and nothing but UTF-8. */
const char *cli_clean(const char *text, char *buffer, size_t size);
/* "3.5 GiB", "unlimited". */
const char *cli_bytes(uint64_t bytes, char *buffer, size_t size);

/* Numbers of 64 bits keep every digit; texts are cleaned. */
void cli_json_u64(cJSON *object, const char *key, uint64_t value);
void cli_json_text(cJSON *object, const char *key, const char *text);

/* "THP", "bind"; "unknown" for a number that is none. */
const char *cli_pages_name(enum shale_pages pages);
const char *cli_placement_name(enum shale_placement placement);

/* The commands. */
int cmd_check(const struct cli_arguments *arguments);
int cmd_doctor(const struct cli_arguments *arguments);
int cmd_heap(const struct cli_arguments *arguments);
int cmd_help(const struct cli_arguments *arguments);
int cmd_numa(const struct cli_arguments *arguments);
int cmd_stat(const struct cli_arguments *arguments);
int cmd_trim(const struct cli_arguments *arguments);
int cmd_version(const struct cli_arguments *arguments);

#endif
