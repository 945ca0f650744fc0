/* Stored pixel values of one frame, in every transfer syntax. Private to dicom/. */
#ifndef PULMO_DICOM_PIXELS_H
#define PULMO_DICOM_PIXELS_H

#include "dicom/dcmtk_shim.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PIXELS_SIDE_MAX 4096 /* rows, columns of one frame; a bomb that claims more is refused before allocation */
#define PIXELS_FRAMES_MAX 4096

/* The Image Pixel module (PS3.3 C.7.6.3) of a monochrome image, checked. */
struct pixel_format {
    uint32_t rows, columns, frames;
    uint32_t bits_allocated, bits_stored, high_bit;
    bool is_signed;
};
/* ERR_INPUT: an attribute is missing, has a wrong VR or contradicts another; ERR_UNSUPPORTED: colour, 1 or 32 bits;
 * ERR_LIMIT. Works on a header too. */
bool pixels_format_read(const struct shim_dataset *dataset, struct pixel_format *out, struct err *err) PULMO_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
