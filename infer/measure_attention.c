/* The candidate network's attention beside dense attention, on real crops. */
#include <stdlib.h>
#include <string.h>

#include "infer/measure.h"
#include "infer/session.h"

enum port { PORT_QUERY = 0, PORT_KEY, PORT_VALUE, PORT_MASK, PORT_BIAS };

/* The attention of the trunk, and its block by itself: the attention and what is computed for its choice alone. */
struct scene {
    const struct graph_node *node;
    struct program *trunk, *program; /* the trunk with every activation kept; the block */
    struct runner *kept, *runner;    /* of these */
    struct graph *graph;             /* the block */
    float *inputs[GRAPH_PORTS_MAX];  /* of the block, for one crop */
    struct attention_block block;
    float *mask;
    double gate_operations;
};

static const struct graph_node *attention_node(const struct graph *graph) {
    for (int index = 0; index < graph->node_count; index++)
        if (graph->nodes[index].operation == &infer_operator_topk_attention ||
            graph->nodes[index].operation == &infer_operator_masked_attention)
            return &graph->nodes[index];
    return NULL;
}

static bool is_gated(const struct graph_node *node) {
    return node->operation == &infer_operator_masked_attention;
}

static int64_t side_of(const struct shape *shape, int back) {
    return shape->dims[shape->rank - back];
}

static struct attention_block block_of(const struct program *program, const struct graph_node *node) {
    const struct shape *query = infer_program_shape(program, node->inputs[PORT_QUERY]);
    const struct shape *key = infer_program_shape(program, node->inputs[PORT_KEY]);
    const struct shape *value = infer_program_shape(program, node->inputs[PORT_VALUE]);
    return (struct attention_block){.heads = infer_shape_count(query) / side_of(query, 1) / side_of(query, 2),
                                    .queries = side_of(query, 2),
                                    .depth = side_of(query, 1),
                                    .keys = side_of(key, 1),
                                    .wide = side_of(value, 1),
                                    .scale = infer_node_float(node, "scale", 1)};
}

/* ---- the gate --------------------------------------------------------------------------------------------------- */

/* Marks the nodes that a value of the graph is computed by. */
static void ancestors_mark(const struct graph *graph, int value, bool *nodes) {
    int producer = value >= 0 ? graph->values[value].producer : -1;
    if (producer < 0 || nodes[producer])
        return;
    nodes[producer] = true;
    for (int i = producer; i >= 0; i--) { /* topological order: readers come first here */
        const struct graph_node *node = &graph->nodes[i];
        for (int k = 0; nodes[i] && k <= node->input_count; k++) {
            int read = k < node->input_count ? node->inputs[k] : node->residual;
            if (read >= 0 && graph->values[read].producer >= 0)
                nodes[graph->values[read].producer] = true;
        }
    }
}

/* What is computed for the choice of the keys alone. */
static void gate_mark(const struct graph *graph, const struct graph_node *attention, bool *gate, bool *others) {
    for (int k = 0; k < attention->input_count; k++)
        ancestors_mark(graph, attention->inputs[k], k < PORT_MASK ? others : gate);
    for (int i = 0; i < graph->node_count; i++)
        gate[i] = gate[i] && !others[i];
}

static double gate_operations(const struct program *program, const bool *gate) {
    const struct graph *graph = infer_program_graph(program);
    double sum = 0;
    for (int i = 0; i < graph->node_count; i++) {
        const struct graph_node *node = &graph->nodes[i];
        enum operation_kind kind = node->operation->kind;
        if (!gate[i] || (kind != OPERATOR_MATMUL && kind != OPERATOR_GEMM && kind != OPERATOR_BINARY))
            continue;
        double results = (double)infer_shape_count(infer_program_shape(program, node->outputs[0]));
        double terms =
            kind == OPERATOR_BINARY ? 0.5 : (double)side_of(infer_program_shape(program, node->inputs[0]), 1);
        sum += 2 * results * terms + (node->input_count > 2 ? results : 0);
    }
    return sum;
}

/* ---- times ------------------------------------------------------------------------------------------------------ */

struct cut {
    const struct volume *iso;
    int64_t start[3];
    int side;
};

static struct cut cut_of(const struct infer_session *session, const struct infer_attention_crops *crops, size_t crop) {
    struct cut cut = {.iso = crops->iso, .side = session->model->side};
    for (int axis = 0; axis < 3; axis++)
        cut.start[axis] = crops->centers_ijk[crop][axis] - (cut.side / 2 - 1);
    return cut;
}

/* Processor time of one run, the best of the rounds; fill brings the inputs, which a run uses up. */
static bool run_measure(struct runner *runner, int rounds, void (*fill)(const void *from, struct runner *runner),
                        const void *from, double *sum_s, struct err *err) {
    double best_s = 0;
    for (int round = 0; round < rounds; round++) {
        fill(from, runner);
        double start_s = infer_measure_processor_s();
        if (!infer_runner_run(runner, NULL, err))
            return false;
        double taken_s = infer_measure_processor_s() - start_s;
        best_s = round == 0 || taken_s < best_s ? taken_s : best_s;
    }
    *sum_s += best_s;
    return true;
}

static void cut_fill(const void *from, struct runner *runner) {
    const struct cut *cut = from;
    infer_frame_cut(cut->iso, cut->start, cut->side, infer_runner_input(runner, 0));
}

static size_t input_bytes(const struct program *program, int input) {
    const struct shape *shape = infer_program_shape(program, infer_program_graph(program)->inputs[input]);
    return (size_t)infer_shape_count(shape) * sizeof(float);
}

static void block_fill(const void *from, struct runner *runner) {
    const struct scene *scene = from;
    for (int i = 0; i < scene->graph->input_count; i++)
        memcpy(infer_runner_input(runner, i), scene->inputs[i], input_bytes(scene->program, i));
}

/* ---- the block by itself ---------------------------------------------------------------------------------------- */

static void scene_clear(struct scene *scene) {
    infer_runner_free(scene->runner);
    infer_program_free(scene->program);
    infer_graph_free(scene->graph);
    infer_runner_free(scene->kept);
    infer_program_free(scene->trunk);
    for (int i = 0; i < GRAPH_PORTS_MAX; i++)
        free(scene->inputs[i]);
    float *const parts[] = {scene->mask,        scene->block.query, scene->block.key,
                            scene->block.value, scene->block.out,   scene->block.weights};
    for (size_t n = 0; n < sizeof parts / sizeof *parts; n++)
        free(parts[n]);
}

/* Aligned as an arena is. */
static float *floats_new(int64_t count, struct err *err) {
    float *memory =
        aligned_alloc(PLAN_ALIGNMENT, ((size_t)count * sizeof *memory / PLAN_ALIGNMENT + 1) * PLAN_ALIGNMENT);
    if (!memory)
        err_set(err, ERR_MEMORY, "out of memory for %lld numbers of attention", (long long)count);
    return memory;
}

static bool block_memory(struct attention_block *block, struct err *err) {
    int64_t rows = block->heads * block->queries, columns = block->heads * block->keys;
    return (block->query = floats_new(rows * block->depth, err)) &&
           (block->key = floats_new(columns * block->depth, err)) &&
           (block->value = floats_new(columns * block->wide, err)) &&
           (block->out = floats_new(rows * block->wide, err)) && (block->weights = floats_new(rows * block->keys, err));
}

static bool block_compile(struct scene *scene, const bool *nodes, struct err *err) {
    const struct graph *trunk = infer_program_graph(scene->trunk);
    struct shape shapes[GRAPH_PORTS_MAX];
    scene->graph = infer_graph_extract(trunk, nodes, scene->node->outputs, 2, err);
    for (int i = 0; scene->graph && i < scene->graph->input_count; i++) {
        int value = infer_graph_value(trunk, scene->graph->values[scene->graph->inputs[i]].name);
        shapes[i] = *infer_program_shape(scene->trunk, value);
        if (!(scene->inputs[i] = floats_new(infer_shape_count(&shapes[i]), err)))
            return false;
    }
    scene->program = scene->graph ? infer_program_new(scene->graph, shapes, false, err) : NULL;
    scene->runner = scene->program ? infer_runner_new(scene->program, err) : NULL;
    return scene->runner != NULL;
}

static bool scene_begin(struct scene *scene, const struct graph *trunk, int side, struct err *err) {
    struct shape crop = {.rank = 5, .dims = {1, 1, side, side, side}};
    PULMO_SCOPED(pulmo_free_at) bool *nodes = pulmo_alloc((size_t)trunk->node_count, sizeof *nodes, err);
    PULMO_SCOPED(pulmo_free_at) bool *others = pulmo_alloc((size_t)trunk->node_count, sizeof *others, err);
    scene->trunk = nodes && others ? infer_program_new(trunk, &crop, true, err) : NULL;
    scene->kept = scene->trunk ? infer_runner_new(scene->trunk, err) : NULL;
    if (!scene->kept)
        return false;
    scene->block = block_of(scene->trunk, scene->node);
    scene->mask = floats_new(scene->block.keys, err);
    gate_mark(trunk, scene->node, nodes, others);
    scene->gate_operations = gate_operations(scene->trunk, nodes);
    nodes[scene->node - trunk->nodes] = true;
    return scene->mask && block_memory(&scene->block, err) && block_compile(scene, nodes, err);
}

/* ---- crops ------------------------------------------------------------------------------------------------------ */

/* What enters for a crop, and how many keys are kept. */
static bool crop_read(struct scene *scene, const struct cut *cut, int64_t *kept, struct err *err) {
    const struct graph *trunk = infer_program_graph(scene->trunk);
    float *const parts[] = {scene->block.query, scene->block.key, scene->block.value, scene->mask};
    *kept = infer_node_int(scene->node, "k", 0);
    cut_fill(cut, scene->kept);
    if (!infer_runner_run(scene->kept, NULL, err))
        return false;
    for (int k = 0; k <= PORT_MASK && k < scene->node->input_count; k++)
        if (!infer_runner_read(scene->kept, scene->node->inputs[k], parts[k], err))
            return false;
    for (int64_t n = 0; is_gated(scene->node) && n < scene->block.keys; n++)
        *kept += scene->mask[n] != 0;
    for (int i = 0; i < scene->graph->input_count; i++) {
        const char *name = scene->graph->values[scene->graph->inputs[i]].name;
        if (!infer_runner_read(scene->kept, infer_graph_value(trunk, name), scene->inputs[i], err))
            return false;
    }
    return true;
}

static bool crop_measure(const struct infer_session *session, struct scene *scene, const struct cut *cut, int rounds,
                         struct infer_attention_figures *sums, struct err *err) {
    double dense_s = 0;
    if (!run_measure(scene->runner, rounds, block_fill, scene, &sums->sparse_s, err) ||
        !infer_backend_attention_dense(&scene->block, rounds, &dense_s, err) ||
        !run_measure(session->trunk.runners[0], rounds, cut_fill, cut, &sums->trunk_s, err))
        return false;
    sums->dense_s += dense_s;
    return true;
}

static bool crops_measure(const struct infer_session *session, const struct infer_attention_crops *crops,
                          struct scene *scene, struct infer_attention_figures *sums, struct err *err) {
    for (size_t crop = 0; crop < crops->count; crop++) {
        struct cut cut = cut_of(session, crops, crop);
        int64_t kept = 0;
        if (!crop_read(scene, &cut, &kept, err) || !crop_measure(session, scene, &cut, crops->rounds, sums, err))
            return false;
        sums->kept += (double)kept;
        sums->kept_min = crop == 0 || kept < sums->kept_min ? kept : sums->kept_min;
        sums->kept_max = kept > sums->kept_max ? kept : sums->kept_max;
    }
    return true;
}

/* The sums over the crops become means. */
static struct infer_attention_figures figures_of(const struct scene *scene, const struct infer_attention_figures *sums,
                                                 size_t count) {
    const struct attention_block *block = &scene->block;
    struct infer_attention_figures out = *sums;
    double crops = (double)count, rows = (double)(block->heads * block->queries), kept = sums->kept / crops;
    double depth = (double)block->depth, wide = (double)block->wide, keys = (double)block->keys;
    bool gated = is_gated(scene->node), biased = scene->node->input_count > PORT_BIAS;
    out.gated = gated;
    out.heads = block->heads;
    out.tokens = block->keys;
    out.depth = block->depth;
    out.kept = kept;
    out.gate_operations = scene->gate_operations;
    out.dense_operations = 2 * rows * keys * (depth + wide);
    out.sparse_operations =
        scene->gate_operations + rows * (2 * depth * (gated ? kept : keys) + 2 * wide * kept + (biased ? kept : 0));
    out.dense_s = sums->dense_s / crops;
    out.sparse_s = sums->sparse_s / crops;
    out.trunk_s = sums->trunk_s / crops;
    return out;
}

bool infer_attention_measure(const struct infer_session *session, const struct infer_attention_crops *crops,
                             struct infer_attention_figures *out, struct err *err) {
    PULMO_SCOPED(scene_clear) struct scene scene = {.node = attention_node(session->model->trunk)};
    struct infer_attention_figures sums = {0};
    if (!scene.node || !session->trunk.program || crops->count == 0)
        return err_set(err, ERR_UNSUPPORTED, "the model has no sparse attention, or it does not run on the processor");
    if (!scene_begin(&scene, session->model->trunk, session->model->side, err) ||
        !crops_measure(session, crops, &scene, &sums, err))
        return false;
    *out = figures_of(&scene, &sums, crops->count);
    return true;
}
