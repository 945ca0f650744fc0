/* Attention into one node: of the scores' own best keys, or of the keys that a mask keeps whatever the scores are. */
#include "infer/fuse.h"

#include <stdlib.h>
#include <string.h>

/* ---- Top-K attention ------------------------------------------------------------------------------------- */

/* The only reader of a value, if it is that operation. */
static struct graph_node *only_reader(struct graph *graph, int value, const char *operation) {
    int reader = -1;
    if (value < 0 || infer_graph_uses(graph, value, &reader) != 1 || reader < 0)
        return NULL;
    return infer_fuse_is(&graph->nodes[reader], operation) ? &graph->nodes[reader] : NULL;
}

static bool reduces_last_axis(const struct graph_node *node) {
    int64_t axes[GRAPH_ATTRIBUTE_INTS_MAX];
    return node->input_count == 1 && infer_node_int(node, "keepdims", 1) == 1 &&
           infer_node_ints(node, "axes", axes, GRAPH_ATTRIBUTE_INTS_MAX) == 1 && axes[0] == -1;
}

struct attention_chain {
    struct graph_node *topk, *least, *compare, *where, *softmax;
    int scores;
    int64_t keep;
};

/* TopK, ReduceMin, GreaterOrEqual, Where, Softmax over one tensor of scores that nobody else reads. */
static bool chain_find(struct graph *graph, struct graph_node *topk, struct attention_chain *out) {
    struct attention_chain chain = {.topk = topk, .scores = topk->inputs[0]};
    const struct tensor *keep = &graph->values[topk->inputs[1]].tensor;
    float floor_value = 0;
    if (!keep->data || keep->element != ELEMENT_I64 || infer_shape_count(&keep->shape) != 1 ||
        infer_node_int(topk, "axis", -1) != -1 || infer_node_int(topk, "largest", 1) != 1)
        return false;
    if (topk->output_count > 1 && topk->outputs[1] >= 0 && infer_graph_uses(graph, topk->outputs[1], NULL) > 0)
        return false;
    chain.least = only_reader(graph, topk->outputs[0], "ReduceMin");
    chain.compare = chain.least ? only_reader(graph, chain.least->outputs[0], "GreaterOrEqual") : NULL;
    chain.where = chain.compare ? only_reader(graph, chain.compare->outputs[0], "Where") : NULL;
    chain.softmax = chain.where ? only_reader(graph, chain.where->outputs[0], "Softmax") : NULL;
    if (!chain.softmax || !reduces_last_axis(chain.least) || infer_node_int(chain.softmax, "axis", -1) != -1 ||
        chain.compare->inputs[0] != chain.scores || chain.compare->inputs[1] != chain.least->outputs[0] ||
        chain.where->inputs[0] != chain.compare->outputs[0] || chain.where->inputs[1] != chain.scores ||
        !infer_fuse_scalar(graph, chain.where->inputs[2], &floor_value) || floor_value > -1e8F ||
        infer_graph_uses(graph, chain.scores, NULL) != 3)
        return false;
    chain.keep = *(const int64_t *)keep->data;
    *out = chain;
    return true;
}

/* keep 0 = none. */
static bool attributes_set(struct graph_node *node, int64_t keep, float scale, struct err *err) {
    free(node->attributes);
    node->attribute_count = 0;
    node->attributes = pulmo_alloc(2, sizeof *node->attributes, err);
    if (!node->attributes)
        return false;
    node->attributes[node->attribute_count++] = (struct graph_attribute){.name = "scale", .real = scale};
    if (keep)
        node->attributes[node->attribute_count++] = (struct graph_attribute){.name = "k", .number = keep};
    return true;
}

/* The chain becomes one node in the place of its Softmax. */
static bool chain_replace(struct graph *graph, struct attention_chain *chain, struct err *err) {
    struct graph_node *scaled = infer_fuse_producer(graph, chain->scores);
    float scale = 1;
    int scores = chain->scores;
    bool multiplied = infer_fuse_is(scaled, "Mul") && infer_fuse_scalar(graph, scaled->inputs[1], &scale);
    if (multiplied)
        scores = scaled->inputs[0];
    if (!attributes_set(chain->softmax, chain->keep, scale, err))
        return false;
    chain->softmax->operation = &infer_operator_topk_softmax;
    chain->softmax->inputs[0] = scores;
    infer_fuse_drop(chain->topk);
    infer_fuse_drop(chain->least);
    infer_fuse_drop(chain->compare);
    infer_fuse_drop(chain->where);
    if (multiplied)
        infer_fuse_drop(scaled);
    return true;
}

/* MatMul(Q, K) before and MatMul(weights, V) behind join, in the place of the latter; the weights stay a result. */
static void attention_join(struct graph *graph, struct graph_node *softmax) {
    struct graph_node *scores = infer_fuse_producer(graph, softmax->inputs[0]), *mix = NULL;
    int weights = softmax->outputs[0];
    if (!infer_fuse_is(scores, "MatMul") || scores->input_count != 2 || scores->relu ||
        !infer_fuse_used_once(graph, softmax->inputs[0]))
        return;
    for (int i = 0; i < graph->node_count && !mix; i++)
        if (infer_fuse_is(&graph->nodes[i], "MatMul") && graph->nodes[i].inputs[0] == weights)
            mix = &graph->nodes[i];
    if (!mix || mix->input_count != 2 || mix->relu || mix->inputs[1] == weights)
        return;
    int context = mix->outputs[0], values = mix->inputs[1];
    softmax->operation = &infer_operator_topk_attention;
    softmax->input_count = 3;
    softmax->inputs[0] = scores->inputs[0];
    softmax->inputs[1] = scores->inputs[1];
    softmax->inputs[2] = values;
    softmax->output_count = 2;
    softmax->outputs[0] = context;
    softmax->outputs[1] = weights;
    infer_fuse_drop(scores);
    infer_fuse_drop(mix);
}

bool infer_fuse_attention_topk(struct graph *graph, struct err *err) {
    for (int i = 0; i < graph->node_count; i++) {
        struct attention_chain chain;
        if (!infer_fuse_is(&graph->nodes[i], "TopK") || !chain_find(graph, &graph->nodes[i], &chain))
            continue;
        if (!chain_replace(graph, &chain, err))
            return false;
        attention_join(graph, chain.softmax);
    }
    return true;
}

/* ---- masked attention ------------------------------------------------------------------------------------ */

/* MatMul(q, k), times a scalar, plus a bias, Where(mask, ., far below), Softmax, MatMul(., v): from the end. */
struct masked_chain {
    struct graph_node *product, *scaled, *biased, *where, *softmax, *mix; /* scaled, biased: NULL = none */
    int bias;                                                             /* -1 = none */
    float scale;
};

/* The operand of a node that the other is added to or multiplied with; the producer of `side` is `operation`. */
static struct graph_node *operand(struct graph *graph, const struct graph_node *node, int side, const char *operation) {
    struct graph_node *producer = infer_fuse_producer(graph, node->inputs[side]);
    return infer_fuse_is(producer, operation) && infer_fuse_used_once(graph, node->inputs[side]) ? producer : NULL;
}

/* A product of two that nothing was folded into. */
static struct graph_node *plain_product(struct graph_node *node) {
    return node && node->input_count == 2 && !node->relu ? node : NULL;
}

/* The scores: a product, maybe scaled by a constant. */
static bool scores_find(struct graph *graph, const struct graph_node *reader, int side, struct masked_chain *chain) {
    chain->scaled = NULL;
    chain->scale = 1;
    chain->product = plain_product(operand(graph, reader, side, "MatMul"));
    if (chain->product)
        return true;
    chain->scaled = operand(graph, reader, side, "Mul");
    for (int k = 0; chain->scaled && k < 2 && !chain->product; k++)
        if (infer_fuse_scalar(graph, chain->scaled->inputs[!k], &chain->scale))
            chain->product = plain_product(operand(graph, chain->scaled, k, "MatMul"));
    return chain->product != NULL;
}

static bool masked_find(struct graph *graph, struct graph_node *softmax, struct masked_chain *out) {
    struct masked_chain chain = {.softmax = softmax, .bias = -1};
    float floor_value = 0;
    chain.where = operand(graph, softmax, 0, "Where");
    if (!chain.where || infer_node_int(softmax, "axis", -1) != -1 ||
        !infer_fuse_scalar(graph, chain.where->inputs[2], &floor_value) || !(floor_value <= -1e8F))
        return false;
    bool found = scores_find(graph, chain.where, 1, &chain);
    chain.biased = found ? NULL : operand(graph, chain.where, 1, "Add");
    for (int k = 0; chain.biased && k < 2 && !found; k++) {
        found = scores_find(graph, chain.biased, k, &chain);
        chain.bias = chain.biased->inputs[!k];
    }
    for (int i = 0; found && i < graph->node_count && !chain.mix; i++)
        if (infer_fuse_is(&graph->nodes[i], "MatMul") && graph->nodes[i].inputs[0] == softmax->outputs[0])
            chain.mix = plain_product(&graph->nodes[i]);
    if (!chain.mix)
        return false;
    *out = chain;
    return true;
}

/* Whether `value` is computed from the result of the node at `first`. */
static bool depends(const struct graph *graph, int first, int value, bool *made) {
    memset(made, 0, (size_t)graph->value_count * sizeof *made);
    for (int i = first; i < graph->node_count; i++) {
        const struct graph_node *node = &graph->nodes[i];
        bool reads = i == first || (node->residual >= 0 && made[node->residual]);
        for (int k = 0; k < node->input_count; k++)
            reads = reads || (node->inputs[k] >= 0 && made[node->inputs[k]]);
        for (int k = 0; reads && k < node->output_count; k++)
            if (node->outputs[k] >= 0)
                made[node->outputs[k]] = true;
    }
    return made[value];
}

/* [batch or 1][1][1][keys]: what all heads and queries of an image share. */
static bool is_key_row(const struct shape *row, const struct shape *keys) {
    return row->rank == 4 && (row->dims[0] == 1 || row->dims[0] == keys->dims[0]) && row->dims[1] == 1 &&
           row->dims[2] == 1 && row->dims[3] == keys->dims[3];
}

static bool masked_fits(const struct masked_chain *chain, const struct tensor *known) {
    const struct shape *q = &known[chain->product->inputs[0]].shape, *k = &known[chain->product->inputs[1]].shape;
    const struct shape *v = &known[chain->mix->inputs[1]].shape;
    if (q->rank != 4 || k->rank != 4 || v->rank != 4)
        return false;
    for (int axis = 0; axis < 2; axis++)
        if (q->dims[axis] != k->dims[axis] || q->dims[axis] != v->dims[axis])
            return false;
    return is_key_row(&known[chain->where->inputs[0]].shape, k) &&
           (chain->bias < 0 || is_key_row(&known[chain->bias].shape, k));
}

/* Shapes are known when a program is made, and sides that the file leaves open only then: two of them stand for all.
 * What does not fit later is refused by the operation. */
#define PROBES 2

static bool shapes_probe(const struct graph *graph, int64_t open_side, struct tensor *known) {
    struct shape inputs[GRAPH_PORTS_MAX];
    for (int i = 0; i < graph->input_count; i++) {
        inputs[i] = graph->values[graph->inputs[i]].tensor.shape;
        if (inputs[i].rank < 0)
            return false;
        for (int k = 0; k < inputs[i].rank; k++)
            inputs[i].dims[k] = inputs[i].dims[k] < 0 ? open_side : inputs[i].dims[k];
    }
    return infer_graph_shapes(graph, inputs, known, NULL);
}

/* The chain becomes one node in the place of its Softmax, with the weights as its second result. */
static bool masked_replace(struct masked_chain *chain, struct err *err) {
    struct graph_node *node = chain->softmax;
    const int inputs[] = {chain->product->inputs[0], chain->product->inputs[1], chain->mix->inputs[1],
                          chain->where->inputs[0], chain->bias};
    int weights = node->outputs[0];
    if (!attributes_set(node, 0, chain->scale, err))
        return false;
    node->operation = &infer_operator_masked_attention;
    node->input_count = chain->bias < 0 ? 4 : 5;
    memcpy(node->inputs, inputs, sizeof inputs);
    node->output_count = 2;
    node->outputs[0] = chain->mix->outputs[0];
    node->outputs[1] = weights;
    infer_fuse_drop(chain->product);
    infer_fuse_drop(chain->where);
    infer_fuse_drop(chain->mix);
    if (chain->scaled)
        infer_fuse_drop(chain->scaled);
    if (chain->biased)
        infer_fuse_drop(chain->biased);
    return true;
}

struct probes { /* owned; NULL as long as no chain was found */
    struct tensor *known[PROBES];
    bool *made, good;
};

static void probes_clear(struct probes *probes) {
    for (int n = 0; n < PROBES; n++)
        free(probes->known[n]);
    free(probes->made);
}

static bool probes_begin(const struct graph *graph, struct probes *out, struct err *err) {
    size_t values = (size_t)graph->value_count;
    out->made = pulmo_alloc(values, sizeof *out->made, err);
    out->good = true;
    for (int n = 0; n < PROBES; n++) {
        out->known[n] = pulmo_alloc(values, sizeof *out->known[n], err);
        if (!out->made || !out->known[n])
            return false;
        out->good = out->good && shapes_probe(graph, 2 + n, out->known[n]);
    }
    return true;
}

bool infer_fuse_attention_masked(struct graph *graph, struct err *err) {
    PULMO_SCOPED(probes_clear) struct probes probes = {0};
    for (int i = 0; i < graph->node_count; i++) {
        struct masked_chain chain;
        if (!infer_fuse_is(&graph->nodes[i], "Softmax") || !masked_find(graph, &graph->nodes[i], &chain))
            continue;
        if (!probes.made && !probes_begin(graph, &probes, err))
            return false;
        bool fits = probes.good && !depends(graph, i, chain.mix->inputs[1], probes.made);
        for (int n = 0; n < PROBES; n++)
            fits = fits && masked_fits(&chain, probes.known[n]);
        if (fits && !masked_replace(&chain, err))
            return false;
    }
    return true;
}
