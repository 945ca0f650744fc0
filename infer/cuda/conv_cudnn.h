/* One fused convolution of cuDNN 9: an operation graph of its C interface, an engine plan, and the cache of such plans.
 */
#ifndef PULMO_INFER_CUDA_CONV_CUDNN_H
#define PULMO_INFER_CUDA_CONV_CUDNN_H

#include "infer/cuda/element.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cudnnContext; /* of cuDNN: cudnnHandle_t points to it; a descriptor of its C interface is void * */
struct conv_plan;

/* What an engine plan is made for: a card that is here, or one that is only described. */
struct conv_target {
    struct cudnnContext *handle; /* NULL = described */
    void *properties;            /* conv_properties_new, NULL = the handle's card */
    const char *name;            /* of card and libraries, for the cache */
    const char *cache;           /* folder, NULL = none */
};

/* call: a step DEVICE_CONV with its shapes. ERR_UNSUPPORTED where no deterministic engine takes the graph. */
struct conv_plan *conv_plan_new(const struct conv_target *target, const struct device_call *call, struct err *err);
void conv_plan_free(struct conv_plan *plan);
size_t conv_plan_workspace(const struct conv_plan *plan);
bool conv_plan_cached(const struct conv_plan *plan);
/* What cuDNN would choose from, without a card: how many engines its heuristic offers for the fused graph, and how many
 * of them suit (conv_cudnn.c, engine_suits). */
struct conv_engines {
    int offered, suiting;
};
bool conv_engines_count(const struct conv_target *target, const struct device_call *call, struct conv_engines *out,
                        struct err *err) PULMO_MUST_USE;
/* A card by its description, in cuDNN's JSON. NULL with err set where cuDNN does not take it. */
void *conv_properties_new(const char *json, struct err *err);
void conv_properties_free(void *properties);

bool conv_plan_run(const struct conv_plan *plan, struct cudnnContext *handle, const struct device_call *call,
                   void *workspace, struct err *err) PULMO_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
