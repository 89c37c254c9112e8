/*
 * segment_header.c - descriptors and headers that anybody may have made.
 *
 * Owner:     each test makes its own files.
 * Invariant: an attach gives an error with a reason, or a view that works; never a signal.
 * Ordering:  none.
 * Lifetime:  files end with their test.
 * Death:     a creator that stopped before ready is a file with ready 0.
 */
#include "unit/segment_test.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/hash.h"
#include "lib/hugepages.h"
#include "segment/geometry.h"

static int attach(int fd, bool read_only, struct shale_segment **ret_segment, char *reason)
{
	struct shale_attach_options options = {
		.size = sizeof(options),
		.read_only = read_only,
		.reason = reason,
		.reason_size = 200,
	};

	strcpy(reason, "untouched");
	return shale_segment_attach(fd, &options, ret_segment);
}

static void expect_refused(int fd, int error)
{
	struct shale_segment *segment = NULL;
	unsigned fds = test_fd_count();
	char reason[200];

	EXPECT_ERRNO(error, attach(fd, false, &segment, reason));
	EXPECT_NULL(segment);
	EXPECT_STR_NE(reason, "untouched");
	EXPECT_STR_NE(reason, "");
	EXPECT_EQ(test_fd_count(), fds);
	EXPECT_EQ(segment_count_mappings(), 0);
}

TEST(segment_hostile, wrong_kinds_of_descriptor)
{
	char path[] = "/var/tmp/shale-test-XXXXXX", other[] = "/dev/shm/shale-test-XXXXXX";
	int pair[2], fd;

	expect_refused(-1, -EBADF);
	expect_refused(999, -EBADF);
	ASSERT_SYS(pipe2(pair, O_CLOEXEC));
	expect_refused(pair[0], -EMEDIUMTYPE);
	expect_refused(pair[1], -EMEDIUMTYPE);
	ASSERT_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	expect_refused(pair[0], -EMEDIUMTYPE);
	expect_refused(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC), -EMEDIUMTYPE);
	expect_refused(open("/", O_PATH | O_CLOEXEC), -EBADF);
	expect_refused(open("/dev/zero", O_RDWR | O_CLOEXEC), -EMEDIUMTYPE);
	expect_refused(eventfd(0, EFD_CLOEXEC), -EMEDIUMTYPE);
	fd = mkostemp(path, O_CLOEXEC);
	ASSERT_SYS(fd);
	ASSERT_SYS(ftruncate(fd, 1 << 20));
	unlink(path);
	/* a file of a disk file system, or of a tmpfs where /var/tmp is one: refused either way */
	EXPECT_LT(shale_segment_attach(fd, NULL, &(struct shale_segment *){NULL}), 0);
	fd = mkostemp(other, O_CLOEXEC);
	if (fd >= 0) {
		ASSERT_SYS(ftruncate(fd, 1 << 20));
		unlink(other);
		expect_refused(fd, -ETXTBSY);
	}
}

static int memfd_of(uint64_t size, unsigned flags, int seals)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);

	ASSERT_SYS(fd);
	ASSERT_SYS(fchmod(fd, 0600));
	ASSERT_SYS(ftruncate(fd, (off_t)size));
	ASSERT_SYS(fcntl(fd, F_ADD_SEALS, seals));
	return fd;
}

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

TEST(segment_hostile, memfds_that_are_no_segments)
{
	int fd;

	expect_refused(memfd_of(1 << 20, 0, 0), -ETXTBSY);
	expect_refused(memfd_of(1 << 20, 0, F_SEAL_SHRINK), -ETXTBSY);
	expect_refused(memfd_of(1 << 20, 0, F_SEAL_GROW), -ETXTBSY);
	expect_refused(memfd_of(0, 0, SEALS), -EBADMSG);
	expect_refused(memfd_of(100, 0, SEALS), -EBADMSG);
	expect_refused(memfd_of(4096, 0, SEALS), -EBADMSG);
	expect_refused(memfd_of((1 << 20) + 1, 0, SEALS), -EBADMSG);
	/* zeroes: a creator that has just begun looks like that */
	expect_refused(memfd_of(1 << 20, 0, SEALS), -EAGAIN);
	fd = memfd_of(1 << 20, 0, SEALS);
	ASSERT_EQ(pwrite(fd, "some other thing", 16, 0), 16);
	expect_refused(fd, -EBADMSG);
	fd = memfd_of(1 << 20, 0, SEALS);
	ASSERT_SYS(fchmod(fd, 0700));
	expect_refused(fd, -EBADMSG);
}

TEST(segment_hostile, hugetlb_of_odd_size)
{
	hugepages_require_free(2 << 20, HUGEPAGES_ANY_NODE, 2);
	expect_refused(memfd_of(0, MFD_HUGETLB | MFD_HUGE_2MB, SEALS), -EBADMSG);
	expect_refused(memfd_of(6 << 20, MFD_HUGETLB | MFD_HUGE_2MB, SEALS), -EAGAIN);
}

/* A hole in a huge page file is SIGBUS for whoever reads it while the pool is empty. */
TEST(segment_hostile, hugetlb_hole_without_a_page)
{
	hugepages_require_none(2 << 20);
	expect_refused(memfd_of(6 << 20, MFD_HUGETLB | MFD_HUGE_2MB, SEALS), -ENOMEM);
}

/* ---- copies of a real segment, changed ---- */

struct copy {
	struct shale_segment *segment; /* the original */
	int fd;
	unsigned char *bytes; /* of the copy, its first page */
};

/* The original's first pages in a file of the same size. */
static struct copy copy_make(void)
{
	struct copy copy = {.segment = segment_make(SHALE_PAGES_4K)};

	copy.fd = memfd_of(copy.segment->file_size, 0, SEALS);
	ASSERT_EQ(pwrite(copy.fd, copy.segment->base, 4096, 0), 4096);
	copy.bytes = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, copy.fd, 0);
	ASSERT_TRUE(copy.bytes != MAP_FAILED);
	return copy;
}

TEST(segment_hostile, creator_stopped_before_ready)
{
	struct copy copy = copy_make();
	struct header_mutable_shm *hints = (void *)(copy.bytes + HEADER_MUTABLE_OFFSET);
	struct shale_segment *segment;
	char reason[200];

	hints->ready = 0;
	EXPECT_ERRNO(-EAGAIN, attach(copy.fd, false, &segment, reason));
	EXPECT_NOT_NULL(strstr(reason, "creator"));
	/* half a header */
	memset(copy.bytes + 8, 0, 1000);
	EXPECT_ERRNO(-EAGAIN, attach(copy.fd, false, &segment, reason));
	/* the control: whole and ready it is let in */
	memcpy(copy.bytes, copy.segment->base, 1024);
	hints->ready = HEADER_READY;
	ASSERT_OK(attach(copy.fd, false, &segment, reason));
	EXPECT_EQ(segment_look(segment).peers, 1);
	shale_segment_detach(segment);
}

static void use_view(struct shale_segment *segment)
{
	struct shale_peer peers[4];
	struct lane *lane;

	(void)segment_look(segment);
	(void)shale_segment_peers(segment, peers, 4);
	(void)shale_check(segment, NULL, NULL);
	(void)shale_recover(segment);
	(void)lane_enter(segment, &lane);
}

/* Any byte of the header's page, any value: an error, or a view that can be used. */
static unsigned mutate(struct copy *copy, unsigned from, unsigned to, bool expect_error)
{
	static const unsigned char few[] = {0x01, 0x80, 0xff, 0x10};
	unsigned count = test_long() ? 255 : sizeof(few), done = 0;

	for (unsigned at = from; at < to; at++)
		for (unsigned i = 0; i < count; i++) {
			unsigned char change = test_long() ? (unsigned char)(i + 1) : few[i];
			struct shale_segment *segment = NULL;
			char reason[200];
			int r;

			memcpy(copy->bytes, copy->segment->base, 4096);
			copy->bytes[at] ^= change;
			r = attach(copy->fd, at % 2, &segment, reason);
			if (expect_error && !EXPECT_LT(r, 0))
				TEST_LOG("byte %u ^ %02x was let in", at, change);
			if (r == 0) {
				use_view(segment);
				shale_segment_detach(segment);
			} else {
				EXPECT_STR_NE(reason, "untouched");
				EXPECT_STR_NE(reason, "");
			}
			done++;
		}
	return done;
}

TEST_TIMEOUT(segment_hostile, every_byte_of_the_header_changed, 120)
{
	struct copy copy = copy_make();
	unsigned fds = test_fd_count(), done;

	done = mutate(&copy, 0, sizeof(struct header_shm), true);
	EXPECT_EQ(test_fd_count(), fds);
	TEST_LOG("%u changed headers", done);
}

TEST_TIMEOUT(segment_hostile, every_byte_of_the_mutable_half_changed, 120)
{
	struct copy copy = copy_make();
	unsigned fds = test_fd_count();

	(void)mutate(&copy, HEADER_MUTABLE_OFFSET,
		     HEADER_MUTABLE_OFFSET + sizeof(struct header_mutable_shm), false);
	EXPECT_EQ(test_fd_count(), fds);
}

/* A field changed together with the checksum: what the checksum does not catch, the checks do. */
#define FORGE(field, value, error)                                                       \
	do {                                                                             \
		struct header_shm *h_ = (void *)copy.bytes;                              \
		struct shale_segment *segment_ = NULL;                                   \
		char reason_[200];                                                       \
                                                                                         \
		memcpy(copy.bytes, copy.segment->base, 4096);                            \
		h_->field = (__typeof__(h_->field))(value);                              \
		h_->checksum = hash_bytes(h_, offsetof(struct header_shm, checksum), 0); \
		EXPECT_ERRNO(error, attach(copy.fd, false, &segment_, reason_));         \
		EXPECT_STR_NE(reason_, "untouched");                                     \
	} while (0)

TEST(segment_hostile, forged_fields_with_a_right_checksum)
{
	struct copy copy = copy_make();
	const struct header_shm *h = &copy.segment->header;

	FORGE(format_version, 2, -EPROTONOSUPPORT);
	FORGE(format_version, 0, -EBADMSG);
	FORGE(header_size, 8, -EBADMSG);
	FORGE(features_incompat, 1, -EPROTONOSUPPORT);
	FORGE(features_ro_compat, FEATURES_DEBUG + 1, -EPROTONOSUPPORT);
	FORGE(layout_hash, 1, -EPROTONOSUPPORT);
	FORGE(file_size, h->file_size + 4096, -EBADMSG);
	FORGE(file_size, UINT64_MAX, -EBADMSG);
	FORGE(page_size, 2 << 20, -EBADMSG);
	FORGE(page_size, 0, -EBADMSG);
	FORGE(capacity_bytes, h->capacity_bytes * 2, -EBADMSG);
	FORGE(capacity_bytes, UINT64_MAX, -EBADMSG);
	FORGE(capacity_bytes, 0, -EBADMSG);
	FORGE(budget_bytes, 0, -EBADMSG);
	FORGE(budget_bytes, UINT64_MAX, -EBADMSG);
	FORGE(arena_count, h->arena_count + 1, -EBADMSG);
	FORGE(peer_count, 1u << 31, -EBADMSG);
	FORGE(lane_count, 1u << 31, -EBADMSG);
	FORGE(root_count, 0, -EBADMSG);
	FORGE(roots_offset, UINT64_MAX - 7, -EBADMSG);
	FORGE(peers_offset, 0, -EBADMSG);
	FORGE(lanes_offset, 4096, -EBADMSG);
	FORGE(arena_table_offset, 0, -EBADMSG);
	FORGE(short_facts_offset, 0, -EBADMSG);
	FORGE(long_facts_offset, 0, -EBADMSG);
	FORGE(heap_offset, 0, -EBADMSG);
	FORGE(pages, SHALE_PAGES_2M, -EBADMSG);
	FORGE(pages, SHALE_PAGES_AUTO, -EBADMSG);
	FORGE(pages, SHALE_PAGES_PRIVATE, -EBADMSG);
	FORGE(placement, 77, -EBADMSG);
	FORGE(label[31], 'x', 0);
}

/* A label without end is refused; the last byte alone (above) still ends nowhere else. */
TEST(segment_hostile, text_without_end)
{
	struct copy copy = copy_make();
	struct header_shm *h = (void *)copy.bytes;
	struct shale_segment *segment = NULL;
	char reason[200];

	memset(h->label, 'x', sizeof(h->label));
	h->checksum = hash_bytes(h, offsetof(struct header_shm, checksum), 0);
	EXPECT_ERRNO(-EBADMSG, attach(copy.fd, false, &segment, reason));
	memcpy(copy.bytes, copy.segment->base, 4096);
	memset(h->pages_reason, 'x', sizeof(h->pages_reason));
	h->checksum = hash_bytes(h, offsetof(struct header_shm, checksum), 0);
	EXPECT_ERRNO(-EBADMSG, attach(copy.fd, false, &segment, reason));
}

/* Features that only readers may ignore. */
TEST(segment_hostile, ro_compatible_features_admit_readers)
{
	struct copy copy = copy_make();
	struct header_shm *h = (void *)copy.bytes;
	struct shale_segment *segment = NULL;
	char reason[200];

	h->features_ro_compat = FEATURES_DEBUG + 1;
	h->features_compat = UINT64_MAX;
	h->checksum = hash_bytes(h, offsetof(struct header_shm, checksum), 0);
	EXPECT_ERRNO(-EPROTONOSUPPORT, attach(copy.fd, false, &segment, reason));
	ASSERT_OK(attach(copy.fd, true, &segment, reason));
	shale_segment_detach(segment);
}

/* The file is shorter than its header says: the size is what the kernel says. */
TEST(segment_hostile, short_memfd)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_4K), *view = NULL;
	int fd = memfd_of(segment->file_size - 4096, 0, SEALS);
	char reason[200];

	ASSERT_EQ(pwrite(fd, segment->base, 4096, 0), 4096);
	EXPECT_ERRNO(-EBADMSG, attach(fd, false, &view, reason));
	shale_segment_detach(segment);
}

/* Peer and lane words of any value: nothing walks off, nothing loops. */
TEST_TIMEOUT(segment_hostile, random_peer_and_lane_slots, 60)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_4K), *view;

	for (unsigned round = 0; round < TEST_ROUNDS(20, 500); round++) {
		uint64_t *words = view_at(segment, PEERS_OFFSET);
		size_t count = (GEOMETRY_FIRST_BYTES - PEERS_OFFSET) / sizeof(*words);

		for (size_t i = 0; i < count; i++)
			words[i] = round % 2 ? test_random_u64() : test_random_below(64);
		if (shale_segment_attach(shale_segment_fd(segment), NULL, &view) == 0) {
			use_view(view);
			shale_segment_detach(view);
		}
	}
	shale_segment_detach(segment);
}
