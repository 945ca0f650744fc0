/* LABELS: quick
 * Masks of spheres of known size, and of real nodules with their consensus masks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/volume_cases.h"
#include "volume/volume.h"

#define LUNG_HU (-850)

/* How much of a voxel lies in the ball, in 125 parts. */
static int parts_inside(const struct grid *grid, const double voxel[3], const double center_lps[3], double radius) {
    int inside = 0;
    for (int part = 0; part < 125; part++) {
        const int step[3] = {part % 5 - 2, part / 5 % 5 - 2, part / 25 - 2};
        double ijk[3], lps[3], square = 0;
        for (int axis = 0; axis < 3; axis++)
            ijk[axis] = voxel[axis] + step[axis] / 5.0;
        grid_to_lps(grid, ijk, lps);
        for (int axis = 0; axis < 3; axis++)
            square += pow(lps[axis] - center_lps[axis], 2);
        if (part == 0 && fabs(sqrt(square) - radius) > 4 * grid->spacing_mm[2]) /* far from the surface */
            return square < radius * radius ? 125 : 0;
        inside += square <= radius * radius;
    }
    return inside;
}

/* Lung of 60 mm a side with a ball that has partial volume; j runs forwards, k down. */
static struct volume *ball(const double spacing[3], const double center_lps[3], double diameter, double ball_hu) {
    struct grid grid = {0};
    const double sign[3] = {1, -1, -1};
    for (int axis = 0; axis < 3; axis++) {
        grid.size_ijk[axis] = (int32_t)(60 / spacing[axis]);
        grid.spacing_mm[axis] = spacing[axis];
        grid.ijk_to_lps_mm[axis][axis] = sign[axis] * spacing[axis];
        grid.ijk_to_lps_mm[axis][3] = -sign[axis] * 30;
    }
    struct volume *volume = volume_new(&grid, NULL);
    assert_non_null(volume);
    size_t across = (size_t)grid.size_ijk[0], rows = (size_t)grid.size_ijk[1];
    for (size_t n = 0; n < grid_voxels(&grid); n++) {
        const double ijk[3] = {(double)(n % across), (double)(n / across % rows), (double)(n / across / rows)};
        int inside = parts_inside(&grid, ijk, center_lps, diameter / 2);
        volume->hu[n] = (int16_t)lround(LUNG_HU + (ball_hu - LUNG_HU) * inside / 125);
    }
    return volume;
}

static struct mask *segment(const struct volume *volume, struct finding *finding) {
    struct err err = {0};
    struct mask *mask = volume_segment_nodule(volume, finding, &err);
    if (!mask)
        fail_msg("%s", err.text);
    return mask;
}

static void expect_sphere(const double spacing[3], double diameter, double ball_hu) {
    const double center[3] = {1.3, -2.2, 0.7};
    PULMO_SCOPED(volume_free_at) struct volume *volume = ball(spacing, center, diameter, ball_hu);
    struct finding finding = {.diameter_mm = diameter};
    memcpy(finding.center_lps_mm, center, sizeof center);
    mask_free(segment(volume, &finding));
    double pixel = spacing[0], sphere_mm3 = 3.14159265 / 6 * pow(diameter, 3);
    printf("%.0f mm, %.0f HU at %.1f x %.1f mm: axes %.1f, %.1f mm, %.2f of the volume\n", diameter, ball_hu, pixel,
           spacing[2], finding.long_axis_mm, finding.short_axis_mm, finding.volume_mm3 / sphere_mm3);
    /* A reader's outline takes in the blur of one voxel: the mask may be that much larger, never smaller. */
    assert_true(finding.long_axis_mm >= diameter - pixel && finding.long_axis_mm <= diameter + 2.5 * pixel);
    assert_true(finding.short_axis_mm >= diameter - pixel && finding.short_axis_mm <= finding.long_axis_mm);
    double blurred_mm3 = 3.14159265 / 6 * pow(diameter + pixel, 2) * (diameter + spacing[2]);
    assert_true(finding.volume_mm3 >= 0.9 * sphere_mm3 && finding.volume_mm3 <= 1.05 * blurred_mm3);
}

static void spheres_have_their_size(void **state) {
    (void)state;
    const double fine[3] = {0.6, 0.6, 0.6}, usual[3] = {0.7, 0.7, 2.5};
    const double diameters[] = {5, 8, 12, 20};
    for (size_t n = 0; n < 4; n++) {
        expect_sphere(fine, diameters[n], 40);
        expect_sphere(usual, diameters[n], 40);
        expect_sphere(fine, diameters[n], -550); /* ground-glass */
    }
}

static double on_side(const struct mask *mask, double x_from_mm) { /* volume beyond x */
    double sum = 0;
    const int32_t *size = mask->grid.size_ijk;
    for (size_t n = 0; n < grid_voxels(&mask->grid); n++) {
        double lps[3], ijk[3] = {(double)(n % (size_t)size[0]), (double)(n / (size_t)size[0] % (size_t)size[1]),
                                 (double)(n / (size_t)size[0] / (size_t)size[1])};
        grid_to_lps(&mask->grid, ijk, lps);
        sum += mask->voxel[n] && lps[0] > x_from_mm;
    }
    return sum * mask->grid.spacing_mm[0] * mask->grid.spacing_mm[1] * mask->grid.spacing_mm[2];
}

/* A chest wall that the ball touches, and a vessel of 3 mm through it. */
static void wall_and_vessel_stay_out(void **state) {
    (void)state;
    const double spacing[3] = {0.7, 0.7, 1.25}, center[3] = {0, 0, 0}, diameter = 12;
    PULMO_SCOPED(volume_free_at) struct volume *volume = ball(spacing, center, diameter, 40);
    size_t across = (size_t)volume->grid.size_ijk[0], rows = (size_t)volume->grid.size_ijk[1];
    for (size_t n = 0; n < grid_voxels(&volume->grid); n++) {
        double lps[3], ijk[3] = {(double)(n % across), (double)(n / across % rows), (double)(n / across / rows)};
        grid_to_lps(&volume->grid, ijk, lps);
        if (lps[0] > 5.5 || hypot(lps[0], lps[2]) < 1.5)
            volume->hu[n] = 40;
    }
    struct finding finding = {.diameter_mm = diameter};
    PULMO_SCOPED(mask_free_at) struct mask *mask = segment(volume, &finding);
    double sphere_mm3 = 3.14159265 / 6 * pow(diameter, 3);
    assert_true(finding.volume_mm3 > 0.85 * sphere_mm3 && finding.volume_mm3 < 1.6 * sphere_mm3);
    assert_true(finding.long_axis_mm < 1.5 * diameter);
    assert_true(on_side(mask, 9) < 0.02 * sphere_mm3); /* 9 mm: 3 mm deep in the wall */
}

static void nothing_there_gives_one_voxel(void **state) {
    (void)state;
    const double spacing[3] = {0.7, 0.7, 2.5}, center[3] = {20, 20, 20};
    PULMO_SCOPED(volume_free_at) struct volume *volume = ball(spacing, center, 6, 40);
    struct finding finding = {.diameter_mm = 4, .center_lps_mm = {-15, -15, -15}};
    PULMO_SCOPED(mask_free_at) struct mask *mask = segment(volume, &finding);
    size_t set = 0;
    for (size_t n = 0; n < grid_voxels(&mask->grid); n++)
        set += mask->voxel[n];
    assert_int_equal(set, 1);
    assert_true(fabs(finding.volume_mm3 - 0.7 * 0.7 * 2.5) < 1e-9);
    assert_true(finding.long_axis_mm > 0 && finding.short_axis_mm > 0);
}

static void outside_is_an_error(void **state) {
    (void)state;
    const double spacing[3] = {1, 1, 1}, center[3] = {0, 0, 0};
    PULMO_SCOPED(volume_free_at) struct volume *volume = ball(spacing, center, 6, 40);
    const double places[][3] = {{0, 0, 200}, {-400, 0, 0}, {NAN, 0, 0}};
    for (size_t n = 0; n < 3; n++) {
        struct err err = {0};
        struct finding finding = {.diameter_mm = 6, .long_axis_mm = -1};
        memcpy(finding.center_lps_mm, places[n], sizeof places[n]);
        assert_null(volume_segment_nodule(volume, &finding, &err));
        assert_int_equal(err.kind, ERR_INPUT);
        assert_true(finding.long_axis_mm == -1);
    }
    /* at the very corner, and with a diameter beyond reason, it still answers */
    struct finding corner = {.diameter_mm = 1e6, .center_lps_mm = {-30, 30, 30}};
    PULMO_SCOPED(mask_free_at) struct mask *mask = segment(volume, &corner);
    assert_non_null(mask);
}

/* ---- real nodules ------------------------------------------------------------------------------------ */

struct agreement {
    double dice, error_mm;
};

static double dice(const struct mask *mask, const struct volume *truth) {
    size_t both = 0, one = 0, other = 0, across = (size_t)mask->grid.size_ijk[0], rows = (size_t)mask->grid.size_ijk[1];
    for (size_t n = 0; n < grid_voxels(&truth->grid); n++)
        other += truth->hu[n] > 0;
    for (size_t n = 0; n < grid_voxels(&mask->grid); n++) {
        double ijk[3] = {(double)(n % across), (double)(n / across % rows), (double)(n / across / rows)}, lps[3];
        grid_to_lps(&mask->grid, ijk, lps);
        assert_true(grid_to_ijk(&truth->grid, lps, ijk));
        size_t at = (size_t)lround(ijk[0]) +
                    (size_t)truth->grid.size_ijk[0] *
                        ((size_t)lround(ijk[1]) + (size_t)truth->grid.size_ijk[1] * (size_t)lround(ijk[2]));
        one += mask->voxel[n];
        both += mask->voxel[n] && truth->hu[at] > 0;
    }
    return 2.0 * (double)both / (double)(one + other);
}

/* A line of nodules.csv: file, patient, id, series, x, y, z (LPS mm), diameter, ... */
static struct agreement agreement_of(const char *line) {
    char name[128], path[1024], shared[512];
    struct finding finding = {0};
    double *c = finding.center_lps_mm;
    int read =
        sscanf(line, "%127[^,],%*[^,],%*[^,],%*[^,],%lf,%lf,%lf,%lf", name, &c[0], &c[1], &c[2], &finding.diameter_mm);
    assert_int_equal(read, 5);
    cases_path(shared, "data/nodules");
    snprintf(path, sizeof path, "%s/image/%s", shared, name);
    PULMO_SCOPED(volume_free_at) struct volume *image = cases_nifti(path);
    snprintf(path, sizeof path, "%s/mask/%s", shared, name);
    PULMO_SCOPED(volume_free_at) struct volume *truth = cases_nifti(path);
    assert_non_null(image);
    assert_non_null(truth);
    double given_mm = finding.diameter_mm;
    PULMO_SCOPED(mask_free_at) struct mask *mask = segment(image, &finding);
    return (struct agreement){dice(mask, truth), fabs((finding.long_axis_mm + finding.short_axis_mm) / 2 - given_mm)};
}

static int by_dice(const void *a, const void *b) {
    double x = ((const struct agreement *)a)->dice, y = ((const struct agreement *)b)->dice;
    return (x > y) - (x < y);
}

#define EVERY 8
static void real_nodules_agree(void **state) {
    (void)state;
    if (!cases_present())
        skip();
    char path[512], *line = NULL;
    FILE *csv = fopen(cases_path(path, "data/nodules/nodules.csv"), "r");
    assert_non_null(csv);
    static struct agreement got[1000];
    size_t count = 0, capacity = 0;
    double error_mm = 0;
    for (int row = 0; getline(&line, &capacity, csv) > 0 && count < 1000; row++)
        if (row && row % EVERY == 0) {
            got[count] = agreement_of(line);
            error_mm += got[count++].error_mm;
        }
    free(line);
    fclose(csv);
    assert_true(count > 90);
    qsort(got, count, sizeof *got, by_dice);
    double median = got[count / 2].dice, tenth = got[count / 10].dice;
    printf("%zu nodules: Dice median %.3f, tenth percentile %.3f; diameter error %.2f mm\n", count, median, tenth,
           error_mm / (double)count);
    assert_true(median >= 0.79);
    assert_true(tenth >= 0.65);
    assert_true(error_mm / (double)count <= 1.5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spheres_have_their_size),
        cmocka_unit_test(wall_and_vessel_stay_out),
        cmocka_unit_test(nothing_there_gives_one_voxel),
        cmocka_unit_test(outside_is_an_error),
        cmocka_unit_test(real_nodules_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
