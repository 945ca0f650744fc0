/* The handlers of the REST interface; route.c says at which address and for whom. */
#ifndef PULMO_WEB_API_H
#define PULMO_WEB_API_H

#include "web/request.h"

request_handler api_health, api_metrics, api_audit;                                /* api_system.c */
request_handler api_worklist, api_study, api_series, api_slice, api_hold;          /* api_studies.c */
request_handler api_result, api_result_state, api_artifact, api_verdict, api_sign; /* api_reading.c */

/* ---- documents: api_documents.c ---------------------------------------------------------------------- */

cJSON *api_study_document(const struct store_study *study);
/* A result with its analysis, overlays list and verdicts. */
cJSON *api_result_document(struct request *request, const struct store_result *result, struct err *err);
cJSON *api_verdict_document(const struct store_verdict *verdict);
/* An artifact of a result as JSON; *out NULL when the result has none of that name. */
bool api_read_json(struct request *request, int64_t result_id, const char *name, cJSON **out,
                   struct err *err) PULMO_MUST_USE;

#endif
