/* A study is complete when all evidence says so (REFERENCE 7):
 * - no instance of it came for the quiet time;
 * - no open association sent its latest instance to it. An association that has moved on to another study holds the
 * ones before for HOLD_QUIETS quiet times only, and none holds for longer than HOLD_MAX_MS: a silent peer must not stop
 * a study for ever;
 * - no instance of it was refused for lack of room or a disk error and not sent again, for at most HOLD_MAX_MS;
 * - none of its images are purged: a late slice alone would be analysed as a study of one slice. It waits for the
 * whole. Completeness is of a revision: a late slice makes the next one, and its own jobs. */
#include "store/complete.h"

#include <stdio.h>

#include "store/audit.h"
#include "store/handle.h"

#define HOLD_QUIETS 4
#define HOLD_MAX_MS (10 * 60 * 1000)

/* A clock that was set back would leave studies in the future, never quiet. */
static bool clock_repair(struct store *store, int64_t now_ms, struct err *err) {
    int64_t ahead = 0;
    if (!sql_integer(store,
                     "SELECT 1 FROM study WHERE revision > queued_revision AND last_received_ms > ?1 + ?2 LIMIT 1",
                     SQL_VALUES(sql_int(now_ms), sql_int(STORE_CLOCK_MARGIN_MS)), &ahead, err))
        return false;
    return !ahead || sql_run(store,
                             "UPDATE study SET last_received_ms = ?1"
                             " WHERE revision > queued_revision AND last_received_ms > ?1 + ?2",
                             SQL_VALUES(sql_int(now_ms), sql_int(STORE_CLOCK_MARGIN_MS)), err);
}

/* The first complete study; "" when there is none. */
static bool complete_find(struct store *store, int64_t now_ms, char study_uid[DICOM_UID_SIZE], struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(
        store,
        "SELECT study_uid FROM study WHERE revision > queued_revision AND last_received_ms + ?2 <= ?1"
        " AND EXISTS (SELECT 1 FROM instance WHERE instance.study_uid = study.study_uid AND current = 1)"
        " AND NOT EXISTS (SELECT 1 FROM association_study JOIN association USING (association_id)"
        "  WHERE association_study.study_uid = study.study_uid AND last_received_ms +"
        "  CASE WHEN last_study_uid = study.study_uid THEN ?4 ELSE min(?3, ?4) END > ?1)"
        " AND NOT EXISTS (SELECT 1 FROM instance_refused"
        "  WHERE instance_refused.study_uid = study.study_uid AND max(refused_ms, last_received_ms) + ?4 > ?1)"
        " AND NOT EXISTS (SELECT 1 FROM instance WHERE instance.study_uid = study.study_uid AND current = 1"
        "  AND purged_ms IS NOT NULL)"
        " ORDER BY last_received_ms LIMIT 1",
        SQL_VALUES(sql_int(now_ms), sql_int(store->config.quiet_ms), sql_int(HOLD_QUIETS * store->config.quiet_ms),
                   sql_int(HOLD_MAX_MS)),
        err);
    bool row = false;
    if (!statement || !sql_step(store, statement, &row, err))
        return false;
    study_uid[0] = '\0';
    if (row)
        sql_column_text(statement, 0, study_uid, DICOM_UID_SIZE);
    return true;
}

/* A job that waits already will see the new instances too; one that runs has not, so another is queued behind it. */
static bool job_add(struct store *store, const char *study_uid, enum store_job_kind kind, int64_t now_ms,
                    struct err *err) {
    return sql_run(store,
                   "INSERT INTO job (kind, study_uid, revision, due_ms, created_ms)"
                   " SELECT ?2, study_uid, revision, ?3, ?3 FROM study WHERE study_uid = ?1"
                   " ON CONFLICT DO UPDATE SET revision = excluded.revision, attempt = 0, due_ms = excluded.due_ms",
                   SQL_VALUES(sql_text(study_uid), sql_int(kind), sql_int(now_ms)), err);
}

bool complete_decode(struct store *store, const char *study_uid, int64_t now_ms, struct err *err) {
    return job_add(store, study_uid, STORE_JOB_DECODE, now_ms, err);
}

static bool complete_audit(struct store *store, const char *study_uid, struct err *err) {
    int64_t instances = 0, revision = 0;
    if (!sql_integer(store, "SELECT count(*) FROM instance WHERE study_uid = ?1 AND current = 1",
                     SQL_VALUES(sql_text(study_uid)), &instances, err) ||
        !sql_integer(store, "SELECT revision FROM study WHERE study_uid = ?1", SQL_VALUES(sql_text(study_uid)),
                     &revision, err))
        return false;
    char detail[96];
    snprintf(detail, sizeof detail, "revision %lld, %lld instances", (long long)revision, (long long)instances);
    struct store_audit audit = {
        .code = AUDIT_INSTANCES_ACCESSED, .action = "study-complete", .study_uid = study_uid, .detail = detail};
    return audit_add(store, &audit, err);
}

static bool complete_one(struct store *store, int64_t now_ms, bool *found, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    char study_uid[DICOM_UID_SIZE];
    if (!sql_begin(store, &transaction, err) || !complete_find(store, now_ms, study_uid, err))
        return false;
    *found = study_uid[0] != '\0';
    if (!*found)
        return true;
    return job_add(store, study_uid, STORE_JOB_ANALYSE, now_ms, err) &&
           job_add(store, study_uid, STORE_JOB_DECODE, now_ms, err) &&
           sql_run(store, "UPDATE study SET queued_revision = revision WHERE study_uid = ?1",
                   SQL_VALUES(sql_text(study_uid)), err) &&
           complete_audit(store, study_uid, err) && sql_commit(&transaction, err);
}

bool complete_queue(struct store *store, int64_t now_ms, struct err *err) {
    if (!clock_repair(store, now_ms, err))
        return false;
    for (bool found = true; found;) {
        char study_uid[DICOM_UID_SIZE];
        if (!complete_find(store, now_ms, study_uid, err)) /* a poll that finds nothing takes no write lock */
            return false;
        found = study_uid[0] != '\0';
        if (found && !complete_one(store, now_ms, &found, err))
            return false;
    }
    return true;
}
