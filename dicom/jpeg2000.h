/* JPEG 2000 (ISO 15444-1) and HTJ2K (ISO 15444-15) code streams in memory, through OpenJPEG 2.5. Private to dicom/. */
#ifndef PULMO_DICOM_JPEG2000_H
#define PULMO_DICOM_JPEG2000_H

#include "pulmo.h"

#ifdef __cplusplus
extern "C" {
#endif

struct jpeg2000_image {
    uint32_t columns, rows, bits; /* bits: 2 to 16 */
    bool is_signed;
};
/* Decodes a stream of one component; its size must be image's columns x rows, checked before anything is allocated for
 * pixels. Values are extended to int32 by image->is_signed whatever the stream says of its sign, since writers get that
 * flag wrong more often than Pixel Representation. image->bits is not used. One byte of the stream's header may be
 * changed. */
bool jpeg2000_decode(struct bytes *stream, const struct jpeg2000_image *image, int32_t *out,
                     struct err *err) PULMO_MUST_USE;
/* Encodes losslessly (reversible wavelet), as transfer syntax 1.2.840.10008.1.2.4.90 wants it. */
bool jpeg2000_encode(const int32_t *values, const struct jpeg2000_image *image, struct bytes *out,
                     struct err *err) PULMO_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
