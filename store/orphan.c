/* Files in blobs/ that no row names: left over from a crash between the file and the commit of its row. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "store/blob.h"
#include "store/handle.h"
#include "store/retention.h"

/* Younger ones may be on their way to their row. Only for economy: a receiver whose file is removed before its commit
 * sees that in the commit's own transaction, and writes it again. */
#define ORPHAN_AGE_S 3600
#define ORPHANS_MAX 64 /* a look; the next one finds the others */

struct orphans {
    char names[ORPHANS_MAX][DIGEST_HEX_SIZE];
    size_t count;
};

static bool is_old(int folder, const char *name, int64_t age_s) {
    struct stat status;
    return fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(status.st_mode) &&
           (int64_t)status.st_mtime + age_s <= (int64_t)time(NULL);
}

static bool is_digest(const char *name) {
    return strlen(name) == DIGEST_HEX_SIZE - 1 && strspn(name, "0123456789abcdef") == DIGEST_HEX_SIZE - 1;
}

/* A look without a lock; what it finds is asked again under it. */
static bool orphans_find(struct store *store, DIR *folder, int64_t age_s, struct orphans *out, struct err *err) {
    for (struct dirent *entry; out->count < ORPHANS_MAX && (entry = readdir(folder));) {
        bool needed = true;
        if (!is_digest(entry->d_name) || !is_old(dirfd(folder), entry->d_name, age_s))
            continue;
        if (!retention_blob_needed(store, entry->d_name, &needed, err))
            return false;
        if (!needed)
            memcpy(out->names[out->count++], entry->d_name, DIGEST_HEX_SIZE);
    }
    return true;
}

static bool orphans_remove(struct store *store, const struct orphans *orphans, int64_t *removed, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    if (!sql_begin(store, &transaction, err))
        return false;
    for (size_t index = 0; index < orphans->count; index++) {
        bool gone = false;
        if (!retention_blob_remove(store, orphans->names[index], &gone, err))
            return false;
        *removed += gone;
    }
    return true; /* nothing was written: leaving the scope ends the transaction */
}

static void folder_close_at(DIR **folder) {
    if (*folder)
        closedir(*folder);
}

bool store_orphans_remove(struct store *store, unsigned part, int64_t age_s, int64_t *removed, struct err *err) {
    PULMO_SCOPED(retention_unlock_at) int lock = -1;
    struct orphans orphans = {.count = 0};
    char path[BLOB_PATH_SIZE];
    *removed = 0;
    int length = snprintf(path, sizeof path, "%s/blobs/%02x", store->config.folder, part & 0xff);
    if (length < 0 || (size_t)length >= sizeof path)
        return err_set(err, ERR_LIMIT, "path too long: %s", store->config.folder);
    PULMO_SCOPED(folder_close_at) DIR *folder = opendir(path);
    if (!folder)
        return err_set(err, ERR_IO, "cannot read %s: %s", path, strerror(errno));
    if (!orphans_find(store, folder, age_s < 0 ? ORPHAN_AGE_S : age_s, &orphans, err))
        return false;
    if (!orphans.count)
        return true;
    if (!retention_lock(store, &lock, err))
        return false;
    return lock < 0 || orphans_remove(store, &orphans, removed, err);
}
