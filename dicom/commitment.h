/* Storage Commitment Push Model, PS3.4 J: the reports that a peer sends. Private to dicom/. */
#ifndef PULMO_DICOM_COMMITMENT_H
#define PULMO_DICOM_COMMITMENT_H

#include "dicom/association.h"
#include "dicom/dicom.h"

/* Hands an N-EVENT-REPORT to the sink and answers it; false when the association is of no further use. */
bool commitment_answer(struct association *association, const struct command *command, dicom_commitment_sink *sink,
                       void *context, struct err *err) PULMO_MUST_USE;

#endif
