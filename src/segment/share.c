/*
 * share.c - a segment's descriptor over a Unix socket.
 *
 *   message, 24 bytes: magic (8) | id of the segment (16)       with exactly one descriptor
 *
 * Owner:     the message is in flight only; the kernel holds the descriptor meanwhile.
 * Invariant: what is received is attached only if its id is the one announced.
 * Death:     of the sender: the message arrives or not, whole. Of the receiver: the kernel closes.
 */
#include "segment/internal.h"

#include <errno.h>
#include <string.h>

#define SHARE_MAGIC UINT64_C(0x64666d6765736873) /* "shsegmfd" */

struct share_message {
	uint64_t magic;
	uint8_t id[16];
};
_Static_assert(sizeof(struct share_message) == 24, "the size that segment.h promises");

int shale_segment_send(const struct shale_segment *segment, int socket)
{
	struct share_message message = {.magic = SHARE_MAGIC};
	int fd = view_fd(segment);

	if (fd < 0)
		return fd;
	memcpy(message.id, segment->header.id, sizeof(message.id));
	return os_send_fd(socket, fd, &message, sizeof(message));
}

int shale_segment_receive(int socket, const struct shale_attach_options *options,
			  struct shale_segment **ret_segment)
{
	_cleanup_os_close_ int fd = -EBADF;
	struct share_message message;
	struct shale_segment *view;
	size_t size;
	int r;

	r = os_receive_fd(socket, &message, sizeof(message), &size, &fd);
	if (r < 0)
		return r;
	if (size != sizeof(message) || message.magic != SHARE_MAGIC)
		return -EBADMSG;
	r = shale_segment_attach(fd, options, &view);
	if (r < 0)
		return r;
	if (memcmp(message.id, view->header.id, sizeof(message.id)) != 0) {
		(void)shale_segment_detach(view);
		return -EBADMSG;
	}
	*ret_segment = view;
	return 0;
}
