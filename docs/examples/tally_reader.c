/*
 * tally_reader.c - walks the inputs and reads them, in chunks, straight into the segment.
 *
 * A chunk holds pieces of one or many files, a newline behind each file, and never a part of an
 * identifier. At most as many chunks as there are places are in the segment at a time.
 *
 * Owner:     of every FREE place, and of the chunk that is being filled.
 * Invariant: D1 the bytes of all chunks, newlines behind files aside, are the bytes of all files
 *            D2 no identifier lies in two chunks (words_cut)
 * Ordering:  tally.place (tally.h).
 * Lifetime:  a chunk is ours until shale_publish_at() has placed it; the reducer frees it.
 * Death:     not provided for here: the coordinator gives up. shale frees the unpublished chunk.
 */
#include "tally.h"
#include "words.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct path {
	char *name;
	bool named; /* by the user, not found in a directory */
};

struct reader {
	struct shale_segment *segment;
	struct tally_job *job;
	struct shale_channel *chunks;
	struct shale_channel *news;
	unsigned char *chunk; /* the block that is being filled */
	size_t used, room;
	uint64_t number;       /* of that chunk */
	uint64_t files, bytes; /* read so far */
	uint64_t unread;       /* of what the user has named */
	struct path *paths;    /* of the regular files to read */
	size_t path_count, path_room;
	uint64_t expected_bytes; /* their sizes as the walk has seen them */
	uint64_t *doom;          /* numbers of the chunks in which a worker is to be killed */
};

/* What the user has named must be there; what lies in directories may come and go. */
static void complain(struct reader *reader, bool named, const char *path, const char *what)
{
	fprintf(stderr, "tally: %s: %s, skipped\n", path, what);
	reader->unread += named;
}

/* ---- the walk ---- */

static void remember(struct reader *reader, const char *path, bool named)
{
	struct path *last;

	if (reader->path_count == reader->path_room) {
		reader->path_room = reader->path_room * 2 + 1024;
		reader->paths =
			reallocarray(reader->paths, reader->path_room, sizeof(*reader->paths));
	}
	last = reader->paths ? &reader->paths[reader->path_count++] : NULL;
	if (!last || !(last->name = strdup(path)))
		tally_die(ENOMEM, "the list of files");
	last->named = named;
}

/* Regular files, as `find -H INPUT -type f` has them: only links given by the user are followed. */
static void walk(struct reader *reader, char *input)
{
	char *inputs[] = {input, NULL};
	FTS *tree = fts_open(inputs, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, NULL);
	FTSENT *entry;

	if (!tree)
		tally_die(errno, "%s", input);
	while ((entry = fts_read(tree))) {
		switch (entry->fts_info) {
		case FTS_F:
			remember(reader, entry->fts_path, entry->fts_level == 0);
			reader->expected_bytes += (uint64_t)entry->fts_statp->st_size;
			break;
		case FTS_DNR:
		case FTS_ERR:
		case FTS_NS:
			complain(reader, entry->fts_level == 0, entry->fts_path,
				 strerror(entry->fts_errno));
			break;
		case FTS_DEFAULT:
		case FTS_SLNONE: /* a link to nowhere: a plain link unless the user named it */
			if (entry->fts_level == 0)
				complain(reader, true, input, "not a regular file");
			break;
		default: /* directories and links */
			break;
		}
	}
	fts_close(tree);
}

static void walk_inputs(struct reader *reader)
{
	struct shale_channel *inputs = tally_channel(reader->segment, TALLY_INPUTS);
	static char path[PATH_MAX + 1];
	size_t size;
	int r;

	while ((r = shale_channel_receive(inputs, path, PATH_MAX, &size, SHALE_NO_DEADLINE)) !=
	       -EPIPE) {
		if (r == -EINTR)
			continue;
		if (r < 0)
			tally_die(r, "channel %s", TALLY_INPUTS);
		path[size] = '\0';
		walk(reader, path);
	}
	shale_channel_close(inputs);
}

/* ---- who is to be killed, and where ---- */

static uint64_t next_random(uint64_t *state)
{
	uint64_t x = (*state += 0x9e3779b97f4a7c15u);

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

/* Spreads the kills over the chunks: there will be at least that many, as none is larger. */
static void plan_kills(struct reader *reader)
{
	uint64_t least = reader->expected_bytes / reader->job->chunk_size;
	uint64_t random = reader->job->seed;

	reader->doom = calloc(reader->job->kills + 1u, sizeof(*reader->doom));
	if (!reader->doom)
		tally_die(ENOMEM, "the plan");
	for (uint32_t i = 0; i < reader->job->kills; i++)
		reader->doom[i] = next_random(&random) % (least > 0 ? least : 1);
}

/* How many workers are to die over the chunk in hand; all who are left, if it is the last one. */
static uint32_t take_kills(struct reader *reader, bool last)
{
	uint32_t taken = 0;

	for (uint32_t i = 0; i < reader->job->kills; i++) {
		if (reader->doom[i] == reader->number || (last && reader->doom[i] != UINT64_MAX)) {
			reader->doom[i] = UINT64_MAX;
			taken++;
		}
	}
	return taken;
}

/* ---- chunks ---- */

static struct tally_place *find_place(struct reader *reader)
{
	for (uint32_t i = 0; i < reader->job->place_count; i++) {
		if (tally_state_of(tally_look(&reader->job->places[i])) == TALLY_FREE)
			return &reader->job->places[i];
	}
	return NULL;
}

/* Prepare, look again, sleep: a place that becomes free in between is not missed. */
static struct tally_place *await_place(struct reader *reader)
{
	for (;;) {
		uint32_t ticket = shale_event_prepare(&reader->job->room);
		struct tally_place *place = find_place(reader);

		if (place) {
			shale_event_cancel(&reader->job->room, ticket);
			return place;
		}
		shale_event_wait(&reader->job->room, ticket, SHALE_NO_DEADLINE);
	}
}

/* Hands the chunk in hand to the workers. */
static void hand_over(struct reader *reader, size_t size, bool last)
{
	struct tally_place *place = await_place(reader);
	struct tally_chunk message = {
		.number = reader->number,
		.place = (uint64_t)(place - reader->job->places),
	};
	int r;

	/* Relaxed: the move to READY below orders these before whoever takes the chunk. */
	atomic_store_explicit(&place->size, size, memory_order_relaxed);
	atomic_store_explicit(&place->doomed, take_kills(reader, last), memory_order_relaxed);
	r = shale_publish_at(reader->segment, reader->chunk, &place->chunk, 0);
	if (r == 0 && !tally_move(place, tally_state(TALLY_FREE, 0, 0),
				  tally_state(TALLY_READY, reader->number, 0)))
		r = -EUCLEAN;
	if (r == 0)
		r = shale_channel_send(reader->chunks, &message, sizeof(message),
				       SHALE_NO_DEADLINE);
	if (r < 0)
		tally_die(r, "handing over chunk %llu", (unsigned long long)reader->number);
	reader->chunk = NULL;
	reader->used = 0;
	reader->number++;
}

static void new_chunk(struct reader *reader, size_t size)
{
	reader->chunk = shale_alloc(reader->segment, size);
	if (!reader->chunk)
		tally_die(errno, "a chunk of %zu bytes", size);
	reader->room = size;
}

/* An identifier as long as the chunk: it needs a larger one. */
static void enlarge_chunk(struct reader *reader)
{
	size_t room = reader->room * 2;
	unsigned char *larger = shale_resize(reader->segment, reader->chunk, room);

	if (!larger)
		tally_die(errno, "an identifier of more than %zu bytes", reader->room);
	reader->chunk = larger;
	reader->room = room;
}

/* The chunk is full: sends what can be cut off, and takes the rest over into the next one. */
static void cut_chunk(struct reader *reader)
{
	size_t cut = words_cut(reader->chunk, reader->used);
	size_t rest = reader->used - cut;
	size_t room = reader->job->chunk_size;
	unsigned char *full = reader->chunk;
	unsigned char *next;

	if (cut == 0) {
		enlarge_chunk(reader);
		return;
	}
	next = shale_alloc(reader->segment, rest < room ? room : rest * 2);
	if (!next)
		tally_die(errno, "a chunk of %zu bytes", room);
	memcpy(next, full + cut, rest);
	hand_over(reader, cut, false);
	reader->chunk = next;
	reader->used = rest;
	reader->room = rest < room ? room : rest * 2;
}

/* ---- files ---- */

static void make_room(struct reader *reader)
{
	if (!reader->chunk)
		new_chunk(reader, reader->job->chunk_size);
	while (reader->used == reader->room)
		cut_chunk(reader);
}

/* Reads up to a chunk's free end. 0 at the end of the file, or -errno. */
static ssize_t read_some(struct reader *reader, int fd)
{
	ssize_t n;

	make_room(reader);
	do {
		n = read(fd, reader->chunk + reader->used, reader->room - reader->used);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	reader->used += (size_t)n;
	reader->bytes += (uint64_t)n;
	return n;
}

/* A file that can be read is announced, so that it is compared; its end separates words. */
static void announce_file(struct reader *reader, const char *path)
{
	static struct {
		struct tally_news news;
		char path[PATH_MAX];
	} message;
	size_t size = strlen(path) + 1; /* NUL included */
	int r;

	message.news.kind = TALLY_NEWS_FILE;
	if (size > sizeof(message.path))
		tally_die(ENAMETOOLONG, "%s", path);
	memcpy(message.path, path, size);
	r = shale_channel_send(reader->news, &message, sizeof(message.news) + size,
			       SHALE_NO_DEADLINE);
	if (r < 0)
		tally_die(r, "channel %s", TALLY_NEWS);
	reader->files++;
}

static void read_file(struct reader *reader, const struct path *path)
{
	int fd = open(path->name, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	ssize_t n = fd < 0 ? -errno : read_some(reader, fd);

	if (n >= 0)
		announce_file(reader, path->name);
	if (n > 0) {
		while ((n = read_some(reader, fd)) > 0)
			;
		make_room(reader);
		reader->chunk[reader->used++] = '\n';
	}
	if (n < 0)
		complain(reader, path->named, path->name, strerror((int)-n));
	if (fd >= 0)
		close(fd);
}

/* The last chunk, and the word to the reducer that there are no more. */
static void finish(struct reader *reader)
{
	struct shale_channel *done = tally_channel(reader->segment, TALLY_DONE);
	struct tally_chunk end = {.place = TALLY_END};
	int r;

	if (reader->used > 0)
		hand_over(reader, reader->used, true);
	else if (reader->chunk)
		shale_free(reader->segment, reader->chunk);
	end.number = reader->number;
	/* Relaxed: read by the coordinator after this process has ended. */
	atomic_store_explicit(&reader->job->files, reader->files, memory_order_relaxed);
	atomic_store_explicit(&reader->job->bytes, reader->bytes, memory_order_relaxed);
	atomic_store_explicit(&reader->job->chunks, reader->number, memory_order_relaxed);
	atomic_store_explicit(&reader->job->unread, reader->unread, memory_order_relaxed);
	r = shale_channel_send(done, &end, sizeof(end), SHALE_NO_DEADLINE);
	if (r < 0)
		tally_die(r, "channel %s", TALLY_DONE);
	shale_channel_close(done);
}

int main(int argc, char **argv)
{
	struct reader reader = {.segment = tally_join(argc, argv)};

	reader.job = tally_find_job(reader.segment);
	reader.chunks = tally_channel(reader.segment, TALLY_CHUNKS);
	reader.news = tally_channel(reader.segment, TALLY_NEWS);
	walk_inputs(&reader);
	plan_kills(&reader);
	for (size_t i = 0; i < reader.path_count; i++) {
		read_file(&reader, &reader.paths[i]);
		free(reader.paths[i].name);
	}
	finish(&reader);
	free(reader.paths);
	free(reader.doom);
	shale_channel_close(reader.news);
	shale_channel_close(reader.chunks);
	shale_segment_detach(reader.segment);
	return 0;
}
