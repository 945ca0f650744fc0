/* LABELS: quick
 * Installed models: whole, for good, by their digest; one in use, the former a step back; each step audited. */
#include "store_fixture.h"

#include "store/backup.h"
#include "store/blob.h"
#include "store/migrate.h"

struct offered {
    struct store_model model;
    struct model_files files;
};

static void add_file(struct model_files *files, const char *name, const char *text) {
    struct err err = {0};
    struct bytes content = {0};
    assert_good(bytes_append(&content, text, strlen(text), 1 << 20, &err));
    assert_good(model_files_add(files, name, &content, &err));
}

/* The store does not judge models: any three files are one to it. */
static struct offered offer(const char *version) {
    struct err err = {0};
    struct offered offered = {.files = {.count = 0}};
    char text[64];
    snprintf(text, sizeof text, "{\"version\":\"%s\"}", version);
    add_file(&offered.files, "model.json", text);
    add_file(&offered.files, "detector.onnx", "weights of a detector");
    snprintf(text, sizeof text, "weights %s", version);
    add_file(&offered.files, "candidate.onnx", text);
    const struct bytes *json = &offered.files.items[0].content;
    assert_good(digest_hex(json->data, json->size, offered.model.sha256, &err));
    snprintf(offered.model.name, sizeof offered.model.name, "a-model");
    snprintf(offered.model.version, sizeof offered.model.version, "%s", version);
    snprintf(offered.model.actor, sizeof offered.model.actor, "test");
    return offered;
}

static struct store_model install(struct store *store, const char *version) {
    struct err err = {0};
    bool added = false;
    struct offered offered = offer(version);
    assert_good(store_model_install(store, &offered.model, &offered.files, &added, &err));
    assert_true(added);
    model_files_free(&offered.files);
    return offered.model;
}

static void assert_active(struct store *store, const char *sha256) {
    struct err err = {0};
    char active[65];
    assert_good(store_model_active(store, active, &err));
    assert_string_equal(active, sha256);
}

static void assert_chain(struct store *store, int64_t rows_expected) {
    struct err err = {0};
    int64_t rows = 0, bad = 0;
    char reason[200];
    assert_good(store_audit_verify(store, &rows, &bad, reason, sizeof reason, &err));
    assert_int_equal(bad, 0);
    assert_int_equal(rows, rows_expected);
}

static void test_installed(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_model one = install(fixture->store, "1");
    PULMO_SCOPED(model_files_free) struct model_files files = {.count = 0};
    assert_good(store_model_read(fixture->store, one.sha256, &files, &err));
    assert_int_equal(files.count, 3);
    assert_string_equal(files.items[0].name, "model.json");
    assert_string_equal(files.items[1].name, "candidate.onnx");
    assert_memory_equal(files.items[1].content.data, "weights 1", 9);
    assert_chain(fixture->store, 1);
    struct model_files none = {.count = 0};
    assert_refused(store_model_read(fixture->store, "00", &none, &err), ERR_NOT_FOUND);
    /* the digest is checked, not believed */
    struct offered forged = offer("2");
    bool added = true;
    memset(forged.model.sha256, 'a', 64);
    assert_refused(store_model_install(fixture->store, &forged.model, &forged.files, &added, &err), ERR_INPUT);
    model_files_free(&forged.files);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM model"), 1);
    assert_chain(fixture->store, 1);
}

static void test_installed_again_heals(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_model one = install(fixture->store, "1");
    char digest[DIGEST_HEX_SIZE], path[BLOB_PATH_SIZE];
    assert_good(digest_hex("weights 1", 9, digest, &err));
    assert_good(blob_path(fixture->folder, digest, path, &err));
    assert_int_equal(truncate(path, 3), 0);
    struct model_files files = {.count = 0};
    assert_refused(store_model_read(fixture->store, one.sha256, &files, &err), ERR_IO);
    struct offered again = offer("1");
    bool added = true;
    assert_good(store_model_install(fixture->store, &again.model, &again.files, &added, &err));
    assert_false(added);
    model_files_free(&again.files);
    assert_good(store_model_read(fixture->store, one.sha256, &files, &err));
    model_files_free(&files);
    assert_chain(fixture->store, 1);
}

static void test_immutable(void **state) {
    struct fixture *fixture = *state;
    install(fixture->store, "1");
    assert_int_equal(fixture_sql(fixture, "UPDATE model SET version = '2'"), SQLITE_CONSTRAINT);
    assert_int_equal(fixture_sql(fixture, "DELETE FROM model_file"), SQLITE_CONSTRAINT);
    assert_int_equal(fixture_sql(fixture, "UPDATE model_file SET blob_sha256 = '00'"), SQLITE_CONSTRAINT);
    assert_int_equal(fixture_sql(fixture, "DELETE FROM model"), SQLITE_CONSTRAINT);
}

static void test_promotions(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    char now[65];
    assert_active(fixture->store, "");
    assert_refused(store_model_rollback(fixture->store, "jane", now, &err), ERR_CONFLICT);
    struct store_model one = install(fixture->store, "1"), two = install(fixture->store, "2");
    assert_refused(store_model_promote(fixture->store, "00", "jane", &err), ERR_NOT_FOUND);
    assert_good(store_model_promote(fixture->store, one.sha256, "jane", &err));
    assert_refused(store_model_promote(fixture->store, one.sha256, "jane", &err), ERR_CONFLICT);
    assert_good(store_model_promote(fixture->store, two.sha256, "jane", &err));
    PULMO_SCOPED(store_close_at) struct store *other = fixture_handle(fixture);
    assert_active(other, two.sha256); /* a worker's handle sees it */
    assert_good(store_model_rollback(fixture->store, "jane", now, &err));
    assert_string_equal(now, one.sha256);
    assert_active(other, one.sha256);
    assert_good(store_model_promote(fixture->store, two.sha256, "jane", &err)); /* and on again */
    assert_good(store_model_rollback(fixture->store, "jane", now, &err));
    assert_good(store_model_rollback(fixture->store, "jane", now, &err));
    assert_string_equal(now, "");
    assert_active(other, "");
    assert_chain(fixture->store, 8);
    assert_int_equal(fixture_count(fixture,
                                   "SELECT count(*) FROM audit WHERE content LIKE '%\"action\":\"model-rollback\"%'"
                                   " AND content LIKE '%\"actor\":\"jane\"%'"),
                     3);
}

static void test_found(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_model one = install(fixture->store, "1"), found;
    char prefix[65];
    snprintf(prefix, sizeof prefix, "%.8s", one.sha256);
    assert_good(store_model_find(fixture->store, prefix, &found, &err));
    assert_string_equal(found.sha256, one.sha256);
    assert_string_equal(found.state, "installed");
    assert_int_equal(found.files, 3);
    assert_refused(store_model_find(fixture->store, "abc", &found, &err), ERR_INPUT);
    assert_refused(store_model_find(fixture->store, "abc%", &found, &err), ERR_INPUT);
    prefix[0] = prefix[0] == 'a' ? 'b' : 'a';
    assert_refused(store_model_find(fixture->store, prefix, &found, &err), ERR_NOT_FOUND);
    /* digests that begin alike are not chosen between */
    assert_int_equal(fixture_sql(fixture, "INSERT INTO model VALUES ('abcd1', 'x', '1', 't', 0),"
                                          " ('abcd2', 'x', '2', 't', 0)"),
                     SQLITE_OK);
    assert_refused(store_model_find(fixture->store, "abcd", &found, &err), ERR_INPUT);
    assert_good(store_model_promote(fixture->store, one.sha256, "jane", &err));
    assert_good(store_model_promote(fixture->store, "abcd1", "jane", &err));
    PULMO_SCOPED(pulmo_free_at) struct store_model *list = NULL;
    size_t count = 0;
    assert_good(store_model_list(fixture->store, &list, &count, &err));
    assert_int_equal(count, 3);
    for (size_t index = 0; index < count; index++)
        assert_string_equal(list[index].state, !strcmp(list[index].sha256, one.sha256) ? "former"
                                               : !strcmp(list[index].sha256, "abcd1")  ? "active"
                                                                                       : "installed");
}

/* Neither the search for orphans nor a pruning backup takes a model's files for rubbish. */
static void test_files_kept(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_model one = install(fixture->store, "1");
    for (unsigned part = 0; part < 256; part++) {
        int64_t removed = -1;
        assert_good(store_orphans_remove(fixture->store, part, 0, &removed, &err));
        assert_int_equal(removed, 0);
    }
    PULMO_SCOPED(model_files_free) struct model_files files = {.count = 0};
    assert_good(store_model_read(fixture->store, one.sha256, &files, &err));
}

static void remove_tree(const char *folder) {
    nftw(folder, fixture_remove, 16, FTW_DEPTH | FTW_PHYS);
}

static void test_backup(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    char backup[160], restored[160], now[65];
    snprintf(backup, sizeof backup, "%s-backup", fixture->folder);
    snprintf(restored, sizeof restored, "%s-restored", fixture->folder);
    struct store_model one = install(fixture->store, "1");
    assert_good(store_model_promote(fixture->store, one.sha256, "jane", &err));
    struct store_backup_config config = {.folder = backup, .actor = "test", .prune = true};
    struct store_backup_figures figures = {0};
    assert_good(store_backup(fixture->store, &config, &figures, &err));
    assert_int_equal(figures.contents, 3);
    assert_good(store_backup(fixture->store, &config, &figures, &err));
    assert_int_equal(figures.pruned, 0);
    assert_int_equal(figures.contents, 3);
    struct store_restore_config into = {.backup = backup, .folder = restored};
    assert_good(store_restore(&into, &figures, &err));
    struct store_config there = fixture->config;
    there.folder = restored;
    PULMO_SCOPED(store_close_at) struct store *store = store_open(&there, &err);
    assert_non_null(store);
    PULMO_SCOPED(model_files_free) struct model_files files = {.count = 0};
    assert_good(store_model_active(store, now, &err));
    assert_string_equal(now, one.sha256);
    assert_good(store_model_read(store, now, &files, &err));
    remove_tree(backup);
    remove_tree(restored);
}

static void test_inspected(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_inspection inspection;
    struct store_model one = install(fixture->store, "1");
    assert_good(store_model_promote(fixture->store, one.sha256, "jane", &err));
    assert_good(store_inspect(fixture->folder, 20, &inspection, &err));
    assert_int_equal(inspection.models, 1);
    assert_string_equal(inspection.active_model, one.sha256);
    assert_int_equal(inspection.contents, 3);
    assert_int_equal(inspection.contents_bad, 0);
    PULMO_SCOPED(model_files_free) struct model_files files = {.count = 0};
    assert_good(store_inspect_model(fixture->folder, one.sha256, &files, &err));
    char digest[DIGEST_HEX_SIZE], path[BLOB_PATH_SIZE];
    assert_good(digest_hex("weights 1", 9, digest, &err));
    assert_good(blob_path(fixture->folder, digest, path, &err));
    assert_int_equal(unlink(path), 0);
    assert_good(store_inspect(fixture->folder, 20, &inspection, &err));
    assert_int_equal(inspection.contents_bad, 1);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_installed), TEST(test_installed_again_heals),
        TEST(test_immutable), TEST(test_promotions),
        TEST(test_found),     TEST(test_files_kept),
        TEST(test_backup),    TEST(test_inspected),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
