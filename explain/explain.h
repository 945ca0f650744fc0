/* Why a finding was made: attention of the candidate network and HiResCAM of the detector, on the CT's own voxels,
 * as PNG overlays per slice. */
#ifndef PULMO_EXPLAIN_H
#define PULMO_EXPLAIN_H

#include "infer/infer.h"

enum explain_kind { EXPLAIN_ATTENTION = 0, EXPLAIN_CAM };

/* Heat on the source CT's grid: saliency 0..1 per voxel, maximum over the findings that were added. Holds the coarse
 * cells of each finding and one slice, which is computed when asked for. One thread at a time. */
struct explain_map;
struct explain_map *explain_map_new(const struct grid *source, struct err *err);
void explain_map_free(struct explain_map *map);

/* Adds the map of every reported finding: attention (5x5x5 tokens over its 40 mm crop, what each received above an
 * equal share, as the finding holds it) or HiResCAM (positive part), computed here on the session's threads. Trilinear
 * from the model's frame to the source voxels, normalised to a maximum of 1 within a finding; nothing positive adds
 * nothing. */
bool explain_map_add_reported(struct explain_map *map, struct infer_session *session, const struct volume *iso,
                              const struct findings *findings, enum explain_kind kind, struct err *err) PULMO_MUST_USE;

/* True when slice k holds any heat above 2 %. */
bool explain_map_slice_used(const struct explain_map *map, int32_t k);
/* columns * rows values of slice k, [j][i]; borrowed until the next call on this map. NULL outside the volume. */
const float *explain_map_slice(const struct explain_map *map, int32_t k);

/* A PNG of columns x rows with a palette of colours and alpha, transparent where cold (alpha grows with heat), colour
 * map "inferno". Of one map, any number of threads at a time. */
bool explain_overlay_png(const struct explain_map *map, int32_t k, struct bytes *out, struct err *err) PULMO_MUST_USE;
/* Whether two PNG files show the same, pixel by pixel, however they are encoded; a file that is none shows nothing. */
bool explain_png_same(const struct bytes *left, const struct bytes *right, bool *same, struct err *err) PULMO_MUST_USE;
/* A grey PNG of one CT slice with window applied. */
bool explain_slice_png(const struct volume *source, int32_t k, double window_center_hu, double window_width_hu,
                       struct bytes *out, struct err *err) PULMO_MUST_USE;

#endif
