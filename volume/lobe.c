/* The lobe, where height and depth in the lung decide it.
 *
 * The oblique fissure runs from the fourth thoracic vertebra behind, some three quarters up the lung, down to the
 * sixth costal cartilage in front; the right lung's horizontal fissure lies at the fourth cartilage, about half way up
 * (Gray's Anatomy, 41st edition, chapter 54). Fissures vary by centimetres and are not looked for here, so only what
 * lies well away from where they may run gets a name: the apex and the front of the upper third are upper lobe, the
 * back of the lower half is lower lobe. The middle lobe always stays unknown. */
#include "volume/lungs.h"
#include "volume/volume.h"

#include <math.h>
#include <string.h>

#define NEAR_MM 10.0      /* a juxtapleural centre may lie outside its lung by this */
#define APEX_HEIGHT 0.85  /* of the lung, from its base */
#define UPPER_HEIGHT 0.70 /* together with ... */
#define FRONT_DEPTH 0.50  /* of the lung, from its front */
#define LOWER_HEIGHT 0.40 /* together with ... */
#define BACK_DEPTH 0.75

/* The side of the labelled voxel nearest to the centre within NEAR_MM. */
static enum lung_side side_near(const struct mask *lungs, const double ijk[3]) {
    const int32_t *size = lungs->grid.size_ijk;
    double spacing = lungs->grid.spacing_mm[0], best = NEAR_MM * NEAR_MM;
    int32_t low[3], high[3];
    for (int axis = 0; axis < 3; axis++) {
        double reach = NEAR_MM / lungs->grid.spacing_mm[axis];
        low[axis] = (int32_t)fmin(fmax(0, ceil(ijk[axis] - reach)), size[axis]);
        high[axis] = (int32_t)fmax(-1, fmin(size[axis] - 1, floor(ijk[axis] + reach)));
    }
    enum lung_side side = LUNG_NONE;
    for (int32_t k = low[2]; k <= high[2]; k++)
        for (int32_t j = low[1]; j <= high[1]; j++)
            for (int32_t i = low[0]; i <= high[0]; i++) {
                uint8_t label = lungs->voxel[((size_t)k * (size_t)size[1] + (size_t)j) * (size_t)size[0] + (size_t)i];
                double away = (pow(i - ijk[0], 2) + pow(j - ijk[1], 2) + pow(k - ijk[2], 2)) * spacing * spacing;
                side = label && away <= best ? label : side;
                best = label ? fmin(best, away) : best;
            }
    return side;
}

struct span {
    int32_t low, high; /* both inside */
};

/* The lung's span from base to apex (z) and from front to back (y). */
static void spans_of(const struct mask *lungs, enum lung_side side, struct span *y, struct span *z) {
    const int32_t *size = lungs->grid.size_ijk;
    *y = (struct span){size[1], -1};
    *z = (struct span){size[2], -1};
    size_t columns = (size_t)size[0];
    const uint8_t *row = lungs->voxel;
    for (int32_t k = 0; k < size[2]; k++)
        for (int32_t j = 0; j < size[1]; j++, row += columns) {
            if (!memchr(row, (int)side, columns))
                continue;
            y->low = j < y->low ? j : y->low;
            y->high = j > y->high ? j : y->high;
            z->low = k < z->low ? k : z->low;
            z->high = k;
        }
}

static double fraction_of(double at, struct span span) {
    return span.high > span.low ? (at - span.low) / (span.high - span.low) : 0.5;
}

enum lobe volume_lobe(const struct mask *lungs, const double center_lps_mm[3]) {
    double ijk[3];
    if (!grid_to_ijk(&lungs->grid, center_lps_mm, ijk) || !isfinite(ijk[0] + ijk[1] + ijk[2]))
        return LOBE_UNKNOWN;
    enum lung_side side = side_near(lungs, ijk);
    if (side != LUNG_RIGHT && side != LUNG_LEFT)
        return LOBE_UNKNOWN;
    struct span y, z;
    spans_of(lungs, side, &y, &z);
    double height = fraction_of(ijk[2], z), depth = fraction_of(ijk[1], y);
    if (height >= APEX_HEIGHT || (height >= UPPER_HEIGHT && depth <= FRONT_DEPTH))
        return side == LUNG_RIGHT ? LOBE_RUL : LOBE_LUL;
    if (height <= LOWER_HEIGHT && depth >= BACK_DEPTH)
        return side == LUNG_RIGHT ? LOBE_RLL : LOBE_LLL;
    return LOBE_UNKNOWN;
}
