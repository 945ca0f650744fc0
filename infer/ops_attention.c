/* Top-K sparse attention as one operator: each query keeps its K best keys, softmax runs over those alone.
 *
 * Equal to MatMul, Mul, TopK, ReduceMin, GreaterOrEqual, Where(-1e9), Softmax, MatMul (models/README.md): a score
 * that equals the K-th best is kept too, as GreaterOrEqual keeps it, and exp(-1e9 - max) is exactly 0 in float. */
#include <math.h>
#include <string.h>

#include "infer/operators.h"

/* The K-th largest of `count` values, by quickselect (Hoare's FIND) on a copy in `work`; expected linear time. */
static float kth_largest(const float *values, int64_t count, int64_t keep, float *work) {
    memcpy(work, values, (size_t)count * sizeof *work);
    int64_t low = 0, high = count - 1, wanted = keep - 1;
    while (low < high) {
        float pivot = work[low + (high - low) / 2];
        int64_t i = low, j = high;
        while (i <= j) {
            while (work[i] > pivot)
                i++;
            while (work[j] < pivot)
                j--;
            if (i <= j) {
                float swap = work[i];
                work[i++] = work[j];
                work[j--] = swap;
            }
        }
        if (wanted <= j)
            high = j;
        else if (wanted >= i)
            low = i;
        else
            break;
    }
    return work[wanted];
}

/* Softmax of one row over the kept scores, in place; the others become 0. NaN passes through to the finite check. */
static void row_softmax(float *row, int64_t count, int64_t keep, float *work) {
    double sum = 0;
    for (int64_t n = 0; n < count; n++)
        sum += (double)row[n];
    if (!isfinite(sum)) { /* quickselect needs an order */
        row[0] = NAN;
        return;
    }
    float least = kth_largest(row, count, keep, work), most = row[0];
    for (int64_t n = 1; n < count; n++)
        most = row[n] > most ? row[n] : most;
    sum = 0;
    for (int64_t n = 0; n < count; n++) {
        row[n] = row[n] >= least ? expf(row[n] - most) : 0;
        sum += (double)row[n];
    }
    for (int64_t n = 0; n < count; n++)
        row[n] = (float)((double)row[n] / sum);
}

static int64_t side_of(const struct shape *shape, int back) {
    return shape->dims[shape->rank - back];
}

size_t infer_scratch_topk_softmax(const struct operation_call *call) {
    return (size_t)side_of(&call->in[0].shape, 1) * sizeof(float);
}

void infer_run_topk_softmax(const struct operation_call *call) {
    int64_t side = side_of(&call->in[0].shape, 1), total = infer_shape_count(&call->in[0].shape);
    int64_t keep = infer_node_int(call->node, "k", 1);
    float scale = infer_node_float(call->node, "scale", 1);
    for (int64_t row = 0; row < total; row += side) {
        const float *in = (const float *)call->in[0].data + row;
        float *out = (float *)call->out[0].data + row;
        for (int64_t n = 0; n < side; n++)
            out[n] = in[n] * scale;
        row_softmax(out, side, keep, call->scratch);
    }
}

/* One row of scores, and the copy that quickselect spoils. */
size_t infer_scratch_topk_attention(const struct operation_call *call) {
    return 2 * (size_t)side_of(&call->in[1].shape, 1) * sizeof(float);
}

struct attention {
    int64_t queries, depth, keys, wide, keep;
    float scale;
    float *row; /* [2 keys] scores, then weights; the second half is quickselect's */
};

/* One query: scores against every key [depth][keys], weights, weighted sum of the values [keys][wide]. */
static void attend(const struct attention *a, const float *query, const float *keys, const float *values, float *out) {
    float *row = a->row;
    memset(row, 0, (size_t)a->keys * sizeof *row);
    for (int64_t d = 0; d < a->depth; d++)
        for (int64_t n = 0; n < a->keys; n++)
            row[n] += query[d] * keys[d * a->keys + n];
    for (int64_t n = 0; n < a->keys; n++)
        row[n] *= a->scale;
    row_softmax(row, a->keys, a->keep, row + a->keys);
    memset(out, 0, (size_t)a->wide * sizeof *out);
    for (int64_t n = 0; n < a->keys; n++)
        for (int64_t w = 0; row[n] != 0 && w < a->wide; w++)
            out[w] += row[n] * values[n * a->wide + w];
}

void infer_run_topk_attention(const struct operation_call *call) {
    const struct shape *q = &call->in[0].shape, *k = &call->in[1].shape, *v = &call->in[2].shape;
    struct attention a = {.queries = side_of(q, 2), .depth = side_of(q, 1), .keys = side_of(k, 1)};
    a.wide = side_of(v, 1);
    a.keep = infer_node_int(call->node, "k", 1);
    a.scale = infer_node_float(call->node, "scale", 1);
    a.row = call->scratch;
    float *weights = call->out[1].data;
    int64_t rows = infer_shape_count(q) / a.depth;
    for (int64_t n = 0; n < rows; n++) {
        int64_t head = n / a.queries;
        attend(&a, (const float *)call->in[0].data + n * a.depth,
               (const float *)call->in[1].data + head * a.depth * a.keys,
               (const float *)call->in[2].data + head * a.keys * a.wide, (float *)call->out[0].data + n * a.wide);
        if (weights)
            memcpy(weights + n * a.keys, a.row, (size_t)a.keys * sizeof *weights);
    }
}
