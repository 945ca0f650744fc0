/* The pause of a peer that does not answer. */
#ifndef PULMO_STORE_OUTBOX_H
#define PULMO_STORE_OUTBOX_H

#include "store/store.h"

/* Nothing is sent to the destination for a while, which grows with each failure in a row; ended by deleting the row of
 * destination_pause. Needs an open write transaction. */
bool outbox_pause(struct store *store, const char *destination, int64_t now_ms, struct err *err) PULMO_MUST_USE;

#endif
