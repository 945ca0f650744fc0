/* Users and their passwords: Argon2id (RFC 9106), 64 MiB, 3 passes, 1 lane, as an encoded string with its own salt and
 * cost, so that the cost can be raised later. */
#include <argon2.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "store/audit.h"
#include "store/handle.h"

#define PASSWORD_MIN 10
#define PASSWORD_MAX 1024
#define ARGON2_MEMORY_KIB 65536
#define ARGON2_PASSES 3
#define ARGON2_LANE_COUNT 1
#define SALT_SIZE 16
#define HASH_SIZE 32
#define ENCODED_SIZE 160
#define FAILURES_MAX 5
#define LOCK_MS (15 * 60 * 1000)
#define FAILURE_ROWS_MAX 10000

static uint32_t password_memory_kib(const struct store *store) {
    return store->config.password_memory_kib ? store->config.password_memory_kib : ARGON2_MEMORY_KIB;
}

static bool password_encode(struct store *store, const char *password, char out[ENCODED_SIZE], struct err *err) {
    uint8_t salt[SALT_SIZE];
    if (strnlen(password, PASSWORD_MAX + 1) > PASSWORD_MAX || strlen(password) < PASSWORD_MIN)
        return err_set(err, ERR_INPUT, "a password has %d to %d characters", PASSWORD_MIN, PASSWORD_MAX);
    if (getrandom(salt, sizeof salt, 0) != (ssize_t)sizeof salt)
        return err_set(err, ERR_INTERNAL, "no random bytes for a salt");
    int code = argon2id_hash_encoded(ARGON2_PASSES, password_memory_kib(store), ARGON2_LANE_COUNT, password,
                                     strlen(password), salt, sizeof salt, HASH_SIZE, out, ENCODED_SIZE);
    if (code != ARGON2_OK)
        return err_set(err, code == ARGON2_MEMORY_ALLOCATION_ERROR ? ERR_MEMORY : ERR_INTERNAL, "Argon2id: %s",
                       argon2_error_message(code));
    return true;
}

/* The work of a verification for a user that does not exist, so that the time does not tell. */
static void password_waste(struct store *store, const char *password) {
    static const uint8_t salt[SALT_SIZE] = {0};
    uint8_t hash[HASH_SIZE];
    argon2id_hash_raw(ARGON2_PASSES, password_memory_kib(store), ARGON2_LANE_COUNT, password, strlen(password), salt,
                      sizeof salt, hash, sizeof hash);
}

static bool name_check(const char *name, struct err *err) {
    size_t length = strnlen(name, 64);
    if (!length || length > 63 ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@-") != length)
        return err_set(err, ERR_INPUT, "a user name has 1 to 63 of the characters a-z A-Z 0-9 . _ @ -");
    return true;
}

static bool user_audit(struct store *store, const char *action, const char *name, const char *address, int outcome,
                       struct err *err) {
    struct store_audit audit = {
        .code = AUDIT_USER_AUTHENTICATION, .action = action, .actor = name, .address = address, .outcome = outcome};
    return audit_add(store, &audit, err);
}

static bool user_insert(struct store *store, const struct store_user *user, const char *encoded, struct err *err) {
    if (!sql_run(store,
                 "INSERT INTO user (name, display_name, role, password, created_ms) VALUES (?1, ?2, ?3, ?4, ?5)"
                 " ON CONFLICT DO NOTHING",
                 SQL_VALUES(sql_text(user->name), sql_text(user->display_name), sql_text(user->role), sql_text(encoded),
                            sql_int(pulmo_now_ms())),
                 err))
        return false;
    return sql_changes(store) == 1 || err_set(err, ERR_CONFLICT, "there is a user '%s' already", user->name);
}

static bool role_known(const char *role) {
    return strcmp(role, "viewer") == 0 || strcmp(role, "radiologist") == 0 || strcmp(role, "administrator") == 0 ||
           strcmp(role, "auditor") == 0;
}

bool store_user_add(struct store *store, const char *name, const char *display_name, const char *role,
                    const char *password, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    struct store_user user = {0};
    char encoded[ENCODED_SIZE];
    if (!name_check(name, err))
        return false;
    if (!role_known(role))
        return err_set(err, ERR_INPUT, "'%.40s' is no role: viewer, radiologist, administrator or auditor", role);
    if (!*display_name || strlen(display_name) >= sizeof user.display_name)
        return err_set(err, ERR_INPUT, "a display name has 1 to %zu bytes", sizeof user.display_name - 1);
    snprintf(user.name, sizeof user.name, "%s", name);
    snprintf(user.display_name, sizeof user.display_name, "%s", display_name);
    snprintf(user.role, sizeof user.role, "%s", role);
    return password_encode(store, password, encoded, err) && sql_begin(store, &transaction, err) &&
           user_insert(store, &user, encoded, err) && user_audit(store, "user-add", name, NULL, AUDIT_SUCCESS, err) &&
           sql_commit(&transaction, err);
}

/* After a change to one user row: it must have existed; its sessions end. */
static bool user_changed(struct store *store, const char *name, const char *action, struct err *err) {
    if (sql_changes(store) != 1)
        return err_set(err, ERR_NOT_FOUND, "there is no user '%.63s'", name);
    return sql_run(store, "DELETE FROM session WHERE user = ?1", SQL_VALUES(sql_text(name)), err) &&
           sql_run(store, "DELETE FROM login_failure WHERE name = ?1", SQL_VALUES(sql_text(name)), err) &&
           user_audit(store, action, name, NULL, AUDIT_SUCCESS, err);
}

bool store_user_password(struct store *store, const char *name, const char *password, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    char encoded[ENCODED_SIZE];
    return password_encode(store, password, encoded, err) && sql_begin(store, &transaction, err) &&
           sql_run(store, "UPDATE user SET password = ?2 WHERE name = ?1",
                   SQL_VALUES(sql_text(name), sql_text(encoded)), err) &&
           user_changed(store, name, "user-password", err) && sql_commit(&transaction, err);
}

bool store_user_disable(struct store *store, const char *name, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    return sql_begin(store, &transaction, err) &&
           sql_run(store, "UPDATE user SET disabled = 1 WHERE name = ?1", SQL_VALUES(sql_text(name)), err) &&
           user_changed(store, name, "user-disable", err) && sql_commit(&transaction, err);
}

static void user_row(sqlite3_stmt *statement, struct store_user *out) {
    sql_column_text(statement, 0, out->name, sizeof out->name);
    sql_column_text(statement, 1, out->display_name, sizeof out->display_name);
    sql_column_text(statement, 2, out->role, sizeof out->role);
    out->disabled = sqlite3_column_int(statement, 3) != 0;
}

bool store_user_list(struct store *store, struct store_user **out, size_t *count, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    int64_t rows = 0;
    if (!sql_begin_read(store, &transaction, err) ||
        !sql_integer(store, "SELECT count(*) FROM user", SQL_NO_VALUES, &rows, err))
        return false;
    PULMO_SCOPED(pulmo_free_at) struct store_user *users = pulmo_alloc((size_t)rows, sizeof *users, err);
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement =
        sql_prepare(store, "SELECT name, display_name, role, disabled FROM user ORDER BY name", SQL_NO_VALUES, err);
    if (!users || !statement)
        return false;
    for (int64_t index = 0; index < rows; index++) {
        bool row = false;
        if (!sql_step(store, statement, &row, err))
            return false;
        user_row(statement, &users[index]);
    }
    *out = users;
    *count = (size_t)rows;
    users = NULL;
    return true;
}

/* ---- checking a password ----------------------------------------------------------------------------- */

/* Old rows go (a lock ends with its row), those of a clock that was set back, and the oldest beyond a limit: names come
 * from whoever knocks. */
static bool failures_prune(struct store *store, int64_t now_ms, struct err *err) {
    return sql_run(
        store,
        "DELETE FROM login_failure WHERE (last_ms <= ?1 AND locked_until_ms <= ?2) OR last_ms > ?2 + ?4 OR name IN"
        " (SELECT name FROM login_failure ORDER BY last_ms DESC LIMIT -1 OFFSET ?3)",
        SQL_VALUES(sql_int(now_ms - LOCK_MS), sql_int(now_ms), sql_int(FAILURE_ROWS_MAX),
                   sql_int(STORE_CLOCK_MARGIN_MS)),
        err);
}

/* Counts the failure before the password is looked at, and takes it back on success: so guesses in parallel cannot pass
 * the limit. The attempt that reaches it is still looked at. */
static bool attempt_begin(struct store *store, const char *name, int64_t now_ms, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    int64_t locked_until_ms = 0;
    if (!sql_begin(store, &transaction, err) || !failures_prune(store, now_ms, err) ||
        !sql_integer(store, "SELECT locked_until_ms FROM login_failure WHERE name = ?1", SQL_VALUES(sql_text(name)),
                     &locked_until_ms, err))
        return false;
    if (locked_until_ms > now_ms)
        return err_set(err, ERR_BUSY, "too many failed attempts: try again in %lld minutes",
                       (long long)((locked_until_ms - now_ms + 59999) / 60000));
    return sql_run(store,
                   "INSERT INTO login_failure VALUES (?1, 1, ?2, 0) ON CONFLICT DO UPDATE SET"
                   " locked_until_ms = CASE WHEN failures + 1 >= ?3 THEN ?2 + ?4 ELSE 0 END,"
                   " failures = failures + 1, last_ms = ?2",
                   SQL_VALUES(sql_text(name), sql_int(now_ms), sql_int(FAILURES_MAX), sql_int(LOCK_MS)), err) &&
           sql_commit(&transaction, err);
}

static bool attempt_end(struct store *store, const char *name, const char *address, bool good, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    int64_t locked = 0;
    if (!sql_begin(store, &transaction, err))
        return false;
    if (good && !sql_run(store, "DELETE FROM login_failure WHERE name = ?1", SQL_VALUES(sql_text(name)), err))
        return false;
    if (!good && !sql_integer(store, "SELECT locked_until_ms > 0 FROM login_failure WHERE name = ?1",
                              SQL_VALUES(sql_text(name)), &locked, err))
        return false;
    const char *action = good ? "login" : locked ? "login-locked" : "login-failed";
    return user_audit(store, action, name, address,
                      good     ? AUDIT_SUCCESS
                      : locked ? AUDIT_SERIOUS_FAILURE
                               : AUDIT_MINOR_FAILURE,
                      err) &&
           sql_commit(&transaction, err);
}

/* *encoded is "" for a user that does not exist or is disabled. */
static bool user_read(struct store *store, const char *name, struct store_user *user, char encoded[ENCODED_SIZE],
                      struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(
        store, "SELECT name, display_name, role, disabled, password FROM user WHERE name = ?1 AND disabled = 0",
        SQL_VALUES(sql_text(name)), err);
    bool row = false;
    encoded[0] = '\0';
    if (!statement || !sql_step(store, statement, &row, err))
        return false;
    if (row) {
        user_row(statement, user);
        sql_column_text(statement, 4, encoded, ENCODED_SIZE);
    }
    return true;
}

bool store_user_check(struct store *store, const char *name, const char *password, const char *address, int64_t now_ms,
                      struct store_user *out, struct err *err) {
    char encoded[ENCODED_SIZE], key[64];
    struct store_user user = {0};
    if (strnlen(password, PASSWORD_MAX + 1) > PASSWORD_MAX)
        return err_set(err, ERR_DENIED, "user name or password is wrong");
    snprintf(key, sizeof key, "%s", name); /* longer than any user's: its start is as good a name to count under */
    bool nameable = strlen(name) < sizeof key;
    if (!attempt_begin(store, key, now_ms, err) || !user_read(store, nameable ? key : "", &user, encoded, err))
        return false;
    int code = encoded[0] ? argon2id_verify(encoded, password, strlen(password)) : ARGON2_VERIFY_MISMATCH;
    bool good = code == ARGON2_OK;
    if (code == ARGON2_MEMORY_ALLOCATION_ERROR) /* says nothing of the password */
        return err_set(err, ERR_MEMORY, "Argon2id: %s", argon2_error_message(code));
    if (!encoded[0])
        password_waste(store, password);
    if (!attempt_end(store, key, address, good, err))
        return false;
    if (!good)
        return err_set(err, ERR_DENIED, "user name or password is wrong");
    *out = user;
    return true;
}
