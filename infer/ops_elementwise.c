/* Element by element, with NumPy's broadcasting; plain row-major. */
#include <math.h>
#include <string.h>

#include "infer/operators.h"
#include "random.h"

#define OPERANDS_MAX 3

/* One run along the last axis: element n of operand i lies at offset[i] + n * step[i]. */
struct row {
    const struct operation_call *call;
    int64_t out, count, offset[OPERANDS_MAX], step[OPERANDS_MAX];
};

/* Elements to move in an operand when the output moves by one on each axis; 0 where the operand is broadcast. */
static void operand_strides(const struct shape *operand, const struct shape *out, int64_t strides[GRAPH_RANK_MAX]) {
    int64_t step = 1;
    for (int back = 1; back <= out->rank; back++) {
        int64_t side = back <= operand->rank ? operand->dims[operand->rank - back] : 1;
        strides[out->rank - back] = side == 1 ? 0 : step;
        step *= side;
    }
}

static void each_row(const struct operation_call *call, int operands, void (*run)(const struct row *row)) {
    struct shape out = call->out[0].shape;
    if (out.rank == 0)
        out = (struct shape){.rank = 1, .dims = {1}};
    int64_t strides[OPERANDS_MAX][GRAPH_RANK_MAX] = {{0}}, index[GRAPH_RANK_MAX] = {0};
    struct row row = {.call = call, .count = out.dims[out.rank - 1]};
    for (int i = 0; i < operands; i++) {
        operand_strides(&call->in[i].shape, &out, strides[i]);
        row.step[i] = strides[i][out.rank - 1];
    }
    int64_t total = infer_shape_count(&out);
    for (row.out = 0; row.out < total; row.out += row.count) {
        run(&row);
        for (int axis = out.rank - 2; axis >= 0; axis--) {
            bool carry = ++index[axis] == out.dims[axis];
            for (int i = 0; i < operands; i++)
                row.offset[i] += carry ? -strides[i][axis] * (out.dims[axis] - 1) : strides[i][axis];
            if (!carry)
                break;
            index[axis] = 0;
        }
    }
}

#define BINARY_ROW(name, expression)                                              \
    static void name(const struct row *row) {                                     \
        const float *one = (const float *)row->call->in[0].data + row->offset[0]; \
        const float *two = (const float *)row->call->in[1].data + row->offset[1]; \
        float *out = (float *)row->call->out[0].data + row->out;                  \
        int64_t step_one = row->step[0], step_two = row->step[1];                 \
        for (int64_t n = 0; n < row->count; n++) {                                \
            float a = one[n * step_one], b = two[n * step_two];                   \
            out[n] = expression;                                                  \
        }                                                                         \
    }
BINARY_ROW(row_add, a + b)
BINARY_ROW(row_sub, a - b)
BINARY_ROW(row_mul, a *b)
BINARY_ROW(row_div, a / b)
/* The square is the common power, and PyTorch multiplies there too. */
BINARY_ROW(row_pow, b == 2 ? a * a : powf(a, b))

static void row_greater_or_equal(const struct row *row) {
    const float *one = (const float *)row->call->in[0].data + row->offset[0];
    const float *two = (const float *)row->call->in[1].data + row->offset[1];
    uint8_t *out = (uint8_t *)row->call->out[0].data + row->out;
    for (int64_t n = 0; n < row->count; n++)
        out[n] = one[n * row->step[0]] >= two[n * row->step[1]];
}

static void row_where(const struct row *row) {
    const uint8_t *choice = (const uint8_t *)row->call->in[0].data + row->offset[0];
    const float *one = (const float *)row->call->in[1].data + row->offset[1];
    const float *two = (const float *)row->call->in[2].data + row->offset[2];
    float *out = (float *)row->call->out[0].data + row->out;
    for (int64_t n = 0; n < row->count; n++)
        out[n] = choice[n * row->step[0]] ? one[n * row->step[1]] : two[n * row->step[2]];
}

void infer_run_add(const struct operation_call *call) {
    each_row(call, 2, row_add);
}

void infer_run_sub(const struct operation_call *call) {
    each_row(call, 2, row_sub);
}

void infer_run_mul(const struct operation_call *call) {
    each_row(call, 2, row_mul);
}

void infer_run_div(const struct operation_call *call) {
    each_row(call, 2, row_div);
}

void infer_run_pow(const struct operation_call *call) {
    each_row(call, 2, row_pow);
}

void infer_run_greater_or_equal(const struct operation_call *call) {
    each_row(call, 2, row_greater_or_equal);
}

void infer_run_where(const struct operation_call *call) {
    each_row(call, 3, row_where);
}

#define UNARY(name, expression)                                 \
    void name(const struct operation_call *call) {              \
        const float *in = call->in[0].data;                     \
        float *out = call->out[0].data;                         \
        int64_t count = infer_shape_count(&call->out[0].shape); \
        for (int64_t n = 0; n < count; n++) {                   \
            float a = in[n];                                    \
            out[n] = expression;                                \
        }                                                       \
    }
UNARY(infer_run_relu, a < 0 ? 0 : a)
UNARY(infer_run_sigmoid, 1 / (1 + expf(-a)))
UNARY(infer_run_sqrt, sqrtf(a))
UNARY(infer_run_exp, expf(a))
UNARY(infer_run_erf, erff(a))
UNARY(infer_run_tanh, tanhf(a))

/* y = (x - mean) / sqrt(variance + epsilon) * scale + bias, per channel of [n][c][...] (ONNX BatchNormalization). */
void infer_run_batch_normalization(const struct operation_call *call) {
    const struct shape *shape = &call->in[0].shape;
    const float *in = call->in[0].data, *scale = call->in[1].data, *bias = call->in[2].data;
    const float *mean = call->in[3].data, *variance = call->in[4].data;
    float *out = call->out[0].data, epsilon = infer_node_float(call->node, "epsilon", 1e-5F);
    int64_t channels = shape->dims[1], size = 1;
    for (int axis = 2; axis < shape->rank; axis++)
        size *= shape->dims[axis];
    for (int64_t plane = 0; plane < shape->dims[0] * channels; plane++) {
        int64_t c = plane % channels;
        float factor = scale[c] / sqrtf(variance[c] + epsilon), shift = bias[c] - mean[c] * factor;
        for (int64_t n = plane * size; n < (plane + 1) * size; n++)
            out[n] = in[n] * factor + shift;
    }
}

void infer_run_copy(const struct operation_call *call) {
    size_t count = (size_t)infer_shape_count(&call->out[0].shape);
    memcpy(call->out[0].data, call->in[0].data, count * infer_element_size(call->out[0].element));
}

static double dropout_rate(const struct operation_call *call) {
    if (!call->dropout || !call->dropout->active)
        return 0;
    if (call->dropout->rate >= 0)
        return call->dropout->rate;
    return call->present[1] ? (double)*(const float *)call->in[1].data : 0.5; /* ONNX: ratio defaults to 0.5 */
}

/* Inverted dropout of one batch entry: kept elements are scaled by 1 / (1 - rate), as PyTorch does. One counter gives
 * four elements; (pass, candidate, node) are the other three words, so no two masks share a counter. */
static void dropout_pass(const struct operation_call *call, int64_t entry, int64_t count, float rate) {
    const struct dropout_keys *keys = call->dropout;
    const float *in = (const float *)call->in[0].data + entry * count;
    float *out = (float *)call->out[0].data + entry * count, scale = 1 / (1 - rate);
    uint32_t key[2] = {(uint32_t)keys->seed, (uint32_t)(keys->seed >> 32)};
    uint32_t counter[4] = {0, keys->pass_first + (uint32_t)entry, keys->candidate, (uint32_t)call->node->dropout};
    uint32_t words[4] = {0};
    for (int64_t n = 0; n < count; n++) {
        counter[0] = (uint32_t)(n / 4);
        if (n % 4 == 0)
            random_philox(key, counter, words);
        out[n] = random_uniform(words[n % 4]) < rate ? 0 : in[n] * scale;
    }
}

static void dropout_given(const struct operation_call *call, const float *mask, float rate) {
    const float *in = call->in[0].data;
    float *out = call->out[0].data;
    int64_t count = infer_shape_count(&call->out[0].shape);
    for (int64_t n = 0; n < count; n++)
        out[n] = in[n] * mask[n] / (1 - rate);
}

void infer_run_dropout(const struct operation_call *call) {
    double rate = dropout_rate(call);
    const struct shape *shape = &call->in[0].shape;
    if (rate <= 0) {
        infer_run_copy(call);
        return;
    }
    if (call->dropout->masks && call->node->dropout < call->dropout->mask_count) {
        dropout_given(call, call->dropout->masks[call->node->dropout], (float)rate);
        return;
    }
    int64_t entries = shape->rank ? shape->dims[0] : 1;
    for (int64_t entry = 0; entry < entries; entry++)
        dropout_pass(call, entry, infer_shape_count(shape) / entries, (float)rate);
}
