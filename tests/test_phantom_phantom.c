/* LABELS: quick */
/* The phantom is what it says: the same for the same seed, lungs that the quality gate accepts, nodules where it says.
 */
#include "digest.h"
#include "phantom/phantom.h"
#include "volume/volume.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct phantom made;
static const struct phantom_config made_config = {.seed = 1, .nodules = 3, .spacing_mm = 5};

static struct phantom make(const struct phantom_config *config) {
    struct phantom phantom = {0};
    struct err err = {0};
    if (!phantom_make(config, &phantom, &err))
        fail_msg("%s", err.text);
    return phantom;
}

static int set_up(void **state) {
    (void)state;
    made = make(&made_config);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    phantom_free(&made);
    return 0;
}

static void digest_of(const struct phantom *phantom, char out[DIGEST_HEX_SIZE]) {
    assert_true(digest_hex(phantom->volume->hu, grid_voxels(&phantom->volume->grid) * 2, out, NULL));
}

static void test_seed_decides_every_voxel(void **state) {
    (void)state;
    char first[DIGEST_HEX_SIZE], again[DIGEST_HEX_SIZE], other[DIGEST_HEX_SIZE];
    struct phantom_config config = {.seed = 9, .slices = 4, .nodules = 0, .spacing_mm = 1};
    for (int run = 0; run < 3; run++) {
        config.seed = run == 2 ? 10 : 9;
        struct phantom phantom = make(&config);
        digest_of(&phantom, run == 0 ? first : run == 1 ? again : other);
        phantom_free(&phantom);
    }
    assert_string_equal(first, again);
    assert_string_not_equal(first, other);
}

static void test_gate_accepts_it(void **state) {
    (void)state;
    struct err err = {0};
    struct volume *iso = volume_resample_iso(made.volume, 2.0, &err);
    assert_non_null(iso);
    struct mask *lungs = volume_lungs(iso, &err);
    assert_non_null(lungs);
    struct volume_quality quality;
    struct refusals refusals = {0};
    volume_gate(iso, lungs, &quality, &refusals);
    if (refusals.count)
        fail_msg("%s: %s", refusal_name(refusals.items[0].code), refusals.items[0].text);
    print_message("right %.0f ml, left %.0f ml\n", quality.right_ml, quality.left_ml);
    assert_true(quality.lung_volume_ml > 3000 && quality.lung_volume_ml < 5000);
    assert_true(quality.right_ml > 1000 && quality.left_ml > 1000);
    for (size_t index = 0; index < made.nodule_count; index++) {
        double ijk[3];
        assert_true(grid_to_ijk(&lungs->grid, made.nodules[index].center_lps_mm, ijk));
        const int32_t *size = lungs->grid.size_ijk;
        size_t at =
            ((size_t)lrint(ijk[2]) * (size_t)size[1] + (size_t)lrint(ijk[1])) * (size_t)size[0] + (size_t)lrint(ijk[0]);
        assert_int_not_equal(lungs->voxel[at], 0);
    }
    mask_free(lungs);
    volume_free(iso);
}

/* Mean HU in the shell between two distances of a point. */
static double shell_mean(const struct volume *volume, const double center[3], double from_mm, double to_mm) {
    const int32_t *size = volume->grid.size_ijk;
    double sum = 0, count = 0;
    size_t n = 0;
    for (int32_t k = 0; k < size[2]; k++)
        for (int32_t j = 0; j < size[1]; j++)
            for (int32_t i = 0; i < size[0]; i++, n++) {
                double lps[3], ijk[3] = {i, j, k};
                grid_to_lps(&volume->grid, ijk, lps);
                double distance = hypot(hypot(lps[0] - center[0], lps[1] - center[1]), lps[2] - center[2]);
                if (distance < from_mm || distance >= to_mm)
                    continue;
                sum += volume->hu[n];
                count++;
            }
    return count > 0 ? sum / count : NAN;
}

static void test_nodules_are_where_it_says(void **state) {
    (void)state;
    assert_int_equal(made.nodule_count, 3);
    for (size_t index = 0; index < made.nodule_count; index++) {
        const struct phantom_nodule *nodule = &made.nodules[index];
        assert_true(nodule->diameter_mm >= 8 && nodule->diameter_mm <= 16);
        assert_int_equal(nodule->texture, TEXTURE_SOLID);
        double inside = shell_mean(made.volume, nodule->center_lps_mm, 0, nodule->diameter_mm / 2 - 2);
        double around =
            shell_mean(made.volume, nodule->center_lps_mm, nodule->diameter_mm / 2 + 3, nodule->diameter_mm / 2 + 5);
        assert_true(inside > -250 && inside < 80);
        assert_true(around < -700);
    }
}

static void test_refuses_what_cannot_be(void **state) {
    (void)state;
    const struct phantom_config wrong[] = {
        {.slices = -1},      {.slices = 2001},    {.nodules = PHANTOM_NODULES_MAX + 1},
        {.spacing_mm = 0.2}, {.spacing_mm = NAN}, {.slices = 1, .nodules = 16}};
    for (size_t index = 0; index < sizeof wrong / sizeof *wrong; index++) {
        struct phantom phantom = {0};
        struct err err = {0};
        assert_false(phantom_make(&wrong[index], &phantom, &err));
        assert_int_equal(err.kind, ERR_LIMIT);
        assert_null(phantom.volume);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seed_decides_every_voxel), cmocka_unit_test(test_gate_accepts_it),
        cmocka_unit_test(test_nodules_are_where_it_says), cmocka_unit_test(test_refuses_what_cannot_be)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
