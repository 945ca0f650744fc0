/* LABELS: quick
 * A flood is a few events and numbers, and nothing of it is lost. */
#include "tally.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define START_MS 1000000

static void tally_free_at(struct tally **tally) {
    tally_free(*tally);
}

static struct tally *make(void) {
    struct err err = {0};
    struct tally *tally = tally_new(&err);
    assert_non_null(tally);
    return tally;
}

/* How many of count events, all at one time, are told. */
static int told(struct tally *tally, int kind, const char *peer, int count, int64_t now_ms) {
    int one_by_one = 0;
    for (int index = 0; index < count; index++)
        one_by_one += tally_note(tally, kind, peer, now_ms);
    return one_by_one;
}

static int64_t taken(struct tally *tally, int64_t now_ms, bool all, int *rows) {
    struct tally_sum sum;
    int64_t events = 0;
    while (tally_take(tally, now_ms, all, &sum)) {
        events += sum.count;
        (*rows)++;
    }
    return events;
}

static void few_are_told(void **state) {
    (void)state;
    PULMO_SCOPED(tally_free_at) struct tally *tally = make();
    struct tally_sum sum;
    for (int minute = 0; minute < 5; minute++)
        assert_int_equal(told(tally, 0, "a", TALLY_FIRST, START_MS + (int64_t)minute * TALLY_WINDOW_MS), TALLY_FIRST);
    assert_false(tally_take(tally, START_MS + (int64_t)9 * TALLY_WINDOW_MS, true, &sum));
}

/* Ten told, then a number a minute; a calm minute later all is told again. */
static void a_flood_is_a_number_a_minute(void **state) {
    (void)state;
    PULMO_SCOPED(tally_free_at) struct tally *tally = make();
    struct tally_sum sum;
    int64_t now_ms = START_MS;
    assert_int_equal(told(tally, 3, "10.0.0.1", 5000, now_ms), TALLY_FIRST);
    assert_int_equal(told(tally, 4, "10.0.0.1", 1, now_ms), 1); /* another kind, another peer: not concerned */
    assert_int_equal(told(tally, 3, "10.0.0.10", 1, now_ms), 1);
    assert_false(tally_take(tally, now_ms + TALLY_WINDOW_MS - 1, false, &sum));
    for (int minute = 1; minute < 60; minute++) {
        now_ms = START_MS + (int64_t)minute * TALLY_WINDOW_MS;
        assert_true(tally_take(tally, now_ms, false, &sum));
        assert_int_equal(sum.count, minute == 1 ? 5000 - TALLY_FIRST : 5000);
        assert_int_equal(sum.kind, 3);
        assert_int_equal(sum.span_ms, TALLY_WINDOW_MS);
        assert_string_equal(sum.peer, "10.0.0.1");
        assert_false(tally_take(tally, now_ms, false, &sum));
        assert_int_equal(told(tally, 3, "10.0.0.1", 5000, now_ms), 0);
    }
    assert_true(tally_take(tally, now_ms + TALLY_WINDOW_MS, false, &sum));
    assert_int_equal(told(tally, 3, "10.0.0.1", 1, now_ms + 2LL * TALLY_WINDOW_MS), 1);
}

/* What follows a flood at an ordinary pace is counted for one more minute. */
static void after_a_flood(void **state) {
    (void)state;
    PULMO_SCOPED(tally_free_at) struct tally *tally = make();
    struct tally_sum sum;
    int64_t now_ms = START_MS;
    told(tally, 0, "a", 1000, now_ms);
    assert_true(tally_take(tally, now_ms += TALLY_WINDOW_MS, false, &sum));
    assert_int_equal(told(tally, 0, "a", 3, now_ms), 0);
    assert_true(tally_take(tally, now_ms += TALLY_WINDOW_MS, false, &sum));
    assert_int_equal(sum.count, 3);
    assert_int_equal(told(tally, 0, "a", 3, now_ms), 3);
}

/* More peers than there is room for: rows stay bounded, and every event is told or in a number. */
static void many_peers(void **state) {
    (void)state;
    PULMO_SCOPED(tally_free_at) struct tally *tally = make();
    enum { PEERS = 3000, EACH = 20, MINUTES = 4 };
    int64_t counted = 0, now_ms = START_MS;
    int one_by_one = 0;
    for (int minute = 0; minute < MINUTES; minute++, now_ms += TALLY_WINDOW_MS) {
        int rows = 0;
        counted += taken(tally, now_ms, false, &rows);
        int before = one_by_one;
        for (int peer = 0; peer < PEERS; peer++) {
            char name[TALLY_PEER_SIZE];
            snprintf(name, sizeof name, "10.%d.%d.%d", minute, peer / 250, peer % 250);
            one_by_one += told(tally, peer % 5, name, EACH, now_ms);
        }
        assert_true(one_by_one - before <= TALLY_TOLD_MAX);
        assert_true(rows <= TALLY_PEERS_MAX + TALLY_KINDS_MAX);
    }
    int rows = 0;
    counted += taken(tally, now_ms, true, &rows);
    assert_int_equal(counted + one_by_one, (int64_t)PEERS * EACH * MINUTES);
}

/* A number that could not be written is part of the next one. */
static void put_back(void **state) {
    (void)state;
    PULMO_SCOPED(tally_free_at) struct tally *tally = make();
    struct tally_sum sum;
    told(tally, 1, "a", TALLY_FIRST + 7, START_MS);
    assert_true(tally_take(tally, START_MS, true, &sum));
    tally_put_back(tally, &sum);
    told(tally, 1, "a", 5, START_MS);
    assert_true(tally_take(tally, START_MS + TALLY_WINDOW_MS, false, &sum));
    assert_int_equal(sum.count, 12);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_are_told),  cmocka_unit_test(a_flood_is_a_number_a_minute),
        cmocka_unit_test(after_a_flood), cmocka_unit_test(many_peers),
        cmocka_unit_test(put_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
