/* LABELS: quick
 * Enhanced and Legacy Converted Enhanced CT: each frame is the slice that it would be in a classic series. */
#include "test_dicom_folder.h"

#include <math.h>

#define ENHANCED "1.2.840.10008.5.1.4.1.1.2.1"
#define CONVERTED "1.2.840.10008.5.1.4.1.1.2.2"
#define JPEG_LS "1.2.840.10008.1.2.4.80"

enum { SIDE = 16, PLANE = SIDE * SIDE };

/* What an object is made of. Frame n shows slice first + n, or first + frames - 1 - n. */
struct object {
    const char *sop_class_uid;
    int number, frames;
    double first_z_mm, spacing_mm;
    bool downwards, own_rescale; /* own_rescale: in each frame's groups, the slope 1 + n / 10 */
    const char *units, *kernel, *unassigned_kernel;
    int groups_missing, position_missing, pixels_missing; /* of groups, the frame without (from 1), frames of pixels */
    double phase_mm; /* where the second half of the frames starts again; 0 = not */
    int localizer;   /* the frame that is one, from 1 */
};

static int slice_of(const struct object *object, int frame) {
    return object->downwards ? object->frames - 1 - frame : frame;
}

static double z_of(const struct object *object, int frame) {
    const int slice = slice_of(object, frame);
    if (object->phase_mm != 0 && slice >= object->frames / 2)
        return object->phase_mm + (slice - object->frames / 2) * object->spacing_mm;
    return object->first_z_mm + slice * object->spacing_mm;
}

static int16_t value_of(const struct object *object, int frame, size_t i) {
    return (int16_t)((i * 37 + (size_t)(object->number + slice_of(object, frame)) * 11) % 3000);
}

static struct shim_dataset *macro(struct shim_dataset *group, uint32_t tag) {
    struct err err = {0};
    struct shim_dataset *item = NULL;
    if (!shim_put_item(group, tag, &item, &err))
        fail_msg("%s", err.text);
    return item;
}

static void put_rescale(struct shim_dataset *group, double slope, const char *units) {
    struct shim_dataset *values = macro(group, 0x00289145);
    char text[32];
    snprintf(text, sizeof text, "%.3f", slope);
    sample_put(values, 0x00281052, "-1024");
    sample_put(values, 0x00281053, text);
    sample_put(values, 0x00281054, units != NULL ? units : "HU");
}

static void put_shared(struct shim_dataset *dataset, const struct object *object) {
    struct shim_dataset *shared = macro(dataset, 0x52009229);
    sample_put(macro(shared, 0x00209116), 0x00200037, "1\\0\\0\\0\\1\\0");
    struct shim_dataset *measures = macro(shared, 0x00289110);
    sample_put(measures, 0x00180050, "2.5");
    sample_put(measures, 0x00280030, "0.7\\0.8");
    put_rescale(shared, object->own_rescale ? 5 : 1, object->units); /* 5: not what counts */
    if (object->kernel != NULL)
        sample_put(macro(shared, 0x00189314), 0x00181210, object->kernel);
    if (object->unassigned_kernel != NULL)
        sample_put(macro(shared, 0x00209170), 0x00181210, object->unassigned_kernel);
}

static void put_frame(struct shim_dataset *dataset, const struct object *object, int frame) {
    struct shim_dataset *group = macro(dataset, 0x52009230);
    char text[64];
    snprintf(text, sizeof text, "-100\\-100\\%.3f", z_of(object, frame));
    if (frame + 1 != object->position_missing)
        sample_put(macro(group, 0x00209113), 0x00200032, text);
    sample_put(macro(group, 0x00189329), 0x00089007,
               frame + 1 == object->localizer ? "ORIGINAL\\PRIMARY\\LOCALIZER\\NONE"
                                              : "ORIGINAL\\PRIMARY\\VOLUME\\NONE");
    if (object->unassigned_kernel != NULL)
        sample_put(macro(group, 0x00209171), 0x00181152, "10"); /* exposure: of each frame, as the kernel is not */
    if (object->own_rescale)
        put_rescale(group, 1 + frame / 10.0, object->units);
}

static void put_pixels(struct shim_dataset *dataset, const struct object *object) {
    struct err err = {0};
    const size_t frames = (size_t)(object->frames - object->pixels_missing);
    uint16_t *pixels = calloc(frames * PLANE, sizeof *pixels);
    assert_non_null(pixels);
    for (size_t n = 0; n < frames * PLANE; n++)
        pixels[n] = (uint16_t)value_of(object, (int)(n / PLANE), n % PLANE);
    if (!shim_put_bytes(dataset, 0x7FE00010, pixels, frames * PLANE * sizeof *pixels, &err))
        fail_msg("%s", err.text);
    free(pixels);
}

/* Takes from a classic image what an enhanced one has elsewhere. */
static void make_enhanced(struct shim_dataset *dataset, void *context) {
    const struct object *object = context;
    const uint32_t gone[] = {0x00200032, 0x00200037, 0x00180050, 0x00280030, 0x00281052, 0x00281053};
    char text[16];
    for (size_t n = 0; n < sizeof gone / sizeof *gone; n++)
        shim_remove(dataset, gone[n]);
    sample_put(dataset, 0x00080016, object->sop_class_uid);
    sample_put(dataset, 0x00080008, "ORIGINAL\\PRIMARY\\VOLUME\\NONE");
    snprintf(text, sizeof text, "%d", object->frames);
    sample_put(dataset, 0x00280008, text);
    put_shared(dataset, object);
    for (int frame = 0; frame < object->frames - object->groups_missing; frame++)
        put_frame(dataset, object, frame);
    put_pixels(dataset, object);
}

/* ---- folders ------------------------------------------------------------------------------------------ */

static void add_object(struct folder *folder, struct object *object, const char *series_uid, const char *syntax) {
    object->sop_class_uid = object->sop_class_uid != NULL ? object->sop_class_uid : ENHANCED;
    add(folder, &(struct sample){.series_uid = series_uid,
                                 .number = object->number,
                                 .transfer_syntax_uid = syntax,
                                 .change = make_enhanced,
                                 .context = object});
}

/* ---- what is read ------------------------------------------------------------------------------------ */

static struct dicom_series *classic(int number, int slices, double first_z_mm, double spacing_mm) {
    struct folder folder;
    open_folder(&folder);
    for (int k = 0; k < slices; k++)
        add(&folder, &(struct sample){.number = number + k, .z_mm = first_z_mm + k * spacing_mm});
    struct dicom_series *series = read_folder(&folder);
    close_folder(&folder);
    return series;
}

static void expect_same(const struct dicom_series *got, const struct dicom_series *wanted) {
    if (got->refusals.count > 0)
        fail_msg("%s", got->refusals.items[0].text);
    assert_non_null(got->volume);
    assert_memory_equal(&got->volume->grid, &wanted->volume->grid, sizeof got->volume->grid);
    assert_memory_equal(got->volume->hu, wanted->volume->hu, grid_voxels(&got->volume->grid) * sizeof *got->volume->hu);
    assert_int_equal(got->slice_count, wanted->slice_count);
    assert_true(got->slice_spacing_mm == wanted->slice_spacing_mm && got->slice_thickness_mm == 2.5);
    assert_string_equal(got->frame_of_reference_uid, wanted->frame_of_reference_uid);
    for (size_t k = 0; k < got->slice_count; k++)
        assert_memory_equal(got->slices[k].position_lps_mm, wanted->slices[k].position_lps_mm, 3 * sizeof(double));
}

static void test_frames_are_slices(void **state) {
    (void)state;
    const char *const classes[] = {ENHANCED, CONVERTED}, *const syntaxes[] = {NULL, JPEG_LS};
    struct dicom_series *wanted = classic(7, 20, -50, 2.5);
    for (int variant = 0; variant < 8; variant++) {
        struct folder folder;
        open_folder(&folder);
        struct object object = {.sop_class_uid = classes[variant & 1],
                                .number = 7,
                                .frames = 20,
                                .first_z_mm = -50,
                                .spacing_mm = 2.5,
                                .downwards = variant & 2};
        add_object(&folder, &object, NULL, syntaxes[variant >> 2]);
        struct dicom_series *series = read_folder(&folder);
        expect_same(series, wanted);
        for (size_t k = 0; k < 20; k++) {
            assert_int_equal(series->slices[k].frame_number, variant & 2 ? 20 - k : k + 1);
            assert_string_equal(series->slices[k].sop_instance_uid, "2.25.3.7");
            assert_string_equal(series->slices[k].sop_class_uid, classes[variant & 1]);
        }
        dicom_series_free(series);
        close_folder(&folder);
    }
    dicom_series_free(wanted);
}

/* A volume in three instances, one of them twice and one of a single frame. */
static void test_several_instances(void **state) {
    (void)state;
    struct dicom_series *wanted = classic(1, 21, 0, 2.5);
    struct folder folder;
    open_folder(&folder);
    struct object upper = {.number = 11, .frames = 10, .first_z_mm = 25, .spacing_mm = 2.5, .downwards = true};
    struct object lower = {.number = 1, .frames = 10, .spacing_mm = 2.5},
                  last = {.number = 21, .frames = 1, .first_z_mm = 50};
    add_object(&folder, &upper, NULL, NULL);
    add_object(&folder, &last, NULL, NULL);
    add_object(&folder, &lower, NULL, NULL);
    add_object(&folder, &upper, NULL, NULL);
    struct dicom_series *series = read_folder(&folder);
    expect_same(series, wanted);
    assert_int_equal(series->slices[0].frame_number, 1);
    assert_int_equal(series->slices[10].frame_number, 10);
    assert_int_equal(series->slices[20].frame_number, 0);
    assert_string_equal(series->slices[20].sop_instance_uid, "2.25.3.21");
    dicom_series_free(series);
    close_folder(&folder);
    dicom_series_free(wanted);
}

static void test_own_groups_before_shared(void **state) {
    (void)state;
    struct folder folder;
    open_folder(&folder);
    struct object object = {.number = 1, .frames = 16, .spacing_mm = 1, .own_rescale = true, .units = "US"};
    add_object(&folder, &object, NULL, NULL);
    struct dicom_series *series = read_folder(&folder);
    assert_non_null(series->volume);
    for (int k = 0; k < 16; k++)
        for (size_t i = 0; i < PLANE; i++)
            assert_int_equal(series->volume->hu[k * PLANE + (int)i],
                             (int)nearbyint((1 + k / 10.0) * value_of(&object, k, i) - 1024));
    dicom_series_free(series);
    close_folder(&folder);
}

static void test_kernel(void **state) {
    (void)state;
    for (int converted = 0; converted < 2; converted++) {
        struct folder folder;
        open_folder(&folder);
        struct object sharp = {.number = 1, .frames = 16, .spacing_mm = 1}, soft = sharp;
        sharp.sop_class_uid = soft.sop_class_uid = converted ? CONVERTED : ENHANCED;
        *(converted ? &sharp.unassigned_kernel : &sharp.kernel) = "B80f";
        *(converted ? &soft.unassigned_kernel : &soft.kernel) = "B30f";
        soft.number = 2;
        add_object(&folder, &sharp, "2.25.5.1", NULL);
        add_object(&folder, &soft, "2.25.5.2", NULL);
        struct dicom_series *series = read_folder(&folder);
        assert_string_equal(series->series_uid, "2.25.5.2");
        dicom_series_free(series);
        close_folder(&folder);
    }
}

static void test_a_localizer_among_the_frames(void **state) {
    (void)state;
    struct folder folder;
    open_folder(&folder);
    struct object object = {.number = 1, .frames = 20, .spacing_mm = 1, .localizer = 20};
    add_object(&folder, &object, NULL, NULL);
    struct dicom_series *series = read_folder(&folder);
    assert_int_equal(series->refusals.count, 0);
    assert_int_equal(series->slice_count, 19);
    dicom_series_free(series);
    close_folder(&folder);
}

/* ---- what is refused --------------------------------------------------------------------------------- */

static void expect_refused(struct object *object, enum refusal_code code, const char *text) {
    struct folder folder;
    open_folder(&folder);
    object->number = 1;
    object->frames = 20;
    object->spacing_mm = 1;
    add_object(&folder, object, NULL, NULL);
    expect_refusal(&folder, code, text);
}

static void test_refusals(void **state) {
    (void)state;
    expect_refused(&(struct object){.groups_missing = 1}, REFUSAL_UNREADABLE, "19 functional groups for 20 frames");
    expect_refused(&(struct object){.position_missing = 5}, REFUSAL_UNREADABLE,
                   "1 of 20 slices cannot be used: Image Position (Patient) is missing");
    expect_refused(&(struct object){.units = "MGML"}, REFUSAL_UNREADABLE, "Rescale Type is MGML, not HU");
    expect_refused(&(struct object){.pixels_missing = 1}, REFUSAL_UNREADABLE, "20 of 20 slices cannot be decoded");
    expect_refused(&(struct object){.phase_mm = 0.01}, REFUSAL_DUPLICATE_POSITIONS, "lie where another one lies");
}

/* Asked of one file: what speaks against the slices counts, that they may be few does not. */
static void test_judged_alone(void **state) {
    (void)state;
    struct folder folder;
    struct refusals refusals = {0};
    struct err err = {0};
    open_folder(&folder);
    struct object good = {.number = 1, .frames = 4, .spacing_mm = 1},
                  bad = {.number = 2, .frames = 4, .groups_missing = 4};
    add_object(&folder, &good, NULL, NULL);
    add_object(&folder, &bad, NULL, NULL);
    assert_true(dicom_slice_judge(folder.list[0], &refusals, &err));
    assert_int_equal(refusals.count, 0);
    assert_true(dicom_slice_judge(folder.list[1], &refusals, &err));
    assert_int_equal(refusals.count, 1);
    assert_int_equal(refusals.items[0].code, REFUSAL_UNREADABLE);
    close_folder(&folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames_are_slices),
        cmocka_unit_test(test_several_instances),
        cmocka_unit_test(test_own_groups_before_shared),
        cmocka_unit_test(test_kernel),
        cmocka_unit_test(test_a_localizer_among_the_frames),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_judged_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
