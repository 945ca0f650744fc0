/* What can be learned of a CT volume without a network: resampling, lungs, quality gate, nodule masks. */
#ifndef PULMO_VOLUME_H
#define PULMO_VOLUME_H

#include "pulmo.h"

/* The source volume on an isotropic grid of spacing_mm in canonical LPS order ([z][y][x], z to the head, y to the
 * back, x to the left; identity direction): trilinear, as the networks were trained, with an area average along axes
 * that shrink to half or less. Voxel (0,0,0) is the source's lowest corner; sides reach to its highest voxel centres.
 * Voxels outside a tilted source are -1024. ERR_LIMIT beyond 2048 voxels a side. Caller frees. */
struct volume *volume_resample_iso(const struct volume *source, double spacing_mm, struct err *err);

/* Lungs of an isotropic canonical volume, on its grid: 0 outside, 1 right lung, 2 left lung (3 where both touch and
 * cannot be told apart). As models/README.md describes: air inside the body at 2 mm, trachea out, closed by 12 mm,
 * holes filled. The body need not be seen: what is exactly -1024 in large pieces counts as never measured.
 * An empty mask is a valid answer (no lungs). Caller frees. */
struct mask *volume_lungs(const struct volume *iso, struct err *err);

/* Quality figures and the image part of the gate (NOT_A_CHEST, LUNGS_CUT): both lungs in view, plausible volume,
 * not touching the first or last slice over a wide area. Adds to refusals; never fails on an odd image. */
struct volume_quality {
    double lung_volume_ml, right_ml, left_ml;
    double cut_top_mm2, cut_bottom_mm2; /* lung area in the first and last slice */
};
void volume_gate(const struct volume *iso, const struct mask *lungs, struct volume_quality *quality,
                 struct refusals *refusals);

/* HU outside the lungs dilated by margin_mm become -1024, in place (models/README.md, Frame). */
bool volume_mask_outside(struct volume *iso, const struct mask *lungs, double margin_mm,
                         struct err *err) PULMO_MUST_USE;

/* One nodule's mask on the SOURCE grid, from its centre and diameter: region growing with adaptive threshold, cut
 * from vessels and pleura by an opening, bounded by 1.5 diameters. Never empty: at least the centre voxel.
 * Fills long_axis_mm and short_axis_mm (in the axial slice with the largest area, RECIST: greatest distance between
 * two contour points, and the greatest perpendicular to it), volume_mm3. Caller frees; voxel = 1 inside.
 * The grid of the mask is the box of the source around the nodule, with its own affine. */
struct mask *volume_segment_nodule(const struct volume *source, struct finding *inout, struct err *err);

/* The outline of a mask in the source CT's pixels, for a viewer: closed paths by marching squares at the half level,
 * so that a path runs midway between a voxel inside and its neighbour outside. Pixel centres are at integers. */
struct volume_contour {
    int32_t k;           /* slice of the source grid */
    size_t count;        /* points; the last joins the first */
    double (*points)[2]; /* x = column, y = row; owned */
};
struct volume_contours {
    struct volume_contour *items; /* owned; by slice, from the lowest */
    size_t count;
};
/* mask: on a box of `source` (volume_segment_nodule makes such). ERR_INPUT when it is not one: other spacing, not
 * aligned to its voxels. On failure *out is untouched. Free with volume_contours_free. */
bool volume_contours_trace(const struct mask *mask, const struct grid *source, struct volume_contours *out,
                           struct err *err) PULMO_MUST_USE;
void volume_contours_free(struct volume_contours *contours);

/* Lobe from position, or LOBE_UNKNOWN where side and zone do not decide it (no fissures are seen). */
enum lobe volume_lobe(const struct mask *lungs, const double center_lps_mm[3]);

#endif
