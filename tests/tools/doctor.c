/*
 * doctor.c - shale doctor: every item is there, JSON and exit code say the same as the library.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include <shale/doctor.h>

#include "harness.h"
#include "tool.h"

static struct tool_run answer;

static const char *const items[] = {
	"kernel.version",
	"kernel.proc",
	"kernel.memfd",
	"kernel.ptrace_scope",
	"feature.ofd_lock",
	"feature.noexec_seal",
	"feature.collapse",
	"feature.populate",
	"feature.thp_shmem",
	"feature.hugetlb_2m",
	"feature.hugetlb_1g",
	"feature.futex_waitv",
	"feature.uring",
	"feature.uring_futex",
	"feature.pidfs",
	"feature.membarrier",
	"feature.preferred_many",
	"feature.weighted_interleave",
	"feature.guard",
	"pages.size",
	"hugepages.2M",
	"hugepages.1G",
	"thp.enabled",
	"thp.shmem_enabled",
	"numa.nodes",
	"limit.open_files",
	"limit.locked_memory",
	"limit.address_space",
	"limit.cgroup_memory",
	"limit.cgroup_hugetlb",
	"vm.overcommit_memory",
	"vm.memfd_noexec",
	"vm.max_map_count",
	"kernel.io_uring_disabled",
	"giveback.uring",
	"giveback.psi",
};

static const cJSON *item_named(const cJSON *document, const char *name)
{
	const cJSON *item, *list = cJSON_GetObjectItemCaseSensitive(document, "items");

	cJSON_ArrayForEach(item, list)
	{
		if (strcmp(tool_text(item, "name"), name) == 0)
			return item;
	}
	return NULL;
}

TEST(doctor, has_every_item_in_its_json)
{
	cJSON *document;

	TOOL(&answer, -1, "doctor", "--json");
	document = tool_json(&answer);
	for (size_t i = 0; i < sizeof(items) / sizeof(items[0]); i++) {
		if (!item_named(document, items[i]))
			TEST_FAIL("no item %s", items[i]);
	}
	cJSON_Delete(document);
}

TEST(doctor, says_of_each_item_what_was_seen_and_of_the_bad_what_follows)
{
	const cJSON *item;
	cJSON *document;

	TOOL(&answer, -1, "doctor", "--json");
	document = tool_json(&answer);
	cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(document, "items"))
	{
		const char *name = tool_text(item, "name"), *status = tool_text(item, "status");
		bool ok = strcmp(status, "ok") == 0;

		if (!ok && strcmp(status, "degraded") != 0 && strcmp(status, "missing") != 0)
			TEST_FAIL("%s: status %s", name, status);
		if (!tool_text(item, "detail")[0])
			TEST_FAIL("%s: nothing seen", name);
		if (ok != !tool_text(item, "effect")[0])
			TEST_FAIL("%s is %s, effect '%s'", name, status, tool_text(item, "effect"));
		if (ok && tool_text(item, "mend")[0])
			TEST_FAIL("%s is ok and to be mended", name);
	}
	cJSON_Delete(document);
}

TEST(doctor, counts_what_it_lists_and_exits_by_what_is_needed)
{
	int ok = 0, degraded = 0, missing = 0, needed = 0;
	const cJSON *item;
	cJSON *document;

	TOOL(&answer, -1, "doctor", "--json");
	document = tool_json(&answer);
	cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(document, "items"))
	{
		const char *status = tool_text(item, "status");

		ok += strcmp(status, "ok") == 0;
		degraded += strcmp(status, "degraded") == 0;
		missing += strcmp(status, "missing") == 0;
		needed += strcmp(status, "missing") == 0 &&
			  cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(item, "needed"));
	}
	EXPECT_EQ((int)tool_number(document, "ok"), ok);
	EXPECT_EQ((int)tool_number(document, "degraded"), degraded);
	EXPECT_EQ((int)tool_number(document, "missing"), missing);
	EXPECT_EQ((int)tool_number(document, "needed_missing"), needed);
	EXPECT_EQ(answer.status, needed ? 1 : 0);
	EXPECT_EQ(shale_doctor_run(NULL, NULL), needed);
	cJSON_Delete(document);
}

TEST(doctor, text_ends_with_its_summary)
{
	TOOL(&answer, -1, "doctor");
	EXPECT_EQ(answer.status, 0);
	EXPECT_STR_EQ(answer.err, "");
	EXPECT_NOT_NULL(strstr(answer.out, "\n\neverything that shale needs is here; "));
}

/* The build's run path is found through /proc, so the folder of the library is given as well. */
static void hide_proc(void)
{
	char folder[4096];

	snprintf(folder, sizeof(folder), "%s/src", getenv("SHALE_BUILD_ROOT"));
	setenv("LD_LIBRARY_PATH", folder, 1);
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", "/proc", "tmpfs", 0, NULL) < 0)
		_exit(125);
}

/* Liveness locks are opened through /proc: without it shale does not work, and must say so. */
TEST(doctor, exits_1_without_proc)
{
	cJSON *document;

	if (geteuid() != 0)
		SKIP("needs root to cover /proc in a mount namespace");
	tool_before_exec = hide_proc;
	TOOL(&answer, -1, "doctor", "--json");
	tool_before_exec = NULL;
	if (answer.status == 125)
		SKIP("mount namespaces are refused here");
	EXPECT_EQ(answer.status, 1);
	document = tool_json(&answer);
	EXPECT_STR_EQ(tool_text(item_named(document, "kernel.proc"), "status"), "missing");
	EXPECT_STR_EQ(tool_text(item_named(document, "feature.ofd_lock"), "status"), "missing");
	EXPECT_EQ((int)tool_number(document, "needed_missing"), 2);
	EXPECT_TRUE(cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(document, "good")));
	cJSON_Delete(document);
}

static void on_report(const struct shale_doctor_report *report, void *context)
{
	unsigned *count = context;

	EXPECT_TRUE(report->name && report->detail && report->effect && report->mend);
	(*count)++;
}

/* What was tried must be gone afterwards: descriptors above all. */
TEST(doctor, leaves_nothing_behind)
{
	unsigned count = 0, before;

	shale_doctor_run(NULL, NULL);
	before = test_fd_count();
	shale_doctor_run(on_report, &count);
	EXPECT_GE(count, sizeof(items) / sizeof(items[0]));
	EXPECT_EQ(test_fd_count(), before);
}
