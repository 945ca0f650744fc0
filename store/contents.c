#include "store/contents.h"

#include <stdio.h>
#include <string.h>

#include "digest.h"
#include "store/audit.h"
#include "store/journal.h"

#define KEY "damaged "
#define KEY_SIZE (sizeof KEY + DIGEST_HEX_SIZE)

static void key_of(const char *sha256, char out[KEY_SIZE]) {
    snprintf(out, KEY_SIZE, KEY "%s", sha256);
}

bool contents_is_damaged(struct store *store, const char *sha256, bool *damaged, struct err *err) {
    char key[KEY_SIZE];
    int64_t found = 0;
    key_of(sha256, key);
    if (!sql_integer(store, "SELECT 1 FROM meta WHERE key = ?1", SQL_VALUES(sql_text(key)), &found, err))
        return false;
    *damaged = found != 0;
    return true;
}

bool contents_count_damaged(struct store *store, int64_t *count, struct err *err) {
    return sql_integer(store, "SELECT count(*) FROM meta WHERE key >= '" KEY "' AND key < 'damaged!'", SQL_NO_VALUES,
                       count, err);
}

/* An instance and its content, as its row says. */
struct content {
    char sop_instance_uid[DICOM_UID_SIZE], sha256[DIGEST_HEX_SIZE];
    int64_t size;
};

/* Remembers, or forgets, with an audit row; nothing to do when it was so already. */
static bool damage_note(struct store *store, const char *study_uid, const struct content *content, bool damaged,
                        struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    char key[KEY_SIZE], detail[192];
    key_of(content->sha256, key);
    snprintf(detail, sizeof detail, "SOP Instance UID %s, content %s", content->sop_instance_uid, content->sha256);
    struct store_audit audit = {.code = AUDIT_SECURITY_ALERT,
                                .action = damaged ? "content-damaged" : "content-whole-again",
                                .study_uid = study_uid,
                                .detail = detail,
                                .outcome = damaged ? AUDIT_SERIOUS_FAILURE : AUDIT_SUCCESS};
    if (!sql_begin(store, &transaction, err) ||
        !(damaged ? sql_run(store, "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                            SQL_VALUES(sql_text(key), sql_text(content->sop_instance_uid)), err)
                  : sql_run(store, "DELETE FROM meta WHERE key = ?1", SQL_VALUES(sql_text(key)), err)))
        return false;
    return sql_changes(store) == 0 || (audit_add(store, &audit, err) && sql_commit(&transaction, err));
}

static bool content_next(struct store *store, sqlite3_stmt *statement, struct content *out, bool *row,
                         struct err *err) {
    if (!sql_step(store, statement, row, err))
        return false;
    if (*row) {
        sql_column_text(statement, 0, out->sop_instance_uid, sizeof out->sop_instance_uid);
        sql_column_text(statement, 1, out->sha256, sizeof out->sha256);
        out->size = sqlite3_column_int64(statement, 2);
    }
    return true;
}

/* The first of a study's current instances whose content is not whole; *found = false when all are. */
static bool damage_find(struct store *store, const char *study_uid, struct content *out, bool *found, struct err *why,
                        struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(store,
                                          "SELECT sop_instance_uid, blob_sha256, blob_size FROM instance"
                                          " WHERE study_uid = ?1 AND current = 1 AND purged_ms IS NULL",
                                          SQL_VALUES(sql_text(study_uid)), err);
    *found = false;
    for (bool row = statement != NULL; row && !*found;) {
        PULMO_SCOPED(bytes_free) struct bytes bytes = {0};
        if (!content_next(store, statement, out, &row, err))
            return false;
        *found = row && !journal_read(store, out->sha256, out->size, &bytes, why);
    }
    return statement != NULL;
}

static bool damage_forget(struct store *store, const char *study_uid, struct err *err) {
    for (;;) {
        struct content content = {0};
        bool row = false;
        {
            PULMO_SCOPED(sql_done_at)
            sqlite3_stmt *statement = sql_prepare(
                store,
                "SELECT sop_instance_uid, blob_sha256, blob_size FROM meta JOIN instance"
                " ON key = '" KEY "' || blob_sha256 WHERE key >= '" KEY "' AND key < 'damaged!' AND study_uid = ?1",
                SQL_VALUES(sql_text(study_uid)), err);
            if (!statement || !content_next(store, statement, &content, &row, err))
                return false;
        }
        if (!row || !damage_note(store, study_uid, &content, false, err))
            return !row;
    }
}

bool store_study_verify(struct store *store, const char *study_uid, struct err *err) {
    struct content content = {0};
    struct err why = {0}, ignored = {0};
    bool damaged = false;
    if (!damage_find(store, study_uid, &content, &damaged, &why, err))
        return false;
    if (!damaged)
        return damage_forget(store, study_uid, err);
    bool of_content = why.kind == ERR_IO; /* not of a lack of memory */
    if (of_content && !damage_note(store, study_uid, &content, true, &ignored))
        return err_set(err, ignored.kind, "%s", ignored.text);
    err_set(err, why.kind, "%s", why.text);
    return err_within(err, "instance %s", content.sop_instance_uid);
}
