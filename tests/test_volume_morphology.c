/* LABELS: quick tsan
 * Balls and components against the plain definition, on random masks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "random.h"
#include "volume/morphology.h"

#define NX 17
#define NY 13
#define NZ 9
#define N ((size_t)NX * NY * NZ)
static const int32_t size[3] = {NX, NY, NZ};

static void fill(uint8_t voxel[N], uint32_t seed, float share) {
    for (uint32_t n = 0; n < N; n++) {
        uint32_t bits[4];
        random_philox((const uint32_t[2]){seed, 1}, (const uint32_t[4]){n, 0, 0, 0}, bits);
        voxel[n] = random_uniform(bits[0]) < share;
    }
}

static bool near_set(const uint8_t *voxel, const double spacing[3], double radius, size_t at) {
    for (size_t n = 0; n < N; n++) {
        double x = (double)(n % NX) - (double)(at % NX), y = (double)(n / NX % NY) - (double)(at / NX % NY);
        double z = (double)(n / NX / NY) - (double)(at / NX / NY);
        x *= spacing[0], y *= spacing[1], z *= spacing[2];
        if (voxel[n] && x * x + y * y + z * z <= radius * radius * (1 + 1e-6))
            return true;
    }
    return false;
}

static void dilation_is_a_ball(void **state) {
    (void)state;
    const double spacing[][3] = {{1, 1, 1}, {0.7, 0.8, 2.5}, {2, 2, 2}}, radius[] = {0.5, 1, 3, 4.2, 50};
    for (size_t s = 0; s < 3; s++)
        for (size_t r = 0; r < 5; r++) {
            uint8_t before[N], after[N];
            fill(before, (uint32_t)(10 * s + r), 0.01F);
            memcpy(after, before, N);
            assert_true(morphology_dilate(after, size, spacing[s], radius[r], NULL));
            for (size_t n = 0; n < N; n++)
                assert_int_equal(after[n], near_set(before, spacing[s], radius[r], n));
        }
}

static void erosion_mirrors_dilation(void **state) {
    (void)state;
    const double spacing[3] = {0.7, 0.7, 1.25};
    uint8_t before[N], after[N], unset[N];
    fill(before, 77, 0.97F);
    memcpy(after, before, N);
    for (size_t n = 0; n < N; n++)
        unset[n] = !before[n];
    assert_true(morphology_erode(after, size, spacing, 1.5, NULL));
    for (size_t n = 0; n < N; n++)
        assert_int_equal(after[n], !near_set(unset, spacing, 1.5, n));
}

/* Two plates 6 mm apart: a ball of 4 mm closes the gap, one of 2 mm does not; a plate at the side is not eaten. */
static void closing_joins_what_is_near(void **state) {
    (void)state;
    const double spacing[3] = {1, 1, 1};
    uint8_t plates[N] = {0}, work[N];
    for (size_t n = 0; n < N; n++)
        plates[n] = n % NX < 2 || (n % NX > 7 && n % NX < 10);
    memcpy(work, plates, N);
    assert_true(morphology_close(work, size, spacing, 2, NULL));
    assert_memory_equal(work, plates, N);
    assert_true(morphology_close(work, size, spacing, 4, NULL));
    size_t middle = 5 + NX * (NY / 2 + (size_t)NY * (NZ / 2)), beyond = middle + 8;
    assert_int_equal(work[middle], 1);
    assert_int_equal(work[beyond], 0);
    for (size_t n = 0; n < N; n++)
        assert_true(work[n] >= plates[n]);
}

static size_t flood(const uint8_t *voxel, int32_t *label, size_t start, int32_t value) {
    static size_t stack[N * 6];
    size_t depth = 0, reached = 0;
    stack[depth++] = start;
    while (depth) {
        size_t n = stack[--depth];
        if (!voxel[n] || label[n])
            continue;
        label[n] = value;
        reached++;
        if (n % NX)
            stack[depth++] = n - 1;
        if (n % NX + 1 < NX)
            stack[depth++] = n + 1;
        if (n / NX % NY)
            stack[depth++] = n - NX;
        if (n / NX % NY + 1 < NY)
            stack[depth++] = n + NX;
        if (n >= (size_t)NX * NY)
            stack[depth++] = n - (size_t)NX * NY;
        if (n + (size_t)NX * NY < N)
            stack[depth++] = n + (size_t)NX * NY;
    }
    return reached;
}

static void components_equal_a_flood(void **state) {
    (void)state;
    const float share[] = {0.1F, 0.3F, 0.5F, 0.7F, 1, 0};
    for (size_t s = 0; s < 6; s++) {
        uint8_t voxel[N];
        int32_t label[N], expected[N] = {0}, count = -1, flooded = 0;
        fill(voxel, (uint32_t)(100 + s), share[s]);
        for (size_t n = 0; n < N; n++)
            if (voxel[n] && !expected[n])
                flood(voxel, expected, n, ++flooded);
        assert_true(morphology_components(voxel, size, label, &count, NULL));
        assert_int_equal(count, flooded);
        assert_memory_equal(label, expected, sizeof label); /* both number in raster order */
    }
}

static void small_holes_are_filled(void **state) {
    (void)state;
    uint8_t voxel[N] = {0};
    for (size_t n = 0; n < N; n++) {
        size_t i = n % NX, j = n / NX % NY;
        bool small_hole = i >= 3 && i < 5 && j >= 3 && j < 5, large_hole = i >= 8 && i < 12 && j >= 3 && j < 8;
        voxel[n] = i >= 1 && i < 16 && j >= 1 && j < 12 && !small_hole && !large_hole;
    }
    assert_true(morphology_fill_slices(voxel, size, 2.0, 10.0, NULL)); /* 4 pixels are 8 mm2, 20 are 40 */
    assert_int_equal(voxel[3 + NX * 3], 1);
    assert_int_equal(voxel[9 + NX * 5], 0);
    assert_int_equal(voxel[0], 0);
}

static void bounds_are_tight(void **state) {
    (void)state;
    uint8_t voxel[N] = {0};
    int32_t low[3], high[3];
    assert_false(morphology_bounds(voxel, size, low, high));
    voxel[4 + NX * (5 + NY * 2)] = voxel[9 + NX * (3 + NY * 6)] = 1;
    assert_true(morphology_bounds(voxel, size, low, high));
    assert_memory_equal(low, ((int32_t[3]){4, 3, 2}), sizeof low);
    assert_memory_equal(high, ((int32_t[3]){10, 6, 7}), sizeof high);
}

/* Large arrays are dilated by several threads, small ones by one: the parts of a large one, each with the slices around
 * it that matter, are the same as the whole. */
static void threads_do_not_change_a_voxel(void **state) {
    enum { SIDE = 100, SLICES = 64, PART = 16, REACH = 6 };
    const double spacing_mm[3] = {1, 1, 1};
    const size_t plane = SIDE * SIDE;
    const int32_t whole_size[3] = {SIDE, SIDE, SLICES};
    (void)state;
    uint8_t *whole = calloc(plane, SLICES), *sparse = calloc(plane, SLICES), *part = calloc(plane, SLICES);
    assert_true(whole && sparse && part);
    uint32_t noise = 7;
    for (size_t n = 0; n < plane * SLICES; n++) {
        noise = noise * 1664525 + 1013904223;
        whole[n] = sparse[n] = noise >> 20 == 1;
    }
    struct err err = {0};
    assert_true(morphology_dilate(whole, whole_size, spacing_mm, REACH, &err));
    for (int32_t first = 0; first < SLICES; first += PART) {
        int32_t low = first > REACH ? first - REACH : 0;
        int32_t high = first + PART + REACH < SLICES ? first + PART + REACH : SLICES;
        const int32_t part_size[3] = {SIDE, SIDE, high - low};
        memcpy(part, sparse + plane * (size_t)low, plane * (size_t)(high - low));
        assert_true(morphology_dilate(part, part_size, spacing_mm, REACH, &err));
        assert_memory_equal(part + plane * (size_t)(first - low), whole + plane * (size_t)first, plane * PART);
    }
    free(whole);
    free(sparse);
    free(part);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_do_not_change_a_voxel),
        cmocka_unit_test(dilation_is_a_ball),
        cmocka_unit_test(erosion_mirrors_dilation),
        cmocka_unit_test(closing_joins_what_is_near),
        cmocka_unit_test(components_equal_a_flood),
        cmocka_unit_test(small_holes_are_filled),
        cmocka_unit_test(bounds_are_tight),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
