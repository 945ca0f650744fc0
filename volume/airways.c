/* Trachea and main bronchi: axial air sections that are small and as black as free air, and that go on through many
 * slices. A tip of an emphysematous lung or a bulla is as black, but it ends sooner. */
#include "volume/lungs.h"
#include "volume/morphology.h"

#include <stdlib.h>
#include <string.h>

#define SECTION_MM2 1000.0 /* train/lungs.py: AIRWAY_MM2 */
#define BLACK_HU (-940)    /* train/lungs.py: AIRWAY_HU, of the section's median */
#define TUBE_LENGTH_MM 24.0

/* Marks in `tubes` the sections of one slice. label: as many as pixels. */
static bool mark_sections(const int16_t *hu, const uint8_t *air, const int32_t size[3], double pixel_mm2,
                          int32_t *label, uint8_t *tubes, struct err *err) {
    size_t plane = (size_t)size[0] * (size_t)size[1];
    int32_t count = 0;
    if (!morphology_components(air, (int32_t[3]){size[0], size[1], 1}, label, &count, err))
        return false;
    PULMO_SCOPED(pulmo_free_at) size_t *area = pulmo_alloc(2 * ((size_t)count + 1), sizeof *area, err);
    if (!area)
        return false;
    size_t *black = area + count + 1;
    for (size_t n = 0; n < plane; n++) {
        area[label[n]]++;
        black[label[n]] += hu[n] < BLACK_HU;
    }
    for (size_t n = 0; n < plane; n++)
        tubes[n] = label[n] && (double)area[label[n]] * pixel_mm2 < SECTION_MM2 && 2 * black[label[n]] > area[label[n]];
    return true;
}

struct extent {
    int32_t first, last; /* slices */
};

/* Sections that do not belong to a tube of some length are none. */
static bool drop_short(struct mask *tubes, int32_t *label, struct err *err) {
    const int32_t *size = tubes->grid.size_ijk;
    int32_t count = 0;
    if (!morphology_components(tubes->voxel, size, label, &count, err))
        return false;
    PULMO_SCOPED(pulmo_free_at) struct extent *extent = pulmo_alloc((size_t)count + 1, sizeof *extent, err);
    if (!extent)
        return false;
    size_t plane = (size_t)size[0] * (size_t)size[1], voxels = grid_voxels(&tubes->grid);
    for (int32_t n = 0; n <= count; n++)
        extent[n].first = size[2];
    for (size_t n = 0; n < voxels; n++) {
        int32_t k = (int32_t)(n / plane);
        struct extent *e = &extent[label[n]];
        e->first = k < e->first ? k : e->first;
        e->last = k;
    }
    for (size_t n = 0; n < voxels; n++) {
        const struct extent *e = &extent[label[n]];
        tubes->voxel[n] = label[n] && (e->last - e->first + 1) * tubes->grid.spacing_mm[2] >= TUBE_LENGTH_MM;
    }
    return true;
}

bool lungs_airways(const struct volume *small, const struct mask *air, struct mask *tubes, struct err *err) {
    const int32_t *size = small->grid.size_ijk;
    size_t plane = (size_t)size[0] * (size_t)size[1];
    PULMO_SCOPED(pulmo_free_at) int32_t *label = pulmo_alloc(grid_voxels(&small->grid), sizeof *label, err);
    if (!label)
        return false;
    double pixel_mm2 = small->grid.spacing_mm[0] * small->grid.spacing_mm[1];
    for (int32_t k = 0; k < size[2]; k++) {
        size_t at = plane * (size_t)k;
        if (!mark_sections(small->hu + at, air->voxel + at, size, pixel_mm2, label, tubes->voxel + at, err))
            return false;
    }
    return drop_short(tubes, label, err);
}
