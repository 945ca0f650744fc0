/* Models inside the transactions of the store. */
#ifndef PULMO_STORE_MODEL_H
#define PULMO_STORE_MODEL_H

#include "store/store.h"

/* The digest that the first row of a query holds; empty when it has none. */
bool model_digest(struct store *store, const char *sql, char sha256[65], struct err *err) PULMO_MUST_USE;
/* ERR_NOT_FOUND unless the model is installed. */
bool model_installed(struct store *store, const char *sha256, struct err *err) PULMO_MUST_USE;
/* The model is no shadow any more; nothing when it was none. Needs an open write transaction. */
bool model_shadow_end(struct store *store, const char *sha256, const char *actor, struct err *err) PULMO_MUST_USE;
/* Queues the shadow's job on a new result, when there is a shadow. Needs an open write transaction. */
bool shadow_queue(struct store *store, const struct store_job *job, const struct store_report *report,
                  int64_t result_id, struct err *err) PULMO_MUST_USE;
/* A row of the audit trail on a change of models. Needs an open write transaction. */
bool model_audit(struct store *store, const char *action, const char *actor, const char *detail,
                 struct err *err) PULMO_MUST_USE;

#endif
