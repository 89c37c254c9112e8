/*
 * channel_scene.h - the world of the channel's step tests: a segment, a channel with a ring that
 * nobody owns, and a table in shared memory of how often each message was received.
 *
 * A message's first byte is its id, and the others follow from it. The victim is a forked child: a
 * peer of its own. Heap bytes are exact: whatever was sent and received, killed or not, once the
 * channel is drained the heap holds what it held before.
 */
#ifndef SHALE_TESTS_STEP_CHANNEL_SCENE_H
#define SHALE_TESTS_STEP_CHANNEL_SCENE_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shale/channel.h>
#include <shale/heap.h>
#include <shale/segment.h>

#include "harness.h"
#include "step.h"

#define MESSAGE_MOST 70000u
#define IDS          16u

struct table {
	uint32_t received[IDS];
	uint32_t order_errors;
};

struct scene {
	size_t size;        /* of the messages in this case */
	unsigned preloaded; /* messages that are there before the operation: ids 1 .. preloaded */
	unsigned warm;      /* messages that the victim sends before (0: one) */
	bool self_sent;     /* by the victim itself */
	bool steal;         /* check() receives before it recovers */
	bool cold;          /* the ring is not there before the operation */
	struct shale_segment *segment;
	struct shale_channel *channel;
	struct table *table;
	uint64_t baseline;
	unsigned char buffer[MESSAGE_MOST];
};

static inline uint64_t scene_live_bytes(struct scene *scene)
{
	struct shale_heap_figures stat = {.size = sizeof(stat)};

	ASSERT_OK(shale_heap_stat(scene->segment, &stat));
	return stat.live_bytes;
}

static inline void message_fill(unsigned char *bytes, size_t size, unsigned id)
{
	memset(bytes, (int)(id * 7 + 1), size);
	bytes[0] = (unsigned char)id;
}

/* Counts what was received; false: these are not the bytes that were sent. */
static inline bool message_note(struct scene *scene, size_t size)
{
	unsigned id = scene->buffer[0];

	if (id >= IDS || size != scene->size)
		return false;
	for (size_t i = 1; i < size; i++)
		if (scene->buffer[i] != (unsigned char)(id * 7 + 1))
			return false;
	__atomic_fetch_add(&scene->table->received[id], 1, __ATOMIC_SEQ_CST);
	return true;
}

static inline void scene_send(struct scene *scene, unsigned id)
{
	message_fill(scene->buffer, scene->size, id);
	ASSERT_OK(shale_channel_send(scene->channel, scene->buffer, scene->size, SHALE_NO_WAIT));
}

/* Receives one message if there is one. */
static inline bool scene_receive(struct scene *scene)
{
	size_t size = 0;
	int r = shale_channel_receive(scene->channel, scene->buffer, MESSAGE_MOST, &size,
				      SHALE_NO_WAIT);

	if (r == -EAGAIN)
		return false;
	ASSERT_OK(r);
	ASSERT_TRUE(message_note(scene, size));
	return true;
}

static inline void finding_show(const struct shale_finding *finding, void *context)
{
	(void)context;
	TEST_LOG("%s at %#llx: %s", finding->invariant, (unsigned long long)finding->offset,
		 finding->text);
}

/*
 * A process that sends one message and dies: it takes over a ring that nobody owns, or makes one,
 * and that ring is there, and nobody's, from then on.
 */
static inline void scene_ring_of_dead(struct scene *scene)
{
	pid_t child = fork();

	if (child == 0) {
		message_fill(scene->buffer, scene->size, 0);
		_exit(shale_channel_send(scene->channel, scene->buffer, scene->size,
					 SHALE_NO_WAIT) != 0);
	}
	waitpid(child, NULL, 0);
	ASSERT_EQ(shale_recover(scene->segment), 1);
	ASSERT_TRUE(scene_receive(scene));
}

static inline void scene_setup(void *context)
{
	struct shale_segment_options segment = {
		.size = sizeof(segment),
		.capacity_bytes = 16u << 20,
		.pages = SHALE_PAGES_4K,
	};
	struct shale_channel_options channel = {
		.size = sizeof(channel),
		.capacity_bytes = 4096,
		.max_senders = 3,
	};
	struct scene *scene = context;

	scene->table = mmap(NULL, sizeof(*scene->table), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_TRUE(scene->table != MAP_FAILED);
	ASSERT_OK(shale_segment_create(&segment, &scene->segment));
	ASSERT_OK(shale_channel_open(scene->segment, "c", &channel, &scene->channel));
	if (!scene->cold) {
		scene_send(scene, 0); /* the scene's own ring, and then the victim's */
		ASSERT_TRUE(scene_receive(scene));
		scene_ring_of_dead(scene);
	}
	scene->baseline = scene_live_bytes(scene);
	if (!scene->self_sent)
		for (unsigned id = 1; id <= scene->preloaded; id++)
			scene_send(scene, id);
}

/* The victim claims its lane and warms its caches, and takes no message. */
static inline void victim_prepare(void *context)
{
	struct scene *scene = context;
	void *block = shale_alloc(scene->segment, scene->size);
	size_t size;

	ASSERT_NOT_NULL(block);
	ASSERT_OK(shale_free(scene->segment, block));
	if (scene->self_sent)
		for (unsigned id = 1; id <= scene->preloaded; id++)
			scene_send(scene, id);
	if (scene->preloaded > 0)
		ASSERT_ERRNO(-EMSGSIZE,
			     shale_channel_receive(scene->channel, NULL, 0, &size, SHALE_NO_WAIT));
}

static inline void victim_send(void *context)
{
	struct scene *scene = context;

	(void)shale_channel_send(scene->channel, scene->buffer, scene->size, SHALE_NO_WAIT);
}

static inline void victim_prepare_send(void *context)
{
	struct scene *scene = context;

	victim_prepare(scene);
	for (unsigned i = scene->cold ? 1 : 0; i < (scene->warm ? scene->warm : 1); i++) {
		scene_send(scene, 0);
		ASSERT_TRUE(scene_receive(scene));
	}
	message_fill(scene->buffer, scene->size, 9);
}

static inline void victim_receive(void *context)
{
	struct scene *scene = context;
	size_t size = 0;

	if (shale_channel_receive(scene->channel, scene->buffer, MESSAGE_MOST, &size,
				  SHALE_NO_WAIT) != 0)
		memset(scene->buffer, 0xff, 8);
}

#endif
