/* Monte-Carlo passes: the masks' law, and what keys them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/infer.h"
#include "infer/operators.h"

#define ENTRIES 8
#define WIDTH 4001 /* odd: the last counter gives one element */

/* Runs the operator alone on ones. */
static void mask_of(const struct dropout_keys *keys, float ratio, int ordinal, float *out) {
    static float ones[ENTRIES * WIDTH];
    struct graph_node node = {.operation = infer_operator_find("Dropout"), .dropout = ordinal};
    struct shape shape = {.rank = 2, .dims = {ENTRIES, WIDTH}};
    for (int n = 0; n < ENTRIES * WIDTH; n++)
        ones[n] = 1;
    struct operation_call call = {.node = &node, .dropout = keys, .present = {true, true}};
    call.in[0] = (struct tensor){.shape = shape, .data = ones};
    call.in[1] = (struct tensor){.data = &ratio};
    call.out[0] = (struct tensor){.shape = shape, .data = out};
    node.operation->run(&call);
}

static int differences(const float *a, const float *b, int count) {
    int differ = 0;
    for (int n = 0; n < count; n++)
        differ += a[n] != b[n];
    return differ;
}

static void masks_are_inverted_dropout_at_the_rate(void **state) {
    (void)state;
    float *mask = calloc(ENTRIES * WIDTH, sizeof *mask);
    static const float rates[] = {0.1F, 0.2F, 0.5F, 0.9F};
    for (int i = 0; i < 4; i++) {
        struct dropout_keys keys = {.active = true, .seed = 77, .candidate = 3, .rate = -1};
        mask_of(&keys, rates[i], 0, mask);
        int kept = 0;
        for (int n = 0; n < ENTRIES * WIDTH; n++) {
            assert_true(mask[n] == 0 || mask[n] == 1 / (1 - rates[i]));
            kept += mask[n] != 0;
        }
        double count = ENTRIES * WIDTH, keep = 1 - (double)rates[i];
        assert_true(fabs(kept - count * keep) < 5 * sqrt(count * keep * (1 - keep))); /* five sigma */
    }
    free(mask);
}

static void every_key_changes_the_mask(void **state) {
    (void)state;
    struct dropout_keys base = {.active = true, .seed = 5, .candidate = 2, .rate = -1},
                        other[4] = {base, base, base, base};
    float *a = calloc(ENTRIES * WIDTH, sizeof *a), *b = calloc(ENTRIES * WIDTH, sizeof *b);
    other[0].seed = 6;
    other[1].seed = 5 | (uint64_t)1 << 40; /* the high half counts too */
    other[2].candidate = 3;
    mask_of(&base, 0.5F, 1, a);
    for (int i = 0; i < 4; i++) {
        mask_of(&other[i], 0.5F, i == 3 ? 2 : 1, b); /* the last differs in the node */
        assert_true(abs(differences(a, b, ENTRIES * WIDTH) - ENTRIES * WIDTH / 2) < 500);
    }
    for (int entry = 1; entry < ENTRIES; entry++)
        assert_true(differences(a, a + entry * WIDTH, WIDTH) > WIDTH / 3);
    other[0] = base; /* pass 3 is the same pass whichever batch it is computed in */
    other[0].pass_first = 3;
    mask_of(&other[0], 0.5F, 1, b);
    assert_memory_equal(a + 3 * WIDTH, b, (ENTRIES - 3) * WIDTH * sizeof *a);
    free(a);
    free(b);
}

static void without_dropout_everything_passes(void **state) {
    (void)state;
    float *mask = calloc(ENTRIES * WIDTH, sizeof *mask);
    struct dropout_keys off = {.active = false, .rate = 0.5}, zero = {.active = true, .rate = 0};
    const struct dropout_keys *cases[] = {NULL, &off, &zero};
    for (int i = 0; i < 3; i++) {
        mask_of(cases[i], 0.4F, 0, mask);
        for (int n = 0; n < ENTRIES * WIDTH; n++)
            assert_true(mask[n] == 1);
    }
    struct dropout_keys given = {.active = true, .rate = 0.75}; /* the run's rate goes before the graph's */
    mask_of(&given, 0.1F, 0, mask);
    for (int n = 0; n < ENTRIES * WIDTH; n++)
        assert_true(mask[n] == 0 || mask[n] == 4);
    free(mask);
}

static struct volume *noise_new(void) {
    struct grid grid = {.size_ijk = {50, 50, 50}, .spacing_mm = {1, 1, 1}, .ijk_to_lps_mm = {{1}, {0, 1}, {0, 0, 1}}};
    struct volume *volume = volume_new(&grid, NULL);
    uint32_t noise = 3;
    for (size_t n = 0; n < grid_voxels(&grid); n++) {
        noise = noise * 1664525 + 1013904223;
        volume->hu[n] = (int16_t)(-900 + (int)(noise >> 22));
    }
    return volume;
}

static void passes_of_the_shipped_model_keep_their_contract(void **state) {
    (void)state;
    struct err err = {0};
    struct infer_model *model = infer_model_open("models/model.json", &err);
    struct infer_session *session = model ? infer_session_new(model, NULL, &err) : NULL;
    if (!session)
        fail_msg("%s", err.text);
    struct volume *volume = noise_new();
    const double center[3] = {24.25, 25.5, 23.75};
    struct infer_candidate_config config = {.seed = 8, .candidate = 4, .pass_count = 30, .dropout = -1};
    struct infer_candidate_result thirty, ten, none, plain;
    assert_true(infer_candidate(session, volume, center, &config, &thirty, &err));
    config.pass_count = 10;
    assert_true(infer_candidate(session, volume, center, &config, &ten, &err));
    for (int n = 0; n < 10; n++) /* another batch may round otherwise */
        assert_true(fabs((double)thirty.logits[n] - (double)ten.logits[n]) < 1e-5);
    assert_true(thirty.logits[0] != thirty.logits[1]);
    config.dropout = 0;
    assert_true(infer_candidate(session, volume, center, &config, &none, &err));
    config.pass_count = 0;
    config.dropout = -1;
    assert_true(infer_candidate(session, volume, center, &config, &plain, &err));
    assert_int_equal(none.pass_count, 10);
    assert_int_equal(plain.pass_count, 1);
    for (int n = 0; n < 10; n++)
        assert_true(none.logits[n] == plain.logits[0]);
    double textures = 0, attention = 0;
    for (int n = 0; n < 3; n++)
        textures += (double)thirty.texture_probabilities[n];
    for (int n = 0; n < 125; n++)
        attention += (double)(&thirty.attention[0][0][0])[n];
    assert_true(fabs(textures - 1) < 1e-5);
    assert_true(fabs(attention - 1) < 1e-4); /* rows of a softmax, averaged */
    volume_free(volume);
    infer_session_free(session);
    infer_model_free(model);
}

#define SIDE 40 /* of the shipped model's crop */

/* A volume that one crop fills, or its mirror image: bits as infer_candidate takes them. */
static struct volume *crop_new(uint32_t flip) {
    struct grid grid = {
        .size_ijk = {SIDE, SIDE, SIDE}, .spacing_mm = {1, 1, 1}, .ijk_to_lps_mm = {{1}, {0, 1}, {0, 0, 1}}};
    struct volume *volume = volume_new(&grid, NULL);
    uint32_t noise = 9;
    for (int z = 0; z < SIDE; z++)
        for (int y = 0; y < SIDE; y++)
            for (int x = 0; x < SIDE; x++) {
                int to_z = flip & 4 ? SIDE - 1 - z : z, to_y = flip & 2 ? SIDE - 1 - y : y;
                int to_x = flip & 1 ? SIDE - 1 - x : x,
                    away = (x - 22) * (x - 22) + (y - 17) * (y - 17) + (z - 24) * (z - 24);
                noise = noise * 1664525 + 1013904223;
                volume->hu[(to_z * SIDE + to_y) * SIDE + to_x] = (int16_t)(away < 36 ? 20 : -900 + (int)(noise >> 24));
            }
    return volume;
}

/* Pass n is pass n over the mirror image n % flips, bit for bit; without dropout every pass has the images' mean; what
 * the network looked at is turned back. */
static void mirror_images_share_the_passes(void **state) {
    (void)state;
    struct err err = {0};
    struct infer_model *model = infer_model_open("models/model.json", &err);
    struct infer_session *session = model ? infer_session_new(model, NULL, &err) : NULL;
    if (!session)
        fail_msg("%s", err.text);
    const double center[3] = {SIDE / 2 - 1, SIDE / 2 - 1, SIDE / 2 - 1};
    struct infer_candidate_config shared = {.seed = 8, .candidate = 4, .pass_count = 30, .dropout = -1, .flips = 8};
    struct infer_candidate_config alone = shared, plain = {.pass_count = 0, .flips = 8}, plain_alone = {.flips = 1};
    struct infer_candidate_result all, mean, one;
    struct volume *volume = crop_new(0);
    assert_true(infer_candidate(session, volume, center, &shared, &all, &err));
    assert_true(infer_candidate(session, volume, center, &plain, &mean, &err));
    volume_free(volume);
    alone.flips = 1;
    double sum = 0, corner = 0;
    for (uint32_t flip = 0; flip < 8; flip++) {
        volume = crop_new(flip);
        assert_true(infer_candidate(session, volume, center, &alone, &one, &err));
        for (uint32_t pass = flip; pass < 30; pass += 8)
            assert_true(all.logits[pass] == one.logits[pass]);
        if (flip)
            assert_true(all.logits[0] != one.logits[0]);
        assert_true(infer_candidate(session, volume, center, &plain_alone, &one, &err));
        sum += (double)one.logits[0];
        corner += (double)one.attention[flip & 4 ? 4 : 0][flip & 2 ? 3 : 1][flip & 1 ? 4 : 0];
        volume_free(volume);
    }
    assert_true(fabs((double)mean.logits[0] - sum / 8) < 1e-5);
    assert_true(fabs((double)mean.attention[0][1][0] - corner / 8) < 1e-6);
    shared.flips = 9;
    volume = crop_new(0);
    assert_false(infer_candidate(session, volume, center, &shared, &all, &err));
    assert_int_equal(err.kind, ERR_LIMIT);
    volume_free(volume);
    infer_session_free(session);
    infer_model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mirror_images_share_the_passes),
        cmocka_unit_test(masks_are_inverted_dropout_at_the_rate),
        cmocka_unit_test(every_key_changes_the_mask),
        cmocka_unit_test(without_dropout_everything_passes),
        cmocka_unit_test(passes_of_the_shipped_model_keep_their_contract),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
