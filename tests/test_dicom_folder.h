/* CT instances as files in a folder of a test's own, and the series that is read from it. */
#ifndef PULMO_TESTS_DICOM_FOLDER_H
#define PULMO_TESTS_DICOM_FOLDER_H

#include "test_dicom_sample.h"

#include <unistd.h>

enum { FILES_MAX = 200 };

struct folder {
    char name[256];
    const char *list[FILES_MAX]; /* owned */
    size_t count;
};

static inline void open_folder(struct folder *folder) {
    folder->count = 0;
    sample_folder(folder->name);
}

static inline void add(struct folder *folder, const struct sample *sample) {
    char name[32], path[512];
    struct bytes file = sample_make(sample);
    snprintf(name, sizeof name, "%zu.dcm", folder->count);
    sample_save(folder->name, name, &file, path);
    folder->list[folder->count++] = strdup(path);
    bytes_free(&file);
}

static inline void forget(struct folder *folder) {
    for (size_t i = 0; i < folder->count; i++)
        free((void *)(uintptr_t)folder->list[i]);
}

static inline void close_folder(struct folder *folder) {
    for (size_t i = 0; i < folder->count; i++)
        remove(folder->list[i]);
    rmdir(folder->name);
    forget(folder);
}

static inline struct dicom_series *read_folder(const struct folder *folder) {
    struct err err = {0};
    struct dicom_series *series = dicom_series_read(folder->list, folder->count, &err);
    if (series == NULL)
        fail_msg("%s", err.text);
    return series;
}

/* The first reason; the report of a refused study needs a slice and the header. Closes the folder. */
static inline void expect_refusal(struct folder *folder, enum refusal_code code, const char *text) {
    struct dicom_series *series = read_folder(folder);
    assert_true(series->refusals.count > 0);
    if (series->refusals.items[0].code != code || strstr(series->refusals.items[0].text, text) == NULL)
        fail_msg("%s: %s", refusal_name(series->refusals.items[0].code), series->refusals.items[0].text);
    assert_null(series->volume);
    assert_true(series->slice_count > 0 && series->header.size > 0);
    assert_string_equal(series->study_uid, "2.25.1");
    dicom_series_free(series);
    close_folder(folder);
}

#endif
