#include "infer/gradient.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct tape {
    const struct runner *runner;
    const struct program *program;
    const struct graph *graph;
    int by;
    bool *wanted;     /* [value_count] is `by` or is made from it: gradients elsewhere are not needed */
    float **gradient; /* [value_count] owned; NULL = zero so far */
};

static void tape_clear(struct tape *tape) {
    for (int i = 0; tape->gradient && i < tape->graph->value_count; i++)
        free(tape->gradient[i]);
    free(tape->gradient);
    free(tape->wanted);
}

static int64_t elements(const struct tape *tape, int value) {
    return infer_shape_count(infer_program_shape(tape->program, value));
}

static void mark_wanted(struct tape *tape) {
    tape->wanted[tape->by] = true;
    for (int i = 0; i < tape->graph->node_count; i++) {
        const struct graph_node *node = &tape->graph->nodes[i];
        bool reads = false;
        for (int k = 0; k <= node->input_count; k++) {
            int value = k < node->input_count ? node->inputs[k] : node->residual;
            reads = reads || (value >= 0 && tape->wanted[value]);
        }
        for (int k = 0; reads && k < node->output_count; k++)
            if (node->outputs[k] >= 0)
                tape->wanted[node->outputs[k]] = true;
    }
}

/* The gradient of a value, zero at first; NULL with err set when memory is out. */
static float *gradient_of(struct tape *tape, int value, struct err *err) {
    if (!tape->gradient[value])
        tape->gradient[value] = pulmo_alloc((size_t)elements(tape, value), sizeof(float), err);
    return tape->gradient[value];
}

static bool add_to(struct tape *tape, int value, const float *part, struct err *err) {
    if (!tape->wanted[value])
        return true;
    float *sum = gradient_of(tape, value, err);
    int64_t count = elements(tape, value);
    for (int64_t n = 0; sum && n < count; n++)
        sum[n] += part[n];
    return sum != NULL;
}

static float *activation_read(const struct tape *tape, int value, struct err *err) {
    float *data = pulmo_alloc((size_t)elements(tape, value), sizeof *data, err);
    if (data && !infer_runner_read(tape->runner, value, data, err)) {
        free(data);
        return NULL;
    }
    return data;
}

/* Behind a Relu: nothing where the result is 0, as PyTorch has it. */
static bool relu_back(const struct tape *tape, int output, float *gradient, struct err *err) {
    PULMO_SCOPED(pulmo_free_at) float *result = activation_read(tape, output, err);
    int64_t count = elements(tape, output);
    for (int64_t n = 0; result && n < count; n++)
        if (!(result[n] > 0))
            gradient[n] = 0;
    return result != NULL;
}

static bool sigmoid_back(const struct tape *tape, int output, float *gradient, struct err *err) {
    PULMO_SCOPED(pulmo_free_at) float *result = activation_read(tape, output, err);
    int64_t count = elements(tape, output);
    for (int64_t n = 0; result && n < count; n++)
        gradient[n] *= result[n] * (1 - result[n]);
    return result != NULL;
}

static bool same_shape(const struct tape *tape, int a, int b, struct err *err) {
    if (infer_shape_equal(infer_program_shape(tape->program, a), infer_program_shape(tape->program, b)))
        return true;
    return err_set(err, ERR_UNSUPPORTED, "no gradient of a sum that broadcasts");
}

static bool conv_back(struct tape *tape, const struct graph_node *node, const float *gradient, struct err *err) {
    int input = node->inputs[0];
    if (node->residual >= 0 &&
        (!same_shape(tape, node->residual, node->outputs[0], err) || !add_to(tape, node->residual, gradient, err)))
        return false;
    if (!tape->wanted[input])
        return true;
    PULMO_SCOPED(pulmo_free_at) float *part = pulmo_alloc((size_t)elements(tape, input), sizeof *part, err);
    return part && infer_conv_backward(tape->program, node, gradient, part, err) && add_to(tape, input, part, err);
}

static bool sum_back(struct tape *tape, const struct graph_node *node, const float *gradient, struct err *err) {
    for (int k = 0; k < 2; k++)
        if (tape->wanted[node->inputs[k]] && (!same_shape(tape, node->inputs[k], node->outputs[0], err) ||
                                              !add_to(tape, node->inputs[k], gradient, err)))
            return false;
    return true;
}

/* Each input takes its stretch of the axis. */
static bool concat_back(struct tape *tape, const struct graph_node *node, const float *gradient, struct err *err) {
    const struct shape *whole = infer_program_shape(tape->program, node->outputs[0]);
    int64_t axis = infer_node_int(node, "axis", 0), inner = 1, outer = 1, from = 0;
    axis = axis < 0 ? axis + whole->rank : axis;
    for (int i = 0; i < whole->rank; i++) {
        outer *= i < axis ? whole->dims[i] : 1;
        inner *= i > axis ? whole->dims[i] : 1;
    }
    int64_t pitch = whole->dims[axis] * inner;
    for (int k = 0; k < node->input_count; k++) {
        int64_t size = infer_program_shape(tape->program, node->inputs[k])->dims[axis] * inner;
        float *sum = tape->wanted[node->inputs[k]] ? gradient_of(tape, node->inputs[k], err) : NULL;
        if (tape->wanted[node->inputs[k]] && !sum)
            return false;
        for (int64_t o = 0; sum && o < outer; o++)
            for (int64_t n = 0; n < size; n++)
                sum[o * size + n] += gradient[o * pitch + from + n];
        from += size;
    }
    return true;
}

/* A shape of rank 3 to 5 as [planes][d][h][w]. */
static void as_volume(const struct shape *shape, int64_t out[4]) {
    out[0] = shape->dims[0] * shape->dims[1];
    for (int i = 1; i < 4; i++) {
        int axis = shape->rank - 4 + i;
        out[i] = axis >= 2 ? shape->dims[axis] : 1;
    }
}

/* Nearest by whole factors: each source cell gathers its block. */
static bool resize_back(struct tape *tape, const struct graph_node *node, const float *gradient, struct err *err) {
    int64_t to[4], from[4], n = 0;
    float *sum = gradient_of(tape, node->inputs[0], err);
    as_volume(infer_program_shape(tape->program, node->inputs[0]), from);
    as_volume(infer_program_shape(tape->program, node->outputs[0]), to);
    for (int64_t p = 0; sum && p < to[0]; p++)
        for (int64_t k = 0; k < to[1]; k++)
            for (int64_t j = 0; j < to[2]; j++)
                for (int64_t i = 0; i < to[3]; i++, n++) {
                    int64_t z = k * from[1] / to[1], y = j * from[2] / to[2], x = i * from[3] / to[3];
                    sum[((p * from[1] + z) * from[2] + y) * from[3] + x] += gradient[n];
                }
    return sum != NULL;
}

/* Offset of the first greatest element under one window, as PyTorch picks it. */
static int64_t window_greatest(const float *plane, const int64_t side[4], const int64_t low[3],
                               const struct window *window) {
    int64_t best = -1, total = 1, counts[3] = {1, 1, 1};
    int skip = 3 - window->spatial;
    for (int i = 0; i < window->spatial; i++) {
        counts[skip + i] = window->kernel[i];
        total *= window->kernel[i];
    }
    for (int64_t n = 0; n < total; n++) {
        int64_t step[3] = {n / (counts[1] * counts[2]), n / counts[2] % counts[1], n % counts[2]}, at[3];
        bool inside = true;
        for (int i = 0; i < 3; i++) {
            at[i] = low[i] + step[i] * (i >= skip ? window->dilation[i - skip] : 1);
            inside = inside && at[i] >= 0 && at[i] < side[1 + i];
        }
        int64_t offset = (at[0] * side[2] + at[1]) * side[3] + at[2];
        if (inside && (best < 0 || plane[offset] > plane[best]))
            best = offset;
    }
    return best;
}

static bool pool_back(struct tape *tape, const struct graph_node *node, const float *gradient, struct err *err) {
    const struct shape *shape = infer_program_shape(tape->program, node->inputs[0]);
    struct window window;
    int64_t from[4], to[4], n = 0, low[3] = {0};
    if (!infer_window_read(node, shape, NULL, &window, err))
        return false;
    PULMO_SCOPED(pulmo_free_at) float *input = activation_read(tape, node->inputs[0], err);
    float *sum = input ? gradient_of(tape, node->inputs[0], err) : NULL;
    as_volume(shape, from);
    as_volume(infer_program_shape(tape->program, node->outputs[0]), to);
    int64_t plane = from[1] * from[2] * from[3], cells = to[1] * to[2] * to[3], skip = 3 - window.spatial;
    for (; sum && n < to[0] * cells; n++) {
        int64_t cell = n % cells, at[3] = {cell / (to[2] * to[3]), cell / to[3] % to[2], cell % to[3]};
        for (int64_t i = skip; i < 3; i++)
            low[i] = at[i] * window.stride[i - skip] - window.before[i - skip];
        int64_t base = n / cells * plane, best = window_greatest(input + base, from, low, &window);
        if (best >= 0)
            sum[base + best] += gradient[n];
    }
    return sum != NULL;
}

static bool node_back(struct tape *tape, const struct graph_node *node, struct err *err) {
    float *gradient = tape->gradient[node->outputs[0]];
    if (node->relu && !relu_back(tape, node->outputs[0], gradient, err))
        return false;
    switch (node->operation->kind) {
    case OPERATOR_CONV: return conv_back(tape, node, gradient, err);
    case OPERATOR_CONCAT: return concat_back(tape, node, gradient, err);
    case OPERATOR_RESIZE: return resize_back(tape, node, gradient, err);
    case OPERATOR_POOL_MAX: return pool_back(tape, node, gradient, err);
    case OPERATOR_ALIAS: return add_to(tape, node->inputs[0], gradient, err);
    case OPERATOR_RELU:
        return relu_back(tape, node->outputs[0], gradient, err) && add_to(tape, node->inputs[0], gradient, err);
    case OPERATOR_SIGMOID:
        return sigmoid_back(tape, node->outputs[0], gradient, err) && add_to(tape, node->inputs[0], gradient, err);
    default:
        if (strcmp(node->operation->name, "Add") == 0)
            return sum_back(tape, node, gradient, err);
        return err_set(err, ERR_UNSUPPORTED, "no gradient of this operator");
    }
}

bool infer_gradient(const struct runner *runner, int of, int64_t element, int by, float *out, struct err *err) {
    PULMO_SCOPED(tape_clear)
    struct tape tape = {.runner = runner, .program = infer_runner_program(runner), .by = by};
    tape.graph = infer_program_graph(tape.program);
    size_t values = (size_t)tape.graph->value_count;
    tape.wanted = pulmo_alloc(values, sizeof *tape.wanted, err);
    tape.gradient = tape.wanted ? pulmo_alloc(values, sizeof *tape.gradient, err) : NULL;
    if (!tape.gradient)
        return false;
    mark_wanted(&tape);
    float *start = gradient_of(&tape, of, err);
    if (!start)
        return false;
    if (element < 0 || element >= elements(&tape, of) || !tape.wanted[of])
        return err_set(err, ERR_INPUT, "no path leads from %.100s to the element", tape.graph->values[by].name);
    start[element] = 1;
    for (int i = tape.graph->node_count - 1; i >= 0; i--) {
        const struct graph_node *node = &tape.graph->nodes[i];
        int output = node->outputs[0];
        if (output < 0 || output == by || !tape.gradient[output])
            continue;
        if (!node_back(&tape, node, err))
            return err_within(err, "node %.120s (%s)", node->name, node->operation->name);
    }
    float *result = gradient_of(&tape, by, err);
    if (result)
        memcpy(out, result, (size_t)elements(&tape, by) * sizeof *out);
    return result != NULL;
}
