/* Detection quality on the LUNA16 protocol (REFERENCE 1; official noduleCADEvaluationLUNA16.py), and how far the
 * probabilities, uncertainties, diameters and textures of the marks can be trusted.
 *
 * Three files, UTF-8, fields separated by commas, not quoted, the first line a header:
 *
 * --series   one series UID a line; a header "seriesuid" may come first. Rows of other series are left out.
 * --truth    seriesuid,coordX,coordY,coordZ,diameter_mm and then, in any order, none or more of
 *              included   1, or 0 for an excluded finding (annotations_excluded.csv); absent: all 1
 *              texture    solid, part-solid, ground-glass or unknown
 * --marks    seriesuid,coordX,coordY,coordZ,probability and then, in any order, none or more of
 *              diameter_mm, mutual_information_nats, entropy_nats, probability_low, probability_high, texture
 *            The first five columns suffice for the FROC, and the probability may then be any score. Where every one
 *            lies in 0..1 it is judged as a probability too. An empty optional field is unknown.
 *
 * Coordinates are millimetres of the patient (LPS in DICOM; any frame that both files share). A diameter < 0 is
 * unknown and counts as 10 mm. */
#ifndef PULMO_EVALUATION_H
#define PULMO_EVALUATION_H

#include "pulmo.h"

#define EVALUATION_POINTS 7 /* 1/8, 1/4, 1/2, 1, 2, 4, 8 false positives a scan */

struct evaluation_config {
    const char *truth_csv, *marks_csv, *series_list; /* paths */
    uint32_t max_marks;                              /* a scan; 0 = no limit */
    uint32_t bootstrap_count;                        /* scans resampled with replacement; 0 = no interval */
    uint64_t seed;
    double operating_point; /* marks at or above it are decided to be nodules, where decisions are judged */
};

/* ---- probabilities and uncertainties, over candidates --------------------------------------------------
 *
 * The candidates are the false positives and the best mark of each nodule found, above the threshold of 8 false
 * positives a scan (REFERENCE 2: easy negatives make any calibration error small). Further marks on a nodule and marks
 * on excluded findings say nothing and are left out. Intervals are of 95 %, over scans. */

#define EVALUATION_BINS 15
struct evaluation_bin { /* probabilities in [n/15, (n+1)/15), 1 in the last */
    size_t count, nodules;
    double probability; /* mean of the bin's candidates; 0 where there are none */
};
struct evaluation_reliability {
    size_t candidates, nodules; /* 0 candidates: none, or scores that are no probabilities */
    double threshold;           /* candidates score above it; -infinity when all do */
    double ece, ece_low, ece_high, brier;
    struct evaluation_bin bins[EVALUATION_BINS];
};

/* What may tell that a decision is wrong. The first is the baseline that the others must beat. */
enum evaluation_measure {
    EVALUATION_ONE_MINUS_MAX = 0, /* 1 - max(p, 1 - p) */
    EVALUATION_MUTUAL_INFORMATION,
    EVALUATION_ENTROPY,
    EVALUATION_INTERVAL_WIDTH,
    EVALUATION_MEASURES
};
#define EVALUATION_STEPS                                                                         \
    20 /* of the rejection curve: 0, 5 ... 95 % of the candidates rejected, most uncertain first \
        */
struct evaluation_rejection {
    bool present;                        /* every candidate has the measure */
    double auroc, auroc_low, auroc_high; /* for the decision being wrong; NAN when all are right, or none */
    double gain, gain_low, gain_high;    /* auroc less the baseline's, resampled in pairs */
    size_t kept[EVALUATION_STEPS], right[EVALUATION_STEPS];
};
struct evaluation_triage {
    size_t candidates, wrong;
    struct evaluation_rejection measures[EVALUATION_MEASURES];
};
const char *evaluation_measure_name(enum evaluation_measure measure); /* as in the JSON */

/* ---- sizes and textures, over the best marks of the nodules found ------------------------------------- */

struct evaluation_diameter {
    size_t count; /* nodules found whose mark and whose truth both have a diameter */
    double bias_mm, sd_mm, limit_low_mm, limit_high_mm; /* mark less truth; limits = bias -+ 1.96 sd */
    double median_absolute_mm, p95_absolute_mm;
    double *mean_mm, *difference_mm; /* [count], owned: Bland and Altman, Lancet 1986 */
};

struct evaluation {
    size_t scans, nodules, excluded, marks, hits, false_positives;
    size_t ignored;    /* marks on excluded findings, as the official script counts them */
    size_t duplicates; /* further marks on a nodule that was found */
    double sensitivity[EVALUATION_POINTS], cpm;
    double sensitivity_low[EVALUATION_POINTS], sensitivity_high[EVALUATION_POINTS], cpm_low, cpm_high; /* 95 % */
    double *froc_fp_per_scan, *froc_sensitivity; /* the whole curve, froc_count points, owned */
    size_t froc_count;
    struct evaluation_reliability reliability;
    struct evaluation_triage triage;
    struct evaluation_diameter diameter;
    size_t texture[3][3]; /* [truth][mark]: solid, part-solid, ground-glass, where both are known */
};
bool evaluation_run(const struct evaluation_config *config, struct evaluation *out, struct err *err) PULMO_MUST_USE;
void evaluation_free(struct evaluation *evaluation);

/* The result as one JSON document (UTF-8, no end of line): nodules, found, missed, false_positives, ignored_marks,
 * sensitivity {"0.125": ... "8": ...} and cpm as the LUNA16 cases expect them, and what the struct holds more:
 * scans, excluded, marks, duplicate_marks, max_marks; with a bootstrap sensitivity_low, sensitivity_high, cpm_low,
 * cpm_high, seed; and, where the marks allow it, the objects reliability, uncertainty, diameter and texture. */
bool evaluation_json(const struct evaluation *evaluation, const struct evaluation_config *config, struct bytes *out,
                     struct err *err) PULMO_MUST_USE;

/* Plots as SVG: text, so that they can be compared and need no library. */
enum evaluation_plot {
    EVALUATION_PLOT_FROC = 0,    /* logarithmic from 1/8 to 8 false positives a scan, with intervals and CPM */
    EVALUATION_PLOT_RELIABILITY, /* share of nodules against probability, with the count of every bin */
    EVALUATION_PLOT_REJECTION,   /* accuracy against the share of candidates rejected */
    EVALUATION_PLOT_DIAMETER,    /* Bland and Altman: difference against mean, with the limits of agreement */
    EVALUATION_PLOTS
};
const char *evaluation_plot_name(enum evaluation_plot plot); /* "froc", "reliability", "rejection", "diameter" */
/* False when the marks lack what the plot shows. */
bool evaluation_plot_has(const struct evaluation *evaluation, enum evaluation_plot plot);
bool evaluation_plot_svg(const struct evaluation *evaluation, enum evaluation_plot plot, const char *path,
                         struct err *err) PULMO_MUST_USE;

#endif
