/* Any bytes as what dicom/ parses in plain C before or instead of a toolkit: compressed frames of 16 x 16 samples and
 * an A-ASSOCIATE-RQ. */
#include "dicom/guard.h"
#include "dicom/jpegls.h"
#include "dicom/rle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const struct bytes stream = {.data = (uint8_t *)(uintptr_t)data, .size = size}; /* read only */
    const struct jpegls_image image = {16, 16};
    uint16_t values[16 * 16];
    uint8_t bytes[2 * 16 * 16];
    uint32_t precision = 0;
    struct err err = {0};
    bool ok = jpegls_decode(&stream, &image, values, &precision, &err);
    ok = rle_decode(&stream, 16 * 16, 2, bytes, &err) || ok;
    ok = guard_check_request(data, size, &err) || ok;
    (void)ok; /* a refusal is as good an answer */
    return 0;
}
