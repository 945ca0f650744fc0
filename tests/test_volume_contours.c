/* LABELS: quick
 * Outlines enclose what is set, whatever its shape; lobes are named only where position decides them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "random.h"
#include "volume/volume.h"

static struct grid source_grid(void) {
    return (struct grid){.size_ijk = {64, 48, 10},
                         .spacing_mm = {0.5, 0.5, 3},
                         .ijk_to_lps_mm = {{0.5, 0, 0, -20}, {0, -0.5, 0, 12}, {0, 0, -3, 100}}};
}

static struct mask *box_of(const struct grid *source, const int32_t low[3], const int32_t size[3]) {
    struct grid grid = *source;
    double lps[3];
    grid_to_lps(source, (double[3]){low[0], low[1], low[2]}, lps);
    for (int axis = 0; axis < 3; axis++) {
        grid.size_ijk[axis] = size[axis];
        grid.ijk_to_lps_mm[axis][3] = lps[axis];
    }
    struct mask *mask = mask_new(&grid, NULL);
    assert_non_null(mask);
    return mask;
}

/* How many times the paths of slice k wind around a point: 1 inside, 0 outside, with holes the other way round. */
static int winding(const struct volume_contours *contours, int32_t k, double x, double y) {
    int turns = 0;
    for (size_t c = 0; c < contours->count; c++) {
        const struct volume_contour *path = &contours->items[c];
        for (size_t n = 0; path->k == k && n < path->count; n++) {
            const double *a = path->points[n], *b = path->points[(n + 1) % path->count];
            double side = (b[0] - a[0]) * (y - a[1]) - (x - a[0]) * (b[1] - a[1]);
            turns += a[1] <= y && b[1] > y && side > 0;
            turns -= a[1] > y && b[1] <= y && side < 0;
        }
    }
    return turns;
}

static void single_voxel_is_a_diamond(void **state) {
    (void)state;
    struct grid source = source_grid();
    PULMO_SCOPED(mask_free_at)
    struct mask *mask = box_of(&source, (int32_t[3]){30, 20, 4}, (int32_t[3]){3, 3, 2});
    mask->voxel[1 + 3 * (1 + 3 * 1)] = 1;
    PULMO_SCOPED(volume_contours_free) struct volume_contours contours = {0};
    assert_true(volume_contours_trace(mask, &source, &contours, NULL));
    assert_int_equal(contours.count, 1);
    assert_int_equal(contours.items[0].k, 5);
    assert_int_equal(contours.items[0].count, 4);
    double sum_x = 0, sum_y = 0;
    for (size_t n = 0; n < 4; n++) {
        sum_x += contours.items[0].points[n][0];
        sum_y += contours.items[0].points[n][1];
        assert_true(fabs(fabs(contours.items[0].points[n][0] - 31) + fabs(contours.items[0].points[n][1] - 21) - 0.5) <
                    1e-12);
    }
    assert_true(sum_x == 4 * 31 && sum_y == 4 * 21);
}

static void random_masks_are_enclosed(void **state) {
    (void)state;
    struct grid source = source_grid();
    const int32_t low[3] = {9, 11, 3}, size[3] = {21, 17, 4};
    PULMO_SCOPED(mask_free_at) struct mask *mask = box_of(&source, low, size);
    for (uint32_t n = 0; n < 21 * 17 * 4; n++) {
        uint32_t bits[4];
        random_philox((const uint32_t[2]){5, 6}, (const uint32_t[4]){n, 0, 0, 0}, bits);
        mask->voxel[n] = random_uniform(bits[0]) < 0.6F; /* islands, holes and corners, up to the box's sides */
    }
    PULMO_SCOPED(volume_contours_free) struct volume_contours contours = {0};
    assert_true(volume_contours_trace(mask, &source, &contours, NULL));
    assert_true(contours.count > 8);
    for (int32_t n = 0; n < 21 * 17 * 4; n++) {
        int32_t i = n % 21, j = n / 21 % 17, k = n / 21 / 17;
        int expected = mask->voxel[n] ? 1 : 0;
        assert_int_equal(abs(winding(&contours, low[2] + k, low[0] + i + 0.01, low[1] + j + 0.02)), expected);
    }
    for (size_t c = 1; c < contours.count; c++)
        assert_true(contours.items[c].k >= contours.items[c - 1].k);
}

static void empty_mask_has_no_path(void **state) {
    (void)state;
    struct grid source = source_grid();
    PULMO_SCOPED(mask_free_at) struct mask *mask = box_of(&source, (int32_t[3]){0, 0, 0}, (int32_t[3]){5, 5, 1});
    struct volume_contours contours = {0};
    assert_true(volume_contours_trace(mask, &source, &contours, NULL));
    assert_int_equal(contours.count, 0);
    volume_contours_free(&contours);
}

static void foreign_masks_are_refused(void **state) {
    (void)state;
    struct grid source = source_grid(), other = source;
    PULMO_SCOPED(mask_free_at)
    struct mask *mask = box_of(&source, (int32_t[3]){60, 40, 8}, (int32_t[3]){4, 8, 2});
    mask->voxel[0] = 1;
    struct volume_contours contours = {.count = 99};
    struct err err = {0};
    other.ijk_to_lps_mm[0][3] += 0.2; /* not on its voxels */
    assert_false(volume_contours_trace(mask, &other, &contours, &err));
    assert_int_equal(err.kind, ERR_INPUT);
    other = source;
    other.size_ijk[2] = 9; /* reaches beyond */
    assert_false(volume_contours_trace(mask, &other, &contours, &err));
    other = source;
    other.ijk_to_lps_mm[1][1] = -0.6; /* other spacing */
    assert_false(volume_contours_trace(mask, &other, &contours, &err));
    assert_int_equal(contours.count, 99);
}

/* Two boxes as lungs, 100 mm wide, 180 mm deep, 240 mm high, at 2 mm. */
static struct mask *two_lungs(void) {
    struct grid grid = {.size_ijk = {150, 100, 130},
                        .spacing_mm = {2, 2, 2},
                        .ijk_to_lps_mm = {{2, 0, 0, -150}, {0, 2, 0, -100}, {0, 0, 2, -130}}};
    struct mask *lungs = mask_new(&grid, NULL);
    assert_non_null(lungs);
    for (size_t n = 0; n < grid_voxels(&grid); n++) {
        size_t i = n % 150, j = n / 150 % 100, k = n / 15000;
        if (j >= 5 && j < 95 && k >= 5 && k < 125)
            lungs->voxel[n] = i >= 10 && i < 60 ? 1 : i >= 90 && i < 140 ? 2 : 0;
    }
    return lungs;
}

static void lobes_by_position(void **state) {
    (void)state;
    PULMO_SCOPED(mask_free_at) struct mask *lungs = two_lungs();
    const struct {
        double lps[3];
        enum lobe lobe;
    } cases[] = {
        {{-80, 0, 110}, LOBE_RUL},       {{80, 0, 110}, LOBE_LUL},      /* apex */
        {{-80, -60, 70}, LOBE_RUL},      {{80, -60, 70}, LOBE_LUL},     /* front of the upper third */
        {{-80, 70, -90}, LOBE_RLL},      {{80, 70, -90}, LOBE_LLL},     /* back of the base */
        {{80, 60, 60}, LOBE_UNKNOWN},    {{80, 0, 0}, LOBE_UNKNOWN},    /* the fissure may run here */
        {{-80, -60, -40}, LOBE_UNKNOWN},                                /* middle lobe, or not */
        {{0, 0, 110}, LOBE_UNKNOWN},     {{0, 0, 4000}, LOBE_UNKNOWN},  /* not in a lung */
        {{138, 0, 110}, LOBE_LUL},       {{160, 0, 110}, LOBE_UNKNOWN}, /* pleura of the left, and too far out */
    };
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++)
        if (volume_lobe(lungs, cases[n].lps) != cases[n].lobe)
            fail_msg("case %zu: %s", n, lobe_name(volume_lobe(lungs, cases[n].lps)));
    for (size_t n = 0; n < grid_voxels(&lungs->grid); n++)
        lungs->voxel[n] = lungs->voxel[n] ? 3 : 0; /* sides not told apart */
    assert_int_equal(volume_lobe(lungs, cases[0].lps), LOBE_UNKNOWN);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_voxel_is_a_diamond), cmocka_unit_test(random_masks_are_enclosed),
        cmocka_unit_test(empty_mask_has_no_path),    cmocka_unit_test(foreign_masks_are_refused),
        cmocka_unit_test(lobes_by_position),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
