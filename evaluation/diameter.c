/* Measured against true diameters (Bland and Altman, Lancet 1986;327:307-310), and textures. */
#include "evaluation/candidates.h"

#include <math.h>
#include <stdlib.h>

static int compare_ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The smallest value that at least `share` of the values do not exceed. */
static double quantile(const double *sorted, size_t count, double share) {
    size_t rank = (size_t)ceil(share * (double)count);
    return sorted[rank ? rank - 1 : 0];
}

static double mean_of(const double *values, size_t count) {
    double sum = 0;
    for (size_t n = 0; n < count; n++)
        sum += values[n];
    return sum / (double)count;
}

static bool agreement(struct evaluation_diameter *inout, struct err *err) {
    PULMO_SCOPED(pulmo_free_at) double *absolute = pulmo_alloc(inout->count, sizeof *absolute, err);
    double squares = 0;
    if (!absolute)
        return false;
    inout->bias_mm = mean_of(inout->difference_mm, inout->count);
    for (size_t n = 0; n < inout->count; n++) {
        double away = inout->difference_mm[n] - inout->bias_mm;
        squares += away * away;
        absolute[n] = fabs(inout->difference_mm[n]);
    }
    inout->sd_mm = inout->count > 1 ? sqrt(squares / (double)(inout->count - 1)) : 0;
    inout->limit_low_mm = inout->bias_mm - 1.96 * inout->sd_mm;
    inout->limit_high_mm = inout->bias_mm + 1.96 * inout->sd_mm;
    qsort(absolute, inout->count, sizeof *absolute, compare_ascending);
    inout->median_absolute_mm = quantile(absolute, inout->count, 0.5);
    inout->p95_absolute_mm = quantile(absolute, inout->count, 0.95);
    return true;
}

bool diameters_compare(const struct dataset *dataset, const struct outcomes *outcomes, struct evaluation_diameter *out,
                       struct err *err) {
    struct evaluation_diameter result = {0};
    result.mean_mm = pulmo_alloc(dataset->truth_count, sizeof *result.mean_mm, err);
    result.difference_mm = pulmo_alloc(dataset->truth_count, sizeof *result.difference_mm, err);
    bool good = result.mean_mm && result.difference_mm;
    for (size_t n = 0; good && n < dataset->truth_count; n++) {
        double truth = dataset->truths[n].diameter_mm;
        if (outcomes->mark_of[n] == NO_MARK || truth < 0)
            continue;
        double measured = dataset->marks[outcomes->mark_of[n]].value[MARK_DIAMETER_MM];
        if (isnan(measured))
            continue;
        result.mean_mm[result.count] = (measured + truth) / 2;
        result.difference_mm[result.count++] = measured - truth;
    }
    if (!good || (result.count && !agreement(&result, err))) {
        free(result.mean_mm);
        free(result.difference_mm);
        return false;
    }
    *out = result;
    return true;
}

void textures_compare(const struct dataset *dataset, const struct outcomes *outcomes, size_t out[3][3]) {
    for (size_t n = 0; n < dataset->truth_count; n++) {
        if (outcomes->mark_of[n] == NO_MARK)
            continue;
        enum texture truth = dataset->truths[n].texture, mark = dataset->marks[outcomes->mark_of[n]].texture;
        if (truth != TEXTURE_UNKNOWN && mark != TEXTURE_UNKNOWN)
            out[truth - TEXTURE_SOLID][mark - TEXTURE_SOLID]++;
    }
}
