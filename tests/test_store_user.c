/* LABELS: quick
 * Users, the lock-out, sessions. */
#include "store_fixture.h"

#define MINUTE_MS (60 * 1000)
#define PASSWORD "correct horse"

static void add(const struct fixture *fixture) {
    struct err err = {0};
    assert_good(store_user_add(fixture->store, "jane", "Dr. Jane Doe", "radiologist", PASSWORD, &err));
}

static bool check(const struct fixture *fixture, const char *name, const char *password, int64_t now_ms,
                  struct err *err) {
    struct store_user user;
    return store_user_check(fixture->store, name, password, "192.0.2.1", now_ms, &user, err);
}

static void test_password(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_user user;
    add(fixture);
    assert_good(store_user_check(fixture->store, "jane", PASSWORD, "192.0.2.1", 1000, &user, &err));
    assert_string_equal(user.name, "jane");
    assert_string_equal(user.display_name, "Dr. Jane Doe");
    assert_string_equal(user.role, "radiologist");
    struct err wrong = {0}, unknown = {0};
    assert_false(check(fixture, "jane", "wrong horse", 1000, &wrong));
    assert_false(check(fixture, "john", PASSWORD, 1000, &unknown));
    assert_int_equal(wrong.kind, ERR_DENIED);
    assert_string_equal(wrong.text, unknown.text); /* does not tell which part was wrong */
    assert_int_equal(
        fixture_count(fixture, "SELECT count(*) FROM user WHERE password LIKE '$argon2id$v=19$m=64,t=3,p=1$%'"), 1);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%\"login\"%jane%'"), 1);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%login-failed%'"), 2);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%horse%'"), 0);
}

/* The default cost is the one that RFC 9106 section 4 recommends second. */
static void test_default_cost(void **state) {
    struct fixture *fixture = *state;
    struct fixture real = *fixture;
    real.config.password_memory_kib = 0;
    PULMO_SCOPED(store_close_at) struct store *store = fixture_handle(&real);
    struct err err = {0};
    assert_good(store_user_add(store, "jane", "Jane", "viewer", PASSWORD, &err));
    assert_int_equal(
        fixture_count(fixture, "SELECT count(*) FROM user WHERE password LIKE '$argon2id$v=19$m=65536,t=3,p=1$%'"), 1);
}

static void test_bad_users(void **state) {
    struct fixture *fixture = *state;
    struct err err;
    add(fixture);
    assert_refused(store_user_add(fixture->store, "jane", "Jane", "viewer", PASSWORD, &err), ERR_CONFLICT);
    assert_refused(store_user_add(fixture->store, "j ane", "Jane", "viewer", PASSWORD, &err), ERR_INPUT);
    assert_refused(store_user_add(fixture->store, "", "Jane", "viewer", PASSWORD, &err), ERR_INPUT);
    assert_refused(store_user_add(fixture->store, "john", "", "viewer", PASSWORD, &err), ERR_INPUT);
    assert_refused(store_user_add(fixture->store, "john", "John", "king", PASSWORD, &err), ERR_INPUT);
    assert_refused(store_user_add(fixture->store, "john", "John", "viewer", "123456789", &err), ERR_INPUT);
    assert_refused(store_user_password(fixture->store, "john", PASSWORD, &err), ERR_NOT_FOUND);
    assert_refused(store_user_disable(fixture->store, "john", &err), ERR_NOT_FOUND);
    struct store_user *users = NULL;
    size_t count = 0;
    err = (struct err){0};
    assert_good(store_user_list(fixture->store, &users, &count, &err));
    assert_int_equal(count, 1);
    assert_string_equal(users[0].name, "jane");
    free(users);
}

/* Five failures lock for fifteen minutes, the right password too; a name that is no user's behaves the same. */
static void test_lock_out(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    add(fixture);
    static const char *const names[] = {"jane", "nobody"};
    for (int which = 0; which < 2; which++) {
        for (int times = 0; times < 5; times++)
            assert_refused(check(fixture, names[which], "wrong horse", 1000 + times, &err), ERR_DENIED);
        assert_refused(check(fixture, names[which], PASSWORD, 2000, &err), ERR_BUSY);
        assert_refused(check(fixture, names[which], PASSWORD, 14 * MINUTE_MS, &err), ERR_BUSY);
    }
    err = (struct err){0};
    assert_good(check(fixture, "jane", PASSWORD, 16 * MINUTE_MS, &err));
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%login-locked%'"), 2);
}

static void test_success_forgets_failures(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    add(fixture);
    for (int rounds = 0; rounds < 3; rounds++) {
        for (int times = 0; times < 4; times++)
            assert_refused(check(fixture, "jane", "wrong horse", 1000, &err), ERR_DENIED);
        err = (struct err){0};
        assert_good(check(fixture, "jane", PASSWORD, 1000, &err));
    }
}

static void test_change_and_disable(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_user user;
    char token[65];
    add(fixture);
    assert_good(store_session_new(fixture->store, "jane", 1000, token, &err));
    assert_good(store_user_password(fixture->store, "jane", "another horse", &err));
    assert_refused(store_session_check(fixture->store, token, 1000, &user, &err), ERR_DENIED);
    assert_refused(check(fixture, "jane", PASSWORD, 1000, &err), ERR_DENIED);
    err = (struct err){0};
    assert_good(check(fixture, "jane", "another horse", 1000, &err));
    assert_good(store_session_new(fixture->store, "jane", 1000, token, &err));
    assert_good(store_user_disable(fixture->store, "jane", &err));
    assert_refused(store_session_check(fixture->store, token, 1000, &user, &err), ERR_DENIED);
    assert_refused(check(fixture, "jane", "another horse", 1000, &err), ERR_DENIED);
    assert_refused(store_session_new(fixture->store, "jane", 1000, token, &err), ERR_DENIED);
}

static void test_session(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_user user;
    char token[65], other[65];
    add(fixture);
    assert_good(store_session_new(fixture->store, "jane", 0, token, &err));
    assert_good(store_session_new(fixture->store, "jane", 0, other, &err));
    assert_int_equal(strlen(token), 64);
    assert_int_not_equal(strcmp(token, other), 0);
    char statement[160];
    snprintf(statement, sizeof statement, "SELECT count(*) FROM session WHERE token_sha256 = '%s'", token);
    assert_int_equal(fixture_count(fixture, statement), 0); /* the token itself is not stored */
    /* used every twenty minutes it lives for twelve hours, and no longer */
    int64_t now_ms = 0;
    for (; now_ms < 12 * 60 * MINUTE_MS; now_ms += 20 * MINUTE_MS)
        assert_good(store_session_check(fixture->store, token, now_ms, &user, &err));
    assert_string_equal(user.role, "radiologist");
    assert_refused(store_session_check(fixture->store, token, now_ms, &user, &err), ERR_DENIED);
    assert_refused(store_session_check(fixture->store, other, 30 * MINUTE_MS, &user, &err), ERR_DENIED); /* idle */
    err = (struct err){0};
    assert_good(store_session_check(fixture->store, other, 29 * MINUTE_MS, &user, &err));
    assert_good(store_session_end(fixture->store, other, &err));
    assert_good(store_session_end(fixture->store, other, &err));
    assert_refused(store_session_check(fixture->store, other, 29 * MINUTE_MS, &user, &err), ERR_DENIED);
    assert_refused(store_session_check(fixture->store, "", 0, &user, &err), ERR_DENIED);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%logout%'"), 1);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_password),
        TEST(test_default_cost),
        TEST(test_bad_users),
        TEST(test_lock_out),
        TEST(test_success_forgets_failures),
        TEST(test_change_and_disable),
        TEST(test_session),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
