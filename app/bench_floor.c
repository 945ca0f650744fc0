#include "app/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PIECES 100

/* Pulmo moves what it received when nothing came for 300 ms: by the second look it has begun. */
#define REST_LOOK_MS 250
#define REST_LOOKS 3 /* in a row, in which a sync of the file system has next to nothing to do */
#define REST_SYNC_MAX_S 0.02
#define REST_MAX_S 10

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void descriptor_close_at(int *descriptor) {
    if (*descriptor >= 0)
        close(*descriptor);
}

static bool fail(struct err *err, const char *path) {
    return err_set(err, errno == ENOSPC ? ERR_NO_SPACE : ERR_IO, "floor of the disk, %s: %s", path, strerror(errno));
}

static bool file_write(const char *path, const uint8_t *data, size_t size) {
    PULMO_SCOPED(descriptor_close_at) int descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    return descriptor >= 0 && bytes_write_all(descriptor, data, size) && fsync(descriptor) == 0;
}

static bool measure_files(const char *folder, const uint8_t *data, size_t size, double *out, struct err *err) {
    char temporary[4096], path[4096];
    double spent_s = 0;
    PULMO_SCOPED(descriptor_close_at) int descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0)
        return fail(err, folder);
    snprintf(temporary, sizeof temporary, "%s/floor.new", folder);
    for (int index = 0; index < PIECES; index++) {
        snprintf(path, sizeof path, "%s/floor.%d", folder, index);
        double began_s = now_s();
        if (!file_write(temporary, data, size) || rename(temporary, path) != 0 || fsync(descriptor) != 0)
            return fail(err, path);
        spent_s += now_s() - began_s;
    }
    for (int index = 0; index < PIECES; index++) {
        snprintf(path, sizeof path, "%s/floor.%d", folder, index);
        unlink(path);
    }
    *out = PIECES / spent_s;
    return true;
}

static bool pieces_write(int descriptor, const uint8_t *data, size_t size, bool sync) {
    for (int index = 0; index < PIECES; index++)
        if (lseek(descriptor, (off_t)size * index, SEEK_SET) < 0 || !bytes_write_all(descriptor, data, size) ||
            (sync && fdatasync(descriptor) != 0))
            return false;
    return fsync(descriptor) == 0;
}

static bool measure_segment(const char *folder, const uint8_t *data, size_t size, double *out, struct err *err) {
    char path[4096];
    snprintf(path, sizeof path, "%s/floor.segment", folder);
    PULMO_SCOPED(descriptor_close_at) int descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (descriptor < 0 || !pieces_write(descriptor, data, size, false))
        return fail(err, path);
    double began_s = now_s();
    bool good = pieces_write(descriptor, data, size, true);
    *out = PIECES / (now_s() - began_s);
    unlink(path);
    return good || fail(err, path);
}

bool bench_floor_measure(const char *folder, size_t size, struct bench_floor *out, struct err *err) {
    PULMO_SCOPED(pulmo_free_at) uint8_t *data = pulmo_alloc(size, 1, err);
    if (!data)
        return false;
    memset(data, 0x5a, size);
    return measure_files(folder, data, size, &out->files_s, err) &&
           measure_segment(folder, data, size, &out->segment_s, err);
}

void bench_disk_rest(const char *folder) {
    PULMO_SCOPED(descriptor_close_at) int descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    double began_s = now_s();
    for (int looks = 0; descriptor >= 0 && looks < REST_LOOKS && now_s() - began_s < REST_MAX_S;) {
        nanosleep(&(struct timespec){.tv_nsec = REST_LOOK_MS * 1000000L}, NULL);
        double sync_s = now_s();
        bool synced = syncfs(descriptor) == 0;
        looks = synced && now_s() - sync_s < REST_SYNC_MAX_S ? looks + 1 : 0;
    }
}
