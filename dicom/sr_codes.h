/* The codes of the report, each once: REFERENCE and docs name them by these meanings. Private to dicom/.
 *
 * 99PULMO is declared in the object's Coding Scheme Identification Sequence. */
#ifndef PULMO_DICOM_SR_CODES_H
#define PULMO_DICOM_SR_CODES_H

#include "dicom/object.h"

#ifdef __cplusplus
extern "C" {
#endif

enum sr_code {
    /* document, PS3.16 TID 1500, 1204, 1002, 1004, 1600 */
    SR_IMAGING_MEASUREMENT_REPORT = 0,
    SR_LANGUAGE,
    SR_ENGLISH,
    SR_OBSERVER_TYPE,
    SR_DEVICE,
    SR_DEVICE_UID,
    SR_DEVICE_NAME,
    SR_PROCEDURE_REPORTED,
    SR_CT,
    SR_IMAGE_LIBRARY,
    SR_IMAGE_LIBRARY_GROUP,
    SR_IMAGING_MEASUREMENTS,
    SR_QUALITATIVE_EVALUATIONS,
    /* a finding, TID 1411 */
    SR_MEASUREMENT_GROUP,
    SR_TRACKING_IDENTIFIER,
    SR_TRACKING_UID,
    SR_FINDING,
    SR_PULMONARY_NODULE,
    SR_REFERENCED_SEGMENT,
    SR_VOLUME_SURFACE,
    SR_SOURCE_SERIES,
    SR_FINDING_SITE,
    SR_DIAMETER,
    SR_LONG_AXIS,
    SR_SHORT_AXIS,
    SR_VOLUME,
    SR_CERTAINTY,
    SR_CERTAINTY_LOW,
    SR_CERTAINTY_HIGH,
    SR_ENTROPY,
    SR_MUTUAL_INFORMATION,
    SR_COMPOSITION,
    SR_VERDICT,
    SR_VERDICT_ACCEPTED,
    SR_VERDICT_REJECTED,
    SR_VERDICT_ADDED,
    SR_VERDICT_NONE,
    SR_TRIAGE,
    SR_TRIAGE_REVIEW,
    SR_TRIAGE_RULE,
    /* algorithm, TID 4019 */
    SR_ALGORITHM_NAME,
    SR_ALGORITHM_VERSION,
    SR_ALGORITHM_PARAMETERS,
    /* the study as a whole */
    SR_STATUS,
    SR_STATUS_NODULES,
    SR_STATUS_NO_NODULES,
    SR_STATUS_FAILED,
    SR_REASON,
    SR_NOTICE,
    /* units */
    SR_UNIT_MM,
    SR_UNIT_MM3,
    SR_UNIT_PERCENT,
    SR_UNIT_ONE,
    SR_CODE_COUNT
};
extern const struct code sr_codes[SR_CODE_COUNT];
const struct code *sr_texture_code(enum texture texture);      /* NULL where unknown */
const struct code *sr_lobe_code(enum lobe lobe);               /* NULL where unknown */
const struct code *sr_refusal_code(enum refusal_code refusal); /* the status of a refused study */
const struct code *sr_verdict_code(enum dicom_verdict verdict);

/* "nodule 3", the same in SEG and SR. It says what a reader rejected or added, since a PACS that knows nothing of our
 * verdict codes shows at least this text. */
void sr_tracking_identifier(const struct dicom_report_finding *finding, char out[64]);

#ifdef __cplusplus
}
#endif
#endif
