#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "store/backup.h"
#include "store/blob.h"
#include "store/destination.h"
#include "store/handle.h"
#include "store/holder.h"
#include "store/migrate.h"
#include "store/recover.h"

#define BUSY_TIMEOUT_MS 8000
#define BUSY_SHORT_MS 500
#define BUSY_AGAIN_MS 10000

bool store_random_hex(size_t count, char *out, struct err *err) {
    unsigned char raw[64];
    if (count > sizeof raw || getrandom(raw, count, 0) != (ssize_t)count)
        return err_set(err, ERR_INTERNAL, "no random bytes: %s", strerror(errno));
    for (size_t index = 0; index < count; index++)
        snprintf(out + 2 * index, 3, "%02x", raw[index]);
    return true;
}

int64_t store_backoff_ms(uint32_t attempt, int64_t first_ms, int64_t max_ms) {
    int64_t wait_ms = first_ms;
    for (uint32_t index = 1; index < attempt && wait_ms < max_ms; index++)
        wait_ms *= 2;
    return wait_ms < max_ms ? wait_ms : max_ms;
}

/* SQLite's own handler sleeps up to 100 ms; a commit here takes 1 to 3 ms, so a waiting association asks sooner. Who
 * has just waited in vain waits shortly: an association writes several times, and its peer waits for all of them. */
static int busy_wait(void *context, int tries) {
    struct store *store = context;
    int64_t now_ms = pulmo_monotonic_ms();
    if (tries == 0) {
        bool in_vain = store->busy_in_vain_ms && now_ms - store->busy_in_vain_ms < BUSY_AGAIN_MS;
        store->busy_until_ms = now_ms + (in_vain ? BUSY_SHORT_MS : BUSY_TIMEOUT_MS);
    }
    if (now_ms >= store->busy_until_ms) {
        store->busy_in_vain_ms = now_ms;
        return 0;
    }
    int64_t sleep_us = tries < 20 ? 200 : 2000;
    nanosleep(&(struct timespec){.tv_nsec = (long)sleep_us * 1000}, NULL);
    return 1;
}

void store_busy_handler_set(struct store *store) {
    sqlite3_busy_handler(store->database, busy_wait, store);
}

static bool config_check(const struct store_config *config, struct err *err) {
    if (!config->folder || !*config->folder)
        return err_set(err, ERR_CONFIG, "the store has no folder");
    if (config->quiet_ms < 0 || config->lease_ms <= 0 || config->attempts_max < 1)
        return err_set(err, ERR_CONFIG, "store: quiet time, lease and attempts must be positive");
    if (config->password_memory_kib && config->password_memory_kib < 8)
        return err_set(err, ERR_CONFIG, "store: Argon2id needs at least 8 KiB");
    return true;
}

static bool connection_prepare(struct store *store, struct err *err) {
    store_busy_handler_set(store);
    sqlite3_extended_result_codes(store->database, 1);
    sqlite3_db_config(store->database, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(store->database, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    return destination_function_add(store, err) && sql_script(store, "PRAGMA journal_mode = WAL", err) &&
           sql_script(store, "PRAGMA synchronous = FULL", err) && sql_script(store, "PRAGMA foreign_keys = ON", err) &&
           sql_script(store, "PRAGMA cache_size = -8192", err);
}

static bool database_open(struct store *store, struct err *err) {
    char path[4096];
    snprintf(path, sizeof path, "%s/pulmo.db", store->config.folder);
    /* mknod, since closing a descriptor of the file would drop the locks of this process's other handles. Not readable
     * by others: it names patients; SQLite gives its log the same mode. */
    if (mknod(path, S_IFREG | 0640, 0) != 0 && errno != EEXIST)
        return err_set(err, ERR_IO, "cannot make %s: %s", path, strerror(errno));
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX; /* one thread at a time a handle */
    if (sqlite3_open_v2(path, &store->database, flags, NULL) != SQLITE_OK)
        return store->database ? sql_fail(store, "cannot open", err)
                               : err_set(err, ERR_MEMORY, "out of memory for a database connection");
    return connection_prepare(store, err);
}

/* UUID as decimal below 2.25 would need 128-bit printing: two halves of a random number, PS3.5 B.2. */
static bool device_uid_make(char out[DICOM_UID_SIZE], struct err *err) {
    uint8_t raw[16];
    if (getrandom(raw, sizeof raw, 0) != (ssize_t)sizeof raw)
        return err_set(err, ERR_INTERNAL, "no random bytes: %s", strerror(errno));
    raw[6] = (uint8_t)((raw[6] & 0x0f) | 0x40); /* version 4, variant 1: RFC 9562 */
    raw[8] = (uint8_t)((raw[8] & 0x3f) | 0x80);
    char digits[40];
    size_t count = 0;
    for (bool more = true; more;) { /* long division of the big-endian number by ten */
        unsigned rest = 0;
        more = false;
        for (size_t index = 0; index < sizeof raw; index++) {
            unsigned value = rest * 256 + raw[index];
            raw[index] = (uint8_t)(value / 10);
            rest = value % 10;
            more = more || raw[index];
        }
        digits[count++] = (char)('0' + rest);
    }
    memcpy(out, "2.25.", 5);
    for (size_t index = 0; index < count; index++)
        out[5 + index] = digits[count - 1 - index];
    out[5 + count] = '\0';
    return true;
}

static bool device_uid_keep(struct store *store, struct err *err) {
    char uid[DICOM_UID_SIZE];
    return device_uid_make(uid, err) &&
           sql_run(store, "INSERT INTO meta (key, value) VALUES ('device_uid', ?1) ON CONFLICT DO NOTHING",
                   SQL_VALUES(sql_text(uid)), err);
}

static void descriptor_close_at(int *descriptor) {
    if (*descriptor >= 0)
        close(*descriptor);
}

int store_open_lock(const char *folder, struct err *err) {
    char path[4096];
    snprintf(path, sizeof path, "%s/open.lock", folder);
    int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (lock < 0) {
        err_set(err, errno == ENOSPC ? ERR_NO_SPACE : ERR_IO, "cannot open %s: %s", path, strerror(errno));
        return -1;
    }
    while (flock(lock, LOCK_EX) != 0)
        if (errno != EINTR) {
            err_set(err, ERR_IO, "cannot lock %s: %s", path, strerror(errno));
            close(lock);
            return -1;
        }
    return lock;
}

/* Two processes that start together must not both create, migrate or switch to WAL: one after the other. */
static bool open_locked(struct store *store, struct err *err) {
    PULMO_SCOPED(descriptor_close_at) int lock = store_open_lock(store->config.folder, err);
    if (lock < 0 || !recover_permit(store->config.folder, err))
        return false;
    return blob_folders_make(store->config.folder, err) && holder_folder_make(store->config.folder, err) &&
           database_open(store, err) && migrate_run(store, &migrate_embedded, err) && device_uid_keep(store, err) &&
           blob_folder_sync(store->config.folder, err);
}

/* Half a restored store would look like a new one. */
static bool restore_check(const char *folder, struct err *err) {
    char path[BACKUP_PATH_SIZE];
    if (!backup_path(folder, BACKUP_RESTORING, path, err))
        return false;
    return access(path, F_OK) != 0 ||
           err_set(err, ERR_CONFIG, "a restore into %s did not finish: empty the folder and restore again", folder);
}

static bool folder_make(const char *folder, struct err *err) {
    char parent[4096];
    if (mkdir(folder, 0750) != 0)
        return errno == EEXIST || err_set(err, ERR_IO, "cannot make the folder %s: %s", folder, strerror(errno));
    snprintf(parent, sizeof parent, "%s/..", folder);
    return blob_folder_sync(parent, err);
}

struct store *store_open(const struct store_config *config, struct err *err) {
    if (!config_check(config, err))
        return NULL;
    PULMO_SCOPED(store_close_at) struct store *store = pulmo_alloc(1, sizeof *store, err);
    if (!store)
        return NULL;
    store->watch = -1;
    store->journal_own_after = -1;
    snprintf(store->confirming, sizeof store->confirming, "[]");
    store->holder_file = -1;
    store->config = *config;
    char *folder = strdup(config->folder);
    store->config.folder = folder;
    if (!folder) {
        err_set(err, ERR_MEMORY, "out of memory for the store's folder");
        return NULL;
    }
    if (!folder_make(folder, err) || !restore_check(folder, err) || !open_locked(store, err))
        return NULL;
    struct store *opened = store;
    store = NULL;
    return opened;
}

void store_close(struct store *store) {
    if (!store)
        return;
    for (size_t index = 0; index < store->statement_count; index++)
        sqlite3_finalize(store->statements[index].statement);
    sqlite3_close(store->database);
    holder_end(store);
    if (store->watch >= 0)
        close(store->watch);
    char *folder = (char *)(uintptr_t)store->config.folder; /* ours: strdup in store_open */
    free(folder);
    free(store);
}

void store_close_at(struct store **store) {
    store_close(*store);
}

void store_set_pixel_digest(struct store *store, store_pixel_digest *digest) {
    store->pixel_digest = digest;
}

bool store_device_uid(struct store *store, char out[DICOM_UID_SIZE], struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(store, "SELECT value FROM meta WHERE key = 'device_uid'", SQL_NO_VALUES, err);
    bool row = false;
    if (!statement || !sql_step(store, statement, &row, err))
        return false;
    if (!row)
        return err_set(err, ERR_INTERNAL, "the store has no device UID");
    sql_column_text(statement, 0, out, DICOM_UID_SIZE);
    return true;
}

bool store_counts(struct store *store, struct store_counts *out, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(store,
                                          "SELECT (SELECT count(*) FROM study),"
                                          " (SELECT count(*) FROM instance WHERE current = 1),"
                                          " (SELECT count(*) FROM job WHERE state IN ('queued', 'leased')),"
                                          " (SELECT count(*) FROM job WHERE state = 'dead'),"
                                          " (SELECT count(*) FROM outbox WHERE state IN ('queued', 'leased')),"
                                          " (SELECT count(*) FROM outbox WHERE state = 'dead'),"
                                          " (SELECT count(*) FROM result)",
                                          SQL_NO_VALUES, err);
    bool row = false;
    if (!statement || !sql_step(store, statement, &row, err))
        return false;
    *out = (struct store_counts){
        .studies = sqlite3_column_int64(statement, 0),
        .instances = sqlite3_column_int64(statement, 1),
        .jobs_queued = sqlite3_column_int64(statement, 2),
        .jobs_dead = sqlite3_column_int64(statement, 3),
        .outbox_waiting = sqlite3_column_int64(statement, 4),
        .outbox_dead = sqlite3_column_int64(statement, 5),
        .results = sqlite3_column_int64(statement, 6),
    };
    return true;
}
