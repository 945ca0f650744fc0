#include "store/holder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_SIZE 4096

static void holder_path(const struct store *store, const char *id, char out[PATH_SIZE]) {
    snprintf(out, PATH_SIZE, "%s/holders/%s", store->config.folder, id);
}

bool holder_folder_make(const char *folder, struct err *err) {
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/holders", folder);
    return mkdir(path, 0750) == 0 || errno == EEXIST ||
           err_set(err, ERR_IO, "cannot make the folder %s: %s", path, strerror(errno));
}

/* Nobody holds the lock: the holder ended, or its file is gone. Shared, so that two who ask do not see each other. */
static bool is_lost(const struct store *store, const char *id) {
    char path[PATH_SIZE];
    holder_path(store, id, path);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return errno == ENOENT;
    bool lost = flock(file, LOCK_SH | LOCK_NB) == 0;
    close(file);
    return lost;
}

/* Files of those that were killed. Without them their leases are over just the same. */
static void lost_remove(const struct store *store) {
    char path[PATH_SIZE];
    holder_path(store, "", path);
    DIR *folder = opendir(path);
    if (!folder)
        return;
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (strlen(entry->d_name) != STORE_HOLDER_SIZE - 1)
            continue;
        int file = openat(dirfd(folder), entry->d_name, O_RDONLY | O_CLOEXEC);
        if (file >= 0 && flock(file, LOCK_EX | LOCK_NB) == 0)
            unlinkat(dirfd(folder), entry->d_name, 0); /* its maker sees that, see holder_start */
        if (file >= 0)
            close(file);
    }
    closedir(folder);
}

/* Locks a new file; another handle may have removed it between its making and its locking: then once more. */
static bool holder_start(struct store *store, struct err *err) {
    char id[STORE_HOLDER_SIZE], path[PATH_SIZE];
    lost_remove(store);
    for (int tries = 0; tries < 100; tries++) {
        struct stat status;
        if (!store_random_hex((STORE_HOLDER_SIZE - 1) / 2, id, err))
            return false;
        holder_path(store, id, path);
        int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
        if (file < 0)
            return err_set(err, errno == ENOSPC ? ERR_NO_SPACE : ERR_IO, "cannot make %s: %s", path, strerror(errno));
        if (flock(file, LOCK_EX | LOCK_NB) == 0 && fstat(file, &status) == 0 && status.st_nlink > 0) {
            store->holder_file = file;
            memcpy(store->holder, id, sizeof store->holder);
            return true;
        }
        close(file);
    }
    return err_set(err, ERR_BUSY, "cannot lock a file in %s/holders", store->config.folder);
}

bool holder_lease(struct store *store, char out[STORE_LEASE_SIZE], struct err *err) {
    char rest[17];
    if ((store->holder_file < 0 && !holder_start(store, err)) || !store_random_hex(8, rest, err))
        return false;
    snprintf(out, STORE_LEASE_SIZE, "%s%s", store->holder, rest);
    return true;
}

void holder_end(struct store *store) {
    if (store->holder_file < 0)
        return;
    char path[PATH_SIZE];
    holder_path(store, store->holder, path);
    unlink(path);
    close(store->holder_file);
    store->holder_file = -1;
}

/* ---- leases of the lost ------------------------------------------------------------------------------ */

struct leases {
    const char *holders, *expire; /* ?1 now; ?1 holder */
};

static bool lost_find(struct store *store, const char *holders, int64_t now_ms, char id[STORE_HOLDER_SIZE],
                      struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(store, holders, SQL_VALUES(sql_int(now_ms)), err);
    if (!statement)
        return false;
    for (bool row = true; row;) {
        if (!sql_step(store, statement, &row, err))
            return false;
        if (row)
            sql_column_text(statement, 0, id, STORE_HOLDER_SIZE);
        if (row && is_lost(store, id))
            return true;
    }
    id[0] = '\0';
    return true;
}

static bool leases_expire(struct store *store, const struct leases *leases, int64_t now_ms, struct err *err) {
    for (;;) {
        char id[STORE_HOLDER_SIZE] = "";
        if (!lost_find(store, leases->holders, now_ms, id, err))
            return false;
        if (!*id)
            return true;
        if (!sql_run(store, leases->expire, SQL_VALUES(sql_text(id)), err))
            return false;
    }
}

bool holder_expire_jobs(struct store *store, int64_t now_ms, struct err *err) {
    static const struct leases jobs = {
        "SELECT DISTINCT substr(lease, 1, 16) FROM job WHERE state = 'leased' AND leased_until_ms > ?1",
        "UPDATE job SET leased_until_ms = 0 WHERE state = 'leased' AND substr(lease, 1, 16) = ?1"};
    return leases_expire(store, &jobs, now_ms, err);
}

bool holder_expire_outbox(struct store *store, int64_t now_ms, struct err *err) {
    static const struct leases sendings = {
        "SELECT DISTINCT substr(lease, 1, 16) FROM outbox WHERE state = 'leased' AND leased_until_ms > ?1",
        "UPDATE outbox SET leased_until_ms = 0 WHERE state = 'leased' AND substr(lease, 1, 16) = ?1"};
    return leases_expire(store, &sendings, now_ms, err);
}
