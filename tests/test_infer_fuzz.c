/* fuzz/fuzz_infer_onnx.c as a plain test: every file of tests/cases/infer-*, the shipped models, and thousands of
 * damaged copies. What counts is that the process lives, and that the sanitizers are silent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../fuzz/fuzz_infer_onnx.c"
#include "infer_cases.h"

static uint32_t random_state = 12345;

static uint32_t next_random(void) {
    random_state = random_state * 1664525 + 1013904223;
    return random_state >> 8;
}

/* One to four bytes changed, or the end cut off. */
static void damage(uint8_t *data, size_t *size) {
    if (*size && next_random() % 8 == 0)
        *size = next_random() % *size;
    for (uint32_t n = 1 + next_random() % 4; n && *size; n--)
        data[next_random() % *size] = (uint8_t)next_random();
}

static int feed(const char *path, int copies) {
    struct bytes file;
    if (!bytes_read_file(path, (size_t)1 << 24, &file, NULL))
        return 0;
    LLVMFuzzerTestOneInput(file.data, file.size);
    uint8_t *copy = malloc(file.size + 1);
    assert_non_null(copy);
    for (int n = 0; n < copies; n++) {
        size_t size = file.size;
        memcpy(copy, file.data, size);
        damage(copy, &size);
        LLVMFuzzerTestOneInput(copy, size);
    }
    free(copy);
    bytes_free(&file);
    return 1 + copies;
}

static void damaged_files_do_no_harm(void **state) {
    (void)state;
    DIR *folder = opendir("tests/cases");
    int count = 0;
    char path[512];
    assert_non_null(folder);
    for (struct dirent *entry = readdir(folder); entry; entry = readdir(folder)) {
        if (strncmp(entry->d_name, "infer-", 6) != 0)
            continue;
        snprintf(path, sizeof path, "tests/cases/%.200s/model.onnx", entry->d_name);
        count += feed(path, 40);
    }
    closedir(folder);
    count += feed("models/detector.onnx", 20);
    count += feed("models/candidate.onnx", 20);
    assert_true(count > 2000);
    print_message("%d files\n", count);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(damaged_files_do_no_harm)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
