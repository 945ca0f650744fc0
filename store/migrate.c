#include "store/migrate.h"

#include <stdio.h>
#include <unistd.h>

#include "store/blob.h"
#include "store/handle.h"

static bool version_read(struct store *store, int64_t *version, struct err *err) {
    return sql_integer(store, "PRAGMA user_version", SQL_NO_VALUES, version, err);
}

/* VACUUM INTO is a read of the old database: a crash in it leaves the original as it was and a partial copy, which the
 * next start makes again. */
static bool copy_keep(struct store *store, int64_t version, struct err *err) {
    char path[4096];
    int length = snprintf(path, sizeof path, "%s/pulmo.db.v%lld", store->config.folder, (long long)version);
    if (length < 0 || (size_t)length >= sizeof path)
        return err_set(err, ERR_LIMIT, "path too long: %s", store->config.folder);
    unlink(path);
    return sql_run(store, "VACUUM INTO ?1", SQL_VALUES(sql_text(path)), err) && blob_file_sync(path, err) &&
           blob_folder_sync(store->config.folder, err);
}

static bool references_check(struct store *store, struct err *err) {
    int64_t broken = 0;
    if (!sql_integer(store, "SELECT count(*) FROM pragma_foreign_key_check", SQL_NO_VALUES, &broken, err))
        return false;
    return !broken || err_set(err, ERR_INTERNAL, "%lld rows would refer to nothing", (long long)broken);
}

static bool version_apply(struct store *store, const char *sql, int version, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    char number[64];
    snprintf(number, sizeof number, "PRAGMA user_version = %d", version);
    return sql_begin(store, &transaction, err) && sql_script(store, sql, err) && references_check(store, err) &&
           sql_script(store, number, err) && sql_commit(&transaction, err);
}

/* A table that others refer to is written again under another name and renamed. SQLite lets that be done with the keys
 * off, which a transaction cannot switch (sqlite.org/lang_altertable.html, 7); each version checks them before its
 * commit instead. */
static bool versions_apply(struct store *store, const struct migrate_list *list, int version, struct err *err) {
    bool good = sql_script(store, "PRAGMA foreign_keys = OFF", err);
    for (int next = version + 1; good && next <= list->count; next++)
        good = version_apply(store, list->versions[next - 1], next, err) ||
               err_within(err, "migration to version %d", next);
    struct err off = {0};
    if (!sql_script(store, "PRAGMA foreign_keys = ON", &off))
        return good ? err_set(err, off.kind, "%s", off.text) : false;
    return good;
}

bool migrate_run(struct store *store, const struct migrate_list *list, struct err *err) {
    int64_t version = 0;
    if (!version_read(store, &version, err))
        return false;
    if (version > list->count || version < 0)
        return err_set(err, ERR_CONFIG, "the store in %s has version %lld; this program knows up to %d",
                       store->config.folder, (long long)version, list->count);
    if (version > 0 && version < list->count && !copy_keep(store, version, err))
        return err_within(err, "copy before the migration from version %lld", (long long)version);
    return version == list->count || versions_apply(store, list, (int)version, err);
}
