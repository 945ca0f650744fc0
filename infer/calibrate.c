/* Which precision each convolution of the detector gets on this processor (infer.h, infer_calibrate).
 *
 * 1. fp32 on every tile, with all activations kept: their ranges, and the outputs that the others are compared with.
 * 2. The network in fp32 and, as far as it can, in each precision that is offered, by turns on the same tiles: the time
 *    of each layer with the conversions that it needs. Each layer takes its fastest; where the network as a whole is
 *    faster in one precision, for there is nothing to convert between its layers, that is taken.
 * 3. Layers go back to fp32, the one that errs most by itself first, until the whole errs by no more than allowed.
 * 4. What is left against fp32, by turns: is it worth it? */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/calibrate.h"
#include "infer/measure.h"
#include "infer/operators.h"

#define TILES_MAX 8        /* spread evenly over those that are not empty */
#define TIMED_TILES 3      /* of these, for times */
#define ROUNDS 3           /* the least processor time of so many counts: other processes can only make it longer */
#define LAYER_GAIN_MIN 1.1 /* a layer leaves fp32 only for so much: conversions of its neighbours are not its own */
/* Activations of other scans go beyond those of the tiles; a tile with many that do is computed again in fp32. */
#define HEADROOM 1.25
#define PROBABILITY_ERROR 0.05 /* INFER_ERROR_MAX = 1 stands for these */
#define OFFSET_ERROR_MM 1.0
#define LOG_DIAMETER_ERROR 0.1

enum { TRIAL_FP32 = 0, TRIAL_BF16, TRIAL_INT8, TRIALS };
static const char letters[TRIALS] = {PRECISION_FP32, PRECISION_BF16, PRECISION_INT8};

void infer_calibration_clear(struct calibration *calibration) {
    free(calibration->starts);
    free(calibration->outputs);
}

static int64_t tile_cells(const struct calibration *calibration) {
    int64_t side = calibration->model->tile / MODEL_STRIDE;
    return side * side * side;
}

static bool tile_load(const struct calibration *calibration, size_t tile, struct runner *runner) {
    return infer_frame_cut(calibration->iso, calibration->starts[tile], calibration->model->tile,
                           infer_runner_input(runner, 0));
}

/* ---- tiles ------------------------------------------------------------------------------------------------------ */

static bool tiles_find(struct calibration *calibration, struct err *err) {
    const struct grid *grid = &calibration->iso->grid;
    int side = calibration->model->tile, margin = calibration->model->margin;
    int64_t inner = side - 2 * margin, counts[3], start[3];
    size_t total = 1, found = 0;
    PULMO_SCOPED(pulmo_free_at)
    float *cut = pulmo_alloc((size_t)(side * side) * (size_t)side, sizeof *cut, err);
    for (int axis = 0; axis < 3; axis++) {
        counts[axis] = (grid->size_ijk[axis] + inner - 1) / inner;
        total *= (size_t)counts[axis];
    }
    calibration->starts = pulmo_alloc(total, sizeof *calibration->starts, err);
    if (!cut || !calibration->starts)
        return false;
    for (size_t n = 0; n < total; n++) {
        int64_t number = (int64_t)n;
        for (int axis = 0; axis < 3; axis++) {
            start[axis] = number % counts[axis] * inner - margin;
            number /= counts[axis];
        }
        if (infer_frame_cut(calibration->iso, start, side, cut))
            memcpy(calibration->starts[found++], start, sizeof start);
    }
    calibration->tile_count = found < TILES_MAX ? found : TILES_MAX;
    for (size_t n = 0; n < calibration->tile_count; n++)
        memcpy(calibration->starts[n], calibration->starts[n * found / calibration->tile_count], sizeof start);
    return found > 0 || err_set(err, ERR_INPUT, "every tile of the volume is empty");
}

/* ---- ranges ------------------------------------------------------------------------------------------------------ */

static bool ranges_add(struct calibration *calibration, const struct runner *runner, float *scratch, struct err *err) {
    const struct graph *graph = calibration->model->detector;
    int layer = 0;
    for (int i = 0; i < graph->node_count; i++) {
        if (graph->nodes[i].operation->kind != OPERATOR_CONV)
            continue;
        float *range = &calibration->plan.ranges[layer];
        int value = graph->nodes[i].inputs[0];
        int64_t count = infer_shape_count(infer_program_shape(infer_runner_program(runner), value));
        if (calibration->int8_possible[layer] && !infer_runner_read(runner, value, scratch, err))
            return false;
        for (int64_t n = 0; calibration->int8_possible[layer] && n < count; n++)
            *range = scratch[n] > *range ? scratch[n] : *range;
        layer++;
    }
    return true;
}

/* With headroom, up to the next eighth of an octave: the last bits, in which processors differ, do not show. */
static void ranges_round(struct calibration *calibration) {
    for (int layer = 0; layer < calibration->layers; layer++)
        if (calibration->plan.ranges[layer] > 0)
            calibration->plan.ranges[layer] =
                (float)exp2(ceil(log2(HEADROOM * (double)calibration->plan.ranges[layer]) * 8) / 8);
}

static size_t largest_value(const struct calibration *calibration, const struct program *program) {
    int64_t most = 1;
    for (int i = 0; i < calibration->model->detector->value_count; i++) {
        int64_t count = infer_shape_count(infer_program_shape(program, i));
        most = count > most ? count : most;
    }
    return (size_t)most;
}

/* fp32 on every tile: ranges and outputs. */
static bool reference_run(struct calibration *calibration, struct err *err) {
    PULMO_SCOPED(infer_program_free_at)
    struct program *program = infer_program_new(calibration->model->detector, &calibration->tile, true, err);
    PULMO_SCOPED(infer_runner_free_at) struct runner *runner = program ? infer_runner_new(program, err) : NULL;
    if (!runner)
        return false;
    size_t cells = (size_t)tile_cells(calibration);
    PULMO_SCOPED(pulmo_free_at) float *scratch = pulmo_alloc(largest_value(calibration, program), sizeof(float), err);
    calibration->outputs = pulmo_alloc(calibration->tile_count * MAP_CHANNELS * cells, sizeof(float), err);
    if (!scratch || !calibration->outputs)
        return false;
    for (size_t tile = 0; tile < calibration->tile_count; tile++) {
        tile_load(calibration, tile, runner);
        if (!infer_runner_run(runner, NULL, err) || !ranges_add(calibration, runner, scratch, err))
            return false;
        for (int channel = 0; channel < MAP_CHANNELS; channel++)
            memcpy(calibration->outputs + (tile * MAP_CHANNELS + (size_t)channel) * cells,
                   infer_map_channel(calibration->model, runner, channel, (int64_t)cells), cells * sizeof(float));
    }
    ranges_round(calibration);
    return true;
}

/* ---- error ------------------------------------------------------------------------------------------------------- */

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

/* Of one cell; a NaN counts as too much. */
static double cell_error(const struct calibration *calibration, const float *want, const float *const got[MAP_CHANNELS],
                         int64_t cell) {
    int64_t cells = tile_cells(calibration);
    double p = sigmoid((double)want[cell]), q = sigmoid((double)got[0][cell]), worst = fabs(p - q) / PROBABILITY_ERROR;
    for (int channel = 1; channel < MAP_CHANNELS && fmax(p, q) >= calibration->model->score_min; channel++) {
        double unit = channel < MAP_CHANNELS - 1 ? OFFSET_ERROR_MM : LOG_DIAMETER_ERROR;
        worst = fmax(worst, fabs((double)want[channel * cells + cell] - (double)got[channel][cell]) / unit);
    }
    return isfinite(worst) ? worst : 1e9;
}

/* Over the cells that a whole tile keeps. */
static double tile_error(const struct calibration *calibration, size_t tile, const struct runner *runner) {
    int64_t side = calibration->model->tile / MODEL_STRIDE, edge = calibration->model->margin / MODEL_STRIDE;
    int64_t cells = tile_cells(calibration);
    const float *want = calibration->outputs + (int64_t)tile * MAP_CHANNELS * cells, *got[MAP_CHANNELS];
    double worst = 0;
    for (int channel = 0; channel < MAP_CHANNELS; channel++)
        got[channel] = infer_map_channel(calibration->model, runner, channel, cells);
    for (int64_t k = edge; k < side - edge; k++)
        for (int64_t j = edge; j < side - edge; j++)
            for (int64_t i = edge; i < side - edge; i++)
                worst = fmax(worst, cell_error(calibration, want, got, (k * side + j) * side + i));
    return worst;
}

bool infer_calibration_error(const struct calibration *calibration, struct runner *runner, double *out,
                             struct err *err) {
    double worst = 0;
    for (size_t tile = 0; tile < calibration->tile_count; tile++) {
        tile_load(calibration, tile, runner);
        if (!infer_runner_run(runner, NULL, err))
            return false;
        worst = fmax(worst, tile_error(calibration, tile, runner));
    }
    *out = worst;
    return true;
}

static bool plan_error(const struct calibration *calibration, const struct infer_precision *plan, double *out,
                       struct err *err) {
    PULMO_SCOPED(infer_program_free_at)
    struct program *program = infer_program_new_mixed(calibration->model->detector, &calibration->tile, plan, err);
    PULMO_SCOPED(infer_runner_free_at) struct runner *runner = program ? infer_runner_new(program, err) : NULL;
    return runner && infer_calibration_error(calibration, runner, out, err);
}

/* Back to fp32 with what errs most by itself, until the rest is accurate enough. */
static bool accuracy_restore(struct calibration *calibration, double *error, struct err *err) {
    struct infer_precision *plan = &calibration->plan;
    double alone[INFER_LAYERS_MAX] = {0};
    if (!plan_error(calibration, plan, error, err))
        return false;
    bool measured = false;
    while (*error > INFER_ERROR_MAX && infer_precision_is_mixed(plan)) {
        int worst = -1;
        for (int layer = 0; layer < calibration->layers; layer++) {
            struct infer_precision one = *plan;
            memset(one.layers, PRECISION_FP32, (size_t)calibration->layers);
            one.layers[layer] = plan->layers[layer];
            if (!measured && infer_precision_is_mixed(&one) && !plan_error(calibration, &one, &alone[layer], err))
                return false;
            if (plan->layers[layer] != PRECISION_FP32 && (worst < 0 || alone[layer] > alone[worst]))
                worst = layer;
        }
        measured = true;
        plan->layers[worst] = PRECISION_FP32;
        if (!plan_error(calibration, plan, error, err))
            return false;
    }
    return true;
}

/* ---- time -------------------------------------------------------------------------------------------------------- */

bool infer_calibration_uniform(const struct calibration *calibration, char letter, struct infer_precision *out) {
    *out = calibration->plan;
    int weight_max = 0;
    bool offered = infer_backend_offers(letter, &weight_max);
    for (int layer = 0; layer < calibration->layers; layer++) {
        bool fits = letter == PRECISION_BF16 || (calibration->int8_possible[layer] && out->ranges[layer] > 0);
        out->layers[layer] = offered && fits ? letter : PRECISION_FP32;
    }
    return infer_precision_is_mixed(out);
}

/* Least time of each layer over rounds and tiles, in each precision; 0 = not offered. */
struct times {
    double layer_s[TRIALS][INFER_LAYERS_MAX];
};

/* Conversions count for the layer that needs them. */
static void layers_least(const struct calibration *calibration, const struct program *program, const uint64_t *step_ns,
                         double *layer_s) {
    const struct graph *graph = calibration->model->detector;
    for (int i = 0, layer = 0; i < graph->node_count; i++) {
        double took = 0;
        if (graph->nodes[i].operation->kind != OPERATOR_CONV)
            continue;
        for (int step = 0; step < infer_program_steps(program); step++)
            if (infer_program_step_node(program, step) == &graph->nodes[i])
                took += (double)step_ns[step] * 1e-9;
        layer_s[layer] = layer_s[layer] > 0 && layer_s[layer] < took ? layer_s[layer] : took;
        layer++;
    }
}

static bool layers_time(const struct calibration *calibration, struct runner *const runners[TRIALS], struct times *out,
                        struct err *err) {
    size_t tiles = calibration->tile_count < TIMED_TILES ? calibration->tile_count : TIMED_TILES;
    for (size_t turn = 0; turn < ROUNDS * tiles; turn++)
        for (int trial = 0; trial < TRIALS; trial++) {
            if (!runners[trial])
                continue;
            const struct program *program = infer_runner_program(runners[trial]);
            PULMO_SCOPED(pulmo_free_at)
            uint64_t *ns = pulmo_alloc((size_t)infer_program_steps(program), sizeof *ns, err);
            tile_load(calibration, turn % tiles, runners[trial]);
            if (!ns || !infer_runner_time(runners[trial], NULL, ns, err))
                return false;
            layers_least(calibration, program, ns, out->layer_s[trial]);
        }
    return true;
}

static void fastest_take(struct calibration *calibration, const struct infer_precision plans[TRIALS],
                         const struct times *times) {
    for (int layer = 0; layer < calibration->layers; layer++) {
        double best = times->layer_s[TRIAL_FP32][layer] / LAYER_GAIN_MIN;
        for (int trial = 1; trial < TRIALS; trial++) {
            double took = times->layer_s[trial][layer];
            if (took > 0 && took < best && plans[trial].layers[layer] == letters[trial]) {
                best = took;
                calibration->plan.layers[layer] = letters[trial];
            }
        }
    }
}

bool infer_calibration_time(const struct calibration *calibration, size_t tile, struct runner *runner, double *least,
                            struct err *err) {
    tile_load(calibration, tile, runner);
    double start = infer_measure_processor_s();
    if (!infer_runner_run(runner, NULL, err))
        return false;
    double took = infer_measure_processor_s() - start;
    *least = *least > 0 && *least < took ? *least : took;
    return true;
}

/* By turns on the same tiles, the least time of each; NULL = none. */
static bool runners_race(const struct calibration *calibration, struct runner *const *runners, int count, double *out_s,
                         struct err *err) {
    size_t tiles = calibration->tile_count < TIMED_TILES ? calibration->tile_count : TIMED_TILES;
    memset(out_s, 0, (size_t)count * sizeof *out_s);
    for (size_t tile = 0; tile < tiles; tile++) {
        double least[TRIALS] = {0};
        for (int turn = 0; turn < ROUNDS * count; turn++)
            if (runners[turn % count] &&
                !infer_calibration_time(calibration, tile, runners[turn % count], &least[turn % count], err))
                return false;
        for (int n = 0; n < count; n++)
            out_s[n] += least[n];
    }
    return true;
}

struct trials { /* NULL = not offered */
    struct program *programs[TRIALS];
    struct runner *runners[TRIALS];
};

static void trials_clear(struct trials *trials) {
    for (int trial = 0; trial < TRIALS; trial++) {
        infer_runner_free(trials->runners[trial]);
        infer_program_free(trials->programs[trial]);
    }
}

/* The mixture of each layer's fastest, or one precision throughout. */
static bool whole_choose(struct calibration *calibration, const struct infer_precision plans[TRIALS],
                         const struct trials *trials, struct err *err) {
    PULMO_SCOPED(infer_program_free_at)
    struct program *mixture =
        infer_program_new_mixed(calibration->model->detector, &calibration->tile, &calibration->plan, err);
    PULMO_SCOPED(infer_runner_free_at) struct runner *first = mixture ? infer_runner_new(mixture, err) : NULL;
    struct runner *const runners[TRIALS] = {first, trials->runners[TRIAL_BF16], trials->runners[TRIAL_INT8]};
    double took_s[TRIALS];
    int best = 0;
    if (!first || !runners_race(calibration, runners, TRIALS, took_s, err))
        return false;
    for (int trial = 1; trial < TRIALS; trial++)
        best = runners[trial] && took_s[trial] < took_s[best] ? trial : best;
    if (best > 0)
        calibration->plan = plans[best];
    return true;
}

/* Fills the plan's layers. A precision for which the back-end cannot build the network is not offered. */
static bool layers_choose(struct calibration *calibration, struct err *err) {
    const struct graph *graph = calibration->model->detector;
    struct infer_precision plans[TRIALS];
    PULMO_SCOPED(trials_clear) struct trials trials = {.programs = {NULL}};
    struct times times = {0};
    for (int trial = 0; trial < TRIALS; trial++) {
        struct err why = {0};
        if (!infer_calibration_uniform(calibration, letters[trial], &plans[trial]) && trial != TRIAL_FP32)
            continue;
        trials.programs[trial] = infer_program_new_mixed(graph, &calibration->tile, &plans[trial], &why);
        if (trials.programs[trial])
            trials.runners[trial] = infer_runner_new(trials.programs[trial], &why);
        if (!trials.runners[trial] && (trial == TRIAL_FP32 || why.kind != ERR_UNSUPPORTED))
            return err_set(err, why.kind, "%s", why.text);
    }
    if (!layers_time(calibration, trials.runners, &times, err))
        return false;
    fastest_take(calibration, plans, &times);
    return whole_choose(calibration, plans, &trials, err);
}

/* fp32 and the plan by turns, the least time of each tile; fills gain and memory. */
static bool plan_weigh(const struct calibration *calibration, struct infer_calibration *out, struct err *err) {
    const struct graph *graph = calibration->model->detector;
    PULMO_SCOPED(infer_program_free_at)
    struct program *full = infer_program_new(graph, &calibration->tile, false, err);
    PULMO_SCOPED(infer_program_free_at)
    struct program *mixed = full ? infer_program_new_mixed(graph, &calibration->tile, &calibration->plan, err) : NULL;
    PULMO_SCOPED(infer_runner_free_at) struct runner *one = mixed ? infer_runner_new(full, err) : NULL;
    PULMO_SCOPED(infer_runner_free_at) struct runner *two = one ? infer_runner_new(mixed, err) : NULL;
    double took_s[2];
    if (!two || !runners_race(calibration, (struct runner *const[2]){one, two}, 2, took_s, err))
        return false;
    const struct program_figures *figures = infer_program_figures(mixed), *before = infer_program_figures(full);
    out->gain = took_s[0] / took_s[1];
    out->arena_bytes = figures->memory.arena;
    out->weight_bytes = figures->weight_bytes;
    out->fp32_arena_bytes = before->memory.arena;
    out->fp32_weight_bytes = before->weight_bytes;
    return true;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static void all_fp32(struct calibration *calibration) {
    memset(calibration->plan.layers, PRECISION_FP32, (size_t)calibration->layers);
}

bool infer_calibration_begin(struct calibration *calibration, struct err *err) {
    int weight_max = 0;
    calibration->layers = infer_precision_count(calibration->model->detector);
    if (calibration->layers > INFER_LAYERS_MAX)
        return err_set(err, ERR_LIMIT, "%d layers", calibration->layers);
    infer_backend_offers(PRECISION_INT8, &weight_max);
    calibration->plan.weight_max = weight_max > 0 ? weight_max : PRECISION_WEIGHT_MAX_NARROW;
    all_fp32(calibration);
    return infer_precision_int8_possible(calibration->model->detector, calibration->int8_possible, err) &&
           tiles_find(calibration, err) && reference_run(calibration, err);
}

bool infer_calibration_choose(struct calibration *calibration, double *error, struct err *err) {
    return layers_choose(calibration, err) && accuracy_restore(calibration, error, err);
}

static bool calibrate(struct calibration *calibration, struct infer_calibration *out, struct err *err) {
    if (!infer_calibration_begin(calibration, err) || !infer_calibration_choose(calibration, &out->error, err) ||
        !plan_weigh(calibration, out, err))
        return false;
    if (out->gain >= INFER_GAIN_MIN || !infer_precision_is_mixed(&calibration->plan))
        return true;
    out->refused_gain = out->gain;
    out->error = 0;
    all_fp32(calibration);
    return plan_weigh(calibration, out, err);
}

struct calibration infer_calibration_of(const struct infer_model *model, const struct volume *iso) {
    int side = model->tile;
    return (struct calibration){.model = model, .iso = iso, .tile = {.rank = 5, .dims = {1, 1, side, side, side}}};
}

bool infer_calibrate_int8(const struct infer_model *model, const struct volume *iso, struct infer_precision *out,
                          struct err *err) {
    PULMO_SCOPED(infer_calibration_clear) struct calibration calibration = infer_calibration_of(model, iso);
    if (!infer_frame_check(iso, err) || !infer_calibration_begin(&calibration, err))
        return false;
    return infer_calibration_uniform(&calibration, PRECISION_INT8, out) ||
           err_set(err, ERR_UNSUPPORTED, "no layer runs in int8 here");
}

bool infer_calibrate(const struct infer_model *model, const struct volume *iso, struct infer_calibration *out,
                     struct err *err) {
    PULMO_SCOPED(infer_calibration_clear) struct calibration calibration = infer_calibration_of(model, iso);
    struct infer_calibration made = {.plan = {.layers = ""}};
    if (!infer_frame_check(iso, err) || !calibrate(&calibration, &made, err))
        return false;
    made.plan = calibration.plan;
    made.tiles = calibration.tile_count;
    if (!infer_precision_is_mixed(&made.plan))
        made.gain = 1;
    for (int trial = 0; trial < TRIALS; trial++)
        made.layers[trial] = infer_precision_layers(&made.plan, letters[trial]);
    *out = made;
    return true;
}
