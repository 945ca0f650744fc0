/* RLE Lossless (PS3.5 annex G) of one sample a pixel. Private to dicom/.
 *
 * In plain C: DCMTK 3.6.7 reads beyond a fragment whose segment offsets lie (found by fuzzing). */
#ifndef PULMO_DICOM_RLE_H
#define PULMO_DICOM_RLE_H

#include "pulmo.h"

/* Decodes one frame into count samples of sample_size bytes (1 or 2), least significant byte first. */
bool rle_decode(const struct bytes *frame, size_t count, size_t sample_size, uint8_t *out,
                struct err *err) PULMO_MUST_USE;

#endif
