/* Reception. The order of durable writes is the promise: blob file, its folder, then the row's commit; only then true.
 * A crash before the commit leaves a blob that no row names. */
#include <stdio.h>
#include <string.h>

#include "store/association.h"
#include "store/audit.h"
#include "store/blob.h"
#include "store/contents.h"
#include "store/handle.h"
#include "store/instance.h"
#include "store/journal.h"
#include "store/retention.h"

static bool uid_check(const char *uid, const char *what, struct err *err) {
    size_t length = strnlen(uid, DICOM_UID_SIZE);
    if (!length || length >= DICOM_UID_SIZE || strspn(uid, "0123456789.") != length)
        return err_set(err, ERR_INPUT, "%s is missing or no UID (PS3.5 9.1)", what);
    return true;
}

bool instance_check(const struct instance *instance, struct err *err) {
    if (!instance->part10 || !instance->part10_size)
        return err_set(err, ERR_INPUT, "an instance without content");
    return uid_check(instance->sop_instance_uid, "SOP Instance UID", err) &&
           uid_check(instance->sop_class_uid, "SOP Class UID", err) &&
           uid_check(instance->study_uid, "Study Instance UID", err) &&
           uid_check(instance->series_uid, "Series Instance UID", err);
}

/* The study's row; its attributes are the first's, or the newest correction's. */
static bool study_touch(struct store *store, const struct instance_put *put, struct err *err) {
    const struct instance *instance = put->input.instance;
    return sql_run(store,
                   "INSERT INTO study (study_uid, patient_name, patient_id, accession_number, study_date, study_time,"
                   " description, first_received_ms, last_received_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)"
                   " ON CONFLICT DO UPDATE SET last_received_ms = ?8",
                   SQL_VALUES(sql_text(instance->study_uid), sql_text(instance->patient_name),
                              sql_text(instance->patient_id), sql_text(instance->accession_number),
                              sql_text(instance->study_date), sql_text(instance->study_time),
                              sql_text(instance->study_description), sql_int(put->now_ms)),
                   err);
}

static bool study_correct(struct store *store, const struct instance *instance, struct err *err) {
    return sql_run(store,
                   "UPDATE study SET patient_name = ?2, patient_id = ?3, accession_number = ?4, study_date = ?5,"
                   " study_time = ?6, description = ?7 WHERE study_uid = ?1",
                   SQL_VALUES(sql_text(instance->study_uid), sql_text(instance->patient_name),
                              sql_text(instance->patient_id), sql_text(instance->accession_number),
                              sql_text(instance->study_date), sql_text(instance->study_time),
                              sql_text(instance->study_description)),
                   err);
}

static bool revision_next(struct store *store, const char *study_uid, struct err *err) {
    return sql_run(store, "UPDATE study SET revision = revision + 1 WHERE study_uid = ?1",
                   SQL_VALUES(sql_text(study_uid)), err);
}

/* A correction may also move the instance to another study: the study that loses it has changed too. */
static bool current_retire(struct store *store, const struct instance *instance, struct err *err) {
    return sql_run(store,
                   "UPDATE study SET revision = revision + 1 WHERE study_uid <> ?2 AND study_uid ="
                   " (SELECT study_uid FROM instance WHERE sop_instance_uid = ?1 AND current = 1)",
                   SQL_VALUES(sql_text(instance->sop_instance_uid), sql_text(instance->study_uid)), err) &&
           sql_run(store, "UPDATE instance SET current = 0 WHERE sop_instance_uid = ?1 AND current = 1",
                   SQL_VALUES(sql_text(instance->sop_instance_uid)), err);
}

static bool instance_insert(struct store *store, const struct instance_put *put, bool current, struct err *err) {
    const struct instance *instance = put->input.instance;
    return sql_run(
        store,
        "INSERT INTO instance (sop_instance_uid, blob_sha256, blob_size, study_uid, series_uid, sop_class_uid,"
        " transfer_syntax_uid, instance_number, series_description, modality, calling_aet, called_aet,"
        " peer_address, received_ms, attributes_sha256, version, current)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
        SQL_VALUES(
            sql_text(instance->sop_instance_uid), sql_text(put->input.blob), sql_int((int64_t)instance->part10_size),
            sql_text(instance->study_uid), sql_text(instance->series_uid), sql_text(instance->sop_class_uid),
            sql_text(instance->transfer_syntax_uid), sql_int(instance->instance_number),
            sql_text(instance->series_description), sql_text(instance->modality), sql_text(instance->calling_aet),
            sql_text(instance->called_aet), sql_text(instance->peer_address), sql_int(put->now_ms),
            sql_text(put->input.attributes), sql_text(version_name(put->decision.version)), sql_int(current)),
        err);
}

/* Only a conflict and a second patient alarm; the routine ones are imports. */
static bool version_audit(struct store *store, const struct instance_put *put, struct err *err) {
    const struct instance *instance = put->input.instance;
    enum version version = put->decision.version;
    if (version == VERSION_FIRST || version == VERSION_SAME)
        return true;
    bool alarm = version == VERSION_CONFLICT || version == VERSION_FOREIGN;
    char detail[256], action[32];
    snprintf(action, sizeof action, "instance-%s", version_name(version));
    snprintf(detail, sizeof detail, "SOP Instance UID %s, content %s", instance->sop_instance_uid, put->input.blob);
    struct store_audit audit = {.code = alarm ? AUDIT_SECURITY_ALERT : AUDIT_IMPORT,
                                .action = action,
                                .actor = instance->calling_aet,
                                .address = instance->peer_address,
                                .study_uid = instance->study_uid,
                                .detail = detail,
                                .outcome = alarm ? AUDIT_MINOR_FAILURE : AUDIT_SUCCESS};
    return audit_add(store, &audit, err);
}

/* Audited once a study and sender: that it began, and that a second one sends to the same study. */
static bool source_note(struct store *store, const struct instance_put *put, struct err *err) {
    const struct instance *instance = put->input.instance;
    if (!sql_run(store, "INSERT INTO study_source VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
                 SQL_VALUES(sql_text(instance->study_uid), sql_text(instance->calling_aet),
                            sql_text(instance->peer_address), sql_int(put->now_ms)),
                 err))
        return false;
    if (sql_changes(store) == 0)
        return true;
    int64_t sources = 0;
    if (!sql_integer(store, "SELECT count(*) FROM study_source WHERE study_uid = ?1",
                     SQL_VALUES(sql_text(instance->study_uid)), &sources, err))
        return false;
    struct store_audit audit = {.code = AUDIT_BEGIN_TRANSFERRING,
                                .action = sources > 1 ? "receive-second-source" : "receive-begin",
                                .actor = instance->calling_aet,
                                .address = instance->peer_address,
                                .study_uid = instance->study_uid};
    return audit_add(store, &audit, err);
}

static bool version_store(struct store *store, struct instance_put *put, struct err *err) {
    const struct instance *instance = put->input.instance;
    bool foreign = false;
    if (put->decision.version == VERSION_FIRST && !version_is_foreign(store, instance, &foreign, err))
        return false;
    if (foreign)
        put->decision.version = VERSION_FOREIGN;
    bool corrected = put->decision.version == VERSION_CORRECTED;
    bool returned = put->decision.version == VERSION_TRANSCODED && put->decision.first_purged;
    bool current = put->decision.version == VERSION_FIRST || corrected || returned;
    return (!(corrected || returned) || current_retire(store, instance, err)) &&
           (!corrected || study_correct(store, instance, err)) && instance_insert(store, put, current, err) &&
           (!current || returned || revision_next(store, instance->study_uid, err)) &&
           (!current || retention_restore(store, instance->study_uid, put->now_ms, err));
}

/* The same image again. One that was purged, or whose content the disk has lost, is here again: with its old content
 * where that was not removed yet, else with what was just written. */
static bool version_same(struct store *store, const struct instance_put *put, struct err *err) {
    const struct instance *instance = put->input.instance;
    const struct version_decision *decision = &put->decision;
    bool kept = false;
    if (!journal_holds(store, decision->same, decision->same_size, &kept, err))
        return false;
    return sql_run(store,
                   "UPDATE instance SET blob_sha256 = ?3, blob_size = ?4, purged_ms = NULL"
                   " WHERE sop_instance_uid = ?1 AND blob_sha256 = ?2 AND (purged_ms IS NOT NULL OR blob_sha256 <> ?3)",
                   SQL_VALUES(sql_text(instance->sop_instance_uid), sql_text(decision->same),
                              sql_text(kept ? decision->same : put->input.blob),
                              sql_int(kept ? decision->same_size : (int64_t)instance->part10_size)),
                   err) &&
           (!sql_changes(store) || retention_restore(store, instance->study_uid, put->now_ms, err));
}

static bool put_rows(struct store *store, struct instance_put *put, struct err *err) {
    const struct instance *instance = put->input.instance;
    bool same = put->decision.version == VERSION_SAME;
    return study_touch(store, put, err) && (same ? version_same(store, put, err) : version_store(store, put, err)) &&
           source_note(store, put, err) && association_note(store, instance, err) && version_audit(store, put, err) &&
           sql_run(store, "DELETE FROM instance_refused WHERE sop_instance_uid = ?1",
                   SQL_VALUES(sql_text(instance->sop_instance_uid)), err);
}

/* The content that a row will name; see retention_blob_needed. */
static bool content_is_here(struct store *store, const struct instance_put *put, bool *here, struct err *err) {
    const struct version_decision *decision = &put->decision;
    *here = put->journaled ||
            blob_present(store->config.folder, put->input.blob, (int64_t)put->input.instance->part10_size);
    return *here || decision->version != VERSION_SAME ||
           journal_holds(store, decision->same, decision->same_size, here, err);
}

bool instance_rows(struct store *store, struct instance_put *put, bool *again, struct err *err) {
    int64_t known = 0;
    if (!sql_integer(store, "SELECT count(*) FROM instance WHERE sop_instance_uid = ?1",
                     SQL_VALUES(sql_text(put->input.instance->sop_instance_uid)), &known, err))
        return false;
    bool here = false;
    if (!content_is_here(store, put, &here, err))
        return false;
    *again = known != put->decision.known || !here;
    return *again || put_rows(store, put, err);
}

static bool put_commit(struct store *store, struct instance_put *put, bool *again, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    return sql_begin(store, &transaction, err) && instance_rows(store, put, again, err) &&
           (*again || sql_commit(&transaction, err));
}

static bool put_blob(struct store *store, const struct instance_put *put, struct err *err) {
    const struct instance *instance = put->input.instance;
    bool damaged = false;
    if (put->decision.version == VERSION_SAME && !contents_is_damaged(store, put->decision.same, &damaged, err))
        return false;
    if (put->decision.version == VERSION_SAME && !damaged &&
        blob_present(store->config.folder, put->decision.same, put->decision.same_size))
        return true; /* durable since its row was committed */
    return blob_put(store->config.folder, put->input.blob, instance->part10, instance->part10_size, err);
}

static bool put_try(struct store *store, const struct instance *instance, struct err *err) {
    struct instance_put put = {.now_ms = pulmo_now_ms()};
    if (!blob_room(store->config.folder, store->config.disk_reserve_bytes, instance->part10_size, err) ||
        !version_input_make(instance, &put.input, err))
        return false;
    for (int tries = 0; tries < INSTANCE_DECISIONS_MAX; tries++) {
        bool again = false;
        if (!version_decide(store, &put.input, &put.decision, err) || !put_blob(store, &put, err) ||
            !put_commit(store, &put, &again, err))
            return false;
        if (!again)
            return true;
    }
    return err_set(err, ERR_BUSY, "instance %s is being stored by too many senders at once",
                   instance->sop_instance_uid);
}

/* The sender will try again later: its study must wait for that. As far as the disk allows; the refusal itself stands.
 */
static void refusal_note(struct store *store, const struct instance *instance) {
    (void)!sql_run(
        store,
        "INSERT INTO instance_refused (sop_instance_uid, study_uid, refused_ms)"
        " SELECT ?1, study_uid, ?3 FROM study WHERE study_uid = ?2"
        " ON CONFLICT DO UPDATE SET refused_ms = excluded.refused_ms",
        SQL_VALUES(sql_text(instance->sop_instance_uid), sql_text(instance->study_uid), sql_int(pulmo_now_ms())), NULL);
}

bool instance_refuse(struct store *store, const struct instance *instance, const struct err *fault, struct err *err) {
    if (fault->kind == ERR_NO_SPACE || fault->kind == ERR_IO || fault->kind == ERR_MEMORY)
        refusal_note(store, instance);
    err_set(err, fault->kind, "%s", fault->text);
    return err_within(err, "instance %s", instance->sop_instance_uid);
}

bool store_instance_put(struct store *store, const struct instance *instance, struct err *err) {
    struct err fault = {0};
    if (!instance_check(instance, err))
        return false;
    return put_try(store, instance, &fault) || instance_refuse(store, instance, &fault, err);
}
