/* Is this a chest, and is all of the lungs in view?
 *
 * Thresholds, against the fifteen chests and one abdomen they were set on: chests hold 2.3 to 8 l of lung and show at
 * most a few per cent of their widest section in the first or last slice; the lung bases of an abdomen come to half a
 * litre and are cut at their widest. */
#include "volume/volume.h"

#include <math.h>

#define LUNG_ML_MIN 800.0 /* both, an adult at full expiration keeps more than a litre */
#define LUNG_ML_MAX 12000.0
#define BASES_MM 130.0           /* lungs that are shorter and cut above only are the bases in a CT of the abdomen */
#define CUT_FRACTION_TOP 0.20    /* of the widest axial section */
#define CUT_FRACTION_BOTTOM 0.30 /* the recesses are wide and thin: a scan that ends a little early loses little */

struct section {
    double widest_mm2, height_mm;
};

static struct section sections_measure(const struct mask *lungs, struct volume_quality *quality) {
    const int32_t *size = lungs->grid.size_ijk;
    const double *spacing = lungs->grid.spacing_mm;
    double pixel_mm2 = spacing[0] * spacing[1];
    size_t plane = (size_t)size[0] * (size_t)size[1], of_side[4] = {0};
    struct section section = {0};
    for (int32_t k = 0; k < size[2]; k++) {
        const uint8_t *voxel = lungs->voxel + plane * (size_t)k;
        size_t before = of_side[0];
        for (size_t n = 0; n < plane; n++)
            of_side[voxel[n] & 3]++;
        double area_mm2 = (double)(plane - (of_side[0] - before)) * pixel_mm2;
        section.widest_mm2 = fmax(section.widest_mm2, area_mm2);
        section.height_mm += area_mm2 > 0 ? spacing[2] : 0;
        if (k == 0)
            quality->cut_bottom_mm2 = area_mm2;
        if (k == size[2] - 1)
            quality->cut_top_mm2 = area_mm2;
    }
    double voxel_ml = pixel_mm2 * spacing[2] / 1000, both_ml = (double)of_side[3] * voxel_ml;
    quality->right_ml = (double)of_side[1] * voxel_ml + both_ml / 2;
    quality->left_ml = (double)of_side[2] * voxel_ml + both_ml / 2;
    quality->lung_volume_ml = quality->right_ml + quality->left_ml;
    return section;
}

void volume_gate(const struct volume *iso, const struct mask *lungs, struct volume_quality *quality,
                 struct refusals *refusals) {
    *quality = (struct volume_quality){0};
    struct section section = sections_measure(lungs, quality);
    double ml = quality->lung_volume_ml, top_mm2 = quality->cut_top_mm2, bottom_mm2 = quality->cut_bottom_mm2;
    double scan_mm = iso->grid.size_ijk[2] * iso->grid.spacing_mm[2];
    bool top_cut = top_mm2 > CUT_FRACTION_TOP * section.widest_mm2;
    bool bottom_cut = bottom_mm2 > CUT_FRACTION_BOTTOM * section.widest_mm2;
    if (ml <= 0)
        refusals_add(refusals, REFUSAL_NOT_A_CHEST, "no lungs were found in %.0f mm of scan", scan_mm);
    else if (ml < LUNG_ML_MIN)
        refusals_add(refusals, REFUSAL_NOT_A_CHEST, "%.0f ml of lung in view, at least %.0f ml are expected", ml,
                     LUNG_ML_MIN);
    else if (ml > LUNG_ML_MAX)
        refusals_add(refusals, REFUSAL_NOT_A_CHEST, "%.0f ml of air in view, lungs hold at most %.0f ml", ml,
                     LUNG_ML_MAX);
    else if (top_cut && !bottom_cut && section.height_mm < BASES_MM)
        refusals_add(refusals, REFUSAL_NOT_A_CHEST, "only the lowest %.0f mm of the lungs are in view",
                     section.height_mm);
    else if (top_cut)
        refusals_add(refusals, REFUSAL_LUNGS_CUT, "the first slice from above already holds %.0f mm2 of lung", top_mm2);
    else if (bottom_cut)
        refusals_add(refusals, REFUSAL_LUNGS_CUT, "the lowest slice still holds %.0f mm2 of lung", bottom_mm2);
}
