#include "store/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "store/contents.h"
#include "store/recover.h"

#define RESULTS_SHARE 4                 /* of the reserve of reception */
#define SMALL_BYTES ((uint64_t)1 << 20) /* a signed report, say */
#define FULL_BYTES ((uint64_t)4 << 20)  /* less is free: the reserve is given up */
#define PATH_SIZE 4096

static void descriptor_close_at(int *descriptor) {
    if (*descriptor >= 0)
        close(*descriptor);
}

static bool fail(struct err *err, const char *what, const char *path) {
    enum err_kind kind = errno == ENOSPC || errno == EDQUOT ? ERR_NO_SPACE : ERR_IO;
    return err_set(err, kind, "%s %s: %s", what, path, strerror(errno));
}

bool disk_free(const char *folder, uint64_t *free_bytes, bool *read_only, struct err *err) {
    struct statvfs status;
    if (statvfs(folder, &status) != 0)
        return fail(err, "cannot ask for the free space of", folder);
    *free_bytes = (uint64_t)status.f_bavail * status.f_frsize;
    *read_only = (status.f_flag & ST_RDONLY) != 0;
    return true;
}

bool disk_room_for_results(const struct store *store, uint64_t size, struct err *err) {
    uint64_t free_bytes = 0, kept = store->config.disk_reserve_bytes / RESULTS_SHARE;
    bool read_only = false;
    if (size <= SMALL_BYTES)
        return true;
    if (!disk_free(store->config.folder, &free_bytes, &read_only, err))
        return false;
    if (free_bytes >= kept && free_bytes - kept >= size)
        return true;
    return err_set(err, ERR_NO_SPACE, "the disk has %llu MiB left: results of %llu MiB wait until there is room",
                   (unsigned long long)free_bytes >> 20, (unsigned long long)size >> 20);
}

/* ---- the reserve ------------------------------------------------------------------------------------- */

/* Under a name of its own until it has all its room: a reserve is whole or not there. */
static bool reserve_make(const char *path, struct err *err) {
    char fresh[PATH_SIZE];
    snprintf(fresh, sizeof fresh, "%s.new", path);
    PULMO_SCOPED(descriptor_close_at) int file = open(fresh, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (file < 0)
        return fail(err, "cannot make", fresh);
    int status = posix_fallocate(file, 0, DISK_RESERVE_BYTES); /* writes zeros where the file system cannot allocate */
    if (status == 0 && rename(fresh, path) == 0)
        return true;
    errno = status ? status : errno;
    fail(err, "cannot make", fresh);
    unlink(fresh);
    return false;
}

bool store_tend(const struct store_config *config, struct store_tended *out, struct err *err) {
    char path[PATH_SIZE];
    uint64_t free_bytes = 0;
    bool read_only = false;
    struct stat status;
    if (!disk_free(config->folder, &free_bytes, &read_only, err))
        return false;
    *out = (struct store_tended){.free_bytes = free_bytes, .database_suspect = recover_is_suspect(config->folder)};
    snprintf(path, sizeof path, "%s/%s", config->folder, DISK_RESERVE_NAME);
    bool there = lstat(path, &status) == 0;
    if (there && free_bytes < FULL_BYTES) {
        if (unlink(path) != 0)
            return fail(err, "cannot give up", path);
        out->reserve_given_up = true;
    } else if (!there && !read_only && free_bytes >= config->disk_reserve_bytes + (uint64_t)DISK_RESERVE_BYTES) {
        if (!reserve_make(path, err))
            return false;
        out->reserve_made = true;
    }
    return true;
}

/* ---- health ------------------------------------------------------------------------------------------ */

static void problem_add(struct store_health *health, const char *code, const char *text) {
    if (health->problem_count == STORE_PROBLEMS_MAX)
        return;
    struct store_problem *problem = &health->problems[health->problem_count++];
    snprintf(problem->code, sizeof problem->code, "%s", code);
    snprintf(problem->text, sizeof problem->text, "%s", text);
}

#define SEE_KERNEL "See the kernel's log for errors of the disk; all goes on by itself when it takes writes again."

static void check_room(struct store *store, struct store_health *health) {
    char path[PATH_SIZE], text[STORE_PROBLEM_SIZE];
    struct stat status;
    uint64_t reserve = store->config.disk_reserve_bytes;
    unsigned long long free_mib = health->free_bytes >> 20, reserve_mib = reserve >> 20;
    static const char make_room[] = "Make room on the disk that holds data_folder; all goes on by itself then.";
    snprintf(path, sizeof path, "%s/%s", store->config.folder, DISK_RESERVE_NAME);
    if (health->free_bytes < FULL_BYTES) {
        snprintf(text, sizeof text,
                 "The disk is full (%llu MiB free%s). Nothing is received and no result is written. %s", free_mib,
                 lstat(path, &status) == 0 ? "" : "; the reserve is given up", make_room);
        problem_add(health, "DISK_FULL", text);
    } else if (health->free_bytes < reserve / RESULTS_SHARE) {
        snprintf(text, sizeof text, "The disk has %llu MiB left. Nothing is received, and results wait. %s", free_mib,
                 make_room);
        problem_add(health, "DISK_LOW", text);
    } else if (health->free_bytes < reserve) {
        snprintf(text, sizeof text, "The disk has %llu MiB left. Nothing is received below %llu MiB. %s", free_mib,
                 reserve_mib, make_room);
        problem_add(health, "DISK_LOW", text);
    }
}

/* A byte, written and synced: the only way to learn that a disk takes no more. */
static void check_write(struct store *store, struct store_health *health) {
    char path[PATH_SIZE], text[STORE_PROBLEM_SIZE];
    snprintf(path, sizeof path, "%s/probe", store->config.folder);
    PULMO_SCOPED(descriptor_close_at) int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
    if (file >= 0 && pwrite(file, "\n", 1, 0) == 1 && fsync(file) == 0)
        return;
    if (errno == ENOSPC || errno == EDQUOT) /* check_room has said so, unless the quota is another's */
        return;
    snprintf(text, sizeof text, "The disk takes no writes (%s). Nothing is received, no result is written. " SEE_KERNEL,
             strerror(errno));
    problem_add(health, errno == EROFS ? "DISK_READ_ONLY" : "DISK_FAILS", text);
}

static void check_contents(struct store *store, struct store_health *health) {
    int64_t count = 0;
    struct err err = {0};
    char text[STORE_PROBLEM_SIZE];
    if (!contents_count_damaged(store, &count, &err)) {
        problem_add(health, "DATABASE_FAILS", err.text);
    } else if (count) {
        snprintf(text, sizeof text,
                 "%lld stored contents are not what was stored. Their studies have failed and name them: send these"
                 " again, then `pulmo requeue`.",
                 (long long)count);
        problem_add(health, "CONTENT_DAMAGED", text);
    }
}

bool store_health(struct store *store, struct store_health *out, struct err *err) {
    struct store_health health = {0};
    bool read_only = false;
    if (!disk_free(store->config.folder, &health.free_bytes, &read_only, err))
        return false;
    check_room(store, &health);
    if (read_only)
        problem_add(&health, "DISK_READ_ONLY",
                    "The disk is read only. Nothing is received, no result is written. " SEE_KERNEL);
    else
        check_write(store, &health);
    recover_check_lock(store, &health);
    check_contents(store, &health);
    *out = health;
    return true;
}
