/* A graph lowered for a device: one block of bytes without a pointer, which crosses the plugin's border and can be
 * carried to another machine in a file. Header, tensors, steps, constants, each behind the other.
 *
 * infer/device_lower.c writes it, the plugin and the host reference (infer/cuda/reference.h) run it. Images of rank 5
 * lie in [n][d][h][w][c] (channels last, what tensor cores read), in half precision; everything else is row-major
 * float. */
#ifndef PULMO_INFER_CUDA_DEVICE_PLAN_H
#define PULMO_INFER_CUDA_DEVICE_PLAN_H

#include "pulmo.h"

#ifdef __cplusplus
extern "C" {
#endif

#define DEVICE_PLAN_MAGIC 0x324C50445550ULL /* "PUDPL2", little-endian */
#define DEVICE_RANK_MAX 6
#define DEVICE_PORTS_MAX 16
#define DEVICE_INPUTS_MAX 5
#define DEVICE_OUTPUTS_MAX 2
#define DEVICE_NUMBERS_MAX 18
#define DEVICE_TENSORS_MAX 8192
#define DEVICE_STEPS_MAX 4096
#define DEVICE_KEYS_MAX 256        /* of one attention row: it lies in a thread's own memory */
#define DEVICE_ALIGNMENT 64        /* bytes: of tensors in the arena and of constants; cuDNN wants 16 */
#define DEVICE_CHANNELS_MULTIPLE 8 /* eight halves are the 16 bytes that tensor cores load at once */

enum device_element { DEVICE_F32 = 0, DEVICE_F16 };
enum device_layout { DEVICE_PLAIN = 0, DEVICE_CHANNELS_LAST };

struct device_tensor {
    int32_t element, layout;
    int32_t rank, constant;        /* constant: offset counts from the constants, otherwise from the arena */
    int64_t dims[DEVICE_RANK_MAX]; /* as ONNX orders them: [n][c][d][h][w], whatever the layout */
    int64_t offset, size;          /* bytes */
};

/* What a step does, and what its numbers (n) and reals (r) mean. Strides count elements. */
enum device_step_kind {
    DEVICE_CONV = 0,  /* image, weights [k][t][r][s][c], bias, residual; n: stride 0-2, before 3-5, dilation 6-8,
                         after 9-11, 12: 1 = channels fit tensor cores */
    DEVICE_POOL_MAX,  /* n: as above, kernel 12-14 */
    DEVICE_RESIZE,    /* nearest by whole factors */
    DEVICE_CONCAT,    /* of channels */
    DEVICE_CONVERT,   /* the same tensor in another element or layout */
    DEVICE_BINARY,    /* n: operation 0, strides of the operands 1-6 and 7-12 along the axes of the result,
                         13: 1 = both lie as the result does */
    DEVICE_UNARY,     /* n: operation 0 */
    DEVICE_REDUCE,    /* n: side 0, inner 1, operation 2: over the side of [outer][side][inner] */
    DEVICE_VIEW,      /* n: start 0, strides 1-6 along the axes of the result */
    DEVICE_PRODUCT,   /* a, b, bias or -1; n: rows 0, deep 1, wide 2, elements between matrices of a 3 and b 4,
                         b transposed 5 */
    DEVICE_ATTENTION, /* q [depth], k [depth][keys], v [keys][wide] -> context, weights; n: queries 0, depth 1, keys 2,
                         wide 3, keep 4; r: scale 0 */
    DEVICE_MASKED_ATTENTION, /* q, k, v as above, mask of the keys (0 or 1), bias of the keys or -1 -> context, weights;
                                n: queries 0, depth 1, keys 2, wide 3, heads 4, elements between images of mask 5 and
                                bias 6; r: scale 0 */
    DEVICE_SELECT,  /* mask, where it is set, elsewhere; n: strides of the operands 0-5, 6-11, 12-17 along the axes of
                       the result */
    DEVICE_TOP,     /* n: side 0, count 1: the greatest of each row, best first */
    DEVICE_DROPOUT, /* n: elements of a batch entry 0, ordinal of the node 1; r: rate 0 */
    DEVICE_REPEAT,  /* n: elements of a batch entry 0, times 1: each entry so many times, one behind the other */
    DEVICE_KINDS
};
enum device_binary {
    DEVICE_ADD = 0,
    DEVICE_SUB,
    DEVICE_MUL,
    DEVICE_DIV,
    DEVICE_POW,
    DEVICE_GREATER_OR_EQUAL, /* 1 where it is so, 0 elsewhere: a mask is such floats */
    DEVICE_BINARIES
};
enum device_reduce { DEVICE_MEAN = 0, DEVICE_MIN, DEVICE_MAX, DEVICE_REDUCES };
enum device_unary { DEVICE_RELU = 0, DEVICE_SIGMOID, DEVICE_SQRT, DEVICE_EXP, DEVICE_TANH, DEVICE_ERF, DEVICE_UNARIES };

struct device_step {
    int32_t kind, relu;                  /* relu: applied to the result */
    int32_t inputs[DEVICE_INPUTS_MAX];   /* tensors; -1 = absent */
    int32_t outputs[DEVICE_OUTPUTS_MAX]; /* tensors; -1 = absent */
    int64_t numbers[DEVICE_NUMBERS_MAX];
    float reals[2];
    char name[64]; /* of the layer, for messages */
};

struct device_plan {
    uint64_t magic;
    int64_t total_size, arena_size, constants_offset, constants_size; /* bytes */
    int32_t tensor_count, step_count, input_count, output_count;
    int32_t inputs[DEVICE_PORTS_MAX], outputs[DEVICE_PORTS_MAX]; /* tensors, row-major float */
    int32_t passes;                                              /* batch entries of a candidate behind DEVICE_REPEAT */
    int32_t reserved;
    char model[72]; /* SHA-256 of model.json in hexadecimal, for the cache of engine plans */
};

const struct device_tensor *device_plan_tensors(const struct device_plan *plan);
const struct device_step *device_plan_steps(const struct device_plan *plan);
const void *device_plan_constants(const struct device_plan *plan);

size_t device_element_size(int32_t element);
int64_t device_tensor_count(const struct device_tensor *tensor);
/* Multiplications and additions of a step that runs on tensor cores or as a product; 0 for others. */
double device_step_operations(const struct device_plan *plan, int index);

/* Whether the block is whole and every number in it stays inside it: it may come from a file. ERR_INPUT names what is
 * wrong. */
bool device_plan_check(const void *block, size_t size, struct err *err) PULMO_MUST_USE;
/* FNV-1a over the block: names a cache file, guards nothing. */
uint64_t device_plan_fingerprint(const struct device_plan *plan);

#ifdef __cplusplus
}
#endif
#endif
