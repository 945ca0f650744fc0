/* LABELS: quick
 * A shadow: after all real work, beside the results, never instead of them, and never sent. */
#include "store_fixture.h"

#include "store/handle.h"
#include "store/migrate.h"

#define BOTH (1U << STORE_JOB_ANALYSE | 1U << STORE_JOB_SHADOW)
#define LATER_MS (pulmo_now_ms() + 2 * QUIET_MS)

/* Which model: the fixture's results are of model "00". */
static void install(struct store *store, const char *version, char sha256[65]) {
    struct err err = {0};
    bool added = false;
    PULMO_SCOPED(model_files_free) struct model_files files = {.count = 0};
    struct bytes json = {0};
    struct store_model model = {.name = "a-model", .actor = "test"};
    assert_good(bytes_append(&json, version, strlen(version), 64, &err));
    assert_good(digest_hex(json.data, json.size, model.sha256, &err));
    assert_good(model_files_add(&files, "model.json", &json, &err));
    assert_good(store_model_install(store, &model, &files, &added, &err));
    memcpy(sha256, model.sha256, sizeof model.sha256);
}

static struct store_job take(struct store *store, unsigned kinds) {
    struct err err = {0};
    struct store_job job;
    assert_good(store_job_take(store, kinds, LATER_MS, &job, &err));
    return job;
}

static struct store_report opinion(const char *sha256, enum store_status status) {
    return (struct store_report){.status = status,
                                 .reason = status == STORE_ANALYSED ? "" : "LUNGS_CUT: cut",
                                 .summary_json = "{\"findings\":[]}",
                                 .model_sha256 = sha256};
}

static void test_no_shadow_no_job(void **state) {
    struct fixture *fixture = *state;
    struct err err;
    char sha256[65];
    struct store_job job = fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    fixture_result(fixture->store, &job, 0.5);
    assert_int_equal(take(fixture->store, BOTH).id, 0);
    assert_refused(store_model_shadow(fixture->store, NULL, "jane", &err), ERR_CONFLICT);
    assert_refused(store_model_shadow(fixture->store, "00", "jane", &err), ERR_NOT_FOUND);
    install(fixture->store, "1", sha256);
    err = (struct err){0};
    assert_good(store_model_promote(fixture->store, sha256, "jane", &err));
    assert_refused(store_model_shadow(fixture->store, sha256, "jane", &err), ERR_CONFLICT);
}

static void test_beside_the_result(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    char sha256[65], wanted[65];
    const char *const destinations[] = {"PACS"};
    assert_good(store_set_destinations(fixture->store, destinations, 1, &err));
    install(fixture->store, "1", sha256);
    assert_good(store_model_shadow(fixture->store, sha256, "jane", &err));
    assert_refused(store_model_shadow(fixture->store, sha256, "jane", &err), ERR_CONFLICT);
    struct store_job job = fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    int64_t result_id = fixture_result(fixture->store, &job, 0.5);
    int64_t sendings = fixture_count(fixture, "SELECT count(*) FROM outbox");
    assert_int_equal(sendings, 1);
    struct store_job look = take(fixture->store, BOTH);
    assert_int_equal(look.kind, STORE_JOB_SHADOW);
    assert_int_equal(look.result_id, result_id);
    assert_good(store_shadow_begin(fixture->store, &look, wanted, &err));
    assert_string_equal(wanted, sha256);
    struct store_report report = opinion(sha256, STORE_REFUSED);
    assert_refused(store_job_finish(fixture->store, &look, &report, NULL, &err), ERR_INTERNAL);
    assert_good(store_shadow_finish(fixture->store, &look, &report, &err));
    assert_refused(store_shadow_finish(fixture->store, &look, &report, &err), ERR_CONFLICT);
    /* nothing else has changed: neither the study's result, nor what is sent, nor the worklist */
    struct store_result current;
    struct store_study study;
    assert_good(store_result_current(fixture->store, "1.2.3", &current, &err));
    assert_int_equal(current.id, result_id);
    assert_int_equal(current.status, STORE_ANALYSED);
    assert_good(store_study_get(fixture->store, "1.2.3", &study, &err));
    assert_string_equal(study.state, "analysed");
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM outbox"), sendings);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM result"), 1);
    PULMO_SCOPED(pulmo_free_at) struct store_shadow *shadows = NULL;
    size_t count = 0;
    assert_good(store_shadow_list(fixture->store, sha256, &shadows, &count, &err));
    assert_int_equal(count, 1);
    assert_int_equal(shadows[0].result_id, result_id);
    assert_int_equal(shadows[0].status, STORE_REFUSED);
    assert_string_equal(shadows[0].reason, "LUNGS_CUT: cut");
    PULMO_SCOPED(bytes_free) struct bytes document = {0};
    assert_good(store_shadow_document(fixture->store, shadows[0].id, &document, &err));
    assert_memory_equal(document.data, "{\"findings\":[]}", document.size);
    assert_int_equal(fixture_sql(fixture, "UPDATE shadow_result SET status = 1"), SQLITE_CONSTRAINT);
    assert_int_equal(fixture_sql(fixture, "DELETE FROM shadow_result"), SQLITE_CONSTRAINT);
    int64_t rows = 0, bad = 0;
    char reason[200];
    assert_good(store_audit_verify(fixture->store, &rows, &bad, reason, sizeof reason, &err));
    assert_int_equal(bad, 0);
}

/* However long it has waited. */
static void test_after_real_work(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    char sha256[65];
    install(fixture->store, "1", sha256);
    assert_good(store_model_shadow(fixture->store, sha256, "jane", &err));
    struct store_job job = fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    fixture_result(fixture->store, &job, 0.5);
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.study = "1.2.4", .sop = "1.2.4.4.1"}, &err));
    struct store_job real = take(fixture->store, BOTH);
    assert_int_equal(real.kind, STORE_JOB_ANALYSE);
    assert_string_equal(real.study_uid, "1.2.4");
    struct store_job look = take(fixture->store, BOTH);
    assert_int_equal(look.kind, STORE_JOB_SHADOW);
    assert_int_equal(take(fixture->store, BOTH).id, 0);
}

/* Its failures stay with it: given up after some attempts, and the study is as it was. */
static void test_failure_harms_nothing(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0}, why = {0};
    char sha256[65];
    install(fixture->store, "1", sha256);
    assert_good(store_model_shadow(fixture->store, sha256, "jane", &err));
    struct store_job job = fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    int64_t result_id = fixture_result(fixture->store, &job, 0.5);
    err_set(&why, ERR_INTERNAL, "the shadow broke");
    struct store_job look = take(fixture->store, 1U << STORE_JOB_SHADOW);
    assert_good(store_job_fail(fixture->store, &look, &why, &err));
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM job WHERE kind = 4 AND state = 'dead'"), 1);
    struct store_study study;
    assert_good(store_study_get(fixture->store, "1.2.3", &study, &err));
    assert_string_equal(study.state, "analysed");
    assert_string_equal(study.reason, "");
    assert_int_equal(study.result_id, result_id);
    assert_good(store_study_requeue(fixture->store, "1.2.3", "jane", &err));
    assert_int_equal(take(fixture->store, 1U << STORE_JOB_SHADOW).result_id, result_id);
}

static void test_not_wanted_any_more(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    char sha256[65], wanted[65];
    install(fixture->store, "1", sha256);
    assert_good(store_model_shadow(fixture->store, sha256, "jane", &err));
    struct store_job job = fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    fixture_result(fixture->store, &job, 0.5);
    struct store_job look = take(fixture->store, BOTH);
    assert_good(store_model_shadow(fixture->store, NULL, "jane", &err)); /* ended while the job was on its way */
    assert_good(store_shadow_begin(fixture->store, &look, wanted, &err));
    assert_string_equal(wanted, "");
    assert_good(store_shadow_drop(fixture->store, &look, &err));
    assert_int_equal(take(fixture->store, BOTH).id, 0);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM shadow_result"), 0);
    /* a late slice: the first result is superseded, only the second is looked at */
    assert_good(store_model_shadow(fixture->store, sha256, "jane", &err));
    struct store_job first = fixture_job(fixture->store, "1.2.5", STORE_JOB_ANALYSE);
    int64_t first_id = fixture_result(fixture->store, &first, 0.5);
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.study = "1.2.5", .sop = "1.2.5.4.2"}, &err));
    struct store_job second = take(fixture->store, BOTH);
    assert_int_equal(second.kind, STORE_JOB_ANALYSE);
    int64_t second_id = fixture_result(fixture->store, &second, 0.5);
    look = take(fixture->store, BOTH);
    assert_int_equal(look.result_id, first_id);
    assert_good(store_shadow_begin(fixture->store, &look, wanted, &err));
    assert_string_equal(wanted, "");
    assert_good(store_shadow_drop(fixture->store, &look, &err));
    look = take(fixture->store, BOTH);
    assert_int_equal(look.result_id, second_id);
    assert_good(store_shadow_begin(fixture->store, &look, wanted, &err));
    assert_string_equal(wanted, sha256);
}

static void test_promoted(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    char one[65], two[65], now[65];
    struct store_model model;
    install(fixture->store, "1", one);
    install(fixture->store, "2", two);
    assert_good(store_model_shadow(fixture->store, one, "jane", &err));
    assert_good(store_model_find(fixture->store, one, &model, &err));
    assert_string_equal(model.state, "shadow");
    assert_good(store_model_shadow(fixture->store, two, "jane", &err)); /* instead of the first */
    assert_good(store_model_shadowing(fixture->store, now, &err));
    assert_string_equal(now, two);
    assert_good(store_model_promote(fixture->store, one, "jane", &err)); /* another than the shadow: that one stays */
    assert_good(store_model_shadowing(fixture->store, now, &err));
    assert_string_equal(now, two);
    assert_good(store_model_promote(fixture->store, two, "jane", &err));
    assert_good(store_model_shadowing(fixture->store, now, &err));
    assert_string_equal(now, "");
    assert_int_equal(
        fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%\"action\":\"model-shadow\"%'"), 3);
}

/* The table of jobs is written again by version 5, while results, artifacts and signatures refer to it. */
static void test_migrated(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    char path[256];
    sqlite3 *database = NULL;
    store_close(fixture->store);
    fixture->store = NULL;
    snprintf(path, sizeof path, "%s/pulmo.db", fixture->folder);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(sqlite3_open(path, &database), SQLITE_OK);
    for (int version = 0; version < 4; version++)
        assert_int_equal(sqlite3_exec(database, migrate_embedded.versions[version], NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(
        sqlite3_exec(
            database,
            "PRAGMA user_version = 4;"
            "INSERT INTO study (study_uid, patient_name, patient_id, accession_number, study_date, study_time,"
            " description, first_received_ms, last_received_ms, revision, queued_revision)"
            " VALUES ('1.2.3', '', '', '', '', '', '', 1, 1, 1, 1);"
            "INSERT INTO job (id, kind, study_uid, revision, state, due_ms, created_ms, finished_ms)"
            " VALUES (41, 1, '1.2.3', 1, 'done', 1, 1, 2), (42, 2, '1.2.3', 1, 'queued', 1, 1, NULL);"
            "INSERT INTO result (id, job_id, study_uid, study_revision, series_uid, status, reason, summary_json,"
            " model_sha256, backend, findings_reported, probability_max, review, created_ms)"
            " VALUES (7, 41, '1.2.3', 1, '1.2.3.9', 1, '', '{}', '00', 'cpu', 0, 0, 0, 2);"
            "INSERT INTO job (id, kind, study_uid, revision, result_id, user, due_ms, created_ms)"
            " VALUES (43, 3, '1.2.3', 1, 7, 'jane', 1, 1);",
            NULL, NULL, NULL),
        SQLITE_OK);
    sqlite3_close(database);
    fixture->store = fixture_handle(fixture);
    assert_int_equal(fixture_count(fixture, "PRAGMA user_version"), migrate_embedded.count);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM pragma_foreign_key_check"), 0);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM job"), 3);
    assert_int_equal(fixture_count(fixture, "SELECT result_id FROM job WHERE id = 43"), 7);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM retention WHERE standing = 'in work'"), 1);
    struct store_study study;
    assert_good(store_study_get(fixture->store, "1.2.3", &study, &err));
    assert_string_equal(study.state, "analysed");
    assert_int_equal(take(fixture->store, 1U << STORE_JOB_DECODE).id, 42);
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){0}, &err));
    assert_int_equal(take(fixture->store, 1U << STORE_JOB_ANALYSE).id, 44); /* no number is used twice */
    /* the keys hold again: a job cannot go while a result names it */
    assert_int_equal(fixture_sql(fixture, "DELETE FROM job WHERE id = 41"), SQLITE_CONSTRAINT);
    int64_t keys = 0;
    assert_good(sql_integer(fixture->store, "PRAGMA foreign_keys", SQL_NO_VALUES, &keys, &err));
    assert_int_equal(keys, 1);
}

/* What a migration may do without keys, it may not leave behind. */
static void test_migration_checks_references(void **state) {
    static const char *versions[64];
    struct fixture *fixture = *state;
    struct err err;
    assert_true(migrate_embedded.count < 64);
    memcpy(versions, migrate_embedded.versions, sizeof *versions * (size_t)migrate_embedded.count);
    versions[migrate_embedded.count] = "INSERT INTO study_source VALUES ('9.9', 'A', 'B', 1)";
    struct migrate_list next = {versions, migrate_embedded.count + 1};
    assert_refused(migrate_run(fixture->store, &next, &err), ERR_INTERNAL);
    assert_non_null(strstr(err.text, "refer to nothing"));
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM study_source"), 0);
    int64_t keys = 0;
    err = (struct err){0};
    assert_good(sql_integer(fixture->store, "PRAGMA foreign_keys", SQL_NO_VALUES, &keys, &err));
    assert_int_equal(keys, 1);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_no_shadow_no_job),
        TEST(test_beside_the_result),
        TEST(test_after_real_work),
        TEST(test_failure_harms_nothing),
        TEST(test_not_wanted_any_more),
        TEST(test_promoted),
        TEST(test_migrated),
        TEST(test_migration_checks_references),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
