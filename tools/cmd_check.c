/*
 * cmd_check.c - `shale check`: every broken invariant that shale_check() finds.
 *
 * Owner:     one process, one thread.
 * Invariant: without --recover the segment is mapped read-only, so that nothing can change in it.
 * Ordering, lifetime: none of its own.
 * Death:     see target.h.
 */
#include "cli.h"
#include "target.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void on_finding(const struct shale_finding *finding, void *context)
{
	cJSON *findings = context;
	char invariant[32], text[512];

	if (findings) {
		cJSON *item = cJSON_CreateObject();

		cli_json_text(item, "invariant", finding->invariant);
		cli_json_u64(item, "offset", finding->offset);
		cli_json_text(item, "text", finding->text);
		cJSON_AddItemToArray(findings, item);
		return;
	}
	printf("%s at 0x%" PRIx64 ": %s\n",
	       cli_clean(finding->invariant, invariant, sizeof(invariant)), finding->offset,
	       cli_clean(finding->text, text, sizeof(text)));
}

static int check_error(const struct cli_arguments *arguments, const char *what, int error)
{
	return cli_error(arguments->command, "try again while its peers are quiet", "%s: %s: %s",
			 arguments->operand, what, strerror(-error));
}

/* Recovers if asked to, then checks. 0 and the two counts, or CLI_NO_ANSWER. */
static int check_segment(const struct cli_arguments *arguments, struct shale_segment *segment,
			 cJSON *findings, int *ret_recovered, int *ret_count)
{
	int r = 0;

	if (arguments->recover) {
		r = shale_recover(segment);
		if (r < 0)
			return check_error(arguments, "cannot recover the dead peers", r);
	}
	*ret_recovered = r;
	r = shale_check(segment, on_finding, findings);
	if (r < 0)
		return check_error(arguments, "cannot check", r);
	*ret_count = r;
	return 0;
}

int cmd_check(const struct cli_arguments *arguments)
{
	struct target target = {0};
	cJSON *document = NULL, *findings = NULL;
	int recovered = 0, count = 0, code;

	if (target_attach(arguments->command, arguments->operand, arguments->recover, &target))
		return CLI_NO_ANSWER;
	if (arguments->json) {
		document = cJSON_CreateObject();
		findings = cJSON_AddArrayToObject(document, "findings");
	}
	if (arguments->json && !findings)
		code = cli_error(arguments->command, NULL, "no memory for the answer");
	else
		code = check_segment(arguments, target.segment, findings, &recovered, &count);
	target_detach(&target);
	if (code) {
		cJSON_Delete(document);
		return code;
	}
	code = count ? CLI_NOT_GOOD : CLI_GOOD;
	if (document) {
		cli_json_text(document, "target", arguments->operand);
		cJSON_AddNumberToObject(document, "recovered", recovered);
		cJSON_AddNumberToObject(document, "count", count);
		cJSON_AddBoolToObject(document, "clean", count == 0);
		return cli_print_json(arguments->command, document, code);
	}
	if (arguments->recover)
		printf("%d peer%s recovered\n", recovered, recovered == 1 ? "" : "s");
	if (count)
		printf("%d finding%s\n", count, count == 1 ? "" : "s");
	else
		puts("clean");
	return cli_flush(arguments->command, code);
}
