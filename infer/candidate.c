/* Stage 2: a crop and its mirror images through the trunk, then all Monte-Carlo passes as one batch through the tail.
 */
#include <math.h>
#include <string.h>

#include "infer/session.h"

#define TEXTURES 3
#define CROP_TOLERANCE 1e-6 /* voxels: what the way through millimetres may lose */

enum { CELLS = INFER_ATTENTION_SIDE * INFER_ATTENTION_SIDE * INFER_ATTENTION_SIDE };
_Static_assert((int)CELLS == FINDING_ATTENTION, "a finding holds the attention of its crop's tokens");

struct task {
    struct infer_session *session;
    const struct volume *iso;
    const struct findings *candidates;
    const struct infer_candidate_config *config;
    uint32_t flips; /* mirror images; pass n sees image n % flips */
    uint32_t batch; /* passes that are computed: one a mirror image where dropout would not tell them apart */
    bool equal;     /* every pass is reported as the mean of the batch */
    struct infer_candidate_result *out;
};

/* What the passes gave, summed as they come: some of it leaves the trunk, some the tail. */
struct sums {
    float logits[FINDING_PASSES_MAX];
    double textures[TEXTURES], diameter, attention[CELLS];
};

/* Reverses a cube in place along the axes of `flip`: bit 0 = x, 1 = y, 2 = z. */
static void cube_mirror(float *cube, int side, uint32_t flip) {
    for (int z = 0; flip && z < side; z++)
        for (int y = 0; y < side; y++)
            for (int x = 0; x < side; x++) {
                int other_z = flip & 4 ? side - 1 - z : z, other_y = flip & 2 ? side - 1 - y : y;
                int here = (z * side + y) * side + x;
                int there = (other_z * side + other_y) * side + (flip & 1 ? side - 1 - x : x);
                float kept = cube[here];
                if (here < there) {
                    cube[here] = cube[there];
                    cube[there] = kept;
                }
            }
}

/* Whole voxels: the crop starts at floor(centre) - (side / 2 - 1), so that the candidate lies between the two middle
 * voxels or on the first of them. */
static bool crop_start(const struct task *task, const double center_lps_mm[3], int64_t start[3], struct err *err) {
    double ijk[3];
    if (!grid_to_ijk(&task->iso->grid, center_lps_mm, ijk))
        return err_set(err, ERR_INPUT, "the volume's grid is singular");
    for (int axis = 0; axis < 3; axis++) {
        double middle = floor(ijk[axis] + CROP_TOLERANCE);
        if (!(fabs(middle) < 1e6))
            return err_set(err, ERR_INPUT, "the candidate lies %g voxels away", ijk[axis]);
        start[axis] = (int64_t)middle - (task->session->model->side / 2 - 1);
    }
    return true;
}

static bool crop_cut(const struct task *task, const double center_lps_mm[3], float *out, struct err *err) {
    int64_t start[3];
    if (!crop_start(task, center_lps_mm, start, err))
        return false;
    infer_frame_cut(task->iso, start, task->session->model->side, out);
    return true;
}

static bool drops(const struct infer_candidate_config *config) {
    return config->pass_count > 0 && config->dropout != 0;
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

/* Adds one output of one pass; attention is turned back. */
static void sums_add(struct sums *sums, int which, const float *values, uint32_t pass, uint32_t flip) {
    float upright[CELLS];
    switch (which) {
    case CANDIDATE_LOGIT: sums->logits[pass] = *values; break;
    case CANDIDATE_TEXTURE: add_textures(values, sums->textures); break;
    case CANDIDATE_LOG_DIAMETER: sums->diameter += exp((double)*values); break;
    default:
        memcpy(upright, values, sizeof upright);
        cube_mirror(upright, INFER_ATTENTION_SIDE, flip);
        for (int n = 0; n < CELLS; n++)
            sums->attention[n] += (double)upright[n];
    }
}

/* Elements of an output for one pass. */
static size_t output_size(int which) {
    static const size_t sizes[CANDIDATE_OUTPUTS] = {[CANDIDATE_LOGIT] = 1,
                                                    [CANDIDATE_TEXTURE] = TEXTURES,
                                                    [CANDIDATE_LOG_DIAMETER] = 1,
                                                    [CANDIDATE_ATTENTION] = CELLS};
    return sizes[which];
}

/* Adds what this mirror image's trunk gave to the sums, once for each of its passes, and repeats for each of them what
 * the tail needs. */
static void trunk_share(const struct task *task, const struct lane *lane, uint32_t flip, struct sums *sums) {
    const struct infer_model *model = task->session->model;
    const struct stage *trunk = &lane->session->trunk, *tail = infer_session_tail_of(lane->session, task->batch);
    struct runner *runner = trunk->runners[lane->worker];
    for (int which = 0; which < CANDIDATE_OUTPUTS; which++)
        for (uint32_t pass = flip; !model->candidate_outputs[which].in_tail && pass < task->batch; pass += task->flips)
            sums_add(sums, which, infer_runner_output(runner, model->candidate_outputs[which].index), pass, flip);
    for (int i = 0; model->tail && i < model->tail->input_count; i++) {
        const float *from = infer_runner_output(runner, model->tail_sources[i]);
        int value = model->trunk->outputs[model->tail_sources[i]];
        size_t count = (size_t)infer_shape_count(infer_program_shape(trunk->program, value));
        float *to = infer_runner_input(tail->runners[lane->worker], i);
        for (uint32_t pass = flip; pass < task->batch; pass += task->flips)
            memcpy(to + pass * count, from, count * sizeof *to);
    }
}

static bool trunks_run(const struct task *task, struct lane *lane, size_t index, struct sums *sums, struct err *err) {
    struct runner *runner = lane->session->trunk.runners[lane->worker];
    float *crop = infer_runner_input(runner, 0);
    for (uint32_t flip = 0; flip < task->flips && flip < task->batch; flip++) {
        if (!crop_cut(task, task->candidates->items[index].center_lps_mm, crop, err))
            return false;
        cube_mirror(crop, task->session->model->side, flip);
        if (!infer_lane_run(lane, runner, NULL, err))
            return false;
        trunk_share(task, lane, flip, sums);
    }
    return true;
}

static bool tail_run(const struct task *task, struct lane *lane, size_t index, struct sums *sums, struct err *err) {
    const struct infer_model *model = task->session->model;
    const struct infer_candidate_config *config = task->config;
    struct runner *runner = infer_session_tail_of(lane->session, task->batch)->runners[lane->worker];
    struct dropout_keys keys = {.active = !task->equal,
                                .seed = config->seed,
                                .candidate = config->candidate + (uint32_t)index,
                                .rate = config->dropout};
    if (!infer_lane_run(lane, runner, &keys, err))
        return false;
    for (int which = 0; which < CANDIDATE_OUTPUTS; which++) {
        const struct candidate_port *port = &model->candidate_outputs[which];
        for (uint32_t pass = 0; port->in_tail && pass < task->batch; pass++)
            sums_add(sums, which, infer_runner_output(runner, port->index) + pass * output_size(which), pass,
                     pass % task->flips);
    }
    return true;
}

/* The mean as the first and the mean difference to it: exactly the first when all are equal. */
static float mean(const float *values, uint32_t count) {
    double sum = 0;
    for (uint32_t n = 0; n < count; n++)
        sum += (double)values[n] - (double)values[0];
    return (float)((double)values[0] + sum / count);
}

static void result_fill(const struct task *task, const struct sums *sums, struct infer_candidate_result *out) {
    struct infer_candidate_result result = {.pass_count = task->config->pass_count ? task->config->pass_count : 1};
    for (uint32_t pass = 0; pass < result.pass_count; pass++)
        result.logits[pass] = task->equal ? mean(sums->logits, task->batch) : sums->logits[pass];
    for (int i = 0; i < TEXTURES; i++)
        result.texture_probabilities[i] = (float)(sums->textures[i] / task->batch);
    result.diameter_mm = (float)(sums->diameter / task->batch);
    for (int n = 0; n < CELLS; n++)
        (&result.attention[0][0][0])[n] = (float)(sums->attention[n] / task->batch);
    *out = result;
}

/* Job: one candidate. */
static bool candidate_run(void *context, struct lane *lane, size_t index, struct err *err) {
    struct task *task = context;
    struct sums sums = {0};
    if (!trunks_run(task, lane, index, &sums, err) ||
        (task->session->model->tail && !tail_run(task, lane, index, &sums, err)))
        return err_within(err, "candidate %zu", index);
    result_fill(task, &sums, &task->out[index]);
    return true;
}

static bool processor_run(struct task *task, struct err *err) {
    struct infer_session *session = task->session;
    for (unsigned device = 0; device < infer_session_devices(session); device++) {
        struct infer_session *of = infer_device(session, device);
        if (!infer_session_processor(of, err) || !infer_session_tail(of, task->batch, err))
            return false;
    }
    const struct devices_work work = {
        .place = INFER_PLACE_CANDIDATES, .count = task->candidates->count, .job = candidate_run, .context = task};
    return infer_devices_run(session, &work, NULL, err);
}

/* ---- on a card --------------------------------------------------------------------------------------------------- */

static bool starts_make(const struct task *task, int32_t (*starts)[3], struct err *err) {
    int64_t start[3];
    for (size_t n = 0; n < task->candidates->count; n++) {
        if (!crop_start(task, task->candidates->items[n].center_lps_mm, start, err))
            return err_within(err, "candidate %zu", n);
        for (int axis = 0; axis < 3; axis++)
            starts[n][axis] = (int32_t)start[axis];
    }
    return true;
}

/* What the passes that see mirror image `flip` gave of candidate `index`; outputs of the trunk are the same for them.
 */
static void card_take(const struct task *task, const struct plugin_results *results, size_t index, uint32_t flip,
                      struct sums *sums) {
    for (uint32_t pass = flip; pass < task->batch; pass += task->flips)
        for (int which = 0; which < CANDIDATE_OUTPUTS; which++) {
            bool in_tail = task->session->model->candidate_outputs[which].in_tail;
            size_t entry = in_tail ? index * task->batch + pass : index;
            sums_add(sums, which, results->values[which] + entry * results->sizes[which], pass, flip);
        }
}

/* Every mirror image goes through all passes, which cost next to nothing behind the trunk; its own are taken. */
static bool card_flip(const struct task *task, const int32_t (*starts)[3], uint32_t flip, struct sums *sums,
                      struct err *err) {
    PULMO_SCOPED(infer_plugin_results_clear) struct plugin_results results = {0};
    const struct plugin_crops crops = {
        .iso = task->iso, .starts = starts, .count = task->candidates->count, .batch = task->batch, .mirror = flip};
    const struct cuda_keys keys = {.active = drops(task->config),
                                   .seed = task->config->seed,
                                   .candidate = task->config->candidate,
                                   .rate = task->config->dropout};
    if (!infer_plugin_candidates(task->session->plugin, &crops, &keys, &results, err))
        return false;
    for (size_t n = 0; n < crops.count; n++)
        card_take(task, &results, n, flip, &sums[n]);
    return true;
}

static bool card_run(struct task *task, struct err *err) {
    size_t count = task->candidates->count;
    PULMO_SCOPED(pulmo_free_at) int32_t(*starts)[3] = pulmo_alloc(count, sizeof *starts, err);
    PULMO_SCOPED(pulmo_free_at) struct sums *sums = starts ? pulmo_alloc(count, sizeof *sums, err) : NULL;
    if (!sums || !starts_make(task, starts, err))
        return false;
    for (uint32_t flip = 0; flip < task->flips && flip < task->batch; flip++)
        if (!card_flip(task, (const int32_t(*)[3])starts, flip, sums, err))
            return false;
    for (size_t n = 0; n < count; n++)
        result_fill(task, &sums[n], &task->out[n]);
    return true;
}

/* What began on the card does not end elsewhere: a failure ends the run, and the next study, or this one from its
 * beginning, is the processor's. */
static bool task_run(struct task *task, struct err *err) {
    struct infer_session *session = task->session;
    struct err why = {0};
    if (session->on_processor || task->candidates->count == 0)
        return processor_run(task, err);
    if (card_run(task, &why))
        return true;
    infer_session_leave_card(session, &why, true);
    return err_set(err, ERR_INTERNAL, "the card failed: %s", why.text);
}

static bool config_check(const struct infer_candidate_config *config, struct err *err) {
    if (config->pass_count > FINDING_PASSES_MAX)
        return err_set(err, ERR_LIMIT, "%u passes, more than %d", config->pass_count, FINDING_PASSES_MAX);
    if (!(config->dropout < 1))
        return err_set(err, ERR_INPUT, "a dropout rate of %g", config->dropout);
    if (config->flips > INFER_FLIPS_MAX)
        return err_set(err, ERR_LIMIT, "%u mirror images, more than %d", config->flips, INFER_FLIPS_MAX);
    return true;
}

bool infer_candidates(struct infer_session *session, const struct volume *iso, const struct findings *candidates,
                      const struct infer_candidate_config *config, struct infer_candidate_result *out,
                      struct err *err) {
    if (!infer_frame_check(iso, err) || !config_check(config, err))
        return false;
    /* Without dropout every pass over one mirror image is the same computation: it is done once. */
    bool equal = config->pass_count == 0 || config->dropout == 0 || !session->model->tail;
    uint32_t flips = config->flips ? config->flips : session->model->info.flips;
    struct task task = {.session = session,
                        .iso = iso,
                        .candidates = candidates,
                        .config = config,
                        .flips = flips,
                        .batch = equal ? flips : config->pass_count,
                        .equal = equal};
    PULMO_SCOPED(pulmo_free_at)
    struct infer_candidate_result *results = pulmo_alloc(candidates->count, sizeof *results, err);
    if (!results)
        return false;
    task.out = results;
    if (!task_run(&task, err))
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
