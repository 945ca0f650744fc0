/* How the detector's volume is cut into tiles (models/README.md, Decoding 2). */
#ifndef PULMO_INFER_TILES_H
#define PULMO_INFER_TILES_H

#include "infer/model.h"

/* Arrays are k, j, i; voxels. A tile is its inner part, whose cells are kept, with a margin around it. */
struct tiles {
    int64_t first[3];          /* where the inner part of the first tile begins; a multiple of TILES_LATTICE */
    int64_t inner[3], side[3]; /* side: with both margins */
    int64_t margin, count[3];
    int64_t would; /* tiles of this size on the whole volume */
};
/* The lattice of the network's deepest layer that the starts keep, so that a map of one tile lies on that of another.
 */
#define TILES_LATTICE 8

/* Cubes of `tile` from the volume's first voxel, or, for a model with inner_max, boxes of one size on the part of the
 * volume that is not empty. Depends on the data alone, so that one volume is cut in one way on any machine. */
struct tiles infer_tiles_lay(const struct infer_model *model, const struct volume *iso);
/* The cubes, for any model. */
struct tiles infer_tiles_cubes(const struct infer_model *model, const struct volume *iso);
/* Where the inner part of a cube of `side` voxels around the voxel `middle` begins along an axis: on the lattice. */
int64_t infer_tiles_first(const struct infer_model *model, double middle, int side);
/* One cube of `side` voxels with a cell of the map, k, j, i, near its middle. */
struct tiles infer_tiles_around(const struct infer_model *model, const int64_t cell_kji[3], int side);
size_t infer_tiles_count(const struct tiles *tiles);
int64_t infer_tiles_cells(const struct tiles *tiles); /* of one tile's map, margins and all */
/* Number 0 .. count - 1, in [k][j][i] order, to the tile's place. */
void infer_tiles_place(const struct tiles *tiles, size_t number, int64_t tile[3]);
/* The first voxel of a tile with its margins, i, j, k. */
void infer_tiles_start(const struct tiles *tiles, const int64_t tile[3], int64_t start_ijk[3]);
/* The first cell of the whole volume's map that the tile keeps; it keeps inner / MODEL_STRIDE along each axis. */
int64_t infer_tiles_cell(const struct tiles *tiles, const int64_t tile[3], int axis);

#endif
