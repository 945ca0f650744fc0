/* Parts of the nodule mask. Internal to volume/. */
#ifndef VOLUME_SEGMENT_H
#define VOLUME_SEGMENT_H

#include "pulmo.h"

/* RECIST axes of a mask, edge to edge, in the slice k with the largest area. An empty mask gives zeros. */
struct segment_axes {
    double long_mm, short_mm;
    int32_t k;
};
bool segment_axes_measure(const struct mask *mask, struct segment_axes *out, struct err *err) PULMO_MUST_USE;

#endif
