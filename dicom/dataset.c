#include "dicom/dcmtk_shim.h"
#include "dicom/dicom.h"
#include "dicom/part10.h"
#include "dicom/structure.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static const uint32_t TAG_PIXEL_DATA = 0x7FE00010, TAG_NONE = 0xFFFFFFFF;

#define INFLATED_BYTES_MAX ((size_t)1 << 30) /* a deflate bomb ends here */

bool dicom_ready(struct err *err) {
    return shim_ready(err);
}

/* ---- files ------------------------------------------------------------------------------------------- */

/* header_only: nothing from Pixel Data on is looked at. pixels: NULL, or where to say what Pixel Data holds. */
static struct shim_dataset *parse(const void *part10, size_t size, bool header_only, struct structure_pixels *pixels,
                                  struct err *err) {
    struct part10 meta;
    struct structure_pixels found = {.present = false};
    PULMO_SCOPED(bytes_free) struct bytes inflated = {0};
    if (!part10_split(part10, size, &meta, err))
        return NULL;
    const struct part10_encoding encoding = part10_encoding_of(meta.transfer_syntax_uid);
    const uint8_t *data = (const uint8_t *)part10 + meta.dataset_offset;
    size_t left = size - meta.dataset_offset;
    if (encoding.deflated) {
        if (!shim_inflate(data, left, INFLATED_BYTES_MAX, &inflated, err))
            return NULL;
        data = inflated.data;
        left = inflated.size;
    }
    if (!(header_only ? structure_check_header(data, left, encoding, err)
                      : structure_check_image(data, left, encoding, &found, err)))
        return NULL;
    const bool to_pixels = header_only || (pixels != NULL && found.is_last);
    if (pixels != NULL)
        *pixels = found;
    return shim_dataset_read(data, left, meta.transfer_syntax_uid, to_pixels ? TAG_PIXEL_DATA : TAG_NONE, err);
}

struct shim_dataset *shim_dataset_parse(const void *part10, size_t size, struct err *err) {
    return parse(part10, size, false, NULL, err);
}

struct shim_dataset *shim_dataset_parse_header(const void *part10, size_t size, struct err *err) {
    return parse(part10, size, true, NULL, err);
}

struct shim_dataset *shim_dataset_parse_image(const void *part10, size_t size, struct structure_pixels *pixels,
                                              struct err *err) {
    return parse(part10, size, false, pixels, err);
}

void shim_dataset_free_at(struct shim_dataset **dataset) {
    shim_dataset_free(*dataset);
}

bool shim_dataset_write(const struct shim_dataset *dataset, const char *transfer_syntax_uid, struct bytes *out,
                        struct err *err) {
    struct part10 meta = {.dataset_offset = 0};
    struct bytes written = {0};
    snprintf(meta.transfer_syntax_uid, sizeof meta.transfer_syntax_uid, "%s",
             transfer_syntax_uid != NULL ? transfer_syntax_uid : "1.2.840.10008.1.2.1");
    shim_get_string(dataset, 0x00080016, meta.sop_class_uid, sizeof meta.sop_class_uid);
    shim_get_string(dataset, 0x00080018, meta.sop_instance_uid, sizeof meta.sop_instance_uid);
    if (!part10_write_meta(&meta, "", &written, err) ||
        !shim_dataset_write_body(dataset, meta.transfer_syntax_uid, &written, err)) {
        bytes_free(&written);
        return false;
    }
    *out = written;
    return true;
}

/* A digest of random bytes as a UUID, which is a number under 2.25 (PS3.5 B.2): no registered root is needed. */
void shim_uid_new(char out[DICOM_UID_SIZE]) {
    uint8_t random[32] = {0};
    char text[2 * sizeof random + 1];
    struct err err = {0};
    do {
        while (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) {
        }
        for (size_t i = 0; i < sizeof random; i++)
            snprintf(text + 2 * i, 3, "%02x", random[i]);
    } while (!dicom_uid_derive(text, out, &err));
}

/* ---- values ------------------------------------------------------------------------------------------ */

bool shim_has(const struct shim_dataset *dataset, uint32_t tag) {
    char vr[3];
    return shim_vr(dataset, tag, vr);
}

/* Takes away the bytes of a character that the buffer's end cut. */
static void drop_cut_character(char *text) {
    size_t start = strlen(text);
    while (start > 0 && ((unsigned char)text[start - 1] & 0xC0) == 0x80)
        start--;
    if (start == 0)
        return;
    const unsigned char lead = (unsigned char)text[start - 1];
    const size_t wanted = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : lead >= 0xC0 ? 1 : 0;
    if (strlen(text + start) < wanted)
        text[start - 1] = '\0';
}

bool shim_get_string(const struct shim_dataset *dataset, uint32_t tag, char *out, size_t out_size) {
    out[0] = '\0';
    if (!shim_get_text(dataset, tag, -1, out, out_size)) {
        out[0] = '\0';
        return false;
    }
    drop_cut_character(out);
    const size_t first = strspn(out, " ");
    size_t size = strlen(out) - first;
    while (size > 0 && out[first + size - 1] == ' ')
        size--;
    memmove(out, out + first, size);
    out[size] = '\0';
    return size > 0;
}
/* DS and IS are at most 16 and 12 characters (PS3.5 6.2); a double needs 24. */
enum { NUMBER_SIZE = 64 };

static bool only_spaces(const char *text) {
    while (*text == ' ')
        text++;
    return *text == '\0';
}

bool shim_get_f64(const struct shim_dataset *dataset, uint32_t tag, size_t index, double *out) {
    char text[NUMBER_SIZE];
    if (!shim_get_text(dataset, tag, (long)index, text, sizeof text))
        return false;
    char *end = NULL;
    const double value = strtod(text, &end);
    if (end == text || !only_spaces(end) || !isfinite(value))
        return false;
    *out = value;
    return true;
}

bool shim_get_i64(const struct shim_dataset *dataset, uint32_t tag, size_t index, int64_t *out) {
    char text[NUMBER_SIZE];
    if (!shim_get_text(dataset, tag, (long)index, text, sizeof text))
        return false;
    char *end = NULL;
    errno = 0;
    const long long value = strtoll(text, &end, 10);
    if (end == text || !only_spaces(end) || errno != 0)
        return false;
    *out = value;
    return true;
}
