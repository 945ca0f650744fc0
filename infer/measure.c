/* What the engine says of itself: plans, steps, times. */
#include "infer/measure.h"

#include <time.h>

#include "infer/session.h"

static const struct stage *stage_of(const struct infer_session *session, int stage, const char **name) {
    static const char *const names[INFER_STAGES] = {"detector, a tile", "candidate, trunk", "candidate, 1 pass",
                                                    "candidate, passes", "quality gate"};
    const struct stage *const stages[INFER_STAGES] = {&session->cubes.wanted, &session->trunk, &session->tails[0],
                                                      &session->tails[1], &session->gate};
    *name = names[stage];
    return stages[stage];
}

static void nodes_count(const struct graph *graph, struct infer_plan_figures *out) {
    out->nodes = graph->node_count;
    for (int index = 0; index < graph->node_count; index++) {
        const struct graph_node *node = &graph->nodes[index];
        out->convolutions += node->operation->kind == OPERATOR_CONV;
        out->relus += node->relu;
        out->residuals += node->residual >= 0;
        out->attentions += node->operation == &infer_operator_topk_attention ||
                           node->operation == &infer_operator_topk_softmax ||
                           node->operation == &infer_operator_masked_attention;
    }
}

bool infer_session_prepare(struct infer_session *session, uint32_t passes, struct err *err) {
    return infer_session_tail(session, passes, err);
}

bool infer_session_plan(const struct infer_session *session, int stage, struct infer_plan_figures *out) {
    const char *name = NULL;
    const struct stage *at = stage >= 0 && stage < INFER_STAGES ? stage_of(session, stage, &name) : NULL;
    if (!at || !at->program)
        return false;
    const struct program_figures *figures = infer_program_figures(at->program);
    *out = (struct infer_plan_figures){.stage = name,
                                       .arena_bytes = figures->memory.arena,
                                       .least_bytes = figures->memory.least,
                                       .separate_bytes = figures->memory.separate,
                                       .weight_bytes = figures->weight_bytes,
                                       .primitives = figures->primitives,
                                       .winograds = figures->winograds,
                                       .kernels = figures->kernels,
                                       .reorders = figures->reorders,
                                       .sums_in_place = figures->sums_in_place,
                                       .parts_in_place = figures->parts_in_place,
                                       .workers = at == &session->gate ? 1 : session->threads};
    nodes_count(infer_program_graph(at->program), out);
    return true;
}

/* ---- the detector's steps ----------------------------------------------------------------------------------- */

unsigned infer_session_threads(const struct infer_session *session) {
    return session->threads;
}

int infer_detector_steps(const struct infer_session *session) {
    return infer_program_steps(session->cubes.wanted.program);
}

void infer_detector_step(const struct infer_session *session, int step, struct infer_step_figures *out) {
    const struct program *program = session->cubes.wanted.program;
    const struct graph_node *node = infer_program_step_node(program, step);
    *out = (struct infer_step_figures){.layer = node ? node->name : "output",
                                       .operation = node ? node->operation->name : "layout"};
    /* A reorder before a layer or a sum behind it is a further step of the same node. */
    int64_t count = node ? infer_program_step_convolves(program, step) : 0;
    if (count == 0)
        return;
    const struct shape *weights = infer_program_shape(program, node->inputs[1]);
    const struct shape *input = infer_program_shape(program, node->inputs[0]);
    const struct shape *output = infer_program_shape(program, node->outputs[0]);
    /* Two for each weight and each place of the output. */
    out->operations = 2.0 * (double)count * (double)(infer_shape_count(weights) / weights->dims[0]);
    out->large = weights->rank == 5 && weights->dims[2] * weights->dims[3] * weights->dims[4] == 27 &&
                 input->dims[2] == output->dims[2];
}

bool infer_detector_run(struct infer_session *session, unsigned worker, uint64_t *step_ns, struct err *err) {
    struct runner *runner = session->cubes.wanted.runners[worker];
    float *tile = infer_runner_input(runner, 0);
    size_t side = (size_t)session->model->tile, count = side * side * side;
    for (size_t n = 0; n < count; n++)
        tile[n] = (float)(n * 2654435761U % 1024) / 1024;
    return step_ns ? infer_runner_time(runner, NULL, step_ns, err) : infer_runner_run(runner, NULL, err);
}

double infer_measure_processor_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}
