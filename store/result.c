#include <stdio.h>
#include <string.h>

#include "store/artifact.h"
#include "store/audit.h"
#include "store/handle.h"
#include "store/job.h"
#include "store/model.h"

static bool report_check(struct store *store, const struct store_job *job, const struct store_report *report,
                         struct err *err) {
    if (job->kind != STORE_JOB_ANALYSE)
        return err_set(err, ERR_INTERNAL, "job %lld does not analyse", (long long)job->id);
    if (report->status < STORE_ANALYSED || report->status > STORE_FAILED)
        return err_set(err, ERR_INTERNAL, "a result without a status");
    if (!report->summary_json)
        return err_set(err, ERR_INTERNAL, "a result without its document");
    int64_t valid = 0; /* verdicts look findings up in it */
    if (!sql_integer(store, "SELECT json_valid(?1)", SQL_VALUES(sql_text(report->summary_json)), &valid, err))
        return false;
    return valid || err_set(err, ERR_INTERNAL, "the document of a result is not JSON");
}

static const char *or_empty(const char *text) {
    return text ? text : "";
}

/* One current result a study (a unique index): the former one is superseded by the id that the new one gets right
 * after, which the foreign key allows until the commit. */
static bool result_insert(struct store *store, const struct store_job *job, const struct store_report *report,
                          int64_t *id, struct err *err) {
    int64_t next = 0;
    if (!sql_integer(store, "SELECT coalesce(max(id), 0) + 1 FROM result", SQL_NO_VALUES, &next, err) ||
        !sql_run(store, "UPDATE result SET superseded_by = ?2 WHERE study_uid = ?1 AND superseded_by IS NULL",
                 SQL_VALUES(sql_text(job->study_uid), sql_int(next)), err))
        return false;
    *id = next;
    return sql_run(
        store,
        "INSERT INTO result (id, job_id, study_uid, study_revision, series_uid, status, reason, summary_json,"
        " model_sha256, backend, findings_reported, probability_max, review, created_ms)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        SQL_VALUES(sql_int(next), sql_int(job->id), sql_text(job->study_uid), sql_int(job->study_revision),
                   sql_text(or_empty(report->series_uid)), sql_int(report->status), sql_text(or_empty(report->reason)),
                   sql_text(report->summary_json), sql_text(or_empty(report->model_sha256)),
                   sql_text(or_empty(report->backend)), sql_int(report->findings_reported),
                   sql_real(report->probability_max), sql_int(report->review), sql_int(pulmo_now_ms())),
        err);
}

/* The reason's sentence may quote a header: only its code, before the colon, is audited. */
static bool result_audit(struct store *store, const struct store_job *job, const struct store_report *report,
                         int64_t id, struct err *err) {
    static const char *const statuses[] = {"", "analysed", "refused", "failed"};
    const char *reason = or_empty(report->reason);
    int code_length = (int)strcspn(reason, ": ");
    char detail[256];
    snprintf(detail, sizeof detail, "result %lld, revision %lld, %s%s%.*s, %u findings, model %s", (long long)id,
             (long long)job->study_revision, statuses[report->status], code_length ? " " : "",
             code_length < 40 ? code_length : 40, reason, report->findings_reported, or_empty(report->model_sha256));
    struct store_audit audit = {.code = AUDIT_INSTANCES_ACCESSED,
                                .action = "analyse",
                                .study_uid = job->study_uid,
                                .detail = detail,
                                .outcome = report->status == STORE_FAILED ? AUDIT_MINOR_FAILURE : AUDIT_SUCCESS};
    return audit_add(store, &audit, err);
}

static bool finish_rows(struct store *store, const struct store_job *job, const struct store_report *report,
                        struct artifact_set *set, struct err *err) {
    return result_insert(store, job, report, &set->result_id, err) && artifact_rows(store, set, err) &&
           job_done(store, job, err) && shadow_queue(store, job, report, set->result_id, err) &&
           result_audit(store, job, report, set->result_id, err);
}

bool store_job_finish(struct store *store, const struct store_job *job, const struct store_report *report,
                      int64_t *result_id, struct err *err) {
    PULMO_SCOPED(artifact_names_free) struct artifact_names names = {0};
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    if (!report_check(store, job, report, err) || !job_held(store, job, err) ||
        !artifact_write(store, report->artifacts, report->artifact_count, &names, err))
        return false;
    struct artifact_set set = {
        .artifacts = report->artifacts, .count = report->artifact_count, .names = &names, .job_id = job->id};
    if (!sql_begin(store, &transaction, err) || !job_held(store, job, err) ||
        !finish_rows(store, job, report, &set, err) || !sql_commit(&transaction, err))
        return false;
    if (result_id)
        *result_id = set.result_id;
    return true;
}

#define RESULT_COLUMNS                                                                                           \
    "SELECT id, study_revision, created_ms, superseded_by, status, study_uid, series_uid, reason, model_sha256," \
    " backend, review, EXISTS (SELECT 1 FROM signature WHERE signature.result_id = result.id),"                  \
    " coalesce((SELECT CASE WHEN state = 'dead' THEN reason END FROM job WHERE job.study_uid = result.study_uid" \
    "  AND kind = 3 AND result_id = result.id ORDER BY id DESC LIMIT 1), ''),"                                   \
    " coalesce((SELECT max(old.id) FROM result AS old WHERE old.superseded_by = result.id), 0) FROM result"

static void result_row(sqlite3_stmt *statement, struct store_result *out) {
    *out = (struct store_result){
        .id = sqlite3_column_int64(statement, 0),
        .study_revision = sqlite3_column_int64(statement, 1),
        .created_ms = sqlite3_column_int64(statement, 2),
        .superseded_by = sqlite3_column_int64(statement, 3),
        .status = (enum store_status)sqlite3_column_int(statement, 4),
        .review = sqlite3_column_int(statement, 10) != 0,
        .signed_by_reader = sqlite3_column_int(statement, 11) != 0,
        .supersedes = sqlite3_column_int64(statement, 13),
    };
    sql_column_text(statement, 5, out->study_uid, sizeof out->study_uid);
    sql_column_text(statement, 6, out->series_uid, sizeof out->series_uid);
    sql_column_text(statement, 7, out->reason, sizeof out->reason);
    sql_column_text(statement, 8, out->model_sha256, sizeof out->model_sha256);
    sql_column_text(statement, 9, out->backend, sizeof out->backend);
    sql_column_text(statement, 12, out->sign_failure, sizeof out->sign_failure);
}

bool store_result_get(struct store *store, int64_t result_id, struct store_result *out, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(store, RESULT_COLUMNS " WHERE id = ?1", SQL_VALUES(sql_int(result_id)), err);
    bool row = false;
    if (!statement || !sql_step(store, statement, &row, err))
        return false;
    if (!row)
        return err_set(err, ERR_NOT_FOUND, "there is no result %lld", (long long)result_id);
    result_row(statement, out);
    return true;
}

bool store_result_current(struct store *store, const char *study_uid, struct store_result *out, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(store, RESULT_COLUMNS " WHERE study_uid = ?1 AND superseded_by IS NULL",
                                          SQL_VALUES(sql_text(study_uid)), err);
    bool row = false;
    if (!statement || !sql_step(store, statement, &row, err))
        return false;
    if (row)
        result_row(statement, out);
    else
        *out = (struct store_result){0};
    return true;
}
