#include "dicom/jpeg2000.h"

#include <openjpeg.h>
#include <string.h>

#define STREAM_BLOCK_SIZE ((OPJ_SIZE_T)64 * 1024)
#define STREAM_BYTES_MAX ((size_t)256 << 20)

static void ignore_message(const char *message, void *context) {
    (void)message;
    (void)context;
}

static void codec_free_at(opj_codec_t **codec) {
    opj_destroy_codec(*codec);
}

static void stream_free_at(opj_stream_t **stream) {
    opj_stream_destroy(*stream);
}

static void image_free_at(opj_image_t **image) {
    opj_image_destroy(*image);
}

/* ---- reading from memory ----------------------------------------------------------------------------- */

struct reader {
    const uint8_t *data;
    size_t size, offset;
};

static OPJ_SIZE_T read_some(void *buffer, OPJ_SIZE_T size, void *context) {
    struct reader *reader = context;
    const size_t left = reader->size - reader->offset;
    const size_t count = size < left ? size : left;
    if (count == 0)
        return (OPJ_SIZE_T)-1; /* OpenJPEG's end of stream */
    memcpy(buffer, reader->data + reader->offset, count);
    reader->offset += count;
    return count;
}

static OPJ_OFF_T skip_some(OPJ_OFF_T count, void *context) {
    struct reader *reader = context;
    const OPJ_OFF_T left = (OPJ_OFF_T)(reader->size - reader->offset);
    const OPJ_OFF_T step = count < left ? count : left;
    if (step < 0)
        return -1;
    reader->offset += (size_t)step;
    return step;
}

static OPJ_BOOL seek_to(OPJ_OFF_T offset, void *context) {
    struct reader *reader = context;
    if (offset < 0 || (size_t)offset > reader->size)
        return OPJ_FALSE;
    reader->offset = (size_t)offset;
    return OPJ_TRUE;
}

static opj_stream_t *open_reader(struct reader *reader) {
    opj_stream_t *stream = opj_stream_create(STREAM_BLOCK_SIZE, OPJ_TRUE);
    if (stream != NULL) {
        opj_stream_set_read_function(stream, read_some);
        opj_stream_set_skip_function(stream, skip_some);
        opj_stream_set_seek_function(stream, seek_to);
        opj_stream_set_user_data(stream, reader, NULL);
        opj_stream_set_user_data_length(stream, reader->size);
    }
    return stream;
}

/* A bare code stream begins with SOC and SIZ; some writers put a whole JP2 file into the fragment. */
static OPJ_CODEC_FORMAT format_of(const struct bytes *stream) {
    static const uint8_t box[] = {0, 0, 0, 12, 'j', 'P', ' ', ' '};
    return stream->size >= sizeof box && memcmp(stream->data, box, sizeof box) == 0 ? OPJ_CODEC_JP2 : OPJ_CODEC_J2K;
}

/* Byte of Ssiz of the first component in a code stream that begins with SOC and SIZ, ISO 15444-1 A.5.1. */
enum { SSIZ_OFFSET = 42, SSIZ_SIGNED = 0x80, SSIZ_WIDE = 24 };

/* Encoders exist that hand signed samples over as unsigned ones: the stream then says "signed, 16 bits" and holds 63536
 * for -2000. OpenJPEG would clamp that to 32767; said to be wider, it returns the value, which wraps to the right one.
 * Reversible decoding of signed samples depends on the precision nowhere else. Returns the stream's own precision. */
static uint32_t widen_signed(struct bytes *stream) {
    static const uint8_t start[] = {0xFF, 0x4F, 0xFF, 0x51};
    if (stream->size <= SSIZ_OFFSET || memcmp(stream->data, start, sizeof start) != 0)
        return 0;
    const uint8_t ssiz = stream->data[SSIZ_OFFSET];
    const uint32_t precision = (ssiz & ~(uint32_t)SSIZ_SIGNED) + 1;
    if ((ssiz & SSIZ_SIGNED) != 0 && precision <= 16)
        stream->data[SSIZ_OFFSET] = SSIZ_SIGNED | (SSIZ_WIDE - 1);
    return precision;
}

static bool check_image(const opj_image_t *image, const struct jpeg2000_image *expected, struct err *err) {
    if (image->numcomps != 1)
        return err_set(err, ERR_UNSUPPORTED, "JPEG 2000 stream has %u components, not 1", image->numcomps);
    const opj_image_comp_t *component = &image->comps[0];
    if (component->w != expected->columns || component->h != expected->rows) {
        return err_set(err, ERR_INPUT, "JPEG 2000 stream is %u x %u where the header says %u x %u", component->w,
                       component->h, expected->columns, expected->rows);
    }
    return true;
}

static void copy_values(const opj_image_comp_t *component, uint32_t precision, bool is_signed, int32_t *out) {
    const size_t count = (size_t)component->w * component->h;
    const int32_t range = 1 << precision;
    for (size_t i = 0; i < count; i++) {
        const int32_t value = component->data[i] & (range - 1);
        out[i] = is_signed && value >= range / 2 ? value - range : value;
    }
}

bool jpeg2000_decode(struct bytes *stream, const struct jpeg2000_image *image, int32_t *out, struct err *err) {
    uint32_t precision = widen_signed(stream);
    struct reader reader = {stream->data, stream->size, 0};
    PULMO_SCOPED(stream_free_at) opj_stream_t *input = open_reader(&reader);
    PULMO_SCOPED(codec_free_at) opj_codec_t *codec = opj_create_decompress(format_of(stream));
    PULMO_SCOPED(image_free_at) opj_image_t *decoded = NULL;
    if (input == NULL || codec == NULL)
        return err_set(err, ERR_MEMORY, "out of memory for the JPEG 2000 decoder");
    opj_set_error_handler(codec, ignore_message, NULL);
    opj_set_warning_handler(codec, ignore_message, NULL);
    opj_dparameters_t parameters;
    opj_set_default_decoder_parameters(&parameters);
    if (!opj_setup_decoder(codec, &parameters) || !opj_read_header(input, codec, &decoded))
        return err_set(err, ERR_INPUT, "JPEG 2000 stream has no readable header");
    if (!check_image(decoded, image, err))
        return false;
    precision = precision != 0 ? precision : decoded->comps[0].prec;
    if (precision > 16)
        return err_set(err, ERR_UNSUPPORTED, "JPEG 2000 stream of %u bits a sample", precision);
    if (!opj_decode(codec, input, decoded) || decoded->comps[0].data == NULL)
        return err_set(err, ERR_INPUT, "JPEG 2000 stream is damaged or cut off");
    if (!check_image(decoded, image, err))
        return false;
    copy_values(&decoded->comps[0], precision, image->is_signed, out);
    return true;
}

/* ---- writing to memory ------------------------------------------------------------------------------- */

struct writer {
    struct bytes bytes;
    size_t offset;
    bool failed;
};

static OPJ_SIZE_T write_some(void *buffer, OPJ_SIZE_T size, void *context) {
    struct writer *writer = context;
    const size_t overlap = writer->bytes.size - writer->offset < size ? writer->bytes.size - writer->offset : size;
    if (overlap > 0)
        memcpy(writer->bytes.data + writer->offset, buffer, overlap);
    const uint8_t *rest = (const uint8_t *)buffer + overlap;
    if (size > overlap && !bytes_append(&writer->bytes, rest, size - overlap, STREAM_BYTES_MAX, NULL)) {
        writer->failed = true;
        return (OPJ_SIZE_T)-1;
    }
    writer->offset += size;
    return size;
}

static OPJ_BOOL seek_written(OPJ_OFF_T offset, void *context) {
    struct writer *writer = context;
    if (offset < 0 || (size_t)offset > writer->bytes.size)
        return OPJ_FALSE;
    writer->offset = (size_t)offset;
    return OPJ_TRUE;
}

static OPJ_OFF_T skip_written(OPJ_OFF_T count, void *context) {
    const struct writer *writer = context;
    return seek_written((OPJ_OFF_T)writer->offset + count, context) ? count : -1;
}

static opj_image_t *image_of(const int32_t *values, const struct jpeg2000_image *image) {
    opj_image_cmptparm_t component = {.dx = 1,
                                      .dy = 1,
                                      .w = image->columns,
                                      .h = image->rows,
                                      .prec = image->bits,
                                      .bpp = image->bits,
                                      .sgnd = image->is_signed};
    opj_image_t *out = opj_image_create(1, &component, OPJ_CLRSPC_GRAY);
    if (out != NULL) {
        out->x1 = image->columns;
        out->y1 = image->rows;
        memcpy(out->comps[0].data, values, (size_t)image->columns * image->rows * sizeof *values);
    }
    return out;
}

static int resolutions_of(const struct jpeg2000_image *image) {
    int count = 1;
    for (uint32_t side = image->columns < image->rows ? image->columns : image->rows; side >= 2 && count < 6; count++)
        side /= 2;
    return count;
}

static bool encode(opj_codec_t *codec, opj_image_t *source, opj_stream_t *stream, int resolutions) {
    opj_cparameters_t parameters;
    opj_set_default_encoder_parameters(&parameters);
    parameters.tcp_numlayers = 1;
    parameters.tcp_rates[0] = 0; /* everything: lossless */
    parameters.cp_disto_alloc = 1;
    parameters.irreversible = 0;
    parameters.numresolution = resolutions;
    return opj_setup_encoder(codec, &parameters, source) && opj_start_compress(codec, source, stream) &&
           opj_encode(codec, stream) && opj_end_compress(codec, stream);
}

bool jpeg2000_encode(const int32_t *values, const struct jpeg2000_image *image, struct bytes *out, struct err *err) {
    struct writer writer = {.offset = 0};
    PULMO_SCOPED(codec_free_at) opj_codec_t *codec = opj_create_compress(OPJ_CODEC_J2K);
    PULMO_SCOPED(stream_free_at) opj_stream_t *stream = opj_stream_create(STREAM_BLOCK_SIZE, OPJ_FALSE);
    PULMO_SCOPED(image_free_at) opj_image_t *source = image_of(values, image);
    if (codec == NULL || stream == NULL || source == NULL)
        return err_set(err, ERR_MEMORY, "out of memory for the JPEG 2000 encoder");
    opj_set_error_handler(codec, ignore_message, NULL);
    opj_set_warning_handler(codec, ignore_message, NULL);
    opj_stream_set_write_function(stream, write_some);
    opj_stream_set_skip_function(stream, skip_written);
    opj_stream_set_seek_function(stream, seek_written);
    opj_stream_set_user_data(stream, &writer, NULL);
    if (!encode(codec, source, stream, resolutions_of(image)) || writer.failed) {
        bytes_free(&writer.bytes);
        return err_set(err, ERR_INTERNAL, "JPEG 2000 encoder refuses a %u x %u image", image->columns, image->rows);
    }
    *out = writer.bytes;
    return true;
}
