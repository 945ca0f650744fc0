#include "evaluation/evaluation.h"
#include "evaluation/froc.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#define JSON_SIZE_MAX ((size_t)1 << 20)

static void json_free_at(cJSON **json) {
    cJSON_Delete(*json);
}

static bool add_counts(cJSON *json, const struct evaluation *evaluation, uint32_t max_marks) {
    const struct {
        const char *name;
        size_t value;
    } counts[] = {
        {"scans", evaluation->scans},
        {"nodules", evaluation->nodules},
        {"found", evaluation->hits},
        {"missed", evaluation->nodules - evaluation->hits},
        {"false_positives", evaluation->false_positives},
        {"ignored_marks", evaluation->ignored},
        {"duplicate_marks", evaluation->duplicates},
        {"excluded", evaluation->excluded},
        {"marks", evaluation->marks},
        {"max_marks", max_marks},
    };
    bool added = true;
    for (size_t n = 0; added && n < sizeof counts / sizeof *counts; n++)
        added = cJSON_AddNumberToObject(json, counts[n].name, (double)counts[n].value) != NULL;
    return added;
}

static bool add_rates(cJSON *json, const char *name, const double values[EVALUATION_POINTS]) {
    static const char *const rates[EVALUATION_POINTS] = {"0.125", "0.25", "0.5", "1", "2", "4", "8"};
    cJSON *object = cJSON_AddObjectToObject(json, name);
    for (int n = 0; object && n < EVALUATION_POINTS; n++)
        if (!cJSON_AddNumberToObject(object, rates[n], values[n]))
            return false;
    return object != NULL;
}

static bool add_interval(cJSON *json, const struct evaluation *evaluation, const struct evaluation_config *config) {
    return add_rates(json, "sensitivity_low", evaluation->sensitivity_low) &&
           add_rates(json, "sensitivity_high", evaluation->sensitivity_high) &&
           cJSON_AddNumberToObject(json, "cpm_low", evaluation->cpm_low) &&
           cJSON_AddNumberToObject(json, "cpm_high", evaluation->cpm_high) &&
           cJSON_AddNumberToObject(json, "bootstrap", config->bootstrap_count) &&
           cJSON_AddNumberToObject(json, "seed", (double)config->seed);
}

bool evaluation_json(const struct evaluation *evaluation, const struct evaluation_config *config, struct bytes *out,
                     struct err *err) {
    PULMO_SCOPED(json_free_at) cJSON *json = cJSON_CreateObject();
    bool built = json && add_counts(json, evaluation, config->max_marks) &&
                 add_rates(json, "sensitivity", evaluation->sensitivity) &&
                 cJSON_AddNumberToObject(json, "cpm", evaluation->cpm) &&
                 (!config->bootstrap_count || add_interval(json, evaluation, config));
    PULMO_SCOPED(pulmo_free_at) char *text = built ? cJSON_Print(json) : NULL;
    if (!text)
        return err_set(err, ERR_MEMORY, "out of memory for the figures of an evaluation");
    struct bytes bytes = {0};
    if (!bytes_append(&bytes, text, strlen(text), JSON_SIZE_MAX, err))
        return false;
    *out = bytes;
    return true;
}
