#include "evaluation/candidates.h"

#include <math.h>
#include <stdlib.h>

#define FALSE_PER_SCAN 8

static int compare_descending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* The score above which there are at most 8 false positives a scan. */
static bool threshold_find(const struct dataset *dataset, const struct outcomes *outcomes, double *out,
                           struct err *err) {
    size_t allowed = FALSE_PER_SCAN * dataset->series_count, count = 0;
    PULMO_SCOPED(pulmo_free_at) double *scores = pulmo_alloc(outcomes->false_positives, sizeof *scores, err);
    if (!scores)
        return false;
    for (size_t n = 0; n < dataset->mark_count; n++)
        if (outcomes->verdict[n] == VERDICT_FALSE)
            scores[count++] = dataset->marks[n].score;
    qsort(scores, count, sizeof *scores, compare_descending);
    *out = count > allowed ? scores[allowed] : -INFINITY;
    return true;
}

bool candidates_select(const struct dataset *dataset, const struct outcomes *outcomes, struct candidates *out,
                       struct err *err) {
    PULMO_SCOPED(candidates_free)
    struct candidates candidates = {.scans = dataset->series_count, .probable = true};
    candidates.items = pulmo_alloc(dataset->mark_count, sizeof *candidates.items, err);
    if (!candidates.items || !threshold_find(dataset, outcomes, &candidates.threshold, err))
        return false;
    for (size_t n = 0; n < dataset->mark_count; n++) {
        const struct mark *mark = &dataset->marks[n];
        candidates.probable = candidates.probable && mark->score >= 0 && mark->score <= 1;
        bool found = outcomes->verdict[n] == VERDICT_FOUND;
        if ((found || outcomes->verdict[n] == VERDICT_FALSE) && mark->score > candidates.threshold)
            candidates.items[candidates.count++] = (struct candidate){mark, found};
    }
    *out = candidates;
    candidates = (struct candidates){0};
    return true;
}

void candidates_free(struct candidates *candidates) {
    free(candidates->items);
    *candidates = (struct candidates){0};
}
