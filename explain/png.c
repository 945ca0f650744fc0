#include "explain/png.h"

#include <png.h>
#include <stdlib.h>
#include <string.h>

bool explain_png_encode(const struct picture *picture, struct bytes *out, struct err *err) {
    png_image image = {.version = PNG_IMAGE_VERSION,
                       .width = (png_uint_32)picture->columns,
                       .height = (png_uint_32)picture->rows,
                       .format = picture->channels == 4 ? PNG_FORMAT_RGBA : PNG_FORMAT_GRAY,
                       .flags = PNG_IMAGE_FLAG_FAST};
    png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
    PULMO_SCOPED(pulmo_free_at) uint8_t *data = pulmo_alloc(size, 1, err);
    if (!data)
        return false;
    if (!png_image_write_to_memory(&image, data, &size, 0, picture->pixel, 0, NULL))
        return err_set(err, ERR_INTERNAL, "a picture of %d x %d pixels was not encoded: %s", (int)picture->columns,
                       (int)picture->rows, image.message);
    struct bytes bytes = {0};
    if (!bytes_append(&bytes, data, size, SIZE_MAX, err))
        return false;
    *out = bytes;
    return true;
}
