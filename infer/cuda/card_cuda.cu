// infer/cuda/card.h for a card of NVIDIA: CUDA's runtime for memory, streams, kernels and recordings, conv_cudnn.c for
// convolutions. Nothing here has run on a card yet (docs/PERFORMANCE.md says what is proven).
#include <cuda_runtime.h>
#include <cudnn_graph.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "infer/cuda/card.h"
#include "infer/cuda/conv_cudnn.h"

#define BLOCKS_MAX 65535LL

struct card {
    int index;
    cudaStream_t streams[CARD_STREAMS];
    cudaEvent_t events[CARD_EVENTS];
    cudnnHandle_t handle;
    struct conv_target target;
    struct err failure; /* the first; kind 0 = none */
    double peak;
    char text[400], library[40], generation[16], cache[512];
};

struct card_graph {
    cudaGraphExec_t run;
};

struct card_conv {
    struct conv_plan *plan;
};

// ---- errors ---------------------------------------------------------------------------------------------------------

static bool passed(cudaError_t status, const char *what, struct err *err) {
    if (status == cudaSuccess)
        return true;
    enum err_kind kind = status == cudaErrorMemoryAllocation ? ERR_MEMORY : ERR_INTERNAL;
    return err_set(err, kind, "CUDA failed at %s: %s", what, cudaGetErrorString(status));
}

// Work that was queued has nobody to tell: the first failure is kept.
static void note(struct card *card, cudaError_t status, const char *what) {
    if (status != cudaSuccess && card->failure.kind == ERR_NONE)
        passed(status, what, &card->failure);
}

static bool healthy(const struct card *card, struct err *err) {
    return card->failure.kind == ERR_NONE || err_set(err, card->failure.kind, "%s", card->failure.text);
}

// ---- opening --------------------------------------------------------------------------------------------------------

int card_count(struct err *err) {
    int count = 0, driver = 0, runtime = 0;
    cudaError_t status = cudaGetDeviceCount(&count);
    if (status == cudaSuccess && count > 0)
        return count;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (driver == 0)
        err_set(err, ERR_UNSUPPORTED, "no NVIDIA driver is installed");
    else if (driver / 1000 < runtime / 1000)
        err_set(err, ERR_UNSUPPORTED, "the NVIDIA driver is of CUDA %d.%d, the plugin needs %d.0", driver / 1000,
                driver % 1000 / 10, runtime / 1000);
    else
        err_set(err, ERR_UNSUPPORTED, "no CUDA device: %s",
                status == cudaSuccess ? "none is there" : cudaGetErrorString(status));
    return 0;
}

// Operations a clock and multiprocessor of the tensor cores: halves in, floats summed, dense.
static double operations_a_clock(int major, int minor) {
    static const struct {
        int generation;
        double operations;
    } rows[] = {{75, 1024}, {80, 2048}, {86, 1024}, {87, 1024}, {89, 1024}, {90, 4096}, {100, 8192}, {103, 8192}};
    for (const auto &row : rows)
        if (row.generation == 10 * major + minor)
            return row.operations;
    return 0;
}

static bool describe(struct card *card, struct err *err) {
    cudaDeviceProp properties;
    int runtime = 0, driver = 0, clock_khz = 0;
    if (!passed(cudaGetDeviceProperties(&properties, card->index), "the card's properties", err) ||
        !passed(cudaRuntimeGetVersion(&runtime), "its version", err) ||
        !passed(cudaDriverGetVersion(&driver), "the driver's version", err))
        return false;
    if (10 * properties.major + properties.minor < 75)
        return err_set(err, ERR_UNSUPPORTED, "%s is older than sm_75", properties.name);
    cudaDeviceGetAttribute(&clock_khz, cudaDevAttrClockRate, card->index);
    card->peak =
        operations_a_clock(properties.major, properties.minor) * properties.multiProcessorCount * clock_khz * 1e3;
    size_t version = cudnnGetVersion();
    snprintf(card->generation, sizeof card->generation, "sm_%d%d", properties.major, properties.minor);
    snprintf(card->library, sizeof card->library, "cuDNN %zu.%zu.%zu", version / 10000, version / 100 % 100,
             version % 100);
    snprintf(card->text, sizeof card->text, "%s, %s, CUDA %d.%d, driver of %d.%d, %s", properties.name, card->library,
             runtime / 1000, runtime % 1000 / 10, driver / 1000, driver % 1000 / 10, card->generation);
    return true;
}

static bool open_parts(struct card *card, struct err *err) {
    for (auto &stream : card->streams)
        if (!passed(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream", err))
            return false;
    for (auto &event : card->events)
        if (!passed(cudaEventCreate(&event), "an event", err))
            return false;
    cudnnStatus_t status = cudnnCreate(&card->handle);
    if (status == CUDNN_STATUS_SUCCESS)
        status = cudnnSetStream(card->handle, card->streams[CARD_COMPUTE]);
    return status == CUDNN_STATUS_SUCCESS ||
           err_set(err, ERR_UNSUPPORTED, "cuDNN cannot be used: %s", cudnnGetErrorString(status));
}

// The folder is made where it can be; without it engine plans are made at each start.
static void cache_open(struct card *card, const char *cache) {
    card->target.handle = card->handle;
    card->target.name = card->text;
    if (!cache || strlen(cache) >= sizeof card->cache)
        return;
    struct stat facts;
    mkdir(cache, 0750);
    if (stat(cache, &facts) != 0 || !S_ISDIR(facts.st_mode))
        return;
    memcpy(card->cache, cache, strlen(cache) + 1);
    card->target.cache = card->cache;
}

struct card *card_open(int index, const char *cache, struct err *err) {
    int count = card_count(err);
    if (index < 0 || index >= count) {
        if (count)
            err_set(err, ERR_UNSUPPORTED, "there are %d CUDA devices, none is number %d", count, index);
        return nullptr;
    }
    auto *card = static_cast<struct card *>(pulmo_alloc(1, sizeof(struct card), err));
    if (!card)
        return nullptr;
    card->index = index;
    if (passed(cudaSetDevice(index), "choosing the card", err) && describe(card, err) && open_parts(card, err)) {
        cache_open(card, cache);
        return card;
    }
    card_close(card);
    return nullptr;
}

void card_close(struct card *card) {
    if (!card)
        return;
    if (card->handle)
        cudnnDestroy(card->handle);
    for (auto &event : card->events)
        if (event)
            cudaEventDestroy(event);
    for (auto &stream : card->streams)
        if (stream)
            cudaStreamDestroy(stream);
    free(card);
}

const char *card_text(const struct card *card) {
    return card->text;
}

const char *card_library(const struct card *card) {
    return card->library;
}

const char *card_generation(const struct card *card) {
    return card->generation;
}

double card_peak(const struct card *card) {
    return card->peak;
}

// ---- memory ---------------------------------------------------------------------------------------------------------

void *card_alloc(struct card *card, size_t size, struct err *err) {
    void *memory = nullptr;
    cudaSetDevice(card->index);
    return passed(cudaMalloc(&memory, size ? size : 1), "memory of the card", err) ? memory : nullptr;
}

void card_free(struct card *card, void *memory) {
    if (memory)
        note(card, cudaFree(memory), "giving memory back");
}

void *card_pinned_alloc(struct card *card, size_t size, struct err *err) {
    void *memory = nullptr;
    cudaSetDevice(card->index);
    return passed(cudaMallocHost(&memory, size ? size : 1), "pinned memory", err) ? memory : nullptr;
}

void card_pinned_free(struct card *card, void *memory) {
    if (memory)
        note(card, cudaFreeHost(memory), "giving pinned memory back");
}

void card_upload(struct card *card, enum card_stream stream, void *to, const void *from, size_t size) {
    note(card, cudaMemcpyAsync(to, from, size, cudaMemcpyHostToDevice, card->streams[stream]), "a copy to the card");
}

void card_download(struct card *card, enum card_stream stream, void *to, const void *from, size_t size) {
    note(card, cudaMemcpyAsync(to, from, size, cudaMemcpyDeviceToHost, card->streams[stream]), "a copy from the card");
}

// ---- kernels --------------------------------------------------------------------------------------------------------

// One copy a kind, so that each has the registers of its own arithmetic only.
template <int KIND>
__global__ void __launch_bounds__(KERNEL_BLOCK)
    kernel_loop(const __grid_constant__ struct kernel kernel, int64_t count) {
    for (int64_t n = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; n < count;
         n += static_cast<int64_t>(gridDim.x) * blockDim.x)
        kernel_run_as<KIND>(&kernel, static_cast<uint32_t>(n), static_cast<uint32_t>(count));
}

template <int KIND> static void launch(struct card *card, const struct kernel *kernel, int64_t count) {
    int64_t blocks = (count + KERNEL_BLOCK - 1) / KERNEL_BLOCK;
    blocks = blocks < BLOCKS_MAX ? blocks : BLOCKS_MAX;
    kernel_loop<KIND><<<static_cast<unsigned>(blocks), KERNEL_BLOCK, 0, card->streams[CARD_COMPUTE]>>>(*kernel, count);
    note(card, cudaGetLastError(), "a kernel");
}

void card_run(struct card *card, const struct kernel *kernel, int64_t count) {
    if (count < 1)
        return;
    switch (kernel->kind) {
    case KERNEL_STEP: launch<KERNEL_STEP>(card, kernel, count); break;
    case KERNEL_ATTEND: launch<KERNEL_ATTEND>(card, kernel, count); break;
    case KERNEL_FINITE: launch<KERNEL_FINITE>(card, kernel, count); break;
    case KERNEL_FILL: launch<KERNEL_FILL>(card, kernel, count); break;
    case KERNEL_RESAMPLE: launch<KERNEL_RESAMPLE>(card, kernel, count); break;
    case KERNEL_CUT: launch<KERNEL_CUT>(card, kernel, count); break;
    case KERNEL_KEEP: launch<KERNEL_KEEP>(card, kernel, count); break;
    case KERNEL_PEAKS: launch<KERNEL_PEAKS>(card, kernel, count); break;
    case KERNEL_RANK: launch<KERNEL_RANK>(card, kernel, count); break;
    case KERNEL_SUPPRESS: launch<KERNEL_SUPPRESS>(card, kernel, KERNEL_BLOCK); break;
    case KERNEL_KINDS: break;
    }
}

// ---- convolutions ---------------------------------------------------------------------------------------------------

struct card_conv *card_conv_new(struct card *card, const struct device_call *call, struct err *err) {
    auto *conv = static_cast<struct card_conv *>(pulmo_alloc(1, sizeof(struct card_conv), err));
    if (!conv)
        return nullptr;
    conv->plan = conv_plan_new(&card->target, call, err);
    if (conv->plan)
        return conv;
    card_conv_free(conv);
    return nullptr;
}

void card_conv_free(struct card_conv *conv) {
    if (!conv)
        return;
    conv_plan_free(conv->plan);
    free(conv);
}

size_t card_conv_workspace(const struct card_conv *conv) {
    return conv_plan_workspace(conv->plan);
}

bool card_conv_cached(const struct card_conv *conv) {
    return conv_plan_cached(conv->plan);
}

void card_conv_run(struct card *card, const struct card_conv *conv, const struct device_call *call, void *workspace) {
    struct err why = {ERR_NONE, ""};
    if (!conv_plan_run(conv->plan, card->handle, call, workspace, &why) && card->failure.kind == ERR_NONE)
        card->failure = why;
}

// ---- recordings -----------------------------------------------------------------------------------------------------

bool card_loads_late(const struct card *) {
    return true;
}

bool card_record_begin(struct card *card, struct err *err) {
    return healthy(card, err) &&
           passed(cudaStreamBeginCapture(card->streams[CARD_COMPUTE], cudaStreamCaptureModeRelaxed), "a recording",
                  err);
}

struct card_graph *card_record_end(struct card *card, struct err *err) {
    cudaGraph_t recorded = nullptr;
    auto *graph = static_cast<struct card_graph *>(pulmo_alloc(1, sizeof(struct card_graph), err));
    bool good = passed(cudaStreamEndCapture(card->streams[CARD_COMPUTE], &recorded), "a recording", err) && graph &&
                healthy(card, err) && passed(cudaGraphInstantiate(&graph->run, recorded, 0), "a recording", err);
    if (recorded)
        cudaGraphDestroy(recorded);
    if (good)
        return graph;
    free(graph);
    return nullptr;
}

void card_graph_run(struct card *card, const struct card_graph *graph) {
    note(card, cudaGraphLaunch(graph->run, card->streams[CARD_COMPUTE]), "a recording");
}

void card_graph_free(struct card_graph *graph) {
    if (!graph)
        return;
    cudaGraphExecDestroy(graph->run);
    free(graph);
}

// ---- order ----------------------------------------------------------------------------------------------------------

void card_mark(struct card *card, enum card_stream stream, int event) {
    note(card, cudaEventRecord(card->events[event], card->streams[stream]), "an event");
}

void card_wait(struct card *card, enum card_stream stream, int event) {
    note(card, cudaStreamWaitEvent(card->streams[stream], card->events[event], 0), "an event");
}

bool card_reach(struct card *card, int event, struct err *err) {
    note(card, cudaEventSynchronize(card->events[event]), "what was queued");
    return healthy(card, err);
}

double card_elapsed_ms(struct card *card, int from, int to) {
    float ms = 0;
    note(card, cudaEventElapsedTime(&ms, card->events[from], card->events[to]), "an event");
    return static_cast<double>(ms);
}

bool card_finish(struct card *card, struct err *err) {
    for (auto stream : card->streams)
        note(card, cudaStreamSynchronize(stream), "what was queued");
    return healthy(card, err);
}
