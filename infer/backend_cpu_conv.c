/* The CPU back-end's convolutions in full precision, with their sum and Relu, as oneDNN makes them;
 * backend_cpu_winograd.c makes those that can do with fewer products, backend_cpu_low.c those in lower precision. */
#include <string.h>

#include "infer/backend_cpu_build.h"

/* The residual's own buffer may take the sum when nobody reads it later and it is no other operand. */
bool infer_residual_in_place(const struct builder *builder, const struct graph_node *node, int index) {
    const struct program *program = builder->program;
    int value = node->residual;
    if (value < 0 || program->keep || builder->last_use[value] != index || infer_concat_shares(builder, value))
        return false;
    int producer = program->graph->values[value].producer;
    if (producer < 0 || program->graph->nodes[producer].operation->kind == OPERATOR_ALIAS)
        return false;
    return value != node->inputs[0] &&
           infer_shape_equal(&program->tensors[value].shape, &program->tensors[node->outputs[0]].shape) &&
           program->regions[value].buffer != program->regions[node->inputs[0]].buffer;
}

/* What oneDNN likes, but in the blocks of infer/winograd.h where channels fill them: left to itself, it takes channels
 * last on AVX-512, and every change of layout costs more than what it gains. */
static dnnl_memory_desc_t activation_layout(const struct builder *builder, int value) {
    const struct shape *shape = &builder->program->tensors[value].shape;
    int lanes = builder->in_order ? 0 : infer_winograd_lanes(infer_backend_instruction_set());
    bool blocks = lanes && shape->rank == 5 && shape->dims[1] % WINOGRAD_CHANNELS == 0;
    return blocks ? infer_winograd_layout(shape, lanes) : infer_backend_any(shape);
}

bool infer_draft_convolve(struct builder *builder, struct draft *draft, const struct graph_node *node,
                          const struct convolution *convolution, struct err *err) {
    dnnl_convolution_desc_t operation;
    dnnl_memory_desc_t bias = {0};
    const struct window_dims *w = &convolution->window;
    int biased = infer_node_bias(node);
    if (biased >= 0)
        bias = infer_backend_plain(&builder->program->tensors[biased].shape);
    return infer_backend_ok(dnnl_dilated_convolution_forward_desc_init(
                                &operation, dnnl_forward_inference, dnnl_convolution_direct, &convolution->input,
                                &convolution->weights, biased >= 0 ? &bias : NULL, &convolution->output, w->stride,
                                w->dilation, w->before, w->after),
                            "a convolution", err) &&
           infer_draft_describe(builder, draft, &operation, node, err);
}

static bool conv_describe(struct builder *builder, struct draft *draft, const struct graph_node *node, bool in_place,
                          struct err *err) {
    const struct program *program = builder->program;
    struct convolution convolution = {.input = activation_layout(builder, node->inputs[0]),
                                      .weights = infer_backend_any(&program->tensors[node->inputs[1]].shape),
                                      .output = in_place ? program->regions[node->residual].desc
                                                         : activation_layout(builder, node->outputs[0])};
    if (!infer_draft_begin(draft, err) || !infer_backend_window(program, node, &convolution.window, err))
        return false;
    if (in_place && !infer_backend_ok(dnnl_post_ops_append_sum(draft->post, 1.0F), "a sum", err))
        return false;
    if (node->relu && (in_place || node->residual < 0) && !infer_draft_relu(draft, err))
        return false;
    return infer_draft_convolve(builder, draft, node, &convolution, err);
}

static bool conv_operands(struct builder *builder, struct draft *draft, const struct graph_node *node,
                          struct err *err) {
    struct program *program = builder->program;
    const struct tensor *weights = &program->graph->values[node->inputs[1]].tensor;
    dnnl_memory_desc_t plain = infer_backend_plain(&weights->shape);
    struct region input, packed, row;
    if (!infer_value_in_layout(builder, node->inputs[0], infer_draft_layout(draft, dnnl_query_src_md), node, &input,
                               err) ||
        !infer_tensor_pack(builder, weights, &plain, infer_draft_layout(draft, dnnl_query_weights_md), &packed, err))
        return false;
    infer_draft_argument(draft, DNNL_ARG_SRC, &input);
    infer_draft_argument(draft, DNNL_ARG_WEIGHTS, &packed);
    if (infer_node_bias(node) >= 0) {
        const struct tensor *bias = &program->graph->values[infer_node_bias(node)].tensor;
        plain = infer_backend_plain(&bias->shape);
        if (!infer_tensor_pack(builder, bias, &plain, &plain, &row, err))
            return false;
        infer_draft_argument(draft, DNNL_ARG_BIAS, &row);
    }
    return true;
}

/* The sum as a step of its own, into the convolution's buffer. */
static bool residual_apart(struct builder *builder, const struct graph_node *node, const struct region *out,
                           struct err *err) {
    struct region operands[2] = {*out, {0}};
    const struct shape *one = &builder->program->tensors[node->residual].shape;
    bool same = infer_shape_equal(one, &builder->program->tensors[node->outputs[0]].shape);
    bool good = same ? infer_value_in_layout(builder, node->residual, &out->desc, node, &operands[1], err)
                     : infer_value_plain(builder, node->residual, node, &operands[1], err);
    return good && infer_build_binary(builder, node, dnnl_binary_add, operands, out, err);
}

static bool is_float(const struct program *program, int value) {
    return program->regions[value].desc.data_type == dnnl_f32;
}

bool infer_build_conv(struct builder *builder, const struct graph_node *node, int index, struct err *err) {
    PULMO_SCOPED(infer_draft_clear) struct draft draft = {0};
    struct program *program = builder->program;
    if (builder->plan && builder->plan->layers[builder->layer[index]] != PRECISION_FP32)
        return infer_build_conv_low(builder, node, index, err);
    bool taken = false;
    if (!infer_build_conv_slabs(builder, node, &taken, err) || taken)
        return taken;
    if (!infer_build_conv_winograd(builder, node, index, &taken, err) || taken)
        return taken;
    bool in_place = infer_residual_in_place(builder, node, index) && is_float(program, node->residual);
    struct region out;
    if (!conv_describe(builder, &draft, node, in_place, err) || !conv_operands(builder, &draft, node, err))
        return false;
    if (in_place)
        out = program->regions[node->residual];
    else if (!infer_region_of(builder, node->outputs[0], infer_draft_layout(&draft, dnnl_query_dst_md), &out, err))
        return false;
    infer_draft_argument(&draft, DNNL_ARG_DST, &out);
    program->figures.sums_in_place += in_place;
    if (!infer_draft_finish(builder, &draft, node, &out, err))
        return false;
    program->regions[node->outputs[0]] = out;
    return in_place || node->residual < 0 || residual_apart(builder, node, &out, err);
}
