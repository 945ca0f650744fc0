/* The convolution of 3 x 3 x 3 by minimal filtering against a sum in double: every small shape with every fusion,
 * gradients, numbers that are none. The kernel runs for each width of vectors that the processor has, and for 16 lanes
 * as the compiler makes them of what every processor has: all give the same bytes. Tolerance: 3e-6 of the greatest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/session.h"
#include "infer/winograd.h"

#define TOLERANCE 3e-6
#define ALIGNMENT 64

/* winograd/kernel.c once more, without any instruction set (tests/CMakeLists.txt). */
bool infer_winograd_run_wide(const struct winograd *plan, const struct winograd_call *call);

static bool always(void) {
    return true;
}

static bool has_avx2(void) {
    return infer_winograd_lanes("avx2") == 8;
}

static bool has_avx512(void) {
    return infer_winograd_lanes("avx512_core") == 16;
}

static const struct path {
    const char *name;
    int lanes;
    bool (*run)(const struct winograd *plan, const struct winograd_call *call);
    bool (*here)(void);
} paths[] = {{"16 lanes of any processor", 16, infer_winograd_run_wide, always},
             {"AVX2", 8, infer_winograd_run_8, has_avx2},
             {"AVX-512", 16, infer_winograd_run_16, has_avx512}};
#define PATHS (sizeof paths / sizeof *paths)

static uint32_t random_state = 7;

static float next_random(void) { /* -1 .. 1 */
    random_state = random_state * 1664525 + 1013904223;
    return (float)(random_state >> 8) / (float)(1 << 23) - 1;
}

static float *floats_new(int64_t count) {
    size_t size = ((size_t)count * sizeof(float) / ALIGNMENT + 1) * ALIGNMENT;
    float *data = aligned_alloc(ALIGNMENT, size);
    assert_non_null(data);
    memset(data, 0, size);
    return data;
}

static float *floats_random(int64_t count) {
    float *data = floats_new(count);
    for (int64_t n = 0; n < count; n++)
        data[n] = next_random();
    return data;
}

/* A convolution in plain layout: in [batch][in][d][h][w], out and residual likewise; NULL = none. */
struct task {
    struct winograd_shape shape;
    float *in, *weights, *bias, *residual;
    bool relu, backward, in_place;
};

static int64_t cells_of(const struct winograd_shape *shape) {
    return shape->depth * shape->height * shape->width;
}

static int64_t outputs_of(const struct task *task) {
    return task->shape.batch * task->shape.out * cells_of(&task->shape);
}

static void task_make(struct task *task) {
    const struct winograd_shape *shape = &task->shape;
    task->in = floats_random(shape->batch * shape->in * cells_of(shape));
    task->weights = floats_random(shape->in * shape->out * 27);
    for (int64_t n = 0; n < shape->in * shape->out * 27; n++)
        task->weights[n] *= 0.1F;
}

static void task_free(struct task *task) {
    free(task->in);
    free(task->weights);
    free(task->bias);
    free(task->residual);
}

/* [batch][channels][cells] to [batch][channels / lanes][cells][lanes], or back. */
static void block(const float *from, const struct winograd_shape *shape, int64_t channels, int lanes, bool back,
                  float *to) {
    int64_t cells = cells_of(shape);
    for (int64_t n = 0; n < shape->batch * channels * cells; n++) {
        int64_t image = n / (channels * cells), channel = n / cells % channels, cell = n % cells;
        int64_t at = ((image * (channels / lanes) + channel / lanes) * cells + cell) * lanes + channel % lanes;
        to[back ? n : at] = from[back ? at : n];
    }
}

/* Returns what the kernel said; out in plain layout. */
static bool path_run(const struct path *path, const struct task *task, float *out) {
    const struct winograd_shape *shape = &task->shape;
    struct winograd plan;
    assert_true(infer_winograd_plan(shape, path->lanes, &plan));
    float *packed = floats_new((int64_t)(plan.weight_bytes / sizeof(float)));
    float *in = floats_new(shape->batch * shape->in * cells_of(shape));
    float *result = floats_new(outputs_of(task)), *residual = floats_new(outputs_of(task));
    float *scratch = floats_random((int64_t)(plan.scratch_bytes / sizeof(float))); /* nothing of it is to be seen */
    block(task->in, shape, shape->in, path->lanes, false, in);
    if (task->residual)
        block(task->residual, shape, shape->out, path->lanes, false, task->in_place ? result : residual);
    infer_winograd_pack(&plan, task->weights, task->bias, task->backward, packed);
    struct winograd_call call = {.in = in, .weights = packed, .out = result, .scratch = scratch, .relu = task->relu};
    if (task->residual)
        call.residual = task->in_place ? result : residual;
    bool finite = path->run(&plan, &call);
    block(result, shape, shape->out, path->lanes, true, out);
    free(packed);
    free(in);
    free(result);
    free(residual);
    free(scratch);
    return finite;
}

/* One output by definition; `single` in the order and precision of a plain loop of floats. */
static double sum_at(const struct task *task, int64_t image, int64_t channel, const int64_t at[3], bool single) {
    const struct winograd_shape *shape = &task->shape;
    int64_t sides[3] = {shape->depth, shape->height, shape->width}, cells = cells_of(shape);
    double sum = 0;
    for (int64_t in = 0; in < shape->in; in++)
        for (int tap = 0; tap < 27; tap++) {
            int64_t z = at[0] + tap / 9 - 1, y = at[1] + tap / 3 % 3 - 1, x = at[2] + tap % 3 - 1;
            if (z < 0 || y < 0 || x < 0 || z >= sides[0] || y >= sides[1] || x >= sides[2])
                continue;
            int64_t cell = (z * sides[1] + y) * sides[2] + x;
            const float *filter =
                task->weights + 27 * (task->backward ? in * shape->out + channel : channel * shape->in + in);
            float weight = filter[task->backward ? 26 - tap : tap];
            double product = (double)weight * (double)task->in[(image * shape->in + in) * cells + cell];
            sum = single ? (double)(float)(sum + product) : sum + product;
        }
    return sum;
}

static void reference(const struct task *task, bool single, double *out) {
    const struct winograd_shape *shape = &task->shape;
    int64_t cells = cells_of(shape);
    for (int64_t n = 0; n < outputs_of(task); n++) {
        int64_t cell = n % cells, channel = n / cells % shape->out;
        int64_t at[3] = {cell / (shape->height * shape->width), cell / shape->width % shape->height,
                         cell % shape->width};
        out[n] = sum_at(task, n / cells / shape->out, channel, at, single);
        out[n] += (task->bias ? (double)task->bias[channel] : 0) + (task->residual ? (double)task->residual[n] : 0);
        if (task->relu && out[n] < 0)
            out[n] = 0;
    }
}

/* Greatest difference over the greatest output or 1. */
static double error_of(const double *want, const float *got, int64_t count) {
    double worst = 0, magnitude = 1;
    for (int64_t n = 0; n < count; n++) {
        worst = fabs((double)got[n] - want[n]) <= worst ? worst : fabs((double)got[n] - want[n]); /* NaN counts */
        magnitude = fmax(magnitude, fabs(want[n]));
    }
    return worst / magnitude;
}

/* On every path: the first against the reference, all others against the first, bit for bit. */
static double check(const struct task *task) {
    int64_t count = outputs_of(task);
    double *want = malloc((size_t)count * sizeof *want), worst = 0;
    float *first = floats_new(count), *other = floats_new(count);
    assert_non_null(want);
    reference(task, false, want);
    assert_true(path_run(&paths[0], task, first));
    worst = error_of(want, first, count);
    if (!(worst <= TOLERANCE))
        fail_msg("%lld x %lld x %lld, %lld to %lld channels: differs by %g", (long long)task->shape.depth,
                 (long long)task->shape.height, (long long)task->shape.width, (long long)task->shape.in,
                 (long long)task->shape.out, worst);
    for (size_t path = 1; path < PATHS; path++)
        if (paths[path].here()) {
            assert_true(path_run(&paths[path], task, other));
            assert_memory_equal(first, other, (size_t)count * sizeof *first);
        }
    free(want);
    free(first);
    free(other);
    return worst;
}

/* ---- tests ------------------------------------------------------------------------------------------------------ */

/* Sides of 1 to 6: less than a tile, one and a half, with and without a last slice of its own. */
static void every_small_shape_agrees_with_a_sum(void **state) {
    (void)state;
    static const int64_t channels[][2] = {{16, 16}, {32, 16}, {16, 48}, {48, 32}, {16, 80}};
    double worst = 0;
    for (int n = 0; n < 216; n++) {
        const int64_t *pair = channels[n % 5];
        struct task task = {.shape = {1 + n % 2, 1 + n / 36, 1 + n / 6 % 6, 1 + n % 6, pair[0], pair[1]},
                            .relu = n / 2 % 2 == 1,
                            .in_place = n % 4 == 1};
        task_make(&task);
        task.bias = n % 7 ? floats_random(task.shape.out) : NULL;
        task.residual = n % 3 ? floats_random(outputs_of(&task)) : NULL;
        worst = fmax(worst, check(&task));
        task_free(&task);
    }
    for (size_t path = 0; path < PATHS; path++)
        print_message("%s: %s\n", paths[path].name, paths[path].here() ? "ran" : "not on this processor");
    print_message("worst error %.1e of the greatest output\n", worst);
}

/* More tiles than are computed together, beyond one panel of channels. */
static void larger_volumes_agree_with_a_sum(void **state) {
    (void)state;
    static const struct winograd_shape shapes[] = {{1, 5, 18, 21, 32, 64}, {2, 2, 8, 70, 16, 32}, {1, 3, 9, 5, 64, 16}};
    for (size_t n = 0; n < sizeof shapes / sizeof *shapes; n++) {
        struct task task = {.shape = shapes[n], .relu = true};
        task_make(&task);
        check(&task);
        task_free(&task);
    }
}

static void gradients_are_those_of_the_definition(void **state) {
    (void)state;
    struct task task = {.shape = {1, 5, 6, 7, 48, 32}, .backward = true};
    task_make(&task);
    check(&task);
    task_free(&task);
}

/* The points are chosen for it: the error is near that of a sum in order, which itself loses some bits. */
static void error_is_near_that_of_a_sum_in_order(void **state) {
    (void)state;
    struct task task = {.shape = {1, 4, 12, 12, 64, 16}};
    int64_t count = outputs_of(&task);
    double *want = malloc((size_t)count * sizeof *want), *in_order = malloc((size_t)count * sizeof *in_order);
    float *got = floats_new(count), *rounded = floats_new(count);
    assert_true(want && in_order);
    task_make(&task);
    reference(&task, false, want);
    reference(&task, true, in_order);
    for (int64_t n = 0; n < count; n++)
        rounded[n] = (float)in_order[n];
    assert_true(path_run(&paths[0], &task, got));
    double filtered = error_of(want, got, count), plain = error_of(want, rounded, count);
    print_message("error %.2e, of a sum in order %.2e\n", filtered, plain);
    assert_true(filtered < 3 * plain);
    free(want);
    free(in_order);
    free(got);
    free(rounded);
    task_free(&task);
}

/* Images of a batch share the tiles that are computed together; their bytes are those of each alone. */
static void neighbours_do_not_change_a_bit(void **state) {
    (void)state;
    struct task task = {.shape = {3, 3, 7, 9, 32, 48}, .relu = true};
    task_make(&task);
    int64_t each = outputs_of(&task) / 3, enters = 32 * cells_of(&task.shape);
    float *together = floats_new(3 * each), *alone = floats_new(each);
    for (size_t path = 0; path < PATHS; path++) {
        if (!paths[path].here())
            continue;
        assert_true(path_run(&paths[path], &task, together));
        for (int64_t image = 0; image < 3; image++) {
            struct task one = task;
            one.shape.batch = 1;
            one.in = task.in + image * enters;
            assert_true(path_run(&paths[path], &one, alone));
            assert_memory_equal(alone, together + image * each, (size_t)each * sizeof *alone);
        }
    }
    free(together);
    free(alone);
    task_free(&task);
}

/* What is no number is told, wherever it lies, through Relu too. */
static void what_is_no_number_is_told(void **state) {
    (void)state;
    const float bad[] = {NAN, INFINITY, 3e38F};
    for (int n = 0; n < 12; n++) {
        struct task task = {.shape = {1, 3, 5, 6, 16, 32}, .relu = n % 2 == 0};
        task_make(&task);
        int64_t count = 16 * cells_of(&task.shape);
        float *out = floats_new(outputs_of(&task));
        task.in[n / 3 == 0 ? 0 : n / 3 == 3 ? count - 1 : count / 2 + n] = bad[n % 3];
        for (int64_t weight = 0; weight < 16 * 32 * 27; weight++) /* so that what is too large becomes infinity */
            task.weights[weight] = 1 + fabsf(task.weights[weight]);
        for (size_t path = 0; path < PATHS; path++)
            if (paths[path].here())
                assert_false(path_run(&paths[path], &task, out));
        free(out);
        task_free(&task);
    }
}

static void smallest_numbers_are_numbers(void **state) {
    (void)state;
    struct task task = {.shape = {1, 2, 6, 6, 16, 16}};
    task_make(&task);
    for (int64_t n = 0; n < 16 * cells_of(&task.shape); n++)
        task.in[n] *= 1e-39F;
    check(&task);
    task_free(&task);
}

/* The detector on a tile that is ever brighter: the layer at which it becomes too much is named, and it is one of
 * this kernel's where it runs. */
static void a_layer_that_overflows_is_named(void **state) {
    (void)state;
    struct err err = {0};
    struct shape tile = {.rank = 5, .dims = {1, 1, 32, 32, 32}};
    struct infer_model *model = infer_model_open("models/model.json", &err);
    struct program *program = model ? infer_program_new(model->detector, &tile, false, &err) : NULL;
    struct runner *runner = program ? infer_runner_new(program, &err) : NULL;
    if (!runner)
        fail_msg("%s", err.text);
    bool finite = true;
    for (float scale = 1; finite && scale < 1e38F; scale *= 2) {
        float *input = infer_runner_input(runner, 0);
        for (int n = 0; n < 32 * 32 * 32; n++)
            input[n] = scale * (float)(n * 7 % 11);
        finite = infer_runner_run(runner, NULL, &err);
    }
    assert_false(finite);
    assert_int_equal(err.kind, ERR_INPUT);
    print_message("%s\n", err.text);
    assert_non_null(strstr(err.text, "gave NaN or infinity"));
    if (infer_winograd_lanes(infer_backend_instruction_set()))
        assert_non_null(strstr(err.text, "/stem/stem.1/first"));
    infer_runner_free(runner);
    infer_program_free(program);
    infer_model_free(model);
}

static void what_it_cannot_do_is_left(void **state) {
    (void)state;
    struct winograd plan;
    assert_false(infer_winograd_plan(&(struct winograd_shape){1, 8, 8, 8, 8, 16}, 8, &plan));
    assert_false(infer_winograd_plan(&(struct winograd_shape){1, 8, 8, 8, 16, 24}, 8, &plan));
    assert_false(infer_winograd_plan(&(struct winograd_shape){1, 8, 8, 8, 16, 16}, 0, &plan));
    assert_int_equal(infer_winograd_lanes("sse41"), 0);
    assert_int_equal(infer_winograd_lanes("avx"), 0);
    assert_true(infer_winograd_plan(&(struct winograd_shape){1, 8, 8, 8, 16, 16}, 8, &plan));
    assert_true(infer_winograd_pays(&plan));
    assert_true(infer_winograd_plan(&(struct winograd_shape){1, 32, 5, 5, 16, 16}, 8, &plan)); /* tiles of 8 x 8 */
    assert_false(infer_winograd_pays(&plan));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_small_shape_agrees_with_a_sum),
        cmocka_unit_test(larger_volumes_agree_with_a_sum),
        cmocka_unit_test(gradients_are_those_of_the_definition),
        cmocka_unit_test(error_is_near_that_of_a_sum_in_order),
        cmocka_unit_test(neighbours_do_not_change_a_bit),
        cmocka_unit_test(what_is_no_number_is_told),
        cmocka_unit_test(smallest_numbers_are_numbers),
        cmocka_unit_test(a_layer_that_overflows_is_named),
        cmocka_unit_test(what_it_cannot_do_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
