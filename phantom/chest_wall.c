/* Ribs, sternum, spine, shoulder blades, collar bones, and the muscle and skin around them. */
#include "phantom/anatomy.h"

#define LEVEL_MM 23.0F      /* one vertebra with its disc, and one rib */
#define FIRST_RIB_MM 246.0F /* no rib begins higher */

/* Height of p above the middle of the nearest vertebra. */
static float level_offset(float z) {
    return z - LEVEL_MM * floorf(z / LEVEL_MM + 0.5F);
}

/* A rib starts at the spine, falls towards the side and the front, and its cartilage rises again to the sternum.
 * angle: 0 at the spine, pi at the sternum. */
static float rib_fall(float angle) {
    return 46 * (1 - cosf(smaller(angle, 2.5F))) - 34 * smoothstep(2.45F, 3.05F, angle);
}

static void rib_fields(struct vec p, float cavity, float *bone, float *cartilage) {
    if (cavity < -4 || cavity > 16)
        return;
    float angle = atan2f(fabsf(p.x), p.y - 6); /* from behind */
    if (angle < 0.26F)
        return;
    float origin = p.z + rib_fall(angle);
    float index = floorf(origin / LEVEL_MM);
    float dz = (origin - (index + 0.5F) * LEVEL_MM) * 0.9F; /* the rib is oblique: shorter across it */
    if ((index + 0.5F) * LEVEL_MM > FIRST_RIB_MM)
        return;
    float radial = (cavity - 5.8F) / 3.9F, tall = dz / 6.3F;
    float distance = (sqrtf(radial * radial + tall * tall) - 1) * 4.3F;
    float soft = smoothstep(2.36F, 2.44F, angle);
    *bone = smaller(*bone, distance + 12 * soft);
    *cartilage = smaller(*cartilage, distance + 12 * (1 - soft));
}

static void spine_fields(struct vec p, float *bone, float *cartilage) {
    if (fabsf(p.x) > 48 || p.y < 20)
        return;
    float dz = level_offset(p.z);
    float waist = 1.6F * (1 - smoothstep(3, 9, fabsf(dz))); /* bodies are narrower in the middle */
    float body = superellipse_distance(p.x, p.y - 52, 17.5F - waist, 15 - waist, 2.4F);
    float disc = larger(superellipse_distance(p.x, p.y - 52, 17, 14.5F, 2.4F), 9 - fabsf(dz));
    float canal = superellipse_distance(p.x, p.y - 75, 9.5F, 8, 2);
    float arch = superellipse_distance(p.x, p.y - 74, 15, 13, 2);
    float foramen = larger(fabsf(p.y - 68) - 4, fabsf(dz + 9) - 4.5F);
    static const struct ellipsoid process = {{0, 94, -7}, {3.2F, 15, 9.5F}};
    static const struct ellipsoid transverse[] = {{{24, 76, 2}, {15, 4.6F, 6}}, {{-24, 76, 2}, {15, 4.6F, 6}}};
    struct vec q = {p.x, p.y, dz};
    float rear = larger(larger(arch, -foramen), 64 - p.y);
    rear = smaller(rear, ellipsoid_distance(&process, q));
    rear = smaller(rear, smaller(ellipsoid_distance(&transverse[0], q), ellipsoid_distance(&transverse[1], q)));
    float all = larger(smaller(larger(body, fabsf(dz) - 9), rear), -canal);
    *bone = smaller(*bone, all);
    *cartilage = smaller(*cartilage, disc);
}

static float sternum_distance(struct vec p) {
    if (p.y > -40 || p.z < 70 || p.z > 226 || fabsf(p.x) > 40)
        return 99;
    float front = anatomy_cavity((struct vec){0, p.y, smaller(p.z, 190)});
    float half_width = mix(15, 25, smoothstep(175, 210, p.z)) - 6 * (1 - smoothstep(72, 100, p.z));
    float side = fabsf(p.x) - half_width, plate = fabsf(front - 9.5F) - 5.2F;
    return shape_meet(shape_meet(side, plate, 6), larger(78 - p.z, p.z - 222), 4);
}

/* around: distance from the rib cage at its widest, on which blade and shoulder muscles lie. */
static float shoulder_blade(struct vec p, float around) {
    if (fabsf(p.x) < 40 || p.y < 0 || p.z < 96)
        return 99;
    float angle = atan2f(fabsf(p.x), p.y), width = mix(0.06F, 0.42F, smoothstep(100, 215, p.z));
    float plate = fabsf(around - 19) - mix(1.7F, 2.6F, smoothstep(190, 240, p.z));
    float edge = (fabsf(angle - 0.98F) - width) * 95;
    return shape_meet(shape_meet(plate, edge, 3), 100 - p.z, 3);
}

static float collar_bone(struct vec p) {
    static const struct tube bones[] = {{{-22, -62, 216}, {-70, -58, 236}, 7, 5.5F},
                                        {{-70, -58, 236}, {-125, -22, 258}, 5.5F, 6},
                                        {{22, -62, 216}, {70, -58, 236}, 7, 5.5F},
                                        {{70, -58, 236}, {125, -22, 258}, 5.5F, 6}};
    if (p.z < 200)
        return 99;
    float distance = 99;
    for (size_t index = 0; index < 4; index++)
        distance = smaller(distance, tube_distance(&bones[index], p));
    return distance;
}

static float shoulder_muscle(struct vec p, float around) {
    static const struct ellipsoid armpits[] = {{{-118, -26, 205}, {26, 40, 48}}, {{118, -26, 205}, {26, 40, 48}},
                                               {{-40, -70, 262}, {60, 14, 30}},  {{40, -70, 262}, {60, 14, 30}},
                                               {{-64, 40, 262}, {30, 9, 34}},    {{64, 40, 262}, {30, 9, 34}}};
    float angle = atan2f(fabsf(p.x), p.y), high = smoothstep(96, 140, p.z);
    float blade = larger(around - 12.5F - 14 * high, (fabsf(angle - 0.98F) - 0.5F) * 95);
    float girdle = larger(around - 2, (200 - p.z) * 0.8F);
    float all = shape_join(blade, girdle, 10);
    for (size_t index = 0; index < sizeof armpits / sizeof *armpits; index++)
        all = shape_meet(all, -ellipsoid_distance(&armpits[index], p), 8);
    return all;
}

static float muscle_distance(struct vec p, float cavity, float around) {
    static const struct ellipsoid muscles[] = {
        {{-60, -84, 182}, {52, 13, 58}},  /* pectoral */
        {{60, -84, 182}, {52, 13, 58}},   /* */
        {{-27, 84, 120}, {24, 17, 400}},  /* along the spine */
        {{27, 84, 120}, {24, 17, 400}},   /* */
        {{-134, 22, 120}, {13, 44, 110}}, /* latissimus */
        {{134, 22, 120}, {13, 44, 110}},  /* */
        {{0, 30, 300}, {58, 56, 92}},     /* neck */
    };
    float distance = cavity - 12.5F;
    for (size_t index = 0; index < sizeof muscles / sizeof *muscles; index++)
        distance = shape_join(distance, ellipsoid_distance(&muscles[index], p), 5);
    return p.z > 96 ? shape_join(distance, shoulder_muscle(p, around), 6) : distance;
}

void chest_wall_fields(struct vec p, float cavity, float out[FIELD_COUNT]) {
    float bone = 99, cartilage = 99;
    float around = p.z > 96 ? anatomy_cavity((struct vec){p.x, p.y, smaller(p.z, 120)}) : cavity;
    rib_fields(p, cavity, &bone, &cartilage);
    spine_fields(p, &bone, &cartilage);
    bone = smaller(bone, sternum_distance(p));
    bone = smaller(bone, shoulder_blade(p, around));
    out[FIELD_BONE] = smaller(bone, collar_bone(p));
    out[FIELD_CARTILAGE] = cartilage;
    out[FIELD_MUSCLE] = muscle_distance(p, cavity, around);
}

/* Skin: flatter on the couch, with a furrow over the spine and a shallow one over the breast bone. */
float chest_wall_body(struct vec p) {
    float shoulders = smoothstep(120, 210, p.z), x2 = p.x * p.x;
    float half_width = mix(156, 168, shoulders), half_depth = mix(110, 112, shoulders);
    float furrow = p.y > 0 ? 5 * expf(-x2 / 260) : 4 * expf(-x2 / 700);
    float exponent = p.y > 4 ? 2.7F : 2.35F;
    return superellipse_distance(p.x, p.y - 4, half_width, half_depth, exponent) + furrow;
}
