/* LABELS: quick tsan
 * DICOM over TLS: our SCU, DCMTK's tools and OpenSSL's client against our SCP, with and without client certificates. */
#include "test_dicom_sample.h"

#include <spawn.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* Two identities that trust each other, made once: two self-signed certificates. */
static struct {
    char folder[256];
    char server_key[300], server_certificate[300], client_key[300], client_certificate[300], file[512];
} keys;
static atomic_size_t stored, protocol_errors;

/* Runs a program quietly and gives its exit status, or -1 when it is not installed. */
static int run(char *const arguments[]) {
    posix_spawn_file_actions_t actions;
    pid_t child = 0;
    int status = 0;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", 0, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", 1, 0);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", 1, 0);
    const int fault = posix_spawnp(&child, arguments[0], &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (fault != 0)
        return -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) && WEXITSTATUS(status) != 127 ? WEXITSTATUS(status) : -1;
}

static int make_certificate(char *name, char *key, char *certificate) {
    char *const arguments[] = {"openssl", "req", "-x509",   "-newkey", "rsa:2048", "-nodes",    "-days", "2",
                               "-subj",   name,  "-keyout", key,       "-out",     certificate, NULL};
    return run(arguments);
}

static int make_keys(void **state) {
    (void)state;
    sample_folder(keys.folder);
    snprintf(keys.server_key, sizeof keys.server_key, "%s/server.key", keys.folder);
    snprintf(keys.server_certificate, sizeof keys.server_certificate, "%s/server.pem", keys.folder);
    snprintf(keys.client_key, sizeof keys.client_key, "%s/client.key", keys.folder);
    snprintf(keys.client_certificate, sizeof keys.client_certificate, "%s/client.pem", keys.folder);
    struct bytes file = sample_make(&(struct sample){.number = 1});
    sample_save(keys.folder, "1.dcm", &file, keys.file);
    bytes_free(&file);
    return make_certificate("/CN=server", keys.server_key, keys.server_certificate) == 0 &&
                   make_certificate("/CN=client", keys.client_key, keys.client_certificate) == 0
               ? 0
               : -1;
}

static int remove_keys(void **state) {
    (void)state;
    remove(keys.server_key);
    remove(keys.server_certificate);
    remove(keys.client_key);
    remove(keys.client_certificate);
    remove(keys.file);
    return rmdir(keys.folder);
}

static bool keep(void *context, const struct instance *instance, struct err *err) {
    (void)context;
    (void)instance;
    (void)err;
    atomic_fetch_add(&stored, 1);
    return true;
}

static void note(void *context, const struct dicom_event *event) {
    (void)context;
    if (event->kind == DICOM_EVENT_PROTOCOL_ERROR)
        atomic_fetch_add(&protocol_errors, 1);
}

static struct dicom_scp *start(bool require) {
    const struct dicom_tls tls = {.key_file = keys.server_key,
                                  .certificate_file = keys.server_certificate,
                                  .ca_file = require ? keys.client_certificate : NULL,
                                  .require_peer_certificate = require};
    const struct dicom_scp_config config = {
        .bind_address = "127.0.0.1", .ae_title = "PULMO", .tls = &tls, .associations_max = 4, .timeout_s = 10};
    struct err err = {0};
    atomic_store(&stored, 0);
    atomic_store(&protocol_errors, 0);
    struct dicom_scp *scp = dicom_scp_start(&config, keep, note, NULL, &err);
    if (scp == NULL)
        fail_msg("%s", err.text);
    return scp;
}

static bool echo(const struct dicom_scp *scp, const struct dicom_tls *tls, struct err *err) {
    const struct dicom_destination destination = {.host = "127.0.0.1",
                                                  .called_aet = "PULMO",
                                                  .calling_aet = "TESTER",
                                                  .port = dicom_scp_port(scp),
                                                  .tls = tls,
                                                  .timeout_s = 10};
    return dicom_echo(&destination, err);
}

static void test_our_client(void **state) {
    (void)state;
    const struct dicom_tls trusting = {.ca_file = keys.server_certificate}, blind = {0},
                           misled = {.ca_file = keys.client_certificate};
    struct err err = {0};
    struct dicom_scp *scp = start(false);
    if (!echo(scp, &trusting, &err))
        fail_msg("%s", err.text);
    assert_false(echo(scp, &misled, &err)); /* a server that it does not know */
    assert_false(echo(scp, &blind, &err));  /* nor one that it could not know */
    assert_int_equal(err.kind, ERR_CONFIG);
    assert_false(echo(scp, NULL, &err)); /* plain DICOM on the TLS port */
    const char *const paths[] = {keys.file};
    const struct dicom_destination destination = {.host = "127.0.0.1",
                                                  .called_aet = "PULMO",
                                                  .calling_aet = "TESTER",
                                                  .port = dicom_scp_port(scp),
                                                  .tls = &trusting,
                                                  .timeout_s = 10};
    if (!dicom_send(&destination, paths, 1, NULL, NULL, &err))
        fail_msg("%s", err.text);
    assert_int_equal(atomic_load(&stored), 1);
    dicom_scp_stop(scp);
    assert_true(atomic_load(&protocol_errors) >= 2);
}

static void test_client_certificates(void **state) {
    (void)state;
    const struct dicom_tls nobody = {.ca_file = keys.server_certificate},
                           somebody = {.ca_file = keys.server_certificate,
                                       .key_file = keys.client_key,
                                       .certificate_file = keys.client_certificate},
                           stranger = {.ca_file = keys.server_certificate,
                                       .key_file = keys.server_key,
                                       .certificate_file = keys.server_certificate};
    struct err err = {0};
    struct dicom_scp *scp = start(true);
    assert_false(echo(scp, &nobody, &err));
    assert_false(echo(scp, &stranger, &err));
    if (!echo(scp, &somebody, &err))
        fail_msg("%s", err.text);
    dicom_scp_stop(scp);
}

static void test_storescu(void **state) {
    (void)state;
    struct dicom_scp *scp = start(true);
    char port[8];
    snprintf(port, sizeof port, "%u", dicom_scp_port(scp));
    char *const arguments[] = {"storescu",      "+tls",
                               keys.client_key, keys.client_certificate,
                               "+cf",           keys.server_certificate,
                               "-aec",          "PULMO",
                               "127.0.0.1",     port,
                               keys.file,       NULL};
    const int status = run(arguments);
    dicom_scp_stop(scp);
    if (status == -1)
        skip();
    assert_int_equal(status, 0);
    assert_int_equal(atomic_load(&stored), 1);
}

/* BCP 195 Non-Downgrading: TLS 1.2 and better. */
static void test_versions(void **state) {
    (void)state;
    struct dicom_scp *scp = start(false);
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%u", dicom_scp_port(scp));
    char *const old[] = {"openssl", "s_client", "-connect", address, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0", NULL};
    char *const good[] = {"openssl", "s_client", "-connect", address, "-tls1_2", NULL};
    char *const best[] = {"openssl", "s_client", "-connect", address, "-tls1_3", NULL};
    assert_int_equal(run(good), 0);
    assert_int_equal(run(best), 0);
    assert_int_not_equal(run(old), 0);
    dicom_scp_stop(scp);
}

static void test_bad_configuration(void **state) {
    (void)state;
    const struct dicom_tls bad[] = {
        {.key_file = "/nowhere", .certificate_file = keys.server_certificate},
        {.key_file = keys.client_key, .certificate_file = keys.server_certificate},
        {.key_file = keys.server_key, .certificate_file = keys.server_certificate, .ca_file = "/nowhere"},
        {.key_file = keys.server_key},
        {.key_file = keys.server_key, .certificate_file = keys.server_certificate, .require_peer_certificate = true},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const struct dicom_scp_config config = {.bind_address = "127.0.0.1", .ae_title = "PULMO", .tls = &bad[i]};
        struct err err = {0};
        assert_null(dicom_scp_start(&config, keep, note, NULL, &err));
        assert_int_equal(err.kind, ERR_CONFIG);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_our_client), cmocka_unit_test(test_client_certificates), cmocka_unit_test(test_storescu),
        cmocka_unit_test(test_versions),   cmocka_unit_test(test_bad_configuration),
    };
    return cmocka_run_group_tests(tests, make_keys, remove_keys);
}
