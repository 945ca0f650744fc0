/* Sessions live in the store, so that they outlast a restart of the web process and end everywhere at once. The token
 * is 256 random bits and never stored: only its SHA-256, which needs no salt at that entropy. */
#include <string.h>

#include "digest.h"
#include "store/audit.h"
#include "store/handle.h"

#define IDLE_MS (30 * 60 * 1000)
#define WHOLE_MS (12 * 60 * 60 * 1000)
#define USED_STEP_MS (60 * 1000) /* a commit a minute, not one a request */

bool store_session_new(struct store *store, const char *user, int64_t now_ms, char token[65], struct err *err) {
    char fresh[65], digest[DIGEST_HEX_SIZE];
    if (!store_random_hex(32, fresh, err) || !digest_hex(fresh, strlen(fresh), digest, err))
        return false;
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    if (!sql_begin(store, &transaction, err) ||
        !sql_run(store, "DELETE FROM session WHERE used_ms <= ?1 - ?2 OR created_ms <= ?1 - ?3",
                 SQL_VALUES(sql_int(now_ms), sql_int(IDLE_MS), sql_int(WHOLE_MS)), err) ||
        !sql_run(store,
                 "INSERT INTO session (token_sha256, user, created_ms, used_ms)"
                 " SELECT ?1, name, ?3, ?3 FROM user WHERE name = ?2 AND disabled = 0",
                 SQL_VALUES(sql_text(digest), sql_text(user), sql_int(now_ms)), err))
        return false;
    if (sql_changes(store) != 1)
        return err_set(err, ERR_DENIED, "there is no active user '%.63s'", user);
    if (!sql_commit(&transaction, err))
        return false;
    memcpy(token, fresh, sizeof fresh);
    return true;
}

static bool session_read(struct store *store, const char *digest, int64_t now_ms, struct store_user *out,
                         int64_t *used_ms, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(
        store,
        "SELECT name, display_name, role, used_ms FROM session JOIN user ON user.name = session.user"
        " WHERE token_sha256 = ?1 AND disabled = 0 AND used_ms > ?2 - ?3 AND session.created_ms > ?2 - ?4"
        " AND session.created_ms <= ?2 + ?5",
        SQL_VALUES(sql_text(digest), sql_int(now_ms), sql_int(IDLE_MS), sql_int(WHOLE_MS), sql_int(USED_STEP_MS)), err);
    bool row = false;
    if (!statement || !sql_step(store, statement, &row, err))
        return false;
    if (!row)
        return err_set(err, ERR_DENIED, "the session is over");
    *out = (struct store_user){0};
    sql_column_text(statement, 0, out->name, sizeof out->name);
    sql_column_text(statement, 1, out->display_name, sizeof out->display_name);
    sql_column_text(statement, 2, out->role, sizeof out->role);
    *used_ms = sqlite3_column_int64(statement, 3);
    return true;
}

bool store_session_check(struct store *store, const char *token, int64_t now_ms, struct store_user *out,
                         struct err *err) {
    char digest[DIGEST_HEX_SIZE];
    struct store_user user;
    int64_t used_ms = 0;
    if (strnlen(token, 65) != 64)
        return err_set(err, ERR_DENIED, "the session is over");
    if (!digest_hex(token, 64, digest, err) || !session_read(store, digest, now_ms, &user, &used_ms, err))
        return false;
    if (now_ms - used_ms >= USED_STEP_MS && !sql_run(store, "UPDATE session SET used_ms = ?2 WHERE token_sha256 = ?1",
                                                     SQL_VALUES(sql_text(digest), sql_int(now_ms)), err))
        return false;
    *out = user;
    return true;
}

static bool session_user(struct store *store, const char *digest, char *out, size_t size, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement =
        sql_prepare(store, "SELECT user FROM session WHERE token_sha256 = ?1", SQL_VALUES(sql_text(digest)), err);
    bool row = false;
    if (!statement || !sql_step(store, statement, &row, err))
        return false;
    out[0] = '\0';
    if (row)
        sql_column_text(statement, 0, out, size);
    return true;
}

/* A session that is over already ends again without complaint. */
bool store_session_end(struct store *store, const char *token, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    char digest[DIGEST_HEX_SIZE], user[64];
    if (!digest_hex(token, strnlen(token, 65), digest, err) || !sql_begin(store, &transaction, err) ||
        !session_user(store, digest, user, sizeof user, err))
        return false;
    if (!user[0])
        return true;
    struct store_audit audit = {.code = AUDIT_USER_AUTHENTICATION, .action = "logout", .actor = user};
    return sql_run(store, "DELETE FROM session WHERE token_sha256 = ?1", SQL_VALUES(sql_text(digest)), err) &&
           audit_add(store, &audit, err) && sql_commit(&transaction, err);
}
