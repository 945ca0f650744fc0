/* LABELS: quick
 * Reception into the store: what the same UID with the same and with other bytes becomes. */
#include "store_fixture.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

#define J2K "1.2.840.10008.1.2.4.90"

static int64_t alerts(const struct fixture *fixture) {
    return fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%\"110113\"%'");
}

static size_t path_count(struct store *store, const char *study_uid) {
    struct err err = {0};
    PULMO_SCOPED(store_paths_free) struct store_paths paths = {0};
    if (!store_study_paths(store, study_uid, &paths, &err)) {
        assert_int_equal(err.kind, ERR_NOT_FOUND);
        return 0;
    }
    return paths.count;
}

/* The current version's whole content holds this text. */
static bool current_holds(struct store *store, const char *text) {
    struct err err = {0};
    PULMO_SCOPED(store_paths_free) struct store_paths paths = {0};
    PULMO_SCOPED(bytes_free) struct bytes bytes = {0};
    assert_good(store_study_paths(store, "1.2.3", &paths, &err));
    assert_int_equal(paths.count, 1);
    assert_good(bytes_read_file(paths.items[0], FIXTURE_PART10_MAX, &bytes, &err));
    return memmem(bytes.data, bytes.size, text, strlen(text)) != NULL;
}

static int64_t revision(const struct fixture *fixture) {
    return fixture_count(fixture, "SELECT revision FROM study WHERE study_uid = '1.2.3'");
}

static void test_put(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.pixels = "abc"}, &err));
    assert_true(current_holds(fixture->store, "PIXELSabc"));
    struct store_study study;
    assert_good(store_study_get(fixture->store, "1.2.3", &study, &err));
    assert_string_equal(study.patient_name, "Doe^Jane");
    assert_string_equal(study.state, "receiving");
    assert_int_equal(study.instances, 1);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%receive-begin%'"), 1);
}

static void test_same(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    for (int times = 0; times < 3; times++)
        assert_good(fixture_put(fixture->store, &(struct fixture_instance){0}, &err));
    /* the same data set with other file meta information, as another way of sending writes it */
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.meta = "other"}, &err));
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance"), 1);
    assert_int_equal(revision(fixture), 1);
    assert_int_equal(alerts(fixture), 0);
}

/* A file that the disk lost comes back when it is sent again. */
static void test_same_heals(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){0}, &err));
    PULMO_SCOPED(store_paths_free) struct store_paths paths = {0};
    assert_good(store_study_paths(fixture->store, "1.2.3", &paths, &err));
    assert_int_equal(unlink(paths.items[0]), 0);
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){0}, &err));
    assert_int_equal(access(paths.items[0], R_OK), 0);
}

static void test_transcoded(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.header = "plain"}, &err));
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.header = "j2k", .syntax = J2K}, &err));
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance WHERE version = 'transcoded'"), 1);
    assert_true(current_holds(fixture->store, "|plain|"));
    assert_int_equal(revision(fixture), 1);
    assert_int_equal(alerts(fixture), 0);
}

static void test_corrected(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_study study;
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.header = "wrong"}, &err));
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.header = "right", .patient_id = "P2"}, &err));
    assert_true(current_holds(fixture->store, "|right|"));
    assert_int_equal(revision(fixture), 2);
    assert_int_equal(alerts(fixture), 0);
    assert_good(store_study_get(fixture->store, "1.2.3", &study, &err));
    assert_string_equal(study.patient_id, "P2");
    /* the old version sent again is known, and does not come back */
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.header = "wrong"}, &err));
    assert_true(current_holds(fixture->store, "|right|"));
}

/* A correction may name another study: the old one loses the instance and is a new revision of itself. */
static void test_corrected_moves(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.header = "a"}, &err));
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.header = "b", .study = "1.2.4"}, &err));
    assert_int_equal(path_count(fixture->store, "1.2.3"), 0);
    assert_int_equal(path_count(fixture->store, "1.2.4"), 1);
    assert_int_equal(revision(fixture), 2);
}

static void test_conflict(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.pixels = "one"}, &err));
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.pixels = "two"}, &err));
    assert_true(current_holds(fixture->store, "PIXELSone"));
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance WHERE version = 'conflict'"), 1);
    assert_int_equal(alerts(fixture), 1);
    assert_int_equal(revision(fixture), 1);
    /* sent again it is known: no second alarm */
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.pixels = "two"}, &err));
    assert_int_equal(alerts(fixture), 1);
}

static void test_conflict_without_decoder(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    store_set_pixel_digest(fixture->store, NULL);
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.header = "a"}, &err));
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.header = "b"}, &err));
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance WHERE version = 'conflict'"), 1);
}

static void test_second_patient(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){0}, &err));
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.sop = "1.2.3.4.2", .patient_id = "P2"}, &err));
    assert_int_equal(path_count(fixture->store, "1.2.3"), 1);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance WHERE version = 'foreign'"), 1);
    assert_int_equal(alerts(fixture), 1);
}

static void test_second_source(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.calling_aet = "A"}, &err));
    for (int times = 0; times < 2; times++)
        assert_good(
            fixture_put(fixture->store, &(struct fixture_instance){.calling_aet = "B", .sop = "1.2.3.4.2"}, &err));
    assert_int_equal(path_count(fixture->store, "1.2.3"), 2);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%receive-second-source%'"),
                     1);
}

static void test_bad_uid(void **state) {
    struct fixture *fixture = *state;
    struct err err;
    assert_refused(fixture_put(fixture->store, &(struct fixture_instance){.sop = "../../etc"}, &err), ERR_INPUT);
    assert_refused(fixture_put(fixture->store, &(struct fixture_instance){.sop = ""}, &err), ERR_INPUT);
    assert_refused(fixture_put(fixture->store, &(struct fixture_instance){.study = "1.2'; DROP"}, &err), ERR_INPUT);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM study"), 0);
}

/* Refused before anything is written; the study that was told so waits for the instance to be sent again. */
static void test_disk_reserve(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_job job;
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){0}, &err));
    struct fixture full = *fixture;
    full.config.disk_reserve_bytes = UINT64_MAX;
    PULMO_SCOPED(store_close_at) struct store *store = fixture_handle(&full);
    assert_refused(fixture_put(store, &(struct fixture_instance){.sop = "1.2.3.4.2"}, &err), ERR_NO_SPACE);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance"), 1);
    int64_t later_ms = pulmo_now_ms() + QUIET_MS + 1;
    assert_good(store_job_take(store, 1U << STORE_JOB_ANALYSE, later_ms, &job, &err));
    assert_int_equal(job.id, 0);
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.sop = "1.2.3.4.2"}, &err));
    assert_good(store_job_take(store, 1U << STORE_JOB_ANALYSE, later_ms + 1000, &job, &err));
    assert_true(job.id > 0);
}

static void test_device_uid(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    char first[DICOM_UID_SIZE], second[DICOM_UID_SIZE];
    assert_good(store_device_uid(fixture->store, first, &err));
    PULMO_SCOPED(store_close_at) struct store *other = fixture_handle(fixture);
    assert_good(store_device_uid(other, second, &err));
    assert_string_equal(first, second);
    assert_memory_equal(first, "2.25.", 5);
    assert_true(strlen(first) > 40 && strlen(first) <= 64 && strspn(first, "0123456789.") == strlen(first));
}

/* What a crashed writer left in tmp is removed once it is old; what may still be written is not. */
static void test_tmp_cleaned(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    char old[256], young[256];
    snprintf(old, sizeof old, "%s/tmp/old", fixture->folder);
    snprintf(young, sizeof young, "%s/tmp/young", fixture->folder);
    assert_good(bytes_write_file(old, "x", 1, false, &err) && bytes_write_file(young, "x", 1, false, &err));
    struct timespec times[2] = {{.tv_sec = 1000000}, {.tv_sec = 1000000}};
    assert_int_equal(utimensat(AT_FDCWD, old, times, 0), 0);
    PULMO_SCOPED(store_close_at) struct store *other = fixture_handle(fixture);
    assert_non_null(other);
    assert_int_not_equal(access(old, F_OK), 0);
    assert_int_equal(access(young, F_OK), 0);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_put),
        TEST(test_same),
        TEST(test_same_heals),
        TEST(test_transcoded),
        TEST(test_corrected),
        TEST(test_corrected_moves),
        TEST(test_conflict),
        TEST(test_conflict_without_decoder),
        TEST(test_second_patient),
        TEST(test_second_source),
        TEST(test_bad_uid),
        TEST(test_disk_reserve),
        TEST(test_device_uid),
        TEST(test_tmp_cleaned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
