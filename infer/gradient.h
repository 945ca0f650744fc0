/* Reverse-mode differentiation of a graph's image part. */
#ifndef PULMO_INFER_GRADIENT_H
#define PULMO_INFER_GRADIENT_H

#include "infer/program.h"

/* Gradient of element `element` of value `of` with respect to value `by`, plain row-major with the shape of `by`.
 * The runner's program keeps its activations and has run. ERR_UNSUPPORTED names an operator between the two that has
 * no gradient here (it has: Conv, Relu, Add, Concat, Resize, MaxPool, Sigmoid, and what is fused into Conv). */
bool infer_gradient(const struct runner *runner, int of, int64_t element, int by, float *out,
                    struct err *err) PULMO_MUST_USE;

#endif
