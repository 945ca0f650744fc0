#include "dicom/object.h"

#include "digest.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---- attributes -------------------------------------------------------------------------------------- */

bool object_put_rows(struct shim_dataset *dataset, const struct object_row *rows, size_t count, struct err *err) {
    for (size_t row = 0; row < count; row++)
        if (!shim_put_string(dataset, rows[row].tag, rows[row].value, err))
            return false;
    return true;
}

/* The most digits that fit; -0 is 0. */
static void decimal_string(double value, char out[17]) {
    char text[40];
    value = fabs(value) < 1e-9 ? 0 : value;
    for (int digits = 10; digits > 0; digits--) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strlen(text) <= 16)
            break;
    }
    snprintf(out, 17, "%.16s", text);
}

bool object_put_numbers(struct shim_dataset *dataset, uint32_t tag, const double *values, size_t count,
                        struct err *err) {
    char text[6 * 17 + 1] = "";
    size_t used = 0;
    for (size_t index = 0; index < count && used + 18 < sizeof text; index++) {
        char number[17];
        decimal_string(values[index], number);
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", index ? "\\" : "", number);
    }
    return shim_put_string(dataset, tag, text, err);
}

bool object_put_u16(struct shim_dataset *dataset, uint32_t tag, uint16_t value, struct err *err) {
    return shim_put_u16(dataset, tag, &value, 1, err);
}

bool object_put_u32(struct shim_dataset *dataset, uint32_t tag, uint32_t value, struct err *err) {
    return shim_put_u32(dataset, tag, &value, 1, err);
}

bool object_put_code(struct shim_dataset *dataset, uint32_t sequence_tag, const struct code *code, struct err *err) {
    struct shim_dataset *item = NULL;
    return shim_put_item(dataset, sequence_tag, &item, err) && shim_put_string(item, 0x00080100, code->value, err) &&
           shim_put_string(item, 0x00080102, code->scheme, err) &&
           shim_put_string(item, 0x00080104, code->meaning, err);
}

bool object_put_reference(struct shim_dataset *dataset, uint32_t sequence_tag, const char *sop_class_uid,
                          const char *sop_instance_uid, struct err *err) {
    struct shim_dataset *item = NULL;
    return shim_put_item(dataset, sequence_tag, &item, err) && shim_put_string(item, 0x00081150, sop_class_uid, err) &&
           shim_put_string(item, 0x00081155, sop_instance_uid, err);
}

bool object_first_of_instance(const struct dicom_series *series, const bool *used, size_t k) {
    const struct dicom_slice *slices = series->slices;
    for (size_t below = k; slices[k].frame_number > 0 && below-- > 0;)
        if ((used == NULL || used[below]) && strcmp(slices[below].sop_instance_uid, slices[k].sop_instance_uid) == 0)
            return false;
    return true;
}

/* ---- patient and study ------------------------------------------------------------------------------- */

/* PS3.3 C.7.1.1, C.7.1.3, C.7.2.1 to C.7.2.3: all that belongs to the patient and the study. Series and image
 * attributes of the CT must not follow it here. */
static const uint32_t copied_tags[] = {
    0x00080020, /* Study Date */
    0x00080030, /* Study Time */
    0x00080050, /* Accession Number */
    0x00080051, /* Issuer of Accession Number Sequence */
    0x00080090, /* Referring Physician's Name */
    0x00080201, /* Timezone Offset From UTC */
    0x00081030, /* Study Description */
    0x00100010, /* Patient's Name */
    0x00100020, /* Patient ID */
    0x00100021, /* Issuer of Patient ID */
    0x00100030, /* Patient's Birth Date */
    0x00100040, /* Patient's Sex */
    0x00101010, /* Patient's Age */
    0x00101000, /* Other Patient IDs */
    0x00101002, /* Other Patient IDs Sequence */
    0x00101020, /* Patient's Size */
    0x00101030, /* Patient's Weight */
    0x00102160, /* Ethnic Group */
    0x00102180, /* Occupation */
    0x001021B0, /* Additional Patient History */
    0x00104000, /* Patient Comments */
    0x00120010, /* Clinical Trial Sponsor Name */
    0x00120020, /* Clinical Trial Protocol ID */
    0x00120021, /* Clinical Trial Protocol Name */
    0x00120030, /* Clinical Trial Site ID */
    0x00120031, /* Clinical Trial Site Name */
    0x00120040, /* Clinical Trial Subject ID */
    0x00120042, /* Clinical Trial Subject Reading ID */
    0x00120050, /* Clinical Trial Time Point ID */
    0x00120051, /* Clinical Trial Time Point Description */
    0x00120062, /* Patient Identity Removed */
    0x00120063, /* De-identification Method */
    0x00120064, /* De-identification Method Code Sequence */
    0x00200010, /* Study ID */
};
static const uint32_t type_2_tags[] = {0x00080020, 0x00080030, 0x00080050, 0x00080090, 0x00100010,
                                       0x00100020, 0x00100030, 0x00100040, 0x00200010};

static bool copy_from_header(struct shim_dataset *dataset, const struct bytes *header, struct err *err) {
    if (!header->size)
        return true;
    PULMO_SCOPED(shim_dataset_free_at)
    struct shim_dataset *source = shim_dataset_parse_header(header->data, header->size, err);
    if (!source)
        return err_within(err, "header of the source series");
    for (size_t index = 0; index < sizeof copied_tags / sizeof *copied_tags; index++)
        if (!shim_copy(dataset, source, copied_tags[index], err))
            return false;
    return shim_concluded(source, true, err);
}

bool object_put_study(struct shim_dataset *dataset, const struct dicom_series *series, struct err *err) {
    if (!*series->study_uid)
        return err_set(err, ERR_INPUT, "the source series has no Study Instance UID");
    if (!copy_from_header(dataset, &series->header, err))
        return false;
    for (size_t index = 0; index < sizeof type_2_tags / sizeof *type_2_tags; index++)
        if (!shim_has(dataset, type_2_tags[index]) && !shim_put_string(dataset, type_2_tags[index], "", err))
            return false;
    return shim_put_string(dataset, 0x0020000D, series->study_uid, err);
}

bool object_frame_of_reference(const struct dicom_series *series, char out[DICOM_UID_SIZE], struct err *err) {
    char text[128];
    if (*series->frame_of_reference_uid) {
        snprintf(out, DICOM_UID_SIZE, "%s", series->frame_of_reference_uid);
        return true;
    }
    snprintf(text, sizeof text, "pulmo frame of reference of %s", series->series_uid);
    return dicom_uid_derive(text, out, err);
}

/* ---- series and equipment ---------------------------------------------------------------------------- */

/* "+0530" as seconds; false where the source says nothing valid. */
static bool source_offset(const struct dicom_series *series, long *seconds) {
    char text[32] = "";
    int hours = 0, minutes = 0;
    if (!series->header.size)
        return false;
    struct shim_dataset *source = shim_dataset_parse_header(series->header.data, series->header.size, NULL);
    bool found = source && shim_get_string(source, 0x00080201, text, sizeof text) && strlen(text) == 5 &&
                 sscanf(text + 1, "%2d%2d", &hours, &minutes) == 2 && hours <= 14 && minutes < 60;
    shim_dataset_free(source);
    *seconds = (hours * 60L + minutes) * 60 * (text[0] == '-' ? -1 : 1);
    return found;
}

struct object_time object_time_of(const struct dicom_report *report) {
    struct object_time out = {0};
    struct tm parts;
    long offset = 0;
    time_t seconds = (time_t)(report->time_ms / 1000);
    bool known = source_offset(report->series, &offset);
    time_t shifted = seconds + (known ? (time_t)offset : 0);
    if (!(known ? gmtime_r(&shifted, &parts) : localtime_r(&shifted, &parts)))
        return out;
    strftime(out.date, sizeof out.date, "%Y%m%d", &parts);
    strftime(out.time, sizeof out.time, "%H%M%S", &parts);
    return out;
}

bool object_put_series(struct shim_dataset *dataset, const struct dicom_report *report,
                       const struct object_series *series, struct err *err) {
    struct object_time now = object_time_of(report);
    char software[160];
    snprintf(software, sizeof software, "%s\\%.48s", PULMO_VERSION, report->model_version);
    const struct object_row rows[] = {
        {0x00080021, now.date},
        {0x00080023, now.date},
        {0x00080031, now.time},
        {0x00080033, now.time},
        {0x00080060, series->modality},
        {0x00080070, "Pulmo"},
        {0x0008103E, series->description},
        {0x00081090, "Pulmo"},
        {0x00181000, report->device_observer_uid}, /* one installation, one number */
        {0x00181020, software},
        {0x00200011, series->series_number},
        {0x00200013, "1"},
    };
    return object_put_rows(dataset, rows, sizeof rows / sizeof *rows, err);
}

/* ---- identity ---------------------------------------------------------------------------------------- */

static bool content_digest(const struct shim_dataset *dataset, char out[DIGEST_HEX_SIZE], struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes content = {0};
    return shim_dataset_write(dataset, NULL, &content, err) && digest_hex(content.data, content.size, out, err);
}

bool object_finish(struct shim_dataset *dataset, const char *kind, struct bytes *out,
                   char sop_instance_uid[DICOM_UID_SIZE], struct err *err) {
    char digest[DIGEST_HEX_SIZE], text[160], series_uid[DICOM_UID_SIZE], instance_uid[DICOM_UID_SIZE];
    /* 2.25.0 stands in for both UIDs while the content is digested. */
    if (!shim_put_string(dataset, 0x00080018, "2.25.0", err) || !shim_put_string(dataset, 0x0020000E, "2.25.0", err) ||
        !content_digest(dataset, digest, err))
        return false;
    snprintf(text, sizeof text, "pulmo %s series %s", kind, digest);
    if (!dicom_uid_derive(text, series_uid, err))
        return false;
    snprintf(text, sizeof text, "pulmo %s instance %s", kind, digest);
    if (!dicom_uid_derive(text, instance_uid, err) || !shim_put_string(dataset, 0x00080018, instance_uid, err) ||
        !shim_put_string(dataset, 0x0020000E, series_uid, err) || !shim_dataset_write(dataset, NULL, out, err))
        return false;
    snprintf(sop_instance_uid, DICOM_UID_SIZE, "%s", instance_uid);
    return true;
}

void object_person_name(const char *name, char out[256]) {
    size_t used = 0, characters = 0;
    for (; *name && used < 255; name++) {
        unsigned char byte = (unsigned char)*name;
        bool first_byte = (byte & 0xC0) != 0x80;
        if (first_byte && ++characters > 64)
            break;
        out[used++] = byte < 0x20 || byte == '\\' || byte == '=' || byte == 0x7F ? ' ' : *name;
    }
    out[used] = '\0';
}
