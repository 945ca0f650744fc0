/* LABELS: quick
 * Reception, worker and sender as processes that are killed (SIGKILL) at random instants, again and again, on one
 * folder. Afterwards: everything they acknowledged is there and whole, each study has one result, each object is marked
 * sent once, the audit chain is whole. */
#include "random.h"
#include "store_fixture.h"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#define ROUNDS 20
#define ARTIFACTS 12 /* enough for the way that many files take to the disk */
#define ALL_KINDS (1U << STORE_JOB_ANALYSE | 1U << STORE_JOB_DECODE)

/* An acknowledgement as a child writes it to the pipe; short writes to a pipe are atomic (PIPE_BUF). */
struct word {
    enum { WORD_PUT = 1, WORD_RESULT, WORD_SENT } kind;
    int64_t id;
};

static void say(int pipe_end, struct word word) {
    if (write(pipe_end, &word, sizeof word) != (ssize_t)sizeof word)
        _exit(3);
}

static void study_name(int64_t number, char out[DICOM_UID_SIZE]) {
    snprintf(out, DICOM_UID_SIZE, "1.2.840.%lld", (long long)number);
}

static bool put_number(struct store *store, int64_t number, struct err *err) {
    char study[DICOM_UID_SIZE], sop[DICOM_UID_SIZE + 4], pixels[32];
    study_name(number, study);
    snprintf(sop, sizeof sop, "%.60s.1", study);
    snprintf(pixels, sizeof pixels, "%lld", (long long)number);
    return fixture_put(store, &(struct fixture_instance){.study = study, .sop = sop, .pixels = pixels}, err);
}

static void receive(struct store *store, int pipe_end, int64_t first) {
    struct err err = {0};
    for (int64_t number = first;; number++) {
        if (!put_number(store, number, &err))
            _exit(4);
        say(pipe_end, (struct word){WORD_PUT, number});
    }
}

static bool finish(struct store *store, const struct store_job *job, int64_t *result_id, struct err *err) {
    char names[ARTIFACTS][32], contents[ARTIFACTS][96];
    struct store_artifact artifacts[ARTIFACTS];
    for (int index = 0; index < ARTIFACTS; index++) {
        snprintf(names[index], sizeof names[index], "part/%d", index);
        snprintf(contents[index], sizeof contents[index], "%s part %d", job->study_uid, index);
        artifacts[index] =
            (struct store_artifact){names[index], "text/plain", contents[index], strlen(contents[index]), index == 0};
    }
    struct store_report report = {
        .status = STORE_ANALYSED, .summary_json = "{}", .artifacts = artifacts, .artifact_count = ARTIFACTS};
    if (job->kind == STORE_JOB_DECODE)
        return store_decode_finish(store, job, artifacts, ARTIFACTS, err);
    return store_job_finish(store, job, &report, result_id, err);
}

static void work(struct store *store, int pipe_end) {
    for (;;) {
        struct err err = {0};
        struct store_job job;
        int64_t result_id = 0;
        if (!store_job_take(store, ALL_KINDS, pulmo_now_ms() + 1, &job, &err))
            _exit(5);
        if (!job.id)
            usleep(2000);
        else if (!finish(store, &job, &result_id, &err))
            _exit(6);
        if (result_id)
            say(pipe_end, (struct word){WORD_RESULT, result_id});
    }
}

static void deliver(struct store *store, int pipe_end) {
    for (;;) {
        struct err err = {0};
        struct store_outgoing outgoing;
        if (!store_outbox_take(store, pulmo_now_ms() + 1, &outgoing, &err))
            _exit(7);
        if (!outgoing.id) {
            usleep(2000);
            continue;
        }
        if (!store_outbox_sent(store, &outgoing, &err))
            _exit(8);
        say(pipe_end, (struct word){WORD_SENT, outgoing.id});
    }
}

static const char *const destinations[] = {"PACS"};

static pid_t child(const struct fixture *fixture, int pipe_end, int role, int64_t first) {
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid)
        return pid;
    struct err err = {0};
    struct store *store = store_open(&fixture->config, &err);
    if (!store || !store_set_destinations(store, destinations, 1, &err))
        _exit(2);
    store_set_pixel_digest(store, fixture_pixel_digest);
    if (role == 0)
        receive(store, pipe_end, first);
    else if (role == 1)
        work(store, pipe_end);
    deliver(store, pipe_end);
    _exit(9);
}

/* What was acknowledged over all rounds. */
struct ledger {
    int64_t put_first[ROUNDS], put_last[ROUNDS];
    int64_t results[20000], result_count, sent, puts;
};

static void ledger_read(struct ledger *ledger, int round, int pipe_end) {
    for (struct word word; read(pipe_end, &word, sizeof word) == (ssize_t)sizeof word;) {
        if (word.kind == WORD_PUT) {
            ledger->put_last[round] = word.id;
            ledger->puts++;
        }
        if (word.kind == WORD_RESULT && ledger->result_count < 20000)
            ledger->results[ledger->result_count++] = word.id;
        ledger->sent += word.kind == WORD_SENT;
    }
}

/* A child that ended by itself met an error: that is a failure of the test. */
static void kill_round(const struct fixture *fixture, struct ledger *ledger, int round) {
    int ends[2];
    pid_t pids[3];
    assert_int_equal(pipe(ends), 0);
    ledger->put_first[round] = (int64_t)(round + 1) * 1000000;
    ledger->put_last[round] = ledger->put_first[round] - 1;
    for (int role = 0; role < 3; role++)
        pids[role] = child(fixture, ends[1], role, ledger->put_first[round]);
    close(ends[1]);
    poll(&(struct pollfd){.fd = ends[0], .events = POLLIN}, 1, 20000); /* a slow machine still gets to work */
    uint32_t random[4];
    random_philox((uint32_t[2]){20261124, 0}, (uint32_t[4]){(uint32_t)round, 0, 0, 0}, random);
    struct timespec instant = {.tv_nsec = 20000000L + random[0] % 80000000L};
    nanosleep(&instant, NULL);
    for (int role = 0; role < 3; role++)
        kill(pids[(role + round) % 3], SIGKILL);
    ledger_read(ledger, round, ends[0]);
    close(ends[0]);
    for (int role = 0; role < 3; role++) {
        int status = 0;
        assert_int_equal(waitpid(pids[role], &status, 0), pids[role]);
        if (!WIFSIGNALED(status))
            fail_msg("role %d ended with status %d", role, WEXITSTATUS(status));
    }
}

static void check_put(struct store *store, int64_t number) {
    struct err err = {0};
    char study[DICOM_UID_SIZE], digest[DIGEST_HEX_SIZE];
    PULMO_SCOPED(store_paths_free) struct store_paths paths = {0};
    study_name(number, study);
    assert_good(store_study_paths(store, study, &paths, &err));
    assert_int_equal(paths.count, 1);
    assert_good(digest_file_hex(paths.items[0], digest, &err));
    assert_string_equal(strrchr(paths.items[0], '/') + 1, digest);
}

/* A result that anyone can see has all its parts. */
static void check_result(struct store *store, int64_t result_id) {
    struct err err = {0};
    struct store_result result;
    assert_good(store_result_get(store, result_id, &result, &err));
    for (int index = 0; index < ARTIFACTS; index++) {
        char name[32], expected[96];
        PULMO_SCOPED(bytes_free) struct bytes bytes = {0};
        snprintf(name, sizeof name, "part/%d", index);
        snprintf(expected, sizeof expected, "%s part %d", result.study_uid, index);
        assert_good(store_artifact_read(store, result_id, name, &bytes, NULL, &err));
        assert_int_equal(bytes.size, strlen(expected));
        assert_memory_equal(bytes.data, expected, bytes.size);
    }
}

/* What was leased when its holder died is done now, once. */
static void drain(struct store *store) {
    struct err err = {0};
    for (;;) {
        struct store_job job;
        int64_t result_id = 0;
        assert_good(store_job_take(store, ALL_KINDS, pulmo_now_ms() + LEASE_MS + 1000, &job, &err));
        if (!job.id)
            break;
        assert_good(finish(store, &job, &result_id, &err));
    }
    for (struct store_outgoing outgoing;;) {
        assert_good(store_outbox_take(store, pulmo_now_ms() + LEASE_MS + 1000, &outgoing, &err));
        if (!outgoing.id)
            return;
        assert_good(store_outbox_sent(store, &outgoing, &err));
    }
}

static void check_ledger(const struct fixture *fixture, const struct ledger *ledger) {
    for (int round = 0; round < ROUNDS; round++)
        for (int64_t number = ledger->put_first[round]; number <= ledger->put_last[round]; number++)
            check_put(fixture->store, number);
    for (int64_t index = 0; index < ledger->result_count; index++)
        check_result(fixture->store, ledger->results[index]);
    assert_true(fixture_count(fixture, "SELECT count(*) FROM outbox WHERE state = 'sent'") >= ledger->sent);
}

static void test_kill(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    static struct ledger ledger;
    store_close(fixture->store); /* a connection must not cross a fork */
    fixture->store = NULL;
    fixture->config.quiet_ms = 0;
    fixture->config.attempts_max = 1000;
    for (int round = 0; round < ROUNDS; round++)
        kill_round(fixture, &ledger, round);
    fixture->store = fixture_handle(fixture);
    assert_good(store_set_destinations(fixture->store, destinations, 1, &err));
    check_ledger(fixture, &ledger);
    drain(fixture->store);
    printf("%d kills of 3 processes: %lld instances, %lld results, %lld sendings were acknowledged\n", ROUNDS,
           (long long)ledger.puts, (long long)ledger.result_count, (long long)ledger.sent);
    assert_true(ledger.puts > 0 && ledger.result_count > 0 && ledger.sent > 0);
    int64_t studies = fixture_count(fixture, "SELECT count(*) FROM study");
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM result"), studies);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM outbox WHERE state = 'sent'"), studies);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%\"send\"%'"), studies);
    assert_int_equal(fixture_count(fixture, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"), 1);
    int64_t rows = 0, bad = 0;
    char reason[200];
    assert_good(store_audit_verify(fixture->store, &rows, &bad, reason, sizeof reason, &err));
    assert_int_equal(bad, 0);
}

/* What a killed supervisor's processes do last: one of them still has the database for itself while the next start
 * looks. */
static void test_start_waits_for_who_still_ends(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    char path[256], byte = 0;
    int ends[2];
    store_close(fixture->store);
    fixture->store = NULL;
    snprintf(path, sizeof path, "%s/pulmo.db", fixture->folder);
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        sqlite3 *database = NULL;
        bool good =
            sqlite3_open(path, &database) == SQLITE_OK &&
            sqlite3_exec(database, "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE", NULL, NULL, NULL) == SQLITE_OK;
        byte = good ? 'k' : 'n';
        if (write(ends[1], &byte, 1) != 1)
            _exit(3);
        nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL);
        _exit(0); /* the locks go with it */
    }
    assert_int_equal(read(ends[0], &byte, 1), 1);
    assert_int_equal(byte, 'k');
    assert_good(store_recover(&fixture->config, &err));
    assert_int_equal(waitpid(child, NULL, 0), child);
    close(ends[0]);
    close(ends[1]);
    fixture->store = fixture_handle(fixture);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {TEST(test_kill), TEST(test_start_waits_for_who_still_ends)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
