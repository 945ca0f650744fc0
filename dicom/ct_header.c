#include "dicom/ct.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const uint32_t TAG_IMAGE_TYPE = 0x00080008, TAG_SOP_CLASS = 0x00080016, TAG_SOP_INSTANCE = 0x00080018;
static const uint32_t TAG_MODALITY = 0x00080060, TAG_SERIES_DESCRIPTION = 0x0008103E;
static const uint32_t TAG_THICKNESS = 0x00180050, TAG_KERNEL = 0x00181210;
static const uint32_t TAG_STUDY = 0x0020000D, TAG_SERIES = 0x0020000E, TAG_INSTANCE_NUMBER = 0x00200013;
static const uint32_t TAG_POSITION = 0x00200032, TAG_ORIENTATION = 0x00200037, TAG_FRAME_OF_REFERENCE = 0x00200052;
static const uint32_t TAG_PIXEL_SPACING = 0x00280030, TAG_PADDING = 0x00280120, TAG_PADDING_LIMIT = 0x00280121;
static const uint32_t TAG_INTERCEPT = 0x00281052, TAG_SLOPE = 0x00281053;

#define CT_IMAGE_STORAGE "1.2.840.10008.5.1.4.1.1.2"
#define ENHANCED_CT_STORAGE "1.2.840.10008.5.1.4.1.1.2.1"

/* The first problem is the one that is told. */
static void add_problem(struct ct_header *header, const char *format, ...) PULMO_PRINTF(2, 3);
static void add_problem(struct ct_header *header, const char *format, ...) {
    if (header->problem[0] == '\0') {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(header->problem, sizeof header->problem, format, arguments);
        va_end(arguments);
    }
}

static bool read_numbers(const struct shim_dataset *dataset, uint32_t tag, size_t count, double *out) {
    for (size_t i = 0; i < count; i++)
        if (!shim_get_f64(dataset, tag, i, &out[i]))
            return false;
    return true;
}

static double dot(const double a[3], const double b[3]) {
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

static bool normalise(double direction[3]) {
    const double length = sqrt(dot(direction, direction));
    if (!(fabs(length - 1) < 0.01))
        return false;
    for (size_t i = 0; i < 3; i++)
        direction[i] /= length;
    return true;
}

/* PS3.3 C.7.6.2: all Type 1 in CT. */
static void read_plane(const struct shim_dataset *dataset, struct ct_header *out) {
    double orientation[6], spacing[2];
    if (!read_numbers(dataset, TAG_POSITION, 3, out->position_lps_mm))
        add_problem(out, "Image Position (Patient) is missing");
    if (!read_numbers(dataset, TAG_ORIENTATION, 6, orientation)) {
        add_problem(out, "Image Orientation (Patient) is missing");
        return;
    }
    memcpy(out->row_direction, orientation, sizeof out->row_direction);
    memcpy(out->column_direction, orientation + 3, sizeof out->column_direction);
    if (!normalise(out->row_direction) || !normalise(out->column_direction) ||
        fabs(dot(out->row_direction, out->column_direction)) > 0.01)
        add_problem(out, "Image Orientation (Patient) is not two perpendicular unit vectors");
    if (!read_numbers(dataset, TAG_PIXEL_SPACING, 2, spacing))
        add_problem(out, "Pixel Spacing is missing");
    else if (spacing[0] < 0.05 || spacing[0] > 10 || spacing[1] < 0.05 || spacing[1] > 10)
        add_problem(out, "Pixel Spacing of %g x %g mm is no CT's", spacing[0], spacing[1]);
    out->spacing_ij_mm[0] = spacing[1]; /* between columns, so along i: PS3.3 10.7.1.3 */
    out->spacing_ij_mm[1] = spacing[0];
    for (size_t i = 0; i < 3; i++)
        if (fabs(out->position_lps_mm[i]) > 1e5)
            add_problem(out, "Image Position (Patient) is %g m away", out->position_lps_mm[i] / 1000);
}

/* Type 1 in the CT Image module, PS3.3 C.8.2.1: a guessed intercept would move every tissue by 1,024 units. */
static void read_rescale(const struct shim_dataset *dataset, struct ct_header *out) {
    if (!shim_get_f64(dataset, TAG_INTERCEPT, 0, &out->intercept))
        add_problem(out, "Rescale Intercept is missing");
    if (!shim_get_f64(dataset, TAG_SLOPE, 0, &out->slope))
        add_problem(out, "Rescale Slope is missing");
    else if (out->slope == 0 || fabs(out->slope) > 1000 || fabs(out->intercept) > 1e6)
        add_problem(out, "Rescale Slope %g and Intercept %g are no CT's", out->slope, out->intercept);
}

/* US or SS by Pixel Representation; written with the wrong one so often that both are taken. */
static int32_t as_stored(int64_t value, const struct pixel_format *format) {
    if (format->is_signed && value > INT16_MAX)
        return (int32_t)(value - 65536);
    return (int32_t)(!format->is_signed && value < 0 ? value + 65536 : value);
}

static void read_padding(const struct shim_dataset *dataset, struct ct_header *out) {
    int64_t first = 0, last = 0;
    if (!shim_get_i64(dataset, TAG_PADDING, 0, &first) || first < INT16_MIN || first > UINT16_MAX)
        return;
    if (!shim_get_i64(dataset, TAG_PADDING_LIMIT, 0, &last) || last < INT16_MIN || last > UINT16_MAX)
        last = first;
    const int32_t a = as_stored(first, &out->format), b = as_stored(last, &out->format);
    out->has_padding = true;
    out->padding_first = a < b ? a : b;
    out->padding_last = a < b ? b : a;
}

static void read_image(const struct shim_dataset *dataset, struct ct_header *out) {
    struct err why = {0};
    char image_type[128];
    shim_get_string(dataset, TAG_IMAGE_TYPE, image_type, sizeof image_type);
    out->is_localizer = strstr(image_type, "LOCALIZER") != NULL; /* value 3, PS3.3 C.8.2.1.1.1 */
    shim_get_string(dataset, TAG_KERNEL, out->kernel, sizeof out->kernel);
    (void)shim_get_f64(dataset, TAG_THICKNESS, 0, &out->thickness_mm);
    if (!pixels_format_read(dataset, &out->format, &why))
        add_problem(out, "%.150s", why.text);
    else if (out->format.frames != 1)
        add_problem(out, "%u frames in one CT image", out->format.frames);
    read_plane(dataset, out);
    read_rescale(dataset, out);
    read_padding(dataset, out);
}

static void read_header(const struct shim_dataset *dataset, struct ct_header *out) {
    shim_get_string(dataset, TAG_SOP_CLASS, out->sop_class_uid, sizeof out->sop_class_uid);
    shim_get_string(dataset, TAG_SOP_INSTANCE, out->sop_instance_uid, sizeof out->sop_instance_uid);
    shim_get_string(dataset, TAG_STUDY, out->study_uid, sizeof out->study_uid);
    shim_get_string(dataset, TAG_SERIES, out->series_uid, sizeof out->series_uid);
    shim_get_string(dataset, TAG_FRAME_OF_REFERENCE, out->frame_of_reference_uid, sizeof out->frame_of_reference_uid);
    shim_get_string(dataset, TAG_MODALITY, out->modality, sizeof out->modality);
    shim_get_string(dataset, TAG_SERIES_DESCRIPTION, out->series_description, sizeof out->series_description);
    (void)shim_get_i64(dataset, TAG_INSTANCE_NUMBER, 0, &out->instance_number);
    if (out->sop_instance_uid[0] == '\0' || out->series_uid[0] == '\0' || out->study_uid[0] == '\0')
        add_problem(out, "a UID of study, series or instance is missing");
    out->is_ct_image = strcmp(out->sop_class_uid, CT_IMAGE_STORAGE) == 0;
    if (strcmp(out->sop_class_uid, ENHANCED_CT_STORAGE) == 0) {
        out->is_ct_image = true;
        add_problem(out, "Enhanced CT is not read: send the series as classic CT images");
    } else if (out->is_ct_image) {
        read_image(dataset, out);
    }
}

bool ct_header_read(const char *path, struct ct_header *out, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes file = {0};
    if (!bytes_read_file(path, CT_FILE_BYTES_MAX, &file, err))
        return false;
    PULMO_SCOPED(shim_dataset_free_at)
    struct shim_dataset *dataset = shim_dataset_parse_header(file.data, file.size, err);
    if (dataset == NULL)
        return false;
    struct ct_header header = {.slope = 1};
    read_header(dataset, &header);
    *out = header;
    return shim_concluded(dataset, true, err);
}
