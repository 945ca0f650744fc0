/* Content-addressed files: <folder>/blobs/ab/<SHA-256 of the content>.
 *
 * A name exists only with its whole content: written to <folder>/tmp, synced, renamed. A blob is nothing until a row
 * names it; one that no row names is left over from a crash and harmless. Always written again, even when the name
 * exists: that name may come from a crash before its folder was synced, or hold bytes that the disk has lost. Any
 * thread. */
#ifndef PULMO_STORE_BLOB_H
#define PULMO_STORE_BLOB_H

#include "digest.h"
#include "pulmo.h"

#define BLOB_PATH_SIZE 4096

/* The 256 folders and tmp, made and synced once, so that a put need not; what crashes left in tmp is removed. */
bool blob_folders_make(const char *folder, struct err *err) PULMO_MUST_USE;
bool blob_folder_sync(const char *path, struct err *err) PULMO_MUST_USE;

bool blob_file_sync(const char *path, struct err *err) PULMO_MUST_USE;
/* Everything on the file system of a folder. */
bool blob_file_system_sync(const char *folder, struct err *err) PULMO_MUST_USE;

bool blob_path(const char *folder, const char *sha256, char out[BLOB_PATH_SIZE], struct err *err) PULMO_MUST_USE;
/* True when the file is there in this size; does not read it. */
bool blob_present(const char *folder, const char *sha256, int64_t size);

/* Two syncs: the file, its folder. */
bool blob_put(const char *folder, const char *sha256, const void *data, size_t size, struct err *err) PULMO_MUST_USE;
/* Many at once: two syncs of the whole file system instead of two each. names[] receives the digests. */
struct blob_content {
    const void *data;
    size_t size;
};
bool blob_put_many(const char *folder, const struct blob_content *contents, size_t count,
                   char (*names)[DIGEST_HEX_SIZE], struct err *err) PULMO_MUST_USE;

/* The same with one content after the other in memory, and digests that the caller has: begun, count of them put,
 * ended. Freed in any case; what was not ended may be there or not. */
struct blob_batch {
    const char *folder;            /* borrowed */
    struct blob_batch_file *files; /* written and not yet renamed; NULL = few, each is synced at once */
    size_t count, named;
};
bool blob_batch_begin(struct blob_batch *batch, const char *folder, size_t count, struct err *err) PULMO_MUST_USE;
bool blob_batch_put(struct blob_batch *batch, const char *sha256, const void *data, size_t size,
                    struct err *err) PULMO_MUST_USE;
bool blob_batch_end(struct blob_batch *batch, struct err *err) PULMO_MUST_USE;
void blob_batch_free(struct blob_batch *batch);

/* Reads the whole content; ERR_IO when size or digest are not what was stored. */
bool blob_read(const char *folder, const char *sha256, int64_t size, struct bytes *out, struct err *err) PULMO_MUST_USE;
/* Reads a part; the caller has checked that it lies within file_size. ERR_IO when the file has another size. */
struct blob_range {
    int64_t file_size;
    uint64_t offset;
    size_t size;
};
bool blob_read_range(const char *folder, const char *sha256, const struct blob_range *range, struct bytes *out,
                     struct err *err) PULMO_MUST_USE;

/* ERR_NO_SPACE when fewer than reserve_bytes would stay free after size more. */
bool blob_room(const char *folder, uint64_t reserve_bytes, size_t size, struct err *err) PULMO_MUST_USE;

#endif
