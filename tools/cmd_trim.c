/*
 * cmd_trim.c - `shale trim`: all free memory of a segment back to the kernel, at once.
 *
 * Owner:     one process, one thread.
 * Invariant: nothing that is live changes.
 * Ordering, lifetime: none of its own.
 * Death:     see target.h: the tool is a peer while it runs.
 */
#include "cli.h"
#include "target.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <shale/heap.h>
#include <shale/segment.h>

struct trim_result {
	int64_t bytes;
	struct shale_heap_figures heap; /* afterwards */
	struct shale_segment_figures segment;
};

static int trim_segment(const struct cli_arguments *arguments, struct trim_result *ret_result)
{
	struct trim_result result = {
		.heap = {.size = sizeof(result.heap)},
		.segment = {.size = sizeof(result.segment)},
	};
	struct target target = {0};
	int r = 0;

	if (target_attach(arguments->command, arguments->operand, true, &target))
		return CLI_NO_ANSWER;
	result.bytes = shale_trim(target.segment, 0);
	if (result.bytes < 0)
		r = (int)result.bytes;
	if (r == 0)
		r = shale_heap_stat(target.segment, &result.heap);
	if (r == 0)
		r = shale_segment_stat(target.segment, &result.segment);
	target_detach(&target);
	if (r < 0)
		return cli_error(arguments->command, "see what is wrong with: shale check",
				 "%s: %s", arguments->operand, strerror(-r));
	*ret_result = result;
	return 0;
}

int cmd_trim(const struct cli_arguments *arguments)
{
	char given[32], kept[32];
	struct trim_result result = {0};
	cJSON *document;

	if (trim_segment(arguments, &result))
		return CLI_NO_ANSWER;
	if (arguments->json) {
		document = cJSON_CreateObject();
		cli_json_text(document, "target", arguments->operand);
		cli_json_u64(document, "given_back_bytes", (uint64_t)result.bytes);
		cli_json_u64(document, "retained_bytes", result.heap.retained_bytes);
		cli_json_u64(document, "committed_bytes", result.heap.committed_bytes);
		cli_json_u64(document, "backing_bytes", result.segment.backing_bytes);
		return cli_print_json(arguments->command, document, CLI_GOOD);
	}
	printf("%s given back (%" PRId64 "), %s still held by the kernel\n",
	       cli_bytes((uint64_t)result.bytes, given, sizeof(given)), result.bytes,
	       cli_bytes(result.segment.backing_bytes, kept, sizeof(kept)));
	return cli_flush(arguments->command, CLI_GOOD);
}
