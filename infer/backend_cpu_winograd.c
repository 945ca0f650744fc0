/* The CPU back-end's convolutions by infer/winograd.h: which ones, forward as steps, backward at once. */
#include <stdlib.h>
#include <string.h>

#include "infer/backend_cpu_build.h"

/* Whether the node is a convolution of 3 x 3 x 3, stride 1 and one cell of zeros around, with constant weights. */
static bool is_candidate(const struct program *program, const struct graph_node *node) {
    const struct shape *input = &program->tensors[node->inputs[0]].shape;
    const struct tensor *weights = &program->graph->values[node->inputs[1]].tensor;
    struct window window;
    if (input->rank != 5 || !weights->data || weights->shape.rank != 5 ||
        !infer_window_read(node, input, weights->shape.dims + 2, &window, NULL) || window.group != 1)
        return false;
    for (int axis = 0; axis < 3; axis++)
        if (window.kernel[axis] != 3 || window.stride[axis] != 1 || window.dilation[axis] != 1 ||
            window.before[axis] != 1 || window.after[axis] != 1)
            return false;
    return true;
}

/* False where it cannot be made so, or had better not. */
static bool plan_of(const struct program *program, const struct graph_node *node, bool backward, struct winograd *out) {
    if (!is_candidate(program, node))
        return false;
    const struct shape *in = &program->tensors[node->inputs[0]].shape;
    int64_t ins = in->dims[1], outs = program->tensors[node->outputs[0]].shape.dims[1];
    struct winograd_shape shape = {.batch = in->dims[0],
                                   .depth = in->dims[2],
                                   .height = in->dims[3],
                                   .width = in->dims[4],
                                   .in = backward ? outs : ins,
                                   .out = backward ? ins : outs};
    return infer_winograd_plan(&shape, infer_winograd_lanes(infer_backend_instruction_set()), out) &&
           infer_winograd_pays(out);
}

dnnl_memory_desc_t infer_winograd_layout(const struct shape *shape, int lanes) {
    dnnl_memory_desc_t desc = {0};
    dnnl_dims_t dims = {0};
    memcpy(dims, shape->dims, sizeof shape->dims);
    dnnl_memory_desc_init_by_tag(&desc, 5, dims, dnnl_f32,
                                 lanes == 16 ? dnnl_nCdhw16c : dnnl_nCdhw8c); /* cannot fail */
    return desc;
}

static dnnl_memory_desc_t row(size_t bytes) {
    return infer_backend_plain(&(struct shape){.rank = 1, .dims = {(int64_t)(bytes / sizeof(float))}});
}

static bool finite_tensor(const struct tensor *tensor) {
    return infer_backend_finite(tensor->data, (size_t)infer_shape_count(&tensor->shape) * sizeof(float));
}

static bool weights_make(struct builder *builder, const struct graph_node *node, const struct winograd *plan,
                         struct region *out, struct err *err) {
    const struct graph_value *values = builder->program->graph->values;
    const struct tensor *weights = &values[node->inputs[1]].tensor;
    const struct tensor *bias = infer_node_bias(node) >= 0 ? &values[infer_node_bias(node)].tensor : NULL;
    if (!finite_tensor(weights) || (bias && !finite_tensor(bias)))
        return err_set(err, ERR_INPUT, "the weights hold NaN or infinity");
    bool known = false;
    dnnl_memory_desc_t layout = row(plan->weight_bytes);
    float *packed = infer_weights_place(builder, weights->data, &layout, &known, err);
    if (!packed)
        return false;
    if (!known)
        infer_winograd_pack(plan, weights->data, bias ? bias->data : NULL, false, packed);
    *out = (struct region){.buffer = -1, .fixed = packed, .desc = layout};
    return true;
}

/* Where the result lies, and what is added to it: one buffer where the sum may be made in place. */
static bool result_place(struct builder *builder, const struct graph_node *node, int index,
                         const dnnl_memory_desc_t *layout, struct region *residual, struct region *out,
                         struct err *err) {
    struct program *program = builder->program;
    if (node->residual >= 0 && !infer_value_in_layout(builder, node->residual, layout, node, residual, err))
        return false;
    if (builder->home[node->outputs[0]] < 0 && infer_residual_in_place(builder, node, index) &&
        dnnl_memory_desc_equal(layout, &program->regions[node->residual].desc)) {
        program->figures.sums_in_place++;
        *out = *residual;
        return true;
    }
    return infer_region_of(builder, node->outputs[0], layout, out, err);
}

static void *memory_new(size_t size, struct err *err) {
    size_t rounded = (size / PLAN_ALIGNMENT + 1) * PLAN_ALIGNMENT;
    void *memory = rounded <= PULMO_ALLOC_MAX ? aligned_alloc(PLAN_ALIGNMENT, rounded) : NULL;
    if (!memory)
        err_set(err, ERR_MEMORY, "out of memory for %zu bytes of a gradient", rounded);
    return memory;
}

/* Packed once, for all gradients. */
static bool backward_make(struct program *program, const struct graph_node *node, struct err *err) {
    struct winograd plan;
    const float *weights = program->graph->values[node->inputs[1]].tensor.data;
    size_t nodes = (size_t)program->graph->node_count;
    if (!plan_of(program, node, true, &plan))
        return true;
    if (!program->backward && !(program->backward = pulmo_alloc(nodes, sizeof *program->backward, err)))
        return false;
    float *packed = memory_new(plan.weight_bytes, err);
    if (packed)
        infer_winograd_pack(&plan, weights, NULL, true, packed);
    program->backward[node - program->graph->nodes] = packed;
    return packed != NULL;
}

bool infer_build_conv_winograd(struct builder *builder, const struct graph_node *node, int index, bool *taken,
                               struct err *err) {
    struct program *program = builder->program;
    struct winograd plan;
    const struct shape *shape = &program->tensors[node->outputs[0]].shape;
    *taken = false;
    if (program->keep && !backward_make(program, node, err))
        return false;
    if (builder->in_order ||
        (node->residual >= 0 && !infer_shape_equal(&program->tensors[node->residual].shape, shape)) ||
        (infer_node_bias(node) >= 0 && !program->graph->values[infer_node_bias(node)].tensor.data) ||
        !plan_of(program, node, false, &plan))
        return true;
    dnnl_memory_desc_t in = infer_winograd_layout(&program->tensors[node->inputs[0]].shape, plan.lanes);
    dnnl_memory_desc_t out = infer_winograd_layout(shape, plan.lanes), scratch = row(plan.scratch_bytes);
    struct argument arguments[] = {{.role = DNNL_ARG_SRC},
                                   {.role = DNNL_ARG_WEIGHTS},
                                   {.role = DNNL_ARG_DST},
                                   {.role = DNNL_ARG_SCRATCHPAD},
                                   {.role = DNNL_ARG_SRC_1}}; /* the last one where there is a sum */
    if (!infer_value_in_layout(builder, node->inputs[0], &in, node, &arguments[0].region, err) ||
        !weights_make(builder, node, &plan, &arguments[1].region, err) ||
        !result_place(builder, node, index, &out, &arguments[4].region, &arguments[2].region, err) ||
        !infer_region_new(builder, &scratch, &arguments[3].region, err))
        return false;
    struct step *step = infer_step_new(builder, node, arguments, node->residual >= 0 ? 5 : 4, err);
    if (!step || !(step->winograd = pulmo_alloc(1, sizeof *step->winograd, err)))
        return false;
    *step->winograd = plan;
    program->figures.winograds++;
    program->regions[node->outputs[0]] = arguments[2].region;
    *taken = true;
    return true;
}

void infer_winograd_bind(const struct step *step, void *const *data, struct winograd_call *out) {
    *out = (struct winograd_call){.in = data[0],
                                  .weights = data[1],
                                  .out = data[2],
                                  .scratch = data[3],
                                  .residual = step->argument_count > 4 ? data[4] : NULL,
                                  .relu = step->node->relu};
}

/* ---- gradient --------------------------------------------------------------------------------------------------- */

bool infer_winograd_backward(const struct program *program, const struct graph_node *node, const float *gradient_out,
                             float *gradient_in, bool *taken, struct err *err) {
    struct winograd plan;
    *taken =
        program->backward && program->backward[node - program->graph->nodes] && plan_of(program, node, true, &plan);
    if (!*taken)
        return true;
    const struct shape *from = &program->tensors[node->outputs[0]].shape,
                       *to = &program->tensors[node->inputs[0]].shape;
    dnnl_memory_desc_t plain_in = infer_backend_plain(from), plain_out = infer_backend_plain(to);
    dnnl_memory_desc_t in = infer_winograd_layout(from, plan.lanes), out = infer_winograd_layout(to, plan.lanes);
    const float *weights = program->backward[node - program->graph->nodes];
    PULMO_SCOPED(pulmo_free_at) float *scratch = memory_new(plan.scratch_bytes, err);
    PULMO_SCOPED(pulmo_free_at) float *source = scratch ? memory_new(dnnl_memory_desc_get_size(&in), err) : NULL;
    PULMO_SCOPED(pulmo_free_at) float *result = source ? memory_new(dnnl_memory_desc_get_size(&out), err) : NULL;
    if (!result || !infer_backend_reorder(program->engine, &plain_in, gradient_out, &in, source, err))
        return false;
    struct winograd_call call = {.in = source, .weights = weights, .out = result, .scratch = scratch};
    /* A gradient that is not finite is judged where all gradients are: by who asked for it. */
    (void)infer_winograd_run(&plan, &call);
    return infer_backend_reorder(program->engine, &out, result, &plain_out, gradient_in, err);
}
