/* Any bytes as the one file of a study: the functional groups of an Enhanced CT, then its frames. */
#include "dicom/dicom.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int file = -1; /* kept: it has a path without a folder to remove */
    char path[32];
    struct err err = {0};
    if (file < 0)
        file = memfd_create("fuzz", 0);
    if (file < 0 || ftruncate(file, 0) != 0 || pwrite(file, data, size, 0) != (ssize_t)size)
        return 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    const char *const paths[] = {path};
    dicom_series_free(dicom_series_read(paths, 1, &err));
    return 0;
}
