/* LABELS: full */
/* Results on real series: the headers of real scanners, copied into SEG and SR, are valid there too, and the results
 * agree with their CT on patient, study and frame of reference (dcentvfy). */
#include "dicom/object.h"
#include "test_dicom_report.h"

#include <dirent.h>

#define FILES_MAX 400

struct files {
    char names[FILES_MAX][512];
    const char *paths[FILES_MAX];
    size_t count;
};

static bool list_files(const char *folder, struct files *files) {
    const char *shared = getenv("PULMO_SHARED");
    char path[300];
    snprintf(path, sizeof path, "%s/data/ct/%s", shared ? shared : "../shared", folder);
    DIR *directory = opendir(path);
    if (!directory)
        return false;
    files->count = 0;
    for (struct dirent *entry; (entry = readdir(directory)) && files->count < FILES_MAX;) {
        if (!strstr(entry->d_name, ".dcm"))
            continue;
        snprintf(files->names[files->count], 512, "%s/%s", path, entry->d_name);
        files->paths[files->count] = files->names[files->count];
        files->count++;
    }
    closedir(directory);
    return files->count > 0;
}

/* dcentvfy compares the entities that several files share. */
static void expect_entities(const struct report_fixture *fixture, const struct bytes *seg, const struct bytes *sr,
                            const char *ct) {
    char seg_path[512], sr_path[512], ct_path[512];
    struct err err = {0};
    struct bytes output = {0};
    snprintf(seg_path, sizeof seg_path, "%s/seg.dcm", fixture->folder);
    snprintf(sr_path, sizeof sr_path, "%s/sr.dcm", fixture->folder);
    snprintf(ct_path, sizeof ct_path, "%s", ct);
    REPORT_OK(bytes_write_file(seg_path, seg->data, seg->size, false, &err), err);
    REPORT_OK(bytes_write_file(sr_path, sr->data, sr->size, false, &err), err);
    char *arguments[] = {(char[]){"dcentvfy"}, ct_path, seg_path, sr_path, NULL};
    int status = report_run(fixture->folder, arguments, &output);
    if (status > 0 || (status == 0 && report_has_line(&output, "Error")))
        fail_msg("dcentvfy:\n%.3000s", (const char *)output.data);
    bytes_free(&output);
    unlink(seg_path);
    unlink(sr_path);
}

static void judge(const struct report_fixture *fixture, struct dicom_series *series, const char *ct) {
    struct err err = {0};
    struct dicom_report report = fixture->report;
    struct dicom_report_finding listed = fixture->listed[0];
    struct bytes seg = {0}, sr = {0};
    char uid[DICOM_UID_SIZE];
    const int32_t corner[3] = {200, 210, 20};
    struct mask *mask = report_mask(&series->volume->grid, corner, 9);
    listed.mask = mask;
    report.series = series;
    report.findings = &listed;
    report.finding_count = 1;
    REPORT_OK(dicom_seg_write(&report, &seg, uid, &err), err);
    REPORT_OK(dicom_sr_write(&report, &seg, &sr, uid, &err), err);
    if (!report_dciodvfy(fixture, &seg) || !report_dciodvfy(fixture, &sr) || !report_dsrdump(fixture, &sr)) {
        print_message("dciodvfy or dsrdump is missing\n");
        skip();
    }
    expect_entities(fixture, &seg, &sr, ct);
    mask_free(mask);
    bytes_free(&seg);
    bytes_free(&sr);
}

static void test_folder(void **state, const char *folder) {
    static struct files files;
    struct err err = {0};
    if (!list_files(folder, &files)) {
        print_message("%s is not in the shared data\n", folder);
        skip();
    }
    struct dicom_series *series = dicom_series_read(files.paths, files.count, &err);
    if (!series || !series->volume)
        fail_msg("%s: %s", folder, series ? "refused" : err.text);
    judge(*state, series, files.paths[0]);
    dicom_series_free(series);
}

static void test_siemens(void **state) {
    test_folder(state, "cptac-c3n-00247");
}

static void test_ge_jpegls(void **state) {
    test_folder(state, "lidc-idri-0001");
}

static void test_abdomen(void **state) {
    test_folder(state, "not-a-chest");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_siemens), cmocka_unit_test(test_ge_jpegls),
                                       cmocka_unit_test(test_abdomen)};
    return cmocka_run_group_tests(tests, report_set_up, report_tear_down);
}
