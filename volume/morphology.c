/* Ball dilation by squared distances, one axis after the other (Saito and Toriwaki, Pattern Recognition 27, 1994),
 * cut off at the radius; the last axis keeps only a ring of slices, so memory does not grow with the volume.
 * Components by union-find over faces. */
#include "volume/morphology.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "workers.h"

#define FAR_MM2 1e30F
#define SHARED_FROM_VOXELS ((size_t)1 << 19) /* less is done before a thread has started */

/* ---- dilation ---------------------------------------------------------------------------------------- */

struct ring { /* squared in-plane distances of slices k - reach .. k + reach */
    int32_t columns, rows, slots;
    float *distance; /* [slots][rows][columns] */
    uint8_t *used;   /* [slots][rows]: the row holds something within the radius */
    float *line;     /* [rows][columns], distances along rows */
    uint8_t *line_used;
};

static void ring_free_at(struct ring *ring) {
    free(ring->distance);
    free(ring->used);
    free(ring->line);
    free(ring->line_used);
}

static bool ring_make(const int32_t size[3], int32_t slots, struct ring *ring, struct err *err) {
    size_t plane = (size_t)size[0] * (size_t)size[1];
    ring->columns = size[0];
    ring->rows = size[1];
    ring->slots = slots;
    ring->distance = pulmo_alloc(plane * (size_t)slots, sizeof *ring->distance, err);
    ring->used = pulmo_alloc((size_t)size[1] * (size_t)slots, 1, err);
    ring->line = pulmo_alloc(plane, sizeof *ring->line, err);
    ring->line_used = pulmo_alloc((size_t)size[1], 1, err);
    return ring->distance && ring->used && ring->line && ring->line_used;
}

/* Squared distance along one row to its nearest set voxel. Returns false when the row is empty. */
static bool distance_row(const uint8_t *voxel, int32_t columns, double spacing_mm, float *out) {
    if (!memchr(voxel, 1, (size_t)columns))
        return false;
    float step = (float)spacing_mm, run = 1e15F;
    for (int32_t i = 0; i < columns; i++) {
        run = voxel[i] ? 0 : run + step;
        out[i] = run;
    }
    run = 1e15F;
    for (int32_t i = columns - 1; i >= 0; i--) {
        run = voxel[i] ? 0 : run + step;
        float nearest = run < out[i] ? run : out[i];
        out[i] = nearest * nearest;
    }
    return true;
}

static void min_shifted(float *restrict out, const float *restrict in, float add, int32_t count) {
    for (int32_t n = 0; n < count; n++) {
        float value = in[n] + add;
        out[n] = value < out[n] ? value : out[n];
    }
}

static void ring_take_slice(struct ring *ring, const uint8_t *voxel, int32_t slot, const double spacing_mm[3],
                            double radius_mm) {
    int32_t columns = ring->columns, rows = ring->rows, reach = (int32_t)(radius_mm / spacing_mm[1]);
    for (int32_t j = 0; j < rows; j++)
        ring->line_used[j] = distance_row(voxel + (size_t)j * (size_t)columns, columns, spacing_mm[0],
                                          ring->line + (size_t)j * (size_t)columns);
    for (int32_t j = 0; j < rows; j++) {
        float *out = ring->distance + ((size_t)slot * (size_t)rows + (size_t)j) * (size_t)columns;
        uint8_t *used = ring->used + (size_t)slot * (size_t)rows + j;
        *used = 0;
        int32_t last = j + reach < rows ? j + reach : rows - 1;
        for (int32_t from = j > reach ? j - reach : 0; from <= last; from++) {
            if (!ring->line_used[from])
                continue;
            for (int32_t i = 0; !*used && i < columns; i++)
                out[i] = FAR_MM2;
            *used = 1;
            double away = (from - j) * spacing_mm[1];
            min_shifted(out, ring->line + (size_t)from * (size_t)columns, (float)(away * away), columns);
        }
    }
}

/* One row of the result: set where the nearest of the ring's slices lies within the radius. */
static void dilate_row(const struct ring *ring, int32_t k, int32_t j, const int32_t range[2], double spacing_k_mm,
                       double radius_mm, float *nearest, uint8_t *voxel) {
    int32_t columns = ring->columns;
    bool any = false;
    for (int32_t from = range[0]; from <= range[1]; from++) {
        size_t row = (size_t)(from % ring->slots) * (size_t)ring->rows + (size_t)j;
        if (!ring->used[row])
            continue;
        for (int32_t i = 0; !any && i < columns; i++)
            nearest[i] = FAR_MM2;
        any = true;
        double away = (from - k) * spacing_k_mm;
        min_shifted(nearest, ring->distance + row * (size_t)columns, (float)(away * away), columns);
    }
    float limit = (float)(radius_mm * radius_mm * (1 + 1e-6));
    for (int32_t i = 0; any && i < columns; i++)
        voxel[i] = voxel[i] | (nearest[i] <= limit);
}

struct dilation {
    const uint8_t *from;
    uint8_t *to;
    const int32_t *size;
    const double *spacing_mm;
    double radius_mm;
};

/* Slices first .. end - 1. from and to may be the same array when that is all of them: a slice is taken before it is
 * written. */
static bool dilate_slices(void *context, int32_t first, int32_t end, struct err *err) {
    const struct dilation *dilation = context;
    const int32_t *size = dilation->size;
    const double *spacing_mm = dilation->spacing_mm, radius_mm = dilation->radius_mm;
    int32_t reach = (int32_t)(radius_mm / spacing_mm[2] + 1e-9);
    reach = reach < size[2] ? reach : size[2] - 1;
    PULMO_SCOPED(ring_free_at) struct ring ring = {0};
    PULMO_SCOPED(pulmo_free_at) float *nearest = pulmo_alloc((size_t)size[0], sizeof *nearest, err);
    if (!nearest || !ring_make(size, 2 * reach + 1, &ring, err))
        return false;
    size_t plane = (size_t)size[0] * (size_t)size[1];
    int32_t taken = first > reach ? first - reach : 0;
    for (int32_t k = first; k < end; k++) {
        int32_t range[2] = {k > reach ? k - reach : 0, k + reach < size[2] ? k + reach : size[2] - 1};
        for (; taken <= range[1]; taken++)
            ring_take_slice(&ring, dilation->from + plane * (size_t)taken, taken % ring.slots, spacing_mm,
                            radius_mm + 1e-9);
        for (int32_t j = 0; j < size[1]; j++)
            dilate_row(&ring, k, j, range, spacing_mm[2], radius_mm, nearest,
                       dilation->to + plane * (size_t)k + (size_t)j * (size_t)size[0]);
    }
    return true;
}

bool morphology_dilate(uint8_t *voxel, const int32_t size[3], const double spacing_mm[3], double radius_mm,
                       struct err *err) {
    struct dilation dilation = {voxel, voxel, size, spacing_mm, radius_mm};
    size_t count = (size_t)size[0] * (size_t)size[1] * (size_t)size[2];
    if (count < SHARED_FROM_VOXELS)
        return dilate_slices(&dilation, 0, size[2], err);
    PULMO_SCOPED(pulmo_free_at) uint8_t *from = pulmo_alloc(count, 1, err); /* neighbours read what others write */
    if (!from)
        return false;
    memcpy(from, voxel, count);
    dilation.from = from;
    return workers_share(size[2], dilate_slices, &dilation, err);
}

static void invert(uint8_t *voxel, size_t count) {
    for (size_t n = 0; n < count; n++)
        voxel[n] = !voxel[n];
}

bool morphology_erode(uint8_t *voxel, const int32_t size[3], const double spacing_mm[3], double radius_mm,
                      struct err *err) {
    size_t count = (size_t)size[0] * (size_t)size[1] * (size_t)size[2];
    invert(voxel, count);
    bool done = morphology_dilate(voxel, size, spacing_mm, radius_mm, err);
    invert(voxel, count);
    return done;
}

/* ---- closing ----------------------------------------------------------------------------------------- */

/* Copies a box between a big array and a smaller one that sits at `low` (may be negative: padding). */
static void copy_box(uint8_t *big, const int32_t big_size[3], const int32_t low[3], uint8_t *small,
                     const int32_t small_size[3], bool to_small) {
    int32_t first = low[0] > 0 ? low[0] : 0, end = low[0] + small_size[0];
    end = end < big_size[0] ? end : big_size[0];
    for (int32_t k = 0; k < small_size[2]; k++)
        for (int32_t j = 0; j < small_size[1]; j++) {
            int32_t big_k = k + low[2], big_j = j + low[1];
            if (big_k < 0 || big_k >= big_size[2] || big_j < 0 || big_j >= big_size[1])
                continue;
            uint8_t *b =
                big + ((size_t)big_k * (size_t)big_size[1] + (size_t)big_j) * (size_t)big_size[0] + (size_t)first;
            uint8_t *s = small + ((size_t)k * (size_t)small_size[1] + (size_t)j) * (size_t)small_size[0] +
                         (size_t)(first - low[0]);
            memcpy(to_small ? s : b, to_small ? b : s, (size_t)(end - first));
        }
}

bool morphology_close(uint8_t *voxel, const int32_t size[3], const double spacing_mm[3], double radius_mm,
                      struct err *err) {
    int32_t low[3], high[3], padded[3];
    if (!morphology_bounds(voxel, size, low, high))
        return true;
    for (int axis = 0; axis < 3; axis++) {
        int32_t pad = (int32_t)(radius_mm / spacing_mm[axis]) + 2;
        padded[axis] = high[axis] - low[axis] + 2 * pad;
        low[axis] -= pad;
    }
    PULMO_SCOPED(pulmo_free_at)
    uint8_t *work = pulmo_alloc((size_t)padded[0] * (size_t)padded[1] * (size_t)padded[2], 1, err);
    if (!work)
        return false;
    copy_box(voxel, size, low, work, padded, true);
    if (!morphology_dilate(work, padded, spacing_mm, radius_mm, err) ||
        !morphology_erode(work, padded, spacing_mm, radius_mm, err))
        return false;
    copy_box(voxel, size, low, work, padded, false);
    return true;
}

bool morphology_bounds(const uint8_t *voxel, const int32_t size[3], int32_t low[3], int32_t high[3]) {
    int32_t first[3] = {size[0], size[1], size[2]}, end[3] = {0, 0, 0};
    for (int32_t k = 0; k < size[2]; k++)
        for (int32_t j = 0; j < size[1]; j++) {
            const uint8_t *row = voxel + ((size_t)k * (size_t)size[1] + (size_t)j) * (size_t)size[0];
            int32_t i = 0, last = size[0];
            while (i < size[0] && !row[i])
                i++;
            if (i == size[0])
                continue;
            while (!row[last - 1])
                last--;
            first[0] = i < first[0] ? i : first[0];
            end[0] = last > end[0] ? last : end[0];
            first[1] = j < first[1] ? j : first[1];
            end[1] = j + 1 > end[1] ? j + 1 : end[1];
            first[2] = k < first[2] ? k : first[2];
            end[2] = k + 1;
        }
    if (end[2] == 0)
        return false;
    memcpy(low, first, sizeof first);
    memcpy(high, end, sizeof end);
    return true;
}

/* ---- components -------------------------------------------------------------------------------------- */

static int32_t root_of(int32_t *parent, int32_t label) {
    while (parent[label] != label) {
        parent[label] = parent[parent[label]];
        label = parent[label];
    }
    return label;
}

static void join(int32_t *parent, int32_t a, int32_t b) {
    a = root_of(parent, a);
    b = root_of(parent, b);
    if (a < b)
        parent[b] = a;
    else
        parent[a] = b;
}

/* First pass: provisional labels, and which of them are the same. Returns their count, or -1 without memory. */
static int32_t label_provisionally(const uint8_t *voxel, const int32_t size[3], int32_t *label, int32_t **parent) {
    size_t across = (size_t)size[0], plane = across * (size_t)size[1], n = 0, capacity = 1024;
    int32_t count = 0;
    *parent = malloc(capacity * sizeof **parent);
    for (int32_t k = 0; *parent && k < size[2]; k++)
        for (int32_t j = 0; j < size[1]; j++)
            for (int32_t i = 0; i < size[0]; i++, n++) {
                label[n] = 0;
                if (!voxel[n])
                    continue;
                int32_t before[3] = {i ? label[n - 1] : 0, j ? label[n - across] : 0, k ? label[n - plane] : 0};
                for (int axis = 0; axis < 3; axis++) {
                    if (label[n] && before[axis] && label[n] != before[axis])
                        join(*parent, label[n], before[axis]);
                    label[n] = label[n] ? label[n] : before[axis];
                }
                if (label[n])
                    continue;
                label[n] = ++count;
                if ((size_t)count == capacity) {
                    int32_t *grown = realloc(*parent, (capacity *= 2) * sizeof *grown);
                    if (!grown)
                        return -1;
                    *parent = grown;
                }
                (*parent)[count] = count;
            }
    return *parent ? count : -1;
}

bool morphology_components(const uint8_t *voxel, const int32_t size[3], int32_t *label, int32_t *count,
                           struct err *err) {
    PULMO_SCOPED(pulmo_free_at) int32_t *parent = NULL;
    int32_t provisional = label_provisionally(voxel, size, label, &parent), found = 0;
    if (provisional < 0)
        return err_set(err, ERR_MEMORY, "out of memory for the components of a mask");
    /* A root is the smallest of its set, so that it is renumbered before those who point to it. */
    PULMO_SCOPED(pulmo_free_at) int32_t *final = pulmo_alloc((size_t)provisional + 1, sizeof *final, err);
    if (!final)
        return false;
    for (int32_t n = 1; n <= provisional; n++) {
        int32_t root = root_of(parent, n);
        final[n] = root == n ? ++found : final[root];
    }
    size_t voxels = (size_t)size[0] * (size_t)size[1] * (size_t)size[2];
    for (size_t n = 0; n < voxels; n++)
        label[n] = final[label[n]];
    *count = found;
    return true;
}

/* ---- holes ------------------------------------------------------------------------------------------- */

static bool fill_slice(uint8_t *voxel, const int32_t size[3], size_t area_max, uint8_t *empty, int32_t *label,
                       struct err *err) {
    size_t plane = (size_t)size[0] * (size_t)size[1];
    int32_t count = 0, one_slice[3] = {size[0], size[1], 1};
    for (size_t n = 0; n < plane; n++)
        empty[n] = !voxel[n];
    if (!morphology_components(empty, one_slice, label, &count, err))
        return false;
    PULMO_SCOPED(pulmo_free_at) size_t *area = pulmo_alloc((size_t)count + 1, sizeof *area, err);
    if (!area)
        return false;
    for (size_t n = 0; n < plane; n++) {
        int32_t i = (int32_t)(n % (size_t)size[0]), j = (int32_t)(n / (size_t)size[0]);
        bool side = i == 0 || j == 0 || i == size[0] - 1 || j == size[1] - 1;
        area[label[n]] += side ? area_max + 1 : 1;
    }
    for (size_t n = 0; n < plane; n++)
        voxel[n] = voxel[n] || area[label[n]] <= area_max;
    return true;
}

bool morphology_fill_slices(uint8_t *voxel, const int32_t size[3], double pixel_mm2, double area_max_mm2,
                            struct err *err) {
    size_t plane = (size_t)size[0] * (size_t)size[1];
    PULMO_SCOPED(pulmo_free_at) uint8_t *empty = pulmo_alloc(plane, 1, err);
    PULMO_SCOPED(pulmo_free_at) int32_t *label = pulmo_alloc(plane, sizeof *label, err);
    if (!empty || !label)
        return false;
    for (int32_t k = 0; k < size[2]; k++)
        if (memchr(voxel + plane * (size_t)k, 1, plane) &&
            !fill_slice(voxel + plane * (size_t)k, size, (size_t)(area_max_mm2 / pixel_mm2), empty, label, err))
            return false;
    return true;
}
