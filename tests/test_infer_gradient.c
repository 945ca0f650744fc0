/* LABELS: full
 * Gradients against PyTorch's autograd (20 random nets and the shipped detector, from infer_gradient_dump.py) and
 * against finite differences; HiResCAM against its definition. Tolerance to autograd: 1e-4 of the greatest gradient. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "infer/gradient.h"
#include "infer/infer.h"
#include "infer/session.h"
#include "infer_cases.h"

#define TOLERANCE 1e-4

static bool by_read(const char *folder, char *name, size_t name_size, int64_t *element) {
    char path[1024], line[256] = {0};
    snprintf(path, sizeof path, "%s/by.txt", folder);
    FILE *file = fopen(path, "r");
    bool good = file && fgets(line, sizeof line, file);
    char *space = good ? strchr(line, ' ') : NULL;
    if (file)
        fclose(file);
    if (!space || (size_t)(space - line) >= name_size)
        return false;
    memcpy(name, line, (size_t)(space - line));
    name[space - line] = 0;
    *element = strtoll(space, NULL, 10);
    return true;
}

/* Returns the worst difference of gradient and activation, each relative to its greatest value. */
static double compare(const char *folder) {
    char path[1024], by[128];
    int64_t element = 0;
    struct err err = {0};
    struct bytes file;
    struct array input, want[2];
    snprintf(path, sizeof path, "%s/model.onnx", folder);
    assert_true(bytes_read_file(path, GRAPH_FILE_BYTES_MAX, &file, &err));
    struct graph *graph = infer_graph_open(file.data, file.size, &err);
    if (!graph)
        fail_msg("%s: %s", folder, err.text);
    snprintf(path, sizeof path, "%s/input_%s.npy", folder, graph->values[graph->inputs[0]].name);
    assert_true(array_read(path, &input));
    snprintf(path, sizeof path, "%s/gradient.npy", folder);
    assert_true(array_read(path, &want[0]));
    snprintf(path, sizeof path, "%s/activation.npy", folder);
    assert_true(array_read(path, &want[1]) && by_read(folder, by, sizeof by, &element));
    struct program *program = infer_program_new(graph, &input.shape, true, &err);
    struct runner *runner = program ? infer_runner_new(program, &err) : NULL;
    int value = infer_graph_value(graph, by);
    assert_true(runner && value >= 0);
    assert_true(infer_shape_equal(infer_program_shape(program, value), &want[0].shape));
    int64_t count = infer_shape_count(&want[0].shape);
    float *got = calloc((size_t)count, sizeof *got);
    memcpy(infer_runner_input(runner, 0), input.data, (size_t)infer_shape_count(&input.shape) * sizeof(float));
    if (!infer_runner_run(runner, NULL, &err) || !infer_gradient(runner, graph->outputs[0], element, value, got, &err))
        fail_msg("%s: %s", folder, err.text);
    struct difference gradient = difference_of(got, want[0].data, count);
    assert_true(infer_runner_read(runner, value, got, &err));
    struct difference activation = difference_of(got, want[1].data, count);
    assert_true(gradient.magnitude > 0);
    free(got);
    free(input.data);
    free(want[0].data);
    free(want[1].data);
    infer_runner_free(runner);
    infer_program_free(program);
    infer_graph_free(graph);
    bytes_free(&file);
    return fmax(gradient.absolute / gradient.magnitude, activation.absolute / fmax(1, activation.magnitude));
}

static void gradients_agree_with_autograd(void **state) {
    (void)state;
    char root[512], path[768];
    if (!parity_folder("gradients", "tests/infer_gradient_dump.py", root, sizeof root)) {
        print_message("python3-torch and python3-onnx are needed\n");
        skip();
    }
    double worst = 0;
    for (int n = 0; n <= 20; n++) {
        if (n < 20)
            snprintf(path, sizeof path, "%s/net_%02d", root, n);
        else
            snprintf(path, sizeof path, "%s/detector", root);
        double one = compare(path);
        if (!(one <= TOLERANCE))
            fail_msg("%s differs by %g", path, one);
        worst = fmax(worst, one);
    }
    print_message("21 gradients, worst %.1e\n", worst);
}

/* ---- without Python ---------------------------------------------------------------------------------------- */

#define SIDE 32

static float noise(uint32_t *state) {
    *state = *state * 1664525 + 1013904223;
    return (float)(*state >> 8) * 0x1p-24F;
}

struct probe { /* one element of one output */
    struct runner *runner;
    int output;
    int64_t element;
};

static double logit_at(const struct probe *probe, const float *image, const float *direction, double step) {
    float *input = infer_runner_input(probe->runner, 0);
    for (int n = 0; n < SIDE * SIDE * SIDE; n++)
        input[n] = image[n] + (float)step * direction[n];
    assert_true(infer_runner_run(probe->runner, NULL, NULL));
    return (double)infer_runner_output(probe->runner, probe->output)[probe->element];
}

/* A central difference along a random direction is the gradient's projection on it, but for kinks of Relu near by. */
static void gradient_of_the_detector_agrees_with_finite_differences(void **state) {
    (void)state;
    struct err err = {0};
    struct infer_model *model = infer_model_open("models/model.json", &err);
    assert_non_null(model);
    struct shape shape = {.rank = 5, .dims = {1, 1, SIDE, SIDE, SIDE}};
    struct program *program = infer_program_new(model->detector, &shape, true, &err);
    struct runner *runner = infer_runner_new(program, &err);
    assert_non_null(runner);
    size_t count = SIDE * SIDE * SIDE;
    float *image = calloc(count, sizeof *image), *gradient = calloc(count, sizeof *gradient);
    float *direction = calloc(count, sizeof *direction);
    uint32_t random = 7;
    int output = model->detector_outputs[DETECTOR_HEATMAP], side = SIDE / MODEL_STRIDE, close = 0;
    int64_t element = (side / 2 * side + side / 2) * side + side / 2;
    for (size_t n = 0; n < count; n++)
        image[n] = 0.2F + 0.3F * noise(&random);
    struct probe probe = {runner, output, element};
    logit_at(&probe, image, direction, 0);
    if (!infer_gradient(runner, model->detector->outputs[output], element, model->detector->inputs[0], gradient, &err))
        fail_msg("%s", err.text);
    for (int round = 0; round < 10; round++) {
        double slope = 0, step = 5e-5; /* small: few Relus change sides */
        for (size_t n = 0; n < count; n++) {
            direction[n] = gradient[n] > 0 ? noise(&random) : -noise(&random); /* along the gradient: no cancellation */
            slope += (double)direction[n] * (double)gradient[n];
        }
        double measured =
            (logit_at(&probe, image, direction, step) - logit_at(&probe, image, direction, -step)) / (2 * step);
        close += fabs(measured - slope) <= 0.05 * fabs(slope) && slope > 0;
    }
    assert_true(close >= 9);
    free(image);
    free(gradient);
    free(direction);
    infer_runner_free(runner);
    infer_program_free(program);
    infer_model_free(model);
}

static struct volume *lung_new(void) {
    struct grid grid = {.size_ijk = {90, 84, 80},
                        .spacing_mm = {1, 1, 1},
                        .ijk_to_lps_mm = {{1, 0, 0, -50}, {0, 1, 0, 30}, {0, 0, 1, -400}}};
    struct volume *volume = volume_new(&grid, NULL);
    uint32_t random = 3;
    for (size_t n = 0; n < grid_voxels(&grid); n++) {
        int x = (int)(n % 90) - 45, y = (int)(n / 90 % 84) - 42, z = (int)(n / 7560) - 40;
        volume->hu[n] = (int16_t)(x * x + y * y + z * z < 36 ? 20 : -880 + (int)(100 * noise(&random)));
    }
    return volume;
}

static void cam_is_a_map_of_the_layers_cells_around_the_candidate(void **state) {
    (void)state;
    struct err err = {0};
    struct infer_model *model = infer_model_open("models/model.json", &err);
    struct infer_session *session = model ? infer_session_new(model, NULL, &err) : NULL;
    struct volume *volume = lung_new();
    struct infer_cam cam = {0}, again = {0};
    double ijk[3] = {45, 42, 40}, center[3], low[3], high[3], first[3] = {0};
    grid_to_lps(&volume->grid, ijk, center);
    if (!session || !infer_cam(session, volume, center, &cam, &err) ||
        !infer_cam(session, volume, center, &again, &err))
        fail_msg("%s", err.text);
    size_t count = grid_voxels(&cam.grid), used = 0;
    for (size_t n = 0; n < count; n++)
        used += cam.map[n] != 0;
    assert_true(used > 0);
    assert_memory_equal(cam.map, again.map, count * sizeof *cam.map);
    double last[3] = {cam.grid.size_ijk[0] - 1, cam.grid.size_ijk[1] - 1, cam.grid.size_ijk[2] - 1};
    grid_to_lps(&cam.grid, first, low);
    grid_to_lps(&cam.grid, last, high);
    for (int axis = 0; axis < 3; axis++) {
        assert_true(cam.grid.spacing_mm[axis] == 2);
        assert_true(low[axis] < center[axis] && center[axis] < high[axis]);
        double voxel = low[axis] - volume->grid.ijk_to_lps_mm[axis][3]; /* 2 k + 0.5 for a whole k */
        assert_true(fabs(remainder(voxel - 0.5, 2)) < 1e-9);
    }
    infer_cam_free(&cam);
    infer_cam_free(&again);
    volume_free(volume);
    infer_session_free(session);
    infer_model_free(model);
}

/* Two candidates beside one nodule, in different cells of one tile: both maps show why the nodule's cell fired. */
static void cam_takes_the_strongest_cell_beside_the_candidate(void **state) {
    (void)state;
    struct err err = {0};
    struct infer_model *model = infer_model_open("models/model.json", &err);
    struct infer_session *session = model ? infer_session_new(model, NULL, &err) : NULL;
    struct volume *volume = lung_new();
    struct infer_cam left = {0}, right = {0};
    double low[3], high[3];
    grid_to_lps(&volume->grid, (double[3]){41, 41, 41}, low);
    grid_to_lps(&volume->grid, (double[3]){47, 46, 45}, high);
    if (!session || !infer_cam(session, volume, low, &left, &err) || !infer_cam(session, volume, high, &right, &err))
        fail_msg("%s", err.text);
    assert_memory_equal(&left.grid, &right.grid, sizeof left.grid);
    assert_memory_equal(left.map, right.map, grid_voxels(&left.grid) * sizeof *left.map);
    infer_cam_free(&left);
    infer_cam_free(&right);
    volume_free(volume);
    infer_session_free(session);
    infer_model_free(model);
}

/* Maps of several findings come from threads of their own, and are those of single calls. */
static void cams_together_are_the_same_as_alone(void **state) {
    (void)state;
    enum { COUNT = 3 };
    struct err err = {0};
    struct infer_model *model = infer_model_open("models/model.json", &err);
    struct infer_session *session =
        model ? infer_session_new(model, &(struct infer_session_config){.threads = 2}, &err) : NULL;
    struct volume *volume = lung_new();
    struct finding items[COUNT] = {{0}};
    struct findings findings = {.items = items, .count = COUNT};
    struct infer_cam together[COUNT], alone = {0};
    memset(together, 0, sizeof together);
    static const double places[COUNT][3] = {{45, 42, 40}, {30, 60, 50}, {70, 30, 30}};
    for (int n = 0; n < COUNT; n++)
        grid_to_lps(&volume->grid, places[n], items[n].center_lps_mm);
    if (!session || !infer_cams(session, volume, &findings, together, &err))
        fail_msg("%s", err.text);
    for (int n = 0; n < COUNT; n++) {
        if (!infer_cam(session, volume, items[n].center_lps_mm, &alone, &err))
            fail_msg("%s", err.text);
        assert_memory_equal(&together[n].grid, &alone.grid, sizeof alone.grid);
        assert_memory_equal(together[n].map, alone.map, grid_voxels(&alone.grid) * sizeof *alone.map);
        infer_cam_free(&alone);
        infer_cam_free(&together[n]);
    }
    items[1].center_lps_mm[0] = NAN; /* one that cannot be placed fails all, and nothing is left */
    assert_false(infer_cams(session, volume, &findings, together, &err));
    assert_int_equal(err.kind, ERR_INPUT);
    assert_null(together[0].map);
    volume_free(volume);
    infer_session_free(session);
    infer_model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_agree_with_autograd),
        cmocka_unit_test(gradient_of_the_detector_agrees_with_finite_differences),
        cmocka_unit_test(cam_is_a_map_of_the_layers_cells_around_the_candidate),
        cmocka_unit_test(cam_takes_the_strongest_cell_beside_the_candidate),
        cmocka_unit_test(cams_together_are_the_same_as_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
