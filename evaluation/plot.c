#include "evaluation/evaluation.h"
#include "evaluation/froc.h"
#include "svg.h"

#include <math.h>
#include <stdio.h>

#define CURVE_POINTS_MAX 2000
#define BLUE "#0a58ca"
#define GREY "#767676"

static const double tenths[11] = {0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1};

const char *evaluation_plot_name(enum evaluation_plot plot) {
    static const char *const names[EVALUATION_PLOTS] = {"froc", "reliability", "rejection", "diameter"};
    return names[plot];
}

bool evaluation_plot_has(const struct evaluation *evaluation, enum evaluation_plot plot) {
    switch (plot) {
    case EVALUATION_PLOT_RELIABILITY: return evaluation->reliability.candidates > 0;
    case EVALUATION_PLOT_REJECTION: return evaluation->triage.candidates > 0;
    case EVALUATION_PLOT_DIAMETER: return evaluation->diameter.count > 0;
    default: return true;
    }
}

/* ---- FROC ---------------------------------------------------------------------------------------------- */

static double froc_x(const struct svg *svg, double rate) {
    return svg_x(svg, log2(fmax(rate, 1e-9)));
}

/* Between two points the curve is linear in the rate, not in its logarithm: it is drawn through many small steps. */
static double curve_at(const struct evaluation *evaluation, double rate, size_t *at) {
    const double *fp = evaluation->froc_fp_per_scan, *sensitivity = evaluation->froc_sensitivity;
    while (*at + 1 < evaluation->froc_count && fp[*at + 1] <= rate)
        ++*at;
    if (*at + 1 >= evaluation->froc_count)
        return sensitivity[*at];
    double part = (rate - fp[*at]) / (fp[*at + 1] - fp[*at]);
    return sensitivity[*at] + part * (sensitivity[*at + 1] - sensitivity[*at]);
}

static bool froc_curve_put(struct svg *svg, const struct evaluation *evaluation, struct err *err) {
    size_t at = 0;
    bool done = svg_put(svg, err, "<path fill=\"none\" stroke=\"" BLUE "\" stroke-width=\"2\" d=\"");
    for (int n = 0; done && n <= CURVE_POINTS_MAX; n++) {
        double rate = exp2(-3 + 6.0 * n / CURVE_POINTS_MAX);
        done = svg_put(svg, err, "%c%.2f %.2f", n ? 'L' : 'M', froc_x(svg, rate),
                       svg_y(svg, curve_at(evaluation, rate, &at)));
    }
    return done && svg_put(svg, err, "\"/>\n");
}

/* The intervals of the seven rates, joined to a band: between the rates it is a guide for the eye. */
static bool froc_band_put(struct svg *svg, const struct evaluation *evaluation, struct err *err) {
    bool done = svg_put(svg, err, "<path fill=\"" BLUE "\" fill-opacity=\"0.15\" d=\"");
    for (int n = 0; done && n < 2 * EVALUATION_POINTS; n++) {
        int point = n < EVALUATION_POINTS ? n : 2 * EVALUATION_POINTS - 1 - n;
        double edge = n < EVALUATION_POINTS ? evaluation->sensitivity_high[point] : evaluation->sensitivity_low[point];
        done = svg_put(svg, err, "%c%.2f %.2f", n ? 'L' : 'M', froc_x(svg, froc_rates[point]), svg_y(svg, edge));
    }
    return done && svg_put(svg, err, "Z\"/>\n");
}

static bool froc_points_put(struct svg *svg, const struct evaluation *evaluation, struct err *err) {
    bool done = true;
    for (int n = 0; done && n < EVALUATION_POINTS; n++) {
        double x = froc_x(svg, froc_rates[n]), y = svg_y(svg, evaluation->sensitivity[n]);
        bool last = n == EVALUATION_POINTS - 1;
        done = svg_put(svg, err,
                       "<circle cx=\"%.2f\" cy=\"%.2f\" r=\"4\" fill=\"" BLUE "\"><title>%.3f</title></circle>"
                       "<text x=\"%.2f\" y=\"%.2f\" text-anchor=\"%s\">%.1f %%</text>\n",
                       x, y, evaluation->sensitivity[n], x + (last ? -6 : 6), y + 17, last ? "end" : "start",
                       100 * evaluation->sensitivity[n]);
    }
    return done;
}

static bool froc_plot(struct svg *svg, const struct evaluation *evaluation, struct err *err) {
    static const double rates[] = {-3, -2, -1, 0, 1, 2, 3};
    static const char *const labels[EVALUATION_POINTS] = {"1/8", "1/4", "1/2", "1", "2", "4", "8"};
    const struct svg_axis x = {"false positives a scan", -3, 3, rates, labels, EVALUATION_POINTS},
                          y = {"sensitivity", 0, 1, tenths, NULL, 11};
    bool band = evaluation->cpm_high > 0;
    char title[160], legend[160];
    snprintf(title, sizeof title, "CPM %.3f, %zu nodules in %zu scans", evaluation->cpm, evaluation->nodules,
             evaluation->scans);
    snprintf(legend, sizeof legend, "band: 95 %% interval over scans at the seven rates; CPM %.3f to %.3f",
             evaluation->cpm_low, evaluation->cpm_high);
    return svg_start(svg, title, &x, &y, err) && (!band || froc_band_put(svg, evaluation, err)) &&
           froc_curve_put(svg, evaluation, err) && froc_points_put(svg, evaluation, err) &&
           (!band || svg_legend(svg, 0, "#b3ccf2", legend, err));
}

/* ---- reliability ----------------------------------------------------------------------------------------- */

static bool bin_put(struct svg *svg, const struct evaluation_bin *bin, int number, struct err *err) {
    double left = svg_x(svg, (double)number / EVALUATION_BINS), right = svg_x(svg, (number + 1.0) / EVALUATION_BINS);
    double share = bin->count ? (double)bin->nodules / (double)bin->count : 0, foot = svg_y(svg, 0);
    bool done =
        svg_put(svg, err, "<text x=\"%.2f\" y=\"%.2f\" text-anchor=\"middle\" font-size=\"11\">%zu/%zu</text>\n",
                (left + right) / 2, fmax(svg_y(svg, share) - 5, svg_y(svg, 1) + 12), bin->nodules, bin->count);
    if (!done || !bin->count)
        return done;
    return svg_put(svg, err,
                   "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"" BLUE
                   "\" fill-opacity=\"0.25\" stroke=\"" BLUE "\"/>"
                   "<circle cx=\"%.2f\" cy=\"%.2f\" r=\"4\" fill=\"" BLUE "\"/>\n",
                   left, svg_y(svg, share), right - left, foot - svg_y(svg, share), svg_x(svg, bin->probability),
                   svg_y(svg, share));
}

static bool reliability_plot(struct svg *svg, const struct evaluation *evaluation, struct err *err) {
    const struct evaluation_reliability *reliability = &evaluation->reliability;
    const struct svg_axis x = {"probability as stated", 0, 1, tenths, NULL, 11},
                          y = {"share of nodules", 0, 1, tenths, NULL, 11};
    char title[200];
    snprintf(title, sizeof title, "ECE %.3f (95 %%: %.3f to %.3f), %zu nodules of %zu candidates in %zu scans",
             reliability->ece, reliability->ece_low, reliability->ece_high, reliability->nodules,
             reliability->candidates, evaluation->scans);
    bool done = svg_start(svg, title, &x, &y, err) &&
                svg_put(svg, err, "<path d=\"M%.1f %.1fL%.1f %.1f\" stroke=\"" GREY "\" stroke-dasharray=\"5 4\"/>\n",
                        svg_x(svg, 0), svg_y(svg, 0), svg_x(svg, 1), svg_y(svg, 1));
    for (int bin = 0; done && bin < EVALUATION_BINS; bin++)
        done = bin_put(svg, &reliability->bins[bin], bin, err);
    return done &&
           svg_legend(svg, 0, BLUE, "bin: nodules/candidates; the dot stands at the bin's mean probability", err) &&
           svg_legend(svg, 1, GREY, "a probability that keeps its word", err);
}

/* ---- rejection ------------------------------------------------------------------------------------------- */

static const char *const colours[EVALUATION_MEASURES] = {GREY, BLUE, "#b8560b", "#6f42c1"};
static const char *const titles[EVALUATION_MEASURES] = {"1 - max probability", "mutual information",
                                                        "predictive entropy", "width of the interval"};

static bool rejection_put(struct svg *svg, const struct evaluation_rejection *rejection, int measure, int line,
                          struct err *err) {
    char legend[200];
    bool done = svg_put(svg, err, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"2\" d=\"", colours[measure]);
    for (int step = 0; done && step < EVALUATION_STEPS; step++)
        done = svg_put(svg, err, "%c%.2f %.2f", step ? 'L' : 'M', svg_x(svg, (double)step / EVALUATION_STEPS),
                       svg_y(svg, (double)rejection->right[step] / (double)rejection->kept[step]));
    snprintf(legend, sizeof legend, "%s: AUROC %.3f (95 %%: %.3f to %.3f); half rejected: %zu of %zu right",
             titles[measure], rejection->auroc, rejection->auroc_low, rejection->auroc_high,
             rejection->right[EVALUATION_STEPS / 2], rejection->kept[EVALUATION_STEPS / 2]);
    return done && svg_put(svg, err, "\"/>\n") && svg_legend(svg, line, colours[measure], legend, err);
}

static bool rejection_plot(struct svg *svg, const struct evaluation *evaluation, struct err *err) {
    static const double shares[] = {0.5, 0.6, 0.7, 0.8, 0.9, 1};
    const struct evaluation_triage *triage = &evaluation->triage;
    const struct svg_axis x = {"share of candidates rejected, most uncertain first", 0, 1, tenths, NULL, 11},
                          y = {"right decisions among the rest", 0.5, 1, shares, NULL, 6};
    char title[160];
    int line = 0;
    snprintf(title, sizeof title, "%zu of %zu decisions wrong before rejection", triage->wrong, triage->candidates);
    bool done = svg_start(svg, title, &x, &y, err);
    for (int measure = 0; done && measure < EVALUATION_MEASURES; measure++)
        if (triage->measures[measure].present)
            done = rejection_put(svg, &triage->measures[measure], measure, line++, err);
    return done;
}

/* ---- diameters ------------------------------------------------------------------------------------------- */

static bool level_put(struct svg *svg, double value_mm, const char *name, struct err *err) {
    return svg_put(svg, err,
                   "<path d=\"M%.1f %.1fH%.1f\" stroke=\"#b02a37\" stroke-dasharray=\"6 4\"/>"
                   "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\" fill=\"#b02a37\">%s %+.2f mm</text>\n",
                   svg_x(svg, svg->x.low), svg_y(svg, value_mm), svg_x(svg, svg->x.high), svg_x(svg, svg->x.high) - 6,
                   svg_y(svg, value_mm) - 5, name, value_mm);
}

static bool diameter_plot(struct svg *svg, const struct evaluation *evaluation, struct err *err) {
    static const double means[] = {0, 5, 10, 15, 20, 25, 30, 35},
                        differences[] = {-10, -8, -6, -4, -2, 0, 2, 4, 6, 8, 10};
    const struct evaluation_diameter *diameter = &evaluation->diameter;
    const struct svg_axis x = {"mean of the measured and the true diameter, mm", 0, 35, means, NULL, 8},
                          y = {"measured less true diameter, mm", -10, 10, differences, NULL, 11};
    char title[200];
    snprintf(title, sizeof title, "%zu nodules; absolute error: median %.2f mm, 95th percentile %.2f mm",
             diameter->count, diameter->median_absolute_mm, diameter->p95_absolute_mm);
    bool done = svg_start(svg, title, &x, &y, err);
    for (size_t n = 0; done && n < diameter->count; n++)
        done = svg_put(svg, err, "<circle cx=\"%.2f\" cy=\"%.2f\" r=\"3.5\" fill=\"" BLUE "\" fill-opacity=\"0.6\"/>\n",
                       svg_x(svg, diameter->mean_mm[n]), svg_y(svg, diameter->difference_mm[n]));
    return done && level_put(svg, diameter->bias_mm, "bias", err) &&
           level_put(svg, diameter->limit_low_mm, "lower limit", err) &&
           level_put(svg, diameter->limit_high_mm, "upper limit", err) &&
           svg_legend(svg, 0, BLUE, "a nodule found; what lies beyond the frame is drawn on its edge", err) &&
           svg_legend(svg, 1, "#b02a37", "bias and limits of agreement, bias -+ 1.96 standard deviations", err);
}

bool evaluation_plot_svg(const struct evaluation *evaluation, enum evaluation_plot plot, const char *path,
                         struct err *err) {
    static bool (*const draw[EVALUATION_PLOTS])(struct svg *, const struct evaluation *, struct err *) = {
        froc_plot, reliability_plot, rejection_plot, diameter_plot};
    struct svg svg = {0};
    if (!evaluation_plot_has(evaluation, plot))
        return err_set(err, ERR_INPUT, "the marks lack what the plot \"%s\" shows", evaluation_plot_name(plot));
    bool done = draw[plot](&svg, evaluation, err) && svg_write(&svg, path, err);
    bytes_free(&svg.text);
    return done;
}
