#include "app/analysis.h"

#include "app/install.h"
#include "app/precision.h"
#include "digest.h"
#include "uncertainty/uncertainty.h"
#include "workers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* models/README.md: the detector's frame. */
#define MODEL_SPACING_MM 1.0
#define MODEL_MARGIN_MM 15.0

/* Each device has its part of the threads, at least one. */
static struct infer_session *session_open(const struct config *config, const struct engine *engine, int64_t device,
                                          const struct infer_precision *precision, struct err *err) {
    int64_t processors = sysconf(_SC_NPROCESSORS_ONLN), threads = config->threads ? config->threads : processors;
    int64_t part = threads * (device + 1) / config->devices - threads * device / config->devices;
    struct infer_session_config session = {.threads = part > 1 ? (unsigned)part : 1, .precision = precision};
    char plugin[4096], cache[4096];
    if (!infer_backend_find(config->backend, &session.backend)) {
        err_set(err, ERR_CONFIG, "backend = %s", config->backend);
        return NULL;
    }
    if (!install_beside(config->backend_plugin, "pulmo_cuda.so", plugin, err))
        return NULL;
    snprintf(cache, sizeof cache, "%s/cuda", config->data_folder);
    session.plugin = config->devices > 1 ? NULL : plugin;
    session.no_plugin = "devices > 1 shares out the processor's work";
    session.plugin_cache = cache;
    return infer_session_new(engine->model, &session, err);
}

static void sessions_close(struct engine *engine) {
    infer_session_free(engine->session);
    for (size_t index = 0; index < sizeof engine->peers / sizeof *engine->peers; index++)
        infer_session_free(engine->peers[index]);
}

static bool sessions_open(const struct config *config, struct engine *engine, const struct infer_precision *precision,
                          struct err *err) {
    engine->session = session_open(config, engine, 0, precision, err);
    if (!engine->session)
        return false;
    for (int64_t device = 1; device < config->devices; device++) {
        struct infer_session *peer = engine->peers[device - 1] = session_open(config, engine, device, precision, err);
        if (!peer || !infer_session_join(engine->session, peer, err))
            return false;
    }
    return true;
}

/* Takes the model over, also on failure. */
static bool engine_start(const struct config *config, struct infer_model *model, struct engine *out, struct err *err) {
    struct engine engine = {.model = model};
    struct infer_precision plan;
    bool mixed = false;
    if (!engine.model)
        return false;
    if (!precision_configured(config, model, &plan, &mixed, err) ||
        !sessions_open(config, &engine, mixed ? &plan : NULL, err)) {
        engine_close(&engine);
        return false;
    }
    *out = engine;
    return true;
}

bool engine_open(const struct config *config, struct engine *out, struct err *err) {
    char path[4096];
    return install_find(config->model, "models/model.json", "models/model.json", path, err) &&
           engine_start(config, infer_model_open(path, err), out, err);
}

bool engine_open_files(const struct config *config, const struct model_files *files, struct engine *out,
                       struct err *err) {
    return engine_start(config, infer_model_open_files(files, err), out, err);
}

bool engine_set_precision(struct engine *engine, const struct config *config, const struct infer_precision *precision,
                          struct err *err) {
    struct engine other = {.model = engine->model};
    if (!sessions_open(config, &other, precision, err)) {
        sessions_close(&other);
        return false;
    }
    sessions_close(engine);
    *engine = other;
    return true;
}

const char *engine_precision(const struct engine *engine) {
    return infer_session_precision_name(engine->session);
}

size_t analysis_recomputed(const struct findings *findings) {
    size_t count = 0;
    for (size_t index = 0; index < findings->count; index++)
        count += findings->items[index].full_precision;
    return count;
}

void engine_close(struct engine *engine) {
    sessions_close(engine);
    infer_model_free(engine->model);
    *engine = (struct engine){0};
}

struct analysis_run analysis_run_configured(const struct config *config, const struct infer_model *model) {
    const struct infer_model_info *info = infer_model_info(model);
    return (struct analysis_run){
        .configured_seed = (uint64_t)config->seed,
        .passes = config->passes ? (uint32_t)config->passes : info->passes,
        .dropout = config->dropout < 0 ? info->dropout : config->dropout,
        .operating_point = config->operating_point < 0 ? info->operating_point : config->operating_point,
        .created_ms = pulmo_now_ms(),
    };
}

static int compare_digest(const void *left, const void *right) {
    return memcmp(left, right, DIGEST_HEX_SIZE);
}

static bool digest_inputs(const char *const *paths, size_t count, struct analysis *out, struct err *err) {
    out->input_sha256 = pulmo_alloc(count, sizeof *out->input_sha256, err);
    if (!out->input_sha256)
        return false;
    for (; out->input_count < count; out->input_count++)
        if (!digest_file_hex(paths[out->input_count], out->input_sha256[out->input_count], err))
            return false;
    qsort(out->input_sha256, count, sizeof *out->input_sha256, compare_digest);
    return true;
}

static void merge_refusals(struct refusals *into, const struct refusals *from) {
    for (size_t index = 0; index < from->count; index++)
        refusals_add(into, from->items[index].code, "%s", from->items[index].text);
}

int64_t analysis_processor_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

struct mark {
    int64_t clock_ms, processor_ms;
};

static struct mark mark_now(void) {
    return (struct mark){pulmo_monotonic_ms(), analysis_processor_ms()};
}

/* What has passed since *mark, which moves on. */
static void lap(struct mark *mark, int64_t *clock_ms, int64_t *processor_ms) {
    struct mark now = mark_now();
    *clock_ms = now.clock_ms - mark->clock_ms;
    *processor_ms = now.processor_ms - mark->processor_ms;
    *mark = now;
}

static bool locate(struct analysis *out, struct err *err) {
    for (size_t index = 0; index < out->findings.count; index++) {
        struct finding *finding = &out->findings.items[index];
        if (!grid_to_ijk(&out->series->volume->grid, finding->center_lps_mm, finding->center_ijk))
            return err_set(err, ERR_INTERNAL, "the series' geometry cannot be inverted");
        finding->lobe = volume_lobe(out->lungs, finding->center_lps_mm);
    }
    return true;
}

struct segmentation {
    const struct engine *engine;
    struct analysis *out;
};

/* By a mask in the model's frame, where what the diameter is made of was fitted (train/calibrate.py); the mask that is
 * shown is that of the CT as it came. */
static bool measure(const struct segmentation *segmentation, struct finding *finding, struct err *err) {
    const struct infer_diameter *diameter = &infer_model_info(segmentation->engine->model)->diameter;
    struct finding in_frame = *finding;
    if (diameter->slope <= 0)
        return true;
    struct mask *mask = volume_segment_nodule(segmentation->out->iso, &in_frame, err);
    mask_free(mask);
    finding->diameter_mm = infer_diameter_mm(diameter, finding->diameter_mm, in_frame.volume_mm3);
    return mask != NULL;
}

/* Job: one finding. */
static bool segment_one(void *context, unsigned worker, size_t index, struct err *err) {
    const struct segmentation *segmentation = context;
    struct finding *finding = &segmentation->out->findings.items[index];
    struct mask *mask = volume_segment_nodule(segmentation->out->series->volume, finding, err);
    (void)worker;
    if (!mask)
        return err_within(err, "finding %u", finding->id);
    if (finding->reported)
        segmentation->out->masks[index] = mask;
    else
        mask_free(mask);
    return measure(segmentation, finding, err) || err_within(err, "finding %u", finding->id);
}

static bool segment(const struct engine *engine, struct analysis *out, struct err *err) {
    struct segmentation segmentation = {engine, out};
    out->masks = pulmo_alloc(out->findings.count, sizeof(struct mask *), err);
    return out->masks &&
           workers_run(infer_session_threads(engine->session), out->findings.count, segment_one, &segmentation, err);
}

/* The last question of the gate, for an image that has passed all others: has the model seen its like? */
static bool judge_distribution(struct engine *engine, struct analysis *out, struct err *err) {
    out->gate_frame = pulmo_alloc(INFER_GATE_FRAME, sizeof *out->gate_frame, err);
    if (!out->gate_frame || !infer_gate_frame(out->iso, out->lungs, out->gate_frame, err))
        return false;
    if (!infer_model_info(engine->model)->has_gate)
        return true;
    if (!infer_gate(engine->session, out->gate_frame, &out->gate, err))
        return false;
    out->gated = true;
    if (out->gate.score > 1)
        refusals_add(&out->refusals, REFUSAL_OUT_OF_DISTRIBUTION, "reconstruction error %.3f, limit %.3f (%s)",
                     out->gate.error, out->gate.limit, out->gate.part);
    return true;
}

bool analysis_judge_volume(struct engine *engine, const struct volume *source, struct analysis *out, struct err *err) {
    out->iso = volume_resample_iso(source, MODEL_SPACING_MM, err);
    if (!out->iso)
        return false;
    out->lungs = volume_lungs(out->iso, err);
    if (!out->lungs)
        return false;
    volume_gate(out->iso, out->lungs, &out->quality, &out->refusals);
    return out->refusals.count > 0 ||
           (volume_mask_outside(out->iso, out->lungs, MODEL_MARGIN_MM, err) && judge_distribution(engine, out, err));
}

static bool detect_and_estimate(struct engine *engine, struct analysis *out, struct mark *mark, struct err *err) {
    if (!infer_detect(engine->session, out->iso, out->lungs, &out->findings, err))
        return false;
    infer_session_detect_figures(engine->session, &out->detection);
    lap(mark, &out->timings.detect, &out->processor.detect);
    struct uncertainty_config config = {.seed = out->study_seed,
                                        .passes = out->run.passes,
                                        .dropout = out->run.dropout,
                                        .operating_point = out->run.operating_point};
    if (!uncertainty_estimate(engine->session, out->iso, &config, &out->findings, err))
        return false;
    if (analysis_recomputed(&out->findings))
        infer_session_recompute_figures(engine->session, &out->again);
    lap(mark, &out->timings.uncertainty, &out->processor.uncertainty);
    return true;
}

/* One back-end does all of a study: when a card fails after the detection, the processor begins anew. */
static bool find(struct engine *engine, struct analysis *out, struct mark *mark, struct err *err) {
    const struct infer_model_info *info = infer_model_info(engine->model);
    struct err failure = {0};
    if (!uncertainty_study_seed(out->run.configured_seed, out->series->series_uid, info->sha256, &out->study_seed, err))
        return false;
    bool on_card = strcmp(infer_backend_name(engine->session), "cpu") != 0;
    if (!detect_and_estimate(engine, out, mark, &failure)) {
        if (!on_card || strcmp(infer_backend_name(engine->session), "cpu") != 0)
            return err_set(err, failure.kind, "%s", failure.text);
        findings_free(&out->findings);
        if (!detect_and_estimate(engine, out, mark, err))
            return false;
    }
    bool good = locate(out, err) && segment(engine, out, err);
    lap(mark, &out->timings.segment, &out->processor.segment);
    return good;
}

static bool judge(struct engine *engine, const char *const *paths, size_t count, struct analysis *out,
                  struct mark *mark, struct err *err) {
    out->series = dicom_series_read(paths, count, err);
    if (!out->series)
        return false;
    lap(mark, &out->timings.read, &out->processor.read);
    merge_refusals(&out->refusals, &out->series->refusals);
    if (out->refusals.count == 0 && !analysis_judge_volume(engine, out->series->volume, out, err))
        return false;
    lap(mark, &out->timings.resample, &out->processor.resample);
    return true;
}

bool analysis_judge(struct engine *engine, const char *const *paths, size_t count, struct analysis *out,
                    struct err *err) {
    *out = (struct analysis){0};
    struct mark start = mark_now(), mark = start;
    if (!judge(engine, paths, count, out, &mark, err))
        return false;
    lap(&start, &out->timings.total, &out->processor.total);
    return true;
}

bool analysis_make(struct engine *engine, const char *const *paths, size_t count, const struct analysis_run *run,
                   struct analysis *out, struct err *err) {
    *out = (struct analysis){.run = *run};
    struct mark start = mark_now(), mark = start;
    if (!digest_inputs(paths, count, out, err) || !judge(engine, paths, count, out, &mark, err))
        return false;
    if (out->refusals.count == 0 && !find(engine, out, &mark, err))
        return false;
    lap(&start, &out->timings.total, &out->processor.total);
    return true;
}

void analysis_free(struct analysis *analysis) {
    for (size_t index = 0; analysis->masks && index < analysis->findings.count; index++)
        mask_free(analysis->masks[index]);
    free(analysis->masks);
    findings_free(&analysis->findings);
    mask_free(analysis->lungs);
    volume_free(analysis->iso);
    dicom_series_free(analysis->series);
    free(analysis->input_sha256);
    free(analysis->gate_frame);
    *analysis = (struct analysis){0};
}
