/*
 * A recoverer that probes the life lock of a slot while one process leaves it and the next takes it:
 * it had read the slot's word after the probe, and took the newcomer for the dead.
 *
 * The recoverer's fcntl() is ours: it plays the others' moves at the two questions it asks.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "heaps.h"
#include "segment/view.h"

#define SLOT 2u

/* A process that attaches and detaches when told. */
struct guest {
	pid_t pid;
	int command[2];
	int answer[2];
};

static struct guest guests[3];
static pid_t recoverer;
static unsigned probes;

static void guest_run(struct shale_segment *segment, struct guest *guest)
{
	char what;

	while (read(guest->command[0], &what, 1) == 1 && what != 'q') {
		if (what == 'a')
			ASSERT_NOT_NULL(shale_alloc(segment, 4096));
		else
			ASSERT_OK(shale_segment_detach(segment));
		ASSERT_EQ(write(guest->answer[1], &what, 1), 1);
	}
	test_child_exit();
}

static void guest_start(struct shale_segment *segment, struct guest *guest)
{
	ASSERT_SYS(pipe(guest->command));
	ASSERT_SYS(pipe(guest->answer));
	guest->pid = test_fork();
	ASSERT_SYS(guest->pid);
	if (guest->pid == 0)
		guest_run(segment, guest);
}

static void guest_do(struct guest *guest, char what)
{
	char answer;

	ASSERT_EQ(write(guest->command[1], &what, 1), 1);
	ASSERT_EQ(read(guest->answer[0], &answer, 1), 1);
}

static long real_fcntl(int fd, int command, void *argument)
{
	return syscall(SYS_fcntl, fd, command, argument);
}

static int played_fcntl(int fd, int command, void *argument)
{
	const struct flock *lock = argument;
	long r;

	if (getpid() != recoverer)
		return (int)real_fcntl(fd, command, argument);
	if (command == F_OFD_SETLK && (uint64_t)lock->l_start == LOCK_RECOVER_BASE + SLOT)
		guest_do(&guests[1], 'a');
	if (command != F_OFD_GETLK || (uint64_t)lock->l_start != LOCK_LIFE_BASE + SLOT)
		return (int)real_fcntl(fd, command, argument);
	probes++;
	if (probes <= 2)
		guest_do(&guests[probes - 1], 'd');
	r = real_fcntl(fd, command, argument);
	if (probes == 2)
		guest_do(&guests[2], 'a');
	return (int)r;
}

/* In place of the C library's. */
int fcntl(int fd, int command, ...)
{
	va_list arguments;
	void *argument;

	va_start(arguments, command);
	argument = va_arg(arguments, void *);
	va_end(arguments);
	return played_fcntl(fd, command, argument);
}

TEST(recovery_meets_newcomer, and_leaves_it_alone)
{
	struct shale_segment *segment = heap_segment(8u << 20, SHALE_PAGES_4K);
	struct shale_segment_figures stat = {.size = sizeof(stat)};

	for (unsigned i = 0; i < 3; i++)
		guest_start(segment, &guests[i]);
	guest_do(&guests[0], 'a');
	recoverer = getpid();
	EXPECT_EQ(shale_recover(segment), 0);
	recoverer = 0;
	EXPECT_EQ(probes, 2);
	ASSERT_OK(shale_segment_stat(segment, &stat));
	EXPECT_EQ(stat.peers, 2);
	/* the newcomer lives, and so does its block */
	EXPECT_EQ(view_peer(segment, SLOT)->word & PEER_STATE_MASK, PEER_ACTIVE);
	EXPECT_EQ(heap_counts(segment).live_blocks, 1);
	for (unsigned i = 0; i < 3; i++) {
		ASSERT_EQ(write(guests[i].command[1], "q", 1), 1);
		EXPECT_TRUE(test_join(guests[i].pid, 5000));
	}
	EXPECT_OK(shale_segment_detach(segment));
}
