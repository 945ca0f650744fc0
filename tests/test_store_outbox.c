/* LABELS: quick
 * What is still to be sent: once, in spite of lost senders, for as long as it takes. */
#include "store_fixture.h"

#define HOUR_MS (60 * 60 * 1000)
#define DAY_MS (24 * HOUR_MS)

static struct store_outgoing take_at(struct store *store, int64_t now_ms) {
    struct err err = {0};
    struct store_outgoing outgoing;
    assert_good(store_outbox_take(store, now_ms, &outgoing, &err));
    return outgoing;
}

static int64_t result_for(const struct fixture *fixture, const char *study_uid, const char *const *names,
                          size_t count) {
    struct err err = {0};
    assert_good(store_set_destinations(fixture->store, names, count, &err));
    struct store_job job = fixture_job(fixture->store, study_uid, STORE_JOB_ANALYSE);
    return fixture_result(fixture->store, &job, 0.5);
}

static const char *const one[] = {"PACS"};
static const char *const two[] = {"ARCHIVE", "PACS"};

static void test_sent_once(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    int64_t id = result_for(fixture, "1.2.3", two, 2), now_ms = pulmo_now_ms() + 1000;
    struct store_outgoing first = take_at(fixture->store, now_ms), second = take_at(fixture->store, now_ms);
    assert_true(first.id && second.id && first.id != second.id);
    assert_int_equal(first.result_id, id);
    assert_string_equal(first.name, "sr.dcm");
    assert_int_not_equal(strcmp(first.destination, second.destination), 0);
    assert_int_equal(take_at(fixture->store, now_ms).id, 0);
    assert_int_equal(take_at(fixture->store, now_ms - 900).id, 0); /* read the clock earlier, came later */
    PULMO_SCOPED(bytes_free) struct bytes bytes = {0};
    assert_good(bytes_read_file(first.path, 100, &bytes, &err));
    assert_memory_equal(bytes.data, "an SR", 5);
    assert_good(store_outbox_sent(fixture->store, &first, &err));
    assert_good(store_outbox_sent(fixture->store, &first, &err)); /* saying it twice is success, and one audit row */
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%\"send\"%'"), 1);
    struct store_counts counts;
    assert_good(store_counts(fixture->store, &counts, &err));
    assert_int_equal(counts.outbox_waiting, 1);
}

/* A sender that was killed: another takes its object when the lease is over; a late word of the first still counts. */
static void test_lost_sender(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    result_for(fixture, "1.2.3", one, 1);
    int64_t now_ms = pulmo_now_ms() + 1000;
    struct store_outgoing first = take_at(fixture->store, now_ms);
    assert_int_equal(take_at(fixture->store, now_ms + LEASE_MS - 1000).id, 0);
    struct store_outgoing second = take_at(fixture->store, now_ms + LEASE_MS);
    assert_int_equal(second.id, first.id);
    assert_int_equal(second.attempt, 2);
    assert_refused(store_outbox_failed(fixture->store, &first, true, "x", now_ms, &err), ERR_CONFLICT);
    assert_good(store_outbox_sent(fixture->store, &first, &err));
    assert_good(store_outbox_sent(fixture->store, &second, &err));
    assert_int_equal(take_at(fixture->store, now_ms + DAY_MS).id, 0);
}

/* Down for a day: tried again after 5 s, 10 s, ... at most an hour, never given up. */
static void test_peer_down_for_a_day(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    result_for(fixture, "1.2.3", one, 1);
    int64_t start_ms = pulmo_now_ms() + 1000, now_ms = start_ms, wait_ms = 5000;
    int attempts = 0;
    for (; now_ms < start_ms + DAY_MS; attempts++) {
        struct store_outgoing outgoing = take_at(fixture->store, now_ms);
        assert_true(outgoing.id > 0);
        assert_good(store_outbox_failed(fixture->store, &outgoing, true, "connection refused", now_ms, &err));
        assert_int_equal(take_at(fixture->store, now_ms + wait_ms - 1).id, 0);
        now_ms += wait_ms;
        wait_ms = wait_ms * 2 < HOUR_MS ? wait_ms * 2 : HOUR_MS;
    }
    assert_true(attempts > 24 && attempts < 40);
    struct store_outgoing outgoing = take_at(fixture->store, now_ms);
    assert_good(store_outbox_sent(fixture->store, &outgoing, &err));
    struct store_counts counts;
    assert_good(store_counts(fixture->store, &counts, &err));
    assert_int_equal(counts.outbox_waiting, 0);
    assert_int_equal(counts.outbox_dead, 0);
}

/* One peer is down: what waits for it does not stand before the other's. */
static void test_one_peer_down(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    result_for(fixture, "1.2.3", two, 2);
    result_for(fixture, "1.2.4", two, 2);
    int64_t now_ms = pulmo_now_ms() + 1000;
    int sent = 0, failed = 0;
    for (struct store_outgoing outgoing; (outgoing = take_at(fixture->store, now_ms)).id;) {
        if (strcmp(outgoing.destination, "PACS") == 0) {
            assert_good(store_outbox_failed(fixture->store, &outgoing, true, "down", now_ms, &err));
            failed++;
        } else {
            assert_good(store_outbox_sent(fixture->store, &outgoing, &err));
            sent++;
        }
    }
    assert_int_equal(sent, 2);
    assert_int_equal(failed, 1); /* its second object was not even tried */
}

/* Refused by the peer: dead after attempts_max refusals, however often the peer was down in between. */
static void test_refused_by_peer(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    result_for(fixture, "1.2.3", one, 1);
    int64_t now_ms = pulmo_now_ms() + 1000;
    for (int times = 0; times < 2 * ATTEMPTS_MAX; times++, now_ms += 2 * HOUR_MS) {
        struct store_outgoing outgoing = take_at(fixture->store, now_ms);
        assert_true(outgoing.id > 0);
        assert_good(store_outbox_failed(fixture->store, &outgoing, times % 2 == 0, "status 0xA900", now_ms, &err));
    }
    assert_int_equal(take_at(fixture->store, now_ms).id, 0);
    struct store_counts counts;
    assert_good(store_counts(fixture->store, &counts, &err));
    assert_int_equal(counts.outbox_dead, 1);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%send-dead%'"), 1);
}

/* A PACS that answers while its database restarts refuses for minutes what it takes afterwards; and what was buried all
 * the same comes back by hand. */
static void test_refused_for_minutes(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    int64_t minute_ms = 60 * 1000, now_ms = pulmo_now_ms() + 1000, end_ms = now_ms + 10 * minute_ms;
    result_for(fixture, "1.2.3", one, 1);
    for (; now_ms < end_ms; now_ms += 1000) {
        struct store_outgoing outgoing = take_at(fixture->store, now_ms);
        if (outgoing.id)
            assert_good(store_outbox_failed(fixture->store, &outgoing, false, "status 0x0110", now_ms, &err));
    }
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM outbox WHERE state = 'queued'"), 1);
    now_ms += 10 * minute_ms;
    struct store_outgoing last = take_at(fixture->store, now_ms);
    assert_int_equal(last.attempt, ATTEMPTS_MAX);
    assert_good(store_outbox_failed(fixture->store, &last, false, "status 0x0110", now_ms, &err));
    assert_int_equal(take_at(fixture->store, now_ms + DAY_MS).id, 0);
    assert_good(store_study_requeue(fixture->store, "1.2.3", "uid 0", &err));
    assert_int_equal(take_at(fixture->store, now_ms).id, last.id);
}

static void test_clock_back(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    result_for(fixture, "1.2.3", one, 1);
    int64_t now_ms = pulmo_now_ms() + 1000, year_ms = 365LL * DAY_MS;
    struct store_outgoing outgoing = take_at(fixture->store, now_ms + year_ms);
    assert_good(store_outbox_failed(fixture->store, &outgoing, true, "down", now_ms + year_ms, &err));
    assert_true(take_at(fixture->store, now_ms).id > 0); /* not only in a year */
}

static void test_bad_destinations(void **state) {
    struct fixture *fixture = *state;
    struct err err;
    const char *empty[] = {"PACS", ""};
    assert_refused(store_set_destinations(fixture->store, empty, 2, &err), ERR_CONFIG);
    assert_refused(store_set_destinations(fixture->store, empty, 17, &err), ERR_LIMIT);
    result_for(fixture, "1.2.3", one, 0);
    assert_int_equal(take_at(fixture->store, pulmo_now_ms() + 1000).id, 0);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_sent_once),     TEST(test_lost_sender),      TEST(test_peer_down_for_a_day),
        TEST(test_one_peer_down), TEST(test_refused_by_peer),  TEST(test_refused_for_minutes),
        TEST(test_clock_back),    TEST(test_bad_destinations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
