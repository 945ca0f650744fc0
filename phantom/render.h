/* From shapes to Hounsfield units, slice by slice. Private to phantom/. */
#ifndef PULMO_PHANTOM_RENDER_H
#define PULMO_PHANTOM_RENDER_H

#include "phantom/nodule.h"

#define RENDER_SIDE 512

struct scene {
    const struct anatomy *anatomy;
    const struct trees *trees;
    const struct nodule *nodules;
    size_t nodule_count;
    uint64_t seed;
    float pixel_mm, spacing_mm;
};
struct renderer;                                                           /* one thread at a time */
struct renderer *renderer_new(const struct scene *scene, struct err *err); /* scene: borrowed until freed */
void renderer_free_at(struct renderer **renderer);
/* One slice centred at z: RENDER_SIDE x RENDER_SIDE values; index names its noise. */
void renderer_slice(struct renderer *renderer, float z_mm, uint32_t index, int16_t *hu);

/* raster.c: coverage (0..1) of tubes and nodules in the plane at z, kept where it exceeds what is there. */
void raster_tubes(const struct tubes *tubes, const struct scene *scene, float z_mm, bool walls, float *coverage);
void raster_nodules(const struct scene *scene, float z_mm, float *coverage);

/* noise.c: adds noise with the texture of a soft reconstruction kernel. scratch: 3 * side * side floats. */
void noise_add(const struct scene *scene, uint32_t index, float *hu, float *scratch);

static inline float scene_x(const struct scene *scene, float pixel) {
    return (pixel - 0.5F * (RENDER_SIDE - 1)) * scene->pixel_mm;
}

#endif
