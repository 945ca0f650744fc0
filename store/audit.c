/* The audit chain. Row n holds content (canonical JSON that includes n) and SHA-256(digest of row n - 1 || content);
 * audit_head holds the number of rows and the last digest.
 *
 * What it proves: a row that was changed, taken out, moved or cut off the end by someone who edits the table without
 * redoing the chain. What it cannot prove alone: that nobody with the database and this program's algorithm rebuilt
 * every digest from the changed row on, the head too. Against that, digests must have left the machine before: signed
 * checkpoints (store/checkpoint.c). */
#include "store/audit.h"

#include <stdio.h>
#include <string.h>

#include "digest.h"
#include "store/handle.h"
#include "store/json.h"

#define GENESIS "0000000000000000000000000000000000000000000000000000000000000000"

struct head {
    int64_t rows;
    char digest[DIGEST_HEX_SIZE];
};

static bool head_read(struct store *store, struct head *out, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(store, "SELECT row_count, digest FROM audit_head", SQL_NO_VALUES, err);
    bool row = false;
    if (!statement || !sql_step(store, statement, &row, err))
        return false;
    if (!row)
        return err_set(err, ERR_IO, "the audit chain has lost its head");
    out->rows = sqlite3_column_int64(statement, 0);
    sql_column_text(statement, 1, out->digest, sizeof out->digest);
    return true;
}

static bool link_digest(const char *previous, const char *content, char out[DIGEST_HEX_SIZE], struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes linked = {0};
    return bytes_append(&linked, previous, strlen(previous), 2 * JSON_SIZE_MAX, err) &&
           bytes_append(&linked, content, strlen(content), 2 * JSON_SIZE_MAX, err) &&
           digest_hex(linked.data, linked.size, out, err);
}

static bool content_make(const struct store_audit *audit, int64_t number, struct bytes *out, struct err *err) {
    return json_integer(out, "row", number, err) && json_integer(out, "time_ms", pulmo_now_ms(), err) &&
           json_text(out, "code", audit->code, err) && json_text(out, "action", audit->action, err) &&
           json_integer(out, "outcome", audit->outcome, err) && json_text(out, "actor", audit->actor, err) &&
           json_text(out, "address", audit->address, err) && json_text(out, "study_uid", audit->study_uid, err) &&
           json_text(out, "detail", audit->detail, err) && json_end(out, err);
}

bool audit_add(struct store *store, const struct store_audit *audit, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes content = {0};
    char digest[DIGEST_HEX_SIZE];
    struct head head = {0};
    if (!head_read(store, &head, err) || !content_make(audit, head.rows + 1, &content, err))
        return err_within(err, "audit");
    const char *text = (const char *)content.data;
    return (link_digest(head.digest, text, digest, err) &&
            sql_run(store, "INSERT INTO audit (id, content, digest) VALUES (?1, ?2, ?3)",
                    SQL_VALUES(sql_int(head.rows + 1), sql_text(text), sql_text(digest)), err) &&
            sql_run(store, "UPDATE audit_head SET row_count = ?1, digest = ?2",
                    SQL_VALUES(sql_int(head.rows + 1), sql_text(digest)), err)) ||
           err_within(err, "audit");
}

bool store_audit_append(struct store *store, const struct store_audit *audit, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    return sql_begin(store, &transaction, err) && audit_add(store, audit, err) && sql_commit(&transaction, err);
}

/* What verify has seen so far. */
struct walk {
    struct head seen;
    const struct audit_point *point; /* that the chain must pass through; NULL = none */
    int64_t bad_row;
    char reason[160];
};

static void walk_bad(struct walk *walk, int64_t row, const char *reason) {
    walk->bad_row = row;
    snprintf(walk->reason, sizeof walk->reason, "%s", reason);
}

/* The digest of a row covers all rows before it: one comparison judges them all. */
static void walk_point(struct walk *walk) {
    if (walk->point && walk->seen.rows == walk->point->rows && strcmp(walk->seen.digest, walk->point->digest) != 0)
        walk_bad(
            walk, walk->seen.rows,
            "the checkpoint signed another digest here: this row or one before it was changed, and the chain redone");
}

static bool walk_row(struct walk *walk, sqlite3_stmt *statement, struct err *err) {
    int64_t id = sqlite3_column_int64(statement, 0);
    const char *content = (const char *)sqlite3_column_text(statement, 1);
    char stored[DIGEST_HEX_SIZE], digest[DIGEST_HEX_SIZE], start[48];
    sql_column_text(statement, 2, stored, sizeof stored);
    int64_t expected = walk->seen.rows + 1;
    if (!content && sqlite3_column_type(statement, 1) == SQLITE_TEXT)
        return err_set(err, ERR_MEMORY, "out of memory for audit row %lld", (long long)id);
    if (!link_digest(walk->seen.digest, content ? content : "", digest, err))
        return false;
    snprintf(start, sizeof start, "{\"row\":%lld,", (long long)expected);
    if (id != expected)
        walk_bad(walk, expected, "the row is missing");
    else if (!content || strncmp(content, start, strlen(start)) != 0)
        walk_bad(walk, expected, "the row stands in another's place");
    else if (strcmp(stored, digest) != 0)
        walk_bad(walk, expected, "content and digest of the row do not follow from the row before");
    else {
        walk->seen.rows = expected;
        memcpy(walk->seen.digest, digest, sizeof digest);
        walk_point(walk);
    }
    return true;
}

static bool walk_all(struct store *store, struct walk *walk, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement =
        sql_prepare(store, "SELECT id, content, digest FROM audit ORDER BY id", SQL_NO_VALUES, err);
    if (!statement)
        return false;
    for (bool row = true; !walk->bad_row;) {
        if (!sql_step(store, statement, &row, err))
            return false;
        if (!row)
            return true;
        if (!walk_row(walk, statement, err))
            return false;
    }
    return true;
}

static void walk_end(struct walk *walk, const struct head *head) {
    if (walk->bad_row)
        return;
    if (walk->seen.rows < head->rows)
        walk_bad(walk, walk->seen.rows + 1, "the row is missing: the end of the chain was cut off");
    else if (walk->seen.rows > head->rows)
        walk_bad(walk, head->rows + 1, "the row was added beside the chain's head");
    else if (strcmp(walk->seen.digest, head->digest) != 0)
        walk_bad(walk, head->rows > 0 ? head->rows : 1, "the last row is not the one that the chain's head names");
    else if (walk->point && walk->seen.rows < walk->point->rows)
        walk_bad(walk, walk->seen.rows + 1,
                 "the checkpoint signed more rows: the end of the chain was cut off, or an older "
                 "state of the store was restored");
}

bool audit_verify(struct store *store, const struct audit_point *point, struct store_audit_verdict *out,
                  struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    struct walk walk = {.seen = {.digest = GENESIS}, .point = point};
    struct head head = {0};
    if (!sql_begin_read(store, &transaction, err) || !head_read(store, &head, err) || !walk_all(store, &walk, err))
        return false;
    walk_end(&walk, &head);
    struct store_audit_verdict verdict = {.rows = walk.seen.rows, .first_bad_row = walk.bad_row};
    memcpy(verdict.digest, walk.seen.digest, sizeof verdict.digest);
    snprintf(verdict.reason, sizeof verdict.reason, "%s", walk.reason);
    *out = verdict;
    return true;
}

bool store_audit_verify(struct store *store, int64_t *rows, int64_t *first_bad_row, char *reason, size_t reason_size,
                        struct err *err) {
    struct store_audit_verdict verdict = {.rows = 0};
    if (!audit_verify(store, NULL, &verdict, err))
        return false;
    *rows = verdict.rows;
    *first_bad_row = verdict.first_bad_row;
    snprintf(reason, reason_size, "%s", verdict.reason);
    return true;
}

/* The row's content with its digest as a last member: without `,"digest":"..."` it is the content that was digested, so
 * a reader of the lines can walk the chain too. */
static bool export_row(sqlite3_stmt *statement, bool (*line)(void *context, const char *json, struct err *err),
                       void *context, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes json = {0};
    char end[DIGEST_HEX_SIZE + 16], digest[DIGEST_HEX_SIZE];
    const char *content = (const char *)sqlite3_column_text(statement, 1);
    size_t length = content ? strlen(content) : 0;
    sql_column_text(statement, 2, digest, sizeof digest);
    snprintf(end, sizeof end, ",\"digest\":\"%s\"}", digest);
    if (!length)
        return err_set(err, ERR_IO, "audit row %lld is empty", (long long)sqlite3_column_int64(statement, 0));
    if (!bytes_append(&json, content, length - 1, 2 * JSON_SIZE_MAX, err) ||
        !bytes_append(&json, end, strlen(end) + 1, 2 * JSON_SIZE_MAX, err))
        return false;
    return line(context, (const char *)json.data, err);
}

bool store_audit_export(struct store *store, bool (*line)(void *context, const char *json, struct err *err),
                        void *context, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement =
        sql_prepare(store, "SELECT id, content, digest FROM audit ORDER BY id", SQL_NO_VALUES, err);
    if (!statement)
        return false;
    for (bool row = true;;) {
        if (!sql_step(store, statement, &row, err))
            return false;
        if (!row)
            return true;
        if (!export_row(statement, line, context, err))
            return false;
    }
}
