/* A small CT series, written and read back, with findings and masks on it; and validators run as real processes. */
#ifndef PULMO_TESTS_DICOM_REPORT_H
#define PULMO_TESTS_DICOM_REPORT_H

#include "dicom/dcmtk_shim.h"
#include "dicom/dicom.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define REPORT_SLICES 40
#define REPORT_FINDINGS 3
#define REPORT_FOLDER 256
extern char **environ;

struct report_fixture {
    char folder[REPORT_FOLDER];
    struct dicom_series *series;
    struct finding findings[REPORT_FINDINGS];
    struct mask *masks[REPORT_FINDINGS];
    struct dicom_report_finding listed[REPORT_FINDINGS];
    struct dicom_report report;
};

#define REPORT_OK(call, error)            \
    do {                                  \
        if (!(call))                      \
            fail_msg("%s", (error).text); \
    } while (0)

/* The fixture's series as two instances of many frames, stored from the last slice down: frames 1 to 15 of slices 39 to
 * 25 in the one, the others in the other. */
#define REPORT_UPPER 15
static inline struct dicom_series report_enhanced(const struct report_fixture *fixture,
                                                  struct dicom_slice slices[REPORT_SLICES]) {
    struct dicom_series series = *fixture->series;
    for (uint32_t k = 0; k < REPORT_SLICES; k++) {
        bool upper = k >= REPORT_SLICES - REPORT_UPPER;
        slices[k] = fixture->series->slices[k];
        slices[k].frame_number = REPORT_SLICES - k - (upper ? 0 : REPORT_UPPER);
        snprintf(slices[k].sop_class_uid, DICOM_UID_SIZE, "1.2.840.10008.5.1.4.1.1.2.1");
        snprintf(slices[k].sop_instance_uid, DICOM_UID_SIZE, "2.25.77.%d", upper ? 1 : 2);
    }
    series.slices = slices;
    return series;
}

/* ---- processes --------------------------------------------------------------------------------------- */

/* Runs a program found in PATH with its output in a file of the folder; the exit status, or -1 when it is missing. */
static inline int report_run(const char *folder, char *const *arguments, struct bytes *output) {
    char path[512];
    posix_spawn_file_actions_t actions;
    pid_t child = 0;
    int status = 0;
    struct err err = {0};
    snprintf(path, sizeof path, "%s/output.txt", folder);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    int started = posix_spawnp(&child, arguments[0], &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (started != 0)
        return -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    REPORT_OK(bytes_read_file(path, 64 << 20, output, &err), err);
    uint8_t end = 0;
    REPORT_OK(bytes_append(output, &end, 1, 65 << 20, &err), err); /* a text */
    unlink(path);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

/* No line of the output begins with a word ("Error"). */
static inline bool report_has_line(const struct bytes *output, const char *word) {
    for (const char *line = (const char *)output->data; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, word, strlen(word)) == 0)
            return true;
    }
    return false;
}

static inline void report_save(const struct report_fixture *fixture, const struct bytes *object, char path[512]) {
    struct err err = {0};
    snprintf(path, 512, "%s/object.dcm", fixture->folder);
    REPORT_OK(bytes_write_file(path, object->data, object->size, false, &err), err);
}

/* dciodvfy prints "Error - ..." lines; it exits 0 or 1. False = it is not installed. */
static inline bool report_dciodvfy(const struct report_fixture *fixture, const struct bytes *object) {
    char path[512];
    struct bytes output = {0};
    report_save(fixture, object, path);
    char *arguments[] = {(char[]){"dciodvfy"}, (char[]){"-new"}, path, NULL};
    if (report_run(fixture->folder, arguments, &output) < 0)
        return false;
    if (report_has_line(&output, "Error"))
        fail_msg("dciodvfy:\n%.3000s", (const char *)output.data);
    bytes_free(&output);
    unlink(path);
    return true;
}

static inline bool report_dsrdump(const struct report_fixture *fixture, const struct bytes *object) {
    char path[512];
    struct bytes output = {0};
    report_save(fixture, object, path);
    char *arguments[] = {(char[]){"dsrdump"}, path, NULL};
    int status = report_run(fixture->folder, arguments, &output);
    if (status < 0)
        return false;
    /* Its one warning: that its VR checker knows no UTF-8. */
    bool warned = report_has_line(&output, "W: ") && !report_has_line(&output, "W: The VR checker does not support");
    if (status != 0 || report_has_line(&output, "E:") || warned)
        fail_msg("dsrdump:\n%.3000s", (const char *)output.data);
    bytes_free(&output);
    unlink(path);
    return true;
}

/* PixelMed's DicomSRValidator always exits 0 and needs the JDK's XPath limits lifted. */
static inline bool report_pixelmed_output(const struct report_fixture *fixture, const struct bytes *object,
                                          struct bytes *output) {
    char path[512];
    if (access("/usr/share/java/pixelmed.jar", R_OK) != 0)
        return false;
    report_save(fixture, object, path);
    /* Most of its time is one compilation of its style sheet: the quick compiler is enough. */
    char *arguments[] = {(char[]){"java"},
                         (char[]){"-XX:TieredStopAtLevel=1"},
                         (char[]){"-Djdk.xml.xpathTotalOpLimit=0"},
                         (char[]){"-Djdk.xml.xpathExprOpLimit=0"},
                         (char[]){"-Djdk.xml.xpathExprGrpLimit=0"},
                         (char[]){"-cp"},
                         (char[]){"/usr/share/java/pixelmed.jar"},
                         (char[]){"com.pixelmed.validate.DicomSRValidator"},
                         path,
                         NULL};
    bool there = report_run(fixture->folder, arguments, output) >= 0;
    unlink(path);
    return there;
}

static inline bool report_pixelmed_errors(const struct report_fixture *fixture, const struct bytes *object,
                                          bool *errors) {
    struct bytes output = {0};
    bool there = report_pixelmed_output(fixture, object, &output);
    *errors = there && report_has_line(&output, "Error");
    bytes_free(&output);
    return there;
}

static inline bool report_pixelmed(const struct report_fixture *fixture, const struct bytes *object) {
    struct bytes output = {0};
    if (!report_pixelmed_output(fixture, object, &output))
        return false;
    const char *text = (const char *)output.data; /* without these two lines it looked at nothing */
    if (report_has_line(&output, "Error") || strstr(text, "Exception") || !strstr(text, "TID_1500") ||
        !strstr(text, "IOD validation complete"))
        fail_msg("DicomSRValidator:\n%.3000s", text);
    bytes_free(&output);
    return true;
}

/* ---- series and findings ----------------------------------------------------------------------------- */

static inline struct volume *report_volume(void) {
    struct err err = {0};
    struct grid grid = {.size_ijk = {52, 45, REPORT_SLICES},
                        .spacing_mm = {0.7, 0.8, 2.5},
                        .ijk_to_lps_mm = {{0.7, 0, 0, -18.5}, {0, 0.8, 0, -17.25}, {0, 0, 2.5, -301.7}}};
    struct volume *volume = volume_new(&grid, &err);
    assert_non_null(volume);
    size_t plane = 52 * 45;
    for (size_t n = 0; n < grid_voxels(&grid); n++)
        volume->hu[n] = (int16_t)((int)(n % plane * 31 + n / plane * 7) % 2000 - 1000);
    return volume;
}

static inline struct dicom_series *report_read(const char *folder) {
    struct err err = {0};
    static char names[REPORT_SLICES][512];
    const char *paths[REPORT_SLICES];
    for (int k = 0; k < REPORT_SLICES; k++) {
        snprintf(names[k], sizeof names[k], "%s/ct-%04d.dcm", folder, k + 1);
        paths[k] = names[k];
    }
    struct dicom_series *series = dicom_series_read(paths, REPORT_SLICES, &err);
    if (!series)
        fail_msg("%s", err.text);
    for (int k = 0; k < REPORT_SLICES; k++)
        unlink(names[k]);
    return series;
}

/* A ball in a box of the series' grid. */
static inline struct mask *report_mask(const struct grid *series, const int32_t corner[3], int32_t side) {
    struct err err = {0};
    struct grid grid = *series;
    const double first[3] = {corner[0], corner[1], corner[2]};
    double lps[3];
    grid_to_lps(series, first, lps);
    for (int axis = 0; axis < 3; axis++) {
        grid.size_ijk[axis] = side;
        grid.ijk_to_lps_mm[axis][3] = lps[axis];
    }
    struct mask *mask = mask_new(&grid, &err);
    assert_non_null(mask);
    size_t n = 0;
    double middle = (side - 1) / 2.0;
    for (int32_t k = 0; k < side; k++)
        for (int32_t j = 0; j < side; j++)
            for (int32_t i = 0; i < side; i++)
                mask->voxel[n++] = hypot(hypot(i - middle, j - middle), k - middle) < middle - 0.3;
    return mask;
}

static inline void report_findings(struct report_fixture *fixture) {
    static const int32_t corners[REPORT_FINDINGS][3] = {{5, 6, 7}, {30, 20, 9}, {11, 25, 30}};
    const struct grid *grid = &fixture->series->volume->grid;
    for (uint32_t index = 0; index < REPORT_FINDINGS; index++) {
        int32_t side = 7 + (int32_t)index;
        struct finding *finding = &fixture->findings[index];
        *finding = (struct finding){.id = index + 1,
                                    .diameter_mm = 8.25,
                                    .texture = (enum texture)(TEXTURE_SOLID + index),
                                    .lobe = (enum lobe)(index * 2), /* unknown, RML, LUL */
                                    .probability = 0.82,
                                    .probability_low = 0.74,
                                    .probability_high = 0.88,
                                    .entropy_nats = 0.4714,
                                    .mutual_information_nats = 0.0213,
                                    .pass_count = 30,
                                    .reported = true,
                                    .review = index == 1,
                                    .long_axis_mm = 9.1,
                                    .short_axis_mm = 7.0,
                                    .volume_mm3 = 268.25};
        for (int axis = 0; axis < 3; axis++)
            finding->center_ijk[axis] = corners[index][axis] + (side - 1) / 2.0;
        grid_to_lps(grid, finding->center_ijk, finding->center_lps_mm);
        fixture->masks[index] = report_mask(grid, corners[index], side);
        fixture->listed[index] = (struct dicom_report_finding){.finding = finding, .mask = fixture->masks[index]};
        snprintf(fixture->listed[index].tracking_uid, DICOM_UID_SIZE, "2.25.77%u", index);
    }
}

static inline int report_set_up(void **state) {
    static struct report_fixture fixture;
    struct err err = {0};
    const char *base = getenv("TMPDIR");
    snprintf(fixture.folder, sizeof fixture.folder, "%s/pulmo-report-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(fixture.folder));
    struct volume *volume = report_volume();
    struct dicom_ct_write_config config = {
        fixture.folder, "explicit", "M\xC3\xBCller^J\xC3\xB6rg", "P-1", "Chest \xE2\x84\x96 1", "Made up", 7};
    REPORT_OK(dicom_ct_write(volume, &config, &err), err);
    volume_free(volume);
    fixture.series = report_read(fixture.folder);
    assert_non_null(fixture.series->volume);
    report_findings(&fixture);
    fixture.report = (struct dicom_report){.series = fixture.series,
                                           .findings = fixture.listed,
                                           .finding_count = REPORT_FINDINGS,
                                           .model_name = "pulmo",
                                           .model_version = "1.2",
                                           .model_sha256 = "00ff",
                                           .backend = "cpu, oneDNN",
                                           .passes = 30,
                                           .dropout = 0.2,
                                           .operating_point = 0.5,
                                           .review_rule = "8 of 30 findings sent to review were false (27 %).",
                                           .seed = 1,
                                           .device_observer_uid = "2.25.99",
                                           .time_ms = 1795000000000};
    *state = &fixture;
    return 0;
}

static inline int report_tear_down(void **state) {
    struct report_fixture *fixture = *state;
    for (int index = 0; index < REPORT_FINDINGS; index++)
        mask_free(fixture->masks[index]);
    dicom_series_free(fixture->series);
    return rmdir(fixture->folder);
}

static inline struct shim_dataset *report_parse(const struct bytes *object) {
    struct err err = {0};
    struct shim_dataset *parsed = shim_dataset_parse(object->data, object->size, &err);
    if (!parsed)
        fail_msg("%s", err.text);
    return parsed;
}

static inline void report_expect(const struct shim_dataset *dataset, uint32_t tag, const char *wanted) {
    char value[512];
    shim_get_string(dataset, tag, value, sizeof value);
    if (strcmp(value, wanted) != 0)
        fail_msg("(%04X,%04X) is \"%s\", not \"%s\"", tag >> 16, tag & 0xFFFF, value, wanted);
}

/* ---- the kinds of report ------------------------------------------------------------------------------ */

enum report_variant { FOUND = 0, NEGATIVE, REFUSED, FAILED_STUDY, SIGNED, SIGNED_NEGATIVE, VARIANTS };

struct report_made {
    struct dicom_report report;
    struct dicom_report_finding listed[REPORT_FINDINGS];
    struct refusals refusals;
    struct bytes seg, sr;
};

static inline void report_make_signed(struct report_made *data) {
    data->report.verifier_name = "Dr. \xC3\x85sa \\ N=ordstr\xC3\xB6m"; /* two characters that PN cannot hold */
    data->report.verifier_organization = "Hospital";
    data->report.predecessor_sop_instance_uid = "2.25.5001";
    data->report.predecessor_series_uid = "2.25.5000";
    data->listed[0].verdict = DICOM_VERDICT_ACCEPTED;
    data->listed[1].verdict = DICOM_VERDICT_REJECTED;
    data->listed[1].mask = NULL; /* not painted any more */
    data->listed[2].verdict = DICOM_VERDICT_ADDED;
}

static inline void report_make(const struct report_fixture *fixture, enum report_variant variant,
                               struct report_made *data) {
    struct err err = {0};
    char uid[DICOM_UID_SIZE];
    *data = (struct report_made){.report = fixture->report};
    memcpy(data->listed, fixture->listed, sizeof data->listed);
    data->report.findings = data->listed;
    if (variant == FOUND)
        data->listed[1].mask = NULL;
    else if (variant == SIGNED || variant == SIGNED_NEGATIVE)
        report_make_signed(data);
    if (variant != FOUND && variant != SIGNED)
        data->report.finding_count = 0;
    if (variant == REFUSED) {
        refusals_add(&data->refusals, REFUSAL_MISSING_SLICES, "8 slices are missing");
        refusals_add(&data->refusals, REFUSAL_TOO_THICK, "spacing of 7.0 mm");
        data->report.refusals = &data->refusals;
    }
    if (variant == FAILED_STUDY)
        data->report.failure = "out of memory at stage 2";
    if (data->report.finding_count)
        REPORT_OK(dicom_seg_write(&data->report, &data->seg, uid, &err), err);
    REPORT_OK(dicom_sr_write(&data->report, data->seg.size ? &data->seg : NULL, &data->sr, uid, &err), err);
}

static inline void report_drop(struct report_made *data) {
    bytes_free(&data->seg);
    bytes_free(&data->sr);
}

#endif
