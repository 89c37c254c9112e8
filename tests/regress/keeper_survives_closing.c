/*
 * A program that closes all its descriptors and opens others, then stops the keeper: the thread that
 * waits for memory pressure was never told, and what it should have been told went into a file of the
 * program's, which was closed as well.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <shale/keeper.h>

#include "heaps.h"

#define FIRST 3
#define LAST  63

static struct shale_keeper_figures status_of(struct shale_segment *segment)
{
	struct shale_keeper_figures status = {.size = sizeof(status)};

	ASSERT_OK(shale_keeper_stat(segment, &status));
	return status;
}

static void start(struct shale_segment *segment)
{
	struct shale_keeper_options options = {
		.size = sizeof(options),
		.flags = SHALE_KEEPER_URING,
	};

	ASSERT_OK(shale_keeper_start(segment, &options));
	ASSERT_TRUE(TEST_EVENTUALLY(status_of(segment).state == SHALE_KEEPER_ACTING, 5000));
	usleep(100000); /* until its threads sleep */
}

/* Every number is a file of the program's. */
static void take_all_numbers(void)
{
	int file = memfd_create("program's", 0);

	ASSERT_SYS(file);
	for (int fd = FIRST; fd <= LAST; fd++)
		if (fd != file)
			ASSERT_SYS(dup2(file, fd));
}

static void expect_all_numbers(void)
{
	struct stat st;

	for (int fd = FIRST; fd <= LAST; fd++) {
		EXPECT_EQ(fstat(fd, &st), 0);
		EXPECT_EQ(st.st_size, 0);
	}
}

TEST_TIMEOUT(keeper_survives_closing, when_it_is_stopped, 10)
{
	struct shale_segment *segment = heap_segment(8u << 20, SHALE_PAGES_4K);

	start(segment);
	take_all_numbers();
	EXPECT_OK(shale_keeper_stop(segment));
	expect_all_numbers();
}

TEST_TIMEOUT(keeper_survives_closing, in_a_forked_child, 10)
{
	struct shale_segment *segment = heap_segment(8u << 20, SHALE_PAGES_4K);
	pid_t child;

	start(segment);
	child = test_fork();
	ASSERT_SYS(child);
	if (child == 0) {
		take_all_numbers();
		EXPECT_ERRNO(-ENOENT, shale_keeper_stop(segment));
		expect_all_numbers();
		test_child_exit();
	}
	ASSERT_TRUE(test_join(child, 5000));
	EXPECT_OK(shale_segment_detach(segment));
}
