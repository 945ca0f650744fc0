#include "app/analysis.h"
#include "app/precision.h"
#include "uncertainty/uncertainty.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static void cjson_free_at(cJSON **json) {
    cJSON_Delete(*json);
}

static bool add_vector(cJSON *object, const char *name, const double values[3]) {
    return cJSON_AddItemToObject(object, name, cJSON_CreateDoubleArray(values, 3));
}

static void add_passes(cJSON *object, const struct finding *finding) {
    cJSON *passes = cJSON_AddArrayToObject(object, "pass_probabilities");
    for (uint32_t pass = 0; pass < finding->pass_count; pass++)
        cJSON_AddItemToArray(passes, cJSON_CreateNumber((double)finding->pass_probabilities[pass]));
}

static cJSON *finding_json(const struct finding *finding, bool mixed) {
    char sentence[200];
    uncertainty_sentence(finding, sentence, sizeof sentence);
    cJSON *object = cJSON_CreateObject();
    cJSON_AddNumberToObject(object, "id", finding->id);
    add_vector(object, "center_lps_mm", finding->center_lps_mm);
    add_vector(object, "center_ijk", finding->center_ijk);
    cJSON_AddNumberToObject(object, "diameter_mm", finding->diameter_mm);
    cJSON_AddNumberToObject(object, "long_axis_mm", finding->long_axis_mm);
    cJSON_AddNumberToObject(object, "short_axis_mm", finding->short_axis_mm);
    cJSON_AddNumberToObject(object, "volume_mm3", finding->volume_mm3);
    cJSON_AddStringToObject(object, "texture", texture_name(finding->texture));
    cJSON_AddStringToObject(object, "lobe", lobe_name(finding->lobe));
    cJSON_AddNumberToObject(object, "probability", finding->probability);
    cJSON_AddNumberToObject(object, "probability_low", finding->probability_low);
    cJSON_AddNumberToObject(object, "probability_high", finding->probability_high);
    cJSON_AddNumberToObject(object, "entropy_nats", finding->entropy_nats);
    cJSON_AddNumberToObject(object, "mutual_information_nats", finding->mutual_information_nats);
    add_passes(object, finding);
    cJSON_AddNumberToObject(object, "detector_logit", finding->detector_logit);
    if (mixed)
        cJSON_AddStringToObject(object, "precision", finding->full_precision ? "fp32" : "mixed");
    cJSON_AddBoolToObject(object, "reported", finding->reported);
    cJSON_AddBoolToObject(object, "review", finding->review);
    cJSON_AddStringToObject(object, "sentence", sentence);
    cJSON_AddNullToObject(object, "lung_rads");
    cJSON_AddStringToObject(object, "lung_rads_rule", "indication unknown");
    return object;
}

static void add_model(cJSON *document, const struct engine *engine) {
    const struct infer_model_info *info = infer_model_info(engine->model);
    cJSON *model = cJSON_AddObjectToObject(document, "model");
    cJSON_AddStringToObject(model, "name", info->name);
    cJSON_AddStringToObject(model, "version", info->version);
    cJSON_AddStringToObject(model, "sha256", info->sha256);
    cJSON_AddStringToObject(document, "backend", infer_backend_name(engine->session));
    cJSON_AddStringToObject(document, "backend_detail", infer_backend_detail(engine->session));
    cJSON_AddStringToObject(document, "backend_wanted", infer_backend_wanted_name(engine->session));
    cJSON_AddStringToObject(document, "backend_reason", infer_backend_reason(engine->session));
    cJSON_AddBoolToObject(document, "backend_stands_in", infer_backend_stands_in(engine->session));
    cJSON_AddStringToObject(document, "library", infer_session_library(engine->session));
    cJSON_AddStringToObject(document, "instruction_set", infer_session_instruction_set(engine->session));
    cJSON_AddStringToObject(document, "precision", engine_precision(engine));
}

/* What a detector that is not fp32 throughout ran in, and what was computed again in fp32; nothing otherwise. */
static void add_precision(cJSON *document, const struct analysis *analysis, const struct engine *engine) {
    const struct infer_precision *plan = infer_session_precision(engine->session);
    if (!plan)
        return;
    cJSON *object = cJSON_AddObjectToObject(document, "precision_plan");
    precision_plan_add(object, plan);
    cJSON_AddNumberToObject(object, "tiles_in_fp32", (double)analysis->detection.tiles_full);
    cJSON_AddNumberToObject(object, "findings_in_fp32", (double)analysis_recomputed(&analysis->findings));
}

static void add_run(cJSON *document, const struct analysis *analysis, const struct engine *engine) {
    const struct analysis_run *run = &analysis->run;
    cJSON_AddNumberToObject(document, "seed", (double)run->configured_seed);
    cJSON_AddNumberToObject(document, "passes", run->passes);
    cJSON_AddNumberToObject(document, "flips", infer_model_info(engine->model)->flips);
    cJSON_AddNumberToObject(document, "dropout", run->dropout);
    cJSON_AddNumberToObject(document, "operating_point", run->operating_point);
    char rule[DICOM_REVIEW_RULE_SIZE];
    uncertainty_review_rule(infer_model_info(engine->model), rule, sizeof rule);
    cJSON_AddStringToObject(document, "review_rule", rule);
    cJSON_AddNumberToObject(document, "created_ms", (double)run->created_ms);
    if (*run->predecessor_sop_instance_uid) {
        cJSON *predecessor = cJSON_AddObjectToObject(document, "predecessor");
        cJSON_AddStringToObject(predecessor, "sop_instance_uid", run->predecessor_sop_instance_uid);
        cJSON_AddStringToObject(predecessor, "series_uid", run->predecessor_series_uid);
    }
    cJSON *inputs = cJSON_AddArrayToObject(document, "input_sha256");
    for (size_t index = 0; index < analysis->input_count; index++)
        cJSON_AddItemToArray(inputs, cJSON_CreateString(analysis->input_sha256[index]));
}

static void add_reasons(cJSON *document, const struct refusals *refusals, const char *failure) {
    cJSON *reasons = cJSON_AddArrayToObject(document, "reasons");
    char text[640];
    for (size_t index = 0; !failure && index < refusals->count; index++) {
        snprintf(text, sizeof text, "%s: %s", refusal_name(refusals->items[index].code), refusals->items[index].text);
        cJSON_AddItemToArray(reasons, cJSON_CreateString(text));
    }
    if (failure) {
        snprintf(text, sizeof text, "FAILED: %s", failure);
        cJSON_AddItemToArray(reasons, cJSON_CreateString(text));
    }
}

static void add_quality(cJSON *document, const struct analysis *analysis) {
    cJSON *quality = cJSON_AddObjectToObject(document, "quality");
    if (analysis->series && analysis->series->slice_spacing_mm > 0) {
        cJSON_AddNumberToObject(quality, "slice_spacing_mm", analysis->series->slice_spacing_mm);
        cJSON_AddNumberToObject(quality, "slice_thickness_mm", analysis->series->slice_thickness_mm);
        cJSON_AddNumberToObject(quality, "slices", (double)analysis->series->slice_count);
    }
    if (analysis->lungs)
        cJSON_AddNumberToObject(quality, "lung_volume_ml", analysis->quality.lung_volume_ml);
    if (analysis->gated) { /* error / limit: above 1 is out of distribution */
        cJSON_AddNumberToObject(quality, "ood_score", analysis->gate.score);
        cJSON_AddStringToObject(quality, "ood_part", analysis->gate.part);
    }
}

static void add_times(cJSON *document, const char *name, const struct analysis_timings_ms *timings) {
    const struct {
        const char *name;
        int64_t ms;
    } rows[] = {{"read", timings->read},       {"resample", timings->resample},
                {"detect", timings->detect},   {"uncertainty", timings->uncertainty},
                {"segment", timings->segment}, {"explain", timings->explain},
                {"total", timings->total}};
    cJSON *object = cJSON_AddObjectToObject(document, name);
    for (size_t index = 0; index < sizeof rows / sizeof *rows; index++)
        cJSON_AddNumberToObject(object, rows[index].name, (double)rows[index].ms);
}

/* VmHWM of proc(5). getrusage would do, but that it never falls below what the starting process held. */
static double peak_rss_bytes(void) {
    long long kib = 0;
    char line[128];
    FILE *status = fopen("/proc/self/status", "r");
    while (status && kib == 0 && fgets(line, sizeof line, status))
        if (sscanf(line, "VmHWM: %lld kB", &kib) != 1)
            kib = 0;
    if (status)
        fclose(status);
    if (kib > 0)
        return (double)kib * 1024;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss * 1024;
}

static void add_cost(cJSON *document, const struct analysis *analysis) {
    add_times(document, "timings_ms", &analysis->timings);
    add_times(document, "processor_ms", &analysis->processor);
    cJSON_AddNumberToObject(document, "peak_rss_bytes", peak_rss_bytes());
}

/* What the detection cost, and which devices took part. */
static void add_work(cJSON *document, const struct analysis *analysis, const struct engine *engine) {
    const struct infer_detect_figures *figures = &analysis->detection;
    const struct infer_recompute_figures *again = &analysis->again;
    cJSON *work = cJSON_AddObjectToObject(document, "work");
    cJSON_AddNumberToObject(work, "tiles", (double)figures->tiles);
    cJSON_AddNumberToObject(work, "tiles_run", (double)figures->tiles_run);
    cJSON_AddNumberToObject(work, "tiles_again", (double)figures->tiles_again);
    cJSON_AddNumberToObject(work, "voxels", (double)figures->voxels);
    cJSON_AddNumberToObject(work, "voxels_run", (double)figures->voxels_run);
    if (figures->wall_ns)
        cJSON_AddNumberToObject(work, "busy_share",
                                (double)figures->busy_ns / ((double)figures->wall_ns * figures->lanes));
    if (again->wall_ns) { /* a part of timings_ms.uncertainty */
        cJSON_AddNumberToObject(work, "recompute_ms", (double)again->wall_ns / 1e6);
        cJSON_AddNumberToObject(work, "recompute_processor_ms", (double)again->busy_ns / 1e6);
    }
    cJSON_AddNumberToObject(work, "devices", infer_session_devices(engine->session));
    cJSON *dropped = cJSON_AddArrayToObject(work, "devices_dropped");
    for (unsigned device = 0; device < infer_session_devices(engine->session); device++) {
        const struct err *why = infer_session_dropped(engine->session, device);
        if (!why)
            continue;
        cJSON *one = cJSON_CreateObject();
        cJSON_AddItemToArray(dropped, one);
        cJSON_AddNumberToObject(one, "device", device);
        cJSON_AddStringToObject(one, "reason", why->text);
    }
}

static bool print_into(const cJSON *document, struct bytes *out, struct err *err) {
    char *text = cJSON_PrintUnformatted(document);
    if (!text)
        return err_set(err, ERR_MEMORY, "out of memory for the result's document");
    *out = (struct bytes){.data = (uint8_t *)text, .size = strlen(text)};
    return true;
}

bool analysis_json(const struct analysis *analysis, const struct engine *engine, const char *failure, struct bytes *out,
                   struct err *err) {
    PULMO_SCOPED(cjson_free_at) cJSON *document = cJSON_CreateObject();
    const char *status = failure ? "failed" : analysis->refusals.count ? "refused" : "analysed";
    cJSON_AddStringToObject(document, "pulmo", PULMO_VERSION);
    if (analysis->series) {
        cJSON_AddStringToObject(document, "study_uid", analysis->series->study_uid);
        cJSON_AddStringToObject(document, "series_uid", analysis->series->series_uid);
    }
    cJSON_AddStringToObject(document, "status", status);
    cJSON_AddStringToObject(document, "notice", PULMO_NOT_FOR_DIAGNOSIS);
    add_reasons(document, &analysis->refusals, failure);
    add_quality(document, analysis);
    add_model(document, engine);
    add_precision(document, analysis, engine);
    add_run(document, analysis, engine);
    add_cost(document, analysis);
    add_work(document, analysis, engine);
    cJSON *findings = cJSON_AddArrayToObject(document, "findings");
    for (size_t index = 0; !failure && !analysis->refusals.count && index < analysis->findings.count; index++)
        cJSON_AddItemToArray(
            findings, finding_json(&analysis->findings.items[index], infer_session_precision(engine->session) != NULL));
    return print_into(document, out, err);
}

bool analysis_verdict_json(const struct analysis *analysis, const char *failure, struct bytes *out, struct err *err) {
    PULMO_SCOPED(cjson_free_at) cJSON *verdict = cJSON_CreateObject();
    if (analysis->series) {
        cJSON_AddStringToObject(verdict, "study_uid", analysis->series->study_uid);
        cJSON_AddStringToObject(verdict, "series_uid", analysis->series->series_uid);
    }
    cJSON_AddStringToObject(verdict, "status", failure ? "failed" : analysis->refusals.count ? "refused" : "accepted");
    add_reasons(verdict, &analysis->refusals, failure);
    add_quality(verdict, analysis);
    cJSON_AddNumberToObject(verdict, "ms", (double)analysis->timings.total);
    return print_into(verdict, out, err);
}

bool analysis_json_comparable(const struct bytes *document, struct bytes *out, struct err *err) {
    PULMO_SCOPED(cjson_free_at) cJSON *json = cJSON_ParseWithLength((const char *)document->data, document->size);
    if (!json)
        return err_set(err, ERR_INPUT, "the result's document is not JSON");
    cJSON_DeleteItemFromObjectCaseSensitive(json, "timings_ms");
    cJSON_DeleteItemFromObjectCaseSensitive(json, "processor_ms");
    cJSON_DeleteItemFromObjectCaseSensitive(json, "peak_rss_bytes");
    cJSON_DeleteItemFromObjectCaseSensitive(json, "work");
    cJSON_DeleteItemFromObjectCaseSensitive(json, "backend_wanted");
    cJSON_DeleteItemFromObjectCaseSensitive(json, "backend_reason");
    cJSON_DeleteItemFromObjectCaseSensitive(json, "backend_stands_in");
    return print_into(json, out, err);
}
