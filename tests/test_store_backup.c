/* LABELS: quick
 * Backup and restore: one moment of the store, every content by its digest, and each damage named. */
#include "store_fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "store/backup.h"
#include "store/blob.h"
#include "store/migrate.h"

struct saved {
    struct fixture *fixture;
    char backup[128], restored[128];
    char faults[8][512];
    int fault_count;
};

static void on_fault(void *context, const char *sentence) {
    struct saved *saved = context;
    if (saved->fault_count < 8)
        snprintf(saved->faults[saved->fault_count], sizeof saved->faults[0], "%s", sentence);
    saved->fault_count++;
}

static struct store_backup_config backup_config(struct saved *saved) {
    return (struct store_backup_config){.folder = saved->backup, .actor = "test", .fault = on_fault, .context = saved};
}

static struct store_backup_figures save(struct saved *saved) {
    struct err err = {0};
    struct store_backup_figures figures = {0};
    struct store_backup_config config = backup_config(saved);
    assert_good(store_backup(saved->fixture->store, &config, &figures, &err));
    return figures;
}

static bool restore(struct saved *saved, const char *folder, struct store_backup_figures *figures, struct err *err) {
    struct store_restore_config config = {
        .backup = saved->backup, .folder = folder, .fault = on_fault, .context = saved};
    saved->fault_count = 0;
    return store_restore(&config, figures, err);
}

static int setup(void **state) {
    struct saved *saved = calloc(1, sizeof *saved);
    assert_non_null(saved);
    assert_int_equal(fixture_setup((void **)&saved->fixture), 0);
    snprintf(saved->backup, sizeof saved->backup, "%.100s-backup", saved->fixture->folder);
    snprintf(saved->restored, sizeof saved->restored, "%.100s-restored", saved->fixture->folder);
    struct store_job job = fixture_job(saved->fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    fixture_result(saved->fixture->store, &job, 0.9);
    char path[256];
    struct err err = {0};
    snprintf(path, sizeof path, "%s/https-key.pem", saved->fixture->folder);
    assert_good(bytes_write_file(path, "a secret", 8, false, &err));
    *state = saved;
    return 0;
}

static int teardown(void **state) {
    struct saved *saved = *state;
    nftw(saved->backup, fixture_remove, 16, FTW_DEPTH | FTW_PHYS);
    nftw(saved->restored, fixture_remove, 16, FTW_DEPTH | FTW_PHYS);
    fixture_teardown((void **)&saved->fixture);
    free(saved);
    return 0;
}

/* Some content of the backup, as a path. */
static void some_content(const struct saved *saved, char path[BLOB_PATH_SIZE]) {
    struct err err = {0};
    struct store *store = saved->fixture->store;
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(store, "SELECT blob_sha256 FROM instance", SQL_NO_VALUES, &err);
    bool row = false;
    char sha256[DIGEST_HEX_SIZE];
    assert_true(statement && sql_step(store, statement, &row, &err) && row);
    sql_column_text(statement, 0, sha256, sizeof sha256);
    assert_good(blob_path(saved->backup, sha256, path, &err));
}

static void change_byte(const char *path, off_t at) {
    uint8_t byte = 0;
    int file = open(path, O_RDWR);
    assert_true(file >= 0 && pread(file, &byte, 1, at) == 1);
    byte ^= 1;
    assert_int_equal(pwrite(file, &byte, 1, at), 1);
    close(file);
}

static bool is_named(const struct saved *saved, const char *first, const char *second) {
    for (int index = 0; index < saved->fault_count && index < 8; index++)
        if (strstr(saved->faults[index], first) && strstr(saved->faults[index], second))
            return true;
    return false;
}

/* What was refused left an empty folder behind, which can be used again. */
static void expect_damage(struct saved *saved, const char *first, const char *second) {
    struct err err;
    struct store_backup_figures figures = {.rows = -1};
    assert_refused(restore(saved, saved->restored, &figures, &err), ERR_INPUT);
    if (!is_named(saved, first, second))
        fail_msg("no fault names %s %s; first: %s", first, second, saved->faults[0]);
    assert_int_equal(figures.rows, -1);
    assert_int_equal(rmdir(saved->restored), 0);
    assert_refused(restore(saved, NULL, &figures, &err), ERR_INPUT);
}

static void test_restored_equals(void **state) {
    struct saved *saved = *state;
    struct err err = {0};
    struct store_backup_figures made = save(saved), read = {0};
    assert_int_equal(made.contents, 3); /* an instance, a document, an SR */
    assert_int_equal(made.copied, 3);
    assert_int_equal(made.files, 1);
    assert_int_equal(made.damaged, 0);
    assert_good(restore(saved, saved->restored, &read, &err));
    assert_int_equal(read.contents, 3);
    assert_int_equal(read.content_bytes, made.content_bytes);
    assert_int_equal(read.rows, made.rows);
    assert_int_equal(read.audit_rows, made.audit_rows);
    assert_int_equal(read.files, 1);
    struct store_config config = saved->fixture->config;
    config.folder = saved->restored;
    PULMO_SCOPED(store_close_at) struct store *store = store_open(&config, &err);
    PULMO_SCOPED(bytes_free) struct bytes sr = {0};
    char media_type[64];
    if (!store)
        fail_msg("%s", err.text);
    assert_good(store_artifact_read(store, 1, "sr.dcm", &sr, media_type, &err));
    assert_memory_equal(sr.data, "an SR", 5);
    char path[256];
    struct stat status;
    snprintf(path, sizeof path, "%s/https-key.pem", saved->restored);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
}

/* A second backup copies what is new, and the chain of the store says that there was one. */
static void test_incremental(void **state) {
    struct saved *saved = *state;
    struct err err = {0};
    save(saved);
    assert_good(fixture_put(saved->fixture->store, &(struct fixture_instance){.sop = "1.2.3.4.2"}, &err));
    struct store_backup_figures second = save(saved), read = {0};
    assert_int_equal(second.contents, 4);
    assert_int_equal(second.copied, 1);
    assert_int_equal(fixture_count(saved->fixture, "SELECT count(*) FROM audit WHERE content LIKE '%\"backup\"%'"), 2);
    assert_good(restore(saved, NULL, &read, &err));
    assert_int_equal(read.contents, 4);
}

static int files_in(const char *folder, const char *name) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    DIR *opened = opendir(path);
    assert_non_null(opened);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(opened));)
        count += entry->d_name[0] != '.';
    closedir(opened);
    return count;
}

/* Former snapshots go at once, contents that no row names only when asked for. */
static void test_pruned(void **state) {
    struct saved *saved = *state;
    struct err err = {0};
    struct store_backup_figures figures = {0};
    char path[BLOB_PATH_SIZE];
    save(saved);
    some_content(saved, path);
    assert_int_equal(fixture_sql(saved->fixture, "DELETE FROM instance"), SQLITE_OK);
    figures = save(saved);
    assert_int_equal(files_in(saved->backup, "database"), 1);
    assert_int_equal(access(path, F_OK), 0);
    struct store_backup_config config = backup_config(saved);
    config.prune = true;
    assert_good(store_backup(saved->fixture->store, &config, &figures, &err));
    assert_int_equal(figures.pruned, 1);
    assert_int_equal(figures.contents, 2);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_good(restore(saved, NULL, &figures, &err));
}

/* What rotted in the backup is copied again by the next one; a hard link would have rotted with it. */
static void test_backup_heals(void **state) {
    struct saved *saved = *state;
    struct err err = {0};
    char path[BLOB_PATH_SIZE];
    struct stat status;
    save(saved);
    some_content(saved, path);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_nlink, 1);
    change_byte(path, 5);
    struct store_backup_figures second = save(saved), read = {0};
    assert_int_equal(second.copied, 1);
    assert_good(restore(saved, NULL, &read, &err));
}

static void test_content_missing(void **state) {
    struct saved *saved = *state;
    char path[BLOB_PATH_SIZE];
    save(saved);
    some_content(saved, path);
    assert_int_equal(unlink(path), 0);
    expect_damage(saved, strrchr(path, '/') + 1, "missing");
}

static void test_content_changed(void **state) {
    struct saved *saved = *state;
    char path[BLOB_PATH_SIZE];
    save(saved);
    some_content(saved, path);
    change_byte(path, 200);
    expect_damage(saved, strrchr(path, '/') + 1, "changed");
}

static void test_content_cut(void **state) {
    struct saved *saved = *state;
    char path[BLOB_PATH_SIZE];
    save(saved);
    some_content(saved, path);
    assert_int_equal(truncate(path, 10), 0);
    expect_damage(saved, strrchr(path, '/') + 1, "changed");
}

static void database_of(const struct saved *saved, char path[BACKUP_PATH_SIZE]) {
    struct err err = {0};
    struct backup_manifest head = {0};
    char name[BACKUP_NAME_SIZE];
    assert_good(backup_manifest_read(saved->backup, &head, NULL, NULL, &err));
    snprintf(name, sizeof name, "database/%s.db", head.database);
    assert_good(backup_path(saved->backup, name, path, &err));
}

static void test_database_changed(void **state) {
    struct saved *saved = *state;
    char path[BACKUP_PATH_SIZE];
    save(saved);
    database_of(saved, path);
    change_byte(path, 5000);
    expect_damage(saved, "database/", "changed");
}

/* Who edits the database and writes a new manifest for it is caught by the counts, the contents or the chain. */
static void test_forged(void **state) {
    static const struct {
        const char *sql, *first, *second;
    } rows[] = {
        {"DELETE FROM study_source", "rows of study_source", "instead of"},
        {"DROP TRIGGER audit_no_update; UPDATE audit SET content = replace(content, 'SENDER', 'FORGED') WHERE id = 1",
         "audit chain", "row 1"},
        {"UPDATE audit_head SET row_count = row_count - 1", "audit", "ends"},
        {"PRAGMA foreign_keys = OFF; UPDATE instance SET blob_sha256 = "
         "'0000000000000000000000000000000000000000000000000000000000000000'",
         "content 0000", "not in the backup"},
    };
    struct saved *saved = *state;
    for (size_t index = 0; index < sizeof rows / sizeof *rows; index++) {
        struct err err = {0};
        struct backup_manifest head = {0};
        char path[BACKUP_PATH_SIZE], renamed[BACKUP_PATH_SIZE], name[BACKUP_NAME_SIZE], digest[DIGEST_HEX_SIZE];
        save(saved);
        assert_good(backup_manifest_read(saved->backup, &head, NULL, NULL, &err));
        database_of(saved, path);
        sqlite3 *database = NULL;
        assert_int_equal(sqlite3_open(path, &database), SQLITE_OK);
        assert_int_equal(sqlite3_exec(database, rows[index].sql, NULL, NULL, NULL), SQLITE_OK);
        sqlite3_close(database);
        assert_good(digest_file_hex(path, digest, &err));
        snprintf(name, sizeof name, "database/%s.db", digest);
        assert_good(backup_path(saved->backup, name, renamed, &err));
        assert_int_equal(rename(path, renamed), 0);
        memcpy(head.database, digest, sizeof digest);
        PULMO_SCOPED(backup_writer_free) struct backup_writer writer = {0};
        assert_good(backup_writer_begin(saved->backup, &head, &writer, &err));
        assert_good(backup_writer_add(&writer, digest, name, &err));
        PULMO_SCOPED(store_close_at) struct store *copy = backup_database_open(renamed, SQLITE_OPEN_READONLY, &err);
        assert_non_null(copy);
        struct backup_sql sql;
        assert_good(backup_contents_sql(saved->fixture->store, &sql, &err));
        PULMO_SCOPED(sql_done_at)
        sqlite3_stmt *statement = sql_prepare(saved->fixture->store, sql.list, SQL_NO_VALUES, &err);
        for (bool row = true; sql_step(saved->fixture->store, statement, &row, &err) && row;) {
            char sha256[DIGEST_HEX_SIZE];
            sql_column_text(statement, 0, sha256, sizeof sha256);
            snprintf(name, sizeof name, "blobs/%.2s/%s", sha256, sha256);
            assert_good(backup_writer_add(&writer, sha256, name, &err));
        }
        assert_good(backup_writer_end(&writer, &err));
        expect_damage(saved, rows[index].first, rows[index].second);
    }
}

/* Any single bit of the manifest. */
static void test_manifest_changed(void **state) {
    struct saved *saved = *state;
    char path[BACKUP_PATH_SIZE];
    struct err err = {0};
    struct stat status;
    struct store_backup_figures figures;
    save(saved);
    assert_good(backup_path(saved->backup, BACKUP_MANIFEST, path, &err));
    assert_int_equal(stat(path, &status), 0);
    for (off_t at = 0; at < status.st_size; at++) {
        change_byte(path, at);
        err = (struct err){0};
        if (at != status.st_size - 1) /* the newline after the end */
            assert_false(restore(saved, NULL, &figures, &err));
        change_byte(path, at);
    }
    assert_good(restore(saved, NULL, &figures, &err));
    assert_int_equal(truncate(path, status.st_size / 2), 0);
    assert_refused(restore(saved, NULL, &figures, &err), ERR_INPUT);
    assert_non_null(strstr(err.text, "cut off"));
    assert_int_equal(unlink(path), 0);
    assert_refused(restore(saved, NULL, &figures, &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "no finished backup"));
}

/* A content that the store itself has lost is named; the rest is saved, and the backup says what it lacks. */
static void test_store_damaged(void **state) {
    struct saved *saved = *state;
    char path[BLOB_PATH_SIZE], own[BLOB_PATH_SIZE];
    struct err err = {0};
    some_content(saved, path);
    assert_good(blob_path(saved->fixture->folder, strrchr(path, '/') + 1, own, &err));
    change_byte(own, 7);
    struct store_backup_figures figures = save(saved);
    assert_int_equal(figures.damaged, 1);
    assert_int_equal(figures.contents, 2);
    assert_true(is_named(saved, strrchr(path, '/') + 1, "changed"));
    saved->fault_count = 0;
    assert_int_equal(unlink(own), 0);
    figures = save(saved);
    assert_int_equal(figures.damaged, 1);
    assert_true(is_named(saved, strrchr(path, '/') + 1, "cannot read"));
    expect_damage(saved, strrchr(path, '/') + 1, "not in the backup");
}

static void test_folders_refused(void **state) {
    struct saved *saved = *state;
    struct err err = {0};
    struct store_backup_figures figures = {0};
    char inside[256];
    struct store_backup_config config = backup_config(saved);
    snprintf(inside, sizeof inside, "%s/backup", saved->fixture->folder);
    config.folder = inside;
    assert_refused(store_backup(saved->fixture->store, &config, &figures, &err), ERR_CONFIG);
    assert_int_not_equal(access(inside, F_OK), 0);
    save(saved);
    assert_refused(restore(saved, saved->fixture->folder, &figures, &err), ERR_CONFLICT);
    assert_non_null(strstr(err.text, "not empty"));
    assert_int_equal(fixture_count(saved->fixture, "SELECT count(*) FROM result"), 1);
}

/* A restore that was cut off is no store. */
static void test_unfinished_restore(void **state) {
    struct saved *saved = *state;
    struct err err = {0};
    char marker[256];
    struct store_config config = saved->fixture->config;
    config.folder = saved->restored;
    assert_int_equal(mkdir(saved->restored, 0750), 0);
    snprintf(marker, sizeof marker, "%s/%s", saved->restored, BACKUP_RESTORING);
    assert_good(bytes_write_file(marker, "", 0, false, &err));
    assert_null(store_open(&config, &err));
    assert_int_equal(err.kind, ERR_CONFIG);
    assert_non_null(strstr(err.text, "did not finish"));
}

/* ---- back to before an upgrade ----------------------------------------------------------------------- */

static const char *versions_next[64];
static struct migrate_list list_next(void) {
    memcpy(versions_next, migrate_embedded.versions, sizeof *versions_next * (size_t)migrate_embedded.count);
    versions_next[migrate_embedded.count] = "ALTER TABLE study ADD COLUMN note TEXT";
    return (struct migrate_list){versions_next, migrate_embedded.count + 1};
}

static void test_put_back(void **state) {
    struct saved *saved = *state;
    struct fixture *fixture = saved->fixture;
    struct err err = {0};
    struct store_put_back_figures figures = {0};
    struct migrate_list next = list_next();
    int old = migrate_embedded.count;
    assert_refused(store_put_back(fixture->folder, old, false, &figures, &err), ERR_NOT_FOUND);
    assert_good(migrate_run(fixture->store, &next, &err));
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.sop = "1.2.3.4.2"}, &err));
    assert_refused(store_put_back(fixture->folder, old, true, &figures, &err), ERR_BUSY);
    store_close(fixture->store);
    fixture->store = NULL;
    assert_refused(store_put_back(fixture->folder, old, false, &figures, &err), ERR_CONFLICT);
    assert_non_null(strstr(err.text, "1 instances"));
    err = (struct err){0};
    assert_good(store_put_back(fixture->folder, old, true, &figures, &err));
    assert_int_equal(figures.instances, 1);
    assert_int_equal(figures.version, old + 1);
    fixture->store = fixture_handle(fixture); /* this program's version again */
    assert_int_equal(fixture_count(fixture, "PRAGMA user_version"), old);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance"), 1);
    int64_t rows = 0, bad = 0;
    char reason[200], kept[256];
    assert_good(store_audit_verify(fixture->store, &rows, &bad, reason, sizeof reason, &err));
    assert_int_equal(bad, 0);
    snprintf(kept, sizeof kept, "%s/%s", fixture->folder, figures.kept_as);
    assert_int_equal(access(kept, R_OK), 0);
    assert_refused(store_put_back(fixture->folder, old, true, &figures, &err), ERR_BUSY);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_restored_equals),    TEST(test_incremental),      TEST(test_pruned),
        TEST(test_backup_heals),       TEST(test_content_missing),  TEST(test_content_changed),
        TEST(test_content_cut),        TEST(test_database_changed), TEST(test_forged),
        TEST(test_manifest_changed),   TEST(test_store_damaged),    TEST(test_folders_refused),
        TEST(test_unfinished_restore), TEST(test_put_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
