#include "phantom/anatomy.h"

#include "phantom/draw.h"

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))
#define APEX_MM 254.0F

/* Great vessels and what runs with them; radii of a healthy adult. */
static const struct tube great_vessels[] = {
    {{-6, -14, 100}, {-13, -20, 150}, 16.5F, 16},   /* ascending aorta */
    {{-13, -20, 150}, {-6, -8, 176}, 16, 14.5F},    /* arch */
    {{-6, -8, 176}, {12, 18, 182}, 14.5F, 13.5F},   /* */
    {{12, 18, 182}, {22, 36, 164}, 13.5F, 12.5F},   /* */
    {{22, 36, 164}, {19, 40, 60}, 12.5F, 11.5F},    /* descending aorta */
    {{19, 40, 60}, {9, 36, -60}, 11.5F, 11},        /* */
    {{-27, -12, 100}, {-24, -14, 200}, 9.5F, 9},    /* superior vena cava */
    {{-24, -14, 200}, {-24, -10, 256}, 8, 7},       /* right brachiocephalic vein */
    {{-24, -16, 198}, {20, -22, 218}, 6.5F, 6.5F},  /* left brachiocephalic vein */
    {{20, -22, 218}, {26, -14, 258}, 6.5F, 6},      /* */
    {{-6, -8, 178}, {-16, -6, 222}, 7, 6},          /* brachiocephalic trunk */
    {{-16, -6, 222}, {-24, -2, 300}, 6, 4.5F},      /* */
    {{2, 4, 184}, {14, 2, 300}, 4.5F, 4},           /* left carotid */
    {{10, 14, 184}, {19, 16, 256}, 5.5F, 5},        /* left subclavian */
    {{19, 16, 256}, {80, 6, 272}, 5, 4.5F},         /* */
    {{15, -30, 112}, {20, -10, 146}, 14.5F, 13.5F}, /* pulmonary trunk */
    {{18, -8, 148}, {-8, 2, 148}, 11.5F, 11},       /* right pulmonary artery, behind the ascending aorta */
    {{-8, 2, 148}, {-30, 6, 146}, 11, 7.5F},        /* */
    {{20, -8, 148}, {34, 6, 150}, 11.5F, 7.5F},     /* left pulmonary artery */
    {{-24, 0, -30}, {-24, 0, 72}, 11, 12},          /* inferior vena cava */
    {{4, 30, 300}, {6, 32, 130}, 6, 6},             /* oesophagus */
    {{6, 32, 130}, {12, 24, 20}, 6.5F, 7},          /* */
};
static const struct ellipsoid heart[] = {
    {{26, -26, 78}, {50, 40, 42}},  /* ventricles */
    {{-18, -14, 88}, {28, 30, 34}}, /* right atrium */
    {{4, 12, 112}, {31, 18, 20}},   /* left atrium */
};
static const struct ellipsoid livers[] = {
    {{-62, 4, -22}, {74, 84, 88}}, /* right lobe */
    {{6, -24, 4}, {62, 48, 36}},   /* left lobe */
    {{88, 38, 4}, {32, 36, 40}},   /* spleen */
};

struct anatomy anatomy_new(uint64_t seed) {
    struct draw draw = draw_new(seed, DRAW_ANATOMY, 0);
    struct anatomy anatomy;
    anatomy.stretch.x = draw_between(&draw, 0.96F, 1.04F);
    anatomy.stretch.y = draw_between(&draw, 0.95F, 1.05F);
    anatomy.stretch.z = draw_between(&draw, 0.95F, 1.04F);
    anatomy.apex_mm = APEX_MM * anatomy.stretch.z;
    anatomy.base_mm = -4 * anatomy.stretch.z;
    return anatomy;
}

/* Widest at the diaphragm, closing like a dome whose top lies further back than its base. */
float anatomy_cavity(struct vec p) {
    float t = clamp01((p.z - 50) / (APEX_MM - 50)), t3 = t * t * t;
    if (p.z >= APEX_MM)
        return p.z - APEX_MM + 3;
    float half_width = 124 * powf(1 - t3, 0.42F), half_depth = 83 * powf(1 - powf(t, 2.3F), 0.45F);
    float y = p.y - 16 * t3;
    float exponent = mix(2.15F, 2.6F, smoothstep(-40, 40, y)); /* rounder in front, squarer behind */
    float distance = superellipse_distance(p.x, y, larger(half_width, 4), larger(half_depth, 4), exponent);
    return larger(distance, (p.z - APEX_MM) * 0.8F);
}

static float blood_of(struct vec p) {
    float distance = 1e3F;
    if (p.z < 140 && p.z > 20)
        for (size_t index = 0; index < COUNT_OF(heart); index++)
            distance = shape_join(distance, ellipsoid_distance(&heart[index], p), 8);
    for (size_t index = 0; index < COUNT_OF(great_vessels); index++) {
        const struct tube *tube = &great_vessels[index];
        float reach = tube->radius_a + 14;
        if (p.z < smaller(tube->a.z, tube->b.z) - reach || p.z > larger(tube->a.z, tube->b.z) + reach)
            continue;
        distance = shape_join(distance, tube_distance(tube, p), 2);
    }
    return distance;
}

/* Everything between the lungs, with its fat. */
static float mediastinum_of(struct vec p, float vessels) {
    static const struct tube airway = {{0, 12, 320}, ANATOMY_CARINA, 10, 10};
    static const struct tube bronchi[] = {{ANATOMY_CARINA, ANATOMY_HILUM_RIGHT, 9, 5.5F},
                                          {ANATOMY_CARINA, ANATOMY_HILUM_LEFT, 9, 5.5F}};
    /* Fat clothes the great vessels, less so where they leave for the lungs. */
    float blood = vessels - mix(3.5F, 0.8F, smoothstep(20, 32, fabsf(p.x)));
    float spine = superellipse_distance(p.x, p.y - 56, 22, 22, 2) - 1;
    float middle = fabsf(p.x) - mix(3.5F, 17, smoothstep(-62, 10, p.y)) - 9 * smoothstep(190, 250, p.z);
    float all = shape_join(blood, spine, 10);
    all = shape_join(all, middle, 8);
    all = shape_join(all, tube_distance(&airway, p) - 3, 8);
    all = shape_join(all, tube_distance(&bronchi[0], p) - 1.5F, 8);
    return shape_join(all, tube_distance(&bronchi[1], p) - 1.5F, 8);
}

/* Height of the diaphragm: two domes, deep recesses at the sides and behind. */
static float diaphragm_z(struct vec p) {
    bool right = p.x < 6;
    float x = (p.x - (right ? -66.0F : 62.0F)) / 92, y = (p.y + 4) / 84;
    float fall = x * x + (y > 0 ? 0.95F : 0.5F) * y * y;
    float dome = (right ? 64.0F : 52.0F) - 66 * fall / sqrtf(1 + 0.15F * fall);
    return larger(dome, -6);
}

static float lung_of(struct vec p, float cavity, float mediastinum) {
    float chest = shape_meet(cavity, -mediastinum, 7);
    return larger(chest, (diaphragm_z(p) - p.z) * 0.8F);
}

static float organ_of(struct vec p, float cavity) {
    float below = larger(cavity + 2, (p.z - diaphragm_z(p) + 2.5F) * 0.8F);
    float organ = 1e3F;
    for (size_t index = 0; index < COUNT_OF(livers); index++)
        organ = shape_join(organ, ellipsoid_distance(&livers[index], p), 6);
    return larger(organ, below);
}

static struct vec canonical_of(const struct anatomy *anatomy, struct vec world) {
    return (struct vec){world.x / anatomy->stretch.x, world.y / anatomy->stretch.y, world.z / anatomy->stretch.z};
}

float anatomy_lung(const struct anatomy *anatomy, struct vec world) {
    struct vec p = canonical_of(anatomy, world);
    return lung_of(p, anatomy_cavity(p), mediastinum_of(p, blood_of(p)));
}

void anatomy_fields(const struct anatomy *anatomy, struct vec world, float out[FIELD_COUNT]) {
    struct vec p = canonical_of(anatomy, world);
    for (int field = 0; field < FIELD_COUNT; field++)
        out[field] = 99;
    out[FIELD_BODY] = chest_wall_body(p);
    if (out[FIELD_BODY] > 6)
        return;
    float cavity = anatomy_cavity(p);
    out[FIELD_CAVITY] = cavity;
    chest_wall_fields(p, cavity, out);
    if (cavity > 12 && p.z < 200)
        return;
    out[FIELD_BLOOD] = blood_of(p);
    if (p.z < 80)
        out[FIELD_ORGAN] = organ_of(p, cavity);
    if (p.z < APEX_MM + 8 && p.z > -14)
        out[FIELD_LUNG] = lung_of(p, cavity, mediastinum_of(p, out[FIELD_BLOOD]));
}
