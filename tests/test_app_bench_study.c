/* LABELS: quick
 * The plots of `pulmo bench study`: which studies stand in which, in order, and on axes that hold them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/bench_study.h"

static char folder[] = "/tmp/pulmo-bench-study-XXXXXX";
static const char *const names[] = {"slices-seconds", "slices-memory", "candidates-seconds", "candidates-memory"};

static struct bench_study_row row_of(int64_t slices, int64_t nodules, int candidates, double clock_s, double mib) {
    struct bench_study_row row = {.slices = slices, .nodules = nodules, .candidates = candidates, .peak_mib = mib};
    row.wall_s[BENCH_TOTAL] = clock_s;
    row.processor_s[BENCH_TOTAL] = 2 * clock_s;
    return row;
}

static char *plot_read(const char *name) {
    char path[256];
    struct bytes text = {0};
    struct err err = {0};
    snprintf(path, sizeof path, "%s/study-%s.svg", folder, name);
    if (!bytes_read_file(path, 1 << 20, &text, &err) || !bytes_append(&text, "", 1, 1 << 20, &err))
        fail_msg("%s", err.text);
    unlink(path);
    return (char *)text.data;
}

static int count_of(const char *text, const char *what) {
    int count = 0;
    for (const char *at = strstr(text, what); at; at = strstr(at + 1, what))
        count++;
    return count;
}

static void studies_stand_in_their_plots(void **state) {
    (void)state;
    const struct bench_study_row rows[] = {row_of(300, 5, 9, 6.25, 700), row_of(1200, 5, 9, 12.5, 1111),
                                           row_of(50, 5, 8, 4.75, 650), row_of(300, 16, 31, 9.125, 720)};
    struct err err = {0};
    if (!bench_study_plot(rows, 4, folder, &err))
        fail_msg("%s", err.text);
    static const int circles[] = {6, 3, 4, 2}; /* two lines of three studies, one of three; two of two, one of two */
    static const char *const has[][3] = {{">6.2<", ">25.0<", ">1200<"},
                                         {">650<", ">1111<", ">1200<"},
                                         {">18.2<", ">9.1<", ">candidates<"},
                                         {">700<", ">720<", ">candidates<"}};
    for (int n = 0; n < 4; n++) {
        char *text = plot_read(names[n]);
        assert_int_equal(count_of(text, "<circle"), circles[n]);
        for (int k = 0; k < 3; k++)
            if (!strstr(text, has[n][k]))
                fail_msg("%s lacks %s", names[n], has[n][k]);
        /* 50, 300, 1,200 from left to right */
        const char *first = strstr(text, ">650<"), *second = strstr(text, ">700<"), *third = strstr(text, ">1111<");
        assert_true(n != 1 || (first < second && second < third));
        free(text);
    }
}

static void a_folder_that_cannot_be_made_is_told(void **state) {
    (void)state;
    const struct bench_study_row row = row_of(300, 5, 9, 6.25, 700);
    struct err err = {0};
    assert_false(bench_study_plot(&row, 1, "/proc/no/such", &err));
    assert_int_equal(err.kind, ERR_IO);
}

static int setup(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    return rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(studies_stand_in_their_plots),
        cmocka_unit_test(a_folder_that_cannot_be_made_is_told),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
