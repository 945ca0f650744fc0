/* LABELS: quick
 * The audit chain: each way of tampering with it names the row. */
#include "store_fixture.h"

static int setup(void **state) {
    fixture_setup(state);
    struct fixture *fixture = *state;
    struct err err = {0};
    for (int row = 1; row <= 9; row++) {
        char detail[32];
        snprintf(detail, sizeof detail, "event %d", row);
        struct store_audit audit = {.code = "110100", .action = "start", .actor = "test", .detail = detail};
        assert_good(store_audit_append(fixture->store, &audit, &err));
    }
    return 0;
}

/* Triggers stop the honest; who owns the file drops them first. */
#define OPEN "DROP TRIGGER audit_no_update; DROP TRIGGER audit_no_delete; "

static void expect_bad(const struct fixture *fixture, const char *tampering, int64_t expected) {
    struct err err = {0};
    int64_t rows = 0, bad = 0;
    char reason[200];
    assert_int_equal(fixture_sql(fixture, tampering), SQLITE_OK);
    assert_good(store_audit_verify(fixture->store, &rows, &bad, reason, sizeof reason, &err));
    if (bad != expected)
        fail_msg("%s: row %lld instead of %lld (%s)", tampering, (long long)bad, (long long)expected, reason);
    assert_true(strlen(reason) > 0);
}

static void test_whole(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    int64_t rows = 0, bad = -1;
    char reason[200];
    assert_good(store_audit_verify(fixture->store, &rows, &bad, reason, sizeof reason, &err));
    assert_int_equal(rows, 9);
    assert_int_equal(bad, 0);
    assert_string_equal(reason, "");
}

static void test_content(void **state) {
    expect_bad(*state, OPEN "UPDATE audit SET content = replace(content, 'event 4', 'event 5') WHERE id = 4", 4);
}

static void test_first_row(void **state) {
    expect_bad(*state, OPEN "UPDATE audit SET content = replace(content, 'start', 'stop') WHERE id = 1", 1);
}

static void test_digest(void **state) {
    expect_bad(*state, OPEN "UPDATE audit SET digest = replace(digest, substr(digest, 1, 1), 'z') WHERE id = 6", 6);
}

static void test_row_taken_out(void **state) {
    expect_bad(*state, OPEN "DELETE FROM audit WHERE id = 5", 5);
}

static void test_row_taken_out_and_closed_up(void **state) {
    expect_bad(*state, OPEN "DELETE FROM audit WHERE id = 5; UPDATE audit SET id = id - 1 WHERE id > 5", 5);
}

static void test_rows_swapped(void **state) {
    expect_bad(*state,
               OPEN "UPDATE audit SET id = 100 WHERE id = 3; UPDATE audit SET id = 3 WHERE id = 4;"
                    "UPDATE audit SET id = 4 WHERE id = 100",
               3);
}

static void test_end_cut_off(void **state) {
    expect_bad(*state, OPEN "DELETE FROM audit WHERE id >= 8", 8);
}

static void test_all_cut_off(void **state) {
    expect_bad(*state, OPEN "DELETE FROM audit", 1);
}

static void test_row_added(void **state) {
    expect_bad(*state, "INSERT INTO audit VALUES (10, '{\"row\":10,', 'x')", 10);
}

static void test_emptied(void **state) {
    expect_bad(*state, OPEN "UPDATE audit SET content = '' WHERE id = 2", 2);
}

/* A row whose own digest was made to fit: the next one shows it. */
static void test_digest_redone(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    char previous[DIGEST_HEX_SIZE], text[512], digest[DIGEST_HEX_SIZE], tampering[1024], path[256];
    sqlite3 *database = NULL;
    sqlite3_stmt *statement = NULL;
    snprintf(path, sizeof path, "%s/pulmo.db", fixture->folder);
    assert_int_equal(sqlite3_open(path, &database), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(database,
                                        "SELECT a.digest, b.content FROM audit a, audit b WHERE a.id = 3 AND b.id = 4",
                                        -1, &statement, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    snprintf(previous, sizeof previous, "%s", (const char *)sqlite3_column_text(statement, 0));
    snprintf(text, sizeof text, "%s%s", previous, (const char *)sqlite3_column_text(statement, 1));
    sqlite3_finalize(statement);
    sqlite3_close(database);
    *strstr(text, "event 4") = 'E';
    assert_good(digest_hex(text, strlen(text), digest, &err));
    snprintf(tampering, sizeof tampering,
             OPEN "UPDATE audit SET content = replace(content, 'event', 'Event'), digest = '%s' WHERE id = 4", digest);
    expect_bad(fixture, tampering, 5);
}

struct lines {
    int count;
    char previous[DIGEST_HEX_SIZE];
};

/* Walks the chain as a reader of the export would. */
static bool line(void *context, const char *json, struct err *err) {
    struct lines *lines = context;
    const char *end = strstr(json, ",\"digest\":\"");
    if (!end)
        return err_set(err, ERR_INPUT, "no digest in %s", json);
    char text[1024], digest[DIGEST_HEX_SIZE];
    snprintf(text, sizeof text, "%s%.*s}", lines->previous, (int)(end - json), json);
    if (!digest_hex(text, strlen(text), digest, err) || strncmp(end + 11, digest, 64) != 0)
        return err_set(err, ERR_INPUT, "line %d does not follow", lines->count + 1);
    memcpy(lines->previous, digest, sizeof digest);
    lines->count++;
    return true;
}

static void test_export(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_audit odd = {
        .code = "110114", .action = "login-failed", .actor = "a\"b\\c\n\xff\xc3\xa9", .outcome = 4};
    assert_good(store_audit_append(fixture->store, &odd, &err));
    struct lines lines = {0};
    memset(lines.previous, '0', 64);
    assert_good(store_audit_export(fixture->store, line, &lines, &err));
    assert_int_equal(lines.count, 10);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE json_valid(content)"), 10);
    assert_int_equal(fixture_count(fixture, "SELECT json_extract(content, '$.actor') = 'a\"b\\c' || char(10) ||"
                                            " char(65533) || char(233) FROM audit WHERE id = 10"),
                     1);
}

/* A fact that is rolled back leaves no audit row, and the chain goes on. */
static void test_with_the_fact(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    int64_t rows = 0, bad = 0;
    char reason[200];
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){0}, &err));
    struct store_verdict verdict = {.finding_id = 1, .verdict = "accepted", .user = "jane"};
    assert_refused(store_verdict_put(fixture->store, 1, &verdict, &err), ERR_NOT_FOUND);
    assert_good(store_audit_verify(fixture->store, &rows, &bad, reason, sizeof reason, &err));
    assert_int_equal(rows, 10);
    assert_int_equal(bad, 0);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_whole),        TEST(test_content),       TEST(test_first_row),
        TEST(test_digest),       TEST(test_row_taken_out), TEST(test_row_taken_out_and_closed_up),
        TEST(test_rows_swapped), TEST(test_end_cut_off),   TEST(test_all_cut_off),
        TEST(test_row_added),    TEST(test_emptied),       TEST(test_digest_redone),
        TEST(test_export),       TEST(test_with_the_fact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
