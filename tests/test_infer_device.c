/* LABELS: quick
 * The networks lowered for a card and run by the CUDA plugin's own code on the host card (tests/infer_card_host.c),
 * against the CPU back-end: 1e-3 on probabilities. What no test here can show is that a device does the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/cuda/kernel.h"
#include "infer/cuda/plugin.h"
#include "infer/device_lower.h"
#include "infer/model.h"
#include "infer/program.h"
#include "infer_cases.h"
#include "random.h"
#include "volume/volume.h"

#define SIDE 48
#define PASSES 3
#define PROBABILITY_TOLERANCE 1e-3

static struct infer_model *model;

static int model_open(void **state) {
    (void)state;
    struct err err = {0};
    model = infer_model_open("models/model.json", &err);
    return model ? 0 : -1;
}

static int model_close(void **state) {
    (void)state;
    infer_model_free(model);
    return 0;
}

/* A smooth blob on noise, in 0 .. 1: something that the network has to say something about. */
static void image_fill(float *image, int side) {
    uint32_t noise = 7;
    for (int n = 0; n < side * side * side; n++) {
        int at[3] = {n / side / side, n / side % side, n % side};
        double square = 0;
        for (int axis = 0; axis < 3; axis++)
            square += (at[axis] - side / 2.0) * (at[axis] - side / 2.0);
        noise = noise * 1664525 + 1013904223;
        image[n] = (float)(0.1 + 0.5 * exp(-square / 18) + (double)(noise >> 8) * 0x1p-24 * 0.1);
    }
}

/* Opens the host card, makes the block ready on it, runs it once. */
static bool plan_run(const struct bytes *block, const float *const *inputs, float *const *outputs,
                     const struct cuda_keys *keys, struct err *err) {
    const struct cuda_plugin *plugin = pulmo_cuda_plugin();
    struct cuda_device *device = plugin->device_open(0, NULL, err);
    struct cuda_program *program = device ? plugin->program_new(device, block->data, block->size, err) : NULL;
    bool good = program && plugin->program_run(program, inputs, outputs, keys, err);
    struct cuda_figures figures = program ? plugin->program_figures(program) : (struct cuda_figures){0};
    if (figures.convolutions)
        print_message("%d convolutions, %d of the library, arena of %lld bytes\n", figures.convolutions, figures.fused,
                      (long long)figures.arena_bytes);
    plugin->program_free(program);
    if (device)
        plugin->device_close(device);
    return good;
}

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

static size_t port_count(const struct device_plan *plan, int output) {
    return (size_t)device_tensor_count(&device_plan_tensors(plan)[plan->outputs[output]]);
}

static void outputs_new(const struct device_plan *plan, float **outputs) {
    for (int i = 0; i < plan->output_count; i++)
        outputs[i] = calloc(port_count(plan, i), sizeof **outputs);
}

static void outputs_free(const struct device_plan *plan, float **outputs) {
    for (int i = 0; i < plan->output_count; i++)
        free(outputs[i]);
}

static double worst_difference(const float *a, const float *b, size_t count, bool probabilities) {
    double worst = 0;
    for (size_t n = 0; n < count; n++) {
        double difference = probabilities ? sigmoid((double)a[n]) - sigmoid((double)b[n]) : (double)a[n] - (double)b[n];
        worst = fmax(worst, fabs(difference));
    }
    return worst;
}

static void the_detector_agrees_with_the_cpu(void **state) {
    (void)state;
    struct err err = {0};
    struct shape tile = {.rank = 5, .dims = {1, 1, SIDE, SIDE, SIDE}};
    struct lower_request request = {
        .graph = model->detector, .inputs = &tile, .passes = 1, .model = model->info.sha256};
    PULMO_SCOPED(bytes_free) struct bytes block = {0};
    if (!infer_device_lower(&request, &block, &err))
        fail_msg("%s", err.text);
    const struct device_plan *plan = (const struct device_plan *)(const void *)block.data;
    struct program *program = infer_program_new(model->detector, &tile, false, &err);
    struct runner *runner = infer_runner_new(program, &err);
    float *outputs[DEVICE_PORTS_MAX] = {NULL};
    float *image = calloc(SIDE * SIDE * SIDE, sizeof *image);
    const float *inputs[1] = {image};
    outputs_new(plan, outputs);
    image_fill(image, SIDE);
    memcpy(infer_runner_input(runner, 0), image, SIDE * SIDE * SIDE * sizeof *image);
    assert_true(infer_runner_run(runner, NULL, &err));
    if (!plan_run(&block, inputs, outputs, NULL, &err))
        fail_msg("%s", err.text);
    for (int i = 0; i < DETECTOR_OUTPUTS; i++) {
        int port = model->detector_outputs[i];
        double worst = worst_difference(outputs[port], infer_runner_output(runner, port), port_count(plan, port),
                                        i == DETECTOR_HEATMAP);
        print_message("detector output %d: worst difference %.2g\n", i, worst);
        assert_true(worst < (i == DETECTOR_HEATMAP ? PROBABILITY_TOLERANCE : 0.05)); /* offset in mm, ln of mm */
    }
    outputs_free(plan, outputs);
    free(image);
    infer_runner_free(runner);
    infer_program_free(program);
}

/* The trunk once, the tail for every pass, as the CPU back-end computes them. */
static void cpu_candidate(const float *crop, const struct dropout_keys *keys, float *logits) {
    struct err err = {0};
    struct shape shape = {.rank = 5, .dims = {1, 1, model->side, model->side, model->side}}, inputs[GRAPH_PORTS_MAX];
    struct program *trunk = infer_program_new(model->trunk, &shape, false, &err);
    struct runner *first = infer_runner_new(trunk, &err);
    memcpy(infer_runner_input(first, 0), crop, (size_t)infer_shape_count(&shape) * sizeof *crop);
    assert_true(infer_runner_run(first, NULL, &err));
    for (int i = 0; i < model->tail->input_count; i++) {
        inputs[i] = *infer_program_shape(trunk, model->trunk->outputs[model->tail_sources[i]]);
        inputs[i].dims[0] = PASSES;
    }
    struct program *tail = infer_program_new(model->tail, inputs, false, &err);
    struct runner *second = infer_runner_new(tail, &err);
    for (int i = 0; i < model->tail->input_count; i++) {
        size_t count = (size_t)infer_shape_count(&inputs[i]) / PASSES;
        for (size_t pass = 0; pass < PASSES; pass++)
            memcpy(infer_runner_input(second, i) + pass * count, infer_runner_output(first, model->tail_sources[i]),
                   count * sizeof(float));
    }
    assert_true(infer_runner_run(second, keys, &err));
    memcpy(logits, infer_runner_output(second, model->candidate_outputs[CANDIDATE_LOGIT].index),
           PASSES * sizeof(float));
    infer_runner_free(second);
    infer_program_free(tail);
    infer_runner_free(first);
    infer_program_free(trunk);
}

/* Two candidates in one batch: trunk, repetition, passes with dropout. The masks must be those of the CPU, or the
 * logits would differ by far more than half precision explains. */
static void candidates_and_their_passes_agree_with_the_cpu(void **state) {
    (void)state;
    struct err err = {0};
    int side = model->side;
    size_t voxels = (size_t)(side * side * side);
    struct shape crops = {.rank = 5, .dims = {2, 1, side, side, side}};
    struct lower_request request = {.graph = model->trunk,
                                    .inputs = &crops,
                                    .tail = model->tail,
                                    .tail_sources = model->tail_sources,
                                    .passes = PASSES};
    PULMO_SCOPED(bytes_free) struct bytes block = {0};
    if (!infer_device_lower(&request, &block, &err))
        fail_msg("%s", err.text);
    const struct device_plan *plan = (const struct device_plan *)(const void *)block.data;
    float *outputs[DEVICE_PORTS_MAX] = {NULL}, *image = calloc(2 * voxels, sizeof *image);
    const float *inputs[1] = {image};
    outputs_new(plan, outputs);
    image_fill(image, side);
    for (size_t n = 0; n < voxels; n++)
        image[voxels + n] = image[voxels - 1 - n] * 0.7F;
    const struct cuda_keys device_keys = {.active = true, .seed = 77 + ((uint64_t)5 << 32), .candidate = 4, .rate = -1};
    if (!plan_run(&block, inputs, outputs, &device_keys, &err))
        fail_msg("%s", err.text);
    int port = model->trunk->output_count + model->candidate_outputs[CANDIDATE_LOGIT].index;
    for (uint32_t candidate = 0; candidate < 2; candidate++) {
        float logits[PASSES];
        struct dropout_keys keys = {
            .active = true, .seed = 77 + ((uint64_t)5 << 32), .candidate = 4 + candidate, .rate = -1};
        cpu_candidate(image + candidate * voxels, &keys, logits);
        double worst = worst_difference(outputs[port] + candidate * PASSES, logits, PASSES, true);
        double spread = fabs((double)logits[0] - (double)logits[1]);
        print_message("candidate %u: worst difference %.2g, passes differ by %.2g\n", candidate, worst, spread);
        assert_true(worst < PROBABILITY_TOLERANCE && spread > 10 * worst);
    }
    outputs_free(plan, outputs);
    free(image);
}

/* Lowers a kept case of tests/test_infer_parity.c. */
static void case_lower(const char *name, struct parity_case *it, struct bytes *block) {
    char path[256];
    struct err err = {0};
    struct shape shapes[GRAPH_PORTS_MAX];
    snprintf(path, sizeof path, "tests/cases/infer_parity/%s", name);
    if (!parity_case_read(path, it, &err))
        fail_msg("%s", err.text);
    for (int i = 0; i < it->graph->input_count; i++)
        shapes[i] = it->inputs[i].shape;
    struct lower_request request = {.graph = it->graph, .inputs = shapes, .passes = 1};
    if (!infer_device_lower(&request, block, &err))
        fail_msg("%s: %s", name, err.text);
}

static bool case_run(const struct parity_case *it, const struct bytes *block, float **outputs, struct err *err) {
    const float *inputs[GRAPH_PORTS_MAX];
    for (int i = 0; i < it->graph->input_count; i++)
        inputs[i] = it->inputs[i].data;
    return plan_run(block, inputs, outputs, NULL, err);
}

static int steps_of(const struct device_plan *plan, enum device_step_kind kind) {
    int count = 0;
    for (int i = 0; i < plan->step_count; i++)
        count += device_plan_steps(plan)[i].kind == (int32_t)kind;
    return count;
}

/* Whatever model is shipped: a gate and the attention that it chooses for, against PyTorch. */
static void attention_behind_a_gate_agrees_with_pytorch(void **state) {
    (void)state;
    static const char *const names[] = {"gated_attention_08", "gated_attention_31", "gated_attention_39"};
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        struct err err = {0};
        struct parity_case it;
        PULMO_SCOPED(bytes_free) struct bytes block = {0};
        float *outputs[DEVICE_PORTS_MAX] = {NULL};
        case_lower(names[n], &it, &block);
        const struct device_plan *plan = (const struct device_plan *)(const void *)block.data;
        assert_int_equal(steps_of(plan, DEVICE_MASKED_ATTENTION), 1);
        assert_int_equal(steps_of(plan, DEVICE_TOP), 1);
        assert_int_equal(steps_of(plan, DEVICE_SELECT), 1);
        outputs_new(plan, outputs);
        if (!case_run(&it, &block, outputs, &err))
            fail_msg("%s: %s", names[n], err.text);
        for (int i = 0; i < plan->output_count; i++)
            assert_true(worst_difference(outputs[i], it.outputs[i].data, port_count(plan, i), false) < 2e-6);
        it.inputs[0].data[0] = NAN;
        assert_false(case_run(&it, &block, outputs, &err));
        assert_non_null(strstr(err.text, "NaN or infinity"));
        outputs_free(plan, outputs);
        parity_case_free(&it);
    }
}

/* The same with every number of every step set to something wild: refused, or harmless to run. */
static void damaged_steps_are_refused_or_harmless(void **state) {
    (void)state;
    static const int64_t wild[] = {-1, 0, 3, 1000, (int64_t)1 << 40};
    struct err err = {0};
    struct parity_case it;
    PULMO_SCOPED(bytes_free) struct bytes block = {0};
    float *outputs[DEVICE_PORTS_MAX] = {NULL};
    int refused = 0;
    case_lower("gated_attention_08", &it, &block);
    const struct device_plan *plan = (const struct device_plan *)(const void *)block.data;
    struct device_tensor *tensors = (struct device_tensor *)(void *)(block.data + sizeof *plan);
    struct device_step *steps = (struct device_step *)(void *)(tensors + plan->tensor_count);
    outputs_new(plan, outputs);
    for (int i = 0; i < plan->step_count * DEVICE_NUMBERS_MAX; i++) {
        int64_t *number = &steps[i / DEVICE_NUMBERS_MAX].numbers[i % DEVICE_NUMBERS_MAX], before = *number;
        for (size_t n = 0; n < sizeof wild / sizeof *wild; n++) {
            *number = wild[n];
            bool good = device_plan_check(block.data, block.size, &err);
            refused += !good;
            if (good && wild[n] != before)
                (void)case_run(&it, &block, outputs, &err); /* a sanitizer looks on */
        }
        *number = before;
    }
    assert_true(refused > 100);
    assert_true(case_run(&it, &block, outputs, &err));
    outputs_free(plan, outputs);
    parity_case_free(&it);
}

/* Every number of a plan set to something wild, one at a time: refused, or harmless to run. */
static void a_damaged_plan_is_refused(void **state) {
    (void)state;
    struct err err = {0};
    struct shape tile = {.rank = 5, .dims = {1, 1, 8, 8, 8}};
    struct lower_request request = {.graph = model->detector, .inputs = &tile, .passes = 1};
    PULMO_SCOPED(bytes_free) struct bytes block = {0};
    assert_true(infer_device_lower(&request, &block, &err));
    struct device_plan *plan = (struct device_plan *)(void *)block.data;
    assert_true(device_plan_check(block.data, block.size, &err));
    assert_false(device_plan_check(block.data, block.size - 1, &err));
    assert_false(device_plan_check(block.data, 16, &err));
    struct device_tensor *tensors = (struct device_tensor *)(void *)(plan + 1);
    struct device_step *steps = (struct device_step *)(void *)(tensors + plan->tensor_count);
    int64_t *numbers[] = {&tensors[1].offset, &tensors[1].size,  &tensors[1].dims[0],   &steps[0].numbers[0],
                          &plan->arena_size,  &plan->total_size, &plan->constants_size, &plan->constants_offset};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        int64_t before = *numbers[i];
        *numbers[i] = (int64_t)1 << 40;
        assert_false(device_plan_check(block.data, block.size, &err));
        *numbers[i] = -1;
        assert_false(device_plan_check(block.data, block.size, &err));
        *numbers[i] = before;
    }
    int32_t *indices[] = {&steps[0].inputs[0], &steps[0].inputs[1], &steps[0].outputs[0], &steps[0].kind,
                          &plan->inputs[0],    &plan->outputs[2],   &plan->step_count};
    for (size_t i = 0; i < sizeof indices / sizeof *indices; i++) {
        int32_t before = *indices[i];
        *indices[i] = 99999;
        assert_false(device_plan_check(block.data, block.size, &err));
        *indices[i] = before;
    }
    assert_true(device_plan_check(block.data, block.size, &err));
}

/* Weights of 1e30 make infinity in floats, 70,000 already in halves: the layer is named. */
static void an_overflow_names_its_layer(void **state) {
    (void)state;
    struct err err = {0};
    struct shape tile = {.rank = 5, .dims = {1, 1, 8, 8, 8}};
    struct lower_request request = {.graph = model->detector, .inputs = &tile, .passes = 1};
    PULMO_SCOPED(bytes_free) struct bytes block = {0};
    assert_true(infer_device_lower(&request, &block, &err));
    const struct device_plan *plan = (const struct device_plan *)(const void *)block.data;
    float *outputs[DEVICE_PORTS_MAX] = {NULL}, image[512];
    const float *inputs[1] = {image};
    outputs_new(plan, outputs);
    for (int n = 0; n < 512; n++)
        image[n] = 1e9F;
    assert_false(plan_run(&block, inputs, outputs, NULL, &err));
    assert_int_equal(err.kind, ERR_INPUT);
    assert_non_null(strstr(err.text, device_plan_steps(plan)[0].name));
    assert_non_null(strstr(err.text, "NaN or infinity"));
    outputs_free(plan, outputs);
}

/* ---- the kernels' arithmetic ----------------------------------------------------------------------------------- */

static void every_half_comes_back(void **state) {
    (void)state;
    for (uint32_t half = 0; half < 0x10000; half++) {
        float value = half_to_float((uint16_t)half);
        bool nan = (half & 0x7C00U) == 0x7C00U && (half & 0x3FFU);
        assert_true(nan ? isnan(value) : half_from_float(value) == half);
        if (nan || (half & 0x7C00U) == 0x7C00U || half == 0x8000U)
            continue;
        /* between two halves: the nearer one, the even one in the middle */
        float next = half_to_float((uint16_t)(half + 1)), middle = (value + next) / 2;
        if (!isfinite(next) || isnan(next))
            continue;
        assert_int_equal(half_from_float(middle), half & 1 ? half + 1 : half);
        assert_int_equal(half_from_float(nextafterf(middle, value)), half);
        assert_int_equal(half_from_float(nextafterf(middle, next)), half + 1);
    }
    assert_int_equal(half_from_float(65519.99F), 0x7BFF);
    assert_int_equal(half_from_float(65520.0F), 0x7C00);
    assert_int_equal(half_from_float(-1e30F), 0xFC00);
}

static void masks_are_those_of_the_cpu(void **state) {
    (void)state;
    for (uint32_t n = 0; n < 1000; n++) {
        uint32_t key[2] = {n * 2654435761U, ~n}, counter[4] = {n, n / 7, 3 * n, n ^ 0x5A5A5A5AU}, want[4];
        random_philox(key, counter, want);
        for (int word = 0; word < 4; word++)
            assert_int_equal(element_philox(key, counter, word), want[word]);
    }
}

/* The same bits as volume_resample_iso, for a volume that lies as scanners write it: slices from the feet or the head,
 * thicker than wide. */
static void resampling_is_that_of_the_cpu(void **state) {
    (void)state;
    struct err err = {0};
    const struct cuda_plugin *plugin = pulmo_cuda_plugin();
    struct cuda_device *device = plugin->device_open(0, NULL, &err);
    for (int reversed = 0; reversed < 2; reversed++) {
        struct grid grid = {
            .size_ijk = {61, 47, 19},
            .spacing_mm = {0.703125, 0.703125, 1.9},
            .ijk_to_lps_mm = {{0.703125, 0, 0, -12}, {0, 0.703125, 0, 31}, {0, 0, reversed ? -1.9 : 1.9, -200}}};
        struct volume *source = volume_new(&grid, &err);
        for (size_t n = 0; n < grid_voxels(&grid); n++)
            source->hu[n] = (int16_t)((n * 2654435761U >> 16) % 3000 - 1024);
        struct volume *iso = volume_resample_iso(source, 1.0, &err);
        assert_non_null(iso);
        struct cuda_resample how = {.reversed = {0, 0, reversed}};
        for (int axis = 0; axis < 3; axis++) {
            how.source_size[axis] = grid.size_ijk[axis];
            how.size[axis] = iso->grid.size_ijk[axis];
            how.step[axis] = 1.0 / grid.spacing_mm[axis];
        }
        int16_t *out = calloc(grid_voxels(&iso->grid), sizeof *out);
        if (!plugin->resample(device, &how, source->hu, out, &err))
            fail_msg("%s", err.text);
        assert_memory_equal(out, iso->hu, grid_voxels(&iso->grid) * sizeof *out);
        free(out);
        volume_free(iso);
        volume_free(source);
    }
    plugin->device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_detector_agrees_with_the_cpu),
                                       cmocka_unit_test(candidates_and_their_passes_agree_with_the_cpu),
                                       cmocka_unit_test(attention_behind_a_gate_agrees_with_pytorch),
                                       cmocka_unit_test(damaged_steps_are_refused_or_harmless),
                                       cmocka_unit_test(a_damaged_plan_is_refused),
                                       cmocka_unit_test(an_overflow_names_its_layer),
                                       cmocka_unit_test(every_half_comes_back),
                                       cmocka_unit_test(masks_are_those_of_the_cpu),
                                       cmocka_unit_test(resampling_is_that_of_the_cpu)};
    return cmocka_run_group_tests(tests, model_open, model_close);
}
