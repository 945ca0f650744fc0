/* Models that were installed: rows beside contents, as with results. Which one is in use is a stack of promotions, so
 * that a rollback is one row and the audit trail tells each step. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/audit.h"
#include "store/blob.h"
#include "store/disk.h"
#include "store/handle.h"
#include "store/model.h"

#define MODEL_PREFIX_MIN 4
#define MODELS_MAX 4096

/* ---- audit ------------------------------------------------------------------------------------------- */

bool model_audit(struct store *store, const char *action, const char *actor, const char *detail, struct err *err) {
    const struct store_audit audit = {.code = AUDIT_APPLICATION, .action = action, .actor = actor, .detail = detail};
    return audit_add(store, &audit, err);
}

/* ---- reading ----------------------------------------------------------------------------------------- */

bool model_digest(struct store *store, const char *sql, char sha256[65], struct err *err) {
    PULMO_SCOPED(sql_done_at) sqlite3_stmt *statement = sql_prepare(store, sql, SQL_NO_VALUES, err);
    bool row = false;
    if (!statement || !sql_step(store, statement, &row, err))
        return false;
    sha256[0] = '\0';
    if (row)
        sql_column_text(statement, 0, sha256, DIGEST_HEX_SIZE);
    return true;
}

bool store_model_active(struct store *store, char sha256[65], struct err *err) {
    return model_digest(
        store, "SELECT model_sha256 FROM model_promotion WHERE rolled_back_ms IS NULL ORDER BY id DESC LIMIT 1", sha256,
        err);
}

#define MODEL_COLUMNS                                                                                               \
    "SELECT model.model_sha256, model.name, version, model.actor, installed_ms,"                                    \
    " CASE WHEN model.model_sha256 = (SELECT model_sha256 FROM model_promotion WHERE rolled_back_ms IS NULL"        \
    "   ORDER BY id DESC LIMIT 1) THEN 'active'"                                                                    \
    "  WHEN EXISTS (SELECT 1 FROM model_shadow WHERE model_shadow.model_sha256 = model.model_sha256) THEN 'shadow'" \
    "  WHEN EXISTS (SELECT 1 FROM model_promotion WHERE model_promotion.model_sha256 = model.model_sha256)"         \
    "  THEN 'former' ELSE 'installed' END,"                                                                         \
    " coalesce((SELECT max(promoted_ms) FROM model_promotion"                                                       \
    "  WHERE model_promotion.model_sha256 = model.model_sha256), 0),"                                               \
    " (SELECT count(*) FROM result WHERE result.model_sha256 = model.model_sha256),"                                \
    " (SELECT count(*) FROM model_file WHERE model_file.model_sha256 = model.model_sha256),"                        \
    " (SELECT coalesce(sum(blob_size), 0) FROM model_file WHERE model_file.model_sha256 = model.model_sha256)"      \
    " FROM model"

static void model_row(sqlite3_stmt *statement, struct store_model *out) {
    *out = (struct store_model){.installed_ms = sqlite3_column_int64(statement, 4),
                                .promoted_ms = sqlite3_column_int64(statement, 6),
                                .results = sqlite3_column_int64(statement, 7),
                                .files = sqlite3_column_int64(statement, 8),
                                .size_bytes = sqlite3_column_int64(statement, 9)};
    sql_column_text(statement, 0, out->sha256, sizeof out->sha256);
    sql_column_text(statement, 1, out->name, sizeof out->name);
    sql_column_text(statement, 2, out->version, sizeof out->version);
    sql_column_text(statement, 3, out->actor, sizeof out->actor);
    sql_column_text(statement, 5, out->state, sizeof out->state);
}

bool store_model_list(struct store *store, struct store_model **out, size_t *count, struct err *err) {
    int64_t rows = 0;
    if (!sql_integer(store, "SELECT min(count(*), ?1) FROM model", SQL_VALUES(sql_int(MODELS_MAX)), &rows, err))
        return false;
    PULMO_SCOPED(pulmo_free_at) struct store_model *list = pulmo_alloc((size_t)rows + 1, sizeof *list, err);
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement =
        sql_prepare(store, MODEL_COLUMNS " ORDER BY installed_ms, model.model_sha256", SQL_NO_VALUES, err);
    if (!list || !statement)
        return false;
    *count = 0;
    for (bool row = true; *count < (size_t)rows;) {
        if (!sql_step(store, statement, &row, err))
            return false;
        if (!row)
            break;
        model_row(statement, &list[(*count)++]);
    }
    *out = list;
    list = NULL;
    return true;
}

bool store_model_find(struct store *store, const char *prefix, struct store_model *out, struct err *err) {
    size_t size = strlen(prefix);
    if (size < MODEL_PREFIX_MIN || size >= DIGEST_HEX_SIZE || strspn(prefix, "0123456789abcdef") != size)
        return err_set(err, ERR_INPUT,
                       "\"%.80s\" is no digest of a model nor the beginning of one (at least %d digits)", prefix,
                       MODEL_PREFIX_MIN);
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(store, MODEL_COLUMNS " WHERE substr(model.model_sha256, 1, length(?1)) = ?1",
                                          SQL_VALUES(sql_text(prefix)), err);
    struct store_model found = {.files = 0};
    bool row = false, more = false;
    if (!statement || !sql_step(store, statement, &row, err))
        return false;
    if (!row)
        return err_set(err, ERR_NOT_FOUND, "no model %s is installed (pulmo model list)", prefix);
    model_row(statement, &found);
    if (!sql_step(store, statement, &more, err))
        return false;
    if (more)
        return err_set(err, ERR_INPUT, "several installed models begin with %s: more digits are needed", prefix);
    *out = found;
    return true;
}

bool store_model_read(struct store *store, const char *sha256, struct model_files *out, struct err *err) {
    PULMO_SCOPED(model_files_free) struct model_files files = {.count = 0};
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(store,
                                          "SELECT name, blob_sha256, blob_size FROM model_file WHERE model_sha256 = ?1"
                                          " ORDER BY name <> 'model.json', name",
                                          SQL_VALUES(sql_text(sha256)), err);
    for (bool row = true; statement;) {
        char name[sizeof files.items->name], blob[DIGEST_HEX_SIZE];
        PULMO_SCOPED(bytes_free) struct bytes content = {0};
        if (!sql_step(store, statement, &row, err))
            return false;
        if (!row)
            break;
        sql_column_text(statement, 0, name, sizeof name);
        sql_column_text(statement, 1, blob, sizeof blob);
        if (!blob_read(store->config.folder, blob, sqlite3_column_int64(statement, 2), &content, err) ||
            !model_files_add(&files, name, &content, err))
            return err_within(err, "model %s, %s", sha256, name);
    }
    if (!statement)
        return false;
    if (!files.count)
        return err_set(err, ERR_NOT_FOUND, "model %s is not installed", sha256);
    *out = files;
    files.count = 0;
    return true;
}

/* ---- installing -------------------------------------------------------------------------------------- */

static bool files_write(struct store *store, const struct model_files *files, char (*names)[DIGEST_HEX_SIZE],
                        struct err *err) {
    struct blob_content contents[MODEL_FILES_MAX];
    uint64_t size = 0;
    for (size_t index = 0; index < files->count; index++) {
        contents[index] = (struct blob_content){files->items[index].content.data, files->items[index].content.size};
        size += files->items[index].content.size;
    }
    return disk_room_for_results(store, size, err) &&
           blob_put_many(store->config.folder, contents, files->count, names, err);
}

static bool files_rows(struct store *store, const struct store_model *model, const struct model_files *files,
                       char (*names)[DIGEST_HEX_SIZE], struct err *err) {
    for (size_t index = 0; index < files->count; index++) {
        int64_t size = (int64_t)files->items[index].content.size;
        if (!blob_present(store->config.folder, names[index], size)) /* see retention_blob_needed */
            return err_set(err, ERR_BUSY, "the content of %s is gone before its row was written",
                           files->items[index].name);
        if (!sql_run(store,
                     "INSERT INTO model_file (model_sha256, name, blob_sha256, blob_size) VALUES (?1, ?2, ?3, ?4)",
                     SQL_VALUES(sql_text(model->sha256), sql_text(files->items[index].name), sql_text(names[index]),
                                sql_int(size)),
                     err))
            return false;
    }
    return true;
}

static bool install_rows(struct store *store, const struct store_model *model, const struct model_files *files,
                         char (*names)[DIGEST_HEX_SIZE], struct err *err) {
    char detail[320];
    snprintf(detail, sizeof detail, "model %s, %s %s", model->sha256, model->name, model->version);
    return sql_run(store,
                   "INSERT INTO model (model_sha256, name, version, actor, installed_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
                   SQL_VALUES(sql_text(model->sha256), sql_text(model->name), sql_text(model->version),
                              sql_text(model->actor), sql_int(pulmo_now_ms())),
                   err) &&
           files_rows(store, model, files, names, err) &&
           model_audit(store, "model-install", model->actor, detail, err);
}

bool store_model_install(struct store *store, const struct store_model *model, const struct model_files *files,
                         bool *added, struct err *err) {
    char names[MODEL_FILES_MAX][DIGEST_HEX_SIZE];
    int64_t there = 0;
    if (!files->count || !files_write(store, files, names, err))
        return files->count || err_set(err, ERR_INTERNAL, "a model without files");
    if (strcmp(names[0], model->sha256) != 0)
        return err_set(err, ERR_INPUT, "model.json has the digest %s instead of %s", names[0], model->sha256);
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    if (!sql_begin(store, &transaction, err) ||
        !sql_integer(store, "SELECT 1 FROM model WHERE model_sha256 = ?1", SQL_VALUES(sql_text(model->sha256)), &there,
                     err) ||
        (!there && !install_rows(store, model, files, names, err)) || !sql_commit(&transaction, err))
        return false;
    *added = !there;
    return true;
}

/* ---- in use ------------------------------------------------------------------------------------------ */

bool model_installed(struct store *store, const char *sha256, struct err *err) {
    int64_t there = 0;
    if (!sql_integer(store, "SELECT 1 FROM model WHERE model_sha256 = ?1", SQL_VALUES(sql_text(sha256)), &there, err))
        return false;
    return there || err_set(err, ERR_NOT_FOUND, "model %s is not installed", sha256);
}

static const char *or_configured(const char *sha256) {
    return *sha256 ? sha256 : "that of the configuration";
}

bool store_model_promote(struct store *store, const char *sha256, const char *actor, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    char active[DIGEST_HEX_SIZE], detail[192];
    if (!sql_begin(store, &transaction, err) || !model_installed(store, sha256, err) ||
        !store_model_active(store, active, err))
        return false;
    if (strcmp(active, sha256) == 0)
        return err_set(err, ERR_CONFLICT, "model %s is in use already", sha256);
    snprintf(detail, sizeof detail, "model %s, former %s", sha256, or_configured(active));
    return sql_run(store, "INSERT INTO model_promotion (model_sha256, actor, promoted_ms) VALUES (?1, ?2, ?3)",
                   SQL_VALUES(sql_text(sha256), sql_text(actor), sql_int(pulmo_now_ms())), err) &&
           model_audit(store, "model-promote", actor, detail, err) && model_shadow_end(store, sha256, actor, err) &&
           sql_commit(&transaction, err);
}

bool store_model_rollback(struct store *store, const char *actor, char sha256[65], struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    char active[DIGEST_HEX_SIZE], former[DIGEST_HEX_SIZE], detail[192];
    if (!sql_begin(store, &transaction, err) || !store_model_active(store, active, err))
        return false;
    if (!*active)
        return err_set(err, ERR_CONFLICT, "no model is promoted: that of the configuration is in use");
    if (!sql_run(store,
                 "UPDATE model_promotion SET rolled_back_ms = ?1"
                 " WHERE id = (SELECT max(id) FROM model_promotion WHERE rolled_back_ms IS NULL)",
                 SQL_VALUES(sql_int(pulmo_now_ms())), err) ||
        !store_model_active(store, former, err))
        return false;
    snprintf(detail, sizeof detail, "model %s, again in use %s", active, or_configured(former));
    if (!model_audit(store, "model-rollback", actor, detail, err) || !sql_commit(&transaction, err))
        return false;
    memcpy(sha256, former, sizeof former);
    return true;
}
