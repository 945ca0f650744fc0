/* LABELS: quick
 * The shared nouns: geometry, limits, bytes, digests, random numbers. */
#include "digest.h"
#include "pulmo.h"
#include "random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void an_oblique_grid_maps_there_and_back(void **state) {
    (void)state;
    const struct grid grid = {
        .size_ijk = {10, 11, 12},
        .spacing_mm = {0.7, 0.7, 2.5},
        .ijk_to_lps_mm = {{0.65, -0.2, 0.4, -100}, {0.2, 0.66, -0.3, 50}, {-0.1, 0.1, -2.45, 900}}};
    const double ijk[3] = {3.25, 7.5, 11};
    double lps_mm[3], back[3];
    grid_to_lps(&grid, ijk, lps_mm);
    assert_true(grid_to_ijk(&grid, lps_mm, back));
    for (int axis = 0; axis < 3; axis++)
        assert_true(fabs(back[axis] - ijk[axis]) < 1e-9);
    const struct grid flat = {.ijk_to_lps_mm = {{1, 2, 3, 0}, {2, 4, 6, 0}, {0, 0, 1, 0}}};
    assert_false(grid_to_ijk(&flat, lps_mm, back));
}

static void sizes_from_outside_are_refused(void **state) {
    (void)state;
    struct err err = {0};
    assert_null(pulmo_alloc(SIZE_MAX / 2, 4, &err));
    assert_int_equal(err.kind, ERR_LIMIT);
    struct grid grid = {.size_ijk = {65535, 65535, 65535}};
    assert_null(volume_new(&grid, &err));
    assert_int_equal(err.kind, ERR_LIMIT);
    grid.size_ijk[1] = 0;
    assert_null(mask_new(&grid, &err));
    assert_int_equal(err.kind, ERR_INPUT);
}

static void bytes_grow_to_their_limit(void **state) {
    (void)state;
    PULMO_SCOPED(bytes_free) struct bytes bytes = {0};
    struct err err = {0};
    for (int index = 0; index < 1000; index++)
        assert_true(bytes_append(&bytes, &index, sizeof index, 4000, &err));
    assert_false(bytes_append(&bytes, "x", 1, 4000, &err));
    assert_int_equal(err.kind, ERR_LIMIT);
    for (int index = 0, value; index < 1000; index++) {
        memcpy(&value, bytes.data + (size_t)index * sizeof value, sizeof value);
        assert_int_equal(value, index);
    }
}

static void a_file_is_written_whole_or_not_at_all(void **state) {
    (void)state;
    struct err err = {0};
    char path[] = "/tmp/pulmo-bytes-XXXXXX", digest[DIGEST_HEX_SIZE], of_file[DIGEST_HEX_SIZE];
    close(mkstemp(path));
    assert_true(bytes_write_file(path, "abc", 3, true, &err));
    assert_true(digest_hex("abc", 3, digest, &err) && digest_file_hex(path, of_file, &err));
    /* FIPS 180-4, example B.1 */
    assert_string_equal(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_string_equal(digest, of_file);
    assert_false(bytes_write_file("/nowhere/at/all", "abc", 3, true, &err));
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    struct bytes read = {0};
    assert_false(bytes_read_file(path, 2, &read, &err));
    assert_int_equal(err.kind, ERR_LIMIT);
    unlink(path);
}

static void philox_gives_the_published_numbers(void **state) {
    (void)state;
    /* Known-answer vectors of Random123's kat_vectors for philox4x32, 10 rounds. */
    static const struct {
        uint32_t counter[4], key[2], expected[4];
    } rows[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0U, ~0U, ~0U, ~0U}, {~0U, ~0U}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t index = 0; index < sizeof rows / sizeof *rows; index++) {
        uint32_t out[4];
        random_philox(rows[index].key, rows[index].counter, out);
        assert_memory_equal(out, rows[index].expected, sizeof out);
    }
}

static void an_error_keeps_its_kind_within_context(void **state) {
    (void)state;
    struct err err = {0};
    assert_false(err_set(&err, ERR_INPUT, "slice %d is missing", 7));
    assert_false(err_within(&err, "series %s", "1.2"));
    assert_string_equal(err.text, "series 1.2: slice 7 is missing");
    assert_int_equal(err.kind, ERR_INPUT);
    for (int depth = 0; depth < 100; depth++)
        err_within(&err, "a long context that will not fit for ever");
    assert_true(strlen(err.text) < sizeof err.text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_oblique_grid_maps_there_and_back), cmocka_unit_test(sizes_from_outside_are_refused),
        cmocka_unit_test(bytes_grow_to_their_limit),           cmocka_unit_test(a_file_is_written_whole_or_not_at_all),
        cmocka_unit_test(philox_gives_the_published_numbers),  cmocka_unit_test(an_error_keeps_its_kind_within_context),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
