/* Shape inference of operators that only move elements. */
#include <string.h>

#include "infer/operators.h"

bool infer_shape_concat(struct operation_call *call, struct err *err) {
    struct shape out = call->in[0].shape;
    int axis = 0;
    if (!infer_axis(infer_node_int(call->node, "axis", 0), out.rank, &axis, "axis", err))
        return false;
    for (int i = 1; i < call->node->input_count; i++) {
        const struct tensor *in = &call->in[i];
        if (in->element != call->in[0].element || in->shape.rank != out.rank)
            return err_set(err, ERR_INPUT, "input %d has another type or rank", i);
        for (int k = 0; k < out.rank; k++)
            if (k != axis && in->shape.dims[k] != out.dims[k])
                return err_set(err, ERR_INPUT, "input %d has side %lld on axis %d instead of %lld", i,
                               (long long)in->shape.dims[k], k, (long long)out.dims[k]);
        out.dims[axis] += in->shape.dims[axis];
    }
    call->out[0].element = call->in[0].element;
    call->out[0].shape = out;
    return infer_shape_check(&out, "output", err);
}

/* 0 copies the input's side, one -1 takes what is left. */
bool infer_shape_reshape(struct operation_call *call, struct err *err) {
    int64_t sides[GRAPH_ATTRIBUTE_INTS_MAX];
    int count = 0, unknown = -1;
    const struct shape *input = &call->in[0].shape;
    if (!infer_call_ints(call, 1, NULL, sides, &count, err))
        return false;
    if (count < 0 || count > GRAPH_RANK_MAX)
        return err_set(err, ERR_LIMIT, "a shape of rank %d", count);
    struct shape out = {.rank = count};
    int64_t known = 1, total = infer_shape_count(input);
    for (int i = 0; i < count; i++) {
        bool copied = sides[i] == 0 && infer_node_int(call->node, "allowzero", 0) == 0 && i < input->rank;
        out.dims[i] = copied ? input->dims[i] : sides[i];
        if (sides[i] == -1 && unknown < 0) {
            unknown = i;
            out.dims[i] = 1;
        }
        if (out.dims[i] < 0 || __builtin_mul_overflow(known, out.dims[i], &known) || known > GRAPH_ELEMENTS_MAX)
            return err_set(err, ERR_INPUT, "a side of %lld on axis %d", (long long)sides[i], i);
    }
    if (unknown >= 0 && known > 0)
        out.dims[unknown] = total / known;
    if (infer_shape_count(&out) != total)
        return err_set(err, ERR_INPUT, "%lld elements do not fit the new shape", (long long)total);
    call->out[0].element = call->in[0].element;
    call->out[0].shape = out;
    return true;
}

bool infer_shape_flatten(struct operation_call *call, struct err *err) {
    const struct shape *input = &call->in[0].shape;
    int64_t axis = infer_node_int(call->node, "axis", 1);
    axis = axis < 0 ? axis + input->rank : axis;
    if (axis < 0 || axis > input->rank)
        return err_set(err, ERR_INPUT, "axis %lld of rank %d", (long long)axis, input->rank);
    struct shape out = {.rank = 2, .dims = {1, 1}};
    for (int i = 0; i < input->rank; i++)
        out.dims[i >= axis] *= input->dims[i];
    call->out[0].element = call->in[0].element;
    call->out[0].shape = out;
    return true;
}

bool infer_shape_squeeze(struct operation_call *call, struct err *err) {
    int64_t axes[GRAPH_ATTRIBUTE_INTS_MAX];
    const struct shape *input = &call->in[0].shape;
    unsigned mask = 0;
    int count = 0;
    if (!infer_call_ints(call, 1, "axes", axes, &count, err))
        return false;
    for (int i = 0; i < count; i++) {
        int axis = 0;
        if (!infer_axis(axes[i], input->rank, &axis, "axes", err))
            return false;
        if (input->dims[axis] != 1)
            return err_set(err, ERR_INPUT, "axis %d has side %lld", axis, (long long)input->dims[axis]);
        mask |= 1U << axis;
    }
    struct shape out = {0};
    for (int axis = 0; axis < input->rank; axis++)
        if (!(mask >> axis & 1) && (count >= 0 || input->dims[axis] != 1))
            out.dims[out.rank++] = input->dims[axis];
    call->out[0].element = call->in[0].element;
    call->out[0].shape = out;
    return true;
}

bool infer_shape_unsqueeze(struct operation_call *call, struct err *err) {
    int64_t axes[GRAPH_ATTRIBUTE_INTS_MAX];
    const struct shape *input = &call->in[0].shape;
    unsigned mask = 0;
    int count = 0;
    if (!infer_call_ints(call, 1, "axes", axes, &count, err))
        return false;
    if (count < 1 || count + input->rank > GRAPH_RANK_MAX)
        return err_set(err, ERR_LIMIT, "%d new axes for rank %d", count, input->rank);
    int rank = input->rank + count;
    for (int i = 0; i < count; i++) {
        int axis = 0;
        if (!infer_axis(axes[i], rank, &axis, "axes", err))
            return false;
        if (mask >> axis & 1)
            return err_set(err, ERR_INPUT, "axis %d twice", axis);
        mask |= 1U << axis;
    }
    struct shape out = {.rank = rank};
    for (int axis = 0, from = 0; axis < rank; axis++)
        out.dims[axis] = mask >> axis & 1 ? 1 : input->dims[from++];
    call->out[0].element = call->in[0].element;
    call->out[0].shape = out;
    return true;
}

bool infer_shape_transpose(struct operation_call *call, struct err *err) {
    int64_t order[GRAPH_ATTRIBUTE_INTS_MAX];
    const struct shape *input = &call->in[0].shape;
    int count = infer_node_ints(call->node, "perm", order, GRAPH_ATTRIBUTE_INTS_MAX);
    if (count && count != input->rank)
        return err_set(err, ERR_INPUT, "perm of %d axes for rank %d", count, input->rank);
    unsigned seen = 0;
    struct shape out = {.rank = input->rank};
    for (int i = 0; i < input->rank; i++) {
        int64_t from = count ? order[i] : input->rank - 1 - i;
        if (from < 0 || from >= input->rank || (seen >> from & 1))
            return err_set(err, ERR_INPUT, "perm is no permutation");
        seen |= 1U << from;
        out.dims[i] = input->dims[from];
    }
    call->out[0].element = call->in[0].element;
    call->out[0].shape = out;
    return true;
}

static int64_t clamp(int64_t value, int64_t low, int64_t high) {
    return value < low ? low : value > high ? high : value;
}

/* One axis of a slice by the rules of ONNX: negative numbers count from the end, then both ends are clamped. */
static bool slice_axis(int64_t side, int64_t first, int64_t end, int64_t step, int64_t out[3], struct err *err) {
    if (step == 0 || step < -GRAPH_ELEMENTS_MAX || step > GRAPH_ELEMENTS_MAX)
        return err_set(err, ERR_INPUT, "a step of %lld", (long long)step);
    first = clamp(first < 0 && first >= -side ? first + side : first, step > 0 ? 0 : -1, step > 0 ? side : side - 1);
    end = clamp(end < 0 && end >= -side ? end + side : end, step > 0 ? 0 : -1, step > 0 ? side : side - 1);
    int64_t span = step > 0 ? end - first : first - end, stride = step > 0 ? step : -step;
    out[0] = first;
    out[1] = step;
    out[2] = span > 0 ? (span + stride - 1) / stride : 0;
    if (out[2] == 0)
        return err_set(err, ERR_UNSUPPORTED, "an empty slice");
    return true;
}

bool infer_slice_read(const struct operation_call *call, int64_t *start, int64_t *step, struct shape *shape,
                      struct err *err) {
    static const char *const names[] = {NULL, "starts", "ends", "axes", "steps"};
    int64_t lists[5][GRAPH_ATTRIBUTE_INTS_MAX];
    int counts[5] = {0};
    for (int i = 1; i < 5; i++)
        if (!infer_call_ints(call, i, names[i], lists[i], &counts[i], err))
            return false;
    if (counts[1] < 1 || counts[2] != counts[1] || (counts[3] >= 0 && counts[3] != counts[1]) ||
        (counts[4] >= 0 && counts[4] != counts[1]))
        return err_set(err, ERR_INPUT, "starts, ends, axes and steps differ in number");
    *shape = call->in[0].shape;
    for (int i = 0; i < shape->rank; i++) {
        start[i] = 0;
        step[i] = 1;
    }
    for (int i = 0; i < counts[1]; i++) {
        int axis = 0;
        int64_t range[3] = {0};
        if (!infer_axis(counts[3] >= 0 ? lists[3][i] : i, shape->rank, &axis, "axes", err) ||
            !slice_axis(call->in[0].shape.dims[axis], lists[1][i], lists[2][i], counts[4] >= 0 ? lists[4][i] : 1, range,
                        err))
            return false;
        start[axis] = range[0];
        step[axis] = range[1];
        shape->dims[axis] = range[2];
    }
    return true;
}

bool infer_shape_slice(struct operation_call *call, struct err *err) {
    int64_t start[GRAPH_RANK_MAX], step[GRAPH_RANK_MAX];
    call->out[0].element = call->in[0].element;
    return infer_slice_read(call, start, step, &call->out[0].shape, err);
}

bool infer_shape_gather(struct operation_call *call, struct err *err) {
    const struct shape *input = &call->in[0].shape;
    const struct tensor *index = &call->in[1];
    int axis = 0;
    if (!infer_axis(infer_node_int(call->node, "axis", 0), input->rank, &axis, "axis", err))
        return false;
    if (!index->data || index->element != ELEMENT_I64)
        return err_set(err, ERR_UNSUPPORTED, "indices are not constant int64");
    int64_t count = infer_shape_count(&index->shape);
    for (int64_t i = 0; i < count; i++) {
        int64_t at = ((const int64_t *)index->data)[i];
        if (at < -input->dims[axis] || at >= input->dims[axis])
            return err_set(err, ERR_INPUT, "index %lld on a side of %lld", (long long)at, (long long)input->dims[axis]);
    }
    if (input->rank - 1 + index->shape.rank > GRAPH_RANK_MAX)
        return err_set(err, ERR_LIMIT, "the result's rank is beyond %d", GRAPH_RANK_MAX);
    struct shape out = {0};
    for (int i = 0; i < axis; i++)
        out.dims[out.rank++] = input->dims[i];
    for (int i = 0; i < index->shape.rank; i++)
        out.dims[out.rank++] = index->shape.dims[i];
    for (int i = axis + 1; i < input->rank; i++)
        out.dims[out.rank++] = input->dims[i];
    call->out[0].element = call->in[0].element;
    call->out[0].shape = out;
    return infer_shape_check(&out, "output", err);
}

bool infer_shape_split(struct operation_call *call, struct err *err) {
    const struct shape *input = &call->in[0].shape;
    int64_t sizes[GRAPH_ATTRIBUTE_INTS_MAX], total = 0;
    int axis = 0, given = 0, count = call->node->output_count;
    if (!infer_axis(infer_node_int(call->node, "axis", 0), input->rank, &axis, "axis", err) ||
        !infer_call_ints(call, 1, "split", sizes, &given, err))
        return false;
    if (given >= 0 && given != count)
        return err_set(err, ERR_INPUT, "%d sizes for %d outputs", given, count);
    for (int i = 0; i < count; i++) {
        int64_t size = given >= 0 ? sizes[i] : input->dims[axis] / count;
        if (size < 1 || size > input->dims[axis])
            return err_set(err, ERR_INPUT, "a part of %lld", (long long)size);
        total += size;
        call->out[i].element = call->in[0].element;
        call->out[i].shape = *input;
        call->out[i].shape.dims[axis] = size;
    }
    if (total != input->dims[axis])
        return err_set(err, ERR_INPUT, "the parts have %lld of %lld", (long long)total, (long long)input->dims[axis]);
    return true;
}

bool infer_shape_expand(struct operation_call *call, struct err *err) {
    int64_t sides[GRAPH_ATTRIBUTE_INTS_MAX];
    int count = 0;
    if (!infer_call_ints(call, 1, NULL, sides, &count, err))
        return false;
    if (count < 0 || count > GRAPH_RANK_MAX)
        return err_set(err, ERR_LIMIT, "a shape of rank %d", count);
    struct shape wanted = {.rank = count};
    memcpy(wanted.dims, sides, (size_t)count * sizeof *sides);
    call->out[0].element = call->in[0].element;
    call->out[0].shape = call->in[0].shape;
    return infer_shape_check(&wanted, "shape", err) && infer_shapes_join(&call->out[0].shape, &wanted, "shape", err);
}
