#include "app/bench_study.h"

#include "svg.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define POINTS_MAX 64
#define TICKS_MAX 9
#define BLUE "#0a58ca"
#define ORANGE "#b8560b"

struct point {
    double x, clock_s, processor_s, peak_mib;
};
struct points {
    const char *along, *title; /* name of the x axis */
    struct point items[POINTS_MAX];
    size_t count;
};

static int by_x(const void *left, const void *right) {
    const struct point *a = left, *b = right;
    return (a->x > b->x) - (a->x < b->x);
}

static void point_add(struct points *points, double x, const struct bench_study_row *row) {
    if (points->count < POINTS_MAX)
        points->items[points->count++] =
            (struct point){x, row->wall_s[BENCH_TOTAL], row->processor_s[BENCH_TOTAL], row->peak_mib};
}

/* From 0 to at least `most`, by a step of 1, 2 or 5 times a power of ten. */
static struct svg_axis axis_make(const char *title, double most, double ticks[TICKS_MAX]) {
    static const double factors[] = {1, 2, 5, 10};
    double power = pow(10, floor(log10(fmax(most, 1e-3) / (TICKS_MAX - 1)))), step = 0;
    for (size_t n = 0; n < sizeof factors / sizeof *factors && step * (TICKS_MAX - 1) < most; n++)
        step = factors[n] * power;
    int count = (int)ceil(most / step) + 1;
    for (int n = 0; n < count && n < TICKS_MAX; n++)
        ticks[n] = n * step;
    return (struct svg_axis){.title = title, .high = (count - 1) * step, .ticks = ticks, .tick_count = count};
}

static double value_of(const struct point *point, int which) {
    const double values[] = {point->clock_s, point->processor_s, point->peak_mib};
    return values[which];
}

static bool line_put(struct svg *svg, const struct points *points, int which, const char *colour, struct err *err) {
    bool done = svg_put(svg, err, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"2\" d=\"", colour);
    for (size_t n = 0; done && n < points->count; n++)
        done = svg_put(svg, err, "%c%.1f %.1f", n ? 'L' : 'M', svg_x(svg, points->items[n].x),
                       svg_y(svg, value_of(&points->items[n], which)));
    done = done && svg_put(svg, err, "\"/>\n");
    for (size_t n = 0; done && n < points->count; n++) {
        double x = svg_x(svg, points->items[n].x), y = svg_y(svg, value_of(&points->items[n], which));
        done = svg_put(svg, err, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"/>", x, y, colour) &&
               svg_put(svg, err, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\" font-size=\"11\">%.*f</text>\n", x,
                       y - 8, which == 2 ? 0 : 1, value_of(&points->items[n], which));
    }
    return done;
}

static bool plot_write(const struct points *points, bool memory, const char *folder, struct err *err) {
    double most_x = 0, most_y = 0, x_ticks[TICKS_MAX], y_ticks[TICKS_MAX];
    char path[4200];
    struct svg svg = {0};
    int first = memory ? 2 : 0, last = memory ? 2 : 1;
    for (size_t n = 0; n < points->count; n++) {
        most_x = fmax(most_x, points->items[n].x);
        for (int which = first; which <= last; which++)
            most_y = fmax(most_y, value_of(&points->items[n], which));
    }
    struct svg_axis x = axis_make(points->title, most_x, x_ticks),
                    y = axis_make(memory ? "peak memory of the process, MiB" : "seconds", most_y, y_ticks);
    snprintf(path, sizeof path, "%s/study-%s-%s.svg", folder, points->along, memory ? "memory" : "seconds");
    bool done =
        svg_start(&svg, memory ? "Memory of a study" : "Time of a study, from files to findings and maps", &x, &y, err);
    if (memory)
        done = done && line_put(&svg, points, 2, BLUE, err);
    else
        done = done && line_put(&svg, points, 1, ORANGE, err) && line_put(&svg, points, 0, BLUE, err) &&
               svg_legend(&svg, 0, BLUE, "by the clock", err) &&
               svg_legend(&svg, 1, ORANGE, "time of the processors", err);
    done = done && svg_write(&svg, path, err);
    bytes_free(&svg.text);
    return done;
}

bool bench_study_plot(const struct bench_study_row *rows, size_t count, const char *folder, struct err *err) {
    struct points sets[] = {{.along = "slices", .title = "slices"}, {.along = "candidates", .title = "candidates"}};
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return err_set(err, ERR_IO, "cannot make the folder %.1000s: %s", folder, strerror(errno));
    for (size_t n = 0; n < count; n++) {
        if (rows[n].nodules == rows[0].nodules)
            point_add(&sets[0], (double)rows[n].slices, &rows[n]);
        if (rows[n].slices == rows[0].slices)
            point_add(&sets[1], rows[n].candidates, &rows[n]);
    }
    for (size_t set = 0; set < sizeof sets / sizeof *sets; set++) {
        qsort(sets[set].items, sets[set].count, sizeof *sets[set].items, by_x);
        if (!plot_write(&sets[set], false, folder, err) || !plot_write(&sets[set], true, folder, err))
            return false;
    }
    return true;
}
