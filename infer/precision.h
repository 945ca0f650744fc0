/* Inside infer/: in which precision each convolution of a graph may run. The back-end says what the processor offers
 * (infer_backend_offers), calibrate.c what is fast and accurate enough there. */
#ifndef PULMO_INFER_PRECISION_H
#define PULMO_INFER_PRECISION_H

#include "infer/graph.h"
#include "infer/infer.h"

/* Letters of infer_precision.layers. */
#define PRECISION_FP32 'f'
#define PRECISION_BF16 'b'
#define PRECISION_INT8 'i'

/* Activations of int8 layers are unsigned, 0 .. 255 times range / 255. */
#define PRECISION_STEPS 255.0F
/* Largest weight of an int8 layer: all of the eight bits, or seven of them where two products of 255 and a weight are
 * added in 16 bits, which saturate (vpmaddubsw: AVX2 and AVX-512 without VNNI): 2 * 255 * 63 = 32130 < 32768. */
#define PRECISION_WEIGHT_MAX 127
#define PRECISION_WEIGHT_MAX_NARROW 63

/* Convolutions of the graph, which are its layers here. */
int infer_precision_count(const struct graph *graph);
/* Whether each layer may run in int8: its input cannot be negative, its weights are constant, in one group.
 * out[infer_precision_count], which is at most INFER_LAYERS_MAX. */
bool infer_precision_int8_possible(const struct graph *graph, bool *out, struct err *err) PULMO_MUST_USE;
/* ERR_INPUT unless the plan fits the graph; ERR_UNSUPPORTED when this processor lacks a precision in it. */
bool infer_precision_check(const struct graph *graph, const struct infer_precision *plan,
                           struct err *err) PULMO_MUST_USE;
bool infer_precision_is_mixed(const struct infer_precision *plan); /* NULL = fp32 */

#endif
