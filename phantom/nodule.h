/* Nodules: where they fit, and how they look. Private to phantom/. */
#ifndef PULMO_PHANTOM_NODULE_H
#define PULMO_PHANTOM_NODULE_H

#include "phantom/phantom.h"
#include "phantom/tree.h"

#define NODULE_WAVES 5
struct nodule {
    struct vec center;
    float radius; /* of the sphere of equal volume */
    struct {
        struct vec direction;
        float amplitude;
    } waves[NODULE_WAVES]; /* a slightly lobulated surface */
};
/* Places count nodules of 8 to 16 mm in parenchyma between z_low and z_high: clear of the pleura, of vessels and
 * airways that could be seen beside them, and of each other. ERR_LIMIT when they do not fit. */
bool nodules_place(const struct anatomy *anatomy, const struct trees *trees, const struct phantom_config *config,
                   const float z_range[2], struct nodule *out, struct err *err) PULMO_MUST_USE;
/* Radius of the surface in the direction of p. */
float nodule_radius_towards(const struct nodule *nodule, struct vec p);

#endif
