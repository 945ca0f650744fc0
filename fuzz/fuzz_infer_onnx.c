/* libFuzzer target: any bytes as an ONNX file. Loads, folds, fuses, infers shapes and, where that is small, compiles
 * and runs. Build: clang -fsanitize=fuzzer,address; test_infer_fuzz runs it over the corpus in tests/cases/infer-*. */
#include <stdlib.h>
#include <string.h>

#include "infer/program.h"

#define SIDE 8
#define ELEMENTS_MAX 20000 /* of all activations together: a run stays within milliseconds */
#define WEIGHTS_MAX 20000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Dynamic sides become SIDE. */
static bool inputs_choose(const struct graph *graph, struct shape *out) {
    for (int i = 0; i < graph->input_count; i++) {
        out[i] = graph->values[graph->inputs[i]].tensor.shape;
        for (int axis = 0; axis < out[i].rank; axis++)
            if (out[i].dims[axis] < 1)
                out[i].dims[axis] = SIDE;
    }
    return graph->input_count > 0;
}

static bool small(const struct graph *graph, const struct shape *inputs) {
    struct tensor *tensors = calloc((size_t)graph->value_count + 1, sizeof *tensors);
    bool good = tensors && infer_graph_shapes(graph, inputs, tensors, NULL);
    int64_t activations = 0, weights = 0;
    for (int i = 0; good && i < graph->value_count; i++) {
        int64_t count = infer_shape_count(&tensors[i].shape);
        int64_t *sum = tensors[i].data ? &weights : &activations;
        *sum += count;
        good = activations <= ELEMENTS_MAX && weights <= WEIGHTS_MAX;
    }
    free(tensors);
    return good;
}

static void run(const struct program *program, const struct shape *inputs) {
    struct runner *runner = infer_runner_new(program, NULL);
    const struct graph *graph = infer_program_graph(program);
    for (int i = 0; runner && i < graph->input_count; i++)
        memset(infer_runner_input(runner, i), 0, (size_t)infer_shape_count(&inputs[i]) * sizeof(float));
    struct dropout_keys keys = {.active = true, .seed = 1, .rate = -1};
    bool finite = runner && infer_runner_run(runner, &keys, NULL);
    (void)finite; /* NaN is a fair answer */
    infer_runner_free(runner);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct graph *graph = infer_graph_open(data, size, NULL);
    struct shape inputs[GRAPH_PORTS_MAX];
    if (!graph)
        return 0;
    if (inputs_choose(graph, inputs) && small(graph, inputs)) {
        for (int keep = 0; keep < 2; keep++) {
            struct program *program = infer_program_new(graph, inputs, keep, NULL);
            if (program)
                run(program, inputs);
            infer_program_free(program);
        }
    }
    infer_graph_free(graph);
    return 0;
}
