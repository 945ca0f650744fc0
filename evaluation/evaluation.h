/* Detection quality on the LUNA16 protocol (REFERENCE 1; official noduleCADEvaluationLUNA16.py). */
#ifndef PULMO_EVALUATION_H
#define PULMO_EVALUATION_H

#include "pulmo.h"

#define EVALUATION_POINTS 7 /* 1/8, 1/4, 1/2, 1, 2, 4, 8 false positives a scan */

struct evaluation_config {
    const char *truth_csv, *marks_csv, *series_list; /* paths */
    uint32_t max_marks;                              /* a scan; 0 = no limit */
    uint32_t bootstrap_count;                        /* scans resampled with replacement; 0 = no interval */
    uint64_t seed;
};
struct evaluation {
    size_t scans, nodules, excluded, marks, hits, false_positives;
    size_t ignored;    /* marks on excluded findings, as the official script counts them */
    size_t duplicates; /* further marks on a nodule that was found */
    double sensitivity[EVALUATION_POINTS], cpm;
    double sensitivity_low[EVALUATION_POINTS], sensitivity_high[EVALUATION_POINTS], cpm_low, cpm_high; /* 95 % */
    double *froc_fp_per_scan, *froc_sensitivity; /* the whole curve, froc_count points, owned */
    size_t froc_count;
};
bool evaluation_run(const struct evaluation_config *config, struct evaluation *out, struct err *err) PULMO_MUST_USE;
void evaluation_free(struct evaluation *evaluation);

/* The result as one JSON document (UTF-8, no end of line): nodules, found, missed, false_positives, ignored_marks,
 * sensitivity {"0.125": ... "8": ...} and cpm as the LUNA16 cases expect them, and what the struct holds more:
 * scans, excluded, marks, duplicate_marks, max_marks, and with a bootstrap sensitivity_low, sensitivity_high, cpm_low,
 * cpm_high, seed.
 */
bool evaluation_json(const struct evaluation *evaluation, const struct evaluation_config *config, struct bytes *out,
                     struct err *err) PULMO_MUST_USE;

/* Writes the FROC curve as SVG (logarithmic false positives a scan from 1/8 to 8, the seven points, CPM). */
bool evaluation_plot_svg(const struct evaluation *evaluation, const char *path, struct err *err) PULMO_MUST_USE;

#endif
