/* LABELS: quick
 * One allocation of a report's writing fails, one after the other: it says that memory is short, whatever DCMTK makes
 * of it, and no report comes out that lacks something. Whole processes: tests/reliability/memory.test.mjs.
 *
 * This program's malloc stands in front of the C library's. A sanitizer has its own. */
#include "test_dicom_report.h"

#include <errno.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
int main(void) {
    return 77;
}
#else

#define STEP 101 /* one of so many */

/* volatile: a compiler takes it that malloc reads and writes nothing of ours. */
static volatile struct {
    bool on;
    long seen, wanted; /* the one with this number fails */
} refusal;

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t items, size_t size);
extern void *__libc_realloc(void *data, size_t size);

static bool is_refused(void) {
    if (!refusal.on || refusal.seen++ != refusal.wanted)
        return false;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t size) {
    return is_refused() ? NULL : __libc_malloc(size);
}

void *calloc(size_t items, size_t size) {
    return is_refused() ? NULL : __libc_calloc(items, size);
}

void *realloc(void *data, size_t size) {
    return is_refused() ? NULL : __libc_realloc(data, size);
}

/* Writes SEG and SR with the allocation of this number refused. */
static bool write_both(const struct report_fixture *fixture, long wanted, struct bytes objects[2], struct err *err) {
    char uid[DICOM_UID_SIZE];
    refusal.seen = 0;
    refusal.wanted = wanted;
    refusal.on = true;
    bool done = dicom_seg_write(&fixture->report, &objects[0], uid, err) &&
                dicom_sr_write(&fixture->report, &objects[0], &objects[1], uid, err);
    refusal.on = false;
    return done;
}

static void test_memory_and_nothing_else(void **state) {
    const struct report_fixture *fixture = *state;
    struct bytes whole[2] = {{0}}, objects[2] = {{0}};
    struct err err = {0};
    REPORT_OK(write_both(fixture, -1, whole, &err), err);
    long count = refusal.seen, refused = 0;
    for (long wanted = 0; wanted < count; wanted += STEP) {
        err = (struct err){0};
        bool done = write_both(fixture, wanted, objects, &err);
        refused += !done;
        if (!done && err.kind != ERR_MEMORY)
            fail_msg("allocation %ld of %ld: %s: %s", wanted, count, err_kind_name(err.kind), err.text);
        for (int object = 0; object < 2; object++) { /* who did without that allocation has lost nothing */
            if (done) {
                assert_int_equal(objects[object].size, whole[object].size);
                assert_memory_equal(objects[object].data, whole[object].data, whole[object].size);
            }
            bytes_free(&objects[object]);
        }
    }
    print_message("%ld allocations, one of %d refused: %ld times out of memory\n", count, STEP, refused);
    assert_true(refused > count / STEP / 2);
    bytes_free(&whole[0]);
    bytes_free(&whole[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_memory_and_nothing_else)};
    return cmocka_run_group_tests(tests, report_set_up, report_tear_down);
}
#endif
