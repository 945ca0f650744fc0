/* LABELS: full
 * How the appliance's processes meet what an administrator gets wrong, and a PACS that does not take everything. */
#include "app/pool.h"
#include "app/processes.h"
#include "dicom/dicom.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    char folder[64];
    struct config config;
};

static void good(bool done, const struct err *err) {
    if (!done)
        fail_msg("%s: %s", err_kind_name(err->kind), err->text);
}

static int make_fixture(void **state) {
    struct err err = {0};
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    snprintf(fixture->folder, sizeof fixture->folder, "/tmp/pulmo-processes-XXXXXX");
    assert_non_null(mkdtemp(fixture->folder));
    config_defaults(&fixture->config);
    good(config_set(&fixture->config, "data_folder", fixture->folder, &err) &&
             config_set(&fixture->config, "quiet_ms", "100", &err) &&
             config_set(&fixture->config, "attempts_max", "1", &err) &&
             config_set(&fixture->config, "disk_reserve_mb", "16", &err),
         &err);
    *state = fixture;
    return 0;
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *walk) {
    (void)status;
    (void)type;
    (void)walk;
    return remove(path);
}

static int remove_fixture(void **state) {
    struct fixture *fixture = *state;
    nftw(fixture->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(fixture);
    return 0;
}

static void a_destination_named_twice_refuses_the_start(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    good(config_set(&fixture->config, "destinations", "PACS@10.0.0.1:104, PACS@10.0.0.1:104", &err), &err);
    assert_null(processes_store_open(&fixture->config, &err));
    assert_int_equal(err.kind, ERR_CONFIG);
    assert_non_null(strstr(err.text, "PACS@10.0.0.1:104"));
}

/* /bin/false stands for a process whose port is taken: it ends at once, and so does the appliance, with its name. */
static void a_process_that_never_comes_up_ends_the_appliance(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    int64_t start_ms = pulmo_monotonic_ms();
    assert_false(supervisor_run("/bin/false", NULL, &fixture->config, &err));
    assert_int_equal(err.kind, ERR_CONFIG);
    assert_non_null(strstr(err.text, "at its start"));
    assert_true(pulmo_monotonic_ms() - start_ms > 10000); /* time for a predecessor to leave its ports */
}

static void the_pool_follows_the_queue_within_its_limits(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    assert_int_equal(pool_size(0, 1, 4), 1);
    assert_int_equal(pool_size(3, 1, 4), 3);
    assert_int_equal(pool_size(9, 1, 4), 4);
    assert_int_equal(pool_size(0, 2, 4), 2);
    struct pool one = pool_begin(&fixture->config); /* the defaults: one, and nobody asks the store */
    assert_int_equal(pool_wanted(&one), 1);
    assert_null(one.store);
    good(config_set(&fixture->config, "workers_min", "3", &err) &&
             config_set(&fixture->config, "workers_max", "2", &err),
         &err);
    struct pool more = pool_begin(&fixture->config);
    assert_int_equal(more.ceiling, 3); /* never below the floor */
    good(config_set(&fixture->config, "workers_min", "1", &err) &&
             config_set(&fixture->config, "workers_max", "0", &err),
         &err);
    struct pool memory = pool_begin(&fixture->config);
    assert_true(memory.ceiling >= 1 && memory.ceiling <= sysconf(_SC_NPROCESSORS_ONLN));
}

/* ---- a PACS that takes CT and nothing else ----------------------------------------------------------- */

static bool on_instance(void *context, const struct instance *instance, struct err *err) {
    (void)context;
    (void)instance;
    (void)err;
    return true;
}

/* A small CT as a file; `class_end` replaces the last digit of its SOP class. */
static struct bytes object(const struct fixture *fixture, char class_end) {
    static const char ct[] = "1.2.840.10008.5.1.4.1.1.2";
    struct err err = {0};
    struct grid grid = {{16, 16, 1}, {1, 1, 1}, {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}}};
    char folder[96], path[128];
    snprintf(folder, sizeof folder, "%s/ct", fixture->folder);
    snprintf(path, sizeof path, "%s/ct-0001.dcm", folder);
    struct dicom_ct_write_config write = {.folder = folder,
                                          .transfer_syntax = "explicit",
                                          .patient_name = "PHANTOM^PULMO",
                                          .patient_id = "PULMO-TEST",
                                          .study_description = "Test",
                                          .series_description = "Test",
                                          .seed = 1};
    mkdir(folder, 0700);
    PULMO_SCOPED(volume_free_at) struct volume *volume = volume_new(&grid, &err);
    struct bytes file = {0};
    good(volume && dicom_ct_write(volume, &write, &err) && bytes_read_file(path, (size_t)1 << 20, &file, &err), &err);
    for (uint8_t *at = file.data; (at = memmem(at, file.size - (size_t)(at - file.data), ct, sizeof ct)); at++)
        at[sizeof ct - 2] = (uint8_t)class_end;
    return file;
}

static void queue(const struct fixture *fixture, struct store *store) {
    struct err err = {0};
    struct instance instance;
    struct store_job job;
    PULMO_SCOPED(bytes_free) struct bytes ct = object(fixture, '2'), mr = object(fixture, '4');
    good(dicom_instance_parse(ct.data, ct.size, &instance, &err) && store_instance_put(store, &instance, &err) &&
             store_job_take(store, 1U << STORE_JOB_ANALYSE, pulmo_now_ms() + 1000, &job, &err),
         &err);
    const struct store_artifact artifacts[] = {{"seg.dcm", "application/dicom", mr.data, mr.size, true},
                                               {"sr.dcm", "application/dicom", ct.data, ct.size, true}};
    struct store_report report = {
        .status = STORE_ANALYSED, .summary_json = "{}", .artifacts = artifacts, .artifact_count = 2};
    good(store_job_finish(store, &job, &report, NULL, &err), &err);
}

static void what_the_pacs_does_not_take_holds_nothing_else_back(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct dicom_scp_config pacs = {.bind_address = "127.0.0.1", .ae_title = "PACS"};
    struct dicom_scp *scp = dicom_scp_start(&pacs, on_instance, NULL, NULL, &err);
    good(scp != NULL, &err);
    char destination[64];
    snprintf(destination, sizeof destination, "PACS@127.0.0.1:%u", dicom_scp_port(scp));
    good(config_set(&fixture->config, "destinations", destination, &err), &err);
    PULMO_SCOPED(store_close_at) struct store *store = processes_store_open(&fixture->config, &err);
    good(store != NULL, &err);
    queue(fixture, store);
    struct outbox *outbox = outbox_start(&fixture->config, &err);
    good(outbox != NULL, &err);
    struct store_counts counts = {.outbox_waiting = 2};
    for (int64_t end_ms = pulmo_monotonic_ms() + 4000; counts.outbox_waiting && pulmo_monotonic_ms() < end_ms;)
        good(store_wait(store, 100, &err) && store_counts(store, &counts, &err), &err);
    outbox_stop(outbox);
    dicom_scp_stop(scp);
    assert_int_equal(counts.outbox_waiting, 0); /* a paused destination would still wait: the first pause is 5 s */
    assert_int_equal(counts.outbox_dead, 1);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_fixture, remove_fixture)
    const struct CMUnitTest tests[] = {
        TEST(a_destination_named_twice_refuses_the_start),
        TEST(a_process_that_never_comes_up_ends_the_appliance),
        TEST(the_pool_follows_the_queue_within_its_limits),
        TEST(what_the_pacs_does_not_take_holds_nothing_else_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
