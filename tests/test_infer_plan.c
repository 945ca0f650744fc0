/* The memory planner on random lifetimes: nothing that lives together overlaps, and the arena stays near the bound. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "infer/plan.h"

#define BUFFERS 60
#define STEPS 40

static uint32_t random_state = 1;

static uint32_t next_random(uint32_t below) {
    random_state = random_state * 1664525 + 1013904223;
    return (random_state >> 8) % below;
}

static void check(const struct plan_buffer *buffers, int count, const struct plan_figures *figures) {
    for (int i = 0; i < count; i++) {
        if (buffers[i].first > buffers[i].last)
            continue;
        assert_true(buffers[i].offset % PLAN_ALIGNMENT == 0);
        assert_true(buffers[i].offset + buffers[i].size <= figures->arena);
        for (int k = 0; k < i; k++) {
            const struct plan_buffer *a = &buffers[i], *b = &buffers[k];
            bool together = b->first <= b->last && a->first <= b->last && b->first <= a->last;
            bool apart = a->offset + a->size <= b->offset || b->offset + b->size <= a->offset;
            assert_true(!together || apart);
        }
    }
    assert_true(figures->least <= figures->arena && figures->arena <= figures->separate);
}

static void random_lifetimes_never_overlap(void **state) {
    (void)state;
    double worst = 1;
    for (int round = 0; round < 300; round++) {
        struct plan_buffer buffers[BUFFERS];
        struct plan_figures figures;
        int count = 1 + (int)next_random(BUFFERS);
        for (int i = 0; i < count; i++) {
            int first = (int)next_random(STEPS);
            buffers[i] = (struct plan_buffer){.size = 1 + next_random(100000), .first = first};
            buffers[i].last = first + (int)next_random(8) - (next_random(10) == 0 ? 9 : 0); /* some are never used */
        }
        assert_true(infer_plan_memory(buffers, count, &figures, NULL));
        check(buffers, count, &figures);
        if (figures.least)
            worst = fmax(worst, (double)figures.arena / (double)figures.least);
    }
    print_message("worst arena %.2f of the bound\n", worst);
    assert_true(worst < 1.6);
}

/* A chain, as most of a network is: two buffers alive at a time. */
static void a_chain_needs_its_two_greatest_neighbours(void **state) {
    (void)state;
    struct plan_buffer buffers[10];
    struct plan_figures figures;
    for (int i = 0; i < 10; i++)
        buffers[i] = (struct plan_buffer){.size = 6400, .first = i, .last = i + 1};
    assert_true(infer_plan_memory(buffers, 10, &figures, NULL));
    check(buffers, 10, &figures);
    assert_int_equal(figures.arena, 12800);
    assert_int_equal(figures.least, 12800);
    assert_int_equal(figures.separate, 64000);
}

static void nothing_needs_nothing(void **state) {
    (void)state;
    struct plan_figures figures = {1, 1, 1};
    assert_true(infer_plan_memory(NULL, 0, &figures, NULL));
    assert_int_equal(figures.arena, 0);
}

static void sizes_that_overflow_are_refused(void **state) {
    (void)state;
    struct plan_buffer buffers[2] = {{.size = SIZE_MAX / 2 + 64, .last = 1}, {.size = SIZE_MAX / 2 + 64, .last = 1}};
    struct plan_figures figures;
    struct err err = {0};
    assert_false(infer_plan_memory(buffers, 2, &figures, &err));
    assert_int_equal(err.kind, ERR_LIMIT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_lifetimes_never_overlap),
        cmocka_unit_test(a_chain_needs_its_two_greatest_neighbours),
        cmocka_unit_test(nothing_needs_nothing),
        cmocka_unit_test(sizes_that_overflow_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
