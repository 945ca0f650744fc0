/* Where which tissue is: signed-distance fields of an adult chest in supine position. Private to phantom/.
 *
 * Canonical frame: LPS, mm; x = 0 and y = 0 in the middle of the thorax, z = 0 at the lowest recess of the lungs and
 * about 255 at their apex. A seed stretches it by a few per cent along each axis. */
#ifndef PULMO_PHANTOM_ANATOMY_H
#define PULMO_PHANTOM_ANATOMY_H

#include "phantom/shape.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum field {
    FIELD_BODY = 0,
    FIELD_MUSCLE,    /* chest wall within the subcutaneous fat */
    FIELD_BONE,      /* outer surface of cortical bone */
    FIELD_CARTILAGE, /* costal cartilage and intervertebral discs */
    FIELD_CAVITY,    /* inside of the rib cage */
    FIELD_LUNG,
    FIELD_BLOOD, /* heart and great vessels */
    FIELD_ORGAN, /* liver and spleen */
    FIELD_COUNT
};

struct anatomy {
    struct vec stretch;     /* world = canonical * stretch */
    float apex_mm, base_mm; /* world z of the lungs' ends */
};
struct anatomy anatomy_new(uint64_t seed);
/* All fields at a point of the world. */
void anatomy_fields(const struct anatomy *anatomy, struct vec world, float out[FIELD_COUNT]);
float anatomy_lung(const struct anatomy *anatomy, struct vec world);
static inline struct vec anatomy_world(const struct anatomy *anatomy, struct vec canonical) {
    return (struct vec){canonical.x * anatomy->stretch.x, canonical.y * anatomy->stretch.y,
                        canonical.z * anatomy->stretch.z};
}

/* ---- parts, canonical -------------------------------------------------------------------------------- */

/* The rib cage's inner surface; z beyond the lungs' ends is allowed. */
float anatomy_cavity(struct vec p);
/* chest_wall.c: muscle, bone and cartilage, given the cavity's distance at p. */
void chest_wall_fields(struct vec p, float cavity, float out[FIELD_COUNT]);
float chest_wall_body(struct vec p);

/* Trachea and main bronchi, with the points where each lung's tree begins. */
#define ANATOMY_CARINA \
    { 0, 14, 168 }
#define ANATOMY_HILUM_RIGHT \
    { -40, 14, 146 }
#define ANATOMY_HILUM_LEFT \
    { 42, 18, 144 }

#endif
