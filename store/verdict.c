#include "store/verdict.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "store/audit.h"
#include "store/handle.h"

#define ADDED_FIRST 10001
#define VERDICTS_MAX 20000

bool verdict_open(struct store *store, int64_t result_id, char study_uid[DICOM_UID_SIZE], struct err *err) {
    struct store_result result;
    int64_t signing = 0;
    if (!store_result_get(store, result_id, &result, err) ||
        !sql_integer(store, "SELECT 1 FROM job WHERE result_id = ?1 AND kind = 3 AND state IN ('queued', 'leased')",
                     SQL_VALUES(sql_int(result_id)), &signing, err))
        return false;
    if (result.superseded_by)
        return err_set(err, ERR_CONFLICT, "result %lld is superseded by result %lld", (long long)result_id,
                       (long long)result.superseded_by);
    if (result.signed_by_reader || signing)
        return err_set(err, ERR_CONFLICT, "result %lld is %s", (long long)result_id,
                       signing ? "being signed" : "signed already");
    memcpy(study_uid, result.study_uid, sizeof result.study_uid);
    return true;
}

static bool is(const struct store_verdict *verdict, const char *word) {
    return strncmp(verdict->verdict, word, sizeof verdict->verdict) == 0;
}

static bool finding_known(struct store *store, int64_t result_id, uint32_t finding_id, int64_t *known,
                          struct err *err) {
    if (finding_id >= ADDED_FIRST)
        return sql_integer(store,
                           "SELECT 1 FROM verdict WHERE result_id = ?1 AND finding_id = ?2 AND verdict = 'added'",
                           SQL_VALUES(sql_int(result_id), sql_int(finding_id)), known, err);
    return sql_integer(store,
                       "SELECT 1 FROM result, json_each(summary_json, '$.findings') AS finding"
                       " WHERE result.id = ?1 AND json_extract(finding.value, '$.id') = ?2",
                       SQL_VALUES(sql_int(result_id), sql_int(finding_id)), known, err);
}

static bool added_check(const struct store_verdict *verdict, struct err *err) {
    const double *center = verdict->center_lps_mm;
    if (verdict->finding_id != 0)
        return err_set(err, ERR_INPUT, "an added finding gets its id from the store");
    if (!isfinite(center[0]) || !isfinite(center[1]) || !isfinite(center[2]) || !(verdict->diameter_mm > 0) ||
        !(verdict->diameter_mm <= 300))
        return err_set(err, ERR_INPUT, "an added finding needs a place and a diameter of at most 300 mm");
    return true;
}

static bool verdict_check(struct store *store, int64_t result_id, const struct store_verdict *verdict,
                          struct err *err) {
    if (!memchr(verdict->user, '\0', sizeof verdict->user) || !verdict->user[0])
        return err_set(err, ERR_INPUT, "a verdict needs its reader");
    if (is(verdict, "added"))
        return added_check(verdict, err);
    bool on_added = is(verdict, "removed");
    if (!on_added && !is(verdict, "accepted") && !is(verdict, "rejected") && !is(verdict, "none"))
        return err_set(err, ERR_INPUT, "'%.12s' is no verdict", verdict->verdict);
    int64_t known = 0;
    if (!finding_known(store, result_id, verdict->finding_id, &known, err))
        return false;
    if (!known || on_added != (verdict->finding_id >= ADDED_FIRST))
        return err_set(err, ERR_NOT_FOUND, "result %lld has no %s finding %u", (long long)result_id,
                       on_added ? "added" : "detected", verdict->finding_id);
    return true;
}

static bool finding_next(struct store *store, int64_t result_id, struct store_verdict *verdict, struct err *err) {
    int64_t next = 0;
    if (!sql_integer(store, "SELECT max(coalesce(max(finding_id), 0) + 1, ?2) FROM verdict WHERE result_id = ?1",
                     SQL_VALUES(sql_int(result_id), sql_int(ADDED_FIRST)), &next, err))
        return false;
    verdict->finding_id = (uint32_t)next;
    return true;
}

static bool verdict_insert(struct store *store, int64_t result_id, const struct store_verdict *verdict,
                           struct err *err) {
    return sql_run(
        store,
        "INSERT INTO verdict (result_id, finding_id, verdict, x_mm, y_mm, z_mm, diameter_mm, user, created_ms)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        SQL_VALUES(sql_int(result_id), sql_int(verdict->finding_id), sql_text(verdict->verdict),
                   sql_real(verdict->center_lps_mm[0]), sql_real(verdict->center_lps_mm[1]),
                   sql_real(verdict->center_lps_mm[2]), sql_real(verdict->diameter_mm), sql_text(verdict->user),
                   sql_int(verdict->created_ms)),
        err);
}

static bool verdict_audit(struct store *store, int64_t result_id, const char *study_uid,
                          const struct store_verdict *verdict, struct err *err) {
    char action[32], detail[96];
    snprintf(action, sizeof action, "verdict-%s", verdict->verdict);
    snprintf(detail, sizeof detail, "result %lld, finding %u", (long long)result_id, verdict->finding_id);
    struct store_audit audit = {.code = AUDIT_INSTANCES_ACCESSED,
                                .action = action,
                                .actor = verdict->user,
                                .study_uid = study_uid,
                                .detail = detail};
    return audit_add(store, &audit, err);
}

bool store_verdict_put(struct store *store, int64_t result_id, struct store_verdict *inout, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    char study_uid[DICOM_UID_SIZE];
    struct store_verdict verdict = *inout;
    verdict.created_ms = pulmo_now_ms();
    if (!sql_begin(store, &transaction, err) || !verdict_open(store, result_id, study_uid, err) ||
        !verdict_check(store, result_id, &verdict, err))
        return false;
    if (is(&verdict, "added") && !finding_next(store, result_id, &verdict, err))
        return false;
    if (!verdict_insert(store, result_id, &verdict, err) ||
        !verdict_audit(store, result_id, study_uid, &verdict, err) || !sql_commit(&transaction, err))
        return false;
    *inout = verdict;
    return true;
}

static void verdict_row(sqlite3_stmt *statement, struct store_verdict *out) {
    out->finding_id = (uint32_t)sqlite3_column_int64(statement, 0);
    sql_column_text(statement, 1, out->verdict, sizeof out->verdict);
    for (int axis = 0; axis < 3; axis++)
        out->center_lps_mm[axis] = sqlite3_column_double(statement, 2 + axis);
    out->diameter_mm = sqlite3_column_double(statement, 5);
    sql_column_text(statement, 6, out->user, sizeof out->user);
    out->created_ms = sqlite3_column_int64(statement, 7);
}

#define VERDICTS_LAST                                                                    \
    " FROM verdict WHERE result_id = ?1 AND verdict NOT IN ('none', 'removed') AND id =" \
    " (SELECT max(id) FROM verdict AS later WHERE later.result_id = ?1 AND later.finding_id = verdict.finding_id)"

bool store_verdict_list(struct store *store, int64_t result_id, struct store_verdict **out, size_t *count,
                        struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    int64_t rows = 0;
    if (!sql_begin_read(store, &transaction, err) ||
        !sql_integer(store, "SELECT count(*)" VERDICTS_LAST, SQL_VALUES(sql_int(result_id)), &rows, err))
        return false;
    if (rows > VERDICTS_MAX)
        return err_set(err, ERR_LIMIT, "result %lld has more than %d verdicts", (long long)result_id, VERDICTS_MAX);
    PULMO_SCOPED(pulmo_free_at) struct store_verdict *verdicts = pulmo_alloc((size_t)rows, sizeof *verdicts, err);
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement =
        sql_prepare(store,
                    "SELECT finding_id, verdict, x_mm, y_mm, z_mm, diameter_mm, user, created_ms" VERDICTS_LAST
                    " ORDER BY finding_id",
                    SQL_VALUES(sql_int(result_id)), err);
    if (!verdicts || !statement)
        return false;
    for (int64_t index = 0; index < rows; index++) {
        bool row = false;
        if (!sql_step(store, statement, &row, err))
            return false;
        verdict_row(statement, &verdicts[index]);
    }
    *out = verdicts;
    *count = (size_t)rows;
    verdicts = NULL;
    return true;
}
