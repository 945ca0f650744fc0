#include "infer/operators.h"

#include <string.h>

#define BINARY(name_, run_)                                                                         \
    {                                                                                               \
        .name = name_, .kind = OPERATOR_BINARY, .inputs_min = 2, .inputs_max = 2, .outputs_max = 1, \
        .shape = infer_shape_broadcast, .run = run_                                                 \
    }
#define KERNEL(name_, min_, max_, outputs_, shape_, run_) \
    { .name = name_, .inputs_min = min_, .inputs_max = max_, .outputs_max = outputs_, .shape = shape_, .run = run_ }
#define NATIVE(name_, kind_, min_, max_, shape_, run_)                                                           \
    {                                                                                                            \
        .name = name_, .kind = kind_, .inputs_min = min_, .inputs_max = max_, .outputs_max = 1, .shape = shape_, \
        .run = run_                                                                                              \
    }

static const struct operation operations[] = {
    BINARY("Add", infer_run_add),
    BINARY("Div", infer_run_div),
    BINARY("Mul", infer_run_mul),
    BINARY("Sub", infer_run_sub),
    KERNEL("Erf", 1, 1, 1, infer_shape_same, infer_run_erf),
    KERNEL("Exp", 1, 1, 1, infer_shape_same, infer_run_exp),
    KERNEL("Expand", 2, 2, 1, infer_shape_expand, infer_run_expand),
    KERNEL("Gather", 2, 2, 1, infer_shape_gather, infer_run_gather),
    KERNEL("GlobalAveragePool", 1, 1, 1, infer_shape_pool_global, infer_run_pool_global),
    KERNEL("GreaterOrEqual", 2, 2, 1, infer_shape_compare, infer_run_greater_or_equal),
    KERNEL("Pow", 2, 2, 1, infer_shape_broadcast, infer_run_pow),
    KERNEL("ReduceMax", 1, 2, 1, infer_shape_reduce, infer_run_reduce_max),
    KERNEL("ReduceMean", 1, 2, 1, infer_shape_reduce, infer_run_reduce_mean),
    KERNEL("ReduceMin", 1, 2, 1, infer_shape_reduce, infer_run_reduce_min),
    KERNEL("ReduceSum", 1, 2, 1, infer_shape_reduce, infer_run_reduce_sum),
    KERNEL("Slice", 1, 5, 1, infer_shape_slice, infer_run_slice),
    KERNEL("Softmax", 1, 1, 1, infer_shape_softmax, infer_run_softmax),
    KERNEL("Split", 1, 2, GRAPH_NODE_OUTPUTS_MAX, infer_shape_split, infer_run_split),
    KERNEL("Sqrt", 1, 1, 1, infer_shape_same, infer_run_sqrt),
    KERNEL("Tanh", 1, 1, 1, infer_shape_same, infer_run_tanh),
    KERNEL("Transpose", 1, 1, 1, infer_shape_transpose, infer_run_transpose),
    KERNEL("Where", 3, 3, 1, infer_shape_where, infer_run_where),
    NATIVE("AveragePool", OPERATOR_POOL_AVERAGE, 1, 1, infer_shape_pool, NULL),
    NATIVE("BatchNormalization", OPERATOR_BATCH_NORMALIZATION, 5, 5, infer_shape_batch_normalization,
           infer_run_batch_normalization),
    NATIVE("Concat", OPERATOR_CONCAT, 1, GRAPH_NODE_INPUTS_MAX, infer_shape_concat, infer_run_concat),
    NATIVE("Conv", OPERATOR_CONV, 2, 3, infer_shape_conv, NULL),
    NATIVE("Flatten", OPERATOR_ALIAS, 1, 1, infer_shape_flatten, infer_run_copy),
    NATIVE("Gemm", OPERATOR_GEMM, 2, 3, infer_shape_gemm, infer_run_gemm),
    NATIVE("Identity", OPERATOR_ALIAS, 1, 1, infer_shape_same, infer_run_copy),
    NATIVE("MatMul", OPERATOR_MATMUL, 2, 3, infer_shape_matmul, infer_run_matmul),
    NATIVE("MaxPool", OPERATOR_POOL_MAX, 1, 1, infer_shape_pool, NULL),
    NATIVE("Relu", OPERATOR_RELU, 1, 1, infer_shape_same, infer_run_relu),
    NATIVE("Reshape", OPERATOR_ALIAS, 2, 2, infer_shape_reshape, infer_run_copy),
    NATIVE("Resize", OPERATOR_RESIZE, 1, 4, infer_shape_resize, NULL),
    NATIVE("Sigmoid", OPERATOR_SIGMOID, 1, 1, infer_shape_same, infer_run_sigmoid),
    NATIVE("Squeeze", OPERATOR_ALIAS, 1, 2, infer_shape_squeeze, infer_run_copy),
    NATIVE("Unsqueeze", OPERATOR_ALIAS, 1, 2, infer_shape_unsqueeze, infer_run_copy),
    {.name = "Dropout",
     .kind = OPERATOR_DROPOUT,
     .inputs_min = 1,
     .inputs_max = 3,
     .outputs_max = 1,
     .shape = infer_shape_dropout,
     .run = infer_run_dropout},
    {.name = "TopK",
     .inputs_min = 2,
     .inputs_max = 2,
     .outputs_max = 2,
     .shape = infer_shape_topk,
     .run = infer_run_topk,
     .scratch = infer_scratch_topk},
};

const struct operation infer_operator_topk_softmax = {.name = "(TopKSoftmax)",
                                                      .inputs_min = 1,
                                                      .inputs_max = 1,
                                                      .outputs_max = 1,
                                                      .shape = infer_shape_topk_softmax,
                                                      .run = infer_run_topk_softmax,
                                                      .scratch = infer_scratch_topk_softmax};

const struct operation infer_operator_topk_attention = {.name = "(TopKAttention)",
                                                        .inputs_min = 3,
                                                        .inputs_max = 3,
                                                        .outputs_max = 2,
                                                        .shape = infer_shape_topk_attention,
                                                        .run = infer_run_topk_attention,
                                                        .scratch = infer_scratch_topk_attention};

/* Queries, keys, values, mask, bias of the keys or absent. */
const struct operation infer_operator_masked_attention = {.name = "(MaskedAttention)",
                                                          .inputs_min = 4,
                                                          .inputs_max = 5,
                                                          .outputs_max = 2,
                                                          .shape = infer_shape_masked_attention,
                                                          .run = infer_run_masked_attention,
                                                          .scratch = infer_scratch_masked_attention};

const struct operation *infer_operator_find(const char *name) {
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
        if (strcmp(operations[i].name, name) == 0)
            return &operations[i];
    return NULL;
}
