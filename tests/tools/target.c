/*
 * target.c - shale stat, check and trim on live segments, on dead peers, on damage, on what is none.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shale/heap.h>
#include <shale/keeper.h>
#include <shale/segment.h>

#include "harness.h"
#include "heap/slab_layout.h"
#include "segment/segment_layout.h"
#include "tool.h"

static struct tool_run answer;

/* ---- what is no segment ---------------------------------------------------------------------- */

static void expect_refused(const char *target)
{
	TOOL(&answer, -1, "stat", target);
	tool_expect_error(&answer, "stat");
	TOOL(&answer, -1, "stat", "--json", target);
	tool_expect_error(&answer, "stat");
	TOOL(&answer, -1, "check", target);
	tool_expect_error(&answer, "check");
	TOOL(&answer, -1, "check", "--recover", target);
	tool_expect_error(&answer, "check");
	TOOL(&answer, -1, "trim", target);
	tool_expect_error(&answer, "trim");
}

TEST(target, words_that_name_no_descriptor_are_refused)
{
	static const char *const words[] = {
		"",
		"x",
		"3",
		"/proc",
		"/proc/1",
		"/proc/1/fd",
		"/proc/1/fd/",
		"/proc/1/fd/x",
		"/proc/-1/fd/3",
		"/proc/1/fd/-3",
		"/proc/1/fd/3x",
		"1:",
		"1:x",
		"0:3",
		"fd:",
		"fd:-1",
		"fd:3 ",
		"/dev/shm/x",
	};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		expect_refused(words[i]);
		EXPECT_NOT_NULL(strstr(answer.err, "/proc/PID/fd/N"));
	}
}

TEST(target, says_what_is_not_there)
{
	char target[64], hint[64];

	expect_refused("/proc/999999999/fd/3");
	EXPECT_NOT_NULL(strstr(answer.err, "no process 999999999"));
	/* Ourselves: the descriptors of others an ordinary user may not look at. */
	snprintf(target, sizeof(target), "%d:987654", getpid());
	snprintf(hint, sizeof(hint), "ls -l /proc/%d/fd", getpid());
	expect_refused(target);
	EXPECT_NOT_NULL(strstr(answer.err, "no such descriptor"));
	EXPECT_NOT_NULL(strstr(answer.err, hint));
	expect_refused("fd:9876");
}

static void expect_refused_fd(int fd)
{
	char target[64];

	ASSERT_GE(fd, 0);
	snprintf(target, sizeof(target), "/proc/%d/fd/%d", getpid(), fd);
	expect_refused(target);
	snprintf(target, sizeof(target), "%d:%d", getpid(), fd);
	expect_refused(target);
	close(fd);
}

/* A pipe without a writer would block whoever opens it, and a device may do worse. */
TEST(target, files_that_are_no_memfd_are_refused_unopened)
{
	int pipes[2], pair[2];

	ASSERT_SYS(pipe2(pipes, O_CLOEXEC));
	close(pipes[1]);
	expect_refused_fd(pipes[0]);
	EXPECT_NOT_NULL(strstr(answer.err, "a pipe"));
	ASSERT_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	expect_refused_fd(pair[0]);
	EXPECT_NOT_NULL(strstr(answer.err, "a socket"));
	close(pair[1]);
	expect_refused_fd(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	EXPECT_NOT_NULL(strstr(answer.err, "a directory"));
	expect_refused_fd(open("/dev/null", O_RDWR | O_CLOEXEC));
	EXPECT_NOT_NULL(strstr(answer.err, "a device"));
	expect_refused_fd(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
}

TEST(target, memfds_that_are_no_segment_are_refused)
{
	int fd = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	ASSERT_SYS(ftruncate(fd, 1 << 20));
	expect_refused_fd(fd);
	fd = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	ASSERT_SYS(ftruncate(fd, 1 << 20));
	ASSERT_SYS(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));
	expect_refused_fd(fd);
}

/* ---- what is one ----------------------------------------------------------------------------- */

FIXTURE(segment)
{
	struct shale_segment *segment;
	void *block;
	char target[64];
};

FIXTURE_SETUP(segment)
{
	struct shale_segment_options options = {
		.size = sizeof(options),
		.capacity_bytes = UINT64_C(64) << 20,
		.label = "tool \033[31mtest",
		.pages = SHALE_PAGES_4K,
	};

	ASSERT_OK(shale_segment_create(&options, &self->segment));
	self->block = shale_alloc(self->segment, 1024);
	ASSERT_NOT_NULL(self->block);
	ASSERT_OK(shale_root_publish(self->segment, "first", self->block));
	snprintf(self->target, sizeof(self->target), "/proc/%d/fd/%d", getpid(),
		 shale_segment_fd(self->segment));
}

FIXTURE_TEARDOWN(segment)
{
	EXPECT_OK(shale_segment_detach(self->segment));
}

static void expect_number(const cJSON *document, const char *path, uint64_t expected)
{
	double value = tool_number(document, path);

	if (value < (double)expected || value > (double)expected)
		TEST_FAIL("%s is %.0f, not %llu", path, value, (unsigned long long)expected);
}

static void expect_stat(const cJSON *document, struct shale_segment *segment)
{
	struct shale_segment_figures stat = {.size = sizeof(stat)};
	struct shale_heap_figures heap = {.size = sizeof(heap)};

	ASSERT_OK(shale_segment_stat(segment, &stat));
	ASSERT_OK(shale_heap_stat(segment, &heap));
	expect_number(document, "segment/capacity_bytes", stat.capacity_bytes);
	expect_number(document, "segment/budget_bytes", stat.budget_bytes);
	expect_number(document, "segment/committed_bytes", stat.committed_bytes);
	expect_number(document, "segment/metadata_bytes", stat.metadata_bytes);
	expect_number(document, "segment/backing_bytes", stat.backing_bytes);
	expect_number(document, "segment/arenas_committed", stat.arenas_committed);
	expect_number(document, "segment/peers", stat.peers);
	expect_number(document, "segment/lanes", stat.lanes);
	expect_number(document, "segment/roots", stat.roots);
	expect_number(document, "heap/live_blocks", heap.live_blocks);
	expect_number(document, "heap/live_bytes", heap.live_bytes);
	expect_number(document, "heap/retained_bytes", heap.retained_bytes);
	expect_number(document, "heap/returned_bytes", heap.returned_bytes);
	expect_number(document, "heap/purged_bytes", heap.purged_bytes);
	expect_number(document, "heap/releases", heap.releases);
	expect_number(document, "heap/keeper", heap.keeper);
	EXPECT_STR_EQ(tool_text(document, "segment/pages"), "4K");
	EXPECT_STR_EQ(tool_text(document, "segment/placement"), "local");
	EXPECT_STR_EQ(tool_text(document, "segment/label"), "tool ?[31mtest");
}

TEST_F(segment, stat_gives_the_figures_of_the_library)
{
	const cJSON *item;
	cJSON *document;

	TOOL(&answer, -1, "stat", "--json", self->target);
	EXPECT_EQ(answer.status, 0);
	EXPECT_STR_EQ(answer.err, "");
	document = tool_json(&answer);
	expect_stat(document, self->segment);
	item = cJSON_GetArrayItem(cJSON_GetObjectItem(document, "peers"), 0);
	expect_number(item, "pid", (uint64_t)getpid());
	EXPECT_TRUE(cJSON_IsFalse(cJSON_GetObjectItem(item, "dead")));
	item = cJSON_GetArrayItem(cJSON_GetObjectItem(document, "roots"), 0);
	EXPECT_STR_EQ(tool_text(item, "name"), "first");
	EXPECT_STR_EQ(tool_text(item, "kind"), "user");
	cJSON_Delete(document);
}

TEST_F(segment, stat_works_through_each_form_of_target)
{
	int fd = shale_segment_fd(self->segment);
	char words[64];
	cJSON *document;

	snprintf(words, sizeof(words), "%d:%d", getpid(), fd);
	TOOL(&answer, -1, "stat", "--json", words);
	document = tool_json(&answer);
	expect_stat(document, self->segment);
	cJSON_Delete(document);
	fd = dup(fd);
	snprintf(words, sizeof(words), "fd:%d", fd);
	TOOL(&answer, fd, "stat", "--json", words);
	document = tool_json(&answer);
	expect_stat(document, self->segment);
	cJSON_Delete(document);
	TOOL(&answer, fd, "check", words);
	EXPECT_EQ(answer.status, 0);
	close(fd);
}

TEST_F(segment, stat_text_names_pages_peers_and_roots)
{
	TOOL(&answer, -1, "stat", self->target);
	EXPECT_EQ(answer.status, 0);
	EXPECT_NOT_NULL(strstr(answer.out, "\npages        4K: "));
	EXPECT_NOT_NULL(strstr(answer.out, "\nlive "));
	EXPECT_NOT_NULL(strstr(answer.out, "\npeers: 1, dead: 0, lanes: 1\n"));
	EXPECT_NOT_NULL(strstr(answer.out, "first\n"));
	EXPECT_NULL(strchr(answer.out, '\033'));
}

static uint64_t committed_bytes(struct shale_segment *segment)
{
	struct shale_heap_figures heap = {.size = sizeof(heap)};

	ASSERT_OK(shale_heap_stat(segment, &heap));
	return heap.committed_bytes;
}

TEST_F(segment, trim_gives_back_what_is_free_and_says_how_much)
{
	struct shale_heap_figures before = {.size = sizeof(before)};
	struct shale_keeper_figures keeper = {.size = sizeof(keeper)};
	cJSON *document;

	ASSERT_OK(shale_free(self->segment, shale_alloc(self->segment, 20u << 20)));
	ASSERT_OK(shale_heap_stat(self->segment, &before));
	TOOL(&answer, -1, "trim", "--json", self->target);
	EXPECT_EQ(answer.status, 0);
	document = tool_json(&answer);
	EXPECT_GE((uint64_t)tool_number(document, "given_back_bytes"), 20u << 20);
	expect_number(document, "committed_bytes", committed_bytes(self->segment));
	cJSON_Delete(document);
	EXPECT_LE(committed_bytes(self->segment), before.committed_bytes - (20u << 20));
	TOOL(&answer, -1, "trim", self->target);
	EXPECT_EQ(answer.status, 0);
	EXPECT_NOT_NULL(strstr(answer.out, " given back ("));
	/* whose keeper acts is shown */
	TOOL(&answer, -1, "stat", self->target);
	EXPECT_NOT_NULL(strstr(answer.out, "there is no keeper\n"));
	ASSERT_OK(shale_keeper_start(self->segment, NULL));
	ASSERT_TRUE(TEST_EVENTUALLY((shale_keeper_stat(self->segment, &keeper), keeper.acting != 0),
				    10000));
	TOOL(&answer, -1, "stat", self->target);
	EXPECT_NOT_NULL(strstr(answer.out, "by the keeper of peer 1\n"));
}

/* Looking must not be seen: no slot taken, no byte of the segment changed. */
TEST_F(segment, looking_changes_nothing)
{
	struct shale_segment_figures stat = {.size = sizeof(stat)};
	const char *base = shale_segment_base(self->segment);
	const struct header_shm *header = (const void *)base;
	size_t size = header->arena_table_offset;
	char *before = malloc(size);

	ASSERT_OK(shale_segment_stat(self->segment, &stat));
	ASSERT_NOT_NULL(before);
	memcpy(before, base, size);
	TOOL(&answer, -1, "stat", self->target);
	TOOL(&answer, -1, "check", self->target);
	EXPECT_MEM_EQ(before, base, size);
	free(before);
}

TEST_F(segment, check_is_clean_and_exits_0)
{
	cJSON *document;

	TOOL(&answer, -1, "check", self->target);
	EXPECT_EQ(answer.status, 0);
	EXPECT_STR_EQ(answer.out, "clean\n");
	TOOL(&answer, -1, "check", "--json", self->target);
	EXPECT_EQ(answer.status, 0);
	document = tool_json(&answer);
	EXPECT_TRUE(cJSON_IsTrue(cJSON_GetObjectItem(document, "clean")));
	expect_number(document, "count", 0);
	cJSON_Delete(document);
}

/* Writes a value that no fact may have over the facts of the slab that the block lies in. */
static void damage_facts(struct shale_segment *segment, const void *block)
{
	unsigned char *base = shale_segment_base(segment);
	const struct header_shm *header = (const void *)base;
	uint64_t slab = (shale_ref_of(segment, block).off - header->heap_offset) >> SLAB_SHIFT;
	unsigned char *own = base + header->short_facts_offset + slab * SHORT_FACTS_STRIDE;

	for (unsigned i = 0; i < SHORT_FACTS_BLOCKS; i++) {
		if (own[i] == OWN_PUBLISHED || own[i] == OWN_ALLOCATED) {
			own[i] = 7;
			return;
		}
	}
	TEST_FAIL("no fact of a live block at slab %llu", (unsigned long long)slab);
}

TEST_F(segment, check_reports_findings_and_exits_1)
{
	const cJSON *findings, *item;
	cJSON *document;

	damage_facts(self->segment, self->block);
	TOOL(&answer, -1, "check", self->target);
	EXPECT_EQ(answer.status, 1);
	EXPECT_NOT_NULL(strstr(answer.out, " finding"));
	EXPECT_NULL(strstr(answer.out, "clean"));
	TOOL(&answer, -1, "check", "--json", self->target);
	EXPECT_EQ(answer.status, 1);
	document = tool_json(&answer);
	findings = cJSON_GetObjectItem(document, "findings");
	EXPECT_TRUE(cJSON_IsFalse(cJSON_GetObjectItem(document, "clean")));
	expect_number(document, "count", (uint64_t)cJSON_GetArraySize(findings));
	EXPECT_GE(cJSON_GetArraySize(findings), 1);
	item = cJSON_GetArrayItem(findings, 0);
	EXPECT_NE(tool_text(item, "invariant")[0], '\0');
	EXPECT_NE(tool_text(item, "text")[0], '\0');
	EXPECT_GE(tool_number(item, "offset"), 0.0);
	cJSON_Delete(document);
}

/* A process that attaches, allocates, and is killed holding it. */
static void leave_dead_peer(struct shale_segment *segment)
{
	int ready[2], status;
	char byte;
	pid_t pid;

	ASSERT_SYS(pipe2(ready, O_CLOEXEC));
	pid = fork();
	ASSERT_SYS(pid);
	if (pid == 0) {
		if (shale_alloc(segment, 2048) && write(ready[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	close(ready[1]);
	ASSERT_EQ(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	ASSERT_SYS(kill(pid, SIGKILL));
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
}

/* The fixture's own: the block and the record of its root. */
#define FIXTURE_BLOCKS 2

static void expect_peers(const char *target, uint64_t peers, uint64_t dead, uint64_t blocks)
{
	cJSON *document;

	TOOL(&answer, -1, "stat", "--json", target);
	EXPECT_EQ(answer.status, 0);
	document = tool_json(&answer);
	expect_number(document, "segment/peers", peers);
	expect_number(document, "segment/peers_dead", dead);
	expect_number(document, "heap/live_blocks", blocks);
	cJSON_Delete(document);
}

TEST_F(segment, the_dead_are_shown_and_recovered_only_when_told)
{
	cJSON *document;

	leave_dead_peer(self->segment);
	expect_peers(self->target, 2, 1, FIXTURE_BLOCKS + 1);
	TOOL(&answer, -1, "check", self->target);
	EXPECT_EQ(answer.status, 0);
	EXPECT_STR_EQ(answer.out, "1 dead peer not recovered: give --recover\nclean\n");
	expect_peers(self->target, 2, 1, FIXTURE_BLOCKS + 1);
	TOOL(&answer, -1, "check", "--recover", "--json", self->target);
	EXPECT_EQ(answer.status, 0);
	document = tool_json(&answer);
	expect_number(document, "recovered", 1);
	expect_number(document, "dead", 0);
	cJSON_Delete(document);
	expect_peers(self->target, 1, 0, FIXTURE_BLOCKS);
	TOOL(&answer, -1, "check", "--recover", self->target);
	EXPECT_STR_EQ(answer.out, "0 peers recovered\nclean\n");
}
