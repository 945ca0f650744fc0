/* Confirmations by the PACS inside the transactions that make them due. */
#ifndef PULMO_STORE_COMMITMENT_H
#define PULMO_STORE_COMMITMENT_H

#include "store/store.h"

/* After an object of a result was sent: when it was the last of the signed result for this destination, the destination
 * is to be asked for it. Needs an open write transaction. */
bool commitment_due(struct store *store, int64_t result_id, const char *destination, int64_t now_ms,
                    struct err *err) PULMO_MUST_USE;

#endif
