#include "evaluation/froc.h"

#include <stdlib.h>

const double froc_rates[EVALUATION_POINTS] = {0.125, 0.25, 0.5, 1, 2, 4, 8};

struct point {
    double fp_per_scan, sensitivity;
};

/* The curve's next point: all outcomes of one score at once. */
struct walk {
    const struct outcomes *outcomes;
    const uint32_t *weight;
    size_t at;
    double hits, false_positives, nodules, scans;
};

static uint32_t weight_of(const uint32_t *weight, size_t scan) {
    return weight ? weight[scan] : 1;
}

static struct walk walk_start(const struct outcomes *outcomes, const uint32_t *weight) {
    struct walk walk = {.outcomes = outcomes, .weight = weight};
    for (size_t scan = 0; scan < outcomes->scans; scan++) {
        walk.nodules += (double)weight_of(weight, scan) * outcomes->nodules[scan];
        walk.scans += weight_of(weight, scan);
    }
    return walk;
}

static bool walk_next(struct walk *walk, struct point *point) {
    const struct outcome *items = walk->outcomes->items;
    if (walk->at == walk->outcomes->count)
        return false;
    double score = items[walk->at].score;
    for (; walk->at < walk->outcomes->count && items[walk->at].score == score; walk->at++) {
        double weight = weight_of(walk->weight, items[walk->at].scan);
        walk->hits += items[walk->at].hit ? weight : 0;
        walk->false_positives += items[walk->at].hit ? 0 : weight;
    }
    point->fp_per_scan = walk->false_positives / walk->scans;
    point->sensitivity = walk->nodules > 0 ? walk->hits / walk->nodules : 0;
    return true;
}

/* At a rate: from the last point at or below it linearly to the next; behind the last point the curve is level. */
bool froc_summarise(const struct outcomes *outcomes, const uint32_t *weight, struct froc_summary *out) {
    struct walk walk = walk_start(outcomes, weight);
    struct froc_summary summary = {0};
    struct point before = {0, 0}, after;
    size_t rate = 0;
    if (walk.nodules > 0) {
        while (rate < EVALUATION_POINTS && walk_next(&walk, &after)) {
            for (; rate < EVALUATION_POINTS && froc_rates[rate] < after.fp_per_scan; rate++) {
                double part = (froc_rates[rate] - before.fp_per_scan) / (after.fp_per_scan - before.fp_per_scan);
                summary.sensitivity[rate] = before.sensitivity + part * (after.sensitivity - before.sensitivity);
            }
            before = after;
        }
        for (; rate < EVALUATION_POINTS; rate++)
            summary.sensitivity[rate] = before.sensitivity;
    }
    for (rate = 0; rate < EVALUATION_POINTS; rate++)
        summary.cpm += summary.sensitivity[rate] / EVALUATION_POINTS;
    *out = summary;
    return walk.nodules > 0;
}

bool froc_curve(const struct outcomes *outcomes, struct evaluation *out, struct err *err) {
    double *fp_per_scan = pulmo_alloc(outcomes->count + 1, sizeof *fp_per_scan, err);
    double *sensitivity = pulmo_alloc(outcomes->count + 1, sizeof *sensitivity, err);
    if (!fp_per_scan || !sensitivity) {
        free(fp_per_scan);
        free(sensitivity);
        return false;
    }
    size_t count = 1; /* the first is (0, 0) */
    struct walk walk = walk_start(outcomes, NULL);
    for (struct point point; walk_next(&walk, &point); count++) {
        fp_per_scan[count] = point.fp_per_scan;
        sensitivity[count] = point.sensitivity;
    }
    out->froc_fp_per_scan = fp_per_scan;
    out->froc_sensitivity = sensitivity;
    out->froc_count = count;
    return true;
}
