/*
 * shale/channel.h - a queue of byte messages between any number of senders and receivers.
 *
 * Messages of one sender arrive in the order in which it sent them; between senders there is no
 * order. Each message is received by exactly one receiver. A sender or receiver killed or stopped
 * at any instruction blocks nobody else.
 */
#ifndef SHALE_CHANNEL_H
#define SHALE_CHANNEL_H

#include <stddef.h>
#include <stdint.h>

#include <shale/segment.h>
#include <shale/types.h>
#include <shale/wait.h>

#ifdef __cplusplus
extern "C" {
#endif

struct shale_channel;

/* Set `size` to sizeof(struct ...). Zero members are defaults. Since 0.1. */
struct shale_channel_options {
	size_t size;
	uint64_t capacity_bytes; /* of the ring that each sending thread gets; power of two after
				    rounding up; default 256 KiB, range 4 KiB .. 1 GiB */
	uint32_t max_senders;    /* sending threads at a time; default 64, range 1 .. 4095 */
	uint32_t flags;          /* SHALE_CHANNEL_* */
};

#define SHALE_CHANNEL_MUST_EXIST 1u /* -ENOENT instead of making a new channel */
#define SHALE_CHANNEL_MUST_MAKE  2u /* -EEXIST instead of opening an old one */

/*
 * Opens the channel of that name, making it if it is not there. options may be NULL.
 * Errors as shale_map_open(). Read-only views: -EROFS. Since 0.1.
 */
SHALE_API int shale_channel_open(struct shale_segment *segment, const char *name,
				 const struct shale_channel_options *options,
				 struct shale_channel **ret_channel);

/* Releases the handle; the channel and what was sent stays. NULL is ignored. Since 0.1. */
SHALE_API void shale_channel_close(struct shale_channel *channel);

/*
 * Sends one message of `size` bytes (0 is allowed), waiting for room until the deadline
 * (SHALE_NO_WAIT, SHALE_NO_DEADLINE, or absolute CLOCK_MONOTONIC nanoseconds).
 * A large message is placed in the heap and sent by reference.
 * -EAGAIN no room and SHALE_NO_WAIT; -ETIMEDOUT; -EINTR; -EPIPE the channel was shut down;
 * -ENOMEM; -EUSERS max_senders threads send already; -EUCLEAN
 * Threads and processes: safe. Since 0.1.
 */
SHALE_API int shale_channel_send(struct shale_channel *channel, const void *data, size_t size,
				 uint64_t deadline);

/*
 * Receives one message into buffer, waiting for one until the deadline. *ret_size (NULL: not
 * wanted) is its size.
 * 0; -EMSGSIZE the buffer is too small: the message stays, *ret_size is the size it needs;
 * -EAGAIN nothing there and SHALE_NO_WAIT; -ETIMEDOUT; -EINTR; -EPIPE shut down and empty; -EUCLEAN
 * A receiver killed after it has taken a message takes it along. Threads and processes: safe.
 * Since 0.1.
 */
SHALE_API int shale_channel_receive(struct shale_channel *channel, void *buffer, size_t buffer_size,
				    size_t *ret_size, uint64_t deadline);

/*
 * Ends the stream: sends fail with -EPIPE from now on, receives do when the channel is empty.
 * Idempotent. Since 0.1.
 */
SHALE_API int shale_channel_shutdown(struct shale_channel *channel);

/* Messages sent and not yet received; a snapshot. Since 0.1. */
SHALE_API int64_t shale_channel_depth(struct shale_channel *channel);

#ifdef __cplusplus
}
#endif

#endif
