/* LABELS: quick tsan
 * The detector in lower precision: layers against fp32, what is refused, what saturates, and that the result depends on
 * the plan and the data alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/operators.h"
#include "infer/precision.h"
#include "infer/session.h"

#define MODEL "models/model.json"
#define SIDE 32

/* ---- a lung with balls ------------------------------------------------------------------------------------------- */

struct fixture {
    struct infer_model *model;
    struct volume *volume;
    struct mask *lungs;
    struct infer_precision plan; /* int8 wherever it can be, with ranges of this volume */
};

static void scene_make(struct fixture *fixture) {
    struct grid grid = {.size_ijk = {150, 96, 96}, .spacing_mm = {1, 1, 1}};
    uint32_t noise = 5;
    for (int axis = 0; axis < 3; axis++)
        grid.ijk_to_lps_mm[axis][axis] = 1;
    fixture->volume = volume_new(&grid, NULL);
    fixture->lungs = mask_new(&grid, NULL);
    assert_true(fixture->volume && fixture->lungs);
    for (size_t n = 0; n < grid_voxels(&grid); n++) {
        int x = (int)(n % 150) - 75, y = (int)(n / 150 % 96) - 48, z = (int)(n / 14400) - 48;
        bool lung = x * x / 2 + y * y + z * z < 46 * 46;
        bool ball = (x - 20) * (x - 20) + y * y + z * z < 30 || (x + 25) * (x + 25) + y * y + z * z < 16;
        noise = noise * 1664525 + 1013904223;
        fixture->lungs->voxel[n] = lung;
        fixture->volume->hu[n] = (int16_t)(ball ? 40 : lung ? -900 + (int)(noise >> 25) : -1024);
    }
}

static void ranges_widen(struct fixture *fixture, const struct runner *runner, const bool *possible) {
    const struct graph *graph = fixture->model->detector;
    struct err err = {0};
    for (int i = 0, layer = 0; i < graph->node_count; i++) {
        if (graph->nodes[i].operation->kind != OPERATOR_CONV)
            continue;
        int value = graph->nodes[i].inputs[0];
        int64_t count = infer_shape_count(infer_program_shape(infer_runner_program(runner), value));
        float *data = malloc((size_t)count * sizeof *data);
        assert_non_null(data);
        fixture->plan.layers[layer] = possible[layer] ? PRECISION_INT8 : PRECISION_FP32;
        if (possible[layer])
            assert_true(infer_runner_read(runner, value, data, &err));
        for (int64_t n = 0; possible[layer] && n < count; n++)
            fixture->plan.ranges[layer] = fmaxf(fixture->plan.ranges[layer], 1.25F * data[n]);
        free(data);
        layer++;
    }
}

/* Ranges by running fp32 over the tiles, as calibration does. */
static void plan_make(struct fixture *fixture) {
    const struct infer_model *model = fixture->model;
    struct shape tile = {.rank = 5, .dims = {1, 1, model->tile, model->tile, model->tile}};
    struct err err = {0};
    bool possible[INFER_LAYERS_MAX];
    struct program *program = infer_program_new(model->detector, &tile, true, &err);
    struct runner *runner = program ? infer_runner_new(program, &err) : NULL;
    if (!runner || !infer_precision_int8_possible(model->detector, possible, &err))
        fail_msg("%s", err.text);
    for (int64_t x = -model->margin; x < fixture->volume->grid.size_ijk[0]; x += model->tile - 2 * model->margin) {
        infer_frame_cut(fixture->volume, (int64_t[3]){x, -model->margin, -model->margin}, model->tile,
                        infer_runner_input(runner, 0));
        assert_true(infer_runner_run(runner, NULL, &err));
        ranges_widen(fixture, runner, possible);
    }
    fixture->plan.weight_max = PRECISION_WEIGHT_MAX_NARROW;
    infer_runner_free(runner);
    infer_program_free(program);
}

static int fixture_new(void **state) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    struct err err = {0};
    assert_non_null(fixture);
    fixture->model = infer_model_open(MODEL, &err);
    if (!fixture->model)
        fail_msg("%s", err.text);
    fixture->model->inner_max = 80; /* 8 tiles */
    scene_make(fixture);
    plan_make(fixture);
    *state = fixture;
    return 0;
}

static int fixture_free(void **state) {
    struct fixture *fixture = *state;
    volume_free(fixture->volume);
    mask_free(fixture->lungs);
    infer_model_free(fixture->model);
    free(fixture);
    return 0;
}

static bool int8_offered(void) {
    int weight_max = 0;
    return infer_backend_offers(PRECISION_INT8, &weight_max);
}

/* ---- one tile ---------------------------------------------------------------------------------------------------- */

/* The heatmap of a tile of SIDE voxels around the larger ball. */
static void heatmap(const struct fixture *fixture, const struct infer_precision *plan, float *out) {
    struct shape tile = {.rank = 5, .dims = {1, 1, SIDE, SIDE, SIDE}};
    struct err err = {0};
    struct program *program = plan ? infer_program_new_mixed(fixture->model->detector, &tile, plan, &err)
                                   : infer_program_new(fixture->model->detector, &tile, false, &err);
    struct runner *runner = program ? infer_runner_new(program, &err) : NULL;
    if (!runner)
        fail_msg("%s", err.text);
    infer_frame_cut(fixture->volume, (int64_t[3]){80, 32, 32}, SIDE, infer_runner_input(runner, 0));
    if (!infer_runner_run(runner, NULL, &err))
        fail_msg("%s", err.text);
    memcpy(out, infer_map_channel(fixture->model, runner, 0, SIDE * SIDE * SIDE / 64),
           SIDE * SIDE * SIDE / 64 * sizeof *out);
    infer_runner_free(runner);
    infer_program_free(program);
}

static double greatest_apart(const float *a, const float *b) {
    double worst = 0;
    for (int n = 0; n < SIDE * SIDE * SIDE / 64; n++)
        worst = fmax(worst, fabs(1 / (1 + exp((double)-a[n])) - 1 / (1 + exp((double)-b[n]))));
    return worst;
}

/* Every layer by itself (its neighbours are fp32, so that every conversion is there), all but one, every other one. */
static void int8_layers_agree_with_fp32_in_any_mixture(void **state) {
    struct fixture *fixture = *state;
    float full[SIDE * SIDE * SIDE / 64], low[SIDE * SIDE * SIDE / 64];
    int layers = (int)strlen(fixture->plan.layers);
    double worst = 0;
    if (!int8_offered())
        skip();
    heatmap(fixture, NULL, full);
    for (int layer = 0; layer < layers; layer++)
        for (int mixture = 0; mixture < 3; mixture++) {
            struct infer_precision plan = fixture->plan;
            for (int other = 0; other < layers; other++)
                if (mixture == 0 ? other != layer : mixture == 1 ? other == layer : (other ^ layer) & 1)
                    plan.layers[other] = PRECISION_FP32;
            heatmap(fixture, &plan, low);
            worst = fmax(worst, greatest_apart(full, low));
        }
    print_message("greatest difference of a probability: %.4f\n", worst);
    assert_true(worst > 0 && worst < 0.1);
}

/* The first layer, in fp32, is made a few slices at a time where int8 layers alone read it: the same bytes as when its
 * whole result is kept, in less than half of the memory of fp32. */
static void slabs_do_not_show(void **state) {
    const struct fixture *fixture = *state;
    const struct graph *graph = fixture->model->detector;
    const struct shape tile = {.rank = 5, .dims = {1, 1, 88, 64, 128}}; /* the last slab is thinner */
    const size_t cells = (size_t)(88 * 64 * 128 / 64);
    struct err err = {0};
    if (!int8_offered())
        skip();
    struct program *slabs = infer_program_new_mixed(graph, &tile, &fixture->plan, &err);
    struct program *whole = slabs ? infer_program_new_like(slabs, &tile, true, &fixture->plan, &err) : NULL;
    struct program *full = whole ? infer_program_new(graph, &tile, false, &err) : NULL;
    struct runner *runners[2] = {full ? infer_runner_new(slabs, &err) : NULL,
                                 full ? infer_runner_new(whole, &err) : NULL};
    if (!runners[0] || !runners[1])
        fail_msg("%s", err.text);
    assert_true(infer_program_steps(slabs) > infer_program_steps(whole));
    assert_true(2 * infer_program_figures(slabs)->memory.arena < infer_program_figures(full)->memory.arena);
    for (int n = 0; n < 2; n++) {
        infer_frame_cut_box(fixture->volume, (const int64_t[3]){10, 16, 4}, tile.dims + 2,
                            infer_runner_input(runners[n], 0));
        if (!infer_runner_run(runners[n], NULL, &err))
            fail_msg("%s", err.text);
    }
    for (int channel = 0; channel < MAP_CHANNELS; channel++)
        assert_memory_equal(infer_map_channel(fixture->model, runners[0], channel, (int64_t)cells),
                            infer_map_channel(fixture->model, runners[1], channel, (int64_t)cells),
                            cells * sizeof(float));
    assert_true(infer_runner_saturated(runners[0]) == infer_runner_saturated(runners[1]));
    for (int n = 0; n < 2; n++)
        infer_runner_free(runners[n]);
    infer_program_free(whole);
    infer_program_free(slabs);
    infer_program_free(full);
}

static void a_plan_of_fp32_is_fp32(void **state) {
    struct fixture *fixture = *state;
    float full[SIDE * SIDE * SIDE / 64], planned[SIDE * SIDE * SIDE / 64];
    struct infer_precision plan = {.layers = ""};
    memset(plan.layers, PRECISION_FP32, strlen(fixture->plan.layers));
    heatmap(fixture, NULL, full);
    heatmap(fixture, &plan, planned);
    assert_memory_equal(full, planned, sizeof full);
}

/* ---- what is refused --------------------------------------------------------------------------------------------- */

static void expect_refused(const struct fixture *fixture, const struct infer_precision *plan, enum err_kind kind,
                           const char *words) {
    struct infer_session_config config = {.threads = 1, .precision = plan};
    struct err err = {0};
    assert_null(infer_session_new(fixture->model, &config, &err));
    if (err.kind != kind || !strstr(err.text, words))
        fail_msg("\"%s\" instead of \"%s\"", err.text, words);
}

static void a_plan_that_does_not_fit_is_refused(void **state) {
    struct fixture *fixture = *state;
    struct infer_precision plan = fixture->plan;
    int weight_max = 0;
    plan.layers[3] = '\0';
    expect_refused(fixture, &plan, ERR_INPUT, "a plan of 3 layers");
    plan = fixture->plan;
    plan.layers[3] = 'x';
    expect_refused(fixture, &plan, int8_offered() ? ERR_INPUT : ERR_UNSUPPORTED,
                   int8_offered() ? "is no precision" : "");
    if (!infer_backend_offers(PRECISION_INT8, &weight_max))
        return;
    plan = fixture->plan;
    plan.layers[0] = PRECISION_INT8; /* its input is the image, of which nobody says that it is not negative */
    expect_refused(fixture, &plan, ERR_INPUT, "cannot run in int8");
    plan = fixture->plan;
    plan.ranges[3] = NAN;
    expect_refused(fixture, &plan, ERR_INPUT, "a range of");
    plan = fixture->plan;
    plan.weight_max = weight_max + 1; /* one bit more than the processor adds without saturating */
    expect_refused(fixture, &plan, ERR_UNSUPPORTED, "would saturate");
}

/* ---- a study ----------------------------------------------------------------------------------------------------- */

struct outcome {
    struct findings findings;
    struct infer_detect_figures figures;
};

/* devices: of one thread each, or one of `threads`. */
static struct outcome detect(const struct fixture *fixture, const struct infer_precision *plan, unsigned threads,
                             unsigned devices) {
    struct infer_session_config config = {.threads = threads, .precision = plan};
    struct infer_session *sessions[3] = {NULL};
    struct outcome outcome;
    struct err err = {0};
    for (unsigned n = 0; n < devices; n++) {
        sessions[n] = infer_session_new(fixture->model, &config, &err);
        if (!sessions[n] || (n && !infer_session_join(sessions[0], sessions[n], &err)))
            fail_msg("%s", err.text);
    }
    if (!infer_detect(sessions[0], fixture->volume, fixture->lungs, &outcome.findings, &err))
        fail_msg("%s", err.text);
    infer_session_detect_figures(sessions[0], &outcome.figures);
    uint32_t which[64];
    for (uint32_t n = 0; n < outcome.findings.count && n < 64; n++)
        which[n] = n;
    assert_true(outcome.findings.count > 0 && outcome.findings.count <= 64);
    /* every second one, so that both kinds are there */
    for (uint32_t n = 0; 2 * n < outcome.findings.count; n++)
        which[n] = 2 * n;
    if (!infer_recompute(sessions[0], fixture->volume, &outcome.findings, which, (outcome.findings.count + 1) / 2,
                         &err))
        fail_msg("%s", err.text);
    for (unsigned n = 0; n < devices; n++)
        infer_session_free(sessions[n]);
    return outcome;
}

static void expect_same(struct outcome *got, const struct outcome *want) {
    assert_int_equal(got->findings.count, want->findings.count);
    assert_memory_equal(got->findings.items, want->findings.items, want->findings.count * sizeof *got->findings.items);
    findings_free(&got->findings);
}

static void threads_and_devices_do_not_show_of(struct fixture *fixture, int recompute_side) {
    fixture->model->recompute_side = recompute_side;
    struct outcome one = detect(fixture, &fixture->plan, 1, 1), two = detect(fixture, &fixture->plan, 2, 1);
    struct outcome three = detect(fixture, &fixture->plan, 1, 3);
    assert_int_equal(one.figures.tiles_full, 0);
    expect_same(&two, &one);
    expect_same(&three, &one);
    findings_free(&one.findings);
}

static void threads_and_devices_do_not_show(void **state) {
    if (!int8_offered())
        skip();
    threads_and_devices_do_not_show_of(*state, 0);
    threads_and_devices_do_not_show_of(*state, 96);
}

/* The greatest difference of a logit to that of fp32, of what was computed again and of the others. */
static void differences_to_fp32(struct fixture *fixture, int recompute_side, double *out_again, double *out_others) {
    fixture->model->recompute_side = recompute_side;
    struct outcome full = detect(fixture, NULL, 1, 1), low = detect(fixture, &fixture->plan, 1, 1);
    double again = 0, others = 0;
    for (size_t n = 0; n < low.findings.count; n++) {
        const struct finding *a = &low.findings.items[n], *b = NULL;
        for (size_t k = 0; k < full.findings.count; k++)
            if (memcmp(full.findings.items[k].detector_cell_kji, a->detector_cell_kji, sizeof a->detector_cell_kji) ==
                0)
                b = &full.findings.items[k];
        assert_true(a->full_precision == (n % 2 == 0));
        if (!b)
            continue;
        if (a->full_precision && !recompute_side)
            assert_memory_equal(a->center_lps_mm, b->center_lps_mm, sizeof a->center_lps_mm);
        double *worst = a->full_precision ? &again : &others;
        *worst = fmax(*worst, fabs(a->detector_logit - b->detector_logit));
        assert_false(b->full_precision);
    }
    print_message("%zu candidates; greatest difference of a logit %.2g computed again, %.2g others\n",
                  low.findings.count, again, others);
    findings_free(&full.findings);
    findings_free(&low.findings);
    *out_again = again;
    *out_others = others;
}

/* By whole tiles a candidate is what fp32 says, bit for bit. A cube of its own has no seam near it, which moves a logit
 * as much as int8 does: it is held against one tile that holds all. */
static void what_is_computed_again_agrees_with_fp32(void **state) {
    struct fixture *fixture = *state;
    double again, others;
    if (!int8_offered())
        skip();
    differences_to_fp32(fixture, 0, &again, &others);
    assert_true(again == 0 && others > 0 && others < 0.5);
    int inner_max = fixture->model->inner_max;
    fixture->model->inner_max = 160;
    differences_to_fp32(fixture, 96, &again, &others);
    fixture->model->inner_max = inner_max;
    assert_true(again < others / 2 && others < 0.5);
}

/* int8 in the same layers as the plan that was made here by hand, with ranges that hold what was seen. */
static void everything_in_int8(void **state) {
    struct fixture *fixture = *state;
    struct infer_precision plan;
    struct err err = {0};
    if (!int8_offered())
        skip();
    if (!infer_calibrate_int8(fixture->model, fixture->volume, &plan, &err))
        fail_msg("%s", err.text);
    assert_string_equal(plan.layers, fixture->plan.layers);
    for (size_t layer = 0; plan.layers[layer]; layer++) {
        float seen = fixture->plan.ranges[layer] / 1.25F;
        assert_true(plan.ranges[layer] >= seen && plan.ranges[layer] <= 2 * seen);
    }
}

/* Ranges of a quarter: the activations stand at their end, the tiles are computed again, and what comes out is fp32. */
static void a_tile_that_saturates_is_computed_again(void **state) {
    struct fixture *fixture = *state;
    struct infer_precision plan = fixture->plan;
    if (!int8_offered())
        skip();
    for (size_t layer = 0; plan.layers[layer]; layer++)
        plan.ranges[layer] /= 4;
    struct outcome full = detect(fixture, NULL, 1, 1), low = detect(fixture, &plan, 1, 1);
    assert_true(low.figures.tiles_run > 0);
    assert_int_equal(low.figures.tiles_full, low.figures.tiles_run);
    assert_int_equal(low.findings.count, full.findings.count);
    for (size_t n = 1; n < full.findings.count; n += 2) /* those that were not computed again on their own */
        assert_memory_equal(&low.findings.items[n], &full.findings.items[n], sizeof *full.findings.items);
    findings_free(&full.findings);
    findings_free(&low.findings);
}

/* An offset leads up to 8 mm away, and so out of an image that ends in a nodule: the segmentation would refuse it, and
 * with it the study. */
static void a_mark_lies_in_the_image(void **state) {
    const struct fixture *fixture = *state;
    double place[3];
    infer_mark_place(&fixture->volume->grid, (double[3]){-6.5, 40.25, 156}, place);
    assert_true(place[0] == 149 && place[1] == 40.25 && place[2] == 0);
}

/* Two products of the greatest activation and weight: 16 bits cannot hold twice 255 * 127, but they hold 255 * 63. */
static void the_narrow_weights_cannot_saturate(void **state) {
    (void)state;
    assert_true(2 * 255 * PRECISION_WEIGHT_MAX_NARROW <= INT16_MAX);
    assert_true(2 * 255 * PRECISION_WEIGHT_MAX > INT16_MAX);
}

static void devices_of_another_precision_do_not_join(void **state) {
    struct fixture *fixture = *state;
    struct infer_session_config config = {.threads = 1};
    struct err err = {0};
    if (!int8_offered())
        skip();
    struct infer_session *full = infer_session_new(fixture->model, &config, &err);
    config.precision = &fixture->plan;
    struct infer_session *low = infer_session_new(fixture->model, &config, &err);
    if (!full || !low)
        fail_msg("%s", err.text);
    assert_null(infer_session_precision(full));
    assert_string_equal(infer_session_precision(low)->layers, fixture->plan.layers);
    assert_false(infer_session_join(full, low, &err));
    assert_int_equal(err.kind, ERR_CONFLICT);
    infer_session_free(full);
    infer_session_free(low);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plan_of_fp32_is_fp32),
        cmocka_unit_test(slabs_do_not_show),
        cmocka_unit_test(int8_layers_agree_with_fp32_in_any_mixture),
        cmocka_unit_test(a_plan_that_does_not_fit_is_refused),
        cmocka_unit_test(the_narrow_weights_cannot_saturate),
        cmocka_unit_test(threads_and_devices_do_not_show),
        cmocka_unit_test(what_is_computed_again_agrees_with_fp32),
        cmocka_unit_test(a_mark_lies_in_the_image),
        cmocka_unit_test(everything_in_int8),
        cmocka_unit_test(a_tile_that_saturates_is_computed_again),
        cmocka_unit_test(devices_of_another_precision_do_not_join),
    };
    return cmocka_run_group_tests(tests, fixture_new, fixture_free);
}
