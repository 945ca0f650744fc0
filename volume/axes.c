/* Long and short axis as RECIST 1.1 draws them (Eisenhauer et al., European Journal of Cancer 45, 2009): the longest
 * diameter in the axial slice, and the longest one perpendicular to it. */
#include "volume/segment.h"

#include <math.h>
#include <stdlib.h>

#define STEPS_PER_PIXEL 4 /* of the lines that look for the short axis */

struct slice { /* one slice of a mask, in mm: x = i * spacing[0], y = j * spacing[1] */
    const uint8_t *voxel;
    int32_t columns, rows;
    double spacing_mm[2];
};

struct points { /* where the outline crosses from a pixel to its neighbour */
    double (*xy_mm)[2];
    size_t count;
};

static bool is_set(const struct slice *slice, int32_t i, int32_t j) {
    return i >= 0 && j >= 0 && i < slice->columns && j < slice->rows &&
           slice->voxel[(size_t)j * (size_t)slice->columns + (size_t)i];
}

static struct slice largest_slice(const struct mask *mask, int32_t *k_out) {
    const int32_t *size = mask->grid.size_ijk;
    size_t plane = (size_t)size[0] * (size_t)size[1], most = 0;
    *k_out = 0;
    for (int32_t k = 0; k < size[2]; k++) {
        size_t area = 0;
        for (size_t n = 0; n < plane; n++)
            area += mask->voxel[plane * (size_t)k + n] != 0;
        *k_out = area > most ? k : *k_out;
        most = area > most ? area : most;
    }
    return (struct slice){
        mask->voxel + plane * (size_t)*k_out, size[0], size[1], {mask->grid.spacing_mm[0], mask->grid.spacing_mm[1]}};
}

static bool outline(const struct slice *slice, struct points *points, struct err *err) {
    static const int way[4][2] = {{1, 0}, {0, 1}, {-1, 0}, {0, -1}};
    points->xy_mm = pulmo_alloc(4 * (size_t)slice->columns * (size_t)slice->rows, sizeof *points->xy_mm, err);
    if (!points->xy_mm)
        return false;
    for (int32_t j = 0; j < slice->rows; j++)
        for (int32_t i = 0; i < slice->columns; i++)
            for (int n = 0; is_set(slice, i, j) && n < 4; n++) {
                if (is_set(slice, i + way[n][0], j + way[n][1]))
                    continue;
                double *xy = points->xy_mm[points->count++];
                xy[0] = (i + 0.5 * way[n][0]) * slice->spacing_mm[0];
                xy[1] = (j + 0.5 * way[n][1]) * slice->spacing_mm[1];
            }
    return true;
}

/* The two points farthest apart: their distance, and the unit vector from one to the other. */
static double farthest(const struct points *points, double along[2]) {
    double best = 0;
    for (size_t a = 0; a < points->count; a++)
        for (size_t b = a + 1; b < points->count; b++) {
            double x = points->xy_mm[b][0] - points->xy_mm[a][0], y = points->xy_mm[b][1] - points->xy_mm[a][1];
            double length = sqrt(x * x + y * y);
            if (length <= best)
                continue;
            best = length;
            along[0] = x / length;
            along[1] = y / length;
        }
    return best;
}

/* The longest run inside the mask on the line through `at` along `across`, from -reach to reach. */
static double longest_run(const struct slice *slice, const double at_mm[2], const double across[2], double reach_mm) {
    double step = fmin(slice->spacing_mm[0], slice->spacing_mm[1]) / STEPS_PER_PIXEL, run = 0, best = 0;
    for (double w = -reach_mm; w <= reach_mm; w += step) {
        int32_t i = (int32_t)lround((at_mm[0] + w * across[0]) / slice->spacing_mm[0]);
        int32_t j = (int32_t)lround((at_mm[1] + w * across[1]) / slice->spacing_mm[1]);
        run = is_set(slice, i, j) ? run + step : 0;
        best = fmax(best, run);
    }
    return best;
}

static double longest_across(const struct slice *slice, const struct points *points, const double along[2],
                             double long_mm) {
    const double across[2] = {-along[1], along[0]};
    double best = 0;
    for (size_t n = 0; n < points->count; n++) /* every line that matters passes near a point of the outline */
        best = fmax(best, longest_run(slice, points->xy_mm[n], across, long_mm));
    return fmin(best, long_mm);
}

bool segment_axes_measure(const struct mask *mask, struct segment_axes *out, struct err *err) {
    struct segment_axes axes = {0};
    struct slice slice = largest_slice(mask, &axes.k);
    struct points points = {0};
    bool traced = outline(&slice, &points, err);
    if (traced) {
        double along[2] = {1, 0};
        axes.long_mm = farthest(&points, along);
        axes.short_mm = longest_across(&slice, &points, along, axes.long_mm);
        *out = axes;
    }
    free(points.xy_mm);
    return traced;
}
