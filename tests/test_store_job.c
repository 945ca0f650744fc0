/* LABELS: quick
 * Leases, retries and the dead letter. */
#include "store_fixture.h"

#include <signal.h>
#include <sys/wait.h>

#define ANALYSE (1U << STORE_JOB_ANALYSE)
#define SOON_MS (QUIET_MS + 1000)

static struct store_job take_in(struct store *store, int64_t ms) {
    struct err err = {0};
    struct store_job job;
    assert_good(store_job_take(store, ANALYSE, pulmo_now_ms() + ms, &job, &err));
    return job;
}

static bool finish(struct store *store, const struct store_job *job, struct err *err) {
    struct store_report report = {.status = STORE_REFUSED, .reason = "NOT_A_CHEST: it is a head", .summary_json = "{}"};
    return store_job_finish(store, job, &report, NULL, err);
}

/* Two handles, one job: one of them gets it. */
static void test_one_holder(void **state) {
    struct fixture *fixture = *state;
    fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    PULMO_SCOPED(store_close_at) struct store *other = fixture_handle(fixture);
    assert_int_equal(take_in(other, SOON_MS).id, 0);
    /* nor does one that read the clock earlier and waited for the database */
    assert_int_equal(take_in(other, SOON_MS - 2000).id, 0);
}

/* The lease ran out and another took the job: the first holder's result is refused, and nothing of it is written. */
static void test_lease_lost(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_job first = fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    struct store_job second = take_in(fixture->store, SOON_MS + LEASE_MS);
    assert_int_equal(second.id, first.id);
    assert_int_equal(second.attempt, 2);
    assert_refused(finish(fixture->store, &first, &err), ERR_CONFLICT);
    assert_refused(store_job_renew(fixture->store, &first, pulmo_now_ms(), &err), ERR_CONFLICT);
    assert_refused(store_job_fail(fixture->store, &first, &(struct err){ERR_IO, "x"}, &err), ERR_CONFLICT);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM result"), 0);
    assert_good(finish(fixture->store, &second, &err));
    assert_refused(finish(fixture->store, &second, &err), ERR_CONFLICT);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM result"), 1);
}

/* A process that is killed with a job in its hands, lease and clock left as they are. */
static void killed_with(const struct fixture *fixture, bool outbox) {
    pid_t pid = fork();
    if (pid == 0) {
        struct err err = {0};
        struct store_job job;
        struct store_outgoing outgoing;
        struct store *store = fixture_handle(fixture);
        int64_t now_ms = pulmo_now_ms() + SOON_MS;
        bool taken = outbox ? store_outbox_take(store, now_ms, &outgoing, &err) && outgoing.id
                            : store_job_take(store, ANALYSE, now_ms, &job, &err) && job.id;
        if (taken)
            raise(SIGKILL);
        _exit(1);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
}

static void test_killed_holder(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    const char *const names[] = {"PACS"};
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){0}, &err));
    killed_with(fixture, false);
    struct store_job job = take_in(fixture->store, SOON_MS + 1);
    assert_int_equal(job.attempt, 2);
    PULMO_SCOPED(store_close_at) struct store *other = fixture_handle(fixture);
    assert_int_equal(take_in(other, SOON_MS + 2).id, 0); /* this holder lives */
    assert_good(store_set_destinations(fixture->store, names, 1, &err));
    fixture_result(fixture->store, &job, 0.5);
    killed_with(fixture, true);
    struct store_outgoing outgoing;
    assert_good(store_outbox_take(other, pulmo_now_ms() + SOON_MS, &outgoing, &err));
    assert_int_equal(outgoing.attempt, 2);
    assert_good(store_outbox_take(fixture->store, pulmo_now_ms() + SOON_MS, &outgoing, &err));
    assert_int_equal(outgoing.id, 0);
}

/* Asked to stop: the job is due at once, as if it had not been taken. */
static void test_release(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_job job = fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    for (int times = 0; times < 2 * ATTEMPTS_MAX; times++) {
        assert_good(store_job_release(fixture->store, &job, &err));
        assert_refused(finish(fixture->store, &job, &err), ERR_CONFLICT);
        job = take_in(fixture->store, SOON_MS);
        assert_int_equal(job.attempt, 1);
    }
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.sop = "1.2.3.4.2"}, &err));
    PULMO_SCOPED(store_close_at) struct store *other = fixture_handle(fixture);
    assert_int_equal(take_in(other, SOON_MS).id, 0); /* queues the next revision behind the job that runs */
    assert_good(store_job_release(fixture->store, &job, &err));
    struct store_job next = take_in(other, SOON_MS);
    assert_true(next.id > job.id);
    assert_good(finish(other, &next, &err));
    assert_int_equal(take_in(other, 3600000).id, 0);
}

static void test_renew(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_job job = fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    assert_good(store_job_renew(fixture->store, &job, pulmo_now_ms() + LEASE_MS, &err));
    assert_int_equal(take_in(fixture->store, SOON_MS + LEASE_MS).id, 0);
    assert_true(take_in(fixture->store, SOON_MS + 2 * LEASE_MS).id > 0);
}

/* A holder that dies each time: the job is buried, the study is shown as failed. */
static void test_poison(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_study study;
    fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    for (int attempt = 2; attempt <= ATTEMPTS_MAX; attempt++)
        assert_int_equal(take_in(fixture->store, SOON_MS + attempt * 2 * LEASE_MS - 2 * LEASE_MS).attempt, attempt);
    assert_int_equal(take_in(fixture->store, SOON_MS + ATTEMPTS_MAX * 2 * LEASE_MS).id, 0);
    assert_good(store_study_get(fixture->store, "1.2.3", &study, &err));
    assert_string_equal(study.state, "failed");
    assert_true(strlen(study.reason) > 0);
    struct store_counts counts;
    assert_good(store_counts(fixture->store, &counts, &err));
    assert_int_equal(counts.jobs_dead, 1);
    assert_int_equal(counts.jobs_queued, 1); /* the decoding */
}

static void test_transient(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_job job = fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    assert_good(store_job_fail(fixture->store, &job, &(struct err){ERR_IO, "disk: read error"}, &err));
    assert_int_equal(take_in(fixture->store, 4000).id, 0); /* backs off 5 s, then 10 s */
    job = take_in(fixture->store, SOON_MS);
    assert_int_equal(job.attempt, 2);
    assert_good(store_job_fail(fixture->store, &job, &(struct err){ERR_IO, "disk: read error"}, &err));
    assert_int_equal(take_in(fixture->store, 9000).id, 0);
    job = take_in(fixture->store, 11000);
    assert_int_equal(job.attempt, ATTEMPTS_MAX);
    assert_good(store_job_fail(fixture->store, &job, &(struct err){ERR_IO, "disk: read error"}, &err));
    assert_int_equal(take_in(fixture->store, 3600000).id, 0);
    struct store_study study;
    assert_good(store_study_get(fixture->store, "1.2.3", &study, &err));
    assert_string_equal(study.state, "failed");
    assert_string_equal(study.reason, "disk: read error");
}

static void test_permanent(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_job job = fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    assert_good(store_job_fail(fixture->store, &job, &(struct err){ERR_INPUT, "Patient Doe: bad"}, &err));
    assert_int_equal(take_in(fixture->store, 3600000).id, 0);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%job-dead%input%'"), 1);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%Doe%'"), 0);
    /* a late slice gives it another chance */
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.sop = "1.2.3.4.2"}, &err));
    assert_int_equal(take_in(fixture->store, SOON_MS).attempt, 1);
}

/* A full disk is no fault of the job: it waits for longer than any number of attempts. */
static void test_no_space(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_job job = fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    for (int times = 0; times < 3 * ATTEMPTS_MAX; times++) {
        assert_good(store_job_fail(fixture->store, &job, &(struct err){ERR_NO_SPACE, "full"}, &err));
        job = take_in(fixture->store, 11 * 60 * 1000);
        assert_true(job.id > 0);
    }
    assert_good(finish(fixture->store, &job, &err));
}

static void test_clock_forward_and_back(void **state) {
    struct fixture *fixture = *state;
    int64_t year_ms = 365LL * 24 * 3600 * 1000;
    struct err err = {0};
    struct store_job job = fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    assert_good(store_job_renew(fixture->store, &job, pulmo_now_ms() + year_ms, &err));
    assert_int_equal(take_in(fixture->store, SOON_MS).id, job.id); /* a lease that no renewal can have given */
}

static void test_reason_of_a_refusal(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_study study;
    struct store_job job = fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    assert_good(store_study_get(fixture->store, "1.2.3", &study, &err));
    assert_string_equal(study.state, "analysing");
    assert_good(finish(fixture->store, &job, &err));
    assert_good(store_study_get(fixture->store, "1.2.3", &study, &err));
    assert_string_equal(study.state, "refused");
    assert_string_equal(study.reason, "NOT_A_CHEST: it is a head");
}

static void test_requeue(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_job job = fixture_job(fixture->store, "1.2.3", STORE_JOB_ANALYSE);
    assert_refused(store_study_requeue(fixture->store, "1.2.3", "jane", &err), ERR_NOT_FOUND);
    err = (struct err){0};
    assert_good(store_job_fail(fixture->store, &job, &(struct err){ERR_INTERNAL, "broken"}, &err));
    assert_good(store_study_requeue(fixture->store, "1.2.3", "jane", &err));
    job = take_in(fixture->store, SOON_MS);
    assert_int_equal(job.attempt, 1);
    assert_good(finish(fixture->store, &job, &err));
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%requeue%jane%'"), 1);
}

/* A commit through another handle wakes; nothing written lets the time pass. */
static void test_wait(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    PULMO_SCOPED(store_close_at) struct store *other = fixture_handle(fixture);
    assert_good(store_wait(fixture->store, 0, &err)); /* starts to watch */
    int64_t start_ms = pulmo_monotonic_ms();
    assert_good(store_wait(fixture->store, 50, &err));
    assert_true(pulmo_monotonic_ms() - start_ms >= 49);
    assert_good(fixture_put(other, &(struct fixture_instance){0}, &err));
    start_ms = pulmo_monotonic_ms();
    assert_good(store_wait(fixture->store, 30000, &err));
    assert_true(pulmo_monotonic_ms() - start_ms < 10000);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_one_holder),
        TEST(test_lease_lost),
        TEST(test_renew),
        TEST(test_poison),
        TEST(test_transient),
        TEST(test_permanent),
        TEST(test_no_space),
        TEST(test_clock_forward_and_back),
        TEST(test_killed_holder),
        TEST(test_release),
        TEST(test_reason_of_a_refusal),
        TEST(test_requeue),
        TEST(test_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
