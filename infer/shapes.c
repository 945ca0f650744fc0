/* Shape inference of operators that compute. Each function reads call->in and sets element and shape of call->out. */
#include <math.h>
#include <string.h>

#include "infer/operators.h"

bool infer_axis(int64_t axis, int rank, int *out, const char *name, struct err *err) {
    if (axis < -rank || axis >= rank)
        return err_set(err, ERR_INPUT, "%s: axis %lld of rank %d", name, (long long)axis, rank);
    *out = (int)(axis < 0 ? axis + rank : axis);
    return true;
}

bool infer_shapes_join(struct shape *inout, const struct shape *b, const char *name, struct err *err) {
    struct shape joined = {.rank = inout->rank > b->rank ? inout->rank : b->rank};
    for (int back = 1; back <= joined.rank; back++) {
        int64_t one = back <= inout->rank ? inout->dims[inout->rank - back] : 1;
        int64_t two = back <= b->rank ? b->dims[b->rank - back] : 1;
        if (one != two && one != 1 && two != 1)
            return err_set(err, ERR_INPUT, "%s: sides %lld and %lld do not fit", name, (long long)one, (long long)two);
        joined.dims[joined.rank - back] = one == 1 ? two : one;
    }
    *inout = joined;
    return infer_shape_check(inout, name, err);
}

static bool expect_float(const struct operation_call *call, int count, struct err *err) {
    for (int i = 0; i < count; i++)
        if (call->present[i] && call->in[i].element != ELEMENT_F32)
            return err_set(err, ERR_UNSUPPORTED, "input %d is not float", i);
    return true;
}

bool infer_call_ints(const struct operation_call *call, int index, const char *attribute, int64_t *out, int *count,
                     struct err *err) {
    *count = -1;
    if (call->present[index] && index < call->node->input_count) {
        const struct tensor *tensor = &call->in[index];
        if (!tensor->data || tensor->element != ELEMENT_I64 || tensor->shape.rank > 1)
            return err_set(err, ERR_UNSUPPORTED, "input %d is not a constant list of int64", index);
        int64_t held = infer_shape_count(&tensor->shape);
        if (held > GRAPH_ATTRIBUTE_INTS_MAX)
            return err_set(err, ERR_LIMIT, "input %d holds %lld numbers", index, (long long)held);
        memcpy(out, tensor->data, (size_t)held * sizeof *out);
        *count = (int)held;
        return true;
    }
    if (attribute && infer_node_attribute(call->node, attribute))
        *count = infer_node_ints(call->node, attribute, out, GRAPH_ATTRIBUTE_INTS_MAX);
    return true;
}

bool infer_shape_same(struct operation_call *call, struct err *err) {
    call->out[0].element = call->in[0].element;
    call->out[0].shape = call->in[0].shape;
    return call->node->operation->kind == OPERATOR_ALIAS || expect_float(call, 1, err);
}

bool infer_shape_broadcast(struct operation_call *call, struct err *err) {
    call->out[0].element = ELEMENT_F32;
    call->out[0].shape = call->in[0].shape;
    return expect_float(call, 2, err) && infer_shapes_join(&call->out[0].shape, &call->in[1].shape, "operands", err);
}

bool infer_shape_compare(struct operation_call *call, struct err *err) {
    bool good = infer_shape_broadcast(call, err);
    call->out[0].element = ELEMENT_BOOL;
    return good;
}

bool infer_shape_where(struct operation_call *call, struct err *err) {
    if (call->in[0].element != ELEMENT_BOOL || call->in[1].element != ELEMENT_F32 || call->in[2].element != ELEMENT_F32)
        return err_set(err, ERR_UNSUPPORTED, "Where takes a bool and two floats here");
    call->out[0].element = ELEMENT_F32;
    call->out[0].shape = call->in[0].shape;
    return infer_shapes_join(&call->out[0].shape, &call->in[1].shape, "operands", err) &&
           infer_shapes_join(&call->out[0].shape, &call->in[2].shape, "operands", err);
}

/* ---- windows: convolution and pooling ------------------------------------------------------------------ */

#define WINDOW_SIDE_MAX 64 /* of kernel, stride, dilation, padding */

static bool window_list(const struct graph_node *node, const char *name, int64_t *out, int count, int64_t least,
                        struct err *err) {
    int64_t given[GRAPH_ATTRIBUTE_INTS_MAX];
    int held = infer_node_ints(node, name, given, GRAPH_ATTRIBUTE_INTS_MAX);
    if (held == 0)
        return true;
    if (held != count)
        return err_set(err, ERR_INPUT, "%s has %d numbers instead of %d", name, held, count);
    for (int i = 0; i < count; i++) {
        if (given[i] < least || given[i] > WINDOW_SIDE_MAX)
            return err_set(err, ERR_LIMIT, "%s holds %lld", name, (long long)given[i]);
        out[i] = given[i];
    }
    return true;
}

bool infer_window_read(const struct graph_node *node, const struct shape *input, const int64_t *kernel,
                       struct window *out, struct err *err) {
    struct window window = {.spatial = input->rank - 2, .group = infer_node_int(node, "group", 1)};
    if (window.spatial < 1 || window.spatial > SPATIAL_MAX)
        return err_set(err, ERR_UNSUPPORTED, "input of rank %d (3 to 5 are supported)", input->rank);
    int64_t pads[2 * SPATIAL_MAX] = {0};
    for (int i = 0; i < window.spatial; i++) {
        window.kernel[i] = kernel ? kernel[i] : 0;
        window.stride[i] = window.dilation[i] = 1;
    }
    const char *automatic = infer_node_text(node, "auto_pad", "NOTSET");
    if (strcmp(automatic, "NOTSET") != 0 || infer_node_int(node, "ceil_mode", 0) != 0)
        return err_set(err, ERR_UNSUPPORTED, "auto_pad %s, ceil_mode %lld", automatic,
                       (long long)infer_node_int(node, "ceil_mode", 0));
    if (!window_list(node, "kernel_shape", window.kernel, window.spatial, 1, err) ||
        !window_list(node, "strides", window.stride, window.spatial, 1, err) ||
        !window_list(node, "dilations", window.dilation, window.spatial, 1, err) ||
        !window_list(node, "pads", pads, 2 * window.spatial, 0, err))
        return false;
    for (int i = 0; i < window.spatial; i++) {
        if (window.kernel[i] < 1 || window.kernel[i] > WINDOW_SIDE_MAX || (kernel && kernel[i] != window.kernel[i]))
            return err_set(err, ERR_INPUT, "kernel_shape %lld on axis %d", (long long)window.kernel[i], i);
        window.before[i] = pads[i];
        window.after[i] = pads[window.spatial + i];
    }
    *out = window;
    return true;
}

/* out = floor((in + before + after - ((kernel - 1) dilation + 1)) / stride) + 1 */
static bool window_output(const struct window *window, const struct shape *input, struct shape *out, struct err *err) {
    for (int i = 0; i < window->spatial; i++) {
        int64_t reach = (window->kernel[i] - 1) * window->dilation[i] + 1;
        int64_t side = input->dims[2 + i] + window->before[i] + window->after[i];
        if (side < reach)
            return err_set(err, ERR_INPUT, "a kernel of %lld on a side of %lld", (long long)reach, (long long)side);
        out->dims[2 + i] = (side - reach) / window->stride[i] + 1;
    }
    return infer_shape_check(out, "output", err);
}

bool infer_shape_conv(struct operation_call *call, struct err *err) {
    const struct shape *input = &call->in[0].shape, *weights = &call->in[1].shape;
    struct window window;
    if (!expect_float(call, 3, err))
        return false;
    if (!call->in[1].data || (call->present[2] && !call->in[2].data))
        return err_set(err, ERR_UNSUPPORTED, "weights must be constants");
    if (weights->rank != input->rank)
        return err_set(err, ERR_INPUT, "weights of rank %d for an input of rank %d", weights->rank, input->rank);
    if (!infer_window_read(call->node, input, weights->dims + 2, &window, err))
        return false;
    if (window.group != 1)
        return err_set(err, ERR_UNSUPPORTED, "%lld groups", (long long)window.group);
    if (weights->dims[1] != input->dims[1] || weights->dims[0] < 1)
        return err_set(err, ERR_INPUT, "weights for %lld channels, the input has %lld", (long long)weights->dims[1],
                       (long long)input->dims[1]);
    if (call->present[2] && (call->in[2].shape.rank != 1 || call->in[2].shape.dims[0] != weights->dims[0]))
        return err_set(err, ERR_INPUT, "the bias does not have %lld elements", (long long)weights->dims[0]);
    struct shape *out = &call->out[0].shape;
    *out = *input;
    out->dims[1] = weights->dims[0];
    return window_output(&window, input, out, err);
}

bool infer_shape_batch_normalization(struct operation_call *call, struct err *err) {
    const struct shape *input = &call->in[0].shape;
    if (!expect_float(call, 5, err))
        return false;
    if (infer_node_int(call->node, "training_mode", 0) != 0)
        return err_set(err, ERR_UNSUPPORTED, "training_mode is on");
    if (input->rank < 2)
        return err_set(err, ERR_INPUT, "input of rank %d", input->rank);
    for (int i = 1; i < 5; i++)
        if (!call->in[i].data || call->in[i].shape.rank != 1 || call->in[i].shape.dims[0] != input->dims[1])
            return err_set(err, ERR_INPUT, "input %d is not a constant of %lld elements", i, (long long)input->dims[1]);
    call->out[0].shape = *input;
    return true;
}

bool infer_shape_pool(struct operation_call *call, struct err *err) {
    struct window window;
    const struct shape *input = &call->in[0].shape;
    if (!expect_float(call, 1, err) || !infer_window_read(call->node, input, NULL, &window, err))
        return false;
    if (infer_node_int(call->node, "storage_order", 0) != 0)
        return err_set(err, ERR_UNSUPPORTED, "storage_order is not 0");
    for (int i = 0; i < window.spatial; i++)
        if (window.before[i] >= window.kernel[i] || window.after[i] >= window.kernel[i])
            return err_set(err, ERR_INPUT, "padding as wide as the kernel");
    call->out[0].shape = *input;
    return window_output(&window, input, &call->out[0].shape, err);
}

bool infer_shape_pool_global(struct operation_call *call, struct err *err) {
    if (call->in[0].shape.rank < 3)
        return err_set(err, ERR_INPUT, "input of rank %d", call->in[0].shape.rank);
    call->out[0].shape = call->in[0].shape;
    for (int i = 2; i < call->out[0].shape.rank; i++)
        call->out[0].shape.dims[i] = 1;
    return expect_float(call, 1, err);
}

/* ---- Resize -------------------------------------------------------------------------------------------- */

#define RESIZE_FACTOR_MAX 16

static bool resize_factors(const struct operation_call *call, int64_t *out, struct err *err) {
    const struct shape *input = &call->in[0].shape;
    const struct tensor *scales = &call->in[2], *sizes = &call->in[3];
    bool by_size = call->present[3];
    const struct tensor *given = by_size ? sizes : scales;
    if (!(by_size || call->present[2]) || !given->data || given->shape.rank != 1 ||
        given->shape.dims[0] != input->rank || given->element != (by_size ? ELEMENT_I64 : ELEMENT_F32))
        return err_set(err, ERR_UNSUPPORTED, "needs constant scales or sizes for each axis");
    for (int i = 0; i < input->rank; i++) {
        double factor = by_size ? (double)((const int64_t *)given->data)[i] / (double)input->dims[i]
                                : (double)((const float *)given->data)[i];
        if (!(factor >= 1 && factor <= RESIZE_FACTOR_MAX) || factor != floor(factor) || (i < 2 && factor != 1))
            return err_set(err, ERR_UNSUPPORTED, "a factor of %g on axis %d (whole ones only)", factor, i);
        out[i] = (int64_t)factor;
    }
    return true;
}

/* For whole factors s these pairs read source cell floor(o / s), the only nearest neighbour supported. */
static bool resize_mode_known(const struct graph_node *node) {
    const char *mode = infer_node_text(node, "mode", "nearest");
    const char *place = infer_node_text(node, "coordinate_transformation_mode", "half_pixel");
    const char *round = infer_node_text(node, "nearest_mode", "round_prefer_floor");
    bool asymmetric = strcmp(place, "asymmetric") == 0 && strcmp(round, "floor") == 0;
    bool half = strcmp(place, "half_pixel") == 0 && strncmp(round, "round_prefer_", 13) == 0;
    return strcmp(mode, "nearest") == 0 && (asymmetric || half);
}

bool infer_shape_resize(struct operation_call *call, struct err *err) {
    const struct shape *input = &call->in[0].shape;
    int64_t factors[GRAPH_RANK_MAX];
    if (!expect_float(call, 1, err))
        return false;
    if (input->rank < 3 || input->rank > 5 || !resize_mode_known(call->node))
        return err_set(err, ERR_UNSUPPORTED, "only nearest (asymmetric with floor, or half_pixel) of rank 3 to 5");
    if (!resize_factors(call, factors, err))
        return false;
    call->out[0].shape = *input;
    for (int i = 0; i < input->rank; i++)
        call->out[0].shape.dims[i] *= factors[i];
    return infer_shape_check(&call->out[0].shape, "output", err);
}

/* ---- matrices ------------------------------------------------------------------------------------------ */

bool infer_shape_matmul(struct operation_call *call, struct err *err) {
    const struct shape *a = &call->in[0].shape, *b = &call->in[1].shape;
    if (!expect_float(call, 3, err))
        return false;
    if (a->rank < 2 || b->rank < 2)
        return err_set(err, ERR_UNSUPPORTED, "operands of rank %d and %d", a->rank, b->rank);
    if (a->dims[a->rank - 1] != b->dims[b->rank - 2])
        return err_set(err, ERR_INPUT, "%lld columns times %lld rows", (long long)a->dims[a->rank - 1],
                       (long long)b->dims[b->rank - 2]);
    struct shape outer = *a, outer_b = *b;
    outer.rank -= 2;
    outer_b.rank -= 2;
    if (!infer_shapes_join(&outer, &outer_b, "batches", err))
        return false;
    outer.dims[outer.rank] = a->dims[a->rank - 2];
    outer.dims[outer.rank + 1] = b->dims[b->rank - 1];
    outer.rank += 2;
    if (call->present[2] &&
        (call->in[2].shape.rank != 1 || call->in[2].shape.dims[0] != b->dims[b->rank - 1] || !call->in[2].data))
        return err_set(err, ERR_INPUT, "the bias is no constant row");
    call->out[0].shape = outer;
    return infer_shape_check(&outer, "output", err);
}

bool infer_shape_gemm(struct operation_call *call, struct err *err) {
    const struct shape *a = &call->in[0].shape, *b = &call->in[1].shape;
    if (!expect_float(call, 3, err))
        return false;
    if (a->rank != 2 || b->rank != 2)
        return err_set(err, ERR_INPUT, "operands of rank %d and %d", a->rank, b->rank);
    int ta = infer_node_int(call->node, "transA", 0) != 0, tb = infer_node_int(call->node, "transB", 0) != 0;
    if (a->dims[!ta] != b->dims[tb])
        return err_set(err, ERR_INPUT, "%lld columns times %lld rows", (long long)a->dims[!ta], (long long)b->dims[tb]);
    call->out[0].shape = (struct shape){.rank = 2, .dims = {a->dims[ta], b->dims[!tb]}};
    struct shape joined = call->out[0].shape;
    if (call->present[2] && (!infer_shapes_join(&joined, &call->in[2].shape, "bias", err)))
        return false;
    if (!infer_shape_equal(&joined, &call->out[0].shape))
        return err_set(err, ERR_INPUT, "the bias is bigger than the product");
    return infer_shape_check(&joined, "output", err);
}

/* ---- reductions ---------------------------------------------------------------------------------------- */

bool infer_reduce_axes(const struct operation_call *call, unsigned *out, struct err *err) {
    int64_t axes[GRAPH_ATTRIBUTE_INTS_MAX];
    int count = 0, rank = call->in[0].shape.rank;
    if (!infer_call_ints(call, 1, "axes", axes, &count, err))
        return false;
    unsigned mask = count < 1 ? (1U << rank) - 1 : 0;
    if (count < 1 && infer_node_int(call->node, "noop_with_empty_axes", 0) != 0)
        mask = 0;
    for (int i = 0; i < count && i < GRAPH_ATTRIBUTE_INTS_MAX; i++) {
        int axis = 0;
        if (!infer_axis(axes[i], rank, &axis, "axes", err))
            return false;
        mask |= 1U << axis;
    }
    *out = mask;
    return true;
}

bool infer_shape_reduce(struct operation_call *call, struct err *err) {
    unsigned mask = 0;
    const struct shape *input = &call->in[0].shape;
    if (!expect_float(call, 1, err) || !infer_reduce_axes(call, &mask, err))
        return false;
    bool keep = infer_node_int(call->node, "keepdims", 1) != 0;
    struct shape out = {0};
    for (int axis = 0; axis < input->rank; axis++) {
        bool reduced = mask >> axis & 1;
        if (reduced && input->dims[axis] == 0)
            return err_set(err, ERR_INPUT, "nothing to reduce on axis %d", axis);
        if (!reduced || keep)
            out.dims[out.rank++] = reduced ? 1 : input->dims[axis];
    }
    call->out[0].shape = out;
    return true;
}

bool infer_shape_softmax(struct operation_call *call, struct err *err) {
    int axis = 0, rank = call->in[0].shape.rank;
    if (!infer_axis(infer_node_int(call->node, "axis", -1), rank, &axis, "axis", err))
        return false;
    if (axis != rank - 1)
        return err_set(err, ERR_UNSUPPORTED, "only over the last axis, not %d of %d", axis, rank);
    return infer_shape_same(call, err);
}

static bool last_axis_keep(const struct operation_call *call, int64_t keep, struct err *err) {
    const struct shape *input = &call->in[0].shape;
    int axis = 0;
    if (!infer_axis(infer_node_int(call->node, "axis", -1), input->rank, &axis, "axis", err))
        return false;
    if (axis != input->rank - 1 || infer_node_int(call->node, "largest", 1) != 1)
        return err_set(err, ERR_UNSUPPORTED, "only the largest over the last axis");
    if (keep < 1 || keep > input->dims[axis])
        return err_set(err, ERR_INPUT, "K = %lld of %lld", (long long)keep, (long long)input->dims[axis]);
    return true;
}

bool infer_shape_topk(struct operation_call *call, struct err *err) {
    int64_t keep[GRAPH_ATTRIBUTE_INTS_MAX];
    int count = 0;
    if (!expect_float(call, 1, err) || !infer_call_ints(call, 1, NULL, keep, &count, err))
        return false;
    if (count != 1)
        return err_set(err, ERR_INPUT, "K is not one number");
    if (!last_axis_keep(call, keep[0], err))
        return false;
    call->out[0].shape = call->in[0].shape;
    call->out[0].shape.dims[call->in[0].shape.rank - 1] = keep[0];
    call->out[1] = (struct tensor){.element = ELEMENT_I64, .shape = call->out[0].shape};
    return true;
}

bool infer_shape_dropout(struct operation_call *call, struct err *err) {
    const struct tensor *ratio = &call->in[1];
    if (call->present[1]) {
        bool scalar = ratio->data && ratio->element == ELEMENT_F32 && infer_shape_count(&ratio->shape) == 1;
        float value = scalar ? *(const float *)ratio->data : -1;
        if (!(value >= 0 && value < 1))
            return err_set(err, ERR_INPUT, "the ratio is not a constant in [0, 1)");
    }
    return infer_shape_same(call, err) && expect_float(call, 1, err);
}

/* ---- fused by infer_graph_fuse ------------------------------------------------------------------------- */

bool infer_shape_topk_softmax(struct operation_call *call, struct err *err) {
    return expect_float(call, 1, err) && last_axis_keep(call, infer_node_int(call->node, "k", 0), err) &&
           infer_shape_same(call, err);
}

bool infer_shape_topk_attention(struct operation_call *call, struct err *err) {
    const struct shape *q = &call->in[0].shape, *k = &call->in[1].shape, *v = &call->in[2].shape;
    if (!expect_float(call, 3, err))
        return false;
    if (q->rank != k->rank || q->rank != v->rank || q->rank < 2)
        return err_set(err, ERR_UNSUPPORTED, "attention over ranks %d, %d, %d", q->rank, k->rank, v->rank);
    int last = q->rank - 1;
    for (int i = 0; i < last - 1; i++)
        if (q->dims[i] != k->dims[i] || q->dims[i] != v->dims[i])
            return err_set(err, ERR_UNSUPPORTED, "attention that broadcasts axis %d", i);
    int64_t keep = infer_node_int(call->node, "k", 0);
    if (q->dims[last] != k->dims[last - 1] || k->dims[last] != v->dims[last - 1] || keep < 1 || keep > k->dims[last])
        return err_set(err, ERR_INPUT, "queries, keys and values do not fit, or K is too big");
    call->out[0].shape = *q;
    call->out[0].shape.dims[last] = v->dims[last];
    call->out[1].shape = *q;
    call->out[1].shape.dims[last] = k->dims[last];
    return infer_shape_check(&call->out[0].shape, "output", err) &&
           infer_shape_check(&call->out[1].shape, "weights", err);
}

/* [batch or 1][1][1][keys] */
static bool key_row_check(const struct tensor *row, enum element element, const struct shape *keys, struct err *err) {
    const struct shape *shape = &row->shape;
    if (row->element == element && shape->rank == 4 && (shape->dims[0] == 1 || shape->dims[0] == keys->dims[0]) &&
        shape->dims[1] == 1 && shape->dims[2] == 1 && shape->dims[3] == keys->dims[3])
        return true;
    return err_set(err, ERR_UNSUPPORTED, "a mask or bias that is not one for all queries");
}

bool infer_shape_masked_attention(struct operation_call *call, struct err *err) {
    const struct shape *q = &call->in[0].shape, *k = &call->in[1].shape, *v = &call->in[2].shape;
    if (!expect_float(call, 3, err))
        return false;
    if (q->rank != 4 || k->rank != 4 || v->rank != 4)
        return err_set(err, ERR_UNSUPPORTED, "attention over ranks %d, %d, %d", q->rank, k->rank, v->rank);
    for (int i = 0; i < 2; i++)
        if (q->dims[i] != k->dims[i] || q->dims[i] != v->dims[i])
            return err_set(err, ERR_UNSUPPORTED, "attention that broadcasts axis %d", i);
    if (q->dims[3] != k->dims[2] || k->dims[3] != v->dims[2])
        return err_set(err, ERR_INPUT, "queries, keys and values do not fit");
    if (!key_row_check(&call->in[3], ELEMENT_BOOL, k, err) ||
        (call->present[4] && !key_row_check(&call->in[4], ELEMENT_F32, k, err)))
        return false;
    call->out[0].shape = *q;
    call->out[0].shape.dims[3] = v->dims[3];
    call->out[1].shape = *q;
    call->out[1].shape.dims[3] = k->dims[3];
    return infer_shape_check(&call->out[0].shape, "output", err) &&
           infer_shape_check(&call->out[1].shape, "weights", err);
}
