/* The measured and the judged part of the report. Private to dicom/. */
#ifndef PULMO_DICOM_SR_GROUPS_H
#define PULMO_DICOM_SR_GROUPS_H

#include "dicom/sr_content.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Imaging Measurements with one TID 1411 group a finding; nothing where there is no finding.
 * seg_instance_uid: NULL = no SEG, every finding is then a sphere. */
bool sr_put_measurements(struct shim_dataset *root, const struct dicom_report *report, const char *seg_instance_uid,
                         struct err *err) PULMO_MUST_USE;
/* Qualitative Evaluations: status, reasons, what was run, and the notice. */
bool sr_put_evaluations(struct shim_dataset *root, const struct dicom_report *report, struct err *err) PULMO_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
