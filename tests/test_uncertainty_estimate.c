/* LABELS: quick tsan
 * Monte-Carlo dropout with the shipped model on a small synthetic lung. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "uncertainty/uncertainty.h"

#define MODEL "models/model.json"
#define CANDIDATES 5

static struct volume *lung_new(void) {
    struct grid grid = {.size_ijk = {64, 60, 56},
                        .spacing_mm = {1, 1, 1},
                        .ijk_to_lps_mm = {{1, 0, 0, -30}, {0, 1, 0, -200.5}, {0, 0, 1, 12.25}}};
    struct volume *volume = volume_new(&grid, NULL);
    assert_non_null(volume);
    uint32_t noise = 1;
    for (size_t n = 0; n < grid_voxels(&grid); n++) {
        noise = noise * 1664525 + 1013904223;
        int x = (int)(n % 64) - 30, y = (int)(n / 64 % 60) - 28, z = (int)(n / 3840) - 27;
        volume->hu[n] = (int16_t)(x * x + y * y + z * z < 49 ? 30 : -860 + (int)(noise >> 25));
    }
    return volume;
}

static struct findings findings_new(const struct volume *volume) {
    struct findings findings = {.items = calloc(CANDIDATES, sizeof *findings.items), .count = CANDIDATES};
    assert_non_null(findings.items);
    for (int n = 0; n < CANDIDATES; n++) {
        double ijk[3] = {30 + 3 * n, 28, 27 - 2 * n};
        grid_to_lps(&volume->grid, ijk, findings.items[n].center_lps_mm);
        findings.items[n].detector_logit = 1 - n;
    }
    return findings;
}

struct fixture {
    struct infer_model *model;
    struct volume *volume;
};

static int fixture_make(void **state) {
    static struct fixture fixture;
    struct err err = {0};
    fixture.model = infer_model_open(MODEL, &err);
    if (!fixture.model)
        print_message("%s\n", err.text);
    fixture.volume = lung_new();
    *state = &fixture;
    return fixture.model ? 0 : -1;
}

static int fixture_free(void **state) {
    struct fixture *fixture = *state;
    infer_model_free(fixture->model);
    volume_free(fixture->volume);
    return 0;
}

static struct findings estimate(const struct fixture *fixture, unsigned threads,
                                const struct uncertainty_config *config) {
    struct err err = {0};
    struct infer_session_config session_config = {.threads = threads};
    struct infer_session *session = infer_session_new(fixture->model, &session_config, &err);
    struct findings findings = findings_new(fixture->volume);
    if (!session || !uncertainty_estimate(session, fixture->volume, config, &findings, &err))
        fail_msg("%s", err.text);
    infer_session_free(session);
    return findings;
}

static void dropout_0_gives_equal_passes(void **state) {
    struct uncertainty_config config = {.seed = 3, .passes = 30, .dropout = 0, .operating_point = -1};
    struct findings findings = estimate(*state, 1, &config);
    for (size_t n = 0; n < findings.count; n++) {
        const struct finding *finding = &findings.items[n];
        assert_int_equal(finding->pass_count, 30);
        assert_true(finding->mutual_information_nats == 0);
        assert_true(finding->probability_low == finding->probability_high);
        for (int pass = 1; pass < 30; pass++)
            assert_true(finding->pass_probabilities[pass] == finding->pass_probabilities[0]);
    }
    findings_free(&findings);
}

/* The model's own dropout moves the passes, unless calibration ignores stage 2 (b = 0): then only the uncalibrated
 * figures can show it. */
static void dropout_spreads_the_passes(void **state) {
    const struct fixture *fixture = *state;
    struct uncertainty_config config = {.seed = 3, .passes = 30, .dropout = -1, .operating_point = -1};
    struct findings findings = estimate(fixture, 1, &config);
    bool stage_2_counts = infer_model_info(fixture->model)->calibration_b != 0;
    for (size_t n = 0; n < findings.count; n++) {
        const struct finding *finding = &findings.items[n];
        assert_true(finding->mutual_information_nats > 0);
        assert_true(finding->mutual_information_nats < finding->entropy_nats);
        if (stage_2_counts)
            assert_true(finding->probability_low < finding->probability_high);
        assert_int_equal(finding->id, n + 1);
        assert_true(n == 0 || finding->probability <= finding[-1].probability);
        assert_int_not_equal(finding->texture, TEXTURE_UNKNOWN);
    }
    findings_free(&findings);
}

static void same_seed_same_bytes_on_any_number_of_threads(void **state) {
    struct uncertainty_config config = {.seed = 99, .passes = 12, .dropout = -1, .operating_point = 0.3};
    struct findings one = estimate(*state, 1, &config), two = estimate(*state, 2, &config);
    struct findings again = estimate(*state, 3, &config);
    assert_memory_equal(one.items, two.items, one.count * sizeof *one.items);
    assert_memory_equal(one.items, again.items, one.count * sizeof *one.items);
    config.seed = 100;
    struct findings other = estimate(*state, 2, &config);
    bool differs = false;
    for (size_t n = 0; n < one.count; n++)
        differs = differs || one.items[n].mutual_information_nats != other.items[n].mutual_information_nats;
    assert_true(differs);
    findings_free(&one);
    findings_free(&two);
    findings_free(&again);
    findings_free(&other);
}

static void refusals_leave_the_findings_alone(void **state) {
    const struct fixture *fixture = *state;
    struct infer_session *session = infer_session_new(fixture->model, NULL, NULL);
    assert_non_null(session);
    static const struct uncertainty_config wrong[] = {{.passes = 0, .dropout = -1, .operating_point = -1},
                                                      {.passes = 101, .dropout = -1, .operating_point = -1},
                                                      {.passes = 3, .dropout = 1, .operating_point = -1},
                                                      {.passes = 3, .dropout = -1, .operating_point = 1.5}};
    for (size_t n = 0; n < sizeof wrong / sizeof *wrong; n++) {
        struct findings findings = findings_new(fixture->volume), before = findings_new(fixture->volume);
        struct err err = {0};
        assert_false(uncertainty_estimate(session, fixture->volume, &wrong[n], &findings, &err));
        assert_int_not_equal(err.kind, ERR_NONE);
        assert_memory_equal(findings.items, before.items, CANDIDATES * sizeof *before.items);
        findings_free(&findings);
        findings_free(&before);
    }
    struct findings none = {0};
    struct uncertainty_config good = {.passes = 3, .dropout = -1, .operating_point = -1};
    assert_true(uncertainty_estimate(session, fixture->volume, &good, &none, NULL));
    infer_session_free(session);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dropout_0_gives_equal_passes),
        cmocka_unit_test(dropout_spreads_the_passes),
        cmocka_unit_test(same_seed_same_bytes_on_any_number_of_threads),
        cmocka_unit_test(refusals_leave_the_findings_alone),
    };
    return cmocka_run_group_tests(tests, fixture_make, fixture_free);
}
