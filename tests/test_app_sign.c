/* LABELS: full
 * What a reader signs: of a refused study, of one that late slices completed, and of a candidate below the operating
 * point. The store, the worker's steps and the model are the real ones. */
#include "app/command.h"
#include "app/processes.h"
#include "app/worker.h"
#include "phantom/phantom.h"

#include <fts.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct {
    char folder[64], images[96], data[96];
    struct file_list files;
    struct config config;
    struct appliance appliance;
} fixture;

static void good(bool done, const struct err *err) {
    if (!done)
        fail_msg("%s: %s", err_kind_name(err->kind), err->text);
}

static void configure(const char *key, const char *value) {
    struct err err = {0};
    good(config_set(&fixture.config, key, value, &err), &err);
}

static int make_fixture(void **state) {
    (void)state;
    struct err err = {0};
    snprintf(fixture.folder, sizeof fixture.folder, "/tmp/pulmo-sign-XXXXXX");
    assert_non_null(mkdtemp(fixture.folder));
    snprintf(fixture.images, sizeof fixture.images, "%s/images", fixture.folder);
    snprintf(fixture.data, sizeof fixture.data, "%s/data", fixture.folder);
    assert_int_equal(mkdir(fixture.images, 0700), 0);
    PULMO_SCOPED(phantom_free) struct phantom phantom = {0};
    struct phantom_config make = {.seed = 1, .nodules = 1};
    struct dicom_ct_write_config write = {.folder = fixture.images,
                                          .transfer_syntax = "explicit",
                                          .patient_name = "PHANTOM^PULMO",
                                          .patient_id = "PULMO-TEST",
                                          .study_description = "Test",
                                          .series_description = "Synthetic chest",
                                          .seed = 1};
    const char *images = fixture.images;
    good(phantom_make(&make, &phantom, &err) && dicom_ct_write(phantom.volume, &write, &err) &&
             file_list_make(&images, 1, &fixture.files, &err),
         &err);
    config_defaults(&fixture.config);
    configure("model", "models/model.json");
    configure("data_folder", fixture.data);
    configure("quiet_ms", "100");
    configure("disk_reserve_mb", "16");
    configure("backend", "cuda");
    configure("backend_plugin", "/nonexistent/pulmo_cuda.so");
    configure("operating_point", "1"); /* nothing is reported: every candidate lies below it */
    fixture.appliance.config = &fixture.config;
    fixture.appliance.store = processes_store_open(&fixture.config, &err);
    good(fixture.appliance.store && store_device_uid(fixture.appliance.store, fixture.appliance.device_uid, &err) &&
             engine_open(&fixture.config, &fixture.appliance.engine, &err) &&
             store_user_add(fixture.appliance.store, "jane", "Doe^Jane", "radiologist", "a long password", &err),
         &err);
    return 0;
}

static int remove_fixture(void **state) {
    (void)state;
    engine_close(&fixture.appliance.engine);
    store_close(fixture.appliance.store);
    file_list_free(&fixture.files);
    char *roots[] = {fixture.folder, NULL};
    FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    for (FTSENT *entry; tree && (entry = fts_read(tree));)
        if (entry->fts_info != FTS_D)
            remove(entry->fts_path);
    fts_close(tree);
    return 0;
}

static void receive(size_t first, size_t end) {
    for (size_t index = first; index < end; index++) {
        struct err err = {0};
        struct instance instance;
        PULMO_SCOPED(bytes_free) struct bytes file = {0};
        good(bytes_read_file(fixture.files.items[index], (size_t)16 << 20, &file, &err) &&
                 dicom_instance_parse(file.data, file.size, &instance, &err) &&
                 store_instance_put(fixture.appliance.store, &instance, &err),
             &err);
    }
}

static void run(enum store_job_kind kind, job_step *step) {
    struct err err = {0};
    struct store_job job;
    good(store_job_take(fixture.appliance.store, 1U << kind, pulmo_now_ms() + 1000, &job, &err), &err);
    assert_true(job.id > 0);
    good(step(&fixture.appliance, &job, &err), &err);
}

/* The study after its analysis. */
static struct store_study analysed(void) {
    struct err err = {0};
    struct store_study *list = NULL, study;
    size_t count = 0;
    run(STORE_JOB_ANALYSE, job_analyse);
    good(store_study_list(fixture.appliance.store, 0, 10, &list, &count, &err), &err);
    assert_int_equal(count, 1);
    study = list[0];
    free(list);
    return study;
}

static void request(int64_t result_id) {
    struct err err = {0};
    good(store_sign_request(fixture.appliance.store, result_id, "jane", &err), &err);
}

static bool holds(const struct bytes *file, const char *text) {
    return memmem(file->data, file->size, text, strlen(text)) != NULL;
}

static struct bytes signed_report(int64_t result_id) {
    struct err err = {0};
    struct bytes report = {0};
    char media_type[64];
    good(store_artifact_read(fixture.appliance.store, result_id, "signed-sr.dcm", &report, media_type, &err), &err);
    return report;
}

static bool has_segmentation(int64_t result_id) {
    struct bytes file = {0};
    char media_type[64];
    bool found = store_artifact_read(fixture.appliance.store, result_id, "signed-seg.dcm", &file, media_type, NULL);
    bytes_free(&file);
    return found;
}

/* A slab of the chest is refused by its image, not by its headers. Slices that arrive between the reader's signature
 * and its work are not what was signed. What computed it is what the result says, not what this process has. */
static void the_signature_on_a_refused_study_says_refused(void **state) {
    (void)state;
    size_t count = fixture.files.count;
    receive(count / 3, 2 * count / 3);
    struct store_study study = analysed();
    assert_string_equal(study.state, "refused");
    assert_non_null(strstr(study.reason, "LUNGS_CUT: "));
    request(study.result_id);
    receive(0, count);
    struct err err = {0};
    engine_close(&fixture.appliance.engine);
    configure("backend", "cpu");
    good(engine_open(&fixture.config, &fixture.appliance.engine, &err), &err);
    run(STORE_JOB_SIGN, job_sign);
    PULMO_SCOPED(bytes_free) struct bytes report = signed_report(study.result_id);
    assert_true(holds(&report, "VERIFIED"));
    assert_true(holds(&report, "LUNGS_CUT: "));
    assert_true(holds(&report, "(the CUDA plugin is not installed)"));
    assert_false(holds(&report, "Analysed: no nodule reported"));
    assert_false(has_segmentation(study.result_id));
}

/* The late slices of the test before complete the study: the next result supersedes, unsigned. */
static void a_candidate_that_the_reader_accepts_is_signed(void **state) {
    (void)state;
    struct err err = {0};
    struct store_study study = analysed();
    assert_string_equal(study.state, "analysed");
    assert_int_equal(study.findings_reported, 0);
    struct store_verdict verdict = {.finding_id = 1, .verdict = "accepted", .user = "jane"};
    good(store_verdict_put(fixture.appliance.store, study.result_id, &verdict, &err), &err);
    request(study.result_id);
    run(STORE_JOB_SIGN, job_sign);
    PULMO_SCOPED(bytes_free) struct bytes report = signed_report(study.result_id);
    assert_true(holds(&report, "Analysed: nodules reported"));
    assert_true(holds(&report, infer_model_info(fixture.appliance.engine.model)->sha256));
    assert_true(has_segmentation(study.result_id));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_signature_on_a_refused_study_says_refused),
        cmocka_unit_test(a_candidate_that_the_reader_accepts_is_signed),
    };
    return cmocka_run_group_tests(tests, make_fixture, remove_fixture);
}
