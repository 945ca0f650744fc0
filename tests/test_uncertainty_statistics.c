/* LABELS: quick tsan
 * The statistics of Monte-Carlo passes on hand-made logits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "uncertainty/uncertainty.h"

#define NEAR(a, b) assert_true(fabs((a) - (b)) <= 1e-12)

static const struct infer_model_info model = {.calibration_a = 0.5,
                                              .calibration_b = 0.8,
                                              .calibration_c = -0.2,
                                              .operating_point = 0.5,
                                              .review_mutual_information_nats = -1};

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

static double entropy(double p) {
    return -p * log(p) - (1 - p) * log(1 - p);
}

/* DESIGN and issue 4 ask that dropout 0 give "zero for the last two and an empty interval", the list being mean,
 * interval, entropy, mutual information. Entropy here is the predictive entropy H(mean p) of REFERENCE 2, which is 0
 * only for p of 0 or 1: one pass that says 0.7 is not certain. What dropout adds to it, H(mean p) - mean H(p), is the
 * mutual information; that part must vanish, exactly, and so must the interval's width. */
static void equal_passes_leave_no_spread(void **state) {
    (void)state;
    float logits[FINDING_PASSES_MAX];
    for (int rounds = 0; rounds < 200; rounds++) {
        struct finding finding = {.detector_logit = rounds * 0.1 - 10};
        for (int n = 0; n < FINDING_PASSES_MAX; n++)
            logits[n] = (float)(rounds * 0.173 - 17);
        uint32_t passes = 1 + (uint32_t)rounds % FINDING_PASSES_MAX;
        uncertainty_summarise(&model, logits, passes, &finding);
        assert_true(finding.mutual_information_nats == 0);
        assert_true(finding.probability_low == finding.probability_high);
        assert_true(finding.probability == finding.probability_low);
        assert_int_equal(finding.pass_count, passes);
        assert_true(fabs(finding.entropy_nats - entropy(sigmoid((double)logits[0]))) < 1e-9);
    }
}

static void figures_match_their_definitions(void **state) {
    (void)state;
    const float logits[] = {2.5F, -1.0F, 0.25F, 3.0F, 0.5F};
    struct finding finding = {.detector_logit = 1.2};
    double raw = 0, calibrated = 0, spread = 0;
    for (int n = 0; n < 5; n++) {
        raw += sigmoid((double)logits[n]) / 5;
        calibrated += sigmoid(0.5 * 1.2 + 0.8 * (double)logits[n] - 0.2) / 5;
        spread += entropy(sigmoid((double)logits[n])) / 5;
    }
    uncertainty_summarise(&model, logits, 5, &finding);
    NEAR(finding.probability, calibrated);
    NEAR(finding.entropy_nats, entropy(raw));
    NEAR(finding.mutual_information_nats, entropy(raw) - spread);
    /* type 7: 0.05 * 4 = 0.2 of the way from the first to the second, 0.2 from the last to the one before */
    double p0 = sigmoid(0.4 + 0.8 * -1.0), p1 = sigmoid(0.4 + 0.8 * 0.25);
    double p3 = sigmoid(0.4 + 0.8 * 2.5), p4 = sigmoid(0.4 + 0.8 * 3.0);
    NEAR(finding.probability_low, p0 + 0.2 * (p1 - p0));
    NEAR(finding.probability_high, p3 + 0.8 * (p4 - p3));
    assert_true(fabs((double)finding.pass_probabilities[1] - p0) < 1e-7);
    assert_true(finding.reported);
}

static void certain_passes_have_no_entropy(void **state) {
    (void)state;
    const float logits[] = {200, 300, 250};
    struct finding finding = {.detector_logit = 1};
    uncertainty_summarise(&model, logits, 3, &finding);
    assert_true(finding.entropy_nats == 0);
    assert_true(finding.mutual_information_nats == 0);
    const float split[] = {400, -400}; /* each pass is sure, both together know nothing: all of log 2 is disagreement */
    uncertainty_summarise(&model, split, 2, &finding);
    NEAR(finding.entropy_nats, log(2));
    NEAR(finding.mutual_information_nats, log(2));
}

/* Between its points, on them and beyond: the logit of one pass becomes what the curve gives, that of many passes' mean
 * likewise, and they keep their distances. */
static void a_curve_bends_the_logit(void **state) {
    (void)state;
    struct infer_model_info curved = {.calibration_b = 2,
                                      .calibration_c = 1,
                                      .operating_point = 0.5,
                                      .review_mutual_information_nats = -1,
                                      .calibration_curve = {.from = {-1, 0, 3}, .to = {-3, -0.5, 1}, .count = 3}};
    static const struct {
        float logit; /* the sum is 2 logit + 1 */
        double bent;
    } rows[] = {{-3, -7}, {-1, -3}, {-0.75F, -1.75}, {-0.5F, -0.5}, {0.25F, 0.25}, {1, 1}, {2, 3}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct finding finding = {0};
        uncertainty_summarise(&curved, &rows[i].logit, 1, &finding);
        NEAR(finding.probability, sigmoid(rows[i].bent));
        assert_true(finding.reported == (rows[i].bent >= 0));
    }
    const float logits[] = {-1, -0.5F, 0.25F, 1};
    double straight = 0, mean = 0;
    for (int n = 0; n < 4; n++)
        straight += sigmoid(2 * (double)logits[n] + 1) / 4;
    struct finding all = {0};
    uncertainty_summarise(&curved, logits, 4, &all);
    NEAR(all.probability, sigmoid(-0.5 + 0.5 * log(straight / (1 - straight)))); /* between 0 and 3 the slope is 1/2 */
    for (int n = 0; n < 4; n++) {
        double p = (double)all.pass_probabilities[n], first = (double)all.pass_probabilities[0];
        double apart = log(p / (1 - p)) - log(first / (1 - first));
        assert_true(fabs(apart - 2 * (double)(logits[n] - logits[0])) < 1e-5);
        mean += p / 4;
    }
    assert_true(fabs(mean - all.probability) < 1e-6);
    const float sure[] = {400, 400, 300};
    uncertainty_summarise(&curved, sure, 3, &all);
    assert_true(all.probability > 1 - 1e-9 && all.probability_low <= all.probability_high);
}

static void triage_sends_straddling_intervals_to_review(void **state) {
    (void)state;
    struct infer_model_info plain = {.calibration_b = 1, .operating_point = 0.5, .review_mutual_information_nats = -1};
    static const struct {
        float logits[3];
        double allowed;
        bool reported, review;
    } rows[] = {
        {{2, 3, 4}, -1, true, false},     {{-2, 3, 4}, -1, true, true},  {{-4, -3, 1}, -1, false, true},
        {{-4, -3, -2}, -1, false, false}, {{1, 3, 6}, 0.01, true, true}, {{1, 3, 6}, 0.2, true, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct finding finding = {0};
        plain.review_mutual_information_nats = rows[i].allowed;
        uncertainty_summarise(&plain, rows[i].logits, 3, &finding);
        assert_int_equal(finding.reported, rows[i].reported);
        assert_int_equal(finding.review, rows[i].review);
    }
}

static void sentences_read_like_a_report(void **state) {
    (void)state;
    static const struct {
        double probability, low, high;
        uint32_t passes;
        const char *text;
    } rows[] = {
        {0.82, 0.74, 0.88, 30, "Nodule, likely: 82 % (74 to 88 %), the passes agree"},
        {0.999, 0.99, 1.0, 30, "Nodule, very likely: 99 % (99 to 99 %), the passes agree"},
        {0.55, 0.4, 0.7, 30, "Nodule, uncertain: 55 % (40 to 70 %), the passes vary"},
        {0.2, 0.02, 0.6, 30, "Nodule, unlikely: 20 % (2 to 60 %), the passes disagree"},
        {0.001, 0.0, 0.0, 30, "Nodule, very unlikely: 1 % (1 to 1 %), the passes agree"},
        {0.7, 0.7, 0.7, 1, "Nodule, likely: 70 %, from a single pass"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[128];
        struct finding finding = {.probability = rows[i].probability,
                                  .probability_low = rows[i].low,
                                  .probability_high = rows[i].high,
                                  .pass_count = rows[i].passes};
        uncertainty_sentence(&finding, text, sizeof text);
        assert_string_equal(text, rows[i].text);
    }
}

static void the_rule_says_what_it_is_worth(void **state) {
    (void)state;
    char text[256];
    struct infer_model_info measured = {.reviewed = {30, 8}, .not_reviewed = {85, 5}};
    uncertainty_review_rule(&measured, text, sizeof text);
    assert_string_equal(text, "Measured on CTs that the model never saw: 8 of 30 findings sent to review were false "
                              "(27 %), 5 of 85 others (6 %).");
    measured.reviewed.findings = 0;
    uncertainty_review_rule(&measured, text, sizeof text);
    assert_string_equal(text, "How often a finding sent to review is false was not measured with this model.");
}

static void seed_depends_on_all_that_identifies_a_run(void **state) {
    (void)state;
    uint64_t seeds[5];
    assert_true(uncertainty_study_seed(1, "1.2.3", "aa", &seeds[0], NULL));
    assert_true(uncertainty_study_seed(2, "1.2.3", "aa", &seeds[1], NULL));
    assert_true(uncertainty_study_seed(1, "1.2.4", "aa", &seeds[2], NULL));
    assert_true(uncertainty_study_seed(1, "1.2.3", "ab", &seeds[3], NULL));
    assert_true(uncertainty_study_seed(1, "1.2.3", "aa", &seeds[4], NULL));
    assert_true(seeds[0] == seeds[4]);
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < i; k++)
            assert_true(seeds[i] != seeds[k]);
    char endless[400];
    memset(endless, '1', sizeof endless - 1);
    endless[sizeof endless - 1] = 0;
    struct err err = {0};
    assert_false(uncertainty_study_seed(1, endless, "aa", &seeds[0], &err));
    assert_int_equal(err.kind, ERR_INPUT);
}

static void full_precision_is_for_what_could_be_decided_otherwise(void **state) {
    (void)state;
    static const struct {
        double probability, operating_point;
        bool review, wanted;
    } rows[] = {{0.5, 0.5, false, true},    {0.72, 0.5, false, true},    {0.74, 0.5, false, false},
                {0.28, 0.5, false, true},   {0.26, 0.5, false, false},   {0.99, 0.5, true, true},
                {0.1, 0.094, false, true},  {0.21, 0.094, false, true},  {0.23, 0.094, false, false},
                {0.04, 0.094, false, true}, {0.03, 0.094, false, false}, {1, 0.5, false, false},
                {0, 0.5, false, false},     {0.5, 0, false, false},      {0.5, 1, false, false}};
    for (size_t n = 0; n < sizeof rows / sizeof *rows; n++) {
        struct finding finding = {.probability = rows[n].probability, .review = rows[n].review};
        assert_int_equal(uncertainty_wants_full_precision(&finding, rows[n].operating_point), rows[n].wanted);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_passes_leave_no_spread),
        cmocka_unit_test(figures_match_their_definitions),
        cmocka_unit_test(certain_passes_have_no_entropy),
        cmocka_unit_test(a_curve_bends_the_logit),
        cmocka_unit_test(triage_sends_straddling_intervals_to_review),
        cmocka_unit_test(full_precision_is_for_what_could_be_decided_otherwise),
        cmocka_unit_test(sentences_read_like_a_report),
        cmocka_unit_test(the_rule_says_what_it_is_worth),
        cmocka_unit_test(seed_depends_on_all_that_identifies_a_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
