#include "infer/graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t infer_element_size(enum element element) {
    static const size_t sizes[] = {sizeof(float), sizeof(int64_t), sizeof(uint8_t)};
    return sizes[element];
}

bool infer_shape_equal(const struct shape *a, const struct shape *b) {
    return a->rank == b->rank && memcmp(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims) == 0;
}

int64_t infer_shape_count(const struct shape *shape) {
    int64_t count = 1;
    for (int axis = 0; axis < shape->rank; axis++)
        count *= shape->dims[axis];
    return count;
}

bool infer_shape_check(const struct shape *shape, const char *name, struct err *err) {
    int64_t count = 1;
    for (int axis = 0; axis < shape->rank; axis++) {
        int64_t side = shape->dims[axis];
        if (side < 0)
            return err_set(err, ERR_INPUT, "%s: side %lld on axis %d", name, (long long)side, axis);
        if (__builtin_mul_overflow(count, side, &count) || count > GRAPH_ELEMENTS_MAX)
            return err_set(err, ERR_LIMIT, "%s: more than %lld elements", name, (long long)GRAPH_ELEMENTS_MAX);
    }
    return true;
}

void infer_shape_text(const struct shape *shape, char *out, size_t out_size) {
    size_t used = 0;
    if (out_size)
        out[0] = 0;
    for (int axis = 0; axis < shape->rank && used < out_size; axis++) {
        int wrote = snprintf(out + used, out_size - used, axis ? "x%lld" : "%lld", (long long)shape->dims[axis]);
        used += wrote > 0 ? (size_t)wrote : 0;
    }
}

struct graph *infer_graph_new(int node_capacity, struct err *err) {
    struct graph *graph = pulmo_alloc(1, sizeof *graph, err);
    if (!graph)
        return NULL;
    graph->nodes = pulmo_alloc((size_t)node_capacity, sizeof *graph->nodes, err);
    if (!graph->nodes) {
        free(graph);
        return NULL;
    }
    return graph;
}

static void node_clear(struct graph_node *node) {
    free(node->name);
    free(node->attributes);
    *node = (struct graph_node){.residual = -1};
}

void infer_graph_free(struct graph *graph) {
    if (!graph)
        return;
    for (int i = 0; i < graph->node_count; i++)
        node_clear(&graph->nodes[i]);
    for (int i = 0; i < graph->value_count; i++) {
        free(graph->values[i].name);
        free(graph->values[i].tensor.data);
    }
    free(graph->nodes);
    free(graph->values);
    free(graph);
}

void infer_graph_free_at(struct graph **graph) {
    infer_graph_free(*graph);
}

static bool values_grow(struct graph *graph, struct err *err) {
    if (graph->value_count < graph->value_capacity)
        return true;
    if (graph->value_count >= GRAPH_VALUES_MAX)
        return err_set(err, ERR_LIMIT, "more than %d values in the graph", GRAPH_VALUES_MAX);
    int capacity = graph->value_capacity ? graph->value_capacity * 2 : 64;
    struct graph_value *grown = realloc(graph->values, (size_t)capacity * sizeof *grown);
    if (!grown)
        return err_set(err, ERR_MEMORY, "out of memory for %d graph values", capacity);
    graph->values = grown;
    graph->value_capacity = capacity;
    return true;
}

int infer_graph_add_value(struct graph *graph, const char *name, enum element element, struct err *err) {
    if (!values_grow(graph, err))
        return -1;
    char *copy = strdup(name);
    if (!copy) {
        err_set(err, ERR_MEMORY, "out of memory for a name");
        return -1;
    }
    graph->values[graph->value_count] =
        (struct graph_value){.name = copy, .tensor = {.element = element, .shape.rank = -1}, .producer = -1};
    return graph->value_count++;
}

int infer_graph_value(const struct graph *graph, const char *name) {
    for (int i = 0; i < graph->value_count; i++)
        if (strcmp(graph->values[i].name, name) == 0)
            return i;
    return -1;
}

bool infer_graph_is_output(const struct graph *graph, int value) {
    for (int i = 0; i < graph->output_count; i++)
        if (graph->outputs[i] == value)
            return true;
    return false;
}

int infer_graph_uses(const struct graph *graph, int value, int *node) {
    int count = infer_graph_is_output(graph, value), last = -1;
    for (int i = 0; i < graph->node_count; i++) {
        const struct graph_node *reader = &graph->nodes[i];
        int before = count;
        for (int k = 0; k < reader->input_count; k++)
            count += reader->inputs[k] == value;
        count += reader->residual == value;
        last = count > before ? i : last;
    }
    if (node)
        *node = last;
    return count;
}

static void set_producers(struct graph *graph) {
    for (int i = 0; i < graph->value_count; i++)
        graph->values[i].producer = -1;
    for (int i = 0; i < graph->node_count; i++)
        for (int k = 0; k < graph->nodes[i].output_count; k++)
            if (graph->nodes[i].outputs[k] >= 0)
                graph->values[graph->nodes[i].outputs[k]].producer = i;
}

static bool node_ready(const struct graph *graph, const struct graph_node *node, const bool *placed) {
    for (int k = 0; k <= node->input_count; k++) {
        int value = k < node->input_count ? node->inputs[k] : node->residual;
        if (value >= 0 && graph->values[value].producer >= 0 && !placed[graph->values[value].producer])
            return false;
    }
    return true;
}

/* Repeated sweeps in file order: one sweep for a sorted file, as ONNX demands, and the order stays the file's. A file
 * in reverse order costs nodes^2 looks at a node, bounded by GRAPH_NODES_MAX. */
bool infer_graph_sort(struct graph *graph, struct err *err) {
    set_producers(graph);
    size_t count = (size_t)graph->node_count;
    PULMO_SCOPED(pulmo_free_at) bool *placed = pulmo_alloc(count, sizeof *placed, err);
    struct graph_node *sorted = placed ? pulmo_alloc(count, sizeof *sorted, err) : NULL;
    if (!sorted)
        return false;
    int done = 0, before = -1, stuck = 0;
    while (done < graph->node_count && done != before) {
        before = done;
        for (int i = 0; i < graph->node_count; i++) {
            if (placed[i])
                continue;
            stuck = i;
            if (!node_ready(graph, &graph->nodes[i], placed))
                continue;
            placed[i] = true;
            sorted[done++] = graph->nodes[i];
        }
    }
    if (done < graph->node_count) {
        free(sorted);
        return err_set(err, ERR_INPUT, "node %s lies on a cycle", graph->nodes[stuck].name);
    }
    free(graph->nodes);
    graph->nodes = sorted;
    set_producers(graph);
    return true;
}

static bool node_is_read(const struct graph *graph, const struct graph_node *node, const bool *read) {
    for (int k = 0; k < node->output_count; k++)
        if (node->outputs[k] >= 0 && (read[node->outputs[k]] || infer_graph_is_output(graph, node->outputs[k])))
            return true;
    return false;
}

bool infer_graph_prune(struct graph *graph, struct err *err) {
    PULMO_SCOPED(pulmo_free_at) bool *read = pulmo_alloc((size_t)graph->value_count, sizeof *read, err);
    if (!read)
        return false;
    for (int i = graph->node_count - 1; i >= 0; i--) {
        struct graph_node *node = &graph->nodes[i];
        if (!node_is_read(graph, node, read)) {
            node_clear(node);
            continue;
        }
        for (int k = 0; k < node->input_count; k++)
            if (node->inputs[k] >= 0)
                read[node->inputs[k]] = true;
        if (node->residual >= 0)
            read[node->residual] = true;
    }
    int kept = 0;
    for (int i = 0; i < graph->node_count; i++)
        if (graph->nodes[i].operation)
            graph->nodes[kept++] = graph->nodes[i];
    graph->node_count = kept;
    set_producers(graph);
    return true;
}

static bool copy_value(struct graph *to, const struct graph_value *from, int *map, struct err *err) {
    if (*map >= 0)
        return true;
    int index = infer_graph_add_value(to, from->name, from->tensor.element, err);
    if (index < 0)
        return false;
    struct tensor *tensor = &to->values[index].tensor;
    tensor->shape = from->tensor.shape;
    *map = index;
    if (!from->tensor.data)
        return true;
    size_t size = (size_t)infer_shape_count(&tensor->shape) * infer_element_size(tensor->element);
    tensor->data = pulmo_alloc(size, 1, err);
    if (tensor->data)
        memcpy(tensor->data, from->tensor.data, size);
    return tensor->data != NULL;
}

static bool copy_node(struct graph *to, const struct graph *from, const struct graph_node *node, int *map,
                      struct err *err) {
    struct graph_node *copy = &to->nodes[to->node_count++];
    *copy = *node;
    copy->attributes = NULL;
    copy->name = strdup(node->name);
    size_t size = (size_t)node->attribute_count * sizeof *node->attributes;
    copy->attributes = pulmo_alloc(size, 1, err);
    if (!copy->name || !copy->attributes)
        return err_set(err, ERR_MEMORY, "out of memory for a node");
    if (size)
        memcpy(copy->attributes, node->attributes, size);
    int *ports[] = {copy->inputs, copy->outputs, &copy->residual};
    int counts[] = {copy->input_count, copy->output_count, 1};
    for (int kind = 0; kind < 3; kind++)
        for (int k = 0; k < counts[kind]; k++) {
            int value = ports[kind][k];
            if (value < 0)
                continue;
            if (!copy_value(to, &from->values[value], &map[value], err))
                return false;
            ports[kind][k] = map[value];
        }
    return true;
}

/* Values that nobody in the part makes and that are no constants are its inputs. */
static bool find_inputs(struct graph *graph, struct err *err) {
    set_producers(graph);
    for (int i = 0; i < graph->value_count; i++) {
        if (graph->values[i].producer >= 0 || graph->values[i].tensor.data)
            continue;
        if (graph->input_count == GRAPH_PORTS_MAX)
            return err_set(err, ERR_LIMIT, "more than %d values enter a part of the graph", GRAPH_PORTS_MAX);
        graph->inputs[graph->input_count++] = i;
    }
    return true;
}

struct graph *infer_graph_extract(const struct graph *graph, const bool *wanted, const int *outputs, int output_count,
                                  struct err *err) {
    PULMO_SCOPED(infer_graph_free_at) struct graph *part = infer_graph_new(graph->node_count, err);
    PULMO_SCOPED(pulmo_free_at) int *map = pulmo_alloc((size_t)graph->value_count, sizeof *map, err);
    if (!part || !map)
        return NULL;
    for (int i = 0; i < graph->value_count; i++)
        map[i] = -1;
    for (int i = 0; i < graph->node_count; i++)
        if (wanted[i] && !copy_node(part, graph, &graph->nodes[i], map, err))
            return NULL;
    for (int i = 0; i < output_count; i++) {
        if (!copy_value(part, &graph->values[outputs[i]], &map[outputs[i]], err))
            return NULL;
        part->outputs[part->output_count++] = map[outputs[i]];
    }
    if (!find_inputs(part, err))
        return NULL;
    struct graph *result = part;
    part = NULL;
    return result;
}

const struct graph_attribute *infer_node_attribute(const struct graph_node *node, const char *name) {
    for (int i = 0; i < node->attribute_count; i++)
        if (strcmp(node->attributes[i].name, name) == 0)
            return &node->attributes[i];
    return NULL;
}

int infer_node_bias(const struct graph_node *node) {
    return node->input_count > 2 ? node->inputs[2] : -1;
}

int64_t infer_node_int(const struct graph_node *node, const char *name, int64_t absent) {
    const struct graph_attribute *attribute = infer_node_attribute(node, name);
    return attribute ? attribute->number : absent;
}

float infer_node_float(const struct graph_node *node, const char *name, float absent) {
    const struct graph_attribute *attribute = infer_node_attribute(node, name);
    return attribute ? attribute->real : absent;
}

const char *infer_node_text(const struct graph_node *node, const char *name, const char *absent) {
    const struct graph_attribute *attribute = infer_node_attribute(node, name);
    return attribute ? attribute->text : absent;
}

int infer_node_ints(const struct graph_node *node, const char *name, int64_t *out, int max) {
    const struct graph_attribute *attribute = infer_node_attribute(node, name);
    if (!attribute)
        return 0;
    for (int i = 0; i < attribute->count && i < max; i++)
        out[i] = attribute->numbers[i];
    return attribute->count;
}
