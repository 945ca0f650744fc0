/* What every client of ours has in common. Private to dicom/. */
#ifndef PULMO_DICOM_SCU_H
#define PULMO_DICOM_SCU_H

#include "dicom/association.h"
#include "dicom/dicom.h"

#define IMPLICIT_LITTLE_ENDIAN "1.2.840.10008.1.2"

/* An association with the destination, or NULL with an error that names it. */
struct association *scu_connect(const struct dicom_destination *destination, const struct shim_proposal *proposals,
                                size_t count, struct err *err);

#endif
