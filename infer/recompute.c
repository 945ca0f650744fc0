/* Candidates of a detector of lower precision, computed again in fp32: the whole tile in which each was found, so that
 * its cell holds, bit for bit, what a detector in fp32 would have said of it. */
#include <string.h>

#include "infer/session.h"
#include "infer/tiles.h"

struct recompute {
    struct infer_session *session;
    struct tiles layout;
    struct tile_stages stages;
    const struct volume *iso;
    const struct findings *findings;
    const uint32_t *which; /* [count] */
    size_t count;
    int64_t (*tiles)[3]; /* [tile_count] k, j, i; each once */
    size_t tile_count;
};

static void recompute_clear(struct recompute *recompute) {
    infer_tile_stages_clear(&recompute->stages);
    pulmo_free_at(&recompute->tiles);
}

static bool lies_in(const struct tiles *layout, const struct finding *finding, const int64_t tile[3]) {
    for (int axis = 0; axis < 3; axis++) {
        int64_t first = infer_tiles_cell(layout, tile, axis), cell = finding->detector_cell_kji[axis];
        if (cell < first || cell >= first + layout->inner[axis] / MODEL_STRIDE)
            return false;
    }
    return true;
}

/* Every tile in which one of the candidates lies, once. */
static bool tiles_list(struct recompute *recompute, struct err *err) {
    const struct tiles *layout = &recompute->layout;
    size_t count = infer_tiles_count(layout);
    recompute->tiles = pulmo_alloc(count, sizeof *recompute->tiles, err);
    for (size_t number = 0; recompute->tiles && number < count; number++) {
        int64_t *tile = recompute->tiles[recompute->tile_count];
        bool holds = false;
        infer_tiles_place(layout, number, tile);
        for (size_t n = 0; !holds && n < recompute->count; n++)
            holds = lies_in(layout, &recompute->findings->items[recompute->which[n]], tile);
        recompute->tile_count += holds;
    }
    return recompute->tiles != NULL;
}

/* The peak at the cell or at one of its neighbours, to which another rounding may have moved it; the greatest where
 * there are several, the cell itself where there is none. */
static struct mark mark_near(const float *maps, const int64_t cells[3], const int64_t at[3]) {
    struct mark best = infer_mark(maps, cells, at);
    bool found = infer_is_peak(maps, cells, at);
    for (int n = 0; !found && n < 27; n++) {
        int64_t to[3] = {at[0] + n / 9 - 1, at[1] + n / 3 % 3 - 1, at[2] + n % 3 - 1};
        struct mark mark = infer_mark(maps, cells, to);
        if (infer_is_peak(maps, cells, to) && mark.logit > best.logit)
            best = mark;
    }
    return best;
}

static void finding_take(const struct recompute *recompute, const int64_t tile[3], const float *maps,
                         struct finding *finding) {
    const struct tiles *layout = &recompute->layout;
    int64_t edge = layout->margin / MODEL_STRIDE, corner[3], cells[3], at[3];
    for (int axis = 0; axis < 3; axis++) {
        corner[axis] = infer_tiles_cell(layout, tile, axis) - edge;
        cells[axis] = layout->side[axis] / MODEL_STRIDE;
        at[axis] = finding->detector_cell_kji[axis] - corner[axis];
    }
    struct mark mark = mark_near(maps, cells, at);
    for (int axis = 0; axis < 3; axis++)
        mark.at[axis] += (double)(corner[axis] * MODEL_STRIDE);
    finding->detector_logit = mark.logit;
    finding->diameter_mm = mark.diameter_mm;
    finding->full_precision = true;
    infer_mark_place(&recompute->iso->grid, mark.at, finding->center_lps_mm);
}

/* Job: one tile and the candidates in it. What it leaves depends on their cells, which stay. */
static bool tile_again(void *context, struct lane *lane, size_t index, struct err *err) {
    struct recompute *recompute = context;
    const struct infer_model *model = recompute->session->model;
    struct runner *runner = infer_tile_stages_of(&recompute->stages, lane)->full.runners[lane->worker];
    const int64_t *tile = recompute->tiles[index];
    int64_t cells = infer_tiles_cells(&recompute->layout), start[3];
    PULMO_SCOPED(pulmo_free_at) float *maps = pulmo_alloc(MAP_CHANNELS * (size_t)cells, sizeof *maps, err);
    if (!maps)
        return false;
    infer_tiles_start(&recompute->layout, tile, start);
    infer_frame_cut_box(recompute->iso, start, recompute->layout.side, infer_runner_input(runner, 0));
    if (!infer_lane_run(lane, runner, NULL, err))
        return err_within(err, "a tile in fp32");
    for (int channel = 0; channel < MAP_CHANNELS; channel++)
        memcpy(maps + channel * cells, infer_map_channel(model, runner, channel, cells), (size_t)cells * sizeof *maps);
    for (size_t n = 0; n < recompute->count; n++) {
        struct finding *finding = &recompute->findings->items[recompute->which[n]];
        if (lies_in(&recompute->layout, finding, tile))
            finding_take(recompute, tile, maps, finding);
    }
    return true;
}

bool infer_recompute(struct infer_session *session, const struct volume *iso, const struct findings *findings,
                     const uint32_t *which, size_t count, struct err *err) {
    PULMO_SCOPED(recompute_clear)
    struct recompute recompute = {.session = session, .iso = iso, .findings = findings, .which = which, .count = count};
    if (!infer_session_is_mixed(session) || count == 0)
        return true;
    if (!infer_frame_check(iso, err))
        return false;
    recompute.layout = infer_tiles_lay(session->model, iso);
    if (!infer_tile_stages(session, recompute.layout.side, &recompute.stages, err) || !tiles_list(&recompute, err))
        return false;
    const struct devices_work work = {
        .place = INFER_PLACE_DETECT, .count = recompute.tile_count, .job = tile_again, .context = &recompute};
    return infer_devices_run(session, &work, NULL, err);
}
