/* LABELS: quick
 * The database's versions: forward with a copy kept, whole or not at all, never back. */
#include "store_fixture.h"

#include "store/handle.h"
#include "store/migrate.h"

/* The real versions and one that does not exist yet. */
static const char *versions_next[64];
static struct migrate_list list_next(const char *sql) {
    assert_true(migrate_embedded.count < 64);
    memcpy(versions_next, migrate_embedded.versions, sizeof *versions_next * (size_t)migrate_embedded.count);
    versions_next[migrate_embedded.count] = sql;
    return (struct migrate_list){versions_next, migrate_embedded.count + 1};
}

static int64_t version(const struct fixture *fixture) {
    return fixture_count(fixture, "PRAGMA user_version");
}

static void test_new(void **state) {
    struct fixture *fixture = *state;
    assert_int_equal(version(fixture), migrate_embedded.count);
    assert_int_equal(fixture_count(fixture, "SELECT journal_mode = 'wal' FROM pragma_journal_mode"), 1);
    PULMO_SCOPED(store_close_at) struct store *again = fixture_handle(fixture);
    assert_non_null(again);
    assert_int_equal(version(fixture), migrate_embedded.count);
}

static void test_durable_settings(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    int64_t synchronous = 0, foreign_keys = 0;
    assert_good(sql_integer(fixture->store, "PRAGMA synchronous", SQL_NO_VALUES, &synchronous, &err));
    assert_good(sql_integer(fixture->store, "PRAGMA foreign_keys", SQL_NO_VALUES, &foreign_keys, &err));
    assert_int_equal(synchronous, 2); /* FULL */
    assert_int_equal(foreign_keys, 1);
}

static void test_forward(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){0}, &err));
    struct migrate_list next = list_next("ALTER TABLE study ADD COLUMN note TEXT; UPDATE study SET note = 'kept'");
    assert_good(migrate_run(fixture->store, &next, &err));
    assert_int_equal(version(fixture), migrate_embedded.count + 1);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM study WHERE note = 'kept'"), 1);
    /* the copy is the old version, with its data */
    char path[256];
    sqlite3 *copy = NULL;
    sqlite3_stmt *statement = NULL;
    snprintf(path, sizeof path, "%s/pulmo.db.v%d", fixture->folder, migrate_embedded.count);
    assert_int_equal(sqlite3_open_v2(path, &copy, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(copy, "SELECT count(*) FROM study", -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    assert_int_equal(sqlite3_column_int(statement, 0), 1);
    sqlite3_finalize(statement);
    sqlite3_close(copy);
    /* this program is now the older one: it refuses, and says so */
    err = (struct err){0};
    assert_null(store_open(&fixture->config, &err));
    assert_int_equal(err.kind, ERR_CONFIG);
    assert_non_null(strstr(err.text, "version"));
}

static void test_failed_migration(void **state) {
    struct fixture *fixture = *state;
    struct err err;
    struct migrate_list next = list_next("CREATE TABLE half (x); INSERT INTO nowhere VALUES (1)");
    assert_refused(migrate_run(fixture->store, &next, &err), ERR_INTERNAL);
    assert_int_equal(version(fixture), migrate_embedded.count);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM sqlite_schema WHERE name = 'half'"), 0);
    err = (struct err){0};
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){0}, &err));
}

static void test_not_a_database(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    char path[256];
    store_close(fixture->store);
    fixture->store = NULL;
    snprintf(path, sizeof path, "%s/pulmo.db", fixture->folder);
    assert_good(bytes_write_file(path,
                                 "this is no database, but long enough to be looked at as one ............."
                                 "............................................................",
                                 130, false, &err));
    assert_null(store_open(&fixture->config, &err));
    assert_int_equal(err.kind, ERR_IO);
    assert_non_null(strstr(err.text, path));
}

static void test_bad_config(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_config config = fixture->config;
    config.attempts_max = 0;
    assert_null(store_open(&config, &err));
    assert_int_equal(err.kind, ERR_CONFIG);
    config = fixture->config;
    config.folder = "/proc/no/such/folder";
    assert_null(store_open(&config, &err));
    assert_int_equal(err.kind, ERR_IO);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_new),
        TEST(test_durable_settings),
        TEST(test_forward),
        TEST(test_failed_migration),
        TEST(test_not_a_database),
        TEST(test_bad_config),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
