/* The CPU back-end's convolutions in int8 and bf16.
 *
 * An int8 activation is unsigned: it stands for scale * u8, one scale a tensor. Weights are signed, one scale an output
 * channel, quantised here from the model's floats (Jacob et al., arXiv:1712.05877, without zero points: what enters is
 * never negative). oneDNN computes output_scale[oc] * (sum + bias[oc]) + sum_scale * residual in float, then Relu, then
 * rounds to the step of the result. */
#include <math.h>
#include <string.h>

#include "infer/backend_cpu_build.h"

/* ---- what the plan means for values --------------------------------------------------------------------------- */

/* These hand on what they read as it is, in whatever type. */
static bool hands_on(const struct graph_node *node) {
    return node->operation->kind == OPERATOR_CONCAT || node->operation->kind == OPERATOR_RESIZE;
}

static int handed_count(const struct graph_node *node) {
    return node->operation->kind == OPERATOR_CONCAT ? node->input_count : 1; /* a Resize's others are its sizes */
}

static void wishes_collect(struct builder *builder) {
    const struct graph *graph = builder->program->graph;
    int layer = 0;
    for (int i = 0; i < graph->node_count; i++) {
        if (graph->nodes[i].operation->kind != OPERATOR_CONV)
            continue;
        int input = graph->nodes[i].inputs[0];
        char letter = builder->plan->layers[layer];
        builder->layer[i] = layer;
        if (letter == PRECISION_INT8) {
            builder->int8_read[input] = true;
            builder->scales[input] = fmaxf(builder->scales[input], builder->plan->ranges[layer] / PRECISION_STEPS);
        }
        builder->bf16_read[input] = builder->bf16_read[input] || letter == PRECISION_BF16;
        layer++;
    }
    for (int i = graph->node_count - 1; i >= 0; i--) {
        const struct graph_node *node = &graph->nodes[i];
        for (int k = 0; hands_on(node) && k < handed_count(node); k++) {
            builder->int8_read[node->inputs[k]] |= builder->int8_read[node->outputs[0]];
            builder->bf16_read[node->inputs[k]] |= builder->bf16_read[node->outputs[0]];
        }
    }
}

/* One scale for all that a node hands on. Returns whether any changed. */
static bool scales_join(struct builder *builder, const struct graph_node *node) {
    float *scales = builder->scales, greatest = scales[node->outputs[0]];
    bool changed = false;
    for (int k = 0; k < handed_count(node); k++)
        greatest = fmaxf(greatest, scales[node->inputs[k]]);
    for (int k = -1; k < handed_count(node); k++) {
        float *scale = &scales[k < 0 ? node->outputs[0] : node->inputs[k]];
        changed = changed || *scale < greatest;
        *scale = greatest;
    }
    return changed;
}

void infer_low_prepare(struct builder *builder) {
    const struct graph *graph = builder->program->graph;
    wishes_collect(builder);
    for (bool changed = true; changed;) { /* a scale only grows, to another one's: it ends */
        changed = false;
        for (int i = 0; i < graph->node_count; i++)
            if (hands_on(&graph->nodes[i]))
                changed = scales_join(builder, &graph->nodes[i]) || changed;
    }
}

/* ---- one convolution -------------------------------------------------------------------------------------------- */

struct low {
    char letter;
    dnnl_data_type_t in, weights, out;
    float in_scale, out_scale; /* 1 unless u8 */
    float *channel_scales;     /* [oc] of the weights; int8 only */
    int channels;
};

static void low_free(struct low *low) {
    pulmo_free_at(&low->channel_scales);
}

/* What it writes: what its readers want, where it can; floats otherwise. */
static dnnl_data_type_t output_type(const struct builder *builder, const struct graph_node *node, char letter) {
    int value = node->outputs[0];
    if (letter == PRECISION_BF16)
        return builder->bf16_read[value] ? dnnl_bf16 : dnnl_f32;
    bool scaled = builder->scales[value] > 0 && (node->residual < 0 || builder->scales[node->residual] > 0);
    return node->relu && builder->int8_read[value] && scaled ? dnnl_u8 : dnnl_f32;
}

/* max|w| / weight_max of each output channel; 1 for one that is all 0. */
static bool channel_scales_find(const struct builder *builder, const struct tensor *weights, struct low *low,
                                struct err *err) {
    const float *data = weights->data;
    int64_t count = infer_shape_count(&weights->shape), each = count / weights->shape.dims[0];
    if (!infer_backend_finite(data, (size_t)count * sizeof *data))
        return err_set(err, ERR_INPUT, "the weights hold NaN or infinity");
    low->channels = (int)weights->shape.dims[0];
    low->channel_scales = pulmo_alloc((size_t)low->channels, sizeof *low->channel_scales, err);
    for (int64_t n = 0; low->channel_scales && n < count; n++)
        low->channel_scales[n / each] = fmaxf(low->channel_scales[n / each], fabsf(data[n]));
    for (int c = 0; low->channel_scales && c < low->channels; c++)
        low->channel_scales[c] =
            low->channel_scales[c] > 0 ? low->channel_scales[c] / (float)builder->plan->weight_max : 1;
    return low->channel_scales != NULL;
}

static bool low_begin(const struct builder *builder, const struct graph_node *node, int index, struct low *low,
                      struct err *err) {
    const struct program *program = builder->program;
    bool int8 = builder->plan->layers[builder->layer[index]] == PRECISION_INT8;
    if (node->residual >= 0 &&
        !infer_shape_equal(&program->tensors[node->residual].shape, &program->tensors[node->outputs[0]].shape))
        return err_set(err, ERR_UNSUPPORTED, "a sum that broadcasts is made in full precision only");
    low->letter = int8 ? PRECISION_INT8 : PRECISION_BF16;
    low->in = int8 ? dnnl_u8 : dnnl_bf16;
    low->weights = int8 ? dnnl_s8 : dnnl_bf16;
    low->out = output_type(builder, node, low->letter);
    low->in_scale = int8 ? builder->scales[node->inputs[0]] : 1;
    low->out_scale = low->out == dnnl_u8 ? builder->scales[node->outputs[0]] : 1;
    return !int8 || channel_scales_find(builder, &program->graph->values[node->inputs[1]].tensor, low, err);
}

static bool output_scales_set(const struct low *low, struct draft *draft, struct err *err) {
    if (low->letter != PRECISION_INT8)
        return true;
    PULMO_SCOPED(pulmo_free_at) float *scales = pulmo_alloc((size_t)low->channels, sizeof *scales, err);
    for (int c = 0; scales && c < low->channels; c++)
        scales[c] = low->in_scale * low->channel_scales[c] / low->out_scale;
    return scales &&
           infer_backend_ok(dnnl_primitive_attr_set_output_scales(draft->attributes, low->channels, 1 << 1, scales),
                            "scales", err);
}

static bool post_operations(const struct builder *builder, const struct graph_node *node, const struct low *low,
                            struct draft *draft, struct err *err) {
    float factor = low->out == dnnl_u8 && node->residual >= 0 ? builder->scales[node->residual] / low->out_scale : 1;
    return (node->residual < 0 || infer_backend_ok(dnnl_post_ops_append_sum(draft->post, factor), "a sum", err)) &&
           (!node->relu || infer_draft_relu(draft, err));
}

static bool low_describe(struct builder *builder, struct draft *draft, const struct graph_node *node,
                         const struct low *low, struct err *err) {
    const struct program *program = builder->program;
    struct convolution convolution = {.input = infer_backend_any(&program->tensors[node->inputs[0]].shape),
                                      .weights = infer_backend_any(&program->tensors[node->inputs[1]].shape),
                                      .output = infer_backend_any(&program->tensors[node->outputs[0]].shape)};
    convolution.input.data_type = low->in;
    convolution.weights.data_type = low->weights;
    convolution.output.data_type = low->out;
    return infer_draft_begin(draft, err) && infer_backend_window(program, node, &convolution.window, err) &&
           output_scales_set(low, draft, err) && post_operations(builder, node, low, draft, err) &&
           infer_draft_convolve(builder, draft, node, &convolution, err);
}

static bool int8_weights(struct builder *builder, const struct tensor *weights, const struct low *low,
                         const dnnl_memory_desc_t *wanted, struct region *out, struct err *err) {
    const float *data = weights->data;
    int64_t count = infer_shape_count(&weights->shape), each = count / low->channels;
    PULMO_SCOPED(pulmo_free_at) int8_t *steps = pulmo_alloc((size_t)count, sizeof *steps, err);
    dnnl_memory_desc_t plain = infer_backend_plain(&weights->shape);
    plain.data_type = dnnl_s8;
    /* |w| / scale is weight_max at most, but for rounding, which cannot reach the next half. */
    for (int64_t n = 0; steps && n < count; n++)
        steps[n] = (int8_t)lrintf(data[n] / low->channel_scales[n / each]);
    return steps && infer_weights_pack(builder, data, steps, &plain, wanted, out, err);
}

/* oneDNN adds the bias before it scales. */
static bool low_bias(struct builder *builder, const struct tensor *bias, const struct low *low, struct region *out,
                     struct err *err) {
    dnnl_memory_desc_t plain = infer_backend_plain(&bias->shape);
    const float *data = bias->data;
    if (low->letter != PRECISION_INT8)
        return infer_tensor_pack(builder, bias, &plain, &plain, out, err);
    PULMO_SCOPED(pulmo_free_at) float *steps = pulmo_alloc((size_t)low->channels, sizeof *steps, err);
    if (!steps)
        return false;
    if (!infer_backend_finite(data, (size_t)low->channels * sizeof *data))
        return err_set(err, ERR_INPUT, "the bias holds NaN or infinity");
    for (int c = 0; c < low->channels; c++)
        steps[c] = data[c] / (low->in_scale * low->channel_scales[c]);
    return infer_weights_pack(builder, data, steps, &plain, &plain, out, err);
}

static bool low_operands(struct builder *builder, struct draft *draft, const struct graph_node *node,
                         const struct low *low, struct err *err) {
    const struct graph_value *values = builder->program->graph->values;
    const struct tensor *weights = &values[node->inputs[1]].tensor;
    const dnnl_memory_desc_t *wanted = infer_draft_layout(draft, dnnl_query_weights_md);
    dnnl_memory_desc_t plain = infer_backend_plain(&weights->shape);
    struct region input, packed, row;
    if (!infer_value_in_layout(builder, node->inputs[0], infer_draft_layout(draft, dnnl_query_src_md), node, &input,
                               err))
        return false;
    if (low->letter == PRECISION_INT8 ? !int8_weights(builder, weights, low, wanted, &packed, err)
                                      : !infer_tensor_pack(builder, weights, &plain, wanted, &packed, err))
        return false;
    infer_draft_argument(draft, DNNL_ARG_SRC, &input);
    infer_draft_argument(draft, DNNL_ARG_WEIGHTS, &packed);
    if (infer_node_bias(node) < 0)
        return true;
    if (!low_bias(builder, &values[infer_node_bias(node)].tensor, low, &row, err))
        return false;
    infer_draft_argument(draft, DNNL_ARG_BIAS, &row);
    return true;
}

/* Where the result lies: in the residual's own buffer or its copy where one may be overwritten, in a new one otherwise,
 * into which the residual is copied first. */
static bool low_output(struct builder *builder, const struct graph_node *node, int index,
                       const dnnl_memory_desc_t *layout, struct region *out, struct err *err) {
    struct program *program = builder->program;
    int residual = node->residual;
    struct region *own = residual < 0 ? NULL : &program->regions[residual];
    struct region *copy = residual < 0 ? NULL : &builder->other[residual];
    if (own && infer_residual_in_place(builder, node, index)) {
        struct region *taken = dnnl_memory_desc_equal(layout, &own->desc) ? own : copy;
        if (taken == own || (copy->desc.ndims && dnnl_memory_desc_equal(layout, &copy->desc))) {
            program->figures.sums_in_place++;
            *out = *taken;
            return true;
        }
    }
    return infer_region_new(builder, layout, out, err) &&
           (residual < 0 || infer_value_copy(builder, residual, out, node, err));
}

bool infer_build_conv_low(struct builder *builder, const struct graph_node *node, int index, struct err *err) {
    PULMO_SCOPED(infer_draft_clear) struct draft draft = {0};
    PULMO_SCOPED(low_free) struct low low = {0};
    struct region out;
    if (!low_begin(builder, node, index, &low, err) || !low_describe(builder, &draft, node, &low, err) ||
        !low_operands(builder, &draft, node, &low, err) ||
        !low_output(builder, node, index, infer_draft_layout(&draft, dnnl_query_dst_md), &out, err))
        return false;
    infer_draft_argument(&draft, DNNL_ARG_DST, &out);
    if (!infer_draft_finish(builder, &draft, node, &out, err))
        return false;
    builder->program->regions[node->outputs[0]] = out;
    return true;
}
