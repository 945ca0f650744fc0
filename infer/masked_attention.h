/* Inside the CPU back-end: attention over the keys that a mask keeps, which all queries of an image share. The kept
 * keys and values of a head are brought together once; everything behind that is as much smaller as fewer are kept.
 *
 * Equal to MatMul, Mul, Add, Where(mask, ., -1e9), Softmax, MatMul in float: exp(-1e9 - max) is exactly 0. Where the
 * mask keeps none, all keys weigh the same, as there.
 *
 * Sums run in the order of channels and of kept keys, without contracted multiplications; queries fill the vectors. So
 * results are the same bytes for any number of threads and any width of vectors. */
#ifndef PULMO_INFER_MASKED_ATTENTION_H
#define PULMO_INFER_MASKED_ATTENTION_H

#include "pulmo.h"

#define MASKED_BLOCK 16 /* queries together; a multiple of every width of vectors */

struct masked_attention {
    int64_t batch, heads, queries, depth, keys, wide;
    float scale;
    bool one_mask, one_bias; /* for all the batch */
};

/* Row-major: query [b][h][q][d], key [b][h][d][k], value [b][h][k][w], mask and bias [b or 1][k], out [b][h][q][w],
 * weights [b][h][q][k]. */
struct masked_call {
    const float *query, *key, *value;
    const float *bias; /* NULL = none */
    const uint8_t *mask;
    float *out, *weights; /* weights: NULL = not wanted */
    void *scratch;        /* masked_attention_scratch bytes, aligned as the arena is */
};

/* Rows of keys, values and queries are padded with zeros to whole blocks. */
static inline int64_t masked_attention_padded(int64_t count) {
    return (count + MASKED_BLOCK - 1) / MASKED_BLOCK * MASKED_BLOCK;
}

size_t masked_attention_scratch(const struct masked_attention *shape);
/* NaN or infinity in the bias, or among a query's scores of the kept keys, makes its results NaN. */
void masked_attention_run(const struct masked_attention *shape, const struct masked_call *call);

/* masked_attention/kernel.c, compiled once for each width of vectors: 4 floats on any processor, 8 with AVX2, 16 with
 * AVX-512. */
void masked_attention_run_4(const struct masked_attention *shape, const struct masked_call *call);
void masked_attention_run_8(const struct masked_attention *shape, const struct masked_call *call);
void masked_attention_run_16(const struct masked_attention *shape, const struct masked_call *call);

#endif
