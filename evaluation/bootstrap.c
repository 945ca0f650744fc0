#include "evaluation/bootstrap.h"
#include "random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void bootstrap_weights(uint64_t seed, uint32_t sample, size_t scans, uint32_t *weight) {
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    memset(weight, 0, scans * sizeof *weight);
    for (size_t n = 0; n < scans; n += 4) {
        uint32_t bits[4];
        random_philox(key, (const uint32_t[4]){(uint32_t)n, (uint32_t)(n >> 32), sample, 0}, bits);
        for (size_t draw = 0; draw < 4 && n + draw < scans; draw++)
            weight[((uint64_t)bits[draw] * scans) >> 32]++;
    }
}

static int compare_ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void bootstrap_interval(double *values, size_t count, double *low, double *high) {
    qsort(values, count, sizeof *values, compare_ascending);
    *low = values[(size_t)floor(0.025 * (double)count)];
    *high = values[(size_t)ceil(0.975 * (double)count) - 1];
}
