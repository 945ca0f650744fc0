/* LABELS: quick
 * What the walk over a data set says of its Pixel Data, beside what the parser reads there. */
#include "dicom/structure.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct part10_encoding EXPLICIT = {.explicit_vr = true};

struct element {
    uint32_t tag;
    const char *vr;
    uint32_t length; /* of a value of zeros; UNDEFINED = two fragments of two bytes and their end */
};
enum { UNDEFINED = -1 };

static void add(struct bytes *out, const void *data, size_t size) {
    assert_true(bytes_append(out, data, size, 4096, NULL));
}

static void add_header(struct bytes *out, uint32_t tag, const char *vr, uint32_t length) {
    const uint8_t head[] = {(uint8_t)(tag >> 16), (uint8_t)(tag >> 24), (uint8_t)tag, (uint8_t)(tag >> 8)};
    const uint8_t size[] = {(uint8_t)length, (uint8_t)(length >> 8), (uint8_t)(length >> 16), (uint8_t)(length >> 24)};
    add(out, head, 4);
    if (vr != NULL)
        add(out, vr, 2);
    if (vr != NULL && vr[0] == 'O')
        add(out, "\0\0", 2);
    add(out, size, vr != NULL && vr[0] != 'O' ? 2 : 4);
}

static struct bytes make(const struct element *elements, size_t count) {
    static const uint8_t zeros[64];
    struct bytes out = {0};
    for (size_t index = 0; index < count; index++) {
        const struct element *element = &elements[index];
        add_header(&out, element->tag, element->vr, element->length);
        if (element->length != (uint32_t)UNDEFINED) {
            add(&out, zeros, element->length);
            continue;
        }
        for (int fragment = 0; fragment < 2; fragment++) {
            add_header(&out, 0xFFFEE000, NULL, 2);
            add(&out, zeros, 2);
        }
        add_header(&out, 0xFFFEE0DD, NULL, 0);
    }
    return out;
}

static void check(const struct element *elements, size_t count, struct structure_pixels expected) {
    struct err err = {0};
    struct structure_pixels pixels = {0};
    PULMO_SCOPED(bytes_free) struct bytes data = make(elements, count);
    if (!structure_check_image(data.data, data.size, EXPLICIT, &pixels, &err))
        fail_msg("%s", err.text);
    assert_int_equal(pixels.present, expected.present);
    assert_int_equal(pixels.size, expected.size);
    assert_int_equal(pixels.fragments, expected.fragments);
    assert_int_equal(pixels.is_last, expected.is_last);
}

#define CHECK(expected, ...)                                                                                           \
    check((const struct element[]){__VA_ARGS__}, sizeof(const struct element[]){__VA_ARGS__} / sizeof(struct element), \
          expected)
#define EXPECT(...) ((struct structure_pixels){__VA_ARGS__})

static void test_pixels(void **state) {
    (void)state;
    CHECK(EXPECT(.present = false), {0x00280010, "US", 2});
    CHECK(EXPECT(.present = true, .size = 8, .is_last = true), {0x00280010, "US", 2}, {0x7FE00010, "OW", 8});
    CHECK(EXPECT(.present = true, .fragments = 2, .is_last = true), {0x7FE00010, "OB", (uint32_t)UNDEFINED});
    /* What comes after the pixels and has a higher tag is no part of the header. */
    CHECK(EXPECT(.present = true, .size = 8, .is_last = true), {0x7FE00010, "OW", 8}, {0xFFFCFFFC, "OB", 4});
    CHECK(EXPECT(.present = true, .size = 8, .is_last = false), {0x7FE00010, "OW", 8}, {0x00280010, "US", 2});
    /* No reader of pixels takes text for them. */
    CHECK(EXPECT(.present = true, .size = 0, .is_last = true), {0x7FE00010, "LO", 8});
}

/* A second Pixel Data is ignored, as the parser does: a large one must not vouch for a small one. */
static void test_second_pixels(void **state) {
    (void)state;
    CHECK(EXPECT(.present = true, .size = 4, .is_last = true), {0x7FE00010, "OW", 4}, {0x7FE00010, "OW", 32});
    CHECK(EXPECT(.present = true, .size = 4, .is_last = true), {0x7FE00010, "OW", 4},
          {0x7FE00010, "OB", (uint32_t)UNDEFINED});
    CHECK(EXPECT(.present = true, .fragments = 2, .is_last = true), {0x7FE00010, "OB", (uint32_t)UNDEFINED},
          {0x7FE00010, "OB", (uint32_t)UNDEFINED});
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pixels), cmocka_unit_test(test_second_pixels)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
