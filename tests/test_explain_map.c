/* LABELS: quick
 * A hot cell shows at its place in the patient, on whatever grid the CT has; and what the PNGs hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>

#include "explain/heat.h"

/* Grids that PACS send: columns are the direction cosines of i, j, k. */
struct view {
    const char *name;
    double columns[3][3], spacing[3];
    int32_t size[3];
};
static const struct view views[] = {
    {"axial", {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}, {0.7, 0.7, 2.5}, {180, 170, 50}},
    {"feet first, slices down", {{-1, 0, 0}, {0, 1, 0}, {0, 0, -1}}, {0.7, 0.7, 2.5}, {180, 170, 50}},
    {"prone, thick", {{-1, 0, 0}, {0, -1, 0}, {0, 0, 1}}, {0.9, 0.9, 5}, {140, 140, 26}},
    {"coronal", {{1, 0, 0}, {0, 0, -1}, {0, 1, 0}}, {0.8, 0.8, 1.5}, {150, 150, 80}},
    {"oblique", {{0.96, 0.28, 0}, {-0.28, 0.96, 0}, {0, 0, 1}}, {0.75, 0.75, 2}, {180, 180, 60}},
    {"tilted gantry", {{1, 0, 0}, {0, 1, 0}, {0, 0.2588, 0.9659}}, {0.7, 0.7, 3}, {180, 180, 42}},
};
#define VIEWS (sizeof views / sizeof *views)

/* The middle of the volume lies at (12, -34, 56). */
static struct grid grid_of(const struct view *view) {
    struct grid grid = {0};
    const double middle[3] = {12, -34, 56};
    for (int row = 0; row < 3; row++)
        grid.ijk_to_lps_mm[row][3] = middle[row];
    for (int axis = 0; axis < 3; axis++) {
        grid.size_ijk[axis] = view->size[axis];
        grid.spacing_mm[axis] = view->spacing[axis];
        for (int row = 0; row < 3; row++) {
            grid.ijk_to_lps_mm[row][axis] = view->columns[axis][row] * view->spacing[axis];
            grid.ijk_to_lps_mm[row][3] -= grid.ijk_to_lps_mm[row][axis] * (view->size[axis] - 1) / 2.0;
        }
    }
    return grid;
}

struct hottest {
    double lps[3];
    float value;
    size_t warm; /* voxels above a half */
    int32_t k;
};

static struct hottest find_hottest(const struct explain_map *map, const struct grid *grid) {
    struct hottest best = {.k = -1};
    for (int32_t k = 0; k < grid->size_ijk[2]; k++) {
        const float *slice = explain_map_slice(map, k);
        float most = 0;
        for (int32_t j = 0; j < grid->size_ijk[1]; j++)
            for (int32_t i = 0; i < grid->size_ijk[0]; i++) {
                float value = slice[(size_t)j * (size_t)grid->size_ijk[0] + (size_t)i];
                best.warm += value > 0.5F;
                most = value > most ? value : most;
                if (value <= best.value)
                    continue;
                best.value = value;
                best.k = k;
                grid_to_lps(grid, (double[3]){i, j, k}, best.lps);
            }
        assert_int_equal(explain_map_slice_used(map, k), most > EXPLAIN_COLD);
    }
    return best;
}

static struct grid cells_at(const double first_lps[3], int32_t side, double spacing) {
    struct grid grid = {.size_ijk = {side, side, side}, .spacing_mm = {spacing, spacing, spacing}};
    for (int axis = 0; axis < 3; axis++) {
        grid.ijk_to_lps_mm[axis][axis] = spacing;
        grid.ijk_to_lps_mm[axis][3] = first_lps[axis];
    }
    return grid;
}

/* Each of several cells in turn is the hot one: the hottest voxel lies within half a voxel of its centre. */
static void hot_cells_show_in_their_place(void **state) {
    (void)state;
    const int32_t hot[][3] = {{2, 2, 2}, {0, 1, 4}, {4, 4, 0}};
    for (size_t v = 0; v < VIEWS; v++)
        for (size_t h = 0; h < 3; h++) {
            struct grid source = grid_of(&views[v]), cells = cells_at((double[3]){-4, -50, 40}, 5, 8);
            float cell[125] = {0};
            cell[(hot[h][2] * 5 + hot[h][1]) * 5 + hot[h][0]] = 0.37F;
            struct explain_map *map = explain_map_new(&source, NULL);
            assert_non_null(map);
            assert_true(explain_map_add_cells(map, &cells, cell, NULL));
            struct hottest got = find_hottest(map, &source);
            const double *s = views[v].spacing;
            double reach = sqrt(s[0] * s[0] + s[1] * s[1] + s[2] * s[2]) / 2 + 1e-6, away = 0;
            for (int axis = 0; axis < 3; axis++)
                away += pow(got.lps[axis] - (cells.ijk_to_lps_mm[axis][3] + 8 * hot[h][axis]), 2);
            if (sqrt(away) > reach)
                fail_msg("%s: hottest voxel %.2f mm from its cell", views[v].name, sqrt(away));
            assert_true(got.value > 0.6F && got.value <= 1);
            explain_map_free(map);
        }
}

/* The crop of 40 voxels starts at floor(centre) - 19; token 2 is its middle eight. */
static void tokens_cover_the_crop(void **state) {
    (void)state;
    struct grid iso = cells_at((double[3]){-100, -200, 300}, 10, 1), tokens;
    const double center_lps[3] = {-100 + 50.4, -200 + 61.0, 300 + 70.9};
    assert_true(explain_attention_grid(&iso, center_lps, &tokens, NULL));
    const double floors[3] = {50, 61, 70};
    for (int axis = 0; axis < 3; axis++) {
        double first_voxel = floors[axis] - 19;
        double center = iso.ijk_to_lps_mm[axis][3] + first_voxel + 3.5; /* of token 0: voxels 0 to 7 */
        assert_true(fabs(tokens.ijk_to_lps_mm[axis][3] - center) < 1e-9);
        assert_true(fabs(tokens.ijk_to_lps_mm[axis][axis] - 8) < 1e-12);
        /* and the crop's middle is within half a voxel of the candidate */
        assert_true(fabs(center + 16 - center_lps[axis]) <= 0.5 + 1e-9);
    }
    struct err err = {0};
    assert_false(explain_attention_grid(&iso, (double[3]){NAN, 0, 0}, &tokens, &err));
    assert_int_equal(err.kind, ERR_INPUT);
}

static void negative_is_cold_and_two_findings_keep_their_maximum(void **state) {
    (void)state;
    struct grid source = grid_of(&views[0]);
    struct explain_map *map = explain_map_new(&source, NULL);
    struct grid a = cells_at((double[3]){-10, -50, 40}, 5, 8), b = cells_at((double[3]){-8, -50, 40}, 5, 8);
    float cell[125];
    for (int n = 0; n < 125; n++)
        cell[n] = -1;
    assert_true(explain_map_add_cells(map, &a, cell, NULL));
    assert_int_equal(find_hottest(map, &source).k, -1); /* nothing positive: nothing shown */
    cell[62] = 5;
    assert_true(explain_map_add_cells(map, &a, cell, NULL));
    struct hottest one = find_hottest(map, &source);
    cell[62] = 0.001F; /* weak in figures, but the hottest of its own finding */
    assert_true(explain_map_add_cells(map, &b, cell, NULL));
    struct hottest both = find_hottest(map, &source);
    assert_true(one.warm > 0 && both.warm > one.warm);
    assert_true(both.value <= 1);
    cell[62] = INFINITY;
    struct err err = {0};
    assert_false(explain_map_add_cells(map, &a, cell, &err));
    assert_int_equal(err.kind, ERR_INPUT);
    explain_map_free(map);
}

static void heat_outside_the_volume_is_cut(void **state) {
    (void)state;
    struct grid source = grid_of(&views[0]);
    struct explain_map *map = explain_map_new(&source, NULL);
    float cell[125];
    for (int n = 0; n < 125; n++)
        cell[n] = 1;
    double corner[3];
    grid_to_lps(&source, (double[3]){0, 0, 0}, corner);
    struct grid edge = cells_at((double[3]){corner[0] - 16, corner[1] - 16, corner[2] - 16}, 5, 8);
    struct grid away = cells_at((double[3]){900, 900, 900}, 5, 8);
    assert_true(explain_map_add_cells(map, &away, cell, NULL));
    assert_int_equal(find_hottest(map, &source).k, -1);
    assert_true(explain_map_add_cells(map, &edge, cell, NULL));
    assert_true(explain_map_slice(map, 0)[0] > 0.99F);
    assert_null(explain_map_slice(map, -1));
    assert_null(explain_map_slice(map, source.size_ijk[2]));
    assert_false(explain_map_slice_used(map, -1));
    explain_map_free(map);
}

/* ---- pictures ---------------------------------------------------------------------------------------- */

static uint8_t *decode(const struct bytes *bytes, uint32_t format, uint32_t *columns, uint32_t *rows) {
    png_image image = {.version = PNG_IMAGE_VERSION};
    assert_true(png_image_begin_read_from_memory(&image, bytes->data, bytes->size));
    assert_int_equal(image.format & PNG_FORMAT_FLAG_ALPHA, format & PNG_FORMAT_FLAG_ALPHA);
    image.format = format;
    uint8_t *pixel = malloc(PNG_IMAGE_SIZE(image));
    assert_non_null(pixel);
    assert_true(png_image_finish_read(&image, NULL, pixel, 0, NULL));
    *columns = image.width;
    *rows = image.height;
    return pixel;
}

static struct explain_map *map_with_a_spot(const struct grid *source) {
    struct explain_map *map = explain_map_new(source, NULL);
    struct grid cells = cells_at((double[3]){-4, -50, 40}, 5, 8);
    float cell[125] = {0};
    cell[62] = 1;
    assert_true(explain_map_add_cells(map, &cells, cell, NULL));
    return map;
}

static void overlay_is_hot_where_the_map_is(void **state) {
    (void)state;
    struct grid source = grid_of(&views[1]);
    struct explain_map *map = map_with_a_spot(&source);
    int32_t k = find_hottest(map, &source).k;
    PULMO_SCOPED(bytes_free) struct bytes bytes = {0};
    assert_true(explain_overlay_png(map, k, &bytes, NULL));
    uint32_t columns = 0, rows = 0;
    uint8_t *rgba = decode(&bytes, PNG_FORMAT_RGBA, &columns, &rows);
    assert_int_equal(columns, source.size_ijk[0]);
    assert_int_equal(rows, source.size_ijk[1]);
    const float *heat = explain_map_slice(map, k);
    for (size_t n = 0; n < (size_t)columns * rows; n++) {
        const uint8_t *p = rgba + 4 * n;
        if (fabsf(heat[n] - EXPLAIN_COLD) > 0.004F) /* the palette has 256 steps */
            assert_int_equal(p[3] > 0, heat[n] > EXPLAIN_COLD);
        assert_true(fabs(p[3] - 190.0 * heat[n]) < 5);
        if (heat[n] > 0.95F)
            assert_true(p[0] > 230 && p[1] > 120 && p[2] < 40); /* ends in amber, which shows on white */
        if (heat[n] > 0.45F && heat[n] < 0.55F)
            assert_true(p[0] > 120 && p[0] < 165 && p[1] < 50 && p[2] > 90); /* and passes through purple */
    }
    free(rgba);
    struct err err = {0};
    assert_false(explain_overlay_png(map, 50, &bytes, &err));
    assert_int_equal(err.kind, ERR_INPUT);
    explain_map_free(map);
}

static struct bytes encoded(const uint8_t *rgba, uint32_t columns, uint32_t rows) {
    png_image image = {.version = PNG_IMAGE_VERSION, .width = columns, .height = rows, .format = PNG_FORMAT_RGBA};
    png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
    uint8_t *data = malloc(size);
    assert_true(data && png_image_write_to_memory(&image, data, &size, 0, rgba, 0, NULL));
    return (struct bytes){.data = data, .size = size};
}

/* What a version before wrote, four bytes a pixel, shows the same; one colour of one pixel is seen. */
static void pictures_are_the_same_however_they_are_packed(void **state) {
    (void)state;
    struct grid source = grid_of(&views[1]);
    struct explain_map *map = map_with_a_spot(&source);
    PULMO_SCOPED(bytes_free) struct bytes made = {0};
    int32_t k = find_hottest(map, &source).k;
    assert_true(explain_overlay_png(map, k, &made, NULL));
    uint32_t columns = 0, rows = 0;
    uint8_t *rgba = decode(&made, PNG_FORMAT_RGBA, &columns, &rows);
    PULMO_SCOPED(bytes_free) struct bytes former = encoded(rgba, columns, rows);
    bool same = false;
    assert_true(former.size != made.size || memcmp(former.data, made.data, made.size) != 0);
    assert_true(explain_png_same(&made, &former, &same, NULL) && same);
    size_t hot = 0;
    while (rgba[4 * hot + 3] == 0)
        hot++;
    rgba[4 * hot + 1] ^= 1;
    PULMO_SCOPED(bytes_free) struct bytes changed = encoded(rgba, columns, rows);
    assert_true(explain_png_same(&made, &changed, &same, NULL) && !same);
    former.size /= 2; /* cut off */
    assert_true(explain_png_same(&made, &former, &same, NULL) && !same);
    struct bytes text = {.data = (uint8_t *)"no picture", .size = 10};
    assert_true(explain_png_same(&text, &made, &same, NULL) && !same);
    assert_true(explain_png_same(&text, &text, &same, NULL) && same);
    free(rgba);
    explain_map_free(map);
}

static void slice_is_windowed(void **state) {
    (void)state;
    struct grid grid = {.size_ijk = {5, 1, 2}, .spacing_mm = {1, 1, 1}};
    struct volume *volume = volume_new(&grid, NULL);
    const int16_t hu[10] = {0, 0, 0, 0, 0, -1024, -1350, -600, 150, 3000};
    memcpy(volume->hu, hu, sizeof hu);
    PULMO_SCOPED(bytes_free) struct bytes bytes = {0};
    assert_true(explain_slice_png(volume, 1, -600, 1500, &bytes, NULL));
    uint32_t columns = 0, rows = 0;
    uint8_t *grey = decode(&bytes, PNG_FORMAT_GRAY, &columns, &rows);
    assert_int_equal(columns, 5);
    assert_int_equal(rows, 1);
    const int expected[5] = {55, 0, 128, 255, 255}; /* PS3.3 C.11.2.1.2.1 by hand */
    for (int n = 0; n < 5; n++)
        assert_true(abs(grey[n] - expected[n]) <= 1);
    free(grey);
    struct err err = {0};
    assert_false(explain_slice_png(volume, 2, 0, 400, &bytes, &err));
    assert_false(explain_slice_png(volume, 0, 0, 0, &bytes, &err));
    assert_false(explain_slice_png(volume, 0, NAN, 400, &bytes, &err));
    assert_int_equal(err.kind, ERR_INPUT);
    volume_free(volume);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hot_cells_show_in_their_place),
        cmocka_unit_test(tokens_cover_the_crop),
        cmocka_unit_test(negative_is_cold_and_two_findings_keep_their_maximum),
        cmocka_unit_test(heat_outside_the_volume_is_cut),
        cmocka_unit_test(overlay_is_hot_where_the_map_is),
        cmocka_unit_test(pictures_are_the_same_however_they_are_packed),
        cmocka_unit_test(slice_is_windowed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
