#include "dicom/dicom.h"
#include "dicom/pixels.h"
#include "dicom/structure.h"
#include "digest.h"

#include <stdlib.h>
#include <string.h>

static const uint32_t TAG_SOP_CLASS = 0x00080016, TAG_SOP_INSTANCE = 0x00080018;

/* ---- attributes -------------------------------------------------------------------------------------- */

/* Digits and dots (PS3.5 9.1): an identifier that is part of a file's name somewhere must not be a path. Components
 * with leading zeros are against the rule, but harmless and seen in the field. */
static bool check_uid(const char *uid, const char *name, struct err *err) {
    if (uid[0] == '\0')
        return err_set(err, ERR_INPUT, "%s is missing", name);
    const size_t length = strlen(uid);
    if (strspn(uid, "0123456789.") != length || uid[0] == '.' || uid[length - 1] == '.' || strstr(uid, "..") != NULL)
        return err_set(err, ERR_INPUT, "%s is not a UID", name);
    return true;
}

/* A value longer than a UID may be would otherwise be cut to a valid one. */
static bool read_uid(const struct shim_dataset *dataset, uint32_t tag, const char *name, char out[DICOM_UID_SIZE],
                     struct err *err) {
    char value[2 * DICOM_UID_SIZE];
    shim_get_string(dataset, tag, value, sizeof value);
    if (strlen(value) >= DICOM_UID_SIZE)
        return err_set(err, ERR_INPUT, "%s has more than %d characters", name, DICOM_UID_SIZE - 1);
    if (!check_uid(value, name, err))
        return false;
    memcpy(out, value, strlen(value) + 1);
    return true;
}

/* Control characters end up in logs, headers and HTML attributes of others: they become spaces. */
static void read_text(const struct shim_dataset *dataset, uint32_t tag, char *out, size_t size) {
    shim_get_string(dataset, tag, out, size);
    for (char *p = out; *p != '\0'; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7F)
            *p = ' ';
}

static void read_texts(const struct shim_dataset *dataset, struct instance *out) {
    read_text(dataset, 0x00100010, out->patient_name, sizeof out->patient_name);
    read_text(dataset, 0x00100020, out->patient_id, sizeof out->patient_id);
    read_text(dataset, 0x00080050, out->accession_number, sizeof out->accession_number);
    read_text(dataset, 0x00080020, out->study_date, sizeof out->study_date);
    read_text(dataset, 0x00080030, out->study_time, sizeof out->study_time);
    read_text(dataset, 0x00081030, out->study_description, sizeof out->study_description);
    read_text(dataset, 0x0008103E, out->series_description, sizeof out->series_description);
    read_text(dataset, 0x00080060, out->modality, sizeof out->modality);
    (void)shim_get_i64(dataset, 0x00200013, 0, &out->instance_number);
}

/* ---- images ------------------------------------------------------------------------------------------ */

static bool is_ct_class(const char *uid) {
    static const char *const uids[] = {"1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1",
                                       "1.2.840.10008.5.1.4.1.1.2.2"};
    for (size_t i = 0; i < sizeof uids / sizeof uids[0]; i++)
        if (strcmp(uid, uids[i]) == 0)
            return true;
    return false;
}

/* Uncompressed Pixel Data must be as long as the header promises; compressed data must have a fragment a frame. */
static bool check_image(const struct shim_dataset *dataset, const struct structure_pixels *pixels, struct err *err) {
    struct pixel_format format;
    if (!pixels_format_read(dataset, &format, err))
        return false;
    if (!pixels->present)
        return err_set(err, ERR_INPUT, "Pixel Data is missing");
    if (pixels->fragments > 0) {
        return pixels->fragments > format.frames ||
               err_set(err, ERR_INPUT, "Pixel Data holds %zu fragments for %u frames", pixels->fragments - 1,
                       format.frames);
    }
    const size_t promised = (size_t)format.rows * format.columns * format.frames * (format.bits_allocated / 8);
    return pixels->size >= promised ||
           err_set(err, ERR_INPUT, "Pixel Data holds %zu bytes where %zu are promised", pixels->size, promised);
}

static bool read_instance(const struct shim_dataset *dataset, const struct structure_pixels *pixels,
                          struct instance *out, struct err *err) {
    if (!read_uid(dataset, TAG_SOP_CLASS, "SOP Class UID", out->sop_class_uid, err) ||
        !read_uid(dataset, TAG_SOP_INSTANCE, "SOP Instance UID", out->sop_instance_uid, err) ||
        !read_uid(dataset, 0x0020000D, "Study Instance UID", out->study_uid, err) ||
        !read_uid(dataset, 0x0020000E, "Series Instance UID", out->series_uid, err))
        return false;
    const char *syntax = shim_dataset_transfer_syntax(dataset);
    if (!check_uid(syntax, "Transfer Syntax UID", err) ||
        (is_ct_class(out->sop_class_uid) && !check_image(dataset, pixels, err)))
        return false;
    memcpy(out->transfer_syntax_uid, syntax, strlen(syntax) + 1);
    read_texts(dataset, out);
    return true;
}

bool dicom_instance_parse(const void *part10, size_t size, struct instance *out, struct err *err) {
    struct structure_pixels pixels = {.present = false};
    PULMO_SCOPED(shim_dataset_free_at)
    struct shim_dataset *dataset = shim_dataset_parse_image(part10, size, &pixels, err);
    struct instance instance = {.part10 = part10, .part10_size = size};
    if (dataset == NULL || !shim_concluded(dataset, read_instance(dataset, &pixels, &instance, err), err))
        return false;
    *out = instance;
    return true;
}

/* ---- digest of the values ---------------------------------------------------------------------------- */

/* Of all frames, one digest of the frames' digests, so that a long object needs the memory of one frame. */
bool dicom_pixel_digest(const void *part10, size_t size, char out[65], struct err *err) {
    PULMO_SCOPED(shim_dataset_free_at) struct shim_dataset *dataset = shim_dataset_parse(part10, size, err);
    struct pixel_format format;
    if (dataset == NULL || !pixels_format_read(dataset, &format, err))
        return false;
    const size_t count = (size_t)format.rows * format.columns;
    PULMO_SCOPED(pulmo_free_at) int32_t *values = pulmo_alloc(count, sizeof *values, err);
    PULMO_SCOPED(pulmo_free_at) char *digests = pulmo_alloc(format.frames, DIGEST_HEX_SIZE, err);
    if (values == NULL || digests == NULL)
        return false;
    for (uint32_t frame = 0; frame < format.frames; frame++)
        if (!shim_frame_decode(dataset, frame, values, count, err) ||
            !digest_hex(values, count * sizeof *values, digests + (size_t)frame * DIGEST_HEX_SIZE, err))
            return false;
    if (format.frames == 1) {
        memcpy(out, digests, DIGEST_HEX_SIZE);
        return true;
    }
    return digest_hex(digests, (size_t)format.frames * DIGEST_HEX_SIZE, out, err);
}
