/* A map keeps the cells of each finding, half a megabyte, and computes a slice when it is asked for: floats of
 * a whole CT of 1,000 slices would be a gigabyte. */
#include "explain/heat.h"
#include "workers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct heat { /* one finding */
    int32_t size_ijk[3];
    float *cell;                 /* [k][j][i], 0 .. 1; owned */
    double source_to_cell[3][4]; /* from source voxels to cells, both in voxel coordinates */
    int32_t low[3], high[3];     /* source voxels it can reach: [low, high) */
};

struct explain_map {
    struct grid grid;
    struct heat *heats;
    size_t count;
    uint8_t *used; /* [slices] */
    float *slice;  /* the slice that was asked for last */
};

struct explain_map *explain_map_new(const struct grid *source, struct err *err) {
    const int32_t *size = source->size_ijk;
    if (size[0] < 1 || size[1] < 1 || size[2] < 1) {
        err_set(err, ERR_INPUT, "a grid of %d x %d x %d voxels", (int)size[0], (int)size[1], (int)size[2]);
        return NULL;
    }
    struct explain_map *map = pulmo_alloc(1, sizeof *map, err);
    if (!map)
        return NULL;
    map->grid = *source;
    map->used = pulmo_alloc((size_t)size[2], 1, err);
    map->slice = pulmo_alloc((size_t)size[0] * (size_t)size[1], sizeof *map->slice, err);
    if (map->used && map->slice)
        return map;
    explain_map_free(map);
    return NULL;
}

void explain_map_free(struct explain_map *map) {
    if (!map)
        return;
    for (size_t n = 0; n < map->count; n++)
        free(map->heats[n].cell);
    free(map->heats);
    free(map->used);
    free(map->slice);
    free(map);
}

/* ---- geometry ---------------------------------------------------------------------------------------- */

/* The affine from source voxels to cells, from what it does to the origin and the three unit steps. */
static bool compose(const struct grid *source, const struct grid *cells, double out[3][4]) {
    double lps[3], origin[3], cell[3];
    grid_to_lps(source, (double[3]){0, 0, 0}, lps);
    if (!grid_to_ijk(cells, lps, origin))
        return false;
    for (int row = 0; row < 3; row++)
        out[row][3] = origin[row];
    for (int column = 0; column < 3; column++) {
        grid_to_lps(source, (double[3]){column == 0, column == 1, column == 2}, lps);
        if (!grid_to_ijk(cells, lps, cell))
            return false;
        for (int row = 0; row < 3; row++)
            out[row][column] = cell[row] - origin[row];
    }
    return true;
}

/* The source voxels that lie within the cells and the one around them where they fade. */
static bool reach(const struct grid *source, const struct grid *cells, struct heat *heat) {
    double low[3] = {INFINITY, INFINITY, INFINITY}, high[3] = {-INFINITY, -INFINITY, -INFINITY};
    for (int corner = 0; corner < 8; corner++) {
        double at[3], lps[3], ijk[3];
        for (int axis = 0; axis < 3; axis++)
            at[axis] = corner >> axis & 1 ? cells->size_ijk[axis] : -1;
        grid_to_lps(cells, at, lps);
        if (!grid_to_ijk(source, lps, ijk))
            return false;
        for (int axis = 0; axis < 3; axis++) {
            low[axis] = fmin(low[axis], ijk[axis]);
            high[axis] = fmax(high[axis], ijk[axis]);
        }
    }
    for (int axis = 0; axis < 3; axis++) {
        heat->low[axis] = (int32_t)fmin(fmax(0, ceil(low[axis])), source->size_ijk[axis]);
        heat->high[axis] = (int32_t)fmin(fmax(0, floor(high[axis]) + 1), source->size_ijk[axis]);
    }
    return true;
}

/* ---- values ------------------------------------------------------------------------------------------ */

static float cell_at(const struct heat *heat, int32_t i, int32_t j, int32_t k) {
    const int32_t *size = heat->size_ijk;
    if (i < 0 || j < 0 || k < 0 || i >= size[0] || j >= size[1] || k >= size[2])
        return 0;
    return heat->cell[((size_t)k * (size_t)size[1] + (size_t)j) * (size_t)size[0] + (size_t)i];
}

/* Of the eight cells from `low`, which all lie in the grid. */
static float inner_heat(const struct heat *heat, const int32_t low[3], const double part[3]) {
    const size_t row = (size_t)heat->size_ijk[0], slice = row * (size_t)heat->size_ijk[1];
    const float *at = heat->cell + (size_t)low[2] * slice + (size_t)low[1] * row + (size_t)low[0];
    double x[2] = {1 - part[0], part[0]}, y[2] = {1 - part[1], part[1]}, z[2] = {1 - part[2], part[2]}, sum = 0;
    for (size_t k = 0; k < 2; k++)
        for (size_t j = 0; j < 2; j++)
            for (size_t i = 0; i < 2; i++)
                sum += x[i] * y[j] * z[k] * (double)at[k * slice + j * row + i];
    return (float)sum;
}

/* Trilinear; cells beyond the grid are 0. */
static float heat_at(const struct heat *heat, const double cell[3]) {
    int32_t low[3];
    double part[3], sum = 0;
    bool inner = true;
    for (int axis = 0; axis < 3; axis++) {
        if (!(cell[axis] > -1 && cell[axis] < heat->size_ijk[axis]))
            return 0;
        low[axis] = (int32_t)(cell[axis] + 1) - 1; /* a floor, above -1 */
        part[axis] = cell[axis] - low[axis];
        inner = inner && low[axis] >= 0 && low[axis] + 1 < heat->size_ijk[axis];
    }
    if (inner)
        return inner_heat(heat, low, part);
    for (int corner = 0; corner < 8; corner++) {
        double weight = 1;
        for (int axis = 0; axis < 3; axis++)
            weight *= corner >> axis & 1 ? part[axis] : 1 - part[axis];
        if (weight > 0)
            sum += weight *
                   (double)cell_at(heat, low[0] + (corner & 1), low[1] + (corner >> 1 & 1), low[2] + (corner >> 2));
    }
    return (float)sum;
}

static float heat_of(const struct heat *heat, int32_t i, int32_t j, int32_t k) {
    const double(*a)[4] = heat->source_to_cell;
    double cell[3];
    for (int axis = 0; axis < 3; axis++)
        cell[axis] = a[axis][0] * i + a[axis][1] * j + a[axis][2] * k + a[axis][3];
    return heat_at(heat, cell);
}

/* Raises slice k, [j][i], to the heat of one finding. */
static void heat_slice(const struct heat *heat, int32_t columns, int32_t k, float *slice) {
    for (int32_t j = heat->low[1]; j < heat->high[1]; j++)
        for (int32_t i = heat->low[0]; i < heat->high[0]; i++) {
            float value = heat_of(heat, i, j, k), *at = slice + (size_t)j * (size_t)columns + (size_t)i;
            *at = value > *at ? value : *at;
        }
}

static bool slice_is_warm(const struct heat *heat, int32_t k) {
    for (int32_t j = heat->low[1]; j < heat->high[1]; j++)
        for (int32_t i = heat->low[0]; i < heat->high[0]; i++)
            if (heat_of(heat, i, j, k) > EXPLAIN_COLD)
                return true;
    return false;
}

struct marking {
    struct explain_map *map;
    const struct heat *heat;
};

/* Slices [first, end) of those that the finding reaches. */
static bool mark_stretch(void *context, int32_t first, int32_t end, struct err *err) {
    const struct marking *marking = context;
    (void)err;
    for (int32_t k = marking->heat->low[2] + first; k < marking->heat->low[2] + end; k++)
        if (slice_is_warm(marking->heat, k))
            marking->map->used[k] = 1;
    return true;
}

static bool mark_used(struct explain_map *map, const struct heat *heat, struct err *err) {
    struct marking marking = {.map = map, .heat = heat};
    return workers_share(heat->high[2] - heat->low[2], mark_stretch, &marking, err);
}

bool explain_map_add_cells(struct explain_map *map, const struct grid *grid, const float *cells, struct err *err) {
    size_t count = grid_voxels(grid);
    float most = 0;
    for (size_t n = 0; n < count; n++)
        most = cells[n] > most ? cells[n] : most;
    if (!(most > 0))
        return true;
    struct heat heat = {.size_ijk = {grid->size_ijk[0], grid->size_ijk[1], grid->size_ijk[2]}};
    if (!isfinite(most) || !compose(&map->grid, grid, heat.source_to_cell) || !reach(&map->grid, grid, &heat))
        return err_set(err, ERR_INPUT, "heat that is not finite, or on a grid that does not span space");
    struct heat *grown = realloc(map->heats, (map->count + 1) * sizeof *grown);
    if (!grown)
        return err_set(err, ERR_MEMORY, "out of memory for a map");
    map->heats = grown;
    heat.cell = pulmo_alloc(count, sizeof *heat.cell, err);
    if (!heat.cell)
        return false;
    for (size_t n = 0; n < count; n++)
        heat.cell[n] = cells[n] > 0 ? cells[n] / most : 0;
    map->heats[map->count++] = heat;
    return mark_used(map, &heat, err);
}

bool explain_map_slice_used(const struct explain_map *map, int32_t k) {
    return k >= 0 && k < map->grid.size_ijk[2] && map->used[k];
}

bool explain_map_fill(const struct explain_map *map, int32_t k, float *out) {
    const int32_t *size = map->grid.size_ijk;
    if (k < 0 || k >= size[2])
        return false;
    memset(out, 0, (size_t)size[0] * (size_t)size[1] * sizeof *out);
    for (size_t n = 0; n < map->count; n++)
        if (k >= map->heats[n].low[2] && k < map->heats[n].high[2])
            heat_slice(&map->heats[n], size[0], k, out);
    return true;
}

const float *explain_map_slice(const struct explain_map *map, int32_t k) {
    return explain_map_fill(map, k, map->slice) ? map->slice : NULL;
}

const struct grid *explain_map_grid(const struct explain_map *map) {
    return &map->grid;
}
