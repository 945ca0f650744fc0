#include "dicom/dcmtk_shim.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

/* DS and IS are at most 16 and 12 characters (PS3.5 6.2); a double needs 24. */
enum { NUMBER_SIZE = 64 };

static bool only_spaces(const char *text) {
    while (*text == ' ') {
        text++;
    }
    return *text == '\0';
}

bool shim_get_f64(const struct shim_dataset *dataset, uint32_t tag, size_t index, double *out) {
    char text[NUMBER_SIZE];
    if (!shim_get_value(dataset, tag, index, text, sizeof text)) {
        return false;
    }
    char *end = NULL;
    const double value = strtod(text, &end);
    if (end == text || !only_spaces(end) || !isfinite(value)) {
        return false;
    }
    *out = value;
    return true;
}

bool shim_get_i64(const struct shim_dataset *dataset, uint32_t tag, size_t index, int64_t *out) {
    char text[NUMBER_SIZE];
    if (!shim_get_value(dataset, tag, index, text, sizeof text)) {
        return false;
    }
    char *end = NULL;
    errno = 0;
    const long long value = strtoll(text, &end, 10);
    if (end == text || !only_spaces(end) || errno != 0) {
        return false;
    }
    *out = value;
    return true;
}
