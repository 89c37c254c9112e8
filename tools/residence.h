/*
 * residence.h - on which NUMA nodes the pages of a segment are, as other processes have them mapped.
 *
 * Owner: the caller. Only /proc is read: asking the kernel about our own mapping would need us to
 * touch the pages, and touching a hole of a shared file allocates it.
 */
#ifndef SHALE_TOOLS_RESIDENCE_H
#define SHALE_TOOLS_RESIDENCE_H

#include <stdint.h>
#include <sys/types.h>

#define RESIDENCE_NODES 64u

struct residence {
	uint64_t bytes[RESIDENCE_NODES];
};

/*
 * Raises each node's figure to what process pid has mapped of the file (dev, ino), if that is more:
 * over several processes the result is a lower bound. What cannot be read counts nothing.
 */
void residence_look(struct residence *residence, int pid, dev_t dev, ino_t ino);

#endif
