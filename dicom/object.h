/* What every object that Pulmo writes has in common: patient, study, equipment, times, codes, UIDs. Private to dicom/.
 */
#ifndef PULMO_DICOM_OBJECT_H
#define PULMO_DICOM_OBJECT_H

#include "dicom/dcmtk_shim.h"
#include "dicom/dicom.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SOP_CLASS_CT "1.2.840.10008.5.1.4.1.1.2"
#define SOP_CLASS_SEG "1.2.840.10008.5.1.4.1.1.66.4"
#define SOP_CLASS_SR_3D "1.2.840.10008.5.1.4.1.1.88.34"

struct object_row {
    uint32_t tag;
    const char *value; /* "" = present and empty (type 2) */
};
bool object_put_rows(struct shim_dataset *dataset, const struct object_row *rows, size_t count,
                     struct err *err) PULMO_MUST_USE;
/* Numbers as DS: at most 16 characters a value (PS3.5 6.2), backslash-separated. */
bool object_put_numbers(struct shim_dataset *dataset, uint32_t tag, const double *values, size_t count,
                        struct err *err) PULMO_MUST_USE;
bool object_put_u16(struct shim_dataset *dataset, uint32_t tag, uint16_t value, struct err *err) PULMO_MUST_USE;
bool object_put_u32(struct shim_dataset *dataset, uint32_t tag, uint32_t value, struct err *err) PULMO_MUST_USE;

struct code {
    const char *value, *scheme, *meaning;
};
/* Appends one code item to a sequence; with one code that is the usual single-item sequence. */
bool object_put_code(struct shim_dataset *dataset, uint32_t sequence_tag, const struct code *code,
                     struct err *err) PULMO_MUST_USE;
bool object_put_reference(struct shim_dataset *dataset, uint32_t sequence_tag, const char *sop_class_uid,
                          const char *sop_instance_uid, struct err *err) PULMO_MUST_USE;
/* Whether slice k is the first of its instance, among the used ones (NULL = all): an instance of many frames is
 * referred to once. */
bool object_first_of_instance(const struct dicom_series *series, const bool *used, size_t k);

/* Patient and General Study modules of the source series, so that the result lands in its study; type 2 attributes that
 * the source lacks are present and empty. Text arrives as UTF-8. */
bool object_put_study(struct shim_dataset *dataset, const struct dicom_series *series, struct err *err) PULMO_MUST_USE;
/* Series, content and equipment attributes of a result: modality, description, date and time, device. */
struct object_series {
    const char *modality, *description, *series_number;
};
bool object_put_series(struct shim_dataset *dataset, const struct dicom_report *report,
                       const struct object_series *series, struct err *err) PULMO_MUST_USE;
/* Date and time of time_ms in the source's time zone where it names one, else in this machine's; DA and TM, 0 = none.
 */
struct object_time {
    char date[9], time[14];
};
struct object_time object_time_of(const struct dicom_report *report);
/* Frame of Reference UID of the source; a derived one where the source has none, since a segmentation needs one. */
bool object_frame_of_reference(const struct dicom_series *series, char out[DICOM_UID_SIZE],
                               struct err *err) PULMO_MUST_USE;
/* Gives the object series and instance UIDs derived from its content, so that the same content has the same UIDs and
 * other content never has, and writes it as Part 10. */
bool object_finish(struct shim_dataset *dataset, const char *kind, struct bytes *out,
                   char sop_instance_uid[DICOM_UID_SIZE], struct err *err) PULMO_MUST_USE;

/* A person's name as one PN component group: no control characters, '\\' or '=', 64 characters. */
void object_person_name(const char *name, char out[256]);

#ifdef __cplusplus
}
#endif
#endif
