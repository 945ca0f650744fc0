#include "app/artifacts.h"

#include <cjson/cJSON.h>
#include <string.h>

static void cjson_free_at(cJSON **json) {
    cJSON_Delete(*json);
}

static void add_geometry(cJSON *document, const struct grid *grid) {
    cJSON_AddNumberToObject(document, "columns", grid->size_ijk[0]);
    cJSON_AddNumberToObject(document, "rows", grid->size_ijk[1]);
    cJSON_AddNumberToObject(document, "slices", grid->size_ijk[2]);
    cJSON_AddItemToObject(document, "spacing_ijk_mm", cJSON_CreateDoubleArray(grid->spacing_mm, 3));
    cJSON *affine = cJSON_AddArrayToObject(document, "ijk_to_lps_mm");
    for (int row = 0; row < 3; row++)
        cJSON_AddItemToArray(affine, cJSON_CreateDoubleArray(grid->ijk_to_lps_mm[row], 4));
}

static cJSON *series_document(const struct dicom_series *series) {
    cJSON *document = cJSON_CreateObject();
    cJSON_AddStringToObject(document, "study_uid", series->study_uid);
    cJSON_AddStringToObject(document, "series_uid", series->series_uid);
    cJSON_AddStringToObject(document, "series_description", series->series_description);
    add_geometry(document, &series->volume->grid);
    /* The lung window is what a reader of nodules opens with. */
    cJSON_AddNumberToObject(document, "window_center_hu", -600);
    cJSON_AddNumberToObject(document, "window_width_hu", 1500);
    cJSON *uids = cJSON_AddArrayToObject(document, "slice_sop_instance_uids");
    for (size_t index = 0; index < series->slice_count; index++)
        cJSON_AddItemToArray(uids, cJSON_CreateString(series->slices[index].sop_instance_uid));
    return document;
}

static bool add_slices(const struct volume *volume, struct artifacts *out, struct err *err) {
    size_t count = grid_voxels(&volume->grid);
    struct bytes slices = {.data = pulmo_alloc(count, sizeof(int16_t), err), .size = count * sizeof(int16_t)};
    if (!slices.data)
        return false;
    for (size_t index = 0; index < count; index++) { /* little endian on every machine */
        uint16_t value = (uint16_t)volume->hu[index];
        slices.data[2 * index] = (uint8_t)(value & 0xFF);
        slices.data[2 * index + 1] = (uint8_t)(value >> 8);
    }
    return artifacts_add(out, "slices.i16", "application/octet-stream", &slices, false, err);
}

bool artifacts_make_series(const struct dicom_series *series, struct artifacts *out, struct err *err) {
    PULMO_SCOPED(artifacts_free) struct artifacts made = {0};
    if (series->volume) { /* a series refused by its headers has no pixels to show */
        PULMO_SCOPED(cjson_free_at) cJSON *document = series_document(series);
        char *text = document ? cJSON_PrintUnformatted(document) : NULL;
        if (!text)
            return err_set(err, ERR_MEMORY, "out of memory for series.json");
        struct bytes json = {.data = (uint8_t *)text, .size = strlen(text)};
        if (!artifacts_add(&made, "series.json", "application/json", &json, false, err) ||
            !add_slices(series->volume, &made, err))
            return false;
    }
    *out = made;
    made = (struct artifacts){0};
    return true;
}
