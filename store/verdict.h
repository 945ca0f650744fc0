/* May a reader still decide on this result? */
#ifndef PULMO_STORE_VERDICT_H
#define PULMO_STORE_VERDICT_H

#include "store/store.h"

/* ERR_NOT_FOUND no such result; ERR_CONFLICT superseded, signed, or being signed. Needs an open transaction. */
bool verdict_open(struct store *store, int64_t result_id, char study_uid[DICOM_UID_SIZE],
                  struct err *err) PULMO_MUST_USE;

#endif
