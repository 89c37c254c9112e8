/*
 * harness.h - tests that register themselves, each run in a process of its own, reported as TAP.
 *
 *   TEST(heap_slab, remote_free_reaches_owner)
 *   {
 *           ASSERT_OK(thing_create(&thing));
 *           EXPECT_EQ(thing_count(thing), 1);
 *   }
 *
 * Owner:     the runner (the program's first process) owns stdout, the report file and the limits;
 *            a test owns only its own process, session and what it makes.
 * Invariant: H1  each selected test gets exactly one "ok" or "not ok" line, in the order of the list
 *            H2  after a test's line nothing that it started is alive
 *            H3  a failure recorded by any descendant of a test makes the test fail
 * Ordering:  none of its own; descendants append whole lines to one file, which is read after they died.
 * Lifetime:  registered objects are static; the report file is emptied before each test.
 * Death:     a test that dies by a signal fails; a runner that dies takes its test with it (PDEATHSIG).
 */
#ifndef SHALE_TESTS_LIB_HARNESS_H
#define SHALE_TESTS_LIB_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define TEST_LIMIT_S 30 /* default time limit of one test, in seconds */

/*
 * TEST(suite, name) { ... }                        a plain test
 * TEST_TIMEOUT(suite, name, seconds) { ... }       the same with its own time limit
 */
#define TEST(suite, name) TEST_TIMEOUT(suite, name, TEST_LIMIT_S)
#define TEST_TIMEOUT(suite_, name_, seconds_)                                     \
	static void test_body_##suite_##_##name_(void);                           \
	static void test_call_##suite_##_##name_(void *self, const void *variant) \
	{                                                                         \
		(void)self;                                                       \
		(void)variant;                                                    \
		test_body_##suite_##_##name_();                                   \
	}                                                                         \
	static struct test_case test_case_##suite_##_##name_ = {                  \
		.suite = #suite_,                                                 \
		.name = #name_,                                                   \
		.call = test_call_##suite_##_##name_,                             \
		.limit_s = (seconds_),                                            \
	};                                                                        \
	TEST_CONSTRUCTOR(test_register_##suite_##_##name_)                        \
	{                                                                         \
		test_register(&test_case_##suite_##_##name_);                     \
	}                                                                         \
	static void test_body_##suite_##_##name_(void)

/*
 * One body over a set of named values; inside, `variant` is a const struct test_variant *.
 *
 *   VARIANT_SET(page_kind) = { { "4k", PAGES_4K, NULL }, { "2m", PAGES_2M, NULL } };
 *   TEST_V(slab, remote_free_reaches_owner, page_kind) { ... variant->value ... }
 */
struct test_variant {
	const char *name;
	uint64_t value;
	const void *data;
};

#define VARIANT_SET(set)         static const struct test_variant test_variants_##set[]
#define TEST_V(suite, name, set) TEST_V_TIMEOUT(suite, name, set, TEST_LIMIT_S)
#define TEST_V_TIMEOUT(suite_, name_, set_, seconds_)                                        \
	static void test_body_##suite_##_##name_(const struct test_variant *variant);        \
	static void test_call_##suite_##_##name_(void *self, const void *variant)            \
	{                                                                                    \
		(void)self;                                                                  \
		test_body_##suite_##_##name_(variant);                                       \
	}                                                                                    \
	static struct test_case test_case_##suite_##_##name_ = {                             \
		.suite = #suite_,                                                            \
		.name = #name_,                                                              \
		.call = test_call_##suite_##_##name_,                                        \
		.limit_s = (seconds_),                                                       \
		.set = test_variants_##set_,                                                 \
		.set_count = sizeof(test_variants_##set_) / sizeof(test_variants_##set_[0]), \
	};                                                                                   \
	TEST_CONSTRUCTOR(test_register_##suite_##_##name_)                                   \
	{                                                                                    \
		test_register(&test_case_##suite_##_##name_);                                \
	}                                                                                    \
	static void test_body_##suite_##_##name_(__attribute__((unused))                     \
						 const struct test_variant *variant)

/*
 * A fixture is a struct, made by its setup before each test and unmade by its teardown after it
 * (also after a failed ASSERT or a SKIP). With variants each test runs once for each of them.
 * Setup, teardown and variants are optional.
 *
 *   FIXTURE(pool) { int fd; };
 *   FIXTURE_VARIANT(pool) { size_t block_size; };
 *   FIXTURE_VARIANT_ADD(pool, small) { .block_size = 16 };
 *   FIXTURE_SETUP(pool) { self->fd = make(variant->block_size); }
 *   FIXTURE_TEARDOWN(pool) { close(self->fd); }
 *   TEST_F(pool, gives_blocks) { EXPECT_GE(self->fd, 0); }
 */
#define FIXTURE(fixture)          \
	struct fixture##_variant; \
	struct fixture##_fixture
#define FIXTURE_VARIANT(fixture) struct fixture##_variant
#define FIXTURE_VARIANT_ADD(fixture_, name_)                                      \
	static const struct fixture_##_variant test_variant_##fixture_##_##name_; \
	static struct test_fixture_part test_part_##fixture_##_##name_ = {        \
		.fixture = #fixture_,                                             \
		.variant_name = #name_,                                           \
		.variant = &test_variant_##fixture_##_##name_,                    \
	};                                                                        \
	TEST_CONSTRUCTOR(test_add_##fixture_##_##name_)                           \
	{                                                                         \
		test_register_part(&test_part_##fixture_##_##name_);              \
	}                                                                         \
	static const struct fixture_##_variant test_variant_##fixture_##_##name_ =
#define FIXTURE_SETUP(fixture)    TEST_FIXTURE_STEP(fixture, setup)
#define FIXTURE_TEARDOWN(fixture) TEST_FIXTURE_STEP(fixture, teardown)
#define TEST_FIXTURE_STEP(fixture_, step_)                                               \
	static void test_##step_##_##fixture_(struct fixture_##_fixture *self,           \
					      const struct fixture_##_variant *variant); \
	static void test_##step_##_call_##fixture_(void *self, const void *variant)      \
	{                                                                                \
		test_##step_##_##fixture_(self, variant);                                \
	}                                                                                \
	static struct test_fixture_part test_##step_##_part_##fixture_ = {               \
		.fixture = #fixture_,                                                    \
		.step_ = test_##step_##_call_##fixture_,                                 \
	};                                                                               \
	TEST_CONSTRUCTOR(test_##step_##_register_##fixture_)                             \
	{                                                                                \
		test_register_part(&test_##step_##_part_##fixture_);                     \
	}                                                                                \
	static void test_##step_##_##fixture_(                                           \
		__attribute__((unused)) struct fixture_##_fixture *self,                 \
		__attribute__((unused)) const struct fixture_##_variant *variant)
#define TEST_F(fixture, name) TEST_F_TIMEOUT(fixture, name, TEST_LIMIT_S)
#define TEST_F_TIMEOUT(fixture_, name_, seconds_)                                             \
	static void test_body_##fixture_##_##name_(struct fixture_##_fixture *self,           \
						   const struct fixture_##_variant *variant); \
	static void test_call_##fixture_##_##name_(void *self, const void *variant)           \
	{                                                                                     \
		test_body_##fixture_##_##name_(self, variant);                                \
	}                                                                                     \
	static struct test_case test_case_##fixture_##_##name_ = {                            \
		.suite = #fixture_,                                                           \
		.name = #name_,                                                               \
		.call = test_call_##fixture_##_##name_,                                       \
		.limit_s = (seconds_),                                                        \
		.fixture_size = sizeof(struct fixture_##_fixture),                            \
		.has_fixture = true,                                                          \
	};                                                                                    \
	TEST_CONSTRUCTOR(test_register_##fixture_##_##name_)                                  \
	{                                                                                     \
		test_register(&test_case_##fixture_##_##name_);                               \
	}                                                                                     \
	static void test_body_##fixture_##_##name_(                                           \
		__attribute__((unused)) struct fixture_##_fixture *self,                      \
		__attribute__((unused)) const struct fixture_##_variant *variant)

/*
 * Checks. EXPECT_x records a failure and goes on (it is an expression, true when it held);
 * ASSERT_x ends the test, or the child process of a test, in which it fails. Both may be used in
 * helper functions, threads and children. Each argument is evaluated once.
 *
 * The integer checks take any mix of signed and unsigned types and compare the mathematical values.
 */
#define EXPECT_EQ(a, b)     TEST_INTS(a, #a, TEST_OP_EQ, b, #b)
#define EXPECT_NE(a, b)     TEST_INTS(a, #a, TEST_OP_NE, b, #b)
#define EXPECT_LT(a, b)     TEST_INTS(a, #a, TEST_OP_LT, b, #b)
#define EXPECT_LE(a, b)     TEST_INTS(a, #a, TEST_OP_LE, b, #b)
#define EXPECT_GT(a, b)     TEST_INTS(a, #a, TEST_OP_GT, b, #b)
#define EXPECT_GE(a, b)     TEST_INTS(a, #a, TEST_OP_GE, b, #b)
#define ASSERT_EQ(a, b)     TEST_MUST(TEST_INTS(a, #a, TEST_OP_EQ, b, #b))
#define ASSERT_NE(a, b)     TEST_MUST(TEST_INTS(a, #a, TEST_OP_NE, b, #b))
#define ASSERT_LT(a, b)     TEST_MUST(TEST_INTS(a, #a, TEST_OP_LT, b, #b))
#define ASSERT_LE(a, b)     TEST_MUST(TEST_INTS(a, #a, TEST_OP_LE, b, #b))
#define ASSERT_GT(a, b)     TEST_MUST(TEST_INTS(a, #a, TEST_OP_GT, b, #b))
#define ASSERT_GE(a, b)     TEST_MUST(TEST_INTS(a, #a, TEST_OP_GE, b, #b))

#define EXPECT_TRUE(a)      TEST_BOOL(a, #a, true)
#define ASSERT_TRUE(a)      TEST_MUST(TEST_BOOL(a, #a, true))
#define EXPECT_FALSE(a)     TEST_BOOL(!(a), #a, false)
#define ASSERT_FALSE(a)     TEST_MUST(TEST_BOOL(!(a), #a, false))
#define EXPECT_NULL(a)      TEST_BOOL((a) == NULL, #a " == NULL", true)
#define ASSERT_NULL(a)      TEST_MUST(TEST_BOOL((a) == NULL, #a " == NULL", true))
#define EXPECT_NOT_NULL(a)  TEST_BOOL((a) != NULL, #a " != NULL", true)
#define ASSERT_NOT_NULL(a)  TEST_MUST(TEST_BOOL((a) != NULL, #a " != NULL", true))

#define EXPECT_PTR_EQ(a, b) TEST_PTRS(a, #a, TEST_OP_EQ, b, #b)
#define ASSERT_PTR_EQ(a, b) TEST_MUST(TEST_PTRS(a, #a, TEST_OP_EQ, b, #b))
#define EXPECT_PTR_NE(a, b) TEST_PTRS(a, #a, TEST_OP_NE, b, #b)
#define ASSERT_PTR_NE(a, b) TEST_MUST(TEST_PTRS(a, #a, TEST_OP_NE, b, #b))

/* `size` bytes at a and at b; a failure shows the first byte that differs and its surroundings. */
#define EXPECT_MEM_EQ(a, b, size) TEST_MEMS(a, #a, TEST_OP_EQ, b, #b, size)
#define ASSERT_MEM_EQ(a, b, size) TEST_MUST(TEST_MEMS(a, #a, TEST_OP_EQ, b, #b, size))
#define EXPECT_MEM_NE(a, b, size) TEST_MEMS(a, #a, TEST_OP_NE, b, #b, size)
#define ASSERT_MEM_NE(a, b, size) TEST_MUST(TEST_MEMS(a, #a, TEST_OP_NE, b, #b, size))

#define EXPECT_STR_EQ(a, b)       TEST_STRS(a, #a, TEST_OP_EQ, b, #b)
#define ASSERT_STR_EQ(a, b)       TEST_MUST(TEST_STRS(a, #a, TEST_OP_EQ, b, #b))
#define EXPECT_STR_NE(a, b)       TEST_STRS(a, #a, TEST_OP_NE, b, #b)
#define ASSERT_STR_NE(a, b)       TEST_MUST(TEST_STRS(a, #a, TEST_OP_NE, b, #b))

/* Results in our own style: 0 or more is good, else a negative errno, which is printed by name. */
#define EXPECT_OK(expr)              TEST_OK(expr, #expr)
#define ASSERT_OK(expr)              TEST_MUST(TEST_OK(expr, #expr))
#define EXPECT_ERRNO(expected, expr) TEST_ERRNO(expected, expr, #expr)
#define ASSERT_ERRNO(expected, expr) TEST_MUST(TEST_ERRNO(expected, expr, #expr))

/* Results in libc's style: anything but -1, else errno is printed by name. */
#define EXPECT_SYS(expr) TEST_SYS(expr, #expr)
#define ASSERT_SYS(expr) TEST_MUST(TEST_SYS(expr, #expr))

/* Record a failure with words of one's own; end as skipped; leave a remark in the output. */
#define TEST_FAIL(...) test_fail(__FILE__, __LINE__, __VA_ARGS__)
#define TEST_LOG(...)  test_log(__VA_ARGS__)
#define SKIP(...)      test_skip(__VA_ARGS__)

/* fork(), with the child known to the harness: what fails in it makes the test fail. */
pid_t test_fork(void);
/* End a child made by test_fork(): exit status 0, or 1 when a check failed in it. */
_Noreturn void test_child_exit(void);
/* Reap a child: it must have ended by itself, with status 0, within the limit (else it is killed). */
#define test_join(pid, limit_ms) test_join_at(__FILE__, __LINE__, pid, limit_ms)
bool test_join_at(const char *file, int line, pid_t pid, unsigned int limit_ms);
/* Reap a child within the limit: its wait status, or -ETIMEDOUT (and it is still there). */
int test_reap(pid_t pid, unsigned int limit_ms, int *ret_status);

/* The seed of this run, and numbers that depend only on it, the test's name and the call count. */
uint64_t test_seed(void);
uint64_t test_random_u64(void);
uint64_t test_random_below(uint64_t bound); /* 0 .. bound-1; bound > 0 */
/* The same generator with the caller's own state, for threads. */
uint64_t test_random_next(uint64_t *state);

/* SHALE_TEST_LONG=1: the run may take its time. */
bool test_long(void);
/* Pick by length of run. */
#define TEST_ROUNDS(quick, long_) (test_long() ? (long_) : (quick))
/* The time limit of this test starts anew, with this many seconds (not in threads). */
void test_set_limit(unsigned int seconds);

/* Open file descriptors of this process. */
unsigned int test_fd_count(void);
/* After teardown this test must have no descriptor open that was not open before its setup. */
void test_expect_no_fd_leak(void);

/* Milliseconds of CLOCK_MONOTONIC; sleep for some. */
uint64_t test_now_ms(void);
void test_sleep_ms(unsigned int ms);
/* Wait until the condition holds, at most limit_ms; false when it never did. */
#define TEST_EVENTUALLY(condition, limit_ms)                                       \
	({                                                                         \
		uint64_t test_until_ = test_now_ms() + (limit_ms);                 \
		bool test_held_;                                                   \
		while (!(test_held_ = (condition)) && test_now_ms() < test_until_) \
			test_sleep_ms(1);                                          \
		test_held_;                                                        \
	})

/* "ENOMEM" for 12 or -12; "SIGSEGV" for 11. */
const char *test_errno_name(int error);
const char *test_signal_name(int signal);

/* ---- below: what the macros need, and what the other files of this library hook into ---- */

#define TEST_CONSTRUCTOR(name) __attribute__((constructor)) static void name(void)

struct test_case {
	const char *suite;
	const char *name;
	void (*call)(void *self, const void *variant);
	unsigned int limit_s;
	const struct test_variant *set;
	size_t set_count;
	size_t fixture_size;
	bool has_fixture;
	struct test_case *next;
};

struct test_fixture_part {
	const char *fixture;
	void (*setup)(void *self, const void *variant);
	void (*teardown)(void *self, const void *variant);
	const char *variant_name;
	const void *variant;
	struct test_fixture_part *next;
};

void test_register(struct test_case *test);
void test_register_part(struct test_fixture_part *part);

enum test_op { TEST_OP_EQ, TEST_OP_NE, TEST_OP_LT, TEST_OP_LE, TEST_OP_GT, TEST_OP_GE };

struct test_int {
	uint64_t bits;
	bool is_signed;
};

#define TEST_INT(x) \
	((struct test_int){(uint64_t)(x), ((__typeof__(+(x)))-1) < ((__typeof__(+(x)))1)})
/* The texts come from the first macro, where constants still have their names. */
#define TEST_AT __FILE__, __LINE__
#define TEST_INTS(a, a_text, op, b, b_text) \
	test_check_int(TEST_AT, a_text, b_text, TEST_INT(a), (op), TEST_INT(b))
#define TEST_PTRS(a, a_text, op, b, b_text) test_check_ptr(TEST_AT, a_text, b_text, (a), (op), (b))
#define TEST_MEMS(a, a_text, op, b, b_text, size) \
	test_check_mem(TEST_AT, a_text, b_text, (a), (op), (b), (size))
#define TEST_STRS(a, a_text, op, b, b_text) test_check_str(TEST_AT, a_text, b_text, (a), (op), (b))
#define TEST_BOOL(held, text, expected) \
	test_held((held) ? true : test_fail_bool(TEST_AT, text, expected))
#define TEST_OK(expr, text) test_check_ok(TEST_AT, text, (int64_t)(expr))
#define TEST_ERRNO(expected, expr, text) \
	test_check_errno(TEST_AT, text, (expected), (int64_t)(expr))
#define TEST_SYS(expr, text) test_check_sys(TEST_AT, text, (int64_t)(expr))
#define TEST_MUST(check)              \
	do {                          \
		if (!(check))         \
			test_abort(); \
	} while (0)

static inline bool test_held(bool held)
{
	return held;
}

bool test_check_int(const char *file, int line, const char *a_text, const char *b_text,
		    struct test_int a, enum test_op op, struct test_int b);
bool test_check_ptr(const char *file, int line, const char *a_text, const char *b_text,
		    const volatile void *a, enum test_op op, const volatile void *b);
bool test_check_mem(const char *file, int line, const char *a_text, const char *b_text,
		    const void *a, enum test_op op, const void *b, size_t size);
bool test_check_str(const char *file, int line, const char *a_text, const char *b_text,
		    const char *a, enum test_op op, const char *b);
bool test_check_ok(const char *file, int line, const char *text, int64_t result);
bool test_check_errno(const char *file, int line, const char *text, int expected, int64_t result);
bool test_check_sys(const char *file, int line, const char *text, int64_t result);
/* Always false, so that it can stand for a failed check. */
bool test_fail_bool(const char *file, int line, const char *text, bool expected);
bool test_fail(const char *file, int line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void test_log(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void test_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void test_abort(void);

/* The file that failures go to: a program started by exec may be handed it (see peers.c). */
int test_report_fd(void);
void test_adopt_report_fd(int fd);
/* This process is a child of the test from now on: a failed ASSERT or a SKIP ends the process. */
void test_become_child(void);
/* Count this failure or that: has a check failed in this process? */
bool test_has_failed(void);
/* Start the numbers of test_random_u64() for what is called so. */
void test_seed_random(uint64_t seed, const char *name);
/* Where a failed ASSERT or a SKIP of the test's own process goes (a sigjmp_buf), or NULL. */
void test_set_escape(void *jump_buffer);
/* What runs for `--role ARGS...` on the command line, instead of tests. */
void test_set_role_runner(int (*run)(int argc, char **argv));
/* `before` runs in the runner before the first test, `after` after each test and before it ends. */
void test_set_runner_hooks(void (*before)(void), void (*after)(void));

#endif
