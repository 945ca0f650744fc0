/* Steps of the lung mask that are worth a file of their own. Internal to volume/. */
#ifndef VOLUME_LUNGS_H
#define VOLUME_LUNGS_H

#include "pulmo.h"

enum lung_side { LUNG_NONE = 0, LUNG_RIGHT = 1, LUNG_LEFT = 2, LUNG_BOTH = 3 };

/* Trachea and main bronchi in `air` (HU below the air threshold): 1 in *tubes. small: 2 mm grid. */
bool lungs_airways(const struct volume *small, const struct mask *air, struct mask *tubes,
                   struct err *err) PULMO_MUST_USE;

/* Gives every voxel of `mask` its side: from `air`, the same lungs before closing, whose two halves part under
 * erosion. LUNG_BOTH throughout when they do not. small: 2 mm grid, to find the middle of the body. */
bool lungs_split(const struct volume *small, const struct mask *air, struct mask *mask, struct err *err) PULMO_MUST_USE;

#endif
