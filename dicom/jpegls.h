/* JPEG-LS (ISO 14495-1, ITU-T T.87) of one component, lossless and near-lossless. Private to dicom/.
 *
 * In plain C: DCMTK's CharLS reads beyond a damaged stream (found by fuzzing it under the address sanitizer). */
#ifndef PULMO_DICOM_JPEGLS_H
#define PULMO_DICOM_JPEGLS_H

#include "pulmo.h"

/* Decodes a stream of columns x rows samples into the same number of values; another size is ERR_INPUT, restart
 * intervals, mapping tables and more components are ERR_UNSUPPORTED. *precision: bits of a sample, 2 to 16. */
struct jpegls_image {
    uint32_t columns, rows;
};
bool jpegls_decode(const struct bytes *stream, const struct jpegls_image *image, uint16_t *out, uint32_t *precision,
                   struct err *err) PULMO_MUST_USE;

#endif
