/* Does an uncertainty tell which decisions are wrong? AUROC (the probability that a wrong decision is more uncertain
 * than a right one, ties counted half; Hanley and McNeil, Radiology 1982) and accuracy against rejection. */
#include "evaluation/bootstrap.h"
#include "evaluation/candidates.h"

#include <math.h>
#include <stdlib.h>

struct judged { /* one candidate, by one measure */
    double uncertainty;
    size_t scan, turn; /* turn: its place among the candidates */
    bool wrong;
};

const char *evaluation_measure_name(enum evaluation_measure measure) {
    static const char *const names[EVALUATION_MEASURES] = {[EVALUATION_ONE_MINUS_MAX] = "one_minus_max_probability",
                                                           [EVALUATION_MUTUAL_INFORMATION] = "mutual_information_nats",
                                                           [EVALUATION_ENTROPY] = "entropy_nats",
                                                           [EVALUATION_INTERVAL_WIDTH] = "interval_width"};
    return names[measure];
}

/* NAN where the mark does not say. */
static double measure_of(const struct mark *mark, enum evaluation_measure measure) {
    switch (measure) {
    case EVALUATION_MUTUAL_INFORMATION: return mark->value[MARK_MUTUAL_INFORMATION_NATS];
    case EVALUATION_ENTROPY: return mark->value[MARK_ENTROPY_NATS];
    case EVALUATION_INTERVAL_WIDTH: return mark->value[MARK_PROBABILITY_HIGH] - mark->value[MARK_PROBABILITY_LOW];
    default: return fmin(mark->score, 1 - mark->score);
    }
}

/* Most certain first; equal ones in the order of the file. */
static int compare_judged(const void *a, const void *b) {
    const struct judged *x = a, *y = b;
    if (x->uncertainty != y->uncertainty)
        return x->uncertainty < y->uncertainty ? -1 : 1;
    return x->turn < y->turn ? -1 : x->turn > y->turn;
}

/* Fills and sorts; false when a candidate lacks the measure. */
static bool judged_fill(const struct candidates *candidates, double operating_point, enum evaluation_measure measure,
                        struct judged *out) {
    for (size_t n = 0; n < candidates->count; n++) {
        const struct candidate *candidate = &candidates->items[n];
        double uncertainty = measure_of(candidate->mark, measure);
        if (isnan(uncertainty))
            return false;
        bool decided = candidate->mark->score >= operating_point;
        out[n] = (struct judged){uncertainty, candidate->mark->scan, n, decided != candidate->nodule};
    }
    qsort(out, candidates->count, sizeof *out, compare_judged);
    return true;
}

/* Over candidates that are sorted, each scan counted weight[scan] times (NULL: once). NAN when all decisions are
 * right, or none. */
static double auroc_of(const struct judged *judged, size_t count, const uint32_t *weight) {
    double right_below = 0, wrong_total = 0, above = 0;
    for (size_t n = 0; n < count;) {
        double right = 0, wrong = 0, uncertainty = judged[n].uncertainty;
        for (; n < count && judged[n].uncertainty == uncertainty; n++)
            *(judged[n].wrong ? &wrong : &right) += weight ? weight[judged[n].scan] : 1;
        above += wrong * (right_below + right / 2);
        right_below += right;
        wrong_total += wrong;
    }
    return right_below > 0 && wrong_total > 0 ? above / (right_below * wrong_total) : NAN;
}

static void rejection_count(const struct judged *judged, size_t count, struct evaluation_rejection *out) {
    for (size_t step = 0; step < EVALUATION_STEPS; step++) {
        out->kept[step] = count - count * step / EVALUATION_STEPS;
        out->right[step] = 0;
        for (size_t n = 0; n < out->kept[step]; n++)
            out->right[step] += !judged[n].wrong;
    }
}

/* ---- intervals ---------------------------------------------------------------------------------------- */

struct resampled {
    double *auroc, *gain; /* [bootstrap_count] each, owned by intervals_find */
    size_t count;
};

static void resample_once(const struct judged *judged, const struct judged *baseline, size_t count,
                          const uint32_t *weight, struct resampled *out) {
    double auroc = auroc_of(judged, count, weight), base = auroc_of(baseline, count, weight);
    if (isnan(auroc) || isnan(base))
        return;
    out->auroc[out->count] = auroc;
    out->gain[out->count++] = auroc - base;
}

static bool intervals_find(const struct candidates *candidates, const struct judged *judged,
                           const struct judged *baseline, const struct evaluation_config *config,
                           struct evaluation_rejection *out, struct err *err) {
    size_t samples = config->bootstrap_count;
    PULMO_SCOPED(pulmo_free_at) uint32_t *weight = pulmo_alloc(candidates->scans, sizeof *weight, err);
    PULMO_SCOPED(pulmo_free_at) double *values = pulmo_alloc(2 * samples, sizeof *values, err);
    if (!weight || !values)
        return false;
    struct resampled resampled = {.auroc = values, .gain = values + samples};
    for (uint32_t sample = 0; sample < samples; sample++) {
        bootstrap_weights(config->seed, sample, candidates->scans, weight);
        resample_once(judged, baseline, candidates->count, weight, &resampled);
    }
    out->auroc_low = out->auroc_high = out->gain_low = out->gain_high = NAN;
    if (resampled.count) {
        bootstrap_interval(resampled.auroc, resampled.count, &out->auroc_low, &out->auroc_high);
        bootstrap_interval(resampled.gain, resampled.count, &out->gain_low, &out->gain_high);
    }
    return true;
}

bool triage_measure(const struct candidates *candidates, const struct evaluation_config *config,
                    struct evaluation_triage *out, struct err *err) {
    struct evaluation_triage result = {0};
    size_t count = candidates->count;
    PULMO_SCOPED(pulmo_free_at) struct judged *rows = pulmo_alloc(2 * count, sizeof *rows, err);
    if (!rows)
        return false;
    struct judged *baseline = rows, *judged = rows + count;
    *out = result;
    if (!candidates->probable || !count)
        return true;
    judged_fill(candidates, config->operating_point, EVALUATION_ONE_MINUS_MAX, baseline);
    result.candidates = count;
    for (size_t n = 0; n < count; n++)
        result.wrong += baseline[n].wrong;
    double base = auroc_of(baseline, count, NULL);
    for (enum evaluation_measure measure = 0; measure < EVALUATION_MEASURES; measure++) {
        struct evaluation_rejection *rejection = &result.measures[measure];
        rejection->present = judged_fill(candidates, config->operating_point, measure, judged);
        if (!rejection->present)
            continue;
        rejection->auroc = auroc_of(judged, count, NULL);
        rejection->gain = rejection->auroc - base;
        rejection_count(judged, count, rejection);
        if (!intervals_find(candidates, judged, baseline, config, rejection, err))
            return false;
    }
    *out = result;
    return true;
}
