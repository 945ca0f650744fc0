#include "dicom/ct.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Files that are not DICOM (a DICOMDIR's README) are passed over; DICOM files that are damaged are counted, since they
 * may be slices. */
struct scan {
    struct ct_headers headers;
    size_t damaged;
    struct err first_damage;
};

static bool has_magic(const char *path) {
    char head[132] = "";
    FILE *file = fopen(path, "rb");
    const bool whole = file != NULL && fread(head, sizeof head, 1, file) == 1;
    if (file != NULL)
        fclose(file);
    return whole && memcmp(head + 128, "DICM", 4) == 0;
}

static bool scan_headers(const char *const *paths, size_t count, struct scan *scan, struct err *err) {
    for (size_t i = 0; i < count; i++) {
        struct err why = {0};
        if (ct_headers_read(paths[i], i, &scan->headers, &why))
            continue;
        if (why.kind != ERR_INPUT && why.kind != ERR_LIMIT && why.kind != ERR_UNSUPPORTED) {
            return err_set(err, why.kind, "%s", why.text);
        } else if (has_magic(paths[i])) {
            scan->first_damage = scan->damaged++ == 0 ? why : scan->first_damage;
        }
    }
    return scan->headers.count > 0 || err_set(err, ERR_INPUT, "no readable DICOM file among %zu%s%.300s", count,
                                              scan->damaged > 0 ? ": " : "", scan->first_damage.text);
}

/* Study and patient modules for the reports: the first instance, less its pixels. */
static bool read_identity(const char *path, struct bytes *out, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes file = {0};
    if (!bytes_read_file(path, CT_FILE_BYTES_MAX, &file, err))
        return false;
    PULMO_SCOPED(shim_dataset_free_at)
    struct shim_dataset *dataset = shim_dataset_parse_header(file.data, file.size, err);
    return dataset != NULL && shim_dataset_write(dataset, NULL, out, err);
}

#define COPY_TEXT(to, from) memcpy((to), (from), sizeof(to))

static void copy_slice(const struct ct_header *header, struct dicom_slice *out) {
    COPY_TEXT(out->sop_class_uid, header->sop_class_uid);
    COPY_TEXT(out->sop_instance_uid, header->sop_instance_uid);
    memcpy(out->position_lps_mm, header->position_lps_mm, sizeof out->position_lps_mm);
    out->instance_number = header->instance_number;
    out->frame_number = header->format.frames > 1 ? header->frame + 1 : 0;
}

static bool describe(const struct ct_group *group, const char *const *paths, struct dicom_series *series,
                     struct err *err) {
    const struct ct_header *first = &group->headers[0];
    COPY_TEXT(series->study_uid, first->study_uid);
    COPY_TEXT(series->series_uid, first->series_uid);
    COPY_TEXT(series->frame_of_reference_uid, first->frame_of_reference_uid);
    COPY_TEXT(series->series_description, first->series_description);
    COPY_TEXT(series->modality, first->modality);
    series->slice_thickness_mm = first->thickness_mm;
    series->slices = pulmo_alloc(group->count, sizeof *series->slices, err);
    if (series->slices == NULL)
        return false;
    series->slice_count = group->count;
    for (size_t i = 0; i < group->count; i++)
        copy_slice(&group->headers[i], &series->slices[i]);
    return read_identity(paths[first->path_index], &series->header, err);
}

static bool read_volume(const struct ct_group *group, const char *const *paths, const struct grid *grid,
                        struct dicom_series *series, struct err *err) {
    series->slice_spacing_mm = grid->spacing_mm[2];
    if (grid_voxels(grid) > CT_VOXELS_MAX) {
        return err_set(err, ERR_LIMIT, "%zu slices of %d x %d are more than %zu voxels", group->count,
                       grid->size_ijk[0], grid->size_ijk[1], CT_VOXELS_MAX);
    }
    series->volume = volume_new(grid, err);
    if (series->volume == NULL || !ct_pixels(group, paths, series->volume, &series->refusals, err))
        return false;
    if (series->refusals.count > 0) {
        volume_free(series->volume);
        series->volume = NULL;
    }
    return true;
}

static bool read_series(struct scan *scan, const char *const *paths, struct dicom_series *series, struct err *err) {
    struct ct_group group = ct_select(scan->headers.items, scan->headers.count);
    struct grid grid = {.size_ijk = {0}};
    ct_geometry(&group, &grid, &series->refusals);
    if (scan->damaged > 0) {
        refusals_add(&series->refusals, REFUSAL_UNREADABLE, "%zu damaged DICOM file%s may belong to the series: %.120s",
                     scan->damaged, scan->damaged == 1 ? "" : "s", scan->first_damage.text);
    }
    if (!describe(&group, paths, series, err))
        return false;
    return series->refusals.count > 0 || read_volume(&group, paths, &grid, series, err);
}

struct dicom_series *dicom_series_read(const char *const *paths, size_t count, struct err *err) {
    if (count == 0 || count > CT_FILES_MAX) {
        err_set(err, count == 0 ? ERR_INPUT : ERR_LIMIT, "%zu files (1 to %d are read)", count, CT_FILES_MAX);
        return NULL;
    }
    struct scan scan = {.damaged = 0};
    struct dicom_series *series = pulmo_alloc(1, sizeof *series, err);
    const bool done =
        series != NULL && scan_headers(paths, count, &scan, err) && read_series(&scan, paths, series, err);
    ct_headers_free(&scan.headers);
    if (!done) {
        dicom_series_free(series);
        return NULL;
    }
    return series;
}

void dicom_series_free(struct dicom_series *series) {
    if (series != NULL) {
        volume_free(series->volume);
        free(series->slices);
        bytes_free(&series->header);
        free(series);
    }
}
