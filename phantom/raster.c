#include "phantom/render.h"

struct window {
    int first[2], last[2]; /* columns, rows, inclusive; empty when last < first */
};

static int pixel_clamped(const struct scene *scene, float mm, float round) {
    float pixel = floorf(mm / scene->pixel_mm + 0.5F * (RENDER_SIDE - 1) + round);
    return (int)smaller(larger(pixel, 0), RENDER_SIDE - 1);
}

static struct window window_of(const struct scene *scene, struct vec low, struct vec high) {
    return (struct window){{pixel_clamped(scene, low.x, 0), pixel_clamped(scene, low.y, 0)},
                           {pixel_clamped(scene, high.x, 1), pixel_clamped(scene, high.y, 1)}};
}

/* The window around the piece of a tube that comes within its radius of the plane; false = none does. */
static bool tube_window(const struct scene *scene, const struct tube *tube, float z_mm, struct window *out) {
    float radius = larger(tube->radius_a, tube->radius_b), reach = radius + scene->pixel_mm;
    float dz = tube->b.z - tube->a.z, from = 0, to = 1;
    if (smaller(tube->a.z, tube->b.z) - reach > z_mm || larger(tube->a.z, tube->b.z) + reach < z_mm)
        return false;
    if (fabsf(dz) > 1e-3F) {
        float t0 = (z_mm - reach - tube->a.z) / dz, t1 = (z_mm + reach - tube->a.z) / dz;
        from = clamp01(smaller(t0, t1));
        to = clamp01(larger(t0, t1));
    }
    struct vec p = vec_mix(tube->a, tube->b, from), q = vec_mix(tube->a, tube->b, to);
    struct vec low = {smaller(p.x, q.x) - reach, smaller(p.y, q.y) - reach, 0};
    struct vec high = {larger(p.x, q.x) + reach, larger(p.y, q.y) + reach, 0};
    *out = window_of(scene, low, high);
    return true;
}

void raster_tubes(const struct tubes *tubes, const struct scene *scene, float z_mm, bool walls, float *coverage) {
    for (size_t index = 0; index < tubes->count; index++) {
        struct tube tube = tubes->items[index];
        if (walls) {
            tube.radius_a += airway_wall_mm(tube.radius_a);
            tube.radius_b += airway_wall_mm(tube.radius_b);
        }
        struct window window;
        if (!tube_window(scene, &tube, z_mm, &window))
            continue;
        for (int j = window.first[1]; j <= window.last[1]; j++)
            for (int i = window.first[0]; i <= window.last[0]; i++) {
                struct vec p = {scene_x(scene, (float)i), scene_x(scene, (float)j), z_mm};
                float inside = clamp01(0.5F - tube_distance(&tube, p) / scene->pixel_mm);
                float *pixel = &coverage[j * RENDER_SIDE + i];
                *pixel = larger(*pixel, inside);
            }
    }
}

void raster_nodules(const struct scene *scene, float z_mm, float *coverage) {
    for (size_t index = 0; index < scene->nodule_count; index++) {
        const struct nodule *nodule = &scene->nodules[index];
        float reach = nodule->radius * 1.3F + 2;
        if (fabsf(nodule->center.z - z_mm) > reach)
            continue;
        struct vec margin = {reach, reach, reach};
        struct window window = window_of(scene, vec_sub(nodule->center, margin), vec_add(nodule->center, margin));
        for (int j = window.first[1]; j <= window.last[1]; j++)
            for (int i = window.first[0]; i <= window.last[0]; i++) {
                struct vec p = {scene_x(scene, (float)i), scene_x(scene, (float)j), z_mm};
                float depth = nodule_radius_towards(nodule, p) - vec_length(vec_sub(p, nodule->center));
                float *pixel = &coverage[j * RENDER_SIDE + i];
                *pixel = larger(*pixel, smoothstep(-0.9F, 0.9F, depth)); /* a soft rim */
            }
    }
}
