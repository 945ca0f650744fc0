/* Reductions, softmax, Top-K and the plain matrix product; sums run in double, in index order. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/operators.h"

/* Sides and input strides of the kept and of the reduced axes. */
struct reduction {
    int kept, reduced;
    int64_t kept_side[GRAPH_RANK_MAX], kept_stride[GRAPH_RANK_MAX];
    int64_t reduced_side[GRAPH_RANK_MAX], reduced_stride[GRAPH_RANK_MAX];
    int64_t outputs, terms;
};

static struct reduction reduction_of(const struct shape *shape, unsigned mask) {
    struct reduction r = {.outputs = 1, .terms = 1};
    int64_t stride = infer_shape_count(shape);
    for (int axis = 0; axis < shape->rank; axis++) {
        stride /= shape->dims[axis];
        if (mask >> axis & 1) {
            r.reduced_side[r.reduced] = shape->dims[axis];
            r.reduced_stride[r.reduced++] = stride;
            r.terms *= shape->dims[axis];
        } else {
            r.kept_side[r.kept] = shape->dims[axis];
            r.kept_stride[r.kept++] = stride;
            r.outputs *= shape->dims[axis];
        }
    }
    return r;
}

/* Offset of entry n of an index over `rank` sides. */
static int64_t offset_of(int64_t n, int rank, const int64_t *side, const int64_t *stride) {
    int64_t offset = 0;
    for (int axis = rank - 1; axis >= 0; axis--) {
        offset += n % side[axis] * stride[axis];
        n /= side[axis];
    }
    return offset;
}

enum reduce { REDUCE_SUM, REDUCE_MEAN, REDUCE_MIN, REDUCE_MAX };

static double reduce_one(const float *in, const struct reduction *r, enum reduce how) {
    double result = how == REDUCE_MIN ? (double)INFINITY : how == REDUCE_MAX ? (double)-INFINITY : 0.0;
    for (int64_t n = 0; n < r->terms; n++) {
        int64_t at =
            r->reduced == 1 ? n * r->reduced_stride[0] : offset_of(n, r->reduced, r->reduced_side, r->reduced_stride);
        double value = (double)in[at];
        if (how == REDUCE_MIN)
            result = value < result ? value : result;
        else if (how == REDUCE_MAX)
            result = value > result ? value : result;
        else
            result += value;
    }
    return how == REDUCE_MEAN ? result / (double)r->terms : result;
}

/* Sums over one axis that is not the last: those of neighbours side by side, each in index order all the same. */
#define SUMS_TOGETHER 64

static void sum_columns(const float *in, const struct reduction *r, enum reduce how, float *out) {
    int64_t inner = r->reduced_stride[0];
    for (int64_t n = 0; n < r->outputs; n += inner, in += r->terms * inner)
        for (int64_t first = 0; first < inner; first += SUMS_TOGETHER) {
            int64_t here = inner - first < SUMS_TOGETHER ? inner - first : SUMS_TOGETHER;
            double sums[SUMS_TOGETHER] = {0};
            for (int64_t term = 0; term < r->terms; term++)
                for (int64_t k = 0; k < here; k++)
                    sums[k] += (double)in[term * inner + first + k];
            for (int64_t k = 0; k < here; k++)
                out[n + first + k] = (float)(how == REDUCE_MEAN ? sums[k] / (double)r->terms : sums[k]);
        }
}

static void reduce_with(const struct operation_call *call, unsigned mask, enum reduce how) {
    struct reduction r = reduction_of(&call->in[0].shape, mask);
    const float *in = call->in[0].data;
    float *out = call->out[0].data;
    if (r.reduced == 1 && r.reduced_stride[0] > 1 && (how == REDUCE_SUM || how == REDUCE_MEAN)) {
        sum_columns(in, &r, how, out);
        return;
    }
    for (int64_t n = 0; n < r.outputs; n++)
        out[n] = (float)reduce_one(in + offset_of(n, r.kept, r.kept_side, r.kept_stride), &r, how);
}

static void reduce(const struct operation_call *call, enum reduce how) {
    unsigned mask = 0;
    if (infer_reduce_axes(call, &mask, NULL)) /* was accepted when the shapes were inferred */
        reduce_with(call, mask, how);
}

void infer_run_reduce_mean(const struct operation_call *call) {
    reduce(call, REDUCE_MEAN);
}

void infer_run_reduce_sum(const struct operation_call *call) {
    reduce(call, REDUCE_SUM);
}

void infer_run_reduce_min(const struct operation_call *call) {
    reduce(call, REDUCE_MIN);
}

void infer_run_reduce_max(const struct operation_call *call) {
    reduce(call, REDUCE_MAX);
}

void infer_run_pool_global(const struct operation_call *call) {
    reduce_with(call, ((1U << call->in[0].shape.rank) - 1) & ~3U, REDUCE_MEAN);
}

static int64_t last_side(const struct shape *shape) {
    return shape->rank ? shape->dims[shape->rank - 1] : 1;
}

void infer_run_softmax(const struct operation_call *call) {
    int64_t side = last_side(&call->in[0].shape), total = infer_shape_count(&call->in[0].shape);
    for (int64_t row = 0; row < total; row += side) {
        const float *in = (const float *)call->in[0].data + row;
        float *out = (float *)call->out[0].data + row, most = in[0];
        double sum = 0;
        for (int64_t n = 1; n < side; n++)
            most = in[n] > most ? in[n] : most;
        for (int64_t n = 0; n < side; n++) {
            out[n] = expf(in[n] - most);
            sum += (double)out[n];
        }
        for (int64_t n = 0; n < side; n++)
            out[n] = (float)((double)out[n] / sum);
    }
}

struct ranked {
    float value;
    int32_t index;
};

/* NaN comes first, so that it is in the result, where it is found. */
static bool comes_before(float a, float b) {
    return a > b || (isnan(a) && !isnan(b));
}

static int ranked_compare(const void *left, const void *right) {
    const struct ranked *a = left, *b = right;
    if (comes_before(a->value, b->value) || comes_before(b->value, a->value))
        return comes_before(a->value, b->value) ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

size_t infer_scratch_topk(const struct operation_call *call) {
    return (size_t)last_side(&call->in[0].shape) * sizeof(struct ranked);
}

/* Fewer than so many are found by insertion, without sorting the rest. */
#define INSERTED_MAX 65

static void best_insert(const float *in, int64_t side, int64_t keep, struct ranked *best) {
    int64_t count = 0;
    for (int64_t n = 0; n < side; n++) {
        if (count == keep && !comes_before(in[n], best[keep - 1].value))
            continue;
        int64_t place = count < keep ? count++ : keep - 1;
        for (; place > 0 && comes_before(in[n], best[place - 1].value); place--)
            best[place] = best[place - 1];
        best[place] = (struct ranked){.value = in[n], .index = (int32_t)n};
    }
}

static void best_sort(const float *in, int64_t side, struct ranked *best) {
    for (int64_t n = 0; n < side; n++)
        best[n] = (struct ranked){.value = in[n], .index = (int32_t)n};
    qsort(best, (size_t)side, sizeof *best, ranked_compare);
}

/* Largest first; equal values in index order, as ONNX TopK says. */
void infer_run_topk(const struct operation_call *call) {
    int64_t side = last_side(&call->in[0].shape), keep = last_side(&call->out[0].shape);
    int64_t rows = infer_shape_count(&call->in[0].shape) / side;
    struct ranked *ranked = call->scratch;
    int64_t *indices = call->node->output_count > 1 ? call->out[1].data : NULL;
    for (int64_t row = 0; row < rows; row++) {
        const float *in = (const float *)call->in[0].data + row * side;
        if (keep < INSERTED_MAX)
            best_insert(in, side, keep, ranked);
        else
            best_sort(in, side, ranked);
        for (int64_t n = 0; n < keep; n++) {
            if (call->out[0].data)
                ((float *)call->out[0].data)[row * keep + n] = ranked[n].value;
            if (indices)
                indices[row * keep + n] = ranked[n].index;
        }
    }
}

/* Offset of matrix `batch` of an operand whose leading axes may be broadcast. */
static int64_t matrix_offset(const struct shape *operand, const struct shape *out, int64_t batch) {
    int64_t offset = 0, stride = operand->dims[operand->rank - 1] * operand->dims[operand->rank - 2];
    for (int back = 3; back <= out->rank; back++) {
        int64_t side = out->dims[out->rank - back], at = batch % side;
        batch /= side;
        if (back > operand->rank)
            continue;
        int64_t own = operand->dims[operand->rank - back];
        offset += own == 1 ? 0 : at * stride;
        stride *= own;
    }
    return offset;
}

void infer_run_matmul(const struct operation_call *call) {
    const struct shape *a = &call->in[0].shape, *b = &call->in[1].shape, *out = &call->out[0].shape;
    int64_t rows = a->dims[a->rank - 2], deep = a->dims[a->rank - 1], wide = b->dims[b->rank - 1];
    int64_t batches = infer_shape_count(out) / (rows * wide);
    const float *bias = call->present[2] ? call->in[2].data : NULL;
    for (int64_t batch = 0; batch < batches; batch++) {
        const float *one = (const float *)call->in[0].data + matrix_offset(a, out, batch);
        const float *two = (const float *)call->in[1].data + matrix_offset(b, out, batch);
        float *to = (float *)call->out[0].data + batch * rows * wide;
        for (int64_t cell = 0; cell < rows * wide; cell++) {
            int64_t row = cell / wide, column = cell % wide;
            double sum = bias ? (double)bias[column] : 0;
            for (int64_t n = 0; n < deep; n++)
                sum += (double)(one[row * deep + n] * two[n * wide + column]);
            to[cell] = (float)sum;
        }
    }
}

/* The bias element of a cell, broadcast to [rows][wide]. */
static float gemm_bias(const struct tensor *bias, int64_t row, int64_t column) {
    const struct shape *shape = &bias->shape;
    int64_t wide = last_side(shape), high = shape->rank == 2 ? shape->dims[0] : 1;
    return ((const float *)bias->data)[(high == 1 ? 0 : row * wide) + (wide == 1 ? 0 : column)];
}

void infer_run_gemm(const struct operation_call *call) {
    const struct shape *out = &call->out[0].shape, *a = &call->in[0].shape;
    bool ta = infer_node_int(call->node, "transA", 0) != 0, tb = infer_node_int(call->node, "transB", 0) != 0;
    float alpha = infer_node_float(call->node, "alpha", 1), beta = infer_node_float(call->node, "beta", 1);
    int64_t deep = a->dims[!ta], rows = out->dims[0], wide = out->dims[1];
    const float *one = call->in[0].data, *two = call->in[1].data;
    for (int64_t cell = 0; cell < rows * wide; cell++) {
        int64_t row = cell / wide, column = cell % wide;
        double sum = 0;
        for (int64_t n = 0; n < deep; n++)
            sum +=
                (double)(one[ta ? n * rows + row : row * deep + n] * two[tb ? column * deep + n : n * wide + column]);
        sum = (double)alpha * sum + (call->present[2] ? (double)(beta * gemm_bias(&call->in[2], row, column)) : 0);
        ((float *)call->out[0].data)[cell] = (float)sum;
    }
}
