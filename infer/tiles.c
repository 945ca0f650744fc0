#include "infer/tiles.h"

#include <math.h>

#include "infer/session.h"

struct box {
    int64_t low[3], high[3]; /* k, j, i: [low, high) */
};

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* Takes in a row's voxels that are not empty; those between the ends that are known need not be looked at. */
static void row_take(const int16_t *row, int64_t columns, const int64_t at[2], struct box *box) {
    int64_t low = 0, high = columns;
    while (low < columns && row[low] <= FRAME_HU_MIN)
        low++;
    if (low == columns)
        return;
    while (high > box->high[2] && row[high - 1] <= FRAME_HU_MIN)
        high--;
    box->low[2] = least(box->low[2], low);
    box->high[2] = most(box->high[2], high);
    for (int axis = 0; axis < 2; axis++) {
        box->low[axis] = least(box->low[axis], at[axis]);
        box->high[axis] = most(box->high[axis], at[axis] + 1);
    }
}

/* What is not empty; all of the volume where everything is. */
static struct box box_find(const struct volume *iso) {
    const int32_t *size = iso->grid.size_ijk;
    struct box whole = {.high = {size[2], size[1], size[0]}}, box = {.low = {size[2], size[1], size[0]}};
    int64_t at[2];
    for (at[0] = 0; at[0] < size[2]; at[0]++)
        for (at[1] = 0; at[1] < size[1]; at[1]++)
            row_take(iso->hu + (at[0] * size[1] + at[1]) * size[0], size[0], at, &box);
    return box.high[0] ? box : whole;
}

static int64_t parts(int64_t whole, int64_t part) {
    return (whole + part - 1) / part;
}

/* Inner parts of one size along an axis, from `first` on, as many as cover `extent`. */
static void axis_lay(struct tiles *tiles, int axis, int64_t inner, int64_t extent, int64_t size) {
    tiles->inner[axis] = inner;
    tiles->side[axis] = inner + 2 * tiles->margin;
    tiles->count[axis] = parts(extent, inner);
    tiles->would *= parts(size, inner);
}

struct tiles infer_tiles_cubes(const struct infer_model *model, const struct volume *iso) {
    struct tiles tiles = {.margin = model->margin, .would = 1};
    for (int axis = 0; axis < 3; axis++) {
        int64_t size = iso->grid.size_ijk[2 - axis];
        axis_lay(&tiles, axis, model->tile - 2 * model->margin, size, size);
    }
    return tiles;
}

struct tiles infer_tiles_lay(const struct infer_model *model, const struct volume *iso) {
    struct tiles tiles = {.margin = model->margin, .would = 1};
    if (!model->inner_max)
        return infer_tiles_cubes(model, iso);
    struct box box = box_find(iso);
    for (int axis = 0; axis < 3; axis++) {
        tiles.first[axis] = box.low[axis] / TILES_LATTICE * TILES_LATTICE;
        int64_t extent = box.high[axis] - tiles.first[axis];
        int64_t even = parts(extent, parts(extent, model->inner_max));
        axis_lay(&tiles, axis, parts(even, TILES_LATTICE) * TILES_LATTICE, extent, iso->grid.size_ijk[2 - axis]);
    }
    return tiles;
}

int64_t infer_tiles_first(const struct infer_model *model, double middle, int side) {
    return TILES_LATTICE * (int64_t)rint((middle - side / 2.0 + model->margin) / TILES_LATTICE);
}

struct tiles infer_tiles_around(const struct infer_model *model, const int64_t cell_kji[3], int side) {
    struct tiles tiles = {.margin = model->margin, .would = 1};
    for (int axis = 0; axis < 3; axis++) {
        double middle = (double)(cell_kji[axis] * MODEL_STRIDE) + MODEL_STRIDE / 2.0;
        tiles.first[axis] = infer_tiles_first(model, middle, side);
        tiles.inner[axis] = side - 2 * model->margin;
        tiles.side[axis] = side;
        tiles.count[axis] = 1;
    }
    return tiles;
}

size_t infer_tiles_count(const struct tiles *tiles) {
    return (size_t)(tiles->count[0] * tiles->count[1] * tiles->count[2]);
}

int64_t infer_tiles_cells(const struct tiles *tiles) {
    return tiles->side[0] * tiles->side[1] * tiles->side[2] / (MODEL_STRIDE * MODEL_STRIDE * MODEL_STRIDE);
}

void infer_tiles_place(const struct tiles *tiles, size_t number, int64_t tile[3]) {
    int64_t rest = (int64_t)number;
    for (int axis = 2; axis >= 0; axis--) {
        tile[axis] = rest % tiles->count[axis];
        rest /= tiles->count[axis];
    }
}

void infer_tiles_start(const struct tiles *tiles, const int64_t tile[3], int64_t start_ijk[3]) {
    for (int axis = 0; axis < 3; axis++)
        start_ijk[2 - axis] = tiles->first[axis] + tile[axis] * tiles->inner[axis] - tiles->margin;
}

int64_t infer_tiles_cell(const struct tiles *tiles, const int64_t tile[3], int axis) {
    return (tiles->first[axis] + tile[axis] * tiles->inner[axis]) / MODEL_STRIDE;
}
