/* The arithmetic around the networks, one voxel, cell or mark at a time, for host and device alike: resampling,
 * cutting of tiles, decoding (models/README.md, Frame and Decoding). */
#ifndef PULMO_INFER_CUDA_FRAME_H
#define PULMO_INFER_CUDA_FRAME_H

#include <math.h>

#include "infer/cuda/half.h"
#include "infer/cuda/plugin.h"

#define FRAME_STRIDE 4       /* voxels a heatmap cell */
#define FRAME_MAP_CHANNELS 5 /* heatmap, offset z, y, x, log diameter */
#define FRAME_EMPTY_LOGIT (-20.0F)

/* ---- resampling ---------------------------------------------------------------------------------------------------
 */

/* Two neighbours along an axis of the source and what they weigh (volume/resample.c, taps_linear). */
struct frame_taps {
    int32_t first, count;
    float weight[2];
};

DEVICE_BOTH static inline struct frame_taps frame_taps_of(const struct cuda_resample *r, int axis, int32_t index) {
    struct frame_taps taps;
    int32_t size = r->source_size[axis];
    double at = fmin(index * r->step[axis], (double)(size - 1));
    at = r->reversed[axis] ? size - 1 - at : at;
    int32_t low = (int32_t)at;
    if (low > size - 2)
        low = size > 1 ? size - 2 : 0;
    taps.first = low;
    taps.count = size > 1 ? 2 : 1;
    taps.weight[0] = size > 1 ? (float)(1 - (at - low)) : 1;
    taps.weight[1] = size > 1 ? (float)(at - low) : 0;
    return taps;
}

/* Sums along y, then x, then z, as volume_resample_iso does: the same bits. */
DEVICE_BOTH static inline int16_t frame_resample(const struct cuda_resample *r, const int16_t *hu, uint32_t index) {
    uint32_t wide = (uint32_t)r->size[0], high = (uint32_t)r->size[1];
    struct frame_taps x = frame_taps_of(r, 0, (int32_t)(index % wide));
    struct frame_taps y = frame_taps_of(r, 1, (int32_t)(index / wide % high));
    struct frame_taps z = frame_taps_of(r, 2, (int32_t)(index / wide / high));
    int64_t columns = r->source_size[0], plane = columns * r->source_size[1];
    float sum = 0;
    for (int k = 0; k < z.count; k++) {
        float across = 0;
        for (int i = 0; i < x.count; i++) {
            float row = 0;
            for (int j = 0; j < y.count; j++)
                row += y.weight[j] * (float)hu[(z.first + k) * plane + (y.first + j) * columns + x.first + i];
            across += x.weight[i] * row;
        }
        sum += z.weight[k] * across;
    }
    return (int16_t)lrintf(sum);
}

/* ---- tiles --------------------------------------------------------------------------------------------------------
 */

/* Voxel `index` of a cube of `side` voxels that starts at start (i, j, k): HU to 0 .. 1, 0 outside the volume. */
DEVICE_BOTH static inline float frame_voxel(const int16_t *hu, const int32_t size_ijk[3], const int32_t start[3],
                                            int32_t side, uint32_t index) {
    int32_t i = start[0] + (int32_t)(index % (uint32_t)side), j = start[1] + (int32_t)(index / (uint32_t)side) % side;
    int32_t k = start[2] + (int32_t)(index / (uint32_t)side) / side;
    if (i < 0 || j < 0 || k < 0 || i >= size_ijk[0] || j >= size_ijk[1] || k >= size_ijk[2])
        return 0;
    int32_t value = hu[((int64_t)k * size_ijk[1] + j) * size_ijk[0] + i];
    value = value < -1024 ? -1024 : value > 608 ? 608 : value;
    return (float)(value + 1024) / 1632.0F;
}

/* Where cell `index` of a tile's heatmap belongs in the map of the whole volume, or -1 in the margin and outside. */
DEVICE_BOTH static inline int64_t frame_cell(const struct cuda_detect *d, const int32_t start[3], uint32_t index) {
    int32_t side = d->tile / FRAME_STRIDE, edge = d->margin / FRAME_STRIDE, at[3], place[3];
    at[2] = (int32_t)(index % (uint32_t)side);
    at[1] = (int32_t)(index / (uint32_t)side) % side;
    at[0] = (int32_t)(index / (uint32_t)side) / side;
    for (int axis = 0; axis < 3; axis++) {
        place[axis] = (start[2 - axis] + d->margin) / FRAME_STRIDE + at[axis] - edge;
        if (at[axis] < edge || at[axis] >= side - edge || place[axis] >= d->cells[axis])
            return -1;
    }
    return ((int64_t)place[0] * d->cells[1] + place[1]) * d->cells[2] + place[2];
}

/* ---- marks --------------------------------------------------------------------------------------------------------
 */

/* Strictly above the 13 neighbours before it in [k][j][i] order, at least as high as the 13 behind it. */
DEVICE_BOTH static inline bool frame_is_peak(const float *heat, const int32_t cells[3], const int32_t at[3]) {
    float own = heat[((int64_t)at[0] * cells[1] + at[1]) * cells[2] + at[2]];
    for (int n = 0; n < 27; n++) {
        int32_t k = at[0] + n / 9 - 1, j = at[1] + n / 3 % 3 - 1, i = at[2] + n % 3 - 1;
        if (n == 13 || k < 0 || j < 0 || i < 0 || k >= cells[0] || j >= cells[1] || i >= cells[2])
            continue;
        float other = heat[((int64_t)k * cells[1] + j) * cells[2] + i];
        if (n < 13 ? own <= other : own < other)
            return false;
    }
    return true;
}

DEVICE_BOTH static inline double frame_clip(float value, float low, float high) {
    return (double)(value < low ? low : value > high ? high : value);
}

DEVICE_BOTH static inline struct cuda_mark frame_mark(const struct cuda_detect *d, const float *maps, int64_t cell) {
    struct cuda_mark mark;
    int64_t whole = (int64_t)d->cells[0] * d->cells[1] * d->cells[2];
    int64_t at[3] = {cell / d->cells[2] / d->cells[1], cell / d->cells[2] % d->cells[1], cell % d->cells[2]};
    for (int axis = 0; axis < 3; axis++)
        mark.at[axis] = (double)(at[axis] * FRAME_STRIDE) + (FRAME_STRIDE - 1) / 2.0 +
                        frame_clip(maps[(1 + axis) * whole + cell], -8, 8);
    mark.diameter_mm = exp(frame_clip(maps[4 * whole + cell], 0.7F, 4.4F));
    mark.logit = (double)maps[cell];
    mark.cell = cell;
    return mark;
}

/* Whether a row of the mask holds lung in [low, high], clipped to the grid. */
DEVICE_BOTH static inline bool frame_row_has_lung(const uint8_t *row, int32_t columns, int32_t low, int32_t high) {
    low = low < 0 ? 0 : low;
    high = high < columns ? high : columns - 1;
    for (int32_t i = low; i <= high; i++)
        if (row[i])
            return true;
    return false;
}

/* Lung within the mark's radius, at least 3 mm, of its nearest voxel (round half to even). */
DEVICE_BOTH static inline bool frame_near_lung(const struct cuda_detect *d, const uint8_t *lungs,
                                               const struct cuda_mark *mark) {
    const int32_t *size = d->size_ijk;
    double reach = fmax(3.0, mark->diameter_mm / 2);
    int32_t centre[3], span = (int32_t)reach;
    for (int axis = 0; axis < 3; axis++) {
        double voxel = rint(mark->at[axis]), last = size[2 - axis] - 1;
        centre[axis] = (int32_t)(voxel < 0 ? 0 : voxel > last ? last : voxel);
    }
    for (int32_t dk = -span; dk <= span; dk++)
        for (int32_t dj = -span; dj <= span; dj++) {
            int32_t k = centre[0] + dk, j = centre[1] + dj;
            double rest = reach * reach - (double)(dk * dk + dj * dj);
            if (rest < 0 || k < 0 || j < 0 || k >= size[2] || j >= size[1])
                continue;
            int32_t wide = (int32_t)sqrt(rest);
            if (frame_row_has_lung(lungs + ((int64_t)k * size[1] + j) * size[0], size[0], centre[2] - wide,
                                   centre[2] + wide))
                return true;
        }
    return false;
}

/* Best first; equal logits in the order of their cells. */
DEVICE_BOTH static inline bool frame_better(const struct cuda_mark *a, const struct cuda_mark *b) {
    return a->logit != b->logit ? a->logit > b->logit : a->cell < b->cell;
}

/* Whether a kept mark drops the other: nearer than half of the greater diameter, at least 6 mm. */
DEVICE_BOTH static inline bool frame_suppresses(const struct cuda_mark *kept, const struct cuda_mark *mark) {
    double square = 0, reach = fmax(fmax(kept->diameter_mm, mark->diameter_mm), 6.0) / 2;
    for (int axis = 0; axis < 3; axis++)
        square += (mark->at[axis] - kept->at[axis]) * (mark->at[axis] - kept->at[axis]);
    return sqrt(square) < reach;
}

#endif
