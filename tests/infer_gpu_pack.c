/* infer_gpu_pack FOLDER [SLICES] [MODEL.JSON]: a case for tests/infer_gpu_measure.c. Plans of the networks, and what
 * the CPU engine finds in a phantom of so many slices (300) with the passes of the model. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "infer/device_lower.h"
#include "infer/model.h"
#include "phantom/phantom.h"
#include "tests/infer_gpu_case.h"
#include "volume/volume.h"

#define TILES 4
#define CANDIDATES 8
#define SEED 17

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static bool file_write(const char *folder, const char *name, const void *data, size_t size, struct err *err) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return bytes_write_file(path, data, size, false, err);
}

static struct shape cubes(int count, int side) {
    return (struct shape){.rank = 5, .dims = {count, 1, side, side, side}};
}

static bool plan_write(const char *folder, const char *name, const struct lower_request *request, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes block = {0};
    return infer_device_lower(request, &block, err) && file_write(folder, name, block.data, block.size, err);
}

static bool plans_write(const char *folder, const struct infer_model *model, struct err *err) {
    struct shape tiles = cubes(TILES, model->tile), crops = cubes(CANDIDATES, model->side);
    const struct lower_request detector = {
        .graph = model->detector, .inputs = &tiles, .passes = 1, .model = model->info.sha256};
    const struct lower_request candidate = {.graph = model->trunk,
                                            .inputs = &crops,
                                            .tail = model->tail,
                                            .tail_sources = model->tail_sources,
                                            .passes = (int)model->info.passes,
                                            .model = model->info.sha256};
    return plan_write(folder, "detector.plan", &detector, err) && plan_write(folder, "candidate.plan", &candidate, err);
}

/* The card has cubes; what it is compared with has them, too. */
static struct infer_model *model_of_cubes(const char *path, struct err *err) {
    struct infer_model *model = infer_model_open(path, err);
    if (model)
        model->inner_max = 0;
    return model;
}

static struct gpu_case case_of(const struct infer_model *model, int32_t slices) {
    const struct candidate_port *port = &model->candidate_outputs[CANDIDATE_LOGIT];
    struct gpu_case it = {.magic = GPU_CASE_MAGIC,
                          .slices = slices,
                          .tile = model->tile,
                          .margin = model->margin,
                          .candidates_max = (int32_t)model->candidates_max,
                          .side = model->side,
                          .passes = (int32_t)model->info.passes,
                          .logit_port = port->index + (port->in_tail ? model->trunk->output_count : 0),
                          .phantom_seed = 1,
                          .dropout_seed = SEED,
                          .spacing_mm = 1,
                          .logit_min = log(model->score_min / (1 - model->score_min))};
    for (int i = 0; i < 3; i++)
        it.outputs[i] = model->detector_outputs[i];
    snprintf(it.cpu, sizeof it.cpu, "%s", infer_backend_instruction_set());
    snprintf(it.model, sizeof it.model, "%s", model->info.sha256);
    return it;
}

/* Finds and estimates on the CPU, and appends what came out to the case. */
static bool results_append(struct infer_session *session, const struct volume *iso, const struct mask *lungs,
                           struct gpu_case *it, struct bytes *out, struct err *err) {
    PULMO_SCOPED(findings_free) struct findings findings = {0};
    const struct infer_candidate_config config = {
        .seed = it->dropout_seed, .pass_count = (uint32_t)it->passes, .dropout = -1, .flips = 1};
    double start = now_ms();
    if (!infer_detect(session, iso, lungs, &findings, err))
        return false;
    it->cpu_ms[0] = now_ms() - start;
    it->mark_count = (int32_t)findings.count;
    PULMO_SCOPED(pulmo_free_at)
    struct infer_candidate_result *results = pulmo_alloc(findings.count, sizeof *results, err);
    start = now_ms();
    if (!results || !infer_candidates(session, iso, &findings, &config, results, err))
        return false;
    it->cpu_ms[1] = now_ms() - start;
    bool good = bytes_append(out, it, sizeof *it, 1 << 24, err);
    for (size_t n = 0; good && n < findings.count; n++) {
        struct gpu_case_mark mark = {.diameter_mm = findings.items[n].diameter_mm,
                                     .logit = findings.items[n].detector_logit};
        memcpy(mark.center_lps_mm, findings.items[n].center_lps_mm, sizeof mark.center_lps_mm);
        good = bytes_append(out, &mark, sizeof mark, 1 << 24, err);
    }
    for (size_t n = 0; good && n < findings.count; n++)
        good = bytes_append(out, results[n].logits, (size_t)it->passes * sizeof *results[n].logits, 1 << 24, err);
    return good;
}

static bool case_write(const char *folder, const struct infer_model *model, int32_t slices, struct err *err) {
    struct gpu_case it = case_of(model, slices);
    const struct phantom_config make = {
        .seed = it.phantom_seed, .slices = slices, .nodules = 6, .spacing_mm = it.spacing_mm};
    PULMO_SCOPED(phantom_free) struct phantom phantom = {0};
    PULMO_SCOPED(bytes_free) struct bytes block = {0};
    if (!phantom_make(&make, &phantom, err))
        return false;
    struct volume *iso = volume_resample_iso(phantom.volume, 1.0, err);
    struct mask *lungs = iso ? volume_lungs(iso, err) : NULL;
    struct infer_session *session = infer_session_new(model, NULL, err);
    bool good = lungs && session && volume_mask_outside(iso, lungs, 15.0, err) &&
                results_append(session, iso, lungs, &it, &block, err) &&
                file_write(folder, "case.bin", block.data, block.size, err);
    if (good)
        printf("%d slices, %d findings on the CPU: detection %.0f ms, candidates %.0f ms\n", slices, it.mark_count,
               it.cpu_ms[0], it.cpu_ms[1]);
    infer_session_free(session);
    mask_free(lungs);
    volume_free(iso);
    return good;
}

int main(int argc, char **argv) {
    struct err err = {0};
    long slices = argc > 2 ? strtol(argv[2], NULL, 10) : 300;
    if (argc < 2 || slices < 16 || slices > 2000) {
        fprintf(stderr, "usage: infer_gpu_pack FOLDER [SLICES] [MODEL.JSON]\n");
        return 2;
    }
    mkdir(argv[1], 0755);
    struct infer_model *model = model_of_cubes(argc > 3 ? argv[3] : "models/model.json", &err);
    bool good = model && plans_write(argv[1], model, &err) && case_write(argv[1], model, (int32_t)slices, &err);
    infer_model_free(model);
    if (!good)
        fprintf(stderr, "infer_gpu_pack: %s\n", err.text);
    return good ? 0 : 1;
}
