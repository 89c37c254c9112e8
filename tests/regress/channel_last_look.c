/*
 * A message that came without a wake, as from a sender killed between the two, is received by who
 * sleeps towards a near deadline: it looks once more before it says that the time is over.
 */
#include <pthread.h>
#include <unistd.h>

#include "channel/channel.h"
#include "heaps.h"

static void *make_it_appear(void *ring)
{
	struct ring_shm *shm = ring;
	uint64_t head = shm->head;

	/* what was received is there again, and nobody is woken */
	usleep(20000);
	store_release(&shm->head, head_make(position_distance(1, head_position(head)), false, 0));
	return NULL;
}

TEST(channel_last_look, before_the_deadline)
{
	struct shale_segment *segment = heap_segment(4u << 20, SHALE_PAGES_4K);
	struct shale_channel *channel = NULL;
	struct ring_shm *ring = NULL;
	pthread_t thread;
	size_t size = 9;
	char byte;

	ASSERT_OK(shale_channel_open(segment, "c", NULL, &channel));
	ASSERT_OK(shale_channel_send(channel, "x", 1, SHALE_NO_WAIT));
	ASSERT_OK(shale_channel_receive(channel, &byte, 1, &size, SHALE_NO_WAIT));
	ASSERT_OK(ring_at(channel, 0, &ring));
	ASSERT_EQ(pthread_create(&thread, NULL, make_it_appear, ring), 0);
	byte = 0;
	EXPECT_OK(shale_channel_receive(channel, &byte, 1, &size, shale_deadline_in(60000000)));
	EXPECT_EQ(byte, 'x');
	EXPECT_EQ(pthread_join(thread, NULL), 0);
	shale_channel_close(channel);
	EXPECT_OK(shale_segment_detach(segment));
}
