/* What is still to be sent. A row is leased to one sender, and marked sent after the peer said so; a sender killed in
 * between sends the same bytes again, which a PACS recognises by their SOP Instance UID: nothing can do better.
 *
 * Two waits keep one trouble from becoming another's: a row's own, and the destination's. A peer that is down pauses
 * all its rows; a row that fails lets the others of its peer go first. */
#include "store/outbox.h"

#include <stdio.h>
#include <string.h>

#include "store/audit.h"
#include "store/blob.h"
#include "store/commitment.h"
#include "store/handle.h"
#include "store/holder.h"

/* ?1 now, ?2 longest lease, ?3 longest wait: see STORE_CLOCK_MARGIN_MS. */
static bool due_find(struct store *store, int64_t now_ms, struct store_outgoing *out, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(
        store,
        "SELECT outbox.id, destination_now(outbox.destination), outbox.result_id, outbox.name, attempt, blob_sha256"
        " FROM outbox JOIN artifact USING (result_id, name)"
        " LEFT JOIN destination_pause AS pause ON pause.destination = destination_now(outbox.destination)"
        " WHERE state IN ('queued', 'leased')"
        " AND ((state = 'queued' AND (outbox.due_ms <= ?1 OR outbox.due_ms > ?1 + ?3))"
        "  OR (state = 'leased' AND (leased_until_ms <= ?1 OR leased_until_ms > ?1 + ?2)))"
        " AND (pause.due_ms IS NULL OR pause.due_ms <= ?1 OR pause.due_ms > ?1 + ?3)"
        " ORDER BY outbox.due_ms, outbox.id LIMIT 1",
        SQL_VALUES(sql_int(now_ms), sql_int(store->config.lease_ms + STORE_CLOCK_MARGIN_MS),
                   sql_int(STORE_BACKOFF_OUTBOX_MAX_MS + STORE_CLOCK_MARGIN_MS)),
        err);
    bool row = false;
    if (!statement || !sql_step(store, statement, &row, err))
        return false;
    *out = (struct store_outgoing){0};
    if (!row)
        return true;
    char digest[DIGEST_HEX_SIZE], path[BLOB_PATH_SIZE];
    out->id = sqlite3_column_int64(statement, 0);
    sql_column_text(statement, 1, out->destination, sizeof out->destination);
    out->result_id = sqlite3_column_int64(statement, 2);
    sql_column_text(statement, 3, out->name, sizeof out->name);
    out->attempt = (uint32_t)sqlite3_column_int64(statement, 4);
    sql_column_text(statement, 5, digest, sizeof digest);
    if (!blob_path(store->config.folder, digest, path, err))
        return false;
    int length = snprintf(out->path, sizeof out->path, "%s", path);
    return (length > 0 && (size_t)length < sizeof out->path) || err_set(err, ERR_LIMIT, "path too long: %s", path);
}

bool store_outbox_take(struct store *store, int64_t now_ms, struct store_outgoing *out, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    struct store_outgoing due;
    if (!holder_expire_outbox(store, now_ms, err) ||
        !due_find(store, now_ms, &due, err)) /* a poll that finds nothing takes no write lock */
        return false;
    if (due.id && (!sql_begin(store, &transaction, err) || !due_find(store, now_ms, &due, err)))
        return false;
    if (!due.id) {
        *out = due;
        return true;
    }
    due.attempt++;
    if (!holder_lease(store, due.lease, err) ||
        !sql_run(store,
                 "UPDATE outbox SET state = 'leased', attempt = ?2, lease = ?3, leased_until_ms = ?4 WHERE id = ?1",
                 SQL_VALUES(sql_int(due.id), sql_int(due.attempt), sql_text(due.lease),
                            sql_int(now_ms + store->config.lease_ms)),
                 err) ||
        !sql_commit(&transaction, err))
        return false;
    *out = due;
    return true;
}

static bool outgoing_audit(struct store *store, const struct store_outgoing *outgoing, const char *action, int outcome,
                           struct err *err) {
    struct store_result result;
    if (!store_result_get(store, outgoing->result_id, &result, err))
        return false;
    char detail[256];
    snprintf(detail, sizeof detail, "result %lld, %s, attempt %u", (long long)outgoing->result_id, outgoing->name,
             outgoing->attempt);
    struct store_audit audit = {.code = AUDIT_INSTANCES_TRANSFERRED,
                                .action = action,
                                .actor = outgoing->destination,
                                .study_uid = result.study_uid,
                                .detail = detail,
                                .outcome = outcome};
    return audit_add(store, &audit, err);
}

/* Also when the lease ran out: the peer has the object, so it must not be sent again. Sent twice is success. */
bool store_outbox_sent(struct store *store, const struct store_outgoing *outgoing, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    if (!sql_begin(store, &transaction, err) ||
        !sql_run(store,
                 "UPDATE outbox SET state = 'sent', lease = NULL, reason = NULL, sent_ms = ?2"
                 " WHERE id = ?1 AND state <> 'sent'",
                 SQL_VALUES(sql_int(outgoing->id), sql_int(pulmo_now_ms())), err))
        return false;
    if (sql_changes(store) == 0)
        return true;
    return sql_run(store, "DELETE FROM destination_pause WHERE destination = ?1",
                   SQL_VALUES(sql_text(outgoing->destination)), err) &&
           commitment_due(store, outgoing->result_id, outgoing->destination, pulmo_now_ms(), err) &&
           outgoing_audit(store, outgoing, "send", AUDIT_SUCCESS, err) && sql_commit(&transaction, err);
}

bool outbox_pause(struct store *store, const char *destination, int64_t now_ms, struct err *err) {
    int64_t failures = 0;
    if (!sql_integer(store, "SELECT failures FROM destination_pause WHERE destination = ?1",
                     SQL_VALUES(sql_text(destination)), &failures, err))
        return false;
    failures = failures < 1000 ? failures + 1 : failures;
    int64_t wait_ms = store_backoff_ms((uint32_t)failures, STORE_BACKOFF_FIRST_MS, STORE_BACKOFF_OUTBOX_MAX_MS);
    return sql_run(store,
                   "INSERT INTO destination_pause VALUES (?1, ?2, ?3)"
                   " ON CONFLICT DO UPDATE SET failures = excluded.failures, due_ms = excluded.due_ms",
                   SQL_VALUES(sql_text(destination), sql_int(failures), sql_int(now_ms + wait_ms)), err);
}

static bool outgoing_requeue(struct store *store, const struct store_outgoing *outgoing, bool transient,
                             const char *why, int64_t now_ms, struct err *err) {
    int64_t first_ms = transient ? STORE_BACKOFF_FIRST_MS : STORE_BACKOFF_REFUSED_MS;
    int64_t wait_ms = store_backoff_ms(outgoing->attempt, first_ms, STORE_BACKOFF_OUTBOX_MAX_MS);
    if (transient && !outbox_pause(store, outgoing->destination, now_ms, err))
        return false;
    return sql_run(store, "UPDATE outbox SET state = 'queued', lease = NULL, due_ms = ?2, reason = ?3 WHERE id = ?1",
                   SQL_VALUES(sql_int(outgoing->id), sql_int(now_ms + wait_ms), sql_text(why)), err);
}

static bool outgoing_bury(struct store *store, const struct store_outgoing *outgoing, const char *why,
                          struct err *err) {
    return sql_run(store, "UPDATE outbox SET state = 'dead', lease = NULL, reason = ?2 WHERE id = ?1",
                   SQL_VALUES(sql_int(outgoing->id), sql_text(why)), err) &&
           outgoing_audit(store, outgoing, "send-dead", AUDIT_SERIOUS_FAILURE, err);
}

/* Only refusals by the peer count towards the dead letter, not the attempts that found nobody. */
bool store_outbox_failed(struct store *store, const struct store_outgoing *outgoing, bool transient, const char *why,
                         int64_t now_ms, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    int64_t refusals = 0;
    if (!sql_begin(store, &transaction, err) ||
        !sql_run(store, "UPDATE outbox SET refusals = refusals + ?3 WHERE id = ?1 AND state = 'leased' AND lease = ?2",
                 SQL_VALUES(sql_int(outgoing->id), sql_text(outgoing->lease), sql_int(!transient)), err))
        return false;
    if (sql_changes(store) == 0)
        return err_set(err, ERR_CONFLICT, "%s for %s is no longer leased to this process", outgoing->name,
                       outgoing->destination);
    if (!sql_integer(store, "SELECT refusals FROM outbox WHERE id = ?1", SQL_VALUES(sql_int(outgoing->id)), &refusals,
                     err))
        return false;
    bool done = refusals >= store->config.attempts_max ? outgoing_bury(store, outgoing, why, err)
                                                       : outgoing_requeue(store, outgoing, transient, why, now_ms, err);
    return done && sql_commit(&transaction, err);
}
