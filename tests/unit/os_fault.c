/* os_fault.c - the hook itself; every kind of call failing; every operation failing at each step. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "os_test.h"
#include "lib/peers.h"

#define BYTE ((uint64_t)1 << 40)

/* ---- the hook --------------------------------------------------------------------------------- */

TEST(os_fault, nth_call_fails_and_no_other)
{
	uint64_t word;

	os_fault_arm(OS_CALL_RANDOM, 3, EIO);
	for (unsigned i = 1; i <= 6; i++) {
		EXPECT_EQ(os_random(&word, sizeof(word)), i == 3 ? -EIO : 0);
		EXPECT_EQ(os_fault_count(OS_CALL_RANDOM), i);
	}
	EXPECT_EQ(os_fault_count(OS_CALL_MMAP), 0);
	os_fault_disarm();
	EXPECT_OK(os_random(&word, sizeof(word)));
	EXPECT_EQ(os_fault_count(OS_CALL_RANDOM), 0);
}

TEST(os_fault, counts_without_failing)
{
	uint64_t word;

	os_fault_arm(OS_CALL_RANDOM, 0, 0);
	for (unsigned i = 0; i < 5; i++)
		EXPECT_OK(os_random(&word, sizeof(word)));
	EXPECT_EQ(os_fault_count(OS_CALL_RANDOM), 5);
}

static void *many_calls(void *argument)
{
	uint64_t word;

	for (unsigned i = 0; i < 1000; i++)
		if (os_random(&word, sizeof(word)) == -EIO)
			__atomic_add_fetch((unsigned *)argument, 1, __ATOMIC_RELAXED);
	return NULL;
}

TEST(os_fault, exactly_one_of_racing_threads_fails)
{
	pthread_t threads[4];
	unsigned failed = 0;

	os_fault_arm(OS_CALL_RANDOM, 2000, EIO);
	for (unsigned i = 0; i < 4; i++)
		ASSERT_EQ(pthread_create(&threads[i], NULL, many_calls, &failed), 0);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	EXPECT_EQ(failed, 1);
	EXPECT_EQ(os_fault_count(OS_CALL_RANDOM), 4000);
}

TEST(os_fault, every_kind_has_its_own_name)
{
	for (unsigned a = 0; a < OS_CALL_COUNT; a++)
		for (unsigned b = 0; b < a; b++)
			EXPECT_STR_NE(os_call_name((enum os_call)a), os_call_name((enum os_call)b));
	EXPECT_STR_EQ(os_call_name(OS_CALL_COUNT), "unknown");
}

TEST(os_fault, is_ordered_by_text)
{
	uint64_t word;
	static const char *const bad[] = {
		"",          "random",        "random:1",      "random:1:",
		"random::5", "nosuch:1:5",    "random:-1:5",   "random:1:EFOO",
		":1:5",      "random:1:5:6",  "random:1:5,x",  "random:x:5",
		",",         "random:1 :EIO", "random:1:EIO ", "random:1:99999"};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (!EXPECT_ERRNO(-EINVAL, os_fault_arm_text(bad[i])))
			TEST_LOG("accepted: '%s'", bad[i]);
		EXPECT_OK(os_random(&word, sizeof(word)));
	}
	ASSERT_OK(os_fault_arm_text("random:2:EIO,memfd_create:1:12"));
	EXPECT_OK(os_random(&word, sizeof(word)));
	EXPECT_ERRNO(-EIO, os_random(&word, sizeof(word)));
	EXPECT_ERRNO(-ENOMEM, os_memfd_create("x", OS_PAGES_4K));
}

/* ---- operations, each with what it leaves undone by itself ------------------------------------ */

static int fd_of_test = -1;

static int do_create(void)
{
	int fd = os_memfd_create("x", OS_PAGES_4K);

	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 0;
}

static int do_size_and_seal(void)
{
	int fd = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int r = os_memfd_set_size(fd, PAGE);

	if (r == 0)
		r = os_memfd_seal(fd);
	close(fd);
	return r;
}

static int do_identify(void)
{
	struct os_memfd_info info;

	return os_memfd_identify(fd_of_test, &info);
}

static int do_reopen(void)
{
	int fd = os_reopen(fd_of_test, true);

	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 0;
}

static int do_dup_and_close(void)
{
	int fd = os_fd_dup(fd_of_test);

	return fd < 0 ? fd : os_fd_close(fd);
}

static int do_pages(void)
{
	uint64_t bytes;
	int r = os_commit(fd_of_test, 0, PAGE);

	if (r == 0)
		r = os_backing_bytes(fd_of_test, &bytes);
	if (r == 0)
		r = os_decommit(fd_of_test, 0, PAGE);
	return r;
}

static int do_life(void)
{
	struct os_life life;
	int r = os_life_take(fd_of_test, BYTE, true, &life);

	if (r < 0)
		return r;
	r = os_life_probe(fd_of_test, BYTE);
	os_fault_disarm(); /* dropping has no result: it must not be the one that fails */
	os_life_drop(&life);
	return r < 0 ? r : 0;
}

static int do_map(void)
{
	void *base;
	int r = os_map_shared(fd_of_test, 0, PAGE, true, HUGE_2, &base);

	if (r < 0)
		return r;
	r = os_advise(base, PAGE, OS_DONTDUMP);
	if (r == 0)
		r = os_protect(base, PAGE, false);
	os_fault_disarm();
	(void)os_unmap(base, PAGE);
	return r;
}

static int do_wipe(void)
{
	void *base;
	int r = os_map_wipe_on_fork(PAGE, &base);

	if (r == 0) {
		os_fault_disarm();
		(void)os_unmap(base, PAGE);
	}
	return r;
}

static int do_futex(void)
{
	static uint32_t word;
	struct os_futex_waiter waiter = {&word, 1};
	int r = os_futex_wait(&word, 1, OS_FUTEX_ANY, 0);

	if (r == -EAGAIN)
		r = os_futex_wake(&word, 1, OS_FUTEX_ANY);
	if (r == 0)
		r = os_futex_wait_any(&waiter, 1, 0);
	return r == -EAGAIN ? 0 : r;
}

static int do_pass(void)
{
	int ends[2], fd, r;
	size_t got;
	char byte;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	r = os_send_fd(ends[0], fd_of_test, "x", 1);
	if (r == 0)
		r = os_receive_fd(ends[1], &byte, 1, &got, &fd);
	if (r == 0)
		close(fd);
	close(ends[0]);
	close(ends[1]);
	return r;
}

static int do_process(void)
{
	struct os_process_id id;
	int r = os_process_self(&id);

	if (r == 0)
		r = os_process_visible(&id);
	return r < 0 ? r : r == 1 ? 0 : -ERANGE;
}

static int do_random(void)
{
	uint64_t word;

	return os_random(&word, sizeof(word));
}

static int do_cpu(void)
{
	if (os_cpu_count() < 1 || os_cpu_usable() < 1)
		return -ERANGE;
	return os_membarrier_global();
}

static int do_numa(void)
{
	struct os_numa_saved saved;
	struct os_nodes nodes;
	void *base = (void *)((uintptr_t)&nodes & ~(PAGE - 1));
	int node, r;

	r = os_numa_nodes(&nodes);
	if (r == 0)
		r = os_numa_task_push(OS_PLACE_INTERLEAVE, &nodes, &saved);
	if (r >= 0)
		r = os_numa_task_pop(&saved);
	if (r == 0)
		r = os_numa_place(base, PAGE, OS_PLACE_LOCAL, NULL);
	if (r >= 0)
		r = os_numa_page_nodes(base, PAGE, 1, &node);
	return r < 0 ? r : 0;
}

static int do_residence(void)
{
	char *base = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd_of_test, 0);
	unsigned char there;
	void *page = base;
	int r, node = -1;

	if (base == MAP_FAILED)
		return -errno;
	*base = 1;
	r = os_resident(base, PAGE, &there);
	if (r == 0)
		r = os_numa_node_of(base);
	if (r >= 0)
		r = os_numa_nodes_of(&page, 1, &node);
	if (r == 0 && node >= 0)
		r = os_numa_move(&page, 1, (unsigned)node, &node);
	munmap(base, PAGE);
	return r;
}

/* Whatever fails there, the answer is a number, at worst "no limit". */
static int do_room(void)
{
	const struct os_nodes first = {{1}};

	return os_memory_room(&first) == 0 ? -ERANGE : 0;
}

static int do_guard(void)
{
	int r = os_fork_guard_enter();

	if (r == 0)
		os_fork_guard_leave();
	return r;
}

static int do_probe(void)
{
	struct os_feature_report report;

	for (unsigned i = 0; i < OS_FEATURE_COUNT; i++)
		if (os_probe((enum os_feature)i, &report) < 0)
			return -ERANGE;
	return 0;
}

static int do_pools(void)
{
	struct os_huge_pool pool;
	char anon[32], shmem[32];
	int r = os_huge_pool(HUGE_2, &pool);

	return r < 0 ? r : os_thp_modes(anon, sizeof(anon), shmem, sizeof(shmem));
}

static int do_pressure(void)
{
	_cleanup_os_close_ int psi = os_psi_open(100000, 2000000);
	_cleanup_os_close_ int notice = os_notice_open();
	int r = psi < 0 ? psi : notice < 0 ? notice : os_notice_give(notice);

	return r < 0 ? r : os_psi_wait(psi, notice);
}

/* A range that could not be submitted says why; with nothing in flight all is as before. */
static int do_ring(void)
{
	struct os_uring_punch punches[2] = {{0, PAGE, 1}, {PAGE, PAGE, 1}};
	struct os_uring ring;
	int r = os_uring_open(&ring);

	if (r < 0)
		return r;
	r = os_uring_decommit(&ring, fd_of_test, punches, 2);
	EXPECT_LE(punches[0].result, 0);
	EXPECT_LE(punches[1].result, 0);
	os_uring_close(&ring);
	return r;
}

static void nothing(void *argument)
{
	(void)argument;
}

static int do_thread(void)
{
	struct os_thread thread;
	int r = os_thread_start("test", nothing, NULL, &thread);

	if (r == 0)
		os_thread_join(&thread);
	return r;
}

struct operation {
	int (*run)(void);
};
#define OPERATION(name_)                             \
	{                                            \
#name_, 0, &(const struct operation) \
		{                                    \
			do_##name_                   \
		}                                    \
	}
VARIANT_SET(operations) = {
	OPERATION(create),   OPERATION(size_and_seal), OPERATION(identify),  OPERATION(reopen),
	OPERATION(pages),    OPERATION(dup_and_close), OPERATION(life),      OPERATION(map),
	OPERATION(wipe),     OPERATION(futex),         OPERATION(pass),      OPERATION(process),
	OPERATION(random),   OPERATION(cpu),           OPERATION(numa),      OPERATION(guard),
	OPERATION(probe),    OPERATION(pools),         OPERATION(residence), OPERATION(room),
	OPERATION(pressure), OPERATION(ring),          OPERATION(thread),
};

static void open_file_of_test(void)
{
	fd_of_test = memfd_create("fault", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	ASSERT_SYS(fd_of_test);
	ASSERT_SYS(ftruncate(fd_of_test, 4 * (off_t)PAGE));
}

/*
 * Each call of each kind that the operation makes fails in turn. Either the operation says so, or it
 * has another way; it leaves no descriptor, no mapping and no lock, and works the next time.
 */
TEST_V_TIMEOUT(os_fault, each_call_in_turn_leaves_nothing, operations, 60)
{
	const struct operation *operation = variant->data;
	unsigned long pages;
	unsigned injected = 0, fds;
	int usual;

	open_file_of_test();
	usual = operation->run();
	if (usual < 0)
		SKIP("does not work here even undisturbed: %s", test_errno_name(usual));
	pages = test_mapped_pages();
	fds = test_fd_count();
	for (unsigned call = 0; call < OS_CALL_COUNT; call++) {
		/* What these unmap, they unmap whole, which no kernel refuses: nothing to be done. */
		if ((operation->run == do_probe || operation->run == do_ring) &&
		    call == OS_CALL_MUNMAP)
			continue;
		for (unsigned nth = 1; nth < 200; nth++) {
			unsigned seen;
			int r;

			/* Counted by failing one beyond: an operation may disarm in its middle. */
			os_fault_arm((enum os_call)call, nth, EXFULL);
			r = operation->run();
			seen = os_fault_count((enum os_call)call);
			os_fault_disarm();
			if (r != 0)
				EXPECT_EQ(r == -EXFULL || r == -EOPNOTSUPP || r == -ESRCH, true);
			EXPECT_EQ(test_fd_count(), fds);
			/* stacks, and what a sanitizer notes about each thread, stay mapped */
			if (operation->run != do_thread)
				EXPECT_EQ(test_mapped_pages(), pages);
			EXPECT_EQ(os_lock_probe(fd_of_test, BYTE), 0);
			EXPECT_OK(operation->run());
			if (seen < nth && r == 0)
				break;
			injected++;
		}
	}
	TEST_LOG("%u failures injected", injected);
	EXPECT_TRUE(injected > 0 || strcmp(variant->name, "guard") == 0);
	close(fd_of_test);
}

/* ---- every kind reaches a hook ---------------------------------------------------------------- */

/* Together the operations make every kind of call, or a kind has lost its hook. */
TEST(os_fault, no_kind_is_without_a_hook)
{
	unsigned counts[OS_CALL_COUNT] = {0};

	open_file_of_test();
	for (unsigned call = 0; call < OS_CALL_COUNT; call++) {
		for (size_t i = 0;
		     i < sizeof(test_variants_operations) / sizeof(struct test_variant); i++) {
			const struct operation *operation = test_variants_operations[i].data;

			os_fault_arm((enum os_call)call, 0, 0);
			if (operation->run == do_life || operation->run == do_map ||
			    operation->run == do_wipe) {
				/* These disarm; a failure of the first call shows the hook. */
				os_fault_arm((enum os_call)call, 1, EXFULL);
				counts[call] += operation->run() == -EXFULL;
			} else {
				operation->run();
				counts[call] += os_fault_count((enum os_call)call);
			}
			os_fault_disarm();
		}
	}
	for (unsigned call = 0; call < OS_CALL_COUNT; call++) {
		bool numa = call >= OS_CALL_MBIND && call <= OS_CALL_MOVE_PAGES;

		/* Only for the fallbacks: fchmod when NOEXEC_SEAL is refused; the rest once a load. */
		if (call == OS_CALL_FCHMOD || call == OS_CALL_ATFORK)
			continue;
		if (numa && counts[OS_CALL_MBIND] == 0)
			continue; /* built without libnuma */
		if (!EXPECT_GT(counts[call], 0))
			TEST_LOG("never seen: %s", os_call_name((enum os_call)call));
	}
	os_fault_arm(OS_CALL_MEMFD_CREATE, 1, EINVAL);
	os_fault_arm(OS_CALL_FCHMOD, 1, EXFULL);
	EXPECT_ERRNO(-EXFULL, os_memfd_create("x", OS_PAGES_4K));
	close(fd_of_test);
}

/* SHALE_FAULT is read at load time, so it takes a new program to see it: this one, run again. */
PEER_ROLE(random)
{
	uint64_t word;
	int r = os_random(&word, sizeof(word));

	EXPECT_TRUE(r == 0 || r == -EXFULL);
	EXPECT_OK(peer_signal(parent, r == 0 ? 1 : 2));
}

static int run_role_with(const char *order)
{
	struct peer peer;
	int r;

	ASSERT_SYS(setenv("SHALE_FAULT", order, 1));
	ASSERT_OK(peer_exec(&peer, "random", NULL));
	ASSERT_SYS(unsetenv("SHALE_FAULT"));
	r = peer_wait(&peer, 2, 10000);
	peer_join(&peer, 10000);
	return r;
}

TEST(os_fault_env, variable_arms_a_testing_build_only)
{
#ifdef SHALE_FAULT_ENV
	EXPECT_OK(run_role_with("random:1:EXFULL"));
#else
	EXPECT_LT(run_role_with("random:1:EXFULL"), 0);
#endif
	EXPECT_LT(run_role_with("random:2:EXFULL"), 0);
	EXPECT_LT(run_role_with("nonsense"), 0);
}
