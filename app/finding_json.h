/* Reads back what analysis_json wrote: the findings and the run of a stored result. */
#ifndef PULMO_APP_FINDING_JSON_H
#define PULMO_APP_FINDING_JSON_H

#include "app/analysis.h"
#include "store/store.h"

/* out: owned by the caller (findings_free). ERR_INPUT when the document is not one of ours. */
bool finding_json_read(const struct bytes *document, struct findings *out, struct analysis_run *run,
                       struct err *err) PULMO_MUST_USE;
/* Why it was refused; none for a document of another status. ERR_INPUT when a reason is not one of ours. */
bool finding_json_refusals(const struct bytes *document, struct refusals *out, struct err *err) PULMO_MUST_USE;
/* Name and version of the model that made it; "" when the document does not say. */
void finding_json_model(const struct bytes *document, char name[128], char version[64]);
/* Keeps those of the study's instances that the document names by digest: later ones are not its input.
 * ERR_CONFLICT when one of its inputs is not among them any more. */
bool finding_json_inputs(const struct bytes *document, struct store_paths *inout, struct err *err) PULMO_MUST_USE;

#endif
