/* A volume as a CT series: the CT Image IOD (PS3.3 A.3) of a made-up patient, for the phantom. */
#include "dicom/jpeg2000.h"
#include "dicom/object.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RESCALE_INTERCEPT (-1024)

static const struct syntax {
    const char *name, *uid;
} syntaxes[] = {
    {"explicit", "1.2.840.10008.1.2.1"},    {"implicit", "1.2.840.10008.1.2"},
    {"deflated", "1.2.840.10008.1.2.1.99"}, {"rle", "1.2.840.10008.1.2.5"},
    {"jpegls", "1.2.840.10008.1.2.4.80"},   {"jpeg-lossless", "1.2.840.10008.1.2.4.70"},
    {"j2k", "1.2.840.10008.1.2.4.90"},
};

static const struct syntax *syntax_named(const char *name, struct err *err) {
    for (size_t index = 0; index < sizeof syntaxes / sizeof *syntaxes; index++)
        if (strcmp(name, syntaxes[index].name) == 0)
            return &syntaxes[index];
    err_set(err, ERR_UNSUPPORTED,
            "transfer syntax \"%s\": explicit, implicit, deflated, rle, jpegls, jpeg-lossless or j2k", name);
    return NULL;
}

struct series_uids {
    char study[DICOM_UID_SIZE], series[DICOM_UID_SIZE], frame_of_reference[DICOM_UID_SIZE];
};

/* UIDs come from the seed and the geometry: another phantom, however near, is another study. */
static bool uid_of(const struct volume *volume, const struct dicom_ct_write_config *config, const char *what,
                   char out[DICOM_UID_SIZE], struct err *err) {
    const struct grid *grid = &volume->grid;
    char text[256];
    snprintf(text, sizeof text, "pulmo ct %s: seed %llu, patient %.64s, %d slices of %.4f mm, from %.3f", what,
             (unsigned long long)config->seed, config->patient_id, grid->size_ijk[2], grid->spacing_mm[2],
             grid->ijk_to_lps_mm[2][3]);
    return dicom_uid_derive(text, out, err);
}

static bool series_uids_derive(const struct volume *volume, const struct dicom_ct_write_config *config,
                               struct series_uids *out, struct err *err) {
    return uid_of(volume, config, "study", out->study, err) && uid_of(volume, config, "series", out->series, err) &&
           uid_of(volume, config, "frame of reference", out->frame_of_reference, err);
}

static bool put_identity(struct shim_dataset *dataset, const struct dicom_ct_write_config *config,
                         const struct series_uids *uids, struct err *err) {
    const struct object_row rows[] = {
        {0x00080008, "ORIGINAL\\PRIMARY\\AXIAL"},
        {0x00080016, SOP_CLASS_CT},
        {0x00080020, "20260101"},
        {0x00080021, "20260101"},
        {0x00080022, "20260101"},
        {0x00080023, "20260101"},
        {0x00080030, "080000"},
        {0x00080031, "080000"},
        {0x00080032, "080000"},
        {0x00080033, "080000"},
        {0x00080050, ""},
        {0x00080060, "CT"},
        {0x00080070, "Pulmo"},
        {0x00080090, ""},
        {0x00081030, config->study_description},
        {0x0008103E, config->series_description},
        {0x00081090, "Pulmo phantom"},
        {0x00100010, config->patient_name},
        {0x00100020, config->patient_id},
        {0x00100030, ""},
        {0x00100040, "O"},
        {0x00180015, "CHEST"},
        {0x00180060, "120"}, /* KVP of the spectrum that HU of bone and blood are stated for */
        {0x00181020, PULMO_VERSION},
        {0x00185100, "HFS"},
        {0x0020000D, uids->study},
        {0x0020000E, uids->series},
        {0x00200010, "1"},
        {0x00200011, "1"},
        {0x00200012, "1"},
        {0x00200052, uids->frame_of_reference},
        {0x00201040, ""},
        {0x00204000, PULMO_NOT_FOR_DIAGNOSIS},
    };
    return object_put_rows(dataset, rows, sizeof rows / sizeof *rows, err);
}

static bool put_geometry(struct shim_dataset *dataset, const struct grid *grid, int32_t k, struct err *err) {
    const double first[3] = {0, 0, k};
    double position[3], orientation[6];
    const double pixel[2] = {grid->spacing_mm[1], grid->spacing_mm[0]}; /* row spacing first, PS3.3 10.7.1.3 */
    grid_to_lps(grid, first, position);
    for (int axis = 0; axis < 3; axis++) {
        orientation[axis] = grid->ijk_to_lps_mm[axis][0] / grid->spacing_mm[0];
        orientation[3 + axis] = grid->ijk_to_lps_mm[axis][1] / grid->spacing_mm[1];
    }
    char number[16];
    snprintf(number, sizeof number, "%d", k + 1);
    return object_put_numbers(dataset, 0x00180050, &grid->spacing_mm[2], 1, err) &&
           shim_put_string(dataset, 0x00200013, number, err) &&
           object_put_numbers(dataset, 0x00200032, position, 3, err) &&
           object_put_numbers(dataset, 0x00200037, orientation, 6, err) &&
           object_put_numbers(dataset, 0x00201041, &position[2], 1, err) &&
           object_put_numbers(dataset, 0x00280030, pixel, 2, err);
}

static bool put_image_module(struct shim_dataset *dataset, const struct grid *grid, struct err *err) {
    const struct {
        uint32_t tag;
        int32_t value;
    } rows[] = {{0x00280002, 1},
                {0x00280010, grid->size_ijk[1]},
                {0x00280011, grid->size_ijk[0]},
                {0x00280100, 16},
                {0x00280101, 16},
                {0x00280102, 15},
                {0x00280103, 0}};
    for (size_t row = 0; row < sizeof rows / sizeof *rows; row++)
        if (!object_put_u16(dataset, rows[row].tag, (uint16_t)rows[row].value, err))
            return false;
    const struct object_row text[] = {{0x00280004, "MONOCHROME2"}, {0x00281050, "-600\\40"}, {0x00281051, "1500\\400"},
                                      {0x00281052, "-1024"},       {0x00281053, "1"},        {0x00281054, "HU"}};
    return object_put_rows(dataset, text, sizeof text / sizeof *text, err);
}

/* Stored values; HU below the intercept cannot be stored and become the intercept. */
static uint16_t stored_of(int16_t hu) {
    return (uint16_t)(hu < RESCALE_INTERCEPT ? 0 : hu - RESCALE_INTERCEPT);
}

static bool put_jpeg2000(struct shim_dataset *dataset, const struct grid *grid, const uint16_t *stored, const char *uid,
                         struct err *err) {
    size_t count = (size_t)grid->size_ijk[0] * (size_t)grid->size_ijk[1];
    PULMO_SCOPED(pulmo_free_at) int32_t *values = pulmo_alloc(count, sizeof *values, err);
    PULMO_SCOPED(bytes_free) struct bytes frame = {0};
    struct jpeg2000_image image = {(uint32_t)grid->size_ijk[0], (uint32_t)grid->size_ijk[1], 16, false};
    for (size_t n = 0; values && n < count; n++)
        values[n] = stored[n];
    return values && jpeg2000_encode(values, &image, &frame, err) && shim_put_frames(dataset, uid, &frame, 1, err);
}

static bool put_pixels(struct shim_dataset *dataset, const struct volume *volume, int32_t k,
                       const struct syntax *syntax, struct err *err) {
    size_t count = (size_t)volume->grid.size_ijk[0] * (size_t)volume->grid.size_ijk[1];
    const int16_t *hu = volume->hu + count * (size_t)k;
    PULMO_SCOPED(pulmo_free_at) uint16_t *stored = pulmo_alloc(count, sizeof *stored, err);
    for (size_t n = 0; stored && n < count; n++)
        stored[n] = stored_of(hu[n]);
    if (!stored)
        return false;
    if (strcmp(syntax->name, "j2k") == 0)
        return put_jpeg2000(dataset, &volume->grid, stored, syntax->uid, err);
    return shim_put_bytes(dataset, 0x7FE00010, stored, count * sizeof *stored, err) &&
           shim_dataset_encode(dataset, syntax->uid, err);
}

static bool write_slice(const struct volume *volume, const struct dicom_ct_write_config *config,
                        const struct series_uids *uids, int32_t k, struct err *err) {
    const struct syntax *syntax = syntax_named(config->transfer_syntax ? config->transfer_syntax : "explicit", err);
    PULMO_SCOPED(shim_dataset_free_at) struct shim_dataset *dataset = syntax ? shim_dataset_new(err) : NULL;
    PULMO_SCOPED(bytes_free) struct bytes file = {0};
    char what[32], instance_uid[DICOM_UID_SIZE], path[4096];
    snprintf(what, sizeof what, "slice %d", k);
    if (!dataset || !uid_of(volume, config, what, instance_uid, err) || !put_identity(dataset, config, uids, err) ||
        !shim_put_string(dataset, 0x00080018, instance_uid, err) || !put_geometry(dataset, &volume->grid, k, err) ||
        !put_image_module(dataset, &volume->grid, err) || !put_pixels(dataset, volume, k, syntax, err) ||
        !shim_dataset_write(dataset, syntax->uid, &file, err))
        return false;
    int length = snprintf(path, sizeof path, "%s/ct-%04d.dcm", config->folder, k + 1);
    if (length < 0 || (size_t)length >= sizeof path)
        return err_set(err, ERR_LIMIT, "the folder's path is too long");
    return bytes_write_file(path, file.data, file.size, false, err);
}

bool dicom_ct_write(const struct volume *volume, const struct dicom_ct_write_config *config, struct err *err) {
    struct series_uids uids;
    if (volume->grid.size_ijk[0] > UINT16_MAX || volume->grid.size_ijk[1] > UINT16_MAX)
        return err_set(err, ERR_LIMIT, "a DICOM image has at most 65535 rows and columns");
    if (!series_uids_derive(volume, config, &uids, err))
        return false;
    for (int32_t k = 0; k < volume->grid.size_ijk[2]; k++)
        if (!write_slice(volume, config, &uids, k, err))
            return err_within(err, "slice %d", k + 1);
    return true;
}
