/* Lowering, first half: tensors, constants, the memory plan, the block. infer/device_lower_steps.c lowers each
 * operator. */
#include "infer/device_lower.h"

#include <stdlib.h>
#include <string.h>

#include "infer/device_lower_steps.h"
#include "infer/plan.h"

#define CONSTANTS_MAX ((size_t)1 << 30)
#define NEVER 0x7FFFFFFF

int device_lower_tensor(struct lowering *lowering, const struct device_tensor *tensor, int alias, struct err *err) {
    if (lowering->tensor_count == DEVICE_TENSORS_MAX) {
        err_set(err, ERR_LIMIT, "more than %d tensors", DEVICE_TENSORS_MAX);
        return -1;
    }
    int index = lowering->tensor_count++;
    lowering->tensors[index] = *tensor;
    lowering->tensors[index].size = device_tensor_count(tensor) * (int64_t)device_element_size(tensor->element);
    lowering->root[index] = alias >= 0 ? lowering->root[alias] : index;
    return index;
}

/* Zeros up to the next aligned offset, then the data. */
static bool constants_append(struct lowering *lowering, const void *data, size_t size, int64_t *offset,
                             struct err *err) {
    static const uint8_t zeros[DEVICE_ALIGNMENT] = {0};
    struct bytes *constants = &lowering->constants;
    size_t gap = (DEVICE_ALIGNMENT - constants->size % DEVICE_ALIGNMENT) % DEVICE_ALIGNMENT;
    if (!bytes_append(constants, zeros, gap, CONSTANTS_MAX, err))
        return false;
    *offset = (int64_t)constants->size;
    return bytes_append(constants, data, size, CONSTANTS_MAX, err);
}

int device_lower_constant(struct lowering *lowering, const struct device_tensor *tensor, const void *data,
                          struct err *err) {
    int index = device_lower_tensor(lowering, tensor, -1, err);
    if (index < 0)
        return -1;
    struct device_tensor *made = &lowering->tensors[index];
    made->constant = 1;
    return constants_append(lowering, data, (size_t)made->size, &made->offset, err) ? index : -1;
}

struct device_step *device_lower_step(struct lowering *lowering, enum device_step_kind kind, const char *name,
                                      struct err *err) {
    if (lowering->step_count == DEVICE_STEPS_MAX) {
        err_set(err, ERR_LIMIT, "more than %d steps", DEVICE_STEPS_MAX);
        return NULL;
    }
    struct device_step *step = &lowering->steps[lowering->step_count++];
    *step = (struct device_step){.kind = (int32_t)kind, .inputs = {-1, -1, -1, -1, -1}, .outputs = {-1, -1}};
    size_t size = strlen(name ? name : "");
    if (size)
        memcpy(step->name, name, size < sizeof step->name ? size : sizeof step->name - 1);
    return step;
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

static void touch(struct plan_buffer *buffer, int step) {
    buffer->first = step < buffer->first ? step : buffer->first;
    buffer->last = step > buffer->last ? step : buffer->last;
}

static void lifetimes(const struct lowering *lowering, struct plan_buffer *buffers) {
    for (int i = 0; i < lowering->tensor_count; i++)
        buffers[i] = (struct plan_buffer){.size = (size_t)lowering->tensors[i].size, .first = NEVER, .last = -1};
    for (int i = 0; i < lowering->step_count; i++) {
        const struct device_step *step = &lowering->steps[i];
        for (int k = 0; k < DEVICE_INPUTS_MAX; k++)
            if (step->inputs[k] >= 0)
                touch(&buffers[lowering->root[step->inputs[k]]], i);
        for (int k = 0; k < DEVICE_OUTPUTS_MAX; k++)
            if (step->outputs[k] >= 0)
                touch(&buffers[lowering->root[step->outputs[k]]], i);
    }
    for (int i = 0; i < lowering->input_count; i++) /* filled before the first step */
        touch(&buffers[lowering->root[lowering->inputs[i]]], 0);
    for (int i = 0; i < lowering->output_count; i++) /* read behind the last */
        touch(&buffers[lowering->root[lowering->outputs[i]]], NEVER - 1);
    for (int i = 0; i < lowering->tensor_count; i++)
        if (lowering->tensors[i].constant)
            buffers[i].last = -1;
}

static bool memory_plan(struct lowering *lowering, int64_t *arena, struct err *err) {
    size_t count = (size_t)lowering->tensor_count;
    struct plan_figures figures;
    PULMO_SCOPED(pulmo_free_at) struct plan_buffer *buffers = pulmo_alloc(count, sizeof *buffers, err);
    if (!buffers)
        return false;
    lifetimes(lowering, buffers);
    if (!infer_plan_memory(buffers, lowering->tensor_count, &figures, err))
        return false;
    for (int i = 0; i < lowering->tensor_count; i++) {
        const struct device_tensor *root = &lowering->tensors[lowering->root[i]];
        lowering->tensors[i].constant = root->constant;
        lowering->tensors[i].offset = root->constant ? root->offset : (int64_t)buffers[lowering->root[i]].offset;
    }
    *arena = (int64_t)((figures.arena + DEVICE_ALIGNMENT - 1) / DEVICE_ALIGNMENT * DEVICE_ALIGNMENT);
    return true;
}

/* ---- block ----------------------------------------------------------------------------------------------------- */

static bool block_write(const struct lowering *lowering, const struct lower_request *request, int64_t arena,
                        struct bytes *out, struct err *err) {
    size_t tensors = (size_t)lowering->tensor_count * sizeof *lowering->tensors;
    size_t steps = (size_t)lowering->step_count * sizeof *lowering->steps, tables = sizeof(struct device_plan);
    tables = (tables + tensors + steps + DEVICE_ALIGNMENT - 1) / DEVICE_ALIGNMENT * DEVICE_ALIGNMENT;
    size_t total = tables + lowering->constants.size;
    uint8_t *block = pulmo_alloc(total, 1, err);
    if (!block)
        return false;
    struct device_plan *plan = (struct device_plan *)(void *)block;
    *plan = (struct device_plan){.magic = DEVICE_PLAN_MAGIC,
                                 .total_size = (int64_t)total,
                                 .arena_size = arena,
                                 .constants_offset = (int64_t)tables,
                                 .constants_size = (int64_t)lowering->constants.size,
                                 .tensor_count = lowering->tensor_count,
                                 .step_count = lowering->step_count,
                                 .input_count = lowering->input_count,
                                 .output_count = lowering->output_count,
                                 .passes = request->passes};
    memcpy(plan->inputs, lowering->inputs, sizeof plan->inputs);
    memcpy(plan->outputs, lowering->outputs, sizeof plan->outputs);
    size_t digest = strlen(request->model ? request->model : "");
    if (digest)
        memcpy(plan->model, request->model, digest < sizeof plan->model ? digest : sizeof plan->model - 1);
    memcpy(block + sizeof *plan, lowering->tensors, tensors);
    memcpy(block + sizeof *plan + tensors, lowering->steps, steps);
    if (lowering->constants.size)
        memcpy(block + tables, lowering->constants.data, lowering->constants.size);
    *out = (struct bytes){.data = block, .size = total};
    return true;
}

static void lowering_clear(struct lowering *lowering) {
    free(lowering->tensors);
    free(lowering->root);
    free(lowering->steps);
    bytes_free(&lowering->constants);
}

static bool lowering_begin(struct lowering *lowering, struct err *err) {
    lowering->tensors = pulmo_alloc(DEVICE_TENSORS_MAX, sizeof *lowering->tensors, err);
    lowering->root = pulmo_alloc(DEVICE_TENSORS_MAX, sizeof *lowering->root, err);
    lowering->steps = pulmo_alloc(DEVICE_STEPS_MAX, sizeof *lowering->steps, err);
    return lowering->tensors && lowering->root && lowering->steps;
}

/* ---- graphs ---------------------------------------------------------------------------------------------------- */

/* The graph's inputs as tensors: those given, or new ones that become inputs of the plan. */
static bool inputs_bind(struct lowering *lowering, struct lower_graph *graph, const int *given, struct err *err) {
    for (int i = 0; i < graph->graph->input_count; i++) {
        int value = graph->graph->inputs[i];
        struct device_tensor plain = device_lower_plain(&graph->shapes[value].shape);
        int tensor = given ? given[i] : device_lower_tensor(lowering, &plain, -1, err);
        if (tensor < 0)
            return false;
        graph->plain[value] = tensor;
        if (!given)
            lowering->inputs[lowering->input_count++] = tensor;
    }
    return true;
}

static bool outputs_bind(struct lowering *lowering, struct lower_graph *graph, struct err *err) {
    for (int i = 0; i < graph->graph->output_count; i++) {
        int tensor = device_lower_value_plain(lowering, graph, graph->graph->outputs[i], err);
        if (tensor < 0)
            return false;
        if (lowering->output_count == DEVICE_PORTS_MAX)
            return err_set(err, ERR_LIMIT, "more than %d outputs", DEVICE_PORTS_MAX);
        lowering->outputs[lowering->output_count++] = tensor;
    }
    return true;
}

static bool graph_lower(struct lowering *lowering, struct lower_graph *graph, const int *given, struct err *err) {
    if (!inputs_bind(lowering, graph, given, err))
        return false;
    for (int i = 0; i < graph->graph->node_count; i++) {
        const struct graph_node *node = &graph->graph->nodes[i];
        if (!device_lower_node(lowering, graph, node, err))
            return err_within(err, "node %.120s (%s)", node->name, node->operation->name);
    }
    return outputs_bind(lowering, graph, err);
}

static void lower_graph_clear(struct lower_graph *graph) {
    free(graph->shapes);
    free(graph->plain);
    free(graph->image);
}

static bool lower_graph_begin(struct lower_graph *graph, const struct shape *inputs, struct err *err) {
    size_t values = (size_t)graph->graph->value_count;
    graph->shapes = pulmo_alloc(values, sizeof *graph->shapes, err);
    graph->plain = pulmo_alloc(values, sizeof *graph->plain, err);
    graph->image = pulmo_alloc(values, sizeof *graph->image, err);
    if (!graph->shapes || !graph->plain || !graph->image)
        return false;
    for (size_t i = 0; i < values; i++)
        graph->plain[i] = graph->image[i] = -1;
    return infer_graph_shapes(graph->graph, inputs, graph->shapes, err);
}

/* Every result of the trunk that the tail reads, `passes` times. */
static bool repeat_all(struct lowering *lowering, struct lower_graph *trunk, const struct lower_request *request,
                       int *given, struct shape *shapes, struct err *err) {
    for (int i = 0; i < request->tail->input_count; i++) {
        int value = trunk->graph->outputs[request->tail_sources[i]];
        int from = device_lower_value_plain(lowering, trunk, value, err);
        if (from < 0)
            return false;
        shapes[i] = trunk->shapes[value].shape;
        int64_t entry = infer_shape_count(&shapes[i]) / shapes[i].dims[0];
        shapes[i].dims[0] *= request->passes;
        struct device_tensor plain = device_lower_plain(&shapes[i]);
        struct device_step *step = device_lower_step(lowering, DEVICE_REPEAT, "passes", err);
        given[i] = step ? device_lower_tensor(lowering, &plain, -1, err) : -1;
        if (given[i] < 0)
            return false;
        step->inputs[0] = from;
        step->outputs[0] = given[i];
        step->numbers[0] = entry;
        step->numbers[1] = request->passes;
    }
    return true;
}

static bool tail_lower(struct lowering *lowering, struct lower_graph *trunk, const struct lower_request *request,
                       struct err *err) {
    PULMO_SCOPED(lower_graph_clear) struct lower_graph tail = {.graph = request->tail};
    int given[GRAPH_PORTS_MAX];
    struct shape shapes[GRAPH_PORTS_MAX];
    return repeat_all(lowering, trunk, request, given, shapes, err) && lower_graph_begin(&tail, shapes, err) &&
           graph_lower(lowering, &tail, given, err);
}

bool infer_device_lower(const struct lower_request *request, struct bytes *out, struct err *err) {
    PULMO_SCOPED(lowering_clear) struct lowering lowering = {0};
    PULMO_SCOPED(lower_graph_clear) struct lower_graph graph = {.graph = request->graph};
    PULMO_SCOPED(bytes_free) struct bytes block = {0};
    int64_t arena = 0;
    if (!lowering_begin(&lowering, err) || !lower_graph_begin(&graph, request->inputs, err) ||
        !graph_lower(&lowering, &graph, NULL, err) || (request->tail && !tail_lower(&lowering, &graph, request, err)) ||
        !memory_plan(&lowering, &arena, err) || !block_write(&lowering, request, arena, &block, err) ||
        !device_plan_check(block.data, block.size, err))
        return false;
    *out = block;
    block = (struct bytes){0};
    return true;
}
