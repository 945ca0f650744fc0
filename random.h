/* Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
 * SC 2011). A pure function of key and counter, so a dropout mask or a phantom's noise can be computed again
 * in any order and on any number of threads. Not for secrets. */
#ifndef PULMO_RANDOM_H
#define PULMO_RANDOM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void random_philox(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4]);
/* A uniform number in [0, 1) with 24 bits. */
static inline float random_uniform(uint32_t bits) {
    return (float)(bits >> 8) * 0x1p-24F;
}

#ifdef __cplusplus
}
#endif
#endif
