#include "dicom/pixels.h"

#include "dicom/jpeg2000.h"
#include "dicom/jpegls.h"
#include "dicom/part10.h"
#include "dicom/rle.h"

#include <stdlib.h>
#include <string.h>

static const uint32_t TAG_SAMPLES = 0x00280002, TAG_PHOTOMETRIC = 0x00280004, TAG_FRAMES = 0x00280008;
static const uint32_t TAG_ROWS = 0x00280010, TAG_COLUMNS = 0x00280011, TAG_BITS_ALLOCATED = 0x00280100;
static const uint32_t TAG_BITS_STORED = 0x00280101, TAG_HIGH_BIT = 0x00280102, TAG_REPRESENTATION = 0x00280103;
static const uint32_t TAG_PIXEL_DATA = 0x7FE00010;

/* DCMTK walks its list from the start for each fragment asked for. */
enum { FRAGMENTS_MAX = 16384, FRAGMENTS_SEARCH_MAX = 1024 };

/* ---- format ------------------------------------------------------------------------------------------ */

/* The VR is checked because a UL where US belongs has overflowed other readers. */
static bool read_us(const struct shim_dataset *dataset, uint32_t tag, const char *name, uint32_t *out,
                    struct err *err) {
    char vr[3] = "";
    int64_t value = 0;
    if (!shim_vr(dataset, tag, vr) || shim_value_count(dataset, tag) == 0)
        return err_set(err, ERR_INPUT, "%s is missing", name);
    if (strcmp(vr, "US") != 0)
        return err_set(err, ERR_INPUT, "%s has VR %s where US is required", name, vr);
    if (!shim_get_i64(dataset, tag, 0, &value) || value < 0 || value > UINT16_MAX)
        return err_set(err, ERR_INPUT, "%s cannot be read", name);
    *out = (uint32_t)value;
    return true;
}

static bool check_sides(const struct pixel_format *format, struct err *err) {
    if (format->rows == 0 || format->columns == 0)
        return err_set(err, ERR_INPUT, "an image of %u x %u pixels", format->columns, format->rows);
    if (format->rows > PIXELS_SIDE_MAX || format->columns > PIXELS_SIDE_MAX) {
        return err_set(err, ERR_LIMIT, "%u x %u pixels are more than %d x %d", format->columns, format->rows,
                       PIXELS_SIDE_MAX, PIXELS_SIDE_MAX);
    }
    if (format->frames > PIXELS_FRAMES_MAX)
        return err_set(err, ERR_LIMIT, "%u frames are more than %d", format->frames, PIXELS_FRAMES_MAX);
    return true;
}

static bool check_bits(const struct pixel_format *format, struct err *err) {
    if (format->bits_allocated != 8 && format->bits_allocated != 16)
        return err_set(err, ERR_UNSUPPORTED, "Bits Allocated %u (8 and 16 are read)", format->bits_allocated);
    if (format->bits_stored == 0 || format->bits_stored > format->bits_allocated ||
        format->high_bit >= format->bits_allocated || format->high_bit + 1 < format->bits_stored) {
        return err_set(err, ERR_INPUT, "Bits Stored %u and High Bit %u contradict Bits Allocated %u",
                       format->bits_stored, format->high_bit, format->bits_allocated);
    }
    return true;
}

static bool check_monochrome(const struct shim_dataset *dataset, struct err *err) {
    uint32_t samples = 0;
    char photometric[32];
    if (!read_us(dataset, TAG_SAMPLES, "Samples per Pixel", &samples, err))
        return false;
    shim_get_string(dataset, TAG_PHOTOMETRIC, photometric, sizeof photometric);
    if (samples != 1 || (strcmp(photometric, "MONOCHROME2") != 0 && strcmp(photometric, "MONOCHROME1") != 0))
        return err_set(err, ERR_UNSUPPORTED, "not a monochrome image (%u samples a pixel)", samples);
    return true;
}

static bool format_read(const struct shim_dataset *dataset, struct pixel_format *out, struct err *err) {
    struct pixel_format format = {.frames = 1};
    uint32_t representation = 0;
    int64_t frames = 1;
    if (!read_us(dataset, TAG_ROWS, "Rows", &format.rows, err) ||
        !read_us(dataset, TAG_COLUMNS, "Columns", &format.columns, err) ||
        !read_us(dataset, TAG_BITS_ALLOCATED, "Bits Allocated", &format.bits_allocated, err) ||
        !read_us(dataset, TAG_BITS_STORED, "Bits Stored", &format.bits_stored, err) ||
        !read_us(dataset, TAG_HIGH_BIT, "High Bit", &format.high_bit, err) ||
        !read_us(dataset, TAG_REPRESENTATION, "Pixel Representation", &representation, err))
        return false;
    if (shim_get_i64(dataset, TAG_FRAMES, 0, &frames) && (frames < 1 || frames > INT32_MAX))
        return err_set(err, ERR_INPUT, "Number of Frames is %lld", (long long)frames);
    format.frames = (uint32_t)frames;
    format.is_signed = representation == 1;
    if (!check_sides(&format, err) || !check_bits(&format, err) || !check_monochrome(dataset, err))
        return false;
    *out = format;
    return true;
}

bool pixels_format_read(const struct shim_dataset *dataset, struct pixel_format *out, struct err *err) {
    return shim_concluded(dataset, format_read(dataset, out, err), err);
}

/* ---- from containers to values ----------------------------------------------------------------------- */

/* Takes Bits Stored bits below High Bit out of native containers of sample_size bytes, PS3.5 8.1.1. */
static void unpack(const uint8_t *raw, size_t sample_size, const struct pixel_format *format, int32_t *out) {
    const size_t count = (size_t)format->rows * format->columns;
    const uint32_t shift = format->high_bit + 1 - format->bits_stored;
    const int32_t range = 1 << format->bits_stored;
    for (size_t i = 0; i < count; i++) {
        uint16_t container = raw[i * sample_size];
        if (sample_size == 2)
            memcpy(&container, raw + 2 * i, 2);
        const int32_t value = (container >> shift) & (range - 1);
        out[i] = format->is_signed && value >= range / 2 ? value - range : value;
    }
}

static bool decode_native(const struct shim_dataset *dataset, const struct pixel_format *format, size_t frame,
                          int32_t *out, struct err *err) {
    const size_t sample_size = format->bits_allocated / 8;
    const size_t frame_size = (size_t)format->rows * format->columns * sample_size;
    const uint8_t *raw = NULL;
    size_t size = 0;
    if (!shim_get_bytes(dataset, TAG_PIXEL_DATA, &raw, &size))
        return err_set(err, ERR_INPUT, "Pixel Data is missing");
    if (size / frame_size < format->frames) {
        return err_set(err, ERR_INPUT, "Pixel Data holds %zu bytes where %u frames of %zu bytes are promised", size,
                       format->frames, frame_size);
    }
    unpack(raw + frame * frame_size, sample_size, format, out);
    return true;
}

/* ---- compressed frames ------------------------------------------------------------------------------- */

/* First fragment of a frame by a Basic Offset Table (PS3.5 A.4), whose offsets count item headers too. */
static size_t find_by_offset(const struct shim_dataset *dataset, const uint8_t *table, size_t frame) {
    const uint8_t *p = table + 4 * frame;
    const size_t wanted = (size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 | (size_t)p[3] << 24;
    size_t offset = 0;
    for (size_t i = 1; i < shim_fragment_count(dataset) && offset <= wanted; i++) {
        const uint8_t *data = NULL;
        size_t size = 0;
        if (offset == wanted)
            return i;
        offset += 8 + (shim_fragment(dataset, i, &data, &size) ? size : 0);
    }
    return 0;
}

/* Without a table: the frame-th fragment that begins a stream, with SOI (JPEG, JPEG-LS) or SOC (JPEG 2000). */
static size_t find_by_marker(const struct shim_dataset *dataset, size_t frame) {
    for (size_t i = 1, seen = 0; i < shim_fragment_count(dataset); i++) {
        const uint8_t *data = NULL;
        size_t size = 0;
        const bool begins = shim_fragment(dataset, i, &data, &size) && size >= 2 && data[0] == 0xFF &&
                            (data[1] == 0xD8 || data[1] == 0x4F);
        if (begins && seen++ == frame)
            return i;
    }
    return 0;
}

static size_t find_start(const struct shim_dataset *dataset, uint32_t frames, size_t frame) {
    const uint8_t *table = NULL;
    size_t table_size = 0;
    if (frame == frames)
        return shim_fragment_count(dataset);
    if (shim_fragment(dataset, 0, &table, &table_size) && table_size == (size_t)frames * 4)
        return find_by_offset(dataset, table, frame);
    return find_by_marker(dataset, frame);
}

/* Fragments [first, end) of a frame; fragment 0 is the offset table. */
static bool find_fragments(const struct shim_dataset *dataset, uint32_t frames, size_t frame, size_t range[2],
                           struct err *err) {
    const size_t count = shim_fragment_count(dataset);
    if (count > FRAGMENTS_MAX)
        return err_set(err, ERR_LIMIT, "%zu fragments of Pixel Data are more than %d", count, FRAGMENTS_MAX);
    if (count < (size_t)frames + 1)
        return err_set(err, ERR_INPUT, "Pixel Data holds %zu fragments for %u frames", count ? count - 1 : 0, frames);
    range[0] = 1 + frame;
    range[1] = 2 + frame;
    if (frames == 1) {
        range[1] = count;
        return true;
    }
    if (count == (size_t)frames + 1)
        return true;
    if (count > FRAGMENTS_SEARCH_MAX) {
        return err_set(err, ERR_LIMIT, "%zu fragments for %u frames are more than %d", count, frames,
                       FRAGMENTS_SEARCH_MAX);
    }
    range[0] = find_start(dataset, frames, frame);
    range[1] = find_start(dataset, frames, frame + 1);
    return (range[0] > 0 && range[0] < range[1]) ||
           err_set(err, ERR_INPUT, "%zu fragments cannot be told apart into %u frames", count - 1, frames);
}

bool shim_frame_fragments(const struct shim_dataset *dataset, size_t frame, struct bytes *out, struct err *err) {
    struct pixel_format format;
    size_t range[2];
    struct bytes joined = {0};
    if (!pixels_format_read(dataset, &format, err) || !find_fragments(dataset, format.frames, frame, range, err))
        return false;
    for (size_t i = range[0]; i < range[1]; i++) {
        const uint8_t *data = NULL;
        size_t size = 0;
        if (!shim_fragment(dataset, i, &data, &size))
            continue; /* an empty fragment */
        if (!bytes_append(&joined, data, size, PULMO_ALLOC_MAX, err)) {
            bytes_free(&joined);
            return false;
        }
    }
    *out = joined;
    return true;
}

/* What a JPEG stream says of itself in its frame header SOFn, ISO 10918-1 B.2.2. */
struct jpeg_header {
    uint32_t precision, rows, columns, components;
};

static bool is_frame_header(uint8_t marker) {
    const bool is_sof = marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
    return is_sof;
}

static bool read_jpeg_header(const struct bytes *stream, struct jpeg_header *out) {
    size_t at = 2;
    while (at + 10 <= stream->size && stream->data[at] == 0xFF) {
        const uint8_t *p = stream->data + at;
        if (p[1] == 0xFF) {
            at++;
        } else if (is_frame_header(p[1])) {
            *out = (struct jpeg_header){p[4], (uint32_t)(p[5] << 8 | p[6]), (uint32_t)(p[7] << 8 | p[8]), p[9]};
            return true;
        } else {
            at += 2 + (size_t)(p[2] << 8 | p[3]);
        }
    }
    return false;
}

/* DCMTK takes some of these on trust: a stream of another size would fill the frame with skewed rows. */
static bool check_jpeg(const struct bytes *stream, const struct pixel_format *format, size_t *sample_size,
                       struct err *err) {
    struct jpeg_header header;
    if (!read_jpeg_header(stream, &header))
        return err_set(err, ERR_INPUT, "JPEG stream has no frame header");
    if (header.rows != format->rows || header.columns != format->columns || header.components != 1) {
        return err_set(err, ERR_INPUT, "JPEG stream is %u x %u x %u where the header says %u x %u", header.columns,
                       header.rows, header.components, format->columns, format->rows);
    }
    if (header.precision < 2 || header.precision > format->bits_allocated) {
        return err_set(err, ERR_INPUT, "JPEG stream of %u bits in %u allocated ones", header.precision,
                       format->bits_allocated);
    }
    *sample_size = header.precision > 8 ? 2 : 1;
    return true;
}

/* A native frame, made even, for a decoder to fill. */
static uint8_t *frame_new(const struct pixel_format *format, size_t *size, struct err *err) {
    *size = (size_t)format->rows * format->columns * (format->bits_allocated / 8);
    *size += *size % 2;
    return pulmo_alloc(*size, 1, err);
}

static bool decode_by_dcmtk(const struct shim_dataset *dataset, const struct pixel_format *format, size_t frame,
                            int32_t *out, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes stream = {0};
    size_t sample_size = 0, size = 0, range[2];
    if (!shim_frame_fragments(dataset, frame, &stream, err) || !check_jpeg(&stream, format, &sample_size, err) ||
        !find_fragments(dataset, format->frames, frame, range, err))
        return false;
    PULMO_SCOPED(pulmo_free_at) uint8_t *raw = frame_new(format, &size, err);
    if (raw == NULL || !shim_frame_decompress(dataset, frame, range[0], raw, size, err))
        return false;
    unpack(raw, sample_size, format, out);
    return true;
}

static bool decode_jpegls(const struct shim_dataset *dataset, const struct pixel_format *format, size_t frame,
                          int32_t *out, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes stream = {0};
    const struct jpegls_image image = {format->columns, format->rows};
    uint32_t precision = 0;
    if (!shim_frame_fragments(dataset, frame, &stream, err))
        return false;
    PULMO_SCOPED(pulmo_free_at) uint16_t *raw = pulmo_alloc((size_t)image.rows * image.columns, sizeof *raw, err);
    if (raw == NULL || !jpegls_decode(&stream, &image, raw, &precision, err))
        return false;
    if (precision > format->bits_allocated)
        return err_set(err, ERR_INPUT, "JPEG-LS stream of %u bits in %u allocated ones", precision,
                       format->bits_allocated);
    unpack((const uint8_t *)raw, sizeof *raw, format, out);
    return true;
}

static bool decode_rle(const struct shim_dataset *dataset, const struct pixel_format *format, size_t frame,
                       int32_t *out, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes stream = {0};
    const size_t sample_size = format->bits_allocated / 8, count = (size_t)format->rows * format->columns;
    size_t size = 0;
    if (!shim_frame_fragments(dataset, frame, &stream, err))
        return false;
    PULMO_SCOPED(pulmo_free_at) uint8_t *raw = frame_new(format, &size, err);
    if (raw == NULL || !rle_decode(&stream, count, sample_size, raw, err))
        return false;
    unpack(raw, sample_size, format, out);
    return true;
}

static bool decode_by_openjpeg(const struct shim_dataset *dataset, const struct pixel_format *format, size_t frame,
                               int32_t *out, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes stream = {0};
    const struct jpeg2000_image image = {format->columns, format->rows, format->bits_stored, format->is_signed};
    return shim_frame_fragments(dataset, frame, &stream, err) && jpeg2000_decode(&stream, &image, out, err);
}

static bool is_jpeg2000(const char *uid) {
    static const char *const uids[] = {"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.201",
                                       "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"};
    for (size_t i = 0; i < sizeof uids / sizeof uids[0]; i++)
        if (strcmp(uid, uids[i]) == 0)
            return true;
    return false;
}

static bool frame_decode(const struct shim_dataset *dataset, size_t frame, int32_t *out, size_t count,
                         struct err *err) {
    const char *uid = shim_dataset_transfer_syntax(dataset);
    struct pixel_format format;
    if (!pixels_format_read(dataset, &format, err))
        return false;
    if (count != (size_t)format.rows * format.columns || frame >= format.frames) {
        return err_set(err, ERR_INPUT, "frame %zu of %u, or a buffer of %zu values for %u x %u", frame, format.frames,
                       count, format.columns, format.rows);
    }
    if (!part10_encoding_of(uid).encapsulated)
        return decode_native(dataset, &format, frame, out, err);
    if (strcmp(uid, "1.2.840.10008.1.2.5") == 0)
        return decode_rle(dataset, &format, frame, out, err);
    if (strcmp(uid, "1.2.840.10008.1.2.4.80") == 0 || strcmp(uid, "1.2.840.10008.1.2.4.81") == 0)
        return decode_jpegls(dataset, &format, frame, out, err);
    return is_jpeg2000(uid) ? decode_by_openjpeg(dataset, &format, frame, out, err)
                            : decode_by_dcmtk(dataset, &format, frame, out, err);
}

bool shim_frame_decode(const struct shim_dataset *dataset, size_t frame, int32_t *out, size_t count, struct err *err) {
    return shim_concluded(dataset, frame_decode(dataset, frame, out, count, err), err);
}
