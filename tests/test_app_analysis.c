/* LABELS: full
 * One study top to bottom, on the phantom and the committed model: found, repeatable, explained, refused with a reason.
 */
#include "app/artifacts.h"
#include "app/command.h"
#include "app/finding_json.h"
#include "phantom/phantom.h"

#include <cjson/cJSON.h>
#include <fts.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct {
    char folder[64];
    struct phantom phantom;
    struct file_list files;
    struct config config;
    struct engine engine;     /* of the analysis that the tests share, with two threads */
    struct analysis analysis; /* of all files */
} fixture;

static struct analysis analyse(struct engine *engine, const char *threads, const char *const *files, size_t count);

static int make_fixture(void **state) {
    (void)state;
    struct err err = {0};
    snprintf(fixture.folder, sizeof fixture.folder, "/tmp/pulmo-analysis-XXXXXX");
    const char *folder = mkdtemp(fixture.folder);
    struct phantom_config config = {.seed = 1, .nodules = 1};
    struct dicom_ct_write_config write = {.folder = folder,
                                          .transfer_syntax = "explicit",
                                          .patient_name = "PHANTOM^PULMO",
                                          .patient_id = "PULMO-TEST",
                                          .study_description = "Test",
                                          .series_description = "Synthetic chest",
                                          .seed = 1};
    assert_true(phantom_make(&config, &fixture.phantom, &err));
    assert_true(dicom_ct_write(fixture.phantom.volume, &write, &err));
    assert_true(file_list_make(&folder, 1, &fixture.files, &err));
    config_defaults(&fixture.config);
    assert_true(config_set(&fixture.config, "model", "models/model.json", &err));
    /* not what an appliance on this machine has calibrated */
    assert_true(config_set(&fixture.config, "precision", "fp32", &err));
    fixture.analysis = analyse(&fixture.engine, "2", (const char *const *)fixture.files.items, fixture.files.count);
    return 0;
}

static int remove_fixture(void **state) {
    (void)state;
    analysis_free(&fixture.analysis);
    engine_close(&fixture.engine);
    for (size_t index = 0; index < fixture.files.count; index++)
        unlink(fixture.files.items[index]);
    rmdir(fixture.folder);
    file_list_free(&fixture.files);
    phantom_free(&fixture.phantom);
    return 0;
}

/* Analyses count of the phantom's files with the given number of threads. */
static struct analysis analyse(struct engine *engine, const char *threads, const char *const *files, size_t count) {
    struct err err = {0};
    assert_true(config_set(&fixture.config, "threads", threads, &err));
    if (!engine_open(&fixture.config, engine, &err))
        fail_msg("%s", err.text);
    struct analysis_run run = analysis_run_configured(&fixture.config, engine->model);
    run.created_ms = 1780000000000; /* the same moment for every run that is compared */
    struct analysis analysis;
    if (!analysis_make(engine, files, count, &run, &analysis, &err))
        fail_msg("%s", err.text);
    return analysis;
}

static struct artifacts explain(struct analysis *analysis, struct engine *engine) {
    struct err err = {0};
    struct artifacts artifacts = {0};
    if (!artifacts_make(analysis, engine, "2.25.1", &artifacts, &err))
        fail_msg("%s", err.text);
    return artifacts;
}

static const struct store_artifact *named(const struct artifacts *artifacts, const char *name) {
    for (size_t index = 0; index < artifacts->count; index++)
        if (strcmp(artifacts->items[index].name, name) == 0)
            return &artifacts->items[index];
    return NULL;
}

static void the_nodule_is_the_first_finding(void **state) {
    (void)state;
    const struct analysis *analysis = &fixture.analysis;
    assert_int_equal(analysis->refusals.count, 0);
    assert_true(analysis->findings.count > 0);
    const struct finding *first = &analysis->findings.items[0];
    const struct phantom_nodule *nodule = &fixture.phantom.nodules[0];
    double square = 0;
    for (int axis = 0; axis < 3; axis++)
        square += pow(first->center_lps_mm[axis] - nodule->center_lps_mm[axis], 2);
    assert_true(sqrt(square) < nodule->diameter_mm / 2);
    assert_true(first->reported);
    assert_true(fabs((first->long_axis_mm + first->short_axis_mm) / 2 - nodule->diameter_mm) < 2);
    assert_true(first->probability_low <= first->probability && first->probability <= first->probability_high);
    assert_non_null(analysis->masks[0]);
}

/* Every artifact of two runs, byte for byte; analysis.json without its timings. */
static void assert_same(const struct artifacts *left, const struct artifacts *right) {
    struct err err = {0};
    assert_int_equal(left->count, right->count);
    for (size_t index = 0; index < left->count; index++) {
        const struct store_artifact *a = &left->items[index], *b = &right->items[index];
        assert_string_equal(a->name, b->name);
        if (strcmp(a->name, "analysis.json") == 0) {
            struct bytes whole_a = {.size = a->size}, whole_b = {.size = b->size};
            memcpy(&whole_a.data, &a->data, sizeof whole_a.data);
            memcpy(&whole_b.data, &b->data, sizeof whole_b.data);
            PULMO_SCOPED(bytes_free) struct bytes text_a = {0}, text_b = {0};
            assert_true(analysis_json_comparable(&whole_a, &text_a, &err) &&
                        analysis_json_comparable(&whole_b, &text_b, &err));
            assert_int_equal(text_a.size, text_b.size);
            assert_memory_equal(text_a.data, text_b.data, text_a.size);
        } else {
            assert_int_equal(a->size, b->size);
            assert_memory_equal(a->data, b->data, a->size);
        }
    }
}

static void two_runs_and_any_number_of_threads_give_the_same_bytes(void **state) {
    (void)state;
    struct engine engine;
    struct analysis analysis = analyse(&engine, "1", (const char *const *)fixture.files.items, fixture.files.count);
    struct artifacts artifacts[] = {explain(&analysis, &engine), explain(&fixture.analysis, &fixture.engine)};
    analysis_free(&analysis);
    engine_close(&engine);
    assert_same(&artifacts[0], &artifacts[1]);
    const struct store_artifact *document = named(&artifacts[0], "analysis.json");
    assert_non_null(document);
    assert_non_null(named(&artifacts[0], "sr.dcm"));
    assert_non_null(named(&artifacts[0], "seg.dcm"));
    assert_non_null(named(&artifacts[0], "contours.json"));
    artifacts_free(&artifacts[0]);
    artifacts_free(&artifacts[1]);
}

/* The last that looks at the shared analysis: it takes its findings. */
static void findings_survive_their_document(void **state) {
    (void)state;
    struct err err = {0};
    struct analysis *analysis = &fixture.analysis;
    PULMO_SCOPED(bytes_free) struct bytes document = {0}, again = {0};
    assert_true(analysis_json(analysis, &fixture.engine, NULL, &document, &err));
    struct findings read = {0};
    struct analysis_run run;
    assert_true(finding_json_read(&document, &read, &run, &err));
    assert_int_equal(read.count, analysis->findings.count);
    for (size_t index = 0; index < read.count; index++)
        assert_int_equal(read.items[index].id, analysis->findings.items[index].id);
    /* What was read writes the same document: no field was lost on the way. */
    findings_free(&analysis->findings);
    analysis->findings = read;
    analysis->run = run;
    assert_true(analysis_json(analysis, &fixture.engine, NULL, &again, &err));
    PULMO_SCOPED(bytes_free) struct bytes left = {0}, right = {0};
    assert_true(analysis_json_comparable(&document, &left, &err) && analysis_json_comparable(&again, &right, &err));
    assert_int_equal(left.size, right.size);
    assert_memory_equal(left.data, right.data, left.size);
}

static void a_missing_slice_is_refused_and_reported(void **state) {
    (void)state;
    const char *files[2000];
    size_t count = 0;
    for (size_t index = 0; index < fixture.files.count; index++)
        if (index != fixture.files.count / 2)
            files[count++] = fixture.files.items[index];
    struct engine engine;
    struct analysis analysis = analyse(&engine, "0", files, count);
    assert_true(analysis.refusals.count > 0);
    assert_int_equal(analysis.refusals.items[0].code, REFUSAL_MISSING_SLICES);
    struct artifacts artifacts = explain(&analysis, &engine);
    assert_non_null(named(&artifacts, "sr.dcm"));
    assert_null(named(&artifacts, "seg.dcm"));
    const struct store_artifact *document = named(&artifacts, "analysis.json");
    cJSON *json = cJSON_ParseWithLength(document->data, document->size);
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(json, "status")), "refused");
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "findings")), 0);
    assert_non_null(
        strstr(cJSON_GetStringValue(cJSON_GetArrayItem(cJSON_GetObjectItem(json, "reasons"), 0)), "MISSING_SLICES: "));
    cJSON_Delete(json);
    artifacts_free(&artifacts);
    analysis_free(&analysis);
    engine_close(&engine);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_nodule_is_the_first_finding),
        cmocka_unit_test(two_runs_and_any_number_of_threads_give_the_same_bytes),
        cmocka_unit_test(findings_survive_their_document),
        cmocka_unit_test(a_missing_slice_is_refused_and_reported),
    };
    return cmocka_run_group_tests(tests, make_fixture, remove_fixture);
}
