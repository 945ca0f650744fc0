#include "phantom/nodule.h"

#include "phantom/draw.h"

#define ATTEMPTS_MAX 20000
#define PLEURA_GAP_MM 6.0F
#define VISIBLE_RADIUS_MM 1.1F /* thinner vessels may touch a nodule, as they do in patients */
#define VESSEL_GAP_MM 2.5F
#define NODULE_GAP_MM 35.0F

static bool clear_of(const struct tubes *tubes, struct vec at, float radius) {
    for (size_t index = 0; index < tubes->count; index++) {
        const struct tube *tube = &tubes->items[index];
        if (tube->radius_a > VISIBLE_RADIUS_MM && tube_distance(tube, at) < radius + VESSEL_GAP_MM)
            return false;
    }
    return true;
}

static bool clear_of_others(const struct nodule *placed, size_t count, struct vec at) {
    for (size_t index = 0; index < count; index++)
        if (vec_length(vec_sub(placed[index].center, at)) < NODULE_GAP_MM)
            return false;
    return true;
}

static struct vec draw_direction(struct draw *draw) {
    for (;;) {
        uint32_t bits[4];
        draw_four(draw, bits);
        struct vec v = {2 * random_uniform(bits[0]) - 1, 2 * random_uniform(bits[1]) - 1,
                        2 * random_uniform(bits[2]) - 1};
        float square = vec_dot(v, v);
        if (square < 1 && square > 0.01F)
            return vec_unit(v);
    }
}

static struct nodule nodule_shape(uint64_t seed, uint32_t index) {
    struct draw draw = draw_new(seed, DRAW_LOBULES, index);
    struct nodule nodule = {.radius = draw_between(&draw, 4.2F, 7.6F)};
    for (int wave = 0; wave < NODULE_WAVES; wave++) {
        nodule.waves[wave].direction = draw_direction(&draw);
        nodule.waves[wave].amplitude = draw_between(&draw, 0.02F, 0.05F);
    }
    return nodule;
}

/* A sum of third-order zonal harmonics: its mean over the sphere is zero, so the volume stays that of the radius to
 * first order. */
float nodule_radius_towards(const struct nodule *nodule, struct vec p) {
    struct vec u = vec_unit(vec_sub(p, nodule->center));
    float factor = 1;
    for (int wave = 0; wave < NODULE_WAVES; wave++) {
        float c = vec_dot(u, nodule->waves[wave].direction);
        factor += nodule->waves[wave].amplitude * (2.5F * c * c * c - 1.5F * c);
    }
    return nodule->radius * factor;
}

bool nodules_place(const struct anatomy *anatomy, const struct trees *trees, const struct phantom_config *config,
                   const float z_range[2], struct nodule *out, struct err *err) {
    struct draw draw = draw_new(config->seed, DRAW_PLACE, 0);
    uint32_t placed = 0;
    for (int attempt = 0; attempt < ATTEMPTS_MAX && placed < config->nodules; attempt++) {
        struct nodule nodule = nodule_shape(config->seed, placed);
        uint32_t bits[4];
        draw_four(&draw, bits);
        struct vec at = {random_uniform(bits[0]) * 270 - 135, random_uniform(bits[1]) * 190 - 95,
                         mix(z_range[0], z_range[1], random_uniform(bits[2]))};
        if (anatomy_lung(anatomy, at) > -(nodule.radius + PLEURA_GAP_MM) || !clear_of_others(out, placed, at) ||
            !clear_of(&trees->vessels, at, nodule.radius) || !clear_of(&trees->airways, at, nodule.radius))
            continue;
        nodule.center = at;
        out[placed++] = nodule;
    }
    if (placed < config->nodules)
        return err_set(err, ERR_LIMIT, "only %u of %u nodules fit into %.0f mm of lung", placed, config->nodules,
                       (double)(z_range[1] - z_range[0]));
    return true;
}
