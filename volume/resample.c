/* Resampling to an isotropic canonical grid.
 *
 * The usual CT is aligned with the patient's axes: then the work is separable, one source slice at a time, and costs
 * about one pass over the source. A tilted or rotated grid is gathered voxel by voxel. */
#include "volume/volume.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "workers.h"

#define HU_OUTSIDE (-1024)
#define ALIGNED_COSINE 0.99995 /* 0.6 degrees: less than a voxel across a lung at 1 mm */
#define AVERAGE_FROM 1.999     /* an axis that shrinks by this factor or more is averaged, below it is interpolated */
#define ISO_SIDE_MAX 2048

/* What one axis of the output reads from one axis of the source: weights of up to `width` neighbours. */
struct taps {
    int32_t size, width;
    int32_t *first; /* [size] */
    float *weight;  /* [size][width] */
};

static void taps_free_at(struct taps *taps) {
    free(taps->first);
    free(taps->weight);
}

/* Linear: two neighbours. */
static void taps_linear(struct taps *taps, int32_t index, double at, int32_t source_size) {
    int32_t low = (int32_t)at;
    if (low > source_size - 2)
        low = source_size > 1 ? source_size - 2 : 0;
    taps->first[index] = low;
    float *weight = taps->weight + (size_t)index * (size_t)taps->width;
    weight[0] = source_size > 1 ? (float)(1 - (at - low)) : 1;
    if (source_size > 1)
        weight[1] = (float)(at - low);
}

/* Area: every source voxel weighs as much as it overlaps with [at - half, at + half]. */
static void taps_area(struct taps *taps, int32_t index, double at, double half, int32_t source_size) {
    int32_t low = (int32_t)fmax(0, ceil(at - half - 0.5));
    float *weight = taps->weight + (size_t)index * (size_t)taps->width;
    taps->first[index] = low;
    double sum = 0;
    for (int32_t n = 0; n < taps->width && low + n < source_size; n++) {
        double overlap = fmin(at + half, low + n + 0.5) - fmax(at - half, low + n - 0.5);
        weight[n] = (float)fmax(0, overlap);
        sum += fmax(0, overlap);
    }
    for (int32_t n = 0; n < taps->width; n++)
        weight[n] = (float)(weight[n] / sum);
    if (low + taps->width > source_size) { /* keep all reads inside: shift the zero weights to the front */
        int32_t back = low + taps->width - source_size;
        memmove(weight + back, weight, (size_t)(taps->width - back) * sizeof *weight);
        memset(weight, 0, (size_t)back * sizeof *weight);
        taps->first[index] = low - back;
    }
}

/* reversed: the source axis runs against the output axis. */
static bool taps_make(int32_t source_size, double step, int32_t size, bool reversed, struct taps *taps,
                      struct err *err) {
    bool average = step >= AVERAGE_FROM;
    int32_t width = average ? (int32_t)ceil(step) + 1 : 2;
    taps->size = size;
    taps->width = width < source_size ? width : source_size;
    taps->first = pulmo_alloc((size_t)size, sizeof *taps->first, err);
    taps->weight = pulmo_alloc((size_t)size * (size_t)taps->width, sizeof *taps->weight, err);
    if (!taps->first || !taps->weight)
        return false;
    for (int32_t n = 0; n < size; n++) {
        double at = fmin(n * step, source_size - 1);
        at = reversed ? source_size - 1 - at : at;
        if (average)
            taps_area(taps, n, at, step / 2, source_size);
        else
            taps_linear(taps, n, at, source_size);
    }
    return true;
}

/* True when i, j, k run along x, y, z (either way); a table or head rotated in plane is not. */
static bool is_aligned(const struct grid *grid) {
    for (int axis = 0; axis < 3; axis++)
        if (fabs(grid->ijk_to_lps_mm[axis][axis]) < ALIGNED_COSINE * grid->spacing_mm[axis])
            return false;
    return true;
}

/* The corners of the source's voxel centres, as a box in LPS. */
static void bounds_lps(const struct grid *grid, double low[3], double high[3]) {
    for (int corner = 0; corner < 8; corner++) {
        double ijk[3], lps[3];
        for (int axis = 0; axis < 3; axis++)
            ijk[axis] = corner >> axis & 1 ? grid->size_ijk[axis] - 1 : 0;
        grid_to_lps(grid, ijk, lps);
        for (int axis = 0; axis < 3; axis++) {
            low[axis] = corner == 0 ? lps[axis] : fmin(low[axis], lps[axis]);
            high[axis] = corner == 0 ? lps[axis] : fmax(high[axis], lps[axis]);
        }
    }
}

static bool iso_grid(const struct grid *source, double spacing_mm, struct grid *out, struct err *err) {
    double low[3], high[3];
    bounds_lps(source, low, high);
    struct grid grid = {.spacing_mm = {spacing_mm, spacing_mm, spacing_mm}};
    for (int axis = 0; axis < 3; axis++) {
        double side = floor((high[axis] - low[axis]) / spacing_mm + 1e-6) + 1;
        if (!(side >= 1 && side <= ISO_SIDE_MAX))
            return err_set(err, ERR_LIMIT, "a volume %.0f mm long is too large for voxels of %g mm",
                           high[axis] - low[axis], spacing_mm);
        grid.size_ijk[axis] = (int32_t)side;
        grid.ijk_to_lps_mm[axis][axis] = spacing_mm;
        grid.ijk_to_lps_mm[axis][3] = low[axis];
    }
    *out = grid;
    return true;
}

/* To the nearest, ties to even, as lrintf does, which is a call: beyond 2^23 floats are whole, and HU lie far below. */
static int16_t round_hu(float value) {
    const float whole = 12582912.0F; /* 1.5 * 2^23 */
    return (int16_t)((value + whole) - whole);
}

/* One source slice [j][i] to float [y][x]; `row` holds one source row on the output's columns. */
static void resample_plane(const int16_t *hu, int32_t columns, const struct taps *x, const struct taps *y, float *row,
                           float *out) {
    for (int32_t v = 0; v < y->size; v++) {
        float *line = out + (size_t)v * (size_t)x->size;
        memset(row, 0, (size_t)columns * sizeof *row);
        for (int32_t n = 0; n < y->width; n++) {
            float weight = y->weight[v * y->width + n];
            const int16_t *source = hu + (size_t)(y->first[v] + n) * (size_t)columns;
            for (int32_t i = 0; weight != 0 && i < columns; i++)
                row[i] += weight * source[i];
        }
        for (int32_t u = 0; u < x->size; u++) {
            const float *weight = x->weight + (size_t)u * (size_t)x->width, *source = row + x->first[u];
            float sum = 0;
            for (int32_t n = 0; n < x->width; n++)
                sum += weight[n] * source[n];
            line[u] = sum;
        }
    }
}

struct planes { /* the source slices an output slice reads, in plane already resampled; slot = k modulo count */
    int32_t count;
    int32_t *held; /* k, or -1 */
    float *data;
    size_t plane;
};

static void planes_free_at(struct planes *planes) {
    free(planes->held);
    free(planes->data);
}

struct aligned {
    const struct volume *source;
    const struct taps *axis; /* [3] */
    struct volume *out;
};

/* Slices first .. end - 1 of the output. */
static bool resample_slices(void *context, int32_t first, int32_t end, struct err *err) {
    const struct aligned *aligned = context;
    const struct volume *source = aligned->source;
    const int32_t *size = source->grid.size_ijk;
    const struct taps *axis = aligned->axis, *z = &axis[2];
    PULMO_SCOPED(planes_free_at)
    struct planes planes = {.count = z->width, .plane = (size_t)axis[0].size * (size_t)axis[1].size};
    planes.held = pulmo_alloc((size_t)z->width, sizeof *planes.held, err);
    planes.data = pulmo_alloc(planes.plane * (size_t)z->width, sizeof *planes.data, err);
    PULMO_SCOPED(pulmo_free_at) float *row = pulmo_alloc((size_t)size[0], sizeof *row, err);
    PULMO_SCOPED(pulmo_free_at) float *sum = pulmo_alloc(planes.plane, sizeof *sum, err);
    if (!planes.held || !planes.data || !row || !sum)
        return false;
    memset(planes.held, 0xff, (size_t)z->width * sizeof *planes.held);
    for (int32_t w = first; w < end; w++) {
        memset(sum, 0, planes.plane * sizeof *sum);
        for (int32_t n = 0; n < z->width; n++) {
            int32_t k = z->first[w] + n, slot = k % planes.count;
            float weight = z->weight[w * z->width + n], *plane = planes.data + planes.plane * (size_t)slot;
            if (weight == 0)
                continue;
            if (planes.held[slot] != k)
                resample_plane(source->hu + (size_t)k * (size_t)size[0] * (size_t)size[1], size[0], &axis[0], &axis[1],
                               row, plane);
            planes.held[slot] = k;
            for (size_t n_voxel = 0; n_voxel < planes.plane; n_voxel++)
                sum[n_voxel] += weight * plane[n_voxel];
        }
        int16_t *hu = aligned->out->hu + planes.plane * (size_t)w;
        for (size_t n = 0; n < planes.plane; n++)
            hu[n] = round_hu(sum[n]);
    }
    return true;
}

/* Trilinear at a source coordinate; outside by up to half a voxel is the edge, further HU_OUTSIDE. */
static float sample_hu(const struct volume *source, const double ijk[3]) {
    const int32_t *size = source->grid.size_ijk;
    int32_t low[3], step[3];
    double part[3];
    for (int axis = 0; axis < 3; axis++) {
        if (!(ijk[axis] >= -0.5 && ijk[axis] <= size[axis] - 0.5))
            return HU_OUTSIDE;
        double at = fmin(fmax(ijk[axis], 0), size[axis] - 1);
        low[axis] = (int32_t)at;
        step[axis] = low[axis] + 1 < size[axis];
        part[axis] = at - low[axis];
    }
    size_t across = (size_t)size[0], plane = across * (size_t)size[1];
    const int16_t *base = source->hu + (size_t)low[2] * plane + (size_t)low[1] * across + (size_t)low[0];
    double sum = 0;
    for (int corner = 0; corner < 8; corner++) {
        double weight = 1;
        for (int axis = 0; axis < 3; axis++)
            weight *= corner >> axis & 1 ? part[axis] : 1 - part[axis];
        size_t offset = (size_t)((corner & 1) * step[0]) + across * (size_t)((corner >> 1 & 1) * step[1]) +
                        plane * (size_t)((corner >> 2 & 1) * step[2]);
        sum += weight * base[offset];
    }
    return (float)sum;
}

/* The mean of per_axis^3 samples within the output voxel. */
static float sample_mean(const struct volume *source, const struct grid *out, const int32_t xyz[3], int per_axis) {
    double sum = 0;
    for (int n = 0; n < per_axis * per_axis * per_axis; n++) {
        int part[3] = {n % per_axis, n / per_axis % per_axis, n / per_axis / per_axis};
        double at[3], lps[3], ijk[3];
        for (int axis = 0; axis < 3; axis++)
            at[axis] = xyz[axis] + (part[axis] + 0.5) / per_axis - 0.5;
        grid_to_lps(out, at, lps);
        if (!grid_to_ijk(&source->grid, lps, ijk))
            return HU_OUTSIDE;
        sum += sample_hu(source, ijk);
    }
    return (float)(sum / (per_axis * per_axis * per_axis));
}

struct oblique {
    const struct volume *source;
    struct volume *out;
    int per_axis;
};

static bool oblique_slices(void *context, int32_t first, int32_t end, struct err *err) {
    (void)err;
    const struct oblique *oblique = context;
    const int32_t *size = oblique->out->grid.size_ijk;
    size_t n = (size_t)first * (size_t)size[0] * (size_t)size[1];
    for (int32_t z = first; z < end; z++)
        for (int32_t y = 0; y < size[1]; y++)
            for (int32_t x = 0; x < size[0]; x++)
                oblique->out->hu[n++] = round_hu(
                    sample_mean(oblique->source, &oblique->out->grid, (int32_t[3]){x, y, z}, oblique->per_axis));
    return true;
}

static bool resample_oblique(const struct volume *source, struct volume *out, struct err *err) {
    const double *spacing = source->grid.spacing_mm;
    double shrink = out->grid.spacing_mm[0] / fmin(spacing[0], fmin(spacing[1], spacing[2]));
    int per_axis = shrink < AVERAGE_FROM ? 1 : shrink < 2 * AVERAGE_FROM ? 2 : 4;
    struct oblique oblique = {.source = source, .out = out, .per_axis = per_axis};
    return workers_share(out->grid.size_ijk[2], oblique_slices, &oblique, err);
}

static bool resample_into(const struct volume *source, struct volume *out, struct err *err) {
    const struct grid *grid = &source->grid;
    if (!is_aligned(grid)) {
        double ijk[3];
        if (!grid_to_ijk(grid, (double[3]){0, 0, 0}, ijk))
            return err_set(err, ERR_INPUT, "the volume's axes do not span space");
        return resample_oblique(source, out, err);
    }
    PULMO_SCOPED(taps_free_at) struct taps x = {0};
    PULMO_SCOPED(taps_free_at) struct taps y = {0};
    PULMO_SCOPED(taps_free_at) struct taps z = {0};
    struct taps *taps[3] = {&x, &y, &z};
    for (int axis = 0; axis < 3; axis++)
        if (!taps_make(grid->size_ijk[axis], out->grid.spacing_mm[axis] / grid->spacing_mm[axis],
                       out->grid.size_ijk[axis], grid->ijk_to_lps_mm[axis][axis] < 0, taps[axis], err))
            return false;
    struct aligned aligned = {.source = source, .axis = (struct taps[3]){x, y, z}, .out = out};
    return workers_share(z.size, resample_slices, &aligned, err);
}

struct volume *volume_resample_iso(const struct volume *source, double spacing_mm, struct err *err) {
    for (int axis = 0; axis < 3; axis++)
        if (!(source->grid.spacing_mm[axis] > 0 && spacing_mm > 0)) {
            err_set(err, ERR_INPUT, "a spacing of %g mm is not positive", source->grid.spacing_mm[axis]);
            return NULL;
        }
    struct grid grid;
    if (!iso_grid(&source->grid, spacing_mm, &grid, err))
        return NULL;
    struct volume *out = volume_new(&grid, err);
    if (out && !resample_into(source, out, err)) {
        volume_free(out);
        return NULL;
    }
    return out;
}
