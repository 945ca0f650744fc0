/* Leases: a job belongs to who holds its token until its time runs out or its process ends; then it is taken again,
 * with the next attempt, and the former holder's finish is refused. So a killed worker's job is done once. Times are of
 * the wall clock, which may be set: a lease or a wait further ahead than any can be counts as over. */
#include "store/job.h"

#include <stdio.h>
#include <string.h>

#include "store/audit.h"
#include "store/complete.h"
#include "store/handle.h"
#include "store/holder.h"

/* Due, of a wanted kind, its study complete, and no other job of that kind and study running. ?1 now, ?2 kinds, ?3
 * lease, ?4 longest wait. */
#define JOB_DUE                                                                                                        \
    " FROM job INDEXED BY job_open JOIN study USING (study_uid) WHERE state IN ('queued', 'leased') AND (?2 >> kind) " \
    "& 1"                                                                                                              \
    " AND ((state = 'queued' AND (due_ms <= ?1 OR due_ms > ?1 + ?4))"                                                  \
    "  OR (state = 'leased' AND (leased_until_ms <= ?1 OR leased_until_ms > ?1 + ?3)))"                                \
    " AND (kind = 3 OR study.revision = study.queued_revision)"                                                        \
    " AND NOT EXISTS (SELECT 1 FROM job AS other WHERE other.study_uid = job.study_uid AND other.kind = job.kind"      \
    "  AND other.id <> job.id AND other.state = 'leased' AND kind <> 3"                                                \
    "  AND other.leased_until_ms > ?1 AND other.leased_until_ms <= ?1 + ?3)"                                           \
    " ORDER BY job.id LIMIT 1"

struct due {
    struct store_job job;
    bool expired; /* leased before, and not finished */
};

static bool due_find_of(struct store *store, unsigned kinds_mask, int64_t now_ms, struct due *out, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(
        store, "SELECT job.id, kind, attempt, study_uid, study.revision, result_id, state = 'leased'" JOB_DUE,
        SQL_VALUES(sql_int(now_ms), sql_int(kinds_mask), sql_int(store->config.lease_ms + STORE_CLOCK_MARGIN_MS),
                   sql_int(STORE_BACKOFF_JOB_MAX_MS + STORE_CLOCK_MARGIN_MS)),
        err);
    bool row = false;
    if (!statement || !sql_step(store, statement, &row, err))
        return false;
    *out = (struct due){0};
    if (!row)
        return true;
    out->job.id = sqlite3_column_int64(statement, 0);
    out->job.kind = (enum store_job_kind)sqlite3_column_int(statement, 1);
    out->job.attempt = (uint32_t)sqlite3_column_int64(statement, 2);
    sql_column_text(statement, 3, out->job.study_uid, sizeof out->job.study_uid);
    out->job.study_revision = sqlite3_column_int64(statement, 4);
    out->job.result_id = sqlite3_column_int64(statement, 5);
    out->expired = sqlite3_column_int(statement, 6) != 0;
    return true;
}

/* Shadows wait for everything else. */
static bool due_find(struct store *store, unsigned kinds_mask, int64_t now_ms, struct due *out, struct err *err) {
    unsigned shadow = kinds_mask & 1U << STORE_JOB_SHADOW;
    return due_find_of(store, kinds_mask & ~shadow, now_ms, out, err) &&
           (out->job.id || !shadow || due_find_of(store, shadow, now_ms, out, err));
}

static bool job_audit(struct store *store, const struct store_job *job, const char *action, const char *reason,
                      struct err *err) {
    static const char *const kinds[] = {"", "analyse", "decode", "sign", "shadow"};
    char detail[160];
    snprintf(detail, sizeof detail, "job %lld, %s, attempt %u%s%s", (long long)job->id, kinds[job->kind], job->attempt,
             reason ? ": " : "", reason ? reason : "");
    struct store_audit audit = {.code = AUDIT_INSTANCES_ACCESSED,
                                .action = action,
                                .study_uid = job->study_uid,
                                .detail = detail,
                                .outcome = AUDIT_SERIOUS_FAILURE};
    return audit_add(store, &audit, err);
}

/* The sentence of an error may quote a header, so that it stays out of the audit; the kind does not. */
static bool job_bury(struct store *store, const struct store_job *job, const char *reason, const char *kind,
                     struct err *err) {
    return sql_run(store, "UPDATE job SET state = 'dead', lease = NULL, reason = ?2, finished_ms = ?3 WHERE id = ?1",
                   SQL_VALUES(sql_int(job->id), sql_text(reason), sql_int(pulmo_now_ms())), err) &&
           job_audit(store, job, "job-dead", kind, err);
}

/* A newer job of the same kind and study does the work of one whose holder was lost. */
static bool expired_replace(struct store *store, const struct store_job *job, bool *replaced, struct err *err) {
    if (!sql_run(store,
                 "UPDATE job SET state = 'superseded', lease = NULL, finished_ms = ?2 WHERE id = ?1 AND kind <> 3"
                 " AND EXISTS (SELECT 1 FROM job AS newer WHERE newer.study_uid = job.study_uid"
                 "  AND newer.kind = job.kind AND newer.state = 'queued')",
                 SQL_VALUES(sql_int(job->id), sql_int(pulmo_now_ms())), err))
        return false;
    *replaced = sql_changes(store) > 0;
    return true;
}

static bool job_lease(struct store *store, struct store_job *job, int64_t now_ms, struct err *err) {
    job->attempt++;
    return holder_lease(store, job->lease, err) &&
           sql_run(store,
                   "UPDATE job SET state = 'leased', attempt = ?2, lease = ?3, leased_until_ms = ?4, revision = ?5"
                   " WHERE id = ?1",
                   SQL_VALUES(sql_int(job->id), sql_int(job->attempt), sql_text(job->lease),
                              sql_int(now_ms + store->config.lease_ms), sql_int(job->study_revision)),
                   err);
}

/* Takes the first due job; *again = it was put away instead (its holders died too often, or a newer one does its work).
 */
static bool take_one(struct store *store, unsigned kinds_mask, int64_t now_ms, struct store_job *out, bool *again,
                     struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    struct due due;
    *again = false;
    if (!sql_begin(store, &transaction, err) || !due_find(store, kinds_mask, now_ms, &due, err))
        return false;
    if (due.job.id && due.expired && !expired_replace(store, &due.job, again, err))
        return false;
    if (due.job.id && due.expired && !*again && due.job.attempt >= store->config.attempts_max) {
        *again = true;
        if (!job_bury(store, &due.job, "FAILED: the process that worked on it ended each time", "process ended", err))
            return false;
    }
    if (due.job.id && !*again && !job_lease(store, &due.job, now_ms, err))
        return false;
    if (!sql_commit(&transaction, err))
        return false;
    if (!*again)
        *out = due.job;
    return true;
}

bool store_job_take(struct store *store, unsigned kinds_mask, int64_t now_ms, struct store_job *out, struct err *err) {
    unsigned made_by_completeness = 1U << STORE_JOB_ANALYSE | 1U << STORE_JOB_DECODE;
    if ((kinds_mask & made_by_completeness) && !complete_queue(store, now_ms, err))
        return false;
    if (!holder_expire_jobs(store, now_ms, err))
        return false;
    for (bool again = true; again;) {
        struct due due;
        if (!due_find(store, kinds_mask, now_ms, &due, err)) /* a poll that finds nothing takes no write lock */
            return false;
        if (!due.job.id) {
            *out = (struct store_job){0};
            return true;
        }
        if (!take_one(store, kinds_mask, now_ms, out, &again, err))
            return false;
    }
    return true;
}

bool store_jobs_open(struct store *store, unsigned kinds_mask, int64_t *out, struct err *err) {
    return sql_integer(store, "SELECT count(*) FROM job WHERE state IN ('queued', 'leased') AND (?1 >> kind) & 1",
                       SQL_VALUES(sql_int(kinds_mask)), out, err);
}

static bool lease_lost(const struct store_job *job, struct err *err) {
    return err_set(err, ERR_CONFLICT, "job %lld of study %s is no longer leased to this process", (long long)job->id,
                   job->study_uid);
}

bool store_job_renew(struct store *store, const struct store_job *job, int64_t now_ms, struct err *err) {
    if (!sql_run(store, "UPDATE job SET leased_until_ms = ?3 WHERE id = ?1 AND state = 'leased' AND lease = ?2",
                 SQL_VALUES(sql_int(job->id), sql_text(job->lease), sql_int(now_ms + store->config.lease_ms)), err))
        return false;
    return sql_changes(store) == 1 || lease_lost(job, err);
}

bool job_held(struct store *store, const struct store_job *job, struct err *err) {
    int64_t held = 0;
    if (!sql_integer(store, "SELECT 1 FROM job WHERE id = ?1 AND state = 'leased' AND lease = ?2",
                     SQL_VALUES(sql_int(job->id), sql_text(job->lease)), &held, err))
        return false;
    return held || lease_lost(job, err);
}

bool job_done(struct store *store, const struct store_job *job, struct err *err) {
    return sql_run(store, "UPDATE job SET state = 'done', lease = NULL, reason = NULL, finished_ms = ?2 WHERE id = ?1",
                   SQL_VALUES(sql_int(job->id), sql_int(pulmo_now_ms())), err);
}

/* A full disk or a locked database is no fault of the job: it waits as long as that takes. */
static bool error_waits(enum err_kind kind) {
    return kind == ERR_NO_SPACE || kind == ERR_BUSY;
}

static bool error_passes(enum err_kind kind) {
    return error_waits(kind) || kind == ERR_IO || kind == ERR_NETWORK || kind == ERR_MEMORY;
}

static bool job_requeue(struct store *store, const struct store_job *job, const struct err *why, struct err *err) {
    int64_t due_ms = pulmo_now_ms() + store_backoff_ms(job->attempt, STORE_BACKOFF_FIRST_MS, STORE_BACKOFF_JOB_MAX_MS);
    bool replaced = false;
    if (!expired_replace(store, job, &replaced, err) || replaced)
        return replaced;
    return sql_run(store, "UPDATE job SET state = 'queued', lease = NULL, due_ms = ?2, reason = ?3 WHERE id = ?1",
                   SQL_VALUES(sql_int(job->id), sql_int(due_ms), sql_text(why->text)), err);
}

bool store_job_fail(struct store *store, const struct store_job *job, const struct err *why, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    bool retry = error_waits(why->kind) || (error_passes(why->kind) && job->attempt < store->config.attempts_max);
    if (!sql_begin(store, &transaction, err) || !job_held(store, job, err))
        return false;
    bool done =
        retry ? job_requeue(store, job, why, err) : job_bury(store, job, why->text, err_kind_name(why->kind), err);
    return done && sql_commit(&transaction, err);
}

bool store_job_release(struct store *store, const struct store_job *job, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    bool replaced = false;
    return sql_begin(store, &transaction, err) && job_held(store, job, err) &&
           expired_replace(store, job, &replaced, err) &&
           (replaced ||
            sql_run(store, "UPDATE job SET state = 'queued', lease = NULL, attempt = attempt - 1 WHERE id = ?1",
                    SQL_VALUES(sql_int(job->id)), err)) &&
           sql_commit(&transaction, err);
}

static bool requeue_rows(struct store *store, const char *study_uid, int64_t *count, struct err *err) {
    int64_t now_ms = pulmo_now_ms();
    if (!sql_run(store,
                 "UPDATE job SET state = 'queued', attempt = 0, due_ms = ?2, finished_ms = NULL WHERE state = 'dead'"
                 " AND study_uid = ?1 AND kind <> 3 AND id = (SELECT max(id) FROM job AS last"
                 "  WHERE last.study_uid = ?1 AND last.kind = job.kind)",
                 SQL_VALUES(sql_text(study_uid), sql_int(now_ms)), err))
        return false;
    *count = sql_changes(store);
    if (!sql_run(store,
                 "UPDATE outbox SET state = 'queued', attempt = 0, refusals = 0, due_ms = ?2 WHERE state = 'dead'"
                 " AND result_id IN (SELECT id FROM result WHERE study_uid = ?1)",
                 SQL_VALUES(sql_text(study_uid), sql_int(now_ms)), err))
        return false;
    *count += sql_changes(store);
    return true;
}

bool store_study_requeue(struct store *store, const char *study_uid, const char *actor, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    int64_t count = 0;
    if (!sql_begin(store, &transaction, err) || !requeue_rows(store, study_uid, &count, err))
        return false;
    if (!count)
        return err_set(err, ERR_NOT_FOUND, "nothing of study %s is in the dead letter", study_uid);
    struct store_audit audit = {
        .code = AUDIT_INSTANCES_ACCESSED, .action = "requeue", .actor = actor, .study_uid = study_uid};
    return audit_add(store, &audit, err) && sql_commit(&transaction, err);
}
