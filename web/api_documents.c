#include "web/api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

cJSON *api_study_document(const struct store_study *study) {
    cJSON *document = cJSON_CreateObject();
    cJSON_AddStringToObject(document, "study_uid", study->study_uid);
    cJSON_AddStringToObject(document, "patient_name", study->patient_name);
    cJSON_AddStringToObject(document, "patient_id", study->patient_id);
    cJSON_AddStringToObject(document, "accession_number", study->accession_number);
    cJSON_AddStringToObject(document, "study_date", study->study_date);
    cJSON_AddStringToObject(document, "description", study->description);
    cJSON_AddStringToObject(document, "state", study->state);
    cJSON_AddStringToObject(document, "reason", study->reason);
    cJSON_AddNumberToObject(document, "received_ms", (double)study->received_ms);
    cJSON_AddNumberToObject(document, "instances", (double)study->instances);
    cJSON_AddNumberToObject(document, "result_id", (double)study->result_id);
    cJSON_AddNumberToObject(document, "findings_reported", study->findings_reported);
    cJSON_AddNumberToObject(document, "probability_max", study->probability_max);
    cJSON_AddBoolToObject(document, "review", study->review);
    cJSON_AddNumberToObject(document, "purged_ms", (double)study->purged_ms);
    cJSON_AddNumberToObject(document, "held_ms", (double)study->held_ms);
    cJSON_AddStringToObject(document, "hold_reason", study->hold_reason);
    cJSON_AddNumberToObject(document, "supersedes", (double)study->supersedes);
    return document;
}

cJSON *api_verdict_document(const struct store_verdict *verdict) {
    cJSON *document = cJSON_CreateObject();
    cJSON_AddNumberToObject(document, "finding_id", verdict->finding_id);
    cJSON_AddStringToObject(document, "verdict", verdict->verdict);
    if (strcmp(verdict->verdict, "added") == 0) {
        cJSON_AddItemToObject(document, "center_lps_mm", cJSON_CreateDoubleArray(verdict->center_lps_mm, 3));
        cJSON_AddNumberToObject(document, "diameter_mm", verdict->diameter_mm);
    }
    cJSON_AddStringToObject(document, "user", verdict->user);
    cJSON_AddNumberToObject(document, "created_ms", (double)verdict->created_ms);
    return document;
}

bool api_read_json(struct request *request, int64_t result_id, const char *name, cJSON **out, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes content = {0};
    char media_type[64];
    struct err why = {0};
    if (!store_artifact_read(request->web->store, result_id, name, &content, media_type, &why)) {
        if (why.kind != ERR_NOT_FOUND)
            return err_set(err, why.kind, "%s", why.text);
        *out = NULL;
        return true;
    }
    cJSON *document = cJSON_ParseWithLength((const char *)content.data, content.size);
    if (!document)
        return err_set(err, ERR_INTERNAL, "%s of result %lld is not JSON", name, (long long)result_id);
    *out = document;
    return true;
}

static const char *status_name(enum store_status status) {
    switch (status) {
    case STORE_ANALYSED: return "analysed";
    case STORE_REFUSED: return "refused";
    case STORE_FAILED: return "failed";
    }
    return "failed";
}

static void add_facts(cJSON *document, const struct store_result *result) {
    cJSON_AddNumberToObject(document, "id", (double)result->id);
    cJSON_AddStringToObject(document, "study_uid", result->study_uid);
    cJSON_AddStringToObject(document, "series_uid", result->series_uid);
    cJSON_AddStringToObject(document, "status", status_name(result->status));
    cJSON_AddStringToObject(document, "reason", result->reason);
    cJSON_AddNumberToObject(document, "created_ms", (double)result->created_ms);
    cJSON_AddNumberToObject(document, "superseded_by", (double)result->superseded_by);
    cJSON_AddNumberToObject(document, "supersedes", (double)result->supersedes);
    cJSON_AddBoolToObject(document, "signed", result->signed_by_reader);
    cJSON_AddBoolToObject(document, "review", result->review);
    cJSON_AddStringToObject(document, "model_sha256", result->model_sha256);
    cJSON_AddStringToObject(document, "backend", result->backend);
}

static bool add_artifact(struct request *request, cJSON *document, const char *key, int64_t result_id,
                         struct err *err) {
    char name[64];
    snprintf(name, sizeof name, "%s.json", key);
    cJSON *content = NULL;
    if (!api_read_json(request, result_id, name, &content, err))
        return false;
    return cJSON_AddItemToObject(document, key, content ? content : cJSON_CreateNull())
               ? true
               : err_set(err, ERR_MEMORY, "out of memory for a result");
}

static bool add_verdicts(struct request *request, cJSON *document, int64_t result_id, struct err *err) {
    PULMO_SCOPED(pulmo_free_at) struct store_verdict *verdicts = NULL;
    size_t count = 0;
    if (!store_verdict_list(request->web->store, result_id, &verdicts, &count, err))
        return false;
    cJSON *array = cJSON_AddArrayToObject(document, "verdicts");
    for (size_t index = 0; index < count; index++)
        cJSON_AddItemToArray(array, api_verdict_document(&verdicts[index]));
    return true;
}

cJSON *api_result_document(struct request *request, const struct store_result *result, struct err *err) {
    cJSON *document = cJSON_CreateObject();
    add_facts(document, result);
    if (add_artifact(request, document, "analysis", result->id, err) &&
        add_artifact(request, document, "overlays", result->id, err) &&
        add_verdicts(request, document, result->id, err))
        return document;
    cJSON_Delete(document);
    return NULL;
}
