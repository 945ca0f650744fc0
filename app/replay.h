/* Comparing a result with its computation again: the conditions, the bytes, and, where the conditions differ, the
 * probabilities. */
#ifndef PULMO_APP_REPLAY_H
#define PULMO_APP_REPLAY_H

#include "app/artifacts.h"
#include "app/finding_json.h"

#define REPLAY_TOLERANCE 1e-4

/* Prints a line for each condition of identical bytes that this machine does not meet; returns how many. */
size_t replay_print_conditions(const struct finding_origin *origin, const struct engine *engine);
/* What the configuration would do otherwise today. The replay takes the recorded values all the same. */
void replay_print_configuration(const struct analysis_run *recorded, const struct analysis_run *configured);

struct replay_files {
    size_t made, identical;
};
/* Compares each file with the stored one; names those that differ. */
bool replay_compare_files(struct store *store, int64_t result_id, const struct artifacts *made,
                          struct replay_files *out, struct err *err) PULMO_MUST_USE;
/* Compares the findings by place and probability; prints the greatest difference. False when it is beyond the
 * tolerance, or a finding is in one of them only. */
bool replay_compare_findings(const struct findings *stored, const struct findings *made);

#endif
