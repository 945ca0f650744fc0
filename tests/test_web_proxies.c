/* LABELS: quick */
/* Reverse proxies: who is one, and whose request it is that comes through one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "web/proxies.h"

static void test_client(void **state) {
    (void)state;
    static const struct {
        const char *peer, *forwarded_for, *client;
    } cases[] = {
        {"10.0.0.1", "192.0.2.7", "192.0.2.7"},
        {"10.0.0.1", "198.51.100.9, 192.0.2.7", "192.0.2.7"}, /* the first is what the client wrote itself */
        {"10.0.0.1", "192.0.2.7, nonsense", "10.0.0.1"},
        {"10.0.0.1", "192.0.2.7:443", "10.0.0.1"},
        {"10.0.0.1", "", "10.0.0.1"},
        {"10.0.0.1", NULL, "10.0.0.1"},
        {"10.0.0.2", "192.0.2.7", "10.0.0.2"}, /* no proxy: not believed */
        {"::ffff:10.0.0.1", " 192.0.2.7\t", "192.0.2.7"},
        {"2001:db8::1", "2001:db8:0:0::9", "2001:db8::9"},
        {"", "192.0.2.7", ""},
    };
    struct err err = {0};
    struct proxies *proxies = proxies_new("10.0.0.1, 2001:db8::1", &err);
    assert_non_null(proxies);
    for (size_t index = 0; index < sizeof cases / sizeof *cases; index++) {
        char client[PROXIES_ADDRESS_SIZE];
        proxies_client(proxies, cases[index].peer, cases[index].forwarded_for, client);
        assert_string_equal(client, cases[index].client);
    }
    proxies_free(proxies);
}

static void test_list(void **state) {
    (void)state;
    static const char *const bad[] = {"10.0.0.1,proxy.example", "10.0.0.0/8", "10.0.0.1,,10.0.0.2", "::1::2"};
    for (size_t index = 0; index < sizeof bad / sizeof *bad; index++) {
        struct err err = {0};
        assert_null(proxies_new(bad[index], &err));
        assert_int_equal(err.kind, ERR_CONFIG);
        assert_non_null(strstr(err.text, "https_proxies"));
    }
    struct err err = {0};
    struct proxies *none = proxies_new(NULL, &err);
    assert_non_null(none);
    assert_false(proxies_have(none, &in6addr_loopback));
    proxies_free(none);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_client), cmocka_unit_test(test_list)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
