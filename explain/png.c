#include "explain/png.h"
#include "explain/explain.h"

#include <png.h>
#include <stdlib.h>
#include <string.h>

#define PIXELS_MAX ((uint64_t)1 << 28) /* libpng counts bytes of a picture in 32 bits */

struct decoded {
    png_image image;
    uint8_t *rgba;
};

static void decoded_clear(struct decoded *decoded) {
    png_image_free(&decoded->image);
    free(decoded->rgba);
}

/* Leaves rgba NULL where it is no picture. */
static bool decode(const void *data, size_t size, struct decoded *out, struct err *err) {
    out->image.version = PNG_IMAGE_VERSION;
    if (!png_image_begin_read_from_memory(&out->image, data, size))
        return true;
    out->image.format = PNG_FORMAT_RGBA;
    if ((uint64_t)out->image.width * out->image.height > PIXELS_MAX)
        return true;
    out->rgba = pulmo_alloc(PNG_IMAGE_SIZE(out->image), 1, err);
    if (!out->rgba)
        return false;
    if (!png_image_finish_read(&out->image, NULL, out->rgba, 0, NULL)) {
        free(out->rgba);
        out->rgba = NULL;
    }
    return true;
}

bool explain_png_same(const struct bytes *left, const struct bytes *right, bool *same, struct err *err) {
    PULMO_SCOPED(decoded_clear) struct decoded one = {0};
    PULMO_SCOPED(decoded_clear) struct decoded two = {0};
    *same = left->size == right->size && memcmp(left->data, right->data, left->size) == 0;
    if (*same)
        return true;
    if (!decode(left->data, left->size, &one, err) || !decode(right->data, right->size, &two, err))
        return false;
    *same = one.rgba && two.rgba && one.image.width == two.image.width && one.image.height == two.image.height &&
            memcmp(one.rgba, two.rgba, PNG_IMAGE_SIZE(one.image)) == 0;
    return true;
}

bool explain_png_encode(const struct picture *picture, struct bytes *out, struct err *err) {
    png_image image = {.version = PNG_IMAGE_VERSION,
                       .width = (png_uint_32)picture->columns,
                       .height = (png_uint_32)picture->rows,
                       .format = picture->palette ? PNG_FORMAT_RGBA_COLORMAP : PNG_FORMAT_GRAY,
                       .colormap_entries = picture->palette ? PNG_COLOURS : 0,
                       .flags = PNG_IMAGE_FLAG_FAST};
    png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
    PULMO_SCOPED(pulmo_free_at) uint8_t *data = pulmo_alloc(size, 1, err);
    if (!data)
        return false;
    if (!png_image_write_to_memory(&image, data, &size, 0, picture->pixel, 0, picture->palette))
        return err_set(err, ERR_INTERNAL, "a picture of %d x %d pixels was not encoded: %s", (int)picture->columns,
                       (int)picture->rows, image.message);
    struct bytes bytes = {0};
    if (!bytes_append(&bytes, data, size, SIZE_MAX, err))
        return false;
    *out = bytes;
    return true;
}
