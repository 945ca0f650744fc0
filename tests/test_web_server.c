/* LABELS: quick tsan */
/* The web server as a network peer sees it: TLS, headers, static files, limits, deadlines, hostile bytes. */
#include "tests/web_client.h"
#include "tests/web_fixture.h"

#include <openssl/x509v3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

static int set_up(void **state) {
    struct web_fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    web_open(fixture, NULL);
    fixture->web_config.request_deadline_s = 1;
    fixture->web_config.keep_alive_s = 3;
    fixture->web_config.connections_max = 8;
    web_serve(fixture);
    *state = fixture;
    return 0;
}

static int tear_down(void **state) {
    web_close(*state);
    free(*state);
    return 0;
}

static struct web_client client_of(void **state) {
    const struct web_fixture *fixture = *state;
    return client_new(web_port(fixture->server));
}

/* ---- TLS --------------------------------------------------------------------------------------------- */

static void test_certificate(void **state) {
    const struct web_fixture *fixture = *state;
    struct web_client client = client_of(state);
    struct stat status;
    assert_int_equal(stat(fixture->key, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_true(client_dial(&client));
    assert_true(SSL_version(client.ssl) >= TLS1_2_VERSION);
    X509 *certificate = SSL_get1_peer_certificate(client.ssl);
    assert_non_null(certificate);
    EVP_PKEY *key = X509_get0_pubkey(certificate);
    char group[32] = "";
    assert_int_equal(EVP_PKEY_get_group_name(key, group, sizeof group, NULL), 1);
    assert_string_equal(group, "prime256v1");
    assert_int_equal(X509_verify(certificate, key), 1);
    assert_int_equal(X509_check_host(certificate, "localhost", 0, 0, NULL), 1);
    assert_int_equal(X509_check_ip_asc(certificate, "127.0.0.1", 0), 1);
    assert_true(X509_cmp_current_time(X509_get0_notBefore(certificate)) < 0);
    assert_true(X509_cmp_current_time(X509_get0_notAfter(certificate)) > 0);
    X509_free(certificate);
    client_free(&client);
}

/* The certificate of the first start is kept; without its key the server must not make another in silence. */
static void test_certificate_is_kept(void **state) {
    struct web_fixture *fixture = *state;
    struct err err = {0};
    struct bytes before = {0}, after = {0};
    assert_good(bytes_read_file(fixture->certificate, 1 << 16, &before, &err));
    web_stop(fixture->server);
    web_serve(fixture);
    assert_good(bytes_read_file(fixture->certificate, 1 << 16, &after, &err));
    assert_int_equal(before.size, after.size);
    assert_memory_equal(before.data, after.data, before.size);
    bytes_free(&before);
    bytes_free(&after);
    web_stop(fixture->server);
    char aside[200];
    snprintf(aside, sizeof aside, "%s.aside", fixture->key);
    assert_int_equal(rename(fixture->key, aside), 0);
    fixture->server = web_start(&fixture->web_config, &err);
    assert_null(fixture->server);
    assert_int_equal(err.kind, ERR_CONFIG);
    assert_non_null(strstr(err.text, "has no key"));
    assert_int_equal(rename(aside, fixture->key), 0);
    web_serve(fixture);
}

static void test_old_tls_is_refused(void **state) {
    struct web_client client = client_of(state);
    SSL_CTX_set_security_level(client.context, 0); /* else the client itself would not try */
    SSL_CTX_set_min_proto_version(client.context, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(client.context, TLS1_1_VERSION);
    assert_false(client_dial(&client));
    SSL_CTX_set_max_proto_version(client.context, TLS1_2_VERSION);
    assert_true(client_dial(&client));
    client_free(&client);
}

/* Without TLS there is no answer at all. */
static void test_plain_http_gets_nothing(void **state) {
    const struct web_fixture *fixture = *state;
    int descriptor = client_socket(web_port(fixture->server));
    static const char request[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    char answer[512] = "";
    assert_int_equal(write(descriptor, request, sizeof request - 1), sizeof request - 1);
    ssize_t got = read(descriptor, answer, sizeof answer - 1);
    assert_null(strstr(answer, "HTTP/"));
    assert_true(got < (ssize_t)sizeof answer);
    close(descriptor);
}

/* ---- static files ------------------------------------------------------------------------------------ */

static void test_pages_and_headers(void **state) {
    static const char *const expected[][2] = {{"Content-Security-Policy", "default-src 'none'"},
                                              {"Content-Security-Policy", "frame-ancestors 'none'"},
                                              {"Strict-Transport-Security", "max-age="},
                                              {"X-Content-Type-Options", "nosniff"},
                                              {"Referrer-Policy", "no-referrer"},
                                              {"Content-Type", "text/html"}};
    struct web_client client = client_of(state);
    char value[512];
    struct web_answer answer = client_get(&client, "/");
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(answer.body, "<title>Pulmo"));
    for (size_t index = 0; index < sizeof expected / sizeof *expected; index++) {
        assert_non_null(answer_header(&answer, expected[index][0], value, sizeof value));
        assert_non_null(strstr(value, expected[index][1]));
    }
    assert_null(strstr(value, "unsafe-inline"));
    char again[160], etag[128];
    assert_non_null(answer_header(&answer, "ETag", etag, sizeof etag));
    snprintf(again, sizeof again, "If-None-Match: %s\r\n", etag);
    answer_free(&answer);
    answer = client_send(&client, "GET", "/", again, "");
    assert_int_equal(answer.status, 304);
    assert_int_equal(answer.body_size, 0);
    answer_free(&answer);
    answer = client_get(&client, "/api/me");
    assert_int_equal(answer.status, 401);
    assert_string_equal(answer_header(&answer, "Cache-Control", value, sizeof value), "no-store");
    assert_non_null(answer_header(&answer, "Content-Security-Policy", value, sizeof value));
    answer_free(&answer);
    client_free(&client);
}

/* Only files that lay in the folder at the start, with a known media type, by their exact name. */
static void test_traversal_is_impossible(void **state) {
    static const char *const paths[] = {"/../key.pem",
                                        "/key.pem",
                                        "/certificate.pem",
                                        "/./index.html",
                                        "/%2e%2e/key.pem",
                                        "/..%2fkey.pem",
                                        "/data/../index.html",
                                        "//etc/passwd",
                                        "/etc/passwd",
                                        "/secret.unknown",
                                        "/index.html/",
                                        "/INDEX.HTML",
                                        "/index.html%00",
                                        "/viewer.js.gz",
                                        "/api",
                                        "/api/",
                                        "/api/studies/../../key.pem",
                                        "/metrics/"};
    struct web_client client = client_of(state);
    for (size_t index = 0; index < sizeof paths / sizeof *paths; index++) {
        int status = client_status(client_get(&client, paths[index]));
        if (status != 404 && status != 400 && status != 0)
            fail_msg("%s: %d", paths[index], status);
    }
    assert_int_equal(client_status(client_get(&client, "/viewer.js")), 200);
    client_free(&client);
}

static void test_health_and_metrics(void **state) {
    struct web_client client = client_of(state);
    struct web_answer answer = client_get(&client, "/api/health");
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(answer.body, "\"ok\""));
    answer_free(&answer);
    answer = client_get(&client, "/metrics");
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(answer.body, "\npulmo_studies 5\n"));
    assert_non_null(strstr(answer.body, "\npulmo_results 3\n"));
    assert_non_null(strstr(answer.body, "\npulmo_jobs_dead 2\n"));
    assert_null(strstr(answer.body, "Anna"));
    answer_free(&answer);
    client_free(&client);
}

/* ---- limits ------------------------------------------------------------------------------------------ */

static void test_big_bodies_are_refused(void **state) {
    struct web_client client = client_of(state);
    char request[512];
    snprintf(request, sizeof request,
             "POST /api/login HTTP/1.1\r\nHost: x\r\n" CLIENT_OURS "Content-Length: 1000000000000\r\n\r\n{");
    int64_t start_ms = pulmo_monotonic_ms();
    int status = client_status(client_raw(&client, request));
    assert_true(status == 413 || status == 400 || status == 0);
    assert_true(pulmo_monotonic_ms() - start_ms < 5000);
    char *body = malloc(40 << 10);
    assert_non_null(body);
    memset(body, ' ', (40 << 10) - 1);
    body[(40 << 10) - 1] = '\0';
    assert_int_equal(client_status(client_post(&client, "/api/login", body)), 413);
    body[1000] = '\0'; /* small enough: refused for what it says */
    assert_int_equal(client_status(client_post(&client, "/api/login", body)), 400);
    free(body);
    client_free(&client);
}

static void test_big_headers_are_refused(void **state) {
    struct web_client client = client_of(state);
    char *header = malloc(40 << 10);
    assert_non_null(header);
    memset(header, 'a', 40 << 10);
    memcpy(header, "X-A: ", 5);
    memcpy(header + (40 << 10) - 3, "\r\n", 3);
    int status = client_status(client_send(&client, "GET", "/", header, ""));
    assert_true(status == 400 || status == 413 || status == 0);
    assert_int_equal(client_status(client_get(&client, "/")), 200);
    free(header);
    client_free(&client);
}

static void test_hostile_bytes(void **state) {
    static const char *const requests[] = {"\r\n\r\n",
                                           "GET\r\n\r\n",
                                           "GET / HTTP/9.9\r\n\r\n",
                                           "GET http://other.example/ HTTP/1.1\r\nHost: x\r\n\r\n",
                                           "DELETE /api/studies HTTP/1.1\r\nHost: x\r\n\r\n",
                                           "CONNECT other.example:443 HTTP/1.1\r\nHost: x\r\n\r\n",
                                           "POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
                                           ("POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
                                            "Content-Length: 6\r\n" CLIENT_OURS "\r\n{}{}{}"),
                                           ("POST /api/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                                            "\r\nFFFFFFFFFFFFFFFF\r\n"),
                                           "\x01\x00\x00\x00\x00\x16garbage\r\n\r\n"};
    struct web_client client = client_of(state);
    for (size_t index = 0; index < sizeof requests / sizeof *requests; index++) {
        int status = client_status(client_raw(&client, requests[index]));
        if (status == 200 && !strstr(requests[index], "http://"))
            fail_msg("request %zu was answered with 200", index);
    }
    assert_int_equal(client_status(client_get(&client, "/")), 200);
    client_free(&client);
}

/* ---- deadlines --------------------------------------------------------------------------------------- */

/* One byte at a time restarts evhttp's own timeout; the deadline is absolute. */
static void test_slow_sender_is_cut_off(void **state) {
    struct web_client client = client_of(state);
    assert_true(client_dial(&client));
    int64_t start_ms = pulmo_monotonic_ms();
    static const char request[] = "GET / HTTP/1.1\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    bool alive = true;
    for (size_t index = 0; alive && index < sizeof request - 1; index++) {
        alive = SSL_write(client.ssl, request + index, 1) == 1;
        usleep(100000);
    }
    int64_t took_ms = pulmo_monotonic_ms() - start_ms;
    assert_false(alive);
    assert_true(took_ms >= 900 && took_ms < 4000);
    client_free(&client);
}

/* A peer that never begins its handshake, and one that never begins its request. */
static void test_silent_peers_are_cut_off(void **state) {
    const struct web_fixture *fixture = *state;
    struct web_client client = client_of(state);
    int silent = client_socket(web_port(fixture->server));
    int64_t start_ms = pulmo_monotonic_ms();
    char byte = 0;
    assert_true(read(silent, &byte, 1) <= 0);
    assert_true(pulmo_monotonic_ms() - start_ms < 4000);
    close(silent);
    assert_true(client_dial(&client));
    start_ms = pulmo_monotonic_ms();
    assert_int_equal(client_status(client_read(&client)), 0);
    assert_true(pulmo_monotonic_ms() - start_ms < 4000);
    client_free(&client);
}

/* Between two requests a connection may rest for longer than one request may take. */
static void test_idle_connection_lives_on(void **state) {
    static const char request[] = "GET /viewer.js HTTP/1.1\r\nHost: x\r\n\r\n";
    struct web_client client = client_of(state);
    assert_true(client_dial(&client));
    for (int round = 0; round < 2; round++) {
        client_write(&client, request);
        assert_int_equal(client_status(client_read(&client)), 200);
        if (round == 0)
            usleep(1600000);
    }
    client_free(&client);
}

static struct web_client client_at_rest(void **state) {
    static const char request[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    struct web_client client = client_of(state);
    assert_true(client_dial(&client));
    client_write(&client, request);
    assert_int_equal(client_status(client_read(&client)), 200);
    return client;
}

/* After an answer a record of TLS that never ends is no request, but no rest without end either. */
static void test_endless_record_is_cut_off(void **state) {
    static const unsigned char head[] = {23, 3, 3, 64, 0};
    struct web_client client = client_at_rest(state);
    int64_t start_ms = pulmo_monotonic_ms();
    bool alive = write(client.descriptor, head, sizeof head) == sizeof head;
    while (alive && pulmo_monotonic_ms() - start_ms < 8000) {
        usleep(100000);
        alive = write(client.descriptor, "", 1) == 1;
    }
    assert_false(alive);
    assert_true(pulmo_monotonic_ms() - start_ms >= 2900);
    client_free(&client);
}

/* A newcomer takes the place of the connection that rests the longest. */
static void test_resting_connections_make_room(void **state) {
    struct web_client held[8], client = client_of(state);
    for (size_t index = 0; index < 8; index++)
        held[index] = client_at_rest(state);
    int64_t start_ms = pulmo_monotonic_ms();
    assert_int_equal(client_status(client_get(&client, "/")), 200);
    assert_true(pulmo_monotonic_ms() - start_ms < 800);
    for (size_t index = 0; index < 8; index++)
        client_free(&held[index]);
    client_free(&client);
}

static void serve_with(struct web_fixture *fixture, uint32_t share, const char *proxies) {
    web_stop(fixture->server);
    fixture->web_config.connections_max_an_origin = share;
    fixture->web_config.proxies = proxies;
    web_serve(fixture);
}

/* The fourth of one address is closed at once, so that the next address finds room; a proxy's is not. */
static void test_origin_has_its_share(void **state) {
    struct web_fixture *fixture = *state;
    for (int is_proxy = 0; is_proxy < 2; is_proxy++) {
        serve_with(fixture, 3, is_proxy ? "10.0.0.1, 127.0.0.1" : "10.0.0.1");
        int held[4];
        for (size_t index = 0; index < 4; index++)
            held[index] = client_socket(web_port(fixture->server));
        int64_t start_ms = pulmo_monotonic_ms();
        char byte = 0;
        assert_true(read(held[3], &byte, 1) <= 0);
        int64_t took_ms = pulmo_monotonic_ms() - start_ms;
        assert_true(is_proxy ? took_ms >= 900 : took_ms < 500);
        for (size_t index = 0; index < 4; index++)
            close(held[index]);
    }
    serve_with(fixture, 0, NULL);
}

/* Without descriptors accepting pauses, and goes on when there are some again. */
static void test_no_descriptors(void **state) {
    struct web_client client = client_of(state);
    struct rlimit before, few;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    int last = client_socket(client.port);
    few = before;
    few.rlim_cur = (rlim_t)last + 1;
    usleep(100000); /* the server's end of it is open now */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    close(last);
    int waiting = client_socket(client.port); /* takes the number, so that accept() finds none */
    clock_t spent = clock();
    usleep(600000);
    assert_true(clock() - spent < CLOCKS_PER_SEC / 5); /* it does not spin */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    close(waiting);
    assert_int_equal(client_status(client_get(&client, "/")), 200);
    client_free(&client);
}

/* Connections beyond the limit wait, but not for long: those that say nothing are let go of before their deadline. */
static void test_connections_are_limited(void **state) {
    const struct web_fixture *fixture = *state;
    struct web_client client = client_of(state);
    int held[8];
    for (size_t index = 0; index < 8; index++)
        held[index] = client_socket(web_port(fixture->server));
    int64_t start_ms = pulmo_monotonic_ms();
    assert_int_equal(client_status(client_get(&client, "/")), 200);
    int64_t waited_ms = pulmo_monotonic_ms() - start_ms;
    assert_true(waited_ms >= 400);
    assert_true(waited_ms < 900);
    for (size_t index = 0; index < 8; index++)
        close(held[index]);
    client_free(&client);
}

/* Aborted connections leave nothing behind (the sanitizers see leaks). */
static void test_aborted_connections(void **state) {
    struct web_client client = client_of(state);
    for (int round = 0; round < 60; round++) {
        assert_true(client_dial(&client));
        if (round % 3 == 0)
            client_write(&client, "GET / HT");
        if (round % 3 == 1)
            client_write(&client, "GET /viewer.js HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    client_hang_up(&client);
    assert_int_equal(client_status(client_get(&client, "/")), 200);
    client_free(&client);
}

/* ---- start and stop ---------------------------------------------------------------------------------- */

static void test_stop_with_open_connections(void **state) {
    struct web_fixture *fixture = *state;
    struct web_client client = client_of(state), other = client_of(state);
    assert_true(client_dial(&client));
    assert_true(client_dial(&other));
    client_write(&other, "GET / HTTP/1.1\r\n");
    int64_t start_ms = pulmo_monotonic_ms();
    web_stop(fixture->server);
    assert_true(pulmo_monotonic_ms() - start_ms < 4000);
    client_free(&client);
    client_free(&other);
    web_serve(fixture);
}

static void test_start_says_why_not(void **state) {
    const struct web_fixture *fixture = *state;
    struct err err = {0};
    struct web_config config = fixture->web_config;
    config.viewer_folder = "/nonexistent";
    assert_null(web_start(&config, &err));
    assert_int_equal(err.kind, ERR_CONFIG);
    config = fixture->web_config;
    config.port = web_port(fixture->server);
    err = (struct err){0};
    assert_null(web_start(&config, &err));
    assert_int_equal(err.kind, ERR_NETWORK);
    assert_non_null(strstr(err.text, "cannot listen"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_certificate),
        cmocka_unit_test(test_certificate_is_kept),
        cmocka_unit_test(test_old_tls_is_refused),
        cmocka_unit_test(test_plain_http_gets_nothing),
        cmocka_unit_test(test_pages_and_headers),
        cmocka_unit_test(test_traversal_is_impossible),
        cmocka_unit_test(test_health_and_metrics),
        cmocka_unit_test(test_big_bodies_are_refused),
        cmocka_unit_test(test_big_headers_are_refused),
        cmocka_unit_test(test_hostile_bytes),
        cmocka_unit_test(test_slow_sender_is_cut_off),
        cmocka_unit_test(test_silent_peers_are_cut_off),
        cmocka_unit_test(test_idle_connection_lives_on),
        cmocka_unit_test(test_endless_record_is_cut_off),
        cmocka_unit_test(test_resting_connections_make_room),
        cmocka_unit_test(test_origin_has_its_share),
        cmocka_unit_test(test_no_descriptors),
        cmocka_unit_test(test_connections_are_limited),
        cmocka_unit_test(test_aborted_connections),
        cmocka_unit_test(test_stop_with_open_connections),
        cmocka_unit_test(test_start_says_why_not),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
