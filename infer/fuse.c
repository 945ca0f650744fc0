/* Rewriting passes: constant folding and fusion. What a pass absorbs is dropped when it is done. Attention is fused by
 * infer/fuse_attention.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/fuse.h"

/* ---- shapes, folding ----------------------------------------------------------------------------------- */

static void call_fill(const struct graph_node *node, const struct tensor *known, struct operation_call *call) {
    *call = (struct operation_call){.node = node};
    for (int i = 0; i < node->input_count; i++) {
        call->present[i] = node->inputs[i] >= 0;
        if (call->present[i])
            call->in[i] = known[node->inputs[i]];
    }
}

static bool residual_fits(const struct tensor *known, const struct graph_node *node, const struct shape *out,
                          struct err *err) {
    struct shape joined = *out;
    if (node->residual < 0)
        return true;
    if (!infer_shapes_join(&joined, &known[node->residual].shape, "residual", err))
        return false;
    if (!infer_shape_equal(&joined, out) || known[node->residual].shape.rank != out->rank)
        return err_set(err, ERR_UNSUPPORTED, "the sum is bigger than the convolution it adds to");
    return true;
}

static bool node_shapes(const struct graph_node *node, struct tensor *known, struct err *err) {
    struct operation_call call;
    call_fill(node, known, &call);
    if (!node->operation->shape(&call, err) || !residual_fits(known, node, &call.out[0].shape, err))
        return false;
    for (int k = 0; k < node->output_count; k++) {
        if (node->outputs[k] < 0)
            continue;
        if (infer_shape_count(&call.out[k].shape) < 1)
            return err_set(err, ERR_UNSUPPORTED, "an empty result");
        known[node->outputs[k]] = (struct tensor){.element = call.out[k].element, .shape = call.out[k].shape};
    }
    return true;
}

bool infer_graph_shapes(const struct graph *graph, const struct shape *inputs, struct tensor *out, struct err *err) {
    for (int i = 0; i < graph->value_count; i++)
        out[i] = graph->values[i].tensor;
    for (int i = 0; i < graph->input_count; i++) {
        const struct shape *declared = &graph->values[graph->inputs[i]].tensor.shape;
        const char *name = graph->values[graph->inputs[i]].name;
        if (declared->rank >= 0 && inputs[i].rank != declared->rank)
            return err_set(err, ERR_INPUT, "input %.120s has rank %d, not %d", name, declared->rank, inputs[i].rank);
        for (int k = 0; k < declared->rank; k++)
            if (inputs[i].dims[k] < 1 || (declared->dims[k] > 0 && declared->dims[k] != inputs[i].dims[k]))
                return err_set(err, ERR_INPUT, "input %.120s has side %lld on axis %d, not %lld", name,
                               (long long)declared->dims[k], k, (long long)inputs[i].dims[k]);
        if (!infer_shape_check(&inputs[i], name, err))
            return false;
        out[graph->inputs[i]].shape = inputs[i];
    }
    for (int i = 0; i < graph->node_count; i++)
        if (!node_shapes(&graph->nodes[i], out, err))
            return err_within(err, "node %.120s (%s)", graph->nodes[i].name, graph->nodes[i].operation->name);
    return true;
}

/* A folded constant costs memory for as long as the model lives; a hostile file could ask for much. */
#define FOLDED_BYTES_MAX ((size_t)64 << 20)

/* Products are left to the back-end: they are never part of shape arithmetic, and folding is slow. */
static bool node_is_constant(const struct graph *graph, const struct graph_node *node) {
    enum operation_kind kind = node->operation->kind;
    if (!node->operation->run || node->input_count == 0 || kind == OPERATOR_DROPOUT || kind == OPERATOR_MATMUL ||
        kind == OPERATOR_GEMM)
        return false;
    for (int i = 0; i < node->input_count; i++)
        if (node->inputs[i] >= 0 && !graph->values[node->inputs[i]].tensor.data)
            return false;
    return true;
}

static bool node_fold(struct graph *graph, struct graph_node *node, struct tensor *known, size_t *budget,
                      struct err *err) {
    struct operation_call call;
    for (int i = 0; i < node->input_count; i++)
        if (node->inputs[i] >= 0)
            known[node->inputs[i]] = graph->values[node->inputs[i]].tensor;
    if (!node_shapes(node, known, err))
        return false;
    call_fill(node, known, &call);
    for (int k = 0; k < node->output_count; k++) {
        if (node->outputs[k] < 0)
            continue;
        struct tensor *tensor = &graph->values[node->outputs[k]].tensor;
        *tensor = known[node->outputs[k]];
        size_t size = (size_t)infer_shape_count(&tensor->shape) * infer_element_size(tensor->element);
        if (size > *budget)
            return err_set(err, ERR_LIMIT, "folded constants of more than %zu bytes", FOLDED_BYTES_MAX);
        *budget -= size;
        tensor->data = pulmo_alloc((size_t)infer_shape_count(&tensor->shape), infer_element_size(tensor->element), err);
        if (!tensor->data)
            return false;
        call.out[k] = *tensor;
    }
    size_t scratch = node->operation->scratch ? node->operation->scratch(&call) : 0;
    PULMO_SCOPED(pulmo_free_at) void *work = pulmo_alloc(scratch, 1, err);
    if (!work)
        return false;
    call.scratch = work;
    node->operation->run(&call);
    for (int k = 0; k < node->output_count; k++)
        node->outputs[k] = -1; /* nobody's product any more: pruned */
    return true;
}

bool infer_graph_fold(struct graph *graph, struct err *err) {
    PULMO_SCOPED(pulmo_free_at)
    struct tensor *known = pulmo_alloc((size_t)graph->value_count, sizeof *known, err);
    size_t budget = FOLDED_BYTES_MAX;
    if (!known)
        return false;
    for (int i = 0; i < graph->node_count; i++)
        if (node_is_constant(graph, &graph->nodes[i]) && !node_fold(graph, &graph->nodes[i], known, &budget, err))
            return err_within(err, "node %.120s (%s)", graph->nodes[i].name, graph->nodes[i].operation->name);
    return infer_graph_prune(graph, err);
}

/* ---- small questions ------------------------------------------------------------------------------------ */

struct graph_node *infer_fuse_producer(struct graph *graph, int value) {
    for (int i = 0; value >= 0 && i < graph->node_count; i++)
        for (int k = 0; k < graph->nodes[i].output_count; k++)
            if (graph->nodes[i].operation && graph->nodes[i].outputs[k] == value)
                return &graph->nodes[i];
    return NULL;
}

bool infer_fuse_is(const struct graph_node *node, const char *operation) {
    return node && node->operation && strcmp(node->operation->name, operation) == 0;
}

bool infer_fuse_used_once(const struct graph *graph, int value) {
    return infer_graph_uses(graph, value, NULL) == 1;
}

bool infer_fuse_scalar(const struct graph *graph, int value, float *out) {
    const struct tensor *tensor = value >= 0 ? &graph->values[value].tensor : NULL;
    if (!tensor || !tensor->data || tensor->element != ELEMENT_F32 || infer_shape_count(&tensor->shape) != 1)
        return false;
    *out = *(const float *)tensor->data;
    return true;
}

void infer_fuse_drop(struct graph_node *node) {
    free(node->name);
    free(node->attributes);
    *node = (struct graph_node){.residual = -1, .dropout = -1};
}

/* The consumer's place and result go to its producer: whatever the producer reads is ready there too. */
static void absorb(struct graph_node *producer, struct graph_node *consumer) {
    int output = consumer->outputs[0];
    free(consumer->name);
    free(consumer->attributes);
    *consumer = *producer;
    consumer->outputs[0] = output;
    *producer = (struct graph_node){.residual = -1, .dropout = -1};
}

/* ---- BatchNormalization into the convolution before it --------------------------------------------------- */

static int constant_like(struct graph *graph, const char *name, const struct shape *shape, struct err *err) {
    char full[160];
    size_t size = strlen(name) < 120 ? strlen(name) : 120;
    memcpy(full, name, size);
    memcpy(full + size, " folded", 8); /* a blank: no exporter's name can meet it by chance */
    int value = infer_graph_add_value(graph, full, ELEMENT_F32, err);
    if (value < 0)
        return -1;
    struct tensor *tensor = &graph->values[value].tensor;
    tensor->shape = *shape;
    tensor->data = pulmo_alloc((size_t)infer_shape_count(shape), sizeof(float), err);
    return tensor->data ? value : -1;
}

static bool norm_is_constant(const struct graph *graph, const struct graph_node *conv, const struct graph_node *norm) {
    const struct tensor *weights = &graph->values[conv->inputs[1]].tensor;
    if (!weights->data || weights->shape.rank < 3 || weights->element != ELEMENT_F32)
        return false;
    for (int i = 1; i < 5; i++) {
        const struct tensor *tensor = &graph->values[norm->inputs[i]].tensor;
        if (!tensor->data || tensor->element != ELEMENT_F32 || tensor->shape.rank != 1 ||
            tensor->shape.dims[0] != weights->shape.dims[0])
            return false;
    }
    const struct tensor *bias = infer_node_bias(conv) >= 0 ? &graph->values[infer_node_bias(conv)].tensor : NULL;
    return (!bias || (bias->data && bias->shape.rank == 1 && bias->shape.dims[0] == weights->shape.dims[0])) &&
           infer_node_int(norm, "training_mode", 0) == 0;
}

/* w' = w f, b' = (b - mean) f + beta with f = gamma / sqrt(variance + epsilon). */
static bool norm_fold(struct graph *graph, struct graph_node *conv, const struct graph_node *norm, struct err *err) {
    struct shape shape = graph->values[conv->inputs[1]].tensor.shape;
    struct shape row = {.rank = 1, .dims = {shape.dims[0]}};
    int weights = constant_like(graph, norm->name, &shape, err);
    int bias = weights >= 0 ? constant_like(graph, conv->name, &row, err) : -1;
    if (bias < 0)
        return false;
    const float *old = graph->values[conv->inputs[1]].tensor.data, *parts[5] = {0};
    const float *old_bias = infer_node_bias(conv) >= 0 ? graph->values[infer_node_bias(conv)].tensor.data : NULL;
    for (int i = 1; i < 5; i++)
        parts[i] = graph->values[norm->inputs[i]].tensor.data;
    float *to = graph->values[weights].tensor.data, *to_bias = graph->values[bias].tensor.data;
    double epsilon = (double)infer_node_float(norm, "epsilon", 1e-5F);
    int64_t size = infer_shape_count(&shape) / shape.dims[0];
    for (int64_t c = 0; c < shape.dims[0]; c++) {
        double factor = (double)parts[1][c] / sqrt((double)parts[4][c] + epsilon);
        for (int64_t n = c * size; n < (c + 1) * size; n++)
            to[n] = (float)((double)old[n] * factor);
        to_bias[c] =
            (float)(((old_bias ? (double)old_bias[c] : 0) - (double)parts[3][c]) * factor + (double)parts[2][c]);
    }
    conv->inputs[1] = weights;
    conv->inputs[2] = bias;
    conv->input_count = 3;
    return true;
}

static bool fuse_norms(struct graph *graph, struct err *err) {
    for (int i = 0; i < graph->node_count; i++) {
        struct graph_node *norm = &graph->nodes[i];
        struct graph_node *conv =
            infer_fuse_is(norm, "BatchNormalization") ? infer_fuse_producer(graph, norm->inputs[0]) : NULL;
        if (!infer_fuse_is(conv, "Conv") || !infer_fuse_used_once(graph, norm->inputs[0]) ||
            !norm_is_constant(graph, conv, norm))
            continue;
        if (!norm_fold(graph, conv, norm, err))
            return false;
        absorb(conv, norm);
    }
    return true;
}

/* ---- bias, residual, Relu -------------------------------------------------------------------------------- */

/* MatMul(x, W) + row, as a Linear layer over tokens is exported. */
static bool bias_take(struct graph *graph, struct graph_node *add, int side) {
    struct graph_node *product = infer_fuse_producer(graph, add->inputs[side]);
    const struct tensor *row = &graph->values[add->inputs[!side]].tensor;
    if (!infer_fuse_is(product, "MatMul") || product->input_count != 2 ||
        !infer_fuse_used_once(graph, add->inputs[side]) || !row->data || row->element != ELEMENT_F32 ||
        row->shape.rank != 1)
        return false;
    const struct shape *weights = &graph->values[product->inputs[1]].tensor.shape;
    if (!graph->values[product->inputs[1]].tensor.data || weights->dims[weights->rank - 1] != row->shape.dims[0])
        return false;
    product->inputs[product->input_count++] = add->inputs[!side];
    absorb(product, add);
    return true;
}

static bool residual_take(struct graph *graph, struct graph_node *add, int side) {
    struct graph_node *conv = infer_fuse_producer(graph, add->inputs[side]);
    if (!infer_fuse_is(conv, "Conv") || conv->residual >= 0 || conv->relu ||
        !infer_fuse_used_once(graph, add->inputs[side]) || graph->values[add->inputs[!side]].tensor.data ||
        add->inputs[!side] == add->inputs[side])
        return false;
    conv->residual = add->inputs[!side];
    absorb(conv, add);
    return true;
}

static bool relu_take(struct graph *graph, struct graph_node *relu) {
    struct graph_node *before = infer_fuse_producer(graph, relu->inputs[0]);
    if (!before || before->relu || !infer_fuse_used_once(graph, relu->inputs[0]))
        return false;
    enum operation_kind kind = before->operation->kind;
    if (kind != OPERATOR_CONV && kind != OPERATOR_GEMM && kind != OPERATOR_MATMUL)
        return false;
    before->relu = true;
    absorb(before, relu);
    return true;
}

static void fuse_post_operations(struct graph *graph) {
    for (int i = 0; i < graph->node_count; i++) {
        struct graph_node *node = &graph->nodes[i];
        if (infer_fuse_is(node, "Add")) {
            /* || stops at the first that fits: the node is another one then */
            (void)(bias_take(graph, node, 0) || bias_take(graph, node, 1) || residual_take(graph, node, 1) ||
                   residual_take(graph, node, 0));
        } else if (infer_fuse_is(node, "Relu")) {
            (void)relu_take(graph, node);
        }
    }
}

static void compact(struct graph *graph) {
    int kept = 0;
    for (int i = 0; i < graph->node_count; i++)
        if (graph->nodes[i].operation)
            graph->nodes[kept++] = graph->nodes[i];
    graph->node_count = kept;
}

bool infer_graph_fuse(struct graph *graph, struct err *err) {
    if (!fuse_norms(graph, err))
        return false;
    fuse_post_operations(graph);
    if (!infer_fuse_attention_topk(graph, err))
        return false;
    compact(graph);
    if (!infer_graph_sort(graph, err) || !infer_fuse_attention_masked(graph, err))
        return false;
    compact(graph);
    return infer_graph_sort(graph, err) && infer_graph_prune(graph, err);
}
