/* Stage 1: tiles, peaks, marks, exactly as models/README.md "Decoding" says. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/session.h"
#include "infer/tiles.h"

#define EMPTY_LOGIT (-20.0F)
#define OFFSET_MAX_MM 8.0F
#define LOG_DIAMETER_MIN 0.7F
#define LOG_DIAMETER_MAX 4.4F
#define LUNG_REACH_MM 3.0
#define MARK_LEAST_MM 6.0
/* A tile in which a larger share of one layer's int8 activations stands at the end of the range than calibration can
 * explain is computed again in fp32: a rule of the data alone. */
#define SATURATED_SHARE_MAX 1e-4

struct detection {
    struct infer_session *session;
    const struct volume *iso;
    const struct mask *lungs;
    struct tiles tiles;
    int64_t cells[3]; /* k, j, i */
    struct tile_stages stages;
    float *maps;   /* [MAP_CHANNELS][k][j][i] */
    uint8_t *seen; /* [tile] 1 = not empty, 2 = and done again in fp32 */
};

static void detection_clear(struct detection *detection) {
    infer_tile_stages_clear(&detection->stages);
    free(detection->maps);
    free(detection->seen);
}

static void grid_lay(struct detection *detection) {
    detection->tiles = infer_tiles_lay(detection->session->model, detection->iso);
    for (int axis = 0; axis < 3; axis++)
        detection->cells[axis] = (detection->iso->grid.size_ijk[2 - axis] + MODEL_STRIDE - 1) / MODEL_STRIDE;
}

static bool maps_make(struct detection *detection, struct err *err) {
    int64_t count = detection->cells[0] * detection->cells[1] * detection->cells[2];
    detection->maps = pulmo_alloc(MAP_CHANNELS * (size_t)count, sizeof(float), err);
    for (int64_t n = 0; detection->maps && n < MAP_CHANNELS * count; n++)
        detection->maps[n] = EMPTY_LOGIT;
    detection->seen = pulmo_alloc(infer_tiles_count(&detection->tiles), 1, err);
    return detection->maps && detection->seen;
}

/* ---- tiles ----------------------------------------------------------------------------------------------------- */

/* Copies the inner cells of one output channel into its whole-volume map. */
static void cells_keep(struct detection *detection, const float *tile_map, const int64_t tile[3], float *map) {
    const struct tiles *tiles = &detection->tiles;
    const int64_t *cells = detection->cells;
    int64_t edge = tiles->margin / MODEL_STRIDE, first[3], count[3], side[3];
    for (int axis = 0; axis < 3; axis++) {
        int64_t inner = tiles->inner[axis] / MODEL_STRIDE;
        first[axis] = infer_tiles_cell(tiles, tile, axis);
        count[axis] = cells[axis] - first[axis] < inner ? cells[axis] - first[axis] : inner;
        side[axis] = tiles->side[axis] / MODEL_STRIDE;
    }
    for (int64_t k = 0; k < count[0]; k++)
        for (int64_t j = 0; j < count[1]; j++)
            memcpy(map + ((first[0] + k) * cells[1] + first[1] + j) * cells[2] + first[2],
                   tile_map + ((edge + k) * side[1] + edge + j) * side[2] + edge, (size_t)count[2] * sizeof *map);
}

const float *infer_map_channel(const struct infer_model *model, const struct runner *runner, int channel,
                               int64_t tile_cells) {
    static const int sources[MAP_CHANNELS] = {DETECTOR_HEATMAP, DETECTOR_OFFSET, DETECTOR_OFFSET, DETECTOR_OFFSET,
                                              DETECTOR_LOG_DIAMETER};
    int64_t part = sources[channel] == DETECTOR_OFFSET ? channel - 1 : 0;
    return infer_runner_output(runner, model->detector_outputs[sources[channel]]) + part * tile_cells;
}

/* Runs the tile, in fp32 when int8 cannot hold it. *out = the runner with its outputs, NULL = the tile is empty. */
static bool tile_compute(struct detection *detection, struct lane *lane, size_t index, const int64_t start[3],
                         struct runner **out, struct err *err) {
    const struct detector_stages *stages = infer_tile_stages_of(&detection->stages, lane);
    struct runner *runner = stages->wanted.runners[lane->worker];
    const int64_t *side = detection->stages.side_kji;
    *out = NULL;
    /* Outside the lungs and their surroundings the prepared volume is empty, and so is the map. */
    if (!infer_frame_cut_box(detection->iso, start, side, infer_runner_input(runner, 0)))
        return true;
    detection->seen[index] = 1;
    if (!infer_lane_run(lane, runner, NULL, err))
        return err_within(err, "tile %zu", index);
    if (infer_runner_saturated(runner) > SATURATED_SHARE_MAX) {
        runner = stages->full.runners[lane->worker];
        detection->seen[index] = 2;
        infer_frame_cut_box(detection->iso, start, side, infer_runner_input(runner, 0));
        if (!infer_lane_run(lane, runner, NULL, err))
            return err_within(err, "tile %zu in fp32", index);
    }
    *out = runner;
    return true;
}

/* Job: one tile. Writes only cells of its own. */
static bool tile_run(void *context, struct lane *lane, size_t index, struct err *err) {
    struct detection *detection = context;
    struct runner *runner = NULL;
    int64_t tile[3], start[3];
    infer_tiles_place(&detection->tiles, index, tile);
    infer_tiles_start(&detection->tiles, tile, start);
    if (!tile_compute(detection, lane, index, start, &runner, err))
        return false;
    int64_t whole = detection->cells[0] * detection->cells[1] * detection->cells[2];
    for (int channel = 0; runner && channel < MAP_CHANNELS; channel++)
        cells_keep(detection,
                   infer_map_channel(detection->session->model, runner, channel, infer_tiles_cells(&detection->tiles)),
                   tile, detection->maps + channel * whole);
    return true;
}

/* ---- marks ------------------------------------------------------------------------------------------------------ */

struct marks {
    struct mark *items;
    size_t count, capacity;
};

static void marks_clear(struct marks *marks) {
    free(marks->items);
}

static bool mark_add(struct marks *marks, const struct mark *mark, struct err *err) {
    if (marks->count == marks->capacity) {
        size_t capacity = marks->capacity ? 2 * marks->capacity : 256;
        struct mark *grown = realloc(marks->items, capacity * sizeof *grown);
        if (!grown)
            return err_set(err, ERR_MEMORY, "out of memory for %zu marks", capacity);
        marks->items = grown;
        marks->capacity = capacity;
    }
    marks->items[marks->count++] = *mark;
    return true;
}

/* Strictly above the 13 neighbours before it in [k][j][i] order, at least as high as the 13 behind it. */
bool infer_is_peak(const float *heat, const int64_t cells[3], const int64_t at[3]) {
    float own = heat[(at[0] * cells[1] + at[1]) * cells[2] + at[2]];
    for (int n = 0; n < 27; n++) {
        int64_t k = at[0] + n / 9 - 1, j = at[1] + n / 3 % 3 - 1, i = at[2] + n % 3 - 1;
        if (n == 13 || k < 0 || j < 0 || i < 0 || k >= cells[0] || j >= cells[1] || i >= cells[2])
            continue;
        float other = heat[(k * cells[1] + j) * cells[2] + i];
        if (n < 13 ? own <= other : own < other)
            return false;
    }
    return true;
}

static float clip(float value, float low, float high) {
    return value < low ? low : value > high ? high : value;
}

/* Whether a row of the mask holds lung in [low, high], clipped to the grid. */
static bool row_has_lung(const uint8_t *row, int64_t columns, int64_t low, int64_t high) {
    low = low < 0 ? 0 : low;
    high = high < columns ? high : columns - 1;
    for (int64_t i = low; i <= high; i++)
        if (row[i])
            return true;
    return false;
}

/* Lung within the mark's radius, at least LUNG_REACH_MM, of its nearest voxel: a tumour in the pleura touches the
 * lung, but its centre need not lie near it. */
static bool near_lung(const struct mask *lungs, const struct mark *mark) {
    int64_t centre[3];
    const int32_t *size = lungs->grid.size_ijk;
    double reach = fmax(LUNG_REACH_MM, mark->diameter_mm / 2);
    for (int axis = 0; axis < 3; axis++) {
        double voxel = rint(mark->at[axis]), last = size[2 - axis] - 1; /* rint: half to even */
        centre[axis] = (int64_t)(voxel < 0 ? 0 : voxel > last ? last : voxel);
    }
    int64_t span = (int64_t)reach;
    for (int64_t dk = -span; dk <= span; dk++)
        for (int64_t dj = -span; dj <= span; dj++) {
            int64_t k = centre[0] + dk, j = centre[1] + dj;
            double rest = reach * reach - (double)(dk * dk + dj * dj);
            if (rest < 0 || k < 0 || j < 0 || k >= size[2] || j >= size[1])
                continue;
            int64_t wide = (int64_t)sqrt(rest);
            if (row_has_lung(lungs->voxel + (k * size[1] + j) * size[0], size[0], centre[2] - wide, centre[2] + wide))
                return true;
        }
    return false;
}

struct mark infer_mark(const float *maps, const int64_t cells[3], const int64_t at[3]) {
    int64_t whole = cells[0] * cells[1] * cells[2], cell = (at[0] * cells[1] + at[1]) * cells[2] + at[2];
    const float *map = maps + cell;
    struct mark mark = {.logit = (double)map[0], .cell = cell};
    for (int axis = 0; axis < 3; axis++)
        mark.at[axis] = (double)(at[axis] * MODEL_STRIDE) + (MODEL_STRIDE - 1) / 2.0 +
                        (double)clip(map[(1 + axis) * whole], -OFFSET_MAX_MM, OFFSET_MAX_MM);
    mark.diameter_mm = exp((double)clip(map[4 * whole], LOG_DIAMETER_MIN, LOG_DIAMETER_MAX));
    return mark;
}

void infer_mark_place(const struct grid *grid, const double at[3], double out_lps_mm[3]) {
    double ijk[3];
    for (int axis = 0; axis < 3; axis++)
        ijk[axis] = fmin(fmax(at[2 - axis], 0), grid->size_ijk[axis] - 1);
    grid_to_lps(grid, ijk, out_lps_mm);
}

static bool find_marks(const struct detection *detection, struct marks *marks, struct err *err) {
    double score = detection->session->model->score_min;
    double logit_min = log(score / (1 - score));
    int64_t cell = 0, at[3];
    for (at[0] = 0; at[0] < detection->cells[0]; at[0]++)
        for (at[1] = 0; at[1] < detection->cells[1]; at[1]++)
            for (at[2] = 0; at[2] < detection->cells[2]; at[2]++, cell++) {
                if ((double)detection->maps[cell] < logit_min || !infer_is_peak(detection->maps, detection->cells, at))
                    continue;
                struct mark mark = infer_mark(detection->maps, detection->cells, at);
                if (near_lung(detection->lungs, &mark) && !mark_add(marks, &mark, err))
                    return false;
            }
    return true;
}

static int better_first(const void *left, const void *right) {
    const struct mark *a = left, *b = right;
    if (a->logit != b->logit)
        return a->logit > b->logit ? -1 : 1;
    return a->cell < b->cell ? -1 : a->cell > b->cell;
}

static bool suppressed(const struct mark *mark, const struct mark *kept, size_t count) {
    for (size_t n = 0; n < count; n++) {
        double square = 0, reach = fmax(fmax(kept[n].diameter_mm, mark->diameter_mm), MARK_LEAST_MM) / 2;
        for (int axis = 0; axis < 3; axis++)
            square += (mark->at[axis] - kept[n].at[axis]) * (mark->at[axis] - kept[n].at[axis]);
        if (sqrt(square) < reach)
            return true;
    }
    return false;
}

/* Keeps the best in place. */
static void suppress(struct marks *marks, size_t limit) {
    size_t kept = 0;
    if (marks->count)
        qsort(marks->items, marks->count, sizeof *marks->items, better_first);
    for (size_t n = 0; n < marks->count && kept < limit; n++)
        if (!suppressed(&marks->items[n], marks->items, kept))
            marks->items[kept++] = marks->items[n];
    marks->count = kept;
}

static bool findings_fill(const struct detection *detection, const struct marks *marks, struct findings *out,
                          struct err *err) {
    const int64_t *cells = detection->cells;
    struct findings findings = {.items = pulmo_alloc(marks->count, sizeof *findings.items, err), .count = marks->count};
    if (!findings.items)
        return false;
    for (size_t n = 0; n < marks->count; n++) {
        const struct mark *mark = &marks->items[n];
        struct finding *finding = &findings.items[n];
        finding->id = (uint32_t)n + 1;
        finding->diameter_mm = mark->diameter_mm;
        finding->detector_logit = mark->logit;
        finding->detector_cell_kji[0] = (int32_t)(mark->cell / cells[2] / cells[1]);
        finding->detector_cell_kji[1] = (int32_t)(mark->cell / cells[2] % cells[1]);
        finding->detector_cell_kji[2] = (int32_t)(mark->cell % cells[2]);
        infer_mark_place(&detection->iso->grid, mark->at, finding->center_lps_mm);
    }
    *out = findings;
    return true;
}

static bool tiles_run(struct detection *detection, struct err *err) {
    struct infer_session *session = detection->session;
    struct devices_figures figures;
    const struct devices_work work = {.place = INFER_PLACE_DETECT,
                                      .count = infer_tiles_count(&detection->tiles),
                                      .job = tile_run,
                                      .context = detection};
    if (!infer_devices_run(session, &work, &figures, err))
        return false;
    struct infer_detect_figures made = {.tiles = (size_t)detection->tiles.would,
                                        .wall_ns = figures.wall_ns,
                                        .busy_ns = figures.busy_ns,
                                        .lanes = figures.lanes,
                                        .tiles_stolen = figures.stolen,
                                        .tiles_again = figures.again};
    for (size_t n = 0; n < work.count; n++) {
        made.tiles_run += detection->seen[n] > 0;
        made.tiles_full += detection->seen[n] == 2;
    }
    const int64_t *side = detection->tiles.side;
    uint64_t voxels = (uint64_t)(side[0] * side[1] * side[2]);
    made.voxels = made.tiles * voxels;
    made.voxels_run = made.tiles_run * voxels;
    session->detect_figures = made;
    return true;
}

void infer_session_detect_figures(const struct infer_session *session, struct infer_detect_figures *out) {
    *out = session->detect_figures;
}

/* ---- on a card --------------------------------------------------------------------------------------------------- */

static bool card_detect(struct infer_session *session, const struct volume *iso, const struct mask *lungs,
                        struct marks *marks, struct err *err) {
    size_t count = 0;
    PULMO_SCOPED(pulmo_free_at)
    struct cuda_mark *found = pulmo_alloc(session->model->candidates_max, sizeof *found, err);
    if (!found || !infer_plugin_detect(session->plugin, iso, lungs, found, &count, &session->detect_figures, err))
        return false;
    for (size_t n = 0; n < count; n++) {
        struct mark mark = {.diameter_mm = found[n].diameter_mm, .logit = found[n].logit, .cell = found[n].cell};
        memcpy(mark.at, found[n].at, sizeof mark.at);
        if (!mark_add(marks, &mark, err))
            return false;
    }
    return true;
}

/* What every device would say of the same data is no fault of the card, though halves overflow where floats do not. */
static bool is_of_data(enum err_kind kind) {
    return kind == ERR_INPUT || kind == ERR_UNSUPPORTED || kind == ERR_LIMIT;
}

/* why: NULL = the card has done it. A session without a card is not written to: stages of two studies may run in it at
 * once (infer_session_place). */
static void card_settle(struct infer_session *session, const struct err *why) {
    session->on_processor = why != NULL;
    if (why)
        infer_session_leave_card(session, why, !is_of_data(why->kind));
    else
        session->why_not = (struct err){0};
}

static bool processor_detect(struct detection *detection, struct marks *marks, struct err *err) {
    struct infer_session *session = detection->session;
    if (!infer_tile_stages(session, detection->tiles.side, &detection->stages, err) || !maps_make(detection, err) ||
        !tiles_run(detection, err) || !find_marks(detection, marks, err))
        return false;
    suppress(marks, session->model->candidates_max);
    return true;
}

/* A study begins here, so a card that fails leaves all of it to the processor. */
bool infer_detect(struct infer_session *session, const struct volume *iso, const struct mask *lungs,
                  struct findings *out, struct err *err) {
    PULMO_SCOPED(detection_clear) struct detection detection = {.session = session, .iso = iso, .lungs = lungs};
    PULMO_SCOPED(marks_clear) struct marks marks = {0};
    struct err why = {0};
    if (!infer_frame_check(iso, err))
        return false;
    if (memcmp(iso->grid.size_ijk, lungs->grid.size_ijk, sizeof iso->grid.size_ijk) != 0)
        return err_set(err, ERR_INPUT, "the lung mask has another grid than the volume");
    grid_lay(&detection);
    bool done = session->plugin && card_detect(session, iso, lungs, &marks, &why);
    if (session->plugin)
        card_settle(session, done ? NULL : &why);
    marks.count = done ? marks.count : 0;
    return (done || processor_detect(&detection, &marks, err)) && findings_fill(&detection, &marks, out, err);
}
