/* Inside infer/: what measure.c asks of the back-end. */
#ifndef PULMO_INFER_MEASURE_H
#define PULMO_INFER_MEASURE_H

#include "pulmo.h"

/* Processor time of the calling thread. */
double infer_measure_processor_s(void);

struct attention_block { /* row-major; the memory is the caller's */
    int64_t heads, queries, keys, depth, wide;
    float scale;
    float *query, *key, *value, *weights, *out; /* [h][q][d], [h][d][k], [h][k][w], [h][q][k], [h][q][w] */
};
/* The best of some runs without a choice: a product, a softmax over all keys, a product. */
bool infer_backend_attention_dense(const struct attention_block *block, int rounds, double *best_s,
                                   struct err *err) PULMO_MUST_USE;

#endif
