#include "dicom/ct.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint32_t TAG_IMAGE_TYPE = 0x00080008, TAG_FRAME_TYPE = 0x00089007, TAG_SOP_CLASS = 0x00080016,
                      TAG_SOP_INSTANCE = 0x00080018;
static const uint32_t TAG_MODALITY = 0x00080060, TAG_SERIES_DESCRIPTION = 0x0008103E;
static const uint32_t TAG_THICKNESS = 0x00180050, TAG_KERNEL = 0x00181210;
static const uint32_t TAG_STUDY = 0x0020000D, TAG_SERIES = 0x0020000E, TAG_INSTANCE_NUMBER = 0x00200013;
static const uint32_t TAG_POSITION = 0x00200032, TAG_ORIENTATION = 0x00200037, TAG_FRAME_OF_REFERENCE = 0x00200052;
static const uint32_t TAG_PIXEL_SPACING = 0x00280030, TAG_PADDING = 0x00280120, TAG_PADDING_LIMIT = 0x00280121;
static const uint32_t TAG_INTERCEPT = 0x00281052, TAG_SLOPE = 0x00281053, TAG_RESCALE_TYPE = 0x00281054;

#define CT_IMAGE_STORAGE "1.2.840.10008.5.1.4.1.1.2"

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
static void read_plane(const struct ct_places *places, struct ct_header *out) {
    double orientation[6], spacing[2];
    if (!read_numbers(places->position, TAG_POSITION, 3, out->position_lps_mm))
        add_problem(out, "Image Position (Patient) is missing");
    if (!read_numbers(places->orientation, TAG_ORIENTATION, 6, orientation)) {
        add_problem(out, "Image Orientation (Patient) is missing");
        return;
    }
    memcpy(out->row_direction, orientation, sizeof out->row_direction);
    memcpy(out->column_direction, orientation + 3, sizeof out->column_direction);
    if (!normalise(out->row_direction) || !normalise(out->column_direction) ||
        fabs(dot(out->row_direction, out->column_direction)) > 0.01)
        add_problem(out, "Image Orientation (Patient) is not two perpendicular unit vectors");
    if (!read_numbers(places->measures, TAG_PIXEL_SPACING, 2, spacing))
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
static void read_rescale(const struct shim_dataset *values, struct ct_header *out) {
    if (!shim_get_f64(values, TAG_INTERCEPT, 0, &out->intercept))
        add_problem(out, "Rescale Intercept is missing");
    if (!shim_get_f64(values, TAG_SLOPE, 0, &out->slope))
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

/* What multi-energy CT holds besides HU (PS3.3 C.11.1.1.2: Z_EFF, MGML, ...) is no density. US is "unspecified". */
static void check_units(const struct shim_dataset *values, struct ct_header *out) {
    char units[32];
    if (shim_get_string(values, TAG_RESCALE_TYPE, units, sizeof units) && strcmp(units, "HU") != 0 &&
        strcmp(units, "US") != 0)
        add_problem(out, "Rescale Type is %s, not HU", units);
}

/* What all frames of an object have in common. */
static void read_pixels(const struct shim_dataset *dataset, struct ct_header *out) {
    struct err why = {0};
    if (!pixels_format_read(dataset, &out->format, &why))
        add_problem(out, "%.150s", why.text);
    else if (out->format.frames != 1 && !ct_is_multi_frame(out->sop_class_uid))
        add_problem(out, "%u frames in one CT image", out->format.frames);
    read_padding(dataset, out);
}

/* type_tag: of the four values whose third says what is shown, PS3.3 C.8.2.1.1.1 and C.8.16.1.3. */
static void read_frame(const struct ct_places *places, uint32_t type_tag, struct ct_header *out) {
    char type[128];
    shim_get_string(places->type, type_tag, type, sizeof type);
    out->is_localizer = strstr(type, "LOCALIZER") != NULL;
    shim_get_string(places->reconstruction, TAG_KERNEL, out->kernel, sizeof out->kernel);
    (void)shim_get_f64(places->measures, TAG_THICKNESS, 0, &out->thickness_mm);
    read_plane(places, out);
    read_rescale(places->values, out);
}

static void read_object(const struct shim_dataset *dataset, struct ct_header *out) {
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
    out->is_ct_image = strcmp(out->sop_class_uid, CT_IMAGE_STORAGE) == 0 || ct_is_multi_frame(out->sop_class_uid);
    if (out->is_ct_image)
        read_pixels(dataset, out);
}

/* ---- frames ------------------------------------------------------------------------------------------ */

void ct_headers_free(struct ct_headers *headers) {
    free(headers->items);
    *headers = (struct ct_headers){0};
}

static bool reserve(struct ct_headers *headers, size_t more, struct err *err) {
    const size_t wanted = headers->count + more;
    if (wanted > CT_FRAMES_MAX)
        return err_set(err, ERR_LIMIT, "more than %d slices", CT_FRAMES_MAX);
    if (wanted <= headers->capacity)
        return true;
    const size_t capacity = wanted > 2 * headers->capacity ? wanted : 2 * headers->capacity;
    struct ct_header *items = pulmo_alloc(capacity, sizeof *items, err);
    if (items == NULL)
        return false;
    if (headers->count > 0)
        memcpy(items, headers->items, headers->count * sizeof *items);
    free(headers->items);
    headers->items = items;
    headers->capacity = capacity;
    return true;
}

static bool add_frames(const struct shim_dataset *dataset, const struct ct_header *object, struct ct_headers *headers,
                       struct err *err) {
    const uint32_t frames = object->format.frames;
    if (!reserve(headers, frames, err))
        return false;
    for (uint32_t frame = 0; frame < frames; frame++) {
        struct ct_header *header = &headers->items[headers->count++];
        const struct ct_places places = ct_places_of_frame(dataset, frame);
        *header = *object;
        header->frame = frame;
        read_frame(&places, TAG_FRAME_TYPE, header);
        check_units(places.values, header);
    }
    return true;
}

static bool add_object(const struct shim_dataset *dataset, struct ct_header *object, struct ct_headers *headers,
                       struct err *err) {
    const bool multi_frame = ct_is_multi_frame(object->sop_class_uid);
    const size_t groups = multi_frame ? ct_frame_groups(dataset) : 0;
    if (multi_frame && object->problem[0] == '\0' && groups != object->format.frames)
        add_problem(object, "%zu functional groups for %u frames", groups, object->format.frames);
    if (multi_frame && object->problem[0] == '\0')
        return add_frames(dataset, object, headers, err);
    if (!reserve(headers, 1, err))
        return false;
    if (object->is_ct_image && !multi_frame) {
        const struct ct_places places = ct_places_of_image(dataset);
        read_frame(&places, TAG_IMAGE_TYPE, object);
    }
    headers->items[headers->count++] = *object;
    return true;
}

bool ct_headers_read(const char *path, size_t path_index, struct ct_headers *headers, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes file = {0};
    if (!bytes_read_file(path, CT_FILE_BYTES_MAX, &file, err))
        return false;
    PULMO_SCOPED(shim_dataset_free_at)
    struct shim_dataset *dataset = shim_dataset_parse_header(file.data, file.size, err);
    if (dataset == NULL)
        return false;
    const size_t before = headers->count;
    struct ct_header object = {.path_index = path_index, .slope = 1};
    read_object(dataset, &object);
    const bool done = shim_concluded(dataset, add_object(dataset, &object, headers, err), err);
    if (!done)
        headers->count = before;
    return done;
}
