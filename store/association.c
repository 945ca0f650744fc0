#include "store/association.h"

#include <stdio.h>

#include "store/audit.h"
#include "store/handle.h"

/* An instance without the id of its association (older sinks) is matched by who sent it from where. */
static bool association_find(struct store *store, const struct instance *instance, int64_t *id, struct err *err) {
    return sql_integer(store,
                       "SELECT association_id FROM association WHERE association_id = ?1"
                       " OR (?1 = 0 AND ?2 <> '' AND calling_aet = ?2 AND peer_address = ?3)"
                       " ORDER BY opened_ms DESC LIMIT 1",
                       SQL_VALUES(sql_int((int64_t)instance->association_id), sql_text(instance->calling_aet),
                                  sql_text(instance->peer_address)),
                       id, err);
}

bool association_note(struct store *store, const struct instance *instance, struct err *err) {
    int64_t id = 0;
    if (!association_find(store, instance, &id, err))
        return false;
    if (!id)
        return true;
    return sql_run(store,
                   "INSERT INTO association_study (association_id, study_uid, instances) VALUES (?1, ?2, 1)"
                   " ON CONFLICT DO UPDATE SET instances = instances + 1",
                   SQL_VALUES(sql_int(id), sql_text(instance->study_uid)), err) &&
           sql_run(store, "UPDATE association SET last_study_uid = ?2 WHERE association_id = ?1",
                   SQL_VALUES(sql_int(id), sql_text(instance->study_uid)), err);
}

/* One audit row a study that an association sent to; columns: study, instances, calling AE title, address. */
static bool transfer_audit(struct store *store, sqlite3_stmt *statement, bool interrupted, struct err *err) {
    char study_uid[DICOM_UID_SIZE], calling_aet[DICOM_AET_SIZE], address[64], detail[64];
    sql_column_text(statement, 0, study_uid, sizeof study_uid);
    sql_column_text(statement, 2, calling_aet, sizeof calling_aet);
    sql_column_text(statement, 3, address, sizeof address);
    snprintf(detail, sizeof detail, "%lld instances", (long long)sqlite3_column_int64(statement, 1));
    struct store_audit audit = {.code = AUDIT_INSTANCES_TRANSFERRED,
                                .action = interrupted ? "receive-interrupted" : "receive",
                                .actor = calling_aet,
                                .address = address,
                                .study_uid = study_uid,
                                .detail = detail,
                                .outcome = interrupted ? AUDIT_MINOR_FAILURE : AUDIT_SUCCESS};
    return audit_add(store, &audit, err);
}

static bool association_end(struct store *store, int64_t id, bool interrupted, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement =
        sql_prepare(store,
                    "SELECT study_uid, instances, calling_aet, peer_address FROM association_study"
                    " JOIN association USING (association_id) WHERE association_id = ?1",
                    SQL_VALUES(sql_int(id)), err);
    if (!statement)
        return false;
    for (bool row = true; row;) {
        if (!sql_step(store, statement, &row, err) || (row && !transfer_audit(store, statement, interrupted, err)))
            return false;
    }
    return sql_run(store, "DELETE FROM association WHERE association_id = ?1", SQL_VALUES(sql_int(id)), err);
}

bool store_association_opened(struct store *store, uint64_t association_id, const char *calling_aet,
                              const char *peer_address, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    int64_t id = (int64_t)association_id;
    return sql_begin(store, &transaction, err) && association_end(store, id, true, err) &&
           sql_run(store,
                   "INSERT INTO association (association_id, calling_aet, peer_address, opened_ms)"
                   " VALUES (?1, ?2, ?3, ?4)",
                   SQL_VALUES(sql_int(id), sql_text(calling_aet ? calling_aet : ""),
                              sql_text(peer_address ? peer_address : ""), sql_int(pulmo_now_ms())),
                   err) &&
           sql_commit(&transaction, err);
}

bool store_association_closed(struct store *store, uint64_t association_id, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    return sql_begin(store, &transaction, err) && association_end(store, (int64_t)association_id, false, err) &&
           sql_commit(&transaction, err);
}

bool store_associations_reset(struct store *store, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    if (!sql_begin(store, &transaction, err))
        return false;
    for (int64_t count = 1;;) {
        int64_t id = 0;
        if (!sql_integer(store, "SELECT count(*) FROM association", SQL_NO_VALUES, &count, err))
            return false;
        if (!count)
            return sql_commit(&transaction, err);
        if (!sql_integer(store, "SELECT min(association_id) FROM association", SQL_NO_VALUES, &id, err) ||
            !association_end(store, id, true, err))
            return false;
    }
}
