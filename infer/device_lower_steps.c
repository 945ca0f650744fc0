/* Lowering, second half: one operator becomes one step. Convolutions, pooling and what joins them work on images
 * (channels-last halves), everything else on row-major floats; a value is converted where the two meet. */
#include "infer/device_lower_steps.h"

#include <stdlib.h>
#include <string.h>

#include "infer/cuda/half.h"

/* ---- values ---------------------------------------------------------------------------------------------------- */

struct device_tensor device_lower_plain(const struct shape *shape) {
    struct device_tensor tensor = {.element = DEVICE_F32, .layout = DEVICE_PLAIN, .rank = shape->rank};
    memcpy(tensor.dims, shape->dims, sizeof tensor.dims);
    return tensor;
}

static struct device_tensor image_of(const struct shape *shape) {
    struct device_tensor tensor = device_lower_plain(shape);
    tensor.element = DEVICE_F16;
    tensor.layout = DEVICE_CHANNELS_LAST;
    return tensor;
}

/* A copy of tensor `from` in the form of `wanted`. */
static int convert(struct lowering *lowering, int from, const struct device_tensor *wanted, struct err *err) {
    struct device_step *step = device_lower_step(lowering, DEVICE_CONVERT, "conversion", err);
    int to = step ? device_lower_tensor(lowering, wanted, -1, err) : -1;
    if (to < 0)
        return -1;
    step->inputs[0] = from;
    step->outputs[0] = to;
    return to;
}

int device_lower_value_plain(struct lowering *lowering, struct lower_graph *graph, int value, struct err *err) {
    const struct tensor *tensor = &graph->shapes[value];
    struct device_tensor wanted = device_lower_plain(&tensor->shape);
    if (tensor->element != ELEMENT_F32 && (tensor->element != ELEMENT_BOOL || tensor->data)) {
        err_set(err, ERR_UNSUPPORTED, "a value that is not float");
        return -1;
    }
    if (graph->plain[value] < 0 && tensor->data)
        graph->plain[value] = device_lower_constant(lowering, &wanted, tensor->data, err);
    else if (graph->plain[value] < 0)
        graph->plain[value] = convert(lowering, graph->image[value], &wanted, err);
    return graph->plain[value];
}

static int value_image(struct lowering *lowering, struct lower_graph *graph, int value, struct err *err) {
    const struct tensor *tensor = &graph->shapes[value];
    struct device_tensor wanted = image_of(&tensor->shape);
    if (tensor->element != ELEMENT_F32 || tensor->shape.rank != 5) {
        err_set(err, ERR_UNSUPPORTED, "an image of rank %d", tensor->shape.rank);
        return -1;
    }
    if (graph->image[value] < 0) {
        int plain = device_lower_value_plain(lowering, graph, value, err);
        graph->image[value] = plain < 0 ? -1 : convert(lowering, plain, &wanted, err);
    }
    return graph->image[value];
}

static bool is_image(const struct lower_graph *graph, int value) {
    return graph->image[value] >= 0;
}

/* The result of the node's output k, as image or row-major. */
static int result(struct lowering *lowering, struct lower_graph *graph, int value, bool image, struct err *err) {
    const struct shape *shape = &graph->shapes[value].shape;
    struct device_tensor tensor = image ? image_of(shape) : device_lower_plain(shape);
    int index = device_lower_tensor(lowering, &tensor, -1, err);
    (image ? graph->image : graph->plain)[value] = index;
    return index;
}

/* A step with one input, already lowered, and the node's first output. */
static struct device_step *unary(struct lowering *lowering, struct lower_graph *graph, const struct graph_node *node,
                                 enum device_step_kind kind, struct err *err) {
    bool image =
        kind == DEVICE_POOL_MAX || kind == DEVICE_RESIZE || (kind == DEVICE_UNARY && is_image(graph, node->inputs[0]));
    int in = image ? value_image(lowering, graph, node->inputs[0], err)
                   : device_lower_value_plain(lowering, graph, node->inputs[0], err);
    struct device_step *step = in < 0 ? NULL : device_lower_step(lowering, kind, node->name, err);
    int out = step ? result(lowering, graph, node->outputs[0], image, err) : -1;
    if (out < 0)
        return NULL;
    step->inputs[0] = in;
    step->outputs[0] = out;
    return step;
}

/* ---- images ---------------------------------------------------------------------------------------------------- */

/* [k][c][t][r][s] of ONNX to [k][t][r][s][c], as halves where cuDNN reads them. */
static int weights_lower(struct lowering *lowering, const struct tensor *weights, bool half, struct err *err) {
    struct device_tensor tensor = image_of(&weights->shape);
    int64_t channels = weights->shape.dims[1], cells = weights->shape.dims[2] * weights->shape.dims[3];
    cells *= weights->shape.dims[4];
    int64_t count = infer_shape_count(&weights->shape);
    tensor.element = half ? DEVICE_F16 : DEVICE_F32;
    PULMO_SCOPED(pulmo_free_at) float *floats = pulmo_alloc((size_t)count, sizeof *floats, err);
    PULMO_SCOPED(pulmo_free_at) uint16_t *halves = pulmo_alloc((size_t)count, sizeof *halves, err);
    if (!floats || !halves)
        return -1;
    const float *from = weights->data;
    for (int64_t n = 0; n < count; n++) {
        int64_t k = n / (channels * cells), c = n / cells % channels;
        int64_t to = (k * cells + n % cells) * channels + c;
        floats[to] = from[n];
        halves[to] = half_from_float(from[n]);
        if (half && (halves[to] & 0x7C00U) == 0x7C00U) {
            err_set(err, ERR_UNSUPPORTED, "a weight of %g, beyond half precision", (double)from[n]);
            return -1;
        }
    }
    return device_lower_constant(lowering, &tensor, half ? (const void *)halves : floats, err);
}

static int bias_lower(struct lowering *lowering, const struct lower_graph *graph, const struct graph_node *node,
                      struct err *err) {
    struct shape row = {.rank = 1, .dims = {graph->shapes[node->outputs[0]].shape.dims[1]}};
    struct device_tensor tensor = device_lower_plain(&row);
    bool given = infer_node_bias(node) >= 0;
    PULMO_SCOPED(pulmo_free_at) float *zeros = pulmo_alloc((size_t)row.dims[0], sizeof *zeros, err);
    if (!zeros)
        return -1;
    return device_lower_constant(lowering, &tensor, given ? graph->shapes[node->inputs[2]].data : zeros, err);
}

static bool window_numbers(const struct graph_node *node, const struct shape *input, const int64_t *kernel,
                           int64_t *numbers, struct err *err) {
    struct window window;
    if (!infer_window_read(node, input, kernel, &window, err))
        return false;
    if (window.spatial != 3)
        return err_set(err, ERR_UNSUPPORTED, "a window of %d axes", window.spatial);
    for (int i = 0; i < 3; i++) {
        numbers[i] = window.stride[i];
        numbers[3 + i] = window.before[i];
        numbers[6 + i] = window.dilation[i];
        numbers[9 + i] = window.after[i];
    }
    for (int i = 0; !kernel && i < 3; i++)
        numbers[12 + i] = window.kernel[i];
    return true;
}

/* Tensor cores take channels in multiples of eight: others (the first layer, the heads) are computed by a kernel of
 * ours with weights in float, and heads give floats, so that a logit loses nothing in its last step. */
static bool conv_lower(struct lowering *lowering, struct lower_graph *graph, const struct graph_node *node,
                       struct err *err) {
    const struct tensor *weights = &graph->shapes[node->inputs[1]];
    if (weights->shape.rank != 5)
        return err_set(err, ERR_UNSUPPORTED, "a convolution of rank %d", weights->shape.rank);
    bool wide_in = weights->shape.dims[1] % DEVICE_CHANNELS_MULTIPLE == 0;
    bool wide_out = weights->shape.dims[0] % DEVICE_CHANNELS_MULTIPLE == 0, fits = wide_in && wide_out;
    int64_t numbers[DEVICE_NUMBERS_MAX] = {0};
    if (!window_numbers(node, &graph->shapes[node->inputs[0]].shape, weights->shape.dims + 2, numbers, err))
        return false;
    numbers[12] = fits;
    bool image = wide_in || is_image(graph, node->inputs[0]);
    int inputs[DEVICE_INPUTS_MAX] = {image ? value_image(lowering, graph, node->inputs[0], err)
                                           : device_lower_value_plain(lowering, graph, node->inputs[0], err),
                                     weights_lower(lowering, weights, fits, err),
                                     bias_lower(lowering, graph, node, err), -1};
    if (node->residual >= 0)
        inputs[3] = wide_out ? value_image(lowering, graph, node->residual, err)
                             : device_lower_value_plain(lowering, graph, node->residual, err);
    if (inputs[0] < 0 || inputs[1] < 0 || inputs[2] < 0 || (node->residual >= 0 && inputs[3] < 0))
        return false;
    if (node->residual >= 0 &&
        !infer_shape_equal(&graph->shapes[node->residual].shape, &graph->shapes[node->outputs[0]].shape))
        return err_set(err, ERR_UNSUPPORTED, "a sum that broadcasts");
    struct device_step *step = device_lower_step(lowering, DEVICE_CONV, node->name, err);
    int out = step ? result(lowering, graph, node->outputs[0], wide_out, err) : -1;
    if (out < 0)
        return false;
    for (int k = 0; k < DEVICE_INPUTS_MAX; k++)
        step->inputs[k] = inputs[k];
    step->outputs[0] = out;
    step->relu = node->relu;
    memcpy(step->numbers, numbers, sizeof step->numbers);
    return true;
}

static bool pool_lower(struct lowering *lowering, struct lower_graph *graph, const struct graph_node *node,
                       struct err *err) {
    int64_t numbers[DEVICE_NUMBERS_MAX] = {0};
    if (!window_numbers(node, &graph->shapes[node->inputs[0]].shape, NULL, numbers, err))
        return false;
    struct device_step *step = unary(lowering, graph, node, DEVICE_POOL_MAX, err);
    if (step)
        memcpy(step->numbers, numbers, sizeof step->numbers);
    return step != NULL;
}

static bool concat_lower(struct lowering *lowering, struct lower_graph *graph, const struct graph_node *node,
                         struct err *err) {
    const struct shape *shape = &graph->shapes[node->outputs[0]].shape;
    int64_t axis = infer_node_int(node, "axis", 0);
    int inputs[DEVICE_INPUTS_MAX] = {-1, -1, -1, -1, -1};
    if (shape->rank != 5 || (axis != 1 && axis != -4) || node->input_count > DEVICE_INPUTS_MAX)
        return err_set(err, ERR_UNSUPPORTED, "only channels of up to %d images are joined", DEVICE_INPUTS_MAX);
    for (int k = 0; k < node->input_count; k++)
        if ((inputs[k] = value_image(lowering, graph, node->inputs[k], err)) < 0)
            return false;
    struct device_step *step = device_lower_step(lowering, DEVICE_CONCAT, node->name, err);
    int out = step ? result(lowering, graph, node->outputs[0], true, err) : -1;
    if (out < 0)
        return false;
    for (int k = 0; k < DEVICE_INPUTS_MAX; k++)
        step->inputs[k] = inputs[k];
    step->outputs[0] = out;
    return true;
}

/* ---- row-major tensors ------------------------------------------------------------------------------------------- */

static const char *const binary_names[DEVICE_BINARIES] = {"Add", "Sub", "Mul", "Div", "Pow", "GreaterOrEqual"};
static const char *const unary_names[DEVICE_UNARIES] = {"Relu", "Sigmoid", "Sqrt", "Exp", "Tanh", "Erf"};

static const char *const reduce_names[DEVICE_REDUCES] = {"ReduceMean", "ReduceMin", "ReduceMax"};

static int name_index(const char *const *names, int count, const char *name) {
    for (int i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

/* Strides of an operand along the axes of the result; 0 where it is broadcast. */
static void broadcast_strides(const struct shape *operand, const struct shape *out, int64_t *strides) {
    int64_t step = 1;
    for (int back = 1; back <= out->rank; back++) {
        int64_t side = back <= operand->rank ? operand->dims[operand->rank - back] : 1;
        strides[out->rank - back] = side == 1 ? 0 : step;
        step *= side;
    }
}

static bool binary_lower(struct lowering *lowering, struct lower_graph *graph, const struct graph_node *node, int which,
                         struct err *err) {
    const struct shape *shape = &graph->shapes[node->outputs[0]].shape;
    bool image = is_image(graph, node->inputs[0]) && is_image(graph, node->inputs[1]) &&
                 infer_shape_equal(&graph->shapes[node->inputs[0]].shape, &graph->shapes[node->inputs[1]].shape);
    int in[2];
    for (int k = 0; k < 2; k++)
        in[k] = image ? value_image(lowering, graph, node->inputs[k], err)
                      : device_lower_value_plain(lowering, graph, node->inputs[k], err);
    struct device_step *step =
        in[0] < 0 || in[1] < 0 ? NULL : device_lower_step(lowering, DEVICE_BINARY, node->name, err);
    int out = step ? result(lowering, graph, node->outputs[0], image, err) : -1;
    if (out < 0)
        return false;
    step->inputs[0] = in[0];
    step->inputs[1] = in[1];
    step->outputs[0] = out;
    step->numbers[0] = which;
    step->numbers[13] = image;
    broadcast_strides(&graph->shapes[node->inputs[0]].shape, shape, step->numbers + 1);
    broadcast_strides(&graph->shapes[node->inputs[1]].shape, shape, step->numbers + 7);
    return true;
}

static void plain_strides(const struct shape *shape, int64_t *strides) {
    int64_t step = 1;
    for (int axis = shape->rank - 1; axis >= 0; axis--) {
        strides[axis] = step;
        step *= shape->dims[axis];
    }
}

static bool transpose_lower(struct lowering *lowering, struct lower_graph *graph, const struct graph_node *node,
                            struct err *err) {
    const struct shape *input = &graph->shapes[node->inputs[0]].shape;
    int64_t order[GRAPH_ATTRIBUTE_INTS_MAX], from[GRAPH_RANK_MAX];
    int count = infer_node_ints(node, "perm", order, GRAPH_ATTRIBUTE_INTS_MAX);
    struct device_step *step = unary(lowering, graph, node, DEVICE_VIEW, err);
    if (!step)
        return false;
    plain_strides(input, from);
    for (int i = 0; i < input->rank; i++)
        step->numbers[1 + i] = from[count ? order[i] : input->rank - 1 - i];
    return true;
}

static bool slice_lower(struct lowering *lowering, struct lower_graph *graph, const struct graph_node *node,
                        struct err *err) {
    int64_t start[GRAPH_RANK_MAX], pace[GRAPH_RANK_MAX], from[GRAPH_RANK_MAX];
    struct operation_call call = {.node = node};
    struct shape shape;
    for (int i = 0; i < node->input_count; i++) {
        call.present[i] = node->inputs[i] >= 0;
        if (call.present[i])
            call.in[i] = graph->shapes[node->inputs[i]];
    }
    if (!infer_slice_read(&call, start, pace, &shape, err))
        return false;
    struct device_step *step = unary(lowering, graph, node, DEVICE_VIEW, err);
    if (!step)
        return false;
    plain_strides(&call.in[0].shape, from);
    for (int i = 0; i < shape.rank; i++) {
        step->numbers[0] += start[i] * from[i];
        step->numbers[1 + i] = pace[i] * from[i];
    }
    return true;
}

/* Over neighbouring axes, which are one axis in memory. */
static bool reduce_lower(struct lowering *lowering, struct lower_graph *graph, const struct graph_node *node,
                         unsigned axes, enum device_reduce how, struct err *err) {
    const struct shape *input = &graph->shapes[node->inputs[0]].shape;
    int64_t side = 1, inner = 1;
    int first = -1, last = -1;
    for (int axis = 0; axis < input->rank; axis++)
        if (axes >> axis & 1) {
            first = first < 0 ? axis : first;
            if (last >= 0 && last != axis - 1)
                return err_set(err, ERR_UNSUPPORTED, "a reduction over axes apart");
            last = axis;
            side *= input->dims[axis];
        }
    if (first < 0)
        return err_set(err, ERR_UNSUPPORTED, "a reduction over no axis");
    for (int axis = last + 1; axis < input->rank; axis++)
        inner *= input->dims[axis];
    struct device_step *step = unary(lowering, graph, node, DEVICE_REDUCE, err);
    if (!step)
        return false;
    step->numbers[0] = side;
    step->numbers[1] = inner;
    step->numbers[2] = how;
    return true;
}

static bool axes_lower(struct lowering *lowering, struct lower_graph *graph, const struct graph_node *node,
                       enum device_reduce how, struct err *err) {
    struct operation_call call = {.node = node};
    unsigned axes = 0;
    for (int i = 0; i < node->input_count; i++) {
        call.present[i] = node->inputs[i] >= 0;
        if (call.present[i])
            call.in[i] = graph->shapes[node->inputs[i]];
    }
    return infer_reduce_axes(&call, &axes, err) && reduce_lower(lowering, graph, node, axes, how, err);
}

/* ---- products, attention -------------------------------------------------------------------------------------------
 */

static bool product_add(struct lowering *lowering, struct lower_graph *graph, const struct graph_node *node,
                        const int64_t numbers[6], struct err *err) {
    int in[3] = {-1, -1, -1};
    for (int k = 0; k < node->input_count && k < 3; k++)
        if (node->inputs[k] >= 0 && (in[k] = device_lower_value_plain(lowering, graph, node->inputs[k], err)) < 0)
            return false;
    struct device_step *step = device_lower_step(lowering, DEVICE_PRODUCT, node->name, err);
    int out = step ? result(lowering, graph, node->outputs[0], false, err) : -1;
    if (out < 0)
        return false;
    for (int k = 0; k < 3; k++)
        step->inputs[k] = in[k];
    step->outputs[0] = out;
    step->relu = node->relu;
    memcpy(step->numbers, numbers, 6 * sizeof *numbers);
    return true;
}

static bool matmul_lower(struct lowering *lowering, struct lower_graph *graph, const struct graph_node *node,
                         struct err *err) {
    const struct shape *a = &graph->shapes[node->inputs[0]].shape, *b = &graph->shapes[node->inputs[1]].shape;
    if (a->rank < 2 || b->rank < 2)
        return err_set(err, ERR_UNSUPPORTED, "a product of ranks %d and %d", a->rank, b->rank);
    int64_t deep = a->dims[a->rank - 1], wide = b->dims[b->rank - 1], rows = a->dims[a->rank - 2];
    struct shape outer_a = *a, outer_b = *b;
    outer_a.rank -= 2;
    outer_b.rank -= 2;
    if (b->rank != 2 && !infer_shape_equal(&outer_a, &outer_b))
        return err_set(err, ERR_UNSUPPORTED, "a product that broadcasts");
    int64_t numbers[6] = {rows, deep, wide, rows * deep, b->rank == 2 ? 0 : deep * wide, 0};
    return product_add(lowering, graph, node, numbers, err);
}

static bool gemm_lower(struct lowering *lowering, struct lower_graph *graph, const struct graph_node *node,
                       struct err *err) {
    const struct shape *a = &graph->shapes[node->inputs[0]].shape, *out = &graph->shapes[node->outputs[0]].shape;
    bool biased = infer_node_bias(node) >= 0;
    bool row = !biased || infer_shape_count(&graph->shapes[node->inputs[2]].shape) == out->dims[1];
    if (infer_node_int(node, "transA", 0) != 0 || infer_node_float(node, "alpha", 1) != 1.0F ||
        infer_node_float(node, "beta", 1) != 1.0F || !row)
        return err_set(err, ERR_UNSUPPORTED, "a product with transA, alpha, beta or a bias that is no row");
    int64_t numbers[6] = {out->dims[0], a->dims[1], out->dims[1], 0, 0, infer_node_int(node, "transB", 0) != 0};
    return product_add(lowering, graph, node, numbers, err);
}

/* The steps of a gate, and what it chooses for. */
static bool select_lower(struct lowering *lowering, struct lower_graph *graph, const struct graph_node *node,
                         struct err *err) {
    const struct shape *shape = &graph->shapes[node->outputs[0]].shape;
    int in[3];
    for (int k = 0; k < 3; k++)
        if ((in[k] = device_lower_value_plain(lowering, graph, node->inputs[k], err)) < 0)
            return false;
    struct device_step *step = device_lower_step(lowering, DEVICE_SELECT, node->name, err);
    int out = step ? result(lowering, graph, node->outputs[0], false, err) : -1;
    if (out < 0)
        return false;
    step->outputs[0] = out;
    for (int k = 0; k < 3; k++) {
        step->inputs[k] = in[k];
        broadcast_strides(&graph->shapes[node->inputs[k]].shape, shape, step->numbers + (ptrdiff_t)6 * k);
    }
    return true;
}

static bool top_lower(struct lowering *lowering, struct lower_graph *graph, const struct graph_node *node,
                      struct err *err) {
    const struct shape *in = &graph->shapes[node->inputs[0]].shape;
    if (node->output_count > 1 && node->outputs[1] >= 0 && infer_graph_uses(graph->graph, node->outputs[1], NULL) > 0)
        return err_set(err, ERR_UNSUPPORTED, "the places of the best");
    if (in->rank < 1 || in->dims[in->rank - 1] > DEVICE_KEYS_MAX)
        return err_set(err, ERR_UNSUPPORTED, "the best of more than %d", DEVICE_KEYS_MAX);
    struct device_step *step = unary(lowering, graph, node, DEVICE_TOP, err);
    if (!step)
        return false;
    step->numbers[0] = in->dims[in->rank - 1];
    step->numbers[1] = graph->shapes[node->outputs[0]].shape.dims[in->rank - 1];
    return true;
}

static bool masked_lower(struct lowering *lowering, struct lower_graph *graph, const struct graph_node *node,
                         struct err *err) {
    const int64_t *q = graph->shapes[node->inputs[0]].shape.dims, *v = graph->shapes[node->inputs[2]].shape.dims;
    int64_t numbers[7] = {q[2], q[3], v[2], v[3], q[1]};
    int in[5];
    if (v[2] > DEVICE_KEYS_MAX)
        return err_set(err, ERR_UNSUPPORTED, "more than %d keys", DEVICE_KEYS_MAX);
    for (int i = 0; i < node->input_count; i++) {
        if ((in[i] = device_lower_value_plain(lowering, graph, node->inputs[i], err)) < 0)
            return false;
        if (i >= 3 && graph->shapes[node->inputs[i]].shape.dims[0] > 1)
            numbers[2 + i] = v[2];
    }
    struct device_step *step = device_lower_step(lowering, DEVICE_MASKED_ATTENTION, node->name, err);
    if (!step)
        return false;
    for (int i = 0; i < node->input_count; i++)
        step->inputs[i] = in[i];
    for (int i = 0; i < 2; i++)
        if (node->outputs[i] >= 0 && (step->outputs[i] = result(lowering, graph, node->outputs[i], false, err)) < 0)
            return false;
    memcpy(step->numbers, numbers, sizeof numbers);
    step->reals[0] = infer_node_float(node, "scale", 1);
    return true;
}

static bool attention_lower(struct lowering *lowering, struct lower_graph *graph, const struct graph_node *node,
                            struct err *err) {
    const struct shape *q = &graph->shapes[node->inputs[0]].shape, *k = &graph->shapes[node->inputs[1]].shape;
    const struct shape *v = &graph->shapes[node->inputs[2]].shape;
    int in[3];
    for (int i = 0; i < 3; i++)
        if ((in[i] = device_lower_value_plain(lowering, graph, node->inputs[i], err)) < 0)
            return false;
    if (k->dims[k->rank - 1] > DEVICE_KEYS_MAX)
        return err_set(err, ERR_UNSUPPORTED, "more than %d keys", DEVICE_KEYS_MAX);
    struct device_step *step = device_lower_step(lowering, DEVICE_ATTENTION, node->name, err);
    if (!step)
        return false;
    for (int i = 0; i < 3; i++)
        step->inputs[i] = in[i];
    for (int i = 0; i < 2; i++)
        if (node->outputs[i] >= 0 && (step->outputs[i] = result(lowering, graph, node->outputs[i], false, err)) < 0)
            return false;
    const int64_t numbers[5] = {q->dims[q->rank - 2], q->dims[q->rank - 1], k->dims[k->rank - 1], v->dims[v->rank - 1],
                                infer_node_int(node, "k", 1)};
    memcpy(step->numbers, numbers, sizeof numbers);
    step->reals[0] = infer_node_float(node, "scale", 1);
    return true;
}

/* ---- the rest
 * -------------------------------------------------------------------------------------------------------- */

static bool dropout_lower(struct lowering *lowering, struct lower_graph *graph, const struct graph_node *node,
                          struct err *err) {
    const struct shape *shape = &graph->shapes[node->inputs[0]].shape;
    bool given = node->input_count > 1 && node->inputs[1] >= 0;
    struct device_step *step = unary(lowering, graph, node, DEVICE_DROPOUT, err);
    if (!step)
        return false;
    step->numbers[0] = infer_shape_count(shape) / (shape->rank ? shape->dims[0] : 1);
    step->numbers[1] = node->dropout;
    step->reals[0] = given ? *(const float *)graph->shapes[node->inputs[1]].data : 0.5F;
    return true;
}

/* The same bytes under another shape. */
static bool alias_lower(struct lowering *lowering, struct lower_graph *graph, const struct graph_node *node,
                        struct err *err) {
    int in = device_lower_value_plain(lowering, graph, node->inputs[0], err);
    struct device_tensor tensor = device_lower_plain(&graph->shapes[node->outputs[0]].shape);
    if (in < 0)
        return false;
    int out = device_lower_tensor(lowering, &tensor, in, err);
    graph->plain[node->outputs[0]] = out;
    return out >= 0;
}

static bool kernel_lower(struct lowering *lowering, struct lower_graph *graph, const struct graph_node *node,
                         struct err *err) {
    const char *name = node->operation->name;
    int binary = name_index(binary_names, DEVICE_BINARIES, name), one = name_index(unary_names, DEVICE_UNARIES, name);
    int reduction = name_index(reduce_names, DEVICE_REDUCES, name);
    if (binary >= 0)
        return binary_lower(lowering, graph, node, binary, err);
    if (one >= 0) {
        struct device_step *step = unary(lowering, graph, node, DEVICE_UNARY, err);
        if (step)
            step->numbers[0] = one;
        return step != NULL;
    }
    if (strcmp(name, "Transpose") == 0)
        return transpose_lower(lowering, graph, node, err);
    if (strcmp(name, "Slice") == 0)
        return slice_lower(lowering, graph, node, err);
    if (reduction >= 0)
        return axes_lower(lowering, graph, node, (enum device_reduce)reduction, err);
    if (strcmp(name, "GlobalAveragePool") == 0)
        return reduce_lower(lowering, graph, node, ((1U << graph->shapes[node->inputs[0]].shape.rank) - 1) & ~3U,
                            DEVICE_MEAN, err);
    if (strcmp(name, "Where") == 0)
        return select_lower(lowering, graph, node, err);
    if (strcmp(name, "TopK") == 0)
        return top_lower(lowering, graph, node, err);
    if (node->operation == &infer_operator_masked_attention)
        return masked_lower(lowering, graph, node, err);
    if (node->operation == &infer_operator_topk_attention)
        return attention_lower(lowering, graph, node, err);
    return err_set(err, ERR_UNSUPPORTED, "no kernel of the device computes it");
}

bool device_lower_node(struct lowering *lowering, struct lower_graph *graph, const struct graph_node *node,
                       struct err *err) {
    switch (node->operation->kind) {
    case OPERATOR_CONV: return conv_lower(lowering, graph, node, err);
    case OPERATOR_POOL_MAX: return pool_lower(lowering, graph, node, err);
    case OPERATOR_RESIZE: return unary(lowering, graph, node, DEVICE_RESIZE, err) != NULL;
    case OPERATOR_CONCAT: return concat_lower(lowering, graph, node, err);
    case OPERATOR_MATMUL: return matmul_lower(lowering, graph, node, err);
    case OPERATOR_GEMM: return gemm_lower(lowering, graph, node, err);
    case OPERATOR_ALIAS: return alias_lower(lowering, graph, node, err);
    case OPERATOR_DROPOUT: return dropout_lower(lowering, graph, node, err);
    case OPERATOR_KERNEL:
    case OPERATOR_RELU:
    case OPERATOR_SIGMOID:
    case OPERATOR_BINARY: return kernel_lower(lowering, graph, node, err);
    case OPERATOR_BATCH_NORMALIZATION:
    case OPERATOR_POOL_AVERAGE: break;
    }
    return err_set(err, ERR_UNSUPPORTED, "no kernel of the device computes it");
}
