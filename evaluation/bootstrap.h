/* Resampling of whole scans: marks of one scan are not independent. Internal to evaluation/. */
#ifndef EVALUATION_BOOTSTRAP_H
#define EVALUATION_BOOTSTRAP_H

#include "pulmo.h"

/* How often each of `scans` is drawn in resample number `sample`: as many draws as scans, with replacement. A pure
 * function of its arguments. */
void bootstrap_weights(uint64_t seed, uint32_t sample, size_t scans, uint32_t *weight);
/* The 2.5th and the 97.5th percentile of count > 0 values, which it sorts. */
void bootstrap_interval(double *values, size_t count, double *low, double *high);

#endif
