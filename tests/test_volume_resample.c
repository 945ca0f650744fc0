/* LABELS: quick
 * A field that is linear in LPS stays that field, whatever way the source's axes run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "volume/volume.h"

static double field(const double lps[3]) {
    return 100 + 3 * lps[0] - 2 * lps[1] + 5 * lps[2];
}

/* columns: direction cosines of i, j, k. */
static struct volume *field_on(const double columns[3][3], const double spacing[3], const int32_t size[3]) {
    struct grid grid = {0};
    for (int axis = 0; axis < 3; axis++) {
        grid.size_ijk[axis] = size[axis];
        grid.spacing_mm[axis] = spacing[axis];
        for (int row = 0; row < 3; row++)
            grid.ijk_to_lps_mm[row][axis] = columns[axis][row] * spacing[axis];
        grid.ijk_to_lps_mm[axis][3] = 7.25 - 3 * axis;
    }
    struct volume *volume = volume_new(&grid, NULL);
    assert_non_null(volume);
    for (size_t n = 0; n < grid_voxels(&grid); n++) {
        size_t across = (size_t)size[0], rows = (size_t)size[1];
        double ijk[3] = {(double)(n % across), (double)(n / across % rows), (double)(n / across / rows)}, lps[3];
        grid_to_lps(&grid, ijk, lps);
        volume->hu[n] = (int16_t)lround(field(lps));
    }
    return volume;
}

/* The share of voxels that lie inside the source with half a voxel to spare; each must hold the field. */
static double inside_share(const struct volume *source, const struct volume *iso, double tolerance_hu) {
    const int32_t *size = iso->grid.size_ijk;
    size_t inside = 0, n = 0;
    for (int32_t z = 0; z < size[2]; z++)
        for (int32_t y = 0; y < size[1]; y++)
            for (int32_t x = 0; x < size[0]; x++, n++) {
                double lps[3], ijk[3];
                grid_to_lps(&iso->grid, (double[3]){x, y, z}, lps);
                assert_true(grid_to_ijk(&source->grid, lps, ijk));
                bool in = true;
                for (int axis = 0; axis < 3; axis++)
                    in = in && ijk[axis] >= 1 && ijk[axis] <= source->grid.size_ijk[axis] - 2;
                inside += in;
                if (in && fabs(iso->hu[n] - field(lps)) > tolerance_hu)
                    fail_msg("at %d %d %d: %d instead of %.1f", (int)x, (int)y, (int)z, iso->hu[n], field(lps));
            }
    return (double)inside / (double)n;
}

static void expect_field(const double columns[3][3], double spacing_mm) {
    struct err err = {0};
    PULMO_SCOPED(volume_free_at)
    struct volume *source = field_on(columns, (double[3]){0.7, 0.8, 2.5}, (int32_t[3]){40, 36, 14});
    PULMO_SCOPED(volume_free_at) struct volume *iso = volume_resample_iso(source, spacing_mm, &err);
    assert_non_null(iso);
    for (int axis = 0; axis < 3; axis++)
        assert_true(iso->grid.ijk_to_lps_mm[axis][axis] == spacing_mm);
    assert_true(inside_share(source, iso, 1.1) > 0.3);
}

static void axial_either_way(void **state) {
    (void)state;
    for (int flips = 0; flips < 8; flips++) {
        const double columns[3][3] = {
            {flips & 1 ? -1 : 1, 0, 0}, {0, flips & 2 ? -1 : 1, 0}, {0, 0, flips & 4 ? -1 : 1}};
        expect_field(columns, 1);
        expect_field(columns, 2);
    }
}

static void tilted_and_coronal(void **state) {
    (void)state;
    double c = cos(0.2), s = sin(0.2);
    expect_field((const double[3][3]){{c, s, 0}, {-s, c, 0}, {0, 0, 1}}, 1);
    expect_field((const double[3][3]){{1, 0, 0}, {0, 0, -1}, {0, 1, 0}}, 1);
    expect_field((const double[3][3]){{1, 0, 0}, {0, 1, 0}, {0, s, c}}, 1); /* gantry tilt: sheared */
}

static void sides_reach_the_last_voxel(void **state) {
    (void)state;
    const double columns[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, -1}};
    PULMO_SCOPED(volume_free_at)
    struct volume *source = field_on(columns, (double[3]){0.5, 1, 3}, (int32_t[3]){41, 20, 11});
    PULMO_SCOPED(volume_free_at) struct volume *iso = volume_resample_iso(source, 1, NULL);
    assert_int_equal(iso->grid.size_ijk[0], 21);
    assert_int_equal(iso->grid.size_ijk[1], 20);
    assert_int_equal(iso->grid.size_ijk[2], 31);
    /* k runs down: the lowest corner in LPS is the source's last slice */
    double lps[3];
    grid_to_lps(&source->grid, (double[3]){0, 0, 10}, lps);
    for (int axis = 0; axis < 3; axis++)
        assert_true(fabs(iso->grid.ijk_to_lps_mm[axis][3] - lps[axis]) < 1e-9);
}

/* Stripes of one voxel at 0.5 mm: sampling at 2 mm would show one of them, the average shows neither. */
static void shrinking_averages(void **state) {
    (void)state;
    const double columns[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
    PULMO_SCOPED(volume_free_at)
    struct volume *source = field_on(columns, (double[3]){0.5, 0.5, 2}, (int32_t[3]){80, 80, 5});
    for (size_t n = 0; n < grid_voxels(&source->grid); n++)
        source->hu[n] = n % 2 ? 400 : -400;
    PULMO_SCOPED(volume_free_at) struct volume *iso = volume_resample_iso(source, 2, NULL);
    for (int32_t x = 1; x < iso->grid.size_ijk[0] - 1; x++)
        assert_true(abs(iso->hu[iso->grid.size_ijk[0] * 5 + x]) <= 1);
}

static void one_slice_and_one_voxel(void **state) {
    (void)state;
    const double columns[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
    PULMO_SCOPED(volume_free_at)
    struct volume *slice = field_on(columns, (double[3]){0.7, 0.7, 5}, (int32_t[3]){30, 30, 1});
    PULMO_SCOPED(volume_free_at) struct volume *iso = volume_resample_iso(slice, 1, NULL);
    assert_int_equal(iso->grid.size_ijk[2], 1);
    PULMO_SCOPED(volume_free_at)
    struct volume *voxel = field_on(columns, (double[3]){0.7, 0.7, 5}, (int32_t[3]){1, 1, 1});
    PULMO_SCOPED(volume_free_at) struct volume *same = volume_resample_iso(voxel, 1, NULL);
    assert_int_equal(grid_voxels(&same->grid), 1);
    assert_int_equal(same->hu[0], voxel->hu[0]);
}

static void impossible_grids_are_refused(void **state) {
    (void)state;
    const double columns[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
    struct err err = {0};
    PULMO_SCOPED(volume_free_at)
    struct volume *huge = field_on(columns, (double[3]){90, 1, 1}, (int32_t[3]){50, 4, 4});
    assert_null(volume_resample_iso(huge, 1, &err));
    assert_int_equal(err.kind, ERR_LIMIT);
    huge->grid.spacing_mm[2] = 0;
    assert_null(volume_resample_iso(huge, 1, &err));
    assert_int_equal(err.kind, ERR_INPUT);
    const double flat[3][3] = {{1, 0, 0}, {1, 0, 0}, {0, 0, 1}};
    PULMO_SCOPED(volume_free_at)
    struct volume *singular = field_on(flat, (double[3]){1, 1, 1}, (int32_t[3]){4, 4, 4});
    assert_null(volume_resample_iso(singular, 1, &err));
    assert_int_equal(err.kind, ERR_INPUT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(axial_either_way),           cmocka_unit_test(tilted_and_coronal),
        cmocka_unit_test(sides_reach_the_last_voxel), cmocka_unit_test(shrinking_averages),
        cmocka_unit_test(one_slice_and_one_voxel),    cmocka_unit_test(impossible_grids_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
