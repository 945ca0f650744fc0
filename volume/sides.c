/* Right and left lung. Lungs touch in front of and behind the mediastinum, and the closing joins them: erode the
 * aerated part until two halves stand apart, then give every voxel to the half that reaches it first. */
#include "volume/lungs.h"
#include "volume/morphology.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define EROSION_STEP_MM 4.0
#define EROSION_STEPS 5 /* up to 16 mm */
#define SEED_ML_MIN 40.0
#define SIDES_APART_MM 60.0 /* between the centres of two lungs; parts of one lung lie above each other */
#define ONE_LUNG_MM 190.0   /* a single lung is not as wide as this */
#define TISSUE_MIN_HU (-150)

struct piece {
    size_t voxels;
    double sum_x;
};

static double piece_x(const struct piece *piece) {
    return piece->sum_x / (double)piece->voxels;
}

static double ml_of(const struct grid *grid, size_t voxels) {
    return (double)voxels * grid->spacing_mm[0] * grid->spacing_mm[1] * grid->spacing_mm[2] / 1000;
}

/* Components of `voxel` with size and centre along x; items[0] is unused. NULL on failure. */
static struct piece *pieces_of(const uint8_t *voxel, const struct grid *grid, int32_t *label, int32_t *count,
                               struct err *err) {
    if (!morphology_components(voxel, grid->size_ijk, label, count, err))
        return NULL;
    struct piece *items = pulmo_alloc((size_t)*count + 1, sizeof *items, err);
    size_t voxels = grid_voxels(grid);
    for (size_t n = 0; items && n < voxels; n++) {
        items[label[n]].voxels++;
        items[label[n]].sum_x += (double)(n % (size_t)grid->size_ijk[0]);
    }
    return items;
}

static int32_t largest_apart(const struct piece *items, int32_t count, const struct piece *from, double apart) {
    int32_t best = 0;
    for (int32_t n = 1; n <= count; n++)
        if ((!from || fabs(piece_x(&items[n]) - piece_x(from)) >= apart) &&
            (!best || items[n].voxels > items[best].voxels))
            best = n;
    return best;
}

/* Seeds in `seed` (LUNG_RIGHT, LUNG_LEFT) from one erosion state; false in *found when there are no two. */
static bool seeds_at(const uint8_t *eroded, const struct grid *grid, int32_t *label, uint8_t *seed, bool *found,
                     struct err *err) {
    int32_t count = 0;
    PULMO_SCOPED(pulmo_free_at) struct piece *items = pieces_of(eroded, grid, label, &count, err);
    if (!items)
        return false;
    int32_t first = largest_apart(items, count, NULL, 0);
    int32_t second = first ? largest_apart(items, count, &items[first], SIDES_APART_MM / grid->spacing_mm[0]) : 0;
    *found = second && ml_of(grid, items[second].voxels) >= SEED_ML_MIN;
    if (!*found)
        return true;
    bool first_is_right = piece_x(&items[first]) < piece_x(&items[second]);
    size_t voxels = grid_voxels(grid);
    for (size_t n = 0; n < voxels; n++) {
        bool is_first = label[n] == first, is_second = label[n] == second;
        seed[n] = is_first || is_second ? (is_first == first_is_right ? LUNG_RIGHT : LUNG_LEFT) : LUNG_NONE;
    }
    return true;
}

static bool find_seeds(const struct mask *air, uint8_t *seed, bool *found, struct err *err) {
    size_t voxels = grid_voxels(&air->grid);
    PULMO_SCOPED(pulmo_free_at) uint8_t *eroded = pulmo_alloc(voxels, 1, err);
    PULMO_SCOPED(pulmo_free_at) int32_t *label = pulmo_alloc(voxels, sizeof *label, err);
    if (!eroded || !label)
        return false;
    memcpy(eroded, air->voxel, voxels);
    *found = false;
    for (int step = 0; step < EROSION_STEPS && !*found; step++) {
        if (step && !morphology_erode(eroded, air->grid.size_ijk, air->grid.spacing_mm, EROSION_STEP_MM, err))
            return false;
        if (!seeds_at(eroded, &air->grid, label, seed, found, err))
            return false;
    }
    return true;
}

/* Breadth first through faces of `mask` from the seeds. What no seed reaches keeps the side of its x. */
static bool spread(struct mask *mask, const uint8_t *seed, struct err *err) {
    const int32_t *size = mask->grid.size_ijk;
    size_t voxels = grid_voxels(&mask->grid), across = (size_t)size[0], plane = across * (size_t)size[1];
    PULMO_SCOPED(pulmo_free_at) size_t *queue = pulmo_alloc(voxels, sizeof *queue, err);
    if (!queue)
        return false;
    size_t head = 0, tail = 0;
    const uint8_t open = UINT8_MAX; /* in the mask, no side yet */
    for (size_t n = 0; n < voxels; n++) {
        mask->voxel[n] = mask->voxel[n] ? (seed[n] ? seed[n] : open) : 0;
        if (mask->voxel[n] && seed[n])
            queue[tail++] = n;
    }
    while (head < tail) {
        size_t n = queue[head++], at[3] = {n % across, n / across % (size_t)size[1], n / plane};
        const size_t step[3] = {1, across, plane};
        for (int axis = 0; axis < 3; axis++)
            for (int way = 0; way < 2; way++) {
                if (way ? at[axis] + 1 == (size_t)size[axis] : at[axis] == 0)
                    continue;
                size_t next = way ? n + step[axis] : n - step[axis];
                if (mask->voxel[next] != open)
                    continue;
                mask->voxel[next] = mask->voxel[n];
                queue[tail++] = next;
            }
    }
    return true;
}

/* What is still open lies on the side of the nearer lung's centre. */
static void settle_open(struct mask *mask) {
    size_t voxels = grid_voxels(&mask->grid), across = (size_t)mask->grid.size_ijk[0];
    double sum[LUNG_BOTH + 1] = {0}, count[LUNG_BOTH + 1] = {0};
    for (size_t n = 0; n < voxels; n++)
        if (mask->voxel[n] && mask->voxel[n] <= LUNG_BOTH) {
            sum[mask->voxel[n]] += (double)(n % across);
            count[mask->voxel[n]]++;
        }
    double middle = (sum[LUNG_RIGHT] / fmax(1, count[LUNG_RIGHT]) + sum[LUNG_LEFT] / fmax(1, count[LUNG_LEFT])) / 2;
    for (size_t n = 0; n < voxels; n++)
        if (mask->voxel[n] > LUNG_BOTH)
            mask->voxel[n] = (double)(n % across) < middle ? LUNG_RIGHT : LUNG_LEFT;
}

/* The middle of the body along x, from its tissue, in the slices that hold lung. */
static double body_middle(const struct volume *small, const struct mask *mask) {
    const int32_t *size = small->grid.size_ijk;
    size_t plane = (size_t)size[0] * (size_t)size[1];
    double sum = 0, count = 0;
    for (int32_t k = 0; k < size[2]; k++) {
        if (!memchr(mask->voxel + plane * (size_t)k, 1, plane))
            continue;
        for (size_t n = plane * (size_t)k; n < plane * ((size_t)k + 1); n++)
            if (small->hu[n] > TISSUE_MIN_HU) {
                sum += (double)(n % (size_t)size[0]);
                count++;
            }
    }
    return count > 0 ? sum / count : (size[0] - 1) / 2.0;
}

/* No two halves: one lung only (the other removed, collapsed or drowned), or two that cannot be parted. */
static void name_single(const struct volume *small, struct mask *mask) {
    int32_t low[3], high[3];
    if (!morphology_bounds(mask->voxel, mask->grid.size_ijk, low, high))
        return;
    double middle = body_middle(small, mask), centre = (low[0] + high[0] - 1) / 2.0;
    bool single = (high[0] - low[0]) * mask->grid.spacing_mm[0] < ONE_LUNG_MM;
    uint8_t side = !single ? LUNG_BOTH : centre < middle ? LUNG_RIGHT : LUNG_LEFT;
    size_t voxels = grid_voxels(&mask->grid);
    for (size_t n = 0; n < voxels; n++)
        mask->voxel[n] = mask->voxel[n] ? side : 0;
}

bool lungs_split(const struct volume *small, const struct mask *air, struct mask *mask, struct err *err) {
    PULMO_SCOPED(pulmo_free_at) uint8_t *seed = pulmo_alloc(grid_voxels(&mask->grid), 1, err);
    bool found = false;
    if (!seed || !find_seeds(air, seed, &found, err))
        return false;
    if (!found) {
        name_single(small, mask);
        return true;
    }
    if (!spread(mask, seed, err))
        return false;
    settle_open(mask);
    return true;
}
