/* infer_gpu_engines PLAN...: without a card, whether cuDNN takes each fused convolution of a device plan for a card
 * that is described and not there: one row a layer, with the engines that its heuristic offers and those that the
 * plugin would take. No engine is loaded, nothing is computed. Exit status 0 = every layer has one; 1 = one has none;
 * 77 = cuDNN does not answer without a driver. */
#include <stdio.h>
#include <string.h>

#include "infer/cuda/conv_cudnn.h"
#include "infer/cuda/device_plan.h"

#define PLAN_MAX ((size_t)1 << 30)

/* An H200 as cuDNN would describe it (compute capability 9.0, 132 multiprocessors, 1,980 MHz, 228 KiB shared). */
#define CARD "NVIDIA H200"
static const char card[] =
    "{\"cudaDeviceId\":0,\"deviceName\":\"" CARD "\",\"deviceVer\":900,\"driverVer\":13000,\"isTccDriver\":0,"
    "\"l2CacheSize\":62914560,\"maxCtasPerSM\":32,\"maxRegistersPerSM\":65536,\"maxSharedMemoryPerBlock\":49152,"
    "\"maxSharedMemoryPerBlockOptin\":232448,\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,"
    "\"memClockRateKHz\":3201000,\"multiProcessorCount\":132,\"pciDeviceId\":0,\"regsPerBlock\":65536,"
    "\"reservedSharedMemoryPerBlock\":1024,\"smClockRateKHz\":1980000,\"supportCoopLaunch\":1,"
    "\"totalGlobalMem\":150000000000,\"warpSize\":32,\"maxBlockSize\":[1024,1024,64],"
    "\"maxGridSize\":[2147483647,65535,65535]}";

struct tally {
    int layers, taken;
};

static void layer_print(const struct conv_target *target, const struct device_plan *plan, int index,
                        struct tally *tally) {
    const struct device_step *step = &device_plan_steps(plan)[index];
    struct device_call call = device_call_of(plan, index, NULL, NULL, NULL);
    struct conv_engines engines = {0};
    struct err err = {ERR_NONE, ""};
    bool good = conv_engines_count(target, &call, &engines, &err);
    printf("| %s | %lld to %lld channels, %lldx%lldx%lld%s%s | %d | %d | %s |\n", step->name,
           (long long)call.in[0].dims[1], (long long)call.out[0].dims[1], (long long)call.in[1].dims[2],
           (long long)call.in[1].dims[3], (long long)call.in[1].dims[4], step->inputs[3] >= 0 ? ", sum" : "",
           step->relu ? ", Relu" : "", engines.offered, engines.suiting, good ? "" : err.text);
    tally->layers++;
    tally->taken += good && engines.suiting > 0;
}

static bool plan_print(const struct conv_target *target, const char *path, struct tally *tally, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes block = {0};
    if (!bytes_read_file(path, PLAN_MAX, &block, err) || !device_plan_check(block.data, block.size, err))
        return err_within(err, "%s", path);
    const struct device_plan *plan = (const struct device_plan *)(const void *)block.data;
    for (int i = 0; i < plan->step_count; i++)
        if (device_plan_steps(plan)[i].kind == DEVICE_CONV && device_plan_steps(plan)[i].numbers[12])
            layer_print(target, plan, i, tally);
    return true;
}

int main(int argc, char **argv) {
    struct err err = {ERR_NONE, ""};
    struct tally tally = {0};
    struct conv_target target = {.properties = conv_properties_new(card, &err), .name = CARD};
    if (!target.properties) {
        printf("cuDNN takes no description of a card here: %s\n", err.text);
        return 77;
    }
    printf(
        "| layer | fused convolution | engines offered | deterministic, sums in floats | |\n|---|---|---|---|---|\n");
    bool good = true;
    for (int n = 1; n < argc && good; n++)
        good = plan_print(&target, argv[n], &tally, &err);
    conv_properties_free(target.properties);
    if (!good) {
        printf("failed: %s\n", err.text);
        return 1;
    }
    printf("\n%d of %d fused convolutions have an engine for " CARD " (described, not there).\n", tally.taken,
           tally.layers);
    return tally.layers && tally.taken == tally.layers ? 0 : 1;
}
