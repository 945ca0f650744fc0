/* Operators that only move elements; plain row-major, any element type. */
#include <string.h>

#include "infer/operators.h"

/* Copies a strided view of the input to the output, whose shape it has: element (i0, i1, ...) of the output is input
 * element start + sum of i * stride. The last axis is copied at once where it is contiguous. */
static void copy_view(const struct operation_call *call, const int64_t *strides, int64_t start) {
    const struct shape *shape = &call->out[0].shape;
    size_t width = infer_element_size(call->out[0].element);
    const char *in = call->in[0].data;
    char *out = call->out[0].data;
    int last = shape->rank - 1;
    int64_t index[GRAPH_RANK_MAX] = {0}, at = start, total = infer_shape_count(shape);
    int64_t run = shape->rank ? shape->dims[last] : 1, step = shape->rank ? strides[last] : 1;
    for (int64_t done = 0; done < total; done += run) {
        if (step == 1)
            memcpy(out + (size_t)done * width, in + (size_t)at * width, (size_t)run * width);
        for (int64_t n = 0; step != 1 && n < run; n++)
            memcpy(out + (size_t)(done + n) * width, in + (size_t)(at + n * step) * width, width);
        for (int axis = last - 1; axis >= 0; axis--) {
            bool carry = ++index[axis] == shape->dims[axis];
            at += carry ? -strides[axis] * (shape->dims[axis] - 1) : strides[axis];
            if (!carry)
                break;
            index[axis] = 0;
        }
    }
}

static void plain_strides(const struct shape *shape, int64_t *out) {
    int64_t step = 1;
    for (int axis = shape->rank - 1; axis >= 0; axis--) {
        out[axis] = step;
        step *= shape->dims[axis];
    }
}

void infer_run_transpose(const struct operation_call *call) {
    const struct shape *input = &call->in[0].shape;
    int64_t order[GRAPH_ATTRIBUTE_INTS_MAX], from[GRAPH_RANK_MAX], strides[GRAPH_RANK_MAX];
    int count = infer_node_ints(call->node, "perm", order, GRAPH_ATTRIBUTE_INTS_MAX);
    plain_strides(input, from);
    for (int i = 0; i < input->rank; i++)
        strides[i] = from[count ? order[i] : input->rank - 1 - i];
    copy_view(call, strides, 0);
}

void infer_run_slice(const struct operation_call *call) {
    int64_t start[GRAPH_RANK_MAX], step[GRAPH_RANK_MAX], strides[GRAPH_RANK_MAX], at = 0;
    struct shape shape;
    if (!infer_slice_read(call, start, step, &shape, NULL)) /* was accepted when the shapes were inferred */
        return;
    plain_strides(&call->in[0].shape, strides);
    for (int i = 0; i < shape.rank; i++) {
        at += start[i] * strides[i];
        strides[i] *= step[i];
    }
    copy_view(call, strides, at);
}

void infer_run_expand(const struct operation_call *call) {
    const struct shape *input = &call->in[0].shape, *out = &call->out[0].shape;
    int64_t from[GRAPH_RANK_MAX], strides[GRAPH_RANK_MAX];
    plain_strides(input, from);
    for (int axis = 0; axis < out->rank; axis++) {
        int source = axis - (out->rank - input->rank);
        strides[axis] = source < 0 || input->dims[source] == 1 ? 0 : from[source];
    }
    copy_view(call, strides, 0);
}

/* Elements before and behind an axis. */
static void around_axis(const struct shape *shape, int axis, size_t *outer, size_t *inner) {
    *outer = *inner = 1;
    for (int i = 0; i < shape->rank; i++) {
        if (i < axis)
            *outer *= (size_t)shape->dims[i];
        if (i > axis)
            *inner *= (size_t)shape->dims[i];
    }
}

static int node_axis(const struct operation_call *call) {
    int64_t axis = infer_node_int(call->node, "axis", 0);
    return (int)(axis < 0 ? axis + call->in[0].shape.rank : axis);
}

void infer_run_gather(const struct operation_call *call) {
    const struct shape *input = &call->in[0].shape;
    int axis = node_axis(call);
    size_t outer = 0, inner = 0, side = (size_t)input->dims[axis];
    around_axis(input, axis, &outer, &inner);
    size_t bytes = inner * infer_element_size(call->in[0].element);
    size_t count = (size_t)infer_shape_count(&call->in[1].shape);
    const int64_t *index = call->in[1].data;
    const char *in = call->in[0].data;
    char *out = call->out[0].data;
    for (size_t o = 0; o < outer; o++)
        for (size_t n = 0; n < count; n++) {
            size_t at = (size_t)(index[n] < 0 ? index[n] + input->dims[axis] : index[n]);
            memcpy(out + (o * count + n) * bytes, in + (o * side + at) * bytes, bytes);
        }
}

void infer_run_split(const struct operation_call *call) {
    int axis = node_axis(call);
    size_t outer = 0, inner = 0, from = 0;
    around_axis(&call->in[0].shape, axis, &outer, &inner);
    inner *= infer_element_size(call->in[0].element);
    size_t pitch = (size_t)call->in[0].shape.dims[axis] * inner;
    for (int i = 0; i < call->node->output_count; i++) {
        size_t bytes = (size_t)call->out[i].shape.dims[axis] * inner;
        for (size_t o = 0; o < outer && call->out[i].data; o++)
            memcpy((char *)call->out[i].data + o * bytes, (const char *)call->in[0].data + o * pitch + from, bytes);
        from += bytes;
    }
}

void infer_run_concat(const struct operation_call *call) {
    int axis = node_axis(call);
    size_t outer = 0, inner = 0, to = 0;
    around_axis(&call->out[0].shape, axis, &outer, &inner);
    inner *= infer_element_size(call->out[0].element);
    size_t pitch = (size_t)call->out[0].shape.dims[axis] * inner;
    for (int i = 0; i < call->node->input_count; i++) {
        size_t bytes = (size_t)call->in[i].shape.dims[axis] * inner;
        for (size_t o = 0; o < outer; o++)
            memcpy((char *)call->out[0].data + o * pitch + to, (const char *)call->in[i].data + o * bytes, bytes);
        to += bytes;
    }
}
