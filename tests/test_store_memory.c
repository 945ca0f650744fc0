/* LABELS: quick
 * Without memory for the database nothing is done, and the next time all of it: no transaction stays open. Which of all
 * allocations of a process fails is enumerated by tests/reliability/memory.test.mjs. */
#include "store/handle.h"
#include "store_fixture.h"

/* From now on SQLite gets nothing beyond what it holds, and `spare` bytes. */
static void starve(int64_t spare) {
    sqlite3_hard_heap_limit64(spare < 0 ? 0 : sqlite3_memory_used() + 1 + spare);
}

/* A handle that has never rolled anything back: what it takes to do so must be there already, or its transaction, and
 * with it the write lock of all processes, would stay. */
static void test_no_transaction_stays_open(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    int rolled_back = 0;
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.study = "1.2.3"}, &err));
    for (int64_t spare = 0; spare < 40000; spare += 500) {
        struct store *store = fixture_handle(fixture);
        err = (struct err){0};
        assert_good(store_study_hold(store, "1.2.3", "teaching", "jane", &err)); /* statements are prepared */
        assert_good(store_study_release(store, "1.2.3", "jane", &err));
        starve(spare);
        assert_false(store_study_release(store, "1.2.3", "jane", &err));
        starve(-1);
        rolled_back += err.kind == ERR_NOT_FOUND; /* not by SQLite itself, as after lack of memory */
        err = (struct err){0};
        assert_good(store_study_hold(fixture->store, "1.2.3", "teaching", "jane", &err)); /* the write lock is free */
        assert_good(store_study_release(store, "1.2.3", "jane", &err));
        store_close(store);
    }
    assert_true(rolled_back > 0);
}

/* Should a ROLLBACK fail all the same, the handle's next transaction makes up for it, and the write lock is free again.
 */
static void test_a_transaction_that_stayed_open_is_rolled_back(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.study = "1.2.3"}, &err));
    struct store *store = fixture_handle(fixture);
    assert_good(sql_run(store, "BEGIN IMMEDIATE", SQL_NO_VALUES, &err));
    assert_good(sql_run(store, "DELETE FROM instance", SQL_NO_VALUES, &err));
    assert_good(store_study_hold(store, "1.2.3", "teaching", "jane", &err));
    assert_good(store_study_release(fixture->store, "1.2.3", "jane", &err)); /* the write lock is free */
    int64_t instances = 0;
    assert_good(sql_integer(store, "SELECT count(*) FROM instance", SQL_NO_VALUES, &instances, &err));
    assert_int_equal(instances, 1); /* what stayed open is undone */
    store_close(store);
}

/* Reading as well: what cannot be read is an error, not an empty text. */
static void test_nothing_is_read_as_empty(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    int refused = 0;
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.study = "1.2.3"}, &err));
    for (int64_t spare = 0; spare < 40000; spare += 500) {
        struct store *store = fixture_handle(fixture);
        struct store_study study;
        err = (struct err){0};
        starve(spare);
        bool good = store_study_get(store, "1.2.3", &study, &err);
        starve(-1);
        refused += !good;
        if (good)
            assert_string_equal(study.study_uid, "1.2.3");
        else
            assert_int_equal(err.kind, ERR_MEMORY);
        store_close(store);
    }
    assert_true(refused > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_no_transaction_stays_open, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_a_transaction_that_stayed_open_is_rolled_back, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(test_nothing_is_read_as_empty, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
