#include "app/artifacts.h"

#include "app/precision.h"
#include "explain/explain.h"
#include "uncertainty/uncertainty.h"
#include "workers.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void cjson_free_at(cJSON **json) {
    cJSON_Delete(*json);
}

static void explain_map_free_at(struct explain_map **map) {
    explain_map_free(*map);
}

void artifacts_free(struct artifacts *artifacts) {
    for (size_t index = 0; index < artifacts->count; index++) {
        struct store_artifact *item = &artifacts->items[index];
        pulmo_free_at(&item->name);
        pulmo_free_at(&item->data);
    }
    free(artifacts->items);
    *artifacts = (struct artifacts){0};
}

bool artifacts_add(struct artifacts *artifacts, const char *name, const char *media_type, struct bytes *content,
                   bool send, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes moved = *content;
    *content = (struct bytes){0};
    struct store_artifact *grown = realloc(artifacts->items, (artifacts->count + 1) * sizeof *grown);
    if (!grown)
        return err_set(err, ERR_MEMORY, "out of memory for the result's files");
    artifacts->items = grown;
    char *copy = strdup(name);
    if (!copy)
        return err_set(err, ERR_MEMORY, "out of memory for the result's files");
    artifacts->items[artifacts->count++] = (struct store_artifact){
        .name = copy, .media_type = media_type, .data = moved.data, .size = moved.size, .send = send};
    moved = (struct bytes){0};
    return true;
}

static bool add_json(struct artifacts *artifacts, const char *name, const cJSON *document, struct err *err) {
    char *text = cJSON_PrintUnformatted(document);
    if (!text)
        return err_set(err, ERR_MEMORY, "out of memory for %s", name);
    struct bytes content = {.data = (uint8_t *)text, .size = strlen(text)};
    return artifacts_add(artifacts, name, "application/json", &content, false, err);
}

/* ---- overlays ---------------------------------------------------------------------------------------- */

struct pictures { /* of the slices of one map that hold any heat */
    const struct explain_map *map;
    int32_t slices;
    struct bytes *png; /* [slices]; without data = not warm */
};

static void pictures_clear(struct pictures *pictures) {
    for (int32_t k = 0; pictures->png && k < pictures->slices; k++)
        bytes_free(&pictures->png[k]);
    free(pictures->png);
}

/* Job: one slice. */
static bool picture_make(void *context, unsigned worker, size_t index, struct err *err) {
    const struct pictures *pictures = context;
    (void)worker;
    return !explain_map_slice_used(pictures->map, (int32_t)index) ||
           explain_overlay_png(pictures->map, (int32_t)index, &pictures->png[index], err);
}

static bool add_overlay_slices(struct artifacts *out, struct pictures *pictures, const char *kind, cJSON *used,
                               struct err *err) {
    for (int32_t k = 0; k < pictures->slices; k++) {
        if (!pictures->png[k].data)
            continue;
        char name[64];
        snprintf(name, sizeof name, "overlay/%s/%d.png", kind, k);
        if (!artifacts_add(out, name, "image/png", &pictures->png[k], false, err))
            return false;
        cJSON_AddItemToArray(used, cJSON_CreateNumber(k));
    }
    return true;
}

static bool add_overlays_of(struct analysis *analysis, struct engine *engine, enum explain_kind kind, cJSON *document,
                            struct artifacts *out, struct err *err) {
    const char *name = kind == EXPLAIN_ATTENTION ? "attention" : "cam";
    const struct grid *source = &analysis->series->volume->grid;
    PULMO_SCOPED(explain_map_free_at) struct explain_map *map = explain_map_new(source, err);
    if (!map)
        return false;
    if (!explain_map_add_reported(map, engine->session, analysis->iso, &analysis->findings, kind, err))
        return false;
    cJSON *used = cJSON_AddArrayToObject(document, name);
    PULMO_SCOPED(pictures_clear)
    struct pictures pictures = {.map = map,
                                .slices = source->size_ijk[2],
                                .png = pulmo_alloc((size_t)source->size_ijk[2], sizeof *pictures.png, err)};
    return pictures.png &&
           workers_run(infer_session_threads(engine->session), (size_t)pictures.slices, picture_make, &pictures, err) &&
           add_overlay_slices(out, &pictures, name, used, err);
}

static bool add_overlays(struct analysis *analysis, struct engine *engine, struct artifacts *out, struct err *err) {
    PULMO_SCOPED(cjson_free_at) cJSON *document = cJSON_CreateObject();
    return add_overlays_of(analysis, engine, EXPLAIN_ATTENTION, document, out, err) &&
           add_overlays_of(analysis, engine, EXPLAIN_CAM, document, out, err) &&
           add_json(out, "overlays.json", document, err);
}

/* ---- contours ---------------------------------------------------------------------------------------- */

static cJSON *contour_path(const struct volume_contour *contour) {
    cJSON *path = cJSON_CreateArray();
    for (size_t point = 0; point < contour->count; point++)
        cJSON_AddItemToArray(path, cJSON_CreateDoubleArray(contour->points[point], 2));
    return path;
}

/* The item of slice k: contours come slice by slice, so it is the last one or a new one. */
static cJSON *slice_paths(cJSON *slices, int32_t k) {
    cJSON *last = cJSON_GetArrayItem(slices, cJSON_GetArraySize(slices) - 1);
    const cJSON *last_k = last ? cJSON_GetObjectItemCaseSensitive(last, "k") : NULL;
    if (last_k && last_k->valueint == k)
        return cJSON_GetObjectItemCaseSensitive(last, "paths");
    cJSON *slice = cJSON_CreateObject();
    cJSON_AddNumberToObject(slice, "k", k);
    cJSON *paths = cJSON_AddArrayToObject(slice, "paths");
    cJSON_AddItemToArray(slices, slice);
    return paths;
}

static bool add_contours(const struct analysis *analysis, struct artifacts *out, struct err *err) {
    PULMO_SCOPED(cjson_free_at) cJSON *document = cJSON_CreateObject();
    cJSON *findings = cJSON_AddArrayToObject(document, "findings");
    for (size_t index = 0; index < analysis->findings.count; index++) {
        if (!analysis->masks[index])
            continue;
        cJSON *finding = cJSON_CreateObject();
        cJSON_AddItemToArray(findings, finding);
        cJSON_AddNumberToObject(finding, "id", analysis->findings.items[index].id);
        cJSON *slices = cJSON_AddArrayToObject(finding, "slices");
        PULMO_SCOPED(volume_contours_free) struct volume_contours contours = {0};
        if (!volume_contours_trace(analysis->masks[index], &analysis->series->volume->grid, &contours, err))
            return false;
        for (size_t item = 0; item < contours.count; item++)
            cJSON_AddItemToArray(slice_paths(slices, contours.items[item].k), contour_path(&contours.items[item]));
    }
    return add_json(out, "contours.json", document, err);
}

/* ---- SEG and SR -------------------------------------------------------------------------------------- */

bool artifacts_tracking_uid(const char *series_uid, const char *model_sha256, const struct finding *finding,
                            char out[DICOM_UID_SIZE], struct err *err) {
    char text[512];
    snprintf(text, sizeof text, "pulmo finding %s %s %u %.3f %.3f %.3f", series_uid, model_sha256, finding->id,
             finding->center_lps_mm[0], finding->center_lps_mm[1], finding->center_lps_mm[2]);
    return dicom_uid_derive(text, out, err);
}

static const char *or_null(const char *text) {
    return *text ? text : NULL;
}

/* A replay asks for the back-end that ran, not for the card that was wanted: the reason is the recorded one. */
static const char *stand_in(const struct analysis *analysis, const struct engine *engine) {
    if (*analysis->run.backend_reason)
        return analysis->run.backend_reason;
    return infer_backend_stands_in(engine->session) ? infer_backend_reason(engine->session) : NULL;
}

struct dicom_report artifacts_report(const struct analysis *analysis, const struct engine *engine,
                                     const char *device_uid) {
    const struct infer_model_info *info = infer_model_info(engine->model);
    struct dicom_report report = {
        .series = analysis->series,
        .refusals = analysis->refusals.count ? &analysis->refusals : NULL,
        .model_name = info->name,
        .model_version = info->version,
        .model_sha256 = info->sha256,
        .backend = infer_backend_detail(engine->session),
        .backend_reason = stand_in(analysis, engine),
        .passes = analysis->run.passes,
        .dropout = analysis->run.dropout,
        .operating_point = analysis->run.operating_point,
        .seed = analysis->run.configured_seed,
        .device_observer_uid = device_uid,
        .time_ms = analysis->run.created_ms,
        .predecessor_sop_instance_uid = or_null(analysis->run.predecessor_sop_instance_uid),
        .predecessor_series_uid = or_null(analysis->run.predecessor_series_uid),
    };
    uncertainty_review_rule(info, report.review_rule, sizeof report.review_rule);
    const struct infer_precision *plan = infer_session_precision(engine->session);
    if (plan)
        precision_report_text(plan, analysis_recomputed(&analysis->findings), analysis->detection.tiles_full,
                              report.precision, sizeof report.precision);
    return report;
}

/* The reported findings with their masks and tracking UIDs; *count of them, owned (free). */
static struct dicom_report_finding *report_findings(const struct analysis *analysis, const char *model_sha256,
                                                    size_t *count, struct err *err) {
    struct dicom_report_finding *list = pulmo_alloc(analysis->findings.count, sizeof *list, err);
    size_t used = 0;
    for (size_t index = 0; list && index < analysis->findings.count; index++) {
        const struct finding *finding = &analysis->findings.items[index];
        if (!finding->reported)
            continue;
        list[used] = (struct dicom_report_finding){.finding = finding, .mask = analysis->masks[index]};
        if (!artifacts_tracking_uid(analysis->series->series_uid, model_sha256, finding, list[used++].tracking_uid,
                                    err)) {
            free(list);
            return NULL;
        }
    }
    *count = used;
    return list;
}

static bool add_dicom(const struct dicom_report *report, struct artifacts *out, struct err *err) {
    char uid[DICOM_UID_SIZE];
    PULMO_SCOPED(bytes_free) struct bytes seg = {0}, sr = {0};
    if (report->finding_count && !dicom_seg_write(report, &seg, uid, err))
        return err_within(err, "segmentation");
    if (!dicom_sr_write(report, seg.size ? &seg : NULL, &sr, uid, err))
        return err_within(err, "structured report");
    return (!seg.size || artifacts_add(out, "seg.dcm", "application/dicom", &seg, true, err)) &&
           artifacts_add(out, "sr.dcm", "application/dicom", &sr, true, err);
}

static bool add_reports(const struct analysis *analysis, const struct engine *engine, const char *device_uid,
                        struct artifacts *out, struct err *err) {
    struct dicom_report report = artifacts_report(analysis, engine, device_uid);
    size_t count = 0;
    PULMO_SCOPED(pulmo_free_at)
    struct dicom_report_finding *findings = report_findings(analysis, report.model_sha256, &count, err);
    if (!findings)
        return false;
    report.findings = findings;
    report.finding_count = count;
    return add_dicom(&report, out, err);
}

static bool add_analysis_json(const struct analysis *analysis, const struct engine *engine, const char *failure,
                              struct artifacts *out, struct err *err) {
    struct bytes json = {0};
    return analysis_json(analysis, engine, failure, &json, err) &&
           artifacts_add(out, "analysis.json", "application/json", &json, false, err);
}

bool artifacts_make(struct analysis *analysis, struct engine *engine, const char *device_uid, struct artifacts *out,
                    struct err *err) {
    int64_t start = pulmo_monotonic_ms(), start_processor = analysis_processor_ms();
    bool refused = analysis->refusals.count > 0;
    struct artifacts made = {0};
    bool good = refused || (add_overlays(analysis, engine, &made, err) && add_contours(analysis, &made, err));
    analysis->timings.explain = pulmo_monotonic_ms() - start;
    analysis->processor.explain = analysis_processor_ms() - start_processor;
    good = good && add_reports(analysis, engine, device_uid, &made, err);
    analysis->timings.total += pulmo_monotonic_ms() - start;
    analysis->processor.total += analysis_processor_ms() - start_processor;
    good = good && add_analysis_json(analysis, engine, NULL, &made, err);
    if (good)
        *out = made;
    else
        artifacts_free(&made);
    return good;
}

bool artifacts_make_failed(const struct analysis *analysis, const struct engine *engine, const char *device_uid,
                           const char *failure, struct artifacts *out, struct err *err) {
    struct artifacts made = {0};
    bool good = true;
    if (analysis->series) { /* without it nobody knows to which study a report would belong */
        struct dicom_report report = artifacts_report(analysis, engine, device_uid);
        report.failure = failure;
        good = add_dicom(&report, &made, err);
    }
    good = good && add_analysis_json(analysis, engine, failure, &made, err);
    if (good)
        *out = made;
    else
        artifacts_free(&made);
    return good;
}
