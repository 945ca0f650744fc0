/* A device plan on a card: its arena, its constants, its convolutions, and all its steps as one recorded graph. */
#ifndef PULMO_INFER_CUDA_NETWORK_H
#define PULMO_INFER_CUDA_NETWORK_H

#include "infer/cuda/card.h"

struct network;

/* plan: a block that device_plan_check accepts; copied. */
struct network *network_new(struct card *card, const void *plan, size_t size, struct err *err);
void network_free(struct network *network);
const struct device_plan *network_plan(const struct network *network);
struct cuda_figures network_figures(const struct network *network);

/* On the card: where input or output `port` lies, row-major floats of the whole batch. */
float *network_input(const struct network *network, int port);
const float *network_output(const struct network *network, int port);
size_t network_output_size(const struct network *network, int port); /* bytes */

/* Queue the keys of the runs that follow; keys NULL = no dropout. `staging` is pinned and untouched until they ran. */
void network_keys(struct network *network, const struct cuda_keys *keys, struct device_keys *staging);
/* Queue one run of all steps. */
void network_run(struct network *network);
/* Queue the copy of the fault into pinned memory, and start anew with none. */
void network_fault(struct network *network, int32_t *staging);
/* What a reached fault says: ERR_INPUT names the layer that gave NaN or infinity. */
bool network_judge(const struct network *network, int32_t fault, struct err *err) PULMO_MUST_USE;
/* Milliseconds of each step alone, the median of `rounds`. */
bool network_profile(struct network *network, int rounds, float *out_ms, struct err *err) PULMO_MUST_USE;

#endif
