#include "store/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "store/blob.h"

#define FILL_SIZE ((size_t)1 << 20)

static void descriptor_close_at(int *descriptor) {
    if (*descriptor >= 0)
        close(*descriptor);
}

static bool fail(struct err *err, const char *what, const char *path) {
    enum err_kind kind = errno == ENOSPC || errno == EDQUOT ? ERR_NO_SPACE : errno == ENOENT ? ERR_NOT_FOUND : ERR_IO;
    return err_set(err, kind, "cannot %s %s: %s", what, path, strerror(errno));
}

bool segment_folder_make(const char *folder, struct err *err) {
    char path[SEGMENT_PATH_SIZE];
    int length = snprintf(path, sizeof path, "%s/journal", folder);
    if (length < 0 || (size_t)length >= sizeof path)
        return err_set(err, ERR_LIMIT, "path too long: %s", folder);
    if (mkdir(path, 0750) != 0)
        return errno == EEXIST || fail(err, "make", path);
    return blob_folder_sync(folder, err);
}

bool segment_path(const char *folder, int64_t number, char out[SEGMENT_PATH_SIZE], struct err *err) {
    int length = snprintf(out, SEGMENT_PATH_SIZE, "%s/journal/%03lld.seg", folder, (long long)number);
    if (length < 0 || length >= SEGMENT_PATH_SIZE)
        return err_set(err, ERR_LIMIT, "path too long: %s", folder);
    return true;
}

static bool write_at(int descriptor, uint64_t position, struct iovec *parts, int count) {
    while (count > 0) {
        ssize_t done = pwritev(descriptor, parts, count, (off_t)position);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return false;
        position += (uint64_t)done;
        for (size_t left = (size_t)done; count > 0; parts++, count--) {
            if (left < parts->iov_len) {
                parts->iov_base = (uint8_t *)parts->iov_base + left;
                parts->iov_len -= left;
                break;
            }
            left -= parts->iov_len;
        }
    }
    return true;
}

static bool fill(int descriptor, const char *path, uint64_t size, struct err *err) {
    PULMO_SCOPED(pulmo_free_at) uint8_t *zeros = pulmo_alloc(FILL_SIZE, 1, err);
    if (!zeros)
        return false;
    for (uint64_t position = 0; position < size; position += FILL_SIZE) {
        struct iovec part = {zeros, size - position < FILL_SIZE ? (size_t)(size - position) : FILL_SIZE};
        if (!write_at(descriptor, position, &part, 1))
            return fail(err, "fill", path);
    }
    return fsync(descriptor) == 0 || fail(err, "sync", path);
}

/* Filled under another name, so that one of the right size is a whole one. */
static bool segment_make(const char *folder, const char *path, uint64_t size, struct err *err) {
    char temporary[SEGMENT_PATH_SIZE];
    int length = snprintf(temporary, sizeof temporary, "%s/journal/new", folder);
    if (length < 0 || (size_t)length >= sizeof temporary)
        return err_set(err, ERR_LIMIT, "path too long: %s", folder);
    PULMO_SCOPED(descriptor_close_at)
    int descriptor = open(temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (descriptor < 0)
        return fail(err, "make", temporary);
    if (!fill(descriptor, temporary, size, err)) {
        unlink(temporary);
        return false;
    }
    if (rename(temporary, path) != 0)
        return fail(err, "rename to", path);
    *strrchr(temporary, '/') = '\0';
    return blob_folder_sync(temporary, err);
}

int segment_open(const char *folder, int64_t number, uint64_t size, struct err *err) {
    char path[SEGMENT_PATH_SIZE];
    struct stat status;
    if (!segment_path(folder, number, path, err))
        return -1;
    bool whole = stat(path, &status) == 0 && status.st_size >= 0 && (uint64_t)status.st_size == size;
    if (!whole && !segment_make(folder, path, size, err))
        return -1;
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    if (descriptor < 0)
        fail(err, "open", path);
    return descriptor;
}

uint64_t segment_room(size_t size) {
    return ((uint64_t)size + SEGMENT_PAGE - 1) / SEGMENT_PAGE * SEGMENT_PAGE;
}

bool segment_write(int descriptor, uint64_t position, const struct segment_piece *pieces, size_t count,
                   struct err *err) {
    static const uint8_t zeros[SEGMENT_PAGE];
    struct iovec parts[2 * SEGMENT_PIECES_MAX];
    uint64_t room = 0;
    for (size_t index = 0; index < count && index < SEGMENT_PIECES_MAX; index++) {
        const struct segment_piece *piece = &pieces[index];
        parts[2 * index] = (struct iovec){(void *)(uintptr_t)piece->data, piece->size};
        parts[2 * index + 1] =
            (struct iovec){(void *)(uintptr_t)zeros, (size_t)(segment_room(piece->size) - piece->size)};
        room += segment_room(piece->size);
    }
    if (!write_at(descriptor, position, parts, 2 * (int)count))
        return err_set(err, errno == ENOSPC || errno == EDQUOT ? ERR_NO_SPACE : ERR_IO, "cannot write the journal: %s",
                       strerror(errno));
    /* Only a hint: while the disk works, the caller goes on. The sync is what counts. */
    (void)sync_file_range(descriptor, (off_t)position, (off_t)room, SYNC_FILE_RANGE_WRITE);
    return true;
}

int segment_look(const char *folder, int64_t number, struct err *err) {
    char path[SEGMENT_PATH_SIZE];
    if (!segment_path(folder, number, path, err))
        return -1;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        fail(err, "open", path);
    return descriptor;
}

bool segment_read_at(int descriptor, uint64_t position, size_t size, void *out, size_t *got, struct err *err) {
    for (*got = 0; *got < size;) {
        ssize_t more = pread(descriptor, (uint8_t *)out + *got, size - *got, (off_t)(position + *got));
        if (more < 0 && errno == EINTR)
            continue;
        if (more < 0)
            return err_set(err, ERR_IO, "cannot read the journal: %s", strerror(errno));
        if (more == 0)
            return true;
        *got += (size_t)more;
    }
    return true;
}

bool segment_read(const char *folder, int64_t number, uint64_t position, size_t size, void *out, struct err *err) {
    size_t got = 0;
    PULMO_SCOPED(descriptor_close_at) int descriptor = segment_look(folder, number, err);
    if (descriptor < 0 || !segment_read_at(descriptor, position, size, out, &got, err))
        return false;
    return got == size ||
           err_set(err, ERR_CONFLICT, "segment %lld of the journal ends before its content does", (long long)number);
}
