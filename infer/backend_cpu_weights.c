/* Constants of the graph in the layouts that steps want: packed once, and used by every program that is made like. */
#include "infer/backend_cpu_build.h"

#include <stdlib.h>

static void *packed_find(const struct program *program, const void *source, const dnnl_memory_desc_t *layout) {
    for (int i = 0; program && i < program->weight_count; i++)
        if (program->weights[i].source == source && dnnl_memory_desc_equal(&program->weights[i].layout, layout))
            return program->weights[i].data;
    return NULL;
}

void *infer_weights_place(struct builder *builder, const void *source, const dnnl_memory_desc_t *layout, bool *known,
                          struct err *err) {
    struct program *program = builder->program;
    void *there = packed_find(builder->like, source, layout);
    *known = there != NULL;
    if (there) {
        program->weights[program->weight_count++] = (struct packed){source, *layout, there, false};
        return there;
    }
    size_t size = dnnl_memory_desc_get_size(layout), rounded = (size / PLAN_ALIGNMENT + 1) * PLAN_ALIGNMENT;
    void *packed = rounded <= PULMO_ALLOC_MAX ? aligned_alloc(PLAN_ALIGNMENT, rounded) : NULL;
    if (!packed) {
        err_set(err, ERR_MEMORY, "out of memory for %zu bytes of weights", rounded);
        return NULL;
    }
    program->weights[program->weight_count++] = (struct packed){source, *layout, packed, true};
    program->figures.weight_bytes += size;
    return packed;
}

bool infer_weights_pack(struct builder *builder, const void *source, const void *data, const dnnl_memory_desc_t *user,
                        const dnnl_memory_desc_t *wanted, struct region *out, struct err *err) {
    bool known = false;
    void *packed = infer_weights_place(builder, source, wanted, &known, err);
    if (!packed)
        return false;
    *out = (struct region){.buffer = -1, .fixed = packed, .desc = *wanted};
    return known || infer_backend_reorder(builder->program->engine, user, data, wanted, packed, err);
}

bool infer_tensor_pack(struct builder *builder, const struct tensor *tensor, const dnnl_memory_desc_t *user,
                       const dnnl_memory_desc_t *wanted, struct region *out, struct err *err) {
    *out = (struct region){.buffer = -1, .fixed = tensor->data, .desc = *user};
    if (!infer_backend_finite(tensor->data, (size_t)infer_shape_count(&tensor->shape) * sizeof(float)))
        return err_set(err, ERR_INPUT, "the weights hold NaN or infinity");
    return dnnl_memory_desc_equal(user, wanted) ||
           infer_weights_pack(builder, tensor->data, tensor->data, user, wanted, out, err);
}
