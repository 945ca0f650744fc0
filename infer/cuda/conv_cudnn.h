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

/* What an engine plan is made for. */
struct conv_target {
    struct cudnnContext *handle;
    const char *name;  /* of card and libraries, for the cache */
    const char *cache; /* folder, NULL = none */
};

/* call: a step DEVICE_CONV with its shapes. ERR_UNSUPPORTED where no deterministic engine takes the graph. */
struct conv_plan *conv_plan_new(const struct conv_target *target, const struct device_call *call, struct err *err);
void conv_plan_free(struct conv_plan *plan);
size_t conv_plan_workspace(const struct conv_plan *plan);
bool conv_plan_cached(const struct conv_plan *plan);
bool conv_plan_run(const struct conv_plan *plan, struct cudnnContext *handle, const struct device_call *call,
                   void *workspace, struct err *err) PULMO_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
