#include <stdio.h>

#include "store/artifact.h"
#include "store/audit.h"
#include "store/handle.h"
#include "store/job.h"
#include "store/verdict.h"

static bool signature_audit(struct store *store, const struct store_audit *audit, int64_t result_id, struct err *err) {
    char detail[48];
    snprintf(detail, sizeof detail, "result %lld", (long long)result_id);
    struct store_audit whole = *audit;
    whole.code = AUDIT_INSTANCES_ACCESSED;
    whole.detail = detail;
    return audit_add(store, &whole, err);
}

static bool not_failed(struct store *store, int64_t result_id, struct err *err) {
    int64_t failed = 0;
    if (!sql_integer(store, "SELECT 1 FROM result WHERE id = ?1 AND status = ?2",
                     SQL_VALUES(sql_int(result_id), sql_int(STORE_FAILED)), &failed, err))
        return false;
    return !failed ||
           err_set(err, ERR_CONFLICT, "the analysis failed: result %lld cannot be signed", (long long)result_id);
}

bool store_sign_request(struct store *store, int64_t result_id, const char *user, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    char study_uid[DICOM_UID_SIZE];
    int64_t known = 0;
    if (!sql_begin(store, &transaction, err) || !verdict_open(store, result_id, study_uid, err) ||
        !not_failed(store, result_id, err) ||
        !sql_integer(store, "SELECT 1 FROM user WHERE name = ?1 AND disabled = 0", SQL_VALUES(sql_text(user)), &known,
                     err))
        return false;
    if (!known)
        return err_set(err, ERR_DENIED, "there is no active user '%s'", user);
    struct store_audit audit = {.action = "sign-request", .actor = user, .study_uid = study_uid};
    return sql_run(store,
                   "INSERT INTO job (kind, study_uid, revision, result_id, user, due_ms, created_ms)"
                   " SELECT 3, study_uid, study_revision, id, ?2, ?3, ?3 FROM result WHERE id = ?1",
                   SQL_VALUES(sql_int(result_id), sql_text(user), sql_int(pulmo_now_ms())), err) &&
           signature_audit(store, &audit, result_id, err) && sql_commit(&transaction, err);
}

bool store_sign_user(struct store *store, const struct store_job *job, char *user, size_t user_size, char *display_name,
                     size_t display_name_size, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(
        store,
        "SELECT user.name, display_name FROM job JOIN user ON user.name = job.user WHERE job.id = ?1 AND kind = 3",
        SQL_VALUES(sql_int(job->id)), err);
    bool row = false;
    if (!statement || !sql_step(store, statement, &row, err))
        return false;
    if (!row)
        return err_set(err, ERR_NOT_FOUND, "job %lld signs for nobody", (long long)job->id);
    sql_column_text(statement, 0, user, user_size);
    sql_column_text(statement, 1, display_name, display_name_size);
    return true;
}

static bool signature_rows(struct store *store, const struct store_job *job, const struct artifact_set *set,
                           struct err *err) {
    char user[64], display_name[128];
    if (!store_sign_user(store, job, user, sizeof user, display_name, sizeof display_name, err))
        return false;
    struct store_audit audit = {.action = "sign", .actor = user, .study_uid = job->study_uid};
    return artifact_rows(store, set, err) &&
           sql_run(store, "INSERT INTO signature (result_id, job_id, user, signed_ms) VALUES (?1, ?2, ?3, ?4)",
                   SQL_VALUES(sql_int(job->result_id), sql_int(job->id), sql_text(user), sql_int(pulmo_now_ms())),
                   err) &&
           job_done(store, job, err) && signature_audit(store, &audit, job->result_id, err);
}

/* A result that was superseded while its signing waited is signed all the same: the reader signed what was on the
 * screen, and its successor comes unsigned. */
bool store_sign_finish(struct store *store, const struct store_job *job, const struct store_artifact *artifacts,
                       size_t artifact_count, struct err *err) {
    PULMO_SCOPED(artifact_names_free) struct artifact_names names = {0};
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    if (job->kind != STORE_JOB_SIGN)
        return err_set(err, ERR_INTERNAL, "job %lld does not sign", (long long)job->id);
    if (!job_held(store, job, err) || !artifact_write(store, artifacts, artifact_count, &names, err))
        return false;
    struct artifact_set set = {.artifacts = artifacts,
                               .count = artifact_count,
                               .names = &names,
                               .result_id = job->result_id,
                               .job_id = job->id};
    return sql_begin(store, &transaction, err) && job_held(store, job, err) && signature_rows(store, job, &set, err) &&
           sql_commit(&transaction, err);
}
