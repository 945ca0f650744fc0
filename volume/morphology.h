/* Balls and components on binary voxels [k][j][i]. Internal to volume/. */
#ifndef VOLUME_MORPHOLOGY_H
#define VOLUME_MORPHOLOGY_H

#include "pulmo.h"

/* Every voxel within radius_mm of a set one becomes 1, in place; what is set stays. Beyond the array nothing is set.
 * Cost: about 2 * radius / spacing operations a voxel and axis; empty rows are skipped. */
bool morphology_dilate(uint8_t *voxel, const int32_t size_ijk[3], const double spacing_mm[3], double radius_mm,
                       struct err *err) PULMO_MUST_USE;
/* Every voxel within radius_mm of one that is not set becomes 0. Beyond the array counts as set. */
bool morphology_erode(uint8_t *voxel, const int32_t size_ijk[3], const double spacing_mm[3], double radius_mm,
                      struct err *err) PULMO_MUST_USE;
/* Dilation, then erosion, as if the array were padded: what touches a side is not eaten from there. */
bool morphology_close(uint8_t *voxel, const int32_t size_ijk[3], const double spacing_mm[3], double radius_mm,
                      struct err *err) PULMO_MUST_USE;

/* Components of set voxels that share a face: label 1..count in raster order of their first voxel, 0 elsewhere.
 * label: as many as voxels. A size of 1 along k labels one slice by itself. */
bool morphology_components(const uint8_t *voxel, const int32_t size_ijk[3], int32_t *label, int32_t *count,
                           struct err *err) PULMO_MUST_USE;

/* Per slice: what is not set, cannot reach the side of its slice and has at most area_max_mm2 becomes 1. */
bool morphology_fill_slices(uint8_t *voxel, const int32_t size_ijk[3], double pixel_mm2, double area_max_mm2,
                            struct err *err) PULMO_MUST_USE;

/* The smallest box [low, high) of set voxels; false when none is set. */
bool morphology_bounds(const uint8_t *voxel, const int32_t size_ijk[3], int32_t low[3], int32_t high[3]);

#endif
