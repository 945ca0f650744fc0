/* Candidates of a detector of lower precision, computed again in fp32: a cube around each (`recompute_side` of the
 * model), or the whole tile in which it was found, so that its cell holds, bit for bit, what a detector in fp32 would
 * have said of it. */
#include <string.h>

#include "infer/session.h"
#include "infer/tiles.h"

/* Where the network looks again. */
struct region {
    struct tiles layout;
    int64_t tile[3];      /* k, j, i of the layout */
    struct finding *only; /* NULL = all that lie in the tile's inner part */
};

struct recompute {
    struct infer_session *session;
    struct tile_stages stages;
    const struct volume *iso;
    const struct findings *findings;
    const uint32_t *which; /* [count] */
    size_t count;
    struct region *regions; /* all of one size */
    size_t region_count;
};

static void recompute_clear(struct recompute *recompute) {
    infer_tile_stages_clear(&recompute->stages);
    pulmo_free_at(&recompute->regions);
}

static struct finding *candidate_of(const struct recompute *recompute, size_t n) {
    return &recompute->findings->items[recompute->which[n]];
}

static bool lies_in(const struct region *region, const struct finding *finding) {
    const struct tiles *layout = &region->layout;
    for (int axis = 0; axis < 3; axis++) {
        int64_t first = infer_tiles_cell(layout, region->tile, axis), cell = finding->detector_cell_kji[axis];
        if (cell < first || cell >= first + layout->inner[axis] / MODEL_STRIDE)
            return false;
    }
    return !region->only || region->only == finding;
}

/* Every tile in which one of the candidates lies, once. */
static bool regions_of_tiles(struct recompute *recompute, struct err *err) {
    struct region region = {.layout = infer_tiles_lay(recompute->session->model, recompute->iso)};
    size_t count = infer_tiles_count(&region.layout);
    recompute->regions = pulmo_alloc(count, sizeof *recompute->regions, err);
    for (size_t number = 0; recompute->regions && number < count; number++) {
        bool holds = false;
        infer_tiles_place(&region.layout, number, region.tile);
        for (size_t n = 0; !holds && n < recompute->count; n++)
            holds = lies_in(&region, candidate_of(recompute, n));
        recompute->regions[recompute->region_count] = region;
        recompute->region_count += holds;
    }
    return recompute->regions != NULL;
}

/* A cube around each. */
static bool regions_of_cubes(struct recompute *recompute, struct err *err) {
    const struct infer_model *model = recompute->session->model;
    recompute->regions = pulmo_alloc(recompute->count, sizeof *recompute->regions, err);
    for (size_t n = 0; recompute->regions && n < recompute->count; n++) {
        struct finding *finding = candidate_of(recompute, n);
        int64_t cell[3];
        for (int axis = 0; axis < 3; axis++)
            cell[axis] = finding->detector_cell_kji[axis];
        recompute->regions[n] =
            (struct region){.layout = infer_tiles_around(model, cell, model->recompute_side), .only = finding};
    }
    recompute->region_count = recompute->count;
    return recompute->regions != NULL;
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

static void finding_take(const struct recompute *recompute, const struct region *region, const float *maps,
                         struct finding *finding) {
    const struct tiles *layout = &region->layout;
    int64_t edge = layout->margin / MODEL_STRIDE, corner[3], cells[3], at[3];
    for (int axis = 0; axis < 3; axis++) {
        corner[axis] = infer_tiles_cell(layout, region->tile, axis) - edge;
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

/* Job: one region and the candidates in it. What it leaves depends on their cells, which stay. */
static bool region_again(void *context, struct lane *lane, size_t index, struct err *err) {
    struct recompute *recompute = context;
    const struct infer_model *model = recompute->session->model;
    const struct region *region = &recompute->regions[index];
    const struct detector_stages *stages = infer_tile_stages_of(&recompute->stages, lane);
    struct runner *runner = stages->full.runners[lane->worker];
    int64_t cells = infer_tiles_cells(&region->layout), start[3];
    PULMO_SCOPED(pulmo_free_at) float *maps = pulmo_alloc(MAP_CHANNELS * (size_t)cells, sizeof *maps, err);
    if (!maps)
        return false;
    infer_tiles_start(&region->layout, region->tile, start);
    infer_frame_cut_box(recompute->iso, start, region->layout.side, infer_runner_input(runner, 0));
    if (!infer_lane_run(lane, runner, NULL, err))
        return err_within(err, "a candidate in fp32");
    for (int channel = 0; channel < MAP_CHANNELS; channel++)
        memcpy(maps + channel * cells, infer_map_channel(model, runner, channel, cells), (size_t)cells * sizeof *maps);
    for (size_t n = 0; n < recompute->count; n++)
        if (lies_in(region, candidate_of(recompute, n)))
            finding_take(recompute, region, maps, candidate_of(recompute, n));
    return true;
}

bool infer_recompute(struct infer_session *session, const struct volume *iso, const struct findings *findings,
                     const uint32_t *which, size_t count, struct err *err) {
    PULMO_SCOPED(recompute_clear)
    struct recompute recompute = {.session = session, .iso = iso, .findings = findings, .which = which, .count = count};
    uint64_t start_ns = infer_devices_now_ns();
    struct devices_figures figures;
    if (!infer_session_is_mixed(session) || count == 0)
        return true;
    if (!infer_frame_check(iso, err))
        return false;
    if (!(session->model->recompute_side ? regions_of_cubes(&recompute, err) : regions_of_tiles(&recompute, err)) ||
        !infer_tile_stages(session, recompute.regions->layout.side, &recompute.stages, err))
        return false;
    const struct devices_work work = {
        .place = INFER_PLACE_DETECT, .count = recompute.region_count, .job = region_again, .context = &recompute};
    if (!infer_devices_run(session, &work, &figures, err))
        return false;
    session->recompute_figures =
        (struct infer_recompute_figures){.wall_ns = infer_devices_now_ns() - start_ns, .busy_ns = figures.busy_ns};
    return true;
}

void infer_session_recompute_figures(const struct infer_session *session, struct infer_recompute_figures *out) {
    *out = session->recompute_figures;
}
