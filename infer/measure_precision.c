/* The detector in each precision beside the others, on the same tiles (infer.h, infer_ways). */
#include <stdlib.h>
#include <string.h>

#include "infer/calibrate.h"

struct infer_ways {
    struct calibration calibration;
    struct program *programs[INFER_WAYS]; /* NULL = not offered */
    struct runner *runners[INFER_WAYS];
    struct infer_way_figures figures[INFER_WAYS];
};

void infer_ways_free(struct infer_ways *ways) {
    if (!ways)
        return;
    for (int way = 0; way < INFER_WAYS; way++) {
        infer_runner_free(ways->runners[way]);
        infer_program_free(ways->programs[way]);
    }
    infer_calibration_clear(&ways->calibration);
    free(ways);
}

static void ways_free_at(struct infer_ways **ways) {
    infer_ways_free(*ways);
}

/* plan NULL = fp32, by the library alone. */
static bool way_add(struct infer_ways *ways, enum infer_way way, const struct infer_precision *plan, struct err *err) {
    const struct calibration *calibration = &ways->calibration;
    const struct graph *graph = calibration->model->detector;
    struct infer_way_figures *figures = &ways->figures[way];
    ways->programs[way] = plan ? infer_program_new_mixed(graph, &calibration->tile, plan, err)
                               : infer_program_new_in_order(graph, &calibration->tile, err);
    ways->runners[way] = ways->programs[way] ? infer_runner_new(ways->programs[way], err) : NULL;
    if (!ways->runners[way] || !infer_calibration_error(calibration, ways->runners[way], &figures->error, err))
        return false;
    const struct program_figures *made = infer_program_figures(ways->programs[way]);
    figures->offered = true;
    figures->arena_bytes = made->memory.arena;
    figures->weight_bytes = made->weight_bytes;
    static const char letters[] = {PRECISION_FP32, PRECISION_BF16, PRECISION_INT8};
    figures->layers[0] = calibration->layers; /* without a plan */
    for (int kind = 0; plan && kind < 3; kind++)
        figures->layers[kind] = infer_precision_layers(plan, letters[kind]);
    return true;
}

static bool ways_fill(struct infer_ways *ways, struct err *err) {
    struct calibration *calibration = &ways->calibration;
    struct infer_precision plan;
    double error;
    if (!infer_calibration_begin(calibration, err) || !way_add(ways, INFER_WAY_IN_ORDER, NULL, err) ||
        !way_add(ways, INFER_WAY_FP32, &calibration->plan, err))
        return false;
    if (infer_calibration_uniform(calibration, PRECISION_BF16, &plan) && !way_add(ways, INFER_WAY_BF16, &plan, err))
        return false;
    if (infer_calibration_uniform(calibration, PRECISION_INT8, &plan) && !way_add(ways, INFER_WAY_INT8, &plan, err))
        return false;
    return infer_calibration_choose(calibration, &error, err) &&
           way_add(ways, INFER_WAY_CHOSEN, &calibration->plan, err);
}

struct infer_ways *infer_ways_new(const struct infer_model *model, const struct volume *iso, struct err *err) {
    PULMO_SCOPED(ways_free_at) struct infer_ways *ways = pulmo_alloc(1, sizeof *ways, err);
    if (!ways)
        return NULL;
    ways->calibration = infer_calibration_of(model, iso);
    if (!infer_frame_check(iso, err) || !ways_fill(ways, err))
        return NULL;
    struct infer_ways *result = ways;
    ways = NULL;
    return result;
}

bool infer_ways_round(struct infer_ways *ways, double tile_s[INFER_WAYS], struct err *err) {
    double sums[INFER_WAYS] = {0};
    for (size_t tile = 0; tile < ways->calibration.tile_count; tile++)
        for (int way = 0; way < INFER_WAYS; way++) {
            double took = 0;
            if (ways->runners[way] && !infer_calibration_time(&ways->calibration, tile, ways->runners[way], &took, err))
                return false;
            sums[way] += took / (double)ways->calibration.tile_count;
        }
    memcpy(tile_s, sums, sizeof sums);
    return true;
}

const struct infer_way_figures *infer_ways_figures(const struct infer_ways *ways, enum infer_way way) {
    return &ways->figures[way];
}
