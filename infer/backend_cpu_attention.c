/* Dense attention as the library would do it: two products and a softmax. What the Top-K block is measured against. */
#include "infer/backend_cpu.h"
#include "infer/measure.h"

#define PARTS 3

struct dense {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_attr_t scale;
    dnnl_primitive_desc_t descs[PARTS];
    dnnl_primitive_t primitives[PARTS];
    dnnl_memory_desc_t layouts[5]; /* queries, keys, scores, values, out */
    dnnl_memory_t memories[5];
};

static void dense_clear(struct dense *dense) {
    for (int n = 0; n < 5; n++)
        if (dense->memories[n])
            dnnl_memory_destroy(dense->memories[n]);
    for (int n = 0; n < PARTS; n++) {
        if (dense->primitives[n])
            dnnl_primitive_destroy(dense->primitives[n]);
        if (dense->descs[n])
            dnnl_primitive_desc_destroy(dense->descs[n]);
    }
    if (dense->scale)
        dnnl_primitive_attr_destroy(dense->scale);
    if (dense->stream)
        dnnl_stream_destroy(dense->stream);
    if (dense->engine)
        dnnl_engine_destroy(dense->engine);
}

static bool dense_part(struct dense *dense, int part, const void *desc, dnnl_primitive_attr_t attributes,
                       struct err *err) {
    return infer_backend_ok(dnnl_primitive_desc_create(&dense->descs[part], desc, attributes, dense->engine, NULL),
                            "a part of attention", err) &&
           infer_backend_ok(dnnl_primitive_create(&dense->primitives[part], dense->descs[part]), "a part of attention",
                            err);
}

static bool dense_describe(struct dense *dense, const struct attention_block *block, struct err *err) {
    int64_t sides[5][3] = {{block->heads, block->queries, block->depth},
                           {block->heads, block->depth, block->keys},
                           {block->heads, block->queries, block->keys},
                           {block->heads, block->keys, block->wide},
                           {block->heads, block->queries, block->wide}};
    for (int n = 0; n < 5; n++) {
        struct shape shape = {.rank = 3, .dims = {sides[n][0], sides[n][1], sides[n][2]}};
        dense->layouts[n] = infer_backend_plain(&shape);
    }
    dnnl_matmul_desc_t scores, mix;
    dnnl_softmax_v2_desc_t softmax;
    const dnnl_memory_desc_t *at = dense->layouts;
    return infer_backend_ok(dnnl_engine_create(&dense->engine, dnnl_cpu, 0), "a CPU engine", err) &&
           infer_backend_ok(dnnl_stream_create(&dense->stream, dense->engine, dnnl_stream_default_flags), "a stream",
                            err) &&
           infer_backend_ok(dnnl_primitive_attr_create(&dense->scale), "attributes", err) &&
           infer_backend_ok(dnnl_primitive_attr_set_output_scales(dense->scale, 1, 0, &block->scale), "a scale", err) &&
           infer_backend_ok(dnnl_matmul_desc_init(&scores, &at[0], &at[1], NULL, &at[2]), "a product", err) &&
           infer_backend_ok(dnnl_softmax_v2_forward_desc_init(&softmax, dnnl_forward_inference, dnnl_softmax_accurate,
                                                              &at[2], &at[2], 2),
                            "a softmax", err) &&
           infer_backend_ok(dnnl_matmul_desc_init(&mix, &at[2], &at[3], NULL, &at[4]), "a product", err) &&
           dense_part(dense, 0, &scores, dense->scale, err) && dense_part(dense, 1, &softmax, NULL, err) &&
           dense_part(dense, 2, &mix, NULL, err);
}

static bool dense_run(struct dense *dense, struct err *err) {
    dnnl_memory_t *at = dense->memories;
    const dnnl_exec_arg_t arguments[PARTS][3] = {
        {{DNNL_ARG_SRC, at[0]}, {DNNL_ARG_WEIGHTS, at[1]}, {DNNL_ARG_DST, at[2]}},
        {{DNNL_ARG_SRC, at[2]}, {DNNL_ARG_DST, at[2]}},
        {{DNNL_ARG_SRC, at[2]}, {DNNL_ARG_WEIGHTS, at[3]}, {DNNL_ARG_DST, at[4]}}};
    static const int counts[PARTS] = {3, 2, 3};
    for (int part = 0; part < PARTS; part++)
        if (!infer_backend_ok(
                dnnl_primitive_execute(dense->primitives[part], dense->stream, counts[part], arguments[part]), "a run",
                err))
            return false;
    return infer_backend_ok(dnnl_stream_wait(dense->stream), "a run", err);
}

static bool dense_measure(struct dense *dense, const struct attention_block *block, int rounds, double *best_s,
                          struct err *err) {
    void *data[5] = {block->query, block->key, block->weights, block->value, block->out};
    for (int n = 0; n < 5; n++)
        if (!infer_backend_ok(dnnl_memory_create(&dense->memories[n], &dense->layouts[n], dense->engine, data[n]),
                              "memory", err))
            return false;
    for (int round = 0; round < rounds; round++) {
        double start_s = infer_measure_processor_s();
        if (!dense_run(dense, err))
            return false;
        double taken_s = infer_measure_processor_s() - start_s;
        *best_s = round == 0 || taken_s < *best_s ? taken_s : *best_s;
    }
    return true;
}

bool infer_backend_attention_dense(const struct attention_block *block, int rounds, double *best_s, struct err *err) {
    struct dense dense = {0};
    int before = infer_backend_enter();
    bool good = dense_describe(&dense, block, err) && dense_measure(&dense, block, rounds, best_s, err);
    infer_backend_leave(before);
    dense_clear(&dense);
    return good;
}
