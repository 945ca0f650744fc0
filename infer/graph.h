/* The graph between an ONNX file and a program: named values, nodes in topological order, constants.
 *
 * A graph is built by infer_graph_load, rewritten by infer_graph_fold and infer_graph_fuse, then read only. */
#ifndef PULMO_INFER_GRAPH_H
#define PULMO_INFER_GRAPH_H

#include "pulmo.h"

#define GRAPH_RANK_MAX 6
#define GRAPH_NODES_MAX 4096
#define GRAPH_VALUES_MAX 16384
#define GRAPH_NODE_INPUTS_MAX 16
#define GRAPH_NODE_OUTPUTS_MAX 8
#define GRAPH_PORTS_MAX 16 /* inputs or outputs of a graph */
#define GRAPH_ATTRIBUTES_MAX 16
#define GRAPH_ATTRIBUTE_INTS_MAX 16
#define GRAPH_ELEMENTS_MAX ((int64_t)1 << 30) /* of one tensor */
#define GRAPH_FILE_BYTES_MAX ((size_t)64 << 20)

enum element { ELEMENT_F32 = 0, ELEMENT_I64, ELEMENT_BOOL };
size_t infer_element_size(enum element element);

struct shape {
    int rank;                     /* -1 = not known before shape inference */
    int64_t dims[GRAPH_RANK_MAX]; /* slowest first; -1 = dynamic, in a graph's inputs only */
};
bool infer_shape_equal(const struct shape *a, const struct shape *b);
/* Elements of a shape already checked. */
int64_t infer_shape_count(const struct shape *shape);
/* False with ERR_LIMIT or ERR_INPUT when a side is negative or the product is beyond GRAPH_ELEMENTS_MAX. */
bool infer_shape_check(const struct shape *shape, const char *name, struct err *err) PULMO_MUST_USE;
/* "1x16x24x24x24" */
void infer_shape_text(const struct shape *shape, char *out, size_t out_size);

/* Plain row-major elements. */
struct tensor {
    enum element element;
    struct shape shape;
    void *data; /* borrowed or owned as its holder says; NULL = not known before the run */
};

struct graph_attribute {
    char name[32];
    int64_t number;
    float real;
    char text[32];
    int count;
    int64_t numbers[GRAPH_ATTRIBUTE_INTS_MAX];
};

struct graph_value {
    char *name;           /* owned, unique */
    struct tensor tensor; /* shape known for inputs and constants; data owned, constants only */
    int producer;         /* node index, -1 for inputs and constants */
};

struct graph_node {
    const struct operation *operation;
    char *name; /* owned; of the layer, for messages */
    int input_count, output_count;
    int inputs[GRAPH_NODE_INPUTS_MAX]; /* values; -1 = absent */
    int outputs[GRAPH_NODE_OUTPUTS_MAX];
    int attribute_count;
    struct graph_attribute *attributes; /* owned */
    int dropout;                        /* ordinal among the Dropout nodes of the file: keys the masks; -1 otherwise */
    /* what fusion folded into the node, applied to output 0 in this order */
    int residual; /* value added, or -1 */
    bool relu;
};

struct graph {
    int value_count, node_count, input_count, output_count;
    int value_capacity;
    struct graph_value *values;
    struct graph_node *nodes; /* topological order */
    int inputs[GRAPH_PORTS_MAX], outputs[GRAPH_PORTS_MAX];
};

/* From the bytes of an .onnx file. ERR_INPUT malformed or hostile, ERR_UNSUPPORTED an operator, type or external
 * data (named), ERR_LIMIT. Caller frees. */
struct graph *infer_graph_load(const void *data, size_t size, struct err *err);
/* load, constant folding and fusion: what the engine runs. */
struct graph *infer_graph_open(const void *data, size_t size, struct err *err);
void infer_graph_free(struct graph *graph);
void infer_graph_free_at(struct graph **graph);

/* Index of a value by name, or -1. */
int infer_graph_value(const struct graph *graph, const char *name);
bool infer_graph_is_output(const struct graph *graph, int value);
/* Number of nodes (and graph outputs) that read the value; *node is the last such node, or -1. */
int infer_graph_uses(const struct graph *graph, int value, int *node);

/* Building blocks of the loader and of the rewriting passes. */
struct graph *infer_graph_new(int node_capacity, struct err *err);
/* Adds a value (name copied) and returns its index, or -1. */
int infer_graph_add_value(struct graph *graph, const char *name, enum element element, struct err *err);
/* Kahn's algorithm; ERR_INPUT names a node on a cycle. */
bool infer_graph_sort(struct graph *graph, struct err *err) PULMO_MUST_USE;
/* Drops nodes whose outputs nobody reads. */
bool infer_graph_prune(struct graph *graph, struct err *err) PULMO_MUST_USE;
/* A copy of the nodes that `wanted` marks; read values made outside become inputs, `outputs` become outputs. */
struct graph *infer_graph_extract(const struct graph *graph, const bool *wanted, const int *outputs, int output_count,
                                  struct err *err);

const struct graph_attribute *infer_node_attribute(const struct graph_node *node, const char *name);
/* The value that a convolution or a product adds to each channel; -1 = none. */
int infer_node_bias(const struct graph_node *node);
int64_t infer_node_int(const struct graph_node *node, const char *name, int64_t absent);
float infer_node_float(const struct graph_node *node, const char *name, float absent);
const char *infer_node_text(const struct graph_node *node, const char *name, const char *absent);
/* Copies at most `max` integers; returns how many the attribute holds, 0 when absent. */
int infer_node_ints(const struct graph_node *node, const char *name, int64_t *out, int max);

/* Computes every node whose inputs are constants (shape arithmetic, folded weights); Dropout never. */
bool infer_graph_fold(struct graph *graph, struct err *err) PULMO_MUST_USE;
/* BatchNormalization into Conv, Conv + Add + Relu into one node, a chain of attention, of the best keys or of those
 * that a mask keeps, into one node. */
bool infer_graph_fuse(struct graph *graph, struct err *err) PULMO_MUST_USE;

/* Shapes and element types of all values for given input shapes: out[value_count], data set for constants only. */
bool infer_graph_shapes(const struct graph *graph, const struct shape *inputs, struct tensor *out,
                        struct err *err) PULMO_MUST_USE;

#endif
