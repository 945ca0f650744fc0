/* Malformed, hostile and unsupported ONNX files (tests/cases/infer-*, made by infer_hostile_make.py): each fails with
 * the kind and the sentence in its `expected`, at load, at compile or, for numbers that overflow, in the run. Then
 * model.json. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "infer/infer.h"
#include "infer_cases.h"

#define CASES "tests/cases"
#define SIDE 8 /* where a file leaves a side open */

/* Everything that could fail; true when nothing did. */
static bool run_file(const struct bytes *file, struct err *err) {
    struct shape inputs[GRAPH_PORTS_MAX];
    PULMO_SCOPED(infer_graph_free_at) struct graph *graph = infer_graph_open(file->data, file->size, err);
    if (!graph)
        return false;
    for (int i = 0; i < graph->input_count; i++) {
        inputs[i] = graph->values[graph->inputs[i]].tensor.shape;
        for (int axis = 0; axis < inputs[i].rank; axis++)
            inputs[i].dims[axis] = inputs[i].dims[axis] > 0 ? inputs[i].dims[axis] : SIDE;
    }
    PULMO_SCOPED(infer_program_free_at) struct program *program = infer_program_new(graph, inputs, false, err);
    if (!program)
        return false;
    PULMO_SCOPED(infer_runner_free_at) struct runner *runner = infer_runner_new(program, err);
    if (!runner)
        return false;
    for (int i = 0; i < graph->input_count; i++)
        for (int64_t n = 0; n < infer_shape_count(&inputs[i]); n++)
            infer_runner_input(runner, i)[n] = 2;
    return infer_runner_run(runner, NULL, err);
}

static bool expectation_read(const char *folder, char kind[32], char text[256]) {
    char path[768];
    struct bytes file;
    snprintf(path, sizeof path, "%s/expected", folder);
    if (!bytes_read_file(path, 512, &file, NULL))
        return false;
    int fields = 0;
    char whole[513] = {0};
    memcpy(whole, file.data, file.size);
    bytes_free(&file);
    fields = sscanf(whole, "%31[^\n]\n%255[^\n]", kind, text);
    return fields == 2;
}

static void run_case(const char *name) {
    char folder[512], path[768], kind[32], text[256];
    struct bytes file;
    struct err err = {0};
    snprintf(folder, sizeof folder, CASES "/%s", name);
    snprintf(path, sizeof path, "%s/model.onnx", folder);
    if (!expectation_read(folder, kind, text) || !bytes_read_file(path, 1 << 24, &file, &err))
        fail_msg("%s: %s", name, err.text);
    if (run_file(&file, &err))
        fail_msg("%s: nothing failed", name);
    if (strcmp(err_kind_name(err.kind), kind) != 0 || !strstr(err.text, text))
        fail_msg("%s: got %s \"%s\", expected %s \"...%s...\"", name, err_kind_name(err.kind), err.text, kind, text);
    bytes_free(&file);
}

static void hostile_files_fail_with_their_reason(void **state) {
    (void)state;
    DIR *folder = opendir(CASES);
    int count = 0;
    assert_non_null(folder);
    for (struct dirent *entry = readdir(folder); entry; entry = readdir(folder)) {
        if (strncmp(entry->d_name, "infer-", 6) != 0)
            continue;
        run_case(entry->d_name);
        count++;
    }
    closedir(folder);
    assert_true(count >= 55);
}

static void a_flood_of_fields_is_refused(void **state) {
    (void)state;
    size_t size = 2200000;
    uint8_t *flood = malloc(size);
    for (size_t n = 0; n < size; n++)
        flood[n] = n % 2 ? 0x01 : 0x08; /* ir_version = 1, again and again */
    struct err err = {0};
    assert_null(infer_graph_load(flood, size, &err));
    assert_int_equal(err.kind, ERR_LIMIT);
    free(flood);
}

/* ---- model.json ------------------------------------------------------------------------------------------------ */

static char root[256];

static int folder_make(void **state) {
    (void)state;
    snprintf(root, sizeof root, "/tmp/pulmo-test-infer-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int folder_remove(void **state) {
    (void)state;
    static const char *const names[] = {"model.json", "detector.onnx", "candidate.onnx", "gate.onnx"};
    char path[512];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", root, names[i]);
        unlink(path);
    }
    return rmdir(root);
}

static void copy_in(const char *name) {
    char path[512];
    struct bytes file;
    snprintf(path, sizeof path, "models/%s", name);
    assert_true(bytes_read_file(path, (size_t)1 << 26, &file, NULL));
    snprintf(path, sizeof path, "%s/%s", root, name);
    assert_true(bytes_write_file(path, file.data, file.size, false, NULL));
    bytes_free(&file);
}

/* Opens the shipped model.json with `from` replaced by `to`. */
static struct infer_model *open_edited(const char *from, const char *to, struct err *err) {
    char path[512], text[8192] = {0}, edited[9000];
    struct bytes file;
    assert_true(bytes_read_file("models/model.json", sizeof text - 1, &file, NULL));
    memcpy(text, file.data, file.size);
    bytes_free(&file);
    char *at = strstr(text, from);
    if (!at)
        fail_msg("model.json has no %s", from);
    int size = snprintf(edited, sizeof edited, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    snprintf(path, sizeof path, "%s/model.json", root);
    assert_true(bytes_write_file(path, edited, (size_t)size, false, NULL));
    return infer_model_open(path, err);
}

static void graphs_copy_in(void) {
    copy_in("detector.onnx");
    copy_in("candidate.onnx");
    copy_in("gate.onnx");
}

static void model_json_is_checked(void **state) {
    (void)state;
    static const struct {
        const char *from, *to;
        enum err_kind kind;
        const char *text;
    } rows[] = {
        {"\"sha256\": \"", "\"sha256\": \"0", ERR_INPUT, "sha256"},
        {"\"file\": \"detector.onnx\"", "\"file\": \"../detector.onnx\"", ERR_INPUT, "plain name"},
        {"\"file\": \"detector.onnx\"", "\"file\": \"candidate.onnx\"", ERR_INPUT, "digest"},
        {"\"file\": \"detector.onnx\"", "\"file\": \"missing.onnx\"", ERR_NOT_FOUND, "missing.onnx"},
        {"\"file\": \"detector.onnx\"", "\"file\": 7", ERR_INPUT, "file is missing"},
        {"\"tile\": ", "\"tile\": 1", ERR_INPUT, "tile"},
        {"\"tile\": ", "\"tile\": 4.", ERR_INPUT, "tile"},
        {"\"cam_side\": 96", "\"cam_side\": 100", ERR_INPUT, "cam_side 100"},
        {"\"tile\": ", "\"recompute_side\": 16, \"tile\": ", ERR_INPUT, "recompute_side"},
        {"\"tile\": ", "\"recompute_side\": 100, \"tile\": ", ERR_INPUT, "does not fit"},
        {"\"tile\": ", "\"inner_max\": 264, \"tile\": ", ERR_INPUT, "inner_max"},
        {"\"tile\": ", "\"inner_max\": 100, \"tile\": ", ERR_INPUT, "no multiple of 8"},
        {"\"tile\": ", "\"inner_max\": \"160\", \"tile\": ", ERR_INPUT, "inner_max"},
        {"\"margin\": ", "\"margin\": -", ERR_INPUT, "margin"},
        {"\"score_min\": ", "\"score_min\": 7", ERR_INPUT, "score_min"},
        {"\"candidates_max\": ", "\"candidates_max\": 99", ERR_INPUT, "candidates_max"},
        {"\"cam_layer\": \"", "\"cam_layer\": \"no ", ERR_INPUT, "cam_layer"},
        {"\"calibration\"", "\"calibration2\"", ERR_INPUT, "calibration"},
        {"\"operating_point\": ", "\"operating_point\": 3", ERR_INPUT, "operating_point"},
        {"\"passes\": ", "\"passes\": 10", ERR_INPUT, "passes"},
        {"\"dropout\": ", "\"flips\": 3, \"dropout\": ", ERR_INPUT, "not 1, 2, 4 or 8"},
        {"\"dropout\": ", "\"flips\": 16, \"dropout\": ", ERR_INPUT, "flips"},
        {"\"passes\": ", "\"passes\": \"\", \"x\": ", ERR_INPUT, "passes"},
        {"\"name\"", "\"review\": {\"mutual_information_nats\": 9}, \"name\"", ERR_INPUT, "mutual_information_nats"},
        {"\"name\"", "\"review\": true, \"name\"", ERR_INPUT, "mutual_information_nats"},
        {"\"name\"", "\"review\": {\"mutual_information_nats\": 0.1, \"reviewed\": 3}, \"name\"", ERR_INPUT,
         "reviewed"},
        {"\"name\"",
         "\"review\": {\"mutual_information_nats\": 0.1, \"reviewed\": {\"findings\": 3, \"wrong\": 4}}, \"name\"",
         ERR_INPUT, "wrong"},
        {"\"side\": ", "\"side\": 1", ERR_INPUT, "side"},
        {"\"gate\": ", "\"gate\": 7, \"x\": ", ERR_INPUT, "gate is missing or no object"},
        {"\"limits\": ", "\"limit\": ", ERR_INPUT, "limits"},
        {"\"whole\": [", "\"whole\": [1, ", ERR_INPUT, "whole is no list of 4"},
        {"\"slice\": [", "\"slice\": 5, \"x\": [", ERR_INPUT, "slice is no list of 4"},
        {"\"slice\": [\n    0.", "\"slice\": [\n    -0.", ERR_INPUT, "slice holds what is no limit"},
        {"\"file\": \"gate.onnx\"", "\"file\": \"candidate.onnx\"", ERR_INPUT, "digest"},
        {"{", "", ERR_INPUT, "not a JSON object"},
        {"{", "[", ERR_INPUT, "not a JSON object"},
    };
    graphs_copy_in();
    struct err err = {0};
    struct infer_model *model =
        open_edited("\"name\"",
                    "\"review\": {\"mutual_information_nats\": 0.125, \"reviewed\": {\"findings\": 30, \"wrong\": 8}, "
                    "\"others\": {\"findings\": 85, \"wrong\": 5}}, \"name\"",
                    &err);
    if (!model)
        fail_msg("%s", err.text);
    assert_true(infer_model_info(model)->review_mutual_information_nats == 0.125);
    assert_int_equal(infer_model_info(model)->reviewed.wrong, 8);
    assert_int_equal(infer_model_info(model)->not_reviewed.findings, 85);
    assert_int_equal(strlen(infer_model_info(model)->sha256), 64);
    infer_model_free(model);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        err = (struct err){0};
        model = open_edited(rows[i].from, rows[i].to, &err);
        if (model)
            fail_msg("row %zu was accepted", i);
        if (err.kind != rows[i].kind || !strstr(err.text, rows[i].text))
            fail_msg("row %zu: %s \"%s\"", i, err_kind_name(err.kind), err.text);
    }
}

/* A shipped model may have a curve of its own: what is put before it is found first. */
static void a_curve_is_checked(void **state) {
    (void)state;
    static const struct {
        const char *curve, *text;
    } rows[] = {{"[[0, 0], [1, 2], [1, 3]]", "point 2 of curve"},
                {"[[0, 0], [1, -1]]", "beyond the one before"},
                {"[[0, 0], [1, 1e9]]", "no pair of logits"},
                {"[[0, 0], 7]", "no pair of logits"},
                {"[[0, 0]]", "2 to 16 points"},
                {"3", "2 to 16 points"},
                {"[[-1, -2], [0, 0.5]]", NULL}};
    graphs_copy_in();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char edited[128];
        struct err err = {0};
        snprintf(edited, sizeof edited, "\"calibration\": {\"curve\": %s,", rows[i].curve);
        struct infer_model *model = open_edited("\"calibration\": {", edited, &err);
        if (rows[i].text && (model || err.kind != ERR_INPUT || !strstr(err.text, rows[i].text)))
            fail_msg("row %zu: %s \"%s\"", i, err_kind_name(err.kind), err.text);
        if (!rows[i].text) {
            assert_non_null(model);
            assert_int_equal(infer_model_info(model)->calibration_curve.count, 2);
            assert_true(infer_model_info(model)->calibration_curve.to[1] == 0.5);
        }
        infer_model_free(model);
    }
}

static void a_diameter_is_checked(void **state) {
    (void)state;
    struct err err = {0};
    struct infer_model *model =
        open_edited("\"calibration\": {",
                    "\"diameter\": {\"offset_mm\": 0.5, \"slope\": 3, \"mask\": 1, \"reach\": 0.1},"
                    "\"calibration\": {",
                    &err);
    if (model || err.kind != ERR_INPUT || !strstr(err.text, "diameter: slope"))
        fail_msg("%s", err.text);
    /* by the sphere's volume: 523.6 mm3 are 10 mm; further off than the reach counts as the reach */
    const struct infer_diameter diameter = {.offset_mm = 0.25, .slope = 1, .mask = 0.5, .reach = 0.1};
    const double mm3 = 523.5988;
    assert_float_equal(infer_diameter_mm(&diameter, 10, mm3), 10.25, 1e-4);
    assert_float_equal(infer_diameter_mm(&diameter, 9.5, mm3), 10.0, 1e-4);
    assert_float_equal(infer_diameter_mm(&diameter, 8, mm3), 8.65, 1e-4);
    assert_float_equal(infer_diameter_mm(&diameter, 20, mm3), 19.25, 1e-4);
    assert_float_equal(infer_diameter_mm(&diameter, 10, 0), 10.25, 1e-4);
    assert_float_equal(infer_diameter_mm(&(struct infer_diameter){.slope = 0}, 8, mm3), 8, 1e-12);
}

/* From its files in memory it is the same model, and as choosy. */
static void a_model_opens_from_memory(void **state) {
    (void)state;
    struct err err = {0};
    PULMO_SCOPED(model_files_free) struct model_files files = {.count = 0};
    if (!infer_model_files_read("models/model.json", &files, &err))
        fail_msg("%s", err.text);
    assert_int_equal(files.count, 4);
    assert_string_equal(files.items[0].name, "model.json");
    struct infer_model *there = infer_model_open("models/model.json", &err);
    struct infer_model *here = infer_model_open_files(&files, &err);
    if (!there || !here)
        fail_msg("%s", err.text);
    assert_string_equal(infer_model_info(here)->sha256, infer_model_info(there)->sha256);
    assert_int_equal(infer_model_info(here)->has_gate, infer_model_info(there)->has_gate);
    infer_model_free(there);
    infer_model_free(here);
    files.items[1].content.data[100] ^= 1;
    assert_null(infer_model_open_files(&files, &err));
    assert_int_equal(err.kind, ERR_INPUT);
    assert_non_null(strstr(err.text, "digest"));
    files.items[1].content.data[100] ^= 1;
    files.items[1].name[0] = 'x';
    assert_null(infer_model_open_files(&files, &err));
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    files.items[0].name[0] = 'x';
    assert_null(infer_model_open_files(&files, &err));
    assert_int_equal(err.kind, ERR_INPUT);
}

static void reading_a_models_files_is_bounded(void **state) {
    (void)state;
    static const struct {
        const char *json;
        enum err_kind kind;
    } rows[] = {{"[]", ERR_INPUT},
                {"{\"a\": {\"file\": \"../b\"}}", ERR_INPUT},
                {"{\"a\": {\"file\": \"none.onnx\"}}", ERR_NOT_FOUND},
                {"{\"a\": {\"file\": \"\"}}", ERR_INPUT}};
    char path[512];
    snprintf(path, sizeof path, "%s/model.json", root);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        struct model_files files = {.count = 0};
        assert_true(bytes_write_file(path, rows[i].json, strlen(rows[i].json), false, NULL));
        assert_false(infer_model_files_read(path, &files, &err));
        assert_int_equal(err.kind, rows[i].kind);
        assert_int_equal(files.count, 0);
    }
}

static void a_missing_model_is_not_found(void **state) {
    (void)state;
    struct err err = {0};
    assert_null(infer_model_open("models/none/model.json", &err));
    assert_int_equal(err.kind, ERR_NOT_FOUND);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile_files_fail_with_their_reason),
        cmocka_unit_test(a_flood_of_fields_is_refused),
        cmocka_unit_test(model_json_is_checked),
        cmocka_unit_test(a_curve_is_checked),
        cmocka_unit_test(a_diameter_is_checked),
        cmocka_unit_test(a_model_opens_from_memory),
        cmocka_unit_test(reading_a_models_files_is_bounded),
        cmocka_unit_test(a_missing_model_is_not_found),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
