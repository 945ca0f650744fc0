/* Models inside the transactions of the store. */
#ifndef PULMO_STORE_MODEL_H
#define PULMO_STORE_MODEL_H

#include "store/store.h"

/* ERR_NOT_FOUND unless the model is installed. */
bool model_installed(struct store *store, const char *sha256, struct err *err) PULMO_MUST_USE;
/* A row of the audit trail on a change of models. Needs an open write transaction. */
bool model_audit(struct store *store, const char *action, const char *actor, const char *detail,
                 struct err *err) PULMO_MUST_USE;

#endif
