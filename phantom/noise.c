/* CT noise has no energy at the lowest frequencies (the ramp filter) and little at the highest (the kernel): white
 * noise, smoothed narrowly, minus the same smoothed widely. */
#include "phantom/draw.h"
#include "phantom/render.h"

#include <string.h>

#define SIGMA_HU 17.0F
#define PLANE ((size_t)RENDER_SIDE * RENDER_SIDE)

/* The sum of 32 fair coins, from the bits of one word: near enough to a normal law, variance 8. */
static float normal_of(uint32_t bits, uint32_t more) {
    int sum = __builtin_popcount(bits) - 16;
    return ((float)sum + (float)(more & 0xFFFF) * 0x1p-16F - 0.5F) * 0.3518F; /* 1 / sqrt(8 + 1/12) */
}

static void white(const struct scene *scene, uint32_t index, float *out) {
    struct draw draw = draw_new(scene->seed, DRAW_NOISE, index);
    for (size_t n = 0; n < PLANE; n += 4) {
        uint32_t bits[4];
        draw_four(&draw, bits);
        for (size_t lane = 0; lane < 4; lane++)
            out[n + lane] = normal_of(bits[lane], bits[(lane + 1) & 3] >> 9);
    }
}

/* [1 2 1] / 4 at distance `step` along rows, then columns; wraps around, which noise does not mind. */
static void smooth(const float *in, float *out, float *scratch, int step) {
    const int mask = RENDER_SIDE - 1;
    for (int j = 0; j < RENDER_SIDE; j++) {
        const float *row = in + j * RENDER_SIDE;
        for (int i = 0; i < RENDER_SIDE; i++)
            scratch[j * RENDER_SIDE + i] =
                0.25F * row[(i - step) & mask] + 0.5F * row[i] + 0.25F * row[(i + step) & mask];
    }
    for (int j = 0; j < RENDER_SIDE; j++) {
        const float *above = scratch + ((j - step) & mask) * RENDER_SIDE, *row = scratch + j * RENDER_SIDE;
        const float *below = scratch + ((j + step) & mask) * RENDER_SIDE;
        for (int i = 0; i < RENDER_SIDE; i++)
            out[j * RENDER_SIDE + i] = 0.25F * above[i] + 0.5F * row[i] + 0.25F * below[i];
    }
}

void noise_add(const struct scene *scene, uint32_t index, float *hu, float *scratch) {
    float *narrow = scratch, *wide = scratch + PLANE, *work = scratch + 2 * PLANE;
    white(scene, index, wide);
    smooth(wide, narrow, work, 1);
    smooth(narrow, wide, work, 2);
    /* Variance of the difference, from the taps: 0.0815 of the white noise's. */
    const float gain = SIGMA_HU / 0.2855F;
    for (size_t n = 0; n < PLANE; n++)
        hu[n] += gain * (narrow[n] - 0.8F * wide[n]);
}
