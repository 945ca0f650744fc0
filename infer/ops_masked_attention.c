/* Masked attention as an operator, and the width of vectors that it runs on. */
#include "infer/infer.h"
#include "infer/masked_attention.h"
#include "infer/operators.h"
#include "infer/winograd.h"

void masked_attention_run(const struct masked_attention *shape, const struct masked_call *call) {
    switch (infer_winograd_lanes(infer_backend_instruction_set())) {
    case 16: masked_attention_run_16(shape, call); break;
    case 8: masked_attention_run_8(shape, call); break;
    default: masked_attention_run_4(shape, call); break;
    }
}

size_t masked_attention_scratch(const struct masked_attention *shape) {
    int64_t keys = masked_attention_padded(shape->keys),
            wide = masked_attention_padded(shape->wide); /* as masked_attention/kernel.c lays it out */
    int64_t floats = shape->depth * (keys + MASKED_BLOCK) + keys * (wide + MASKED_BLOCK + 2);
    return (size_t)floats * sizeof(float);
}

static struct masked_attention attention_of(const struct operation_call *call) {
    const int64_t *q = call->in[0].shape.dims, *v = call->in[2].shape.dims;
    return (struct masked_attention){.batch = q[0],
                                     .heads = q[1],
                                     .queries = q[2],
                                     .depth = q[3],
                                     .keys = v[2],
                                     .wide = v[3],
                                     .scale = infer_node_float(call->node, "scale", 1),
                                     .one_mask = call->in[3].shape.dims[0] == 1,
                                     .one_bias = call->in[4].shape.dims[0] == 1};
}

size_t infer_scratch_masked_attention(const struct operation_call *call) {
    struct masked_attention shape = attention_of(call);
    return masked_attention_scratch(&shape);
}

void infer_run_masked_attention(const struct operation_call *call) {
    struct masked_attention shape = attention_of(call);
    masked_attention_run(&shape, &(struct masked_call){.query = call->in[0].data,
                                                       .key = call->in[1].data,
                                                       .value = call->in[2].data,
                                                       .mask = call->in[3].data,
                                                       .bias = call->present[4] ? call->in[4].data : NULL,
                                                       .out = call->out[0].data,
                                                       .weights = call->out[1].data,
                                                       .scratch = call->scratch});
}
