/* Reads back what analysis_json wrote: the findings and the run of a stored result. */
#ifndef PULMO_APP_FINDING_JSON_H
#define PULMO_APP_FINDING_JSON_H

#include "app/analysis.h"

/* out: owned by the caller (findings_free). ERR_INPUT when the document is not one of ours. */
bool finding_json_read(const struct bytes *document, struct findings *out, struct analysis_run *run,
                       struct err *err) PULMO_MUST_USE;

#endif
