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

/* Numbers by name, in order; what is not finite becomes null. */
struct named {
    const char *name;
    double value;
};
static bool add_numbers(cJSON *json, const struct named *numbers, size_t count) {
    bool added = json != NULL;
    for (size_t n = 0; added && n < count; n++)
        added = cJSON_AddNumberToObject(json, numbers[n].name, numbers[n].value) != NULL;
    return added;
}

/* ---- reliability ---------------------------------------------------------------------------------------- */

static bool add_bin(cJSON *bins, const struct evaluation_bin *bin, int number) {
    cJSON *item = cJSON_CreateObject();
    const struct named numbers[] = {{"low", (double)number / EVALUATION_BINS},
                                    {"high", (number + 1.0) / EVALUATION_BINS},
                                    {"count", (double)bin->count},
                                    {"nodules", (double)bin->nodules},
                                    {"mean_probability", bin->probability}};
    cJSON_AddItemToArray(bins, item);
    return add_numbers(item, numbers, 5);
}

static bool add_reliability(cJSON *json, const struct evaluation_reliability *reliability, bool interval) {
    if (!reliability->candidates)
        return true;
    cJSON *object = cJSON_AddObjectToObject(json, "reliability");
    const struct named numbers[] = {{"candidates", (double)reliability->candidates},
                                    {"nodules", (double)reliability->nodules},
                                    {"threshold", reliability->threshold},
                                    {"brier", reliability->brier},
                                    {"ece", reliability->ece},
                                    {"ece_low", reliability->ece_low},
                                    {"ece_high", reliability->ece_high}};
    if (!add_numbers(object, numbers, interval ? 7 : 5))
        return false;
    cJSON *bins = cJSON_AddArrayToObject(object, "bins");
    for (int bin = 0; bin < EVALUATION_BINS; bin++)
        if (!bins || !add_bin(bins, &reliability->bins[bin], bin))
            return false;
    return true;
}

/* ---- uncertainty ---------------------------------------------------------------------------------------- */

static bool add_rejection(cJSON *measures, enum evaluation_measure measure,
                          const struct evaluation_rejection *rejection, bool interval) {
    cJSON *object = cJSON_AddObjectToObject(measures, evaluation_measure_name(measure));
    const struct named numbers[] = {{"auroc", rejection->auroc},         {"gain", rejection->gain},
                                    {"auroc_low", rejection->auroc_low}, {"auroc_high", rejection->auroc_high},
                                    {"gain_low", rejection->gain_low},   {"gain_high", rejection->gain_high}};
    if (!add_numbers(object, numbers, interval ? 6 : 2))
        return false;
    cJSON *curve = cJSON_AddArrayToObject(object, "rejection");
    for (int step = 0; step < EVALUATION_STEPS; step++) {
        cJSON *item = cJSON_CreateObject();
        const struct named point[] = {{"rejected", (double)step / EVALUATION_STEPS},
                                      {"kept", (double)rejection->kept[step]},
                                      {"right", (double)rejection->right[step]}};
        if (!curve || !cJSON_AddItemToArray(curve, item) || !add_numbers(item, point, 3))
            return false;
    }
    return true;
}

static bool add_triage(cJSON *json, const struct evaluation_triage *triage, double operating_point, bool interval) {
    if (!triage->candidates)
        return true;
    cJSON *object = cJSON_AddObjectToObject(json, "uncertainty");
    const struct named numbers[] = {{"operating_point", operating_point},
                                    {"candidates", (double)triage->candidates},
                                    {"wrong", (double)triage->wrong}};
    if (!add_numbers(object, numbers, 3))
        return false;
    cJSON *measures = cJSON_AddObjectToObject(object, "measures");
    bool added = measures != NULL;
    for (enum evaluation_measure measure = 0; added && measure < EVALUATION_MEASURES; measure++)
        if (triage->measures[measure].present)
            added = add_rejection(measures, measure, &triage->measures[measure], interval);
    return added;
}

/* ---- diameters and textures ----------------------------------------------------------------------------- */

static bool add_diameter(cJSON *json, const struct evaluation_diameter *diameter) {
    if (!diameter->count)
        return true;
    const struct named numbers[] = {{"compared", (double)diameter->count},
                                    {"bias_mm", diameter->bias_mm},
                                    {"sd_mm", diameter->sd_mm},
                                    {"limit_low_mm", diameter->limit_low_mm},
                                    {"limit_high_mm", diameter->limit_high_mm},
                                    {"median_absolute_mm", diameter->median_absolute_mm},
                                    {"p95_absolute_mm", diameter->p95_absolute_mm}};
    return add_numbers(cJSON_AddObjectToObject(json, "diameter"), numbers, 7);
}

/* {"compared": n, "right": n, "confusion": {truth: {mark: n}}} */
static bool add_texture(cJSON *json, size_t texture[3][3]) {
    size_t compared = 0, right = 0;
    for (int truth = 0; truth < 3; truth++)
        for (int mark = 0; mark < 3; mark++) {
            compared += texture[truth][mark];
            right += truth == mark ? texture[truth][mark] : 0;
        }
    if (!compared)
        return true;
    cJSON *object = cJSON_AddObjectToObject(json, "texture");
    const struct named numbers[] = {{"compared", (double)compared}, {"right", (double)right}};
    cJSON *confusion = add_numbers(object, numbers, 2) ? cJSON_AddObjectToObject(object, "confusion") : NULL;
    bool added = confusion != NULL;
    for (int truth = 0; added && truth < 3; truth++) {
        cJSON *row = cJSON_AddObjectToObject(confusion, texture_name(TEXTURE_SOLID + (enum texture)truth));
        for (int mark = 0; added && mark < 3; mark++)
            added = row && cJSON_AddNumberToObject(row, texture_name(TEXTURE_SOLID + (enum texture)mark),
                                                   (double)texture[truth][mark]);
    }
    return added;
}

static bool add_trust(cJSON *json, const struct evaluation *evaluation, const struct evaluation_config *config) {
    size_t texture[3][3];
    memcpy(texture, evaluation->texture, sizeof texture);
    bool interval = config->bootstrap_count > 0;
    return add_reliability(json, &evaluation->reliability, interval) &&
           add_triage(json, &evaluation->triage, config->operating_point, interval) &&
           add_diameter(json, &evaluation->diameter) && add_texture(json, texture);
}

bool evaluation_json(const struct evaluation *evaluation, const struct evaluation_config *config, struct bytes *out,
                     struct err *err) {
    PULMO_SCOPED(json_free_at) cJSON *json = cJSON_CreateObject();
    bool built = json && add_counts(json, evaluation, config->max_marks) &&
                 add_rates(json, "sensitivity", evaluation->sensitivity) &&
                 cJSON_AddNumberToObject(json, "cpm", evaluation->cpm) &&
                 (!config->bootstrap_count || add_interval(json, evaluation, config)) &&
                 add_trust(json, evaluation, config);
    PULMO_SCOPED(pulmo_free_at) char *text = built ? cJSON_Print(json) : NULL;
    if (!text)
        return err_set(err, ERR_MEMORY, "out of memory for the figures of an evaluation");
    struct bytes bytes = {0};
    if (!bytes_append(&bytes, text, strlen(text), JSON_SIZE_MAX, err))
        return false;
    *out = bytes;
    return true;
}
