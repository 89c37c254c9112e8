/*
 * peers.h - several processes that talk to the test over a socket and nothing else.
 *
 *   PEER_ROLE(reader)                               TEST(segment, crosses_exec)
 *   {                                               {
 *           int fd = peer_receive_fd(parent, 5000);         struct peer peer;
 *           ...                                             ASSERT_OK(peer_exec(&peer, "reader", NULL));
 *           peer_signal(parent, READY);                     ASSERT_OK(peer_send_fd(&peer, fd));
 *   }                                                       ASSERT_OK(peer_wait(&peer, READY, 5000));
 *                                                           peer_join(&peer, 5000);
 *                                                   }
 *
 * A role runs in a new execution of the test program, which inherits its socket and the file that
 * failures go to, no other descriptor above stderr, and a new address space layout. Both ends use the
 * same functions on a struct peer. A failed check in a peer fails the test.
 *
 * Owner:     the test owns its peers and must kill or join them; the runner ends forgotten ones.
 * Invariant: Q1  messages arrive whole and in order (SOCK_SEQPACKET)
 *            Q2  every wait has a limit
 * Ordering:  what a peer did before peer_signal() is seen after the peer_wait() that takes it.
 * Lifetime:  a struct peer is valid from peer_fork() or peer_exec() to peer_join() or peer_kill().
 * Death:     a dead peer's socket reads as -EPIPE, at once.
 *
 * Results are 0 or more, or a negative errno.
 */
#ifndef SHALE_TESTS_LIB_PEERS_H
#define SHALE_TESTS_LIB_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { PEER_LIMIT_MS = 10000, PEER_MESSAGE_MAX = 65536 };

enum peer_flags {
	PEER_NEW_USER_NS = 1, /* own user namespace, mapped to our user */
	PEER_NEW_PID_NS = 2,  /* pid 1 of its own pid namespace */
};

struct peer {
	pid_t pid;  /* in our pid namespace; for the parent's end: unused */
	int socket; /* our end */
	int status; /* wait status once joined or killed */
};

/* `argument` is what peer_exec() was given, or "". The role's process ends with the function. */
#define PEER_ROLE(name_)                                                           \
	static void peer_role_##name_(struct peer *parent, const char *argument);  \
	static struct peer_role peer_role_entry_##name_ = {                        \
		.name = #name_,                                                    \
		.run = peer_role_##name_,                                          \
	};                                                                         \
	__attribute__((constructor)) static void peer_role_register_##name_(void)  \
	{                                                                          \
		peer_register_role(&peer_role_entry_##name_);                      \
	}                                                                          \
	static void peer_role_##name_(__attribute__((unused)) struct peer *parent, \
				      __attribute__((unused)) const char *argument)

/* Start a peer: as a forked child that runs `body`, or by exec with nothing but a socket. */
int peer_fork(struct peer *ret_peer, void (*body)(struct peer *parent, void *ctx), void *ctx);
int peer_exec(struct peer *ret_peer, const char *role, const char *argument);
/*
 * The same in new namespaces (enum peer_flags). Where the machine refuses them: -EPERM, -ENOSPC,
 * -EINVAL or -ENOSYS, for which peer_ns_refused() is true, and the test should SKIP.
 */
int peer_fork_ns(struct peer *ret_peer, unsigned int flags,
		 void (*body)(struct peer *parent, void *ctx), void *ctx);
int peer_exec_ns(struct peer *ret_peer, unsigned int flags, const char *role, const char *argument);
bool peer_ns_refused(int result);

/* A word across; peer_wait() takes the next message, which must be this word (else -EBADMSG). */
int peer_signal(struct peer *peer, uint64_t word);
int peer_wait(struct peer *peer, uint64_t word, unsigned int limit_ms);
/* Any word. */
int peer_receive_word(struct peer *peer, uint64_t *ret_word, unsigned int limit_ms);
/* Bytes across: the size that came, -EMSGSIZE when it does not fit. */
int peer_send(struct peer *peer, const void *data, size_t size);
int peer_receive(struct peer *peer, void *buffer, size_t size, unsigned int limit_ms);
/* A descriptor across; it comes with CLOEXEC. */
int peer_send_fd(struct peer *peer, int fd);
int peer_receive_fd(struct peer *peer, unsigned int limit_ms);

/* In the peers: say that we are here and wait until all are. In the test: for all, then let go. */
int peer_meet(struct peer *parent, uint64_t word, unsigned int limit_ms);
int peer_meet_all(struct peer *peers, size_t count, uint64_t word, unsigned int limit_ms);

/* Stop it (and see it stopped), let it go on. */
int peer_stop(struct peer *peer);
int peer_continue(struct peer *peer);
/* SIGKILL and reap. */
void peer_kill(struct peer *peer);
/* It must end by itself, with status 0; a failed check otherwise. */
#define peer_join(peer, limit_ms) peer_join_at(__FILE__, __LINE__, peer, limit_ms)
bool peer_join_at(const char *file, int line, struct peer *peer, unsigned int limit_ms);

struct peer_role {
	const char *name;
	void (*run)(struct peer *parent, const char *argument);
	struct peer_role *next;
};

void peer_register_role(struct peer_role *role);

#endif
