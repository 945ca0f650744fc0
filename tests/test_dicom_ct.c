/* LABELS: quick
 * CT series as volumes: geometry, values, the choice of a series, and every reason of the gate. */
#include "test_dicom_folder.h"

#include <dirent.h>
#include <math.h>
#include <unistd.h>

/* ---- series on disk ---------------------------------------------------------------------------------- */

/* Slices in an order that is not that of their positions. */
static void add_series(struct folder *folder, const struct sample *like, int count, double spacing_mm) {
    for (int i = 0; i < count; i++) {
        struct sample sample = *like;
        const int k = (i * 7) % count;
        sample.number = like->number + k;
        sample.z_mm = like->z_mm + k * spacing_mm;
        add(folder, &sample);
    }
}

/* ---- what is read ------------------------------------------------------------------------------------ */

static void test_volume(void **state) {
    (void)state;
    struct folder folder;
    open_folder(&folder);
    add_series(&folder, &(struct sample){.number = 1, .z_mm = -50}, 20, 2.5);
    struct dicom_series *series = read_folder(&folder);
    assert_int_equal(series->refusals.count, 0);
    assert_non_null(series->volume);
    const struct grid *grid = &series->volume->grid;
    assert_int_equal(grid->size_ijk[0], 16);
    assert_int_equal(grid->size_ijk[1], 16);
    assert_int_equal(grid->size_ijk[2], 20);
    const double expected[3][4] = {{0.8, 0, 0, -100}, {0, 0.7, 0, -100}, {0, 0, 2.5, -50}};
    for (size_t row = 0; row < 3; row++)
        for (size_t column = 0; column < 4; column++)
            assert_true(fabs(grid->ijk_to_lps_mm[row][column] - expected[row][column]) < 1e-6);
    for (size_t k = 0; k < 20; k++) {
        assert_int_equal(series->slices[k].instance_number, (int64_t)k + 1);
        for (size_t i = 0; i < 256; i++)
            assert_int_equal(series->volume->hu[k * 256 + i], (int)((i * 37 + (k + 1) * 11) % 3000) - 1024);
    }
    assert_true(fabs(series->slice_spacing_mm - 2.5) < 1e-9);
    assert_string_equal(series->frame_of_reference_uid, "2.25.4");
    dicom_series_free(series);
    close_folder(&folder);
}

static void test_header_has_no_pixels(void **state) {
    (void)state;
    struct folder folder;
    struct err err = {0};
    char text[64];
    open_folder(&folder);
    add_series(&folder, &(struct sample){.transfer_syntax_uid = "1.2.840.10008.1.2.5"}, 16, 1);
    struct dicom_series *series = read_folder(&folder);
    struct shim_dataset *header = shim_dataset_parse(series->header.data, series->header.size, &err);
    assert_non_null(header);
    assert_false(shim_has(header, 0x7FE00010));
    assert_true(shim_get_string(header, 0x00100010, text, sizeof text));
    assert_string_equal(text, "Test^Sample");
    shim_dataset_free(header);
    dicom_series_free(series);
    close_folder(&folder);
}

/* Signed values in 12 of 16 bits with rubbish above them, a padding value, a slope. */
static void make_signed(struct shim_dataset *dataset, void *context) {
    struct err err = {0};
    uint16_t pixels[256];
    (void)context;
    for (size_t i = 0; i < 256; i++)
        pixels[i] = (uint16_t)((i - 128) & 0x0FFF) | 0xA000;
    pixels[0] = 0xF830; /* -2000 in 12 bits */
    sample_put_u16(dataset, 0x00280103, 1);
    sample_put(dataset, 0x00281053, "2");
    sample_put(dataset, 0x00281052, "-10.4");
    sample_put_u16(dataset, 0x00280120, 63536); /* as US where SS belongs */
    assert_true(shim_put_bytes(dataset, 0x7FE00010, pixels, sizeof pixels, &err));
}

static void test_values(void **state) {
    (void)state;
    struct folder folder;
    open_folder(&folder);
    add_series(&folder, &(struct sample){.change = make_signed}, 16, 1);
    struct dicom_series *series = read_folder(&folder);
    assert_non_null(series->volume);
    assert_int_equal(series->volume->hu[0], -1024);
    for (int i = 1; i < 256; i++)
        assert_int_equal(series->volume->hu[i], (int)nearbyint(2.0 * (i - 128) - 10.4));
    dicom_series_free(series);
    close_folder(&folder);
}

static void make_feet_first(struct shim_dataset *dataset, void *context) {
    (void)context;
    sample_put(dataset, 0x00200037, "-1\\0\\0\\0\\1\\0");
}

static void test_feet_first(void **state) {
    (void)state;
    struct folder folder;
    open_folder(&folder);
    add_series(&folder, &(struct sample){.change = make_feet_first}, 16, 1);
    struct dicom_series *series = read_folder(&folder);
    assert_non_null(series->volume);
    assert_true(series->volume->grid.ijk_to_lps_mm[2][2] < 0); /* k grows along the normal, to the feet */
    assert_int_equal(series->slices[0].instance_number, 15);
    dicom_series_free(series);
    close_folder(&folder);
}

/* ---- which series ------------------------------------------------------------------------------------ */

static void put_kernel(struct shim_dataset *dataset, void *context) {
    sample_put(dataset, 0x00181210, context);
}

static void make_localizer(struct shim_dataset *dataset, void *context) {
    (void)context;
    sample_put(dataset, 0x00080008, "ORIGINAL\\PRIMARY\\LOCALIZER");
    sample_put(dataset, 0x00200037, "1\\0\\0\\0\\0\\-1");
}

static void expect_series(struct folder *folder, const char *uid, size_t slices) {
    struct dicom_series *series = read_folder(folder);
    assert_string_equal(series->series_uid, uid);
    assert_int_equal(series->slice_count, slices);
    assert_int_equal(series->refusals.count, 0);
    dicom_series_free(series);
    close_folder(folder);
}

static void test_thin_before_thick(void **state) {
    (void)state;
    struct folder folder;
    open_folder(&folder);
    add_series(&folder, &(struct sample){.number = 1, .series_uid = "2.25.5.1"}, 40, 5);
    add_series(&folder, &(struct sample){.number = 100, .series_uid = "2.25.5.2"}, 80, 2.5);
    expect_series(&folder, "2.25.5.2", 80);
}

static void test_soft_before_sharp(void **state) {
    (void)state;
    struct folder folder;
    open_folder(&folder);
    add_series(&folder,
               &(struct sample){.number = 1, .series_uid = "2.25.5.1", .change = put_kernel, .context = "B70f"}, 71,
               2.5);
    add_series(&folder,
               &(struct sample){.number = 100, .series_uid = "2.25.5.2", .change = put_kernel, .context = "B30f"}, 71,
               2.5);
    expect_series(&folder, "2.25.5.2", 71);
}

static void test_whole_before_short(void **state) {
    (void)state;
    struct folder folder;
    open_folder(&folder);
    add_series(&folder, &(struct sample){.number = 1, .series_uid = "2.25.5.1"}, 20, 0.6); /* a thin sample of a lung */
    add_series(&folder, &(struct sample){.number = 100, .series_uid = "2.25.5.2"}, 80, 3);
    expect_series(&folder, "2.25.5.2", 80);
}

static void test_scout_and_repeats_beside_slices(void **state) {
    (void)state;
    struct folder folder;
    open_folder(&folder);
    add_series(&folder, &(struct sample){.number = 1}, 20, 2);
    add(&folder, &(struct sample){.number = 99, .change = make_localizer});
    add(&folder, &(struct sample){.number = 3, .z_mm = 4}); /* the same instance once more */
    expect_series(&folder, "2.25.2", 20);
}

/* ---- reasons ----------------------------------------------------------------------------------------- */

static void make_mr(struct shim_dataset *dataset, void *context) {
    (void)context;
    sample_put(dataset, 0x00080016, "1.2.840.10008.5.1.4.1.1.4");
    sample_put(dataset, 0x00080060, "MR");
}

static void make_coronal(struct shim_dataset *dataset, void *context) {
    (void)context;
    sample_put(dataset, 0x00200037, "1\\0\\0\\0\\0\\-1");
}

static void remove_intercept(struct shim_dataset *dataset, void *context) {
    (void)context;
    shim_remove(dataset, 0x00281052);
}

static void change_spacing(struct shim_dataset *dataset, void *context) {
    (void)context;
    sample_put(dataset, 0x00280030, "0.5\\0.5");
}

static void tilt(struct shim_dataset *dataset, void *context) {
    char text[64];
    double z = 0;
    (void)context;
    assert_true(shim_get_f64(dataset, 0x00200032, 2, &z));
    snprintf(text, sizeof text, "-100\\%.3f\\%.3f", -100 + z * 0.3, z);
    sample_put(dataset, 0x00200032, text);
}

static void test_not_ct(void **state) {
    (void)state;
    struct folder folder;
    open_folder(&folder);
    add_series(&folder, &(struct sample){.change = make_mr}, 20, 2);
    expect_refusal(&folder, REFUSAL_NOT_CT, "modality MR");
}

static void test_localizer(void **state) {
    (void)state;
    struct folder folder;
    open_folder(&folder);
    add_series(&folder, &(struct sample){.change = make_localizer}, 2, 2);
    expect_refusal(&folder, REFUSAL_LOCALIZER, "2 localizer images");
}

static void test_not_axial(void **state) {
    (void)state;
    struct folder folder;
    open_folder(&folder);
    add_series(&folder, &(struct sample){.change = make_coronal}, 20, 2);
    expect_refusal(&folder, REFUSAL_NOT_AXIAL, "90 degrees");
}

static void test_mixed_geometry(void **state) {
    (void)state;
    struct folder folder;
    open_folder(&folder);
    add_series(&folder, &(struct sample){.number = 1}, 20, 2);
    add(&folder, &(struct sample){.number = 90, .z_mm = 40, .change = change_spacing});
    expect_refusal(&folder, REFUSAL_MIXED_GEOMETRY, "pixel spacings");
    open_folder(&folder);
    add_series(&folder, &(struct sample){.change = tilt}, 20, 2);
    expect_refusal(&folder, REFUSAL_MIXED_GEOMETRY, "16.7 degrees");
    open_folder(&folder);
    add_series(&folder, &(struct sample){.number = 1}, 20, 2);
    add_series(&folder, &(struct sample){.number = 50, .z_mm = 39}, 5, 1.2);
    expect_refusal(&folder, REFUSAL_MIXED_GEOMETRY, "spacing varies");
}

static void test_missing_slice(void **state) {
    (void)state;
    struct folder folder;
    open_folder(&folder);
    add_series(&folder, &(struct sample){.number = 1}, 10, 2.5);
    add_series(&folder, &(struct sample){.number = 50, .z_mm = 27.5}, 10, 2.5);
    expect_refusal(&folder, REFUSAL_MISSING_SLICES, "1 slice is missing at 1 place between z = 22.5 and 27.5 mm");
}

static void test_duplicate_positions(void **state) {
    (void)state;
    struct folder folder;
    open_folder(&folder);
    add_series(&folder, &(struct sample){.number = 1}, 20, 2);
    add(&folder, &(struct sample){.number = 90, .z_mm = 10});
    expect_refusal(&folder, REFUSAL_DUPLICATE_POSITIONS, "1 slices");
}

static void test_thickness(void **state) {
    (void)state;
    struct folder folder;
    open_folder(&folder);
    add_series(&folder, &(struct sample){.number = 1}, 20, 6);
    expect_refusal(&folder, REFUSAL_TOO_THICK, "6.0 mm");
    open_folder(&folder);
    add_series(&folder, &(struct sample){.number = 1}, 20, 5);
    expect_series(&folder, "2.25.2", 20);
}

static void test_too_few(void **state) {
    (void)state;
    struct folder folder;
    open_folder(&folder);
    add_series(&folder, &(struct sample){.number = 1}, 8, 5);
    expect_refusal(&folder, REFUSAL_TOO_FEW_SLICES, "8 slices");
}

static void test_missing_intercept(void **state) {
    (void)state;
    struct folder folder;
    open_folder(&folder);
    add_series(&folder, &(struct sample){.change = remove_intercept}, 20, 2);
    expect_refusal(&folder, REFUSAL_UNREADABLE, "20 of 20 slices cannot be used: Rescale Intercept is missing");
}

/* A slice whose Pixel Data is cut off is named, and nothing is analysed without it. */
static void test_damaged_slice(void **state) {
    (void)state;
    struct folder folder;
    struct err err = {0};
    open_folder(&folder);
    add_series(&folder, &(struct sample){.number = 1}, 20, 2);
    struct bytes file = {0};
    assert_true(bytes_read_file(folder.list[4], 1 << 20, &file, &err));
    assert_true(bytes_write_file(folder.list[4], file.data, file.size - 60, false, &err));
    bytes_free(&file);
    expect_refusal(&folder, REFUSAL_UNREADABLE, "1 of 20 slices cannot be decoded");
}

static void test_nothing_to_read(void **state) {
    (void)state;
    static const uint8_t text[] = "This is no DICOM file, but it is long enough to be one.";
    struct folder folder;
    struct err err = {0};
    open_folder(&folder);
    add(&folder, &(struct sample){.number = 1});
    assert_true(bytes_write_file(folder.list[0], text, sizeof text, false, &err));
    assert_null(dicom_series_read(folder.list, 1, &err));
    assert_int_equal(err.kind, ERR_INPUT);
    close_folder(&folder);
}

/* ---- the shared data --------------------------------------------------------------------------------- */

/* Values as pydicom 2.3 and NumPy give them. */
static void check_shared(const char *name, const int32_t size[3], double mean_hu, int16_t one_hu) {
    struct folder folder = {.count = 0};
    char shared[256], path[600];
    snprintf(shared, sizeof shared, "%s/data/ct/%s", sample_shared(), name);
    DIR *directory = opendir(shared);
    for (const struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
        if (strstr(entry->d_name, ".dcm") == NULL)
            continue;
        snprintf(path, sizeof path, "%s/%s", shared, entry->d_name);
        folder.list[folder.count++] = strdup(path);
    }
    if (directory != NULL)
        closedir(directory);
    if (folder.count == 0)
        skip();
    struct dicom_series *series = read_folder(&folder);
    assert_non_null(series->volume);
    double sum = 0;
    const size_t count = grid_voxels(&series->volume->grid);
    for (size_t i = 0; i < count; i++)
        sum += series->volume->hu[i];
    assert_memory_equal(series->volume->grid.size_ijk, size, 3 * sizeof *size);
    assert_true(fabs(sum / (double)count - mean_hu) < 1e-6);
    assert_int_equal(series->volume->hu[((size_t)30 * 512 + 256) * 512 + 100], one_hu);
    dicom_series_free(series);
    forget(&folder);
}

static void test_shared_cptac(void **state) {
    (void)state;
    check_shared("cptac-c3n-00247", (const int32_t[]){512, 512, 99}, -354.72436831695865, -908);
}

static void test_shared_lidc(void **state) {
    (void)state;
    check_shared("lidc-idri-0001", (const int32_t[]){512, 512, 133}, -826.9439289121699, 72);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_volume),
        cmocka_unit_test(test_header_has_no_pixels),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_feet_first),
        cmocka_unit_test(test_thin_before_thick),
        cmocka_unit_test(test_soft_before_sharp),
        cmocka_unit_test(test_whole_before_short),
        cmocka_unit_test(test_scout_and_repeats_beside_slices),
        cmocka_unit_test(test_not_ct),
        cmocka_unit_test(test_localizer),
        cmocka_unit_test(test_not_axial),
        cmocka_unit_test(test_mixed_geometry),
        cmocka_unit_test(test_missing_slice),
        cmocka_unit_test(test_duplicate_positions),
        cmocka_unit_test(test_thickness),
        cmocka_unit_test(test_too_few),
        cmocka_unit_test(test_missing_intercept),
        cmocka_unit_test(test_damaged_slice),
        cmocka_unit_test(test_nothing_to_read),
        cmocka_unit_test(test_shared_cptac),
        cmocka_unit_test(test_shared_lidc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
