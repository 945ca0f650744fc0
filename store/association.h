/* Which open association sent to which study: evidence of completeness. */
#ifndef PULMO_STORE_ASSOCIATION_H
#define PULMO_STORE_ASSOCIATION_H

#include "store/store.h"

/* Notes in the open transaction that the instance's association sent to its study; nothing when none is open. */
bool association_note(struct store *store, const struct instance *instance, struct err *err) PULMO_MUST_USE;

#endif
