/* The inference engine: an ONNX graph becomes a fused plan with one memory arena, run by a back-end (oneDNN).
 *
 * A model is immutable and may be shared by any number of threads; a session belongs to one thread at a time.
 * Results are bit-identical for any number of threads of one precision, library version and instruction set. */
#ifndef PULMO_INFER_H
#define PULMO_INFER_H

#include "pulmo.h"

struct infer_model;   /* model.json, both graphs, weights; any thread */
struct infer_session; /* plan, arena, packed weights; one thread at a time */

/* How many findings there were, and how many of them were wrong. */
struct infer_tally {
    uint32_t findings, wrong;
};

/* Points of a monotone curve, straight between them and of slope 1 beyond. */
#define INFER_CURVE_MAX 16
struct infer_curve {
    double from[INFER_CURVE_MAX], to[INFER_CURVE_MAX]; /* strictly increasing */
    uint32_t count;                                    /* 0 = what goes in comes out */
};

/* What a finding's diameter is made of, by the network's and that of the sphere with the volume of the mask which was
 * grown from it: offset_mm + slope network + mask (mask's - network's), the difference being at most reach network. */
struct infer_diameter {
    double offset_mm, slope, mask, reach; /* slope 0 = the network's stands */
};

struct infer_model_info { /* borrowed from the model, valid as long as it */
    const char *name, *version;
    char sha256[65]; /* of model.json, which names the digests of the graphs */
    /* p of a pass = sigmoid(a logit1 + b logit2 + c + d), with the d of all passes that makes logit(mean p) what the
     * curve gives for it without d */
    double calibration_a, calibration_b, calibration_c;
    struct infer_curve calibration_curve;
    double operating_point;
    double dropout;
    uint32_t passes;
    uint32_t flips; /* mirror images of a crop that the passes are shared over: 1, 2, 4 or 8 */
    /* Findings whose passes disagree by more go to review; negative when the model names no threshold. */
    double review_mutual_information_nats;
    /* Reported findings on CTs that the model never saw, as the rule parted them: false ones among those it sent to
     * review and among the others. No findings where the model was not measured. */
    struct infer_tally reviewed, not_reviewed;
    struct infer_diameter diameter;
    bool has_gate; /* gate.onnx: infer_gate may be called */
};

/* Opens models/<name>/model.json; verifies the digests of the ONNX files; names an unsupported operator here, never
 * at run. ERR_NOT_FOUND, ERR_INPUT (malformed, hostile, wrong digest), ERR_UNSUPPORTED, ERR_LIMIT. */
struct infer_model *infer_model_open(const char *model_json_path, struct err *err);
/* The same model from its files in memory, as infer_model_files_read leaves them; borrowed for the call. */
struct infer_model *infer_model_open_files(const struct model_files *files, struct err *err);
/* Reads model.json and every file that it names, without judging them. Caller frees with model_files_free. */
bool infer_model_files_read(const char *model_json_path, struct model_files *out, struct err *err) PULMO_MUST_USE;
void infer_model_free(struct infer_model *model);
const struct infer_model_info *infer_model_info(const struct infer_model *model);
/* The diameter that is reported, in mm and above zero; mask_mm3 0 = there is no mask. */
double infer_diameter_mm(const struct infer_diameter *diameter, double network_mm, double mask_mm3);

/* Where the networks run: on the processor, or on a card through a plugin (infer/cuda/). AUTO and CUDA both take the
 * card where there is one and the processor where there is none. */
enum infer_backend { INFER_BACKEND_AUTO = 0, INFER_BACKEND_CPU, INFER_BACKEND_CUDA };
/* "auto", "cpu", "cuda". False for another name. */
bool infer_backend_find(const char *name, enum infer_backend *out);

/* In which precision each convolution of the detector runs on the processor; the candidate network, the gate and the
 * gradient map always run in fp32. A plan belongs to a model and to a processor: infer_calibrate makes one. */
#define INFER_LAYERS_MAX 128
struct infer_precision {
    char layers[INFER_LAYERS_MAX + 1]; /* in the graph's order: f = fp32, b = bf16, i = int8 */
    float ranges[INFER_LAYERS_MAX];    /* greatest activation that enters the layer; beyond it int8 cuts off */
    int weight_max;                    /* of int8 layers: 127, or 63 where the processor would saturate */
};
/* How many layers have that letter. */
int infer_precision_layers(const struct infer_precision *plan, char letter);

/* Which precision of which layer pays on this processor: times every layer in each precision that the processor offers,
 * on tiles of a volume as infer_detect takes it, takes the fastest, and gives back what costs more accuracy than
 * INFER_ERROR_MAX. fp32 everywhere where all that does not make the tiles faster by INFER_GAIN_MIN. Times are measured:
 * two calls may give two plans; what a plan computes depends on the plan alone. One thread, a minute or two. */
#define INFER_GAIN_MIN 1.1
/* Greatest difference to fp32 over the tiles' cells: of a heatmap probability in 0.05, and, where it is at least
 * score_min, of the offset in mm and of ln(diameter) in 0.1. */
#define INFER_ERROR_MAX 1.0
struct infer_calibration {
    struct infer_precision plan;
    int layers[3];       /* in fp32, bf16, int8 */
    double gain;         /* time of fp32 / time of the plan on the same tiles, by turns; 1 = fp32 */
    double error;        /* of the plan; see INFER_ERROR_MAX */
    double refused_gain; /* of a plan that did not gain enough; 0 = none was slower or none was offered */
    size_t tiles;
    size_t arena_bytes, weight_bytes, fp32_arena_bytes, fp32_weight_bytes; /* of one worker */
};
bool infer_calibrate(const struct infer_model *model, const struct volume *iso, struct infer_calibration *out,
                     struct err *err) PULMO_MUST_USE;
/* int8 in every layer that can, with the ranges of this volume, whatever it gains and costs: what calibration begins
 * with, and the worst that it may end with. ERR_UNSUPPORTED where the processor offers none. */
bool infer_calibrate_int8(const struct infer_model *model, const struct volume *iso, struct infer_precision *out,
                          struct err *err) PULMO_MUST_USE;

struct infer_session_config {
    unsigned threads;                        /* 0 = all processors */
    const struct infer_precision *precision; /* on the processor; NULL = fp32; borrowed for the call */
    enum infer_backend backend;
    const char *plugin;       /* file of the plugin; NULL = none, ... */
    const char *no_plugin;    /* ... because of this; NULL = none was named */
    const char *plugin_cache; /* folder where it keeps what it has prepared for the card; NULL = nowhere */
};
/* ERR_INPUT, ERR_UNSUPPORTED when the precision does not fit the model or this processor. */
struct infer_session *infer_session_new(const struct infer_model *model, const struct infer_session_config *config,
                                        struct err *err);
void infer_session_free(struct infer_session *session);
const struct infer_model *infer_session_model(const struct infer_session *session);
/* "cpu" or "cuda": what the session's last study ran on, before the first one what it is going to run on. A card that
 * fails leaves its study to the processor, from the beginning, so that one back-end does all of a study. */
const char *infer_backend_name(const struct infer_session *session);
enum infer_backend infer_backend_wanted(const struct infer_session *session);
const char *infer_backend_wanted_name(const struct infer_session *session);
/* Why it is not the card, a sentence; "" where it is, or where the processor was asked for. */
const char *infer_backend_reason(const struct infer_session *session);
/* Whether the processor stands in for a card that was asked for, or whose plugin is installed. */
bool infer_backend_stands_in(const struct infer_session *session);
/* "oneDNN 2.6.3, avx512_core_vnni" or "NVIDIA ..., cuDNN 9.19.0, sm_90": what a replay must match. */
const char *infer_backend_detail(const struct infer_session *session);
const char *infer_session_library(const struct infer_session *session);
const char *infer_session_instruction_set(const struct infer_session *session);
/* Of the detector's layers on the processor; NULL = fp32 throughout, or a card, which has one precision. */
const struct infer_precision *infer_session_precision(const struct infer_session *session);
/* "fp32" or "mixed", of a card "fp16". */
const char *infer_session_precision_name(const struct infer_session *session);
/* Those of the processor, which are constants of the process. */
const char *infer_backend_library(void);
const char *infer_backend_instruction_set(void);
/* From now on no newer instructions than those of the named set, as infer_backend_instruction_set names it. Only before
 * the first session of the process; a machine without the set stays at its own best one. An administrator's
 * ONEDNN_MAX_CPU_ISA is left in force. ERR_INPUT for an unknown name, ERR_CONFLICT when it is too late. */
bool infer_backend_limit(const char *instruction_set, struct err *err) PULMO_MUST_USE;

/* Stage 1 over the lungs of an isotropic canonical volume of 1 mm that volume_mask_outside has prepared
 * (models/README.md, Frame and Decoding): candidates with center_lps_mm, diameter_mm, detector_logit, best first. On
 * failure *out is untouched. Caller frees with findings_free. */
bool infer_detect(struct infer_session *session, const struct volume *iso, const struct mask *lungs,
                  struct findings *out, struct err *err) PULMO_MUST_USE;

/* What the last infer_detect of the session cost: how much of its wall-clock its lanes were inside primitives, and what
 * the lung mask saved. A lane is one thread of one device. */
struct infer_detect_figures {
    size_t tiles, tiles_run;     /* that would cover the volume; those that are not empty, which the detector saw */
    uint64_t voxels, voxels_run; /* of these tiles, with their margins */
    uint64_t wall_ns, busy_ns;   /* of the tiles' stage; inside primitives, over all lanes */
    unsigned lanes;
    size_t tiles_stolen, tiles_again; /* between devices; done again because a device was dropped */
    size_t tiles_full; /* done again in fp32, because activations stood at the end of what int8 can hold */
};
void infer_session_detect_figures(const struct infer_session *session, struct infer_detect_figures *out);

/* Where the session's detector is not fp32: computes findings[which[n]], each once, again in fp32 and sets
 * full_precision: in a cube around each where the model says so (`recompute_side`), else in their whole tiles, so that
 * place, diameter and detector_logit are those of an fp32 session to the last bit. Nothing in fp32. */
bool infer_recompute(struct infer_session *session, const struct volume *iso, const struct findings *findings,
                     const uint32_t *which, size_t count, struct err *err) PULMO_MUST_USE;
/* What the last one cost: all of it by the clock; inside primitives, over all lanes. */
struct infer_recompute_figures {
    uint64_t wall_ns, busy_ns;
};
void infer_session_recompute_figures(const struct infer_session *session, struct infer_recompute_figures *out);

/* Several devices. A peer that joins takes part in infer_detect and infer_candidates of the session, by work stealing;
 * the results are the same bytes for any number. A device that fails is dropped: what it did in the run is done again
 * by the others, and so is everything later. The peer is borrowed until the session is freed and not used by itself.
 * ERR_CONFLICT for another model, back-end or precision (one of each a study), ERR_UNSUPPORTED for a card, ERR_LIMIT.
 */
#define INFER_DEVICES_MAX 8
bool infer_session_join(struct infer_session *session, struct infer_session *peer, struct err *err) PULMO_MUST_USE;
unsigned infer_session_devices(const struct infer_session *session); /* itself and its peers */
/* Why device 0 .. devices - 1 was dropped; NULL = it was not. */
const struct err *infer_session_dropped(const struct infer_session *session, unsigned device);
/* Puts a stage on some of the devices only: bit n = device n; 0 = all. Stages on devices that they do not share may run
 * in two threads at once, each on a study of its own: a pipeline. */
enum infer_place { INFER_PLACE_DETECT = 0, INFER_PLACE_CANDIDATES, INFER_PLACES };
void infer_session_place(struct infer_session *session, enum infer_place place, uint32_t devices);

/* Is this a chest CT as the model knows them? The quality gate's autoencoder (models/README.md, gate.onnx) takes a
 * frame of the volume that infer_detect is about to see: density, lungs, grain, and steps between slices, on
 * [channel][z][y][x] cells around the lungs. It draws the frame again from a few numbers; what it cannot draw is
 * not what it was trained on. */
#define INFER_GATE_CHANNELS 4
#define INFER_GATE_SLICES 32
#define INFER_GATE_ROWS 24
#define INFER_GATE_COLUMNS 24
#define INFER_GATE_FRAME (INFER_GATE_CHANNELS * INFER_GATE_SLICES * INFER_GATE_ROWS * INFER_GATE_COLUMNS)
/* iso and lungs as for infer_detect, ERR_INPUT otherwise. out: INFER_GATE_FRAME floats, untouched on failure. */
bool infer_gate_frame(const struct volume *iso, const struct mask *lungs, float *out, struct err *err) PULMO_MUST_USE;
struct infer_gate_result {
    double score;        /* the greatest error / limit of the parts that are judged; above 1 = out of distribution */
    double error, limit; /* of that part: root mean square over its cells */
    const char *part;    /* static: "shape of the lungs" */
};
/* ERR_UNSUPPORTED when the model has no gate (has_gate). */
bool infer_gate(struct infer_session *session, const float *frame, struct infer_gate_result *out,
                struct err *err) PULMO_MUST_USE;

/* ---- measurements, for `pulmo bench`: infer/measure.c ------------------------------------------------------- */

/* What a stage costs in memory, and what fusion made of its graph. */
struct infer_plan_figures {
    const char *stage;     /* static */
    size_t arena_bytes;    /* planned, for one worker */
    size_t least_bytes;    /* the most that is alive at once: no plan can do with less */
    size_t separate_bytes; /* every activation by itself */
    size_t weight_bytes;   /* packed, shared by the workers */
    int primitives, winograds, kernels, reorders, sums_in_place; /* winograds: convolutions by minimal filtering */
    int parts_in_place;                                    /* inputs of Concat that were written where they join */
    int nodes, convolutions, relus, residuals, attentions; /* of the fused graph; relus and residuals inside others */
    unsigned workers;
};
#define INFER_STAGES 5 /* detector tile, candidate trunk, one pass, many passes, quality gate */
/* Compiles the passes of stage 2, which otherwise happens when they are first asked for. */
bool infer_session_prepare(struct infer_session *session, uint32_t passes, struct err *err) PULMO_MUST_USE;
/* False where the model has no such stage, or it is not compiled yet. */
bool infer_session_plan(const struct infer_session *session, int stage, struct infer_plan_figures *out);

/* A step of the detector: a primitive, a kernel of ours, or a change of layout. */
struct infer_step_figures {
    const char *layer, *operation; /* of the model; static text for what is no layer */
    double operations;             /* a multiplication and an addition are two; 0 where a product is no yardstick */
    bool large;                    /* a convolution of 3 x 3 x 3 and stride 1 */
};
unsigned infer_session_threads(const struct infer_session *session);
int infer_detector_steps(const struct infer_session *session);
void infer_detector_step(const struct infer_session *session, int step, struct infer_step_figures *out);
/* Runs a made-up tile on one of the session's threads and adds the processor time of each step; step_ns may be NULL. */
bool infer_detector_run(struct infer_session *session, unsigned worker, uint64_t *step_ns,
                        struct err *err) PULMO_MUST_USE;
/* What one thread reaches at a product of two square float matrices in the library that the primitives are of:
 * operations a second of processor time, the best of some. The yardstick of a convolution. */
bool infer_backend_peak(double *out, struct err *err) PULMO_MUST_USE;

/* The detector in each precision beside the others: on the tiles of a volume that infer_calibrate looks at, one thread,
 * by turns. IN_ORDER: fp32, every convolution with its sum and Relu one primitive of the library; FP32: as fp32 runs,
 * with fewer products where that pays; BF16, INT8: every layer that can, where the processor offers it; CHOSEN: what
 * infer_calibrate would choose now, whether it gains INFER_GAIN_MIN or not. */
enum infer_way { INFER_WAY_IN_ORDER = 0, INFER_WAY_FP32, INFER_WAY_BF16, INFER_WAY_INT8, INFER_WAY_CHOSEN, INFER_WAYS };
struct infer_way_figures {
    bool offered;
    int layers[3];                    /* in fp32, bf16, int8 */
    double error;                     /* against FP32, in the unit of INFER_ERROR_MAX */
    size_t arena_bytes, weight_bytes; /* planned, of one worker; packed */
};
struct infer_ways;
/* Both are borrowed. */
struct infer_ways *infer_ways_new(const struct infer_model *model, const struct volume *iso, struct err *err);
void infer_ways_free(struct infer_ways *ways);
/* Seconds of the processor a tile; 0 = not offered. */
bool infer_ways_round(struct infer_ways *ways, double tile_s[INFER_WAYS], struct err *err) PULMO_MUST_USE;
const struct infer_way_figures *infer_ways_figures(const struct infer_ways *ways, enum infer_way way);

/* The candidate network's attention on crops of a volume against dense attention of the same queries, keys and values,
 * by three primitives of the library. Operations: a multiplication and an addition are two; comparisons and the softmax
 * are not counted. Processor time of one thread, the best of `rounds`; operations and times are means over the crops.
 * What a gate computes for the choice of the keys and for nothing else is in both. */
struct infer_attention_crops {
    const struct volume *iso;
    const int32_t (*centers_ijk)[3];
    size_t count;
    int rounds;
};
struct infer_attention_figures {
    bool gated; /* keys are chosen by a gate; otherwise by the scores of each query, the best K */
    int64_t heads, tokens, depth;
    double kept;                /* keys that a query attends to, ... */
    int64_t kept_min, kept_max; /* ... of the crop with the fewest and with the most */
    double dense_operations, sparse_operations, gate_operations;
    double dense_s, sparse_s;
    double trunk_s; /* of everything that runs once a crop */
};
/* ERR_UNSUPPORTED when the model has no such block. */
bool infer_attention_measure(const struct infer_session *session, const struct infer_attention_crops *crops,
                             struct infer_attention_figures *out, struct err *err) PULMO_MUST_USE;

/* ---- candidates --------------------------------------------------------------------------------------------- */

/* Stage 2 on one candidate: the crop and its mirror images through the trunk, then pass_count stochastic passes as one
 * batch, of which pass n sees image n % flips and is keyed by (seed, candidate, n). Image f is mirrored along x, y and
 * z where bit 0, 1 and 2 of f are set. dropout: rate in [0,1), or negative for the rate in the graph; with 0 every pass
 * has the mean logit of the images. pass_count 0 = one such pass (the result then says pass_count 1). */
#define INFER_FLIPS_MAX 8
#define INFER_ATTENTION_SIDE 5
struct infer_candidate_result {
    uint32_t pass_count;
    float logits[FINDING_PASSES_MAX];
    float texture_probabilities[3]; /* solid, part-solid, ground-glass; mean over passes */
    float diameter_mm;              /* mean over passes */
    float attention[INFER_ATTENTION_SIDE][INFER_ATTENTION_SIDE][INFER_ATTENTION_SIDE]; /* [z][y][x], mean over passes */
};
struct infer_candidate_config {
    uint64_t seed;      /* of the study: derived from series UID, model digest and the configured seed */
    uint32_t candidate; /* index that keys the masks */
    uint32_t pass_count;
    double dropout;
    uint32_t flips; /* mirror images; 0 = as many as the model says */
};
bool infer_candidate(struct infer_session *session, const struct volume *iso, const double center_lps_mm[3],
                     const struct infer_candidate_config *config, struct infer_candidate_result *out,
                     struct err *err) PULMO_MUST_USE;
/* The same for many candidates (their center_lps_mm), shared out over the session's threads; entry n is keyed
 * config->candidate + n, so the results are those of single calls, bit for bit. out: candidates->count results of the
 * caller, untouched on failure. */
bool infer_candidates(struct infer_session *session, const struct volume *iso, const struct findings *candidates,
                      const struct infer_candidate_config *config, struct infer_candidate_result *out,
                      struct err *err) PULMO_MUST_USE;

/* HiResCAM (Draelos and Carin, arXiv:2011.08891): sum over channels of activation * gradient of the strongest
 * heatmap logit up to two cells (8 mm) from the candidate, at the layer named by the model (cam_layer). map: owned by
 * the caller, [z][y][x] on `grid`, a box of the layer's cells around the candidate; values as computed (may be
 * negative). */
struct infer_cam {
    struct grid grid; /* canonical, spaced as the layer's cells: 2 mm at stride 2 */
    float *map;
};
bool infer_cam(struct infer_session *session, const struct volume *iso, const double center_lps_mm[3],
               struct infer_cam *out, struct err *err) PULMO_MUST_USE;
void infer_cam_free(struct infer_cam *cam);
/* The same for several findings (their center_lps_mm), shared out over the session's threads: out holds findings->count
 * maps, those of single calls, bit for bit; the caller frees each. On failure *out is untouched. */
bool infer_cams(struct infer_session *session, const struct volume *iso, const struct findings *findings,
                struct infer_cam *out, struct err *err) PULMO_MUST_USE;

#endif
