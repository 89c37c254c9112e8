/*
 * shale/map.h - a map from byte strings to byte strings, shared by all peers of a segment.
 *
 * Every operation is lock-free; a process killed or stopped inside one delays nobody. Keys and
 * values are copied into the segment's heap. A handle is private to the process and may be used by
 * all its threads.
 */
#ifndef SHALE_MAP_H
#define SHALE_MAP_H

#include <stddef.h>
#include <stdint.h>

#include <shale/segment.h>
#include <shale/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct shale_map;

/* Set `size` to sizeof(struct ...). Zero members are defaults. Since 0.1. */
struct shale_map_options {
	size_t size;
	uint64_t expected_entries; /* sizes the table when the map is made; default 65,536,
				      range 1 .. 2^32. A map does not grow yet: see -ENOSPC
				      of shale_map_put() */
	uint32_t flags;            /* SHALE_MAP_* */
};

#define SHALE_MAP_MUST_EXIST 1u /* -ENOENT instead of making a new map */
#define SHALE_MAP_MUST_MAKE  2u /* -EEXIST instead of opening an old one */

/*
 * Opens the map of that name, making it if it is not there. options may be NULL.
 * -EINVAL bad name (1..47 bytes) or option; -ENOENT, -EEXIST as asked for; -EPROTOTYPE the name is
 * bound to something that is not a map; -ENOMEM; -ENOSPC no root left; -EROFS read-only view and no
 * such map; -EUCLEAN damaged. Threads and processes: safe. Since 0.1.
 */
SHALE_API int shale_map_open(struct shale_segment *segment, const char *name,
			     const struct shale_map_options *options, struct shale_map **ret_map);

/* Releases the handle; the map stays. NULL is ignored. Since 0.1. */
SHALE_API void shale_map_close(struct shale_map *map);

/*
 * Binds key to value, whether the key was there or not. Keys and values may have 0 bytes; a key at
 * most 4 GiB - 1, a value as much as the heap can hold.
 * 0 the key is new; 1 an old value was replaced
 * -ENOMEM no memory; -EROFS; -EUCLEAN damaged; -EINVAL bytes without a pointer, key above 4 GiB - 1
 * -ENOSPC the places that this key's hash can use are full, and the table cannot grow yet: not before
 *  about four times expected_entries. Other keys may still fit; deleting others need not help this one
 * Threads and processes: safe, lock-free, linearizable. Since 0.1.
 */
SHALE_API int shale_map_put(struct shale_map *map, const void *key, size_t key_size,
			    const void *value, size_t value_size);

/* As shale_map_put(), but -EEXIST if the key is there, and nothing is changed. Since 0.1. */
SHALE_API int shale_map_insert(struct shale_map *map, const void *key, size_t key_size,
			       const void *value, size_t value_size);

/*
 * Copies the value of key to buffer, at most buffer_size bytes; *ret_value_size is its full size.
 * The copy is of one instant. buffer may be NULL if buffer_size is 0, ret_value_size always.
 * -EAGAIN only for a view without a lane (read-only, or no lane left): about a million copies in a
 * row were overtaken by writers.
 * 0 found; -ENOENT no such key; -EMSGSIZE found but larger than the buffer (its first bytes and its
 * size are given); -EUCLEAN damaged. Works on read-only views. Stores nothing to shared lines.
 * Threads and processes: safe, lock-free, linearizable. Since 0.1.
 */
SHALE_API int shale_map_get(struct shale_map *map, const void *key, size_t key_size, void *buffer,
			    size_t buffer_size, size_t *ret_value_size);

/*
 * Removes key. 0 removed; -ENOENT no such key; -EROFS; -EUCLEAN.
 * Threads and processes: safe, lock-free, linearizable. Since 0.1.
 */
SHALE_API int shale_map_delete(struct shale_map *map, const void *key, size_t key_size);

/* Number of entries; exact when quiet. Walks the table. -EUCLEAN damaged. Since 0.1. */
SHALE_API int64_t shale_map_count(struct shale_map *map);

/* A position in a scan: plain bytes, may be copied and kept. Since 0.1. */
struct shale_map_cursor {
	uint64_t position;
	uint64_t reserved[3];
};

/* Starts a scan. Since 0.1. */
SHALE_API void shale_map_cursor_init(struct shale_map_cursor *cursor);

/*
 * Copies the next entry. A key that is there during the whole scan is returned exactly once; one
 * that comes or goes meanwhile, at most once each time it was inserted.
 * *ret_key_size and *ret_value_size are full sizes (NULL: not wanted); too small a buffer gives -EMSGSIZE, and the
 * cursor stays, so that the call can be repeated with larger ones.
 * 1 an entry; 0 the scan is over; -EMSGSIZE; -EUCLEAN. Works on read-only views. Since 0.1.
 */
SHALE_API int shale_map_cursor_next(struct shale_map *map, struct shale_map_cursor *cursor,
				    void *key, size_t key_buffer_size, size_t *ret_key_size,
				    void *value, size_t value_buffer_size, size_t *ret_value_size);

#ifdef __cplusplus
}
#endif

#endif
