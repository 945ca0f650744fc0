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
/* What its triage rule is worth, as the document says; out stays as it is when it does not. */
void finding_json_review_rule(const struct bytes *document, char *out, size_t size);
/* What computed the document, "" where it does not say: all that a replay must match for identical bytes. */
struct finding_origin {
    char pulmo[32], backend[32], library[64], instruction_set[64], precision[32];
    char model_name[128], model_version[64], model_sha256[65];
    char status[16], failure[512];    /* failure: the sentence of a failed one */
    struct infer_precision plan;      /* where precision is "mixed" */
    size_t findings_full, tiles_full; /* computed again in fp32 there */
};
bool finding_json_origin(const struct bytes *document, struct finding_origin *out, struct err *err) PULMO_MUST_USE;
/* Keeps those of the study's instances that the document names by digest: later ones are not its input.
 * ERR_CONFLICT when one of its inputs is not among them any more. */
bool finding_json_inputs(const struct bytes *document, struct store_paths *inout, struct err *err) PULMO_MUST_USE;

#endif
