/* Findings, refusals and failures as a Comprehensive 3D SR (PS3.3 A.35.13) of template TID 1500, in the source study.
 */
#include "dicom/sr_check.h"
#include "dicom/sr_groups.h"

#include <stdio.h>
#include <string.h>

/* ---- modules of the document ------------------------------------------------------------------------- */

static bool put_coding_schemes(struct shim_dataset *root, struct err *err) {
    static const struct object_row own[] = {
        {0x00080102, "99PULMO"}, {0x00080115, "Pulmo codes"}, {0x00080116, "Pulmo project"}};
    static const struct object_row radlex[] = {
        {0x00080102, "RADLEX"}, {0x0008010C, "2.16.840.1.113883.6.256"}, {0x00080112, "HL7"}, {0x00080115, "RadLex"}};
    struct shim_dataset *item = NULL;
    return shim_put_item(root, 0x00080110, &item, err) && object_put_rows(item, own, 3, err) &&
           shim_put_item(root, 0x00080110, &item, err) && object_put_rows(item, radlex, 4, err);
}

static bool put_template(struct shim_dataset *root, struct err *err) {
    struct shim_dataset *item = NULL;
    return shim_put_string(root, 0x0040A040, "CONTAINER", err) &&
           object_put_code(root, 0x0040A043, &sr_codes[SR_IMAGING_MEASUREMENT_REPORT], err) &&
           shim_put_string(root, 0x0040A050, "SEPARATE", err) && shim_put_item(root, 0x0040A504, &item, err) &&
           shim_put_string(item, 0x00080105, "DCMR", err) && shim_put_string(item, 0x0040DB00, "1500", err);
}

/* SR Document General; the two empty sequences are type 2, and often forgotten. */
static bool put_document(struct shim_dataset *root, bool is_signed, struct err *err) {
    const struct object_row rows[] = {{0x0040A491, "COMPLETE"},
                                      {0x0040A493, is_signed ? "VERIFIED" : "UNVERIFIED"},
                                      {0x0040A496, is_signed ? "FINAL" : "PRELIMINARY"}};
    return object_put_rows(root, rows, 3, err) && shim_put_item(root, 0x00081111, NULL, err) &&
           shim_put_item(root, 0x0040A372, NULL, err);
}

static bool put_verifier(struct shim_dataset *root, const struct dicom_report *report, struct err *err) {
    struct object_time now = object_time_of(report);
    struct shim_dataset *item = NULL;
    char when[32], name[256];
    const char *organization = report->verifier_organization && *report->verifier_organization
                                   ? report->verifier_organization
                                   : "not stated"; /* type 1 */
    snprintf(when, sizeof when, "%s%s", now.date, now.time);
    object_person_name(report->verifier_name, name);
    return shim_put_item(root, 0x0040A073, &item, err) && shim_put_string(item, 0x0040A027, organization, err) &&
           shim_put_string(item, 0x0040A030, when, err) && shim_put_string(item, 0x0040A075, name, err) &&
           shim_put_item(item, 0x0040A088, NULL, err);
}

static bool put_predecessor(struct shim_dataset *root, const struct dicom_report *report, struct err *err) {
    struct shim_dataset *study = NULL, *series = NULL;
    if (!report->predecessor_sop_instance_uid)
        return true;
    if (!report->predecessor_series_uid)
        return err_set(err, ERR_INPUT, "the predecessor's series is not known");
    return shim_put_item(root, 0x0040A360, &study, err) && shim_put_item(study, 0x00081115, &series, err) &&
           shim_put_string(study, 0x0020000D, report->series->study_uid, err) &&
           object_put_reference(series, 0x00081199, SOP_CLASS_SR_3D, report->predecessor_sop_instance_uid, err) &&
           shim_put_string(series, 0x0020000E, report->predecessor_series_uid, err);
}

/* ---- what it refers to ------------------------------------------------------------------------------- */

struct reference {
    char sop_class_uid[DICOM_UID_SIZE], sop_instance_uid[DICOM_UID_SIZE], series_uid[DICOM_UID_SIZE];
};

static bool reference_of(const struct bytes *part10, struct reference *out, struct err *err) {
    PULMO_SCOPED(shim_dataset_free_at)
    struct shim_dataset *source = shim_dataset_parse_header(part10->data, part10->size, err);
    if (!source)
        return false;
    bool found = (shim_get_string(source, 0x00080016, out->sop_class_uid, DICOM_UID_SIZE) &&
                  shim_get_string(source, 0x00080018, out->sop_instance_uid, DICOM_UID_SIZE) &&
                  shim_get_string(source, 0x0020000E, out->series_uid, DICOM_UID_SIZE)) ||
                 err_set(err, ERR_INPUT, "an instance to refer to has no UIDs");
    return shim_concluded(source, found, err);
}

/* All instances; of a series that was refused before its slices were sorted, the one whose header is at hand. */
static bool put_slices(struct shim_dataset *parent, const struct dicom_series *series,
                       bool (*put)(struct shim_dataset *, const char *, const char *, struct err *), struct err *err) {
    struct reference only = {0};
    for (size_t k = 0; k < series->slice_count; k++)
        if (object_first_of_instance(series, NULL, k) &&
            !put(parent, series->slices[k].sop_class_uid, series->slices[k].sop_instance_uid, err))
            return false;
    if (series->slice_count)
        return true;
    return reference_of(&series->header, &only, err) && put(parent, only.sop_class_uid, only.sop_instance_uid, err);
}

static bool put_evidence_item(struct shim_dataset *series, const char *sop_class_uid, const char *sop_instance_uid,
                              struct err *err) {
    return object_put_reference(series, 0x00081199, sop_class_uid, sop_instance_uid, err);
}

static bool put_evidence(struct shim_dataset *root, const struct dicom_series *source, const struct reference *seg,
                         struct err *err) {
    struct shim_dataset *study = NULL, *series = NULL;
    if (!shim_put_item(root, 0x0040A375, &study, err) || !shim_put_string(study, 0x0020000D, source->study_uid, err) ||
        !shim_put_item(study, 0x00081115, &series, err) ||
        !shim_put_string(series, 0x0020000E, source->series_uid, err) ||
        !put_slices(series, source, put_evidence_item, err))
        return false;
    return !*seg->series_uid || (shim_put_item(study, 0x00081115, &series, err) &&
                                 shim_put_string(series, 0x0020000E, seg->series_uid, err) &&
                                 put_evidence_item(series, seg->sop_class_uid, seg->sop_instance_uid, err));
}

/* ---- content ----------------------------------------------------------------------------------------- */

static bool put_context(struct shim_dataset *root, const struct dicom_report *report, struct err *err) {
    return sr_put_code(root, SR_HAS_CONCEPT_MOD, SR_LANGUAGE, &sr_codes[SR_ENGLISH], err) &&
           sr_put_code(root, SR_HAS_OBS_CONTEXT, SR_OBSERVER_TYPE, &sr_codes[SR_DEVICE], err) &&
           sr_put_uid(root, SR_HAS_OBS_CONTEXT, SR_DEVICE_UID, report->device_observer_uid, err) &&
           sr_put_text(root, SR_HAS_OBS_CONTEXT, SR_DEVICE_NAME, "PULMO", err) &&
           sr_put_code(root, SR_HAS_CONCEPT_MOD, SR_PROCEDURE_REPORTED, &sr_codes[SR_CT], err);
}

static bool put_image_library(struct shim_dataset *root, const struct dicom_series *series, struct err *err) {
    struct shim_dataset *library = NULL, *group = NULL;
    return sr_put_container(root, SR_IMAGE_LIBRARY, &library, err) &&
           sr_put_container(library, SR_IMAGE_LIBRARY_GROUP, &group, err) &&
           put_slices(group, series, sr_put_image, err);
}

static bool put_all(struct shim_dataset *root, const struct dicom_report *report, const struct reference *seg,
                    struct err *err) {
    static const struct object_series series = {"SR", "Pulmo report. " PULMO_NOT_FOR_DIAGNOSIS, "9001"};
    bool is_signed = report->verifier_name != NULL;
    return shim_put_string(root, 0x00080016, SOP_CLASS_SR_3D, err) && object_put_study(root, report->series, err) &&
           object_put_series(root, report, &series, err) && put_coding_schemes(root, err) && put_template(root, err) &&
           put_document(root, is_signed, err) && (!is_signed || put_verifier(root, report, err)) &&
           put_predecessor(root, report, err) && put_evidence(root, report->series, seg, err) &&
           put_context(root, report, err) && put_image_library(root, report->series, err) &&
           sr_put_measurements(root, report, *seg->sop_instance_uid ? seg->sop_instance_uid : NULL, err) &&
           sr_put_evaluations(root, report, err);
}

bool dicom_sr_write(const struct dicom_report *report, const struct bytes *seg_part10, struct bytes *out,
                    char sop_instance_uid[DICOM_UID_SIZE], struct err *err) {
    struct reference seg = {0};
    char uid[DICOM_UID_SIZE];
    if (seg_part10 && !reference_of(seg_part10, &seg, err))
        return err_within(err, "segmentation");
    PULMO_SCOPED(shim_dataset_free_at) struct shim_dataset *root = shim_dataset_new(err);
    PULMO_SCOPED(bytes_free) struct bytes written = {0};
    if (!root || !put_all(root, report, &seg, err) || !object_finish(root, "sr", &written, uid, err) ||
        !sr_check(root, err))
        return false;
    *out = written;
    written = (struct bytes){0};
    snprintf(sop_instance_uid, DICOM_UID_SIZE, "%s", uid);
    return true;
}
