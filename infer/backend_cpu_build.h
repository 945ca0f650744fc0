/* Inside the CPU back-end's compiler only: backend_cpu_build.c walks the graph, backend_cpu_conv.c makes its
 * convolutions in the precision that each is given. */
#ifndef PULMO_INFER_BACKEND_CPU_BUILD_H
#define PULMO_INFER_BACKEND_CPU_BUILD_H

#include "infer/backend_cpu.h"
#include "infer/precision.h"

#define STEP_NEVER 0x7FFFFFFF

struct builder {
    struct program *program;
    const struct program *like;         /* whose packed weights are used where they fit; NULL = none */
    const struct infer_precision *plan; /* NULL = fp32 everywhere; what follows it is unused then */
    bool in_order;                      /* convolutions by the library alone */
    int *plain;                         /* [value_count] buffer of a plain copy, -1 = none */
    int *last_use; /* [value_count] node that reads the value last, through aliases too; STEP_NEVER = an output */
    int *home;     /* [value_count] node that joins the value to others where it lies; -1 = none */
    int *layer;    /* [node_count] of a convolution */
    float *scales; /* [value_count] what one step of a value kept as u8 stands for; 0 = never kept so */
    bool *int8_read, *bf16_read; /* [value_count] such a layer reads it, maybe through Concat, Resize or MaxPool */
    struct region *other;        /* [value_count] a copy in a lower precision; desc.ndims 0 = none */
};

/* A primitive under construction; what it holds is given to a step at the end. */
struct draft {
    dnnl_primitive_desc_t desc;
    dnnl_primitive_attr_t attributes;
    dnnl_post_ops_t post;
    struct argument arguments[STEP_ARGUMENTS_MAX];
    int argument_count;
};

void infer_draft_clear(struct draft *draft);
/* Attributes of every primitive: scratch memory comes from the arena, so that a program is shared by threads. */
bool infer_draft_begin(struct draft *draft, struct err *err) PULMO_MUST_USE;
bool infer_draft_relu(struct draft *draft, struct err *err) PULMO_MUST_USE;
bool infer_draft_describe(struct builder *builder, struct draft *draft, const void *operation,
                          const struct graph_node *node, struct err *err) PULMO_MUST_USE;
void infer_draft_argument(struct draft *draft, int role, const struct region *region);
/* The finished primitive becomes a step; `checked` (NULL = none) is the region that must be finite behind it. */
bool infer_draft_finish(struct builder *builder, struct draft *draft, const struct graph_node *node,
                        const struct region *checked, struct err *err) PULMO_MUST_USE;
/* A step without a primitive, and what it reads, writes and needs; NULL when memory is out. */
struct step *infer_step_new(struct builder *builder, const struct graph_node *node, const struct argument *arguments,
                            int count, struct err *err);
const dnnl_memory_desc_t *infer_draft_layout(const struct draft *draft, dnnl_query_t query);

bool infer_region_new(struct builder *builder, const dnnl_memory_desc_t *desc, struct region *out,
                      struct err *err) PULMO_MUST_USE;
/* The value in that layout and type: where it lies, or a reordered copy made by a step before the node's own. */
bool infer_value_in_layout(struct builder *builder, int value, const dnnl_memory_desc_t *desc,
                           const struct graph_node *node, struct region *out, struct err *err) PULMO_MUST_USE;
/* A step that brings `from` into the layout and type of `to`. factor: of every element, between two types that count in
 * different steps; checked: as infer_draft_finish. */
bool infer_region_convert(struct builder *builder, const struct region *from, const struct region *to, float factor,
                          const struct graph_node *node, const struct region *checked, struct err *err) PULMO_MUST_USE;
/* The value copied to `to`, in its layout and type. */
bool infer_value_copy(struct builder *builder, int value, const struct region *to, const struct graph_node *node,
                      struct err *err) PULMO_MUST_USE;
bool infer_value_plain(struct builder *builder, int value, const struct graph_node *node, struct region *out,
                       struct err *err) PULMO_MUST_USE;
/* The value in full precision, in whatever layout it lies. */
bool infer_value_floats(struct builder *builder, int value, const struct graph_node *node, struct region *out,
                        struct err *err) PULMO_MUST_USE;
bool infer_build_binary(struct builder *builder, const struct graph_node *node, dnnl_alg_kind_t kind,
                        const struct region operands[2], const struct region *out, struct err *err) PULMO_MUST_USE;

/* ---- backend_cpu_weights.c ---- */
/* Where a constant of the graph (source: its data there) lies in that layout. *known = it does already, in the program
 * that this one is made like; otherwise it is room to be filled, which the program owns. */
void *infer_weights_place(struct builder *builder, const void *source, const dnnl_memory_desc_t *layout, bool *known,
                          struct err *err);
/* data, made of the constant `source`, in the layout a primitive chose: packed once, now. */
bool infer_weights_pack(struct builder *builder, const void *source, const void *data, const dnnl_memory_desc_t *user,
                        const dnnl_memory_desc_t *wanted, struct region *out, struct err *err) PULMO_MUST_USE;
/* The same of a constant as it is, which must be finite; no copy is made where the primitive takes it so. */
bool infer_tensor_pack(struct builder *builder, const struct tensor *tensor, const dnnl_memory_desc_t *user,
                       const dnnl_memory_desc_t *wanted, struct region *out, struct err *err) PULMO_MUST_USE;

/* ---- backend_cpu_concat.c ---- */
void infer_concat_prepare(struct builder *builder);
bool infer_build_concat(struct builder *builder, const struct graph_node *node, struct err *err) PULMO_MUST_USE;
/* Where a value is to be written: in what joins it to others, where it can be, or in a buffer of its own. */
bool infer_region_of(struct builder *builder, int value, const dnnl_memory_desc_t *desc, struct region *out,
                     struct err *err) PULMO_MUST_USE;
/* Whether the value may lie in one buffer with others, which outlive it. */
bool infer_concat_shares(const struct builder *builder, int value);

/* The layouts and types in which a convolution reads and writes. */
struct convolution {
    dnnl_memory_desc_t input, weights, output;
    struct window_dims window;
};
/* backend_cpu_conv.c: the node's convolution with its bias, under the attributes that the draft has. */
bool infer_draft_convolve(struct builder *builder, struct draft *draft, const struct graph_node *node,
                          const struct convolution *convolution, struct err *err) PULMO_MUST_USE;
/* In the precision of the plan. */
bool infer_build_conv(struct builder *builder, const struct graph_node *node, int index,
                      struct err *err) PULMO_MUST_USE;
/* backend_cpu_slabs.c: one in full precision for int8 layers behind it; *taken = whether it is such a one. */
bool infer_build_conv_slabs(struct builder *builder, const struct graph_node *node, bool *taken,
                            struct err *err) PULMO_MUST_USE;
/* backend_cpu_winograd.c: the same in full precision by infer/winograd.h; *taken = whether it can and pays. */
bool infer_build_conv_winograd(struct builder *builder, const struct graph_node *node, int index, bool *taken,
                               struct err *err) PULMO_MUST_USE;
/* The layout that it reads and writes: with it around, no layout changes between the two kinds of convolution. */
dnnl_memory_desc_t infer_winograd_layout(const struct shape *shape, int lanes);
/* backend_cpu_low.c: the same in int8 or bf16. */
bool infer_build_conv_low(struct builder *builder, const struct graph_node *node, int index,
                          struct err *err) PULMO_MUST_USE;
/* Whether the sum may be made in the buffer of that value: nobody reads it later and it is no other operand. */
bool infer_residual_in_place(const struct builder *builder, const struct graph_node *node, int index);
/* What the plan means for every value: scales, and who would like which type. */
void infer_low_prepare(struct builder *builder);

#endif
