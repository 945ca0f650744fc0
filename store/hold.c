/* Studies that are kept whatever the settings say; how full the disk is; sentences for the administrator. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "store/audit.h"
#include "store/handle.h"

#define REASON_BYTES_MAX 200

static bool study_known(struct store *store, const char *study_uid, struct err *err) {
    int64_t known = 0;
    if (!sql_integer(store, "SELECT 1 FROM study WHERE study_uid = ?1", SQL_VALUES(sql_text(study_uid)), &known, err))
        return false;
    return known || err_set(err, ERR_NOT_FOUND, "there is no study %s", study_uid);
}

/* The reason is a person's sentence and may name a patient: it stays out of the audit. */
static bool hold_audit(struct store *store, const char *study_uid, const char *action, const char *actor,
                       struct err *err) {
    struct store_audit audit = {
        .code = AUDIT_INSTANCES_ACCESSED, .action = action, .actor = actor, .study_uid = study_uid};
    return audit_add(store, &audit, err);
}

bool store_study_hold(struct store *store, const char *study_uid, const char *reason, const char *actor,
                      struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    if (strlen(reason) > REASON_BYTES_MAX)
        return err_set(err, ERR_INPUT, "a reason has at most %d bytes", REASON_BYTES_MAX);
    return sql_begin(store, &transaction, err) && study_known(store, study_uid, err) &&
           sql_run(store,
                   "INSERT INTO hold VALUES (?1, ?2, ?3, ?4)"
                   " ON CONFLICT DO UPDATE SET reason = excluded.reason, actor = excluded.actor",
                   SQL_VALUES(sql_text(study_uid), sql_text(reason), sql_text(actor), sql_int(pulmo_now_ms())), err) &&
           hold_audit(store, study_uid, "hold", actor, err) && sql_commit(&transaction, err);
}

bool store_study_release(struct store *store, const char *study_uid, const char *actor, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    if (!sql_begin(store, &transaction, err) || !study_known(store, study_uid, err) ||
        !sql_run(store, "DELETE FROM hold WHERE study_uid = ?1", SQL_VALUES(sql_text(study_uid)), err))
        return false;
    if (sql_changes(store) == 0)
        return err_set(err, ERR_NOT_FOUND, "study %s is not held", study_uid);
    return hold_audit(store, study_uid, "release", actor, err) && sql_commit(&transaction, err);
}

bool store_notice_get(struct store *store, const char *subject, char *out, size_t size, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement =
        sql_prepare(store, "SELECT text FROM notice WHERE subject = ?1", SQL_VALUES(sql_text(subject)), err);
    bool row = false;
    if (!statement || !sql_step(store, statement, &row, err))
        return false;
    out[0] = '\0';
    if (row)
        sql_column_text(statement, 0, out, size);
    return true;
}

bool store_notice_put(struct store *store, const char *subject, const char *text, bool *changed, struct err *err) {
    char known[512];
    if (!store_notice_get(store, subject, known, sizeof known, err))
        return false;
    *changed = strcmp(known, text) != 0;
    if (!*changed) /* said already: no write */
        return true;
    if (!*text)
        return sql_run(store, "DELETE FROM notice WHERE subject = ?1", SQL_VALUES(sql_text(subject)), err);
    return sql_run(store,
                   "INSERT INTO notice VALUES (?1, ?2, ?3)"
                   " ON CONFLICT DO UPDATE SET text = excluded.text, since_ms = excluded.since_ms",
                   SQL_VALUES(sql_text(subject), sql_text(text), sql_int(pulmo_now_ms())), err);
}

bool store_disk_used_percent(struct store *store, double *percent, struct err *err) {
    struct statvfs status;
    if (statvfs(store->config.folder, &status) != 0)
        return err_set(err, ERR_IO, "cannot ask for the free space of %s: %s", store->config.folder, strerror(errno));
    double used = (double)(status.f_blocks - status.f_bfree), all = used + (double)status.f_bavail;
    *percent = all > 0 ? 100 * used / all : 100;
    return true;
}
