/* Marks to nodules, as noduleCADEvaluationLUNA16.py does it (REFERENCE 1): included nodules first; a mark within a
 * nodule's radius is spent on it; the best of several counts, the rest are ignored; marks on excluded findings are
 * ignored; what is left is a false positive. */
#include "evaluation/froc.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define UNKNOWN_DIAMETER_MM 10.0 /* for diameter < 0 */

struct scan { /* one scan's part of the dataset */
    size_t index;
    const struct truth *truths;
    size_t truth_first, truth_count;
    const struct mark *marks;
    size_t mark_first, mark_count;
    double score_above; /* marks at or below it are left out (max_marks) */
    uint8_t *verdict;   /* [mark_count] */
};

static int compare_descending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* With more than max_marks marks, only those strictly above the next score count: ties at the limit all go. */
static bool scan_limit(struct scan *scan, uint32_t max_marks, struct err *err) {
    scan->score_above = -INFINITY;
    if (!max_marks || scan->mark_count <= max_marks)
        return true;
    PULMO_SCOPED(pulmo_free_at) double *scores = pulmo_alloc(scan->mark_count, sizeof *scores, err);
    if (!scores)
        return false;
    for (size_t n = 0; n < scan->mark_count; n++)
        scores[n] = scan->marks[n].score;
    qsort(scores, scan->mark_count, sizeof *scores, compare_descending);
    scan->score_above = scores[max_marks];
    return true;
}

/* Strictly less than the radius. */
static bool is_hit(const struct truth *truth, const struct mark *mark) {
    double radius_mm = (truth->diameter_mm < 0 ? UNKNOWN_DIAMETER_MM : truth->diameter_mm) / 2, square_mm2 = 0;
    for (int axis = 0; axis < 3; axis++)
        square_mm2 += (mark->xyz_mm[axis] - truth->xyz_mm[axis]) * (mark->xyz_mm[axis] - truth->xyz_mm[axis]);
    return square_mm2 < radius_mm * radius_mm;
}

/* A mark may hit two nodules that overlap: it finds both, and is spent once. */
static void match_included(const struct scan *scan, size_t index, struct outcomes *out) {
    const struct truth *truth = &scan->truths[index];
    size_t matches = 0, best = NO_MARK;
    for (size_t n = 0; n < scan->mark_count; n++) {
        const struct mark *mark = &scan->marks[n];
        if (scan->verdict[n] == VERDICT_BEYOND || !is_hit(truth, mark))
            continue;
        if (best == NO_MARK || mark->score > scan->marks[best].score)
            best = n;
        if (scan->verdict[n] != VERDICT_FOUND)
            scan->verdict[n] = VERDICT_DUPLICATE;
        matches++;
    }
    out->nodules[scan->index]++;
    if (!matches)
        return;
    scan->verdict[best] = VERDICT_FOUND;
    out->mark_of[scan->truth_first + index] = scan->mark_first + best;
    out->items[out->count++] = (struct outcome){scan->marks[best].score, scan->index, true};
    out->hits++;
    out->duplicates += matches - 1;
}

static void match_excluded(const struct scan *scan, const struct truth *truth, struct outcomes *out) {
    for (size_t n = 0; n < scan->mark_count; n++) {
        if (scan->verdict[n] != VERDICT_FALSE || !is_hit(truth, &scan->marks[n]))
            continue;
        scan->verdict[n] = VERDICT_EXCLUDED;
        out->ignored++;
    }
}

static void match_scan(const struct scan *scan, struct outcomes *out) {
    for (size_t n = 0; n < scan->mark_count; n++)
        scan->verdict[n] = scan->marks[n].score > scan->score_above ? VERDICT_FALSE : VERDICT_BEYOND;
    for (size_t n = 0; n < scan->truth_count; n++) /* included ones come first */
        if (scan->truths[n].included)
            match_included(scan, n, out);
        else
            match_excluded(scan, &scan->truths[n], out);
    for (size_t n = 0; n < scan->mark_count; n++) {
        if (scan->verdict[n] != VERDICT_FALSE)
            continue;
        out->items[out->count++] = (struct outcome){scan->marks[n].score, scan->index, false};
        out->false_positives++;
    }
}

static int compare_outcomes(const void *a, const void *b) {
    const struct outcome *x = a, *y = b;
    return (x->score < y->score) - (x->score > y->score);
}

static bool match_all(const struct dataset *dataset, uint32_t max_marks, struct outcomes *out, struct err *err) {
    size_t truth = 0, mark = 0;
    for (size_t n = 0; n < dataset->truth_count; n++)
        out->mark_of[n] = NO_MARK;
    for (size_t index = 0; index < dataset->series_count; index++) {
        struct scan scan = {.index = index, .truths = dataset->truths + truth, .marks = dataset->marks + mark};
        scan.truth_first = truth;
        scan.mark_first = mark;
        scan.verdict = out->verdict + mark;
        for (; truth < dataset->truth_count && dataset->truths[truth].scan == index; truth++)
            scan.truth_count++;
        for (; mark < dataset->mark_count && dataset->marks[mark].scan == index; mark++)
            scan.mark_count++;
        if (!scan_limit(&scan, max_marks, err))
            return false;
        match_scan(&scan, out);
    }
    qsort(out->items, out->count, sizeof *out->items, compare_outcomes);
    return true;
}

bool outcomes_match(const struct dataset *dataset, uint32_t max_marks, struct outcomes *out, struct err *err) {
    PULMO_SCOPED(outcomes_free) struct outcomes outcomes = {.scans = dataset->series_count};
    /* every mark at most once, and every nodule once more where one mark finds two */
    outcomes.items = pulmo_alloc(dataset->mark_count + dataset->truth_count, sizeof *outcomes.items, err);
    outcomes.nodules = pulmo_alloc(outcomes.scans, sizeof *outcomes.nodules, err);
    outcomes.verdict = pulmo_alloc(dataset->mark_count, sizeof *outcomes.verdict, err);
    outcomes.mark_of = pulmo_alloc(dataset->truth_count, sizeof *outcomes.mark_of, err);
    if (!outcomes.items || !outcomes.nodules || !outcomes.verdict || !outcomes.mark_of ||
        !match_all(dataset, max_marks, &outcomes, err))
        return false;
    *out = outcomes;
    outcomes = (struct outcomes){0};
    return true;
}

void outcomes_free(struct outcomes *outcomes) {
    free(outcomes->items);
    free(outcomes->nodules);
    free(outcomes->verdict);
    free(outcomes->mark_of);
    *outcomes = (struct outcomes){0};
}
