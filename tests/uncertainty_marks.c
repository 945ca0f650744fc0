/* uncertainty_marks MODEL.JSON fp32|int8|again VOLUME...: what the engine finds in volumes of 1 mm, as `pulmo evaluate`
 * reads it, for train/precision_study.py. int8: every layer of the detector that can; again: the same, and what is near
 * the operating point or bound for review computed again in fp32, as the appliance does it.
 *
 * A VOLUME holds its size in x, y and z as three int32, then int16 HU, then a byte a voxel that says whether it is
 * lung; LPS mm are its voxels. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "phantom/phantom.h"
#include "uncertainty/uncertainty.h"
#include "volume/volume.h"

#define SIDE_MAX 1024
#define MARGIN_MM 15.0

/* The chest that `pulmo model calibrate` takes (app/precision.c). */
static bool plan_make(const struct infer_model *model, struct infer_precision *out, struct err *err) {
    static const struct phantom_config chest = {.seed = 1, .nodules = 12, .spacing_mm = 2.5};
    struct phantom phantom = {0};
    if (!phantom_make(&chest, &phantom, err))
        return false;
    PULMO_SCOPED(volume_free_at) struct volume *iso = volume_resample_iso(phantom.volume, 1, err);
    PULMO_SCOPED(mask_free_at) struct mask *lungs = iso ? volume_lungs(iso, err) : NULL;
    bool good = lungs && volume_mask_outside(iso, lungs, MARGIN_MM, err) && infer_calibrate_int8(model, iso, out, err);
    phantom_free(&phantom);
    return good;
}

static bool volume_read(const char *path, struct volume **iso, struct mask **lungs, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes file = {0};
    int32_t size[3];
    struct grid grid = {.spacing_mm = {1, 1, 1}};
    if (!bytes_read_file(path, (size_t)1 << 31, &file, err))
        return false;
    if (file.size < sizeof size)
        return err_set(err, ERR_INPUT, "%s is cut", path);
    memcpy(size, file.data, sizeof size);
    size_t voxels = 1;
    for (int axis = 0; axis < 3; axis++) {
        if (size[axis] < 1 || size[axis] > SIDE_MAX)
            return err_set(err, ERR_INPUT, "%s has a side of %d", path, size[axis]);
        grid.size_ijk[axis] = size[axis];
        grid.ijk_to_lps_mm[axis][axis] = 1;
        voxels *= (size_t)size[axis];
    }
    if (file.size != sizeof size + 3 * voxels)
        return err_set(err, ERR_INPUT, "%s has another size than it says", path);
    *iso = volume_new(&grid, err);
    *lungs = *iso ? mask_new(&grid, err) : NULL;
    if (!*lungs)
        return false;
    memcpy((*iso)->hu, file.data + sizeof size, 2 * voxels);
    memcpy((*lungs)->voxel, file.data + sizeof size + 2 * voxels, voxels);
    return true;
}

static void marks_print(const char *path, const struct findings *findings) {
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    for (size_t n = 0; n < findings->count; n++) {
        const struct finding *it = &findings->items[n];
        printf("%.*s,%.3f,%.3f,%.3f,%.6f,%.4f,%d\n", (int)strcspn(name, "."), name, it->center_lps_mm[0],
               it->center_lps_mm[1], it->center_lps_mm[2], it->probability, it->detector_logit, it->full_precision);
    }
}

/* find: in the precision that is tried; judge: in the same, or in fp32, where nothing is computed again. */
static bool look(struct infer_session *find, struct infer_session *judge, const char *path, struct err *err) {
    PULMO_SCOPED(volume_free_at) struct volume *iso = NULL;
    PULMO_SCOPED(mask_free_at) struct mask *lungs = NULL;
    PULMO_SCOPED(findings_free) struct findings findings = {0};
    const struct uncertainty_config config = {.seed = 17, .passes = 30, .dropout = -1, .operating_point = -1};
    if (!volume_read(path, &iso, &lungs, err) || !infer_detect(find, iso, lungs, &findings, err) ||
        !uncertainty_estimate(judge, iso, &config, &findings, err))
        return false;
    marks_print(path, &findings);
    return true;
}

static struct infer_session *session_new(const struct infer_model *model, const struct infer_precision *plan,
                                         struct err *err) {
    const struct infer_session_config config = {.precision = plan, .backend = INFER_BACKEND_CPU, .threads = 2};
    return infer_session_new(model, &config, err);
}

static bool run(const struct infer_model *model, const char *precision, char **paths, struct err *err) {
    struct infer_precision plan;
    bool low = strcmp(precision, "fp32") != 0, again = strcmp(precision, "again") == 0;
    if (low && !plan_make(model, &plan, err))
        return false;
    struct infer_session *full = session_new(model, NULL, err);
    struct infer_session *find = full && low ? session_new(model, &plan, err) : full;
    bool good = find != NULL;
    if (good)
        printf("seriesuid,coordX,coordY,coordZ,probability,detector_logit,full_precision\n");
    for (; good && *paths; paths++)
        good = look(find, again ? find : full, *paths, err);
    if (find != full)
        infer_session_free(find);
    infer_session_free(full);
    return good;
}

int main(int count, char **arguments) {
    struct err err = {0};
    if (count < 4)
        return fprintf(stderr, "usage: uncertainty_marks MODEL.JSON fp32|int8|again VOLUME...\n"), 2;
    struct infer_model *model = infer_model_open(arguments[1], &err);
    bool good = model && run(model, arguments[2], arguments + 3, &err);
    infer_model_free(model);
    if (!good)
        fprintf(stderr, "uncertainty_marks: %s\n", err.text);
    return good ? 0 : 1;
}
