/*
 * cli.c - options, errors, text and JSON for the commands of the tool.
 *
 * Owner:     one process, one thread.
 * Invariant: L1  an error is one line on stderr, and then stdout holds nothing
 *            L2  no byte of a peer's text reaches a terminal or a JSON text unchecked
 * Ordering, lifetime, death: private memory only.
 */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLI_TEXT 512

const struct cli_command *cli_find(const char *name)
{
	for (const struct cli_command *command = cli_commands; command->name; command++) {
		if (strcmp(command->name, name) == 0)
			return command;
	}
	return NULL;
}

int cli_error(const char *command, const char *mend, const char *format, ...)
{
	char text[CLI_TEXT], clean[CLI_TEXT];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	cli_clean(text, clean, sizeof(clean));
	fprintf(stderr, "shale%s%s: %s%s%s\n", command ? " " : "", command ? command : "", clean,
		mend ? "; " : "", mend ? mend : "");
	return CLI_NO_ANSWER;
}

int cli_parse(const struct cli_command *command, int argc, char **argv,
	      struct cli_arguments *arguments)
{
	char mend[CLI_TEXT];
	bool options = true;

	snprintf(mend, sizeof(mend), "usage: %s", command->usage);
	for (int i = 0; i < argc; i++) {
		const char *word = argv[i];

		if (options && strcmp(word, "--") == 0) {
			options = false;
		} else if (options && strcmp(word, "--json") == 0) {
			arguments->json = true;
		} else if (options && strcmp(word, "--recover") == 0 &&
			   (command->takes & CLI_TAKES_RECOVER)) {
			arguments->recover = true;
		} else if (options && word[0] == '-' && word[1]) {
			return cli_error(command->name, mend, "unknown option %s", word);
		} else if (arguments->operand || !(command->takes & CLI_TAKES_OPERAND)) {
			return cli_error(command->name, mend, "one argument too many: %s", word);
		} else {
			arguments->operand = word;
		}
	}
	if ((command->takes & CLI_NEEDS_OPERAND) && !arguments->operand)
		return cli_error(command->name, mend, "no TARGET given");
	return 0;
}

int cli_flush(const char *command, int code)
{
	if (fflush(stdout) != 0 || ferror(stdout))
		return cli_error(command, "the answer is not complete", "cannot write: %s",
				 strerror(errno));
	return code;
}

int cli_print_json(const char *command, cJSON *document, int code)
{
	char *text = document ? cJSON_Print(document) : NULL;

	cJSON_Delete(document);
	if (!text)
		return cli_error(command, NULL, "no memory for the answer");
	puts(text);
	free(text);
	return cli_flush(command, code);
}

/* Bytes of the UTF-8 character at text, 0 if it is none that may be printed. */
static unsigned character_bytes(const unsigned char *text)
{
	uint32_t value;
	unsigned bytes;

	if (text[0] < 0x80)
		return text[0] >= 0x20 && text[0] != 0x7f;
	bytes = text[0] >= 0xf0 ? 4 : text[0] >= 0xe0 ? 3 : 2;
	if (text[0] < 0xc2 || text[0] > 0xf4)
		return 0;
	value = text[0] & (0x7fu >> bytes);
	for (unsigned i = 1; i < bytes; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		value = value << 6 | (text[i] & 0x3fu);
	}
	if (value < 0xa0 || (bytes == 3 && value < 0x800) || (bytes == 4 && value < 0x10000) ||
	    (value >= 0xd800 && value < 0xe000) || value > 0x10ffff)
		return 0;
	return bytes;
}

const char *cli_clean(const char *text, char *buffer, size_t size)
{
	size_t length = 0;

	while (*text) {
		unsigned bytes = character_bytes((const unsigned char *)text);

		if (length + (bytes ? bytes : 1) + 1 > size)
			break;
		if (bytes)
			memcpy(buffer + length, text, bytes);
		else
			buffer[length] = '?';
		length += bytes ? bytes : 1;
		text += bytes ? bytes : 1;
	}
	buffer[length] = '\0';
	return buffer;
}

const char *cli_bytes(uint64_t bytes, char *buffer, size_t size)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	unsigned unit = 0;

	for (; value >= 1024.0 && unit + 1 < sizeof(units) / sizeof(units[0]); unit++)
		value /= 1024.0;
	snprintf(buffer, size, "%.*f %s", unit ? 1 : 0, value, units[unit]);
	return buffer;
}

const char *cli_pages_name(enum shale_pages pages)
{
	static const char *const names[] = {"auto", "4K", "THP", "2M", "1G", "private"};

	return (unsigned)pages < sizeof(names) / sizeof(names[0]) ? names[pages] : "unknown";
}

const char *cli_placement_name(enum shale_placement placement)
{
	static const char *const names[] = {"local", "bind", "preferred-many", "interleave",
					    "weighted"};

	return (unsigned)placement < sizeof(names) / sizeof(names[0]) ? names[placement]
								      : "unknown";
}

void cli_json_u64(cJSON *object, const char *key, uint64_t value)
{
	char digits[32];

	snprintf(digits, sizeof(digits), "%" PRIu64, value);
	cJSON_AddRawToObject(object, key, digits);
}

void cli_json_text(cJSON *object, const char *key, const char *text)
{
	char clean[CLI_TEXT];

	cJSON_AddStringToObject(object, key, cli_clean(text, clean, sizeof(clean)));
}
