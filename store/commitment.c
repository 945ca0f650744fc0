/* What the PACS is asked to confirm. Due once a signed result is sent as a whole; asked until it is confirmed, with
 * growing pauses. A question has no lease: taking it sets its next time ahead, so that one whose asker was killed is
 * asked again, which changes nothing in the PACS. */
#include "store/commitment.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/audit.h"
#include "store/blob.h"
#include "store/handle.h"
#include "store/outbox.h"

/* A peer that takes objects but is silent when asked is paused for questions alone: results must not wait for it. */
#define QUESTION_PAUSE "asking "

/* One that moved is asked once for all it got, under the name that it has now. */
static bool former_names_drop(struct store *store, int64_t result_id, const char *destination, struct err *err) {
    return sql_run(store,
                   "DELETE FROM confirmation WHERE study_uid = (SELECT study_uid FROM result WHERE id = ?1)"
                   " AND destination <> ?2 AND destination_now(destination) = ?2",
                   SQL_VALUES(sql_int(result_id), sql_text(destination)), err);
}

/* The same state again, sent once more because it was not there, keeps its pause. */
bool commitment_due(struct store *store, int64_t result_id, const char *destination, int64_t now_ms, struct err *err) {
    if (!sql_run(store,
                 "INSERT INTO confirmation (study_uid, destination, study_revision, outbox_id, due_ms)"
                 " SELECT result.study_uid, ?2, result.study_revision, max(outbox.id), ?3"
                 " FROM result JOIN signature ON signature.result_id = result.id"
                 " JOIN outbox ON outbox.result_id = result.id AND destination_now(outbox.destination) = ?2"
                 " WHERE result.id = ?1 AND result.superseded_by IS NULL"
                 " GROUP BY result.id HAVING sum(outbox.state <> 'sent') = 0"
                 " ON CONFLICT DO UPDATE SET state = 'queued', confirmed_ms = NULL,"
                 "  attempt = CASE WHEN outbox_id = excluded.outbox_id THEN attempt ELSE 0 END,"
                 "  due_ms = CASE WHEN outbox_id = excluded.outbox_id THEN due_ms ELSE excluded.due_ms END,"
                 "  study_revision = excluded.study_revision, outbox_id = excluded.outbox_id",
                 SQL_VALUES(sql_int(result_id), sql_text(destination), sql_int(now_ms)), err))
        return false;
    return sql_changes(store) == 0 || former_names_drop(store, result_id, destination, err);
}

/* ?1 now, ?2 longest wait (see STORE_CLOCK_MARGIN_MS), ?3 destinations. */
static bool due_find(struct store *store, int64_t now_ms, struct store_confirmation *out, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(
        store,
        "SELECT study_uid, destination, study_revision, outbox_id, attempt FROM confirmation"
        " WHERE state = 'queued' AND (due_ms <= ?1 OR due_ms > ?1 + ?2)"
        " AND destination_now(destination) IN (SELECT value FROM json_each(?3))"
        " AND NOT EXISTS (SELECT 1 FROM destination_pause AS pause WHERE pause.due_ms > ?1 AND pause.due_ms <= ?1 + ?2"
        "  AND pause.destination IN (destination_now(confirmation.destination),"
        "   '" QUESTION_PAUSE "' || destination_now(confirmation.destination)))"
        " ORDER BY due_ms LIMIT 1",
        SQL_VALUES(sql_int(now_ms), sql_int(STORE_BACKOFF_CONFIRM_MAX_MS + STORE_CLOCK_MARGIN_MS),
                   sql_text(store->confirming)),
        err);
    bool row = false;
    if (!statement || !sql_step(store, statement, &row, err))
        return false;
    *out = (struct store_confirmation){0};
    if (!row)
        return true;
    sql_column_text(statement, 0, out->study_uid, sizeof out->study_uid);
    sql_column_text(statement, 1, out->destination, sizeof out->destination);
    out->study_revision = sqlite3_column_int64(statement, 2);
    out->outbox_id = sqlite3_column_int64(statement, 3);
    out->attempt = (uint32_t)sqlite3_column_int64(statement, 4);
    return true;
}

bool store_confirmation_take(struct store *store, int64_t now_ms, struct store_confirmation *out, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    struct store_confirmation due;
    if (!due_find(store, now_ms, &due, err)) /* a poll that finds nothing takes no write lock */
        return false;
    if (*due.study_uid && (!sql_begin(store, &transaction, err) || !due_find(store, now_ms, &due, err)))
        return false;
    if (!*due.study_uid) {
        *out = due;
        return true;
    }
    due.attempt++;
    if (!sql_run(store, "UPDATE confirmation SET attempt = ?3, due_ms = ?4 WHERE study_uid = ?1 AND destination = ?2",
                 SQL_VALUES(sql_text(due.study_uid), sql_text(due.destination), sql_int(due.attempt),
                            sql_int(now_ms + store->config.lease_ms)),
                 err) ||
        !sql_commit(&transaction, err))
        return false;
    *out = due;
    return true;
}

/* ---- what it is about -------------------------------------------------------------------------------- */

/* First the objects of the result, by their path: only who reads DICOM knows their UIDs. Then the images. */
static const char *const objects_sql =
    "SELECT '', '', '', blob_sha256 FROM artifact JOIN outbox USING (result_id, name) JOIN result ON result.id = "
    "result_id"
    " WHERE result.study_uid = ?1 AND superseded_by IS NULL"
    " AND destination_now(destination) = destination_now(?2) AND outbox.id <= ?3"
    " UNION ALL SELECT sop_class_uid, sop_instance_uid, series_uid, '' FROM instance"
    " WHERE study_uid = ?1 AND current = 1 AND ?4";

static bool objects_count(struct store *store, const struct store_confirmation *confirmation, bool images,
                          int64_t *count, struct err *err) {
    return sql_integer(store,
                       "SELECT (SELECT count(*) FROM outbox JOIN result ON result.id = result_id"
                       "  WHERE result.study_uid = ?1 AND superseded_by IS NULL"
                       "  AND destination_now(destination) = destination_now(?2) AND outbox.id <= ?3)"
                       " + ?4 * (SELECT count(*) FROM instance WHERE study_uid = ?1 AND current = 1)",
                       SQL_VALUES(sql_text(confirmation->study_uid), sql_text(confirmation->destination),
                                  sql_int(confirmation->outbox_id), sql_int(images)),
                       count, err);
}

static bool object_row(struct store *store, sqlite3_stmt *statement, struct store_object *out, struct err *err) {
    char digest[DIGEST_HEX_SIZE], path[BLOB_PATH_SIZE];
    sql_column_text(statement, 0, out->sop_class_uid, sizeof out->sop_class_uid);
    sql_column_text(statement, 1, out->sop_instance_uid, sizeof out->sop_instance_uid);
    sql_column_text(statement, 2, out->series_uid, sizeof out->series_uid);
    sql_column_text(statement, 3, digest, sizeof digest);
    out->is_result = *digest != '\0';
    if (!out->is_result)
        return true;
    if (!blob_path(store->config.folder, digest, path, err))
        return false;
    int length = snprintf(out->path, sizeof out->path, "%s", path);
    return (length > 0 && (size_t)length < sizeof out->path) || err_set(err, ERR_LIMIT, "path too long: %s", path);
}

bool store_confirmation_objects(struct store *store, const struct store_confirmation *confirmation, bool images,
                                struct store_object **out, size_t *count, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    int64_t expected = 0;
    if (!sql_begin_read(store, &transaction, err) || !objects_count(store, confirmation, images, &expected, err))
        return false;
    PULMO_SCOPED(pulmo_free_at) struct store_object *objects = pulmo_alloc((size_t)expected, sizeof *objects, err);
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement =
        sql_prepare(store, objects_sql,
                    SQL_VALUES(sql_text(confirmation->study_uid), sql_text(confirmation->destination),
                               sql_int(confirmation->outbox_id), sql_int(images)),
                    err);
    if (!objects || !statement)
        return false;
    size_t filled = 0;
    for (bool row = true; row && filled < (size_t)expected;) {
        if (!sql_step(store, statement, &row, err) || (row && !object_row(store, statement, &objects[filled], err)))
            return false;
        filled += row;
    }
    *out = objects;
    *count = filled;
    objects = NULL;
    return true;
}

/* ---- answers ----------------------------------------------------------------------------------------- */

static bool confirmation_audit(struct store *store, const struct store_confirmation *confirmation, const char *action,
                               const char *detail, struct err *err) {
    struct store_audit audit = {.code = AUDIT_INSTANCES_TRANSFERRED,
                                .action = action,
                                .actor = store_destination_now(store, confirmation->destination),
                                .study_uid = confirmation->study_uid,
                                .detail = detail,
                                .outcome = strcmp(action, "confirmed") ? AUDIT_MINOR_FAILURE : AUDIT_SUCCESS};
    return audit_add(store, &audit, err);
}

static bool questions_pause(struct store *store, const struct store_confirmation *confirmation, int64_t now_ms,
                            struct err *err) {
    char name[STORE_DESTINATION_SIZE + sizeof QUESTION_PAUSE];
    snprintf(name, sizeof name, QUESTION_PAUSE "%s", store_destination_now(store, confirmation->destination));
    return outbox_pause(store, name, now_ms, err);
}

static bool questions_resume(struct store *store, const struct store_confirmation *confirmation, struct err *err) {
    return sql_run(store,
                   "DELETE FROM destination_pause WHERE destination = '" QUESTION_PAUSE "' || destination_now(?1)",
                   SQL_VALUES(sql_text(confirmation->destination)), err);
}

bool store_confirmation_confirmed(struct store *store, const struct store_confirmation *confirmation, const char *how,
                                  int64_t now_ms, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    if (!sql_begin(store, &transaction, err) ||
        !sql_run(store,
                 "UPDATE confirmation SET state = 'confirmed', confirmed_ms = ?5, reason = NULL WHERE study_uid = ?1"
                 " AND destination = ?2 AND study_revision = ?3 AND outbox_id = ?4 AND state = 'queued'",
                 SQL_VALUES(sql_text(confirmation->study_uid), sql_text(confirmation->destination),
                            sql_int(confirmation->study_revision), sql_int(confirmation->outbox_id), sql_int(now_ms)),
                 err))
        return false;
    if (sql_changes(store) == 0) /* of a state that is over: the present one is asked for by itself */
        return true;
    return sql_run(store, "DELETE FROM commitment WHERE study_uid = ?1 AND destination = ?2",
                   SQL_VALUES(sql_text(confirmation->study_uid), sql_text(confirmation->destination)), err) &&
           questions_resume(store, confirmation, err) &&
           confirmation_audit(store, confirmation, "confirmed", how, err) && sql_commit(&transaction, err);
}

/* What the peer has not got although it said that it stored it: sent again. */
static bool resend(struct store *store, const struct store_confirmation *confirmation, int64_t now_ms,
                   struct err *err) {
    return sql_run(store,
                   "UPDATE outbox SET state = 'queued', attempt = 0, refusals = 0, due_ms = ?3 WHERE state = 'sent'"
                   " AND destination_now(destination) = destination_now(?2) AND result_id IN (SELECT id FROM result "
                   "WHERE study_uid = ?1"
                   "  AND superseded_by IS NULL)",
                   SQL_VALUES(sql_text(confirmation->study_uid), sql_text(confirmation->destination), sql_int(now_ms)),
                   err);
}

bool store_confirmation_failed(struct store *store, const struct store_confirmation *confirmation,
                               const struct store_denial *denial, int64_t now_ms, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    int64_t first_ms = denial->transient ? STORE_BACKOFF_FIRST_MS : STORE_BACKOFF_REFUSED_MS;
    int64_t max_ms = denial->transient ? STORE_BACKOFF_OUTBOX_MAX_MS : STORE_BACKOFF_CONFIRM_MAX_MS;
    int64_t due_ms = now_ms + store_backoff_ms(confirmation->attempt, first_ms, max_ms);
    if (!sql_begin(store, &transaction, err) ||
        !sql_run(store,
                 "UPDATE confirmation SET due_ms = ?5, reason = ?6 WHERE study_uid = ?1 AND destination = ?2"
                 " AND study_revision = ?3 AND outbox_id = ?4 AND state = 'queued'",
                 SQL_VALUES(sql_text(confirmation->study_uid), sql_text(confirmation->destination),
                            sql_int(confirmation->study_revision), sql_int(confirmation->outbox_id), sql_int(due_ms),
                            sql_text(denial->why)),
                 err))
        return false;
    if (sql_changes(store) == 0)
        return true;
    return (denial->transient ? questions_pause(store, confirmation, now_ms, err)
                              : questions_resume(store, confirmation, err)) &&
           (!denial->result_missing || resend(store, confirmation, now_ms, err)) &&
           (denial->transient || confirmation_audit(store, confirmation, "not-confirmed", denial->why, err)) &&
           sql_commit(&transaction, err);
}

/* ---- Storage Commitment: the answer comes by itself --------------------------------------------------- */

bool store_commitment_asked(struct store *store, const struct store_confirmation *confirmation,
                            const struct store_commitment *commitment, int64_t now_ms, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    int64_t due_ms =
        now_ms + store_backoff_ms(confirmation->attempt, commitment->wait_ms, STORE_BACKOFF_CONFIRM_MAX_MS);
    return sql_begin(store, &transaction, err) &&
           sql_run(store, "INSERT INTO commitment VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                   SQL_VALUES(sql_text(commitment->transaction_uid), sql_text(confirmation->study_uid),
                              sql_text(confirmation->destination), sql_int(confirmation->study_revision),
                              sql_int(confirmation->outbox_id), sql_text(commitment->references_sha256),
                              sql_int(now_ms)),
                   err) &&
           sql_run(store,
                   "UPDATE confirmation SET due_ms = ?3, reason = 'asked, not answered yet'"
                   " WHERE study_uid = ?1 AND destination = ?2",
                   SQL_VALUES(sql_text(confirmation->study_uid), sql_text(confirmation->destination), sql_int(due_ms)),
                   err) &&
           sql_commit(&transaction, err);
}

bool store_commitment_find(struct store *store, const char *transaction_uid, struct store_confirmation *out,
                           char references_sha256[65], struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(
        store,
        "SELECT study_uid, destination, commitment.study_revision, commitment.outbox_id, attempt, references_sha256"
        " FROM commitment JOIN confirmation USING (study_uid, destination) WHERE transaction_uid = ?1",
        SQL_VALUES(sql_text(transaction_uid)), err);
    bool row = false;
    if (!statement || !sql_step(store, statement, &row, err))
        return false;
    if (!row)
        return err_set(err, ERR_NOT_FOUND, "no storage commitment was asked for as %s", transaction_uid);
    *out = (struct store_confirmation){.study_revision = sqlite3_column_int64(statement, 2),
                                       .outbox_id = sqlite3_column_int64(statement, 3),
                                       .attempt = (uint32_t)sqlite3_column_int64(statement, 4)};
    sql_column_text(statement, 0, out->study_uid, sizeof out->study_uid);
    sql_column_text(statement, 1, out->destination, sizeof out->destination);
    sql_column_text(statement, 5, references_sha256, DIGEST_HEX_SIZE);
    return true;
}
