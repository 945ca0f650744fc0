/* LABELS: quick
 * Signed checkpoints: who rebuilds the whole chain, or cuts it off with its head, is found out by one that left. */
#include "store_fixture.h"

#include <sys/stat.h>

struct signed_store {
    struct fixture *fixture;
    char checkpoint[160], key[160], private_key[160];
};

static void add_rows(const struct fixture *fixture, int first, int last) {
    struct err err = {0};
    for (int row = first; row <= last; row++) {
        char detail[32];
        snprintf(detail, sizeof detail, "event %d", row);
        struct store_audit audit = {.code = "110100", .action = "start", .actor = "test", .detail = detail};
        assert_good(store_audit_append(fixture->store, &audit, &err));
    }
}

static int setup(void **state) {
    struct signed_store *made = calloc(1, sizeof *made);
    struct err err = {0};
    struct store_checkpoint checkpoint = {0};
    assert_non_null(made);
    fixture_setup((void **)&made->fixture);
    snprintf(made->checkpoint, sizeof made->checkpoint, "%s/checkpoint.txt", made->fixture->folder);
    snprintf(made->key, sizeof made->key, "%s/audit-key.pub.pem", made->fixture->folder);
    snprintf(made->private_key, sizeof made->private_key, "%s/audit-key.pem", made->fixture->folder);
    add_rows(made->fixture, 1, 6);
    assert_good(store_checkpoint_write(made->fixture->store, made->checkpoint, &checkpoint, &err));
    assert_int_equal(checkpoint.rows, 6);
    *state = made;
    return 0;
}

static int teardown(void **state) {
    struct signed_store *made = *state;
    fixture_teardown((void **)&made->fixture);
    free(made);
    return 0;
}

static struct store_audit_verdict verify(const struct signed_store *made) {
    struct err err = {0};
    struct store_checkpoint checkpoint = {0};
    struct store_audit_verdict verdict = {0};
    assert_good(
        store_checkpoint_verify(made->fixture->store, made->checkpoint, made->key, &checkpoint, &verdict, &err));
    return verdict;
}

static void test_whole(void **state) {
    struct signed_store *made = *state;
    assert_int_equal(verify(made).first_bad_row, 0);
    add_rows(made->fixture, 7, 9);
    assert_int_equal(verify(made).first_bad_row, 0);
    assert_int_equal(verify(made).rows, 9);
}

static void test_key_is_private(void **state) {
    struct signed_store *made = *state;
    struct err err = {0};
    struct stat status;
    PULMO_SCOPED(bytes_free) struct bytes first = {0}, second = {0};
    struct store_checkpoint checkpoint = {0};
    assert_int_equal(stat(made->private_key, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_good(bytes_read_file(made->private_key, 4096, &first, &err));
    assert_good(store_checkpoint_write(made->fixture->store, made->checkpoint, &checkpoint, &err));
    assert_good(bytes_read_file(made->private_key, 4096, &second, &err)); /* made once */
    assert_int_equal(first.size, second.size);
    assert_memory_equal(first.data, second.data, first.size);
}

static int sql_one(sqlite3 *database, const char *sql) {
    return sqlite3_exec(database, sql, NULL, NULL, NULL);
}

/* Changes a row and rebuilds every digest after it and the head, as somebody with this program's source can. */
static void rebuild(const struct fixture *fixture, const char *change) {
    struct err err = {0};
    char path[256], previous[DIGEST_HEX_SIZE], sql[256];
    sqlite3 *database = NULL;
    sqlite3_stmt *statement = NULL;
    snprintf(path, sizeof path, "%s/pulmo.db", fixture->folder);
    assert_int_equal(sqlite3_open(path, &database), SQLITE_OK);
    assert_int_equal(sql_one(database, "DROP TRIGGER audit_no_update; DROP TRIGGER audit_no_delete"), SQLITE_OK);
    assert_int_equal(sql_one(database, change), SQLITE_OK);
    memset(previous, '0', 64);
    previous[64] = '\0';
    assert_int_equal(sqlite3_prepare_v2(database, "SELECT id, content FROM audit ORDER BY id", -1, &statement, NULL),
                     SQLITE_OK);
    while (sqlite3_step(statement) == SQLITE_ROW) {
        char text[2048];
        snprintf(text, sizeof text, "%s%s", previous, (const char *)sqlite3_column_text(statement, 1));
        assert_good(digest_hex(text, strlen(text), previous, &err));
        snprintf(sql, sizeof sql, "UPDATE audit SET digest = '%s' WHERE id = %d", previous,
                 sqlite3_column_int(statement, 0));
        assert_int_equal(sql_one(database, sql), SQLITE_OK);
    }
    sqlite3_finalize(statement);
    snprintf(sql, sizeof sql, "UPDATE audit_head SET row_count = (SELECT count(*) FROM audit), digest = '%s'",
             previous);
    assert_int_equal(sql_one(database, sql), SQLITE_OK);
    sqlite3_close(database);
}

static void expect_caught(const struct signed_store *made, int64_t row, const char *reason) {
    struct err err = {0};
    int64_t rows = 0, bad = 0;
    char text[200];
    assert_good(store_audit_verify(made->fixture->store, &rows, &bad, text, sizeof text, &err));
    assert_int_equal(bad, 0); /* the chain alone holds together */
    struct store_audit_verdict verdict = verify(made);
    if (verdict.first_bad_row != row || !strstr(verdict.reason, reason))
        fail_msg("row %lld: %s", (long long)verdict.first_bad_row, verdict.reason);
}

static void test_rebuilt(void **state) {
    struct signed_store *made = *state;
    rebuild(made->fixture, "UPDATE audit SET content = replace(content, 'event 2', 'event 0') WHERE id = 2");
    expect_caught(made, 6, "chain redone");
}

static void test_cut_off_with_its_head(void **state) {
    struct signed_store *made = *state;
    rebuild(made->fixture, "DELETE FROM audit WHERE id > 4");
    expect_caught(made, 5, "cut off");
}

static void test_cut_off_and_grown_again(void **state) {
    struct signed_store *made = *state;
    rebuild(made->fixture, "DELETE FROM audit WHERE id > 4");
    add_rows(made->fixture, 5, 9);
    expect_caught(made, 6, "chain redone");
}

/* What came after the checkpoint is not its business: the next one's. */
static void test_later_rows(void **state) {
    struct signed_store *made = *state;
    add_rows(made->fixture, 7, 8);
    rebuild(made->fixture, "UPDATE audit SET content = replace(content, 'event 8', 'event 0') WHERE id = 8");
    assert_int_equal(verify(made).first_bad_row, 0);
}

static void test_every_byte_is_signed(void **state) {
    struct signed_store *made = *state;
    struct err err = {0};
    PULMO_SCOPED(bytes_free) struct bytes file = {0};
    struct store_checkpoint checkpoint;
    struct store_audit_verdict verdict;
    assert_good(bytes_read_file(made->checkpoint, 4096, &file, &err));
    for (size_t at = 0; at + 1 < file.size; at++) { /* but for the newline at the end */
        file.data[at] ^= 1;
        assert_good(bytes_write_file(made->checkpoint, file.data, file.size, false, &err));
        file.data[at] ^= 1;
        struct err why = {0};
        if (store_checkpoint_verify(made->fixture->store, made->checkpoint, made->key, &checkpoint, &verdict, &why))
            fail_msg("byte %zu may be changed", at);
        assert_true(why.kind == ERR_INPUT || why.kind == ERR_DENIED);
    }
}

static void test_other_key_and_other_store(void **state) {
    struct signed_store *made = *state;
    struct err err;
    struct fixture *other = NULL;
    struct store_checkpoint checkpoint = {0};
    struct store_audit_verdict verdict;
    char path[160], key[160];
    err = (struct err){0};
    fixture_setup((void **)&other);
    snprintf(path, sizeof path, "%s/checkpoint.txt", other->folder);
    snprintf(key, sizeof key, "%s/audit-key.pub.pem", other->folder);
    assert_good(store_checkpoint_write(other->store, path, &checkpoint, &err));
    assert_int_equal(checkpoint.rows, 0); /* an empty chain can be signed, too */
    assert_refused(store_checkpoint_verify(made->fixture->store, made->checkpoint, key, &checkpoint, &verdict, &err),
                   ERR_DENIED);
    assert_refused(store_checkpoint_verify(made->fixture->store, path, key, &checkpoint, &verdict, &err), ERR_CONFLICT);
    assert_refused(store_checkpoint_verify(made->fixture->store, path, path, &checkpoint, &verdict, &err), ERR_INPUT);
    fixture_teardown((void **)&other);
}

static void test_broken_chain_is_not_signed(void **state) {
    struct signed_store *made = *state;
    struct err err;
    struct store_checkpoint checkpoint = {.rows = -1};
    assert_int_equal(fixture_sql(made->fixture, "DROP TRIGGER audit_no_update;"
                                                "UPDATE audit SET content = replace(content, 'event 2', 'event 0')"),
                     SQLITE_OK);
    assert_refused(store_checkpoint_write(made->fixture->store, made->checkpoint, &checkpoint, &err), ERR_CONFLICT);
    assert_int_equal(checkpoint.rows, -1);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_whole),
        TEST(test_key_is_private),
        TEST(test_rebuilt),
        TEST(test_cut_off_with_its_head),
        TEST(test_cut_off_and_grown_again),
        TEST(test_later_rows),
        TEST(test_every_byte_is_signed),
        TEST(test_other_key_and_other_store),
        TEST(test_broken_chain_is_not_signed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
