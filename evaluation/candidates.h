/* What is judged beyond the FROC: candidates, their probabilities, uncertainties, diameters, textures. Internal to
 * evaluation/. */
#ifndef EVALUATION_CANDIDATES_H
#define EVALUATION_CANDIDATES_H

#include "evaluation/froc.h"

struct candidate {
    const struct mark *mark; /* borrowed from the dataset */
    bool nodule;
};
struct candidates {
    struct candidate *items; /* owned; by scan, in the order of the file */
    size_t count, scans;
    double threshold; /* the score of 8 false positives a scan */
    bool probable;    /* every mark's score lies in 0..1 */
};
bool candidates_select(const struct dataset *dataset, const struct outcomes *outcomes, struct candidates *out,
                       struct err *err) PULMO_MUST_USE;
void candidates_free(struct candidates *candidates);

bool reliability_measure(const struct candidates *candidates, const struct evaluation_config *config,
                         struct evaluation_reliability *out, struct err *err) PULMO_MUST_USE;
bool triage_measure(const struct candidates *candidates, const struct evaluation_config *config,
                    struct evaluation_triage *out, struct err *err) PULMO_MUST_USE;
bool diameters_compare(const struct dataset *dataset, const struct outcomes *outcomes, struct evaluation_diameter *out,
                       struct err *err) PULMO_MUST_USE;
void textures_compare(const struct dataset *dataset, const struct outcomes *outcomes, size_t out[3][3]);

#endif
