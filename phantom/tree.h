/* Vessels and airways of the lungs as tubes. Private to phantom/. */
#ifndef PULMO_PHANTOM_TREE_H
#define PULMO_PHANTOM_TREE_H

#include "phantom/anatomy.h"
#include "pulmo.h"

struct tubes {
    struct tube *items; /* owned */
    size_t count, capacity;
};
struct trees {
    struct tubes vessels; /* arteries and veins, outer radius */
    struct tubes airways; /* radius of the lumen; the wall is airway_wall_mm() more */
};
/* Both lungs: arteries from the hilum with the airways beside them, veins from the left atrium. */
bool trees_grow(const struct anatomy *anatomy, uint64_t seed, struct trees *out, struct err *err) PULMO_MUST_USE;
void trees_free(struct trees *trees);

/* Weibel: the wall is about a fifth of the lumen's radius, thicker in relation where it is small. */
static inline float airway_wall_mm(float lumen_radius_mm) {
    return 0.35F + 0.12F * lumen_radius_mm;
}

#endif
