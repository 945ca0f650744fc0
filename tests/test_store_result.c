/* LABELS: quick
 * Results and their artifacts: immutable, checked, in the worklist's order; verdicts and signatures on them. */
#include "store_fixture.h"

/* Overwrites a stored blob's last byte behind the store's back. */
static void corrupt(const struct fixture *fixture, const char *content) {
    struct err err = {0};
    char digest[DIGEST_HEX_SIZE], path[512];
    assert_good(digest_hex(content, strlen(content), digest, &err));
    snprintf(path, sizeof path, "%s/blobs/%.2s/%s", fixture->folder, digest, digest);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, -1, SEEK_END), 0);
    fputc('!', file);
    fclose(file);
}

static void test_artifacts(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    char media_type[64];
    struct store_job job = fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    int64_t id = fixture_result(fixture->store, &job, 0.5);
    PULMO_SCOPED(bytes_free) struct bytes bytes = {0};
    assert_good(store_artifact_read(fixture->store, id, "sr.dcm", &bytes, media_type, &err));
    assert_int_equal(bytes.size, 5);
    assert_memory_equal(bytes.data, "an SR", 5);
    assert_string_equal(media_type, "application/dicom");
    struct bytes none = {0};
    assert_refused(store_artifact_read(fixture->store, id, "seg.dcm", &none, media_type, &err), ERR_NOT_FOUND);
    assert_refused(store_artifact_read(fixture->store, id + 1, "sr.dcm", &none, media_type, &err), ERR_NOT_FOUND);
    corrupt(fixture, "an SR");
    assert_refused(store_artifact_read(fixture->store, id, "sr.dcm", &none, media_type, &err), ERR_IO);
    assert_null(none.data);
}

static void test_bad_artifacts(void **state) {
    struct fixture *fixture = *state;
    struct err err;
    struct store_job job = fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    static const char *const names[] = {
        "",      "/etc/passwd", "a/../../b",
        "A.dcm", "a b",         "a-name-of-more-than-sixty-three-characters-is-refused-as-too-long.x"};
    for (size_t index = 0; index < sizeof names / sizeof *names; index++) {
        struct store_artifact artifact = {names[index], "text/plain", "x", 1, false};
        struct store_report report = {
            .status = STORE_ANALYSED, .summary_json = "{}", .artifacts = &artifact, .artifact_count = 1};
        assert_refused(store_job_finish(fixture->store, &job, &report, NULL, &err), ERR_INPUT);
    }
    struct store_artifact twice[] = {{"a", "text/plain", "x", 1, false}, {"a", "text/plain", "y", 1, false}};
    struct store_report report = {
        .status = STORE_ANALYSED, .summary_json = "{}", .artifacts = twice, .artifact_count = 2};
    assert_refused(store_job_finish(fixture->store, &job, &report, NULL, &err), ERR_CONFLICT);
    report.artifact_count = 1;
    report.summary_json = "{\"findings\":";
    assert_refused(store_job_finish(fixture->store, &job, &report, NULL, &err), ERR_INTERNAL);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM result"), 0);
}

/* Hundreds of files take the other way to the disk; each must be there and whole. */
static void test_many_artifacts(void **state) {
    enum { COUNT = 300 };
    static char names[COUNT][32], contents[COUNT][32];
    static struct store_artifact artifacts[COUNT];
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_job job = fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    for (int index = 0; index < COUNT; index++) {
        snprintf(names[index], sizeof names[index], "overlay/attention/%d.png", index);
        snprintf(contents[index], sizeof contents[index], "slice %d", index / 2); /* equal contents share a file */
        artifacts[index] =
            (struct store_artifact){names[index], "image/png", contents[index], strlen(contents[index]), false};
    }
    struct store_report report = {
        .status = STORE_ANALYSED, .summary_json = "{}", .artifacts = artifacts, .artifact_count = COUNT};
    int64_t id = 0;
    assert_good(store_job_finish(fixture->store, &job, &report, &id, &err));
    for (int index = 0; index < COUNT; index++) {
        PULMO_SCOPED(bytes_free) struct bytes bytes = {0};
        assert_good(store_artifact_read(fixture->store, id, names[index], &bytes, NULL, &err));
        assert_int_equal(bytes.size, strlen(contents[index]));
        assert_memory_equal(bytes.data, contents[index], bytes.size);
    }
}

static void test_study_artifacts(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    char media_type[64];
    struct store_job job = fixture_job(fixture->store, "1.2.3", STORE_JOB_DECODE);
    struct store_artifact artifacts[] = {{"series.json", "application/json", "{}", 2, false},
                                         {"slices.i16", "application/octet-stream", "0123456789", 10, false}};
    assert_good(store_decode_finish(fixture->store, &job, artifacts, 2, &err));
    assert_refused(store_decode_finish(fixture->store, &job, artifacts, 2, &err), ERR_CONFLICT);
    PULMO_SCOPED(bytes_free) struct bytes whole = {0};
    PULMO_SCOPED(bytes_free) struct bytes part = {0};
    assert_good(store_study_artifact_read(fixture->store, "1.2.3", "slices.i16", &whole, media_type, &err));
    assert_int_equal(whole.size, 10);
    assert_string_equal(media_type, "application/octet-stream");
    assert_good(store_study_artifact_read_range(fixture->store, "1.2.3", "slices.i16", 4, 3, &part, &err));
    assert_int_equal(part.size, 3);
    assert_memory_equal(part.data, "456", 3);
    struct bytes none = {0};
    assert_refused(store_study_artifact_read_range(fixture->store, "1.2.3", "slices.i16", 8, 3, &none, &err),
                   ERR_INPUT);
    assert_refused(store_study_artifact_read_range(fixture->store, "1.2.3", "slices.i16", UINT64_MAX, 3, &none, &err),
                   ERR_INPUT);
    assert_refused(store_study_artifact_read(fixture->store, "1.2.4", "slices.i16", &none, media_type, &err),
                   ERR_NOT_FOUND);
    corrupt(fixture, "0123456789");
    assert_refused(store_study_artifact_read(fixture->store, "1.2.3", "slices.i16", &none, media_type, &err), ERR_IO);
    /* the decoding of a new revision replaces all of the former's */
    struct store_job next;
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.sop = "1.2.3.4.2"}, &err));
    assert_good(store_job_take(fixture->store, 1U << STORE_JOB_DECODE, pulmo_now_ms() + 2 * QUIET_MS, &next, &err));
    assert_good(store_decode_finish(fixture->store, &next, artifacts, 1, &err));
    assert_refused(store_study_artifact_read(fixture->store, "1.2.3", "slices.i16", &none, media_type, &err),
                   ERR_NOT_FOUND);
}

static void test_immutable(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_job job = fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    int64_t id = fixture_result(fixture->store, &job, 0.5);
    struct store_verdict verdict = {.finding_id = 1, .verdict = "accepted", .user = "jane"};
    assert_good(store_verdict_put(fixture->store, id, &verdict, &err));
    static const char *const attempts[] = {
        "UPDATE result SET status = 2",
        "UPDATE result SET probability_max = 0.1",
        "UPDATE result SET summary_json = '{}'",
        "UPDATE result SET superseded_by = 1, status = 2",
        "DELETE FROM result",
        "UPDATE artifact SET blob_sha256 = 'x'",
        "DELETE FROM artifact",
        "UPDATE verdict SET verdict = 'rejected'",
        "DELETE FROM verdict",
        "UPDATE audit SET content = '{}'",
        "DELETE FROM audit",
    };
    for (size_t index = 0; index < sizeof attempts / sizeof *attempts; index++)
        if (fixture_sql(fixture, attempts[index]) != SQLITE_CONSTRAINT)
            fail_msg("not refused: %s", attempts[index]);
    assert_int_equal(fixture_sql(fixture, "UPDATE result SET superseded_by = 1"), SQLITE_OK);
    assert_int_equal(fixture_sql(fixture, "UPDATE result SET superseded_by = NULL"), SQLITE_CONSTRAINT);
}

static void test_verdicts(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_job job = fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    int64_t id = fixture_result(fixture->store, &job, 0.5);
    struct store_verdict *verdicts = NULL;
    size_t count = 0;
    static const char *const sequence[] = {"accepted", "rejected", "none", "rejected"};
    for (size_t index = 0; index < 4; index++) {
        struct store_verdict verdict = {.finding_id = 2, .user = "jane"};
        snprintf(verdict.verdict, sizeof verdict.verdict, "%s", sequence[index]);
        assert_good(store_verdict_put(fixture->store, id, &verdict, &err));
        assert_good(store_verdict_list(fixture->store, id, &verdicts, &count, &err));
        assert_int_equal(count, index == 2 ? 0 : 1);
        if (count)
            assert_string_equal(verdicts[0].verdict, sequence[index]);
        free(verdicts);
    }
    struct store_verdict added = {.verdict = "added", .center_lps_mm = {1, -2, 3}, .diameter_mm = 7, .user = "jane"};
    assert_good(store_verdict_put(fixture->store, id, &added, &err));
    assert_int_equal(added.finding_id, 10001);
    struct store_verdict second = {.verdict = "added", .center_lps_mm = {1, 2, 3}, .diameter_mm = 5, .user = "jane"};
    assert_good(store_verdict_put(fixture->store, id, &second, &err));
    assert_int_equal(second.finding_id, 10002);
    struct store_verdict removed = {.verdict = "removed", .finding_id = 10001, .user = "jane"};
    assert_good(store_verdict_put(fixture->store, id, &removed, &err));
    assert_good(store_verdict_list(fixture->store, id, &verdicts, &count, &err));
    assert_int_equal(count, 2);
    assert_int_equal(verdicts[1].finding_id, 10002);
    assert_true(verdicts[1].center_lps_mm[1] > 1.9 && verdicts[1].diameter_mm > 4.9);
    free(verdicts);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM verdict"), 7);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%verdict-%jane%'"), 7);
}

static void test_bad_verdicts(void **state) {
    struct fixture *fixture = *state;
    struct err err;
    struct store_job job = fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    int64_t id = fixture_result(fixture->store, &job, 0.5);
    struct store_verdict unknown = {.finding_id = 3, .verdict = "accepted", .user = "jane"};
    assert_refused(store_verdict_put(fixture->store, id, &unknown, &err), ERR_NOT_FOUND);
    struct store_verdict word = {.finding_id = 1, .verdict = "perhaps", .user = "jane"};
    assert_refused(store_verdict_put(fixture->store, id, &word, &err), ERR_INPUT);
    struct store_verdict nobody = {.finding_id = 1, .verdict = "accepted"};
    assert_refused(store_verdict_put(fixture->store, id, &nobody, &err), ERR_INPUT);
    struct store_verdict placeless = {.verdict = "added", .user = "jane"};
    assert_refused(store_verdict_put(fixture->store, id, &placeless, &err), ERR_INPUT);
    struct store_verdict detected = {.finding_id = 1, .verdict = "removed", .user = "jane"};
    assert_refused(store_verdict_put(fixture->store, id, &detected, &err), ERR_NOT_FOUND);
    struct store_verdict good = {.finding_id = 1, .verdict = "accepted", .user = "jane"};
    assert_refused(store_verdict_put(fixture->store, id + 1, &good, &err), ERR_NOT_FOUND);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM verdict"), 0);
}

static void test_sign(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    const char *destinations[] = {"PACS"};
    char user[64], display_name[128];
    assert_good(store_set_destinations(fixture->store, destinations, 1, &err));
    assert_good(store_user_add(fixture->store, "jane", "Dr. Jane Doe", "radiologist", "correct horse", &err));
    struct store_job job = fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    int64_t id = fixture_result(fixture->store, &job, 0.5);
    assert_refused(store_sign_request(fixture->store, id, "john", &err), ERR_DENIED);
    assert_good(store_sign_request(fixture->store, id, "jane", &err));
    assert_refused(store_sign_request(fixture->store, id, "jane", &err), ERR_CONFLICT);
    struct store_verdict verdict = {.finding_id = 1, .verdict = "accepted", .user = "jane"};
    assert_refused(store_verdict_put(fixture->store, id, &verdict, &err), ERR_CONFLICT);
    struct store_job signing = fixture_job(fixture->store, "1.2.3", STORE_JOB_SIGN);
    assert_int_equal(signing.result_id, id);
    assert_good(store_sign_user(fixture->store, &signing, user, sizeof user, display_name, sizeof display_name, &err));
    assert_string_equal(display_name, "Dr. Jane Doe");
    struct store_artifact clash = {"sr.dcm", "application/dicom", "signed", 6, true};
    assert_refused(store_sign_finish(fixture->store, &signing, &clash, 1, &err), ERR_CONFLICT);
    struct store_artifact artifact = {"signed/sr.dcm", "application/dicom", "signed", 6, true};
    assert_good(store_sign_finish(fixture->store, &signing, &artifact, 1, &err));
    assert_refused(store_sign_finish(fixture->store, &signing, &artifact, 1, &err), ERR_CONFLICT);
    assert_refused(store_sign_request(fixture->store, id, "jane", &err), ERR_CONFLICT);
    struct store_study study;
    assert_good(store_study_get(fixture->store, "1.2.3", &study, &err));
    assert_string_equal(study.state, "signed");
    struct store_counts counts;
    assert_good(store_counts(fixture->store, &counts, &err));
    assert_int_equal(counts.outbox_waiting, 2);
}

/* A signing that failed for good may be asked for again. */
static void test_sign_again(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    assert_good(store_user_add(fixture->store, "jane", "Dr. Jane Doe", "radiologist", "correct horse", &err));
    struct store_job job = fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    int64_t id = fixture_result(fixture->store, &job, 0.5);
    assert_good(store_sign_request(fixture->store, id, "jane", &err));
    struct store_job signing = fixture_job(fixture->store, "1.2.3", STORE_JOB_SIGN);
    assert_good(store_job_fail(fixture->store, &signing, &(struct err){ERR_INTERNAL, "broken"}, &err));
    struct store_result result;
    assert_good(store_result_get(fixture->store, id, &result, &err));
    assert_string_equal(result.sign_failure, "broken"); /* who waits for the signature is told */
    assert_good(store_sign_request(fixture->store, id, "jane", &err));
    assert_good(store_result_get(fixture->store, id, &result, &err));
    assert_string_equal(result.sign_failure, "");
}

static void test_failed_is_not_signed(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    int64_t id = 0;
    assert_good(store_user_add(fixture->store, "jane", "Dr. Jane Doe", "radiologist", "correct horse", &err));
    struct store_job job = fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    struct store_report report = {.status = STORE_FAILED, .reason = "FAILED: a broken image", .summary_json = "{}"};
    assert_good(store_job_finish(fixture->store, &job, &report, &id, &err));
    assert_refused(store_sign_request(fixture->store, id, "jane", &err), ERR_CONFLICT);
}

static void test_superseded_is_closed(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_job next, job = fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    assert_good(store_user_add(fixture->store, "jane", "Dr. Jane Doe", "radiologist", "correct horse", &err));
    int64_t id = fixture_result(fixture->store, &job, 0.5);
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.sop = "1.2.3.4.2"}, &err));
    assert_good(store_job_take(fixture->store, 1U << STORE_JOB_ANALYSE, pulmo_now_ms() + 2 * QUIET_MS, &next, &err));
    fixture_result(fixture->store, &next, 0.5);
    struct store_verdict verdict = {.finding_id = 1, .verdict = "accepted", .user = "jane"};
    assert_refused(store_verdict_put(fixture->store, id, &verdict, &err), ERR_CONFLICT);
    assert_refused(store_sign_request(fixture->store, id, "jane", &err), ERR_CONFLICT);
}

/* Unsigned before signed, then review, then probability. */
static void test_worklist(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    static const char *const studies[] = {"1.2.1", "1.2.2", "1.2.3", "1.2.4"};
    static const double probabilities[] = {0.2, 0.9, 0.99, 0.3};
    int64_t ids[4];
    for (int index = 0; index < 4; index++) {
        struct store_job job = fixture_job(fixture->store, studies[index], STORE_JOB_ANALYSE);
        struct store_report report = {.status = STORE_ANALYSED,
                                      .summary_json = "{}",
                                      .probability_max = probabilities[index],
                                      .review = index == 3};
        assert_good(store_job_finish(fixture->store, &job, &report, &ids[index], &err));
    }
    assert_good(store_user_add(fixture->store, "jane", "Dr. Jane Doe", "radiologist", "correct horse", &err));
    assert_good(store_sign_request(fixture->store, ids[2], "jane", &err));
    struct store_job signing = fixture_job(fixture->store, "1.2.3", STORE_JOB_SIGN);
    assert_good(store_sign_finish(fixture->store, &signing, NULL, 0, &err));
    struct store_study *list = NULL;
    size_t count = 0;
    assert_good(store_study_list(fixture->store, 0, 10, &list, &count, &err));
    assert_int_equal(count, 4);
    static const char *const expected[] = {"1.2.4", "1.2.2", "1.2.1", "1.2.3"};
    for (int index = 0; index < 4; index++)
        assert_string_equal(list[index].study_uid, expected[index]);
    free(list);
    assert_good(store_study_list(fixture->store, 3, 10, &list, &count, &err));
    assert_int_equal(count, 1);
    assert_string_equal(list[0].state, "signed");
    free(list);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_artifacts),
        TEST(test_bad_artifacts),
        TEST(test_many_artifacts),
        TEST(test_study_artifacts),
        TEST(test_immutable),
        TEST(test_verdicts),
        TEST(test_bad_verdicts),
        TEST(test_sign),
        TEST(test_sign_again),
        TEST(test_failed_is_not_signed),
        TEST(test_superseded_is_closed),
        TEST(test_worklist),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
