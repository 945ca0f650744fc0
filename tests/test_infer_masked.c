/* LABELS: quick
 * Attention over the keys that a mask keeps, against sums in double: shapes that fill vectors and such that do not,
 * masks that keep all, some and no keys, numbers that are none. The kernel runs for each width of vectors that the
 * processor has, and for 16 lanes as the compiler makes them of what every processor has: all give the same bytes.
 * Tolerance: 2e-6 of the greatest. The operation in a graph is a matter of test_infer_parity and test_infer_graph. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/masked_attention.h"

#define TOLERANCE 2e-6
#define ALIGNMENT 64

/* masked_attention/kernel.c once more, without any instruction set (tests/CMakeLists.txt). */
void masked_attention_run_wide(const struct masked_attention *shape, const struct masked_call *call);

static bool always(void) {
    return true;
}

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2");
}

static bool has_avx512(void) {
    return __builtin_cpu_supports("avx512f");
}

static const struct path {
    const char *name;
    void (*run)(const struct masked_attention *shape, const struct masked_call *call);
    bool (*here)(void);
} paths[] = {{"4 lanes", masked_attention_run_4, always},
             {"16 lanes of any processor", masked_attention_run_wide, always},
             {"AVX2", masked_attention_run_8, has_avx2},
             {"AVX-512", masked_attention_run_16, has_avx512}};
#define PATHS (sizeof paths / sizeof *paths)

static uint32_t random_state = 11;

static uint32_t next_random(uint32_t below) {
    random_state = random_state * 1664525 + 1013904223;
    return (random_state >> 8) % below;
}

static void *memory_new(size_t size) {
    void *data = aligned_alloc(ALIGNMENT, (size / ALIGNMENT + 1) * ALIGNMENT);
    assert_non_null(data);
    memset(data, 0x7F, size);
    return data;
}

static float *floats_random(int64_t count, float most) {
    float *data = memory_new((size_t)count * sizeof *data);
    for (int64_t n = 0; n < count; n++)
        data[n] = ((float)next_random(1 << 20) / (1 << 19) - 1) * most;
    return data;
}

struct task {
    struct masked_attention shape;
    float *query, *key, *value, *bias, *out, *weights;
    uint8_t *mask;
    int64_t rows, row_keys; /* of all heads and queries; of masks */
};

/* kept: keys out of a hundred. */
static struct task task_new(const struct masked_attention *shape, uint32_t kept) {
    struct task task = {.shape = *shape};
    int64_t heads = shape->batch * shape->heads;
    task.rows = heads * shape->queries;
    task.row_keys = shape->batch * shape->keys;
    task.query = floats_random(task.rows * shape->depth, 2);
    task.key = floats_random(heads * shape->depth * shape->keys, 2);
    task.value = floats_random(heads * shape->keys * shape->wide, 1);
    task.bias = floats_random(task.row_keys, 8);
    task.mask = memory_new((size_t)task.row_keys);
    for (int64_t n = 0; n < task.row_keys; n++)
        task.mask[n] = next_random(100) < kept;
    task.out = memory_new((size_t)(task.rows * shape->wide) * sizeof(float));
    task.weights = memory_new((size_t)(task.rows * shape->keys) * sizeof(float));
    return task;
}

static void task_free(struct task *task) {
    void *const parts[] = {task->query, task->key, task->value, task->bias, task->mask, task->out, task->weights};
    for (size_t n = 0; n < sizeof parts / sizeof *parts; n++)
        free(parts[n]);
}

static void task_run(const struct task *task, const struct path *path) {
    void *scratch = memory_new(masked_attention_scratch(&task->shape));
    path->run(&task->shape, &(struct masked_call){.query = task->query,
                                                  .key = task->key,
                                                  .value = task->value,
                                                  .bias = task->bias,
                                                  .mask = task->mask,
                                                  .out = task->out,
                                                  .weights = task->weights,
                                                  .scratch = scratch});
    free(scratch);
}

/* One query as ONNX has it: every score, -1e9 where the mask keeps none, a softmax over all keys. */
static void weights_want(const struct task *task, int64_t row, double *out) {
    const struct masked_attention *shape = &task->shape;
    int64_t head = row / shape->queries, image = head / shape->heads;
    const float *bias = task->bias ? task->bias + (shape->one_bias ? 0 : image * shape->keys) : NULL;
    const uint8_t *mask = task->mask + (shape->one_mask ? 0 : image * shape->keys);
    double most = -INFINITY, sum = 0;
    for (int64_t n = 0; n < shape->keys; n++) {
        out[n] = 0;
        for (int64_t d = 0; d < shape->depth; d++)
            out[n] += (double)task->query[row * shape->depth + d] *
                      (double)task->key[(head * shape->depth + d) * shape->keys + n];
        out[n] = mask[n] ? out[n] * (double)shape->scale + (bias ? (double)bias[n] : 0) : -1e9;
        most = fmax(most, out[n]);
    }
    for (int64_t n = 0; n < shape->keys; n++)
        sum += exp(out[n] - most);
    for (int64_t n = 0; n < shape->keys; n++)
        out[n] = exp(out[n] - most) / sum;
}

static void task_check(const struct task *task) {
    const struct masked_attention *shape = &task->shape;
    double *want = calloc((size_t)shape->keys, sizeof *want);
    for (int64_t row = 0; row < task->rows; row++) {
        weights_want(task, row, want);
        const float *values = task->value + row / shape->queries * shape->keys * shape->wide;
        for (int64_t n = 0; n < shape->keys; n++)
            assert_true(fabs((double)task->weights[row * shape->keys + n] - want[n]) < TOLERANCE);
        for (int64_t w = 0; w < shape->wide; w++) {
            double sum = 0;
            for (int64_t n = 0; n < shape->keys; n++)
                sum += want[n] * (double)values[n * shape->wide + w];
            assert_true(fabs((double)task->out[row * shape->wide + w] - sum) < TOLERANCE);
        }
    }
    free(want);
}

/* Every width of vectors: right, and the bytes of the first. */
static void all_paths(struct task *task) {
    size_t outs = (size_t)(task->rows * task->shape.wide), weights = (size_t)(task->rows * task->shape.keys);
    float *first = memory_new((outs + weights) * sizeof *first);
    for (size_t n = 0; n < PATHS; n++) {
        if (!paths[n].here())
            continue;
        task_run(task, &paths[n]);
        task_check(task);
        if (n == 0) {
            memcpy(first, task->out, outs * sizeof *first);
            memcpy(first + outs, task->weights, weights * sizeof *first);
        }
        assert_memory_equal(task->out, first, outs * sizeof *first);
        assert_memory_equal(task->weights, first + outs, weights * sizeof *first);
    }
    free(first);
}

static void every_shape_agrees_with_sums_in_double(void **state) {
    (void)state;
    for (int round = 0; round < 60; round++) {
        struct masked_attention shape = {.batch = 1 + next_random(3),
                                         .heads = 1 + next_random(4),
                                         .queries = 1 + next_random(40),
                                         .depth = 1 + next_random(20),
                                         .keys = 1 + next_random(70),
                                         .wide = 1 + next_random(40),
                                         .scale = 0.25F,
                                         .one_mask = next_random(3) == 0,
                                         .one_bias = next_random(3) == 0};
        struct task task = task_new(&shape, next_random(101));
        if (next_random(4) == 0) {
            free(task.bias);
            task.bias = NULL;
        }
        all_paths(&task);
        task_free(&task);
    }
}

static const struct masked_attention shipped = {
    .batch = 2, .heads = 4, .queries = 125, .depth = 16, .keys = 125, .wide = 16, .scale = 0.25F};

static void the_shape_of_the_candidate_network(void **state) {
    (void)state;
    for (uint32_t kept = 0; kept <= 100; kept += 20) { /* none, some, all */
        struct task task = task_new(&shipped, kept);
        all_paths(&task);
        task_free(&task);
    }
}

static void no_key_kept_means_all_alike(void **state) {
    (void)state;
    struct task task = task_new(&shipped, 0);
    task_run(&task, &paths[0]);
    for (int64_t n = 0; n < task.rows * shipped.keys; n++)
        assert_true(fabs((double)task.weights[n] - 1.0 / 125) < 1e-8);
    task_free(&task);
}

/* Scores far apart: the small weights become 0 and nothing else. */
static void scores_far_apart(void **state) {
    (void)state;
    struct task task = task_new(&shipped, 50);
    for (int64_t n = 0; n < task.row_keys; n++)
        task.bias[n] *= 40;
    all_paths(&task);
    task_free(&task);
}

static int64_t rows_not_finite(const struct task *task) {
    int64_t count = 0;
    for (int64_t row = 0; row < task->rows; row++)
        count += isnan(task->out[row * task->shape.wide]) && isnan(task->weights[row * task->shape.keys]);
    return count;
}

/* What is no number comes out as NaN, where the check behind every layer finds it. */
static void what_is_no_number_is_not_hidden(void **state) {
    (void)state;
    const float wrong[] = {NAN, INFINITY, -INFINITY};
    for (size_t n = 0; n < PATHS * 3; n++) {
        const struct path *path = &paths[n / 3];
        if (!path->here())
            continue;
        struct task task = task_new(&shipped, 40);
        task.mask[0] = 1;
        task.query[7 * 16 + 3] = wrong[n % 3];
        task_run(&task, path);
        assert_true(rows_not_finite(&task) == 1 && isnan(task.out[7 * 16]));
        task.query[7 * 16 + 3] = 0;
        task.mask[124] = 0; /* a key that is not even kept */
        task.bias[124] = wrong[n % 3];
        task_run(&task, path);
        assert_int_equal(rows_not_finite(&task), task.rows / 2); /* of the first image */
        task_free(&task);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shape_agrees_with_sums_in_double),
        cmocka_unit_test(the_shape_of_the_candidate_network),
        cmocka_unit_test(no_key_kept_means_all_alike),
        cmocka_unit_test(scores_far_apart),
        cmocka_unit_test(what_is_no_number_is_not_hidden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
