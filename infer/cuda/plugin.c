/* The plugin's table: what the host calls, on the card that it was linked with. */
#include "infer/cuda/plugin.h"

#include <stdlib.h>

#include "infer/cuda/study.h"

struct cuda_device {
    struct card *card;
    struct study *study;
};

struct cuda_program {
    struct cuda_device *device;
    struct network *network;
};

static void device_close(struct cuda_device *device) {
    if (!device)
        return;
    study_free(device->study);
    card_close(device->card);
    free(device);
}

static struct cuda_device *device_open(int index, const char *cache, struct err *err) {
    struct cuda_device *device = pulmo_alloc(1, sizeof *device, err);
    if (!device)
        return NULL;
    device->card = card_open(index, cache, err);
    device->study = device->card ? study_new(device->card, err) : NULL;
    if (device->study)
        return device;
    device_close(device);
    return NULL;
}

static const char *device_text(const struct cuda_device *device) {
    return card_text(device->card);
}

static const char *device_library(const struct cuda_device *device) {
    return card_library(device->card);
}

static const char *device_generation(const struct cuda_device *device) {
    return card_generation(device->card);
}

static double device_peak(const struct cuda_device *device) {
    return card_peak(device->card);
}

static void program_free(struct cuda_program *program) {
    if (!program)
        return;
    network_free(program->network);
    free(program);
}

static struct cuda_program *program_new(struct cuda_device *device, const void *plan, size_t size, struct err *err) {
    struct cuda_program *program = pulmo_alloc(1, sizeof *program, err);
    if (!program)
        return NULL;
    program->device = device;
    program->network = network_new(device->card, plan, size, err);
    if (program->network)
        return program;
    program_free(program);
    return NULL;
}

static struct cuda_figures program_figures(const struct cuda_program *program) {
    return network_figures(program->network);
}

static bool program_run(struct cuda_program *program, const float *const *inputs, float *const *outputs,
                        const struct cuda_keys *keys, struct err *err) {
    return study_run(program->device->study, program->network, inputs, outputs, keys, err);
}

static bool program_profile(struct cuda_program *program, int rounds, float *out_ms, struct err *err) {
    return network_profile(program->network, rounds, out_ms, err);
}

static bool resample(struct cuda_device *device, const struct cuda_resample *how, const int16_t *hu, int16_t *out,
                     struct err *err) {
    return study_resample(device->study, how, hu, out, err);
}

static bool detect(struct cuda_program *program, const struct cuda_detect *request, struct cuda_mark *marks,
                   int32_t *mark_count, float *maps, struct cuda_timing *timing, struct err *err) {
    const struct study_marks out = {.marks = marks, .count = mark_count, .maps = maps, .timing = timing};
    return study_detect(program->device->study, program->network, request, &out, err);
}

static bool candidates(struct cuda_program *program, const struct cuda_crops *request, const struct cuda_keys *keys,
                       float *const *outputs, struct cuda_timing *timing, struct err *err) {
    const struct study_crops crops = {.request = request, .keys = keys, .outputs = outputs, .timing = timing};
    return study_candidates(program->device->study, program->network, &crops, err);
}

__attribute__((visibility("default"))) const struct cuda_plugin *pulmo_cuda_plugin(void) {
    static const struct cuda_plugin plugin = {.version = CUDA_PLUGIN_VERSION,
                                              .size = sizeof plugin,
                                              .pulmo = PULMO_VERSION,
                                              .device_open = device_open,
                                              .device_close = device_close,
                                              .device_count = card_count,
                                              .device_text = device_text,
                                              .device_library = device_library,
                                              .device_generation = device_generation,
                                              .device_peak = device_peak,
                                              .program_new = program_new,
                                              .program_free = program_free,
                                              .program_figures = program_figures,
                                              .program_run = program_run,
                                              .program_profile = program_profile,
                                              .resample = resample,
                                              .detect = detect,
                                              .candidates = candidates};
    return &plugin;
}
