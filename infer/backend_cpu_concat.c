/* The CPU back-end's Concat. Along the channels of one image, in blocks of channels, its inputs lie one behind the
 * other in its result: producers that can write there do so, and nothing is left to be copied. */
#include <string.h>

#include "infer/backend_cpu_build.h"

/* Some input of a node along its channels, and at which channel of the result it begins. */
struct part {
    const struct graph_node *concat;
    int64_t first;
};

static bool joins_channels(const struct program *program, const struct graph_node *node) {
    const struct shape *shape = node->output_count > 0 ? &program->tensors[node->outputs[0]].shape : NULL;
    return node->operation->kind == OPERATOR_CONCAT && shape->rank == 5 && shape->dims[0] == 1 &&
           infer_node_int(node, "axis", 0) == 1;
}

static bool has_home(const struct builder *builder, const struct graph_node *node, int value) {
    const struct graph *graph = builder->program->graph;
    int producer = graph->values[value].producer, seen = 0;
    for (int k = 0; k < node->input_count; k++)
        seen += node->inputs[k] == value;
    return seen == 1 && builder->home[value] < 0 && producer >= 0 && !infer_graph_is_output(graph, value) &&
           (graph->nodes[producer].operation->kind == OPERATOR_CONV ||
            graph->nodes[producer].operation->kind == OPERATOR_RESIZE);
}

void infer_concat_prepare(struct builder *builder) {
    const struct program *program = builder->program;
    for (int i = 0; i < program->graph->value_count; i++)
        builder->home[i] = -1;
    for (int i = 0; !builder->plan && !program->keep && i < program->graph->node_count; i++) {
        const struct graph_node *node = &program->graph->nodes[i];
        for (int k = 0; joins_channels(program, node) && k < node->input_count; k++)
            if (has_home(builder, node, node->inputs[k]))
                builder->home[node->inputs[k]] = i;
    }
}

bool infer_concat_shares(const struct builder *builder, int value) {
    const struct program *program = builder->program;
    int producer = program->graph->values[value].producer;
    return builder->home[value] >= 0 || (producer >= 0 && joins_channels(program, &program->graph->nodes[producer]));
}

static struct part part_of(const struct builder *builder, const struct graph_node *concat, int value) {
    struct part part = {.concat = concat};
    for (int k = 0; concat->inputs[k] != value; k++)
        part.first += builder->program->tensors[concat->inputs[k]].shape.dims[1];
    return part;
}

/* Blocks of channels that lie one behind the other, full ones. */
static bool in_blocks(const dnnl_memory_desc_t *desc) {
    const dnnl_blocking_desc_t *blocks = &desc->format_desc.blocking;
    if (desc->format_kind != dnnl_blocked || desc->data_type != dnnl_f32 || blocks->inner_nblks != 1 ||
        blocks->inner_idxs[0] != 1 || desc->dims[1] % blocks->inner_blks[0] != 0)
        return false;
    return blocks->strides[1] == desc->dims[2] * desc->dims[3] * desc->dims[4] * blocks->inner_blks[0];
}

/* The result's layout for an input's. */
static dnnl_memory_desc_t joined(const struct shape *shape, const dnnl_memory_desc_t *input) {
    dnnl_memory_desc_t desc = *input;
    dnnl_blocking_desc_t *blocks = &desc.format_desc.blocking;
    desc.dims[1] = desc.padded_dims[1] = shape->dims[1];
    blocks->strides[0] = blocks->strides[1] * (shape->dims[1] / blocks->inner_blks[0]);
    return desc;
}

/* Where the input lies in the result; buffer < 0 = its layout, or that of another one, does not allow it. */
static struct region part_place(const struct builder *builder, const struct part *part,
                                const dnnl_memory_desc_t *input) {
    const struct region *whole = &builder->program->regions[part->concat->outputs[0]];
    const struct shape *shape = &builder->program->tensors[part->concat->outputs[0]].shape;
    struct region out = {.buffer = -1, .desc = *input};
    if (whole->buffer < 0 || !in_blocks(input))
        return out;
    dnnl_memory_desc_t wanted = joined(shape, input);
    int64_t block = input->format_desc.blocking.inner_blks[0];
    if (!dnnl_memory_desc_equal(&wanted, &whole->desc) || part->first % block != 0)
        return out;
    out.buffer = whole->buffer;
    out.offset = (size_t)(part->first / block * input->format_desc.blocking.strides[1]) * sizeof(float);
    return out;
}

bool infer_region_of(struct builder *builder, int value, const dnnl_memory_desc_t *desc, struct region *out,
                     struct err *err) {
    const struct graph_node *concat =
        builder->home[value] >= 0 ? &builder->program->graph->nodes[builder->home[value]] : NULL;
    if (!concat || !in_blocks(desc))
        return infer_region_new(builder, desc, out, err);
    struct region *whole = &builder->program->regions[concat->outputs[0]];
    const struct shape *shape = &builder->program->tensors[concat->outputs[0]].shape;
    const struct part part = part_of(builder, concat, value);
    if (whole->buffer < 0 && shape->dims[1] % desc->format_desc.blocking.inner_blks[0] == 0) {
        dnnl_memory_desc_t all = joined(shape, desc);
        if (!infer_region_new(builder, &all, whole, err))
            return false;
    }
    *out = part_place(builder, &part, desc);
    return out->buffer >= 0 || infer_region_new(builder, desc, out, err);
}

/* ---- the node itself ----------------------------------------------------------------------------------------- */

/* Copies those inputs that do not lie in the result. */
static bool parts_complete(struct builder *builder, const struct graph_node *node, struct err *err) {
    struct program *program = builder->program;
    const struct region *whole = &program->regions[node->outputs[0]];
    int64_t first = 0;
    for (int k = 0; k < node->input_count; k++) {
        const struct region *from = &program->regions[node->inputs[k]];
        dnnl_memory_desc_t layout = whole->desc;
        int64_t channels = program->tensors[node->inputs[k]].shape.dims[1];
        layout.dims[1] = layout.padded_dims[1] = channels;
        struct region to = part_place(builder, &(struct part){node, first}, &layout);
        if (to.buffer < 0)
            return err_set(err, ERR_INTERNAL, "input %d has no place in the result", k);
        bool there = from->buffer == to.buffer && from->offset == to.offset;
        if (!there && !infer_region_convert(builder, from, &to, 1, node, &to, err))
            return false;
        program->figures.parts_in_place += there;
        first += channels;
    }
    return true;
}

/* Whether every input fills whole blocks of the result. */
static bool parts_fit(const struct builder *builder, const struct graph_node *node) {
    const struct region *whole = &builder->program->regions[node->outputs[0]];
    if (!joins_channels(builder->program, node) || whole->buffer < 0)
        return false;
    for (int k = 0; k < node->input_count; k++)
        if (builder->program->tensors[node->inputs[k]].shape.dims[1] % whole->desc.format_desc.blocking.inner_blks[0] !=
            0)
            return false;
    return true;
}

/* In the type that all of them have, else in full precision. Steps of u8 are the same for all (infer_low_prepare). */
static bool concat_inputs(struct builder *builder, const struct graph_node *node, struct region *out, struct err *err) {
    const struct region *regions = builder->program->regions;
    bool alike = true;
    for (int i = 0; i < node->input_count; i++) {
        out[i] = regions[node->inputs[i]];
        alike = alike && out[i].desc.data_type == out[0].desc.data_type;
    }
    for (int i = 0; !alike && i < node->input_count; i++)
        if (!infer_value_floats(builder, node->inputs[i], node, &out[i], err))
            return false;
    return true;
}

bool infer_build_concat(struct builder *builder, const struct graph_node *node, struct err *err) {
    struct program *program = builder->program;
    const struct shape *shape = &program->tensors[node->outputs[0]].shape;
    int64_t axis = infer_node_int(node, "axis", 0);
    if (parts_fit(builder, node))
        return parts_complete(builder, node, err);
    PULMO_SCOPED(infer_draft_clear) struct draft draft = {0};
    dnnl_memory_desc_t inputs[GRAPH_NODE_INPUTS_MAX], output = infer_backend_any(shape);
    struct region in[GRAPH_NODE_INPUTS_MAX], out;
    if (!concat_inputs(builder, node, in, err))
        return false;
    output.data_type = in[0].desc.data_type;
    for (int i = 0; i < node->input_count; i++)
        inputs[i] = in[i].desc;
    if (!infer_draft_begin(&draft, err) ||
        !infer_backend_ok(dnnl_concat_primitive_desc_create(&draft.desc, &output, node->input_count,
                                                            (int)(axis < 0 ? axis + shape->rank : axis), inputs,
                                                            draft.attributes, program->engine),
                          "Concat", err) ||
        !infer_region_new(builder, infer_draft_layout(&draft, dnnl_query_dst_md), &out, err))
        return false;
    for (int i = 0; i < node->input_count; i++)
        infer_draft_argument(&draft, DNNL_ARG_MULTIPLE_SRC + i, &in[i]);
    infer_draft_argument(&draft, DNNL_ARG_DST, &out);
    program->regions[node->outputs[0]] = out;
    return infer_draft_finish(builder, &draft, node, &out, err);
}
