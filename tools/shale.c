/*
 * shale.c - the tool: the table of commands, and the choice of one.
 *
 * Owner:     one process, one thread.
 * Invariant: every command is one row here, with its help; each takes --json.
 * Ordering, lifetime, death: private memory only; the commands say more.
 */
#include "cli.h"

#include <string.h>

const struct cli_command cli_commands[] = {
	{
		.name = "doctor",
		.usage = "shale doctor [--json]",
		.summary = "what this machine has of what shale uses, and how to mend the rest",
		.help = "Tries each kernel feature, reads each limit, huge-page pool and NUMA "
			"node.\n"
			"Each line is ok, degraded or missing; what shale does then, and the "
			"command\n"
			"that mends it, stand below. Changes nothing.\n"
			"Exit 0: all that shale needs is there. 1: something needed is missing.",
		.run = cmd_doctor,
	},
	{
		.name = "stat",
		.usage = "shale stat [--json] TARGET",
		.summary = "what a segment is and holds",
		.help = "Prints pages, placement, nodes, sizes, the heap, peers and roots of the\n"
			"segment behind TARGET. Attaches read-only and takes no peer slot.\n"
			"Exit 0, or 2 when there is no segment to look at.",
		.takes = CLI_TAKES_OPERAND | CLI_NEEDS_OPERAND,
		.run = cmd_stat,
	},
	{
		.name = "heap",
		.usage = "shale heap [--json] TARGET",
		.summary = "the live blocks of a segment by size, and by who allocated them",
		.help = "Prints how many blocks of each size live, what was asked for and what "
			"is\n"
			"unused of them, and who allocated most. Sizes asked for and owners are "
			"known\n"
			"of segments that were made with debug flags (shale_debug(3)).\n"
			"Attaches read-only. Exit 0, or 2 when there is no segment to look at.",
		.takes = CLI_TAKES_OPERAND | CLI_NEEDS_OPERAND,
		.run = cmd_heap,
	},
	{
		.name = "check",
		.usage = "shale check [--json] [--recover] TARGET",
		.summary = "every broken invariant of a segment, or: clean",
		.help = "Walks every structure of the segment behind TARGET. Exact while no peer "
			"is\n"
			"inside an operation. Attaches read-only; with --recover it attaches as a "
			"peer\n"
			"and first recovers what dead peers held.\n"
			"Exit 0: clean. 1: findings. 2: no segment to look at.",
		.takes = CLI_TAKES_OPERAND | CLI_NEEDS_OPERAND | CLI_TAKES_RECOVER,
		.run = cmd_check,
	},
	{
		.name = "numa",
		.usage = "shale numa [--json] TARGET",
		.summary = "on which NUMA nodes the memory of a segment is",
		.help = "Asks the kernel where the pages of the segment behind TARGET are, and "
			"prints\n"
			"sums for each node, then the arenas: the node whose threads use them "
			"first\n"
			"(home), the node that their pages came from (placed), the kind of pages, "
			"and\n"
			"where these are now. Arenas that are alike are one line. Attaches "
			"read-only,\n"
			"and brings nothing into memory.\n"
			"Exit 0, or 2 when there is no segment, or nobody can tell.",
		.takes = CLI_TAKES_OPERAND | CLI_NEEDS_OPERAND,
		.run = cmd_numa,
	},
	{
		.name = "trim",
		.usage = "shale trim [--json] TARGET",
		.summary = "give all free memory of a segment back to the kernel now",
		.help = "Attaches to the segment behind TARGET as a peer and gives back what is "
			"free: "
			"whole\n"
			"arenas, and pages inside arenas that are in use. What other processes "
			"are\n"
			"allocating from stays with them. Without it, memory that has been free "
			"for "
			"about\n"
			"a second goes back by itself; see man 3 shale_keeper.\n"
			"Exit 0, or 2 when there is no segment to trim.",
		.takes = CLI_TAKES_OPERAND | CLI_NEEDS_OPERAND,
		.run = cmd_trim,
	},
	{
		.name = "help",
		.usage = "shale help [--json] [COMMAND]",
		.summary = "this list, or more about one command",
		.help = "Without COMMAND: the list of commands.",
		.takes = CLI_TAKES_OPERAND,
		.run = cmd_help,
	},
	{
		.name = "version",
		.usage = "shale version [--json]",
		.summary = "the version of the tool, and of the library that it loaded",
		.help = "The same as shale --version.",
		.run = cmd_version,
	},
	{0},
};

static const char *alias(const char *word)
{
	if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0)
		return "version";
	if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
		return "help";
	return word;
}

int main(int argc, char **argv)
{
	struct cli_arguments arguments = {0};
	const struct cli_command *command;
	int first = 1;

	for (; first < argc && strcmp(argv[first], "--json") == 0; first++)
		arguments.json = true;
	if (first == argc) {
		if (!arguments.json)
			return cli_error(NULL, "list them with: shale help", "no command given");
		arguments.command = "help";
		return cmd_help(&arguments);
	}
	command = cli_find(alias(argv[first]));
	if (!command)
		return cli_error(NULL, "list them with: shale help", "no command %s", argv[first]);
	for (int i = first + 1; i < argc; i++) {
		/* shale COMMAND --help */
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			arguments.command = "help";
			arguments.operand = command->name;
			return cmd_help(&arguments);
		}
	}
	arguments.command = command->name;
	if (cli_parse(command, argc - first - 1, argv + first + 1, &arguments))
		return CLI_NO_ANSWER;
	return command->run(&arguments);
}
