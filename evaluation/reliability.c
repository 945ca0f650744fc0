/* Expected calibration error (Naeini, Cooper and Hauskrecht, AAAI 2015): the mean over candidates of the distance
 * between what their bin said and what it held; 15 bins of equal width (REFERENCE 2). */
#include "evaluation/bootstrap.h"
#include "evaluation/candidates.h"

#include <math.h>

struct sums {
    double count[EVALUATION_BINS], nodules[EVALUATION_BINS], probability[EVALUATION_BINS];
};

static int bin_of(double probability) {
    int bin = (int)floor(probability * EVALUATION_BINS);
    return bin < EVALUATION_BINS ? bin : EVALUATION_BINS - 1;
}

/* Each scan counted weight[scan] times; NULL: once. */
static struct sums sums_of(const struct candidates *candidates, const uint32_t *weight) {
    struct sums sums = {{0}, {0}, {0}};
    for (size_t n = 0; n < candidates->count; n++) {
        const struct candidate *candidate = &candidates->items[n];
        double times = weight ? weight[candidate->mark->scan] : 1;
        int bin = bin_of(candidate->mark->score);
        sums.count[bin] += times;
        sums.nodules[bin] += candidate->nodule ? times : 0;
        sums.probability[bin] += times * candidate->mark->score;
    }
    return sums;
}

/* False when the resample holds no candidate. */
static bool ece_of(const struct sums *sums, double *out) {
    double count = 0, distance = 0;
    for (int bin = 0; bin < EVALUATION_BINS; bin++) {
        count += sums->count[bin];
        distance += fabs(sums->nodules[bin] - sums->probability[bin]);
    }
    if (count > 0)
        *out = distance / count;
    return count > 0;
}

static double brier_of(const struct candidates *candidates) {
    double sum = 0;
    for (size_t n = 0; n < candidates->count; n++) {
        double error = candidates->items[n].mark->score - (candidates->items[n].nodule ? 1 : 0);
        sum += error * error;
    }
    return sum / (double)candidates->count;
}

static bool interval_find(const struct candidates *candidates, const struct evaluation_config *config,
                          struct evaluation_reliability *out, struct err *err) {
    PULMO_SCOPED(pulmo_free_at) uint32_t *weight = pulmo_alloc(candidates->scans, sizeof *weight, err);
    PULMO_SCOPED(pulmo_free_at) double *values = pulmo_alloc(config->bootstrap_count, sizeof *values, err);
    size_t count = 0;
    if (!weight || !values)
        return false;
    for (uint32_t sample = 0; sample < config->bootstrap_count; sample++) {
        bootstrap_weights(config->seed, sample, candidates->scans, weight);
        struct sums sums = sums_of(candidates, weight);
        count += ece_of(&sums, &values[count]);
    }
    if (count)
        bootstrap_interval(values, count, &out->ece_low, &out->ece_high);
    return true;
}

bool reliability_measure(const struct candidates *candidates, const struct evaluation_config *config,
                         struct evaluation_reliability *out, struct err *err) {
    struct evaluation_reliability result = {.threshold = candidates->threshold};
    *out = result;
    if (!candidates->probable || !candidates->count)
        return true;
    struct sums sums = sums_of(candidates, NULL);
    for (int bin = 0; bin < EVALUATION_BINS; bin++) {
        result.bins[bin].count = (size_t)sums.count[bin];
        result.bins[bin].nodules = (size_t)sums.nodules[bin];
        result.bins[bin].probability = sums.count[bin] > 0 ? sums.probability[bin] / sums.count[bin] : 0;
        result.nodules += result.bins[bin].nodules;
    }
    result.candidates = candidates->count;
    result.brier = brier_of(candidates);
    ece_of(&sums, &result.ece);
    if (!interval_find(candidates, config, &result, err))
        return false;
    *out = result;
    return true;
}
