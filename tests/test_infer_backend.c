/* LABELS: quick
 * The choice of the back-end: a session with the plugin on the host card (tests/infer_card_host.c), which is opened as
 * the CUDA plugin is, against the processor; and everything that a plugin can lack or lose. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/model.h"
#include "infer/precision.h"
#include "infer/program.h"
#include "volume/volume.h"

#define PASSES 3
#define TOLERANCE 1e-3 /* of probabilities */

static char folder[] = "/tmp/pulmo-backend-XXXXXX";
static char model_path[256], plugin_path[512], text_path[256];
static struct infer_model *model;
static struct volume *volume;
static struct mask *lungs;

/* ---- a model with small tiles, a chest with balls -------------------------------------------------------------- */

static void set_number(cJSON *part, const char *name, double value) {
    cJSON_SetNumberValue(cJSON_GetObjectItemCaseSensitive(part, name), value);
}

/* models/model.json with cubes of 32, so that the host card is not at it for minutes. */
static bool model_write(struct err *err) {
    static const char *const names[] = {"detector.onnx", "candidate.onnx", "gate.onnx"};
    char here[256], from[512], to[512];
    struct bytes text = {0};
    if (!getcwd(here, sizeof here) || !bytes_read_file("models/model.json", 1 << 20, &text, err))
        return false;
    cJSON *root = cJSON_ParseWithLength((const char *)text.data, text.size);
    cJSON *part = cJSON_GetObjectItemCaseSensitive(root, "detector");
    set_number(part, "tile", 32);
    set_number(part, "margin", 4);
    cJSON_DeleteItemFromObjectCaseSensitive(part, "inner_max"); /* a card has cubes, and so must its peer */
    char *made = cJSON_Print(root);
    snprintf(model_path, sizeof model_path, "%s/model.json", folder);
    bool good = made && bytes_write_file(model_path, made, strlen(made), false, err);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(from, sizeof from, "%s/models/%s", here, names[i]);
        snprintf(to, sizeof to, "%s/%s", folder, names[i]);
        good = good && symlink(from, to) == 0;
    }
    free(made);
    cJSON_Delete(root);
    bytes_free(&text);
    return good;
}

static const int balls[][4] = {{15, 18, 14, 5}, {43, 26, 20, 4}, {28, 14, 28, 5}};
#define BALLS (sizeof balls / sizeof *balls)

static bool in_ball(int x, int y, int z) {
    for (size_t n = 0; n < BALLS; n++) {
        int dx = x - balls[n][0], dy = y - balls[n][1], dz = z - balls[n][2];
        if (dx * dx + dy * dy + dz * dz < balls[n][3] * balls[n][3])
            return true;
    }
    return false;
}

static bool scene_make(struct err *err) {
    struct grid grid = {.size_ijk = {58, 44, 41},
                        .spacing_mm = {1, 1, 1},
                        .ijk_to_lps_mm = {{1, 0, 0, -33.5}, {0, 1, 0, 8}, {0, 0, 1, -310.25}}};
    volume = volume_new(&grid, err);
    lungs = mask_new(&grid, err);
    uint32_t noise = 5;
    for (size_t n = 0; volume && lungs && n < grid_voxels(&grid); n++) {
        int x = (int)(n % 58), y = (int)(n / 58 % 44), z = (int)(n / 58 / 44);
        noise = noise * 1664525 + 1013904223;
        lungs->voxel[n] = x > 4 && x < 53 && y > 4 && y < 39 && z > 3 && z < 37;
        volume->hu[n] = (int16_t)(in_ball(x, y, z) ? 40 : lungs->voxel[n] ? -900 + (int)(noise >> 25) : -1024);
    }
    return volume && lungs;
}

static int setup(void **state) {
    (void)state;
    struct err err = {0};
    const char *build = getenv("PULMO_BUILD");
    snprintf(plugin_path, sizeof plugin_path, "%s/tests/libhost_plugin.so", build ? build : "build");
    bool good = mkdtemp(folder) && model_write(&err) && scene_make(&err);
    snprintf(text_path, sizeof text_path, "%s/text.so", folder);
    good = good && bytes_write_file(text_path, "no library\n", 11, false, &err);
    model = good ? infer_model_open(model_path, &err) : NULL;
    if (!model)
        print_error("%s\n", err.text);
    return model ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    static const char *const names[] = {"model.json", "text.so", "detector.onnx", "candidate.onnx", "gate.onnx"};
    char path[512];
    infer_model_free(model);
    volume_free(volume);
    mask_free(lungs);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
    return 0;
}

/* ---- runs ------------------------------------------------------------------------------------------------------ */

static struct infer_session *session_open_mixed(enum infer_backend backend, const char *plugin,
                                                const struct infer_precision *precision) {
    struct err err = {0};
    const struct infer_session_config config = {
        .threads = 2, .backend = backend, .plugin = plugin, .precision = precision};
    struct infer_session *session = infer_session_new(model, &config, &err);
    if (!session)
        fail_msg("%s", err.text);
    return session;
}

static struct infer_session *session_open(enum infer_backend backend, const char *plugin) {
    return session_open_mixed(backend, plugin, NULL);
}

struct run {
    struct findings findings;
    struct infer_candidate_result candidates[BALLS]; /* at the balls */
};

static bool candidates_run(struct infer_session *session, struct run *run, struct err *err) {
    struct infer_candidate_config passes = {.seed = 17, .candidate = 5, .pass_count = PASSES, .dropout = -1};
    struct finding items[BALLS] = {{0}};
    for (size_t n = 0; n < BALLS; n++) {
        double ijk[3] = {balls[n][0], balls[n][1], balls[n][2]};
        grid_to_lps(&volume->grid, ijk, items[n].center_lps_mm);
    }
    struct findings at = {.items = items, .count = BALLS};
    return infer_candidates(session, volume, &at, &passes, run->candidates, err);
}

static bool run_all(struct infer_session *session, struct run *run, struct err *err) {
    *run = (struct run){0};
    return infer_detect(session, volume, lungs, &run->findings, err) && candidates_run(session, run, err);
}

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

static const struct finding *same_place(const struct findings *findings, const struct finding *wanted) {
    for (size_t n = 0; n < findings->count; n++) {
        double square = 0;
        for (int axis = 0; axis < 3; axis++)
            square += pow(findings->items[n].center_lps_mm[axis] - wanted->center_lps_mm[axis], 2);
        if (square < 0.05 * 0.05)
            return &findings->items[n];
    }
    return NULL;
}

static void same_findings(const struct run *card, const struct run *processor) {
    double worst = 0;
    assert_int_equal(card->findings.count, processor->findings.count);
    assert_true(card->findings.count >= 2);
    for (size_t n = 0; n < card->findings.count; n++) {
        const struct finding *one = &card->findings.items[n], *other = same_place(&processor->findings, one);
        assert_non_null(other);
        worst = fmax(worst, fabs(sigmoid(one->detector_logit) - sigmoid(other->detector_logit)));
        assert_true(fabs(one->diameter_mm / other->diameter_mm - 1) < 0.01);
    }
    for (size_t n = 0; n < BALLS; n++) {
        const struct infer_candidate_result *one = &card->candidates[n], *other = &processor->candidates[n];
        assert_int_equal(one->pass_count, other->pass_count);
        for (int pass = 0; pass < PASSES; pass++)
            worst = fmax(worst, fabs(sigmoid((double)one->logits[pass]) - sigmoid((double)other->logits[pass])));
        for (int i = 0; i < 3; i++)
            worst = fmax(worst, fabs((double)one->texture_probabilities[i] - (double)other->texture_probabilities[i]));
        assert_true(fabs((double)one->diameter_mm / (double)other->diameter_mm - 1) < 0.01);
        for (int i = 0; i < INFER_ATTENTION_SIDE * INFER_ATTENTION_SIDE * INFER_ATTENTION_SIDE; i++)
            assert_true(fabs((double)(&one->attention[0][0][0])[i] - (double)(&other->attention[0][0][0])[i]) < 1e-3);
    }
    print_message("%zu findings, %zu candidates of %d passes: worst difference of a probability %.2g\n",
                  card->findings.count, BALLS, PASSES, worst);
    assert_true(worst < TOLERANCE);
}

static void same_bytes(const struct run *one, const struct run *other) {
    assert_int_equal(one->findings.count, other->findings.count);
    assert_memory_equal(one->findings.items, other->findings.items, one->findings.count * sizeof *one->findings.items);
    assert_memory_equal(one->candidates, other->candidates, sizeof one->candidates);
}

/* ---- tests ----------------------------------------------------------------------------------------------------- */

static void a_card_finds_what_the_processor_finds(void **state) {
    (void)state;
    struct err err = {0};
    struct run card, processor;
    struct infer_detect_figures figures;
    struct infer_session *one = session_open(INFER_BACKEND_AUTO, plugin_path);
    assert_string_equal(infer_backend_name(one), "cuda");
    assert_string_equal(infer_backend_reason(one), "");
    assert_false(infer_backend_stands_in(one));
    assert_string_equal(infer_session_library(one), "reference 1.0");
    assert_string_equal(infer_session_instruction_set(one), "host");
    assert_string_equal(infer_session_precision_name(one), "fp16");
    if (!run_all(one, &card, &err))
        fail_msg("%s", err.text);
    infer_session_detect_figures(one, &figures);
    struct infer_session *other = session_open(INFER_BACKEND_CPU, plugin_path);
    assert_string_equal(infer_backend_name(other), "cpu");
    assert_string_equal(infer_backend_reason(other), "");
    if (!run_all(other, &processor, &err))
        fail_msg("%s", err.text);
    same_findings(&card, &processor);
    struct infer_detect_figures expected;
    infer_session_detect_figures(other, &expected);
    assert_int_equal(figures.tiles, expected.tiles);
    assert_int_equal(figures.tiles_run, expected.tiles_run);
    findings_free(&card.findings);
    findings_free(&processor.findings);
    infer_session_free(one);
    infer_session_free(other);
}

/* What is missing is said in one sentence, and the processor works. */
static void what_is_missing_is_said_and_the_processor_takes_over(void **state) {
    (void)state;
    const struct {
        enum infer_backend backend;
        const char *plugin, *none, *reason;
        bool stands_in;
    } cases[] = {{INFER_BACKEND_AUTO, NULL, NULL, "no CUDA plugin was named", false},
                 {INFER_BACKEND_AUTO, "/nonexistent.so", NULL, "the CUDA plugin is not installed", false},
                 {INFER_BACKEND_CUDA, "/nonexistent.so", NULL, "the CUDA plugin is not installed", true},
                 {INFER_BACKEND_AUTO, text_path, NULL, "the CUDA plugin cannot be loaded: ", true},
                 {INFER_BACKEND_AUTO, plugin_path, "1", "no card is plugged in", true},
                 {INFER_BACKEND_CPU, text_path, NULL, "", false}};
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++) {
        if (cases[n].none)
            setenv("PULMO_HOST_CARD_NONE", cases[n].none, 1);
        struct infer_session *session = session_open(cases[n].backend, cases[n].plugin);
        unsetenv("PULMO_HOST_CARD_NONE");
        assert_string_equal(infer_backend_name(session), "cpu");
        assert_string_equal(infer_session_library(session), infer_backend_library());
        assert_int_equal(strncmp(infer_backend_reason(session), cases[n].reason, strlen(cases[n].reason)), 0);
        assert_null(strchr(infer_backend_reason(session), '\n'));
        assert_int_equal(*cases[n].reason == '\0', *infer_backend_reason(session) == '\0');
        assert_int_equal(infer_backend_stands_in(session), cases[n].stands_in);
        infer_session_free(session);
    }
}

/* One back-end does all of a study, whenever the card fails. */
static void a_card_that_fails_leaves_the_study_to_the_processor(void **state) {
    (void)state;
    struct err err = {0};
    struct run processor, before, between = {0}, after;
    struct infer_session *other = session_open(INFER_BACKEND_CPU, NULL);
    assert_true(run_all(other, &processor, &err));
    infer_session_free(other);

    struct infer_session *session = session_open(INFER_BACKEND_AUTO, plugin_path);
    setenv("PULMO_HOST_CARD_LOST", "1", 1);
    bool good = run_all(session, &before, &err);
    unsetenv("PULMO_HOST_CARD_LOST");
    if (!good)
        fail_msg("%s", err.text);
    assert_string_equal(infer_backend_name(session), "cpu");
    assert_string_equal(infer_backend_reason(session), "the card has fallen off the bus");
    assert_true(infer_backend_stands_in(session));
    same_bytes(&before, &processor);
    infer_session_free(session);

    session = session_open(INFER_BACKEND_AUTO, plugin_path);
    assert_true(infer_detect(session, volume, lungs, &between.findings, &err));
    setenv("PULMO_HOST_CARD_LOST", "1", 1);
    good = candidates_run(session, &between, &err);
    unsetenv("PULMO_HOST_CARD_LOST");
    assert_false(good);
    assert_int_equal(err.kind, ERR_INTERNAL);
    assert_string_equal(err.text, "the card failed: the card has fallen off the bus");
    assert_string_equal(infer_backend_name(session), "cpu");
    if (!run_all(session, &after, &err))
        fail_msg("%s", err.text);
    same_bytes(&after, &processor);
    infer_session_free(session);
    findings_free(&processor.findings);
    findings_free(&before.findings);
    findings_free(&between.findings);
    findings_free(&after.findings);
}

/* int8 in the last layer that takes it. False where this processor has none. */
static bool mixed_plan(struct infer_precision *out) {
    struct err err = {0};
    bool possible[INFER_LAYERS_MAX];
    int weight_max = 0, layers = infer_precision_count(model->detector), last = -1;
    if (!infer_precision_int8_possible(model->detector, possible, &err))
        fail_msg("%s", err.text);
    *out = (struct infer_precision){.weight_max = PRECISION_WEIGHT_MAX_NARROW};
    for (int n = 0; n < layers; n++) {
        out->layers[n] = PRECISION_FP32;
        last = possible[n] ? n : last;
    }
    assert_true(last >= 0);
    out->layers[last] = PRECISION_INT8;
    out->ranges[last] = 16;
    return infer_backend_offers(PRECISION_INT8, &weight_max);
}

/* Mixed precision is of the processor: a card computes in its own, and what it leaves is computed in the mixed one. */
static void a_card_has_its_own_precision_and_leaves_the_mixed_one(void **state) {
    (void)state;
    struct err err = {0};
    struct run processor, after;
    struct infer_precision plan;
    if (!mixed_plan(&plan))
        skip();
    struct infer_session *other = session_open_mixed(INFER_BACKEND_CPU, NULL, &plan);
    assert_string_equal(infer_session_precision_name(other), "mixed");
    if (!run_all(other, &processor, &err))
        fail_msg("%s", err.text);
    infer_session_free(other);

    struct infer_session *session = session_open_mixed(INFER_BACKEND_AUTO, plugin_path, &plan);
    assert_string_equal(infer_session_precision_name(session), "fp16");
    assert_null(infer_session_precision(session));
    struct findings untouched = {.items = processor.findings.items, .count = processor.findings.count};
    assert_true(infer_recompute(session, volume, &untouched, (const uint32_t[]){0}, 1, &err));
    assert_false(untouched.items[0].full_precision);
    setenv("PULMO_HOST_CARD_LOST", "1", 1);
    bool good = run_all(session, &after, &err);
    unsetenv("PULMO_HOST_CARD_LOST");
    if (!good)
        fail_msg("%s", err.text);
    assert_string_equal(infer_session_precision_name(session), "mixed");
    assert_string_equal(infer_session_precision(session)->layers, plan.layers);
    same_bytes(&after, &processor);
    findings_free(&processor.findings);
    findings_free(&after.findings);
    infer_session_free(session);

    const struct infer_session_config damaged = {.plugin = plugin_path, .precision = &plan};
    plan.layers[1] = '\0'; /* refused at once, though the processor is not to run yet */
    assert_null(infer_session_new(model, &damaged, &err));
    assert_int_equal(err.kind, ERR_INPUT);
}

/* The plugin of this build, where there is one: on a machine without card it says why, with one it opens. */
static void the_cuda_plugin_opens_or_says_why(void **state) {
    (void)state;
    char path[512];
    const char *build = getenv("PULMO_BUILD");
    snprintf(path, sizeof path, "%s/pulmo_cuda.so", build ? build : "build");
    if (access(path, R_OK) != 0) {
        print_message("this build has no CUDA plugin\n");
        skip();
    }
    struct infer_session *session = session_open(INFER_BACKEND_CUDA, path);
    bool card = strcmp(infer_backend_name(session), "cuda") == 0;
    print_message("%s: %s\n", card ? infer_backend_detail(session) : "no card", infer_backend_reason(session));
    assert_int_equal(card, *infer_backend_reason(session) == '\0');
    struct err err = {0};
    struct run run;
    if (!run_all(session, &run, &err))
        fail_msg("%s", err.text);
    assert_true(run.findings.count >= 2);
    findings_free(&run.findings);
    infer_session_free(session);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_card_finds_what_the_processor_finds),
                                       cmocka_unit_test(what_is_missing_is_said_and_the_processor_takes_over),
                                       cmocka_unit_test(a_card_that_fails_leaves_the_study_to_the_processor),
                                       cmocka_unit_test(a_card_has_its_own_precision_and_leaves_the_mixed_one),
                                       cmocka_unit_test(the_cuda_plugin_opens_or_says_why)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
