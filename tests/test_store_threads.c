/* LABELS: quick tsan
 * Several associations put at once, several workers take at once, each thread with a handle of its own. */
#include "store_fixture.h"

#include <pthread.h>

#define SENDERS 4
#define STUDIES 5
#define PUTS 20
#define WORKERS 3

struct thread {
    const struct fixture *fixture;
    pthread_t id;
    int index, done;
    struct err err;
};

/* Every sender sends instances of its own and one that all of them send, to every study. */
static void *send_all(void *context) {
    struct thread *thread = context;
    struct store *store = store_open(&thread->fixture->config, &thread->err);
    uint64_t association = (uint64_t)thread->index + 1;
    bool good = store && store_association_opened(store, association, "SENDER", "192.0.2.1", &thread->err);
    for (int index = 0; good && index < PUTS; index++) {
        char study[32], sop[64];
        snprintf(study, sizeof study, "1.2.%d", index % STUDIES);
        snprintf(sop, sizeof sop, "%s.%d.%d", study, thread->index, index);
        if (index < STUDIES)
            snprintf(sop, sizeof sop, "%s.99", study);
        struct fixture_instance from = {.study = study, .sop = sop, .association_id = association};
        good = fixture_put(store, &from, &thread->err);
        thread->done += good;
    }
    if (good && !store_association_closed(store, association, &thread->err))
        thread->done = -1;
    store_close(store);
    return NULL;
}

static void *work_all(void *context) {
    struct thread *thread = context;
    struct store *store = store_open(&thread->fixture->config, &thread->err);
    for (struct store_job job = {.id = 1}; store && job.id;) {
        struct store_report report = {.status = STORE_ANALYSED, .summary_json = "{}"};
        if (!store_job_take(store, 1U << STORE_JOB_ANALYSE, pulmo_now_ms() + QUIET_MS + 1000, &job, &thread->err))
            break;
        if (job.id && store_job_finish(store, &job, &report, NULL, &thread->err))
            thread->done++;
    }
    store_close(store);
    return NULL;
}

static int run(struct thread *threads, int count, const struct fixture *fixture, void *(*body)(void *)) {
    int done = 0;
    for (int index = 0; index < count; index++) {
        threads[index] = (struct thread){.fixture = fixture, .index = index};
        assert_int_equal(pthread_create(&threads[index].id, NULL, body, &threads[index]), 0);
    }
    for (int index = 0; index < count; index++) {
        pthread_join(threads[index].id, NULL);
        if (threads[index].err.kind)
            fail_msg("thread %d: %s", index, threads[index].err.text);
        done += threads[index].done;
    }
    return done;
}

static void test_threads(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct thread threads[SENDERS + WORKERS];
    assert_int_equal(run(threads, SENDERS, fixture, send_all), SENDERS * PUTS);
    struct store_counts counts;
    assert_good(store_counts(fixture->store, &counts, &err));
    assert_int_equal(counts.studies, STUDIES);
    assert_int_equal(counts.instances, SENDERS * (PUTS - STUDIES) + STUDIES);
    assert_int_equal(run(threads, WORKERS, fixture, work_all), STUDIES); /* each study once */
    assert_good(store_counts(fixture->store, &counts, &err));
    assert_int_equal(counts.results, STUDIES);
    int64_t rows = 0, bad = 0;
    char reason[200];
    assert_good(store_audit_verify(fixture->store, &rows, &bad, reason, sizeof reason, &err));
    assert_int_equal(bad, 0);
    assert_true(rows >= SENDERS * STUDIES + 2 * STUDIES);
}

/* Processes and threads that start at the same moment make one store. */
static void *open_only(void *context) {
    struct thread *thread = context;
    struct store *store = store_open(&thread->fixture->config, &thread->err);
    thread->done = store != NULL;
    store_close(store);
    return NULL;
}

static void test_open_at_once(void **state) {
    struct fixture *fixture = *state, fresh = *fixture;
    struct thread threads[6];
    char folder[160];
    snprintf(folder, sizeof folder, "%s/fresh", fixture->folder);
    fresh.config.folder = folder;
    assert_int_equal(run(threads, 6, &fresh, open_only), 6);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {TEST(test_threads), TEST(test_open_at_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
