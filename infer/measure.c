/* What the engine says of itself: plans, steps, times. */
#include "infer/measure.h"

#include <time.h>

#include "infer/session.h"

static const struct stage *stage_of(const struct infer_session *session, int stage, const char **name) {
    static const char *const names[INFER_STAGES] = {"detector, a tile", "candidate, trunk", "candidate, 1 pass",
                                                    "candidate, passes", "quality gate"};
    const struct stage *const stages[INFER_STAGES] = {&session->detector, &session->trunk, &session->tails[0],
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
        out->attentions +=
            node->operation == &infer_operator_topk_attention || node->operation == &infer_operator_topk_softmax;
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
                                       .workers = at == &session->gate ? 1 : session->threads};
    nodes_count(infer_program_graph(at->program), out);
    return true;
}

/* ---- the detector's steps ----------------------------------------------------------------------------------- */

unsigned infer_session_threads(const struct infer_session *session) {
    return session->threads;
}

int infer_detector_steps(const struct infer_session *session) {
    return infer_program_steps(session->detector.program);
}

void infer_detector_step(const struct infer_session *session, int step, struct infer_step_figures *out) {
    const struct program *program = session->detector.program;
    const struct graph_node *node = infer_program_step_node(program, step);
    *out = (struct infer_step_figures){.layer = node ? node->name : "output",
                                       .operation = node ? node->operation->name : "layout"};
    /* A reorder before a layer or a sum behind it is a further step of the same node. */
    if (!node || !infer_program_step_convolves(program, step))
        return;
    const struct shape *weights = infer_program_shape(program, node->inputs[1]);
    const struct shape *input = infer_program_shape(program, node->inputs[0]);
    const struct shape *output = infer_program_shape(program, node->outputs[0]);
    /* Two for each weight and each place of the output. */
    out->operations = 2.0 * (double)infer_shape_count(output) * (double)(infer_shape_count(weights) / weights->dims[0]);
    out->large = weights->rank == 5 && weights->dims[2] * weights->dims[3] * weights->dims[4] == 27 &&
                 input->dims[2] == output->dims[2];
}

bool infer_detector_run(struct infer_session *session, unsigned worker, uint64_t *step_ns, struct err *err) {
    struct runner *runner = session->detector.runners[worker];
    float *tile = infer_runner_input(runner, 0);
    size_t side = (size_t)session->model->tile, count = side * side * side;
    for (size_t n = 0; n < count; n++)
        tile[n] = (float)(n * 2654435761U % 1024) / 1024;
    return step_ns ? infer_runner_time(runner, NULL, step_ns, err) : infer_runner_run(runner, NULL, err);
}

/* ---- Top-K attention ---------------------------------------------------------------------------------------- */

double infer_measure_processor_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static const struct graph_node *attention_node(const struct graph *graph) {
    for (int index = 0; index < graph->node_count; index++)
        if (graph->nodes[index].operation == &infer_operator_topk_attention)
            return &graph->nodes[index];
    return NULL;
}

static int64_t side_of(const struct shape *shape, int back) {
    return shape->dims[shape->rank - back];
}

static void block_shape(const struct program *program, const struct graph_node *node, struct attention_block *out) {
    const struct shape *query = infer_program_shape(program, node->inputs[0]);
    const struct shape *key = infer_program_shape(program, node->inputs[1]);
    const struct shape *value = infer_program_shape(program, node->inputs[2]);
    *out = (struct attention_block){.heads = infer_shape_count(query) / side_of(query, 1) / side_of(query, 2),
                                    .queries = side_of(query, 2),
                                    .depth = side_of(query, 1),
                                    .keys = side_of(key, 1),
                                    .wide = side_of(value, 1),
                                    .keep = infer_node_int(node, "k", 1),
                                    .scale = infer_node_float(node, "scale", 1)};
}

/* The block's inputs are parts of one piece of memory, filled with scores of no order. */
static void block_fill(struct attention_block *block, float *memory) {
    size_t heads = (size_t)block->heads, rows = heads * (size_t)block->queries, columns = heads * (size_t)block->keys;
    block->query = memory;
    block->key = block->query + rows * (size_t)block->depth;
    block->value = block->key + columns * (size_t)block->depth;
    block->out = block->value + columns * (size_t)block->wide;
    block->weights = block->out + rows * (size_t)block->wide;
    for (float *at = memory; at < block->out; at++)
        *at = (float)((uint32_t)(at - memory + 1) * 2654435761U >> 8) / (1 << 23) - 1;
}

static void sparse_measure(const struct graph_node *node, const struct attention_block *block, void *scratch,
                           int rounds, double *best_s) {
    struct operation_call call = {.node = node, .scratch = scratch, .present = {true, true, true}};
    call.in[0] = (struct tensor){.shape = {4, {1, block->heads, block->queries, block->depth}}, .data = block->query};
    call.in[1] = (struct tensor){.shape = {4, {1, block->heads, block->depth, block->keys}}, .data = block->key};
    call.in[2] = (struct tensor){.shape = {4, {1, block->heads, block->keys, block->wide}}, .data = block->value};
    call.out[0] = (struct tensor){.data = block->out};
    call.out[1] = (struct tensor){.data = block->weights};
    for (int round = 0; round < rounds; round++) {
        double start_s = infer_measure_processor_s();
        infer_run_topk_attention(&call);
        double taken_s = infer_measure_processor_s() - start_s;
        *best_s = round == 0 || taken_s < *best_s ? taken_s : *best_s;
    }
}

bool infer_attention_measure(const struct infer_session *session, int rounds, struct infer_attention_figures *out,
                             struct err *err) {
    const struct graph_node *node = attention_node(session->model->trunk);
    if (!node)
        return err_set(err, ERR_UNSUPPORTED, "the model has no Top-K attention");
    struct attention_block block;
    block_shape(session->trunk.program, node, &block);
    size_t rows = (size_t)(block.heads * block.queries), columns = (size_t)(block.heads * block.keys);
    size_t depth = (size_t)block.depth, wide = (size_t)block.wide, keys = (size_t)block.keys;
    PULMO_SCOPED(pulmo_free_at)
    float *memory = pulmo_alloc((rows + columns) * (depth + wide) + rows * keys, sizeof *memory, err);
    PULMO_SCOPED(pulmo_free_at) float *scratch = pulmo_alloc(2 * keys, sizeof *scratch, err);
    if (!memory || !scratch)
        return false;
    block_fill(&block, memory);
    struct infer_attention_figures made = {
        .heads = block.heads, .tokens = block.keys, .depth = block.depth, .keep = block.keep};
    double scores = (double)(rows * keys * depth), mix = (double)(rows * wide);
    made.dense_operations = 2 * (scores + mix * (double)keys);
    made.sparse_operations = 2 * (scores + mix * (double)block.keep);
    sparse_measure(node, &block, scratch, rounds, &made.sparse_s);
    if (!infer_backend_attention_dense(&block, rounds, &made.dense_s, err))
        return false;
    *out = made;
    return true;
}
