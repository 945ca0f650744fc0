#include "app/finding_json.h"

#include "app/precision.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void cjson_free_at(cJSON **json) {
    cJSON_Delete(*json);
}

static double number_of(const cJSON *object, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

/* A whole number in [0, max]; what is none, or absent, counts as 0. */
static uint64_t whole_of(const cJSON *object, const char *name, uint64_t max) {
    double number = number_of(object, name);
    return number >= 0 && number <= (double)max ? (uint64_t)number : 0;
}

#define EXACT_MAX ((uint64_t)1 << 53) /* the largest whole number up to which JSON's doubles are exact */

static void vector_of(const cJSON *object, const char *name, double out[3]) {
    const cJSON *array = cJSON_GetObjectItemCaseSensitive(object, name);
    for (int axis = 0; axis < 3; axis++) {
        const cJSON *item = cJSON_GetArrayItem(array, axis);
        out[axis] = cJSON_IsNumber(item) ? item->valuedouble : 0;
    }
}

static enum texture texture_of(const cJSON *object) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "texture"));
    for (enum texture texture = TEXTURE_SOLID; text && texture <= TEXTURE_GROUND_GLASS; texture++)
        if (strcmp(text, texture_name(texture)) == 0)
            return texture;
    return TEXTURE_UNKNOWN;
}

static enum lobe lobe_of(const cJSON *object) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "lobe"));
    for (enum lobe lobe = LOBE_RUL; text && lobe <= LOBE_LLL; lobe++)
        if (strcmp(text, lobe_name(lobe)) == 0)
            return lobe;
    return LOBE_UNKNOWN;
}

static void read_passes(const cJSON *object, struct finding *finding) {
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(object, "pass_probabilities")) {
        if (finding->pass_count == FINDING_PASSES_MAX)
            return;
        finding->pass_probabilities[finding->pass_count++] = (float)item->valuedouble;
    }
}

static void read_finding(const cJSON *object, struct finding *finding) {
    finding->id = (uint32_t)whole_of(object, "id", UINT32_MAX);
    vector_of(object, "center_lps_mm", finding->center_lps_mm);
    vector_of(object, "center_ijk", finding->center_ijk);
    finding->diameter_mm = number_of(object, "diameter_mm");
    finding->detector_logit = number_of(object, "detector_logit");
    finding->texture = texture_of(object);
    finding->lobe = lobe_of(object);
    finding->probability = number_of(object, "probability");
    finding->probability_low = number_of(object, "probability_low");
    finding->probability_high = number_of(object, "probability_high");
    finding->entropy_nats = number_of(object, "entropy_nats");
    finding->mutual_information_nats = number_of(object, "mutual_information_nats");
    finding->long_axis_mm = number_of(object, "long_axis_mm");
    finding->short_axis_mm = number_of(object, "short_axis_mm");
    finding->volume_mm3 = number_of(object, "volume_mm3");
    finding->reported = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(object, "reported"));
    finding->review = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(object, "review"));
    const char *precision = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "precision"));
    finding->full_precision = precision && strcmp(precision, "fp32") == 0; /* absent: all of the detector was */
    read_passes(object, finding);
}

static void copy_text(const cJSON *object, const char *name, char *out, size_t size) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    snprintf(out, size, "%s", text ? text : "");
}

bool finding_json_read(const struct bytes *document, struct findings *out, struct analysis_run *run, struct err *err) {
    PULMO_SCOPED(cjson_free_at) cJSON *json = cJSON_ParseWithLength((const char *)document->data, document->size);
    const cJSON *array = cJSON_GetObjectItemCaseSensitive(json, "findings");
    if (!cJSON_IsArray(array) || !cJSON_IsNumber(cJSON_GetObjectItemCaseSensitive(json, "passes")))
        return err_set(err, ERR_INPUT, "the stored document is not a result of pulmo");
    struct findings findings = {.count = 0};
    findings.items = pulmo_alloc((size_t)cJSON_GetArraySize(array), sizeof *findings.items, err);
    if (!findings.items)
        return false;
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, array) {
        read_finding(item, &findings.items[findings.count++]);
    }
    *run = (struct analysis_run){.configured_seed = whole_of(json, "seed", EXACT_MAX),
                                 .passes = (uint32_t)whole_of(json, "passes", UINT32_MAX),
                                 .dropout = number_of(json, "dropout"),
                                 .operating_point = number_of(json, "operating_point"),
                                 .created_ms = (int64_t)whole_of(json, "created_ms", EXACT_MAX)};
    const cJSON *predecessor = cJSON_GetObjectItemCaseSensitive(json, "predecessor");
    copy_text(predecessor, "sop_instance_uid", run->predecessor_sop_instance_uid, DICOM_UID_SIZE);
    copy_text(predecessor, "series_uid", run->predecessor_series_uid, DICOM_UID_SIZE);
    if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "backend_stands_in")))
        copy_text(json, "backend_reason", run->backend_reason, sizeof run->backend_reason);
    *out = findings;
    return true;
}

/* ---- the rest of the document ------------------------------------------------------------------------ */

/* "CODE: sentence", as analysis_json wrote it. */
static bool add_refusal(const char *reason, struct refusals *out, struct err *err) {
    const char *colon = strstr(reason, ": ");
    for (int code = 0; colon && code < REFUSAL_CODE_COUNT; code++) {
        const char *name = refusal_name((enum refusal_code)code);
        if (strlen(name) != (size_t)(colon - reason) || strncmp(name, reason, strlen(name)) != 0)
            continue;
        refusals_add(out, (enum refusal_code)code, "%s", colon + 2);
        return true;
    }
    return err_set(err, ERR_INPUT, "\"%.80s\" is no reason of a refusal", reason);
}

bool finding_json_refusals(const struct bytes *document, struct refusals *out, struct err *err) {
    PULMO_SCOPED(cjson_free_at) cJSON *json = cJSON_ParseWithLength((const char *)document->data, document->size);
    const char *status = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "status"));
    struct refusals refusals = {0};
    const cJSON *item = NULL;
    if (!status)
        return err_set(err, ERR_INPUT, "the stored document is not a result of pulmo");
    if (strcmp(status, "refused") == 0)
        cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(json, "reasons")) {
            if (!cJSON_IsString(item) || !add_refusal(item->valuestring, &refusals, err))
                return cJSON_IsString(item) ? false : err_set(err, ERR_INPUT, "a reason is no text");
        }
    *out = refusals;
    return true;
}

void finding_json_model(const struct bytes *document, char name[128], char version[64]) {
    PULMO_SCOPED(cjson_free_at) cJSON *json = cJSON_ParseWithLength((const char *)document->data, document->size);
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(json, "model");
    copy_text(model, "name", name, 128);
    copy_text(model, "version", version, 64);
}

void finding_json_review_rule(const struct bytes *document, char *out, size_t size) {
    PULMO_SCOPED(cjson_free_at) cJSON *json = cJSON_ParseWithLength((const char *)document->data, document->size);
    const char *rule = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "review_rule"));
    if (rule)
        snprintf(out, size, "%s", rule);
}

/* Results of before the two fields have both in one: "oneDNN 2.6.3, avx512_core_vnni". */
static void split_detail(const cJSON *json, struct finding_origin *out) {
    const char *detail = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "backend_detail"));
    const char *comma = detail ? strstr(detail, ", ") : NULL;
    if (*out->library || !comma)
        return;
    snprintf(out->library, sizeof out->library, "%.*s", (int)(comma - detail), detail);
    snprintf(out->instruction_set, sizeof out->instruction_set, "%s", comma + 2);
}

static void read_failure(const cJSON *json, struct finding_origin *out) {
    static const char prefix[] = "FAILED: "; /* as analysis_json wrote it */
    const cJSON *reason = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(json, "reasons"), 0);
    const char *text = cJSON_GetStringValue(reason);
    if (text && strncmp(text, prefix, sizeof prefix - 1) == 0)
        snprintf(out->failure, sizeof out->failure, "%s", text + sizeof prefix - 1);
}

bool finding_json_origin(const struct bytes *document, struct finding_origin *out, struct err *err) {
    PULMO_SCOPED(cjson_free_at) cJSON *json = cJSON_ParseWithLength((const char *)document->data, document->size);
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(json, "model");
    struct finding_origin origin = {.pulmo = ""};
    if (!model)
        return err_set(err, ERR_INPUT, "the stored document is not a result of pulmo");
    copy_text(json, "pulmo", origin.pulmo, sizeof origin.pulmo);
    copy_text(json, "backend", origin.backend, sizeof origin.backend);
    copy_text(json, "library", origin.library, sizeof origin.library);
    copy_text(json, "instruction_set", origin.instruction_set, sizeof origin.instruction_set);
    copy_text(json, "precision", origin.precision, sizeof origin.precision);
    const cJSON *plan = cJSON_GetObjectItemCaseSensitive(json, "precision_plan");
    if (strcmp(origin.precision, "mixed") == 0 && !precision_plan_read(plan, &origin.plan, err))
        return false;
    origin.findings_full = (size_t)whole_of(plan, "findings_in_fp32", UINT32_MAX);
    origin.tiles_full = (size_t)whole_of(plan, "tiles_in_fp32", UINT32_MAX);
    copy_text(json, "status", origin.status, sizeof origin.status);
    copy_text(model, "name", origin.model_name, sizeof origin.model_name);
    copy_text(model, "version", origin.model_version, sizeof origin.model_version);
    copy_text(model, "sha256", origin.model_sha256, sizeof origin.model_sha256);
    split_detail(json, &origin);
    read_failure(json, &origin);
    *out = origin;
    return true;
}

static bool has_input(const cJSON *inputs, const char *path) {
    const char *slash = strrchr(path, '/');
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, inputs) {
        if (cJSON_IsString(item) && strcmp(item->valuestring, slash ? slash + 1 : path) == 0)
            return true;
    }
    return false;
}

bool finding_json_inputs(const struct bytes *document, struct store_paths *inout, struct err *err) {
    PULMO_SCOPED(cjson_free_at) cJSON *json = cJSON_ParseWithLength((const char *)document->data, document->size);
    const cJSON *inputs = cJSON_GetObjectItemCaseSensitive(json, "input_sha256");
    size_t kept = 0;
    for (size_t index = 0; index < inout->count; index++) {
        if (has_input(inputs, inout->items[index]))
            inout->items[kept++] = inout->items[index];
        else
            free(inout->items[index]);
    }
    inout->count = kept;
    if (!kept || kept != (size_t)cJSON_GetArraySize(inputs))
        return err_set(err, ERR_CONFLICT,
                       "%zu of the result's %d images are in the study now; the others were replaced or purged", kept,
                       cJSON_GetArraySize(inputs));
    return true;
}
