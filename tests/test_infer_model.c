/* LABELS: full
 * The shipped model: whole graphs against PyTorch (train/dump_parity.py; tolerance 1e-4 on probabilities, with and
 * without given dropout masks), the whole of stage 1 against train/decode.py, and the same bits for any number of
 * threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "infer/infer.h"
#include "infer/winograd.h"
#include "infer_cases.h"

#define MODEL "models/model.json"
#define PROBABILITY_TOLERANCE 1e-4

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

/* Two scores that are equal but for their last bits may change places at the K-th rank (tokens of an empty region are
 * such). One such swap moves at most 1/K of one query of one head: 1/24/500 = 8e-5 of what a token receives. Six swaps
 * are let pass, a sixteenth of an even share of 1/125. */
#define ATTENTION_UNIT 5

/* Logits as probabilities; texture logits by softmax over the row; diameters in units of 100 mm, so that their
 * tolerance is 0.01 mm, a tenth of what is reported; other outputs as they are. */
static double output_gap(const char *name, const float *got, const struct array *want) {
    int64_t count = infer_shape_count(&want->shape);
    double worst = 0;
    for (int64_t n = 0; n < count; n++) {
        double a = (double)got[n], b = (double)want->data[n];
        if (strcmp(name, "heatmap") == 0 || strcmp(name, "logit") == 0) {
            a = sigmoid(a);
            b = sigmoid(b);
        } else if (strcmp(name, "texture") == 0) {
            int64_t row = n / 3 * 3;
            double sum_a = 0, sum_b = 0;
            for (int64_t k = row; k < row + 3; k++) {
                sum_a += exp((double)got[k] - a);
                sum_b += exp((double)want->data[k] - b);
            }
            a = 1 / sum_a;
            b = 1 / sum_b;
        } else if (strcmp(name, "log_diameter") == 0) {
            a = exp(a) / 100;
            b = exp(b) / 100;
        } else if (strcmp(name, "attention") == 0) {
            a /= ATTENTION_UNIT;
            b /= ATTENTION_UNIT;
        }
        double gap = fabs(a - b) / fmax(1, fabs(b));
        if (!(gap <= worst))
            worst = gap;
    }
    return worst;
}

static double case_gap(const char *folder) {
    struct err err = {0};
    struct parity_case it;
    if (!parity_case_read(folder, &it, &err))
        fail_msg("%s: %s", folder, err.text);
    struct program *program = infer_program_new(it.graph, &it.inputs[0].shape, false, &err);
    struct runner *runner = program ? infer_runner_new(program, &err) : NULL;
    if (!runner)
        fail_msg("%s: %s", folder, err.text);
    memcpy(infer_runner_input(runner, 0), it.inputs[0].data,
           (size_t)infer_shape_count(&it.inputs[0].shape) * sizeof(float));
    const float *masks[MASKS_MAX];
    for (int i = 0; i < it.mask_count; i++)
        masks[i] = it.masks[i].data;
    struct dropout_keys keys = {.active = it.mask_count > 0, .rate = -1, .masks = masks, .mask_count = it.mask_count};
    if (!infer_runner_run(runner, &keys, &err))
        fail_msg("%s: %s", folder, err.text);
    double worst = 0;
    for (int i = 0; i < it.graph->output_count; i++) {
        double gap =
            output_gap(it.graph->values[it.graph->outputs[i]].name, infer_runner_output(runner, i), &it.outputs[i]);
        worst = gap <= worst ? worst : gap;
    }
    infer_runner_free(runner);
    infer_program_free(program);
    parity_case_free(&it);
    return worst;
}

static void whole_graphs_agree_with_pytorch(void **state) {
    (void)state;
    char root[512], path[768];
    if (!parity_folder("models", "train/dump_parity.py", root, sizeof root)) {
        print_message("python3-torch, python3-onnx and python3-scipy are needed\n");
        skip();
    }
    DIR *folder = opendir(root);
    assert_non_null(folder);
    int cases = 0;
    double worst = 0;
    for (struct dirent *entry = readdir(folder); entry; entry = readdir(folder)) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", root, entry->d_name);
        double gap = case_gap(path);
        if (!(gap <= PROBABILITY_TOLERANCE))
            fail_msg("%s differs by %g", entry->d_name, gap);
        worst = fmax(worst, gap);
        cases++;
    }
    closedir(folder);
    assert_true(cases >= 12);
    print_message("%d runs of whole graphs, worst %.1e\n", cases, worst);
}

/* ---- a small lung --------------------------------------------------------------------------------------------- */

struct scene {
    struct volume *volume;
    struct mask *lungs;
};

static struct scene scene_new(const struct shape *shape) {
    struct grid grid = {
        .size_ijk = {(int32_t)shape->dims[2], (int32_t)shape->dims[1], (int32_t)shape->dims[0]},
        .spacing_mm = {1, 1, 1},
        .ijk_to_lps_mm = {{1, 0, 0, -77.25}, {0, 1, 0, 13.5}, {0, 0, 1, -310.125}},
    };
    struct scene scene = {volume_new(&grid, NULL), mask_new(&grid, NULL)};
    assert_true(scene.volume && scene.lungs);
    return scene;
}

static void scene_free(struct scene *scene) {
    volume_free(scene->volume);
    mask_free(scene->lungs);
}

/* Noise with balls of 5 to 9 mm radius, over several tiles. */
static const int balls[][4] = {{-25, 0, 0, 5},   {20, 5, 3, 6},   {0, -25, 12, 7},
                               {-4, 22, -20, 9}, {12, 10, 28, 5}, {0, 0, -2, 6}};
#define BALLS (sizeof balls / sizeof *balls)

static bool in_ball(int x, int y, int z) {
    for (size_t n = 0; n < BALLS; n++) {
        int dx = x - balls[n][0], dy = y - balls[n][1], dz = z - balls[n][2];
        if (dx * dx + dy * dy + dz * dz < balls[n][3] * balls[n][3])
            return true;
    }
    return false;
}

static struct scene scene_noise(void) {
    struct shape shape = {.rank = 3, .dims = {100, 110, 130}};
    struct scene scene = scene_new(&shape);
    uint32_t noise = 5;
    for (size_t n = 0; n < grid_voxels(&scene.volume->grid); n++) {
        noise = noise * 1664525 + 1013904223;
        int x = (int)(n % 130) - 65, y = (int)(n / 130 % 110) - 55, z = (int)(n / 14300) - 50;
        scene.lungs->voxel[n] = x * x + y * y + z * z < 45 * 45;
        scene.volume->hu[n] = (int16_t)(in_ball(x, y, z)        ? 40
                                        : scene.lungs->voxel[n] ? -900 + (int)(noise >> 24)
                                                                : -1024);
    }
    return scene;
}

struct run {
    struct findings findings;
    struct infer_candidate_result candidates[BALLS]; /* at the balls, so that stage 2 has work whatever stage 1 marks */
};

static struct run run_all(const struct infer_model *model, const struct scene *scene, unsigned threads) {
    struct err err = {0};
    struct infer_session_config config = {.threads = threads};
    struct infer_candidate_config passes = {.seed = 17, .pass_count = 30, .dropout = -1};
    struct infer_session *session = infer_session_new(model, &config, &err);
    struct run run = {0};
    struct finding items[BALLS] = {{0}};
    for (size_t n = 0; n < BALLS; n++) {
        double ijk[3] = {balls[n][0] + 65, balls[n][1] + 55, balls[n][2] + 50};
        grid_to_lps(&scene->volume->grid, ijk, items[n].center_lps_mm);
    }
    struct findings at = {.items = items, .count = BALLS};
    if (!session || !infer_detect(session, scene->volume, scene->lungs, &run.findings, &err) ||
        !infer_candidates(session, scene->volume, &at, &passes, run.candidates, &err))
        fail_msg("%s", err.text);
    struct infer_candidate_result alone; /* one alone is the same as one among many */
    passes.candidate = 1;
    assert_true(infer_candidate(session, scene->volume, items[1].center_lps_mm, &passes, &alone, &err));
    assert_memory_equal(&alone, &run.candidates[1], sizeof alone);
    assert_memory_not_equal(&alone, &run.candidates[2], sizeof alone);
    infer_session_free(session);
    return run;
}

static void threads_do_not_change_a_bit(void **state) {
    (void)state;
    struct err err = {0};
    struct infer_model *model = infer_model_open(MODEL, &err);
    if (!model)
        fail_msg("%s", err.text);
    struct scene scene = scene_noise();
    struct run one = run_all(model, &scene, 1);
    assert_true(one.findings.count > 1);
    for (unsigned threads = 2; threads <= 3; threads++) {
        struct run other = run_all(model, &scene, threads);
        assert_int_equal(one.findings.count, other.findings.count);
        assert_memory_equal(one.findings.items, other.findings.items, one.findings.count * sizeof *one.findings.items);
        assert_memory_equal(one.candidates, other.candidates, sizeof one.candidates);
        findings_free(&other.findings);
    }
    print_message("%zu marks\n", one.findings.count);
    findings_free(&one.findings);
    scene_free(&scene);
    infer_model_free(model);
}

/* ---- stage 1 as a whole against the reference decoder ------------------------------------------------------------ */

static struct array array_of(const char *root, const char *name) {
    char path[768];
    struct array array;
    snprintf(path, sizeof path, "%s/%s.npy", root, name);
    if (!array_read(path, &array))
        fail_msg("cannot read %s", path);
    return array;
}

/* The finding nearest a reference mark (z, y, x in voxels), and how far it lies. */
static const struct finding *nearest(const struct findings *findings, const struct grid *grid, const float *mark,
                                     double *distance) {
    const struct finding *best = NULL;
    double ijk[3] = {(double)mark[2], (double)mark[1], (double)mark[0]}, lps[3];
    grid_to_lps(grid, ijk, lps);
    for (size_t n = 0; n < findings->count; n++) {
        const double *at = findings->items[n].center_lps_mm;
        double gap = hypot(hypot(at[0] - lps[0], at[1] - lps[1]), at[2] - lps[2]);
        if (!best || gap < *distance) {
            *distance = gap;
            best = &findings->items[n];
        }
    }
    return best;
}

static void check_stage_2(struct infer_session *session, const struct volume *volume, const struct finding *finding,
                          float score) {
    struct infer_candidate_config config = {.pass_count = 0};
    struct infer_candidate_result result;
    struct err err = {0};
    if (!infer_candidate(session, volume, finding->center_lps_mm, &config, &result, &err))
        fail_msg("%s", err.text);
    assert_int_equal(result.pass_count, 1);
    assert_true(fabs(sigmoid((double)result.logits[0]) - sigmoid((double)score)) <= PROBABILITY_TOLERANCE);
}

static void marks_agree_with_the_reference_decoder(void **state) {
    (void)state;
    char root[512];
    struct err err = {0};
    if (!parity_folder("detect", "tests/infer_detect_dump.py", root, sizeof root)) {
        print_message("python3-torch, python3-onnx and python3-scipy are needed\n");
        skip();
    }
    struct array hu = array_of(root, "hu"), lungs = array_of(root, "lungs"), marks = array_of(root, "marks");
    struct array scores = array_of(root, "scores");
    struct scene scene = scene_new(&hu.shape);
    for (size_t n = 0; n < grid_voxels(&scene.volume->grid); n++) {
        scene.volume->hu[n] = (int16_t)lrintf(hu.data[n]);
        scene.lungs->voxel[n] = lungs.data[n] > 0;
    }
    struct infer_model *model = infer_model_open(MODEL, &err);
    struct infer_session_config config = {.threads = 2};
    struct infer_session *session = model ? infer_session_new(model, &config, &err) : NULL;
    struct findings findings;
    if (!session || !infer_detect(session, scene.volume, scene.lungs, &findings, &err))
        fail_msg("%s", err.text);
    print_message("%zu marks, the reference has %lld\n", findings.count, (long long)marks.shape.dims[0]);
    assert_int_equal(findings.count, marks.shape.dims[0]);
    assert_true(findings.count > 0);
    for (int64_t n = 0; n < marks.shape.dims[0]; n++) {
        const float *mark = marks.data + 5 * n;
        double distance = 0;
        const struct finding *finding = nearest(&findings, &scene.volume->grid, mark, &distance);
        assert_true(distance < 1e-2);
        assert_true(fabs(finding->detector_logit - (double)mark[4]) < 1e-3);
        assert_true(fabs(finding->diameter_mm / (double)mark[3] - 1) < 1e-3);
        if (n < scores.shape.dims[0])
            check_stage_2(session, scene.volume, finding, scores.data[n]);
    }
    findings_free(&findings);
    infer_session_free(session);
    infer_model_free(model);
    scene_free(&scene);
    free(hu.data);
    free(lungs.data);
    free(marks.data);
    free(scores.data);
}

/* ---- plan, refusals ------------------------------------------------------------------------------------------------
 */

static void plan_overlays_lifetimes_and_keeps_layouts(void **state) {
    (void)state;
    struct err err = {0};
    struct infer_model *model = infer_model_open(MODEL, &err);
    struct infer_session *session = infer_session_new(model, NULL, &err);
    assert_non_null(session);
    struct infer_plan_figures plan;
    assert_true(infer_session_plan(session, 0, &plan));
    assert_true(plan.arena_bytes >= plan.least_bytes);
    assert_true((double)plan.arena_bytes <= 1.1 * (double)plan.least_bytes);
    assert_true(2 * plan.arena_bytes < plan.separate_bytes);
    assert_int_equal(plan.kernels, 0); /* nothing of stage 1 runs on plain tensors */
    assert_int_equal(plan.winograds, infer_winograd_lanes(infer_backend_instruction_set()) ? 13 : 0);
    /* nothing is copied to be joined */
    assert_int_equal(plan.parts_in_place, infer_winograd_lanes(infer_backend_instruction_set()) ? 2 : 0);
    assert_true(plan.reorders <= 4);                     /* the input and three outputs: the edges */
    assert_true(plan.sums_in_place >= 5);                /* residuals are summed by the convolution */
    assert_false(infer_session_plan(session, 2, &plan)); /* no pass has run */
    assert_false(infer_session_plan(session, 3, &plan));
    assert_false(infer_session_plan(session, INFER_STAGES, &plan));
    assert_true(infer_session_prepare(session, 1, &err) && infer_session_prepare(session, 30, &err));
    for (int stage = 0; stage < INFER_STAGES; stage++) {
        assert_true(infer_session_plan(session, stage, &plan));
        assert_true((double)plan.arena_bytes <= 1.1 * (double)plan.least_bytes);
    }
    infer_session_free(session);
    infer_model_free(model);
}

/* The yardstick's numerator: what the detector's convolutions do, each counted once. */
static void steps_of_the_detector_are_told(void **state) {
    (void)state;
    struct err err = {0};
    struct infer_model *model = infer_model_open(MODEL, &err);
    struct infer_session *session = infer_session_new(model, &(struct infer_session_config){.threads = 1}, &err);
    assert_non_null(session);
    struct infer_plan_figures plan;
    struct infer_step_figures step;
    assert_true(infer_session_plan(session, 0, &plan));
    uint64_t step_ns[256] = {0}, total_ns = 0;
    int convolutions = 0, steps = infer_detector_steps(session);
    double operations = 0;
    assert_in_range(steps, 1, 256);
    assert_true(infer_detector_run(session, 0, step_ns, &err));
    for (int n = 0; n < steps; n++) {
        infer_detector_step(session, n, &step);
        convolutions += step.operations > 0;
        operations += step.operations;
        total_ns += step_ns[n];
    }
    assert_int_equal(convolutions, plan.convolutions);
    assert_true(fabs(operations / 26.979860480e9 - 1) < 1e-9); /* of the file's shapes, counted in Python */
    assert_true(total_ns > 0);
    double peak = 0;
    assert_true(infer_backend_peak(&peak, &err) && peak > 0);
    infer_session_free(session);
    infer_model_free(model);
}

static void wrong_volumes_are_refused(void **state) {
    (void)state;
    struct err err = {0};
    struct infer_model *model = infer_model_open(MODEL, &err);
    struct infer_session *session = infer_session_new(model, NULL, &err);
    assert_non_null(session);
    struct shape small = {.rank = 3, .dims = {20, 20, 20}}, other = {.rank = 3, .dims = {20, 20, 21}};
    struct scene a = scene_new(&small), b = scene_new(&other);
    struct findings findings = {.count = 77};
    assert_false(infer_detect(session, a.volume, b.lungs, &findings, &err));
    assert_int_equal(err.kind, ERR_INPUT);
    a.volume->grid.spacing_mm[2] = 1.25;
    assert_false(infer_detect(session, a.volume, a.lungs, &findings, &err));
    assert_int_equal(err.kind, ERR_INPUT);
    assert_int_equal(findings.count, 77);
    a.volume->grid.spacing_mm[2] = 1;
    for (size_t n = 0; n < grid_voxels(&a.volume->grid); n++)
        a.volume->hu[n] = -1024;
    assert_true(infer_detect(session, a.volume, a.lungs, &findings, &err)); /* no lungs: no marks, no failure */
    assert_int_equal(findings.count, 0);
    findings_free(&findings);
    scene_free(&a);
    scene_free(&b);
    infer_session_free(session);
    infer_model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_graphs_agree_with_pytorch),
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(marks_agree_with_the_reference_decoder),
        cmocka_unit_test(plan_overlays_lifetimes_and_keeps_layouts),
        cmocka_unit_test(steps_of_the_detector_are_told),
        cmocka_unit_test(wrong_volumes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
