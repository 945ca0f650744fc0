/* LABELS: quick
 * When a study is complete, and what a late slice does. REFERENCE 7. */
#include "store_fixture.h"

#define ANALYSE (1U << STORE_JOB_ANALYSE)
#define DECODE (1U << STORE_JOB_DECODE)
#define TEN_MINUTES_MS (10 * 60 * 1000)

/* The id of the job due at now + ms, 0 when there is none. */
static struct store_job take_in(struct store *store, unsigned kinds, int64_t ms) {
    struct err err = {0};
    struct store_job job;
    assert_good(store_job_take(store, kinds, pulmo_now_ms() + ms, &job, &err));
    return job;
}

static void put(struct store *store, const char *sop, uint64_t association_id) {
    struct err err = {0};
    assert_good(fixture_put(store, &(struct fixture_instance){.sop = sop, .association_id = association_id}, &err));
}

static void test_quiet(void **state) {
    struct fixture *fixture = *state;
    put(fixture->store, "1.2.3.4.1", 0);
    assert_int_equal(take_in(fixture->store, ANALYSE | DECODE, QUIET_MS - 1000).id, 0);
    struct store_job job = take_in(fixture->store, ANALYSE, QUIET_MS + 1);
    assert_true(job.id > 0);
    assert_int_equal(job.kind, STORE_JOB_ANALYSE);
    assert_int_equal(job.attempt, 1);
    assert_int_equal(job.study_revision, 1);
    assert_string_equal(job.study_uid, "1.2.3");
    /* decoding was queued with it, for another process */
    assert_int_equal(take_in(fixture->store, DECODE, QUIET_MS + 1).kind, STORE_JOB_DECODE);
    assert_int_equal(take_in(fixture->store, ANALYSE | DECODE, QUIET_MS + 1).id, 0);
}

/* Quiet is not enough while the association that sends the study is open. */
static void test_association_holds(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    assert_good(store_association_opened(fixture->store, 7, "SENDER", "192.0.2.1", &err));
    put(fixture->store, "1.2.3.4.1", 7);
    assert_int_equal(take_in(fixture->store, ANALYSE, 20 * QUIET_MS).id, 0);
    assert_good(store_association_closed(fixture->store, 7, &err));
    assert_true(take_in(fixture->store, ANALYSE, QUIET_MS + 1).id > 0);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM association"), 0);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%\"110104\"%1 instances%'"),
                     1);
}

/* Two associations for one study: both must close. */
static void test_two_associations(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    assert_good(store_association_opened(fixture->store, 1, "A", "192.0.2.1", &err));
    assert_good(store_association_opened(fixture->store, 2, "B", "192.0.2.2", &err));
    put(fixture->store, "1.2.3.4.1", 1);
    put(fixture->store, "1.2.3.4.2", 2);
    assert_good(store_association_closed(fixture->store, 1, &err));
    assert_int_equal(take_in(fixture->store, ANALYSE, 20 * QUIET_MS).id, 0);
    assert_good(store_association_closed(fixture->store, 2, &err));
    assert_true(take_in(fixture->store, ANALYSE, 20 * QUIET_MS).id > 0);
}

/* A sink that does not know the association's id: matched by title and address. */
static void test_association_by_address(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    assert_good(store_association_opened(fixture->store, 9, "SENDER", "192.0.2.1", &err));
    put(fixture->store, "1.2.3.4.1", 0);
    assert_int_equal(take_in(fixture->store, ANALYSE, 20 * QUIET_MS).id, 0);
}

/* An association that went on to another study does not hold the one before. */
static void test_association_moved_on(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    assert_good(store_association_opened(fixture->store, 7, "SENDER", "192.0.2.1", &err));
    put(fixture->store, "1.2.3.4.1", 7);
    assert_good(fixture_put(
        fixture->store, &(struct fixture_instance){.study = "1.2.4", .sop = "1.2.4.4.1", .association_id = 7}, &err));
    assert_int_equal(take_in(fixture->store, ANALYSE, 2 * QUIET_MS).id, 0);
    assert_string_equal(take_in(fixture->store, ANALYSE, 4 * QUIET_MS + 1000).study_uid, "1.2.3");
    assert_int_equal(take_in(fixture->store, ANALYSE, 4 * QUIET_MS + 1000).id, 0);
}

/* A peer that stays silent on an open association does not hold a study for ever. */
static void test_silent_peer(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    assert_good(store_association_opened(fixture->store, 7, "SENDER", "192.0.2.1", &err));
    put(fixture->store, "1.2.3.4.1", 7);
    assert_int_equal(take_in(fixture->store, ANALYSE, TEN_MINUTES_MS - 1000).id, 0);
    assert_true(take_in(fixture->store, ANALYSE, TEN_MINUTES_MS + 1000).id > 0);
}

static void test_reset(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    assert_good(store_association_opened(fixture->store, 7, "SENDER", "192.0.2.1", &err));
    put(fixture->store, "1.2.3.4.1", 7);
    assert_good(store_associations_reset(fixture->store, &err));
    assert_true(take_in(fixture->store, ANALYSE, QUIET_MS + 1).id > 0);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%receive-interrupted%'"),
                     1);
}

/* One result for each state of the study; the former is superseded and says by which. */
static void test_late_slice(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    put(fixture->store, "1.2.3.4.1", 0);
    struct store_job first = take_in(fixture->store, ANALYSE, QUIET_MS + 1);
    int64_t before = fixture_result(fixture->store, &first, 0.5);
    put(fixture->store, "1.2.3.4.1", 0); /* the same again changes nothing */
    assert_int_equal(take_in(fixture->store, ANALYSE, 2 * QUIET_MS).id, 0);
    put(fixture->store, "1.2.3.4.2", 0);
    struct store_study study;
    assert_good(store_study_get(fixture->store, "1.2.3", &study, &err));
    assert_string_equal(study.state, "receiving");
    struct store_job second = take_in(fixture->store, ANALYSE, 2 * QUIET_MS);
    assert_int_equal(second.study_revision, 2);
    int64_t after = fixture_result(fixture->store, &second, 0.6);
    struct store_result result;
    assert_good(store_result_get(fixture->store, before, &result, &err));
    assert_int_equal(result.superseded_by, after);
    assert_good(store_result_current(fixture->store, "1.2.3", &result, &err));
    assert_int_equal(result.id, after);
    assert_int_equal(result.superseded_by, 0);
}

/* Slices that come while the analysis runs: its result stands, and another analysis follows it, not beside it. */
static void test_late_slice_during_analysis(void **state) {
    struct fixture *fixture = *state;
    put(fixture->store, "1.2.3.4.1", 0);
    struct store_job first = take_in(fixture->store, ANALYSE, QUIET_MS + 1);
    put(fixture->store, "1.2.3.4.2", 0);
    assert_int_equal(take_in(fixture->store, ANALYSE, 2 * QUIET_MS).id, 0);
    fixture_result(fixture->store, &first, 0.5);
    struct store_job second = take_in(fixture->store, ANALYSE, 2 * QUIET_MS);
    assert_true(second.id > first.id);
    assert_int_equal(second.study_revision, 2);
}

/* A job that waits when more slices come waits until the study is complete again, and is still one job. */
static void test_more_slices_before_the_job(void **state) {
    struct fixture *fixture = *state;
    put(fixture->store, "1.2.3.4.1", 0);
    assert_true(take_in(fixture->store, DECODE, QUIET_MS + 1).id > 0); /* queues both, takes one */
    put(fixture->store, "1.2.3.4.2", 0);
    assert_int_equal(take_in(fixture->store, ANALYSE, QUIET_MS - 1000).id, 0);
    assert_int_equal(take_in(fixture->store, ANALYSE, QUIET_MS + 1000).study_revision, 2);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM job WHERE kind = 1"), 1);
}

/* A clock set back a year: studies received in the future become quiet all the same. */
static void test_clock_back(void **state) {
    struct fixture *fixture = *state;
    int64_t year_ms = 365LL * 24 * 3600 * 1000;
    put(fixture->store, "1.2.3.4.1", 0);
    assert_int_equal(take_in(fixture->store, ANALYSE, -year_ms).id, 0);
    assert_true(take_in(fixture->store, ANALYSE, -year_ms + QUIET_MS + 1000).id > 0);
}

/* An instance that found no room will be sent again: its study waits for that, for ten minutes at most. */
static void test_refused_holds(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    put(fixture->store, "1.2.3.4.1", 0);
    uint64_t reserve = fixture->config.disk_reserve_bytes;
    fixture->config.disk_reserve_bytes = UINT64_MAX;
    PULMO_SCOPED(store_close_at) struct store *full = fixture_handle(fixture);
    fixture->config.disk_reserve_bytes = reserve;
    assert_refused(fixture_put(full, &(struct fixture_instance){.sop = "1.2.3.4.2"}, &err), ERR_NO_SPACE);
    assert_int_equal(take_in(fixture->store, ANALYSE, TEN_MINUTES_MS - 1000).id, 0);
    struct store_job late = take_in(fixture->store, DECODE, TEN_MINUTES_MS + 1000);
    assert_true(late.id > 0);
    put(fixture->store, "1.2.3.4.2", 0);
    assert_int_equal(take_in(fixture->store, ANALYSE, QUIET_MS + 1000).study_revision, 2);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_quiet),
        TEST(test_association_holds),
        TEST(test_two_associations),
        TEST(test_association_by_address),
        TEST(test_association_moved_on),
        TEST(test_silent_peer),
        TEST(test_reset),
        TEST(test_late_slice),
        TEST(test_late_slice_during_analysis),
        TEST(test_more_slices_before_the_job),
        TEST(test_clock_back),
        TEST(test_refused_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
