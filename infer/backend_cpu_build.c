/* The CPU back-end: compiling a graph for fixed shapes. Convolutions choose their layouts (format_tag::any), what
 * follows keeps the layout it finds, and reorders are put only where a layout must change. */
#include <stdlib.h>
#include <string.h>

#include "infer/backend_cpu_build.h"

void infer_draft_clear(struct draft *draft) {
    if (draft->desc)
        dnnl_primitive_desc_destroy(draft->desc);
    if (draft->attributes)
        dnnl_primitive_attr_destroy(draft->attributes);
    if (draft->post)
        dnnl_post_ops_destroy(draft->post);
}

/* ---- buffers and steps ---------------------------------------------------------------------------------- */

static int buffer_add(struct builder *builder, size_t size, struct err *err) {
    struct program *program = builder->program;
    if (program->buffer_count == program->buffer_capacity) {
        int capacity = program->buffer_capacity ? 2 * program->buffer_capacity : 64;
        struct plan_buffer *grown = realloc(program->buffers, (size_t)capacity * sizeof *grown);
        if (!grown) {
            err_set(err, ERR_MEMORY, "out of memory for %d buffers", capacity);
            return -1;
        }
        program->buffers = grown;
        program->buffer_capacity = capacity;
    }
    program->buffers[program->buffer_count] = (struct plan_buffer){.size = size, .first = STEP_NEVER, .last = -1};
    return program->buffer_count++;
}

static void buffer_touch(struct builder *builder, int buffer, int step) {
    if (buffer < 0)
        return;
    struct plan_buffer *at = &builder->program->buffers[buffer];
    at->first = step < at->first ? step : at->first;
    at->last = step > at->last ? step : at->last;
}

bool infer_region_new(struct builder *builder, const dnnl_memory_desc_t *desc, struct region *out, struct err *err) {
    int buffer = buffer_add(builder, dnnl_memory_desc_get_size(desc), err);
    if (buffer < 0)
        return false;
    *out = (struct region){.buffer = buffer, .desc = *desc};
    return true;
}

static struct step *step_add(struct builder *builder, const struct graph_node *node, struct err *err) {
    struct program *program = builder->program;
    if (program->step_count == program->step_capacity) {
        int capacity = program->step_capacity ? 2 * program->step_capacity : 64;
        struct step *grown = realloc(program->steps, (size_t)capacity * sizeof *grown);
        if (!grown) {
            err_set(err, ERR_MEMORY, "out of memory for %d steps", capacity);
            return NULL;
        }
        program->steps = grown;
        program->step_capacity = capacity;
    }
    struct step *step = &program->steps[program->step_count++];
    *step = (struct step){.node = node, .scratch_buffer = -1};
    return step;
}

void infer_draft_argument(struct draft *draft, int role, const struct region *region) {
    draft->arguments[draft->argument_count++] = (struct argument){.role = role, .region = *region};
}

static bool draft_scratch(struct builder *builder, struct draft *draft, struct err *err) {
    const dnnl_memory_desc_t *desc = dnnl_primitive_desc_query_md(draft->desc, dnnl_query_scratchpad_md, 0);
    struct region scratch;
    if (!desc || dnnl_memory_desc_get_size(desc) == 0)
        return true;
    if (!infer_region_new(builder, desc, &scratch, err))
        return false;
    infer_draft_argument(draft, DNNL_ARG_SCRATCHPAD, &scratch);
    return true;
}

static void step_check(struct step *step, const struct region *region) {
    step->checked[step->checked_count++] = (struct checked){.buffer = region->buffer,
                                                            .offset = region->offset,
                                                            .size = dnnl_memory_desc_get_size(&region->desc),
                                                            .type = region->desc.data_type};
}

struct step *infer_step_new(struct builder *builder, const struct graph_node *node, const struct argument *arguments,
                            int count, struct err *err) {
    struct step *step = step_add(builder, node, err);
    if (!step || !(step->arguments = pulmo_alloc((size_t)count, sizeof *step->arguments, err)))
        return NULL;
    memcpy(step->arguments, arguments, (size_t)count * sizeof *step->arguments);
    step->argument_count = count;
    for (int i = 0; i < count; i++)
        buffer_touch(builder, arguments[i].region.buffer, builder->program->step_count - 1);
    return step;
}

bool infer_draft_finish(struct builder *builder, struct draft *draft, const struct graph_node *node,
                        const struct region *checked, struct err *err) {
    if (!draft_scratch(builder, draft, err))
        return false;
    struct step *step = infer_step_new(builder, node, draft->arguments, draft->argument_count, err);
    if (!step || !infer_backend_ok(dnnl_primitive_create(&step->primitive, draft->desc), node->operation->name, err))
        return false;
    if (checked)
        step_check(step, checked);
    builder->program->figures.primitives++;
    return true;
}

/* Attributes of every primitive: scratch memory comes from the arena, so that a program is shared by threads. */
bool infer_draft_begin(struct draft *draft, struct err *err) {
    return infer_backend_ok(dnnl_primitive_attr_create(&draft->attributes), "attributes", err) &&
           infer_backend_ok(dnnl_primitive_attr_set_scratchpad_mode(draft->attributes, dnnl_scratchpad_mode_user),
                            "a scratchpad", err) &&
           infer_backend_ok(dnnl_post_ops_create(&draft->post), "post-operations", err);
}

bool infer_draft_describe(struct builder *builder, struct draft *draft, const void *operation,
                          const struct graph_node *node, struct err *err) {
    return infer_backend_ok(dnnl_primitive_attr_set_post_ops(draft->attributes, draft->post), "post-operations", err) &&
           infer_backend_ok(
               dnnl_primitive_desc_create(&draft->desc, operation, draft->attributes, builder->program->engine, NULL),
               node->operation->name, err);
}

bool infer_draft_relu(struct draft *draft, struct err *err) {
    return infer_backend_ok(dnnl_post_ops_append_eltwise(draft->post, 1.0F, dnnl_eltwise_relu, 0.0F, 0.0F), "Relu",
                            err);
}

const dnnl_memory_desc_t *infer_draft_layout(const struct draft *draft, dnnl_query_t query) {
    return dnnl_primitive_desc_query_md(draft->desc, query, 0);
}

/* ---- layouts --------------------------------------------------------------------------------------------- */

bool infer_region_convert(struct builder *builder, const struct region *from, const struct region *to, float factor,
                          const struct graph_node *node, const struct region *checked, struct err *err) {
    PULMO_SCOPED(infer_draft_clear) struct draft draft = {0};
    dnnl_engine_t engine = builder->program->engine;
    if (!infer_draft_begin(&draft, err) ||
        (factor != 1.0F &&
         !infer_backend_ok(dnnl_primitive_attr_set_output_scales(draft.attributes, 1, 0, &factor), "a scale", err)) ||
        !infer_backend_ok(
            dnnl_reorder_primitive_desc_create(&draft.desc, &from->desc, engine, &to->desc, engine, draft.attributes),
            "a reorder", err))
        return false;
    infer_draft_argument(&draft, DNNL_ARG_FROM, from);
    infer_draft_argument(&draft, DNNL_ARG_TO, to);
    builder->program->figures.reorders++;
    builder->program->figures.primitives--;
    return infer_draft_finish(builder, &draft, node, checked, err);
}

/* The same; what may have been cut off at the end of its range is counted. */
static bool reorder_add(struct builder *builder, const struct region *from, const struct region *to, float factor,
                        const struct graph_node *node, struct err *err) {
    return infer_region_convert(builder, from, to, factor, node, to->desc.data_type == dnnl_u8 ? to : NULL, err);
}

bool infer_value_copy(struct builder *builder, int value, const struct region *to, const struct graph_node *node,
                      struct err *err) {
    struct region from = builder->program->regions[value];
    float factor = 1;
    if (from.desc.data_type != to->desc.data_type && from.desc.data_type == dnnl_u8)
        factor = builder->scales[value];
    else if (from.desc.data_type != to->desc.data_type && to->desc.data_type == dnnl_u8)
        factor = 1 / builder->scales[value];
    return reorder_add(builder, &from, to, factor, node, err);
}

bool infer_value_in_layout(struct builder *builder, int value, const dnnl_memory_desc_t *desc,
                           const struct graph_node *node, struct region *out, struct err *err) {
    const struct region *here = &builder->program->regions[value];
    struct region *other = builder->plan && desc->data_type != dnnl_f32 ? &builder->other[value] : NULL;
    dnnl_memory_desc_t plain = infer_backend_plain(&builder->program->tensors[value].shape);
    bool wants_plain = dnnl_memory_desc_equal(desc, &plain) != 0;
    if (dnnl_memory_desc_equal(desc, &here->desc)) {
        *out = *here;
        return true;
    }
    if (wants_plain && builder->plain[value] >= 0) {
        *out = (struct region){.buffer = builder->plain[value], .desc = plain};
        return true;
    }
    if (other && other->desc.ndims && dnnl_memory_desc_equal(desc, &other->desc)) {
        *out = *other;
        return true;
    }
    struct region copy;
    if (!infer_region_new(builder, desc, &copy, err) || !infer_value_copy(builder, value, &copy, node, err))
        return false;
    if (wants_plain)
        builder->plain[value] = copy.buffer;
    if (other)
        *other = copy;
    *out = copy;
    return true;
}

bool infer_value_floats(struct builder *builder, int value, const struct graph_node *node, struct region *out,
                        struct err *err) {
    dnnl_data_type_t type = builder->program->regions[value].desc.data_type;
    if (type == dnnl_u8 || type == dnnl_bf16)
        return infer_value_plain(builder, value, node, out, err);
    *out = builder->program->regions[value];
    return true;
}

bool infer_value_plain(struct builder *builder, int value, const struct graph_node *node, struct region *out,
                       struct err *err) {
    const struct tensor *tensor = &builder->program->tensors[value];
    dnnl_memory_desc_t plain = infer_backend_plain(&tensor->shape);
    if (tensor->element == ELEMENT_F32)
        return infer_value_in_layout(builder, value, &plain, node, out, err);
    *out = builder->program->regions[value]; /* integers and booleans are never anything but plain */
    return true;
}

/* ---- convolution ------------------------------------------------------------------------------------------ */

bool infer_backend_window(const struct program *program, const struct graph_node *node, struct window_dims *out,
                          struct err *err) {
    struct window window;
    bool weighted = node->operation->kind == OPERATOR_CONV;
    const int64_t *kernel = weighted ? program->tensors[node->inputs[1]].shape.dims + 2 : NULL;
    if (!infer_window_read(node, &program->tensors[node->inputs[0]].shape, kernel, &window, err))
        return false;
    *out = (struct window_dims){0};
    for (int i = 0; i < window.spatial; i++) {
        out->kernel[i] = window.kernel[i];
        out->stride[i] = window.stride[i];
        out->dilation[i] = window.dilation[i] - 1;
        out->before[i] = window.before[i];
        out->after[i] = window.after[i];
    }
    return true;
}

/* Channels that do not fill their blocks. */
static bool is_padded(const dnnl_memory_desc_t *desc) {
    for (int axis = 0; axis < desc->ndims; axis++)
        if (desc->padded_dims[axis] != desc->dims[axis])
            return true;
    return false;
}

/* oneDNN 2.6.3 adds padded tensors wrongly on AVX and AVX2: there and back again by the plain layout. */
static bool binary_add_plain(struct builder *builder, const struct graph_node *node, dnnl_alg_kind_t kind,
                             const struct region operands[2], const struct region *out, struct err *err) {
    dnnl_memory_desc_t layout = infer_backend_plain(&builder->program->tensors[node->outputs[0]].shape);
    struct region plain[2] = {operands[0], operands[1]};
    for (int i = 0; i < 2; i++)
        if (is_padded(&operands[i].desc) && (!infer_region_new(builder, &layout, &plain[i], err) ||
                                             !reorder_add(builder, &operands[i], &plain[i], 1, node, err)))
            return false;
    return infer_build_binary(builder, node, kind, plain, &plain[0], err) &&
           reorder_add(builder, &plain[0], out, 1, node, err);
}

bool infer_build_binary(struct builder *builder, const struct graph_node *node, dnnl_alg_kind_t kind,
                        const struct region operands[2], const struct region *out, struct err *err) {
    if (is_padded(&out->desc))
        return binary_add_plain(builder, node, kind, operands, out, err);
    PULMO_SCOPED(infer_draft_clear) struct draft draft = {0};
    dnnl_binary_desc_t binary;
    if (!infer_draft_begin(&draft, err) || (node->relu && !infer_draft_relu(&draft, err)) ||
        !infer_backend_ok(dnnl_binary_desc_init(&binary, kind, &operands[0].desc, &operands[1].desc, &out->desc),
                          "a sum", err) ||
        !infer_draft_describe(builder, &draft, &binary, node, err))
        return false;
    infer_draft_argument(&draft, DNNL_ARG_SRC_0, &operands[0]);
    infer_draft_argument(&draft, DNNL_ARG_SRC_1, &operands[1]);
    infer_draft_argument(&draft, DNNL_ARG_DST, out);
    return infer_draft_finish(builder, &draft, node, out, err);
}

/* ---- pooling, resize, concat, elementwise ------------------------------------------------------------------ */

/* One input in the layout it has, one output in the layout the primitive likes. */
static bool unary_finish(struct builder *builder, struct draft *draft, const struct graph_node *node,
                         const struct region *in, struct err *err) {
    struct region out;
    if (!infer_region_of(builder, node->outputs[0], infer_draft_layout(draft, dnnl_query_dst_md), &out, err))
        return false;
    infer_draft_argument(draft, DNNL_ARG_SRC, in);
    infer_draft_argument(draft, DNNL_ARG_DST, &out);
    builder->program->regions[node->outputs[0]] = out;
    return infer_draft_finish(builder, draft, node, &out, err);
}

static bool build_pool(struct builder *builder, const struct graph_node *node, struct err *err) {
    PULMO_SCOPED(infer_draft_clear) struct draft draft = {0};
    struct program *program = builder->program;
    dnnl_memory_desc_t output = infer_backend_any(&program->tensors[node->outputs[0]].shape);
    dnnl_alg_kind_t kind = node->operation->kind == OPERATOR_POOL_MAX          ? dnnl_pooling_max
                           : infer_node_int(node, "count_include_pad", 0) != 0 ? dnnl_pooling_avg_include_padding
                                                                               : dnnl_pooling_avg_exclude_padding;
    struct window_dims w;
    struct region in;
    dnnl_pooling_v2_desc_t pool;
    if (!infer_value_floats(builder, node->inputs[0], node, &in, err) || !infer_draft_begin(&draft, err) ||
        !infer_backend_window(program, node, &w, err) ||
        !infer_backend_ok(dnnl_pooling_v2_forward_desc_init(&pool, dnnl_forward_inference, kind, &in.desc, &output,
                                                            w.stride, w.kernel, w.dilation, w.before, w.after),
                          "pooling", err) ||
        !infer_draft_describe(builder, &draft, &pool, node, err))
        return false;
    return unary_finish(builder, &draft, node, &in, err);
}

static bool build_resize(struct builder *builder, const struct graph_node *node, struct err *err) {
    PULMO_SCOPED(infer_draft_clear) struct draft draft = {0};
    struct region in = builder->program->regions[node->inputs[0]]; /* in the type that it has */
    dnnl_memory_desc_t output = infer_backend_any(&builder->program->tensors[node->outputs[0]].shape);
    dnnl_resampling_desc_t resampling;
    output.data_type = in.desc.data_type;
    if (!infer_draft_begin(&draft, err) ||
        !infer_backend_ok(dnnl_resampling_forward_desc_init(&resampling, dnnl_forward_inference,
                                                            dnnl_resampling_nearest, NULL, &in.desc, &output),
                          "Resize", err) ||
        !infer_draft_describe(builder, &draft, &resampling, node, err))
        return false;
    return unary_finish(builder, &draft, node, &in, err);
}

static bool build_eltwise(struct builder *builder, const struct graph_node *node, dnnl_alg_kind_t kind,
                          struct err *err) {
    PULMO_SCOPED(infer_draft_clear) struct draft draft = {0};
    struct region in;
    dnnl_eltwise_desc_t eltwise;
    if (!infer_value_floats(builder, node->inputs[0], node, &in, err) || !infer_draft_begin(&draft, err) ||
        !infer_backend_ok(dnnl_eltwise_forward_desc_init(&eltwise, dnnl_forward_inference, kind, &in.desc, 0, 0),
                          node->operation->name, err) ||
        !infer_draft_describe(builder, &draft, &eltwise, node, err))
        return false;
    return unary_finish(builder, &draft, node, &in, err);
}

static bool build_kernel(struct builder *builder, const struct graph_node *node, struct err *err);

static bool build_concat(struct builder *builder, const struct graph_node *node, struct err *err) {
    const struct tensor *result = &builder->program->tensors[node->outputs[0]];
    bool plain = result->element != ELEMENT_F32 || result->shape.rank < 3 || result->shape.rank > 5;
    return plain ? build_kernel(builder, node, err) : infer_build_concat(builder, node, err);
}

static bool binary_kind(const struct graph_node *node, dnnl_alg_kind_t *out) {
    static const struct {
        const char *name;
        dnnl_alg_kind_t kind;
    } kinds[] = {
        {"Add", dnnl_binary_add}, {"Sub", dnnl_binary_sub}, {"Mul", dnnl_binary_mul}, {"Div", dnnl_binary_div}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(node->operation->name, kinds[i].name) == 0) {
            *out = kinds[i].kind;
            return true;
        }
    return false;
}

/* A blocked image with one of its own shape stays blocked; everything else is cheap enough in plain C. */
static bool build_binary(struct builder *builder, const struct graph_node *node, struct err *err) {
    struct program *program = builder->program;
    const struct tensor *one = &program->tensors[node->inputs[0]], *two = &program->tensors[node->inputs[1]];
    dnnl_memory_desc_t plain = infer_backend_plain(&one->shape);
    dnnl_alg_kind_t kind = dnnl_alg_kind_undef;
    struct region operands[2] = {program->regions[node->inputs[0]], {0}}, out;
    if (!infer_shape_equal(&one->shape, &two->shape) || one->shape.rank < 3 || !binary_kind(node, &kind) ||
        operands[0].desc.data_type != dnnl_f32 || dnnl_memory_desc_equal(&plain, &operands[0].desc))
        return build_kernel(builder, node, err);
    if (!infer_value_in_layout(builder, node->inputs[1], &operands[0].desc, node, &operands[1], err) ||
        !infer_region_new(builder, &operands[0].desc, &out, err))
        return false;
    program->regions[node->outputs[0]] = out;
    return infer_build_binary(builder, node, kind, operands, &out, err);
}

/* ---- matrix products ---------------------------------------------------------------------------------------- */

struct product { /* [batch][rows][deep] x [batch][deep][wide], or without the batch */
    struct shape a, b, out;
    bool b_transposed;
    int bias; /* value, or -1 */
};

static bool matmul_shapes(const struct program *program, const struct graph_node *node, struct product *out) {
    const struct shape *a = &program->tensors[node->inputs[0]].shape, *b = &program->tensors[node->inputs[1]].shape;
    int64_t deep = a->dims[a->rank - 1], wide = b->dims[b->rank - 1], rows = infer_shape_count(a) / deep;
    out->bias = infer_node_bias(node);
    if (b->rank == 2) {
        out->a = (struct shape){.rank = 2, .dims = {rows, deep}};
        out->b = *b;
        out->out = (struct shape){.rank = 2, .dims = {rows, wide}};
        return true;
    }
    struct shape outer_a = *a, outer_b = *b;
    outer_a.rank -= 2;
    outer_b.rank -= 2;
    if (!infer_shape_equal(&outer_a, &outer_b) || out->bias >= 0)
        return false;
    int64_t batch = infer_shape_count(&outer_a);
    out->a = (struct shape){.rank = 3, .dims = {batch, rows / batch, deep}};
    out->b = (struct shape){.rank = 3, .dims = {batch, deep, wide}};
    out->out = (struct shape){.rank = 3, .dims = {batch, rows / batch, wide}};
    return true;
}

static bool gemm_shapes(const struct program *program, const struct graph_node *node, struct product *out) {
    out->a = program->tensors[node->inputs[0]].shape;
    out->b = program->tensors[node->inputs[1]].shape;
    out->out = program->tensors[node->outputs[0]].shape;
    out->b_transposed = infer_node_int(node, "transB", 0) != 0;
    out->bias = infer_node_bias(node);
    if (out->b_transposed)
        out->b = (struct shape){.rank = 2, .dims = {out->b.dims[1], out->b.dims[0]}};
    const struct tensor *bias = out->bias >= 0 ? &program->graph->values[out->bias].tensor : NULL;
    bool row = !bias || (bias->data && infer_shape_count(&bias->shape) == out->out.dims[1] && bias->shape.rank >= 1 &&
                         bias->shape.dims[bias->shape.rank - 1] == out->out.dims[1]);
    return row && infer_node_int(node, "transA", 0) == 0 && infer_node_float(node, "alpha", 1) == 1.0F &&
           infer_node_float(node, "beta", 1) == 1.0F;
}

static dnnl_memory_desc_t product_b_layout(const struct product *product) {
    dnnl_memory_desc_t desc = infer_backend_plain(&product->b);
    if (product->b_transposed) {
        dnnl_dims_t dims = {product->b.dims[0], product->b.dims[1]}, strides = {1, product->b.dims[0]};
        dnnl_memory_desc_init_by_strides(&desc, 2, dims, dnnl_f32, strides);
    }
    return desc;
}

static bool product_describe(struct builder *builder, struct draft *draft, const struct graph_node *node,
                             const struct product *product, struct err *err) {
    bool packed = builder->program->graph->values[node->inputs[1]].tensor.data != NULL;
    dnnl_memory_desc_t a = infer_backend_plain(&product->a), out = infer_backend_plain(&product->out);
    dnnl_memory_desc_t b = packed ? infer_backend_any(&product->b) : product_b_layout(product), bias = {0};
    struct shape row = {.rank = 2, .dims = {1, product->out.dims[product->out.rank - 1]}};
    if (product->bias >= 0)
        bias = infer_backend_plain(&row);
    dnnl_matmul_desc_t matmul;
    return infer_draft_begin(draft, err) && (!node->relu || infer_draft_relu(draft, err)) &&
           infer_backend_ok(dnnl_matmul_desc_init(&matmul, &a, &b, product->bias >= 0 ? &bias : NULL, &out), "MatMul",
                            err) &&
           infer_draft_describe(builder, draft, &matmul, node, err);
}

static bool product_operands(struct builder *builder, struct draft *draft, const struct graph_node *node,
                             const struct product *product, struct err *err) {
    struct program *program = builder->program;
    const struct tensor *weights = &program->graph->values[node->inputs[1]].tensor;
    dnnl_memory_desc_t user = product_b_layout(product);
    struct region a, b;
    if (!infer_value_plain(builder, node->inputs[0], node, &a, err))
        return false;
    if (weights->data
            ? !infer_tensor_pack(builder, weights, &user, infer_draft_layout(draft, dnnl_query_weights_md), &b, err)
            : !infer_value_plain(builder, node->inputs[1], node, &b, err))
        return false;
    a.desc = infer_backend_plain(&product->a);
    if (!weights->data)
        b.desc = user;
    infer_draft_argument(draft, DNNL_ARG_SRC, &a);
    infer_draft_argument(draft, DNNL_ARG_WEIGHTS, &b);
    if (product->bias >= 0) {
        struct shape row = {.rank = 2, .dims = {1, product->out.dims[product->out.rank - 1]}};
        struct region bias = {.buffer = -1,
                              .fixed = program->graph->values[product->bias].tensor.data,
                              .desc = infer_backend_plain(&row)};
        infer_draft_argument(draft, DNNL_ARG_BIAS, &bias);
    }
    return true;
}

static bool build_product(struct builder *builder, const struct graph_node *node, struct err *err) {
    struct program *program = builder->program;
    struct product product = {.bias = -1};
    bool gemm = node->operation->kind == OPERATOR_GEMM;
    if (program->graph->values[node->inputs[0]].tensor.data ||
        !(gemm ? gemm_shapes(program, node, &product) : matmul_shapes(program, node, &product)))
        return build_kernel(builder, node, err);
    PULMO_SCOPED(infer_draft_clear) struct draft draft = {0};
    if (!product_describe(builder, &draft, node, &product, err) ||
        !product_operands(builder, &draft, node, &product, err))
        return false;
    dnnl_memory_desc_t layout = infer_backend_plain(&product.out);
    struct region out;
    if (!infer_region_new(builder, &layout, &out, err))
        return false;
    infer_draft_argument(&draft, DNNL_ARG_DST, &out);
    if (!infer_draft_finish(builder, &draft, node, &out, err))
        return false;
    out.desc = infer_backend_plain(&program->tensors[node->outputs[0]].shape);
    program->regions[node->outputs[0]] = out;
    return true;
}

/* ---- kernels of ours, aliases -------------------------------------------------------------------------------- */

static bool kernel_outputs(struct builder *builder, struct step *step, struct err *err) {
    struct program *program = builder->program;
    for (int k = 0; k < step->node->output_count; k++) {
        int value = step->node->outputs[k];
        step->out_buffers[k] = -1;
        if (value < 0)
            continue;
        const struct tensor *tensor = &program->tensors[value];
        step->call.out[k] = *tensor;
        struct region out = {.desc = infer_backend_plain(&tensor->shape)};
        out.buffer =
            buffer_add(builder, (size_t)infer_shape_count(&tensor->shape) * infer_element_size(tensor->element), err);
        if (out.buffer < 0)
            return false;
        program->regions[value] = out;
        step->out_buffers[k] = out.buffer;
        if (tensor->element == ELEMENT_F32)
            step_check(step, &out);
    }
    return true;
}

static bool build_kernel(struct builder *builder, const struct graph_node *node, struct err *err) {
    struct region in[GRAPH_NODE_INPUTS_MAX];
    for (int k = 0; k < node->input_count; k++)
        if (node->inputs[k] >= 0 && !infer_value_plain(builder, node->inputs[k], node, &in[k], err))
            return false;
    struct step *step = step_add(builder, node, err);
    if (!step)
        return false;
    int index = builder->program->step_count - 1;
    step->call.node = node;
    for (int k = 0; k < node->input_count; k++) {
        step->call.present[k] = node->inputs[k] >= 0;
        step->in_buffers[k] = step->call.present[k] ? in[k].buffer : -1;
        if (step->call.present[k])
            step->call.in[k] = builder->program->tensors[node->inputs[k]];
        buffer_touch(builder, step->in_buffers[k], index);
    }
    if (!kernel_outputs(builder, step, err))
        return false;
    for (int k = 0; k < node->output_count; k++)
        buffer_touch(builder, step->out_buffers[k], index);
    size_t scratch = node->operation->scratch ? node->operation->scratch(&step->call) : 0;
    if (scratch) {
        step->scratch_buffer = buffer_add(builder, scratch, err);
        if (step->scratch_buffer < 0)
            return false;
        buffer_touch(builder, step->scratch_buffer, index);
    }
    builder->program->figures.kernels++;
    return true;
}

static bool build_alias(struct builder *builder, const struct graph_node *node, struct err *err) {
    struct program *program = builder->program;
    struct region in;
    if (!infer_value_plain(builder, node->inputs[0], node, &in, err))
        return false;
    in.desc = infer_backend_plain(&program->tensors[node->outputs[0]].shape);
    program->regions[node->outputs[0]] = in;
    return true;
}

static bool build_node(struct builder *builder, const struct graph_node *node, int index, struct err *err) {
    bool image = builder->program->tensors[node->inputs[0]].element == ELEMENT_F32;
    switch (node->operation->kind) {
    case OPERATOR_CONV: return infer_build_conv(builder, node, index, err);
    case OPERATOR_POOL_MAX:
    case OPERATOR_POOL_AVERAGE: return build_pool(builder, node, err);
    case OPERATOR_RESIZE: return build_resize(builder, node, err);
    case OPERATOR_CONCAT: return build_concat(builder, node, err);
    case OPERATOR_RELU: return build_eltwise(builder, node, dnnl_eltwise_relu, err);
    case OPERATOR_SIGMOID: return build_eltwise(builder, node, dnnl_eltwise_logistic, err);
    case OPERATOR_BINARY: return build_binary(builder, node, err);
    case OPERATOR_MATMUL:
    case OPERATOR_GEMM: return build_product(builder, node, err);
    case OPERATOR_ALIAS: return image ? build_alias(builder, node, err) : build_kernel(builder, node, err);
    case OPERATOR_KERNEL:
    case OPERATOR_DROPOUT:
    case OPERATOR_BATCH_NORMALIZATION: return build_kernel(builder, node, err);
    }
    return err_set(err, ERR_INTERNAL, "operator kind %d", (int)node->operation->kind);
}

/* ---- the whole ------------------------------------------------------------------------------------------------ */

static void find_last_uses(struct builder *builder) {
    const struct graph *graph = builder->program->graph;
    for (int i = 0; i < graph->value_count; i++)
        builder->last_use[i] = infer_graph_is_output(graph, i) ? STEP_NEVER : -1;
    for (int i = graph->node_count - 1; i >= 0; i--) {
        const struct graph_node *node = &graph->nodes[i];
        int until = node->operation->kind == OPERATOR_ALIAS ? builder->last_use[node->outputs[0]] : i;
        until = until > i ? until : i;
        for (int k = 0; k <= node->input_count; k++) {
            int value = k < node->input_count ? node->inputs[k] : node->residual;
            if (value >= 0 && builder->last_use[value] < until)
                builder->last_use[value] = until;
        }
    }
}

static bool inputs_place(struct builder *builder, struct err *err) {
    struct program *program = builder->program;
    for (int i = 0; i < program->graph->value_count; i++) {
        builder->plain[i] = -1;
        program->regions[i].buffer = -1;
        if (!program->tensors[i].data)
            continue;
        program->regions[i].fixed = program->tensors[i].data;
        program->regions[i].desc = infer_backend_plain(&program->tensors[i].shape);
    }
    for (int i = 0; i < program->graph->input_count; i++) {
        int value = program->graph->inputs[i];
        dnnl_memory_desc_t plain = infer_backend_plain(&program->tensors[value].shape);
        if (program->tensors[value].element != ELEMENT_F32)
            return err_set(err, ERR_UNSUPPORTED, "input %.120s is not float", program->graph->values[value].name);
        if (!infer_region_new(builder, &plain, &program->regions[value], err))
            return false;
        buffer_touch(builder, program->regions[value].buffer, 0);
    }
    return true;
}

static bool outputs_place(struct builder *builder, struct err *err) {
    struct program *program = builder->program;
    static const struct operation leaving = {.name = "output"};
    static const struct graph_node edge = {.operation = &leaving, .name = NULL, .residual = -1};
    for (int i = 0; i < program->graph->output_count; i++) {
        int value = program->graph->outputs[i];
        if (program->tensors[value].element != ELEMENT_F32)
            return err_set(err, ERR_UNSUPPORTED, "output %.120s is not float", program->graph->values[value].name);
        if (!infer_value_plain(builder, value, &edge, &program->outputs[i], err))
            return false;
        buffer_touch(builder, program->outputs[i].buffer, STEP_NEVER - 1);
    }
    for (int i = 0; program->keep && i < program->buffer_count; i++)
        buffer_touch(builder, i, STEP_NEVER - 1);
    return true;
}

static void low_clear(struct builder *builder) {
    free(builder->layer);
    free(builder->scales);
    free(builder->int8_read);
    free(builder->bf16_read);
    free(builder->other);
}

/* What a plan of lower precision needs; nothing without one. */
static bool low_allocate(struct builder *builder, struct err *err) {
    const struct graph *graph = builder->program->graph;
    size_t values = (size_t)graph->value_count;
    if (!builder->plan)
        return true;
    builder->layer = pulmo_alloc((size_t)graph->node_count, sizeof *builder->layer, err);
    builder->scales = pulmo_alloc(values, sizeof *builder->scales, err);
    builder->int8_read = pulmo_alloc(values, sizeof *builder->int8_read, err);
    builder->bf16_read = pulmo_alloc(values, sizeof *builder->bf16_read, err);
    builder->other = pulmo_alloc(values, sizeof *builder->other, err);
    if (!builder->layer || !builder->scales || !builder->int8_read || !builder->bf16_read || !builder->other)
        return false;
    infer_low_prepare(builder);
    return true;
}

struct program_options {
    bool keep;
    const struct program *like;         /* NULL = none */
    const struct infer_precision *plan; /* NULL = fp32 */
    bool in_order;                      /* no minimal filtering */
};

static bool program_build(struct program *program, const struct shape *inputs, const struct program_options *options,
                          struct err *err) {
    const struct graph *graph = program->graph;
    size_t values = (size_t)graph->value_count;
    PULMO_SCOPED(pulmo_free_at) int *plain = pulmo_alloc(values, sizeof *plain, err);
    PULMO_SCOPED(pulmo_free_at) int *last_use = pulmo_alloc(values, sizeof *last_use, err);
    PULMO_SCOPED(pulmo_free_at) int *home = pulmo_alloc(values, sizeof *home, err);
    PULMO_SCOPED(low_clear)
    struct builder builder = {.program = program,
                              .like = options->like,
                              .plan = options->plan,
                              .plain = plain,
                              .last_use = last_use,
                              .home = home,
                              .in_order = options->in_order};
    program->tensors = pulmo_alloc(values, sizeof *program->tensors, err);
    program->regions = pulmo_alloc(values, sizeof *program->regions, err);
    /* weights and bias of a node; slabs may want their weights in one layout at each end and in one between */
    program->weights = pulmo_alloc(4 * (size_t)graph->node_count, sizeof *program->weights, err);
    if (!plain || !last_use || !home || !program->tensors || !program->regions || !program->weights ||
        !infer_backend_ok(dnnl_engine_create(&program->engine, dnnl_cpu, 0), "a CPU engine", err) ||
        !infer_graph_shapes(graph, inputs, program->tensors, err) || !low_allocate(&builder, err))
        return false;
    find_last_uses(&builder);
    infer_concat_prepare(&builder);
    if (!inputs_place(&builder, err))
        return false;
    for (int i = 0; i < graph->node_count; i++)
        if (!build_node(&builder, &graph->nodes[i], i, err))
            return err_within(err, "node %.120s (%s)", graph->nodes[i].name, graph->nodes[i].operation->name);
    return outputs_place(&builder, err) &&
           infer_plan_memory(program->buffers, program->buffer_count, &program->figures.memory, err);
}

static struct program *program_new(const struct graph *graph, const struct shape *inputs,
                                   const struct program_options *options, struct err *err) {
    struct program *program = pulmo_alloc(1, sizeof *program, err);
    if (!program)
        return NULL;
    program->graph = graph;
    program->keep = options->keep;
    int before = infer_backend_enter();
    bool good = program_build(program, inputs, options, err);
    infer_backend_leave(before);
    if (good)
        return program;
    infer_program_free(program);
    return NULL;
}

struct program *infer_program_new(const struct graph *graph, const struct shape *inputs, bool keep, struct err *err) {
    return program_new(graph, inputs, &(struct program_options){.keep = keep}, err);
}

struct program *infer_program_new_in_order(const struct graph *graph, const struct shape *inputs, struct err *err) {
    return program_new(graph, inputs, &(struct program_options){.in_order = true}, err);
}

struct program *infer_program_new_like(const struct program *like, const struct shape *inputs, bool keep,
                                       const struct infer_precision *plan, struct err *err) {
    const struct program_options options = {
        .keep = keep, .like = like, .plan = infer_precision_is_mixed(plan) ? plan : NULL};
    return program_new(like->graph, inputs, &options, err);
}

struct program *infer_program_new_mixed(const struct graph *graph, const struct shape *inputs,
                                        const struct infer_precision *plan, struct err *err) {
    if (!infer_precision_check(graph, plan, err))
        return NULL;
    return program_new(graph, inputs, &(struct program_options){.plan = infer_precision_is_mixed(plan) ? plan : NULL},
                       err);
}
