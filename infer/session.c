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

static struct shape box(const int64_t side_kji[3]) {
    return (struct shape){.rank = 5, .dims = {1, 1, side_kji[0], side_kji[1], side_kji[2]}};
}

static struct shape cube(int side) {
    return box((const int64_t[3]){side, side, side});
}

static unsigned thread_count(const struct infer_session_config *config) {
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned wanted = config && config->threads ? config->threads : processors > 0 ? (unsigned)processors : 1;
    return wanted > WORKERS_MAX ? WORKERS_MAX : wanted;
}

/* Kept for the time when the processor is to run. Member by member: what lies behind the letters and the ranges must
 * not tell two sessions apart. */
static bool precision_take(struct infer_session *session, const struct infer_precision *precision, struct err *err) {
    if (!precision)
        return true;
    if (!infer_precision_check(session->model->detector, precision, err))
        return err_within(err, "mixed precision");
    if (!infer_precision_is_mixed(precision))
        return true;
    size_t layers = strlen(precision->layers);
    memcpy(session->precision.layers, precision->layers, layers);
    memcpy(session->precision.ranges, precision->ranges, layers * sizeof *precision->ranges);
    session->precision.weight_max = precision->weight_max;
    return true;
}

static void detector_clear(struct detector_stages *stages) {
    stage_clear(&stages->wanted);
    stage_clear(&stages->full);
}

/* In fp32. NULL = it is not made yet. */
static const struct program *cubes_full(const struct infer_session *session) {
    return *session->precision.layers ? session->cubes.full.program : session->cubes.wanted.program;
}

/* The session's cubes pack the weights, tiles of other sizes use theirs. */
static bool detector_new(const struct infer_session *session, const int64_t side_kji[3], struct detector_stages *out,
                         struct err *err) {
    const struct graph *graph = session->model->detector;
    const struct program *full = cubes_full(session), *mixed = session->cubes.wanted.program;
    struct shape tile = box(side_kji);
    struct detector_stages stages = {0};
    if (!stage_fill(full ? infer_program_new_like(full, &tile, false, NULL, err)
                         : infer_program_new(graph, &tile, false, err),
                    session->threads, &stages.full, err))
        return false;
    if (!*session->precision.layers) {
        *out = (struct detector_stages){.wanted = stages.full};
        return true;
    }
    if (!stage_fill(mixed ? infer_program_new_like(mixed, &tile, false, &session->precision, err)
                          : infer_program_new_mixed(graph, &tile, &session->precision, err),
                    session->threads, &stages.wanted, err)) {
        detector_clear(&stages);
        return err_within(err, "mixed precision");
    }
    *out = stages;
    return true;
}

bool infer_session_processor(struct infer_session *session, struct err *err) {
    struct shape crop = cube(session->model->side);
    int64_t side = session->model->tile;
    return (session->cubes.wanted.program ||
            detector_new(session, (const int64_t[3]){side, side, side}, &session->cubes, err)) &&
           (session->trunk.program ||
            stage_new(session->model->trunk, &crop, session->threads, false, &session->trunk, err));
}

static bool are_cubes(const struct infer_model *model, const int64_t side_kji[3]) {
    return side_kji[0] == model->tile && side_kji[1] == model->tile && side_kji[2] == model->tile;
}

bool infer_tile_stages(struct infer_session *session, const int64_t side_kji[3], struct tile_stages *out,
                       struct err *err) {
    struct tile_stages stages = {.side_kji = {side_kji[0], side_kji[1], side_kji[2]}};
    bool good = true;
    for (unsigned device = 0; good && device < infer_session_devices(session); device++) {
        struct infer_session *at = infer_device(session, device);
        good = infer_session_processor(at, err) &&
               (are_cubes(at->model, side_kji) || detector_new(at, side_kji, &stages.own[device], err));
    }
    if (good)
        *out = stages;
    else
        infer_tile_stages_clear(&stages);
    return good;
}

void infer_tile_stages_clear(struct tile_stages *stages) {
    for (int device = 0; device < INFER_DEVICES_MAX; device++)
        detector_clear(&stages->own[device]);
}

const struct detector_stages *infer_tile_stages_of(const struct tile_stages *stages, const struct lane *lane) {
    const struct detector_stages *own = &stages->own[lane->device];
    return own->wanted.program ? own : &lane->session->cubes;
}

static void card_open(struct infer_session *session, const struct infer_session_config *config) {
    session->on_processor = true;
    if (session->wanted == INFER_BACKEND_CPU)
        return;
    if (config && config->plugin)
        session->plugin = infer_plugin_open(session->model, config->plugin, config->plugin_cache, &session->why_not);
    else
        err_set(&session->why_not, ERR_NOT_FOUND, "%s",
                config && config->no_plugin ? config->no_plugin : "no CUDA plugin was named");
    session->on_processor = session->plugin == NULL;
}

struct infer_session *infer_session_new(const struct infer_model *model, const struct infer_session_config *config,
                                        struct err *err) {
    struct infer_session *session = pulmo_alloc(1, sizeof *session, err);
    if (!session)
        return NULL;
    session->model = model;
    session->threads = thread_count(config);
    session->wanted = config ? config->backend : INFER_BACKEND_AUTO;
    card_open(session, config);
    struct shape frame = {
        .rank = 5, .dims = {GATE_TURNS, INFER_GATE_CHANNELS, INFER_GATE_SLICES, INFER_GATE_ROWS, INFER_GATE_COLUMNS}};
    if (precision_take(session, config ? config->precision : NULL, err) &&
        (session->plugin || infer_session_processor(session, err)) &&
        (!model->gate || stage_new(model->gate, &frame, 1, false, &session->gate, err)))
        return session;
    infer_session_free(session);
    return NULL;
}

void infer_session_free(struct infer_session *session) {
    if (!session)
        return;
    infer_plugin_close(session->plugin);
    detector_clear(&session->cubes);
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

/* ---- which back-end ---------------------------------------------------------------------------------------------- */

void infer_session_leave_card(struct infer_session *session, const struct err *why, bool for_good) {
    session->on_processor = true;
    session->why_not = *why;
    if (!for_good)
        return;
    infer_plugin_close(session->plugin);
    session->plugin = NULL;
}

static const char *const backend_names[] = {"auto", "cpu", "cuda"};

bool infer_backend_find(const char *name, enum infer_backend *out) {
    for (size_t index = 0; index < sizeof backend_names / sizeof *backend_names; index++)
        if (strcmp(backend_names[index], name) == 0) {
            *out = (enum infer_backend)index;
            return true;
        }
    return false;
}

enum infer_backend infer_backend_wanted(const struct infer_session *session) {
    return session->wanted;
}

const char *infer_backend_wanted_name(const struct infer_session *session) {
    return backend_names[session->wanted];
}

const char *infer_backend_name(const struct infer_session *session) {
    return backend_names[session->on_processor ? INFER_BACKEND_CPU : INFER_BACKEND_CUDA];
}

const char *infer_backend_reason(const struct infer_session *session) {
    return session->why_not.kind ? session->why_not.text : "";
}

bool infer_backend_stands_in(const struct infer_session *session) {
    return session->why_not.kind && (session->wanted == INFER_BACKEND_CUDA || session->why_not.kind != ERR_NOT_FOUND);
}

const char *infer_backend_detail(const struct infer_session *session) {
    return session->on_processor ? infer_backend_text() : infer_plugin_text(session->plugin);
}

const char *infer_session_library(const struct infer_session *session) {
    return session->on_processor ? infer_backend_library() : infer_plugin_library(session->plugin);
}

const char *infer_session_instruction_set(const struct infer_session *session) {
    return session->on_processor ? infer_backend_instruction_set() : infer_plugin_instruction_set(session->plugin);
}

bool infer_session_is_mixed(const struct infer_session *session) {
    return session->on_processor && *session->precision.layers;
}

const struct infer_precision *infer_session_precision(const struct infer_session *session) {
    return infer_session_is_mixed(session) ? &session->precision : NULL;
}

const char *infer_session_precision_name(const struct infer_session *session) {
    return infer_session_is_mixed(session) ? "mixed" : session->on_processor ? "fp32" : "fp16";
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
    struct shape tile = cube(session->model->cam_side);
    session->gradient_workers = session->threads < GRADIENT_WORKERS_MAX ? session->threads : GRADIENT_WORKERS_MAX;
    const struct program *full = cubes_full(session);
    return session->gradient.program || stage_fill(full ? infer_program_new_like(full, &tile, true, NULL, err)
                                                        : infer_program_new(session->model->detector, &tile, true, err),
                                                   session->gradient_workers, &session->gradient, err);
}

/* ---- frame --------------------------------------------------------------------------------------------------- */

bool infer_frame_check(const struct volume *iso, struct err *err) {
    for (int axis = 0; axis < 3; axis++)
        if (fabs(iso->grid.spacing_mm[axis] - 1) > 1e-6 || iso->grid.size_ijk[axis] < 1)
            return err_set(err, ERR_INPUT, "the network wants voxels of 1 mm, not %g on axis %d",
                           iso->grid.spacing_mm[axis], axis);
    return true;
}

/* One row of the box; voxels outside the volume are 0. The inner loop has no branch, so that it runs on vectors. */
static bool row_cut(const int16_t *row, int64_t columns, int64_t start, int64_t side, float *out) {
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

bool infer_frame_cut_box(const struct volume *iso, const int64_t start[3], const int64_t side_kji[3], float *out) {
    int64_t columns = iso->grid.size_ijk[0], rows = iso->grid.size_ijk[1], slices = iso->grid.size_ijk[2];
    bool any = false;
    for (int64_t k = 0; k < side_kji[0]; k++)
        for (int64_t j = 0; j < side_kji[1]; j++) {
            int64_t z = start[2] + k, y = start[1] + j;
            bool inside = z >= 0 && z < slices && y >= 0 && y < rows;
            const int16_t *row = inside ? iso->hu + (z * rows + y) * columns : NULL;
            any = row_cut(row, columns, start[0], side_kji[2], out + (k * side_kji[1] + j) * side_kji[2]) || any;
        }
    return any;
}

bool infer_frame_cut(const struct volume *iso, const int64_t start[3], int side, float *out) {
    return infer_frame_cut_box(iso, start, (const int64_t[3]){side, side, side}, out);
}

bool infer_frame_any(const struct volume *iso, const int64_t start[3], int side) {
    int64_t first[3], last[3]; /* of the cube, inside the volume */
    for (int axis = 0; axis < 3; axis++) {
        int64_t size = iso->grid.size_ijk[axis], end = start[axis] + side;
        first[axis] = start[axis] > 0 ? start[axis] : 0;
        last[axis] = end < size ? end : size;
    }
    for (int64_t k = first[2]; k < last[2]; k++)
        for (int64_t j = first[1]; j < last[1]; j++) {
            const int16_t *row = iso->hu + (k * iso->grid.size_ijk[1] + j) * iso->grid.size_ijk[0];
            for (int64_t i = first[0]; i < last[0]; i++)
                if (row[i] > FRAME_HU_MIN)
                    return true;
        }
    return false;
}
