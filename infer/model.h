/* Inside infer/: what a model file says, and the three graphs made of its two. */
#ifndef PULMO_INFER_MODEL_H
#define PULMO_INFER_MODEL_H

#include "infer/graph.h"
#include "infer/infer.h"

#define MODEL_STRIDE 4 /* voxels a heatmap cell */

enum { DETECTOR_HEATMAP = 0, DETECTOR_OFFSET, DETECTOR_LOG_DIAMETER, DETECTOR_OUTPUTS };
enum { CANDIDATE_LOGIT = 0, CANDIDATE_TEXTURE, CANDIDATE_LOG_DIAMETER, CANDIDATE_ATTENTION, CANDIDATE_OUTPUTS };

enum { GATE_WHOLE = 0, GATE_SLICE, GATE_EXTENTS };
#define GATE_TURNS 4 /* the frame as it is, upside down, back to front, both: one batch */

/* Where an output of candidate.onnx comes out: of the trunk (once a candidate) or of the tail (once a pass). */
struct candidate_port {
    bool in_tail;
    int index;
};

struct infer_model {
    struct infer_model_info info;
    char *name, *version;
    int tile, margin, side; /* voxels */
    int cam_side;           /* of the cube that a gradient map is computed in */
    int inner_max;          /* 0 = tiles are cubes from the volume's first voxel (infer/tiles.h) */
    int recompute_side;     /* of the cube in which a candidate is computed again; 0 = its whole tile */
    double score_min;
    size_t candidates_max;
    struct graph *detector;
    int detector_outputs[DETECTOR_OUTPUTS]; /* index among the graph's outputs */
    int cam_value;
    struct graph *trunk, *tail;        /* candidate.onnx before and behind its first Dropout; tail NULL = no Dropout */
    int tail_sources[GRAPH_PORTS_MAX]; /* trunk output that feeds input i of the tail */
    struct candidate_port candidate_outputs[CANDIDATE_OUTPUTS];
    struct graph *gate; /* NULL = the model has none */
    int gate_output;
    double gate_limits[GATE_EXTENTS][INFER_GATE_CHANNELS]; /* root mean square error, [whole, slice][channel] */
    double gate_turned_limit, gate_repeated_limit;
};

/* gate.c: judges a frame by its reconstructions; both are GATE_TURNS frames. */
void infer_gate_judge(const struct infer_model *model, const float *frames, const float *again,
                      struct infer_gate_result *out);

/* split.c: cuts candidate.onnx in two and fills trunk, tail, tail_sources, candidate_outputs. */
bool infer_model_split(struct infer_model *model, const struct graph *candidate, struct err *err) PULMO_MUST_USE;

#endif
