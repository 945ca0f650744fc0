/* Stage 2: one crop through the trunk, then all Monte-Carlo passes as one batch through the tail. */
#include <math.h>
#include <string.h>

#include "infer/session.h"

#define TEXTURES 3
#define CROP_TOLERANCE 1e-6 /* voxels: what the way through millimetres may lose */

struct task {
    struct infer_session *session;
    const struct volume *iso;
    const struct findings *candidates;
    const struct infer_candidate_config *config;
    uint32_t batch; /* passes that are computed: 1 where all would be equal */
    struct infer_candidate_result *out;
};

/* Whole voxels: the crop starts at floor(centre) - (side / 2 - 1), so that the candidate lies between the two middle
 * voxels or on the first of them. */
static bool crop_cut(const struct task *task, const double center_lps_mm[3], float *out, struct err *err) {
    double ijk[3];
    int64_t start[3];
    int side = task->session->model->side;
    if (!grid_to_ijk(&task->iso->grid, center_lps_mm, ijk))
        return err_set(err, ERR_INPUT, "the volume's grid is singular");
    for (int axis = 0; axis < 3; axis++) {
        double middle = floor(ijk[axis] + CROP_TOLERANCE);
        if (!(fabs(middle) < 1e6))
            return err_set(err, ERR_INPUT, "the candidate lies %g voxels away", ijk[axis]);
        start[axis] = (int64_t)middle - (side / 2 - 1);
    }
    infer_frame_cut(task->iso, start, side, out);
    return true;
}

/* Repeats the trunk's results for every pass and runs the tail. */
static bool tail_run(const struct task *task, struct lane *lane, size_t index, struct err *err) {
    const struct infer_model *model = task->session->model;
    const struct stage *trunk = &lane->session->trunk, *tail = infer_session_tail_of(lane->session, task->batch);
    unsigned worker = lane->worker;
    const struct infer_candidate_config *config = task->config;
    for (int i = 0; i < model->tail->input_count; i++) {
        const float *from = infer_runner_output(trunk->runners[worker], model->tail_sources[i]);
        int value = model->trunk->outputs[model->tail_sources[i]];
        size_t count = (size_t)infer_shape_count(infer_program_shape(trunk->program, value));
        float *to = infer_runner_input(tail->runners[worker], i);
        for (uint32_t pass = 0; pass < task->batch; pass++)
            memcpy(to + pass * count, from, count * sizeof *to);
    }
    struct dropout_keys keys = {.active = config->pass_count > 0 && config->dropout != 0,
                                .seed = config->seed,
                                .candidate = config->candidate + (uint32_t)index,
                                .rate = config->dropout};
    return infer_lane_run(lane, tail->runners[worker], &keys, err);
}

/* Output `which` of pass `pass`; the trunk's outputs are the same for all. */
static const float *output_of(const struct task *task, const struct lane *lane, int which, uint32_t pass, size_t size) {
    const struct candidate_port *port = &task->session->model->candidate_outputs[which];
    if (!port->in_tail)
        return infer_runner_output(lane->session->trunk.runners[lane->worker], port->index);
    return infer_runner_output(infer_session_tail_of(lane->session, task->batch)->runners[lane->worker], port->index) +
           pass * size;
}

static void add_textures(const float logits[TEXTURES], double sums[TEXTURES]) {
    double most = fmax(fmax((double)logits[0], (double)logits[1]), (double)logits[2]), weights[TEXTURES], total = 0;
    for (int i = 0; i < TEXTURES; i++) {
        weights[i] = exp((double)logits[i] - most);
        total += weights[i];
    }
    for (int i = 0; i < TEXTURES; i++)
        sums[i] += weights[i] / total;
}

static void result_fill(const struct task *task, const struct lane *lane, struct infer_candidate_result *out) {
    enum { CELLS = INFER_ATTENTION_SIDE * INFER_ATTENTION_SIDE * INFER_ATTENTION_SIDE };
    double textures[TEXTURES] = {0}, diameter = 0, attention[CELLS] = {0};
    struct infer_candidate_result result = {.pass_count = task->config->pass_count ? task->config->pass_count : 1};
    for (uint32_t pass = 0; pass < task->batch; pass++) {
        result.logits[pass] = *output_of(task, lane, CANDIDATE_LOGIT, pass, 1);
        add_textures(output_of(task, lane, CANDIDATE_TEXTURE, pass, TEXTURES), textures);
        diameter += exp((double)*output_of(task, lane, CANDIDATE_LOG_DIAMETER, pass, 1));
        const float *weights = output_of(task, lane, CANDIDATE_ATTENTION, pass, CELLS);
        for (int n = 0; n < CELLS; n++)
            attention[n] += (double)weights[n];
    }
    for (uint32_t pass = task->batch; pass < result.pass_count; pass++)
        result.logits[pass] = result.logits[0];
    for (int i = 0; i < TEXTURES; i++)
        result.texture_probabilities[i] = (float)(textures[i] / task->batch);
    result.diameter_mm = (float)(diameter / task->batch);
    for (int n = 0; n < CELLS; n++)
        (&result.attention[0][0][0])[n] = (float)(attention[n] / task->batch);
    *out = result;
}

/* Job: one candidate. */
static bool candidate_run(void *context, struct lane *lane, size_t index, struct err *err) {
    struct task *task = context;
    struct runner *runner = lane->session->trunk.runners[lane->worker];
    if (!crop_cut(task, task->candidates->items[index].center_lps_mm, infer_runner_input(runner, 0), err) ||
        !infer_lane_run(lane, runner, NULL, err) || (task->session->model->tail && !tail_run(task, lane, index, err)))
        return err_within(err, "candidate %zu", index);
    result_fill(task, lane, &task->out[index]);
    return true;
}

static bool config_check(const struct infer_candidate_config *config, struct err *err) {
    if (config->pass_count > FINDING_PASSES_MAX)
        return err_set(err, ERR_LIMIT, "%u passes, more than %d", config->pass_count, FINDING_PASSES_MAX);
    if (!(config->dropout < 1))
        return err_set(err, ERR_INPUT, "a dropout rate of %g", config->dropout);
    return true;
}

bool infer_candidates(struct infer_session *session, const struct volume *iso, const struct findings *candidates,
                      const struct infer_candidate_config *config, struct infer_candidate_result *out,
                      struct err *err) {
    if (!infer_frame_check(iso, err) || !config_check(config, err))
        return false;
    /* Without dropout every pass is the same computation: it is done once. */
    bool equal = config->pass_count == 0 || config->dropout == 0 || !session->model->tail;
    struct task task = {.session = session,
                        .iso = iso,
                        .candidates = candidates,
                        .config = config,
                        .batch = equal ? 1 : config->pass_count};
    for (unsigned device = 0; device < infer_session_devices(session); device++)
        if (!infer_session_tail(infer_device(session, device), task.batch, err))
            return false;
    PULMO_SCOPED(pulmo_free_at)
    struct infer_candidate_result *results = pulmo_alloc(candidates->count, sizeof *results, err);
    if (!results)
        return false;
    task.out = results;
    const struct devices_work work = {
        .place = INFER_PLACE_CANDIDATES, .count = candidates->count, .job = candidate_run, .context = &task};
    if (!infer_devices_run(session, &work, NULL, err))
        return false;
    memcpy(out, results, candidates->count * sizeof *out);
    return true;
}

bool infer_candidate(struct infer_session *session, const struct volume *iso, const double center_lps_mm[3],
                     const struct infer_candidate_config *config, struct infer_candidate_result *out, struct err *err) {
    struct finding only = {0};
    memcpy(only.center_lps_mm, center_lps_mm, sizeof only.center_lps_mm);
    struct findings one = {.items = &only, .count = 1};
    return infer_candidates(session, iso, &one, config, out, err);
}
