/*
 * segment_early.c - a creator stands still, anywhere before it is ready, and somebody attaches.
 *
 * The rival finds the memfd through /proc/PID/fd of the stopped creator, which is the only way to it
 * before the creator hands it out. It must be told that it is too early (or that this is no segment
 * yet), never wait, and must not disturb what the creator goes on to make.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "heaps.h"
#include "step.h"

struct shared {
	pid_t creator;
	unsigned refused;  /* attach said -EAGAIN, -ETXTBSY or -EBADMSG */
	unsigned attached; /* the creator had become ready */
};

struct world {
	struct shared *shared;
	struct shale_segment *segment;
};

static void start(void *context)
{
	struct world *world = context;

	world->shared->creator = getpid();
}

static void create(void *context)
{
	struct world *world = context;
	struct shale_segment_options options = {
		.size = sizeof(options), .capacity_bytes = 8u << 20, .pages = SHALE_PAGES_4K};

	(void)shale_segment_create(&options, &world->segment);
}

static void attach_early(struct world *world, const char *path)
{
	char reason[160] = "";
	struct shale_attach_options options = {
		.size = sizeof(options), .reason = reason, .reason_size = sizeof(reason)};
	struct shale_segment *segment = NULL;
	int fd = open(path, O_RDWR | O_CLOEXEC);
	int r;

	if (fd < 0)
		return;
	r = shale_segment_attach(fd, &options, &segment);
	close(fd);
	if (r == 0) {
		world->shared->attached++;
		EXPECT_NOT_NULL(shale_alloc(segment, 100));
		EXPECT_OK(shale_segment_detach(segment));
		return;
	}
	EXPECT_NE(reason[0], 0);
	if (r == -EAGAIN || r == -ETXTBSY || r == -EBADMSG)
		world->shared->refused++;
	else
		EXPECT_EQ(r, -EAGAIN);
}

static void attach_to_memfds(void *context)
{
	struct world *world = context;
	char folder[64], path[384], target[64];
	struct dirent *entry;
	DIR *dir;

	snprintf(folder, sizeof(folder), "/proc/%d/fd", world->shared->creator);
	dir = opendir(folder);
	ASSERT_NOT_NULL(dir);
	while ((entry = readdir(dir))) {
		ssize_t size;

		snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		size = readlink(path, target, sizeof(target) - 1);
		if (size > 0 && strncmp(target, "/memfd:shale", 12) == 0)
			attach_early(world, path);
	}
	closedir(dir);
}

static void use_it(void *context)
{
	struct world *world = context;
	void *block;

	ASSERT_NOT_NULL(world->segment);
	block = shale_alloc(world->segment, 1000);
	ASSERT_NOT_NULL(block);
	EXPECT_EQ(heap_counts(world->segment).live_blocks, 1);
	EXPECT_OK(shale_free(world->segment, block));
	heap_expect_clean(world->segment);
	EXPECT_OK(shale_segment_detach(world->segment));
}

TEST_TIMEOUT(segment_early, attaching_before_ready_is_refused_and_harmless, 240)
{
	struct world world = {0};
	struct step_case step = {
		.name = "create",
		.prepare = start,
		.operation = create,
		.after = use_it,
		.rival = attach_to_memfds,
		.ctx = &world,
	};
	struct step_options options = {.dense = 1, .stride = 61};
	struct step_result result;

	world.shared = mmap(NULL, sizeof(*world.shared), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_TRUE(world.shared != MAP_FAILED);
	step_pause(&step, &options, &result);
	TEST_LOG("%llu pauses, %u refused, %u attached", (unsigned long long)result.points,
		 world.shared->refused, world.shared->attached);
	EXPECT_TRUE(result.complete);
	EXPECT_GT(world.shared->refused, 5);
	EXPECT_GT(world.shared->attached, 0);
}
