/* LABELS: full
 * The quality gate's frame, network and score against train/gate.py, written by
 * train/dump_gate.py. The frame is made of whole numbers, so that only its
 * logarithms may differ (1e-6); network and score 1e-4, as the other graphs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "infer/model.h"
#include "infer_cases.h"

#define MODEL "models/model.json"

static struct {
    struct infer_model *model;
    struct infer_session *session;
} fixture;

static int open_model(void **state) {
    (void)state;
    struct err err = {0};
    fixture.model = infer_model_open(MODEL, &err);
    fixture.session =
        fixture.model ? infer_session_new(fixture.model, &(struct infer_session_config){.threads = 1}, &err) : NULL;
    if (!fixture.session)
        print_message("%s\n", err.text);
    return fixture.session ? 0 : -1;
}

static int close_model(void **state) {
    (void)state;
    infer_session_free(fixture.session);
    infer_model_free(fixture.model);
    return 0;
}

static struct array read_array(const char *folder, const char *name) {
    char path[768];
    struct array array = {0};
    snprintf(path, sizeof path, "%s/%s.npy", folder, name);
    if (!array_read(path, &array))
        fail_msg("cannot read %s", path);
    return array;
}

/* Canonical, 1 mm, of the array's shape [z][y][x]. */
static struct grid grid_of(const struct array *array) {
    struct grid grid = {0};
    for (int axis = 0; axis < 3; axis++) {
        grid.size_ijk[axis] = (int32_t)array->shape.dims[2 - axis];
        grid.spacing_mm[axis] = grid.ijk_to_lps_mm[axis][axis] = 1;
    }
    return grid;
}

static void check_case(const char *folder) {
    struct err err = {0};
    struct array hu = read_array(folder, "hu"), in_lungs = read_array(folder, "lungs");
    struct array frame = read_array(folder, "frame"), score = read_array(folder, "score");
    struct grid grid = grid_of(&hu);
    PULMO_SCOPED(volume_free_at) struct volume *iso = volume_new(&grid, &err);
    PULMO_SCOPED(mask_free_at) struct mask *lungs = mask_new(&grid, &err);
    assert_true(iso && lungs && infer_shape_count(&frame.shape) == INFER_GATE_FRAME);
    for (size_t n = 0; n < grid_voxels(&grid); n++) {
        iso->hu[n] = (int16_t)hu.data[n];
        lungs->voxel[n] = in_lungs.data[n] > 0;
    }
    static float got[INFER_GATE_FRAME];
    assert_true(infer_gate_frame(iso, lungs, got, &err));
    struct difference worst = difference_of(got, frame.data, INFER_GATE_FRAME);
    if (!(worst.absolute <= 1e-6))
        fail_msg("%s: the frame differs by %g", folder, worst.absolute);
    struct infer_gate_result result;
    assert_true(infer_gate(fixture.session, got, &result, &err));
    double want = (double)score.data[0];
    if (!(fabs(result.score - want) <= 1e-4 * fmax(1, want)))
        fail_msg("%s: the score is %.6f, not %.6f", folder, result.score, want);
    assert_true(fabs(result.score - result.error / result.limit) < 1e-12);
    free(hu.data);
    free(in_lungs.data);
    free(frame.data);
    free(score.data);
}

static void frame_and_score_agree_with_python(void **state) {
    (void)state;
    char root[512], folder[600];
    if (!parity_folder("gate", "train/dump_gate.py", root, sizeof root)) {
        print_message("python3-torch and python3-onnx are needed\n");
        skip();
    }
    for (int number = 0; number < 3; number++) {
        snprintf(folder, sizeof folder, "%s/gate_%d", root, number);
        check_case(folder);
    }
}

/* The worst part decides, and is named; frames of nothing but one error each.
 */
static void the_worst_part_is_named(void **state) {
    (void)state;
    enum { CELLS = INFER_GATE_FRAME / INFER_GATE_CHANNELS, SLICE = INFER_GATE_ROWS * INFER_GATE_COLUMNS };
    static float frames[GATE_TURNS * INFER_GATE_FRAME], again[GATE_TURNS * INFER_GATE_FRAME];
    struct infer_gate_result result;
    infer_gate_judge(fixture.model, frames, again, &result);
    assert_true(result.score == 0);
    double limit = fixture.model->gate_limits[GATE_SLICE][2];
    for (int n = 0; n < SLICE; n++)
        frames[2 * CELLS + 7 * SLICE + n] = (float)(limit * 1.5);
    infer_gate_judge(fixture.model, frames, again, &result);
    assert_true(fabs(result.score - 1.5) < 1e-6 && fabs(result.limit - limit) < 1e-12);
    assert_string_equal(result.part, "grain of one level");
    memset(frames, 0, sizeof frames);
    for (int turn = 0; turn < GATE_TURNS; turn++) /* twice as well drawn upside down */
        frames[turn * INFER_GATE_FRAME] = turn == 1 ? 0.05F : 0.1F;
    infer_gate_judge(fixture.model, frames, again, &result);
    assert_true(fabs(result.error - 2) < 1e-6);
    assert_string_equal(result.part, "turned over");
    memset(frames, 0, sizeof frames);
    for (int n = 0; n < CELLS; n++) { /* lung everywhere, steps everywhere but on one level */
        frames[CELLS + n] = again[CELLS + n] = 1;
        frames[3 * CELLS + n] = again[3 * CELLS + n] = n / SLICE == 9 ? 0 : 0.1F;
    }
    infer_gate_judge(fixture.model, frames, again, &result);
    assert_true(result.error == 1000);
    assert_string_equal(result.part, "repeated slices");
}

static void another_grid_or_spacing_is_refused(void **state) {
    (void)state;
    struct err err = {0};
    struct grid grid = {.size_ijk = {4, 4, 4}, .spacing_mm = {1, 1, 1}}, other = {.size_ijk = {4, 4, 5}};
    PULMO_SCOPED(volume_free_at) struct volume *iso = volume_new(&grid, &err);
    PULMO_SCOPED(mask_free_at) struct mask *lungs = mask_new(&other, &err);
    static float frame[INFER_GATE_FRAME];
    assert_false(infer_gate_frame(iso, lungs, frame, &err));
    assert_int_equal(err.kind, ERR_INPUT);
    iso->grid.spacing_mm[2] = 2;
    lungs->grid = iso->grid;
    err = (struct err){0};
    assert_false(infer_gate_frame(iso, lungs, frame, &err));
    assert_int_equal(err.kind, ERR_INPUT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frame_and_score_agree_with_python),
        cmocka_unit_test(the_worst_part_is_named),
        cmocka_unit_test(another_grid_or_spacing_is_refused),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
