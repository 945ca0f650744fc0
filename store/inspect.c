/* A look at a store from outside: read only, so that what is wrong with it stays as it is for those who mend it. */
#include "store/audit.h"
#include "store/backup.h"
#include "store/blob.h"
#include "store/journal.h"
#include "store/migrate.h"
#include "store/model.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool read_integrity(struct store *database, struct store_inspection *out, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(database, "PRAGMA integrity_check(1)", SQL_NO_VALUES, err);
    bool row = false;
    if (!statement || !sql_step(database, statement, &row, err) || !row)
        return false;
    sql_column_text(statement, 0, out->integrity, sizeof out->integrity);
    return true;
}

static bool read_numbers(struct store *database, struct store_inspection *out, struct err *err) {
    return sql_integer(database, "SELECT count(*) FROM job WHERE state = 'dead'", SQL_NO_VALUES, &out->jobs_dead,
                       err) &&
           sql_integer(database, "SELECT count(*) FROM outbox WHERE state = 'dead'", SQL_NO_VALUES, &out->outbox_dead,
                       err) &&
           sql_integer(database, "SELECT count(*) FROM outbox WHERE state IN ('queued', 'leased')", SQL_NO_VALUES,
                       &out->outbox_waiting, err) &&
           sql_integer(database, "SELECT count(*) FROM user WHERE role = 'administrator' AND disabled = 0",
                       SQL_NO_VALUES, &out->administrators, err) &&
           sql_integer(database,
                       "SELECT json_extract(content, '$.time_ms') FROM audit WHERE id = (SELECT max(id) FROM audit)",
                       SQL_NO_VALUES, &out->last_audit_ms, err);
}

static void read_content(struct store *database, bool journal, const char *sha256, int64_t size,
                         struct store_inspection *out) {
    PULMO_SCOPED(bytes_free) struct bytes content = {0};
    struct err why = {0};
    out->contents++;
    if (journal ? journal_read(database, sha256, size, &content, &why)
                : blob_read(database->config.folder, sha256, size, &content, &why))
        return;
    if (!out->contents_bad++)
        snprintf(out->content_fault, sizeof out->content_fault, "%s", why.text);
}

/* Images and results of the studies that came last. */
#define NEWEST_CONTENTS(kept)                                                              \
    "WITH newest AS (SELECT study_uid FROM study ORDER BY last_received_ms DESC LIMIT ?1)" \
    " SELECT blob_sha256, blob_size FROM instance WHERE study_uid IN newest" kept          \
    " UNION SELECT blob_sha256, blob_size FROM artifact WHERE result_id IN"                \
    " (SELECT id FROM result WHERE study_uid IN newest)"                                   \
    " UNION SELECT blob_sha256, blob_size FROM study_artifact WHERE study_uid IN newest"

static bool read_contents(struct store *database, int64_t studies, struct store_inspection *out, struct err *err) {
    static const char all[] = NEWEST_CONTENTS(""), kept[] = NEWEST_CONTENTS(" AND purged_ms IS NULL");
    bool purges = false, journal = false;
    if (!backup_knows_purges(database, &purges, err) || !backup_knows_journal(database, &journal, err))
        return false;
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(database, purges ? kept : all, SQL_VALUES(sql_int(studies)), err);
    for (bool row = true; statement;) {
        char sha256[DIGEST_HEX_SIZE];
        if (!sql_step(database, statement, &row, err))
            return false;
        if (!row)
            return true;
        sql_column_text(statement, 0, sha256, sizeof sha256);
        read_content(database, journal, sha256, sqlite3_column_int64(statement, 1), out);
    }
    return false;
}

/* Models are few, and a result of any age may need one: all their files are read. */
static bool read_models(struct store *database, struct store_inspection *out, struct err *err) {
    bool models = false;
    if (!backup_knows_models(database, &models, err))
        return false;
    if (!models)
        return true;
    if (!store_model_active(database, out->active_model, err) ||
        !sql_integer(database, "SELECT count(*) FROM model", SQL_NO_VALUES, &out->models, err))
        return false;
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement =
        sql_prepare(database, "SELECT DISTINCT blob_sha256, blob_size FROM model_file ORDER BY 1", SQL_NO_VALUES, err);
    for (bool row = true; statement;) {
        char sha256[DIGEST_HEX_SIZE];
        if (!sql_step(database, statement, &row, err))
            return false;
        if (!row)
            return true;
        sql_column_text(statement, 0, sha256, sizeof sha256);
        read_content(database, false, sha256, sqlite3_column_int64(statement, 1), out);
    }
    return false;
}

bool store_inspect_model(const char *folder, const char *sha256, struct model_files *out, struct err *err) {
    char path[BACKUP_PATH_SIZE];
    if (!backup_path(folder, "pulmo.db", path, err))
        return false;
    PULMO_SCOPED(store_close_at) struct store *database = backup_database_open(path, SQLITE_OPEN_READONLY, err);
    return database && store_model_read(database, sha256, out, err);
}

bool store_inspect(const char *folder, int64_t studies, struct store_inspection *out, struct err *err) {
    struct store_inspection inspection = {.version_known = migrate_embedded.count};
    char path[BACKUP_PATH_SIZE];
    if (!backup_path(folder, "pulmo.db", path, err))
        return false;
    inspection.found = access(path, F_OK) == 0;
    if (!inspection.found && errno == ENOENT) {
        *out = inspection;
        return true;
    }
    PULMO_SCOPED(store_close_at) struct store *database = backup_database_open(path, SQLITE_OPEN_READONLY, err);
    if (!database || !sql_integer(database, "PRAGMA user_version", SQL_NO_VALUES, &inspection.version, err) ||
        !read_integrity(database, &inspection, err) || !read_numbers(database, &inspection, err) ||
        !audit_verify(database, NULL, &inspection.audit, err) || !read_contents(database, studies, &inspection, err) ||
        !read_models(database, &inspection, err))
        return false;
    *out = inspection;
    return true;
}
