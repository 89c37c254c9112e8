/*
 * segment_peers.c - processes that share a segment, die, fork, exec and come back.
 *
 * Owner:     the test owns the segment it creates and its peers.
 * Invariant: who is alive is never called dead; who is dead is recovered once.
 * Ordering:  messages between test and peers.
 * Lifetime:  peers end with their test.
 * Death:     by SIGKILL, exec and exit, at rest; every instruction is tested in tests/step.
 */
#include "unit/segment_test.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "lib/peers.h"

enum { READY = 1, GO = 2, LIMIT_MS = 10000 };

/* Attaches, takes a lane, says where it is, waits to be let go, leaves. */
static void attach_and_wait(struct peer *parent)
{
	int fd = peer_receive_fd(parent, LIMIT_MS);
	struct shale_segment *segment;
	struct lane *lane;

	ASSERT_OK(fd);
	segment = segment_join(fd);
	close(fd);
	ASSERT_OK(lane_enter(segment, &lane));
	ASSERT_OK(peer_signal(parent, (uint64_t)(uintptr_t)segment->base));
	ASSERT_OK(peer_wait(parent, GO, LIMIT_MS));
	segment_expect_clean(segment);
	shale_segment_detach(segment);
}

PEER_ROLE(member)
{
	attach_and_wait(parent);
}

static uint64_t start_member(struct peer *peer, struct shale_segment *segment)
{
	uint64_t base = 0;

	ASSERT_OK(peer_exec(peer, "member", ""));
	ASSERT_OK(peer_send_fd(peer, shale_segment_fd(segment)));
	ASSERT_OK(peer_receive_word(peer, &base, LIMIT_MS));
	return base;
}

static void expect_counts(struct shale_segment *segment, unsigned peers, unsigned dead,
			  unsigned lanes)
{
	struct shale_segment_figures stat = segment_look(segment);

	EXPECT_EQ(stat.peers, peers);
	EXPECT_EQ(stat.peers_dead, dead);
	EXPECT_EQ(stat.lanes, lanes);
	segment_expect_clean(segment);
}

TEST(segment_peers, two_processes_at_different_addresses)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_4K);
	struct shale_peer list[4];
	struct peer peers[2];
	uint64_t bases[2];

	for (unsigned i = 0; i < 2; i++)
		bases[i] = start_member(&peers[i], segment);
	EXPECT_NE(bases[0], bases[1]);
	EXPECT_NE(bases[0], (uintptr_t)segment->base);
	expect_counts(segment, 3, 0, 2);
	EXPECT_EQ(shale_segment_peers(segment, list, 4), 3);
	EXPECT_TRUE(list[0].self);
	EXPECT_EQ(list[1].pid, peers[0].pid);
	EXPECT_EQ(list[1].lanes, 1);
	EXPECT_FALSE(list[1].self);
	EXPECT_FALSE(list[1].dead);
	EXPECT_EQ(list[2].pid, peers[1].pid);
	for (unsigned i = 0; i < 2; i++) {
		ASSERT_OK(peer_signal(&peers[i], GO));
		peer_join(&peers[i], LIMIT_MS);
	}
	expect_counts(segment, 1, 0, 0);
	shale_segment_detach(segment);
}

TEST(segment_peers, killed_peer_is_recovered)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_4K);
	struct peer dies, lives;

	(void)start_member(&dies, segment);
	(void)start_member(&lives, segment);
	EXPECT_EQ(shale_recover(segment), 0);
	peer_stop(&lives);
	peer_kill(&dies);
	expect_counts(segment, 3, 1, 2);
	EXPECT_EQ(shale_recover(segment), 1);
	expect_counts(segment, 2, 0, 1);
	EXPECT_EQ(shale_recover(segment), 0);
	peer_continue(&lives);
	ASSERT_OK(peer_signal(&lives, GO));
	peer_join(&lives, LIMIT_MS);
	expect_counts(segment, 1, 0, 0);
	shale_segment_detach(segment);
}

/* Attaching recovers whoever is dead. */
TEST(segment_peers, attach_recovers)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_4K);
	struct peer dies, lives;

	(void)start_member(&dies, segment);
	peer_kill(&dies);
	(void)start_member(&lives, segment);
	expect_counts(segment, 2, 0, 1);
	ASSERT_OK(peer_signal(&lives, GO));
	peer_join(&lives, LIMIT_MS);
	shale_segment_detach(segment);
}

static void in_namespaces(unsigned flags)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_4K);
	struct peer peer, second;
	uint64_t base;
	int r = peer_exec_ns(&peer, flags, "member", "");

	if (peer_ns_refused(r))
		SKIP("namespaces are refused here: %s", test_errno_name(r));
	ASSERT_OK(r);
	ASSERT_OK(peer_send_fd(&peer, shale_segment_fd(segment)));
	ASSERT_OK(peer_receive_word(&peer, &base, LIMIT_MS));
	expect_counts(segment, 2, 0, 1);
	EXPECT_EQ(shale_recover(segment), 0);
	ASSERT_OK(peer_exec_ns(&second, flags, "member", ""));
	ASSERT_OK(peer_send_fd(&second, shale_segment_fd(segment)));
	ASSERT_OK(peer_receive_word(&second, &base, LIMIT_MS));
	expect_counts(segment, 3, 0, 2);
	peer_kill(&peer);
	EXPECT_TRUE(TEST_EVENTUALLY(shale_recover(segment) == 1, LIMIT_MS));
	expect_counts(segment, 2, 0, 1);
	ASSERT_OK(peer_signal(&second, GO));
	peer_join(&second, LIMIT_MS);
	shale_segment_detach(segment);
}

TEST(segment_peers, pid_namespace)
{
	in_namespaces(PEER_NEW_PID_NS);
}

TEST(segment_peers, user_and_pid_namespace)
{
	in_namespaces(PEER_NEW_USER_NS | PEER_NEW_PID_NS);
}

/* ---- fork and exec in a peer ---- */

static void wait_for_ever(void)
{
	prctl(PR_SET_PDEATHSIG, 0);
	for (;;)
		pause();
}

/* Forks a child that becomes a peer (argument "join") or never calls the library, and waits. */
PEER_ROLE(forker)
{
	int fd = peer_receive_fd(parent, LIMIT_MS), pipe_fds[2];
	struct shale_segment *segment;
	struct lane *lane;
	pid_t child;
	char byte;

	ASSERT_OK(fd);
	segment = segment_join(fd);
	ASSERT_OK(lane_enter(segment, &lane));
	ASSERT_SYS(pipe(pipe_fds));
	child = fork();
	if (child == 0) {
		if (strcmp(argument, "join") == 0 && lane_enter(segment, &lane) != 0)
			_exit(1);
		if (write(pipe_fds[1], "x", 1) != 1)
			_exit(1);
		wait_for_ever();
	}
	ASSERT_EQ(read(pipe_fds[0], &byte, 1), 1);
	ASSERT_OK(peer_signal(parent, (uint64_t)child));
	(void)peer_wait(parent, GO, LIMIT_MS);
}

/* The parent is killed while its child lives: the parent is dead, the child is not. */
static void parent_killed(const char *argument, unsigned child_peers)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_4K);
	uint64_t child = 0;
	struct peer peer;

	ASSERT_OK(peer_exec(&peer, "forker", argument));
	ASSERT_OK(peer_send_fd(&peer, shale_segment_fd(segment)));
	ASSERT_OK(peer_receive_word(&peer, &child, LIMIT_MS));
	expect_counts(segment, 2 + child_peers, 0, 1 + child_peers);
	peer_kill(&peer);
	EXPECT_EQ(kill((pid_t)child, 0), 0);
	expect_counts(segment, 2 + child_peers, 1, 1 + child_peers);
	EXPECT_EQ(shale_recover(segment), 1);
	expect_counts(segment, 1 + child_peers, 0, child_peers);
	kill((pid_t)child, SIGKILL);
	EXPECT_TRUE(TEST_EVENTUALLY(shale_recover(segment) >= 0 && segment_look(segment).peers == 1,
				    LIMIT_MS));
	expect_counts(segment, 1, 0, 0);
	shale_segment_detach(segment);
}

TEST(segment_peers, parent_killed_while_its_joined_child_lives)
{
	parent_killed("join", 1);
}

TEST(segment_peers, parent_killed_while_its_silent_child_lives)
{
	parent_killed("", 0);
}

PEER_ROLE(execs)
{
	int fd = peer_receive_fd(parent, LIMIT_MS);
	struct lane *lane;

	ASSERT_OK(fd);
	ASSERT_OK(lane_enter(segment_join(fd), &lane));
	ASSERT_OK(peer_signal(parent, READY));
	execl("/bin/sleep", "sleep", "1000", (char *)NULL);
}

/* exec ends a peer, although the process goes on. */
TEST(segment_peers, exec_is_a_death)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_4K);
	struct peer peer;

	ASSERT_OK(peer_exec(&peer, "execs", ""));
	ASSERT_OK(peer_send_fd(&peer, shale_segment_fd(segment)));
	ASSERT_OK(peer_wait(&peer, READY, LIMIT_MS));
	EXPECT_TRUE(TEST_EVENTUALLY(shale_recover(segment) == 1, LIMIT_MS));
	expect_counts(segment, 1, 0, 0);
	EXPECT_EQ(kill(peer.pid, 0), 0);
	peer_kill(&peer);
	shale_segment_detach(segment);
}

PEER_ROLE(closes)
{
	int fd = peer_receive_fd(parent, LIMIT_MS);
	struct shale_segment *segment;
	struct lane *lane;

	ASSERT_OK(fd);
	segment = segment_join(fd);
	ASSERT_OK(lane_enter(segment, &lane));
	for (int number = 3; number < 1024; number++)
		if (number != parent->socket && number != test_report_fd())
			close(number);
	EXPECT_ERRNO(-EBADF, view_fd(segment));
	ASSERT_OK(peer_signal(parent, READY));
	ASSERT_OK(peer_wait(parent, GO, LIMIT_MS));
	shale_segment_detach(segment);
}

/* A peer that has closed every descriptor lives, and can leave. */
TEST(segment_peers, closing_every_descriptor_is_no_death)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_4K);
	struct peer peer;

	ASSERT_OK(peer_exec(&peer, "closes", ""));
	ASSERT_OK(peer_send_fd(&peer, shale_segment_fd(segment)));
	ASSERT_OK(peer_wait(&peer, READY, LIMIT_MS));
	expect_counts(segment, 2, 0, 1);
	EXPECT_EQ(shale_recover(segment), 0);
	ASSERT_OK(peer_signal(&peer, GO));
	peer_join(&peer, LIMIT_MS);
	expect_counts(segment, 1, 0, 0);
	shale_segment_detach(segment);
}

/* ---- all slots taken ---- */

TEST_TIMEOUT(segment_peers, slots_run_out, 120)
{
	struct shale_attach_options options = {.size = sizeof(options)};
	struct shale_segment *segment = segment_make(SHALE_PAGES_4K), *view = NULL;
	static struct os_life lives[PEER_COUNT];
	char reason[200] = "";
	pid_t child;

	/* 1021 slots held by this process, one by a child that dies, one by us */
	for (uint32_t peer = 2; peer < PEER_COUNT - 1; peer++) {
		ASSERT_OK(os_life_take(shale_segment_fd(segment), LOCK_LIFE_BASE + peer, true,
				       &lives[peer]));
		store_relaxed(&view_peer(segment, peer)->word,
			      (uint64_t)PEER_GENERATION + PEER_ACTIVE);
	}
	child = test_fork();
	if (child == 0) {
		view = segment_join(shale_segment_fd(segment));
		EXPECT_EQ(view->peer, PEER_COUNT - 1);
		options.reason = reason;
		options.reason_size = sizeof(reason);
		EXPECT_ERRNO(-EUSERS,
			     shale_segment_attach(shale_segment_fd(segment), &options, &view));
		EXPECT_NOT_NULL(strstr(reason, "1023"));
		test_child_exit(); /* without detach: a death */
	}
	test_join(child, 60000);
	EXPECT_EQ(segment_look(segment).peers, PEER_COUNT - 1);
	EXPECT_EQ(segment_look(segment).peers_dead, 1);
	/* the dead one's slot is found by recovery inside attach */
	ASSERT_OK(shale_segment_attach(shale_segment_fd(segment), NULL, &view));
	EXPECT_EQ(view->peer, PEER_COUNT - 1);
	shale_segment_detach(view);
	for (uint32_t peer = 2; peer < PEER_COUNT - 1; peer++)
		os_life_drop(&lives[peer]);
	EXPECT_EQ(shale_recover(segment), PEER_COUNT - 3);
	expect_counts(segment, 1, 0, 0);
	shale_segment_detach(segment);
}
