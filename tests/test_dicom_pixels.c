/* LABELS: quick
 * Pixel values in every transfer syntax, data sets there and back, and streams that lie. */
#include "dicom/jpeg2000.h"
#include "dicom/pixels.h"
#include "digest.h"
#include "test_dicom_sample.h"

#include <dirent.h>
#include <unistd.h>

static void decode(const struct bytes *file, int32_t *out, size_t count) {
    struct err err = {0};
    struct shim_dataset *dataset = shim_dataset_parse(file->data, file->size, &err);
    if (dataset == NULL || !shim_frame_decode(dataset, 0, out, count, &err))
        fail_msg("%s", err.text);
    shim_dataset_free(dataset);
}

static void test_lossless_syntaxes(void **state) {
    (void)state;
    static const char *const syntaxes[] = {"1.2.840.10008.1.2",      "1.2.840.10008.1.2.2",    "1.2.840.10008.1.2.1.99",
                                           "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80",
                                           "1.2.840.10008.1.2.5"};
    int32_t expected[33 * 33], values[33 * 33];
    struct bytes plain = sample_make(&(struct sample){.number = 1, .side = 33});
    decode(&plain, expected, 33 * 33);
    for (int i = 0; i < 33 * 33; i++)
        assert_int_equal(expected[i], (i * 37 + 11) % 3000);
    for (size_t i = 0; i < sizeof syntaxes / sizeof syntaxes[0]; i++) {
        char one[65], two[65];
        struct err err = {0};
        struct bytes file = sample_make(&(struct sample){.number = 1, .side = 33, .transfer_syntax_uid = syntaxes[i]});
        memset(values, 0, sizeof values);
        decode(&file, values, 33 * 33);
        assert_memory_equal(values, expected, sizeof expected);
        assert_true(dicom_pixel_digest(plain.data, plain.size, one, &err));
        assert_true(dicom_pixel_digest(file.data, file.size, two, &err));
        assert_string_equal(one, two); /* transcoded, not a conflict */
        bytes_free(&file);
    }
    bytes_free(&plain);
}

static void test_jpeg2000_there_and_back(void **state) {
    (void)state;
    static const struct jpeg2000_image images[] = {
        {33, 17, 12, false}, {64, 64, 16, true}, {1, 1, 8, false}, {512, 3, 16, false}, {40, 40, 12, true}};
    for (size_t i = 0; i < sizeof images / sizeof images[0]; i++) {
        const struct jpeg2000_image *image = &images[i];
        const size_t count = (size_t)image->columns * image->rows;
        const int32_t range = 1 << image->bits, low = image->is_signed ? -range / 2 : 0;
        int32_t *values = calloc(count, sizeof *values), *decoded = calloc(count, sizeof *decoded);
        struct bytes stream = {0};
        struct err err = {0};
        for (size_t k = 0; k < count; k++)
            values[k] = low + (int32_t)(k * 7919 % (size_t)range);
        if (!jpeg2000_encode(values, image, &stream, &err) || !jpeg2000_decode(&stream, image, decoded, &err))
            fail_msg("image %zu: %s", i, err.text);
        assert_memory_equal(values, decoded, count * sizeof *values);
        bytes_free(&stream);
        free(values);
        free(decoded);
    }
}

static void test_jpeg2000_in_a_file(void **state) {
    (void)state;
    static const char uid[] = "1.2.840.10008.1.2.4.90";
    const struct jpeg2000_image image = {16, 16, 12, false};
    int32_t values[256], decoded[256];
    struct bytes stream = {0}, plain = sample_make(&(struct sample){.number = 1}), file = {0};
    struct err err = {0};
    decode(&plain, values, 256);
    assert_true(jpeg2000_encode(values, &image, &stream, &err));
    struct shim_dataset *dataset = shim_dataset_parse(plain.data, plain.size, &err);
    assert_true(shim_put_frames(dataset, uid, &stream, 1, &err));
    assert_true(shim_dataset_write(dataset, uid, &file, &err));
    decode(&file, decoded, 256);
    assert_memory_equal(values, decoded, sizeof values);
    shim_dataset_free(dataset);
    bytes_free(&stream);
    bytes_free(&plain);
    bytes_free(&file);
}

/* ---- streams that lie -------------------------------------------------------------------------------- */

static void expect_fault(struct bytes *file, const char *text) {
    int32_t values[256];
    struct err err = {0};
    struct shim_dataset *dataset = shim_dataset_parse(file->data, file->size, &err);
    if (dataset == NULL)
        fail_msg("%s", err.text);
    assert_false(shim_frame_decode(dataset, 0, values, 256, &err));
    if (strstr(err.text, text) == NULL)
        fail_msg("%s", err.text);
    shim_dataset_free(dataset);
    bytes_free(file);
}

/* The frame header of a JPEG or JPEG-LS stream, to be falsified. */
static uint8_t *frame_header(const struct bytes *file, uint8_t marker) {
    const uint8_t wanted[] = {0xFF, marker, 0x00, 0x0B};
    uint8_t *at = memmem(file->data, file->size, wanted, sizeof wanted);
    assert_non_null(at);
    return at;
}

static void test_streams_of_another_size(void **state) {
    (void)state;
    struct bytes jpeg = sample_make(&(struct sample){.number = 1, .transfer_syntax_uid = "1.2.840.10008.1.2.4.70"});
    frame_header(&jpeg, 0xC3)[5] = 0xFF; /* 65,296 rows */
    expect_fault(&jpeg, "where the header says 16 x 16");
    struct bytes jpeg_ls = sample_make(&(struct sample){.number = 1, .transfer_syntax_uid = "1.2.840.10008.1.2.4.80"});
    frame_header(&jpeg_ls, 0xF7)[7] = 0xFF; /* columns */
    expect_fault(&jpeg_ls, "where the header says 16 x 16");
    struct bytes precision =
        sample_make(&(struct sample){.number = 1, .transfer_syntax_uid = "1.2.840.10008.1.2.4.70"});
    frame_header(&precision, 0xC3)[4] = 17;
    expect_fault(&precision, "17 bits in 16 allocated");
}

static void test_damaged_streams(void **state) {
    (void)state;
    static const char *const syntaxes[] = {"1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.5"};
    uint32_t seed = 7;
    size_t faults = 0;
    for (size_t i = 0; i < 300; i++) {
        struct bytes file = sample_make(&(struct sample){.number = 1, .transfer_syntax_uid = syntaxes[i % 3]});
        int32_t values[256];
        struct err err = {0};
        for (int k = 0; k < 3; k++) {
            seed = seed * 1664525U + 1013904223U;
            file.data[file.size - 1 - (seed >> 8) % 300] = (uint8_t)(seed >> 3);
        }
        struct shim_dataset *dataset = shim_dataset_parse(file.data, file.size, &err);
        faults += dataset == NULL || !shim_frame_decode(dataset, 0, values, 256, &err);
        shim_dataset_free(dataset);
        bytes_free(&file);
    }
    assert_true(faults > 30); /* the others decode to something: a lossless stream has no check sum */
}

/* ---- data sets --------------------------------------------------------------------------------------- */

static void test_text_is_utf8(void **state) {
    (void)state;
    struct err err = {0};
    struct shim_dataset *latin = shim_dataset_new(&err), *copy = shim_dataset_new(&err);
    char text[64], tiny[8];
    sample_put(latin, 0x00080005, "ISO_IR 100");
    sample_put(latin, 0x00100010, "Buc^J\xE9r\xF4me");
    assert_true(shim_get_string(latin, 0x00100010, text, sizeof text));
    assert_string_equal(text, "Buc^J\xC3\xA9r\xC3\xB4me");
    assert_true(shim_get_string(latin, 0x00100010, tiny, 7)); /* never half a character */
    assert_string_equal(tiny, "Buc^J");
    assert_true(shim_copy(copy, latin, 0x00100010, &err));
    assert_true(shim_get_string(copy, 0x00100010, text, sizeof text));
    assert_string_equal(text, "Buc^J\xC3\xA9r\xC3\xB4me");
    assert_true(shim_get_string(copy, 0x00080005, text, sizeof text));
    assert_string_equal(text, "ISO_IR 192");
    shim_dataset_free(latin);
    shim_dataset_free(copy);
}

static void test_numbers(void **state) {
    (void)state;
    struct err err = {0};
    struct shim_dataset *dataset = shim_dataset_new(&err);
    double number = 0;
    int64_t whole = 0;
    sample_put(dataset, 0x00281052, "12abc");
    assert_false(shim_get_f64(dataset, 0x00281052, 0, &number));
    sample_put(dataset, 0x00281052, "nan");
    assert_false(shim_get_f64(dataset, 0x00281052, 0, &number));
    sample_put(dataset, 0x00281052, " -1.5e2 ");
    assert_true(shim_get_f64(dataset, 0x00281052, 0, &number));
    assert_true(number == -150);
    assert_false(shim_get_f64(dataset, 0x00281052, 1, &number));
    sample_put(dataset, 0x00200013, "99999999999999999999999");
    assert_false(shim_get_i64(dataset, 0x00200013, 0, &whole));
    const double exact[] = {0.1, -1e300};
    assert_true(shim_put_f64(dataset, 0x00189310, exact, 1, &err));
    assert_true(shim_get_f64(dataset, 0x00189310, 0, &number));
    assert_true(number == 0.1);
    shim_dataset_free(dataset);
}

/* ---- the shared data --------------------------------------------------------------------------------- */

static bool is_lossless(const char *name) {
    static const char *const lossless[] = {"BigEndian",      "Deflated",  "HTJ2KLossless", "JPEG2000Lossless",
                                           "JPEGLSLossless", "Process14", "LittleEndian",  "RLE"};
    for (size_t i = 0; i < sizeof lossless / sizeof lossless[0]; i++)
        if (strstr(name, lossless[i]) != NULL)
            return true;
    return false;
}

static void digest_of(const char *name, char out[65]) {
    char path[600];
    struct bytes file = {0};
    struct err err = {0};
    snprintf(path, sizeof path, "%s/data/interop/syntaxes/%s", sample_shared(), name);
    if (!bytes_read_file(path, 1 << 24, &file, &err) || !dicom_pixel_digest(file.data, file.size, out, &err))
        fail_msg("%s: %s", name, err.text);
    bytes_free(&file);
}

static void test_shared_syntaxes(void **state) {
    (void)state;
    char folder[256], expected[65], digest[65];
    size_t decoded = 0, equal = 0;
    snprintf(folder, sizeof folder, "%s/data/interop/syntaxes", sample_shared());
    DIR *directory = opendir(folder);
    if (directory == NULL)
        skip();
    digest_of("CTImage.dcm", expected);
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        if (strncmp(entry->d_name, "CTImage.dcm_", 12) != 0)
            continue;
        digest_of(entry->d_name, digest);
        decoded++;
        equal += strcmp(digest, expected) == 0;
        if (is_lossless(entry->d_name))
            assert_string_equal(digest, expected);
    }
    closedir(directory);
    assert_int_equal(decoded, 16);
    assert_int_equal(equal, 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lossless_syntaxes),
        cmocka_unit_test(test_jpeg2000_there_and_back),
        cmocka_unit_test(test_jpeg2000_in_a_file),
        cmocka_unit_test(test_streams_of_another_size),
        cmocka_unit_test(test_damaged_streams),
        cmocka_unit_test(test_text_is_utf8),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_shared_syntaxes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
