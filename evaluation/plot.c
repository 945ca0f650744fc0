/* The FROC curve as SVG: text, so that it can be compared and needs no library. */
#include "evaluation/evaluation.h"
#include "evaluation/froc.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#define SVG_SIZE_MAX ((size_t)16 << 20)
#define LEFT 70.0
#define TOP 40.0
#define PLOT_WIDTH 560.0
#define PLOT_HEIGHT 400.0
#define CURVE_POINTS_MAX 2000

static bool put(struct bytes *svg, struct err *err, const char *format, ...) PULMO_PRINTF(3, 4);
static bool put(struct bytes *svg, struct err *err, const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= sizeof text)
        return err_set(err, ERR_INTERNAL, "a line of a plot is too long");
    return bytes_append(svg, text, (size_t)length, SVG_SIZE_MAX, err);
}

/* log2 of the rate from 1/8 to 8 */
static double plot_x(double fp_per_scan) {
    return LEFT + PLOT_WIDTH * (fmin(fmax(log2(fmax(fp_per_scan, 1e-9)), -3), 3) + 3) / 6;
}

static double plot_y(double sensitivity) {
    return TOP + PLOT_HEIGHT * (1 - sensitivity);
}

static bool put_axes(struct bytes *svg, struct err *err) {
    static const char *const labels[EVALUATION_POINTS] = {"1/8", "1/4", "1/2", "1", "2", "4", "8"};
    bool done = put(svg, err,
                    "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 660 510\" font-family=\"sans-serif\" "
                    "font-size=\"13\">\n<rect width=\"660\" height=\"510\" fill=\"#fff\"/>\n");
    for (int n = 0; done && n < EVALUATION_POINTS; n++)
        done = put(svg, err,
                   "<path d=\"M%.1f %.1fV%.1f\" stroke=\"#ddd\"/><text x=\"%.1f\" y=\"%.1f\" "
                   "text-anchor=\"middle\">%s</text>\n",
                   plot_x(froc_rates[n]), TOP, TOP + PLOT_HEIGHT, plot_x(froc_rates[n]), TOP + PLOT_HEIGHT + 20,
                   labels[n]);
    for (int n = 0; done && n <= 10; n++)
        done = put(svg, err,
                   "<path d=\"M%.1f %.1fH%.1f\" stroke=\"#ddd\"/><text x=\"%.1f\" y=\"%.1f\" "
                   "text-anchor=\"end\">%.1f</text>\n",
                   LEFT, plot_y(n / 10.0), LEFT + PLOT_WIDTH, LEFT - 8, plot_y(n / 10.0) + 4, n / 10.0);
    return done && put(svg, err,
                       "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">false positives a scan</text>\n"
                       "<text transform=\"translate(22 %.1f) rotate(-90)\" text-anchor=\"middle\">sensitivity</text>\n",
                       LEFT + PLOT_WIDTH / 2, TOP + PLOT_HEIGHT + 45, TOP + PLOT_HEIGHT / 2);
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

static bool put_curve(struct bytes *svg, const struct evaluation *evaluation, struct err *err) {
    size_t at = 0;
    bool done = put(svg, err, "<path fill=\"none\" stroke=\"#06c\" stroke-width=\"2\" d=\"");
    for (int n = 0; done && n <= CURVE_POINTS_MAX; n++) {
        double rate = exp2(-3 + 6.0 * n / CURVE_POINTS_MAX);
        done = put(svg, err, "%c%.2f %.2f", n ? 'L' : 'M', plot_x(rate), plot_y(curve_at(evaluation, rate, &at)));
    }
    return done && put(svg, err, "\"/>\n");
}

static bool put_points(struct bytes *svg, const struct evaluation *evaluation, struct err *err) {
    bool done = true;
    for (int n = 0; done && n < EVALUATION_POINTS; n++) {
        double x = plot_x(froc_rates[n]), y = plot_y(evaluation->sensitivity[n]);
        done = put(svg, err, "<circle cx=\"%.2f\" cy=\"%.2f\" r=\"4\" fill=\"#06c\"><title>%.3f</title></circle>\n", x,
                   y, evaluation->sensitivity[n]);
        if (done && evaluation->cpm_high > 0)
            done = put(svg, err, "<path d=\"M%.2f %.2fV%.2f\" stroke=\"#06c\"/>\n", x,
                       plot_y(evaluation->sensitivity_low[n]), plot_y(evaluation->sensitivity_high[n]));
    }
    return done;
}

bool evaluation_plot_svg(const struct evaluation *evaluation, const char *path, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes svg = {0};
    if (!put_axes(&svg, err) || !put_curve(&svg, evaluation, err) || !put_points(&svg, evaluation, err))
        return false;
    bool titled = evaluation->cpm_high > 0
                      ? put(&svg, err, "<text x=\"%.1f\" y=\"24\">CPM %.3f (95 %%: %.3f to %.3f), ", LEFT,
                            evaluation->cpm, evaluation->cpm_low, evaluation->cpm_high)
                      : put(&svg, err, "<text x=\"%.1f\" y=\"24\">CPM %.3f, ", LEFT, evaluation->cpm);
    if (!titled || !put(&svg, err, "%zu nodules in %zu scans</text>\n</svg>\n", evaluation->nodules, evaluation->scans))
        return false;
    return bytes_write_file(path, svg.data, svg.size, false, err);
}
