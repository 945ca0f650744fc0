/* The arithmetic of every kernel of ours, one result at a time: the kernels call it on the device, the reference
 * (infer/cuda/reference.h) and the tests on the host. Positions are 32 bits: device_plan_check sees to that. */
#ifndef PULMO_INFER_CUDA_ELEMENT_H
#define PULMO_INFER_CUDA_ELEMENT_H

#include <math.h>

#include "infer/cuda/device_plan.h"
#include "infer/cuda/half.h"

/* Keys of the dropout masks of one run (infer/operators.h, struct dropout_keys). */
struct device_keys {
    int32_t active, passes; /* batch entry n is pass n % passes of candidate + n / passes */
    uint32_t seed[2], candidate;
    float rate; /* negative = the node's own */
};

/* A step with its operands; by value, because a kernel's parameters are copied. */
struct device_call {
    struct device_step step;
    struct device_tensor in[DEVICE_INPUTS_MAX], out[DEVICE_OUTPUTS_MAX];
    const void *in_data[DEVICE_INPUTS_MAX]; /* NULL = absent */
    void *out_data[DEVICE_OUTPUTS_MAX];
    const struct device_keys *keys;
};
/* The operands of step `index`, with arena and constants where its tensors lie (device_plan.c). */
#ifdef __cplusplus
extern "C"
#endif
    struct device_call
    device_call_of(const struct device_plan *plan, int index, void *arena, const void *constants,
                   const struct device_keys *keys);

DEVICE_BOTH static inline float element_load(const struct device_tensor *tensor, const void *data, int64_t at) {
    return tensor->element == DEVICE_F16 ? half_to_float(((const uint16_t *)data)[at]) : ((const float *)data)[at];
}

/* False when what is stored is NaN or infinity: beyond 65,504 a half is. */
DEVICE_BOTH static inline bool element_store(const struct device_tensor *tensor, void *data, int64_t at, float value) {
    if (tensor->element != DEVICE_F16) {
        ((float *)data)[at] = value;
        return (half_float_bits(value) & 0x7F800000U) != 0x7F800000U;
    }
    uint16_t half = half_from_float(value);
    ((uint16_t *)data)[at] = half;
    return (half & 0x7C00U) != 0x7C00U;
}

DEVICE_BOTH static inline float element_in(const struct device_call *call, int input, int64_t at) {
    return element_load(&call->in[input], call->in_data[input], at);
}

/* ---- images: [n][c][d][h][w] in either layout ------------------------------------------------------------------ */

struct device_cell {
    int32_t at[5]; /* n, c, d, h, w */
};

/* Cell of the element at `index` of the memory of an image of rank 5. */
DEVICE_BOTH static inline struct device_cell element_cell(const struct device_tensor *image, uint32_t index) {
    struct device_cell cell;
    uint32_t c = (uint32_t)image->dims[1], d = (uint32_t)image->dims[2], h = (uint32_t)image->dims[3];
    uint32_t w = (uint32_t)image->dims[4];
    if (image->layout == DEVICE_CHANNELS_LAST) {
        cell.at[1] = (int32_t)(index % c);
        index /= c;
    }
    cell.at[4] = (int32_t)(index % w);
    index /= w;
    cell.at[3] = (int32_t)(index % h);
    index /= h;
    cell.at[2] = (int32_t)(index % d);
    index /= d;
    if (image->layout == DEVICE_PLAIN) {
        cell.at[1] = (int32_t)(index % c);
        index /= c;
    }
    cell.at[0] = (int32_t)index;
    return cell;
}

/* Elements between neighbours along each axis. */
DEVICE_BOTH static inline void element_strides(const struct device_tensor *image, int32_t strides[5]) {
    int32_t c = (int32_t)image->dims[1], d = (int32_t)image->dims[2], h = (int32_t)image->dims[3];
    int32_t w = (int32_t)image->dims[4], last = image->layout == DEVICE_CHANNELS_LAST ? c : 1;
    strides[4] = last;
    strides[3] = w * last;
    strides[2] = h * w * last;
    strides[1] = image->layout == DEVICE_CHANNELS_LAST ? 1 : d * h * w;
    strides[0] = c * d * h * w;
}

DEVICE_BOTH static inline int32_t element_at(const struct device_tensor *image, const struct device_cell *cell) {
    int32_t strides[5], at = 0;
    element_strides(image, strides);
    for (int axis = 0; axis < 5; axis++)
        at += cell->at[axis] * strides[axis];
    return at;
}

DEVICE_BOTH static inline float element_relu(const struct device_step *step, float value) {
    return step->relu && value < 0 ? 0 : value; /* NaN stays, for the finite check */
}

/* The sum over channels of one tap of the window. */
DEVICE_BOTH static inline float element_tap(const struct device_call *call, int32_t image, int32_t stride,
                                            int32_t weight) {
    float sum = 0;
    int32_t channels = (int32_t)call->in[0].dims[1];
    for (int32_t c = 0; c < channels; c++)
        sum += element_in(call, 0, image + c * stride) * element_in(call, 1, weight + c);
    return sum;
}

/* Where tap `tap` of the window reads along an axis, or -1 outside. */
DEVICE_BOTH static inline int32_t element_reach(const struct device_call *call, int axis, int32_t out, int32_t tap) {
    const int64_t *n = call->step.numbers;
    int32_t at = out * (int32_t)n[axis] - (int32_t)n[3 + axis] + tap * (int32_t)n[6 + axis];
    return at >= 0 && at < (int32_t)call->in[0].dims[2 + axis] ? at : -1;
}

DEVICE_BOTH static inline float element_conv(const struct device_call *call, uint32_t index) {
    struct device_cell cell = element_cell(&call->out[0], index);
    const int64_t *side = call->in[1].dims + 2;
    int32_t strides[5], channels = (int32_t)call->in[1].dims[1];
    int32_t weight = cell.at[1] * (int32_t)(side[0] * side[1] * side[2]) * channels;
    float sum = element_in(call, 2, cell.at[1]);
    element_strides(&call->in[0], strides);
    for (int32_t t = 0; t < (int32_t)side[0]; t++)
        for (int32_t r = 0; r < (int32_t)side[1]; r++)
            for (int32_t s = 0; s < (int32_t)side[2]; s++, weight += channels) {
                int32_t z = element_reach(call, 0, cell.at[2], t), y = element_reach(call, 1, cell.at[3], r);
                int32_t x = element_reach(call, 2, cell.at[4], s);
                if (z < 0 || y < 0 || x < 0)
                    continue;
                int32_t at = cell.at[0] * strides[0] + z * strides[2] + y * strides[3] + x * strides[4];
                sum += element_tap(call, at, strides[1], weight);
            }
    if (call->in_data[3])
        sum += element_in(call, 3, element_at(&call->in[3], &cell));
    return element_relu(&call->step, sum);
}

DEVICE_BOTH static inline float element_pool_max(const struct device_call *call, uint32_t index) {
    struct device_cell cell = element_cell(&call->out[0], index);
    const int64_t *side = call->step.numbers + 12;
    int32_t strides[5];
    float most = -INFINITY;
    element_strides(&call->in[0], strides);
    int32_t base = cell.at[0] * strides[0] + cell.at[1] * strides[1];
    for (int32_t t = 0; t < (int32_t)side[0]; t++)
        for (int32_t r = 0; r < (int32_t)side[1]; r++)
            for (int32_t s = 0; s < (int32_t)side[2]; s++) {
                int32_t z = element_reach(call, 0, cell.at[2], t), y = element_reach(call, 1, cell.at[3], r);
                int32_t x = element_reach(call, 2, cell.at[4], s);
                if (z < 0 || y < 0 || x < 0)
                    continue;
                float value = element_in(call, 0, base + z * strides[2] + y * strides[3] + x * strides[4]);
                most = value > most || isnan(value) ? value : most;
            }
    return most;
}

DEVICE_BOTH static inline float element_resize(const struct device_call *call, uint32_t index) {
    struct device_cell cell = element_cell(&call->out[0], index);
    for (int axis = 2; axis < 5; axis++)
        cell.at[axis] =
            (int32_t)(cell.at[axis] * call->in[0].dims[axis] / call->out[0].dims[axis]); /* asymmetric, floor */
    return element_in(call, 0, element_at(&call->in[0], &cell));
}

DEVICE_BOTH static inline float element_concat(const struct device_call *call, uint32_t index) {
    struct device_cell cell = element_cell(&call->out[0], index);
    int part = 0;
    while (part < DEVICE_INPUTS_MAX - 1 && cell.at[1] >= (int32_t)call->in[part].dims[1]) {
        cell.at[1] -= (int32_t)call->in[part].dims[1];
        part++;
    }
    return element_in(call, part, element_at(&call->in[part], &cell));
}

DEVICE_BOTH static inline float element_convert(const struct device_call *call, uint32_t index) {
    if (call->in[0].layout == call->out[0].layout)
        return element_in(call, 0, index);
    struct device_cell cell = element_cell(&call->out[0], index);
    return element_in(call, 0, element_at(&call->in[0], &cell));
}

/* ---- row-major tensors ----------------------------------------------------------------------------------------- */

/* Element of an operand for the result at `index`, by strides along the axes of the result. */
DEVICE_BOTH static inline int64_t element_operand(const struct device_tensor *out, uint32_t index,
                                                  const int64_t *strides) {
    int64_t at = 0;
    for (int axis = out->rank - 1; axis >= 0; axis--) {
        uint32_t side = (uint32_t)out->dims[axis];
        at += (int64_t)(index % side) * strides[axis];
        index /= side;
    }
    return at;
}

DEVICE_BOTH static inline float element_binary(const struct device_call *call, uint32_t index) {
    const int64_t *n = call->step.numbers;
    bool alike = n[13] != 0;
    float a = element_in(call, 0, alike ? index : element_operand(&call->out[0], index, n + 1));
    float b = element_in(call, 1, alike ? index : element_operand(&call->out[0], index, n + 7));
    switch ((enum device_binary)n[0]) {
    case DEVICE_ADD: return a + b;
    case DEVICE_SUB: return a - b;
    case DEVICE_MUL: return a * b;
    case DEVICE_DIV: return a / b;
    case DEVICE_POW: return b == 2 ? a * a : powf(a, b);
    case DEVICE_GREATER_OR_EQUAL: return a >= b;
    case DEVICE_BINARIES: break;
    }
    return NAN;
}

DEVICE_BOTH static inline float element_unary(const struct device_call *call, uint32_t index) {
    float a = element_in(call, 0, index);
    switch ((enum device_unary)call->step.numbers[0]) {
    case DEVICE_RELU: return a < 0 ? 0 : a;
    case DEVICE_SIGMOID: return 1 / (1 + expf(-a));
    case DEVICE_SQRT: return sqrtf(a);
    case DEVICE_EXP: return expf(a);
    case DEVICE_TANH: return tanhf(a);
    case DEVICE_ERF: return erff(a);
    case DEVICE_UNARIES: break;
    }
    return NAN;
}

/* Sums run in double and in index order, as on the CPU. */
DEVICE_BOTH static inline float element_reduce(const struct device_call *call, uint32_t index) {
    int64_t side = call->step.numbers[0], inner = call->step.numbers[1], how = call->step.numbers[2];
    int64_t start = index / inner * side * inner + index % inner;
    double sum = 0;
    float least = INFINITY, most = -INFINITY;
    for (int64_t n = 0; n < side; n++) {
        float value = element_in(call, 0, start + n * inner);
        sum += (double)value;
        least = value < least ? value : least;
        most = value > most ? value : most;
    }
    return how == DEVICE_MIN ? least : how == DEVICE_MAX ? most : (float)(sum / (double)side);
}

DEVICE_BOTH static inline float element_select(const struct device_call *call, uint32_t index) {
    const int64_t *n = call->step.numbers;
    bool set = element_in(call, 0, element_operand(&call->out[0], index, n)) != 0;
    return set ? element_in(call, 1, element_operand(&call->out[0], index, n + 6))
               : element_in(call, 2, element_operand(&call->out[0], index, n + 12));
}

DEVICE_BOTH static inline float element_view(const struct device_call *call, uint32_t index) {
    const int64_t *n = call->step.numbers;
    return element_in(call, 0, n[0] + element_operand(&call->out[0], index, n + 1));
}

DEVICE_BOTH static inline float element_product(const struct device_call *call, uint32_t index) {
    const int64_t *n = call->step.numbers;
    int64_t deep = n[1], wide = n[2], cell = index % (n[0] * wide), batch = index / (n[0] * wide);
    int64_t row = cell / wide, column = cell % wide;
    int64_t a = batch * n[3] + row * deep, b = batch * n[4] + (n[5] ? column * deep : column), step = n[5] ? 1 : wide;
    float sum = call->in_data[2] ? element_in(call, 2, column) : 0;
    for (int64_t k = 0; k < deep; k++)
        sum += element_in(call, 0, a + k) * element_in(call, 1, b + k * step);
    return element_relu(&call->step, sum);
}

/* Each batch entry `times` times. */
DEVICE_BOTH static inline float element_repeat(const struct device_call *call, uint32_t index) {
    int64_t size = call->step.numbers[0], times = call->step.numbers[1];
    return element_in(call, 0, index / (size * times) * size + index % size);
}

/* ---- dropout ----------------------------------------------------------------------------------------------------- */

/* Philox4x32-10, word `word` of its result: random.h, which tests compare with it bit for bit. */
DEVICE_BOTH static inline uint32_t element_philox(const uint32_t key[2], const uint32_t counter[4], int word) {
    uint32_t k0 = key[0], k1 = key[1], c[4] = {counter[0], counter[1], counter[2], counter[3]};
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53U * c[0], p1 = (uint64_t)0xCD9E8D57U * c[2];
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c[1] ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c[3] ^ k1;
        c[1] = (uint32_t)p1;
        c[3] = (uint32_t)p0;
        c[0] = n0;
        c[2] = n2;
        k0 += 0x9E3779B9U;
        k1 += 0xBB67AE85U;
    }
    return c[word];
}

/* The mask of the CPU (infer/ops_elementwise.c, dropout_pass), bit for bit. */
DEVICE_BOTH static inline float element_dropout(const struct device_call *call, uint32_t index) {
    const struct device_keys *keys = call->keys;
    float value = element_in(call, 0, index), rate = keys && keys->rate >= 0 ? keys->rate : call->step.reals[0];
    if (!keys || !keys->active || rate <= 0)
        return value;
    uint32_t size = (uint32_t)call->step.numbers[0], entry = index / size, n = index % size;
    uint32_t passes = (uint32_t)keys->passes;
    uint32_t counter[4] = {n / 4, entry % passes, keys->candidate + entry / passes, (uint32_t)call->step.numbers[1]};
    uint32_t bits = element_philox(keys->seed, counter, (int)(n % 4));
    float uniform = (float)(bits >> 8) * 0x1p-24F;
    return uniform < rate ? 0 : value * (1 / (1 - rate));
}

/* ---- sparse attention -----------------------------------------------------------------------------------------------
 */

/* The keep-th largest of the row: the value that fewer than `keep` exceed and at least `keep` reach. Counting suits a
 * device better than the CPU's quickselect, and finds the same value. */
DEVICE_BOTH static inline float element_kth(const float *row, int32_t count, int32_t keep) {
    for (int32_t i = 0; i < count; i++) {
        int32_t above = 0, equal = 0;
        for (int32_t n = 0; n < count; n++) {
            above += row[n] > row[i];
            equal += row[n] == row[i];
        }
        if (above < keep && above + equal >= keep)
            return row[i];
    }
    return NAN; /* only a row with NaN comes here */
}

/* Softmax over the scores that are at least the keep-th largest, in place; the others become 0. */
DEVICE_BOTH static inline void element_row_softmax(float *row, int32_t count, int32_t keep) {
    float least = element_kth(row, count, keep), most = row[0];
    double sum = 0;
    for (int32_t n = 1; n < count; n++)
        most = row[n] > most ? row[n] : most;
    for (int32_t n = 0; n < count; n++) {
        row[n] = isnan(least) ? NAN : row[n] >= least ? expf(row[n] - most) : 0;
        sum += (double)row[n];
    }
    for (int32_t n = 0; n < count; n++)
        row[n] = (float)((double)row[n] / sum);
}

/* The greatest values of a row, best first: as element_kth, from where the row lies. */
DEVICE_BOTH static inline float element_top(const struct device_call *call, uint32_t index) {
    uint32_t side = (uint32_t)call->step.numbers[0], count = (uint32_t)call->step.numbers[1];
    int64_t start = (int64_t)(index / count) * side;
    uint32_t before = index % count;
    for (uint32_t i = 0; i < side; i++) {
        float value = element_in(call, 0, start + i);
        uint32_t above = 0, equal = 0;
        for (uint32_t n = 0; n < side; n++) {
            float other = element_in(call, 0, start + n);
            above += other > value;
            equal += other == value;
        }
        if (above <= before && above + equal > before)
            return value;
    }
    return NAN; /* only a row with NaN comes here */
}

/* One query's row of both results, from its weights; false when one of them is NaN or infinity. */
DEVICE_BOTH static inline bool element_attend(const struct device_call *call, uint32_t query, const float *row) {
    const int64_t *n = call->step.numbers;
    int32_t keys = (int32_t)n[2], wide = (int32_t)n[3];
    int64_t head = query / n[0];
    bool finite = true;
    for (int32_t w = 0; w < wide; w++) {
        float sum = 0;
        for (int32_t k = 0; k < keys; k++)
            if (row[k] != 0)
                sum += row[k] * element_in(call, 2, (head * keys + k) * wide + w);
        finite = element_store(&call->out[0], call->out_data[0], (int64_t)query * wide + w, sum) && finite;
    }
    for (int32_t k = 0; call->out_data[1] && k < keys; k++)
        finite = element_store(&call->out[1], call->out_data[1], (int64_t)query * keys + k, row[k]) && finite;
    return finite;
}

DEVICE_BOTH static inline float element_score(const struct device_call *call, uint32_t query, int32_t key) {
    const int64_t *n = call->step.numbers;
    int64_t depth = n[1], keys = n[2], head = query / n[0];
    float sum = 0;
    for (int64_t d = 0; d < depth; d++)
        sum += element_in(call, 0, query * depth + d) * element_in(call, 1, (head * depth + d) * keys + key);
    return sum * call->step.reals[0];
}

/* One query: scores against every key, weights, the weighted sum of the values. */
DEVICE_BOTH static inline bool element_attention(const struct device_call *call, uint32_t query) {
    const int64_t *n = call->step.numbers;
    float row[DEVICE_KEYS_MAX];
    row[0] = 0;
    for (int32_t k = 0; k < (int32_t)n[2]; k++)
        row[k] = element_score(call, query, k);
    element_row_softmax(row, (int32_t)n[2], (int32_t)n[4]);
    return element_attend(call, query, row);
}

/* One query against the keys that the mask keeps; where it keeps none, all weigh the same. */
DEVICE_BOTH static inline bool element_masked_attention(const struct device_call *call, uint32_t query) {
    const int64_t *n = call->step.numbers;
    int32_t keys = (int32_t)n[2], kept = 0;
    int64_t image = query / n[0] / n[4];
    float row[DEVICE_KEYS_MAX], most = -INFINITY;
    bool finite = true;
    double sum = 0;
    for (int32_t k = 0; k < keys; k++) {
        row[k] = 0;
        if (element_in(call, 3, image * n[5] + k) == 0)
            continue;
        row[k] = element_score(call, query, k) + (call->in_data[4] ? element_in(call, 4, image * n[6] + k) : 0);
        finite = finite && (half_float_bits(row[k]) & 0x7F800000U) != 0x7F800000U;
        most = row[k] > most ? row[k] : most;
        kept++;
    }
    for (int32_t k = 0; k < keys; k++) {
        if (kept == 0)
            row[k] = 1;
        else if (element_in(call, 3, image * n[5] + k) != 0)
            row[k] = expf(row[k] - most);
        sum += (double)row[k];
    }
    for (int32_t k = 0; k < keys; k++)
        row[k] = (float)((double)row[k] / sum);
    return element_attend(call, query, row) && finite;
}

DEVICE_BOTH static inline bool element_is_attention(const struct device_step *step) {
    return step->kind == DEVICE_ATTENTION || step->kind == DEVICE_MASKED_ATTENTION;
}

/* ---- any step ------------------------------------------------------------------------------------------------------
 */

/* Results of a step, rows of them for attention. */
DEVICE_BOTH static inline int64_t element_runs(const struct device_call *call) {
    const struct device_tensor *out = &call->out[0];
    int64_t count = 1;
    for (int axis = 0; axis < out->rank; axis++)
        count *= out->dims[axis];
    return element_is_attention(&call->step) ? count / call->step.numbers[3] : count;
}

DEVICE_BOTH static inline float element_value(const struct device_call *call, uint32_t index) {
    switch ((enum device_step_kind)call->step.kind) {
    case DEVICE_CONV: return element_conv(call, index);
    case DEVICE_POOL_MAX: return element_pool_max(call, index);
    case DEVICE_RESIZE: return element_resize(call, index);
    case DEVICE_CONCAT: return element_concat(call, index);
    case DEVICE_CONVERT: return element_convert(call, index);
    case DEVICE_BINARY: return element_binary(call, index);
    case DEVICE_UNARY: return element_unary(call, index);
    case DEVICE_REDUCE: return element_reduce(call, index);
    case DEVICE_VIEW: return element_view(call, index);
    case DEVICE_PRODUCT: return element_product(call, index);
    case DEVICE_DROPOUT: return element_dropout(call, index);
    case DEVICE_REPEAT: return element_repeat(call, index);
    case DEVICE_SELECT: return element_select(call, index);
    case DEVICE_TOP: return element_top(call, index);
    case DEVICE_ATTENTION:
    case DEVICE_MASKED_ATTENTION:
    case DEVICE_KINDS: break;
    }
    return NAN;
}

#endif
