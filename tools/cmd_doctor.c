/*
 * cmd_doctor.c - `shale doctor`: each report of shale_doctor_run(), as a table or as JSON.
 *
 * Owner:     one process, one thread.
 * Invariant: the exit code is 1 exactly if something that shale needs is missing.
 * Ordering, lifetime, death: private memory only.
 */
#include "cli.h"

#include <stdio.h>

#include <shale/doctor.h>

struct doctor_print {
	cJSON *items; /* NULL: print text */
	int count[3]; /* by status */
};

static const char *status_name(enum shale_doctor_status status)
{
	switch (status) {
	case SHALE_DOCTOR_OK:
		return "ok";
	case SHALE_DOCTOR_DEGRADED:
		return "degraded";
	case SHALE_DOCTOR_MISSING:
		break;
	}
	return "missing";
}

static void print_text(const struct shale_doctor_report *report)
{
	char clean[512];

	printf("%-9s %-32s %s\n", status_name(report->status), report->name,
	       cli_clean(report->detail, clean, sizeof(clean)));
	if (report->effect[0])
		printf("%-9s   then: %s\n", "", cli_clean(report->effect, clean, sizeof(clean)));
	if (report->mend[0])
		printf("%-9s   mend: %s\n", "", cli_clean(report->mend, clean, sizeof(clean)));
}

static void print_json(cJSON *items, const struct shale_doctor_report *report)
{
	cJSON *item = cJSON_CreateObject();

	cli_json_text(item, "name", report->name);
	cli_json_text(item, "status", status_name(report->status));
	cJSON_AddBoolToObject(item, "needed", report->needed);
	cli_json_text(item, "detail", report->detail);
	cli_json_text(item, "effect", report->effect);
	cli_json_text(item, "mend", report->mend);
	cJSON_AddItemToArray(items, item);
}

static void on_report(const struct shale_doctor_report *report, void *context)
{
	struct doctor_print *print = context;

	print->count[report->status <= SHALE_DOCTOR_MISSING ? report->status
							    : SHALE_DOCTOR_MISSING]++;
	if (print->items)
		print_json(print->items, report);
	else
		print_text(report);
}

int cmd_doctor(const struct cli_arguments *arguments)
{
	struct doctor_print print = {0};
	cJSON *document = NULL;
	char summary[160];
	int missing, code;

	if (arguments->json) {
		document = cJSON_CreateObject();
		print.items = cJSON_AddArrayToObject(document, "items");
		if (!print.items)
			return cli_print_json(arguments->command, NULL, CLI_NO_ANSWER);
	}
	missing = shale_doctor_run(on_report, &print);
	code = missing ? CLI_NOT_GOOD : CLI_GOOD;
	if (missing)
		snprintf(summary, sizeof(summary), "shale cannot work here: %d needed missing",
			 missing);
	else
		snprintf(summary, sizeof(summary),
			 "everything that shale needs is here; %d ok, %d degraded, %d missing",
			 print.count[SHALE_DOCTOR_OK], print.count[SHALE_DOCTOR_DEGRADED],
			 print.count[SHALE_DOCTOR_MISSING]);
	if (!document) {
		printf("\n%s\n", summary);
		return cli_flush(arguments->command, code);
	}
	cJSON_AddBoolToObject(document, "good", missing == 0);
	cJSON_AddNumberToObject(document, "needed_missing", missing);
	cJSON_AddNumberToObject(document, "ok", print.count[SHALE_DOCTOR_OK]);
	cJSON_AddNumberToObject(document, "degraded", print.count[SHALE_DOCTOR_DEGRADED]);
	cJSON_AddNumberToObject(document, "missing", print.count[SHALE_DOCTOR_MISSING]);
	cli_json_text(document, "summary", summary);
	return cli_print_json(arguments->command, document, code);
}
