/* Inside infer/: a calibration under way, for what measures the precisions beside each other (measure_precision.c). */
#ifndef PULMO_INFER_CALIBRATE_H
#define PULMO_INFER_CALIBRATE_H

#include "infer/precision.h"
#include "infer/session.h"

struct calibration {
    const struct infer_model *model;
    const struct volume *iso;
    struct shape tile;
    int64_t (*starts)[3]; /* [tile_count] i, j, k */
    size_t tile_count;
    int layers;
    bool int8_possible[INFER_LAYERS_MAX];
    float *outputs; /* [tile][MAP_CHANNELS][cells] in fp32 */
    struct infer_precision plan;
};

/* Both are borrowed. */
struct calibration infer_calibration_of(const struct infer_model *model, const struct volume *iso);
void infer_calibration_clear(struct calibration *calibration);
/* Everything in fp32, and how far the activations of each layer reach. */
bool infer_calibration_begin(struct calibration *calibration, struct err *err) PULMO_MUST_USE;
/* The whole network in one precision, where a layer can. False = nothing could, or the back-end has no such kernel. */
bool infer_calibration_uniform(const struct calibration *calibration, char letter, struct infer_precision *out);
/* Chooses the plan; *error as infer_calibration.error. */
bool infer_calibration_choose(struct calibration *calibration, double *error, struct err *err) PULMO_MUST_USE;
/* Greatest error over the tiles, in the unit of INFER_ERROR_MAX, of a program of the graph for the tile's shape. */
bool infer_calibration_error(const struct calibration *calibration, struct runner *runner, double *out,
                             struct err *err) PULMO_MUST_USE;
/* Puts a tile into the runner and runs it; *least = the least processor time so far, 0 = none. */
bool infer_calibration_time(const struct calibration *calibration, size_t tile, struct runner *runner, double *least,
                            struct err *err) PULMO_MUST_USE;

#endif
