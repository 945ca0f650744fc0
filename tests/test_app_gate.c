/* LABELS: full
 * The whole image gate with the shipped model: every chest of the shared data and the phantom are accepted; what is no
 * chest, and chests that were damaged, are refused, each by the reason that is its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "app/analysis.h"
#include "phantom/phantom.h"
#include "random.h"
#include "tests/volume_cases.h"

static struct {
    struct engine engine;
    struct volume *chest; /* one host, or NULL without the shared data */
} fixture;

static int open_engine(void **state) {
    (void)state;
    struct err err = {0};
    struct config config;
    config_defaults(&config);
    if (!config_set(&config, "model", "models/model.json", &err) || !engine_open(&config, &fixture.engine, &err))
        return -1;
    char path[512];
    if (cases_present())
        fixture.chest = cases_nifti(cases_path(path, "data/hosts/lctsc-test-s1-102.nii.gz"));
    return 0;
}

static int close_engine(void **state) {
    (void)state;
    volume_free(fixture.chest);
    engine_close(&fixture.engine);
    return 0;
}

static struct analysis judge(const struct volume *source) {
    struct err err = {0};
    struct analysis analysis = {0};
    if (!analysis_judge_volume(&fixture.engine, source, &analysis, &err))
        fail_msg("%s", err.text);
    return analysis;
}

static void expect_accepted(const char *name, const struct volume *source) {
    PULMO_SCOPED(analysis_free) struct analysis analysis = judge(source);
    if (analysis.refusals.count)
        fail_msg("%s: %s: %s", name, refusal_name(analysis.refusals.items[0].code), analysis.refusals.items[0].text);
    assert_true(analysis.gated && analysis.gate.score > 0 && analysis.gate.score <= 1);
    print_message("%-32s score %.2f (%s)\n", name, analysis.gate.score, analysis.gate.part);
}

#define HOSTS 15

static void hosts_are_accepted(void **state) {
    (void)state;
    if (!fixture.chest)
        skip();
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
        expect_accepted(entry->d_name, host);
        count++;
    }
    closedir(listing);
    assert_int_equal(count, HOSTS);
}

/* The reference input of the demo, the self-test and these tests. */
static void phantoms_are_accepted(void **state) {
    (void)state;
    static const struct phantom_config configs[] = {
        {.seed = 1, .nodules = 1}, {.seed = 2, .nodules = 4, .spacing_mm = 1.25}, {.seed = 3, .spacing_mm = 5}};
    for (size_t n = 0; n < sizeof configs / sizeof *configs; n++) {
        struct err err = {0};
        char name[64];
        PULMO_SCOPED(phantom_free) struct phantom phantom = {0};
        assert_true(phantom_make(&configs[n], &phantom, &err));
        snprintf(name, sizeof name, "phantom, seed %zu", n + 1);
        expect_accepted(name, phantom.volume);
    }
}

/* ---- what is done to a chest ------------------------------------------------------------------------------------- */

static void flip(struct volume *v, bool along_z, bool along_y) {
    const int32_t *size = v->grid.size_ijk;
    PULMO_SCOPED(volume_free_at) struct volume *old = volume_new(&v->grid, NULL);
    assert_non_null(old);
    size_t across = (size_t)size[0], n = 0;
    memcpy(old->hu, v->hu, grid_voxels(&v->grid) * sizeof *v->hu);
    for (int32_t k = 0; k < size[2]; k++)
        for (int32_t j = 0; j < size[1]; j++, n += across) {
            int32_t from_k = along_z ? size[2] - 1 - k : k, from_j = along_y ? size[1] - 1 - j : j;
            memcpy(v->hu + n, old->hu + ((size_t)from_k * (size_t)size[1] + (size_t)from_j) * across,
                   across * sizeof *v->hu);
        }
}

static void upside_down(struct volume *v) {
    flip(v, true, false);
}

static void back_to_front(struct volume *v) {
    flip(v, false, true);
}

/* On every voxel that was measured: hu * slope + offset + sigma * noise. */
static void change(struct volume *v, double slope, double offset, double sigma) {
    for (size_t n = 0; n < grid_voxels(&v->grid); n++) {
        uint32_t bits[4];
        random_philox((const uint32_t[2]){5, 6}, (const uint32_t[4]){(uint32_t)n, 0, 0, 0}, bits);
        double sum = 0; /* of four uniform numbers: near enough to normal, variance 1/3 */
        for (int part = 0; part < 4; part++)
            sum += (double)random_uniform(bits[part]) - 0.5;
        double hu = v->hu[n] * slope + offset + sigma * sqrt(3) * sum;
        if (v->hu[n] > -1024)
            v->hu[n] = (int16_t)lrint(fmax(-1024, fmin(3071, hu)));
    }
}

static void inverted(struct volume *v) {
    change(v, -1, -416, 0);
}

static void shifted(struct volume *v) {
    change(v, 1, 1024, 0);
}

static void noisy(struct volume *v) {
    change(v, 1, 0, 400);
}

static int16_t *slice_of(const struct volume *v, int32_t k) {
    return v->hu + (size_t)v->grid.size_ijk[0] * (size_t)v->grid.size_ijk[1] * (size_t)k;
}

static size_t slice_bytes(const struct volume *v) {
    return (size_t)v->grid.size_ijk[0] * (size_t)v->grid.size_ijk[1] * sizeof *v->hu;
}

/* Slices of the middle third in another order. */
static void shuffled(struct volume *v) {
    int32_t slices = v->grid.size_ijk[2], first = slices / 3, count = slices / 3;
    PULMO_SCOPED(pulmo_free_at) int16_t *kept = pulmo_alloc(1, slice_bytes(v), NULL);
    assert_non_null(kept);
    for (int32_t n = 0; n < count; n++) {
        int32_t other = first + n * 7 % count;
        memcpy(kept, slice_of(v, first + n), slice_bytes(v));
        memcpy(slice_of(v, first + n), slice_of(v, other), slice_bytes(v));
        memcpy(slice_of(v, other), kept, slice_bytes(v));
    }
}

static void repeated(struct volume *v) {
    int32_t middle = v->grid.size_ijk[2] / 2;
    for (int32_t n = 1; n < 16; n++)
        memcpy(slice_of(v, middle + n), slice_of(v, middle), slice_bytes(v));
}

static void zeroed(struct volume *v) {
    int32_t middle = v->grid.size_ijk[2] / 2;
    for (int32_t n = -8; n < 8; n += 2)
        for (size_t at = 0; at < slice_bytes(v) / sizeof *v->hu; at++)
            slice_of(v, middle + n)[at] = -1024;
}

static void striped(struct volume *v) {
    size_t across = (size_t)v->grid.size_ijk[0];
    for (size_t n = 0; n < grid_voxels(&v->grid); n++)
        if (n / across % 6 == 0 && v->hu[n] > -1024)
            v->hu[n] = 608;
}

static void swapped_bytes(struct volume *v) {
    for (size_t n = 0; n < grid_voxels(&v->grid); n++) {
        uint16_t stored = (uint16_t)(v->hu[n] + 1024), swapped = (uint16_t)(stored << 8 | stored >> 8);
        v->hu[n] = (int16_t)(swapped > 4095 ? 3071 : swapped - 1024);
    }
}

static void damaged_chests_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *name;
        void (*damage)(struct volume *);
    } rows[] = {{"upside down", upside_down},    {"back to front", back_to_front}, {"inverted", inverted},
                {"HU + 1024", shifted},          {"heavy noise", noisy},           {"shuffled slices", shuffled},
                {"repeated slices", repeated},   {"zeroed slices", zeroed},        {"stripes", striped},
                {"swapped bytes", swapped_bytes}};
    if (!fixture.chest)
        skip();
    int missed = 0;
    for (size_t n = 0; n < sizeof rows / sizeof *rows; n++) {
        PULMO_SCOPED(volume_free_at) struct volume *copy = volume_new(&fixture.chest->grid, NULL);
        assert_non_null(copy);
        memcpy(copy->hu, fixture.chest->hu, grid_voxels(&copy->grid) * sizeof *copy->hu);
        rows[n].damage(copy);
        PULMO_SCOPED(analysis_free) struct analysis analysis = judge(copy);
        print_message("%-20s %s, score %.2f\n", rows[n].name,
                      analysis.refusals.count ? analysis.refusals.items[0].text : "ACCEPTED", analysis.gate.score);
        missed += analysis.refusals.count == 0;
    }
    assert_int_equal(missed, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(phantoms_are_accepted),
        cmocka_unit_test(hosts_are_accepted),
        cmocka_unit_test(damaged_chests_are_refused),
    };
    return cmocka_run_group_tests(tests, open_engine, close_engine);
}
