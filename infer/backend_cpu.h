/* Inside the CPU back-end only: backend_cpu_build.c makes what backend_cpu.c runs. */
#ifndef PULMO_INFER_BACKEND_CPU_H
#define PULMO_INFER_BACKEND_CPU_H

#include <oneapi/dnnl/dnnl.h>

#include "infer/program.h"

/* A tensor as oneDNN sees it: a layout, and bytes in the arena (buffer >= 0) or elsewhere (fixed). */
struct region {
    int buffer;
    const void *fixed;
    dnnl_memory_desc_t desc;
};

struct argument {
    int role; /* DNNL_ARG_... */
    struct region region;
};

/* One primitive of oneDNN, or one kernel of ours when primitive is NULL. */
struct step {
    const struct graph_node *node;
    dnnl_primitive_t primitive;
    int argument_count;
    struct argument *arguments;
    struct operation_call call; /* shapes; data pointers of constants */
    int in_buffers[GRAPH_NODE_INPUTS_MAX], out_buffers[GRAPH_NODE_OUTPUTS_MAX], scratch_buffer; /* -1 = none */
    int checked[GRAPH_NODE_OUTPUTS_MAX], checked_count; /* buffers that must be finite behind the step, or (u8) not */
    dnnl_data_type_t checked_types[GRAPH_NODE_OUTPUTS_MAX]; /* at the end of their range in too many elements */
};

struct program {
    const struct graph *graph;
    dnnl_engine_t engine;
    struct tensor *tensors; /* [value_count] shapes */
    struct region *regions; /* [value_count] where each activation lies */
    struct plan_buffer *buffers;
    int buffer_count, buffer_capacity;
    struct step *steps;
    int step_count, step_capacity;
    void **weights; /* packed, owned */
    int weight_count;
    struct region outputs[GRAPH_PORTS_MAX];
    struct program_figures figures;
    bool keep;
};

bool infer_backend_ok(dnnl_status_t status, const char *what, struct err *err) PULMO_MUST_USE;
/* oneDNN asks OpenMP how many threads to plan for and to use: one, in the calling thread, until leave. */
int infer_backend_enter(void);
void infer_backend_leave(int before);
dnnl_memory_desc_t infer_backend_plain(const struct shape *shape);
dnnl_memory_desc_t infer_backend_any(const struct shape *shape); /* the primitive chooses */
/* Packs or unpacks between two layouts now; both memories are the caller's. */
bool infer_backend_reorder(dnnl_engine_t engine, const dnnl_memory_desc_t *from_desc, const void *from,
                           const dnnl_memory_desc_t *to_desc, void *to, struct err *err) PULMO_MUST_USE;
/* Whether `size` bytes of floats hold neither NaN nor infinity. */
bool infer_backend_finite(const void *data, size_t size);
/* Window of a convolution or pooling in oneDNN's terms (dilation counts from 0 there). */
struct window_dims {
    dnnl_dims_t kernel, stride, dilation, before, after;
};
bool infer_backend_window(const struct program *program, const struct graph_node *node, struct window_dims *out,
                          struct err *err) PULMO_MUST_USE;

#endif
