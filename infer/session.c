#include "infer/session.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/precision.h"

static void stage_clear(struct stage *stage) {
    for (unsigned i = 0; i < WORKERS_MAX; i++)
        infer_runner_free(stage->runners[i]);
    infer_program_free(stage->program);
    *stage = (struct stage){0};
}

/* With a runner a worker; the program is the stage's from here on. */
static bool stage_fill(struct program *program, unsigned workers, struct stage *out, struct err *err) {
    struct stage stage = {.program = program};
    bool good = program != NULL;
    for (unsigned i = 0; good && i < workers; i++)
        good = (stage.runners[i] = infer_runner_new(stage.program, err)) != NULL;
    if (good)
        *out = stage;
    else
        stage_clear(&stage);
    return good;
}

static bool stage_new(const struct graph *graph, const struct shape *inputs, unsigned workers, bool keep,
                      struct stage *out, struct err *err) {
    return stage_fill(infer_program_new(graph, inputs, keep, err), workers, out, err);
}

static struct shape cube(int side) {
    return (struct shape){.rank = 5, .dims = {1, 1, side, side, side}};
}

static unsigned thread_count(const struct infer_session_config *config) {
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned wanted = config && config->threads ? config->threads : processors > 0 ? (unsigned)processors : 1;
    return wanted > WORKERS_MAX ? WORKERS_MAX : wanted;
}

/* The detector's tile in the precision wanted, and what is computed again in fp32 where that is another. */
static bool detector_stages(struct infer_session *session, const struct infer_precision *precision, struct err *err) {
    const struct graph *graph = session->model->detector;
    struct shape tile = cube(session->model->tile);
    if (!precision)
        return stage_new(graph, &tile, session->threads, false, &session->detector, err);
    if (!stage_fill(infer_program_new_mixed(graph, &tile, precision, err), session->threads, &session->detector, err))
        return err_within(err, "mixed precision");
    if (!infer_precision_is_mixed(precision))
        return true;
    /* member by member: what lies behind the letters and the ranges must not tell two sessions apart */
    size_t layers = strlen(precision->layers);
    memcpy(session->precision.layers, precision->layers, layers);
    memcpy(session->precision.ranges, precision->ranges, layers * sizeof *precision->ranges);
    session->precision.weight_max = precision->weight_max;
    return stage_new(graph, &tile, session->threads, false, &session->whole, err);
}

bool infer_session_is_mixed(const struct infer_session *session) {
    return session->whole.program != NULL;
}

const struct infer_precision *infer_session_precision(const struct infer_session *session) {
    return infer_session_is_mixed(session) ? &session->precision : NULL;
}

struct infer_session *infer_session_new(const struct infer_model *model, const struct infer_session_config *config,
                                        struct err *err) {
    struct infer_session *session = pulmo_alloc(1, sizeof *session, err);
    if (!session)
        return NULL;
    session->model = model;
    session->threads = thread_count(config);
    struct shape crop = cube(model->side);
    struct shape frame = {
        .rank = 5, .dims = {GATE_TURNS, INFER_GATE_CHANNELS, INFER_GATE_SLICES, INFER_GATE_ROWS, INFER_GATE_COLUMNS}};
    if (detector_stages(session, config ? config->precision : NULL, err) &&
        stage_new(model->trunk, &crop, session->threads, false, &session->trunk, err) &&
        (!model->gate || stage_new(model->gate, &frame, 1, false, &session->gate, err)))
        return session;
    infer_session_free(session);
    return NULL;
}

void infer_session_free(struct infer_session *session) {
    if (!session)
        return;
    stage_clear(&session->detector);
    stage_clear(&session->whole);
    stage_clear(&session->trunk);
    stage_clear(&session->tails[0]);
    stage_clear(&session->tails[1]);
    stage_clear(&session->gate);
    stage_clear(&session->gradient);
    free(session);
}

const struct infer_model *infer_session_model(const struct infer_session *session) {
    return session->model;
}

const char *infer_backend_name(const struct infer_session *session) {
    (void)session;
    return "cpu";
}

const char *infer_backend_detail(const struct infer_session *session) {
    (void)session;
    return infer_backend_text();
}

const struct stage *infer_session_tail_of(const struct infer_session *session, uint32_t passes) {
    return &session->tails[passes > 1];
}

bool infer_session_tail(struct infer_session *session, uint32_t passes, struct err *err) {
    const struct infer_model *model = session->model;
    struct shape inputs[GRAPH_PORTS_MAX];
    struct stage stage;
    int which = passes > 1;
    if (!model->tail || session->tail_batch[which] == passes)
        return true;
    for (int i = 0; i < model->tail->input_count; i++) {
        int value = model->trunk->outputs[model->tail_sources[i]];
        inputs[i] = *infer_program_shape(session->trunk.program, value);
        inputs[i].dims[0] = passes;
    }
    if (!stage_new(model->tail, inputs, session->threads, false, &stage, err))
        return false;
    stage_clear(&session->tails[which]);
    session->tails[which] = stage;
    session->tail_batch[which] = passes;
    return true;
}

/* Each holds every activation of a tile: more of them than this cost memory that the tiles' stage never needs. */
#define GRADIENT_WORKERS_MAX 4

bool infer_session_gradient(struct infer_session *session, struct err *err) {
    struct shape tile = cube(session->model->tile);
    session->gradient_workers = session->threads < GRADIENT_WORKERS_MAX ? session->threads : GRADIENT_WORKERS_MAX;
    return session->gradient.program ||
           stage_new(session->model->detector, &tile, session->gradient_workers, true, &session->gradient, err);
}

/* ---- frame --------------------------------------------------------------------------------------------------- */

bool infer_frame_check(const struct volume *iso, struct err *err) {
    for (int axis = 0; axis < 3; axis++)
        if (fabs(iso->grid.spacing_mm[axis] - 1) > 1e-6 || iso->grid.size_ijk[axis] < 1)
            return err_set(err, ERR_INPUT, "the network wants voxels of 1 mm, not %g on axis %d",
                           iso->grid.spacing_mm[axis], axis);
    return true;
}

/* One row of the cube; voxels outside the volume are 0. The inner loop has no branch, so that it runs on vectors. */
static bool row_cut(const int16_t *row, int64_t columns, int64_t start, int side, float *out) {
    int64_t first = start < 0 ? -start : 0, end = columns - start < side ? columns - start : side;
    int most = FRAME_HU_MIN;
    memset(out, 0, (size_t)side * sizeof *out);
    for (int64_t i = first; row && i < end; i++) {
        int hu = row[start + i];
        int clipped = hu < FRAME_HU_MIN ? FRAME_HU_MIN : hu > FRAME_HU_MAX ? FRAME_HU_MAX : hu;
        out[i] = (float)(clipped - FRAME_HU_MIN) / (float)(FRAME_HU_MAX - FRAME_HU_MIN);
        most = clipped > most ? clipped : most;
    }
    return most > FRAME_HU_MIN;
}

bool infer_frame_cut(const struct volume *iso, const int64_t start[3], int side, float *out) {
    int64_t columns = iso->grid.size_ijk[0], rows = iso->grid.size_ijk[1], slices = iso->grid.size_ijk[2];
    bool any = false;
    for (int k = 0; k < side; k++)
        for (int j = 0; j < side; j++) {
            int64_t z = start[2] + k, y = start[1] + j;
            bool inside = z >= 0 && z < slices && y >= 0 && y < rows;
            const int16_t *row = inside ? iso->hu + (z * rows + y) * columns : NULL;
            any = row_cut(row, columns, start[0], side, out + ((int64_t)k * side + j) * side) || any;
        }
    return any;
}
