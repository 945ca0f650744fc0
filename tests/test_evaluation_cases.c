/* LABELS: quick
 * The LUNA16 cases of the shared data, and one case a rule of REFERENCE 1, each a folder with its expected result. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <cjson/cJSON.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "evaluation/evaluation.h"

static cJSON *json_of(const struct bytes *bytes) {
    cJSON *json = cJSON_ParseWithLength((const char *)bytes->data, bytes->size);
    assert_non_null(json);
    return json;
}

static int compare(const char *folder, const cJSON *expect, const cJSON *got);

/* null expects a thing to be absent or null. */
static int compare_item(const char *folder, const cJSON *item, const cJSON *other) {
    const char *name = item->string ? item->string : "an item of a list";
    if (cJSON_IsNull(item)) {
        if (other && !cJSON_IsNull(other))
            fail_msg("%s: %s is there", folder, name);
        return 1;
    }
    if (!other)
        fail_msg("%s: %s is missing", folder, name);
    if (cJSON_IsObject(item) || cJSON_IsArray(item))
        return compare(folder, item, other);
    if (!cJSON_IsNumber(other) || fabs(item->valuedouble - other->valuedouble) > 1e-9)
        fail_msg("%s: %s is %.12g, expected %.12g", folder, name, other->valuedouble, item->valuedouble);
    return 1;
}

/* Every number of `expect` must be in `got`, to 1e-9; lists item by item. Returns how many were compared. */
static int compare(const char *folder, const cJSON *expect, const cJSON *got) {
    int compared = 0, index = 0;
    for (const cJSON *item = expect->child; item; item = item->next, index++) {
        if (cJSON_IsString(item)) /* "rule": for the reader */
            continue;
        compared += compare_item(folder, item,
                                 item->string ? cJSON_GetObjectItemCaseSensitive(got, item->string)
                                              : cJSON_GetArrayItem(got, index));
    }
    return compared;
}

static void run_case(const char *folder) {
    char truth[600], marks[600], series[600], expect_path[600];
    struct err err = {0};
    snprintf(truth, sizeof truth, "%s/truth.csv", folder);
    snprintf(marks, sizeof marks, "%s/marks.csv", folder);
    snprintf(series, sizeof series, "%s/series.txt", folder);
    snprintf(expect_path, sizeof expect_path, "%s/expect.json", folder);
    PULMO_SCOPED(bytes_free) struct bytes expected = {0};
    assert_true(bytes_read_file(expect_path, 1 << 20, &expected, &err));
    cJSON *expect = json_of(&expected);
    const cJSON *limit = cJSON_GetObjectItemCaseSensitive(expect, "max_marks");
    struct evaluation_config config = {
        .truth_csv = truth, .marks_csv = marks, .series_list = series, .operating_point = 0.5};
    config.max_marks = limit ? (uint32_t)limit->valuedouble : 0;
    PULMO_SCOPED(evaluation_free) struct evaluation evaluation = {0};
    if (!evaluation_run(&config, &evaluation, &err))
        fail_msg("%s: %s", folder, err.text);
    PULMO_SCOPED(bytes_free) struct bytes printed = {0};
    assert_true(evaluation_json(&evaluation, &config, &printed, &err));
    cJSON *got = json_of(&printed);
    assert_true(compare(folder, expect, got) >= 12);
    cJSON_Delete(expect);
    cJSON_Delete(got);
}

static int run_folders(const char *parent, const char *prefix) {
    int count = 0;
    DIR *listing = opendir(parent);
    for (struct dirent *entry; listing && (entry = readdir(listing));) {
        char folder[512], file[600];
        snprintf(folder, sizeof folder, "%s/%s", parent, entry->d_name);
        snprintf(file, sizeof file, "%s/expect.json", folder);
        if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0 || access(file, R_OK) != 0)
            continue;
        run_case(folder);
        count++;
    }
    if (listing)
        closedir(listing);
    return count;
}

static void rules(void **state) {
    (void)state;
    assert_true(run_folders("tests/cases", "evaluation-") >= 17);
}

static void luna16(void **state) {
    (void)state;
    char folder[512];
    const char *shared = getenv("PULMO_SHARED");
    snprintf(folder, sizeof folder, "%s/cases/luna16", shared ? shared : "../shared");
    if (access(folder, R_OK) != 0) {
        printf("[  SKIPPED ] no shared cases at %s\n", folder);
        skip();
    }
    assert_int_equal(run_folders(folder, ""), 6);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(rules), cmocka_unit_test(luna16)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
