/*
 * peers.c - starting processes with a socket between us, and talking over it.
 *
 *   test --fork-----------------------------> peer (body)
 *   test --fork, exec PROGRAM --role NAME---> peer (role)
 *   test --fork--> relay: unshare --fork----> peer as pid 1; the relay sends its pid and ends, and
 *                                             the peer becomes the test's child (subreaper)
 *
 * Owner:     the test; the peer holds one end of the socket, the test the other.
 * Invariant: Q1, Q2 of peers.h
 * Ordering:  the kernel's, for messages on a socket.
 * Lifetime:  peer_join() and peer_kill() close the socket and reap the process.
 * Death:     of a peer: end of file on the socket. Of the test: the runner ends all peers.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "peers.h"

#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static struct peer_role *first_role;

/* ---- roles: PROGRAM --role NAME SOCKET REPORT SEED ARGUMENT ---- */

static int role_run(int argc, char **argv)
{
	struct peer parent = {.pid = getppid()};

	if (argc != 5)
		return 2;
	parent.socket = atoi(argv[1]);
	test_adopt_report_fd(atoi(argv[2]));
	fcntl(parent.socket, F_SETFD, FD_CLOEXEC);
	fcntl(test_report_fd(), F_SETFD, FD_CLOEXEC);
	test_become_child();
	test_seed_random(strtoull(argv[3], NULL, 0), argv[0]);
	for (const struct peer_role *role = first_role; role != NULL; role = role->next) {
		if (strcmp(role->name, argv[0]) != 0)
			continue;
		role->run(&parent, argv[4]);
		return test_has_failed() ? EXIT_FAILURE : EXIT_SUCCESS;
	}
	TEST_FAIL("no role is called %s", argv[0]);
	return EXIT_FAILURE;
}

void peer_register_role(struct peer_role *role)
{
	role->next = first_role;
	first_role = role;
	test_set_role_runner(role_run);
}

/* ---- start ---- */

struct start {
	unsigned int flags;
	void (*body)(struct peer *parent, void *ctx);
	void *ctx;
	const char *role; /* instead of a body */
	const char *argument;
};

static void close_others(int keep_a, int keep_b)
{
	int low = keep_a < keep_b ? keep_a : keep_b;
	int high = keep_a < keep_b ? keep_b : keep_a;

	if (low > 3)
		close_range(3, (unsigned int)low - 1, 0);
	if (high > low + 1)
		close_range((unsigned int)low + 1, (unsigned int)high - 1, 0);
	close_range((unsigned int)high + 1, ~0U, 0);
}

static _Noreturn void start_role(const struct start *start, int socket)
{
	char socket_text[16], report_text[16], seed_text[32], option[] = "--role";
	char program[4096] = {0}; /* by name: valgrind answers the question, but runs only files */
	char *argv[] = {program,     option,    strdup(start->role),     socket_text,
			report_text, seed_text, strdup(start->argument), NULL};

	close_others(socket, test_report_fd());
	fcntl(socket, F_SETFD, 0);
	fcntl(test_report_fd(), F_SETFD, 0);
	snprintf(socket_text, sizeof(socket_text), "%d", socket);
	snprintf(report_text, sizeof(report_text), "%d", test_report_fd());
	snprintf(seed_text, sizeof(seed_text), "0x%" PRIx64, test_random_u64());
	if (readlink("/proc/self/exe", program, sizeof(program) - 1) > 0)
		execv(program, argv);
	TEST_FAIL("exec %s: %s", program, test_errno_name(errno));
	_exit(127);
}

static _Noreturn void start_live(const struct start *start, int socket)
{
	struct peer parent = {.pid = getppid(), .socket = socket};

	if (start->role != NULL)
		start_role(start, socket);
	start->body(&parent, start->ctx);
	test_child_exit();
}

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = write(fd, text, strlen(text));
	n = n < 0 ? -errno : 0;
	close(fd);
	return (int)n;
}

static int enter_namespaces(unsigned int flags)
{
	unsigned int uid = geteuid(), gid = getegid();
	char map[64];
	int clone_flags = 0, r;

	if (flags & PEER_NEW_USER_NS)
		clone_flags |= CLONE_NEWUSER;
	if (flags & PEER_NEW_PID_NS)
		clone_flags |= CLONE_NEWPID;
	if (unshare(clone_flags) < 0)
		return -errno;
	if (!(flags & PEER_NEW_USER_NS))
		return 0;
	r = write_file("/proc/self/setgroups", "deny");
	snprintf(map, sizeof(map), "%u %u 1", uid, uid);
	if (r == 0)
		r = write_file("/proc/self/uid_map", map);
	snprintf(map, sizeof(map), "%u %u 1", gid, gid);
	return r == 0 ? write_file("/proc/self/gid_map", map) : r;
}

/* In the relay: start the peer, tell its pid (or the error) through the peer's own socket, end. */
static _Noreturn void relay_live(const struct start *start, int socket)
{
	int64_t answer = enter_namespaces(start->flags);
	pid_t pid;

	if (answer == 0) {
		pid = test_fork();
		if (pid == 0) {
			struct peer parent = {.socket = socket};

			if (peer_wait(&parent, 0, PEER_LIMIT_MS) < 0) /* until we are adopted */
				_exit(EXIT_FAILURE);
			start_live(start, socket);
		}
		answer = pid < 0 ? -errno : pid;
	}
	_exit(send(socket, &answer, sizeof(answer), MSG_NOSIGNAL) == sizeof(answer) ? 0 : 1);
}

/* Learn the peer's pid from the relay; once the relay is reaped the peer is our own child. */
static int relay_await(struct peer *peer)
{
	uint64_t answer;
	int r = peer_receive_word(peer, &answer, PEER_LIMIT_MS);

	waitpid(peer->pid, NULL, 0);
	if (r < 0)
		return r;
	if ((int64_t)answer < 0)
		return (int)(int64_t)answer;
	peer->pid = (pid_t)answer;
	return peer_signal(peer, 0);
}

static int start_peer(struct peer *ret_peer, const struct start *start)
{
	struct peer peer = {.pid = -1};
	int sockets[2], r = 0;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
		return -errno;
	if (start->flags != 0)
		prctl(PR_SET_CHILD_SUBREAPER, 1);
	peer.socket = sockets[0];
	peer.pid = test_fork();
	if (peer.pid == 0) {
		close(sockets[0]);
		if (start->flags != 0)
			relay_live(start, sockets[1]);
		start_live(start, sockets[1]);
	}
	r = peer.pid < 0 ? -errno : 0;
	close(sockets[1]);
	if (r == 0 && start->flags != 0)
		r = relay_await(&peer);
	if (r < 0) {
		close(sockets[0]);
		return r;
	}
	*ret_peer = peer;
	return 0;
}

int peer_fork(struct peer *ret_peer, void (*body)(struct peer *parent, void *ctx), void *ctx)
{
	return peer_fork_ns(ret_peer, 0, body, ctx);
}

int peer_fork_ns(struct peer *ret_peer, unsigned int flags,
		 void (*body)(struct peer *parent, void *ctx), void *ctx)
{
	const struct start start = {.flags = flags, .body = body, .ctx = ctx};

	return start_peer(ret_peer, &start);
}

int peer_exec(struct peer *ret_peer, const char *role, const char *argument)
{
	return peer_exec_ns(ret_peer, 0, role, argument);
}

int peer_exec_ns(struct peer *ret_peer, unsigned int flags, const char *role, const char *argument)
{
	const struct start start = {
		.flags = flags, .role = role, .argument = argument != NULL ? argument : ""};

	return start_peer(ret_peer, &start);
}

bool peer_ns_refused(int result)
{
	return result == -EPERM || result == -EACCES || result == -ENOSPC || result == -EUSERS ||
	       result == -EINVAL || result == -ENOSYS;
}

/* ---- messages ---- */

static int await_readable(const struct peer *peer, unsigned int limit_ms)
{
	uint64_t until = test_now_ms() + limit_ms;

	for (;;) {
		uint64_t now = test_now_ms();
		struct pollfd pollfd = {.fd = peer->socket, .events = POLLIN};
		int r = poll(&pollfd, 1, until > now ? (int)(until - now) : 0);

		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return -errno;
		if (test_now_ms() >= until)
			return -ETIMEDOUT;
	}
}

int peer_send(struct peer *peer, const void *data, size_t size)
{
	return send(peer->socket, data, size, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int peer_receive(struct peer *peer, void *buffer, size_t size, unsigned int limit_ms)
{
	int r = await_readable(peer, limit_ms);
	ssize_t n;

	if (r < 0)
		return r;
	n = recv(peer->socket, buffer, size, MSG_TRUNC);
	if (n < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	if (n == 0)
		return -EPIPE;
	return (size_t)n > size ? -EMSGSIZE : (int)n;
}

int peer_signal(struct peer *peer, uint64_t word)
{
	return peer_send(peer, &word, sizeof(word));
}

int peer_receive_word(struct peer *peer, uint64_t *ret_word, unsigned int limit_ms)
{
	uint64_t word;
	int r = peer_receive(peer, &word, sizeof(word), limit_ms);

	if (r < 0)
		return r;
	if (r != sizeof(word))
		return -EBADMSG;
	*ret_word = word;
	return 0;
}

int peer_wait(struct peer *peer, uint64_t word, unsigned int limit_ms)
{
	uint64_t got;
	int r = peer_receive_word(peer, &got, limit_ms);

	if (r < 0)
		return r;
	return got == word ? 0 : -EBADMSG;
}

union fd_control {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(sizeof(int))];
};

int peer_send_fd(struct peer *peer, int fd)
{
	union fd_control control = {0};
	char byte = 'f';
	struct iovec vector = {&byte, 1};
	struct msghdr message = {.msg_iov = &vector,
				 .msg_iovlen = 1,
				 .msg_control = control.bytes,
				 .msg_controllen = sizeof(control.bytes)};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	return sendmsg(peer->socket, &message, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int peer_receive_fd(struct peer *peer, unsigned int limit_ms)
{
	union fd_control control = {0};
	char byte;
	struct iovec vector = {&byte, 1};
	struct msghdr message = {.msg_iov = &vector,
				 .msg_iovlen = 1,
				 .msg_control = control.bytes,
				 .msg_controllen = sizeof(control.bytes)};
	struct cmsghdr *header;
	int fd, r = await_readable(peer, limit_ms);
	ssize_t n;

	if (r < 0)
		return r;
	n = recvmsg(peer->socket, &message, MSG_CMSG_CLOEXEC);
	if (n <= 0)
		return n == 0 || errno == ECONNRESET ? -EPIPE : -errno;
	header = CMSG_FIRSTHDR(&message);
	if (header == NULL || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS ||
	    header->cmsg_len != CMSG_LEN(sizeof(fd)))
		return -EBADMSG;
	memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	return fd;
}

int peer_meet(struct peer *parent, uint64_t word, unsigned int limit_ms)
{
	int r = peer_signal(parent, word);

	return r < 0 ? r : peer_wait(parent, word, limit_ms);
}

int peer_meet_all(struct peer *peers, size_t count, uint64_t word, unsigned int limit_ms)
{
	int r = 0;

	for (size_t i = 0; i < count && r == 0; i++)
		r = peer_wait(&peers[i], word, limit_ms);
	for (size_t i = 0; i < count && r == 0; i++)
		r = peer_signal(&peers[i], word);
	return r;
}

/* ---- stop, continue, end ---- */

int peer_stop(struct peer *peer)
{
	int status;

	if (kill(peer->pid, SIGSTOP) < 0)
		return -errno;
	while (waitpid(peer->pid, &status, WUNTRACED) < 0)
		if (errno != EINTR)
			return -errno;
	if (WIFSTOPPED(status))
		return 0;
	peer->pid = -1; /* it had ended already */
	peer->status = status;
	return -ESRCH;
}

int peer_continue(struct peer *peer)
{
	return kill(peer->pid, SIGCONT) < 0 ? -errno : 0;
}

static void peer_close(struct peer *peer)
{
	if (peer->socket >= 0)
		close(peer->socket);
	peer->socket = -1;
	peer->pid = -1;
}

void peer_kill(struct peer *peer)
{
	if (peer->pid > 0) {
		kill(peer->pid, SIGKILL);
		while (waitpid(peer->pid, &peer->status, __WALL) < 0 && errno == EINTR)
			;
	}
	peer_close(peer);
}

bool peer_join_at(const char *file, int line, struct peer *peer, unsigned int limit_ms)
{
	bool good;

	if (peer->pid <= 0)
		return test_fail(file, line, "the peer is gone already");
	good = test_join_at(file, line, peer->pid, limit_ms);
	peer_close(peer);
	return good;
}
