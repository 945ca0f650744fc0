/* A second model on the same studies. Its jobs are queued in the commit of the result that they are compared with, and
 * taken when nothing else is due; what they say goes into a table that nobody shows and nobody sends. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/audit.h"
#include "store/handle.h"
#include "store/job.h"
#include "store/model.h"

#define SHADOWS_MAX 1000000

/* ---- which model ------------------------------------------------------------------------------------- */

bool store_model_shadowing(struct store *store, char sha256[65], struct err *err) {
    return model_digest(store, "SELECT model_sha256 FROM model_shadow", sha256, err);
}

static bool shadow_begin(struct store *store, const char *sha256, const char *actor, struct err *err) {
    char active[DIGEST_HEX_SIZE], detail[96];
    if (!model_installed(store, sha256, err) || !store_model_active(store, active, err))
        return false;
    if (strcmp(active, sha256) == 0)
        return err_set(err, ERR_CONFLICT, "model %s is in use: there is nothing to compare", sha256);
    snprintf(detail, sizeof detail, "model %s", sha256);
    return sql_run(store,
                   "INSERT INTO model_shadow (one, model_sha256, actor, since_ms) VALUES (1, ?1, ?2, ?3)"
                   " ON CONFLICT DO UPDATE SET model_sha256 = excluded.model_sha256, actor = excluded.actor,"
                   "  since_ms = excluded.since_ms",
                   SQL_VALUES(sql_text(sha256), sql_text(actor), sql_int(pulmo_now_ms())), err) &&
           model_audit(store, "model-shadow", actor, detail, err);
}

bool model_shadow_end(struct store *store, const char *sha256, const char *actor, struct err *err) {
    char detail[96];
    if (!sql_run(store, "DELETE FROM model_shadow WHERE model_sha256 = ?1", SQL_VALUES(sql_text(sha256)), err))
        return false;
    if (!sql_changes(store))
        return true;
    snprintf(detail, sizeof detail, "model %s no longer", sha256);
    return model_audit(store, "model-shadow", actor, detail, err);
}

bool store_model_shadow(struct store *store, const char *sha256, const char *actor, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    char now[DIGEST_HEX_SIZE];
    if (!sql_begin(store, &transaction, err) || !store_model_shadowing(store, now, err))
        return false;
    if (!sha256 && !*now)
        return err_set(err, ERR_CONFLICT, "no model is a shadow");
    if (sha256 && strcmp(sha256, now) == 0)
        return err_set(err, ERR_CONFLICT, "model %s is the shadow already", sha256);
    return (sha256 ? shadow_begin(store, sha256, actor, err) : model_shadow_end(store, now, actor, err)) &&
           sql_commit(&transaction, err);
}

/* ---- jobs -------------------------------------------------------------------------------------------- */

bool shadow_queue(struct store *store, const struct store_job *job, const struct store_report *report,
                  int64_t result_id, struct err *err) {
    if (report->status == STORE_FAILED) /* nothing to compare with */
        return true;
    return sql_run(store,
                   "INSERT INTO job (kind, study_uid, revision, result_id, due_ms, created_ms)"
                   " SELECT 4, ?1, ?2, ?3, ?4, ?4 FROM model_shadow WHERE model_sha256 <> ?5",
                   SQL_VALUES(sql_text(job->study_uid), sql_int(job->study_revision), sql_int(result_id),
                              sql_int(pulmo_now_ms()), sql_text(report->model_sha256 ? report->model_sha256 : "")),
                   err);
}

bool store_shadow_begin(struct store *store, const struct store_job *job, char sha256[65], struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement =
        sql_prepare(store,
                    "SELECT model_shadow.model_sha256 FROM model_shadow, result JOIN study USING (study_uid)"
                    " WHERE result.id = ?1 AND superseded_by IS NULL AND study.revision = result.study_revision"
                    " AND model_shadow.model_sha256 <> result.model_sha256"
                    " AND NOT EXISTS (SELECT 1 FROM shadow_result WHERE result_id = result.id"
                    "  AND shadow_result.model_sha256 = model_shadow.model_sha256)",
                    SQL_VALUES(sql_int(job->result_id)), err);
    bool row = false;
    if (!statement || !sql_step(store, statement, &row, err))
        return false;
    sha256[0] = '\0';
    if (row)
        sql_column_text(statement, 0, sha256, DIGEST_HEX_SIZE);
    return true;
}

bool store_shadow_drop(struct store *store, const struct store_job *job, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    return sql_begin(store, &transaction, err) && job_held(store, job, err) &&
           sql_run(store, "UPDATE job SET state = 'superseded', lease = NULL, finished_ms = ?2 WHERE id = ?1",
                   SQL_VALUES(sql_int(job->id), sql_int(pulmo_now_ms())), err) &&
           sql_commit(&transaction, err);
}

static bool shadow_audit(struct store *store, const struct store_job *job, const struct store_report *report,
                         struct err *err) {
    static const char *const statuses[] = {"", "analysed", "refused", "failed"};
    char detail[192];
    snprintf(detail, sizeof detail, "shadow of result %lld, %s, %u findings, model %s", (long long)job->result_id,
             statuses[report->status], report->findings_reported, report->model_sha256);
    const struct store_audit audit = {.code = AUDIT_INSTANCES_ACCESSED,
                                      .action = "shadow",
                                      .study_uid = job->study_uid,
                                      .detail = detail,
                                      .outcome = report->status == STORE_FAILED ? AUDIT_MINOR_FAILURE : AUDIT_SUCCESS};
    return audit_add(store, &audit, err);
}

bool store_shadow_finish(struct store *store, const struct store_job *job, const struct store_report *report,
                         struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    int64_t valid = 0;
    if (job->kind != STORE_JOB_SHADOW || !report->summary_json || report->status < STORE_ANALYSED ||
        report->status > STORE_FAILED)
        return err_set(err, ERR_INTERNAL, "job %lld makes no result of a shadow", (long long)job->id);
    if (!sql_integer(store, "SELECT json_valid(?1)", SQL_VALUES(sql_text(report->summary_json)), &valid, err))
        return false;
    if (!valid)
        return err_set(err, ERR_INTERNAL, "the document of a result is not JSON");
    return sql_begin(store, &transaction, err) && job_held(store, job, err) &&
           sql_run(store,
                   "INSERT INTO shadow_result (job_id, result_id, model_sha256, status, reason, document, created_ms)"
                   " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                   SQL_VALUES(sql_int(job->id), sql_int(job->result_id), sql_text(report->model_sha256),
                              sql_int(report->status), sql_text(report->reason ? report->reason : ""),
                              sql_text(report->summary_json), sql_int(pulmo_now_ms())),
                   err) &&
           job_done(store, job, err) && shadow_audit(store, job, report, err) && sql_commit(&transaction, err);
}

/* ---- reading ----------------------------------------------------------------------------------------- */

static void shadow_row(sqlite3_stmt *statement, struct store_shadow *out) {
    *out = (struct store_shadow){.id = sqlite3_column_int64(statement, 0),
                                 .result_id = sqlite3_column_int64(statement, 1),
                                 .status = (enum store_status)sqlite3_column_int(statement, 2),
                                 .created_ms = sqlite3_column_int64(statement, 3)};
    sql_column_text(statement, 4, out->reason, sizeof out->reason);
}

bool store_shadow_list(struct store *store, const char *sha256, struct store_shadow **out, size_t *count,
                       struct err *err) {
    int64_t rows = 0;
    if (!sql_integer(store, "SELECT min(count(*), ?2) FROM shadow_result WHERE model_sha256 = ?1",
                     SQL_VALUES(sql_text(sha256), sql_int(SHADOWS_MAX)), &rows, err))
        return false;
    PULMO_SCOPED(pulmo_free_at) struct store_shadow *list = pulmo_alloc((size_t)rows + 1, sizeof *list, err);
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(store,
                                          "SELECT id, result_id, status, created_ms, reason FROM shadow_result"
                                          " WHERE model_sha256 = ?1 ORDER BY id",
                                          SQL_VALUES(sql_text(sha256)), err);
    if (!list || !statement)
        return false;
    size_t read = 0;
    for (bool row = true; read < (size_t)rows;) {
        if (!sql_step(store, statement, &row, err))
            return false;
        if (!row)
            break;
        shadow_row(statement, &list[read++]);
    }
    *out = list;
    *count = read;
    list = NULL;
    return true;
}

bool store_shadow_document(struct store *store, int64_t shadow_id, struct bytes *out, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement =
        sql_prepare(store, "SELECT document FROM shadow_result WHERE id = ?1", SQL_VALUES(sql_int(shadow_id)), err);
    struct bytes document = {0};
    bool row = false;
    if (!statement || !sql_step(store, statement, &row, err))
        return false;
    if (!row)
        return err_set(err, ERR_NOT_FOUND, "there is no shadow result %lld", (long long)shadow_id);
    const void *text = sqlite3_column_text(statement, 0);
    if (!text || !bytes_append(&document, text, (size_t)sqlite3_column_bytes(statement, 0), PULMO_ALLOC_MAX, err))
        return text ? false : err_set(err, ERR_MEMORY, "out of memory for a document");
    *out = document;
    return true;
}
