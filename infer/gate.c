/* The quality gate's frame and autoencoder, exactly as models/README.md, "gate.onnx" says (train/gate.py). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/session.h"

#define CELLS (INFER_GATE_SLICES * INFER_GATE_ROWS * INFER_GATE_COLUMNS)
#define ROUGH_HU 32.0
#define ROUGH_SCALE 4.0

static const int cell_counts[3] = {INFER_GATE_COLUMNS, INFER_GATE_ROWS, INFER_GATE_SLICES}; /* i, j, k */
static const double reach_deviations[3] = {2.05, 2.35, 2.25};

struct cell { /* sums over its voxels; whole numbers, so that their order does not matter */
    int64_t voxels, above_air, lung, grain_twice, step;
};

struct gate_frame {
    const struct volume *iso;
    const struct mask *lungs;
    int32_t *cell_of[3]; /* i, j, k: the cell of a voxel along the axis, or -1 */
    struct cell *cells;  /* [INFER_GATE_SLICES][INFER_GATE_ROWS][INFER_GATE_COLUMNS] */
};

static void gate_frame_clear(struct gate_frame *frame) {
    for (int axis = 0; axis < 3; axis++)
        free(frame->cell_of[axis]);
    free(frame->cells);
}

/* ---- the box around the lungs -------------------------------------------------------------------------------- */

/* How many lung voxels lie at each position along each axis. */
static void profiles_count(const struct mask *lungs, int64_t *const along[3]) {
    const int32_t *size = lungs->grid.size_ijk;
    const uint8_t *voxel = lungs->voxel;
    for (int32_t k = 0; k < size[2]; k++)
        for (int32_t j = 0; j < size[1]; j++)
            for (int32_t i = 0; i < size[0]; i++)
                if (*voxel++) {
                    along[0][i]++;
                    along[1][j]++;
                    along[2][k]++;
                }
}

/* The box reaches so many standard deviations of the lung's voxels to both sides of their mean. A box by the first and
 * last voxel would follow every stray one. */
static void axis_divide(const int64_t *along, int32_t size, int axis, int32_t *cell_of) {
    int64_t total = 0, first = 0;
    double square = 0;
    for (int32_t at = 0; at < size; at++) {
        total += along[at];
        first += along[at] * at;
    }
    double mean = (double)first / (double)(total > 0 ? total : 1);
    for (int32_t at = 0; at < size; at++)
        square += (double)along[at] * ((at - mean) * (at - mean));
    double half = reach_deviations[axis] * sqrt(fmax(square / (double)(total > 0 ? total : 1), 1));
    for (int32_t at = 0; at < size; at++) {
        double cell = floor((at - (mean - half)) / (2 * half) * cell_counts[axis]);
        cell_of[at] = cell >= 0 && cell < cell_counts[axis] ? (int32_t)cell : -1;
    }
}

static bool frame_begin(struct gate_frame *frame, struct err *err) {
    const int32_t *size = frame->iso->grid.size_ijk;
    PULMO_SCOPED(pulmo_free_at) int64_t *x = pulmo_alloc((size_t)size[0], sizeof *x, err);
    PULMO_SCOPED(pulmo_free_at) int64_t *y = pulmo_alloc((size_t)size[1], sizeof *y, err);
    PULMO_SCOPED(pulmo_free_at) int64_t *z = pulmo_alloc((size_t)size[2], sizeof *z, err);
    frame->cells = pulmo_alloc(CELLS, sizeof *frame->cells, err);
    if (!x || !y || !z || !frame->cells)
        return false;
    int64_t *const along[3] = {x, y, z};
    profiles_count(frame->lungs, along);
    for (int axis = 0; axis < 3; axis++) {
        frame->cell_of[axis] = pulmo_alloc((size_t)size[axis], sizeof(int32_t), err);
        if (!frame->cell_of[axis])
            return false;
        axis_divide(along[axis], size[axis], axis, frame->cell_of[axis]);
    }
    return true;
}

/* ---- cells ----------------------------------------------------------------------------------------------------- */

static int clipped(int16_t hu) {
    return hu < FRAME_HU_MIN ? FRAME_HU_MIN : hu > FRAME_HU_MAX ? FRAME_HU_MAX : hu;
}

/* |a - 2b + c| of a voxel and its neighbours `stride` away; 0 at the ends of the axis, where one is missing. */
static int bend(const int16_t *hu, size_t stride, int32_t at, int32_t size) {
    if (at < 1 || at + 1 >= size)
        return 0;
    return abs(clipped(hu[-(ptrdiff_t)stride]) - 2 * clipped(*hu) + clipped(hu[stride]));
}

static void row_add(const struct gate_frame *frame, int32_t j, int32_t k, struct cell *row) {
    const int32_t *size = frame->iso->grid.size_ijk;
    size_t across = (size_t)size[0], plane = across * (size_t)size[1];
    size_t start = plane * (size_t)k + across * (size_t)j;
    const int16_t *hu = frame->iso->hu + start;
    const uint8_t *lung = frame->lungs->voxel + start;
    for (int32_t i = 0; i < size[0]; i++) {
        if (frame->cell_of[0][i] < 0)
            continue;
        struct cell *cell = &row[frame->cell_of[0][i]];
        cell->voxels++;
        cell->above_air += clipped(hu[i]) - FRAME_HU_MIN;
        if (!lung[i])
            continue;
        cell->lung++;
        cell->grain_twice += bend(hu + i, 1, i, size[0]) + bend(hu + i, across, j, size[1]);
        cell->step += bend(hu + i, plane, k, size[2]);
    }
}

/* Slices of cells first .. end - 1, of which each has voxels of its own. */
static bool cells_sum(void *context, int32_t first, int32_t end, struct err *err) {
    const struct gate_frame *frame = context;
    const int32_t *size = frame->iso->grid.size_ijk;
    (void)err;
    for (int32_t k = 0; k < size[2]; k++) {
        int32_t slice = frame->cell_of[2][k];
        for (int32_t j = 0; slice >= first && slice < end && j < size[1]; j++)
            if (frame->cell_of[1][j] >= 0)
                row_add(frame, j, k,
                        frame->cells + (slice * INFER_GATE_ROWS + frame->cell_of[1][j]) * INFER_GATE_COLUMNS);
    }
    return true;
}

static double rough(double hu) {
    return log1p(hu / ROUGH_HU) / ROUGH_SCALE;
}

/* out: [INFER_GATE_CHANNELS][CELLS] */
static void channels_fill(const struct cell *cells, float *out) {
    for (int n = 0; n < CELLS; n++) {
        const struct cell *cell = &cells[n];
        double voxels = (double)(cell->voxels > 0 ? cell->voxels : 1), lung = (double)(cell->lung > 0 ? cell->lung : 1);
        double part = (double)cell->lung / voxels;
        out[n] = (float)((double)cell->above_air / voxels / (FRAME_HU_MAX - FRAME_HU_MIN));
        out[CELLS + n] = (float)part;
        out[2 * CELLS + n] = (float)(part * rough((double)cell->grain_twice / 2 / lung));
        out[3 * CELLS + n] = (float)(part * rough((double)cell->step / lung));
    }
}

bool infer_gate_frame(const struct volume *iso, const struct mask *lungs, float *out, struct err *err) {
    PULMO_SCOPED(gate_frame_clear) struct gate_frame frame = {.iso = iso, .lungs = lungs};
    if (!infer_frame_check(iso, err))
        return false;
    if (memcmp(iso->grid.size_ijk, lungs->grid.size_ijk, sizeof iso->grid.size_ijk) != 0)
        return err_set(err, ERR_INPUT, "the lung mask has another grid than the volume");
    if (!frame_begin(&frame, err) || !workers_share(INFER_GATE_SLICES, cells_sum, &frame, err))
        return false;
    channels_fill(frame.cells, out);
    return true;
}

/* ---- the score --------------------------------------------------------------------------------------------------- */

#define SLICE (INFER_GATE_ROWS * INFER_GATE_COLUMNS)
#define REPEAT_MAX 1000.0 /* what slices without any step between them get */

enum { DENSITY = 0, LUNG, GRAIN, STEP };

/* Root mean square error of one channel over all cells, and over the cells of its worst slice. */
static void errors_measure(const float *frame, const float *again, double errors[GATE_EXTENTS]) {
    double whole = 0, worst = 0;
    for (int k = 0; k < INFER_GATE_SLICES; k++) {
        double slice = 0;
        for (int n = k * SLICE; n < (k + 1) * SLICE; n++) {
            double gap = (double)frame[n] - (double)again[n];
            slice += gap * gap;
        }
        whole += slice;
        worst = fmax(worst, slice);
    }
    errors[GATE_WHOLE] = sqrt(whole / CELLS);
    errors[GATE_SLICE] = sqrt(worst / SLICE);
}

/* Keeps what exceeds its limit most. */
static void part_add(double error, double limit, const char *part, struct infer_gate_result *inout) {
    if (error / limit > inout->score)
        *inout = (struct infer_gate_result){.score = error / limit, .error = error, .limit = limit, .part = part};
}

static void errors_judge(const struct infer_model *model, const float *frame, const float *again,
                         struct infer_gate_result *inout) {
    static const char *const names[INFER_GATE_CHANNELS][GATE_EXTENTS] = {
        {"density", "density of one level"},
        {"shape of the lungs", "shape of the lungs at one level"},
        {"grain", "grain of one level"},
        {"steps between slices", "steps between slices at one level"},
    };
    for (int extent = 0; extent < GATE_EXTENTS; extent++)
        for (int channel = 0; channel < INFER_GATE_CHANNELS; channel++) {
            double errors[GATE_EXTENTS];
            errors_measure(frame + channel * CELLS, again + channel * CELLS, errors);
            part_add(errors[extent], model->gate_limits[extent][channel], names[channel][extent], inout);
        }
}

/* How well density and lungs of a frame are drawn. */
static double shape_error(const float *frame, const float *again) {
    double density[GATE_EXTENTS], lung[GATE_EXTENTS];
    errors_measure(frame + DENSITY * CELLS, again + DENSITY * CELLS, density);
    errors_measure(frame + LUNG * CELLS, again + LUNG * CELLS, lung);
    return hypot(density[GATE_WHOLE], lung[GATE_WHOLE]);
}

/* A chest is drawn worse when it is turned over; one that is not has been turned over before, or has no up and down. */
static void turn_judge(const struct infer_model *model, const float *frames, const float *again,
                       struct infer_gate_result *inout) {
    double least = INFINITY;
    for (int turn = 1; turn < GATE_TURNS; turn++)
        least = fmin(least, shape_error(frames + turn * INFER_GATE_FRAME, again + turn * INFER_GATE_FRAME));
    double ratio = least > 0 ? shape_error(frames, again) / least : 0;
    part_add(ratio, model->gate_turned_limit, "turned over", inout);
}

static int compare_steps(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* Every CT changes from slice to slice; where it does not, slices are copies of each other. */
static void repeats_judge(const struct infer_model *model, const float *frame, struct infer_gate_result *inout) {
    double lung[INFER_GATE_SLICES] = {0}, step[INFER_GATE_SLICES] = {0}, steps[INFER_GATE_SLICES], most = 0;
    int count = 0;
    for (int k = 0; k < INFER_GATE_SLICES; k++) {
        for (int n = k * SLICE; n < (k + 1) * SLICE; n++) {
            lung[k] += (double)frame[LUNG * CELLS + n];
            step[k] += (double)frame[STEP * CELLS + n];
        }
        most = fmax(most, lung[k]);
    }
    for (int k = 0; k < INFER_GATE_SLICES; k++)
        if (lung[k] > 0.25 * most)
            steps[count++] = step[k] / lung[k];
    if (!count)
        return;
    qsort(steps, (size_t)count, sizeof *steps, compare_steps);
    double ratio = fmin(REPEAT_MAX, steps[count / 2] / fmax(steps[0], 1e-9));
    part_add(ratio, model->gate_repeated_limit, "repeated slices", inout);
}

void infer_gate_judge(const struct infer_model *model, const float *frames, const float *again,
                      struct infer_gate_result *out) {
    struct infer_gate_result result = {.score = -1};
    errors_judge(model, frames, again, &result);
    turn_judge(model, frames, again, &result);
    repeats_judge(model, frames, &result);
    *out = result;
}

/* frames: the frame, upside down, back to front, both; along z and y of every channel. */
static void turns_fill(const float *frame, float *frames) {
    for (int turn = 0; turn < GATE_TURNS; turn++)
        for (int channel = 0; channel < INFER_GATE_CHANNELS; channel++)
            for (int k = 0; k < INFER_GATE_SLICES; k++)
                for (int j = 0; j < INFER_GATE_ROWS; j++) {
                    int from_k = turn & 1 ? INFER_GATE_SLICES - 1 - k : k;
                    int from_j = turn & 2 ? INFER_GATE_ROWS - 1 - j : j;
                    memcpy(frames, frame + channel * CELLS + from_k * SLICE + from_j * INFER_GATE_COLUMNS,
                           INFER_GATE_COLUMNS * sizeof *frames);
                    frames += INFER_GATE_COLUMNS;
                }
}

bool infer_gate(struct infer_session *session, const float *frame, struct infer_gate_result *out, struct err *err) {
    const struct infer_model *model = session->model;
    struct runner *runner = session->gate.runners[0];
    if (!runner)
        return err_set(err, ERR_UNSUPPORTED, "the model has no gate");
    PULMO_SCOPED(pulmo_free_at) float *frames = pulmo_alloc(GATE_TURNS * INFER_GATE_FRAME, sizeof *frames, err);
    if (!frames)
        return false;
    turns_fill(frame, frames);
    memcpy(infer_runner_input(runner, 0), frames, GATE_TURNS * INFER_GATE_FRAME * sizeof *frames);
    if (!infer_runner_run(runner, NULL, err))
        return err_within(err, "the gate");
    infer_gate_judge(model, frames, infer_runner_output(runner, model->gate_output), out);
    return true;
}
