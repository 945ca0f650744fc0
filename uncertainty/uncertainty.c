#include "uncertainty/uncertainty.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "digest.h"

#define INTERVAL_LOW 0.05
#define INTERVAL_HIGH 0.95

/* ---- statistics ------------------------------------------------------------------------------------------- */

static double sigmoid(double x) {
    return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x)); /* either way exp cannot overflow */
}

/* Entropy of a coin, in nats; 0 log 0 = 0. */
static double entropy(double p) {
    double q = 1 - p;
    return -(p > 0 ? p * log(p) : 0) - (q > 0 ? q * log(q) : 0);
}

/* Mean as the first value and the mean difference to it: exactly the first when all are equal, which a plain sum
 * over 30 is not. With it, passes without dropout give a mutual information of exactly 0. */
static double mean(const double *values, uint32_t count) {
    double sum = 0;
    for (uint32_t n = 0; n < count; n++)
        sum += values[n] - values[0];
    return values[0] + sum / count;
}

static int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

/* Linear interpolation between order statistics (Hyndman and Fan's type 7, NumPy's default). */
static double quantile(const double *sorted, uint32_t count, double share) {
    double at = share * (count - 1);
    uint32_t low = (uint32_t)at, high = low + 1 < count ? low + 1 : low;
    return sorted[low] + (at - low) * (sorted[high] - sorted[low]);
}

static double curve_at(const struct infer_curve *curve, double x) {
    uint32_t last = curve->count - 1, n = 1;
    if (x <= curve->from[0] || x >= curve->from[last]) {
        uint32_t end = x <= curve->from[0] ? 0 : last;
        return curve->to[end] + (x - curve->from[end]);
    }
    while (x > curve->from[n])
        n++;
    double share = (x - curve->from[n - 1]) / (curve->from[n] - curve->from[n - 1]);
    return curve->to[n - 1] + share * (curve->to[n] - curve->to[n - 1]);
}

#define LOGIT_MAX 27.0 /* of 1 - 2e-12: beyond it a mean of passes is 0 or 1 to the last digits */
#define HALVINGS 64

static double mean_moved(const double *logits, uint32_t count, double by) {
    double sum = 0;
    for (uint32_t n = 0; n < count; n++)
        sum += sigmoid(logits[n] + by);
    return sum / count;
}

/* The curve is one of what is shown, the mean: all passes move by the one number that brings their mean there, so that
 * they spread as they did. */
static double curve_shift(const struct infer_curve *curve, const double *logits, uint32_t count) {
    if (curve->count == 0)
        return 0;
    double mean = mean_moved(logits, count, 0), logit = log(mean) - log1p(-mean);
    double wanted = sigmoid(curve_at(curve, fmin(fmax(logit, -LOGIT_MAX), LOGIT_MAX)));
    double low = -2 * LOGIT_MAX, high = 2 * LOGIT_MAX;
    for (int halving = 0; halving < HALVINGS; halving++) {
        double middle = (low + high) / 2;
        if (mean_moved(logits, count, middle) < wanted)
            low = middle;
        else
            high = middle;
    }
    return high;
}

/* Triage: the interval straddles the operating point, so that other passes would have decided otherwise; or a
 * reported finding's passes disagree more than the model's card allows. */
static void decide(const struct infer_model_info *model, double operating_point, struct finding *inout) {
    double allowed = model->review_mutual_information_nats;
    bool straddles = inout->probability_low < operating_point && inout->probability_high >= operating_point;
    inout->reported = inout->probability >= operating_point;
    inout->review = straddles || (inout->reported && allowed >= 0 && inout->mutual_information_nats > allowed);
}

void uncertainty_summarise(const struct infer_model_info *model, const float *logits, uint32_t pass_count,
                           struct finding *inout) {
    double calibrated[FINDING_PASSES_MAX], raw[FINDING_PASSES_MAX], entropies[FINDING_PASSES_MAX];
    double sums[FINDING_PASSES_MAX];
    uint32_t count = pass_count < FINDING_PASSES_MAX ? pass_count : FINDING_PASSES_MAX;
    if (count == 0)
        return;
    for (uint32_t n = 0; n < count; n++) {
        double logit = (double)logits[n];
        raw[n] = sigmoid(logit);
        entropies[n] = entropy(raw[n]);
        sums[n] = model->calibration_a * inout->detector_logit + model->calibration_b * logit + model->calibration_c;
    }
    double shift = curve_shift(&model->calibration_curve, sums, count);
    for (uint32_t n = 0; n < count; n++) {
        calibrated[n] = sigmoid(sums[n] + shift);
        inout->pass_probabilities[n] = (float)calibrated[n];
    }
    inout->pass_count = count;
    inout->probability = mean(calibrated, count);
    qsort(calibrated, count, sizeof *calibrated, ascending);
    inout->probability_low = quantile(calibrated, count, INTERVAL_LOW);
    inout->probability_high = quantile(calibrated, count, INTERVAL_HIGH);
    /* REFERENCE 2: both from the passes' uncalibrated probabilities. Jensen's inequality makes the difference
     * non-negative; rounding may not. */
    inout->entropy_nats = entropy(mean(raw, count));
    inout->mutual_information_nats = fmax(0, inout->entropy_nats - mean(entropies, count));
    decide(model, model->operating_point, inout);
}

/* ---- a study's findings ------------------------------------------------------------------------------------- */

static enum texture texture_of(const float probabilities[3]) {
    static const enum texture textures[] = {TEXTURE_SOLID, TEXTURE_PART_SOLID, TEXTURE_GROUND_GLASS};
    int best = 0;
    for (int i = 1; i < 3; i++)
        if (probabilities[i] > probabilities[best])
            best = i;
    return textures[best];
}

/* Most probable first; equal ones as the detector ordered them (id still holds its order). */
static int better_first(const void *left, const void *right) {
    const struct finding *a = left, *b = right;
    if (a->probability != b->probability)
        return a->probability > b->probability ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

static void finding_fill(const struct infer_model_info *model, const struct infer_candidate_result *result,
                         double operating_point, struct finding *out) {
    uncertainty_summarise(model, result->logits, result->pass_count, out);
    decide(model, operating_point, out);
    out->texture = texture_of(result->texture_probabilities);
    out->diameter_mm = (double)result->diameter_mm;
    memcpy(out->attention, result->attention, sizeof out->attention);
}

static void findings_sort(struct finding *items, size_t count) {
    for (size_t n = 0; n < count; n++)
        items[n].id = (uint32_t)n;
    qsort(items, count, sizeof *items, better_first);
    for (size_t n = 0; n < count; n++)
        items[n].id = (uint32_t)n + 1;
}

bool uncertainty_wants_full_precision(const struct finding *finding, double operating_point) {
    double away = log(finding->probability / (1 - finding->probability)) - log(operating_point / (1 - operating_point));
    return finding->review || fabs(away) <= UNCERTAINTY_NEAR;
}

/* Those that want it, in the order of the list: the detector again, then stage 2 where it says they are, with the keys
 * that they had. */
static bool compute_again(struct infer_session *session, const struct volume *iso,
                          const struct infer_candidate_config *config, double operating_point, struct findings *inout,
                          struct err *err) {
    const struct infer_model_info *model = infer_model_info(infer_session_model(session));
    PULMO_SCOPED(pulmo_free_at) uint32_t *which = pulmo_alloc(inout->count, sizeof *which, err);
    size_t count = 0;
    if (!infer_session_precision(session))
        return true;
    for (uint32_t n = 0; which && n < inout->count; n++)
        if (uncertainty_wants_full_precision(&inout->items[n], operating_point))
            which[count++] = n;
    if (!which || !infer_recompute(session, iso, inout, which, count, err))
        return false;
    for (size_t n = 0; n < count; n++) {
        struct finding *finding = &inout->items[which[n]];
        struct infer_candidate_config own = *config;
        struct infer_candidate_result result;
        own.candidate += which[n];
        if (!infer_candidate(session, iso, finding->center_lps_mm, &own, &result, err))
            return false;
        finding_fill(model, &result, operating_point, finding);
    }
    return true;
}

static bool config_check(const struct uncertainty_config *config, struct err *err) {
    if (config->passes < 1 || config->passes > FINDING_PASSES_MAX)
        return err_set(err, ERR_INPUT, "%u passes, not 1 to %d", config->passes, FINDING_PASSES_MAX);
    if (!(config->operating_point <= 1))
        return err_set(err, ERR_INPUT, "an operating point of %g", config->operating_point);
    return true;
}

bool uncertainty_estimate(struct infer_session *session, const struct volume *iso,
                          const struct uncertainty_config *config, struct findings *inout, struct err *err) {
    const struct infer_model_info *model = infer_model_info(infer_session_model(session));
    if (!config_check(config, err))
        return false;
    if (inout->count == 0)
        return true;
    PULMO_SCOPED(pulmo_free_at)
    struct infer_candidate_result *results = pulmo_alloc(inout->count, sizeof *results, err);
    if (!results)
        return false;
    struct infer_candidate_config candidate = {
        .seed = config->seed, .pass_count = config->passes, .dropout = config->dropout};
    if (!infer_candidates(session, iso, inout, &candidate, results, err))
        return false;
    double operating_point = config->operating_point >= 0 ? config->operating_point : model->operating_point;
    for (size_t n = 0; n < inout->count; n++)
        finding_fill(model, &results[n], operating_point, &inout->items[n]);
    if (!compute_again(session, iso, &candidate, operating_point, inout, err))
        return false;
    findings_sort(inout->items, inout->count);
    return true;
}

/* ---- seed, sentence ------------------------------------------------------------------------------------------ */

bool uncertainty_study_seed(uint64_t configured, const char *series_uid, const char *model_sha256, uint64_t *out,
                            struct err *err) {
    char text[256], digest[DIGEST_HEX_SIZE];
    int size = snprintf(text, sizeof text, "%llu\n%s\n%s", (unsigned long long)configured, series_uid, model_sha256);
    if (size < 0 || (size_t)size >= sizeof text)
        return err_set(err, ERR_INPUT, "the series UID or the model's digest is too long");
    if (!digest_hex(text, (size_t)size, digest, err))
        return false;
    digest[16] = 0;
    *out = strtoull(digest, NULL, 16);
    return true;
}

static const char *likelihood(double probability) {
    return probability >= 0.9   ? "very likely"
           : probability >= 0.7 ? "likely"
           : probability >= 0.4 ? "uncertain"
           : probability >= 0.1 ? "unlikely"
                                : "very unlikely";
}

/* By the width of the interval in percentage points: what a reader sees in the sentence itself. */
static const char *agreement(double width) {
    return width <= 0.2 ? "the passes agree" : width <= 0.4 ? "the passes vary" : "the passes disagree";
}

/* Whole per cent; never 0 or 100, which no model can know. */
static int per_cent(double probability) {
    int rounded = (int)lround(100 * probability);
    return rounded < 1 ? 1 : rounded > 99 ? 99 : rounded;
}

void uncertainty_sentence(const struct finding *finding, char *out, size_t out_size) {
    const char *word = likelihood(finding->probability);
    int percent = per_cent(finding->probability);
    if (finding->pass_count < 2)
        snprintf(out, out_size, "Nodule, %s: %d %%, from a single pass", word, percent);
    else
        snprintf(out, out_size, "Nodule, %s: %d %% (%d to %d %%), %s", word, percent,
                 per_cent(finding->probability_low), per_cent(finding->probability_high),
                 agreement(finding->probability_high - finding->probability_low));
}

void uncertainty_review_rule(const struct infer_model_info *model, char *out, size_t out_size) {
    const struct infer_tally *reviewed = &model->reviewed, *others = &model->not_reviewed;
    if (!reviewed->findings || !others->findings) {
        snprintf(out, out_size, "How often a finding sent to review is false was not measured with this model.");
        return;
    }
    snprintf(out, out_size,
             "Measured on CTs that the model never saw: %u of %u findings sent to review were false (%.0f %%), "
             "%u of %u others (%.0f %%).",
             reviewed->wrong, reviewed->findings, 100.0 * reviewed->wrong / reviewed->findings, others->wrong,
             others->findings, 100.0 * others->wrong / others->findings);
}
