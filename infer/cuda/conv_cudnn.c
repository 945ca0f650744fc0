/* Convolution, bias, sum and Relu as one operation graph of cuDNN 9, through its C interface.
 *
 *   x [n][c][d][h][w], w [k][c][t][r][s] -> convolution -> + bias [1][k][1][1][1] -> + sum -> max(0, .) -> y
 *
 * Tensors lie with their channels last, in halves; the bias and what lies between the operations are floats, which
 * never leave the kernel. The engine is the first of the heuristic's list that is deterministic and keeps floats in its
 * sums: no timing decides, so that the same libraries on the same card give the same bytes. */
#include "infer/cuda/conv_cudnn.h"

#include <cudnn_graph.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DESCRIPTORS_MAX 32
#define OPERATIONS_MAX 4
#define ENGINES_MAX 24
#define NOTES_MAX CUDNN_NUMERICAL_NOTE_TYPE_COUNT
#define PLAN_FILE_MAX ((size_t)16 << 20)

enum { UID_X = 'x', UID_W = 'w', UID_BIAS = 'b', UID_SUM = 's', UID_Y = 'y', UID_BETWEEN = 'A' };

struct conv_plan {
    cudnnBackendDescriptor_t plan;
    int64_t workspace;
    bool cached;
};

/* What a graph is made of; all of it may go once the engine plan is made. */
struct draft {
    cudnnBackendDescriptor_t made[DESCRIPTORS_MAX], operations[OPERATIONS_MAX];
    int count, operation_count;
    struct err *err;
};

static void draft_clear(struct draft *draft) {
    while (draft->count)
        cudnnBackendDestroyDescriptor(draft->made[--draft->count]);
}

static bool passed(cudnnStatus_t status, const char *what, struct err *err) {
    if (status == CUDNN_STATUS_SUCCESS)
        return true;
    enum err_kind kind = CUDNN_STATUS_CATEGORY(status) == CUDNN_STATUS_NOT_SUPPORTED ? ERR_UNSUPPORTED : ERR_INTERNAL;
    return err_set(err, kind, "cuDNN refused %s: %s", what, cudnnGetErrorString(status));
}

static cudnnBackendDescriptor_t descriptor_new(struct draft *draft, cudnnBackendDescriptorType_t type) {
    cudnnBackendDescriptor_t made = NULL;
    if (draft->count == DESCRIPTORS_MAX ||
        !passed(cudnnBackendCreateDescriptor(type, &made), "a descriptor", draft->err))
        return NULL;
    draft->made[draft->count++] = made;
    return made;
}

/* NULL stays NULL, so that a graph is written without an if a line. */
static void set(struct draft *draft, cudnnBackendDescriptor_t *descriptor, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t count, const void *values) {
    if (*descriptor &&
        !passed(cudnnBackendSetAttribute(*descriptor, name, type, count, values), "an attribute", draft->err))
        *descriptor = NULL;
}

static cudnnBackendDescriptor_t finalized(struct draft *draft, cudnnBackendDescriptor_t descriptor, const char *what) {
    if (!descriptor || !passed(cudnnBackendFinalize(descriptor), what, draft->err))
        return NULL;
    return descriptor;
}

/* ---- the graph --------------------------------------------------------------------------------------------------- */

static cudnnBackendDescriptor_t tensor_new(struct draft *draft, const struct device_tensor *tensor,
                                           cudnnDataType_t type, int64_t uid, bool between) {
    cudnnBackendDescriptor_t made = descriptor_new(draft, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    int64_t strides[5], alignment = DEVICE_ALIGNMENT, step = 1;
    static const int order[5] = {1, 4, 3, 2, 0}; /* channels last */
    for (int i = 0; i < 5; i++) {
        strides[order[i]] = step;
        step *= tensor->dims[order[i]];
    }
    set(draft, &made, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set(draft, &made, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 5, tensor->dims);
    set(draft, &made, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 5, strides);
    set(draft, &made, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid);
    set(draft, &made, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    set(draft, &made, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &between);
    return finalized(draft, made, "a tensor");
}

/* What one operation hands to the next. */
static cudnnBackendDescriptor_t between_new(struct draft *draft, const struct device_tensor *like) {
    return tensor_new(draft, like, CUDNN_DATA_FLOAT, UID_BETWEEN + draft->operation_count, true);
}

static bool operation_add(struct draft *draft, cudnnBackendDescriptor_t operation, const char *what) {
    operation = finalized(draft, operation, what);
    if (operation)
        draft->operations[draft->operation_count++] = operation;
    return operation != NULL;
}

static bool convolution_add(struct draft *draft, const int64_t *numbers, cudnnBackendDescriptor_t x,
                            cudnnBackendDescriptor_t w, cudnnBackendDescriptor_t y) {
    cudnnBackendDescriptor_t how = descriptor_new(draft, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    cudnnBackendDescriptor_t operation = descriptor_new(draft, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t axes = 3;
    const float one = 1, zero = 0;
    set(draft, &how, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &axes);
    set(draft, &how, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set(draft, &how, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    set(draft, &how, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 3, numbers);
    set(draft, &how, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 3, numbers + 3);
    set(draft, &how, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 3, numbers + 6);
    set(draft, &how, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 3, numbers + 9);
    how = finalized(draft, how, "a convolution");
    if (!how || !x || !w || !y)
        return false;
    set(draft, &operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &how);
    set(draft, &operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x);
    set(draft, &operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &w);
    set(draft, &operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y);
    set(draft, &operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &one);
    set(draft, &operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &zero);
    return operation_add(draft, operation, "a convolution");
}

/* y = x + b, or max(0, x) where b is NULL. */
static bool pointwise_add(struct draft *draft, cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t b,
                          cudnnBackendDescriptor_t y) {
    cudnnBackendDescriptor_t how = descriptor_new(draft, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    cudnnBackendDescriptor_t operation = descriptor_new(draft, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    const cudnnPointwiseMode_t mode = b ? CUDNN_POINTWISE_ADD : CUDNN_POINTWISE_RELU_FWD;
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    set(draft, &how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    set(draft, &how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &type);
    how = finalized(draft, how, "a sum");
    if (!how || !x || !y)
        return false;
    set(draft, &operation, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &how);
    set(draft, &operation, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x);
    if (b)
        set(draft, &operation, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &b);
    set(draft, &operation, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y);
    return operation_add(draft, operation, "a sum");
}

static cudnnBackendDescriptor_t graph_new(struct draft *draft, const struct conv_target *target,
                                          const struct device_call *call) {
    const struct device_tensor *out = &call->out[0];
    struct device_tensor bias = {.rank = 5, .dims = {1, out->dims[1], 1, 1, 1}};
    bool sum = call->step.inputs[3] >= 0, relu = call->step.relu;
    cudnnBackendDescriptor_t y = tensor_new(draft, out, CUDNN_DATA_HALF, UID_Y, false);
    cudnnBackendDescriptor_t b = tensor_new(draft, &bias, CUDNN_DATA_FLOAT, UID_BIAS, false);
    cudnnBackendDescriptor_t at = between_new(draft, out);
    if (!b ||
        !convolution_add(draft, call->step.numbers, tensor_new(draft, &call->in[0], CUDNN_DATA_HALF, UID_X, false),
                         tensor_new(draft, &call->in[1], CUDNN_DATA_HALF, UID_W, false), at))
        return NULL;
    cudnnBackendDescriptor_t next = sum || relu ? between_new(draft, out) : y;
    if (!pointwise_add(draft, at, b, next))
        return NULL;
    at = next;
    if (sum) {
        cudnnBackendDescriptor_t s = tensor_new(draft, &call->in[3], CUDNN_DATA_HALF, UID_SUM, false);
        next = relu ? between_new(draft, out) : y;
        if (!s || !pointwise_add(draft, at, s, next))
            return NULL;
        at = next;
    }
    if (relu && !pointwise_add(draft, at, NULL, y))
        return NULL;
    cudnnBackendDescriptor_t graph = descriptor_new(draft, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    set(draft, &graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, draft->operation_count,
        draft->operations);
    if (target->handle)
        set(draft, &graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &target->handle);
    return finalized(draft, graph, "a graph");
}

/* ---- the engine -------------------------------------------------------------------------------------------------- */

/* Sums in floats, in the same order every time. */
static bool engine_suits(cudnnBackendDescriptor_t config) {
    cudnnBackendNumericalNote_t notes[NOTES_MAX];
    cudnnBackendDescriptor_t engine = NULL;
    int64_t count = 0;
    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) != CUDNN_STATUS_SUCCESS)
        return false;
    bool suits = cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count,
                                          &engine) == CUDNN_STATUS_SUCCESS &&
                 cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                          NOTES_MAX, &count, notes) == CUDNN_STATUS_SUCCESS;
    for (int64_t n = 0; suits && n < count && n < NOTES_MAX; n++)
        suits = notes[n] != CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC && notes[n] != CUDNN_NUMERICAL_NOTE_WINOGRAD &&
                notes[n] != CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION;
    cudnnBackendDestroyDescriptor(engine);
    return suits;
}

static cudnnBackendDescriptor_t plan_of_config(const struct conv_target *target, cudnnBackendDescriptor_t config) {
    cudnnBackendDescriptor_t plan = NULL;
    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan) != CUDNN_STATUS_SUCCESS)
        return NULL;
    bool good = cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                         1, &config) == CUDNN_STATUS_SUCCESS;
    if (good)
        good = cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
                                        &target->handle) == CUDNN_STATUS_SUCCESS;
    if (good && cudnnBackendFinalize(plan) == CUDNN_STATUS_SUCCESS)
        return plan;
    cudnnBackendDestroyDescriptor(plan);
    return NULL;
}

struct configs {
    cudnnBackendDescriptor_t items[ENGINES_MAX];
    int64_t made, count; /* descriptors; those that the heuristic filled */
};

static void configs_clear(struct configs *configs) {
    for (int64_t n = 0; n < configs->made; n++)
        cudnnBackendDestroyDescriptor(configs->items[n]);
}

/* What the heuristic offers, best first; nothing where it has nothing. */
static void configs_ask(struct draft *draft, const struct conv_target *target, cudnnBackendDescriptor_t graph,
                        cudnnBackendHeurMode_t mode, struct configs *out) {
    cudnnBackendDescriptor_t heuristic = descriptor_new(draft, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    set(draft, &heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph);
    set(draft, &heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (target->properties)
        set(draft, &heuristic, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &target->properties);
    heuristic = finalized(draft, heuristic, "a heuristic");
    while (heuristic && out->made < ENGINES_MAX &&
           cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &out->items[out->made]) ==
               CUDNN_STATUS_SUCCESS)
        out->made++;
    if (out->made == ENGINES_MAX)
        cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, ENGINES_MAX,
                                 &out->count, out->items);
    out->count = out->count < ENGINES_MAX ? out->count : ENGINES_MAX;
}

/* The first of the heuristic's engines that suits and can be made; NULL where there is none. */
static cudnnBackendDescriptor_t plan_by(struct draft *draft, const struct conv_target *target,
                                        cudnnBackendDescriptor_t graph, cudnnBackendHeurMode_t mode) {
    PULMO_SCOPED(configs_clear) struct configs configs = {.made = 0};
    cudnnBackendDescriptor_t plan = NULL;
    configs_ask(draft, target, graph, mode, &configs);
    for (int64_t n = 0; n < configs.count && !plan; n++)
        if (engine_suits(configs.items[n]))
            plan = plan_of_config(target, configs.items[n]);
    return plan;
}

static cudnnBackendDescriptor_t plan_make(const struct conv_target *target, const struct device_call *call,
                                          struct err *err) {
    struct draft draft = {.err = err};
    cudnnBackendDescriptor_t graph = graph_new(&draft, target, call), plan = NULL;
    if (graph) {
        plan = plan_by(&draft, target, graph, CUDNN_HEUR_MODE_A);
        if (!plan)
            plan = plan_by(&draft, target, graph, CUDNN_HEUR_MODE_FALLBACK);
        if (!plan)
            err_set(err, ERR_UNSUPPORTED, "cuDNN has no deterministic engine for it");
    }
    draft_clear(&draft);
    return plan;
}

/* ---- without a card -----------------------------------------------------------------------------------------------
 */

bool conv_engines_count(const struct conv_target *target, const struct device_call *call, struct conv_engines *out,
                        struct err *err) {
    PULMO_SCOPED(draft_clear) struct draft draft = {.err = err};
    cudnnBackendDescriptor_t graph = graph_new(&draft, target, call);
    struct conv_engines found = {0};
    if (!graph)
        return false;
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    for (size_t mode = 0; mode < sizeof modes / sizeof *modes && found.suiting == 0; mode++) {
        PULMO_SCOPED(configs_clear) struct configs configs = {.made = 0};
        struct err nothing = {ERR_NONE, ""}; /* a mode that offers nothing is no failure */
        draft.err = &nothing;
        configs_ask(&draft, target, graph, modes[mode], &configs);
        found.offered += (int)configs.count;
        for (int64_t n = 0; n < configs.count; n++)
            found.suiting += engine_suits(configs.items[n]);
    }
    *out = found;
    return true;
}

void *conv_properties_new(const char *json, struct err *err) {
    cudnnBackendDescriptor_t made = NULL;
    if (!passed(cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &made), "a descriptor", err))
        return NULL;
    if (passed(cudnnBackendSetAttribute(made, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                                        (int64_t)strlen(json), json),
               "a description", err) &&
        passed(cudnnBackendFinalize(made), "a description", err))
        return made;
    cudnnBackendDestroyDescriptor(made);
    return NULL;
}

void conv_properties_free(void *properties) {
    if (properties)
        cudnnBackendDestroyDescriptor(properties);
}

/* ---- the cache ----------------------------------------------------------------------------------------------------
 */

/* Everything that the plan depends on, in one line. */
static void key_write(const struct conv_target *target, const struct device_call *call, char out[512]) {
    const int64_t *n = call->step.numbers, *x = call->in[0].dims, *w = call->in[1].dims;
    snprintf(
        out, 512,
        "pulmo conv 1; %s; x %lld %lld %lld %lld %lld; w %lld %lld %lld %lld; stride %lld %lld %lld; before %lld %lld "
        "%lld; dilation %lld %lld %lld; after %lld %lld %lld; sum %d; relu %d",
        target->name, (long long)x[0], (long long)x[1], (long long)x[2], (long long)x[3], (long long)x[4],
        (long long)w[0], (long long)w[2], (long long)w[3], (long long)w[4], (long long)n[0], (long long)n[1],
        (long long)n[2], (long long)n[3], (long long)n[4], (long long)n[5], (long long)n[6], (long long)n[7],
        (long long)n[8], (long long)n[9], (long long)n[10], (long long)n[11], call->step.inputs[3] >= 0,
        call->step.relu);
}

static void cache_path(const char *folder, const char *key, char out[1024]) {
    uint64_t hash = 0xCBF29CE484222325ULL; /* FNV-1a; the key itself stands in the file */
    for (const char *at = key; *at; at++)
        hash = (hash ^ (uint8_t)*at) * 0x100000001B3ULL;
    snprintf(out, 1024, "%s/%016llx.plan", folder, (unsigned long long)hash);
}

/* A file is the key, a newline, and the plan as cuDNN writes it. NULL = none that fits. */
static cudnnBackendDescriptor_t cache_read(const struct conv_target *target, const char *key) {
    PULMO_SCOPED(bytes_free) struct bytes file = {0};
    char path[1024];
    cudnnBackendDescriptor_t plan = NULL;
    size_t size = strlen(key);
    cache_path(target->cache, key, path);
    if (!bytes_read_file(path, PLAN_FILE_MAX, &file, NULL) || file.size < size + 2 ||
        memcmp(file.data, key, size) != 0 || file.data[size] != '\n' ||
        cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan) != CUDNN_STATUS_SUCCESS)
        return NULL;
    bool good = cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
                                         &target->handle) == CUDNN_STATUS_SUCCESS;
    if (good &&
        cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                                 (int64_t)(file.size - size - 1), file.data + size + 1) == CUDNN_STATUS_SUCCESS &&
        cudnnBackendFinalize(plan) == CUDNN_STATUS_SUCCESS)
        return plan;
    cudnnBackendDestroyDescriptor(plan);
    return NULL;
}

/* What cannot be kept is made again next time. */
static void cache_write(const struct conv_target *target, const char *key, cudnnBackendDescriptor_t plan) {
    PULMO_SCOPED(bytes_free) struct bytes file = {0};
    char path[1024];
    int64_t size = 0;
    if (cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, 0, &size,
                                 NULL) != CUDNN_STATUS_SUCCESS ||
        size < 1 || (size_t)size > PLAN_FILE_MAX / 2)
        return;
    PULMO_SCOPED(pulmo_free_at) char *text = pulmo_alloc((size_t)size, 1, NULL);
    if (!text ||
        cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, size, &size,
                                 text) != CUDNN_STATUS_SUCCESS ||
        !bytes_append(&file, key, strlen(key), PLAN_FILE_MAX, NULL) ||
        !bytes_append(&file, "\n", 1, PLAN_FILE_MAX, NULL) ||
        !bytes_append(&file, text, (size_t)size, PLAN_FILE_MAX, NULL))
        return;
    cache_path(target->cache, key, path);
    (void)!bytes_write_file(path, file.data, file.size, false, NULL);
}

/* ---- border -------------------------------------------------------------------------------------------------------
 */

struct conv_plan *conv_plan_new(const struct conv_target *target, const struct device_call *call, struct err *err) {
    char key[512];
    if (call->in[0].layout != DEVICE_CHANNELS_LAST || call->out[0].layout != DEVICE_CHANNELS_LAST ||
        (call->step.inputs[3] >= 0 && call->in[3].layout != DEVICE_CHANNELS_LAST)) {
        err_set(err, ERR_UNSUPPORTED, "an image whose channels are not last");
        return NULL;
    }
    struct conv_plan *made = pulmo_alloc(1, sizeof *made, err);
    if (!made)
        return NULL;
    key_write(target, call, key);
    made->plan = target->cache ? cache_read(target, key) : NULL;
    made->cached = made->plan != NULL;
    if (!made->plan && (made->plan = plan_make(target, call, err)) && target->cache)
        cache_write(target, key, made->plan);
    int64_t count = 0;
    if (made->plan && passed(cudnnBackendGetAttribute(made->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                                      CUDNN_TYPE_INT64, 1, &count, &made->workspace),
                             "the size of a workspace", err))
        return made;
    conv_plan_free(made);
    return NULL;
}

void conv_plan_free(struct conv_plan *plan) {
    if (!plan)
        return;
    if (plan->plan)
        cudnnBackendDestroyDescriptor(plan->plan);
    free(plan);
}

size_t conv_plan_workspace(const struct conv_plan *plan) {
    return (size_t)plan->workspace;
}

bool conv_plan_cached(const struct conv_plan *plan) {
    return plan->cached;
}

bool conv_plan_run(const struct conv_plan *plan, cudnnHandle_t handle, const struct device_call *call, void *workspace,
                   struct err *err) {
    int64_t uids[5] = {UID_X, UID_W, UID_BIAS, UID_Y, UID_SUM}, count = call->step.inputs[3] >= 0 ? 5 : 4;
    const void *data[5] = {call->in_data[0], call->in_data[1], call->in_data[2], call->out_data[0], call->in_data[3]};
    cudnnBackendDescriptor_t pack = NULL;
    if (!passed(cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack), "a descriptor", err))
        return false;
    bool good =
        passed(cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, uids), "ids",
               err) &&
        passed(cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, data),
               "pointers", err) &&
        passed(cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace),
               "a workspace", err) &&
        passed(cudnnBackendFinalize(pack), "its operands", err) &&
        passed(cudnnBackendExecute(handle, plan->plan, pack), "a run", err);
    cudnnBackendDestroyDescriptor(pack);
    return good;
}
