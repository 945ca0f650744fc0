/* Candidate network = trunk, which sees no Dropout and runs once, and tail, which runs once a Monte-Carlo pass. */
#include <string.h>

#include "infer/model.h"
#include "infer/operators.h"

static const char *const output_names[CANDIDATE_OUTPUTS] = {"logit", "texture", "log_diameter", "attention"};

/* A node belongs to the tail when it is a Dropout or reads the tail. */
static void tail_mark(const struct graph *graph, bool *tail) {
    for (int i = 0; i < graph->node_count; i++) {
        const struct graph_node *node = &graph->nodes[i];
        tail[i] = node->operation->kind == OPERATOR_DROPOUT;
        for (int k = 0; k <= node->input_count; k++) {
            int value = k < node->input_count ? node->inputs[k] : node->residual;
            int producer = value >= 0 ? graph->values[value].producer : -1;
            tail[i] = tail[i] || (producer >= 0 && tail[producer]);
        }
    }
}

/* Values that leave a part of the graph. */
struct ports {
    int values[GRAPH_PORTS_MAX], count;
};

static bool port_add(int value, struct ports *ports, struct err *err) {
    for (int i = 0; i < ports->count; i++)
        if (ports->values[i] == value)
            return true;
    if (ports->count == GRAPH_PORTS_MAX)
        return err_set(err, ERR_LIMIT, "more than %d values between trunk and passes", GRAPH_PORTS_MAX);
    ports->values[ports->count++] = value;
    return true;
}

/* Outputs of the trunk: what the tail reads of it, and outputs of the whole that it makes. */
static bool trunk_ports(const struct graph *graph, const bool *tail, struct ports *ports, struct err *err) {
    for (int i = 0; i < graph->node_count; i++) {
        const struct graph_node *node = &graph->nodes[i];
        for (int k = 0; tail[i] && k <= node->input_count; k++) {
            int value = k < node->input_count ? node->inputs[k] : node->residual;
            if (value < 0 || graph->values[value].tensor.data)
                continue;
            int producer = graph->values[value].producer;
            if (producer < 0)
                return err_set(err, ERR_UNSUPPORTED, "the input is read behind a Dropout");
            if (!tail[producer] && !port_add(value, ports, err))
                return false;
        }
    }
    return true;
}

static bool outputs_sort(struct infer_model *model, const struct graph *graph, const bool *tail, struct ports parts[2],
                         struct err *err) {
    for (int i = 0; i < CANDIDATE_OUTPUTS; i++) {
        int value = infer_graph_value(graph, output_names[i]);
        int producer = value >= 0 ? graph->values[value].producer : -1;
        if (producer < 0 || !infer_graph_is_output(graph, value))
            return err_set(err, ERR_INPUT, "there is no output %s", output_names[i]);
        struct candidate_port *port = &model->candidate_outputs[i];
        port->in_tail = tail[producer];
        struct ports *ports = &parts[port->in_tail];
        if (!port_add(value, ports, err))
            return false;
        for (int k = 0; k < ports->count; k++)
            if (ports->values[k] == value)
                port->index = k;
    }
    return true;
}

static bool tail_connect(struct infer_model *model, struct err *err) {
    for (int i = 0; model->tail && i < model->tail->input_count; i++) {
        const char *name = model->tail->values[model->tail->inputs[i]].name;
        model->tail_sources[i] = -1;
        for (int k = 0; k < model->trunk->output_count; k++)
            if (strcmp(model->trunk->values[model->trunk->outputs[k]].name, name) == 0)
                model->tail_sources[i] = k;
        if (model->tail_sources[i] < 0)
            return err_set(err, ERR_INTERNAL, "value %.120s does not reach the passes", name);
    }
    return true;
}

bool infer_model_split(struct infer_model *model, const struct graph *candidate, struct err *err) {
    size_t nodes = (size_t)candidate->node_count;
    PULMO_SCOPED(pulmo_free_at) bool *tail = pulmo_alloc(nodes, sizeof *tail, err);
    PULMO_SCOPED(pulmo_free_at) bool *trunk = pulmo_alloc(nodes, sizeof *trunk, err);
    struct ports parts[2] = {0}; /* of the trunk, of the tail */
    if (!tail || !trunk)
        return false;
    tail_mark(candidate, tail);
    for (size_t i = 0; i < nodes; i++)
        trunk[i] = !tail[i];
    if (!trunk_ports(candidate, tail, &parts[0], err) || !outputs_sort(model, candidate, tail, parts, err))
        return false;
    model->trunk = infer_graph_extract(candidate, trunk, parts[0].values, parts[0].count, err);
    if (!model->trunk)
        return false;
    if (model->trunk->input_count != 1)
        return err_set(err, ERR_INPUT, "%d inputs instead of one", model->trunk->input_count);
    if (parts[1].count && !(model->tail = infer_graph_extract(candidate, tail, parts[1].values, parts[1].count, err)))
        return false;
    return tail_connect(model, err);
}
