/* A store in a folder of its own, and instances to put in it. For tests/test_store_*.c. */
#ifndef PULMO_TESTS_STORE_FIXTURE_H
#define PULMO_TESTS_STORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ftw.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "digest.h"
#include "store/store.h"

#define QUIET_MS 5000
#define LEASE_MS 60000
#define ATTEMPTS_MAX 3

/* Fails the test with the error's own sentence. */
#define assert_good(expression)                                                     \
    do {                                                                            \
        if (!(expression))                                                          \
            fail_msg("%s: %s: %s", #expression, err_kind_name(err.kind), err.text); \
    } while (0)
#define assert_refused(expression, expected)                                                                    \
    do {                                                                                                        \
        err = (struct err){0};                                                                                  \
        assert_false(expression);                                                                               \
        if (err.kind != (expected))                                                                             \
            fail_msg("%s: %s instead of %s: %s", #expression, err_kind_name(err.kind), err_kind_name(expected), \
                     err.text);                                                                                 \
    } while (0)

struct fixture {
    char folder[128];
    struct store_config config;
    struct store *store;
};

/* The pixels of a fixture's instance are what follows the word PIXELS: enough of a decoder to tell versions apart. */
static inline bool fixture_pixel_digest(const void *part10, size_t size, char out[65], struct err *err) {
    const uint8_t *found = memmem(part10, size, "PIXELS", 6);
    if (!found)
        return err_set(err, ERR_INPUT, "no pixels");
    return digest_hex(found, size - (size_t)(found - (const uint8_t *)part10), out, err);
}

static inline struct store *fixture_handle(const struct fixture *fixture) {
    struct err err = {0};
    struct store *store = store_open(&fixture->config, &err);
    if (!store)
        fail_msg("%s", err.text);
    store_set_pixel_digest(store, fixture_pixel_digest);
    return store;
}

static inline int fixture_setup(void **state) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    snprintf(fixture->folder, sizeof fixture->folder, "/tmp/pulmo-store-XXXXXX");
    assert_non_null(mkdtemp(fixture->folder));
    fixture->config = (struct store_config){.folder = fixture->folder,
                                            .quiet_ms = QUIET_MS,
                                            .disk_reserve_bytes = 1 << 20,
                                            .lease_ms = LEASE_MS,
                                            .attempts_max = ATTEMPTS_MAX,
                                            .password_memory_kib = 64};
    fixture->store = fixture_handle(fixture);
    *state = fixture;
    return 0;
}

static inline int fixture_remove(const char *path, const struct stat *status, int type, struct FTW *walk) {
    (void)status;
    (void)type;
    (void)walk;
    return remove(path);
}

static inline int fixture_teardown(void **state) {
    struct fixture *fixture = *state;
    store_close(fixture->store);
    nftw(fixture->folder, fixture_remove, 16, FTW_DEPTH | FTW_PHYS);
    free(fixture);
    return 0;
}

/* What an instance is made of; the rest has sensible values. */
struct fixture_instance {
    const char *study, *sop, *syntax, *meta, *header, *pixels;
    const char *patient_id, *calling_aet;
    uint64_t association_id;
};

#define FIXTURE_PART10_MAX 4096
/* Part 10 as PS3.10 7.1 lays it out: preamble, DICM, group length, the rest of the meta information, the data set. */
static inline size_t fixture_part10(const struct fixture_instance *from, uint8_t out[FIXTURE_PART10_MAX]) {
    char meta[512], data[2048];
    int meta_length = snprintf(meta, sizeof meta, "%s|%s", from->syntax, from->meta ? from->meta : "meta");
    int data_length = snprintf(data, sizeof data, "%s|%s|PIXELS%s", from->sop, from->header ? from->header : "header",
                               from->pixels ? from->pixels : "0123456789");
    memset(out, 0, 144);
    memcpy(out + 128, "DICM\2\0\0\0UL\4\0", 12);
    out[140] = (uint8_t)meta_length;
    memcpy(out + 144, meta, (size_t)meta_length);
    memcpy(out + 144 + meta_length, data, (size_t)data_length);
    return 144 + (size_t)meta_length + (size_t)data_length;
}

static inline bool fixture_put(struct store *store, const struct fixture_instance *from, struct err *err) {
    uint8_t part10[FIXTURE_PART10_MAX];
    struct fixture_instance made = *from;
    made.study = made.study ? made.study : "1.2.3";
    made.sop = made.sop ? made.sop : "1.2.3.4.1";
    made.syntax = made.syntax ? made.syntax : "1.2.840.10008.1.2.1";
    struct instance instance = {.part10 = part10, .part10_size = fixture_part10(&made, part10), .instance_number = 1};
    instance.association_id = made.association_id;
    snprintf(instance.sop_class_uid, sizeof instance.sop_class_uid, "1.2.840.10008.5.1.4.1.1.2");
    snprintf(instance.sop_instance_uid, sizeof instance.sop_instance_uid, "%s", made.sop);
    snprintf(instance.study_uid, sizeof instance.study_uid, "%s", made.study);
    snprintf(instance.series_uid, sizeof instance.series_uid, "%s.9", made.study);
    snprintf(instance.transfer_syntax_uid, sizeof instance.transfer_syntax_uid, "%s", made.syntax);
    snprintf(instance.calling_aet, sizeof instance.calling_aet, "%s", made.calling_aet ? made.calling_aet : "SENDER");
    snprintf(instance.called_aet, sizeof instance.called_aet, "PULMO");
    snprintf(instance.peer_address, sizeof instance.peer_address, "192.0.2.1");
    snprintf(instance.patient_name, sizeof instance.patient_name, "Doe^Jane");
    snprintf(instance.patient_id, sizeof instance.patient_id, "%s", made.patient_id ? made.patient_id : "P1");
    snprintf(instance.modality, sizeof instance.modality, "CT");
    return store_instance_put(store, &instance, err);
}

/* A complete study with its analysis leased. */
static inline struct store_job fixture_job(struct store *store, const char *study_uid, enum store_job_kind kind) {
    struct err err = {0};
    struct store_job job;
    char sop[DICOM_UID_SIZE];
    snprintf(sop, sizeof sop, "%.50s.4.1", study_uid);
    if (kind != STORE_JOB_SIGN)
        assert_good(fixture_put(store, &(struct fixture_instance){.study = study_uid, .sop = sop}, &err));
    assert_good(store_job_take(store, 1U << kind, pulmo_now_ms() + QUIET_MS + 1, &job, &err));
    assert_true(job.id > 0);
    return job;
}

#define FIXTURE_SUMMARY "{\"status\":\"analysed\",\"findings\":[{\"id\":1},{\"id\":2}]}"

/* A result with an SR to send and a document, for a job from fixture_job. */
static inline int64_t fixture_result(struct store *store, const struct store_job *job, double probability) {
    static const struct store_artifact artifacts[] = {
        {"analysis.json", "application/json", FIXTURE_SUMMARY, sizeof FIXTURE_SUMMARY - 1, false},
        {"sr.dcm", "application/dicom", "an SR", 5, true}};
    struct store_report report = {.status = STORE_ANALYSED,
                                  .series_uid = "1.2.3.9",
                                  .reason = "",
                                  .summary_json = FIXTURE_SUMMARY,
                                  .model_sha256 = "00",
                                  .backend = "cpu",
                                  .findings_reported = 2,
                                  .probability_max = probability,
                                  .artifacts = artifacts,
                                  .artifact_count = 2};
    struct err err = {0};
    int64_t result_id = 0;
    assert_good(store_job_finish(store, job, &report, &result_id, &err));
    return result_id;
}

/* A second connection of the test's own, as an administrator with the sqlite3 tool has it. */
static inline int fixture_sql(const struct fixture *fixture, const char *sql) {
    char path[256];
    sqlite3 *database = NULL;
    snprintf(path, sizeof path, "%s/pulmo.db", fixture->folder);
    assert_int_equal(sqlite3_open(path, &database), SQLITE_OK);
    sqlite3_busy_timeout(database, 5000);
    sqlite3_exec(database, "PRAGMA foreign_keys = ON", NULL, NULL, NULL);
    int code = sqlite3_exec(database, sql, NULL, NULL, NULL);
    sqlite3_close(database);
    return code;
}

static inline int64_t fixture_count(const struct fixture *fixture, const char *sql) {
    char path[256];
    sqlite3 *database = NULL;
    sqlite3_stmt *statement = NULL;
    snprintf(path, sizeof path, "%s/pulmo.db", fixture->folder);
    assert_int_equal(sqlite3_open(path, &database), SQLITE_OK);
    sqlite3_busy_timeout(database, 5000);
    assert_int_equal(sqlite3_prepare_v2(database, sql, -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    int64_t value = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    sqlite3_close(database);
    return value;
}

#endif
