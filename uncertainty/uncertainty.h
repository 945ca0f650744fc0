/* Monte-Carlo dropout: how sure the model is of each finding (Gal and Ghahramani, ICML 2016). */
#ifndef PULMO_UNCERTAINTY_H
#define PULMO_UNCERTAINTY_H

#include "infer/infer.h"

struct uncertainty_config {
    uint64_t seed;          /* of the study */
    uint32_t passes;        /* 1 .. FINDING_PASSES_MAX */
    double dropout;         /* negative = the model's */
    double operating_point; /* negative = the model's */
};

/* Runs the candidate network on every candidate and fills probability (mean of the calibrated passes), the 5th and
 * 95th percentile, entropy_nats = H(mean p) and mutual_information_nats = H(mean p) - mean H(p) from uncalibrated
 * passes (REFERENCE 2), pass_probabilities, attention, texture, diameter, reported, review; sorts best first, numbers
 * ids. Findings for which uncertainty_wants_full_precision are computed again where the session's detector is not fp32.
 * With dropout 0 all passes are equal: the interval is empty and the mutual information is 0. */
bool uncertainty_estimate(struct infer_session *session, const struct volume *iso,
                          const struct uncertainty_config *config, struct findings *inout,
                          struct err *err) PULMO_MUST_USE;

/* Whether a finding of a session whose detector is not fp32 is computed again in fp32: its calibrated probability lies
 * within UNCERTAINTY_NEAR (in logits) of the operating point, or it would go to review. A rule of the data alone; what
 * it changes is said by full_precision. */
#define UNCERTAINTY_NEAR 1.0
bool uncertainty_wants_full_precision(const struct finding *finding, double operating_point);

/* The statistics alone: fills the fields above from pass_count logits of stage 2 and the detector's logit. */
void uncertainty_summarise(const struct infer_model_info *model, const float *logits, uint32_t pass_count,
                           struct finding *inout);

/* A seed from what identifies a run, so that the same inputs give the same masks: first 8 bytes of
 * SHA-256(configured seed, series UID, model digest). */
bool uncertainty_study_seed(uint64_t configured, const char *series_uid, const char *model_sha256, uint64_t *out,
                            struct err *err) PULMO_MUST_USE;

/* One sentence for a radiologist: "Nodule, likely: 82 % (74 to 88 %), the passes agree". */
void uncertainty_sentence(const struct finding *finding, char *out, size_t out_size);

/* What the triage rule is worth, as it was measured with the model: "Measured on CTs that the model never saw: 8 of 30
 * findings sent to review were false (27 %), 5 of 85 others (6 %)." Or that nobody measured it. */
void uncertainty_review_rule(const struct infer_model_info *model, char *out, size_t out_size);

#endif
