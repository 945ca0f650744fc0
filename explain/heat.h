/* Heat on coarse grids, read on the source CT's voxels. Internal to explain/. */
#ifndef EXPLAIN_HEAT_H
#define EXPLAIN_HEAT_H

#include "explain/explain.h"

#define EXPLAIN_COLD 0.02F /* below it nothing is shown */

/* Adds one finding's heat: cells [k][j][i] on their own grid, in any direction; negative ones count as 0, the highest
 * becomes 1. Between cell centres it is trilinear, and it fades to 0 one cell beyond the outermost centres.
 * Nothing above 0 adds nothing. The cells are copied. */
bool explain_map_add_cells(struct explain_map *map, const struct grid *grid, const float *cells,
                           struct err *err) PULMO_MUST_USE;

const struct grid *explain_map_grid(const struct explain_map *map);
/* explain_map_slice into columns * rows values of the caller's. False outside the volume. */
bool explain_map_fill(const struct explain_map *map, int32_t k, float *out);

/* The grid of the attention tokens of a candidate: the crop of stage 2 is cut at whole voxels of the 1 mm volume, from
 * floor(centre) - 19 on, and token t covers its voxels 8 t to 8 t + 7 (models/README.md). */
bool explain_attention_grid(const struct grid *iso, const double center_lps_mm[3], struct grid *out,
                            struct err *err) PULMO_MUST_USE;

#endif
