/* LABELS: quick
 * How a volume is cut into tiles: all that is not empty is covered, with its margins, by equal boxes on the lattice.
 * And programs for tiles of another size: the same bits by the same packed weights. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "infer/session.h"
#include "infer/tiles.h"
#include "volume/volume.h"

static const struct infer_model fitted = {.tile = 128, .margin = 12, .inner_max = 64},
                                cubes = {.tile = 128, .margin = 12};

struct box {
    int32_t low[3], high[3]; /* i, j, k */
};

static struct volume *volume_with(const int32_t size[3], const struct box *box) {
    struct grid grid = {.size_ijk = {size[0], size[1], size[2]}, .spacing_mm = {1, 1, 1}};
    struct err err = {0};
    struct volume *volume = volume_new(&grid, &err);
    assert_non_null(volume);
    for (size_t n = 0; n < grid_voxels(&grid); n++)
        volume->hu[n] = FRAME_HU_MIN - (int16_t)(n % 3);
    for (int corner = 0; box && corner < 2; corner++) {
        const int32_t *at = corner ? box->high : box->low;
        volume->hu[((int64_t)(at[2] - corner) * size[1] + at[1] - corner) * size[0] + at[0] - corner] = 0;
    }
    return volume;
}

/* Inner parts touch each other, hold the box and begin on the lattice; none along an axis could be left out. */
static void check_cover(const struct tiles *tiles, const struct box *box) {
    for (int axis = 0; axis < 3; axis++) {
        int64_t low = box->low[2 - axis], high = box->high[2 - axis];
        assert_true(tiles->first[axis] <= low && low - tiles->first[axis] < TILES_LATTICE);
        assert_int_equal(tiles->first[axis] % TILES_LATTICE, 0);
        assert_int_equal(tiles->inner[axis] % TILES_LATTICE, 0);
        assert_true(tiles->inner[axis] <= fitted.inner_max);
        assert_true(tiles->first[axis] + tiles->count[axis] * tiles->inner[axis] >= high);
        assert_true(tiles->first[axis] + (tiles->count[axis] - 1) * tiles->inner[axis] < high);
        assert_int_equal(tiles->side[axis], tiles->inner[axis] + 2 * 12);
    }
    int64_t last[3], start[3];
    infer_tiles_place(tiles, infer_tiles_count(tiles) - 1, last);
    infer_tiles_start(tiles, last, start);
    for (int axis = 0; axis < 3; axis++) {
        assert_int_equal(last[axis], tiles->count[axis] - 1);
        assert_int_equal(start[2 - axis] + tiles->margin, MODEL_STRIDE * infer_tiles_cell(tiles, last, axis));
    }
}

static void boxes_cover_what_is_not_empty(void **state) {
    (void)state;
    static const int32_t size[3] = {150, 101, 75};
    static const struct box boxes[] = {{{0, 0, 0}, {150, 101, 75}},      {{17, 8, 7}, {149, 72, 70}},
                                       {{149, 100, 74}, {150, 101, 75}}, {{40, 41, 42}, {104, 101, 75}},
                                       {{0, 0, 0}, {1, 1, 1}},           {{7, 15, 23}, {72, 80, 75}}};
    for (size_t n = 0; n < sizeof boxes / sizeof *boxes; n++) {
        struct volume *volume = volume_with(size, &boxes[n]);
        struct tiles tiles = infer_tiles_lay(&fitted, volume);
        check_cover(&tiles, &boxes[n]);
        volume_free(volume);
    }
}

static void one_more_voxel_makes_smaller_boxes(void **state) {
    (void)state;
    static const int32_t size[3] = {80, 80, 80};
    struct volume *volume = volume_with(size, &(struct box){{8, 0, 3}, {72, 65, 67}});
    struct tiles tiles = infer_tiles_lay(&fitted, volume);
    /* k: 0 to 67 from the lattice, 34 each; j: 65, 33 each; i: 64, one box. Rounded up to the lattice. */
    assert_memory_equal(tiles.count, ((const int64_t[3]){2, 2, 1}), sizeof tiles.count);
    assert_memory_equal(tiles.inner, ((const int64_t[3]){40, 40, 64}), sizeof tiles.inner);
    assert_memory_equal(tiles.first, ((const int64_t[3]){0, 0, 8}), sizeof tiles.first);
    assert_int_equal(tiles.would, 2 * 2 * 2);
    volume_free(volume);
}

static void cubes_begin_with_the_volume(void **state) {
    (void)state;
    static const int32_t size[3] = {209, 104, 90};
    struct volume *volume = volume_with(size, &(struct box){{100, 50, 50}, {120, 60, 60}});
    struct tiles tiles = infer_tiles_lay(&cubes, volume);
    int64_t start[3];
    assert_memory_equal(tiles.count, ((const int64_t[3]){1, 1, 3}), sizeof tiles.count);
    assert_memory_equal(tiles.side, ((const int64_t[3]){128, 128, 128}), sizeof tiles.side);
    assert_int_equal(tiles.would, 3);
    infer_tiles_start(&tiles, (const int64_t[3]){0, 0, 1}, start);
    assert_memory_equal(start, ((const int64_t[3]){92, -12, -12}), sizeof start);
    volume_free(volume);
}

static void a_cube_has_the_cell_in_its_middle(void **state) {
    (void)state;
    static const int64_t cells[][3] = {{0, 1, 2}, {25, 30, 3}, {7, 8, 9}};
    for (size_t n = 0; n < sizeof cells / sizeof *cells; n++) {
        struct tiles tiles = infer_tiles_around(&fitted, cells[n], 96);
        int64_t start[3];
        infer_tiles_start(&tiles, (const int64_t[3]){0}, start);
        assert_int_equal(infer_tiles_count(&tiles), 1);
        for (int axis = 0; axis < 3; axis++) {
            double off = (double)(MODEL_STRIDE * cells[n][axis] - start[2 - axis]) + MODEL_STRIDE / 2.0 - 96 / 2.0;
            assert_true(off >= -4 && off <= 4);
            assert_int_equal(tiles.first[axis] % TILES_LATTICE, 0);
            assert_int_equal(tiles.side[axis], 96);
        }
    }
}

static void an_empty_volume_has_tiles_that_are_empty(void **state) {
    (void)state;
    static const int32_t size[3] = {70, 3, 9};
    struct volume *volume = volume_with(size, NULL);
    struct tiles tiles = infer_tiles_lay(&fitted, volume);
    check_cover(&tiles, &(struct box){{0, 0, 0}, {70, 3, 9}});
    volume_free(volume);
}

static void run_both(const struct program *one, const struct program *two) {
    struct err err = {0};
    struct runner *runners[] = {infer_runner_new(one, &err), infer_runner_new(two, &err)};
    const struct graph *graph = infer_program_graph(one);
    for (int n = 0; n < 2; n++) {
        assert_non_null(runners[n]);
        float *input = infer_runner_input(runners[n], 0);
        for (int64_t i = 0; i < infer_shape_count(infer_program_shape(one, graph->inputs[0])); i++)
            input[i] = (float)(i * 2654435761 % 1024) / 1024;
        assert_true(infer_runner_run(runners[n], NULL, &err));
    }
    for (int output = 0; output < graph->output_count; output++)
        assert_memory_equal(infer_runner_output(runners[0], output), infer_runner_output(runners[1], output),
                            (size_t)infer_shape_count(infer_program_shape(one, graph->outputs[output])) *
                                sizeof(float));
    infer_runner_free(runners[0]);
    infer_runner_free(runners[1]);
}

static void other_sizes_use_the_weights_that_are_packed(void **state) {
    (void)state;
    struct err err = {0};
    struct infer_model *model = infer_model_open("models/model.json", &err);
    if (!model)
        fail_msg("%s", err.text);
    const struct shape first = {.rank = 5, .dims = {1, 1, 128, 128, 128}};
    const struct shape other = {.rank = 5, .dims = {1, 1, 144, 136, 176}};
    struct program *packed = infer_program_new(model->detector, &first, false, &err);
    struct program *alone = infer_program_new(model->detector, &other, false, &err);
    struct program *like = infer_program_new_like(packed, &other, false, NULL, &err);
    assert_true(packed && alone && like);
    size_t own = infer_program_figures(like)->weight_bytes, before = infer_program_figures(alone)->weight_bytes;
    print_message("%zu of %zu bytes\n", own, before);
    assert_true(before > 0 && own < before / 100); /* a layer whose layout hangs on the size may pack its own */
    run_both(alone, like);
    infer_program_free(like);
    infer_program_free(alone);
    infer_program_free(packed);
    infer_model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_sizes_use_the_weights_that_are_packed),
        cmocka_unit_test(boxes_cover_what_is_not_empty),
        cmocka_unit_test(one_more_voxel_makes_smaller_boxes),
        cmocka_unit_test(cubes_begin_with_the_volume),
        cmocka_unit_test(a_cube_has_the_cell_in_its_middle),
        cmocka_unit_test(an_empty_volume_has_tiles_that_are_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
