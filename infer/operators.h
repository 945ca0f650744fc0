/* The operators that the engine knows: one table, one entry an operator. */
#ifndef PULMO_INFER_OPERATORS_H
#define PULMO_INFER_OPERATORS_H

#include "infer/graph.h"

enum operation_kind {
    OPERATOR_KERNEL = 0, /* runs by its entry's `run` on plain tensors */
    OPERATOR_CONV,
    OPERATOR_BATCH_NORMALIZATION,
    OPERATOR_POOL_MAX,
    OPERATOR_POOL_AVERAGE,
    OPERATOR_RESIZE,
    OPERATOR_CONCAT,
    OPERATOR_RELU,
    OPERATOR_SIGMOID,
    OPERATOR_BINARY, /* Add, Sub, Mul, Div */
    OPERATOR_MATMUL,
    OPERATOR_GEMM,
    OPERATOR_ALIAS, /* Reshape and its kin: the same bytes under another shape */
    OPERATOR_DROPOUT
};

/* Keys of the dropout masks of one run (infer.h); active false = inference without dropout. */
struct dropout_keys {
    bool active;
    uint64_t seed;
    uint32_t candidate, pass_first; /* batch entry n is pass pass_first + n */
    double rate;                    /* negative = the node's own */
    /* Keep-masks (0 or 1) by the node's ordinal instead of random ones, for parity with a dump; NULL in the product. */
    const float *const *masks;
    int mask_count;
};

struct operation_call {
    const struct graph_node *node;
    struct tensor in[GRAPH_NODE_INPUTS_MAX]; /* absent: rank 0, data NULL, element F32 */
    struct tensor out[GRAPH_NODE_OUTPUTS_MAX];
    bool present[GRAPH_NODE_INPUTS_MAX];
    const struct dropout_keys *dropout;
    void *scratch;
};

struct operation {
    const char *name;
    enum operation_kind kind;
    int inputs_min, inputs_max, outputs_max;
    /* Sets element and shape of the outputs; refuses what the operator cannot do. */
    bool (*shape)(struct operation_call *call, struct err *err);
    /* Plain row-major in and out; NULL where only the back-end runs it. */
    void (*run)(const struct operation_call *call);
    /* Bytes of scratch that `run` needs; NULL = none. */
    size_t (*scratch)(const struct operation_call *call);
};

/* NULL when the engine does not know it. */
const struct operation *infer_operator_find(const char *name);
/* The fused operators, which no file may name. */
extern const struct operation infer_operator_topk_softmax, infer_operator_topk_attention,
    infer_operator_masked_attention;

/* Geometry of a convolution or pooling of 1 to 3 spatial axes. */
#define SPATIAL_MAX 3
struct window {
    int spatial;
    int64_t kernel[SPATIAL_MAX], stride[SPATIAL_MAX], dilation[SPATIAL_MAX];
    int64_t before[SPATIAL_MAX], after[SPATIAL_MAX]; /* padding */
    int64_t group;
};
/* kernel = sides of the weights, or NULL to read kernel_shape. */
bool infer_window_read(const struct graph_node *node, const struct shape *input, const int64_t *kernel,
                       struct window *out, struct err *err) PULMO_MUST_USE;

/* shapes.c */
bool infer_shape_same(struct operation_call *call, struct err *err);
bool infer_shape_compare(struct operation_call *call, struct err *err);
bool infer_shape_broadcast(struct operation_call *call, struct err *err);
bool infer_shape_where(struct operation_call *call, struct err *err);
bool infer_shape_conv(struct operation_call *call, struct err *err);
bool infer_shape_batch_normalization(struct operation_call *call, struct err *err);
bool infer_shape_pool(struct operation_call *call, struct err *err);
bool infer_shape_pool_global(struct operation_call *call, struct err *err);
bool infer_shape_resize(struct operation_call *call, struct err *err);
bool infer_shape_matmul(struct operation_call *call, struct err *err);
bool infer_shape_gemm(struct operation_call *call, struct err *err);
bool infer_shape_reduce(struct operation_call *call, struct err *err);
bool infer_shape_softmax(struct operation_call *call, struct err *err);
bool infer_shape_topk(struct operation_call *call, struct err *err);
bool infer_shape_dropout(struct operation_call *call, struct err *err);
bool infer_shape_topk_softmax(struct operation_call *call, struct err *err);
bool infer_shape_topk_attention(struct operation_call *call, struct err *err);
bool infer_shape_masked_attention(struct operation_call *call, struct err *err);
/* shapes_layout.c */
bool infer_shape_concat(struct operation_call *call, struct err *err);
bool infer_shape_reshape(struct operation_call *call, struct err *err);
bool infer_shape_flatten(struct operation_call *call, struct err *err);
bool infer_shape_squeeze(struct operation_call *call, struct err *err);
bool infer_shape_unsqueeze(struct operation_call *call, struct err *err);
bool infer_shape_transpose(struct operation_call *call, struct err *err);
bool infer_shape_slice(struct operation_call *call, struct err *err);
bool infer_shape_gather(struct operation_call *call, struct err *err);
bool infer_shape_split(struct operation_call *call, struct err *err);
bool infer_shape_expand(struct operation_call *call, struct err *err);

/* Broadcast of b into *inout, as ONNX and NumPy do. */
bool infer_shapes_join(struct shape *inout, const struct shape *b, const char *name, struct err *err) PULMO_MUST_USE;
/* Axis in 0 .. rank - 1 from one that may count from the end. */
bool infer_axis(int64_t axis, int rank, int *out, const char *name, struct err *err) PULMO_MUST_USE;
/* Integers of input `index` (a constant) or, failing that, of an attribute; count is -1 when neither is there. */
bool infer_call_ints(const struct operation_call *call, int index, const char *attribute, int64_t *out, int *count,
                     struct err *err) PULMO_MUST_USE;
/* A reduction's axes as a bit mask. */
bool infer_reduce_axes(const struct operation_call *call, unsigned *out, struct err *err) PULMO_MUST_USE;
/* A slice as start and step per axis; out shape in *shape. */
bool infer_slice_read(const struct operation_call *call, int64_t *start, int64_t *step, struct shape *shape,
                      struct err *err) PULMO_MUST_USE;

/* ops_elementwise.c */
void infer_run_add(const struct operation_call *call);
void infer_run_sub(const struct operation_call *call);
void infer_run_mul(const struct operation_call *call);
void infer_run_div(const struct operation_call *call);
void infer_run_pow(const struct operation_call *call);
void infer_run_greater_or_equal(const struct operation_call *call);
void infer_run_where(const struct operation_call *call);
void infer_run_relu(const struct operation_call *call);
void infer_run_sigmoid(const struct operation_call *call);
void infer_run_sqrt(const struct operation_call *call);
void infer_run_exp(const struct operation_call *call);
void infer_run_erf(const struct operation_call *call);
void infer_run_tanh(const struct operation_call *call);
void infer_run_batch_normalization(const struct operation_call *call);
void infer_run_copy(const struct operation_call *call);
void infer_run_dropout(const struct operation_call *call);
/* ops_layout.c */
void infer_run_transpose(const struct operation_call *call);
void infer_run_slice(const struct operation_call *call);
void infer_run_gather(const struct operation_call *call);
void infer_run_split(const struct operation_call *call);
void infer_run_concat(const struct operation_call *call);
void infer_run_expand(const struct operation_call *call);
/* ops_reduce.c */
void infer_run_reduce_mean(const struct operation_call *call);
void infer_run_reduce_sum(const struct operation_call *call);
void infer_run_reduce_min(const struct operation_call *call);
void infer_run_reduce_max(const struct operation_call *call);
void infer_run_pool_global(const struct operation_call *call);
void infer_run_softmax(const struct operation_call *call);
void infer_run_topk(const struct operation_call *call);
size_t infer_scratch_topk(const struct operation_call *call);
void infer_run_matmul(const struct operation_call *call);
void infer_run_gemm(const struct operation_call *call);
/* ops_attention.c */
void infer_run_topk_softmax(const struct operation_call *call);
void infer_run_topk_attention(const struct operation_call *call);
size_t infer_scratch_topk_softmax(const struct operation_call *call);
size_t infer_scratch_topk_attention(const struct operation_call *call);
/* ops_masked_attention.c */
void infer_run_masked_attention(const struct operation_call *call);
size_t infer_scratch_masked_attention(const struct operation_call *call);

#endif
