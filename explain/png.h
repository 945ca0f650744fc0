/* PNG through libpng; the only file that knows it is png.c. Internal to explain/. */
#ifndef EXPLAIN_PNG_H
#define EXPLAIN_PNG_H

#include "pulmo.h"

struct picture {
    int32_t columns, rows;
    const uint8_t *pixel;        /* [row][column] */
    const uint8_t (*palette)[4]; /* [PNG_COLOURS] red, green, blue, alpha (not premultiplied); NULL = grey */
};
#define PNG_COLOURS 256
/* On failure *out is untouched. */
bool explain_png_encode(const struct picture *picture, struct bytes *out, struct err *err) PULMO_MUST_USE;

#endif
