#include "evaluation/evaluation.h"
#include "evaluation/bootstrap.h"
#include "evaluation/candidates.h"

#include <stdlib.h>
#include <string.h>

#define FILE_SIZE_MAX ((size_t)1 << 30)
#define BOOTSTRAP_MAX 100000

/* ---- bootstrap --------------------------------------------------------------------------------------- */

/* 95 % over scans (REFERENCE 1). Resamples without any nodule say nothing and are left out. */
static bool bootstrap(const struct outcomes *outcomes, const struct evaluation_config *config, struct evaluation *out,
                      struct err *err) {
    size_t rows = config->bootstrap_count, count = 0;
    PULMO_SCOPED(pulmo_free_at) uint32_t *weight = pulmo_alloc(outcomes->scans, sizeof *weight, err);
    PULMO_SCOPED(pulmo_free_at) double *values = pulmo_alloc((EVALUATION_POINTS + 1) * rows, sizeof *values, err);
    if (!weight || !values)
        return false;
    for (uint32_t sample = 0; sample < config->bootstrap_count; sample++) {
        struct froc_summary summary;
        bootstrap_weights(config->seed, sample, outcomes->scans, weight);
        if (!froc_summarise(outcomes, weight, &summary))
            continue;
        for (size_t point = 0; point < EVALUATION_POINTS; point++)
            values[point * rows + count] = summary.sensitivity[point];
        values[EVALUATION_POINTS * rows + count++] = summary.cpm;
    }
    if (!count)
        return true;
    for (size_t point = 0; point < EVALUATION_POINTS; point++)
        bootstrap_interval(values + point * rows, count, &out->sensitivity_low[point], &out->sensitivity_high[point]);
    bootstrap_interval(values + EVALUATION_POINTS * rows, count, &out->cpm_low, &out->cpm_high);
    return true;
}

/* ---- the whole --------------------------------------------------------------------------------------- */

static bool dataset_read(const struct evaluation_config *config, struct dataset *out, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes series = {0};
    PULMO_SCOPED(bytes_free) struct bytes truth = {0};
    PULMO_SCOPED(bytes_free) struct bytes marks = {0};
    if (!bytes_read_file(config->series_list, FILE_SIZE_MAX, &series, err) ||
        !bytes_read_file(config->truth_csv, FILE_SIZE_MAX, &truth, err) ||
        !bytes_read_file(config->marks_csv, FILE_SIZE_MAX, &marks, err))
        return false;
    const struct dataset_text text = {&series,           &truth,           &marks, config->series_list,
                                      config->truth_csv, config->marks_csv};
    return dataset_parse(&text, out, err);
}

static bool judge_candidates(const struct dataset *dataset, const struct outcomes *outcomes,
                             const struct evaluation_config *config, struct evaluation *out, struct err *err) {
    PULMO_SCOPED(candidates_free) struct candidates candidates = {0};
    return candidates_select(dataset, outcomes, &candidates, err) &&
           reliability_measure(&candidates, config, &out->reliability, err) &&
           triage_measure(&candidates, config, &out->triage, err);
}

bool evaluation_run(const struct evaluation_config *config, struct evaluation *out, struct err *err) {
    PULMO_SCOPED(dataset_free) struct dataset dataset = {0};
    PULMO_SCOPED(outcomes_free) struct outcomes outcomes = {0};
    PULMO_SCOPED(evaluation_free) struct evaluation result = {0};
    if (!(config->operating_point >= 0 && config->operating_point <= 1))
        return err_set(err, ERR_INPUT, "an operating point of %g is no probability", config->operating_point);
    if (config->bootstrap_count > BOOTSTRAP_MAX)
        return err_set(err, ERR_LIMIT, "%u resamples are more than %d", config->bootstrap_count, BOOTSTRAP_MAX);
    if (!dataset_read(config, &dataset, err) || !outcomes_match(&dataset, config->max_marks, &outcomes, err))
        return false;
    for (size_t n = 0; n < dataset.truth_count; n++) {
        result.nodules += dataset.truths[n].included;
        result.excluded += !dataset.truths[n].included;
    }
    result.scans = dataset.series_count;
    result.marks = dataset.mark_count;
    result.hits = outcomes.hits;
    result.false_positives = outcomes.false_positives;
    result.ignored = outcomes.ignored;
    result.duplicates = outcomes.duplicates;
    struct froc_summary summary;
    froc_summarise(&outcomes, NULL, &summary);
    memcpy(result.sensitivity, summary.sensitivity, sizeof result.sensitivity);
    result.cpm = summary.cpm;
    if (!bootstrap(&outcomes, config, &result, err) || !froc_curve(&outcomes, &result, err) ||
        !judge_candidates(&dataset, &outcomes, config, &result, err) ||
        !diameters_compare(&dataset, &outcomes, &result.diameter, err))
        return false;
    textures_compare(&dataset, &outcomes, result.texture);
    *out = result;
    result = (struct evaluation){0};
    return true;
}

void evaluation_free(struct evaluation *evaluation) {
    free(evaluation->froc_fp_per_scan);
    free(evaluation->froc_sensitivity);
    free(evaluation->diameter.mean_mm);
    free(evaluation->diameter.difference_mm);
    *evaluation = (struct evaluation){0};
}
