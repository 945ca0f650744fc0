/* What `pulmo model` prints of models. Each returns the exit status. */
#ifndef PULMO_APP_MODEL_REPORT_H
#define PULMO_APP_MODEL_REPORT_H

#include "app/analysis.h"

#include <stdbool.h>

struct model_request {
    const char *file; /* --model: instead of the one that is in use; NULL = not given */
    bool json, off;
};
/* Every installed model and that of the configuration. */
int model_list(const struct config *config, const struct model_request *request);
/* Opens one model: by digest (NULL = none given), by file, or the one in use. */
bool model_open_shown(const struct config *config, const struct model_request *request, const char *digest,
                      struct engine *out, struct err *err) PULMO_MUST_USE;
/* The same, checked and printed. */
int model_show(const struct config *config, const struct model_request *request, const char *digest);

/* What the present shadow, or the named model when it was one, said of the studies, beside their results. */
int model_compare(const struct config *config, const struct model_request *request, const char *digest);

#endif
