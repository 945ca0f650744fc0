/* SQLite in the shape of the house: values as an array, rows by step, faults as struct err.
 *
 * sqlite3.h is seen in store/ only. Statements are prepared once a handle and found again by the address of their text,
 * so the text must be a literal. */
#ifndef PULMO_STORE_SQL_H
#define PULMO_STORE_SQL_H

#include <sqlite3.h>

#include "pulmo.h"

struct store;

enum sql_type { SQL_INTEGER, SQL_REAL, SQL_TEXT };
struct sql_value {
    enum sql_type type;
    int64_t integer;
    double real;
    const char *text; /* borrowed until the statement is done; NULL = NULL */
};
static inline struct sql_value sql_int(int64_t integer) {
    struct sql_value value = {SQL_INTEGER, integer, 0, NULL};
    return value;
}
static inline struct sql_value sql_real(double real) {
    struct sql_value value = {SQL_REAL, 0, real, NULL};
    return value;
}
static inline struct sql_value sql_text(const char *text) {
    struct sql_value value = {SQL_TEXT, 0, 0, text};
    return value;
}
/* Two arguments: the values of ?1, ?2, ... and their count. */
#define SQL_VALUES(...) \
    (const struct sql_value[]){__VA_ARGS__}, sizeof((const struct sql_value[]){__VA_ARGS__}) / sizeof(struct sql_value)
#define SQL_NO_VALUES NULL, 0

/* Sets *err from the connection's last fault and returns false. */
bool sql_fail(struct store *store, const char *what, struct err *err);
/* Runs statements that bind nothing and return nothing; not kept. */
bool sql_script(struct store *store, const char *sql, struct err *err) PULMO_MUST_USE;

/* One row at a time: prepare, step until *row is false; PULMO_SCOPED(sql_done_at) ends it. NULL with err set. */
sqlite3_stmt *sql_prepare(struct store *store, const char *sql, const struct sql_value *values, size_t count,
                          struct err *err);
bool sql_step(struct store *store, sqlite3_stmt *statement, bool *row, struct err *err) PULMO_MUST_USE;
void sql_done_at(sqlite3_stmt **statement);
/* Copies a text column, cut at size; NULL becomes "". */
void sql_column_text(sqlite3_stmt *statement, int column, char *out, size_t size);

/* Runs one statement to its end. */
bool sql_run(struct store *store, const char *sql, const struct sql_value *values, size_t count,
             struct err *err) PULMO_MUST_USE;
/* Rows that the last sql_run changed. */
int64_t sql_changes(struct store *store);
/* The first column of the first row; *out stays as it was when there is none. */
bool sql_integer(struct store *store, const char *sql, const struct sql_value *values, size_t count, int64_t *out,
                 struct err *err) PULMO_MUST_USE;

/* A write transaction; leaving the scope without sql_commit rolls it back. */
struct sql_transaction {
    struct store *store; /* NULL = not open */
};
bool sql_begin(struct store *store, struct sql_transaction *out, struct err *err) PULMO_MUST_USE;
bool sql_commit(struct sql_transaction *transaction, struct err *err) PULMO_MUST_USE;
void sql_rollback_at(struct sql_transaction *transaction);
/* A read that sees one state in several statements; end with sql_rollback_at. */
bool sql_begin_read(struct store *store, struct sql_transaction *out, struct err *err) PULMO_MUST_USE;

#endif
