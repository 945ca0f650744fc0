#include "phantom/phantom.h"

#include "phantom/render.h"

#define PIXEL_MM 0.703125 /* 360 mm over 512 pixels */
#define SPACING_DEFAULT_MM 2.5
#define MARGIN_MM 10.0 /* above the apex and below the recess */
#define SLICES_MAX 2000

static bool config_checked(const struct phantom_config *config, struct err *err) {
    if (config->slices < 0 || config->slices > SLICES_MAX)
        return err_set(err, ERR_LIMIT, "%d slices: 1 to %d, or 0 for as many as cover the lungs", config->slices,
                       SLICES_MAX);
    if (config->nodules > PHANTOM_NODULES_MAX)
        return err_set(err, ERR_LIMIT, "%u nodules: at most %d", config->nodules, PHANTOM_NODULES_MAX);
    if (config->spacing_mm != 0 && !(config->spacing_mm >= 0.3 && config->spacing_mm <= 10))
        return err_set(err, ERR_LIMIT, "a slice spacing of %g mm: 0.3 to 10 mm", config->spacing_mm);
    return true;
}

/* Slices about the middle of the lungs; identity orientation, slice 0 lowest. */
static struct grid grid_for(const struct phantom_config *config, const struct anatomy *anatomy) {
    double spacing = config->spacing_mm > 0 ? config->spacing_mm : SPACING_DEFAULT_MM;
    double low = anatomy->base_mm - MARGIN_MM, high = anatomy->apex_mm + MARGIN_MM;
    int32_t slices = config->slices ? config->slices : (int32_t)ceil((high - low) / spacing) + 1;
    double corner = -0.5 * (RENDER_SIDE - 1) * PIXEL_MM;
    return (struct grid){.size_ijk = {RENDER_SIDE, RENDER_SIDE, slices},
                         .spacing_mm = {PIXEL_MM, PIXEL_MM, spacing},
                         .ijk_to_lps_mm = {{PIXEL_MM, 0, 0, corner},
                                           {0, PIXEL_MM, 0, corner},
                                           {0, 0, spacing, round(0.5 * (low + high) - 0.5 * (slices - 1) * spacing)}}};
}

static bool render(const struct scene *scene, struct volume *volume, struct err *err) {
    PULMO_SCOPED(renderer_free_at) struct renderer *renderer = renderer_new(scene, err);
    if (!renderer)
        return false;
    for (int32_t k = 0; k < volume->grid.size_ijk[2]; k++) {
        double z_mm = volume->grid.ijk_to_lps_mm[2][3] + k * volume->grid.spacing_mm[2];
        renderer_slice(renderer, (float)z_mm, (uint32_t)k, volume->hu + (size_t)k * RENDER_SIDE * RENDER_SIDE);
    }
    return true;
}

static void tell_nodules(const struct nodule *nodules, size_t count, struct phantom *out) {
    for (size_t index = 0; index < count; index++)
        out->nodules[index] = (struct phantom_nodule){
            .center_lps_mm = {nodules[index].center.x, nodules[index].center.y, nodules[index].center.z},
            .diameter_mm = 2.0 * nodules[index].radius,
            .texture = TEXTURE_SOLID};
    out->nodule_count = count;
}

bool phantom_make(const struct phantom_config *config, struct phantom *out, struct err *err) {
    if (!config_checked(config, err))
        return false;
    struct anatomy anatomy = anatomy_new(config->seed);
    struct grid grid = grid_for(config, &anatomy);
    PULMO_SCOPED(trees_free) struct trees trees = {0};
    struct nodule nodules[PHANTOM_NODULES_MAX];
    double low = grid.ijk_to_lps_mm[2][3], high = low + (grid.size_ijk[2] - 1) * grid.spacing_mm[2];
    const float z_range[2] = {(float)fmax(low + 8, anatomy.base_mm), (float)fmin(high - 8, anatomy.apex_mm)};
    if (!trees_grow(&anatomy, config->seed, &trees, err) ||
        !nodules_place(&anatomy, &trees, config, z_range, nodules, err))
        return false;
    PULMO_SCOPED(volume_free_at) struct volume *volume = volume_new(&grid, err);
    struct scene scene = {.anatomy = &anatomy,
                          .trees = &trees,
                          .nodules = nodules,
                          .nodule_count = config->nodules,
                          .seed = config->seed,
                          .pixel_mm = (float)PIXEL_MM,
                          .spacing_mm = (float)grid.spacing_mm[2]};
    if (!volume || !render(&scene, volume, err))
        return false;
    *out = (struct phantom){.volume = volume};
    volume = NULL;
    tell_nodules(nodules, config->nodules, out);
    return true;
}

void phantom_free(struct phantom *phantom) {
    volume_free(phantom->volume);
    *phantom = (struct phantom){0};
}
