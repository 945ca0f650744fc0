/* LABELS: quick */
/* The Segmentation holds each finding's mask bit for bit, lies in the source study, names its source, and is valid. */
#include "test_dicom_report.h"

static struct bytes seg_of(const struct dicom_report *report) {
    struct err err = {0};
    struct bytes out = {0};
    char uid[DICOM_UID_SIZE];
    REPORT_OK(dicom_seg_write(report, &out, uid, &err), err);
    return out;
}

static bool bit_at(const uint8_t *bits, size_t bit) {
    return bits[bit / 8] >> (bit % 8) & 1;
}

/* The frame's segment number and slice, from its functional groups. */
static void frame_place(const struct report_fixture *fixture, const struct shim_dataset *group, int64_t *segment,
                        size_t *slice) {
    double position[3];
    const struct shim_dataset *plane = shim_item(group, 0x00209113, 0);
    assert_true(shim_get_i64(shim_item(group, 0x0062000A, 0), 0x0062000B, 0, segment));
    for (size_t axis = 0; axis < 3; axis++)
        assert_true(shim_get_f64(plane, 0x00200032, axis, &position[axis]));
    for (*slice = 0; *slice < REPORT_SLICES; (*slice)++)
        if (fabs(fixture->series->slices[*slice].position_lps_mm[2] - position[2]) < 1e-3)
            return;
    fail_msg("a frame lies on no slice");
}

/* Puts the frames back into a volume of segment numbers and compares it with the masks. */
static void test_bits_come_back(void **state) {
    const struct report_fixture *fixture = *state;
    struct bytes object = seg_of(&fixture->report);
    struct shim_dataset *seg = report_parse(&object);
    const uint8_t *bits = NULL;
    size_t size = 0, plane = 52 * 45, frames = shim_item_count(seg, 0x52009230);
    assert_true(shim_get_bytes(seg, 0x7FE00010, &bits, &size));
    assert_true(size * 8 >= frames * plane && size * 8 < frames * plane + 16);
    uint8_t *found = calloc(plane * REPORT_SLICES, 1);
    for (size_t frame = 0; frame < frames; frame++) {
        int64_t segment = 0;
        size_t slice = 0, set = 0;
        frame_place(fixture, shim_item(seg, 0x52009230, frame), &segment, &slice);
        for (size_t n = 0; n < plane; n++)
            if (bit_at(bits, frame * plane + n)) {
                assert_int_equal(found[slice * plane + n], 0);
                found[slice * plane + n] = (uint8_t)segment;
                set++;
            }
        assert_true(set > 0); /* no empty frames */
    }
    for (uint8_t index = 0; index < REPORT_FINDINGS; index++) {
        const struct mask *mask = fixture->masks[index];
        size_t wanted = 0, counted = 0;
        for (size_t n = 0; n < grid_voxels(&mask->grid); n++)
            wanted += mask->voxel[n];
        for (size_t n = 0; n < plane * REPORT_SLICES; n++)
            counted += found[n] == index + 1;
        assert_int_equal(counted, wanted);
        const double *center = fixture->findings[index].center_ijk;
        size_t at = (size_t)lrint(center[2]) * plane + (size_t)lrint(center[1]) * 52 + (size_t)lrint(center[0]);
        assert_int_equal(found[at], index + 1);
    }
    free(found);
    shim_dataset_free(seg);
    bytes_free(&object);
}

static void test_lies_in_the_source_study(void **state) {
    const struct report_fixture *fixture = *state;
    struct bytes object = seg_of(&fixture->report);
    struct shim_dataset *seg = report_parse(&object);
    char series_uid[DICOM_UID_SIZE];
    report_expect(seg, 0x0020000D, fixture->series->study_uid);
    report_expect(seg, 0x00200052, fixture->series->frame_of_reference_uid);
    report_expect(seg, 0x00100010, "M\xC3\xBCller^J\xC3\xB6rg");
    report_expect(seg, 0x00080005, "ISO_IR 192");
    report_expect(seg, 0x00700081, PULMO_NOT_FOR_DIAGNOSIS);
    report_expect(seg, 0x00620001, "BINARY");
    assert_true(shim_get_string(seg, 0x0020000E, series_uid, sizeof series_uid));
    assert_string_not_equal(series_uid, fixture->series->series_uid);
    report_expect(shim_item(seg, 0x00081115, 0), 0x0020000E, fixture->series->series_uid);
    assert_int_equal(shim_item_count(seg, 0x00620002), REPORT_FINDINGS);
    for (size_t index = 0; index < REPORT_FINDINGS; index++) {
        const struct shim_dataset *segment = shim_item(seg, 0x00620002, index);
        report_expect(segment, 0x00620021, fixture->listed[index].tracking_uid);
        report_expect(segment, 0x00620008, "AUTOMATIC");
        report_expect(segment, 0x00620009, "pulmo");
    }
    assert_false(shim_has(seg, 0x00180060)); /* nothing of the CT's acquisition */
    assert_false(shim_has(seg, 0x00281052));
    shim_dataset_free(seg);
    bytes_free(&object);
}

static void test_each_frame_names_its_slice(void **state) {
    const struct report_fixture *fixture = *state;
    struct bytes object = seg_of(&fixture->report);
    struct shim_dataset *seg = report_parse(&object);
    for (size_t frame = 0; frame < shim_item_count(seg, 0x52009230); frame++) {
        int64_t segment = 0;
        size_t slice = 0;
        const struct shim_dataset *group = shim_item(seg, 0x52009230, frame);
        frame_place(fixture, group, &segment, &slice);
        const struct shim_dataset *source = shim_item(shim_item(group, 0x00089124, 0), 0x00082112, 0);
        report_expect(source, 0x00081155, fixture->series->slices[slice].sop_instance_uid);
        assert_false(shim_has(source, 0x00081160)); /* a slice of one frame */
    }
    shim_dataset_free(seg);
    bytes_free(&object);
}

/* Of an Enhanced CT the frame as well (PS3.3 table 10-3), and each instance once. */
static void test_each_frame_names_its_frame(void **state) {
    const struct report_fixture *fixture = *state;
    struct dicom_slice slices[REPORT_SLICES];
    const struct dicom_series series = report_enhanced(fixture, slices);
    struct dicom_report report = fixture->report;
    report.series = &series;
    struct bytes object = seg_of(&report);
    struct shim_dataset *seg = report_parse(&object);
    bool used[3] = {false};
    for (size_t frame = 0; frame < shim_item_count(seg, 0x52009230); frame++) {
        int64_t segment = 0, number = 0;
        size_t slice = 0;
        const struct shim_dataset *group = shim_item(seg, 0x52009230, frame);
        frame_place(fixture, group, &segment, &slice);
        const struct shim_dataset *source = shim_item(shim_item(group, 0x00089124, 0), 0x00082112, 0);
        report_expect(source, 0x00081155, slices[slice].sop_instance_uid);
        assert_true(shim_get_i64(source, 0x00081160, 0, &number));
        assert_int_equal(number, slices[slice].frame_number);
        used[slice >= REPORT_SLICES - REPORT_UPPER ? 1 : 2] = true;
    }
    assert_int_equal(shim_item_count(shim_item(seg, 0x00081115, 0), 0x0008114A), used[1] + used[2]);
    report_dciodvfy(fixture, &object);
    shim_dataset_free(seg);
    bytes_free(&object);
}

static void test_same_report_same_bytes(void **state) {
    const struct report_fixture *fixture = *state;
    struct dicom_report changed = fixture->report;
    changed.time_ms += 1000;
    struct bytes first = seg_of(&fixture->report), again = seg_of(&fixture->report), other = seg_of(&changed);
    struct instance one, two;
    struct err err = {0};
    assert_int_equal(first.size, again.size);
    assert_memory_equal(first.data, again.data, first.size);
    REPORT_OK(dicom_instance_parse(first.data, first.size, &one, &err), err);
    REPORT_OK(dicom_instance_parse(other.data, other.size, &two, &err), err);
    assert_string_not_equal(one.sop_instance_uid, two.sop_instance_uid);
    assert_string_not_equal(one.series_uid, two.series_uid);
    bytes_free(&first);
    bytes_free(&again);
    bytes_free(&other);
}

static void test_valid(void **state) {
    const struct report_fixture *fixture = *state;
    struct bytes object = seg_of(&fixture->report);
    bool there = report_dciodvfy(fixture, &object);
    bytes_free(&object);
    if (!there) {
        print_message("dciodvfy is missing (Debian package dicom3tools)\n");
        skip();
    }
}

static void test_refuses_what_is_no_mask(void **state) {
    const struct report_fixture *fixture = *state;
    struct dicom_report report = fixture->report;
    struct dicom_report_finding listed[1] = {fixture->listed[0]};
    struct bytes out = {0};
    struct err err = {0};
    char uid[DICOM_UID_SIZE] = "untouched";
    report.findings = listed;
    report.finding_count = 1;
    listed[0].mask = NULL;
    assert_false(dicom_seg_write(&report, &out, uid, &err));
    assert_int_equal(err.kind, ERR_INPUT);
    struct mask moved = *fixture->masks[0];
    listed[0].mask = &moved;
    const double shifts_mm[] = {0.35, 7000, -7000}; /* half a voxel, and far outside */
    for (size_t index = 0; index < 3; index++) {
        moved.grid.ijk_to_lps_mm[0][3] = fixture->masks[0]->grid.ijk_to_lps_mm[0][3] + shifts_mm[index];
        assert_false(dicom_seg_write(&report, &out, uid, &err));
        assert_int_equal(err.kind, ERR_INPUT);
    }
    struct mask *empty = report_mask(&fixture->series->volume->grid, (const int32_t[3]){1, 1, 1}, 1);
    listed[0].mask = empty;
    assert_false(dicom_seg_write(&report, &out, uid, &err));
    assert_int_equal(err.kind, ERR_INPUT);
    assert_null(out.data);
    assert_string_equal(uid, "untouched");
    mask_free(empty);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bits_come_back),
                                       cmocka_unit_test(test_lies_in_the_source_study),
                                       cmocka_unit_test(test_each_frame_names_its_slice),
                                       cmocka_unit_test(test_each_frame_names_its_frame),
                                       cmocka_unit_test(test_same_report_same_bytes),
                                       cmocka_unit_test(test_valid),
                                       cmocka_unit_test(test_refuses_what_is_no_mask)};
    return cmocka_run_group_tests(tests, report_set_up, report_tear_down);
}
