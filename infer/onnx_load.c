/* ONNX (onnx.proto, IR version 3 to 8, opset 11 to 17) to struct graph. Nothing of protobuf leaves this file. */
#include <onnx.pb-c.h>
#include <stdlib.h>
#include <string.h>

#include "infer/operators.h"
#include "infer/wire.h"

#define OPSET_MIN 11
#define OPSET_MAX 17
#define NAMES_SIZE 32768 /* of the hash table; twice GRAPH_VALUES_MAX */

/* Names to value indices while a file is read; open addressing. */
struct loader {
    struct graph *graph;
    int names[NAMES_SIZE]; /* value index + 1; 0 = free */
    bool *made;            /* [GRAPH_VALUES_MAX] has an input, a constant or a node that makes it */
    int dropouts;
};

static void loader_free_at(struct loader **loader) {
    if (!*loader)
        return;
    infer_graph_free((*loader)->graph);
    free((*loader)->made);
    free(*loader);
}

static struct loader *loader_new(size_t nodes, struct err *err) {
    PULMO_SCOPED(loader_free_at) struct loader *loader = pulmo_alloc(1, sizeof *loader, err);
    if (!loader || !(loader->graph = infer_graph_new((int)nodes, err)) ||
        !(loader->made = pulmo_alloc(GRAPH_VALUES_MAX, sizeof *loader->made, err)))
        return NULL;
    struct loader *result = loader;
    loader = NULL;
    return result;
}

/* FNV-1a. */
static uint32_t hash_of(const char *text) {
    uint32_t hash = 2166136261U;
    for (; *text; text++)
        hash = (hash ^ (uint8_t)*text) * 16777619U;
    return hash;
}

/* The value of that name, made when it is new; -1 on failure. */
static int value_of(struct loader *loader, const char *name, struct err *err) {
    uint32_t at = hash_of(name) % NAMES_SIZE;
    for (; loader->names[at]; at = (at + 1) % NAMES_SIZE)
        if (strcmp(loader->graph->values[loader->names[at] - 1].name, name) == 0)
            return loader->names[at] - 1;
    int value = infer_graph_add_value(loader->graph, name, ELEMENT_F32, err);
    if (value >= 0)
        loader->names[at] = value + 1;
    return value;
}

/* As value_of, for the one place that makes the value. */
static int value_make(struct loader *loader, const char *name, struct err *err) {
    if (!name || !*name) {
        err_set(err, ERR_INPUT, "a value without a name");
        return -1;
    }
    int value = value_of(loader, name, err);
    if (value < 0)
        return -1;
    if (loader->made[value]) {
        err_set(err, ERR_INPUT, "value %.120s is made twice", name);
        return -1;
    }
    loader->made[value] = true;
    return value;
}

/* ---- tensors ------------------------------------------------------------------------------------------- */

static bool shape_read(const Onnx__TensorProto *tensor, const char *name, struct shape *out, struct err *err) {
    if (tensor->n_dims > GRAPH_RANK_MAX)
        return err_set(err, ERR_LIMIT, "%s: rank %zu is beyond %d", name, tensor->n_dims, GRAPH_RANK_MAX);
    *out = (struct shape){.rank = (int)tensor->n_dims};
    for (size_t i = 0; i < tensor->n_dims; i++)
        out->dims[i] = tensor->dims[i];
    return infer_shape_check(out, name, err);
}

static bool element_read(int32_t type, const char *name, enum element *out, struct err *err) {
    switch (type) {
    case ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT: *out = ELEMENT_F32; return true;
    case ONNX__TENSOR_PROTO__DATA_TYPE__INT64: *out = ELEMENT_I64; return true;
    case ONNX__TENSOR_PROTO__DATA_TYPE__BOOL: *out = ELEMENT_BOOL; return true;
    default: return err_set(err, ERR_UNSUPPORTED, "%s: element type %d (only float, int64, bool)", name, type);
    }
}

static bool payload_read(const Onnx__TensorProto *from, const char *name, size_t count, struct tensor *to,
                         struct err *err) {
    size_t width = infer_element_size(to->element);
    size_t held = to->element == ELEMENT_F32   ? from->n_float_data
                  : to->element == ELEMENT_I64 ? from->n_int64_data
                                               : from->n_int32_data;
    if (from->has_raw_data)
        held = from->raw_data.len % width ? SIZE_MAX : from->raw_data.len / width;
    if (held != count)
        return err_set(err, ERR_INPUT, "%s: its shape wants %zu elements, the file holds %zu", name, count, held);
    if (!(to->data = pulmo_alloc(count, width, err)))
        return false;
    if (from->has_raw_data && count) /* little-endian by the specification, as every machine we run on */
        memcpy(to->data, from->raw_data.data, count * width);
    else if (to->element == ELEMENT_F32 && count)
        memcpy(to->data, from->float_data, count * width);
    else if (to->element == ELEMENT_I64 && count)
        memcpy(to->data, from->int64_data, count * width);
    for (size_t i = 0; to->element == ELEMENT_BOOL && i < count; i++)
        ((uint8_t *)to->data)[i] = from->has_raw_data ? ((uint8_t *)to->data)[i] != 0 : from->int32_data[i] != 0;
    return true;
}

static bool tensor_read(const Onnx__TensorProto *from, const char *name, struct tensor *to, struct err *err) {
    struct tensor tensor = {0};
    if (from->n_external_data || from->data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL)
        return err_set(err, ERR_UNSUPPORTED, "%s: its data lie outside the file", name);
    if (from->segment)
        return err_set(err, ERR_UNSUPPORTED, "%s: segmented tensor", name);
    if (!shape_read(from, name, &tensor.shape, err) || !element_read(from->data_type, name, &tensor.element, err) ||
        !payload_read(from, name, (size_t)infer_shape_count(&tensor.shape), &tensor, err))
        return false;
    *to = tensor;
    return true;
}

static bool constant_add(struct loader *loader, const char *name, const Onnx__TensorProto *tensor, struct err *err) {
    int value = value_make(loader, name, err);
    return value >= 0 && tensor_read(tensor, name, &loader->graph->values[value].tensor, err);
}

/* ---- nodes --------------------------------------------------------------------------------------------- */

static bool attribute_read(const Onnx__AttributeProto *from, struct graph_attribute *to, struct err *err) {
    if (!from->name || strlen(from->name) >= sizeof to->name)
        return err_set(err, ERR_UNSUPPORTED, "an attribute without a usable name");
    if (from->g || from->n_graphs || from->sparse_tensor || from->n_tensors || from->t)
        return err_set(err, ERR_UNSUPPORTED, "attribute %s is a graph or a tensor", from->name);
    if (from->n_ints > GRAPH_ATTRIBUTE_INTS_MAX || from->s.len >= sizeof to->text)
        return err_set(err, ERR_LIMIT, "attribute %s is too long", from->name);
    memcpy(to->name, from->name, strlen(from->name) + 1);
    to->number = from->i;
    to->real = from->f;
    to->count = (int)from->n_ints;
    if (from->n_ints)
        memcpy(to->numbers, from->ints, from->n_ints * sizeof *to->numbers);
    if (from->s.len)
        memcpy(to->text, from->s.data, from->s.len);
    return true;
}

static bool attributes_read(const Onnx__NodeProto *from, struct graph_node *to, struct err *err) {
    if (from->n_attribute > GRAPH_ATTRIBUTES_MAX)
        return err_set(err, ERR_LIMIT, "%zu attributes", from->n_attribute);
    to->attributes = pulmo_alloc(from->n_attribute, sizeof *to->attributes, err);
    if (!to->attributes)
        return false;
    for (; to->attribute_count < (int)from->n_attribute; to->attribute_count++)
        if (!attribute_read(from->attribute[to->attribute_count], &to->attributes[to->attribute_count], err))
            return false;
    return true;
}

static bool ports_read(struct loader *loader, const Onnx__NodeProto *from, struct graph_node *to, struct err *err) {
    for (size_t i = 0; i < from->n_input; i++) {
        int value = from->input[i][0] ? value_of(loader, from->input[i], err) : -1;
        if (value < 0 && from->input[i][0])
            return false;
        to->inputs[to->input_count++] = value;
    }
    while (to->input_count && to->inputs[to->input_count - 1] < 0) /* absent at the end = not given */
        to->input_count--;
    for (size_t i = 0; i < from->n_output; i++) {
        /* An exporter may name the mask of a Dropout; it is refused only when something reads it. */
        bool skipped = !from->output[i][0] || (int)i >= to->operation->outputs_max;
        int value = skipped ? -1 : value_make(loader, from->output[i], err);
        if (value < 0 && !skipped)
            return false;
        if ((int)i < to->operation->outputs_max)
            to->outputs[to->output_count++] = value;
    }
    return true;
}

static bool arity_check(const Onnx__NodeProto *from, const struct graph_node *node, struct err *err) {
    const struct operation *operation = node->operation;
    if (node->input_count < operation->inputs_min)
        return err_set(err, ERR_INPUT, "%d inputs, it needs %d", node->input_count, operation->inputs_min);
    for (int i = 0; i < operation->inputs_min; i++)
        if (node->inputs[i] < 0)
            return err_set(err, ERR_INPUT, "input %d is missing", i);
    if (from->n_output < 1 || node->outputs[0] < 0)
        return err_set(err, ERR_INPUT, "no output");
    return true;
}

static bool node_fill(struct loader *loader, const Onnx__NodeProto *from, struct graph_node *node, struct err *err) {
    const char *domain = from->domain ? from->domain : "";
    node->operation = infer_operator_find(from->op_type ? from->op_type : "");
    if (!node->operation || (*domain && strcmp(domain, "ai.onnx") != 0))
        return err_set(err, ERR_UNSUPPORTED, "operator %.60s%s%.60s is not supported", domain, *domain ? "." : "",
                       from->op_type ? from->op_type : "(none)");
    if ((int)from->n_input > node->operation->inputs_max || from->n_output > GRAPH_NODE_OUTPUTS_MAX)
        return err_set(err, ERR_UNSUPPORTED, "%zu inputs and %zu outputs are more than %s may have here", from->n_input,
                       from->n_output, node->operation->name);
    if (!attributes_read(from, node, err) || !ports_read(loader, from, node, err) || !arity_check(from, node, err))
        return false;
    node->dropout = node->operation->kind == OPERATOR_DROPOUT ? loader->dropouts++ : -1;
    return true;
}

static bool node_read(struct loader *loader, const Onnx__NodeProto *from, size_t index, struct err *err) {
    struct graph_node *node = &loader->graph->nodes[loader->graph->node_count++];
    *node = (struct graph_node){.residual = -1, .dropout = -1};
    const char *name = from->name && *from->name              ? from->name
                       : from->n_output && from->output[0][0] ? from->output[0]
                                                              : "(unnamed)";
    node->name = strdup(name);
    if (!node->name)
        return err_set(err, ERR_MEMORY, "out of memory for a name");
    return node_fill(loader, from, node, err) || err_within(err, "node %zu %.120s", index, name);
}

/* Constant: a tensor, or one number. */
static bool constant_node_read(struct loader *loader, const Onnx__NodeProto *from, struct err *err) {
    if (from->n_output != 1 || from->n_attribute != 1)
        return err_set(err, ERR_INPUT, "a Constant with %zu outputs and %zu attributes", from->n_output,
                       from->n_attribute);
    const Onnx__AttributeProto *attribute = from->attribute[0];
    if (attribute->t)
        return constant_add(loader, from->output[0], attribute->t, err);
    return err_set(err, ERR_UNSUPPORTED, "Constant %.120s holds no tensor", from->output[0]);
}

/* ---- graph --------------------------------------------------------------------------------------------- */

static bool input_shape_read(const Onnx__ValueInfoProto *from, struct tensor *to, struct err *err) {
    const char *name = from->name;
    if (!from->type || from->type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE || !from->type->tensor_type ||
        !from->type->tensor_type->shape)
        return err_set(err, ERR_UNSUPPORTED, "input %.120s has no tensor shape", name);
    const Onnx__TensorShapeProto *shape = from->type->tensor_type->shape;
    if (!element_read(from->type->tensor_type->elem_type, name, &to->element, err))
        return false;
    if (shape->n_dim > GRAPH_RANK_MAX)
        return err_set(err, ERR_LIMIT, "input %.120s: rank %zu", name, shape->n_dim);
    to->shape.rank = (int)shape->n_dim;
    for (size_t i = 0; i < shape->n_dim; i++) {
        bool known = shape->dim[i]->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
        to->shape.dims[i] = known ? shape->dim[i]->dim_value : -1;
        if (known && (to->shape.dims[i] < 1 || to->shape.dims[i] > GRAPH_ELEMENTS_MAX))
            return err_set(err, ERR_LIMIT, "input %.120s: side %lld", name, (long long)to->shape.dims[i]);
    }
    return true;
}

static bool inputs_read(struct loader *loader, const Onnx__GraphProto *from, struct err *err) {
    struct graph *graph = loader->graph;
    for (size_t i = 0; i < from->n_input; i++) {
        const char *name = from->input[i]->name;
        if (!name || !*name)
            return err_set(err, ERR_INPUT, "an input without a name");
        int value = value_of(loader, name, err);
        if (value < 0)
            return false;
        if (graph->values[value].tensor.data) /* IR version 3 lists constants among the inputs */
            continue;
        if (loader->made[value] || graph->input_count == GRAPH_PORTS_MAX)
            return err_set(err, ERR_INPUT, "input %.120s is made twice or is one too many", name);
        loader->made[value] = true;
        graph->inputs[graph->input_count++] = value;
        if (!input_shape_read(from->input[i], &graph->values[value].tensor, err))
            return false;
    }
    return true;
}

static bool nodes_read(struct loader *loader, const Onnx__GraphProto *from, struct err *err) {
    for (size_t i = 0; i < from->n_node; i++) {
        const char *type = from->node[i]->op_type;
        bool constant = type && strcmp(type, "Constant") == 0;
        if (!(constant ? constant_node_read(loader, from->node[i], err) : node_read(loader, from->node[i], i, err)))
            return false;
    }
    return true;
}

static bool outputs_read(struct loader *loader, const Onnx__GraphProto *from, struct err *err) {
    struct graph *graph = loader->graph;
    if (!from->n_output || from->n_output > GRAPH_PORTS_MAX)
        return err_set(err, ERR_LIMIT, "%zu outputs", from->n_output);
    for (size_t i = 0; i < from->n_output; i++) {
        int value = value_of(loader, from->output[i]->name ? from->output[i]->name : "", err);
        if (value < 0)
            return false;
        graph->outputs[graph->output_count++] = value;
    }
    for (int i = 0; i < graph->value_count; i++)
        if (!loader->made[i])
            return err_set(err, ERR_INPUT, "value %.120s is read but nothing makes it", graph->values[i].name);
    return true;
}

static bool model_check(const Onnx__ModelProto *model, struct err *err) {
    if (!model->graph)
        return err_set(err, ERR_INPUT, "the ONNX file holds no graph");
    if (model->n_functions || model->graph->n_sparse_initializer)
        return err_set(err, ERR_UNSUPPORTED, "functions and sparse tensors are not supported");
    for (size_t i = 0; i < model->n_opset_import; i++) {
        const Onnx__OperatorSetIdProto *set = model->opset_import[i];
        bool standard = !set->domain || !*set->domain || strcmp(set->domain, "ai.onnx") == 0;
        if (standard && (set->version < OPSET_MIN || set->version > OPSET_MAX))
            return err_set(err, ERR_UNSUPPORTED, "opset %lld (supported: %d to %d)", (long long)set->version, OPSET_MIN,
                           OPSET_MAX);
    }
    if (model->graph->n_node > GRAPH_NODES_MAX || model->graph->n_initializer > GRAPH_NODES_MAX)
        return err_set(err, ERR_LIMIT, "%zu nodes and %zu initialisers, more than %d", model->graph->n_node,
                       model->graph->n_initializer, GRAPH_NODES_MAX);
    return true;
}

static bool graph_read(struct loader *loader, const Onnx__GraphProto *from, struct err *err) {
    for (size_t i = 0; i < from->n_initializer; i++)
        if (!constant_add(loader, from->initializer[i]->name, from->initializer[i], err))
            return false;
    return inputs_read(loader, from, err) && nodes_read(loader, from, err) && outputs_read(loader, from, err) &&
           infer_graph_sort(loader->graph, err);
}

static void proto_free_at(Onnx__ModelProto **model) {
    if (*model)
        onnx__model_proto__free_unpacked(*model, NULL);
}

struct graph *infer_graph_load(const void *data, size_t size, struct err *err) {
    if (size > GRAPH_FILE_BYTES_MAX) {
        err_set(err, ERR_LIMIT, "an ONNX file of %zu bytes, more than %zu", size, GRAPH_FILE_BYTES_MAX);
        return NULL;
    }
    if (!infer_wire_check(&onnx__model_proto__descriptor, data, size, err))
        return NULL;
    PULMO_SCOPED(proto_free_at) Onnx__ModelProto *model = onnx__model_proto__unpack(NULL, size, data);
    if (!model) {
        err_set(err, ERR_INPUT, "not an ONNX file");
        return NULL;
    }
    if (!model_check(model, err))
        return NULL;
    PULMO_SCOPED(loader_free_at) struct loader *loader = loader_new(model->graph->n_node, err);
    if (!loader || !graph_read(loader, model->graph, err))
        return NULL;
    struct graph *graph = loader->graph;
    loader->graph = NULL;
    return graph;
}

struct graph *infer_graph_open(const void *data, size_t size, struct err *err) {
    PULMO_SCOPED(infer_graph_free_at) struct graph *graph = infer_graph_load(data, size, err);
    if (!graph || !infer_graph_fold(graph, err) || !infer_graph_fuse(graph, err))
        return NULL;
    struct graph *result = graph;
    graph = NULL;
    return result;
}
