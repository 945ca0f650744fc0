/* LABELS: quick
 * Files that are wrong are named with their line; the bootstrap and the plot. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "evaluation/evaluation.h"

static char folder[64];
static char truth_path[128], marks_path[128], series_path[128], plot_path[128];

static int make_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/pulmo-evaluation-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(truth_path, sizeof truth_path, "%s/truth.csv", folder);
    snprintf(marks_path, sizeof marks_path, "%s/marks.csv", folder);
    snprintf(series_path, sizeof series_path, "%s/series.txt", folder);
    snprintf(plot_path, sizeof plot_path, "%s/froc.svg", folder);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    const char *const paths[] = {truth_path, marks_path, series_path, plot_path};
    for (size_t n = 0; n < 4; n++)
        unlink(paths[n]);
    return rmdir(folder);
}

static void write_text(const char *path, const char *text) {
    assert_true(bytes_write_file(path, text, strlen(text), false, NULL));
}

static bool run(const char *truth, const char *marks, const char *series, struct evaluation *out, struct err *err) {
    write_text(truth_path, truth);
    write_text(marks_path, marks);
    write_text(series_path, series);
    struct evaluation_config config = {.truth_csv = truth_path,
                                       .marks_csv = marks_path,
                                       .series_list = series_path,
                                       .bootstrap_count = 100,
                                       .operating_point = 0.5};
    return evaluation_run(&config, out, err);
}

#define TRUTH "seriesuid,coordX,coordY,coordZ,diameter_mm,included\n"
#define MARKS "seriesuid,coordX,coordY,coordZ,probability\n"

static void wrong_files_name_their_line(void **state) {
    (void)state;
    const struct {
        const char *truth, *marks, *series, *expected;
    } cases[] = {
        {"", MARKS, "1.1\n", "truth.csv is empty"},
        {"seriesuid,x,y,z,d\n", MARKS, "1.1\n", "truth.csv line 1: header \"x\" where \"coordX\" is expected"},
        {TRUTH "1.1,0,0,0,5,1\n1.1,0,0,0,5\n", MARKS, "1.1\n", "truth.csv line 3: 5 fields, expected 6"},
        {TRUTH "1.1,0,0,0,5,1,7\n", MARKS, "1.1\n", "truth.csv line 2: 7 fields, expected 6"},
        {TRUTH "1.1,0,0,0,5,yes\n", MARKS, "1.1\n", "included is \"yes\""},
        {TRUTH "1.1,0,nan,0,5,1\n", MARKS, "1.1\n", "truth.csv line 2: field 3 is no number: \"nan\""},
        {TRUTH "1.1,0,0,0,1e999,1\n", MARKS, "1.1\n", "field 5 is no number"},
        {TRUTH "1.1,0,0,0,0x10,1\n", MARKS, "1.1\n", "field 5 is no number"},
        {TRUTH, MARKS "1.1,0,0,0,\n", "1.1\n", "marks.csv line 2: field 5 is no number: \"\""},
        {TRUTH, MARKS "1.1,0,0, 0,0.5\n", "1.1\n", "marks.csv line 2: field 4 is no number: \" 0\""},
        {TRUTH, MARKS "\n\n1.1,0,0,0,5-\n", "1.1\n", "marks.csv line 4: field 5"},
        {TRUTH, MARKS "\"1.1\",0,0,0,0.5\n", "1.1\n", "marks.csv line 2: field 1 is too long, quoted or binary"},
        {TRUTH, MARKS ",0,0,0,0.5\n", "1.1\n", "marks.csv line 2: no series"},
        {TRUTH, MARKS "9.9,0,0,0,oops\n", "1.1\n", "marks.csv line 2: field 5"}, /* not listed, still checked */
        {"seriesuid,coordX,coordY,coordZ,diameter_mm,shape\n", MARKS, "1.1\n",
         "truth.csv line 1: \"shape\" is no column that is known"},
        {"seriesuid,coordX,coordY,coordZ,diameter_mm,texture\n1.1,0,0,0,5,woolly\n", MARKS, "1.1\n",
         "truth.csv line 2: \"woolly\" is no texture"},
        {TRUTH, "seriesuid,coordX,coordY,coordZ,probability,entropy_nats,entropy_nats\n", "1.1\n",
         "marks.csv line 1: column \"entropy_nats\" twice"},
        {TRUTH, "seriesuid,coordX,coordY,coordZ,probability,diameter_mm\n1.1,0,0,0,0.5,wide\n", "1.1\n",
         "marks.csv line 2: field 6 is no number: \"wide\""},
        {TRUTH, MARKS, "", "series.txt lists no series"},
        {TRUTH, MARKS, "1.1\n1.2\n1.1\n", "series.txt lists 1.1 twice"},
        {TRUTH, MARKS, "1.1,7\n", "series.txt line 1: 2 fields, expected 1"},
    };
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++) {
        struct err err = {0};
        struct evaluation evaluation = {.scans = 77};
        assert_false(run(cases[n].truth, cases[n].marks, cases[n].series, &evaluation, &err));
        assert_int_equal(err.kind, ERR_INPUT);
        if (!strstr(err.text, cases[n].expected))
            fail_msg("case %zu: \"%s\" does not hold \"%s\"", n, err.text, cases[n].expected);
        assert_int_equal(evaluation.scans, 77);
    }
}

static void missing_files_are_named(void **state) {
    (void)state;
    struct err err = {0};
    struct evaluation evaluation = {0};
    struct evaluation_config config = {
        .truth_csv = "/nowhere/t.csv", .marks_csv = "/nowhere/m.csv", .series_list = "/nowhere/s.txt"};
    assert_false(evaluation_run(&config, &evaluation, &err));
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "/nowhere/s.txt"));
}

static void what_spreadsheets_write_is_read(void **state) {
    (void)state;
    struct evaluation evaluation = {0};
    struct err err = {0};
    /* byte order mark, CR LF, blank lines, no end of the last line, no column "included", a header in the list */
    assert_true(run("\xEF\xBB\xBFseriesuid,coordX,coordY,coordZ,diameter_mm\r\n1.1,0,0,0,10\r\n\r\n",
                    MARKS "1.1,1e0,+0.5,-.5,0.5", "seriesuid\r\n1.1\r\n", &evaluation, &err));
    assert_int_equal(evaluation.hits, 1);
    assert_int_equal(evaluation.scans, 1);
    evaluation_free(&evaluation);
}

/* 40 scans with one nodule each, three of four found, no false positive. */
static void many_scans(char *truth, char *marks, char *series, size_t size) {
    size_t t = (size_t)snprintf(truth, size, TRUTH), m = (size_t)snprintf(marks, size, MARKS), s = 0;
    for (int n = 0; n < 40; n++) {
        t += (size_t)snprintf(truth + t, size - t, "1.%d,0,0,0,10,1\n", n);
        m += (size_t)snprintf(marks + m, size - m, "1.%d,%d,0,0,0.%d\n", n, n % 4 ? 0 : 90, 50 + n);
        s += (size_t)snprintf(series + s, size - s, "1.%d\n", n);
    }
}

static void bootstrap_brackets_the_figure(void **state) {
    (void)state;
    static char truth[4096], marks[4096], series[4096];
    many_scans(truth, marks, series, sizeof truth);
    struct evaluation a = {0}, b = {0};
    struct err err = {0};
    assert_true(run(truth, marks, series, &a, &err));
    assert_true(run(truth, marks, series, &b, &err));
    assert_true(fabs(a.sensitivity[EVALUATION_POINTS - 1] - 0.75) < 1e-12);
    /* a share of 0.75 in 40 scans has a standard error of 0.068: 95 % is about 0.6 to 0.88 */
    double low = a.sensitivity_low[EVALUATION_POINTS - 1], high = a.sensitivity_high[EVALUATION_POINTS - 1];
    assert_true(low > 0.5 && low < 0.7 && high > 0.8 && high < 0.95);
    assert_true(a.cpm_low < a.cpm && a.cpm < a.cpm_high);
    assert_true(a.cpm_low == b.cpm_low && a.cpm_high == b.cpm_high); /* the same seed */
    evaluation_free(&a);
    evaluation_free(&b);
}

/* 40 scans: a nodule found and a false positive each. Where p misleads the passes disagree, so the mutual information
 * tells what is wrong and 1 - max probability does not. */
static void uncertain_scans(char *truth, char *marks, char *series, size_t size) {
    size_t t = (size_t)snprintf(truth, size, TRUTH), s = 0;
    size_t m = (size_t)snprintf(marks, size, "seriesuid,coordX,coordY,coordZ,probability,mutual_information_nats\n");
    for (int n = 0; n < 40; n++) {
        bool wrong = n % 4 == 0;
        t += (size_t)snprintf(truth + t, size - t, "1.%d,0,0,0,10,1\n", n);
        m += (size_t)snprintf(marks + m, size - m, "1.%d,0,0,0,0.%d,0.%02d\n", n, 50 + n, n % 7);
        m += (size_t)snprintf(marks + m, size - m, "1.%d,90,0,0,0.%d,0.%02d\n", n, wrong ? 70 : 30, wrong ? 20 : n % 5);
        s += (size_t)snprintf(series + s, size - s, "1.%d\n", n);
    }
}

static void uncertainty_is_judged_with_intervals(void **state) {
    (void)state;
    static char truth[4096], marks[4096], series[4096];
    uncertain_scans(truth, marks, series, sizeof truth);
    struct evaluation a = {0}, b = {0};
    struct err err = {0};
    assert_true(run(truth, marks, series, &a, &err));
    assert_true(run(truth, marks, series, &b, &err));
    assert_int_equal(a.reliability.candidates, 80);
    assert_int_equal(a.triage.wrong, 10);
    const struct evaluation_rejection *passes = &a.triage.measures[EVALUATION_MUTUAL_INFORMATION];
    const struct evaluation_rejection *plain = &a.triage.measures[EVALUATION_ONE_MINUS_MAX];
    assert_true(passes->present && plain->present && !a.triage.measures[EVALUATION_ENTROPY].present);
    assert_true(passes->auroc == 1 && plain->auroc < 0.75);
    assert_true(plain->auroc_low < plain->auroc && plain->auroc < plain->auroc_high);
    assert_true(passes->gain_low > 0 && passes->gain_low <= passes->gain && passes->gain <= passes->gain_high);
    assert_true(plain->gain == 0 && plain->gain_low == 0 && plain->gain_high == 0);
    assert_true(a.reliability.ece_low < a.reliability.ece && a.reliability.ece < a.reliability.ece_high + 0.05);
    assert_true(a.reliability.ece_low == b.reliability.ece_low && a.reliability.ece_high == b.reliability.ece_high);
    assert_true(passes->gain_low == b.triage.measures[EVALUATION_MUTUAL_INFORMATION].gain_low); /* the same seed */
    assert_int_equal(passes->kept[3], 68); /* 15 % of 80 rejected: all ten wrong ones are among the twelve */
    assert_int_equal(passes->right[3], 68);
    evaluation_free(&a);
    evaluation_free(&b);
}

static void read_plot(const struct evaluation *evaluation, enum evaluation_plot plot, const char *const expected[3]) {
    struct err err = {0};
    PULMO_SCOPED(bytes_free) struct bytes svg = {0};
    if (!evaluation_plot_svg(evaluation, plot, plot_path, &err))
        fail_msg("%s", err.text);
    assert_true(bytes_read_file(plot_path, 1 << 20, &svg, &err));
    assert_true(bytes_append(&svg, "", 1, 1 << 20, &err));
    for (int n = 0; n < 3; n++)
        if (!strstr((const char *)svg.data, expected[n]))
            fail_msg("the plot %s does not say \"%s\"", evaluation_plot_name(plot), expected[n]);
}

static void plots_carry_their_counts(void **state) {
    (void)state;
    struct evaluation evaluation = {0};
    struct err err = {0};
    assert_true(run(TRUTH "1.1,0,0,0,10,1\n1.1,50,0,0,8,1\n",
                    "seriesuid,coordX,coordY,coordZ,probability,diameter_mm,entropy_nats\n"
                    "1.1,0,0,0,0.9,11,0.1\n1.1,50,0,0,0.91,8,0.2\n1.1,0,70,0,0.2,9,0.3\n",
                    "1.1\n", &evaluation, &err));
    read_plot(&evaluation, EVALUATION_PLOT_RELIABILITY,
              (const char *const[]){"2 nodules of 3 candidates", ">2/2<", ">0/1<"});
    read_plot(&evaluation, EVALUATION_PLOT_REJECTION,
              (const char *const[]){"0 of 3 decisions wrong", "1 - max probability", "predictive entropy"});
    read_plot(
        &evaluation, EVALUATION_PLOT_DIAMETER,
        (const char *const[]){"2 nodules; absolute error: median 0.00 mm", "bias +0.50 mm", "upper limit +1.89 mm"});
    evaluation_free(&evaluation);
    assert_true(run(TRUTH, MARKS "1.1,0,0,0,7\n", "1.1\n", &evaluation, &err)); /* a score, not a probability */
    for (enum evaluation_plot plot = EVALUATION_PLOT_RELIABILITY; plot < EVALUATION_PLOTS; plot++) {
        assert_false(evaluation_plot_has(&evaluation, plot));
        assert_false(evaluation_plot_svg(&evaluation, plot, plot_path, &err));
    }
    evaluation_free(&evaluation);
}

static void curve_and_plot(void **state) {
    (void)state;
    static char truth[4096], marks[4096], series[4096];
    many_scans(truth, marks, series, sizeof truth);
    PULMO_SCOPED(evaluation_free) struct evaluation evaluation = {0};
    struct err err = {0};
    assert_true(run(truth, marks, series, &evaluation, &err));
    assert_int_equal(evaluation.froc_count, 41);
    for (size_t n = 1; n < evaluation.froc_count; n++) {
        assert_true(evaluation.froc_fp_per_scan[n] >= evaluation.froc_fp_per_scan[n - 1]);
        assert_true(evaluation.froc_sensitivity[n] >= evaluation.froc_sensitivity[n - 1]);
    }
    assert_true(fabs(evaluation.froc_fp_per_scan[40] - 0.25) < 1e-12);
    assert_true(evaluation_plot_svg(&evaluation, EVALUATION_PLOT_FROC, plot_path, &err));
    PULMO_SCOPED(bytes_free) struct bytes svg = {0};
    assert_true(bytes_read_file(plot_path, 1 << 20, &svg, &err));
    assert_true(bytes_append(&svg, "", 1, 1 << 20, &err));
    const char *text = (const char *)svg.data;
    assert_true(strncmp(text, "<svg ", 5) == 0);
    assert_non_null(strstr(text, "40 nodules in 40 scans"));
    assert_non_null(strstr(text, "<title>0.750</title>"));
    assert_non_null(strstr(text, "</svg>"));
    assert_false(evaluation_plot_svg(&evaluation, EVALUATION_PLOT_FROC, "/nowhere/froc.svg", &err));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_files_name_their_line),
        cmocka_unit_test(missing_files_are_named),
        cmocka_unit_test(what_spreadsheets_write_is_read),
        cmocka_unit_test(bootstrap_brackets_the_figure),
        cmocka_unit_test(uncertainty_is_judged_with_intervals),
        cmocka_unit_test(plots_carry_their_counts),
        cmocka_unit_test(curve_and_plot),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
