/*
 * options.c - the command line of shale-bench, and lists of words with commas between them.
 */
#include "options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rows.h"

enum { ROUNDS_DEFAULT = 5, ROUNDS_QUICK = 1 };

static const char help[] =
	"usage: shale-bench AREA [--only WORKLOAD,...] [--mode 1T,2T,2P] [--rounds N]\n"
	"                   [--peers all|none|NAME,...] [--pages 4k,thp,2m,private]\n"
	"                   [--clock wall|cpu] [--json FILE] [--quick] [--list]\n"
	"AREA is heap. Measures ours and every peer that is installed, interleaved round by round\n"
	"with the limit of the row. --list says which rows and which peers there are.\n"
	"shale-bench(1) explains everything.\n";

const char *list_word(const char *list, size_t n, size_t *ret_length)
{
	for (; list; list = strchr(list, ',') ? strchr(list, ',') + 1 : NULL) {
		if (n-- > 0)
			continue;
		*ret_length = strcspn(list, ",");
		return list;
	}
	return NULL;
}

bool list_has(const char *list, const char *name)
{
	size_t length, wanted = strlen(name);
	const char *word;

	for (size_t n = 0; (word = list_word(list, n, &length)); n++)
		if (length >= wanted && memcmp(word, name, wanted) == 0 &&
		    (length == wanted || word[wanted] == '='))
			return true;
	return false;
}

static int wrong(const char *what, const char *value)
{
	fprintf(stderr, "shale-bench: %s %s; shale-bench --help lists what there is\n", what,
		value);
	return -2;
}

static int parse_modes(const char *list, unsigned *ret_modes)
{
	size_t length;
	const char *word;

	for (size_t n = 0; (word = list_word(list, n, &length)); n++) {
		unsigned mode = mode_find(word, length);

		if (mode == 0)
			return wrong("no such mode in", list);
		*ret_modes |= mode;
	}
	return 0;
}

static int parse_rounds(const char *text, struct options *options)
{
	char *end;
	unsigned long rounds = strtoul(text, &end, 10);

	if (*end || rounds < 1 || rounds > ROUNDS_MAX)
		return wrong("not a number of rounds (1 to 1000):", text);
	options->rounds = (unsigned)rounds;
	options->rounds_given = true;
	return 0;
}

/* Every word must name a row; which is only known with the area, so this comes last. */
static int check_words(const struct options *options)
{
	static const char *const kinds = "4k,thp,2m,private";
	size_t length;
	const char *word;
	char name[32];

	for (size_t n = 0; (word = list_word(options->only, n, &length)); n++) {
		snprintf(name, sizeof(name), "%.*s", (int)length, word);
		if (!row_find(options->area, name))
			return wrong("no such workload:", name);
	}
	for (size_t n = 0; (word = list_word(options->pages, n, &length)); n++) {
		snprintf(name, sizeof(name), "%.*s", (int)length, word);
		if (!list_has(kinds, name))
			return wrong("no such page kind:", name);
	}
	return 0;
}

static int parse_one(int option, const char *value, struct options *options)
{
	switch (option) {
	case 'o':
		options->only = value;
		return 0;
	case 'm':
		return parse_modes(value, &options->modes);
	case 'r':
		return parse_rounds(value, options);
	case 'p':
		options->peers = value;
		return 0;
	case 'g':
		options->pages = value;
		return 0;
	case 'j':
		options->json = value;
		return 0;
	case 'c':
		options->cpu_clock = strcmp(value, "cpu") == 0;
		return options->cpu_clock || strcmp(value, "wall") == 0
			       ? 0
			       : wrong("no such clock:", value);
	case 'q':
		options->quick = true;
		return 0;
	case 'l':
		options->list = true;
		return 0;
	case 'h':
		fputs(help, stdout);
		return 1;
	default:
		fputs(help, stderr);
		return -2;
	}
}

int options_parse(int argc, char **argv, struct options *ret_options)
{
	static const struct option table[] = {
		{"only", required_argument, NULL, 'o'},
		{"mode", required_argument, NULL, 'm'},
		{"rounds", required_argument, NULL, 'r'},
		{"peers", required_argument, NULL, 'p'},
		{"pages", required_argument, NULL, 'g'},
		{"json", required_argument, NULL, 'j'},
		{"clock", required_argument, NULL, 'c'},
		{"quick", no_argument, NULL, 'q'},
		{"list", no_argument, NULL, 'l'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	struct options options = {.peers = "all"};
	int option, r;

	while ((option = getopt_long(argc, argv, "", table, NULL)) != -1) {
		r = parse_one(option, optarg, &options);
		if (r != 0)
			return r;
	}
	if (optind + 1 != argc)
		return wrong("one area is wanted, not", optind < argc ? "several" : "none");
	options.area = argv[optind];
	if (strcmp(options.area, "heap") != 0)
		return wrong("no such area:", options.area);
	if (!options.rounds_given)
		options.rounds = options.quick ? ROUNDS_QUICK : ROUNDS_DEFAULT;
	r = check_words(&options);
	if (r == 0)
		*ret_options = options;
	return r;
}
