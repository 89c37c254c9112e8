/*
 * tally_join.c - how a process with nothing but a socket path gets the segment.
 *
 * Owner:     the coordinator owns the socket and the thread that serves it.
 * Invariant: J1 the segment goes only to processes of the coordinator's own user (SO_PEERCRED)
 * Ordering:  none; the kernel's socket orders sender and receiver.
 * Lifetime:  from tally_hub_open() to tally_hub_close(), which ends the thread.
 * Death:     a coordinator killed leaves a socket file in a directory of its own under /tmp; those
 *            who have joined keep the segment's memory until they are gone, too.
 */
#include "tally.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct tally_hub {
	struct shale_segment *segment;
	int listener;
	pthread_t thread;
	char directory[64];
	struct sockaddr_un address;
};

void tally_die(int error, const char *what, ...)
{
	va_list arguments;

	fprintf(stderr, "%s: ", program_invocation_short_name);
	va_start(arguments, what);
	vfprintf(stderr, what, arguments);
	va_end(arguments);
	if (error != 0)
		fprintf(stderr, ": %s", strerror(abs(error)));
	fputc('\n', stderr);
	exit(1);
}

/* Whoever holds the segment may write to it, so only our own user gets it. */
static bool may_join(int connection)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
		return false;
	return peer.uid == geteuid();
}

static void *serve(void *argument)
{
	struct tally_hub *hub = argument;
	int connection;

	while ((connection = accept4(hub->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		if (may_join(connection))
			shale_segment_send(hub->segment, connection);
		close(connection);
	}
	return NULL;
}

static int listen_at(struct tally_hub *hub)
{
	const char *tmp = getenv("TMPDIR");

	/* A socket's path has room for 107 bytes, so an unusually long TMPDIR is not for us. */
	if (!tmp || strlen(tmp) > sizeof(hub->directory) - sizeof("/tally-XXXXXX"))
		tmp = "/tmp";
	snprintf(hub->directory, sizeof(hub->directory), "%s/tally-XXXXXX", tmp);
	if (!mkdtemp(hub->directory))
		return -errno;
	hub->address.sun_family = AF_UNIX;
	snprintf(hub->address.sun_path, sizeof(hub->address.sun_path), "%s/socket", hub->directory);
	hub->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (hub->listener < 0 ||
	    bind(hub->listener, (const struct sockaddr *)&hub->address, sizeof(hub->address)) < 0 ||
	    listen(hub->listener, SOMAXCONN) < 0)
		return -errno;
	return 0;
}

int tally_hub_open(struct shale_segment *segment, struct tally_hub **ret_hub)
{
	struct tally_hub *hub = calloc(1, sizeof(*hub));
	int r;

	if (!hub)
		return -ENOMEM;
	hub->segment = segment;
	r = listen_at(hub);
	if (r == 0)
		r = -pthread_create(&hub->thread, NULL, serve, hub);
	if (r < 0) {
		free(hub);
		return r;
	}
	*ret_hub = hub;
	return 0;
}

const char *tally_hub_path(const struct tally_hub *hub)
{
	return hub->address.sun_path;
}

void tally_hub_close(struct tally_hub *hub)
{
	shutdown(hub->listener, SHUT_RDWR); /* accept() fails from now on */
	pthread_join(hub->thread, NULL);
	close(hub->listener);
	unlink(hub->address.sun_path);
	rmdir(hub->directory);
	free(hub);
}

struct shale_segment *tally_join(int argc, char **argv)
{
	char reason[200] = "";
	struct shale_attach_options options = {
		.size = sizeof(options),
		.reason = reason,
		.reason_size = sizeof(reason),
	};
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct shale_segment *segment;
	int connection, r;

	if (argc != 2 || strlen(argv[1]) >= sizeof(address.sun_path))
		tally_die(0, "started by tally, with the path of its socket");
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", argv[1]);
	connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connection < 0 ||
	    connect(connection, (const struct sockaddr *)&address, sizeof(address)) < 0)
		tally_die(errno, "%s", argv[1]);
	r = shale_segment_receive(connection, &options, &segment);
	if (r < 0)
		tally_die(r, "cannot join the segment%s%s", reason[0] ? ": " : "", reason);
	close(connection);
	return segment;
}

struct tally_job *tally_find_job(struct shale_segment *segment)
{
	struct tally_job *job = NULL;
	shale_ref ref;
	size_t size;
	int r = shale_root_find(segment, TALLY_JOB, &ref);

	/* A ref is somebody else's word: shale_ptr() answers NULL if the bytes are not there. */
	if (r == 0)
		job = shale_ptr(segment, ref, sizeof(*job));
	if (!job)
		tally_die(r, "no job in this segment");
	size = sizeof(*job) + job->place_count * sizeof(job->places[0]);
	if (shale_usable_size(segment, job) < size)
		tally_die(0, "the job in this segment is damaged");
	return job;
}

struct shale_channel *tally_channel(struct shale_segment *segment, const char *name)
{
	struct shale_channel *channel;
	int r = shale_channel_open(segment, name, NULL, &channel);

	if (r < 0)
		tally_die(r, "channel %s", name);
	return channel;
}

struct shale_map *tally_map(struct shale_segment *segment, const char *name, uint64_t entries)
{
	struct shale_map_options options = {.size = sizeof(options), .expected_entries = entries};
	struct shale_map *map;
	int r = shale_map_open(segment, name, &options, &map);

	if (r < 0)
		tally_die(r, "map %s", name);
	return map;
}
