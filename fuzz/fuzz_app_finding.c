/* Any bytes as the stored document of a result, as `pulmo replay` and the signing step read it back. */
#include "app/finding_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct bytes document = {.data = (uint8_t *)(uintptr_t)data, .size = size}; /* read only, in spite of its type */
    struct findings findings = {0};
    struct analysis_run run;
    struct err err = {0};
    if (finding_json_read(&document, &findings, &run, &err))
        findings_free(&findings);
    struct bytes comparable = {0};
    if (analysis_json_comparable(&document, &comparable, &err))
        bytes_free(&comparable);
    return 0;
}
