/* A synthetic chest: body, ribs, spine, mediastinum, trachea, branching vessels and airways, and nodules of known
 * place and size. The reference input of demo and tests; holds nothing of any patient. */
#ifndef PULMO_PHANTOM_H
#define PULMO_PHANTOM_H

#include "pulmo.h"

#define PHANTOM_NODULES_MAX 16
struct phantom_config {
    uint64_t seed;
    int32_t slices;    /* 0 = as many as cover the lungs */
    uint32_t nodules;  /* 0 .. PHANTOM_NODULES_MAX */
    double spacing_mm; /* slice spacing; 0 = 2.5 */
};
struct phantom_nodule {
    double center_lps_mm[3];
    double diameter_mm;
    enum texture texture;
};
struct phantom {
    struct volume *volume;
    struct phantom_nodule nodules[PHANTOM_NODULES_MAX];
    size_t nodule_count;
};
/* The same configuration gives the same voxels. ERR_LIMIT on sizes out of range. */
bool phantom_make(const struct phantom_config *config, struct phantom *out, struct err *err) PULMO_MUST_USE;
void phantom_free(struct phantom *phantom);

#endif
