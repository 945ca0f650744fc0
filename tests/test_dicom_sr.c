/* LABELS: quick */
/* Every kind of report is valid for dciodvfy and dsrdump (PixelMed's validator has its own test) and for our own table,
 * whose every row is shown to bite. */
#include "dicom/sr_check.h"
#include "test_dicom_report.h"

/* ---- looking into a report --------------------------------------------------------------------------- */

static bool is_concept(const struct shim_dataset *item, enum sr_code concept_code) {
    char value[64] = "";
    const struct shim_dataset *code = shim_item(item, 0x0040A043, 0);
    if (concept_code == SR_UNNAMED)
        return code == NULL;
    return code && shim_get_string(code, 0x00080100, value, sizeof value) &&
           strcmp(value, sr_codes[concept_code].value) == 0;
}

static struct shim_dataset *child(const struct shim_dataset *parent, enum sr_code concept_code, size_t which) {
    for (size_t index = 0; index < shim_item_count(parent, 0x0040A730); index++) {
        struct shim_dataset *item = shim_item(parent, 0x0040A730, index);
        if (is_concept(item, concept_code) && which-- == 0)
            return item;
    }
    return NULL;
}

static struct shim_dataset *group_of(const struct shim_dataset *root, size_t index) {
    struct shim_dataset *measurements = child(root, SR_IMAGING_MEASUREMENTS, 0);
    assert_non_null(measurements);
    struct shim_dataset *group = child(measurements, SR_MEASUREMENT_GROUP, index);
    assert_non_null(group);
    return group;
}

static void expect_code(const struct shim_dataset *parent, enum sr_code concept_code, const char *value) {
    const struct shim_dataset *item = child(parent, concept_code, 0);
    assert_non_null(item);
    report_expect(shim_item(item, 0x0040A168, 0), 0x00080100, value);
}

static void expect_number(const struct shim_dataset *parent, enum sr_code concept_code, const char *value,
                          const char *unit) {
    const struct shim_dataset *item = child(parent, concept_code, 0);
    assert_non_null(item);
    const struct shim_dataset *measured = shim_item(item, 0x0040A300, 0);
    report_expect(measured, 0x0040A30A, value);
    report_expect(shim_item(measured, 0x004008EA, 0), 0x00080100, unit);
}

static void expect_text(const struct shim_dataset *parent, enum sr_code concept_code, size_t which, const char *text) {
    const struct shim_dataset *item = child(parent, concept_code, which);
    assert_non_null(item);
    report_expect(item, 0x0040A160, text);
}

/* ---- validators -------------------------------------------------------------------------------------- */

static void validate(void **state, bool (*validator)(const struct report_fixture *, const struct bytes *),
                     const char *package) {
    for (int variant = 0; variant < VARIANTS; variant++) {
        struct report_made data;
        report_make(*state, (enum report_variant)variant, &data);
        bool there = validator(*state, &data.sr);
        report_drop(&data);
        if (!there) {
            print_message("the validator is missing (Debian package %s)\n", package);
            skip();
        }
    }
}

static void test_dciodvfy(void **state) {
    validate(state, report_dciodvfy, "dicom3tools");
}

static void test_dsrdump(void **state) {
    validate(state, report_dsrdump, "dcmtk");
}

/* ---- the table --------------------------------------------------------------------------------------- */

static const uint32_t content_tags[] = {0x0040A010, 0x0040A040, 0x0040A043, 0x0040A050, 0x0040A124, 0x0040A160,
                                        0x0040A168, 0x0040A300, 0x00081199, 0x00700022, 0x00700023, 0x30060024};

struct victim {
    const struct shim_dataset *parent;
    enum sr_code concept_code;
};

/* Copies the content below `from` to `to`, but for the victim's items. */
static void copy_content(const struct shim_dataset *from, struct shim_dataset *to, const struct victim *victim) {
    struct err err = {0};
    for (size_t index = 0; index < shim_item_count(from, 0x0040A730); index++) {
        const struct shim_dataset *item = shim_item(from, 0x0040A730, index);
        struct shim_dataset *copy = NULL;
        if (from == victim->parent && is_concept(item, victim->concept_code))
            continue;
        REPORT_OK(shim_put_item(to, 0x0040A730, &copy, &err), err);
        for (size_t tag = 0; tag < sizeof content_tags / sizeof *content_tags; tag++)
            REPORT_OK(shim_copy(copy, item, content_tags[tag], &err), err);
        copy_content(item, copy, victim);
    }
}

static struct shim_dataset *without(const struct bytes *sr, const struct shim_dataset *original,
                                    const struct victim *victim) {
    struct shim_dataset *copy = report_parse(sr);
    assert_true(shim_remove(copy, 0x0040A730));
    copy_content(original, copy, victim);
    return copy;
}

/* The parent of a content row's items that has some, or NULL. */
static const struct shim_dataset *row_parent(const struct shim_dataset *parent, const struct sr_row *row, int depth) {
    bool last = depth == 3 || !row->path[depth + 1];
    for (size_t index = 0; index < shim_item_count(parent, 0x0040A730); index++) {
        const struct shim_dataset *item = shim_item(parent, 0x0040A730, index);
        if (!is_concept(item, row->path[depth]))
            continue;
        const struct shim_dataset *found = last ? parent : row_parent(item, row, depth + 1);
        if (found)
            return found;
    }
    return NULL;
}

static bool bites(const struct shim_dataset *changed, const struct sr_row *row) {
    struct err err = {0};
    if (sr_check(changed, &err))
        fail_msg("without \"%s\" the report passes", row->id);
    assert_int_equal(err.kind, ERR_INTERNAL);
    return true;
}

static bool content_row_bites(const struct bytes *sr, const struct sr_row *row) {
    struct shim_dataset *original = report_parse(sr);
    int last = 0;
    while (last < 3 && row->path[last + 1])
        last++;
    struct victim victim = {row_parent(original, row, 0), row->path[last]};
    bool tried = victim.parent && row->min > 0;
    if (tried) {
        struct shim_dataset *changed = without(sr, original, &victim);
        bites(changed, row);
        shim_dataset_free(changed);
    }
    shim_dataset_free(original);
    return tried;
}

static bool attribute_row_bites(const struct bytes *sr, const struct sr_row *row) {
    struct err err = {0};
    struct shim_dataset *changed = report_parse(sr), *parent = changed;
    int depth = 0;
    for (; depth < 3 && row->tags[depth + 1] && parent; depth++)
        parent = shim_item(parent, row->tags[depth], 0);
    bool tried = false;
    if (parent && row->max == 0 && strcmp(row->type, "SQ") != 0) {
        REPORT_OK(strcmp(row->type, "US") == 0   ? shim_put_u16(parent, row->tags[depth], &(uint16_t){1}, 1, &err)
                  : strcmp(row->type, "OW") == 0 ? shim_put_bytes(parent, row->tags[depth], "ab", 2, &err)
                                                 : shim_put_string(parent, row->tags[depth], "1", &err),
                  err);
        tried = bites(changed, row);
    } else if (parent && row->max > 0 && shim_remove(parent, row->tags[depth])) {
        tried = bites(changed, row);
    }
    shim_dataset_free(changed);
    return tried;
}

/* Rows whose presence is optional, or that forbid a content item: tried by hand below. */
static bool row_by_hand(const struct sr_row *row) {
    return (!row->tags[0] && row->min == 0) || (row->max == 0 && strcmp(row->type, "SQ") == 0);
}

static void test_every_row_bites(void **state) {
    bool *tried = calloc(sr_row_count, sizeof *tried);
    for (int variant = 0; variant < VARIANTS; variant++) {
        struct report_made data;
        report_make(*state, (enum report_variant)variant, &data);
        for (size_t index = 0; index < sr_row_count; index++) {
            const struct sr_row *row = &sr_rows[index];
            bool bit = row->tags[0] ? attribute_row_bites(&data.sr, row) : content_row_bites(&data.sr, row);
            tried[index] = tried[index] || bit;
        }
        report_drop(&data);
    }
    for (size_t index = 0; index < sr_row_count; index++)
        if (!tried[index] && !row_by_hand(&sr_rows[index]))
            fail_msg("row \"%s\" was never tried", sr_rows[index].id);
    free(tried);
}

static void expect_refused(struct shim_dataset *changed, const char *row) {
    struct err err = {0};
    char wanted[96];
    snprintf(wanted, sizeof wanted, "\"%s\"", row);
    assert_false(sr_check(changed, &err));
    if (!strstr(err.text, wanted))
        fail_msg("\"%s\" was expected, but: %s", row, err.text);
    shim_dataset_free(changed);
}

static struct shim_dataset *put_content(struct shim_dataset *parent, enum sr_code concept_code, const char *type,
                                        const char *relation) {
    struct err err = {0};
    struct shim_dataset *item = NULL;
    REPORT_OK(shim_put_item(parent, 0x0040A730, &item, &err), err);
    REPORT_OK(object_put_code(item, 0x0040A043, &sr_codes[concept_code], &err), err);
    REPORT_OK(shim_put_string(item, 0x0040A040, type, &err), err);
    REPORT_OK(shim_put_string(item, 0x0040A010, relation, &err), err);
    return item;
}

static void test_too_much_bites(void **state) {
    struct report_made data;
    struct err err = {0};
    report_make(*state, FOUND, &data);
    struct shim_dataset *changed = report_parse(&data.sr);
    put_content(group_of(changed, 0), SR_VOLUME_SURFACE, "SCOORD3D", "CONTAINS");
    expect_refused(changed, "no surface beside a segment");
    changed = report_parse(&data.sr);
    put_content(group_of(changed, 0), SR_VERDICT, "CODE", "CONTAINS");
    expect_refused(changed, "no verdict, unsigned");
    changed = report_parse(&data.sr);
    put_content(group_of(changed, 1), SR_FINDING_SITE, "CODE", "HAS CONCEPT MOD");
    expect_refused(changed, "finding site");
    changed = report_parse(&data.sr);
    put_content(group_of(changed, 0), SR_COMPOSITION, "CODE", "CONTAINS");
    expect_refused(changed, "composition");
    changed = report_parse(&data.sr);
    put_content(group_of(changed, 2), SR_CERTAINTY, "NUM", "CONTAINS");
    expect_refused(changed, "certainty");
    changed = report_parse(&data.sr);
    struct shim_dataset *verifier = NULL;
    REPORT_OK(shim_put_item(changed, 0x0040A073, &verifier, &err), err);
    expect_refused(changed, "verifier, unsigned");
    report_drop(&data);
    report_make(*state, REFUSED, &data);
    changed = report_parse(&data.sr);
    put_content(changed, SR_IMAGING_MEASUREMENTS, "CONTAINER", "CONTAINS");
    expect_refused(changed, "no measurements without a result");
    report_drop(&data);
}

/* REFERENCE 6, "What others got wrong": wrong values rather than missing rows. */
static void test_wrong_values_bite(void **state) {
    struct report_made data;
    struct err err = {0};
    report_make(*state, FOUND, &data);
    struct shim_dataset *changed = report_parse(&data.sr);
    struct shim_dataset *language = shim_item(child(changed, SR_LANGUAGE, 0), 0x0040A168, 0);
    REPORT_OK(shim_put_string(language, 0x00080100, "eng", &err), err);
    expect_refused(changed, "language");
    changed = report_parse(&data.sr);
    struct shim_dataset *site = shim_item(child(group_of(changed, 1), SR_FINDING_SITE, 0), 0x0040A168, 0);
    REPORT_OK(shim_put_string(site, 0x00080102, "SRT", &err), err);
    expect_refused(changed, "coding scheme");
    changed = report_parse(&data.sr);
    struct shim_dataset *segment = shim_item(child(group_of(changed, 0), SR_REFERENCED_SEGMENT, 0), 0x00081199, 0);
    REPORT_OK(shim_put_string(segment, 0x00081155, "2.25.404", &err), err);
    expect_refused(changed, "evidence");
    changed = report_parse(&data.sr);
    REPORT_OK(shim_put_string(changed, 0x0040A491, "PARTIAL", &err), err);
    expect_refused(changed, "completion flag");
    changed = report_parse(&data.sr);
    struct shim_dataset *notice = child(child(changed, SR_QUALITATIVE_EVALUATIONS, 0), SR_NOTICE, 0);
    REPORT_OK(shim_put_string(notice, 0x0040A160, "For diagnosis.", &err), err);
    expect_refused(changed, "notice");
    report_drop(&data);
}

/* ---- what the reports say ---------------------------------------------------------------------------- */

static void test_findings(void **state) {
    const struct report_fixture *fixture = *state;
    struct report_made data;
    report_make(fixture, FOUND, &data);
    struct shim_dataset *sr = report_parse(&data.sr);
    struct shim_dataset *seg = report_parse(&data.seg);
    const struct shim_dataset *group = group_of(sr, 0);
    char seg_uid[DICOM_UID_SIZE];
    assert_true(shim_get_string(seg, 0x00080018, seg_uid, sizeof seg_uid));
    expect_text(group, SR_TRACKING_IDENTIFIER, 0, "nodule 1");
    report_expect(child(group, SR_TRACKING_UID, 0), 0x0040A124, fixture->listed[0].tracking_uid);
    expect_code(group, SR_FINDING, "786838002");
    expect_number(group, SR_DIAMETER, "8.2", "mm");
    expect_number(group, SR_LONG_AXIS, "9.1", "mm");
    expect_number(group, SR_SHORT_AXIS, "7.0", "mm");
    expect_number(group, SR_VOLUME, "268.2", "mm3");
    expect_number(group, SR_CERTAINTY, "82.0", "%");
    expect_number(group, SR_CERTAINTY_LOW, "74.0", "%");
    expect_number(group, SR_CERTAINTY_HIGH, "88.0", "%");
    expect_number(group, SR_ENTROPY, "0.4714", "1");
    expect_number(group, SR_MUTUAL_INFORMATION, "0.0213", "1");
    expect_code(group, SR_COMPOSITION, "RID5741");
    assert_null(child(group, SR_FINDING_SITE, 0));
    const struct shim_dataset *segment = shim_item(child(group, SR_REFERENCED_SEGMENT, 0), 0x00081199, 0);
    report_expect(segment, 0x00081155, seg_uid);
    report_expect(segment, 0x0062000B, "1");
    group = group_of(sr, 1); /* no mask: a sphere */
    expect_number(group, SR_DIAMETER, "8.2", "mm");
    assert_null(child(group, SR_REFERENCED_SEGMENT, 0));
    report_expect(child(group, SR_VOLUME_SURFACE, 0), 0x30060024, fixture->series->frame_of_reference_uid);
    assert_int_equal(shim_value_count(child(group, SR_VOLUME_SURFACE, 0), 0x00700022), 18);
    expect_code(group, SR_TRIAGE, "PULMO016");
    report_expect(child(group, SR_TRIAGE_RULE, 0), 0x0040A160, fixture->report.review_rule);
    assert_null(child(group_of(sr, 0), SR_TRIAGE_RULE, 0)); /* the first finding needs no review */
    expect_code(group, SR_FINDING_SITE, "72481006");
    segment = shim_item(child(group_of(sr, 2), SR_REFERENCED_SEGMENT, 0), 0x00081199, 0);
    report_expect(segment, 0x0062000B, "2"); /* the second segment of the SEG is the third finding */
    report_expect(shim_item(seg, 0x00620002, 1), 0x00620021, fixture->listed[2].tracking_uid);
    shim_dataset_free(seg);
    shim_dataset_free(sr);
    report_drop(&data);
}

static void expect_flags(const struct shim_dataset *sr, const char *verification, const char *preliminary) {
    report_expect(sr, 0x0040A491, "COMPLETE");
    report_expect(sr, 0x0040A493, verification);
    report_expect(sr, 0x0040A496, preliminary);
}

static void test_status_of_each_kind(void **state) {
    static const struct {
        enum report_variant variant;
        const char *status, *reason;
    } rows[] = {{FOUND, "PULMO023", NULL},
                {NEGATIVE, "PULMO024", NULL},
                {REFUSED, "PULMO034", "MISSING_SLICES: 8 slices are missing"},
                {FAILED_STUDY, "PULMO025", "out of memory at stage 2"}};
    for (size_t index = 0; index < sizeof rows / sizeof *rows; index++) {
        struct report_made data;
        report_make(*state, rows[index].variant, &data);
        struct shim_dataset *sr = report_parse(&data.sr);
        const struct shim_dataset *evaluations = child(sr, SR_QUALITATIVE_EVALUATIONS, 0);
        expect_flags(sr, "UNVERIFIED", "PRELIMINARY");
        expect_code(evaluations, SR_STATUS, rows[index].status);
        expect_text(evaluations, SR_NOTICE, 0, PULMO_NOT_FOR_DIAGNOSIS);
        if (rows[index].reason)
            expect_text(evaluations, SR_REASON, 0, rows[index].reason);
        else
            assert_null(child(evaluations, SR_REASON, 0));
        if (rows[index].variant == REFUSED)
            expect_text(evaluations, SR_REASON, 1, "TOO_THICK: spacing of 7.0 mm");
        shim_dataset_free(sr);
        report_drop(&data);
    }
}

static void test_signed(void **state) {
    struct report_made data;
    report_make(*state, SIGNED, &data);
    struct shim_dataset *sr = report_parse(&data.sr);
    expect_flags(sr, "VERIFIED", "FINAL");
    const struct shim_dataset *verifier = shim_item(sr, 0x0040A073, 0);
    report_expect(verifier, 0x0040A075, "Dr. \xC3\x85sa   N ordstr\xC3\xB6m");
    report_expect(verifier, 0x0040A027, "Hospital");
    const struct shim_dataset *before = shim_item(sr, 0x0040A360, 0);
    report_expect(before, 0x0020000D, data.report.series->study_uid);
    report_expect(shim_item(before, 0x00081115, 0), 0x0020000E, "2.25.5000");
    report_expect(shim_item(shim_item(before, 0x00081115, 0), 0x00081199, 0), 0x00081155, "2.25.5001");
    expect_code(group_of(sr, 0), SR_VERDICT, "PULMO012");
    expect_code(group_of(sr, 1), SR_VERDICT, "PULMO013");
    expect_code(group_of(sr, 2), SR_VERDICT, "PULMO014");
    assert_non_null(child(group_of(sr, 1), SR_CERTAINTY, 0));
    assert_null(child(group_of(sr, 2), SR_CERTAINTY, 0)); /* the model said nothing of what the reader added */
    expect_number(group_of(sr, 2), SR_DIAMETER, "8.2", "mm");
    assert_null(child(group_of(sr, 0), SR_TRIAGE, 0));
    expect_text(group_of(sr, 0), SR_TRACKING_IDENTIFIER, 0, "nodule 1");
    expect_text(group_of(sr, 1), SR_TRACKING_IDENTIFIER, 0, "nodule 2, rejected by the reader");
    struct shim_dataset *seg = report_parse(&data.seg);
    assert_int_equal(shim_item_count(seg, 0x00620002), 2); /* what was rejected is painted no more */
    report_expect(shim_item(seg, 0x00620002, 0), 0x00620008, "AUTOMATIC");
    report_expect(shim_item(seg, 0x00620002, 1), 0x00620008, "SEMIAUTOMATIC");
    report_expect(shim_item(seg, 0x00620002, 1), 0x00620020, "nodule 3, added by the reader");
    shim_dataset_free(seg);
    shim_dataset_free(sr);
    report_drop(&data);
}

/* ---- in the right place ------------------------------------------------------------------------------ */

static void test_lies_in_the_source_study(void **state) {
    const struct report_fixture *fixture = *state;
    struct report_made data;
    report_make(fixture, FOUND, &data);
    struct shim_dataset *sr = report_parse(&data.sr);
    char uid[DICOM_UID_SIZE];
    report_expect(sr, 0x0020000D, fixture->series->study_uid);
    report_expect(sr, 0x00100010, "M\xC3\xBCller^J\xC3\xB6rg");
    report_expect(sr, 0x00081030, "Chest \xE2\x84\x96 1");
    assert_true(shim_get_string(sr, 0x0020000E, uid, sizeof uid));
    assert_string_not_equal(uid, fixture->series->series_uid);
    assert_true(shim_has(sr, 0x00081111) && shim_has(sr, 0x0040A372));
    const struct shim_dataset *evidence = shim_item(sr, 0x0040A375, 0);
    report_expect(shim_item(evidence, 0x00081115, 0), 0x0020000E, fixture->series->series_uid);
    assert_int_equal(shim_item_count(shim_item(evidence, 0x00081115, 0), 0x00081199), REPORT_SLICES);
    shim_dataset_free(sr);
    report_drop(&data);
}

/* File meta information: version 00 01 and an implementation name of at most 16 characters (PS3.10 7.1). */
static void test_meta_information(void **state) {
    struct report_made data;
    report_make(*state, NEGATIVE, &data);
    const uint8_t version[] = {2, 0, 1, 0, 'O', 'B', 0, 0, 2, 0, 0, 0, 0, 1};
    assert_non_null(memmem(data.sr.data, 400, version, sizeof version));
    const uint8_t *name = memmem(data.sr.data, 600, "\x02\x00\x13\x00SH", 6);
    assert_non_null(name);
    assert_true(name[6] + 256 * name[7] <= 16);
    report_drop(&data);
}

/* A header in Latin 1 becomes UTF-8, and the object says so. */
static void test_character_sets(void **state) {
    const struct report_fixture *fixture = *state;
    struct err err = {0};
    struct dicom_series latin = *fixture->series;
    struct dicom_report report = fixture->report;
    struct shim_dataset *header = report_parse(&fixture->series->header);
    latin.header = (struct bytes){0};
    REPORT_OK(shim_put_string(header, 0x00080005, "ISO_IR 100", &err), err);
    REPORT_OK(shim_put_string(header, 0x00100010, "M\xFCller^J\xF6rg", &err), err);
    REPORT_OK(shim_put_string(header, 0x00081030,
                              "Gr\xF6\xDF"
                              "e",
                              &err),
              err);
    REPORT_OK(shim_put_string(header, 0x00080201, "+0530", &err), err);
    REPORT_OK(shim_dataset_write(header, NULL, &latin.header, &err), err);
    report.series = &latin;
    report.finding_count = 0;
    struct bytes sr = {0};
    char uid[DICOM_UID_SIZE];
    REPORT_OK(dicom_sr_write(&report, NULL, &sr, uid, &err), err);
    struct shim_dataset *parsed = report_parse(&sr);
    report_expect(parsed, 0x00080005, "ISO_IR 192");
    report_expect(parsed, 0x00100010, "M\xC3\xBCller^J\xC3\xB6rg");
    report_expect(parsed, 0x00081030,
                  "Gr\xC3\xB6\xC3\x9F"
                  "e");
    report_expect(parsed, 0x00080201, "+0530");
    report_expect(parsed, 0x00080023, "20261118"); /* 1795000000 s = 2026-11-18 11:06:40 UTC */
    report_expect(parsed, 0x00080033, "163640");
    shim_dataset_free(parsed);
    shim_dataset_free(header);
    bytes_free(&latin.header);
    bytes_free(&sr);
}

/* A study refused before its slices were sorted still gets its report. */
static void test_without_slices(void **state) {
    const struct report_fixture *fixture = *state;
    struct err err = {0};
    struct report_made data;
    report_make(fixture, REFUSED, &data);
    struct dicom_series bare = *fixture->series;
    bare.volume = NULL;
    bare.slices = NULL;
    bare.slice_count = 0;
    data.report.series = &bare;
    bytes_free(&data.sr);
    char uid[DICOM_UID_SIZE];
    REPORT_OK(dicom_sr_write(&data.report, NULL, &data.sr, uid, &err), err);
    report_dciodvfy(fixture, &data.sr);
    report_drop(&data);
}

/* Evidence and image library name each instance of an Enhanced CT once. */
static void test_instances_of_many_frames(void **state) {
    const struct report_fixture *fixture = *state;
    struct err err = {0};
    struct report_made data;
    struct dicom_slice slices[REPORT_SLICES];
    const struct dicom_series series = report_enhanced(fixture, slices);
    report_make(fixture, FOUND, &data);
    data.report.series = &series;
    bytes_free(&data.sr);
    char uid[DICOM_UID_SIZE];
    REPORT_OK(dicom_sr_write(&data.report, NULL, &data.sr, uid, &err), err);
    struct shim_dataset *sr = report_parse(&data.sr);
    const struct shim_dataset *evidence = shim_item(shim_item(sr, 0x0040A375, 0), 0x00081115, 0);
    const struct shim_dataset *group = child(child(sr, SR_IMAGE_LIBRARY, 0), SR_IMAGE_LIBRARY_GROUP, 0);
    assert_int_equal(shim_item_count(group, 0x0040A730), 2);
    assert_int_equal(shim_item_count(evidence, 0x00081199), 2);
    report_expect(shim_item(evidence, 0x00081199, 0), 0x00081155, "2.25.77.2");
    report_expect(shim_item(evidence, 0x00081199, 1), 0x00081155, "2.25.77.1");
    report_dciodvfy(fixture, &data.sr);
    shim_dataset_free(sr);
    report_drop(&data);
}

static void test_same_report_same_bytes(void **state) {
    struct report_made first, again, other;
    report_make(*state, SIGNED, &first);
    report_make(*state, SIGNED, &again);
    report_make(*state, FOUND, &other);
    assert_int_equal(first.sr.size, again.sr.size);
    assert_memory_equal(first.sr.data, again.sr.data, first.sr.size);
    struct instance one, two;
    struct err err = {0};
    REPORT_OK(dicom_instance_parse(first.sr.data, first.sr.size, &one, &err), err);
    REPORT_OK(dicom_instance_parse(other.sr.data, other.sr.size, &two, &err), err);
    assert_string_not_equal(one.sop_instance_uid, two.sop_instance_uid);
    assert_string_equal(one.study_uid, two.study_uid);
    report_drop(&first);
    report_drop(&again);
    report_drop(&other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_findings),
        cmocka_unit_test(test_status_of_each_kind),
        cmocka_unit_test(test_signed),
        cmocka_unit_test(test_lies_in_the_source_study),
        cmocka_unit_test(test_meta_information),
        cmocka_unit_test(test_character_sets),
        cmocka_unit_test(test_without_slices),
        cmocka_unit_test(test_instances_of_many_frames),
        cmocka_unit_test(test_same_report_same_bytes),
        cmocka_unit_test(test_every_row_bites),
        cmocka_unit_test(test_too_much_bites),
        cmocka_unit_test(test_wrong_values_bite),
        cmocka_unit_test(test_dsrdump),
        cmocka_unit_test(test_dciodvfy),
    };
    return cmocka_run_group_tests(tests, report_set_up, report_tear_down);
}
