/* LABELS: quick */
/* A volume written as a CT series comes back voxel for voxel in every syntax, under the same UIDs, and is valid. */
#include "test_dicom_report.h"

static struct dicom_ct_write_config config_of(const char *folder, const char *syntax) {
    return (struct dicom_ct_write_config){folder, syntax, "Test^Phantom", "P-2", "Chest", "Made up", 3};
}

static void test_every_syntax_keeps_every_voxel(void **state) {
    static const char *const names[] = {"explicit", "implicit",      "deflated", "rle",
                                        "jpegls",   "jpeg-lossless", "j2k",      NULL};
    const struct report_fixture *fixture = *state;
    struct volume *volume = report_volume();
    for (size_t index = 0; index < sizeof names / sizeof *names; index++) {
        struct err err = {0};
        struct dicom_ct_write_config config = config_of(fixture->folder, names[index]);
        REPORT_OK(dicom_ct_write(volume, &config, &err), err);
        struct dicom_series *series = report_read(fixture->folder);
        assert_non_null(series->volume);
        assert_memory_equal(series->volume->hu, volume->hu, grid_voxels(&volume->grid) * sizeof *volume->hu);
        for (int row = 0; row < 3; row++)
            for (int column = 0; column < 4; column++)
                assert_true(fabs(series->volume->grid.ijk_to_lps_mm[row][column] -
                                 volume->grid.ijk_to_lps_mm[row][column]) < 1e-6);
        dicom_series_free(series);
    }
    volume_free(volume);
}

static struct bytes first_slice(const char *folder, const char *syntax, uint64_t seed) {
    struct err err = {0};
    struct bytes out = {0};
    char path[512];
    struct volume *volume = report_volume();
    struct dicom_ct_write_config config = config_of(folder, syntax);
    config.seed = seed;
    REPORT_OK(dicom_ct_write(volume, &config, &err), err);
    volume_free(volume);
    for (int k = 0; k < REPORT_SLICES; k++) {
        snprintf(path, sizeof path, "%s/ct-%04d.dcm", folder, k + 1);
        if (k == 0)
            REPORT_OK(bytes_read_file(path, 1 << 20, &out, &err), err);
        unlink(path);
    }
    return out;
}

static void test_same_seed_same_bytes(void **state) {
    const struct report_fixture *fixture = *state;
    struct bytes first = first_slice(fixture->folder, "explicit", 3),
                 again = first_slice(fixture->folder, "explicit", 3),
                 other = first_slice(fixture->folder, "explicit", 4);
    assert_int_equal(first.size, again.size);
    assert_memory_equal(first.data, again.data, first.size);
    struct instance one, two;
    struct err err = {0};
    REPORT_OK(dicom_instance_parse(first.data, first.size, &one, &err), err);
    REPORT_OK(dicom_instance_parse(other.data, other.size, &two, &err), err);
    assert_string_not_equal(one.study_uid, two.study_uid);
    assert_string_not_equal(one.sop_instance_uid, two.sop_instance_uid);
    bytes_free(&first);
    bytes_free(&again);
    bytes_free(&other);
}

static void test_valid(void **state) {
    const struct report_fixture *fixture = *state;
    static const char *const names[] = {"explicit", "implicit", "jpegls", "rle", "j2k"}; /* dciodvfy inflates nothing */
    for (size_t index = 0; index < sizeof names / sizeof *names; index++) {
        struct bytes slice = first_slice(fixture->folder, names[index], 3);
        bool there = report_dciodvfy(fixture, &slice);
        bytes_free(&slice);
        if (!there) {
            print_message("dciodvfy is missing (Debian package dicom3tools)\n");
            skip();
        }
    }
}

static void test_refuses(void **state) {
    const struct report_fixture *fixture = *state;
    struct err err = {0};
    struct volume *volume = report_volume();
    struct dicom_ct_write_config config = config_of(fixture->folder, "jpeg2001");
    assert_false(dicom_ct_write(volume, &config, &err));
    assert_int_equal(err.kind, ERR_UNSUPPORTED);
    config = config_of("/nonexistent-folder", "explicit");
    assert_false(dicom_ct_write(volume, &config, &err));
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    volume_free(volume);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_syntax_keeps_every_voxel),
                                       cmocka_unit_test(test_same_seed_same_bytes), cmocka_unit_test(test_valid),
                                       cmocka_unit_test(test_refuses)};
    return cmocka_run_group_tests(tests, report_set_up, report_tear_down);
}
