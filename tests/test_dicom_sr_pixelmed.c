/* LABELS: full */
/* PixelMed's DicomSRValidator, the only one that knows the templates, has no error on any kind of report. Alone in its
 * file: it takes some seconds an object. */
#include "test_dicom_report.h"

static void validate(void **state, enum report_variant variant) {
    struct report_made made;
    report_make(*state, variant, &made);
    bool there = report_pixelmed(*state, &made.sr);
    report_drop(&made);
    if (!there) {
        print_message("DicomSRValidator is missing (Debian package pixelmed-apps)\n");
        skip();
    }
}

static void test_findings(void **state) {
    validate(state, FOUND);
}

static void test_negative(void **state) {
    validate(state, NEGATIVE);
}

static void test_refused(void **state) {
    validate(state, REFUSED);
}

static void test_signed(void **state) {
    validate(state, SIGNED);
}

/* A validator that finds nothing wrong anywhere proves nothing. */
static void test_validator_sees_an_error(void **state) {
    const struct report_fixture *fixture = *state;
    struct report_made made;
    struct err err = {0};
    report_make(fixture, FOUND, &made);
    struct shim_dataset *changed = report_parse(&made.sr);
    REPORT_OK(shim_put_string(shim_item(shim_item(changed, 0x0040A730, 1), 0x0040A168, 0), 0x00080100, "121999", &err),
              err);
    bytes_free(&made.sr);
    REPORT_OK(shim_dataset_write(changed, NULL, &made.sr, &err), err);
    bool found = false;
    bool there = report_pixelmed_errors(fixture, &made.sr, &found);
    shim_dataset_free(changed);
    report_drop(&made);
    if (!there)
        skip();
    assert_true(found);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_findings), cmocka_unit_test(test_negative),
                                       cmocka_unit_test(test_refused), cmocka_unit_test(test_signed),
                                       cmocka_unit_test(test_validator_sees_an_error)};
    return cmocka_run_group_tests(tests, report_set_up, report_tear_down);
}
