/* os_memfd.c - the file behind a segment: making, recognising, committing, locking. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/fuse.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "os_test.h"

FIXTURE(os_memfd)
{
	int fd;
};

FIXTURE_SETUP(os_memfd)
{
	test_expect_no_fd_leak();
	self->fd = os_memfd_create("test", OS_PAGES_4K);
	ASSERT_OK(self->fd);
	ASSERT_OK(os_memfd_set_size(self->fd, 16 * PAGE));
}

FIXTURE_TEARDOWN(os_memfd)
{
	os_fault_disarm();
	close(self->fd);
}

TEST_F(os_memfd, is_born_unsealed_cloexec_not_executable)
{
	struct os_memfd_info info;

	EXPECT_EQ(fcntl(self->fd, F_GETFD), FD_CLOEXEC);
	ASSERT_OK(os_memfd_identify(self->fd, &info));
	EXPECT_EQ(info.size_bytes, 16 * PAGE);
	EXPECT_EQ(info.page_size, PAGE);
	EXPECT_TRUE(info.writable);
	EXPECT_FALSE(info.executable);
	EXPECT_FALSE(info.hugetlb);
	EXPECT_EQ(info.seals & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
}

TEST_F(os_memfd, is_not_executable_without_noexec_seal)
{
	struct os_memfd_info info;
	int fd;

	os_fault_arm(OS_CALL_MEMFD_CREATE, 1, EINVAL);
	fd = os_memfd_create("old", OS_PAGES_4K);
	EXPECT_EQ(os_fault_count(OS_CALL_MEMFD_CREATE), 2);
	ASSERT_OK(fd);
	ASSERT_OK(os_memfd_identify(fd, &info));
	EXPECT_FALSE(info.executable);
	EXPECT_EQ(info.seals, 0);
	EXPECT_OK(os_memfd_seal(fd));
	EXPECT_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	close(fd);
}

TEST_F(os_memfd, refuses_a_long_label_and_a_strange_kind)
{
	char label[300];

	memset(label, 'a', sizeof(label));
	label[sizeof(label) - 1] = '\0';
	EXPECT_ERRNO(-EINVAL, os_memfd_create(label, OS_PAGES_4K));
	EXPECT_ERRNO(-EINVAL, os_memfd_create("x", (enum os_page_kind)9));
}

TEST_F(os_memfd, says_enodev_for_a_page_size_the_kernel_lacks)
{
	os_fault_arm(OS_CALL_MEMFD_CREATE, 1, ENOENT);
	EXPECT_ERRNO(-ENODEV, os_memfd_create("x", OS_PAGES_1G));
}

TEST_F(os_memfd, keeps_its_size_once_sealed)
{
	struct os_memfd_info info;

	EXPECT_ERRNO(-EINVAL, os_memfd_set_size(self->fd, (uint64_t)INT64_MAX + 1));
	EXPECT_OK(os_memfd_seal(self->fd));
	EXPECT_OK(os_memfd_seal(self->fd));
	EXPECT_ERRNO(-EPERM, os_memfd_set_size(self->fd, PAGE));
	EXPECT_ERRNO(-EPERM, os_memfd_set_size(self->fd, 32 * PAGE));
	ASSERT_OK(os_memfd_identify(self->fd, &info));
	EXPECT_EQ(info.size_bytes, 16 * PAGE);
	EXPECT_EQ(info.seals & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
		  F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
}

TEST_F(os_memfd, cannot_be_sealed_when_somebody_sealed_the_seals)
{
	ASSERT_SYS(fcntl(self->fd, F_ADD_SEALS, F_SEAL_SEAL));
	EXPECT_ERRNO(-EPERM, os_memfd_seal(self->fd));
}

/* ---- what is not a memfd ---------------------------------------------------------------------- */

static int open_pipe(void)
{
	int ends[2];

	ASSERT_SYS(pipe2(ends, O_CLOEXEC));
	close(ends[1]);
	return ends[0];
}

static int open_socket(void)
{
	return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static int open_directory(void)
{
	return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int open_tmpfs_directory(void)
{
	return open("/dev/shm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int open_disk_file(void)
{
	return open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
}

static int open_proc_file(void)
{
	return open("/proc/self/status", O_RDONLY | O_CLOEXEC);
}

static int open_zero(void)
{
	return open("/dev/zero", O_RDWR | O_CLOEXEC);
}

static int open_eventfd(void)
{
	return eventfd(0, EFD_CLOEXEC);
}

static int open_epoll(void)
{
	return epoll_create1(EPOLL_CLOEXEC);
}

static int open_pidfd(void)
{
	return (int)syscall(SYS_pidfd_open, getpid(), 0);
}

static int open_path_only(void)
{
	return open("/dev/shm", O_PATH | O_CLOEXEC);
}

static int open_memfd_path_only(void)
{
	int fd = memfd_create("x", MFD_CLOEXEC);
	char path[64];
	int named;

	ASSERT_SYS(fd);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	named = open(path, O_PATH | O_CLOEXEC);
	close(fd);
	return named;
}

static int open_memfd_write_only(void)
{
	int fd = memfd_create("x", MFD_CLOEXEC);
	char path[64];
	int opened;

	ASSERT_SYS(fd);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	opened = open(path, O_WRONLY | O_CLOEXEC);
	close(fd);
	return opened;
}

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

static int open_secret(void)
{
	return (int)syscall(SYS_memfd_secret, O_CLOEXEC);
}

static int open_nothing(void)
{
	return 1 << 19;
}

struct wrong_kind {
	int (*open)(void);
	bool optional;
};

#define WRONG(name_, errno_, optional_)                    \
	{                                                  \
#name_, errno_, &(const struct wrong_kind) \
		{                                          \
			open_##name_, optional_            \
		}                                          \
	}
VARIANT_SET(wrong_kinds) = {
	WRONG(pipe, EMEDIUMTYPE, false),       WRONG(socket, EMEDIUMTYPE, false),
	WRONG(directory, EMEDIUMTYPE, false),  WRONG(tmpfs_directory, EMEDIUMTYPE, true),
	WRONG(disk_file, EMEDIUMTYPE, false),  WRONG(proc_file, EMEDIUMTYPE, false),
	WRONG(zero, EMEDIUMTYPE, false),       WRONG(eventfd, EMEDIUMTYPE, false),
	WRONG(epoll, EMEDIUMTYPE, false),      WRONG(pidfd, EMEDIUMTYPE, true),
	WRONG(secret, EMEDIUMTYPE, true),      WRONG(path_only, EBADFD, true),
	WRONG(memfd_path_only, EBADFD, false), WRONG(memfd_write_only, EACCES, false),
	WRONG(nothing, EBADF, false),
};

TEST_V(os_memfd_wrong_kind, is_refused_by_its_cause, wrong_kinds)
{
	const struct wrong_kind *kind = variant->data;
	struct os_memfd_info info;
	int fd = kind->open();

	if (fd < 0 && kind->optional)
		SKIP("cannot be opened here: %s", test_errno_name(errno));
	ASSERT_GE(fd, 0);
	memset(&info, 0x5a, sizeof(info));
	EXPECT_ERRNO(-(int)variant->value, os_memfd_identify(fd, &info));
	EXPECT_EQ(((unsigned char *)&info)[0], 0x5a);
	close(fd);
}

/* A plain file on a tmpfs passes, but its seals tell it apart: SEAL alone, so never SHRINK. */
TEST(os_memfd_identify, shows_a_tmpfs_file_by_its_seals)
{
	struct os_memfd_info info;
	int fd = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0)
		SKIP("no tmpfs at /dev/shm: %s", test_errno_name(errno));
	ASSERT_OK(os_memfd_identify(fd, &info));
	EXPECT_EQ(info.seals, F_SEAL_SEAL);
	EXPECT_ERRNO(-EPERM, os_memfd_seal(fd));
	close(fd);
}

TEST_F(os_memfd, shows_an_executable_and_a_read_only_one)
{
	struct os_memfd_info info;
	int foreign = (int)syscall(SYS_memfd_create, "x", MFD_CLOEXEC | 0x0010U /* MFD_EXEC */);
	int reader = os_reopen(self->fd, false);

	if (foreign < 0)
		foreign = memfd_create("x", MFD_CLOEXEC);
	ASSERT_SYS(foreign);
	ASSERT_OK(reader);
	ASSERT_OK(os_memfd_identify(foreign, &info));
	EXPECT_TRUE(info.executable);
	ASSERT_OK(os_memfd_identify(reader, &info));
	EXPECT_FALSE(info.writable);
	close(foreign);
	close(reader);
}

TEST_F(os_memfd, is_not_taken_for_what_reused_its_number)
{
	struct os_memfd_info info;
	int other = os_memfd_create("other", OS_PAGES_4K);
	int copy = os_fd_dup(self->fd);

	ASSERT_OK(other);
	ASSERT_OK(copy);
	ASSERT_OK(os_memfd_identify(copy, &info));
	EXPECT_TRUE(os_memfd_same(copy, info.dev, info.ino));
	ASSERT_SYS(dup3(other, copy, O_CLOEXEC));
	EXPECT_FALSE(os_memfd_same(copy, info.dev, info.ino));
	close(copy);
	EXPECT_FALSE(os_memfd_same(copy, info.dev, info.ino));
	close(other);
}

/* ---- a file system that never answers ---------------------------------------------------------- */

/* Answers what it takes to open the one file, then nothing more: what a hostile FUSE server does. */
static void fuse_answer(int device, uint64_t unique, const void *body, size_t size)
{
	char reply[256];
	struct fuse_out_header header = {
		.len = (uint32_t)(sizeof(header) + size),
		.unique = unique,
	};

	memcpy(reply, &header, sizeof(header));
	memcpy(reply + sizeof(header), body, size);
	ASSERT_EQ(write(device, reply, header.len), (ssize_t)header.len);
}

static void fuse_serve_until_open(int device)
{
	static char request[1 << 16];

	for (;;) {
		struct fuse_in_header header;
		struct fuse_init_out init = {.major = 7, .minor = 31, .max_write = 4096};
		struct fuse_open_out opened = {.fh = 1};

		ASSERT_SYS(read(device, request, sizeof(request)));
		memcpy(&header, request, sizeof(header));
		if (header.opcode == FUSE_INIT)
			fuse_answer(device, header.unique, &init, sizeof(init));
		if (header.opcode == FUSE_OPEN) {
			fuse_answer(device, header.unique, &opened, sizeof(opened));
			return;
		}
	}
}

/* Refused to ordinary users, to root without its capabilities, and in a chroot (EINVAL). */
static void enter_mount_namespace(void)
{
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		SKIP("mount namespaces are refused here: %s", test_errno_name(errno));
}

/* Mounted over a plain file, so that opening it takes one request. The server is killed at the end. */
TEST_TIMEOUT(os_memfd_identify, is_not_hung_by_a_silent_file_system, 20)
{
	struct os_memfd_info info;
	char options[128], path[] = "/tmp/shale-fuse-XXXXXX";
	int device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	int place, silent;
	pid_t server;

	if (device < 0)
		SKIP("no /dev/fuse: %s", test_errno_name(errno));
	enter_mount_namespace();
	place = mkstemp(path);
	ASSERT_SYS(place);
	ASSERT_SYS(unlink(path));
	close(place);
	ASSERT_SYS(mount("none", "/tmp", "tmpfs", 0, NULL));
	place = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	ASSERT_SYS(place);
	snprintf(options, sizeof(options), "fd=%d,rootmode=100600,user_id=0,group_id=0", device);
	if (mount("silent", path, "fuse", MS_NOSUID | MS_NODEV, options) < 0)
		SKIP("cannot mount FUSE: %s", test_errno_name(errno));
	server = test_fork();
	if (server == 0) {
		fuse_serve_until_open(device);
		for (;;)
			pause();
	}
	close(device);
	silent = open(path, O_RDWR | O_CLOEXEC);
	ASSERT_SYS(silent);
	EXPECT_ERRNO(-EMEDIUMTYPE, os_memfd_identify(silent, &info));
	EXPECT_FALSE(os_memfd_same(silent, 1, 1));
	EXPECT_LT(os_memfd_seal(silent), 0);
	test_end_child(server);
	close(silent);
	close(place);
}

/* ---- descriptors ------------------------------------------------------------------------------ */

TEST_F(os_memfd, reopens_as_another_description)
{
	int again = os_reopen(self->fd, true);
	int reader = os_reopen(self->fd, false);

	ASSERT_OK(again);
	ASSERT_OK(reader);
	EXPECT_EQ(fcntl(again, F_GETFD), FD_CLOEXEC);
	EXPECT_EQ(lseek(self->fd, 100, SEEK_SET), 100);
	EXPECT_EQ(lseek(again, 0, SEEK_CUR), 0);
	EXPECT_EQ(write(again, "hello", 5), 5);
	EXPECT_EQ(write(reader, "x", 1), -1);
	EXPECT_ERRNO(-EBADF, os_reopen(1 << 19, false));
	close(again);
	close(reader);
}

TEST_F(os_memfd, reopen_says_when_proc_is_missing_or_fake)
{
	char path[64];
	int copy, fake;

	enter_mount_namespace(); /* before the copy: a skip leaves nothing open */
	copy = fcntl(self->fd, F_DUPFD_CLOEXEC, 500);
	ASSERT_SYS(copy);
	ASSERT_SYS(mount("none", "/proc", "tmpfs", 0, NULL));
	EXPECT_ERRNO(-EOPNOTSUPP, os_reopen(copy, true));
	ASSERT_SYS(mkdir("/proc/thread-self", 0700));
	ASSERT_SYS(mkdir("/proc/thread-self/fd", 0700));
	snprintf(path, sizeof(path), "/proc/thread-self/fd/%d", copy);
	fake = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	ASSERT_SYS(fake);
	EXPECT_ERRNO(-EOPNOTSUPP, os_reopen(copy, true));
	close(fake);
	close(copy);
	EXPECT_SYS(umount2("/proc", MNT_DETACH));
}

TEST_F(os_memfd, dup_is_cloexec_and_above_two)
{
	int copy;

	close(0);
	copy = os_fd_dup(self->fd);
	EXPECT_GE(copy, 3);
	EXPECT_EQ(fcntl(copy, F_GETFD), FD_CLOEXEC);
	EXPECT_OK(os_fd_close(copy));
	EXPECT_ERRNO(-EBADF, os_fd_close(copy));
	EXPECT_EQ(os_fd_close(-EBADF), 0);
	EXPECT_EQ(open("/dev/null", O_RDONLY), 0);
}

TEST_F(os_memfd, cleanup_closes)
{
	unsigned before = test_fd_count();

	{
		_cleanup_os_close_ int copy = os_fd_dup(self->fd);

		EXPECT_EQ(test_fd_count(), before + 1);
		EXPECT_GE(copy, 3);
	}
	EXPECT_EQ(test_fd_count(), before);
}

/* ---- pages ------------------------------------------------------------------------------------ */

TEST_F(os_memfd, commits_and_gives_back_exactly)
{
	uint64_t bytes = 1;

	ASSERT_OK(os_backing_bytes(self->fd, &bytes));
	EXPECT_EQ(bytes, 0);
	ASSERT_OK(os_commit(self->fd, 4 * PAGE, 8 * PAGE));
	ASSERT_OK(os_backing_bytes(self->fd, &bytes));
	EXPECT_EQ(bytes, 8 * PAGE);
	ASSERT_OK(os_decommit(self->fd, 4 * PAGE, 3 * PAGE));
	ASSERT_OK(os_backing_bytes(self->fd, &bytes));
	EXPECT_EQ(bytes, 5 * PAGE);
}

TEST_F(os_memfd, commit_keeps_and_decommit_clears_what_was_written)
{
	char byte = 0;

	ASSERT_OK(os_memfd_seal(self->fd));
	ASSERT_EQ(pwrite(self->fd, "A", 1, 5 * PAGE), 1);
	ASSERT_OK(os_commit(self->fd, 0, 16 * PAGE));
	ASSERT_EQ(pread(self->fd, &byte, 1, 5 * PAGE), 1);
	EXPECT_EQ(byte, 'A');
	ASSERT_OK(os_decommit(self->fd, 5 * PAGE, PAGE));
	ASSERT_EQ(pread(self->fd, &byte, 1, 5 * PAGE), 1);
	EXPECT_EQ(byte, 0);
}

TEST_F(os_memfd, refuses_ranges_that_make_no_sense)
{
	int reader = os_reopen(self->fd, false);

	ASSERT_OK(reader);
	ASSERT_OK(os_memfd_seal(self->fd));
	EXPECT_ERRNO(-EINVAL, os_commit(self->fd, 0, 0));
	EXPECT_ERRNO(-EINVAL, os_commit(self->fd, UINT64_MAX, PAGE));
	EXPECT_ERRNO(-EINVAL, os_commit(self->fd, INT64_MAX - 10, PAGE));
	EXPECT_ERRNO(-EPERM, os_commit(self->fd, 15 * PAGE, 2 * PAGE));
	EXPECT_ERRNO(-EBADF, os_commit(reader, 0, PAGE));
	EXPECT_ERRNO(-EINVAL, os_decommit(self->fd, 0, 0));
	EXPECT_ERRNO(-EBADF, os_decommit(reader, 0, PAGE));
	ASSERT_SYS(close(reader));
}

TEST_F(os_memfd, cannot_give_back_under_a_write_seal)
{
	ASSERT_OK(os_commit(self->fd, 0, PAGE));
	ASSERT_SYS(fcntl(self->fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	EXPECT_ERRNO(-EPERM, os_decommit(self->fd, 0, PAGE));
}

TEST_F(os_memfd, out_of_memory_is_enomem)
{
	os_fault_arm(OS_CALL_FALLOCATE, 1, ENOSPC);
	EXPECT_ERRNO(-ENOMEM, os_commit(self->fd, 0, PAGE));
}

static void ignore_signal(int number)
{
	(void)number;
}

/* shmem starts an interrupted fallocate anew: repeating the whole would never end here. */
TEST_F(os_memfd, commit_ends_under_a_fast_timer)
{
	const uint64_t size = (uint64_t)256 << 20;
	const struct itimerval fast = {{0, 500}, {0, 500}}, off = {{0, 0}, {0, 0}};
	struct sigaction action = {.sa_handler = ignore_signal};
	uint64_t bytes = 0;

	ASSERT_OK(os_memfd_set_size(self->fd, size));
	ASSERT_SYS(sigaction(SIGALRM, &action, NULL));
	os_fault_arm(OS_CALL_FALLOCATE, 0, 0);
	ASSERT_SYS(setitimer(ITIMER_REAL, &fast, NULL));
	EXPECT_OK(os_commit(self->fd, 0, size));
	ASSERT_SYS(setitimer(ITIMER_REAL, &off, NULL));
	EXPECT_OK(os_backing_bytes(self->fd, &bytes));
	EXPECT_EQ(bytes, size);
	if (os_fault_count(OS_CALL_FALLOCATE) == 1)
		SKIP("this kernel does not interrupt fallocate");
}

TEST_F(os_memfd, interrupted_commit_covers_the_whole_range)
{
	uint64_t bytes = 0;

	for (unsigned nth = 1; nth <= 3; nth++) {
		os_fault_arm(OS_CALL_FALLOCATE, nth, EINTR);
		EXPECT_OK(os_commit(self->fd, 0, 16 * PAGE));
		/* The whole, interrupted; then two halves. */
		EXPECT_EQ(os_fault_count(OS_CALL_FALLOCATE), nth == 1 ? 3 : 1);
		EXPECT_OK(os_backing_bytes(self->fd, &bytes));
		EXPECT_EQ(bytes, 16 * PAGE);
		EXPECT_OK(os_decommit(self->fd, 0, 16 * PAGE));
	}
}

/* ---- huge pages ------------------------------------------------------------------------------- */

FIXTURE(os_memfd_huge)
{
	int fd;
};

FIXTURE_SETUP(os_memfd_huge)
{
	self->fd = -1;
	hugepages_require_free(HUGE_2, HUGEPAGES_ANY_NODE, 4);
	self->fd = os_memfd_create("huge", OS_PAGES_2M);
	ASSERT_OK(self->fd);
}

FIXTURE_TEARDOWN(os_memfd_huge)
{
	if (self->fd >= 0)
		close(self->fd);
}

TEST_F(os_memfd_huge, is_known_by_its_page_size)
{
	struct os_memfd_info info;

	EXPECT_ERRNO(-EINVAL, os_memfd_set_size(self->fd, HUGE_2 + PAGE));
	ASSERT_OK(os_memfd_set_size(self->fd, 2 * HUGE_2));
	ASSERT_OK(os_memfd_seal(self->fd));
	ASSERT_OK(os_memfd_identify(self->fd, &info));
	EXPECT_TRUE(info.hugetlb);
	EXPECT_EQ(info.page_size, HUGE_2);
	EXPECT_EQ(info.size_bytes, 2 * HUGE_2);
	EXPECT_FALSE(info.executable);
}

TEST_F(os_memfd_huge, commits_until_the_pool_is_empty_and_gives_back)
{
	const uint64_t pages = 4096;
	uint64_t bytes = 0, taken = 0;
	int r = 0;

	ASSERT_OK(os_memfd_set_size(self->fd, pages * HUGE_2));
	while (taken < pages && r == 0) {
		r = os_commit(self->fd, taken * HUGE_2, HUGE_2);
		if (r == 0)
			taken++;
		if (taken > 64)
			break; /* a pool this large is not ours to drain */
	}
	EXPECT_GE(taken, 4);
	if (taken <= 64)
		EXPECT_ERRNO(-ENOMEM, r);
	ASSERT_OK(os_backing_bytes(self->fd, &bytes));
	EXPECT_EQ(bytes, taken * HUGE_2);
	ASSERT_OK(os_decommit(self->fd, HUGE_2, HUGE_2));
	ASSERT_OK(os_backing_bytes(self->fd, &bytes));
	EXPECT_EQ(bytes, (taken - 1) * HUGE_2);
}

/* ---- locks on a byte -------------------------------------------------------------------------- */

#define BYTE ((uint64_t)1 << 40)

TEST_F(os_memfd, exclusive_lock_excludes_other_descriptions_only)
{
	int other = os_reopen(self->fd, true);
	int copy = os_fd_dup(self->fd);

	ASSERT_OK(other);
	ASSERT_OK(os_lock_byte(self->fd, BYTE, true));
	EXPECT_OK(os_lock_byte(self->fd, BYTE, true));
	EXPECT_OK(os_lock_byte(copy, BYTE, true));
	EXPECT_ERRNO(-EAGAIN, os_lock_byte(other, BYTE, true));
	EXPECT_ERRNO(-EAGAIN, os_lock_byte(other, BYTE, false));
	EXPECT_OK(os_lock_byte(other, BYTE + 1, true));
	EXPECT_EQ(os_lock_probe(other, BYTE), 1);
	EXPECT_EQ(os_lock_probe(self->fd, BYTE), 0);
	EXPECT_EQ(os_lock_probe(other, BYTE + 1), 0);
	close(self->fd);
	EXPECT_EQ(os_lock_probe(other, BYTE), 1);
	close(copy);
	EXPECT_EQ(os_lock_probe(other, BYTE), 0);
	self->fd = other;
}

TEST_F(os_memfd, shared_locks_meet_and_convert)
{
	int other = os_reopen(self->fd, true);
	int reader = os_reopen(self->fd, false);

	ASSERT_OK(other);
	ASSERT_OK(reader);
	ASSERT_OK(os_lock_byte(self->fd, BYTE, false));
	EXPECT_OK(os_lock_byte(reader, BYTE, false));
	EXPECT_ERRNO(-EBADF, os_lock_byte(reader, BYTE, true));
	EXPECT_EQ(os_lock_probe(other, BYTE), 1);
	EXPECT_ERRNO(-EAGAIN, os_lock_byte(other, BYTE, true));
	EXPECT_OK(os_unlock_byte(reader, BYTE));
	EXPECT_OK(os_lock_byte(self->fd, BYTE, true));
	EXPECT_EQ(os_lock_probe(reader, BYTE), 1);
	EXPECT_OK(os_unlock_byte(self->fd, BYTE));
	EXPECT_OK(os_unlock_byte(self->fd, BYTE));
	EXPECT_EQ(os_lock_probe(reader, BYTE), 0);
	close(other);
	close(reader);
}

TEST_F(os_memfd, lock_bytes_reach_to_the_end_of_offsets)
{
	EXPECT_OK(os_lock_byte(self->fd, INT64_MAX - 1, true));
	EXPECT_ERRNO(-EINVAL, os_lock_byte(self->fd, INT64_MAX, true));
	EXPECT_ERRNO(-EINVAL, os_lock_byte(self->fd, UINT64_MAX, true));
	EXPECT_ERRNO(-EINVAL, os_lock_probe(self->fd, UINT64_MAX));
	EXPECT_ERRNO(-EBADF, os_lock_probe(1 << 19, BYTE));
}
