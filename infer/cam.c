/* HiResCAM (Draelos and Carin, arXiv:2011.08891, equation 3): at each cell the sum over channels of activation times
 * gradient, so that the map shows what the layer really adds to the logit. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/gradient.h"
#include "infer/session.h"
#include "infer/tiles.h"

/* Cells: 8 mm. A candidate's centre is the cell that fired plus its offset, and need not lie in that cell. */
#define REACH 2

struct view {
    int64_t start[3]; /* voxel i, j, k of the tile's corner */
    int64_t cell[3];  /* heatmap cell k, j, i nearest the candidate */
};

static bool view_find(const struct infer_model *model, const struct volume *iso, const double center_lps_mm[3],
                      struct view *out, struct err *err) {
    double ijk[3];
    if (!grid_to_ijk(&iso->grid, center_lps_mm, ijk))
        return err_set(err, ERR_INPUT, "the volume's grid is singular");
    for (int axis = 0; axis < 3; axis++) {
        if (!(fabs(ijk[axis]) < 1e6))
            return err_set(err, ERR_INPUT, "the candidate lies %g voxels away", ijk[axis]);
        out->start[axis] = infer_tiles_first(model, ijk[axis], model->cam_side) - model->margin;
        double inside = ijk[axis] - (double)out->start[axis];
        out->cell[2 - axis] = (int64_t)rint((inside - (MODEL_STRIDE - 1) / 2.0) / MODEL_STRIDE);
    }
    return true;
}

/* Voxels a cell of the layer; 0 when the layer is no lattice over the tile that fits the detector's. */
static int64_t layer_stride(const struct infer_model *model, const struct shape *layer) {
    if (layer->rank != 5 || layer->dims[0] != 1 || layer->dims[2] != layer->dims[3] ||
        layer->dims[2] != layer->dims[4] || layer->dims[2] < 1 || model->cam_side % layer->dims[2])
        return 0;
    int64_t stride = model->cam_side / layer->dims[2];
    return TILES_LATTICE % stride || model->margin % stride ? 0 : stride;
}

/* Sum over channels of [c][k][j][i], on the tile's inner cells. */
static void map_fill(const float *activation, const float *gradient, const struct shape *layer, int64_t edge,
                     float *map) {
    int64_t channels = layer->dims[1], cells = layer->dims[2];
    int64_t inner = cells - 2 * edge, volume = cells * cells * cells;
    for (int64_t n = 0; n < inner * inner * inner; n++) {
        int64_t k = n / (inner * inner) + edge, j = n / inner % inner + edge, i = n % inner + edge;
        double sum = 0;
        for (int64_t c = 0; c < channels; c++) {
            int64_t at = c * volume + (k * cells + j) * cells + i;
            sum += (double)activation[at] * (double)gradient[at];
        }
        map[n] = (float)sum;
    }
}

/* The element of the heatmap, [k][j][i], whose logit is greatest among those up to REACH cells from the candidate. */
static int64_t strongest_cell(const float *heatmap, int64_t cells, const int64_t near[3]) {
    int64_t best = (near[0] * cells + near[1]) * cells + near[2];
    for (int64_t k = near[0] - REACH; k <= near[0] + REACH; k++)
        for (int64_t j = near[1] - REACH; j <= near[1] + REACH; j++)
            for (int64_t i = near[2] - REACH; i <= near[2] + REACH; i++) {
                int64_t element = (k * cells + j) * cells + i;
                if (k >= 0 && j >= 0 && i >= 0 && k < cells && j < cells && i < cells &&
                    heatmap[element] > heatmap[best])
                    best = element;
            }
    return best;
}

/* The layer's cells that lie within the margins. */
static struct grid map_grid(const struct infer_model *model, const struct volume *iso, const struct view *view,
                            int64_t stride) {
    struct grid grid = iso->grid;
    double first[3], origin[3], step = (double)stride;
    for (int axis = 0; axis < 3; axis++) {
        first[axis] = (double)(view->start[axis] + model->margin) + (step - 1) / 2.0;
        grid.size_ijk[axis] = (int32_t)((model->cam_side - 2 * model->margin) / stride);
        grid.spacing_mm[axis] = iso->grid.spacing_mm[axis] * step;
    }
    grid_to_lps(&iso->grid, first, origin);
    for (int row = 0; row < 3; row++) {
        for (int column = 0; column < 3; column++)
            grid.ijk_to_lps_mm[row][column] = iso->grid.ijk_to_lps_mm[row][column] * step;
        grid.ijk_to_lps_mm[row][3] = origin[row];
    }
    return grid;
}

static bool cam_compute(const struct infer_session *session, struct runner *runner, const struct volume *iso,
                        const struct view *view, struct infer_cam *out, struct err *err) {
    const struct infer_model *model = session->model;
    const struct shape *layer = infer_program_shape(session->gradient.program, model->cam_value);
    int64_t stride = layer_stride(model, layer), cells = model->cam_side / MODEL_STRIDE;
    if (!stride)
        return err_set(err, ERR_UNSUPPORTED, "cam_layer is no lattice over the tile of stride 1, 2, 4 or 8");
    int64_t edge = model->margin / stride, inner = (model->cam_side - 2 * model->margin) / stride;
    size_t count = (size_t)infer_shape_count(layer);
    PULMO_SCOPED(pulmo_free_at) float *activation = pulmo_alloc(count, sizeof *activation, err);
    PULMO_SCOPED(pulmo_free_at) float *gradient = pulmo_alloc(count, sizeof *gradient, err);
    PULMO_SCOPED(pulmo_free_at) float *map = pulmo_alloc((size_t)(inner * inner * inner), sizeof *map, err);
    if (!activation || !gradient || !map)
        return false;
    infer_frame_cut(iso, view->start, model->cam_side, infer_runner_input(runner, 0));
    if (!infer_runner_run(runner, NULL, err) || !infer_runner_read(runner, model->cam_value, activation, err))
        return false;
    int output = model->detector_outputs[DETECTOR_HEATMAP];
    int64_t element = strongest_cell(infer_runner_output(runner, output), cells, view->cell);
    if (!infer_gradient(runner, model->detector->outputs[output], element, model->cam_value, gradient, err))
        return false;
    map_fill(activation, gradient, layer, edge, map);
    out->grid = map_grid(model, iso, view, stride);
    out->map = map;
    map = NULL;
    return true;
}

struct views {
    const struct infer_session *session;
    const struct volume *iso;
    const struct findings *findings;
    struct infer_cam *out;
};

/* Job: one finding. */
static bool view_run(void *context, unsigned worker, size_t index, struct err *err) {
    const struct views *views = context;
    const struct infer_session *session = views->session;
    struct view view;
    return view_find(session->model, views->iso, views->findings->items[index].center_lps_mm, &view, err) &&
           cam_compute(session, session->gradient.runners[worker], views->iso, &view, &views->out[index], err);
}

bool infer_cams(struct infer_session *session, const struct volume *iso, const struct findings *findings,
                struct infer_cam *out, struct err *err) {
    if (!infer_frame_check(iso, err) || !infer_session_gradient(session, err))
        return false;
    PULMO_SCOPED(pulmo_free_at) struct infer_cam *made = pulmo_alloc(findings->count, sizeof *made, err);
    struct views views = {.session = session, .iso = iso, .findings = findings, .out = made};
    if (!made)
        return false;
    if (workers_run(session->gradient_workers, findings->count, view_run, &views, err)) {
        memcpy(out, made, findings->count * sizeof *out);
        return true;
    }
    for (size_t index = 0; index < findings->count; index++)
        infer_cam_free(&made[index]);
    return false;
}

bool infer_cam(struct infer_session *session, const struct volume *iso, const double center_lps_mm[3],
               struct infer_cam *out, struct err *err) {
    struct finding only = {0};
    memcpy(only.center_lps_mm, center_lps_mm, sizeof only.center_lps_mm);
    return infer_cams(session, iso, &(struct findings){.items = &only, .count = 1}, out, err);
}

void infer_cam_free(struct infer_cam *cam) {
    free(cam->map);
    *cam = (struct infer_cam){0};
}
