/* A stream of random numbers: Philox with a counter that runs. Private to phantom/. */
#ifndef PULMO_PHANTOM_DRAW_H
#define PULMO_PHANTOM_DRAW_H

#include "random.h"

struct draw {
    uint32_t key[2];
    uint32_t counter[4]; /* [0] runs, [1] names the purpose, [2] a slice or an index */
};
enum draw_purpose { DRAW_ANATOMY = 1, DRAW_TREE, DRAW_PLACE, DRAW_LOBULES, DRAW_NOISE, DRAW_TEXTURE };

static inline struct draw draw_new(uint64_t seed, enum draw_purpose purpose, uint32_t index) {
    return (struct draw){{(uint32_t)seed, (uint32_t)(seed >> 32)}, {0, (uint32_t)purpose, index, 0}};
}
static inline void draw_four(struct draw *draw, uint32_t out[4]) {
    random_philox(draw->key, draw->counter, out);
    draw->counter[0]++;
}
/* Uniform in [from, to). */
static inline float draw_between(struct draw *draw, float from, float to) {
    uint32_t bits[4];
    draw_four(draw, bits);
    return from + (to - from) * random_uniform(bits[0]);
}

#endif
