/* Lowering: a graph with known shapes becomes a device plan (infer/cuda/device_plan.h). Knows nothing of CUDA. */
#ifndef PULMO_INFER_DEVICE_LOWER_H
#define PULMO_INFER_DEVICE_LOWER_H

#include "infer/cuda/device_plan.h"
#include "infer/graph.h"

/* What a plan is made of: one graph, or a candidate network in its two halves. */
struct lower_request {
    const struct graph *graph;
    const struct shape *inputs; /* of graph */
    const struct graph *tail;   /* NULL = none: runs `passes` times on each batch entry of the graph's results */
    const int *tail_sources;    /* output of graph that feeds input i of the tail */
    int passes;                 /* 1 without a tail */
    const char *model;          /* digest, hexadecimal */
};

/* The plan as a block of bytes that device_plan_check accepts. Its outputs are those of the graph, then those of the
 * tail. ERR_UNSUPPORTED names a layer that no kernel of the device computes. */
bool infer_device_lower(const struct lower_request *request, struct bytes *out, struct err *err) PULMO_MUST_USE;

#endif
