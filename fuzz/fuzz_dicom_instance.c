/* Any bytes as an instance that reception took from the network: attributes, then pixels. */
#include "dicom/dicom.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct instance instance = {0};
    struct err err = {0};
    if (!dicom_instance_parse(data, size, &instance, &err))
        return 0;
    char digest[65];
    bool decoded = dicom_pixel_digest(data, size, digest, &err);
    (void)decoded; /* a refusal is as good an answer */
    return 0;
}
