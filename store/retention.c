/* Purging images, oldest first: the rows are marked and the audit row is written in one transaction, the files are
 * removed after its commit, from a list that the same transaction wrote. A crash at any point leaves a study that is
 * whole, or one that is marked and whose files are removed at the next start; removing twice is removing once. */
#include "store/retention.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "store/audit.h"
#include "store/blob.h"
#include "store/complete.h"
#include "store/handle.h"
#include "store/journal.h"
#include "store/version.h"

#define REMOVE_BATCH 16 /* files in one write transaction: receivers wait for it */

/* ---- what may go ------------------------------------------------------------------------------------- */

/* Every destination that got the result, of those that are asked to confirm (?1, JSON), has confirmed this very state;
 * at least one has. ?2 = confirmed, and received, no later. */
#define CONFIRMED                                                                                     \
    " standing = 'signed' AND last_received_ms <= ?2"                                                 \
    " AND EXISTS (SELECT 1 FROM confirmation WHERE confirmation.study_uid = retention.study_uid"      \
    "  AND destination_now(destination) IN (SELECT value FROM json_each(?1)))"                        \
    " AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.result_id = retention.result_id"              \
    "  AND destination_now(destination) IN (SELECT value FROM json_each(?1))"                         \
    "  AND NOT EXISTS (SELECT 1 FROM confirmation WHERE confirmation.study_uid = retention.study_uid" \
    "   AND destination_now(confirmation.destination) = destination_now(outbox.destination)"          \
    "   AND state = 'confirmed' AND study_revision = revision"                                        \
    "   AND outbox_id >= outbox.id AND confirmed_ms <= ?2))"

static bool eligible_find(struct store *store, int64_t confirmed_before_ms, char study_uid[DICOM_UID_SIZE],
                          struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(
        store, "SELECT study_uid FROM retention WHERE" CONFIRMED " ORDER BY last_received_ms, study_uid LIMIT 1",
        SQL_VALUES(sql_text(store->confirming), sql_int(confirmed_before_ms)), err);
    bool row = false;
    if (!statement || !sql_step(store, statement, &row, err))
        return false;
    study_uid[0] = '\0';
    if (row)
        sql_column_text(statement, 0, study_uid, DICOM_UID_SIZE);
    return true;
}

static bool eligible_still(struct store *store, int64_t confirmed_before_ms, const char *study_uid, bool *still,
                           struct err *err) {
    int64_t found = 0;
    if (!sql_integer(store, "SELECT 1 FROM retention WHERE study_uid = ?3 AND" CONFIRMED,
                     SQL_VALUES(sql_text(store->confirming), sql_int(confirmed_before_ms), sql_text(study_uid)), &found,
                     err))
        return false;
    *still = found != 0;
    return true;
}

bool store_retention_counts(struct store *store, struct store_retention_counts *out, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(
        store,
        "SELECT coalesce(sum(" CONFIRMED "), 0), coalesce(sum(standing = 'held'), 0),"
        " coalesce(sum(standing IN ('unsigned', 'without result')), 0), coalesce(sum(standing = 'in work'), 0),"
        " coalesce(sum(standing = 'in conflict'), 0), coalesce(sum(standing = 'signed'), 0),"
        " (SELECT count(*) FROM study WHERE purged_ms IS NOT NULL) FROM retention",
        SQL_VALUES(sql_text(store->confirming), sql_int(INT64_MAX)), err);
    bool row = false;
    if (!statement || !sql_step(store, statement, &row, err))
        return false;
    int64_t eligible = sqlite3_column_int64(statement, 0);
    *out = (struct store_retention_counts){.eligible = eligible,
                                           .held = sqlite3_column_int64(statement, 1),
                                           .unsigned_results = sqlite3_column_int64(statement, 2),
                                           .in_work = sqlite3_column_int64(statement, 3),
                                           .in_conflict = sqlite3_column_int64(statement, 4),
                                           .unconfirmed = sqlite3_column_int64(statement, 5) - eligible,
                                           .purged = sqlite3_column_int64(statement, 6)};
    return true;
}

/* ---- marking ----------------------------------------------------------------------------------------- */

struct image {
    char sop_instance_uid[DICOM_UID_SIZE], blob[DIGEST_HEX_SIZE];
    char dataset[DIGEST_HEX_SIZE], pixels[DIGEST_HEX_SIZE]; /* "" = could not be read */
    int64_t size;
};
struct images {
    struct image *items;
    size_t count;
};

static void images_free(struct images *images) {
    free(images->items);
}

static bool images_read(struct store *store, const char *study_uid, struct images *out, struct err *err) {
    int64_t count = 0;
    if (!sql_integer(store, "SELECT count(*) FROM instance WHERE study_uid = ?1 AND purged_ms IS NULL",
                     SQL_VALUES(sql_text(study_uid)), &count, err))
        return false;
    out->items = pulmo_alloc((size_t)count, sizeof *out->items, err);
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(
        store,
        "SELECT sop_instance_uid, blob_sha256, blob_size FROM instance WHERE study_uid = ?1 AND purged_ms IS NULL",
        SQL_VALUES(sql_text(study_uid)), err);
    if (!out->items || !statement)
        return false;
    for (bool row = true; row && out->count < (size_t)count;) {
        struct image *image = &out->items[out->count];
        if (!sql_step(store, statement, &row, err))
            return false;
        if (!row)
            break;
        sql_column_text(statement, 0, image->sop_instance_uid, sizeof image->sop_instance_uid);
        sql_column_text(statement, 1, image->blob, sizeof image->blob);
        image->size = sqlite3_column_int64(statement, 2);
        out->count++;
    }
    return true;
}

/* What tells the image when it is sent again. One that the disk has lost already, or that nothing decodes, goes
 * without: sent again it is a conflict, which keeps it and tells a human. */
static void image_digest(struct store *store, struct image *image) {
    PULMO_SCOPED(bytes_free) struct bytes content = {0};
    struct err ignored = {0};
    if (!blob_read(store->config.folder, image->blob, image->size, &content, &ignored))
        return;
    if (!version_dataset_digest(content.data, content.size, image->dataset, &ignored))
        image->dataset[0] = '\0';
    if (!store->pixel_digest || !store->pixel_digest(content.data, content.size, image->pixels, &ignored))
        image->pixels[0] = '\0';
}

static const char *or_null(const char *text) {
    return *text ? text : NULL;
}

static bool image_mark(struct store *store, const struct image *image, int64_t now_ms, struct err *err) {
    return sql_run(store,
                   "UPDATE instance SET purged_ms = ?3, dataset_sha256 = ?4, pixels_sha256 = ?5"
                   " WHERE sop_instance_uid = ?1 AND blob_sha256 = ?2",
                   SQL_VALUES(sql_text(image->sop_instance_uid), sql_text(image->blob), sql_int(now_ms),
                              sql_text(or_null(image->dataset)), sql_text(or_null(image->pixels))),
                   err) &&
           sql_run(store, "INSERT INTO blob_purge VALUES (?1) ON CONFLICT DO NOTHING",
                   SQL_VALUES(sql_text(image->blob)), err);
}

/* What was decoded of the images goes with them; what was found in them stays. */
static bool derived_mark(struct store *store, const char *study_uid, struct err *err) {
    return sql_run(store,
                   "INSERT INTO blob_purge SELECT DISTINCT blob_sha256 FROM study_artifact WHERE study_uid = ?1"
                   " ON CONFLICT DO NOTHING",
                   SQL_VALUES(sql_text(study_uid)), err) &&
           sql_run(store, "DELETE FROM study_artifact WHERE study_uid = ?1", SQL_VALUES(sql_text(study_uid)), err);
}

static bool purge_audit(struct store *store, const struct store_purged *purged, const char *why, struct err *err) {
    char detail[160];
    snprintf(detail, sizeof detail, "%lld images, %lld bytes, %s; results and reports are kept",
             (long long)purged->images, (long long)purged->bytes, why);
    struct store_audit audit = {
        .code = AUDIT_STUDY_DELETED, .action = "purge", .study_uid = purged->study_uid, .detail = detail};
    return audit_add(store, &audit, err);
}

/* *purged->study_uid stays empty when the study is no longer what it was when its images were digested. */
static bool purge_rows(struct store *store, const struct store_purge_rule *rule, const struct images *images,
                       struct store_purged *purged, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    int64_t now_ms = pulmo_now_ms(), count = 0;
    bool still = false;
    if (!sql_begin(store, &transaction, err) ||
        !eligible_still(store, rule->confirmed_before_ms, purged->study_uid, &still, err) ||
        !sql_integer(store, "SELECT count(*) FROM instance WHERE study_uid = ?1 AND purged_ms IS NULL",
                     SQL_VALUES(sql_text(purged->study_uid)), &count, err))
        return false;
    if (!still || count != (int64_t)images->count) {
        purged->study_uid[0] = '\0';
        return true;
    }
    for (size_t index = 0; index < images->count; index++)
        if (!image_mark(store, &images->items[index], now_ms, err))
            return false;
    return derived_mark(store, purged->study_uid, err) &&
           sql_run(store, "UPDATE study SET purged_ms = ?2 WHERE study_uid = ?1",
                   SQL_VALUES(sql_text(purged->study_uid), sql_int(now_ms)), err) &&
           purge_audit(store, purged, rule->why, err) && sql_commit(&transaction, err);
}

/* What still lies in the reception journal would be a file again when it is moved on: only files are given up. */
static bool from_journal(struct store *store, const char *study_uid, struct err *err) {
    bool waiting = false;
    return journal_holds_study(store, study_uid, &waiting, err) &&
           (!waiting || journal_checkpoint_study(store, study_uid, err));
}

bool store_retention_purge(struct store *store, const struct store_purge_rule *rule, struct store_purged *out,
                           struct err *err) {
    PULMO_SCOPED(images_free) struct images images = {0};
    struct store_purged purged = {0};
    if (!eligible_find(store, rule->confirmed_before_ms, purged.study_uid, err))
        return false;
    if (*purged.study_uid && !from_journal(store, purged.study_uid, err))
        return false;
    if (*purged.study_uid && !images_read(store, purged.study_uid, &images, err))
        return false;
    for (size_t index = 0; index < images.count; index++) {
        image_digest(store, &images.items[index]);
        purged.bytes += images.items[index].size;
        purged.images++;
    }
    if (*purged.study_uid && !purge_rows(store, rule, &images, &purged, err))
        return false;
    *out = purged;
    return true;
}

/* ---- removing files ---------------------------------------------------------------------------------- */

bool retention_blob_needed(struct store *store, const char *sha256, bool *needed, struct err *err) {
    int64_t found = 0;
    if (!sql_integer(store,
                     "SELECT EXISTS (SELECT 1 FROM instance WHERE blob_sha256 = ?1 AND purged_ms IS NULL)"
                     " OR EXISTS (SELECT 1 FROM artifact WHERE blob_sha256 = ?1)"
                     " OR EXISTS (SELECT 1 FROM study_artifact WHERE blob_sha256 = ?1)"
                     " OR EXISTS (SELECT 1 FROM model_file WHERE blob_sha256 = ?1)",
                     SQL_VALUES(sql_text(sha256)), &found, err))
        return false;
    *needed = found != 0;
    return true;
}

bool retention_blob_remove(struct store *store, const char *sha256, bool *removed, struct err *err) {
    char path[BLOB_PATH_SIZE];
    bool needed = true;
    *removed = false;
    if (!retention_blob_needed(store, sha256, &needed, err) || !blob_path(store->config.folder, sha256, path, err))
        return false;
    if (needed)
        return true;
    *removed = unlink(path) == 0;
    return *removed || errno == ENOENT || err_set(err, ERR_IO, "cannot remove %s: %s", path, strerror(errno));
}

static bool batch_read(struct store *store, char names[REMOVE_BATCH][DIGEST_HEX_SIZE], size_t *count, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement =
        sql_prepare(store, "SELECT blob_sha256 FROM blob_purge LIMIT ?1", SQL_VALUES(sql_int(REMOVE_BATCH)), err);
    if (!statement)
        return false;
    for (bool row = true; row && *count < REMOVE_BATCH;) {
        if (!sql_step(store, statement, &row, err))
            return false;
        if (row)
            sql_column_text(statement, 0, names[(*count)++], DIGEST_HEX_SIZE);
    }
    return true;
}

/* The entry of the list goes after the file: a crash between the two removes nothing twice and forgets nothing. */
static bool batch_remove(struct store *store, bool *more, int64_t *removed, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    char names[REMOVE_BATCH][DIGEST_HEX_SIZE];
    size_t count = 0;
    if (!sql_begin(store, &transaction, err) || !batch_read(store, names, &count, err))
        return false;
    for (size_t index = 0; index < count; index++) {
        bool gone = false;
        if (!retention_blob_remove(store, names[index], &gone, err) ||
            !sql_run(store, "DELETE FROM blob_purge WHERE blob_sha256 = ?1", SQL_VALUES(sql_text(names[index])), err))
            return false;
        *removed += gone;
    }
    *more = count == REMOVE_BATCH;
    return sql_commit(&transaction, err);
}

bool store_retention_remove(struct store *store, int64_t *removed, struct err *err) {
    PULMO_SCOPED(retention_unlock_at) int lock = -1;
    int64_t waiting = 0;
    *removed = 0;
    if (!sql_integer(store, "SELECT 1 FROM blob_purge LIMIT 1", SQL_NO_VALUES, &waiting, err))
        return false;
    if (!waiting) /* a look that finds nothing takes no lock */
        return true;
    if (!retention_lock(store, &lock, err))
        return false;
    for (bool more = lock >= 0; more;)
        if (!batch_remove(store, &more, removed, err))
            return false;
    return true;
}

bool retention_lock(struct store *store, int *lock, struct err *err) {
    char path[BLOB_PATH_SIZE];
    snprintf(path, sizeof path, "%s/purge.lock", store->config.folder);
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (file < 0)
        return err_set(err, ERR_IO, "cannot open %s: %s", path, strerror(errno));
    if (flock(file, LOCK_EX | LOCK_NB) == 0) {
        *lock = file;
        return true;
    }
    bool held = errno == EWOULDBLOCK;
    close(file);
    return held || err_set(err, ERR_IO, "cannot lock %s: %s", path, strerror(errno));
}

void retention_unlock_at(int *lock) {
    if (*lock >= 0)
        close(*lock);
}

/* ---- sent again -------------------------------------------------------------------------------------- */

bool retention_restore(struct store *store, const char *study_uid, int64_t now_ms, struct err *err) {
    if (!sql_run(store,
                 "UPDATE study SET purged_ms = NULL WHERE study_uid = ?1 AND purged_ms IS NOT NULL"
                 " AND NOT EXISTS (SELECT 1 FROM instance WHERE instance.study_uid = ?1 AND current = 1"
                 "  AND purged_ms IS NOT NULL)",
                 SQL_VALUES(sql_text(study_uid)), err))
        return false;
    if (sql_changes(store) == 0)
        return true;
    struct store_audit audit = {.code = AUDIT_IMPORT, .action = "restore", .study_uid = study_uid};
    return complete_decode(store, study_uid, now_ms, err) && audit_add(store, &audit, err);
}
