/*
 * step.c - the tracer: leads a victim through an operation, instruction by instruction.
 *
 *   victim  prepare  [mark]  operation  [mark]  after  _exit
 *                       ^-- steps are counted --^
 *
 * A mark is one undefined instruction at a known address: the tracer sees its SIGILL, moves the
 * victim past it, and needs to look at no register on any other step.
 *
 * Owner:     the scene's process is the only tracer; the report page is written by it alone.
 * Invariant: P1..P3 of step.h
 * Ordering:  the report is read after the scene was reaped.
 * Lifetime:  the report page is mapped for one step_kill() or step_pause().
 * Death:     a scene that is killed takes its victim along; the test counts it as a problem.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "step.h"

#include "harness.h"
#include "step_leap.h"
#include "step_schedule.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	MISSED_MAX = 8,
	DEFAULT_LIMIT_MS = 5000,
	DEFAULT_MAX_STEPS = 1000000,
	DEFAULT_MAX_PROBLEMS = 3
};

#if defined(__x86_64__)
#define MARK_INSTRUCTION "ud2"
enum { MARK_BYTES = 2 };
#elif defined(__aarch64__)
#define MARK_INSTRUCTION ".inst 0"
enum { MARK_BYTES = 4 };
#else
#define MARK_INSTRUCTION ""
enum { MARK_BYTES = 0 };
#endif

enum verdict {
	VERDICT_NONE, /* the scene did not get to say */
	VERDICT_FINE,
	VERDICT_WRONG,
	VERDICT_STUCK,
	VERDICT_BLOCKED,
	VERDICT_DIED,
	VERDICT_MISSED, /* no problem: the victim went another way than the recorded one */
};

enum mode { MODE_KILL, MODE_PAUSE, MODE_COUNT };

struct report {
	volatile enum verdict verdict;
	volatile int outcome;
	volatile uint64_t steps;
	volatile bool ended;
	volatile int status; /* wait status of who died */
};

struct victim {
	pid_t pid;
	int pending_signal; /* seen by the tracer, not yet delivered */
	int status;
	uint64_t steps;
	bool ended; /* stands on its second mark */
};

struct scene {
	const struct step_case *step;
	struct step_options options;
	enum mode mode;
	struct report *report;
	struct step_trace trace;
	uint64_t missed; /* leaps that did not arrive */
	cpu_set_t cpus;
};

extern const char step_mark_at[];

__attribute__((noinline)) static void mark(void)
{
	__asm__ volatile(".globl step_mark_at\nstep_mark_at: " MARK_INSTRUCTION ::: "memory");
}

/* ---- waiting with a limit: a repeating timer interrupts waitpid() ---- */

static uint64_t watch_until_ms, watch_limit_ms;

static void on_alarm(int signal)
{
	(void)signal;
}

static void timer_set(uint64_t ms)
{
	struct itimerval timer = {
		.it_value = {(time_t)(ms / 1000), (suseconds_t)(ms % 1000) * 1000},
		.it_interval = {0, ms > 0 ? 20000 : 0}};

	setitimer(ITIMER_REAL, &timer, NULL);
}

static void watch_start(uint64_t limit_ms)
{
	struct sigaction action = {.sa_handler = on_alarm}; /* no SA_RESTART */

	sigaction(SIGALRM, &action, NULL);
	watch_limit_ms = limit_ms;
	watch_until_ms = test_now_ms() + limit_ms;
	timer_set(limit_ms);
}

/* There was progress: the limit is for the next piece of it. */
static void watch_renew(void)
{
	watch_until_ms = test_now_ms() + watch_limit_ms;
}

/* From here to the end of its limit or of the process: SIGALRM kills. */
static void watch_or_die(uint64_t limit_ms)
{
	signal(SIGALRM, SIG_DFL);
	timer_set(limit_ms);
}

static void watch_stop(void)
{
	timer_set(0);
}

static int wait_watched(pid_t pid, int *ret_status)
{
	for (;;) {
		if (waitpid(pid, ret_status, __WALL) == pid)
			return 0;
		if (errno != EINTR)
			return -errno;
		if (test_now_ms() >= watch_until_ms)
			return -ETIMEDOUT;
	}
}

/* ---- the victim ---- */

#if defined(__x86_64__) || defined(__aarch64__)
static int step_over_mark(pid_t pid)
{
	struct user_regs_struct regs;
	struct iovec vector = {&regs, sizeof(regs)};

	if (ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &vector) < 0)
		return -errno;
#if defined(__x86_64__)
	regs.rip += MARK_BYTES;
#else
	regs.pc += MARK_BYTES;
#endif
	return ptrace(PTRACE_SETREGSET, pid, NT_PRSTATUS, &vector) < 0 ? -errno : 0;
}
#else
static int step_over_mark(pid_t pid)
{
	(void)pid;
	return -ENOSYS;
}
#endif

static bool stands_on_mark(pid_t pid)
{
	siginfo_t info;

	return ptrace(PTRACE_GETSIGINFO, pid, NULL, &info) == 0 && info.si_addr == step_mark_at;
}

/*
 * Let the victim run (PTRACE_CONT) or step, until it stops again. 0 for a step or a signal (*ret_signal
 * names it, 0 for a step), 1 on the mark, -ESRCH when it is gone, -ETIMEDOUT.
 */
static int victim_go(struct victim *victim, enum __ptrace_request how, int *ret_signal)
{
	int r, signal = victim->pending_signal;

	victim->pending_signal = 0;
	if (ptrace(how, victim->pid, NULL, signal) < 0)
		return -errno;
	r = wait_watched(victim->pid, &victim->status);
	if (r < 0)
		return r;
	if (!WIFSTOPPED(victim->status)) {
		victim->pid = -1;
		return -ESRCH;
	}
	signal = WSTOPSIG(victim->status);
	if (signal == SIGILL && stands_on_mark(victim->pid))
		return 1;
	*ret_signal = signal == SIGTRAP ? 0 : signal;
	if (signal != SIGTRAP && signal != SIGSTOP)
		victim->pending_signal = signal;
	return 0;
}

static _Noreturn void victim_live(const struct step_case *step)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGALRM, SIG_DFL);
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
		_exit(EXIT_FAILURE);
	raise(SIGSTOP);
	if (step->prepare != NULL)
		step->prepare(step->ctx);
	mark();
	step->operation(step->ctx);
	mark();
	if (step->after != NULL)
		step->after(step->ctx);
	test_child_exit();
}

/* A victim that stands behind its first mark. */
static int victim_start(const struct step_case *step, struct victim *victim)
{
	int r, signal;

	*victim = (struct victim){.pid = test_fork()};
	if (victim->pid == 0)
		victim_live(step);
	if (victim->pid < 0)
		return -errno;
	r = wait_watched(victim->pid, &victim->status);
	if (r == 0 && !WIFSTOPPED(victim->status)) {
		victim->pid = -1;
		return -ESRCH;
	}
	if (r == 0 && ptrace(PTRACE_SETOPTIONS, victim->pid, NULL, PTRACE_O_EXITKILL) < 0)
		r = -errno;
	while (r == 0)
		r = victim_go(victim, PTRACE_CONT, &signal);
	return r == 1 ? step_over_mark(victim->pid) : r;
}

/* Up to k instructions, or to the end of the operation if that comes first; pcs may be NULL. */
static int victim_step(struct victim *victim, uint64_t k, uint64_t *pcs)
{
	if (pcs != NULL)
		pcs[0] = step_pc(victim->pid);
	while (victim->steps < k) {
		int signal = 0;
		int r = victim_go(victim, PTRACE_SINGLESTEP, &signal);

		if (r < 0)
			return r;
		if (r == 1) {
			victim->ended = true;
			return 0;
		}
		if (signal == 0)
			victim->steps++;
		if (victim->steps % 64 == 0)
			watch_renew();
		if (pcs != NULL)
			pcs[victim->steps] = step_pc(victim->pid);
	}
	return 0;
}

/* Near to point k at full speed, if the trace shows a way. -EAGAIN when the victim missed it. */
static int victim_leap(struct victim *victim, const struct step_trace *trace, uint64_t k)
{
	uint32_t arrivals = 0;
	uint64_t goal = step_trace_plan(trace, k, &arrivals);

	if (goal == 0 || step_breakpoint(victim->pid, trace->pcs[goal]) < 0)
		return 0;
	while (arrivals > 0) {
		int signal = 0;

		if (victim_go(victim, PTRACE_CONT, &signal) != 0)
			return -EAGAIN;
		arrivals -= signal == 0;
	}
	if (step_pc(victim->pid) != trace->pcs[goal] || step_breakpoint(victim->pid, 0) < 0)
		return -EAGAIN;
	victim->steps = goal;
	return 0;
}

static void victim_kill(struct victim *victim)
{
	if (victim->pid <= 0)
		return;
	kill(victim->pid, SIGKILL);
	while (waitpid(victim->pid, &victim->status, __WALL) != victim->pid ||
	       WIFSTOPPED(victim->status))
		if (errno == ECHILD)
			break;
	victim->pid = -1;
}

/* From where it stands to its end. */
static int victim_finish(struct victim *victim)
{
	int r = victim->ended, signal;

	while (r == 0)
		r = victim_go(victim, PTRACE_CONT, &signal);
	if (r == 1)
		r = step_over_mark(victim->pid);
	while (r == 0)
		r = victim_go(victim, PTRACE_CONT, &signal);
	if (r != -ESRCH)
		return r;
	return WIFEXITED(victim->status) && WEXITSTATUS(victim->status) == 0 ? 0 : -ESRCH;
}

/* ---- one scene ---- */

/* Victim and tracer take turns: on one CPU a turn is a switch, on two it is a wake-up. */
static void scene_pin(struct scene *scene)
{
	cpu_set_t one;
	int cpu = sched_getcpu();

	sched_getaffinity(0, sizeof(scene->cpus), &scene->cpus);
	CPU_ZERO(&one);
	CPU_SET(cpu >= 0 ? (unsigned int)cpu : 0, &one);
	sched_setaffinity(0, sizeof(one), &one);
}

static void unpin(const struct scene *scene, pid_t pid)
{
	sched_setaffinity(pid, sizeof(scene->cpus), &scene->cpus);
}

static _Noreturn void scene_end(const struct scene *scene, struct victim *victim,
				enum verdict verdict, int status)
{
	victim_kill(victim);
	scene->report->status = status;
	scene->report->verdict = verdict;
	_exit(EXIT_SUCCESS);
}

static void scene_require(const struct scene *scene, struct victim *victim, int r)
{
	if (r == -ETIMEDOUT)
		scene_end(scene, victim, VERDICT_BLOCKED, 0);
	if (r < 0)
		scene_end(scene, victim, VERDICT_DIED, victim->status);
}

static void scene_rival(const struct scene *scene, struct victim *victim)
{
	int status, r;
	pid_t pid = test_fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGALRM, SIG_DFL);
		unpin(scene, 0);
		scene->step->rival(scene->step->ctx);
		test_child_exit();
	}
	watch_start(scene->options.limit_ms);
	r = pid < 0 ? -errno : wait_watched(pid, &status);
	if (r == -ETIMEDOUT) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, __WALL);
		scene_end(scene, victim, VERDICT_STUCK, 0);
	}
	if (r < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
		scene_end(scene, victim, VERDICT_DIED, r < 0 ? 0 : status);
}

static void scene_resume(const struct scene *scene, struct victim *victim)
{
	unpin(scene, victim->pid);
	watch_start(scene->options.limit_ms);
	scene_require(scene, victim, victim_finish(victim));
}

/* A victim at point k. */
static void scene_lead(struct scene *scene, struct victim *victim, uint64_t k)
{
	uint64_t *pcs = scene->mode == MODE_COUNT ? scene->trace.pcs : NULL;

	scene_pin(scene);
	watch_start(scene->options.limit_ms);
	scene_require(scene, victim, victim_start(scene->step, victim));
	if (victim_leap(victim, &scene->trace, k) < 0)
		scene_end(scene, victim, VERDICT_MISSED, 0);
	scene_require(scene, victim, victim_step(victim, k, pcs));
	scene->report->steps = victim->steps;
	scene->report->ended = victim->ended;
}

static _Noreturn void scene_play(struct scene *scene, uint64_t k)
{
	const struct step_case *step = scene->step;
	struct victim victim = {.pid = -1};
	int outcome = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (step->setup != NULL)
		step->setup(step->ctx);
	scene_lead(scene, &victim, k);
	if (scene->mode == MODE_PAUSE) {
		scene_rival(scene, &victim);
		scene_resume(scene, &victim);
	}
	victim_kill(&victim);
	unpin(scene, 0);
	watch_or_die(scene->options.limit_ms);
	if (step->check != NULL && scene->mode != MODE_COUNT)
		outcome = step->check(step->ctx);
	watch_stop();
	scene->report->outcome = outcome;
	if (test_has_failed() || outcome < 0 || outcome >= STEP_OUTCOMES)
		scene_end(scene, &victim, VERDICT_WRONG, 0);
	scene_end(scene, &victim, VERDICT_FINE, 0);
}

/* ---- the schedule ---- */

static void status_format(char *buffer, size_t size, int status)
{
	if (WIFSIGNALED(status))
		snprintf(buffer, size, "died by %s", test_signal_name(WTERMSIG(status)));
	else
		snprintf(buffer, size, "ended with status %d", WEXITSTATUS(status));
}

static void problem_say(const struct scene *scene, uint64_t k, enum verdict verdict, int status)
{
	const struct report *report = scene->report;
	char how[64], what[128];

	status_format(how, sizeof(how), status);
	switch (verdict) {
	case VERDICT_WRONG:
		snprintf(what, sizeof(what), "check gave %d", report->outcome);
		break;
	case VERDICT_STUCK:
		snprintf(what, sizeof(what), "the rival waited for the stopped victim (%u ms)",
			 scene->options.limit_ms);
		break;
	case VERDICT_BLOCKED:
		snprintf(what, sizeof(what), "the victim does not come to its end");
		break;
	case VERDICT_DIED:
		snprintf(what, sizeof(what), "victim or rival %s", how);
		break;
	default:
		snprintf(what, sizeof(what), "the scene %s", how);
		break;
	}
	TEST_FAIL("%s: %s after %" PRIu64 " instructions: %s", scene->step->name,
		  scene->mode == MODE_PAUSE ? "paused" : "killed", k, what);
}

static void problem_count(struct step_result *result, uint64_t k, enum verdict verdict)
{
	if (result->problems++ == 0)
		result->first_problem = k;
	result->stuck += verdict == VERDICT_STUCK;
	result->blocked += verdict == VERDICT_BLOCKED;
	result->died += verdict == VERDICT_DIED;
	result->wrong += verdict == VERDICT_WRONG || verdict == VERDICT_NONE;
}

/* Play the scene of point k in a process of its own. */
static enum verdict scene_fork(struct scene *scene, uint64_t k, int *ret_status)
{
	struct report *report = scene->report;
	pid_t pid;

	memset(report, 0, sizeof(*report));
	pid = test_fork();
	if (pid == 0)
		scene_play(scene, k);
	ASSERT_SYS(pid);
	while (waitpid(pid, ret_status, 0) < 0 && errno == EINTR)
		;
	if (report->verdict == VERDICT_NONE && WIFEXITED(*ret_status) &&
	    WEXITSTATUS(*ret_status) == 0)
		test_abort(); /* a SKIP in the scene is a skip of the test */
	return report->verdict;
}

/* Play the scene of point k, and add what came of it to the result. */
static void scene_run(struct scene *scene, uint64_t k, struct step_result *result)
{
	const struct report *report = scene->report;
	int status = 0;
	enum verdict verdict = scene_fork(scene, k, &status);

	if (verdict == VERDICT_MISSED) {
		uint64_t count = scene->trace.count;

		scene->trace.count = 0; /* once more, step by step */
		verdict = scene_fork(scene, k, &status);
		scene->trace.count = ++scene->missed < MISSED_MAX ? count : 0;
	}
	result->points++;
	if (verdict == VERDICT_FINE) {
		result->distinct += result->outcomes[report->outcome]++ == 0;
		return;
	}
	problem_count(result, k, verdict);
	if (!scene->options.quiet)
		problem_say(scene, k, verdict, verdict == VERDICT_NONE ? status : report->status);
}

/* One run to the end that notes every address; without a trace all is stepped. */
static void scene_record(struct scene *scene)
{
	enum mode mode = scene->mode;
	uint64_t limit = scene->options.max_steps;
	int status;

	if (getenv("SHALE_TEST_STEP_ONLY") != NULL || step_trace_init(&scene->trace) < 0)
		return;
	scene->mode = MODE_COUNT;
	if (scene_fork(scene, limit < STEP_TRACE_MAX ? limit : STEP_TRACE_MAX, &status) ==
	    VERDICT_FINE)
		step_trace_close(&scene->trace, scene->report->steps);
	scene->mode = mode;
}

static void require_support(void)
{
	if (!step_supported())
		SKIP("single-stepping a child is not to be had here (ptrace refused, or valgrind)");
}

static void scene_init(struct scene *scene, const struct step_case *step,
		       const struct step_options *options, enum mode mode)
{
	struct step_options *own = &scene->options;

	*scene = (struct scene){.step = step, .mode = mode};
	if (options != NULL)
		*own = *options;
	if (own->limit_ms == 0)
		own->limit_ms = DEFAULT_LIMIT_MS;
	if (own->max_steps == 0)
		own->max_steps = DEFAULT_MAX_STEPS;
	if (own->max_problems == 0)
		own->max_problems = DEFAULT_MAX_PROBLEMS;
	if (own->offset == 0 && own->stride > 1)
		own->offset = test_random_below(own->stride);
	require_support();
	scene->report = mmap(NULL, sizeof(*scene->report), PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_TRUE(scene->report != MAP_FAILED);
}

static void scene_finish(struct scene *scene)
{
	step_trace_finish(&scene->trace);
	munmap(scene->report, sizeof(*scene->report));
}

static void run_schedule(const struct step_case *step, const struct step_options *options,
			 enum mode mode, struct step_result *ret_result)
{
	struct step_result result = {0};
	struct scene scene;
	uint64_t k = 0;

	scene_init(&scene, step, options, mode);
	scene_record(&scene);
	while (!result.complete && result.problems < scene.options.max_problems) {
		if (k > scene.options.max_steps) {
			problem_count(&result, k, VERDICT_BLOCKED);
			if (!scene.options.quiet)
				problem_say(&scene, k, VERDICT_BLOCKED, 0);
			break;
		}
		scene_run(&scene, k, &result);
		result.complete = scene.report->ended;
		result.instructions = scene.report->ended ? scene.report->steps : 0;
		k = next_point(&scene.options, k);
	}
	scene_finish(&scene);
	*ret_result = result;
}

void step_kill(const struct step_case *step, const struct step_options *options,
	       struct step_result *ret_result)
{
	run_schedule(step, options, MODE_KILL, ret_result);
}

void step_pause(const struct step_case *step, const struct step_options *options,
		struct step_result *ret_result)
{
	ASSERT_NOT_NULL(step->rival);
	run_schedule(step, options, MODE_PAUSE, ret_result);
}

uint64_t step_count(const struct step_case *step)
{
	struct step_result result = {0};
	struct scene scene;
	uint64_t steps;

	scene_init(&scene, step, NULL, MODE_COUNT);
	scene_run(&scene, scene.options.max_steps, &result);
	steps = scene.report->steps;
	if (!scene.report->ended)
		TEST_FAIL("%s: no end after %" PRIu64 " instructions", step->name, steps);
	scene_finish(&scene);
	return steps;
}

int step_kill_at(const struct step_case *step, uint64_t k)
{
	struct scene scene = {0};
	struct victim victim = {.pid = -1};
	int r;

	require_support();
	scene_pin(&scene);
	watch_start(DEFAULT_LIMIT_MS);
	r = victim_start(step, &victim);
	if (r == 0)
		r = victim_step(&victim, k, NULL);
	victim_kill(&victim);
	watch_stop();
	unpin(&scene, 0);
	if (r < 0)
		TEST_FAIL("%s: could not lead a victim to instruction %" PRIu64 ": %s", step->name,
			  k, test_errno_name(r));
	return victim.ended ? 1 : 0;
}

static void probe_operation(void *ctx)
{
	(void)ctx;
}

bool step_supported(void)
{
	static int known; /* 0 not asked yet, 1 yes, -1 no */
	const struct step_case probe = {.name = "probe", .operation = probe_operation};
	struct victim victim = {.pid = -1};

	if (getenv("SHALE_TEST_VALGRIND") != NULL)
		return false; /* it would step valgrind's own translator */
	if (known == 0 && MARK_BYTES != 0) {
		watch_start(DEFAULT_LIMIT_MS);
		known = victim_start(&probe, &victim) == 0 && victim_step(&victim, 1, NULL) == 0
				? 1
				: -1;
		victim_kill(&victim);
		watch_stop();
	}
	return known == 1;
}
