#include "infer/precision.h"

#include <string.h>

#include "infer/operators.h"
#include "infer/program.h"

int infer_precision_count(const struct graph *graph) {
    int count = 0;
    for (int i = 0; i < graph->node_count; i++)
        count += graph->nodes[i].operation->kind == OPERATOR_CONV;
    return count;
}

/* Whether no element of the node's result can be below 0, from the same of its inputs. */
static bool never_negative(const struct graph_node *node, const bool *known) {
    enum operation_kind kind = node->operation->kind;
    if (node->relu || kind == OPERATOR_RELU || kind == OPERATOR_SIGMOID)
        return true;
    int inputs = kind == OPERATOR_CONCAT ? node->input_count : kind == OPERATOR_RESIZE || kind == OPERATOR_POOL_MAX;
    for (int k = 0; k < inputs; k++)
        if (!known[node->inputs[k]])
            return false;
    return inputs > 0;
}

bool infer_precision_int8_possible(const struct graph *graph, bool *out, struct err *err) {
    PULMO_SCOPED(pulmo_free_at) bool *known = pulmo_alloc((size_t)graph->value_count, sizeof *known, err);
    int layer = 0;
    if (!known)
        return false;
    for (int i = 0; i < graph->node_count; i++) {
        const struct graph_node *node = &graph->nodes[i];
        if (node->operation->kind == OPERATOR_CONV)
            out[layer++] = graph->values[node->inputs[1]].tensor.data && infer_node_int(node, "group", 1) == 1 &&
                           known[node->inputs[0]];
        if (node->output_count > 0 && node->outputs[0] >= 0)
            known[node->outputs[0]] = never_negative(node, known);
    }
    return true;
}

bool infer_precision_is_mixed(const struct infer_precision *plan) {
    return plan && strspn(plan->layers, "f") != strlen(plan->layers);
}

static bool layer_check(const struct infer_precision *plan, int layer, bool int8_possible, struct err *err) {
    char letter = plan->layers[layer];
    float range = plan->ranges[layer];
    int weight_max = 0;
    if (letter == PRECISION_FP32)
        return true;
    if (letter != PRECISION_BF16 && letter != PRECISION_INT8)
        return err_set(err, ERR_INPUT, "layer %d: '%c' is no precision", layer, letter);
    if (!infer_backend_offers(letter, &weight_max))
        return err_set(err, ERR_UNSUPPORTED, "this processor does not compute %s",
                       letter == PRECISION_INT8 ? "int8" : "bf16");
    if (letter == PRECISION_BF16)
        return true;
    if (plan->weight_max < 1 || plan->weight_max > weight_max)
        return err_set(err, ERR_UNSUPPORTED, "int8 weights of up to %d would saturate on this processor (%d would not)",
                       plan->weight_max, weight_max);
    if (!int8_possible)
        return err_set(err, ERR_INPUT, "layer %d cannot run in int8", layer);
    return (range > 0 && range < 1e6F) || err_set(err, ERR_INPUT, "layer %d: a range of %g", layer, (double)range);
}

int infer_precision_layers(const struct infer_precision *plan, char letter) {
    int count = 0;
    for (size_t layer = 0; plan->layers[layer]; layer++)
        count += plan->layers[layer] == letter;
    return count;
}

bool infer_precision_check(const struct graph *graph, const struct infer_precision *plan, struct err *err) {
    size_t letters = strnlen(plan->layers, sizeof plan->layers);
    int count = infer_precision_count(graph);
    if (letters == sizeof plan->layers || (int)letters != count)
        return err_set(err, ERR_INPUT, "a plan of %zu layers for a network of %d", letters, count);
    bool possible[INFER_LAYERS_MAX];
    if (!infer_precision_int8_possible(graph, possible, err))
        return false;
    for (int layer = 0; layer < count; layer++)
        if (!layer_check(plan, layer, possible[layer], err))
            return false;
    return true;
}
