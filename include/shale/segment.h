/*
 * shale/segment.h - create, share, attach and inspect a segment.
 *
 * A segment is one memfd and all that lives in it. `struct shale_segment` is this process's view of
 * it: private memory, usable from every thread of the process. A forked child uses the view it
 * inherits and becomes a peer of its own at its first operation; it never touches what belongs to
 * its parent. Functions return 0 or more, or a negative errno.
 */
#ifndef SHALE_SEGMENT_H
#define SHALE_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <shale/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct shale_segment;

/* The pages that back a segment. Since 0.1. */
enum shale_pages {
	SHALE_PAGES_AUTO = 0, /* 2 MiB if the pool has room, else transparent huge, else 4 KiB */
	SHALE_PAGES_4K,       /* 4 KiB pages of shared memory */
	SHALE_PAGES_THP,      /* 4 KiB pages, collapsed by the kernel into 2 MiB where it can */
	SHALE_PAGES_2M,       /* 2 MiB pages of the hugetlb pool, or -ENOMEM */
	SHALE_PAGES_1G,       /* 1 GiB pages of the hugetlb pool, or -ENOMEM */
	SHALE_PAGES_PRIVATE,  /* anonymous memory of this process: no fd, nothing shared */
};

/* Where the pages of a segment are placed. Since 0.1. */
enum shale_placement {
	SHALE_PLACE_LOCAL = 0,      /* the node of the thread that commits the memory */
	SHALE_PLACE_BIND,           /* only the nodes given; -ENOMEM when they are full */
	SHALE_PLACE_PREFERRED_MANY, /* the nodes given first, then any */
	SHALE_PLACE_INTERLEAVE,     /* round robin over the nodes given */
	SHALE_PLACE_WEIGHTED, /* round robin by the kernel's weights (interleave before 6.9) */
};

/* A set of NUMA nodes 0..1023; node n is bit n % 64 of word n / 64. Since 0.1. */
struct shale_nodes {
	uint64_t bits[16];
};

/* What a segment does to find mistakes of the programs that use it: shale/debug.h. Since 0.1. */
enum shale_debug {
	SHALE_DEBUG_GUARD = 1,  /* inaccessible pages around one block in guard_sample */
	SHALE_DEBUG_POISON = 2, /* freed bytes are overwritten and looked at later */
	SHALE_DEBUG_OWNER = 4,  /* who allocated what; kept with any of the flags */
};

/* Every zero member means the default. Set `size` to sizeof(struct ...). Since 0.1. */
struct shale_segment_options {
	size_t size;
	uint64_t capacity_bytes; /* heap bytes at most; multiple of 2 MiB after rounding up;
				    default 64 GiB, range 2 MiB .. 16 TiB; address space, not memory */
	uint64_t budget_bytes;   /* memory committed at most, metadata included; 0 = capacity;
				    shale_segment_set_budget() changes it */
	const char *label;       /* for people, at most 31 bytes are kept; default "shale" */
	enum shale_pages pages;
	enum shale_placement placement;
	struct shale_nodes nodes; /* for every placement but LOCAL */
	char *reason;             /* when set: receives one line that explains a failure */
	size_t reason_size;
	uint32_t debug;        /* enum shale_debug, a sum; slows every call down */
	uint32_t guard_sample; /* one block in so many is guarded; default 64 */
};

/* Set `size` to sizeof(struct ...). Since 0.1. */
struct shale_attach_options {
	size_t size;
	bool read_only; /* map without write access; no peer slot; copying reads only */
	char *reason;   /* when set: receives one line that explains a failure */
	size_t reason_size;
};

/*
 * Creates a segment and attaches to it.
 *
 * The memfd is sealed against shrinking, growing and further seals before the call returns. Memory
 * is committed as it is needed, with fallocate: a missing huge page, a limit or the budget is an
 * error of the call that wanted the memory, never SIGBUS.
 *
 * options may be NULL. *ret_segment is released with shale_segment_detach().
 * -EINVAL     an option is out of range (reason says which)
 * -ENOMEM     no memory, no address space, or an asked-for huge page pool is empty
 * -EMFILE     no file descriptor left; -ENFILE the same for the system
 * -EOPNOTSUPP /proc is not mounted: the peers' liveness locks need it
 * Threads: safe. Since 0.1.
 */
SHALE_API int shale_segment_create(const struct shale_segment_options *options,
				   struct shale_segment **ret_segment);

/*
 * Attaches to the segment behind fd, which stays the caller's and may be closed afterwards.
 *
 * The kind of file, its seals, its size and every header field are checked first; geometry is then
 * kept in private memory and never read again from the segment. options may be NULL.
 * -EBADF           not an open descriptor, or opened without the access that was asked for
 * -EMEDIUMTYPE     not a memfd (a pipe, a socket, a directory, a file of another file system)
 * -ETXTBSY         the memfd lacks the seals against shrinking and growing
 * -EBADMSG         not a segment, or its header is damaged
 * -EPROTONOSUPPORT made by a newer, incompatible version
 * -EAGAIN          its creator has not finished, or died before it had
 * -EUSERS          all 1023 peer slots are taken by living processes
 * -ENOMEM          no memory or address space; -EOPNOTSUPP /proc is not mounted
 * Threads: safe. Since 0.1.
 */
SHALE_API int shale_segment_attach(int fd, const struct shale_attach_options *options,
				   struct shale_segment **ret_segment);

/*
 * Leaves the segment: blocks of this process that were never published are freed, the rest lives
 * on, the memory is unmapped. No thread may be inside another call on this view, and no pointer
 * into the segment may be used afterwards. The view is gone whatever is returned. NULL is ignored.
 * Returns 0. Threads: exclusive. Since 0.1.
 */
SHALE_API int shale_segment_detach(struct shale_segment *segment);

/*
 * The descriptor of the segment: borrowed, close-on-exec, valid until detach. Duplicate it to keep
 * it. -EBADF for a private segment. Threads: safe. Since 0.1.
 */
SHALE_API int shale_segment_fd(const struct shale_segment *segment);

/*
 * Sends the segment's descriptor over a connected Unix socket, with a 24-byte message.
 * -EBADF private segment or bad socket; -EPIPE the receiver is gone; -ETOOMANYREFS too many
 * descriptors in flight for this user; other errors of sendmsg(2).
 * Threads: safe if the socket is used by one thread. Since 0.1.
 */
SHALE_API int shale_segment_send(const struct shale_segment *segment, int socket);

/*
 * Receives a descriptor that shale_segment_send() sent, and attaches to it.
 *
 * A message with no, two or more descriptors, a truncated one, or one that is not a segment is
 * refused, and every descriptor that came with it is closed.
 * -ENOMSG no descriptor; -E2BIG more than one; -EMFILE no descriptor left in this process;
 * -EMSGSIZE or -EBADMSG not this message; -ECONNRESET the sender closed; and the errors of
 * shale_segment_attach(). Threads: safe if the socket is used by one thread. Since 0.1.
 */
SHALE_API int shale_segment_receive(int socket, const struct shale_attach_options *options,
				    struct shale_segment **ret_segment);

/* What a segment is and holds. Set `size` to sizeof(struct ...) before the call. Since 0.1. */
struct shale_segment_figures {
	size_t size;
	uint8_t id[16]; /* random, unique to the segment */
	char label[32]; /* NUL-terminated */
	uint32_t format_version;
	bool read_only;                 /* this view */
	enum shale_pages pages;         /* what was chosen; never AUTO */
	char pages_reason[128];         /* why */
	enum shale_placement placement; /* what was asked for */
	struct shale_nodes nodes;       /* nodes asked for */
	uint64_t capacity_bytes;        /* heap bytes at most */
	uint64_t budget_bytes;          /* committed bytes at most */
	uint64_t committed_bytes;       /* heap and metadata bytes committed now */
	uint64_t metadata_bytes;        /* of these: metadata */
	uint64_t backing_bytes;         /* what the kernel holds for the file (st_blocks) */
	uint32_t arenas;                /* arenas at most */
	uint32_t arenas_committed;
	uint32_t peers;      /* attached now, the dead not yet recovered included */
	uint32_t peers_dead; /* of these: dead and not yet recovered */
	uint32_t lanes;      /* threads' states in use */
	uint32_t roots;      /* named roots */
	bool damaged;        /* this view has met damage (-EUCLEAN) */
	/* of the arenas committed (docs: shale_numa(3)) */
	uint32_t arenas_elsewhere;   /* whose memory is not where the placement wanted it */
	uint32_t arenas_small;       /* of a THP segment: without a huge page */
	uint32_t arenas_on_node[64]; /* by node; the last one counts nodes above 62 too */
};

/* Fills *ret_stat. -EINVAL: its size is unknown. Threads and processes: safe. Since 0.1. */
SHALE_API int shale_segment_stat(struct shale_segment *segment,
				 struct shale_segment_figures *ret_stat);

/*
 * Sets how much memory may be committed at most, metadata included, from now on; 0 means as much as
 * the capacity needs. Holds for every process; the last call counts. What is committed already stays,
 * above the budget too. A larger budget wakes those who wait in shale_alloc_wait().
 * -EINVAL below the least that a segment with such pages needs; -EROFS the view is read-only.
 * Threads and processes: safe. Since 0.1.
 */
SHALE_API int shale_segment_set_budget(struct shale_segment *segment, uint64_t budget_bytes);

/* First byte of the mapping in this process. Threads: safe. Since 0.1. */
SHALE_API void *shale_segment_base(const struct shale_segment *segment);

/* An attached process, as shale_segment_peers() lists it. Since 0.1. */
struct shale_peer {
	uint32_t slot;
	uint32_t pid;         /* in the pid namespace that it attached from: for display only */
	uint64_t pid_ns;      /* inode of that namespace */
	uint64_t start_ticks; /* start time, clock ticks since boot */
	uint32_t lanes;
	bool dead; /* its memory is gone, its blocks are not yet recovered */
	bool self;
	char command[16];
};

/*
 * Lists the peers: fills at most `count` entries and returns how many peers there are.
 * Threads and processes: safe; a snapshot. Since 0.1.
 */
SHALE_API int shale_segment_peers(struct shale_segment *segment, struct shale_peer *peers,
				  unsigned count);

/*
 * Recovers every dead peer: frees what it never published, settles what it was in the middle of,
 * and makes its slots free. Safe at any time; may itself be killed and is then resumed by the next
 * caller. Other calls do this on their slow paths; call it to have it done now.
 * Returns the number of peers recovered. -EROFS: the view is read-only. Since 0.1.
 */
SHALE_API int shale_recover(struct shale_segment *segment);

/* One violation found by shale_check(). Since 0.1. */
struct shale_finding {
	const char *invariant; /* its number in docs/design, "H3" */
	uint64_t offset;       /* where in the segment */
	const char *text;      /* one line */
};
typedef void (*shale_check_callback)(const struct shale_finding *finding, void *context);

/*
 * Walks every structure of the segment and reports each broken invariant. Exact when no peer is
 * inside an operation; while peers work, transient states are left alone. callback may be NULL.
 * Returns the number of findings. Threads and processes: safe; writes nothing. Since 0.1.
 */
SHALE_API int shale_check(struct shale_segment *segment, shale_check_callback callback,
			  void *context);

/*
 * Named roots: how a process that has nothing but the segment finds what others placed there.
 * A name has 1..47 bytes, no NUL. A root is never removed.
 *
 * shale_root_publish() binds the name to the block at ptr, which becomes published.
 * -EEXIST the name is bound already; -ENOSPC all 512 roots are taken; -EINVAL bad name or pointer;
 * -ENOMEM; -EROFS. The block should then never be freed: its root would dangle.
 * shale_root_find() returns 0 and the ref; -ENOENT no such name; -EPROTOTYPE the name is that of a map
 * or channel; -EINVAL bad name; -EUCLEAN damaged. Since 0.1.
 */
SHALE_API int shale_root_publish(struct shale_segment *segment, const char *name, void *ptr);
SHALE_API int shale_root_find(struct shale_segment *segment, const char *name, shale_ref *ret_ref);

/* What a root is bound to. Since 0.1. */
enum shale_root_kind {
	SHALE_ROOT_USER = 1, /* a block given to shale_root_publish() */
	SHALE_ROOT_MAP = 2,
	SHALE_ROOT_CHANNEL = 3,
};

/* A named root, as shale_root_list() shows it. Valid until the callback returns. Since 0.1. */
struct shale_root {
	const char *name; /* NUL-terminated; bytes that a peer wrote, not always printable */
	uint32_t kind;    /* enum shale_root_kind; other numbers may come with later versions */
	shale_ref ref;    /* USER: the block; else the library's own record */
	uint64_t size;    /* bytes at ref; 0: USER, and the block is not live any more */
};
typedef void (*shale_root_callback)(const struct shale_root *root, void *context);

/*
 * Calls callback once for each root, in no particular order. callback may be NULL. Works on
 * read-only views. Returns the number of roots; -EUCLEAN damaged (those before it were listed).
 * Threads and processes: safe; a snapshot. Since 0.1.
 */
SHALE_API int shale_root_list(struct shale_segment *segment, shale_root_callback callback,
			      void *context);

#ifdef __cplusplus
}
#endif

#endif
