/* Which model: the one that was promoted in the store, or that of the configuration. */
#ifndef PULMO_APP_MODELS_H
#define PULMO_APP_MODELS_H

#include "app/analysis.h"
#include "store/store.h"

/* Opens an installed model by its digest; "" = that of the configuration. ERR_NOT_FOUND when it is not installed. */
bool models_open(const struct config *config, struct store *store, const char *sha256, struct engine *out,
                 struct err *err) PULMO_MUST_USE;
/* Before each job of a worker: opens the model that the store says is in use, unless engine holds it; the former one
 * stays open until then. active: what engine holds ("" = that of the configuration). *changed: it was replaced. */
bool models_follow(const struct config *config, struct store *store, char active[65], struct engine *engine,
                   bool *changed, struct err *err) PULMO_MUST_USE;

#endif
