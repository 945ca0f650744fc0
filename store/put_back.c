/* Back to before an upgrade: the copy that a migration kept (store/migrate.c) becomes the database again.
 *
 * Nothing is thrown away: the newer database stays beside it under another name, and contents are immutable. What was
 * received after the upgrade is only in the newer one, so the caller has to say that he knows. */
#include "store/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "store/audit.h"
#include "store/blob.h"

struct facts {
    int64_t version, instances, results;
};

static bool facts_read(struct store *database, struct facts *out, struct err *err) {
    struct facts facts = {.version = 0};
    if (!sql_integer(database, "PRAGMA user_version", SQL_NO_VALUES, &facts.version, err) ||
        !sql_integer(database, "SELECT count(*) FROM instance", SQL_NO_VALUES, &facts.instances, err) ||
        !sql_integer(database, "SELECT count(*) FROM result", SQL_NO_VALUES, &facts.results, err))
        return false;
    *out = facts;
    return true;
}

/* Leaving WAL needs the database alone: it fails while any process of the appliance is there, and it empties the log.
 */
static bool current_close_log(const char *path, struct facts *out, struct err *err) {
    PULMO_SCOPED(store_close_at) struct store *current = backup_database_open(path, SQLITE_OPEN_READWRITE, err);
    if (!current || !facts_read(current, out, err))
        return false;
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(current, "PRAGMA journal_mode = DELETE", SQL_NO_VALUES, err);
    bool row = false;
    char mode[16] = "";
    struct err why = {0};
    if (statement && sql_step(current, statement, &row, &why) && row)
        sql_column_text(statement, 0, mode, sizeof mode);
    return strcmp(mode, "delete") == 0 ||
           err_set(err, ERR_BUSY, "the store is in use: stop pulmo before its database is put back");
}

static bool copy_check(const char *path, int version, struct facts *out, struct err *err) {
    PULMO_SCOPED(store_close_at) struct store *copy = backup_database_open(path, SQLITE_OPEN_READONLY, err);
    int64_t whole = 0;
    if (!copy || !facts_read(copy, out, err) ||
        !sql_integer(copy, "SELECT integrity_check = 'ok' FROM pragma_integrity_check", SQL_NO_VALUES, &whole, err))
        return false;
    if (out->version != version || !whole)
        return err_set(err, ERR_INPUT, "%s is no whole database of version %d", path, version);
    return true;
}

static bool record(const char *path, const struct facts *current, int version, struct err *err) {
    char detail[128];
    snprintf(detail, sizeof detail, "database put back from version %lld to %d", (long long)current->version, version);
    struct store_audit audit = {
        .code = AUDIT_SECURITY_ALERT, .action = "put-back", .actor = "pulmo restore", .detail = detail};
    PULMO_SCOPED(store_close_at) struct store *copy = backup_database_open(path, SQLITE_OPEN_READWRITE, err);
    return copy && store_audit_append(copy, &audit, err);
}

struct places {
    char current[BACKUP_PATH_SIZE], copy[BACKUP_PATH_SIZE], made[BACKUP_PATH_SIZE], kept[BACKUP_PATH_SIZE];
};

static bool places_find(const char *folder, int version, struct places *out, struct err *err) {
    char name[64];
    snprintf(name, sizeof name, "pulmo.db.v%d", version);
    if (!backup_path(folder, "pulmo.db", out->current, err) || !backup_path(folder, name, out->copy, err) ||
        !backup_path(folder, "tmp/pulmo.db", out->made, err))
        return false;
    if (access(out->copy, R_OK) != 0)
        return err_set(err, ERR_NOT_FOUND, "there is no copy of version %d: %s: %s", version, out->copy,
                       strerror(errno));
    return true;
}

static bool swap(const char *folder, struct places *places, const struct store_put_back_figures *figures,
                 struct err *err) {
    if (!backup_path(folder, figures->kept_as, places->kept, err))
        return false;
    if (link(places->current, places->kept) != 0 || rename(places->made, places->current) != 0)
        return err_set(err, ERR_IO, "cannot put back %s: %s", places->current, strerror(errno));
    return blob_folder_sync(folder, err);
}

static bool put_back(const char *folder, int version, bool discard, struct store_put_back_figures *out,
                     struct err *err) {
    struct places places;
    struct facts current = {0}, copy = {0};
    struct backup_copied copied;
    if (!places_find(folder, version, &places, err) || !copy_check(places.copy, version, &copy, err) ||
        !current_close_log(places.current, &current, err))
        return false;
    if (current.version <= version)
        return err_set(err, ERR_CONFLICT, "the database has version %lld already", (long long)current.version);
    struct store_put_back_figures figures = {.version = current.version,
                                             .instances = current.instances - copy.instances,
                                             .results = current.results - copy.results};
    if ((figures.instances || figures.results) && !discard)
        return err_set(err, ERR_CONFLICT,
                       "%lld instances and %lld results came after the upgrade and would not be in the store any more; "
                       "--discard-newer puts the older database back all the same",
                       (long long)figures.instances, (long long)figures.results);
    snprintf(figures.kept_as, sizeof figures.kept_as, "pulmo.db.v%lld.%lld", (long long)current.version,
             (long long)pulmo_now_ms());
    if (!backup_copy(places.copy, places.made, 0640, &copied, err) || !record(places.made, &current, version, err) ||
        !swap(folder, &places, &figures, err))
        return false;
    *out = figures;
    return true;
}

static void descriptor_close_at(int *descriptor) {
    if (*descriptor >= 0)
        close(*descriptor);
}

bool store_put_back(const char *folder, int version, bool discard, struct store_put_back_figures *out,
                    struct err *err) {
    char path[BACKUP_PATH_SIZE];
    if (!backup_path(folder, "open.lock", path, err))
        return false;
    PULMO_SCOPED(descriptor_close_at) int lock = open(path, O_RDWR | O_CLOEXEC);
    if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB) != 0)
        return err_set(err, lock < 0 ? ERR_NOT_FOUND : ERR_BUSY, "cannot lock %s: %s", path, strerror(errno));
    return put_back(folder, version, discard, out, err);
}
