/* Asks the PACS what it has of what it was sent. */
#ifndef PULMO_APP_CONFIRM_H
#define PULMO_APP_CONFIRM_H

#include "config.h"
#include "dicom/dicom.h"
#include "store/store.h"

/* A destination of the configuration, as the DICOM client wants it; borrows from the configuration and itself. */
struct outbox_peer {
    struct config_destination entry;
    struct dicom_tls tls;
    struct dicom_destination dicom;
};
/* The destination of the name that store_destination_now tells; false: the configuration has none. */
bool outbox_peer_find(const struct config *config, const char *name, struct outbox_peer *out);

/* One due question, if any: *idle when there was none. A peer that does not answer is no error. */
bool confirm_step(const struct config *config, struct store *store, bool *idle, struct err *err) PULMO_MUST_USE;
/* What a report of a Storage Commitment says of a study: confirmed, or to be asked for again. */
bool confirm_report(const struct config *config, struct store *store, const struct dicom_commitment_report *report,
                    struct err *err) PULMO_MUST_USE;

#endif
