/* A framed plot as SVG text: dark on white, axes with ticks. */
#ifndef PULMO_SVG_H
#define PULMO_SVG_H

#include "pulmo.h"

struct svg_axis {
    const char *title;
    double low, high;
    const double *ticks;
    const char *const *labels; /* [tick_count]; NULL: the numbers themselves */
    int tick_count;
};
struct svg {
    struct bytes text;
    struct svg_axis x, y;
};
/* Begins a plot: white ground, grid, axes and titles. Frees with bytes_free(&svg->text), also after a failure. */
bool svg_start(struct svg *svg, const char *title, const struct svg_axis *x, const struct svg_axis *y,
               struct err *err) PULMO_MUST_USE;
/* From values to the picture, held within the frame. */
double svg_x(const struct svg *svg, double value);
double svg_y(const struct svg *svg, double value);
bool svg_put(struct svg *svg, struct err *err, const char *format, ...) PULMO_PRINTF(3, 4);
/* A line of the legend, number `line` from 0, below the plot, with a stroke of its colour. */
bool svg_legend(struct svg *svg, int line, const char *colour, const char *text, struct err *err) PULMO_MUST_USE;
bool svg_write(struct svg *svg, const char *path, struct err *err) PULMO_MUST_USE;

#endif
