#include "app/bench.h"

#include "dicom/dicom.h"
#include "phantom/phantom.h"

#include <errno.h>
#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The lungs of the phantom and what lies around them. A pitch outside of these is not one of a chest CT. */
#define HEIGHT_MM 290.0
#define PITCH_MIN_MM 0.3
#define PITCH_MAX_MM 5.5

/* The phantom's noise is independent from slice to slice, as no scanner's is between slices so near to each other. On
 * the 1 mm grid of the analysis, slices of about its pitch show that to the full, and the quality gate refuses them. */
#define PITCH_GRID_LOW_MM 0.9
#define PITCH_GRID_HIGH_MM 1.25

static double pitch_mm(int64_t slices) {
    double pitch = round(100 * HEIGHT_MM / (double)slices) / 100;
    if (pitch > PITCH_GRID_LOW_MM && pitch < PITCH_GRID_HIGH_MM)
        pitch = PITCH_GRID_HIGH_MM;
    return fmin(fmax(pitch, PITCH_MIN_MM), PITCH_MAX_MM);
}

bool bench_phantom_make(const struct bench_phantom_config *config, struct bench_phantom *out, struct err *err) {
    PULMO_SCOPED(phantom_free) struct phantom phantom = {0};
    const struct phantom_config chest = {.seed = 1,
                                         .slices = (int32_t)config->slices,
                                         .nodules = (uint32_t)config->nodules,
                                         .spacing_mm = pitch_mm(config->slices)};
    *out = (struct bench_phantom){.pitch_mm = chest.spacing_mm};
    snprintf(out->folder, sizeof out->folder, "%s/pulmo-bench-XXXXXX", config->folder);
    if (!mkdtemp(out->folder)) {
        out->folder[0] = '\0';
        return err_set(err, ERR_IO, "cannot make a folder in %.200s: %s", config->folder, strerror(errno));
    }
    const struct dicom_ct_write_config write = {.folder = out->folder,
                                                .transfer_syntax = "explicit",
                                                .patient_name = "PHANTOM^PULMO",
                                                .patient_id = "PULMO-PHANTOM",
                                                .study_description = "Benchmark",
                                                .series_description = "Synthetic chest",
                                                .seed = 1};
    const char *const paths[] = {out->folder};
    return phantom_make(&chest, &phantom, err) && dicom_ct_write(phantom.volume, &write, err) &&
           file_list_make(paths, 1, &out->files, err);
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *walk) {
    (void)status;
    (void)type;
    (void)walk;
    return remove(path);
}

void bench_folder_remove(const char *folder) {
    if (*folder)
        nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void bench_phantom_free(struct bench_phantom *phantom) {
    bench_folder_remove(phantom->folder);
    file_list_free(&phantom->files);
    *phantom = (struct bench_phantom){0};
}
