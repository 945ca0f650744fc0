/* Inside the lowering only: device_lower.c keeps tensors and steps, device_lower_steps.c makes them of operators. */
#ifndef PULMO_INFER_DEVICE_LOWER_STEPS_H
#define PULMO_INFER_DEVICE_LOWER_STEPS_H

#include "infer/cuda/device_plan.h"
#include "infer/operators.h"

struct lowering {
    struct device_tensor *tensors; /* [DEVICE_TENSORS_MAX] */
    int *root;                     /* [DEVICE_TENSORS_MAX] tensor whose bytes it shares; itself where it has its own */
    struct device_step *steps;     /* [DEVICE_STEPS_MAX] */
    int tensor_count, step_count, input_count, output_count;
    int32_t inputs[DEVICE_PORTS_MAX], outputs[DEVICE_PORTS_MAX];
    struct bytes constants;
};

/* A graph and where its values lie: row-major floats, channels-last halves, both or (-1) neither yet. */
struct lower_graph {
    const struct graph *graph;
    struct tensor *shapes; /* [value_count] */
    int *plain, *image;    /* [value_count] */
};

/* device_lower.c. Indices, or -1 with err set. alias: tensor whose bytes it shares, or -1. */
int device_lower_tensor(struct lowering *lowering, const struct device_tensor *tensor, int alias, struct err *err);
int device_lower_constant(struct lowering *lowering, const struct device_tensor *tensor, const void *data,
                          struct err *err);
struct device_step *device_lower_step(struct lowering *lowering, enum device_step_kind kind, const char *name,
                                      struct err *err);

/* device_lower_steps.c */
struct device_tensor device_lower_plain(const struct shape *shape);
/* The value as row-major floats, converted now if it is not. */
int device_lower_value_plain(struct lowering *lowering, struct lower_graph *graph, int value, struct err *err);
bool device_lower_node(struct lowering *lowering, struct lower_graph *graph, const struct graph_node *node,
                       struct err *err) PULMO_MUST_USE;

#endif
