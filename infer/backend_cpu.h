/* Inside the CPU back-end only: backend_cpu_build.c makes what backend_cpu.c runs. */
#ifndef PULMO_INFER_BACKEND_CPU_H
#define PULMO_INFER_BACKEND_CPU_H

#include <oneapi/dnnl/dnnl.h>

#include "infer/program.h"
#include "infer/winograd.h"

/* A tensor as oneDNN sees it: a layout, and bytes in the arena (buffer >= 0, from `offset` in it) or elsewhere
 * (fixed). */
struct region {
    int buffer;
    size_t offset;
    const void *fixed;
    dnnl_memory_desc_t desc;
};

#define STEP_ARGUMENTS_MAX (GRAPH_NODE_INPUTS_MAX + 4)
struct argument {
    int role; /* DNNL_ARG_... */
    struct region region;
};

/* Bytes of a buffer that must be finite behind a step, or (u8) not at the end of their range in too many elements. */
struct checked {
    int buffer;
    size_t offset, size;
    dnnl_data_type_t type;
};

/* One primitive of oneDNN, a convolution by infer/winograd.h, or one kernel of ours when both are NULL. */
struct step {
    const struct graph_node *node;
    dnnl_primitive_t primitive;
    struct winograd *winograd;
    int argument_count;
    struct argument *arguments;
    struct operation_call call; /* shapes; data pointers of constants */
    int in_buffers[GRAPH_NODE_INPUTS_MAX], out_buffers[GRAPH_NODE_OUTPUTS_MAX], scratch_buffer; /* -1 = none */
    struct checked checked[GRAPH_NODE_OUTPUTS_MAX];
    int checked_count;
};

/* A constant of the graph in the layout that a step wants. */
struct packed {
    const void *source; /* its data in the graph, by which it is known */
    dnnl_memory_desc_t layout;
    void *data;
    bool owned; /* else by the program that this one was made like */
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
    struct packed *weights;
    int weight_count;
    float **backward; /* [node_count] weights that lead gradients back by infer/winograd.h; with `keep` alone */
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
/* backend_cpu_winograd.c. Where such a step's arguments lie, from the data of each; in the order of `arguments`. */
void infer_winograd_bind(const struct step *step, void *const *data, struct winograd_call *out);
/* The gradient of a convolution that infer/winograd.h can lead back; *taken = whether it is one. */
bool infer_winograd_backward(const struct program *program, const struct graph_node *node, const float *gradient_out,
                             float *gradient_in, bool *taken, struct err *err) PULMO_MUST_USE;
bool infer_backend_window(const struct program *program, const struct graph_node *node, struct window_dims *out,
                          struct err *err) PULMO_MUST_USE;

#endif
