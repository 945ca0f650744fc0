/* One study on a card: the volume lies there, tiles and crops are cut there, maps are decoded there. What crosses the
 * bus is the volume once, and a few kilobytes of results. */
#ifndef PULMO_INFER_CUDA_STUDY_H
#define PULMO_INFER_CUDA_STUDY_H

#include "infer/cuda/network.h"

struct study;

struct study *study_new(struct card *card, struct err *err);
void study_free(struct study *study);

/* The calls of struct cuda_plugin of the same names. */
bool study_run(struct study *study, struct network *network, const float *const *inputs, float *const *outputs,
               const struct cuda_keys *keys, struct err *err) PULMO_MUST_USE;
bool study_resample(struct study *study, const struct cuda_resample *how, const int16_t *hu, int16_t *out,
                    struct err *err) PULMO_MUST_USE;
struct study_marks { /* what a detection leaves */
    struct cuda_mark *marks;
    int32_t *count;
    float *maps; /* NULL = not wanted */
    struct cuda_timing *timing;
};
bool study_detect(struct study *study, struct network *network, const struct cuda_detect *request,
                  const struct study_marks *out, struct err *err) PULMO_MUST_USE;
struct study_crops {
    const struct cuda_crops *request;
    const struct cuda_keys *keys;
    float *const *outputs;
    struct cuda_timing *timing;
};
bool study_candidates(struct study *study, struct network *network, const struct study_crops *crops,
                      struct err *err) PULMO_MUST_USE;

#endif
