#include "store/blob.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define BLOB_TMP_AGE_S 3600 /* a writer is done in seconds: an older file has none */
#define BLOB_SYNC_EACH_MAX 8

static void descriptor_close_at(int *descriptor) {
    if (*descriptor >= 0)
        close(*descriptor);
}

static bool fail(struct err *err, const char *what, const char *path) {
    enum err_kind kind = errno == ENOSPC || errno == EDQUOT ? ERR_NO_SPACE : ERR_IO;
    return err_set(err, kind, "%s %s: %s", what, path, strerror(errno));
}

bool blob_folder_sync(const char *path, struct err *err) {
    PULMO_SCOPED(descriptor_close_at) int descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0 || fsync(descriptor) != 0)
        return fail(err, "cannot sync", path);
    return true;
}

bool blob_file_sync(const char *path, struct err *err) {
    PULMO_SCOPED(descriptor_close_at) int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0 || fsync(descriptor) != 0)
        return fail(err, "cannot sync", path);
    return true;
}

static void tmp_clean(const char *path) {
    DIR *folder = opendir(path);
    if (!folder)
        return;
    for (struct dirent *entry; (entry = readdir(folder));) {
        struct stat status;
        if (fstatat(dirfd(folder), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(status.st_mode) &&
            status.st_mtime + BLOB_TMP_AGE_S < time(NULL))
            unlinkat(dirfd(folder), entry->d_name, 0);
    }
    closedir(folder);
}

static bool folder_make(const char *path, struct err *err) {
    if (mkdir(path, 0750) != 0 && errno != EEXIST)
        return fail(err, "cannot make", path);
    return true;
}

bool blob_folders_make(const char *folder, struct err *err) {
    char path[BLOB_PATH_SIZE];
    int length = snprintf(path, sizeof path, "%s/tmp", folder);
    if (length < 0 || (size_t)length + 80 >= sizeof path)
        return err_set(err, ERR_LIMIT, "path too long: %s", folder);
    if (!folder_make(path, err))
        return false;
    tmp_clean(path);
    snprintf(path, sizeof path, "%s/blobs", folder);
    if (!folder_make(path, err))
        return false;
    for (unsigned index = 0; index < 256; index++) {
        snprintf(path, sizeof path, "%s/blobs/%02x", folder, index);
        if (!folder_make(path, err))
            return false;
    }
    /* Also when all were there: their maker may have been killed before its sync. */
    snprintf(path, sizeof path, "%s/blobs", folder);
    return blob_folder_sync(path, err) && blob_folder_sync(folder, err);
}

bool blob_path(const char *folder, const char *sha256, char out[BLOB_PATH_SIZE], struct err *err) {
    if (strlen(sha256) != DIGEST_HEX_SIZE - 1 || strspn(sha256, "0123456789abcdef") != DIGEST_HEX_SIZE - 1)
        return err_set(err, ERR_INTERNAL, "'%s' is no SHA-256", sha256);
    int length = snprintf(out, BLOB_PATH_SIZE, "%s/blobs/%.2s/%s", folder, sha256, sha256);
    if (length < 0 || length >= BLOB_PATH_SIZE)
        return err_set(err, ERR_LIMIT, "path too long: %s", folder);
    return true;
}

bool blob_present(const char *folder, const char *sha256, int64_t size) {
    char path[BLOB_PATH_SIZE];
    struct stat status;
    return blob_path(folder, sha256, path, NULL) && stat(path, &status) == 0 && status.st_size == size;
}

/* A new file in tmp with this content; path receives its name. */
static bool tmp_write(const char *folder, struct blob_content content, bool sync, char path[BLOB_PATH_SIZE],
                      struct err *err) {
    snprintf(path, BLOB_PATH_SIZE, "%s/tmp/XXXXXX", folder);
    PULMO_SCOPED(descriptor_close_at) int descriptor = mkostemp(path, O_CLOEXEC);
    if (descriptor < 0)
        return fail(err, "cannot make", path);
    if (bytes_write_all(descriptor, content.data, content.size) && fchmod(descriptor, 0640) == 0 &&
        (!sync || fsync(descriptor) == 0))
        return true;
    fail(err, "cannot write", path);
    unlink(path);
    return false;
}

static bool tmp_rename(const char *from, const char *to, struct err *err) {
    if (rename(from, to) == 0)
        return true;
    fail(err, "cannot rename to", to);
    unlink(from);
    return false;
}

bool blob_put(const char *folder, const char *sha256, const void *data, size_t size, struct err *err) {
    char temporary[BLOB_PATH_SIZE], path[BLOB_PATH_SIZE];
    if (!blob_path(folder, sha256, path, err) ||
        !tmp_write(folder, (struct blob_content){data, size}, true, temporary, err) ||
        !tmp_rename(temporary, path, err))
        return false;
    *strrchr(path, '/') = '\0';
    return blob_folder_sync(path, err);
}

bool blob_file_system_sync(const char *folder, struct err *err) {
    PULMO_SCOPED(descriptor_close_at) int descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0 || syncfs(descriptor) != 0)
        return fail(err, "cannot sync the file system of", folder);
    return true;
}

struct blob_batch_file {
    char path[BLOB_PATH_SIZE], sha256[DIGEST_HEX_SIZE];
};

bool blob_batch_begin(struct blob_batch *batch, const char *folder, size_t count, struct err *err) {
    *batch = (struct blob_batch){.folder = folder};
    if (count <= BLOB_SYNC_EACH_MAX)
        return true;
    batch->files = malloc(count * sizeof *batch->files); /* not zeroed: most of each path stays untouched */
    return batch->files != NULL || err_set(err, ERR_MEMORY, "out of memory for the names of %zu files", count);
}

bool blob_batch_put(struct blob_batch *batch, const char *sha256, const void *data, size_t size, struct err *err) {
    if (!batch->files)
        return blob_put(batch->folder, sha256, data, size, err);
    struct blob_batch_file *file = &batch->files[batch->count];
    if (!tmp_write(batch->folder, (struct blob_content){data, size}, false, file->path, err))
        return false;
    snprintf(file->sha256, sizeof file->sha256, "%s", sha256);
    batch->count++;
    return true;
}

/* The first sync comes before any rename: a name must never lead to content that a power cut could lose, least of all a
 * name that an acknowledged instance has already. */
bool blob_batch_end(struct blob_batch *batch, struct err *err) {
    if (!batch->count)
        return true;
    if (!blob_file_system_sync(batch->folder, err))
        return false;
    for (; batch->named < batch->count; batch->named++) {
        const struct blob_batch_file *file = &batch->files[batch->named];
        char path[BLOB_PATH_SIZE];
        if (!blob_path(batch->folder, file->sha256, path, err) || !tmp_rename(file->path, path, err))
            return false;
    }
    return blob_file_system_sync(batch->folder, err);
}

void blob_batch_free(struct blob_batch *batch) {
    for (size_t index = batch->named; index < batch->count; index++)
        unlink(batch->files[index].path);
    free(batch->files);
    *batch = (struct blob_batch){.count = 0};
}

bool blob_put_many(const char *folder, const struct blob_content *contents, size_t count,
                   char (*names)[DIGEST_HEX_SIZE], struct err *err) {
    PULMO_SCOPED(blob_batch_free) struct blob_batch batch = {.count = 0};
    if (!blob_batch_begin(&batch, folder, count, err))
        return false;
    for (size_t index = 0; index < count; index++)
        if (!digest_hex(contents[index].data, contents[index].size, names[index], err) ||
            !blob_batch_put(&batch, names[index], contents[index].data, contents[index].size, err))
            return false;
    return blob_batch_end(&batch, err);
}

/* Says nothing of the content: whoever takes ERR_IO for damage must not. */
static bool is_scarcity(int number) {
    return number == ENOMEM || number == EMFILE || number == ENFILE;
}

bool blob_read_range(const char *folder, const char *sha256, const struct blob_range *range, struct bytes *out,
                     struct err *err) {
    char path[BLOB_PATH_SIZE];
    if (!blob_path(folder, sha256, path, err))
        return false;
    PULMO_SCOPED(descriptor_close_at) int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (descriptor < 0 || fstat(descriptor, &status) != 0)
        return err_set(err, is_scarcity(errno) ? ERR_MEMORY : ERR_IO, "stored content %s cannot be read: %s", sha256,
                       strerror(errno));
    if (status.st_size != range->file_size)
        return err_set(err, ERR_IO, "stored content %s has %lld bytes instead of %lld", sha256,
                       (long long)status.st_size, (long long)range->file_size);
    PULMO_SCOPED(bytes_free) struct bytes bytes = {.data = pulmo_alloc(range->size, 1, err)};
    if (!bytes.data)
        return false;
    while (bytes.size < range->size) {
        ssize_t got =
            pread(descriptor, bytes.data + bytes.size, range->size - bytes.size, (off_t)(range->offset + bytes.size));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return err_set(err, ERR_IO, "stored content %s cannot be read: %s", sha256,
                           got < 0 ? strerror(errno) : "it became shorter");
        bytes.size += (size_t)got;
    }
    *out = bytes;
    bytes = (struct bytes){0};
    return true;
}

bool blob_read(const char *folder, const char *sha256, int64_t size, struct bytes *out, struct err *err) {
    struct blob_range whole = {.file_size = size, .offset = 0, .size = (size_t)size};
    PULMO_SCOPED(bytes_free) struct bytes bytes = {0};
    char digest[DIGEST_HEX_SIZE];
    if (!blob_read_range(folder, sha256, &whole, &bytes, err) || !digest_hex(bytes.data, bytes.size, digest, err))
        return false;
    if (strcmp(digest, sha256) != 0)
        return err_set(err, ERR_IO, "stored content %s has changed: its digest is %s", sha256, digest);
    *out = bytes;
    bytes = (struct bytes){0};
    return true;
}

bool blob_room(const char *folder, uint64_t reserve_bytes, size_t size, struct err *err) {
    struct statvfs status;
    if (statvfs(folder, &status) != 0)
        return fail(err, "cannot ask for the free space of", folder);
    uint64_t free_bytes = (uint64_t)status.f_bavail * status.f_frsize;
    if (free_bytes < reserve_bytes || free_bytes - reserve_bytes < size)
        return err_set(err, ERR_NO_SPACE, "%llu bytes are free on the disk of the store; %llu are kept in reserve",
                       (unsigned long long)free_bytes, (unsigned long long)reserve_bytes);
    return true;
}
