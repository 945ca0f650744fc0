/* The lung mask, as train/lungs.py makes it for the networks (models/README.md, "Lungs"): the figures here and there
 * must agree where both have them. Beyond it, whole CTs, bowel gas and cut fields of view are told from lungs here. */
#include "volume/lungs.h"
#include "volume/morphology.h"
#include "volume/volume.h"

#include <stdlib.h>
#include <string.h>

#include "workers.h"

#define GRID_MM 2.0
#define AIR_HU (-400)
#define TISSUE_HU 40
#define CLOSE_MM 12.0
#define COMPONENT_ML 150.0 /* smaller air components are bowel, airways, noise */
#define AIRWAY_WALL_MM 3.0
#define HOLE_MM2 2500.0 /* a hole up to this is tumour or vessel; a larger one is the heart */
#define PADDING_HU (-1024)
#define PADDING_ML 40.0    /* so much of exactly PADDING_HU in one piece was never measured */
#define PADDING_RIM_MM 4.0 /* interpolation between padding and tissue looks like air */
/* Aerated lung has tissue in every voxel; gas in bowel, stomach and around the body has not. Severe emphysema
 * leaves more than a quarter of the lung above -950 HU. */
#define GAS_HU (-955)
#define LUNG_FRACTION_MIN 0.25
#define LUNG_MEAN_HU (-950.0)
#define SIDES_FRACTION_MAX \
    0.10 /* of the volume's lateral surface, padding included: free air touches more, a cut-off lung less */

static const double small_mm[3] = {GRID_MM, GRID_MM, GRID_MM};

static double voxels_to_ml(size_t count) {
    return (double)count * GRID_MM * GRID_MM * GRID_MM / 1000;
}

/* ---- what was never measured ------------------------------------------------------------------------- */

/* A masked study, or the corner outside a round field of view: it becomes tissue, so that lungs which touch it stay
 * lungs and are not joined to the air around the body. */
static bool padding_to_tissue(struct volume *small, uint8_t *padding, struct err *err) {
    size_t count = grid_voxels(&small->grid);
    PULMO_SCOPED(pulmo_free_at) int32_t *label = pulmo_alloc(count, sizeof *label, err);
    if (!label)
        return false;
    for (size_t n = 0; n < count; n++)
        padding[n] = small->hu[n] <= PADDING_HU;
    int32_t components = 0;
    if (!morphology_components(padding, small->grid.size_ijk, label, &components, err))
        return false;
    PULMO_SCOPED(pulmo_free_at) size_t *size = pulmo_alloc((size_t)components + 1, sizeof *size, err);
    if (!size)
        return false;
    for (size_t n = 0; n < count; n++)
        size[label[n]]++;
    for (size_t n = 0; n < count; n++)
        padding[n] = label[n] > 0 && voxels_to_ml(size[label[n]]) >= PADDING_ML;
    if (!morphology_dilate(padding, small->grid.size_ijk, small_mm, PADDING_RIM_MM, err))
        return false;
    for (size_t n = 0; n < count; n++)
        small->hu[n] = padding[n] ? TISSUE_HU : small->hu[n];
    return true;
}

/* ---- which air is lung ------------------------------------------------------------------------------- */

struct component {
    size_t voxels, above_gas, sides;
    double sum_hu;
    bool lung;
};

static void components_measure(const struct volume *small, const uint8_t *padding, const int32_t *label,
                               struct component *components) {
    const int32_t *size = small->grid.size_ijk;
    size_t n = 0, across = (size_t)size[0];
    for (int32_t k = 0; k < size[2]; k++)
        for (int32_t j = 0; j < size[1]; j++)
            for (int32_t i = 0; i < size[0]; i++, n++) {
                struct component *c = &components[label[n]];
                bool side = i == 0 || j == 0 || i == size[0] - 1 || j == size[1] - 1;
                c->voxels++;
                c->sum_hu += small->hu[n];
                c->above_gas += small->hu[n] > GAS_HU;
                c->sides += side || padding[n - 1] || padding[n + 1] || padding[n - across] || padding[n + across];
            }
}

static bool component_is_lung(const struct component *c, const int32_t size[3]) {
    double surface = 2.0 * (size[0] + size[1]) * size[2];
    return voxels_to_ml(c->voxels) >= COMPONENT_ML && (double)c->above_gas >= LUNG_FRACTION_MIN * (double)c->voxels &&
           c->sum_hu > LUNG_MEAN_HU * (double)c->voxels && (double)c->sides <= SIDES_FRACTION_MAX * surface;
}

/* Keeps of `air` the components that are lung. */
static bool keep_lungs(const struct volume *small, const uint8_t *padding, struct mask *air, struct err *err) {
    size_t count = grid_voxels(&air->grid);
    PULMO_SCOPED(pulmo_free_at) int32_t *label = pulmo_alloc(count, sizeof *label, err);
    int32_t found = 0;
    if (!label || !morphology_components(air->voxel, air->grid.size_ijk, label, &found, err))
        return false;
    PULMO_SCOPED(pulmo_free_at) struct component *components = pulmo_alloc((size_t)found + 1, sizeof *components, err);
    if (!components)
        return false;
    components_measure(small, padding, label, components);
    for (int32_t n = 1; n <= found; n++)
        components[n].lung = component_is_lung(&components[n], air->grid.size_ijk);
    for (size_t n = 0; n < count; n++)
        air->voxel[n] = label[n] > 0 && components[label[n]].lung;
    return true;
}

/* ---- from 2 mm to the caller's grid ------------------------------------------------------------------ */

struct neighbour { /* along one axis: low and low + 1 of the small grid */
    int32_t low, high;
    float part;
};

static struct neighbour neighbour_at(int32_t index, double ratio, int32_t size) {
    double at = index * ratio;
    struct neighbour n = {.low = (int32_t)at};
    n.low = n.low < size ? n.low : size - 1;
    n.high = n.low + 1 < size ? n.low + 1 : n.low;
    n.part = (float)(at - n.low);
    n.part = n.part < 1 ? n.part : 1;
    return n;
}

/* weight[side][i]: how much of each side a row of the caller's grid holds, on the small grid's columns. */
static bool row_weights(const struct mask *small, struct neighbour y, struct neighbour z, float *weight) {
    int32_t columns = small->grid.size_ijk[0];
    size_t plane = (size_t)columns * (size_t)small->grid.size_ijk[1];
    const int32_t row[4] = {y.low, y.high, y.low, y.high}, slice[4] = {z.low, z.low, z.high, z.high};
    const float part[4] = {(1 - y.part) * (1 - z.part), y.part * (1 - z.part), (1 - y.part) * z.part, y.part * z.part};
    bool any = false;
    memset(weight, 0, 4 * (size_t)columns * sizeof *weight);
    for (int n = 0; n < 4; n++) {
        const uint8_t *voxel = small->voxel + plane * (size_t)slice[n] + (size_t)row[n] * (size_t)columns;
        for (int32_t i = 0; i < columns; i++)
            if (voxel[i]) {
                weight[voxel[i] * columns + i] += part[n];
                any = true;
            }
    }
    return any;
}

static void row_upsample(const float *weight, int32_t small_columns, double ratio, int32_t columns, uint8_t *out) {
    for (int32_t i = 0; i < columns; i++) {
        struct neighbour x = neighbour_at(i, ratio, small_columns);
        float sum = 0, most = 0;
        uint8_t best = 0;
        for (uint8_t side = LUNG_RIGHT; side <= LUNG_BOTH; side++) {
            const float *of_side = weight + side * small_columns;
            float value = of_side[x.low] * (1 - x.part) + of_side[x.high] * x.part;
            sum += value;
            best = value > most ? side : best;
            most = value > most ? value : most;
        }
        out[i] = sum >= 0.5F ? best : 0;
    }
}

struct upsampling {
    const struct mask *small;
    struct mask *out;
};

/* Slices first .. end - 1 of the output. */
static bool upsample(void *context, int32_t first, int32_t end, struct err *err) {
    const struct upsampling *upsampling = context;
    const struct mask *small = upsampling->small;
    struct mask *out = upsampling->out;
    const int32_t *size = out->grid.size_ijk, *small_size = small->grid.size_ijk;
    double ratio = out->grid.spacing_mm[0] / small->grid.spacing_mm[0];
    PULMO_SCOPED(pulmo_free_at) float *weight = pulmo_alloc(4 * (size_t)small_size[0], sizeof *weight, err);
    if (!weight)
        return false;
    for (int32_t k = first; k < end; k++)
        for (int32_t j = 0; j < size[1]; j++) {
            struct neighbour y = neighbour_at(j, ratio, small_size[1]), z = neighbour_at(k, ratio, small_size[2]);
            if (row_weights(small, y, z, weight))
                row_upsample(weight, small_size[0], ratio, size[0],
                             out->voxel + ((size_t)k * (size_t)size[1] + (size_t)j) * (size_t)size[0]);
        }
    return true;
}

/* ---- the mask ---------------------------------------------------------------------------------------- */

/* Closed, holes filled, airways and their walls out. */
static bool close_lungs(struct mask *lungs, struct mask *tubes, struct err *err) {
    const int32_t *size = lungs->grid.size_ijk;
    if (!morphology_close(lungs->voxel, size, small_mm, CLOSE_MM, err) ||
        !morphology_fill_slices(lungs->voxel, size, GRID_MM * GRID_MM, HOLE_MM2, err) ||
        !morphology_dilate(tubes->voxel, size, small_mm, AIRWAY_WALL_MM, err))
        return false;
    size_t count = grid_voxels(&lungs->grid);
    for (size_t n = 0; n < count; n++)
        lungs->voxel[n] = lungs->voxel[n] && !tubes->voxel[n];
    return true;
}

static struct mask *lungs_of_small(struct volume *small, struct err *err) {
    PULMO_SCOPED(mask_free_at) struct mask *air = mask_new(&small->grid, err);
    PULMO_SCOPED(mask_free_at) struct mask *tubes = mask_new(&small->grid, err);
    PULMO_SCOPED(mask_free_at) struct mask *lungs = mask_new(&small->grid, err);
    PULMO_SCOPED(pulmo_free_at) uint8_t *padding = pulmo_alloc(grid_voxels(&small->grid), 1, err);
    if (!air || !tubes || !lungs || !padding || !padding_to_tissue(small, padding, err))
        return NULL;
    size_t count = grid_voxels(&small->grid);
    for (size_t n = 0; n < count; n++)
        air->voxel[n] = small->hu[n] < AIR_HU;
    if (!lungs_airways(small, air, tubes, err))
        return NULL;
    for (size_t n = 0; n < count; n++)
        air->voxel[n] = air->voxel[n] && !tubes->voxel[n];
    if (!keep_lungs(small, padding, air, err))
        return NULL;
    memcpy(lungs->voxel, air->voxel, count);
    if (!close_lungs(lungs, tubes, err) || !lungs_split(small, air, lungs, err))
        return NULL;
    struct mask *result = lungs;
    lungs = NULL;
    return result;
}

struct mask *volume_lungs(const struct volume *iso, struct err *err) {
    PULMO_SCOPED(volume_free_at) struct volume *small = volume_resample_iso(iso, GRID_MM, err);
    if (!small)
        return NULL;
    PULMO_SCOPED(mask_free_at) struct mask *lungs = lungs_of_small(small, err);
    if (!lungs)
        return NULL;
    struct mask *out = mask_new(&iso->grid, err);
    struct upsampling upsampling = {.small = lungs, .out = out};
    if (out && !workers_share(iso->grid.size_ijk[2], upsample, &upsampling, err)) {
        mask_free(out);
        return NULL;
    }
    return out;
}

/* The part of a volume that lies near the lungs, by itself: outside of it nothing needs to be looked at. */
struct masking {
    struct volume *iso;
    const struct mask *lungs;
    int32_t low[3], side[3]; /* i, j, k */
    uint8_t *near;           /* [k][j][i] of the part */
};

static bool near_start(void *context, int32_t first, int32_t end, struct err *err) {
    const struct masking *masking = context;
    const int32_t *size = masking->iso->grid.size_ijk, *low = masking->low, *side = masking->side;
    (void)err;
    for (int32_t k = first; k < end; k++)
        for (int32_t j = 0; j < side[1]; j++) {
            uint8_t *near = masking->near + ((size_t)k * (size_t)side[1] + (size_t)j) * (size_t)side[0];
            const uint8_t *lung = masking->lungs->voxel +
                                  ((size_t)(low[2] + k) * (size_t)size[1] + (size_t)(low[1] + j)) * (size_t)size[0] +
                                  (size_t)low[0];
            for (int32_t i = 0; i < side[0]; i++)
                near[i] = lung[i] != 0;
        }
    return true;
}

static bool far_empty(void *context, int32_t first, int32_t end, struct err *err) {
    const struct masking *masking = context;
    const int32_t *size = masking->iso->grid.size_ijk, *low = masking->low, *side = masking->side;
    (void)err;
    for (int32_t k = first; k < end; k++)
        for (int32_t j = 0; j < size[1]; j++) {
            int16_t *hu = masking->iso->hu + ((size_t)k * (size_t)size[1] + (size_t)j) * (size_t)size[0];
            int32_t z = k - low[2], y = j - low[1];
            bool within = z >= 0 && z < side[2] && y >= 0 && y < side[1];
            const uint8_t *near =
                within ? masking->near + ((size_t)z * (size_t)side[1] + (size_t)y) * (size_t)side[0] : NULL;
            int32_t left = near ? low[0] : size[0], right = near ? low[0] + side[0] : size[0];
            for (int32_t i = 0; i < left; i++)
                hu[i] = PADDING_HU;
            for (int32_t i = left; i < right; i++)
                hu[i] = near[i - left] ? hu[i] : PADDING_HU;
            for (int32_t i = right; i < size[0]; i++)
                hu[i] = PADDING_HU;
        }
    return true;
}

bool volume_mask_outside(struct volume *iso, const struct mask *lungs, double margin_mm, struct err *err) {
    const int32_t *size = iso->grid.size_ijk;
    struct masking masking = {.iso = iso, .lungs = lungs};
    int32_t high[3];
    if (grid_voxels(&iso->grid) != grid_voxels(&lungs->grid))
        return err_set(err, ERR_INTERNAL, "lungs and volume lie on different grids");
    bool any = morphology_bounds(lungs->voxel, size, masking.low, high);
    size_t count = 1;
    for (int axis = 0; axis < 3; axis++) {
        int32_t reach = (int32_t)(margin_mm / iso->grid.spacing_mm[axis]) + 1;
        masking.low[axis] = any && masking.low[axis] > reach ? masking.low[axis] - reach : 0;
        high[axis] = any ? high[axis] < size[axis] - reach ? high[axis] + reach : size[axis] : 1;
        masking.side[axis] = high[axis] - masking.low[axis];
        count *= (size_t)masking.side[axis];
    }
    PULMO_SCOPED(pulmo_free_at) uint8_t *near = pulmo_alloc(count, 1, err);
    masking.near = near;
    return near && workers_share(masking.side[2], near_start, &masking, err) &&
           morphology_dilate(near, masking.side, iso->grid.spacing_mm, margin_mm, err) &&
           workers_share(size[2], far_empty, &masking, err);
}
