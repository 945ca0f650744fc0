/* Outlines by following the cracks between set and unset pixels: marching squares on a binary image. A step goes from
 * one crack's midpoint to the next with the set pixels at one hand; pixels that share a corner only are apart. */
#include "volume/volume.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ALIGNED_VOXELS 1e-2 /* how far a mask's voxel may lie from the source's */

static const int32_t way[4][2] = {{1, 0}, {0, 1}, {-1, 0}, {0, -1}}; /* east, south, west, north */

struct tracer {
    const uint8_t *voxel; /* one slice */
    uint8_t *seen;        /* bit d: the crack towards way[d] was walked */
    int32_t columns, rows, low[3];
};

struct crack { /* of pixel (x, y), which is set, towards way[side], which is not */
    int32_t x, y, side;
};

static bool is_set(const struct tracer *tracer, int32_t x, int32_t y) {
    return x >= 0 && y >= 0 && x < tracer->columns && y < tracer->rows &&
           tracer->voxel[(size_t)y * (size_t)tracer->columns + (size_t)x];
}

static bool is_crack(const struct tracer *tracer, int32_t x, int32_t y, int32_t side) {
    return is_set(tracer, x, y) && !is_set(tracer, x + way[side][0], y + way[side][1]);
}

static struct crack next_crack(const struct tracer *tracer, struct crack at) {
    int32_t turn = (at.side + 1) % 4;
    int32_t x = at.x + way[turn][0], y = at.y + way[turn][1]; /* ahead, on our side */
    if (!is_set(tracer, x, y))
        return (struct crack){at.x, at.y, turn};
    if (!is_set(tracer, x + way[at.side][0], y + way[at.side][1]))
        return (struct crack){x, y, at.side};
    return (struct crack){x + way[at.side][0], y + way[at.side][1], (at.side + 3) % 4};
}

static uint8_t *seen_at(const struct tracer *tracer, struct crack at) {
    return &tracer->seen[(size_t)at.y * (size_t)tracer->columns + (size_t)at.x];
}

static size_t path_length(const struct tracer *tracer, struct crack start) {
    size_t count = 0;
    struct crack at = start;
    do {
        count++;
        at = next_crack(tracer, at);
    } while (at.x != start.x || at.y != start.y || at.side != start.side);
    return count;
}

static bool path_take(const struct tracer *tracer, struct crack start, int32_t k, struct volume_contour *out,
                      struct err *err) {
    *out = (struct volume_contour){.k = k, .count = path_length(tracer, start)};
    out->points = pulmo_alloc(out->count, sizeof *out->points, err);
    struct crack at = start;
    for (size_t n = 0; out->points && n < out->count; n++) {
        out->points[n][0] = tracer->low[0] + at.x + 0.5 * way[at.side][0];
        out->points[n][1] = tracer->low[1] + at.y + 0.5 * way[at.side][1];
        *seen_at(tracer, at) |= (uint8_t)(1U << at.side);
        at = next_crack(tracer, at);
    }
    return out->points != NULL;
}

static struct volume_contour *contours_grow(struct volume_contours *contours, struct err *err) {
    if ((contours->count & (contours->count - 1)) == 0) { /* full at every power of two */
        size_t capacity = contours->count ? 2 * contours->count : 1;
        struct volume_contour *grown = realloc(contours->items, capacity * sizeof *grown);
        if (!grown) {
            err_set(err, ERR_MEMORY, "out of memory for %zu contours", capacity);
            return NULL;
        }
        contours->items = grown;
    }
    return &contours->items[contours->count];
}

static bool slice_trace(const struct tracer *tracer, int32_t k, struct volume_contours *out, struct err *err) {
    for (int32_t y = 0; y < tracer->rows; y++)
        for (int32_t x = 0; x < tracer->columns; x++)
            for (int32_t side = 0; side < 4; side++) {
                struct crack start = {x, y, side};
                if (!is_crack(tracer, x, y, side) || *seen_at(tracer, start) >> side & 1)
                    continue;
                struct volume_contour *item = contours_grow(out, err);
                if (!item || !path_take(tracer, start, k, item, err))
                    return false;
                out->count++;
            }
    return true;
}

/* Where the mask's first voxel lies in the source. */
static bool box_low(const struct grid *mask, const struct grid *source, int32_t low[3], struct err *err) {
    double first[3], last[3];
    const double corner_lps[3] = {mask->ijk_to_lps_mm[0][3], mask->ijk_to_lps_mm[1][3], mask->ijk_to_lps_mm[2][3]};
    double end_lps[3];
    grid_to_lps(mask, (double[3]){mask->size_ijk[0] - 1, mask->size_ijk[1] - 1, mask->size_ijk[2] - 1}, end_lps);
    if (!grid_to_ijk(source, corner_lps, first) || !grid_to_ijk(source, end_lps, last))
        return err_set(err, ERR_INPUT, "the source's axes do not span space");
    for (int axis = 0; axis < 3; axis++) {
        double at = round(first[axis]), end = at + mask->size_ijk[axis] - 1;
        if (!(fabs(first[axis] - at) < ALIGNED_VOXELS && fabs(last[axis] - end) < ALIGNED_VOXELS && at >= 0 &&
              end < source->size_ijk[axis]))
            return err_set(err, ERR_INPUT, "a mask is no box of its source: axis %d from %.2f to %.2f of %d", axis,
                           first[axis], last[axis], (int)source->size_ijk[axis]);
        low[axis] = (int32_t)at;
    }
    return true;
}

bool volume_contours_trace(const struct mask *mask, const struct grid *source, struct volume_contours *out,
                           struct err *err) {
    const int32_t *size = mask->grid.size_ijk;
    size_t plane = (size_t)size[0] * (size_t)size[1];
    struct tracer tracer = {.columns = size[0], .rows = size[1]};
    if (!box_low(&mask->grid, source, tracer.low, err))
        return false;
    PULMO_SCOPED(pulmo_free_at) uint8_t *seen = pulmo_alloc(plane, 1, err);
    if (!seen)
        return false;
    PULMO_SCOPED(volume_contours_free) struct volume_contours contours = {0};
    tracer.seen = seen;
    for (int32_t k = 0; k < size[2]; k++) {
        tracer.voxel = mask->voxel + plane * (size_t)k;
        memset(seen, 0, plane);
        if (!slice_trace(&tracer, tracer.low[2] + k, &contours, err))
            return false;
    }
    *out = contours;
    contours = (struct volume_contours){0};
    return true;
}

void volume_contours_free(struct volume_contours *contours) {
    for (size_t n = 0; n < contours->count; n++)
        free(contours->items[n].points);
    free(contours->items);
    *contours = (struct volume_contours){0};
}
