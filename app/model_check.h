/* Does a model run? The question before it is installed: digests and shapes hold when it has been opened, numbers are
 * seen only when it computes. */
#ifndef PULMO_APP_MODEL_CHECK_H
#define PULMO_APP_MODEL_CHECK_H

#include "app/analysis.h"

struct model_check {
    double nodule_mm;       /* the phantom's nodule */
    bool found;             /* a candidate of the detector lies in it */
    double detector_logit;  /* of that candidate */
    double probability;     /* of the nodule, by both networks, calibrated; of what was found */
    double lowest, highest; /* of its passes */
    size_t candidates;      /* of the detector, in the piece of the phantom */
    int64_t ms;
};
/* Detector, candidate passes, gradient map and gate on a piece of a phantom around its nodule. False when one of them
 * fails or gives what is no number; a nodule that is not found is for the caller to judge. */
bool model_check(struct engine *engine, struct model_check *out, struct err *err) PULMO_MUST_USE;

#endif
