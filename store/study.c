#include <stdlib.h>
#include <string.h>

#include "store/blob.h"
#include "store/handle.h"
#include "store/journal.h"

/* A study that still grows may put new contents into the journal behind each checkpoint. */
#define CHECKPOINTS_MAX 8

void store_paths_free(struct store_paths *paths) {
    for (size_t index = 0; index < paths->count; index++)
        free(paths->items[index]);
    free(paths->items);
    *paths = (struct store_paths){0};
}

/* Which versions: their number, and their digests in one order. */
struct paths_sql {
    const char *count, *list;
};
static const struct paths_sql paths_current = {"SELECT count(*) FROM instance WHERE study_uid = ?1 AND current = 1",
                                               "SELECT blob_sha256 FROM instance WHERE study_uid = ?1 AND current = 1"
                                               " ORDER BY series_uid, instance_number, sop_instance_uid"};
static const struct paths_sql paths_all = {"SELECT count(*) FROM instance WHERE study_uid = ?1 AND purged_ms IS NULL",
                                           "SELECT blob_sha256 FROM instance WHERE study_uid = ?1 AND purged_ms IS NULL"
                                           " ORDER BY series_uid, instance_number, sop_instance_uid, blob_sha256"};

/* Of those that are needed for anything. */
static const char *const paths_purged =
    "SELECT count(*) FROM instance WHERE study_uid = ?1 AND current = 1 AND purged_ms IS NOT NULL";

static bool paths_fill(struct store *store, const struct paths_sql *sql, const char *study_uid,
                       struct store_paths *paths, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(store, sql->list, SQL_VALUES(sql_text(study_uid)), err);
    if (!statement)
        return false;
    for (bool row = true; row;) {
        char digest[DIGEST_HEX_SIZE], path[BLOB_PATH_SIZE];
        if (!sql_step(store, statement, &row, err))
            return false;
        if (!row)
            break;
        sql_column_text(statement, 0, digest, sizeof digest);
        if (!blob_path(store->config.folder, digest, path, err))
            return false;
        char *copy = strdup(path);
        if (!copy)
            return err_set(err, ERR_MEMORY, "out of memory for the paths of study %s", study_uid);
        paths->items[paths->count++] = copy;
    }
    return true;
}

/* *waiting = some contents are not in blobs/ yet: nothing is given. Rows and places are of one state of the store. */
static bool paths_try(struct store *store, const struct paths_sql *sql, const char *study_uid, struct store_paths *out,
                      bool *waiting, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    PULMO_SCOPED(store_paths_free) struct store_paths paths = {0};
    int64_t count = 0, purged = 0;
    if (!sql_begin_read(store, &transaction, err) || !journal_holds_study(store, study_uid, waiting, err))
        return false;
    if (*waiting)
        return true;
    if (!sql_integer(store, sql->count, SQL_VALUES(sql_text(study_uid)), &count, err) ||
        !sql_integer(store, paths_purged, SQL_VALUES(sql_text(study_uid)), &purged, err))
        return false;
    if (purged)
        return err_set(err, ERR_NOT_FOUND, "%lld images of study %s were purged: send it again from the PACS",
                       (long long)purged, study_uid);
    if (!count)
        return err_set(err, ERR_NOT_FOUND, "study %s has no instances", study_uid);
    paths.items = pulmo_alloc((size_t)count, sizeof *paths.items, err);
    if (!paths.items || !paths_fill(store, sql, study_uid, &paths, err)) /* one transaction: as many as counted */
        return false;
    *out = paths;
    paths = (struct store_paths){0};
    return true;
}

static bool paths_read(struct store *store, const struct paths_sql *sql, const char *study_uid, struct store_paths *out,
                       struct err *err) {
    for (int tries = 0; tries < CHECKPOINTS_MAX; tries++) {
        bool waiting = false;
        if (!paths_try(store, sql, study_uid, out, &waiting, err))
            return false;
        if (!waiting)
            return true;
        if (!journal_checkpoint_study(store, study_uid, err))
            return false;
    }
    return err_set(err, ERR_BUSY, "study %s is still being received", study_uid);
}

bool store_study_paths(struct store *store, const char *study_uid, struct store_paths *out, struct err *err) {
    return paths_read(store, &paths_current, study_uid, out, err);
}

bool store_study_paths_all(struct store *store, const char *study_uid, struct store_paths *out, struct err *err) {
    return paths_read(store, &paths_all, study_uid, out, err);
}

#define STUDY_COLUMNS                                                                                       \
    "SELECT study_uid, patient_name, patient_id, accession_number, study_date, description, state, reason," \
    " first_received_ms, instances, result_id, findings_reported, probability_max, review,"                 \
    " purged_ms, held_ms, hold_reason, supersedes FROM worklist"

static void study_row(sqlite3_stmt *statement, struct store_study *out) {
    sql_column_text(statement, 0, out->study_uid, sizeof out->study_uid);
    sql_column_text(statement, 1, out->patient_name, sizeof out->patient_name);
    sql_column_text(statement, 2, out->patient_id, sizeof out->patient_id);
    sql_column_text(statement, 3, out->accession_number, sizeof out->accession_number);
    sql_column_text(statement, 4, out->study_date, sizeof out->study_date);
    sql_column_text(statement, 5, out->description, sizeof out->description);
    sql_column_text(statement, 6, out->state, sizeof out->state);
    sql_column_text(statement, 7, out->reason, sizeof out->reason);
    out->received_ms = sqlite3_column_int64(statement, 8);
    out->instances = sqlite3_column_int64(statement, 9);
    out->result_id = sqlite3_column_int64(statement, 10);
    out->findings_reported = (uint32_t)sqlite3_column_int64(statement, 11);
    out->probability_max = sqlite3_column_double(statement, 12);
    out->review = sqlite3_column_int(statement, 13) != 0;
    out->purged_ms = sqlite3_column_int64(statement, 14);
    out->held_ms = sqlite3_column_int64(statement, 15);
    sql_column_text(statement, 16, out->hold_reason, sizeof out->hold_reason);
    out->supersedes = sqlite3_column_int64(statement, 17);
}

bool store_study_get(struct store *store, const char *study_uid, struct store_study *out, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement =
        sql_prepare(store, STUDY_COLUMNS " WHERE study_uid = ?1", SQL_VALUES(sql_text(study_uid)), err);
    bool row = false;
    if (!statement || !sql_step(store, statement, &row, err))
        return false;
    if (!row)
        return err_set(err, ERR_NOT_FOUND, "there is no study %s", study_uid);
    study_row(statement, out);
    return true;
}

#define STUDY_ORDER " ORDER BY state = 'signed', review DESC, probability_max DESC, first_received_ms DESC, study_uid"

/* A study without a current instance (all were conflicts, or moved to another study) has nothing to show. The page is
 * chosen first, so that instances are counted for its rows only. */
bool store_study_list(struct store *store, size_t offset, size_t limit, struct store_study **out, size_t *count,
                      struct err *err) {
    if (limit > 10000)
        return err_set(err, ERR_LIMIT, "at most 10000 studies at once");
    PULMO_SCOPED(pulmo_free_at) struct store_study *studies = pulmo_alloc(limit, sizeof *studies, err);
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(
        store,
        STUDY_COLUMNS " WHERE study_uid IN (SELECT study_uid FROM worklist WHERE EXISTS (SELECT 1 FROM instance"
                      "  WHERE instance.study_uid = worklist.study_uid AND current = 1)" STUDY_ORDER
                      "  LIMIT ?1 OFFSET ?2)" STUDY_ORDER,
        SQL_VALUES(sql_int((int64_t)limit), sql_int((int64_t)offset)), err);
    if (!studies || !statement)
        return false;
    size_t filled = 0;
    for (bool row = true; row && filled < limit;) {
        if (!sql_step(store, statement, &row, err))
            return false;
        if (row)
            study_row(statement, &studies[filled++]);
    }
    *out = studies;
    *count = filled;
    studies = NULL;
    return true;
}
