/* LABELS: quick
 * Lungs and gate on the phantom chest and on masks made by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "phantom/phantom.h"
#include "volume/volume.h"

static size_t index_at(const struct grid *grid, const double lps_mm[3]) {
    double ijk[3];
    assert_true(grid_to_ijk(grid, lps_mm, ijk));
    for (int axis = 0; axis < 3; axis++)
        assert_true(ijk[axis] >= 0 && ijk[axis] <= grid->size_ijk[axis] - 1);
    size_t across = (size_t)grid->size_ijk[0], rows = (size_t)grid->size_ijk[1];
    return ((size_t)lround(ijk[2]) * rows + (size_t)lround(ijk[1])) * across + (size_t)lround(ijk[0]);
}

struct chest {
    struct phantom phantom;
    struct volume *iso;
    struct mask *lungs;
};

static int make_chest(void **state) {
    static struct chest chest;
    const struct phantom_config config = {.seed = 3, .nodules = 8, .spacing_mm = 4};
    struct err err = {0};
    if (!phantom_make(&config, &chest.phantom, &err))
        return -1;
    chest.iso = volume_resample_iso(chest.phantom.volume, 1.5, &err);
    chest.lungs = chest.iso ? volume_lungs(chest.iso, &err) : NULL;
    *state = &chest;
    return chest.lungs ? 0 : -1;
}

static int free_chest(void **state) {
    struct chest *chest = *state;
    phantom_free(&chest->phantom);
    volume_free(chest->iso);
    mask_free(chest->lungs);
    return 0;
}

static void phantom_is_a_chest(void **state) {
    const struct chest *chest = *state;
    struct volume_quality quality;
    struct refusals refusals = {0};
    volume_gate(chest->iso, chest->lungs, &quality, &refusals);
    if (refusals.count)
        fail_msg("%s", refusals.items[0].text);
    assert_true(quality.right_ml > 1000 && quality.left_ml > 1000);
    assert_true(fabs(quality.right_ml + quality.left_ml - quality.lung_volume_ml) < 1e-6);
}

/* The patient's right is at the smaller x; nodules lie in the lungs, also those at the pleura. */
static void sides_and_nodules_are_right(void **state) {
    const struct chest *chest = *state;
    const struct grid *grid = &chest->lungs->grid;
    double sum[4] = {0}, count[4] = {0};
    for (size_t n = 0; n < grid_voxels(grid); n++) {
        sum[chest->lungs->voxel[n]] += (double)(n % (size_t)grid->size_ijk[0]);
        count[chest->lungs->voxel[n]]++;
    }
    assert_true(count[3] == 0);
    double middle = (sum[1] / count[1] + sum[2] / count[2]) / 2;
    assert_true(sum[1] / count[1] + 40 < sum[2] / count[2]);
    assert_int_equal(chest->phantom.nodule_count, 8);
    for (size_t n = 0; n < chest->phantom.nodule_count; n++) {
        size_t at = index_at(grid, chest->phantom.nodules[n].center_lps_mm);
        bool right = (double)(at % (size_t)grid->size_ijk[0]) < middle;
        assert_int_equal(chest->lungs->voxel[at], right ? 1 : 2);
    }
}

static void outside_is_masked_within_a_margin(void **state) {
    const struct chest *chest = *state;
    const struct grid *grid = &chest->iso->grid;
    size_t voxels = grid_voxels(grid);
    struct volume *masked = volume_new(grid, NULL);
    assert_non_null(masked);
    memcpy(masked->hu, chest->iso->hu, voxels * sizeof *masked->hu);
    assert_true(volume_mask_outside(masked, chest->lungs, 15, NULL));
    size_t kept = 0;
    for (size_t n = 0; n < voxels; n++) {
        assert_true(masked->hu[n] == chest->iso->hu[n] || masked->hu[n] == -1024);
        if (chest->lungs->voxel[n])
            assert_int_equal(masked->hu[n], chest->iso->hu[n]);
        kept += masked->hu[n] != -1024;
    }
    /* along a row through a lung: 15 mm beyond its outermost voxel are kept, what follows is not */
    size_t at = index_at(grid, chest->phantom.nodules[0].center_lps_mm);
    size_t row = at / (size_t)grid->size_ijk[0] * (size_t)grid->size_ijk[0], first = row;
    while (!chest->lungs->voxel[first])
        first++;
    assert_true(first - row > 12);
    for (size_t n = 1; n <= 10; n++)
        assert_int_equal(masked->hu[first - n], chest->iso->hu[first - n]);
    assert_true(kept < voxels * 6 / 10);
    /* and the lungs of a volume that was masked so are the same lungs */
    PULMO_SCOPED(mask_free_at) struct mask *again = volume_lungs(masked, NULL);
    assert_non_null(again);
    size_t both = 0, either = 0;
    for (size_t n = 0; n < voxels; n++) {
        both += again->voxel[n] && chest->lungs->voxel[n];
        either += again->voxel[n] || chest->lungs->voxel[n];
    }
    assert_true((double)both > 0.97 * (double)either);
    volume_free(masked);
}

static void grids_must_agree(void **state) {
    const struct chest *chest = *state;
    struct grid small = chest->iso->grid;
    small.size_ijk[2] = 2;
    PULMO_SCOPED(mask_free_at) struct mask *mask = mask_new(&small, NULL);
    struct err err = {0};
    assert_false(volume_mask_outside(chest->iso, mask, 15, &err));
    assert_int_equal(err.kind, ERR_INTERNAL);
}

/* Air, water and noise hold no lungs, and the gate says so. */
static void no_lungs_is_an_answer(void **state) {
    (void)state;
    struct grid grid = {.size_ijk = {90, 80, 70}, .spacing_mm = {3, 3, 3}};
    for (int axis = 0; axis < 3; axis++)
        grid.ijk_to_lps_mm[axis][axis] = 3;
    const int16_t values[] = {-1024, -1000, 40, 3000};
    for (size_t v = 0; v < 4; v++) {
        PULMO_SCOPED(volume_free_at) struct volume *volume = volume_new(&grid, NULL);
        for (size_t n = 0; n < grid_voxels(&grid); n++)
            volume->hu[n] = values[v];
        PULMO_SCOPED(mask_free_at) struct mask *lungs = volume_lungs(volume, NULL);
        assert_non_null(lungs);
        struct volume_quality quality;
        struct refusals refusals = {0};
        volume_gate(volume, lungs, &quality, &refusals);
        assert_int_equal(refusals.count, 1);
        assert_int_equal(refusals.items[0].code, REFUSAL_NOT_A_CHEST);
        assert_true(quality.lung_volume_ml == 0);
    }
}

/* ---- the gate on boxes as lungs, at 4 mm ------------------------------------------------------------- */

struct box {
    int32_t wide, deep, from_k, to_k; /* voxels of each lung; slices of 80 */
    int verdict;                      /* refusal code, or -1 */
};

static void gate_by_what_is_in_view(void **state) {
    (void)state;
    const struct box boxes[] = {
        {25, 35, 10, 70, -1},                  /* 6.7 l, all in view */
        {12, 12, 20, 60, REFUSAL_NOT_A_CHEST}, /* 0.7 l */
        {35, 60, 5, 75, REFUSAL_NOT_A_CHEST},  /* 18.8 l */
        {25, 35, 60, 80, REFUSAL_NOT_A_CHEST}, /* 80 mm below the upper end: bases in an abdomen */
        {25, 35, 30, 80, REFUSAL_LUNGS_CUT},   /* apices missing */
        {25, 35, 0, 50, REFUSAL_LUNGS_CUT},    /* bases missing */
        {25, 35, 0, 80, REFUSAL_LUNGS_CUT},    /* both */
    };
    struct grid grid = {.size_ijk = {90, 70, 80}, .spacing_mm = {4, 4, 4}};
    for (int axis = 0; axis < 3; axis++)
        grid.ijk_to_lps_mm[axis][axis] = 4;
    PULMO_SCOPED(volume_free_at) struct volume *volume = volume_new(&grid, NULL);
    for (size_t b = 0; b < sizeof boxes / sizeof *boxes; b++) {
        PULMO_SCOPED(mask_free_at) struct mask *lungs = mask_new(&grid, NULL);
        for (int32_t n = 0; n < 90 * 70 * 80; n++) {
            int32_t i = n % 90, j = n / 90 % 70, k = n / 90 / 70;
            if (k < boxes[b].from_k || k >= boxes[b].to_k || j < 5 || j >= 5 + boxes[b].deep)
                continue;
            lungs->voxel[n] = i >= 5 && i < 5 + boxes[b].wide ? 1 : i >= 48 && i < 48 + boxes[b].wide ? 2 : 0;
        }
        struct volume_quality quality;
        struct refusals refusals = {0};
        volume_gate(volume, lungs, &quality, &refusals);
        int verdict = refusals.count ? (int)refusals.items[0].code : -1;
        if (verdict != boxes[b].verdict)
            fail_msg("box %zu: %s", b, verdict < 0 ? "accepted" : refusals.items[0].text);
        double ml = boxes[b].wide * boxes[b].deep * (boxes[b].to_k - boxes[b].from_k) * 0.064;
        assert_true(fabs(quality.right_ml - ml) < 1e-6 && fabs(quality.left_ml - ml) < 1e-6);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(phantom_is_a_chest),
        cmocka_unit_test(sides_and_nodules_are_right),
        cmocka_unit_test(outside_is_masked_within_a_margin),
        cmocka_unit_test(grids_must_agree),
        cmocka_unit_test(no_lungs_is_an_answer),
        cmocka_unit_test(gate_by_what_is_in_view),
    };
    return cmocka_run_group_tests(tests, make_chest, free_chest);
}
