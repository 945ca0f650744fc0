/* CT instances made in memory for the tests of dicom/, and a sink that remembers what reached it. */
#ifndef PULMO_TESTS_DICOM_SAMPLE_H
#define PULMO_TESTS_DICOM_SAMPLE_H

#include "dicom/dcmtk_shim.h"
#include "dicom/dicom.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SAMPLE_CLASS "1.2.840.10008.5.1.4.1.1.2"

struct sample {
    const char *series_uid; /* NULL = "2.25.2" */
    int number;             /* of the instance; its UID ends in it */
    double z_mm;
    uint16_t side;                                 /* rows and columns; 0 = 16 */
    const char *transfer_syntax_uid;               /* NULL = Explicit VR Little Endian */
    void (*change)(struct shim_dataset *, void *); /* before it is written; NULL = none */
    void *context;
};

static inline void sample_put(struct shim_dataset *dataset, uint32_t tag, const char *value) {
    struct err err = {0};
    if (!shim_put_string(dataset, tag, value, &err))
        fail_msg("%08X: %s", tag, err.text);
}

static inline void sample_put_u16(struct shim_dataset *dataset, uint32_t tag, uint16_t value) {
    struct err err = {0};
    if (!shim_put_u16(dataset, tag, &value, 1, &err))
        fail_msg("%08X: %s", tag, err.text);
}

static inline void sample_put_pixels(struct shim_dataset *dataset, uint16_t side, int number) {
    const size_t count = (size_t)side * side;
    uint16_t *pixels = calloc(count, sizeof *pixels);
    struct err err = {0};
    assert_non_null(pixels);
    for (size_t i = 0; i < count; i++)
        pixels[i] = (uint16_t)((i * 37 + (size_t)number * 11) % 3000);
    if (!shim_put_bytes(dataset, 0x7FE00010, pixels, count * sizeof *pixels, &err))
        fail_msg("%s", err.text);
    free(pixels);
}

static inline void sample_put_identity(struct shim_dataset *dataset, const struct sample *sample) {
    char text[128];
    sample_put(dataset, 0x00080008, "ORIGINAL\\PRIMARY\\AXIAL");
    sample_put(dataset, 0x00080016, SAMPLE_CLASS);
    snprintf(text, sizeof text, "2.25.3.%d", sample->number);
    sample_put(dataset, 0x00080018, text);
    sample_put(dataset, 0x00080060, "CT");
    sample_put(dataset, 0x00100010, "Test^Sample");
    sample_put(dataset, 0x00100020, "T1");
    sample_put(dataset, 0x0020000D, "2.25.1");
    sample_put(dataset, 0x0020000E, sample->series_uid != NULL ? sample->series_uid : "2.25.2");
    sample_put(dataset, 0x00200052, "2.25.4");
    snprintf(text, sizeof text, "%d", sample->number);
    sample_put(dataset, 0x00200013, text);
}

static inline void sample_put_image(struct shim_dataset *dataset, const struct sample *sample, uint16_t side) {
    char text[128];
    snprintf(text, sizeof text, "-100\\-100\\%.3f", sample->z_mm);
    sample_put(dataset, 0x00200032, text);
    sample_put(dataset, 0x00200037, "1\\0\\0\\0\\1\\0");
    sample_put(dataset, 0x00180050, "2.5");
    sample_put(dataset, 0x00280030, "0.7\\0.8");
    sample_put(dataset, 0x00281052, "-1024");
    sample_put(dataset, 0x00281053, "1");
    sample_put(dataset, 0x00280004, "MONOCHROME2");
    sample_put_u16(dataset, 0x00280002, 1);
    sample_put_u16(dataset, 0x00280010, side);
    sample_put_u16(dataset, 0x00280011, side);
    sample_put_u16(dataset, 0x00280100, 16);
    sample_put_u16(dataset, 0x00280101, 12);
    sample_put_u16(dataset, 0x00280102, 11);
    sample_put_u16(dataset, 0x00280103, 0);
    sample_put_pixels(dataset, side, sample->number);
}

static inline struct bytes sample_make(const struct sample *sample) {
    struct err err = {0};
    struct bytes out = {0};
    struct shim_dataset *dataset = shim_dataset_new(&err);
    if (dataset == NULL)
        fail_msg("%s", err.text);
    sample_put_identity(dataset, sample);
    sample_put_image(dataset, sample, sample->side != 0 ? sample->side : 16);
    if (sample->change != NULL)
        sample->change(dataset, sample->context);
    if (sample->transfer_syntax_uid != NULL && !shim_dataset_encode(dataset, sample->transfer_syntax_uid, &err))
        fail_msg("%s", err.text);
    if (!shim_dataset_write(dataset, sample->transfer_syntax_uid, &out, &err))
        fail_msg("%s", err.text);
    shim_dataset_free(dataset);
    return out;
}

/* A new folder under TMPDIR, for the test to remove. */
static inline void sample_folder(char out[256]) {
    const char *base = getenv("TMPDIR");
    snprintf(out, 256, "%s/pulmo-dicom-XXXXXX", base != NULL ? base : "/tmp");
    assert_non_null(mkdtemp(out));
}

static inline void sample_save(const char *folder, const char *name, const struct bytes *bytes, char path[512]) {
    struct err err = {0};
    snprintf(path, 512, "%s/%s", folder, name);
    if (!bytes_write_file(path, bytes->data, bytes->size, false, &err))
        fail_msg("%s", err.text);
}

/* The folder of shared data, or NULL. */
static inline const char *sample_shared(void) {
    const char *folder = getenv("PULMO_SHARED");
    return folder != NULL ? folder : "../shared";
}

#endif
