#include "store/sql.h"

#include <stdio.h>
#include <string.h>

#include "store/handle.h"
#include "store/recover.h"

static enum err_kind kind_of_code(int code) {
    switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return ERR_BUSY;
    case SQLITE_FULL: return ERR_NO_SPACE;
    case SQLITE_NOMEM: return ERR_MEMORY;
    case SQLITE_CONSTRAINT: return ERR_CONFLICT;
    case SQLITE_TOOBIG: return ERR_LIMIT;
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_PERM: return ERR_IO;
    default: return ERR_INTERNAL;
    }
}

bool sql_fail(struct store *store, const char *what, struct err *err) {
    int code = sqlite3_extended_errcode(store->database);
    recover_note(store, code);
    return err_set(err, kind_of_code(code), "database %s/pulmo.db: %s: %s (%d)", store->config.folder, what,
                   sqlite3_errmsg(store->database), code);
}

bool sql_script(struct store *store, const char *sql, struct err *err) {
    if (sqlite3_exec(store->database, sql, NULL, NULL, NULL) != SQLITE_OK)
        return sql_fail(store, "statement failed", err);
    return true;
}

static struct store_statement *statement_find(struct store *store, const char *sql) {
    for (size_t index = 0; index < store->statement_count; index++)
        if (store->statements[index].sql == sql)
            return &store->statements[index];
    return NULL;
}

static sqlite3_stmt *statement_get(struct store *store, const char *sql, struct err *err) {
    struct store_statement *found = statement_find(store, sql);
    if (found)
        return found->statement;
    if (store->statement_count == STORE_STATEMENTS_MAX) {
        err_set(err, ERR_INTERNAL, "more than %d statements", STORE_STATEMENTS_MAX);
        return NULL;
    }
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v3(store->database, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL) != SQLITE_OK) {
        sql_fail(store, "statement refused", err);
        return NULL;
    }
    store->statements[store->statement_count++] = (struct store_statement){sql, statement};
    return statement;
}

static bool bind_value(sqlite3_stmt *statement, int index, const struct sql_value *value) {
    switch (value->type) {
    case SQL_INTEGER: return sqlite3_bind_int64(statement, index, value->integer) == SQLITE_OK;
    case SQL_REAL: return sqlite3_bind_double(statement, index, value->real) == SQLITE_OK;
    case SQL_TEXT: return sqlite3_bind_text(statement, index, value->text, -1, SQLITE_STATIC) == SQLITE_OK;
    }
    return false;
}

sqlite3_stmt *sql_prepare(struct store *store, const char *sql, const struct sql_value *values, size_t count,
                          struct err *err) {
    sqlite3_stmt *statement = statement_get(store, sql, err);
    if (!statement)
        return NULL;
    for (size_t index = 0; index < count; index++)
        if (!bind_value(statement, (int)index + 1, &values[index])) {
            sql_fail(store, "value refused", err);
            sql_done_at(&statement);
            return NULL;
        }
    return statement;
}

bool sql_step(struct store *store, sqlite3_stmt *statement, bool *row, struct err *err) {
    int code = sqlite3_step(statement);
    if (code != SQLITE_ROW && code != SQLITE_DONE)
        return sql_fail(store, "statement failed", err);
    *row = code == SQLITE_ROW;
    return true;
}

void sql_done_at(sqlite3_stmt **statement) {
    if (!*statement)
        return;
    sqlite3_reset(*statement);
    sqlite3_clear_bindings(*statement); /* the values were borrowed */
}

void sql_column_text(sqlite3_stmt *statement, int column, char *out, size_t size) {
    /* Not sqlite3_column_text: that may need memory for the NUL, and says NULL where it has none. */
    const void *text = sqlite3_column_blob(statement, column);
    size_t length = text ? (size_t)sqlite3_column_bytes(statement, column) : 0;
    snprintf(out, size, "%.*s", (int)(length < size ? length : size), text ? (const char *)text : "");
}

bool sql_run(struct store *store, const char *sql, const struct sql_value *values, size_t count, struct err *err) {
    PULMO_SCOPED(sql_done_at) sqlite3_stmt *statement = sql_prepare(store, sql, values, count, err);
    bool row = true;
    while (statement && row)
        if (!sql_step(store, statement, &row, err))
            return false;
    return statement != NULL;
}

int64_t sql_changes(struct store *store) {
    return sqlite3_changes64(store->database);
}

bool sql_integer(struct store *store, const char *sql, const struct sql_value *values, size_t count, int64_t *out,
                 struct err *err) {
    PULMO_SCOPED(sql_done_at) sqlite3_stmt *statement = sql_prepare(store, sql, values, count, err);
    bool row = false;
    if (!statement || !sql_step(store, statement, &row, err))
        return false;
    if (row)
        *out = sqlite3_column_int64(statement, 0);
    return true;
}

/* Prepared before it can be needed: without memory it could not be, and the write lock would be held for ever. */
static const char rollback_sql[] = "ROLLBACK";

/* A ROLLBACK that found no memory has left its transaction open, and with it the write lock: it is made up for here. */
static bool begin(struct store *store, const char *sql, struct err *err) {
    return statement_get(store, rollback_sql, err) &&
           (sqlite3_get_autocommit(store->database) || sql_run(store, rollback_sql, SQL_NO_VALUES, err)) &&
           sql_run(store, sql, SQL_NO_VALUES, err);
}

/* IMMEDIATE takes the write lock at once: a transaction that read first and wrote later could only fail then. */
bool sql_begin(struct store *store, struct sql_transaction *out, struct err *err) {
    if (store->joined)
        return true;
    if (!begin(store, "BEGIN IMMEDIATE", err))
        return false;
    out->store = store;
    return true;
}

bool sql_begin_read(struct store *store, struct sql_transaction *out, struct err *err) {
    if (store->joined)
        return true;
    if (!begin(store, "BEGIN DEFERRED", err))
        return false;
    out->store = store;
    return true;
}

bool sql_commit(struct sql_transaction *transaction, struct err *err) {
    if (!transaction->store)
        return true; /* joined another: that one commits */
    if (!sql_run(transaction->store, "COMMIT", SQL_NO_VALUES, err))
        return false;
    transaction->store = NULL;
    return true;
}

void sql_rollback_at(struct sql_transaction *transaction) {
    /* After some faults SQLite has rolled back by itself; then there is nothing left to do. */
    if (transaction->store && !sqlite3_get_autocommit(transaction->store->database))
        (void)!sql_run(transaction->store, rollback_sql, SQL_NO_VALUES, NULL);
    transaction->store = NULL;
}
