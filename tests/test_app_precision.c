/* LABELS: full
 * Calibration on this processor, what is kept of it, and what the configuration makes of that. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

#include "app/analysis.h"
#include "app/finding_json.h"
#include "app/precision.h"

#define MODEL "models/model.json"

struct fixture {
    struct config config;
    struct infer_model *model;
    struct infer_calibration made;
};

static int fixture_new(void **state) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    struct err err = {0};
    char folder[] = "/tmp/pulmo-precision-XXXXXX";
    assert_non_null(fixture);
    assert_non_null(mkdtemp(folder));
    config_defaults(&fixture->config);
    if (!config_set(&fixture->config, "data_folder", folder, &err) ||
        !config_set(&fixture->config, "model", MODEL, &err) || !config_set(&fixture->config, "threads", "1", &err) ||
        !(fixture->model = infer_model_open(MODEL, &err)))
        fail_msg("%s", err.text);
    *state = fixture;
    return 0;
}

static void kept_file(const struct fixture *fixture, char *out, size_t size) {
    char command[512];
    snprintf(command, sizeof command, "ls %s/calibration/*.json", fixture->config.data_folder);
    FILE *list = popen(command, "r"); /* lint: allow popen: a test's own folder */
    assert_true(list && fgets(out, (int)size, list));
    out[strcspn(out, "\n")] = '\0';
    pclose(list);
}

static int fixture_free(void **state) {
    struct fixture *fixture = *state;
    char path[512], folder[512];
    kept_file(fixture, path, sizeof path);
    unlink(path);
    snprintf(folder, sizeof folder, "%s/calibration", fixture->config.data_folder);
    rmdir(folder);
    rmdir(fixture->config.data_folder);
    infer_model_free(fixture->model);
    free(fixture);
    return 0;
}

static const char *precision_opened(const struct fixture *fixture, const char *word) {
    struct config config = fixture->config;
    struct engine engine;
    struct err err = {0};
    if (!config_set(&config, "precision", word, &err) || !engine_open(&config, &engine, &err))
        fail_msg("%s", err.text);
    const char *name = engine_precision(&engine);
    engine_close(&engine);
    return name;
}

static void without_a_calibration_it_is_fp32(void **state) {
    assert_string_equal(precision_opened(*state, "auto"), "fp32");
}

/* On the phantom's tiles the plan errs by no more than allowed, whatever this processor prefers. */
static void calibration_finds_a_plan_within_the_budget(void **state) {
    struct fixture *fixture = *state;
    struct infer_calibration *made = &fixture->made, kept;
    struct err err = {0};
    if (!precision_calibrate(&fixture->config, fixture->model, made, &err))
        fail_msg("%s", err.text);
    int low = made->layers[1] + made->layers[2];
    print_message("%s: gain %.2f, error %.2f\n", made->plan.layers, made->gain, made->error);
    assert_true(made->error <= INFER_ERROR_MAX && made->tiles > 0);
    assert_true(low ? made->gain >= INFER_GAIN_MIN : made->gain == 1);
    assert_int_equal(made->layers[0] + low, strlen(made->plan.layers));
    if (!precision_kept(&fixture->config, fixture->model, &kept, &err))
        fail_msg("%s", err.text);
    assert_memory_equal(&kept.plan, &made->plan, sizeof kept.plan);
}

static void the_configuration_takes_what_was_kept(void **state) {
    struct fixture *fixture = *state;
    const char *want = fixture->made.layers[1] + fixture->made.layers[2] ? "mixed" : "fp32";
    assert_string_equal(precision_opened(fixture, "auto"), want);
    assert_string_equal(precision_opened(fixture, "mixed"), want);
    assert_string_equal(precision_opened(fixture, "fp32"), "fp32");
}

/* Everything that can in int8, whether it pays here or not. */
static struct infer_precision int8_plan(const struct fixture *fixture) {
    struct infer_precision plan = fixture->made.plan;
    for (size_t layer = 0; plan.layers[layer]; layer++)
        plan.layers[layer] = plan.ranges[layer] > 0 ? 'i' : 'f';
    return plan;
}

/* What a result says of its plan opens the same plan again: what `pulmo replay` does. What it says of each finding's
 * precision is read back too. */
static void a_result_pins_its_plan(void **state) {
    struct fixture *fixture = *state;
    struct infer_precision plan = int8_plan(fixture);
    PULMO_SCOPED(bytes_free) struct bytes document = {0};
    PULMO_SCOPED(analysis_free) struct analysis analysis = {.run = {.passes = 1}};
    PULMO_SCOPED(findings_free) struct findings read = {0};
    struct analysis_run run;
    struct finding_origin origin;
    struct config config = fixture->config;
    struct engine engine;
    struct err err = {0};
    if (!config_set(&config, "precision", "fp32", &err) || !engine_open(&config, &engine, &err))
        fail_msg("%s", err.text);
    bool mixed = engine_set_precision(&engine, &config, &plan, &err);
    if (!mixed && err.kind != ERR_UNSUPPORTED) /* this processor has no int8: what it calibrated is fp32 */
        fail_msg("%s", err.text);
    if ((!mixed && !engine_set_precision(&engine, &config, &fixture->made.plan, &err)) ||
        !(analysis.findings.items = pulmo_alloc(2, sizeof *analysis.findings.items, &err)))
        fail_msg("%s", err.text);
    analysis.findings.count = 2;
    analysis.findings.items[1].full_precision = true;
    if (!analysis_json(&analysis, &engine, NULL, &document, &err) || !finding_json_origin(&document, &origin, &err) ||
        !finding_json_read(&document, &read, &run, &err))
        fail_msg("%s", err.text);
    assert_string_equal(origin.precision, engine_precision(&engine));
    assert_string_equal(origin.precision, mixed ? "mixed" : "fp32");
    if (mixed)
        assert_memory_equal(&origin.plan, infer_session_precision(engine.session), sizeof origin.plan);
    assert_int_equal(origin.findings_full, mixed);
    assert_int_equal(read.count, 2);
    assert_false(read.items[0].full_precision);
    assert_int_equal(read.items[1].full_precision, mixed);
    engine_close(&engine);
}

static void a_damaged_file_is_named(void **state) {
    struct fixture *fixture = *state;
    char path[512];
    struct infer_precision plan;
    bool mixed = false;
    struct err err = {0};
    kept_file(fixture, path, sizeof path);
    assert_true(bytes_write_file(path, "{\"layers\": \"fxf\"}", 17, false, &err));
    assert_false(precision_configured(&fixture->config, fixture->model, &plan, &mixed, &err));
    assert_int_equal(err.kind, ERR_CONFIG);
    assert_non_null(strstr(err.text, path));
}

static void a_plan_that_makes_no_sense_is_refused(void **state) {
    (void)state;
    static const char *const texts[] = {
        "{}",
        "{\"layers\": \"fi\", \"weight_max\": 63, \"ranges\": [1]}",
        "{\"layers\": \"fi\", \"weight_max\": 300, \"ranges\": [1, 2]}",
        "{\"layers\": \"fi\", \"weight_max\": 63, \"ranges\": [1, -2]}",
        "{\"layers\": \"fi\", \"weight_max\": 63, \"ranges\": [1, \"2\"]}",
        "{\"layers\": \"fz\", \"weight_max\": 63, \"ranges\": [1, 2]}",
    };
    for (size_t n = 0; n < sizeof texts / sizeof *texts; n++) {
        struct infer_precision plan;
        struct err err = {0};
        cJSON *json = cJSON_Parse(texts[n]);
        assert_non_null(json);
        assert_false(precision_plan_read(json, &plan, &err));
        cJSON_Delete(json);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_calibration_it_is_fp32),
        cmocka_unit_test(calibration_finds_a_plan_within_the_budget),
        cmocka_unit_test(the_configuration_takes_what_was_kept),
        cmocka_unit_test(a_result_pins_its_plan),
        cmocka_unit_test(a_damaged_file_is_named),
        cmocka_unit_test(a_plan_that_makes_no_sense_is_refused),
    };
    return cmocka_run_group_tests(tests, fixture_new, fixture_free);
}
