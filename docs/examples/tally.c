/*
 * tally.c - the coordinator: makes the segment, starts reader, workers and reducer, kills a worker
 * inside a chunk, sees to it that nothing is lost, and compares the counts with grep's.
 *
 *   tally [OPTION ...] [FILE or DIRECTORY ...]
 *
 * Owner:     the segment, the socket, and the processes started (they die with us).
 * Invariant: T1 every chunk that a dead worker has left is READY again, or its result is in the map
 * Ordering:  tally.place (tally.h).
 * Lifetime:  the segment is gone with the last process that has it.
 * Death:     a coordinator killed takes the others along (PDEATHSIG).
 */
#include "tally.h"
#include "tally_report.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PLACES_PER_WORKER 8
#define MAX_WORKERS       500
#define MAX_KILLS         10000

enum role { ROLE_NONE, ROLE_READER, ROLE_WORKER, ROLE_REDUCER };
static const char *const role_names[] = {"none", "reader", "worker", "reducer"};

struct options {
	uint32_t workers;
	uint32_t kills;
	uint64_t chunk_size;
	uint64_t seed;
	enum shale_pages pages;
	bool compare;
	const char *json;
	char **inputs;
};

struct member {
	pid_t pid;
	enum role role;
};

struct tally {
	struct options options;
	struct shale_segment *segment;
	struct tally_job *job;
	struct shale_channel *inputs, *chunks, *done, *news;
	struct shale_map *results;
	struct member *members; /* the processes that run: reader, reducer, workers */
	size_t member_count;
	bool reduced; /* the reducer has ended well */
	FILE *list;   /* the files that were read, NUL-separated, for grep */
	FILE *json;   /* or NULL */
	uint64_t random;
	struct summary summary;
};

/* For those who leave by exit(): the socket must not stay behind. */
static struct tally_hub *hub;
static volatile sig_atomic_t interrupted;

static void close_hub(void)
{
	if (hub)
		tally_hub_close(hub);
	hub = NULL;
}

static void interrupt(int signal)
{
	interrupted = signal;
}

/* ---- options ---- */

static const char usage[] =
	"usage: tally [OPTION ...] [FILE or DIRECTORY ...]\n"
	"Counts the identifiers of files (default: /usr/include) in several processes.\n"
	"  --workers N    worker processes (default: one per core)\n"
	"  --kills N      workers to kill while they work (default 1)\n"
	"  --pages KIND   auto, 4k, thp or 2m (default auto)\n"
	"  --chunk BYTES  size of a chunk (default 524288)\n"
	"  --seed N       of the choice of whom to kill, and when\n"
	"  --no-compare   without grep, sort and uniq\n"
	"  --json FILE    writes all counts\n";

static uint64_t parse_number(const char *name, const char *text, uint64_t least, uint64_t most)
{
	char *end;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 0);
	if (errno != 0 || end == text || *end != '\0' || *text == '-' || value < least ||
	    value > most) {
		fprintf(stderr, "tally: --%s %s: a number from %" PRIu64 " to %" PRIu64 "\n", name,
			text, least, most);
		exit(2);
	}
	return value;
}

static enum shale_pages parse_pages(const char *text)
{
	static const char *const names[] = {"auto", "4k", "thp", "2m"};

	for (unsigned int i = 0; i < 4; i++) {
		if (strcmp(text, names[i]) == 0)
			return (enum shale_pages)i;
	}
	fprintf(stderr, "tally: --pages %s: auto, 4k, thp or 2m\n", text);
	exit(2);
}

static struct options default_options(void)
{
	struct options options = {.kills = 1, .chunk_size = 512 << 10, .compare = true};
	cpu_set_t cores;

	CPU_ZERO(&cores);
	sched_getaffinity(0, sizeof(cores), &cores);
	options.workers = CPU_COUNT(&cores) > 0 ? (uint32_t)CPU_COUNT(&cores) : 1;
	if (options.workers > MAX_WORKERS)
		options.workers = MAX_WORKERS;
	if (getrandom(&options.seed, sizeof(options.seed), 0) != sizeof(options.seed))
		options.seed = (uint64_t)getpid();
	options.seed &= UINT32_MAX; /* short enough to be typed again */
	return options;
}

static struct options parse_options(int argc, char **argv)
{
	static char default_input[] = "/usr/include";
	static char *default_inputs[] = {default_input, NULL};
	static const struct option names[] = {
		{"workers", required_argument, NULL, 'w'},
		{"kills", required_argument, NULL, 'k'},
		{"pages", required_argument, NULL, 'p'},
		{"chunk", required_argument, NULL, 'c'},
		{"seed", required_argument, NULL, 's'},
		{"no-compare", no_argument, NULL, 'n'},
		{"json", required_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	struct options options = default_options();
	int name;

	while ((name = getopt_long(argc, argv, "", names, NULL)) != -1) {
		if (name == 'w')
			options.workers = (uint32_t)parse_number("workers", optarg, 1, MAX_WORKERS);
		else if (name == 'k')
			options.kills = (uint32_t)parse_number("kills", optarg, 0, MAX_KILLS);
		else if (name == 'p')
			options.pages = parse_pages(optarg);
		else if (name == 'c')
			options.chunk_size = parse_number("chunk", optarg, 16, 1 << 30);
		else if (name == 's')
			options.seed = parse_number("seed", optarg, 0, UINT64_MAX);
		else if (name == 'n')
			options.compare = false;
		else if (name == 'j')
			options.json = optarg;
		else {
			fputs(usage, name == 'h' ? stdout : stderr);
			exit(name == 'h' ? 0 : 2);
		}
	}
	options.inputs = optind < argc ? argv + optind : default_inputs;
	return options;
}

/* ---- the segment and what all find in it ---- */

static void make_segment(struct tally *tally)
{
	char reason[200] = "";
	struct shale_segment_options options = {
		.size = sizeof(options),
		.label = "tally",
		.pages = tally->options.pages,
		.reason = reason,
		.reason_size = sizeof(reason),
	};
	int r = shale_segment_create(&options, &tally->segment);

	if (r < 0)
		tally_die(r, "cannot make a segment%s%s", reason[0] ? ": " : "", reason);
}

/* The job is published as a root: whoever joins finds it, and it does not die with us. */
static void make_job(struct tally *tally)
{
	uint32_t places = tally->options.workers * PLACES_PER_WORKER;
	size_t size = sizeof(struct tally_job) + places * sizeof(struct tally_place);
	int r;

	tally->job = shale_alloc_zeroed(tally->segment, size);
	if (!tally->job)
		tally_die(errno, "the job");
	tally->job->chunk_size = tally->options.chunk_size;
	tally->job->seed = tally->options.seed;
	tally->job->kills = tally->options.kills;
	tally->job->place_count = places;
	r = shale_root_publish(tally->segment, TALLY_JOB, tally->job);
	if (r < 0)
		tally_die(r, "publishing the job");
	tally->inputs = tally_channel(tally->segment, TALLY_INPUTS);
	tally->chunks = tally_channel(tally->segment, TALLY_CHUNKS);
	tally->done = tally_channel(tally->segment, TALLY_DONE);
	tally->news = tally_channel(tally->segment, TALLY_NEWS);
	tally->results = tally_map(tally->segment, TALLY_RESULTS, places);
}

/* ---- processes ---- */

/* tally-reader and the others lie where tally lies. */
static void program_path(enum role role, char *path, size_t size)
{
	ssize_t length = readlink("/proc/self/exe", path, size - 1);
	char *slash;

	if (length < 0)
		tally_die(errno, "/proc/self/exe");
	path[length] = '\0';
	slash = strrchr(path, '/');
	snprintf(slash + 1, size - (size_t)(slash + 1 - path), "tally-%s", role_names[role]);
}

/* In the child: nothing but the path of the socket goes with it, and it goes when we go. */
static _Noreturn void become(const char *program, pid_t parent)
{
	int null = open("/dev/null", O_RDONLY);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent) /* the parent died before it was asked for */
		_exit(1);
	dup2(null, STDIN_FILENO);
	close_range(3, UINT32_MAX, 0);
	execl(program, program, tally_hub_path(hub), (char *)NULL);
	_exit(127);
}

static void start(struct tally *tally, struct member *member, enum role role)
{
	pid_t parent = getpid();
	char program[4096];

	program_path(role, program, sizeof(program));
	fflush(NULL);
	member->role = role;
	member->pid = fork();
	if (member->pid < 0)
		tally_die(errno, "starting %s", program);
	if (member->pid == 0)
		become(program, parent);
	tally->summary.processes++;
}

static void start_all(struct tally *tally)
{
	tally->member_count = tally->options.workers + 2;
	tally->members = calloc(tally->member_count, sizeof(*tally->members));
	if (!tally->members)
		tally_die(ENOMEM, "the list of processes");
	start(tally, &tally->members[0], ROLE_READER);
	start(tally, &tally->members[1], ROLE_REDUCER);
	for (size_t i = 2; i < tally->member_count; i++)
		start(tally, &tally->members[i], ROLE_WORKER);
}

static struct member *find_member(struct tally *tally, pid_t pid)
{
	for (size_t i = 0; i < tally->member_count; i++) {
		if (tally->members[i].pid == pid && tally->members[i].role != ROLE_NONE)
			return &tally->members[i];
	}
	return NULL;
}

static void send_inputs(struct tally *tally)
{
	int r = 0;

	for (char **input = tally->options.inputs; *input && r == 0; input++)
		r = shale_channel_send(tally->inputs, *input, strlen(*input), SHALE_NO_DEADLINE);
	if (r == 0)
		r = shale_channel_shutdown(tally->inputs);
	if (r < 0)
		tally_die(r, "channel %s", TALLY_INPUTS);
}

/* ---- killing, and what a killed worker leaves ---- */

static uint64_t next_random(struct tally *tally)
{
	uint64_t x = tally->random = tally->random * 6364136223846793005u + 1442695040888963407u;

	return x >> 33;
}

/* A worker has taken the chunk over which it is to die. It dies at any moment of its work. */
static void kill_worker(struct tally *tally, const struct tally_news *news)
{
	struct member *member = find_member(tally, (pid_t)news->pid);
	struct timespec pause = {.tv_nsec = (long)(next_random(tally) % 3000000)};

	/* A pid out of shared memory: we kill our own workers and nobody else. */
	if (!member || member->role != ROLE_WORKER)
		return;
	nanosleep(&pause, NULL);
	kill(member->pid, SIGKILL);
	printf("killed      worker %d, %.3f ms after it had taken chunk %" PRIu64 "\n",
	       (int)member->pid, (double)pause.tv_nsec / 1e6, news->number);
}

static void announce(struct shale_channel *channel, uint64_t number, uint64_t place)
{
	struct tally_chunk chunk = {.number = number, .place = place};
	int r = shale_channel_send(channel, &chunk, sizeof(chunk), SHALE_NO_DEADLINE);

	if (r < 0)
		tally_die(r, "announcing chunk %" PRIu64, number);
}

static bool has_result(struct tally *tally, uint64_t number)
{
	int r = shale_map_get(tally->results, &number, sizeof(number), NULL, 0, &(size_t){0});

	if (r < 0 && r != -ENOENT && r != -EMSGSIZE)
		tally_die(r, "map %s", TALLY_RESULTS);
	return r != -ENOENT;
}

/* The dead worker had this chunk. Either its result is there, or the chunk is READY again. */
static void settle_place(struct tally *tally, uint64_t index, uint64_t word)
{
	struct tally_place *place = &tally->job->places[index];
	uint64_t number = tally_number_of(word);

	if (has_result(tally, number)) {
		announce(tally->done, number, index); /* the dead may not have got so far */
		return;
	}
	/* Without a result nobody but us moves this place; if it moved, there was a result. */
	if (tally_look(place) != word)
		return;
	if (atomic_load_explicit(&place->doomed, memory_order_relaxed) > 0)
		atomic_fetch_sub_explicit(&place->doomed, 1, memory_order_relaxed);
	tally_move(place, word, tally_state(TALLY_READY, number, 0));
}

/*
 * Gives the chunks of a dead worker to others. Where it died between receiving a message and taking
 * the chunk, the chunk is READY and the message is gone; so all READY chunks are announced again.
 * Announcements that are one too many find the place taken.
 */
static void settle_worker(struct tally *tally, pid_t pid)
{
	for (uint64_t i = 0; i < tally->job->place_count; i++) {
		uint64_t word = tally_look(&tally->job->places[i]);

		if (tally_state_of(word) == TALLY_TAKEN && tally_pid_of(word) == pid)
			settle_place(tally, i, word);
		word = tally_look(&tally->job->places[i]);
		if (tally_state_of(word) == TALLY_READY)
			announce(tally->chunks, tally_number_of(word), i);
	}
}

/* ---- watching over them ---- */

static void worker_killed(struct tally *tally, struct member *member)
{
	tally->summary.killed++;
	/* Not needed for the counts; it gives back at once what the dead had not published. */
	shale_recover(tally->segment);
	if (tally->reduced) { /* on its way home */
		member->role = ROLE_NONE;
		return;
	}
	settle_worker(tally, member->pid);
	start(tally, member, ROLE_WORKER);
}

static void member_ended(struct tally *tally, struct member *member, int status)
{
	if (member->role == ROLE_WORKER && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
		worker_killed(tally, member);
		return;
	}
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		tally_die(0, "%s %d ended with %s %d", role_names[member->role], (int)member->pid,
			  WIFSIGNALED(status) ? "signal" : "status",
			  WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	if (member->role == ROLE_REDUCER)
		tally->reduced = true;
	else if (member->role == ROLE_WORKER && !tally->reduced)
		tally_die(0, "worker %d left too early", (int)member->pid);
	member->role = ROLE_NONE;
}

static void reap(struct tally *tally, int flags)
{
	struct member *member;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, flags)) > 0) {
		member = find_member(tally, pid);
		if (member)
			member_ended(tally, member, status);
	}
}

/* grep would take "-" for its standard input, and "-x" for an option. */
static void list_file(struct tally *tally, const char *path, size_t size)
{
	if (path[0] == '-')
		fputs("./", tally->list);
	fwrite(path, 1, size, tally->list);
}

/* Waits a little for news. A timeout is as good: time to look after the processes. */
static void receive_news(struct tally *tally, uint64_t deadline)
{
	static struct {
		struct tally_news news;
		char path[4096];
	} message;
	size_t size;
	int r;

	while ((r = shale_channel_receive(tally->news, &message, sizeof(message), &size,
					  deadline)) == 0) {
		if (size < sizeof(message.news))
			tally_die(0, "channel %s: a message of %zu bytes", TALLY_NEWS, size);
		if (message.news.kind == TALLY_NEWS_FILE)
			list_file(tally, message.path, size - sizeof(message.news));
		else if (message.news.kind == TALLY_NEWS_DOOMED)
			kill_worker(tally, &message.news);
		else
			tally_die(0, "channel %s: unknown news", TALLY_NEWS);
		deadline = SHALE_NO_WAIT;
	}
	if (r != -EAGAIN && r != -ETIMEDOUT && r != -EINTR)
		tally_die(r, "channel %s", TALLY_NEWS);
	if (interrupted)
		tally_die(0, "stopped by signal %d", (int)interrupted);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void run(struct tally *tally)
{
	double start_time = now();

	start_all(tally);
	send_inputs(tally);
	while (!tally->reduced) {
		receive_news(tally, shale_deadline_in(10 * 1000 * 1000));
		reap(tally, WNOHANG);
	}
	tally->summary.seconds = now() - start_time;
	shale_channel_shutdown(tally->chunks); /* the workers go home */
	reap(tally, 0);
	receive_news(tally, SHALE_NO_WAIT); /* file names that came last */
	tally->summary.files = atomic_load_explicit(&tally->job->files, memory_order_relaxed);
	tally->summary.bytes = atomic_load_explicit(&tally->job->bytes, memory_order_relaxed);
	tally->summary.unread = atomic_load_explicit(&tally->job->unread, memory_order_relaxed);
	tally->summary.chunks = atomic_load_explicit(&tally->job->chunks, memory_order_relaxed);
}

/* ---- the end ---- */

/* Compares, says so in the last line, and returns the exit status: 0 if all named was read. */
static int conclude(struct tally *tally, const struct totals *totals, int findings)
{
	const char *verdict = "counted";
	int64_t differences = 0;

	if (tally->options.compare) {
		verdict = "equal";
		fflush(tally->list);
		differences = compare_with_grep(totals->counts, totals->used, fileno(tally->list),
						stdout);
		if (differences < 0)
			tally_die((int)differences, "cannot compare with grep, sort and uniq");
	}
	if (differences > 0 || findings > 0) {
		printf("DIFFERENT: %" PRId64 " of %zu identifiers, %d findings in the segment\n",
		       differences, totals->used, findings);
		return 1;
	}
	if (tally->summary.unread > 0)
		printf("incomplete  %" PRIu64 " of what was named could not be read\n",
		       tally->summary.unread);
	if (tally->summary.files == 0)
		printf("nothing     there is no file to count\n");
	printf("%s: %" PRIu64 " files, %" PRIu64 " identifiers, %zu distinct, %u killed\n", verdict,
	       tally->summary.files, totals->identifiers, totals->used, tally->summary.killed);
	return tally->summary.unread > 0;
}

static int report(struct tally *tally)
{
	struct totals totals;
	int findings, status, r;

	totals_take(&totals, tally->segment);
	totals_print_top(&totals, 20);
	report_print(tally->segment, &tally->summary);
	findings = report_check(tally->segment);
	if (tally->json) {
		r = report_write_json(tally->json, &totals, &tally->summary);
		if (r < 0)
			tally_die(r, "%s", tally->options.json);
	}
	status = conclude(tally, &totals, findings);
	totals_free(&totals);
	return status;
}

static void prepare(struct tally *tally)
{
	struct sigaction action = {.sa_handler = interrupt};
	int r;

	/* Without SA_RESTART: a receive that waits returns -EINTR. */
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	tally->random = tally->options.seed;
	tally->summary.workers = tally->options.workers;
	tally->summary.processes = 1;
	tally->list = tmpfile();
	if (!tally->list)
		tally_die(errno, "a list of files");
	if (tally->options.json && !(tally->json = fopen(tally->options.json, "we")))
		tally_die(errno, "%s", tally->options.json);
	make_segment(tally);
	make_job(tally);
	r = tally_hub_open(tally->segment, &hub);
	if (r < 0)
		tally_die(r, "the socket");
	atexit(close_hub);
	printf("tally       seed %" PRIu64 "\n", tally->options.seed);
}

int main(int argc, char **argv)
{
	struct tally tally = {.options = parse_options(argc, argv)};
	int status;

	prepare(&tally);
	run(&tally);
	status = report(&tally);
	close_hub();
	fclose(tally.list);
	if (tally.json && fclose(tally.json) != 0)
		tally_die(errno, "%s", tally.options.json);
	free(tally.members);
	shale_map_close(tally.results);
	shale_channel_close(tally.news);
	shale_channel_close(tally.done);
	shale_channel_close(tally.chunks);
	shale_channel_close(tally.inputs);
	shale_segment_detach(tally.segment);
	return status;
}
