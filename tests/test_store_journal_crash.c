/* LABELS: quick
 * Reception through the journal as a process that is killed (SIGKILL) at random instants, again and again, on one
 * folder: several threads put, one keeps the journal. Afterwards everything that was acknowledged is there and whole.
 */
#include "random.h"
#include "store_fixture.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#define ROUNDS 8
#define SENDERS 3
#define CONTENT_SIZE ((size_t)40000)
#define NUMBERS_MAX 200000

struct sender {
    struct store_config config;
    struct store_journal *journal;
    int pipe_end, index;
    int64_t first;
};

static void instance_number(int64_t number, struct instance *out, char *content) {
    memset(content, (int)(number % 251), CONTENT_SIZE);
    snprintf(content, 64, "content %lld", (long long)number);
    *out = (struct instance){.part10 = (const uint8_t *)content, .part10_size = CONTENT_SIZE};
    snprintf(out->sop_class_uid, sizeof out->sop_class_uid, "1.2.840.10008.5.1.4.1.1.2");
    snprintf(out->sop_instance_uid, sizeof out->sop_instance_uid, "1.2.3.4.%lld", (long long)number);
    snprintf(out->study_uid, sizeof out->study_uid, "1.2.3");
    snprintf(out->series_uid, sizeof out->series_uid, "1.2.3.9");
    snprintf(out->transfer_syntax_uid, sizeof out->transfer_syntax_uid, "1.2.840.10008.1.2.1");
}

static void *send_all(void *context) {
    struct sender *sender = context;
    struct err err = {0};
    struct store *store = store_open(&sender->config, &err);
    char *content = malloc(CONTENT_SIZE);
    if (!store || !content)
        _exit(2);
    for (int64_t number = sender->first + sender->index;; number += SENDERS) {
        struct instance instance;
        instance_number(number, &instance, content);
        if (!store_journal_put(sender->journal, store, &instance, &err))
            _exit(4);
        if (write(sender->pipe_end, &number, sizeof number) != (ssize_t)sizeof number)
            _exit(3);
    }
}

static void receive(const struct fixture *fixture, int pipe_end, int64_t first) {
    struct err err = {0};
    struct sender senders[SENDERS];
    struct store_journal *journal = store_journal_open(&fixture->config, &err);
    if (!journal || !store_journal_keep(journal, 0, &err))
        _exit(5);
    for (int index = 0; index < SENDERS; index++) {
        pthread_t thread;
        senders[index] = (struct sender){fixture->config, journal, pipe_end, index, first};
        if (pthread_create(&thread, NULL, send_all, &senders[index]) != 0)
            _exit(6);
    }
    struct store *store = store_open(&fixture->config, &err);
    for (int turn = 0; store && store_journal_keep(journal, 10, &err); turn++)
        if (turn % 4 == 3 && !store_journal_checkpoint(store, &err)) /* also under load, not only at rest */
            break;
    _exit(7);
}

static bool acknowledged[NUMBERS_MAX];

static void kill_round(const struct fixture *fixture, int round) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        receive(fixture, ends[1], (int64_t)round * (NUMBERS_MAX / ROUNDS));
    close(ends[1]);
    poll(&(struct pollfd){.fd = ends[0], .events = POLLIN}, 1, 20000); /* a slow machine still gets to work */
    uint32_t random[4];
    random_philox((uint32_t[2]){20261124, 1}, (uint32_t[4]){(uint32_t)round, 0, 0, 0}, random);
    usleep(random[0] % 200000);
    int status = 0;
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    assert_true(WIFSIGNALED(status)); /* a child that ended by itself met an error */
    for (int64_t number; read(ends[0], &number, sizeof number) == (ssize_t)sizeof number;)
        if (number >= 0 && number < NUMBERS_MAX)
            acknowledged[number] = true;
    close(ends[0]);
}

static bool is_stored(const struct fixture *fixture, int64_t number) {
    char content[CONTENT_SIZE], digest[DIGEST_HEX_SIZE], found[DIGEST_HEX_SIZE], path[512];
    struct instance instance;
    struct err err = {0};
    instance_number(number, &instance, content);
    assert_good(digest_hex(content, CONTENT_SIZE, digest, &err));
    snprintf(path, sizeof path, "%s/blobs/%.2s/%s", fixture->folder, digest, digest);
    return digest_file_hex(path, found, &err) && strcmp(found, digest) == 0;
}

static void test_kill(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    int64_t puts = 0, rows = 0, bad = 0;
    char reason[200];
    store_close(fixture->store); /* a connection must not cross a fork */
    fixture->store = NULL;
    for (int round = 0; round < ROUNDS; round++)
        kill_round(fixture, round);
    fixture->store = fixture_handle(fixture);
    struct store_journal *journal = store_journal_open(&fixture->config, &err); /* a next start */
    assert_true(journal && store_journal_keep(journal, 0, &err));
    store_journal_close(journal);
    assert_good(store_journal_checkpoint(fixture->store, &err));
    for (int64_t number = 0; number < NUMBERS_MAX; number++)
        if (acknowledged[number]) {
            puts++;
            if (!is_stored(fixture, number))
                fail_msg("acknowledged instance %lld is not whole", (long long)number);
        }
    PULMO_SCOPED(store_paths_free) struct store_paths paths = {0};
    assert_good(store_study_paths(fixture->store, "1.2.3", &paths, &err));
    for (size_t index = 0; index < paths.count; index++) { /* also what was stored and not acknowledged any more */
        char digest[DIGEST_HEX_SIZE];
        assert_good(digest_file_hex(paths.items[index], digest, &err));
        assert_string_equal(digest, strrchr(paths.items[index], '/') + 1);
    }
    printf("%d kills: %lld instances were acknowledged, %zu stored\n", ROUNDS, (long long)puts, paths.count);
    assert_true(puts > 0 && (int64_t)paths.count >= puts);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM journal"), 0);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%lost%'"), 0);
    assert_int_equal(fixture_count(fixture, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"), 1);
    assert_good(store_audit_verify(fixture->store, &rows, &bad, reason, sizeof reason, &err));
    assert_int_equal(bad, 0);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {TEST(test_kill)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
