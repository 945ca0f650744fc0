#include "infer/cuda/network.h"

#include <stdlib.h>
#include <string.h>

#define ROUNDS_MAX 101

struct network {
    struct card *card;
    struct device_plan *plan; /* the block on the host */
    void *constants, *arena, *workspace;
    struct device_keys *keys; /* on the card */
    int32_t *fault;           /* on the card */
    struct card_conv **convs; /* [step_count]; NULL = a kernel of ours */
    struct card_graph *graph;
    struct cuda_figures figures;
};

void network_free(struct network *network) {
    if (!network)
        return;
    card_graph_free(network->graph);
    for (int i = 0; network->convs && i < network->plan->step_count; i++)
        card_conv_free(network->convs[i]);
    card_free(network->card, network->workspace);
    card_free(network->card, network->fault);
    card_free(network->card, network->keys);
    card_free(network->card, network->arena);
    card_free(network->card, network->constants);
    free(network->convs);
    free(network->plan);
    free(network);
}

static void network_free_at(struct network **network) {
    network_free(*network);
}

const struct device_plan *network_plan(const struct network *network) {
    return network->plan;
}

struct cuda_figures network_figures(const struct network *network) {
    return network->figures;
}

static const struct device_tensor *port_tensor(const struct network *network, int32_t tensor) {
    return &device_plan_tensors(network->plan)[tensor];
}

float *network_input(const struct network *network, int port) {
    return (float *)(void *)((char *)network->arena + port_tensor(network, network->plan->inputs[port])->offset);
}

const float *network_output(const struct network *network, int port) {
    return (float *)(void *)((char *)network->arena + port_tensor(network, network->plan->outputs[port])->offset);
}

size_t network_output_size(const struct network *network, int port) {
    return (size_t)port_tensor(network, network->plan->outputs[port])->size;
}

/* ---- making ready ------------------------------------------------------------------------------------------------ */

static bool memory_new(struct network *network, struct err *err) {
    const struct device_plan *plan = network->plan;
    network->constants = card_alloc(network->card, (size_t)plan->constants_size + DEVICE_ALIGNMENT, err);
    network->arena = network->constants ? card_alloc(network->card, (size_t)plan->arena_size, err) : NULL;
    network->keys = network->arena ? card_alloc(network->card, sizeof *network->keys, err) : NULL;
    network->fault = network->keys ? card_alloc(network->card, sizeof *network->fault, err) : NULL;
    network->figures.arena_bytes = plan->arena_size;
    network->figures.constant_bytes = plan->constants_size;
    return network->fault != NULL;
}

/* A convolution that the library cannot fuse is computed by a kernel of ours: slower, as right. */
static bool convs_new(struct network *network, struct err *err) {
    const struct device_plan *plan = network->plan;
    size_t workspace = 0;
    network->convs = pulmo_alloc((size_t)plan->step_count, sizeof(void *), err);
    if (!network->convs)
        return false;
    for (int i = 0; i < plan->step_count; i++) {
        const struct device_step *step = &device_plan_steps(plan)[i];
        if (step->kind != DEVICE_CONV)
            continue;
        network->figures.convolutions++;
        if (!step->numbers[12])
            continue;
        struct device_call call = device_call_of(plan, i, network->arena, network->constants, network->keys);
        struct err why = {ERR_NONE, ""};
        network->convs[i] = card_conv_new(network->card, &call, &why);
        if (!network->convs[i] && why.kind != ERR_UNSUPPORTED)
            return err_set(err, why.kind, "layer %s: %s", step->name, why.text);
        if (!network->convs[i])
            continue;
        network->figures.fused++;
        network->figures.cached += card_conv_cached(network->convs[i]);
        size_t size = card_conv_workspace(network->convs[i]);
        workspace = size > workspace ? size : workspace;
    }
    network->figures.workspace_bytes = (int64_t)workspace;
    network->workspace = workspace ? card_alloc(network->card, workspace, err) : NULL;
    return network->workspace || !workspace;
}

static void conv_queue(struct network *network, const struct device_call *call, int index) {
    card_conv_run(network->card, network->convs[index], call, network->workspace);
    struct kernel check = {.kind = KERNEL_FINITE};
    check.on.finite.data = call->out_data[0];
    check.on.finite.element = call->out[0].element;
    check.on.finite.number = index;
    check.on.finite.fault = network->fault;
    card_run(network->card, &check, call->out[0].size / 8); /* channels in eights: no rest */
}

static void step_queue(struct network *network, int index) {
    struct device_call call = device_call_of(network->plan, index, network->arena, network->constants, network->keys);
    if (network->convs[index]) {
        conv_queue(network, &call, index);
        return;
    }
    struct kernel kernel = {.kind = element_is_attention(&call.step) ? KERNEL_ATTEND : KERNEL_STEP};
    kernel.on.step.call = call;
    kernel.on.step.number = index;
    kernel.on.step.fault = network->fault;
    card_run(network->card, &kernel, element_runs(&call));
}

static void steps_queue(struct network *network) {
    for (int i = 0; i < network->plan->step_count; i++)
        step_queue(network, i);
}

/* Constants, no keys, no fault; a first run on zeros where libraries need one before they are recorded. */
static bool fill(struct network *network, struct err *err) {
    const struct device_plan *plan = network->plan;
    static const int32_t none = KERNEL_NO_FAULT;
    static const struct device_keys no_keys = {.active = 0, .passes = 1};
    if (plan->constants_size)
        card_upload(network->card, CARD_COMPUTE, network->constants, device_plan_constants(plan),
                    (size_t)plan->constants_size);
    card_upload(network->card, CARD_COMPUTE, network->keys, &no_keys, sizeof no_keys);
    card_upload(network->card, CARD_COMPUTE, network->fault, &none, sizeof none);
    for (int i = 0; i < plan->input_count; i++) {
        struct kernel zero = {.kind = KERNEL_FILL};
        zero.on.fill.to = network_input(network, i);
        card_run(network->card, &zero, device_tensor_count(port_tensor(network, plan->inputs[i])));
    }
    if (card_loads_late(network->card))
        steps_queue(network);
    return card_finish(network->card, err);
}

static bool record(struct network *network, struct err *err) {
    static const int32_t none = KERNEL_NO_FAULT;
    if (!card_record_begin(network->card, err))
        return false;
    steps_queue(network);
    network->graph = card_record_end(network->card, err);
    if (!network->graph)
        return false;
    card_upload(network->card, CARD_COMPUTE, network->fault, &none, sizeof none);
    return card_finish(network->card, err);
}

struct network *network_new(struct card *card, const void *plan, size_t size, struct err *err) {
    PULMO_SCOPED(network_free_at) struct network *network = NULL;
    if (!device_plan_check(plan, size, err))
        return NULL;
    network = pulmo_alloc(1, sizeof *network, err);
    if (!network)
        return NULL;
    network->card = card;
    network->plan = pulmo_alloc(size, 1, err);
    if (!network->plan)
        return NULL;
    memcpy(network->plan, plan, size);
    if (!memory_new(network, err) || !convs_new(network, err) || !fill(network, err) || !record(network, err))
        return NULL;
    struct network *result = network;
    network = NULL;
    return result;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

void network_keys(struct network *network, const struct cuda_keys *keys, struct device_keys *staging) {
    *staging = (struct device_keys){.active = 0, .passes = network->plan->passes, .rate = -1};
    if (keys && keys->active) {
        staging->active = 1;
        staging->seed[0] = (uint32_t)keys->seed;
        staging->seed[1] = (uint32_t)(keys->seed >> 32);
        staging->candidate = keys->candidate;
        staging->rate = (float)keys->rate;
    }
    card_upload(network->card, CARD_COMPUTE, network->keys, staging, sizeof *staging);
}

void network_run(struct network *network) {
    card_graph_run(network->card, network->graph);
}

void network_fault(struct network *network, int32_t *staging) {
    static const int32_t none = KERNEL_NO_FAULT;
    card_download(network->card, CARD_COMPUTE, staging, network->fault, sizeof *staging);
    card_upload(network->card, CARD_COMPUTE, network->fault, &none, sizeof none);
}

bool network_judge(const struct network *network, int32_t fault, struct err *err) {
    if (fault < 0 || fault >= network->plan->step_count)
        return true;
    return err_set(err, ERR_INPUT, "layer %s gave NaN or infinity", device_plan_steps(network->plan)[fault].name);
}

static int by_value(const void *left, const void *right) {
    const double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

bool network_profile(struct network *network, int rounds, float *out_ms, struct err *err) {
    double times[ROUNDS_MAX];
    rounds = rounds < 1 ? 1 : rounds > ROUNDS_MAX ? ROUNDS_MAX : rounds;
    for (int i = 0; i < network->plan->step_count; i++) {
        for (int round = 0; round < rounds; round++) {
            card_mark(network->card, CARD_COMPUTE, 0);
            step_queue(network, i);
            card_mark(network->card, CARD_COMPUTE, 1);
            if (!card_finish(network->card, err))
                return false;
            times[round] = card_elapsed_ms(network->card, 0, 1);
        }
        qsort(times, (size_t)rounds, sizeof *times, by_value);
        out_ms[i] = (float)times[rounds / 2];
    }
    return true;
}
