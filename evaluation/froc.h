/* Matching of marks to nodules, and the FROC curve of what it gives. Internal to evaluation/. */
#ifndef EVALUATION_FROC_H
#define EVALUATION_FROC_H

#include "evaluation/dataset.h"
#include "evaluation/evaluation.h"

/* One point that the curve counts: a nodule that was found, with its best mark's score, or a false positive. */
struct outcome {
    double score;
    size_t scan;
    bool hit;
};
/* What became of a mark. */
enum verdict {
    VERDICT_FALSE = 0, /* a false positive */
    VERDICT_FOUND,     /* the best mark of a nodule, or of several */
    VERDICT_DUPLICATE, /* a further mark on a nodule that was found */
    VERDICT_EXCLUDED,  /* on an excluded finding */
    VERDICT_BEYOND     /* left out by max_marks */
};
#define NO_MARK SIZE_MAX
struct outcomes {
    struct outcome *items; /* owned; highest score first */
    size_t count, scans;
    uint32_t *nodules; /* owned, [scans]: included nodules, found or not */
    size_t hits, false_positives, ignored, duplicates;
    uint8_t *verdict; /* owned, [marks]: enum verdict */
    size_t *mark_of;  /* owned, [truths]: the best mark on an included nodule, or NO_MARK */
};
bool outcomes_match(const struct dataset *dataset, uint32_t max_marks, struct outcomes *out,
                    struct err *err) PULMO_MUST_USE;
void outcomes_free(struct outcomes *outcomes);

/* Sensitivity at the seven rates and their mean, each scan counted weight[scan] times (NULL: once).
 * False when the weighted scans hold no nodule: all are zero then. */
struct froc_summary {
    double sensitivity[EVALUATION_POINTS], cpm;
};
bool froc_summarise(const struct outcomes *outcomes, const uint32_t *weight, struct froc_summary *out);
/* The whole curve, from (0, 0), one point a distinct score. */
bool froc_curve(const struct outcomes *outcomes, struct evaluation *out, struct err *err) PULMO_MUST_USE;

extern const double froc_rates[EVALUATION_POINTS];

#endif
