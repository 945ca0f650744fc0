/* The CPU back-end's convolution of one channel, in full precision, that int8 layers alone read: a few slices of its
 * result at a time, each brought to their type while it is in a cache. As floats the whole would be the most that the
 * network has alive at once, by far. What is left is, to the last bit, what conversion of the whole would leave. */
#include <stdlib.h>
#include <string.h>

#include "infer/backend_cpu_build.h"

#define SLAB_BYTES ((int64_t)1 << 20)

struct slab { /* slices of the result, and those of the input that they need */
    int64_t first, count, in_first, in_count;
    int64_t before, after; /* padding */
};

struct slabs {
    const struct graph_node *node;
    struct window_dims window;
    const struct shape *in, *out;
    struct region whole;   /* the result, as u8 */
    struct region piece;   /* of a slab, as floats: they take turns in it */
    int64_t deep;          /* slices a slab */
    struct region weights; /* as a slab wanted them; desc.ndims 0 = not yet packed */
};

static bool reads_as_int8(const struct builder *builder, int index, int value) {
    const struct graph_node *node = &builder->program->graph->nodes[index];
    for (int k = 1; k < node->input_count; k++)
        if (node->inputs[k] == value)
            return false;
    return node->operation->kind == OPERATOR_CONV && builder->plan->layers[builder->layer[index]] == PRECISION_INT8;
}

/* Whether the value is read by int8 layers and by nobody else. */
static bool int8_readers(const struct builder *builder, int value) {
    const struct graph *graph = builder->program->graph;
    bool found = false;
    if (infer_graph_is_output(graph, value))
        return false;
    for (int i = 0; i < graph->node_count; i++) {
        bool reads = graph->nodes[i].residual == value;
        for (int k = 0; k < graph->nodes[i].input_count; k++)
            reads = reads || graph->nodes[i].inputs[k] == value;
        if (reads && !reads_as_int8(builder, i, value))
            return false;
        found = found || reads;
    }
    return found;
}

static bool applies(const struct builder *builder, const struct graph_node *node) {
    const struct program *program = builder->program;
    const struct shape *in = &program->tensors[node->inputs[0]].shape;
    const struct tensor *weights = &program->graph->values[node->inputs[1]].tensor;
    const struct region *source = &program->regions[node->inputs[0]];
    dnnl_memory_desc_t plain = infer_backend_plain(in);
    return builder->plan && !program->keep && in->rank == 5 && in->dims[0] == 1 && in->dims[1] == 1 && weights->data &&
           node->relu && node->residual < 0 && builder->scales[node->outputs[0]] > 0 &&
           dnnl_memory_desc_equal(&source->desc, &plain) && int8_readers(builder, node->outputs[0]);
}

/* Channels last: what int8 convolutions read, and a slab of slices lies in one piece. */
static dnnl_memory_desc_t channels_last(const struct shape *shape, dnnl_data_type_t type) {
    dnnl_memory_desc_t desc = {0};
    dnnl_dims_t dims = {0};
    memcpy(dims, shape->dims, sizeof shape->dims);
    dnnl_memory_desc_init_by_tag(&desc, 5, dims, type, dnnl_ndhwc); /* cannot fail */
    return desc;
}

/* Slices of the input behind one of the result. */
static int64_t reach_of(const struct window_dims *window) {
    return (window->dilation[0] + 1) * (window->kernel[0] - 1) + 1;
}

static struct slab slab_at(const struct slabs *slabs, int64_t first) {
    int64_t left = slabs->out->dims[2] - first, count = left < slabs->deep ? left : slabs->deep;
    int64_t reach = reach_of(&slabs->window);
    int64_t start = first * slabs->window.stride[0] - slabs->window.before[0];
    int64_t end = start + (count - 1) * slabs->window.stride[0] + reach;
    struct slab slab = {.first = first, .count = count, .before = start < 0 ? -start : 0};
    slab.after = end > slabs->in->dims[2] ? end - slabs->in->dims[2] : 0;
    slab.in_first = start + slab.before;
    slab.in_count = end - slab.after - slab.in_first;
    return slab;
}

static struct shape slices_of(const struct shape *whole, int64_t count) {
    struct shape shape = *whole;
    shape.dims[2] = count;
    return shape;
}

static bool slab_describe(struct builder *builder, const struct slabs *slabs, const struct slab *slab,
                          struct draft *draft, struct err *err) {
    const struct program *program = builder->program;
    const struct graph_node *node = slabs->node;
    const struct shape in = slices_of(slabs->in, slab->in_count), out = slices_of(slabs->out, slab->count);
    struct convolution convolution = {.input = infer_backend_plain(&in),
                                      .weights = infer_backend_any(&program->tensors[node->inputs[1]].shape),
                                      .output = infer_backend_any(&out),
                                      .window = slabs->window};
    convolution.window.before[0] = slab->before;
    convolution.window.after[0] = slab->after;
    return infer_draft_begin(draft, err) && infer_draft_relu(draft, err) &&
           infer_draft_convolve(builder, draft, node, &convolution, err);
}

/* Packed once, for all slabs that want the same layout. */
static bool slab_operands(struct builder *builder, struct slabs *slabs, struct draft *draft, struct err *err) {
    const struct graph_node *node = slabs->node;
    const struct graph_value *values = builder->program->graph->values;
    const struct tensor *weights = &values[node->inputs[1]].tensor;
    const dnnl_memory_desc_t *wanted = infer_draft_layout(draft, dnnl_query_weights_md);
    dnnl_memory_desc_t plain = infer_backend_plain(&weights->shape);
    struct region row;
    if ((!slabs->weights.desc.ndims || !dnnl_memory_desc_equal(wanted, &slabs->weights.desc)) &&
        !infer_tensor_pack(builder, weights, &plain, wanted, &slabs->weights, err))
        return false;
    infer_draft_argument(draft, DNNL_ARG_WEIGHTS, &slabs->weights);
    int bias = infer_node_bias(node);
    if (bias < 0)
        return true;
    plain = infer_backend_plain(&values[bias].tensor.shape);
    if (!infer_tensor_pack(builder, &values[bias].tensor, &plain, &plain, &row, err))
        return false;
    infer_draft_argument(draft, DNNL_ARG_BIAS, &row);
    return true;
}

/* The slab as floats, in `piece`. */
static bool slab_convolve(struct builder *builder, struct slabs *slabs, const struct slab *slab, struct region *piece,
                          struct err *err) {
    PULMO_SCOPED(infer_draft_clear) struct draft draft = {0};
    const struct shape in = slices_of(slabs->in, slab->in_count);
    struct region source = builder->program->regions[slabs->node->inputs[0]];
    if (!slab_describe(builder, slabs, slab, &draft, err))
        return false;
    source.desc = infer_backend_plain(&in);
    source.offset = (size_t)(slab->in_first * in.dims[3] * in.dims[4]) * sizeof(float);
    if (!slabs->piece.desc.ndims && !infer_region_new(builder, infer_draft_layout(&draft, dnnl_query_dst_md),
                                                      &slabs->piece, err)) /* the first slab is the greatest */
        return false;
    *piece = slabs->piece;
    piece->desc = *infer_draft_layout(&draft, dnnl_query_dst_md);
    infer_draft_argument(&draft, DNNL_ARG_SRC, &source);
    infer_draft_argument(&draft, DNNL_ARG_DST, piece);
    return slab_operands(builder, slabs, &draft, err) && infer_draft_finish(builder, &draft, slabs->node, piece, err);
}

/* ---- the whole ----------------------------------------------------------------------------------------------- */

bool infer_build_conv_slabs(struct builder *builder, const struct graph_node *node, bool *taken, struct err *err) {
    const struct tensor *tensors = builder->program->tensors;
    struct slabs slabs = {.node = node, .in = &tensors[node->inputs[0]].shape, .out = &tensors[node->outputs[0]].shape};
    *taken = applies(builder, node);
    if (!*taken)
        return true;
    if (!infer_backend_window(builder->program, node, &slabs.window, err))
        return false;
    /* Every slice of the result has some of the input behind it, not padding alone. */
    *taken = slabs.window.before[0] < reach_of(&slabs.window) && slabs.window.after[0] < reach_of(&slabs.window);
    if (!*taken)
        return true;
    int64_t slice = slabs.out->dims[1] * slabs.out->dims[3] * slabs.out->dims[4];
    int64_t fits = SLAB_BYTES / (slice * (int64_t)sizeof(float));
    slabs.deep = fits < 1 ? 1 : fits < slabs.out->dims[2] ? fits : slabs.out->dims[2];
    dnnl_memory_desc_t whole = channels_last(slabs.out, dnnl_u8);
    if (!infer_region_new(builder, &whole, &slabs.whole, err))
        return false;
    for (int64_t first = 0; first < slabs.out->dims[2]; first += slabs.deep) {
        const struct slab slab = slab_at(&slabs, first);
        const struct shape out = slices_of(slabs.out, slab.count);
        struct region piece, to = slabs.whole;
        to.desc = channels_last(&out, dnnl_u8);
        to.offset = (size_t)(first * slice);
        bool last = first + slab.count == slabs.out->dims[2];
        if (!slab_convolve(builder, &slabs, &slab, &piece, err) ||
            !infer_region_convert(builder, &piece, &to, 1 / builder->scales[node->outputs[0]], node,
                                  last ? &slabs.whole : NULL, err))
            return false;
    }
    builder->program->regions[node->outputs[0]] = slabs.whole;
    return true;
}
