/* LABELS: full
 * Every chest of the shared data is accepted by the gate, the abdomen is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/volume_cases.h"
#include "volume/volume.h"

struct verdict {
    struct volume_quality quality;
    struct refusals refusals;
};

static struct verdict judge(const struct volume *source) {
    struct err err = {0};
    PULMO_SCOPED(volume_free_at) struct volume *iso = volume_resample_iso(source, 1, &err);
    if (!iso)
        fail_msg("%s", err.text);
    PULMO_SCOPED(mask_free_at) struct mask *lungs = volume_lungs(iso, &err);
    if (!lungs)
        fail_msg("%s", err.text);
    struct verdict verdict = {0};
    volume_gate(iso, lungs, &verdict.quality, &verdict.refusals);
    return verdict;
}

static void expect_chest(const char *name, const struct volume *source) {
    struct verdict verdict = judge(source);
    if (verdict.refusals.count)
        fail_msg("%s: %s", name, verdict.refusals.items[0].text);
    printf("%s: right %.0f ml, left %.0f ml\n", name, verdict.quality.right_ml, verdict.quality.left_ml);
    /* both lungs were found and told apart: neither is less than a third of the other */
    assert_true(verdict.quality.right_ml > verdict.quality.left_ml / 3);
    assert_true(verdict.quality.left_ml > verdict.quality.right_ml / 3);
}

/* The sanitizers look at memory, not at verdicts, and are ten times slower: one host does for them. */
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#define HOSTS 1
#else
#define HOSTS 15
#endif

static void hosts_are_chests(void **state) {
    (void)state;
    char folder[512], path[1024];
    DIR *listing = opendir(cases_path(folder, "data/hosts"));
    assert_non_null(listing);
    int count = 0;
    for (struct dirent *entry; count < HOSTS && (entry = readdir(listing));) {
        if (!strstr(entry->d_name, ".nii.gz"))
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        PULMO_SCOPED(volume_free_at) struct volume *host = cases_nifti(path);
        assert_non_null(host);
        expect_chest(entry->d_name, host);
        count++;
    }
    closedir(listing);
    assert_int_equal(count, HOSTS);
}

static void whole_ct_is_a_chest(void **state) {
    (void)state;
    char folder[512];
    PULMO_SCOPED(volume_free_at) struct volume *ct = cases_dicom(cases_path(folder, "data/ct/cptac-c3n-00247"));
    assert_non_null(ct);
    expect_chest("cptac-c3n-00247", ct);
}

static void abdomen_is_refused(void **state) {
    (void)state;
    char folder[512];
    PULMO_SCOPED(volume_free_at) struct volume *ct = cases_dicom(cases_path(folder, "data/ct/not-a-chest"));
    assert_non_null(ct);
    struct verdict verdict = judge(ct);
    assert_int_equal(verdict.refusals.count, 1);
    assert_int_equal(verdict.refusals.items[0].code, REFUSAL_NOT_A_CHEST);
}

/* The slices first .. end of a volume, or its middle third along x. */
static struct volume *part_of(const struct volume *whole, int axis, int32_t first, int32_t end) {
    struct grid grid = whole->grid;
    grid.size_ijk[axis] = end - first;
    double corner[3] = {0}, lps[3];
    corner[axis] = first;
    grid_to_lps(&whole->grid, corner, lps);
    for (int row = 0; row < 3; row++)
        grid.ijk_to_lps_mm[row][3] = lps[row];
    struct volume *part = volume_new(&grid, NULL);
    assert_non_null(part);
    int32_t at[3];
    size_t n = 0;
    for (at[2] = 0; at[2] < grid.size_ijk[2]; at[2]++)
        for (at[1] = 0; at[1] < grid.size_ijk[1]; at[1]++)
            for (at[0] = 0; at[0] < grid.size_ijk[0]; at[0]++) {
                int32_t from[3] = {at[0], at[1], at[2]};
                from[axis] += first;
                size_t row = (size_t)from[2] * (size_t)whole->grid.size_ijk[1] + (size_t)from[1];
                part->hu[n++] = whole->hu[row * (size_t)whole->grid.size_ijk[0] + (size_t)from[0]];
            }
    return part;
}

static void cut_lungs_are_refused(void **state) {
    (void)state;
    char folder[512];
    PULMO_SCOPED(volume_free_at) struct volume *ct = cases_dicom(cases_path(folder, "data/ct/cptac-c3n-00247"));
    assert_non_null(ct);
    int32_t slices = ct->grid.size_ijk[2];
    PULMO_SCOPED(volume_free_at) struct volume *no_apex = part_of(ct, 2, 0, slices * 7 / 10);
    PULMO_SCOPED(volume_free_at) struct volume *no_base = part_of(ct, 2, slices / 2, slices);
    PULMO_SCOPED(volume_free_at) struct volume *bases = part_of(ct, 2, 0, slices * 45 / 100);
    assert_int_equal(judge(no_apex).refusals.items[0].code, REFUSAL_LUNGS_CUT);
    assert_int_equal(judge(no_base).refusals.items[0].code, REFUSAL_LUNGS_CUT);
    assert_int_equal(judge(bases).refusals.items[0].code, REFUSAL_NOT_A_CHEST);
}

/* A field of view that cuts the chest wall away on both sides: the lungs touch its border, and stay lungs. */
static void narrow_view_keeps_lungs(void **state) {
    (void)state;
    char folder[512];
    PULMO_SCOPED(volume_free_at) struct volume *ct = cases_dicom(cases_path(folder, "data/ct/cptac-c3n-00247"));
    assert_non_null(ct);
    PULMO_SCOPED(volume_free_at) struct volume *narrow = part_of(ct, 0, 60, 512 - 60);
    struct verdict whole = judge(ct), cut = judge(narrow);
    assert_int_equal(cut.refusals.count, 0);
    assert_true(cut.quality.lung_volume_ml > 0.7 * whole.quality.lung_volume_ml);
}

int main(void) {
    if (!cases_present())
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts_are_chests),        cmocka_unit_test(whole_ct_is_a_chest),
        cmocka_unit_test(abdomen_is_refused),      cmocka_unit_test(cut_lungs_are_refused),
        cmocka_unit_test(narrow_view_keeps_lungs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
