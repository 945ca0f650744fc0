/* Rewriting passes on the shipped graphs: what is left after fusion, that it computes the same, and the split at the
 * first Dropout. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "infer/model.h"
#include "infer_cases.h"

static struct graph *open_graph(const char *path, bool fused) {
    struct bytes file;
    struct err err = {0};
    assert_true(bytes_read_file(path, GRAPH_FILE_BYTES_MAX, &file, &err));
    struct graph *graph = infer_graph_load(file.data, file.size, &err);
    if (!graph || !infer_graph_fold(graph, &err) || (fused && !infer_graph_fuse(graph, &err)))
        fail_msg("%s", err.text);
    bytes_free(&file);
    return graph;
}

static int count_of(const struct graph *graph, const char *operation) {
    int count = 0;
    for (int i = 0; i < graph->node_count; i++)
        count += strcmp(graph->nodes[i].operation->name, operation) == 0;
    return count;
}

static void fusion_leaves_no_pass_over_memory_to_spare(void **state) {
    (void)state;
    struct graph *plain = open_graph("models/detector.onnx", false), *fused = open_graph("models/detector.onnx", true);
    assert_int_equal(count_of(fused, "Conv"), count_of(plain, "Conv"));
    assert_true(count_of(plain, "Relu") > 0 && count_of(plain, "Add") > 0);
    assert_int_equal(count_of(fused, "Relu"), 0);
    assert_int_equal(count_of(fused, "Add"), 0);
    assert_int_equal(count_of(fused, "BatchNormalization"), 0);
    infer_graph_free(plain);
    infer_graph_free(fused);
    plain = open_graph("models/candidate.onnx", false);
    fused = open_graph("models/candidate.onnx", true);
    /* Models up to 0.3.0 choose among the scores; a gate's own choice stays before the attention. */
    int gated = count_of(fused, "(MaskedAttention)");
    assert_int_equal(gated + count_of(fused, "(TopKAttention)"), 1);
    assert_int_equal(count_of(plain, "TopK"), 1);
    assert_int_equal(count_of(fused, "TopK"), gated);
    assert_int_equal(count_of(plain, "Softmax"), 1);
    assert_int_equal(count_of(fused, "Softmax"), 0);
    assert_int_equal(count_of(fused, "Dropout"), count_of(plain, "Dropout"));
    infer_graph_free(plain);
    infer_graph_free(fused);
}

static float *run_graph(const struct graph *graph, const struct shape *shape, int *count) {
    struct err err = {0};
    struct program *program = infer_program_new(graph, shape, false, &err);
    struct runner *runner = program ? infer_runner_new(program, &err) : NULL;
    if (!runner)
        fail_msg("%s", err.text);
    uint32_t noise = 9;
    float *input = infer_runner_input(runner, 0);
    for (int64_t n = 0; n < infer_shape_count(shape); n++) {
        noise = noise * 1664525 + 1013904223;
        input[n] = (float)(noise >> 8) * 0x1p-24F;
    }
    if (!infer_runner_run(runner, NULL, &err))
        fail_msg("%s", err.text);
    *count = 0;
    for (int i = 0; i < graph->output_count; i++)
        *count += (int)infer_shape_count(infer_program_shape(program, graph->outputs[i]));
    float *all = calloc((size_t)*count, sizeof *all), *at = all;
    for (int i = 0; i < graph->output_count; i++) {
        size_t size = (size_t)infer_shape_count(infer_program_shape(program, graph->outputs[i]));
        memcpy(at, infer_runner_output(runner, i), size * sizeof *at);
        at += size;
    }
    infer_runner_free(runner);
    infer_program_free(program);
    return all;
}

static void fused_and_plain_graphs_compute_the_same(void **state) {
    (void)state;
    static const char *const paths[] = {"models/detector.onnx", "models/candidate.onnx"};
    for (int i = 0; i < 2; i++) {
        struct shape shape = {.rank = 5, .dims = {2, 1, 40, 40, 40}};
        struct graph *plain = open_graph(paths[i], false), *fused = open_graph(paths[i], true);
        int one = 0, two = 0;
        float *a = run_graph(plain, &shape, &one), *b = run_graph(fused, &shape, &two);
        assert_int_equal(one, two);
        struct difference worst = difference_of(a, b, one);
        assert_true(worst.absolute <= 1e-5 * fmax(1, worst.magnitude));
        assert_true(worst.magnitude > 0);
        free(a);
        free(b);
        infer_graph_free(plain);
        infer_graph_free(fused);
    }
}

/* The kept cases of the parity test: their outputs agree with PyTorch's there. */
static int masked_of(const char *name, int *cases) {
    char path[512];
    int count = 0;
    DIR *folder = opendir("tests/cases/infer_parity");
    assert_non_null(folder);
    *cases = 0;
    for (struct dirent *entry = readdir(folder); entry; entry = readdir(folder)) {
        if (strncmp(entry->d_name, name, strlen(name)) != 0)
            continue;
        snprintf(path, sizeof path, "tests/cases/infer_parity/%s/model.onnx", entry->d_name);
        struct graph *graph = open_graph(path, true);
        int here = count_of(graph, "(MaskedAttention)");
        assert_int_equal(count_of(graph, "Softmax"), 1 - here);
        count += here;
        (*cases)++;
        infer_graph_free(graph);
    }
    closedir(folder);
    return count;
}

static void attention_is_fused_where_all_queries_share_the_mask(void **state) {
    (void)state;
    int cases = 0, fused = masked_of("gated_attention_", &cases);
    assert_true(cases >= 3);
    assert_int_equal(fused, cases);
    fused = masked_of("masked_odd_", &cases);
    assert_true(cases >= 9); /* a chain of each kind that may not be fused */
    assert_int_equal(fused, 0);
}

static void what_is_no_number_names_the_attention(void **state) {
    (void)state;
    struct parity_case it;
    struct difference worst;
    struct err err = {0};
    assert_true(parity_case_read("tests/cases/infer_parity/gated_attention_08", &it, &err));
    assert_true(parity_case_run(&it, false, &worst, &err) && worst.absolute < 1e-6); /* PyTorch's, unfused */
    it.inputs[0].data[3] = NAN; /* a query, which nothing but the attention reads */
    assert_false(parity_case_run(&it, false, &worst, &err));
    assert_int_equal(err.kind, ERR_INPUT);
    assert_non_null(strstr(err.text, "(MaskedAttention)) gave NaN or infinity"));
    parity_case_free(&it);
}

static void the_trunk_has_no_dropout_and_the_tail_no_convolution(void **state) {
    (void)state;
    struct err err = {0};
    struct infer_model *model = infer_model_open("models/model.json", &err);
    if (!model)
        fail_msg("%s", err.text);
    assert_non_null(model->tail);
    assert_int_equal(count_of(model->trunk, "Dropout"), 0);
    assert_int_equal(count_of(model->tail, "Conv"), 0); /* the trunk runs once a candidate: all the work is there */
    assert_int_equal(count_of(model->tail, "(TopKAttention)") + count_of(model->tail, "(MaskedAttention)"), 0);
    assert_true(count_of(model->tail, "Dropout") > 0);
    infer_model_free(model);
}

/* An unsorted file is sorted, with the same result. */
static void node_order_in_memory_does_not_matter(void **state) {
    (void)state;
    struct shape shape = {.rank = 5, .dims = {1, 1, 16, 24, 16}};
    struct graph *graph = open_graph("models/detector.onnx", true);
    int one = 0, two = 0;
    float *a = run_graph(graph, &shape, &one);
    for (int i = 0; i < graph->node_count / 2; i++) {
        struct graph_node swap = graph->nodes[i];
        graph->nodes[i] = graph->nodes[graph->node_count - 1 - i];
        graph->nodes[graph->node_count - 1 - i] = swap;
    }
    assert_true(infer_graph_sort(graph, NULL));
    float *b = run_graph(graph, &shape, &two);
    assert_int_equal(one, two);
    assert_memory_equal(a, b, (size_t)one * sizeof *a);
    free(a);
    free(b);
    infer_graph_free(graph);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fusion_leaves_no_pass_over_memory_to_spare),
        cmocka_unit_test(fused_and_plain_graphs_compute_the_same),
        cmocka_unit_test(attention_is_fused_where_all_queries_share_the_mask),
        cmocka_unit_test(what_is_no_number_names_the_attention),
        cmocka_unit_test(the_trunk_has_no_dropout_and_the_tail_no_convolution),
        cmocka_unit_test(node_order_in_memory_does_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
