#include "svg.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#define SVG_SIZE_MAX ((size_t)16 << 20)
#define LEFT 70.0
#define TOP 44.0
#define WIDTH 560.0
#define HEIGHT 400.0
#define LEGEND_TOP (TOP + HEIGHT + 68)
#define LEGEND_STEP 20

double svg_x(const struct svg *svg, double value) {
    return LEFT + WIDTH * (fmin(fmax(value, svg->x.low), svg->x.high) - svg->x.low) / (svg->x.high - svg->x.low);
}

double svg_y(const struct svg *svg, double value) {
    return TOP + HEIGHT * (svg->y.high - fmin(fmax(value, svg->y.low), svg->y.high)) / (svg->y.high - svg->y.low);
}

bool svg_put(struct svg *svg, struct err *err, const char *format, ...) {
    char text[768];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= sizeof text)
        return err_set(err, ERR_INTERNAL, "a line of a plot is too long");
    return bytes_append(&svg->text, text, (size_t)length, SVG_SIZE_MAX, err);
}

static void tick_label(const struct svg_axis *axis, int tick, char out[32]) {
    if (axis->labels)
        snprintf(out, 32, "%s", axis->labels[tick]);
    else
        snprintf(out, 32, "%g", axis->ticks[tick]);
}

static bool put_ticks(struct svg *svg, struct err *err) {
    char label[32];
    bool done = true;
    for (int n = 0; done && n < svg->x.tick_count; n++) {
        tick_label(&svg->x, n, label);
        double x = svg_x(svg, svg->x.ticks[n]);
        done = svg_put(svg, err,
                       "<path d=\"M%.1f %.1fV%.1f\" stroke=\"#ddd\"/><text x=\"%.1f\" y=\"%.1f\" "
                       "text-anchor=\"middle\">%s</text>\n",
                       x, TOP, TOP + HEIGHT, x, TOP + HEIGHT + 20, label);
    }
    for (int n = 0; done && n < svg->y.tick_count; n++) {
        tick_label(&svg->y, n, label);
        double y = svg_y(svg, svg->y.ticks[n]);
        done = svg_put(svg, err,
                       "<path d=\"M%.1f %.1fH%.1f\" stroke=\"#ddd\"/><text x=\"%.1f\" y=\"%.1f\" "
                       "text-anchor=\"end\">%s</text>\n",
                       LEFT, y, LEFT + WIDTH, LEFT - 8, y + 4, label);
    }
    return done;
}

bool svg_start(struct svg *svg, const char *title, const struct svg_axis *x, const struct svg_axis *y,
               struct err *err) {
    *svg = (struct svg){.x = *x, .y = *y};
    return svg_put(svg, err,
                   "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 660 600\" font-family=\"sans-serif\" "
                   "font-size=\"13\" fill=\"#222\">\n<rect width=\"660\" height=\"600\" fill=\"#fff\"/>\n"
                   "<text x=\"%.1f\" y=\"26\" font-size=\"14\">%s</text>\n",
                   LEFT, title) &&
           put_ticks(svg, err) &&
           svg_put(svg, err,
                   "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"none\" stroke=\"#555\"/>\n"
                   "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n"
                   "<text transform=\"translate(22 %.1f) rotate(-90)\" text-anchor=\"middle\">%s</text>\n",
                   LEFT, TOP, WIDTH, HEIGHT, LEFT + WIDTH / 2, TOP + HEIGHT + 44, x->title, TOP + HEIGHT / 2, y->title);
}

bool svg_legend(struct svg *svg, int line, const char *colour, const char *text, struct err *err) {
    double y = LEGEND_TOP + LEGEND_STEP * line;
    return svg_put(svg, err,
                   "<path d=\"M%.1f %.1fh24\" stroke=\"%s\" stroke-width=\"3\"/><text x=\"%.1f\" y=\"%.1f\">%s"
                   "</text>\n",
                   LEFT, y - 4, colour, LEFT + 32, y, text);
}

bool svg_write(struct svg *svg, const char *path, struct err *err) {
    return svg_put(svg, err, "</svg>\n") && bytes_write_file(path, svg->text.data, svg->text.size, false, err);
}
