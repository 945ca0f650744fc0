#include "dicom/jpegls.h"

#include <stdlib.h>
#include <string.h>

/* Names are those of the standard, so that each step can be read beside its clause. */
enum { CONTEXTS = 365, C_MIN = -128, C_MAX = 127, RESET_DEFAULT = 64 };
/* What valid streams stay below; damaged ones must not overflow an int on the way. */
enum { RESET_MAX = 4096, MAPPED_MAX = 1 << 18 };

struct coding { /* C.2.4.1, A.2.1 */
    int precision, maxval, near_error, t1, t2, t3, reset;
    int range, qbpp, limit, step; /* step = 2 NEAR + 1 */
};

struct reader {
    const uint8_t *data;
    size_t size, at;
    uint64_t cache;
    int bits, missing; /* missing: zero bits appended behind the end */
    bool after_ff;
};

struct context {
    int a, b, c, n;
};

struct decoder {
    struct coding coding;
    struct reader reader;
    struct context contexts[CONTEXTS];
    struct context run[2]; /* of run interruption; b counts negative errors (Nn) */
    int run_index;
    uint32_t columns;
};

/* A.7.1.1 */
static const uint8_t RUN_ORDER[32] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,  2,  3,  3,  3,  3,
                                      4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13, 14, 15};

static int clamp(int value, int low, int high) {
    return value < low ? low : value > high ? high : value;
}

/* ---- bits -------------------------------------------------------------------------------------------- */

/* Fills the cache; a byte after FF holds 7 bits (A.1), and a marker ends the data: zeros follow, and are counted. */
static void refill(struct reader *reader) {
    while (reader->bits <= 48) {
        const bool ends = reader->at >= reader->size || (reader->after_ff && reader->data[reader->at] >= 0x80);
        const int width = reader->after_ff && !ends ? 7 : 8;
        const uint8_t byte = ends ? 0 : reader->data[reader->at];
        reader->cache = reader->cache << width | byte;
        reader->bits += width;
        reader->missing += ends ? width : 0;
        reader->at += !ends;
        reader->after_ff = ends ? reader->after_ff : byte == 0xFF;
    }
}

static uint32_t read_bits(struct reader *reader, int count) {
    if (reader->bits < count)
        refill(reader);
    reader->bits -= count;
    return (uint32_t)(reader->cache >> reader->bits & ((UINT64_C(1) << count) - 1));
}

static bool is_beyond_end(const struct reader *reader) {
    return reader->missing > reader->bits;
}

/* Golomb code of limited length, A.5.3: at most 64 bits. */
static int read_golomb(struct decoder *decoder, int k, int limit) {
    int zeros = 0;
    while (zeros < limit - decoder->coding.qbpp - 1 && read_bits(&decoder->reader, 1) == 0)
        zeros++;
    uint64_t value = 0;
    if (zeros < limit - decoder->coding.qbpp - 1) {
        value = (uint64_t)zeros << k | read_bits(&decoder->reader, k);
    } else {
        (void)read_bits(&decoder->reader, 1);
        value = (uint64_t)read_bits(&decoder->reader, decoder->coding.qbpp) + 1;
    }
    return value < MAPPED_MAX ? (int)value : MAPPED_MAX;
}

/* ---- samples ----------------------------------------------------------------------------------------- */

static int quantise(const struct coding *coding, int d) { /* A.3.3 */
    const int size = abs(d);
    const int q = size <= coding->near_error ? 0
                  : size < coding->t1        ? 1
                  : size < coding->t2        ? 2
                  : size < coding->t3        ? 3
                                             : 4;
    return d < 0 ? -q : q;
}

static int predict(int ra, int rb, int rc) { /* A.4.1 */
    const int low = ra < rb ? ra : rb, high = ra < rb ? rb : ra;
    return rc >= high ? low : rc <= low ? high : ra + rb - rc;
}

static int golomb_order(int n, int a) { /* A.5.1; n >= 1, a <= RESET_MAX * MAPPED_MAX */
    int k = 0;
    while ((int64_t)n << k < a)
        k++;
    return k;
}

static int reconstruct(const struct coding *coding, int predicted, int error) { /* A.4.4, A.8.2 */
    int value = predicted + error * coding->step;
    if (value < -coding->near_error)
        value += coding->range * coding->step;
    else if (value > coding->maxval + coding->near_error)
        value -= coding->range * coding->step;
    return clamp(value, 0, coding->maxval);
}

static void update(const struct coding *coding, struct context *context, int error) { /* A.6 */
    context->b += error * coding->step;
    context->a += abs(error);
    if (context->n == coding->reset) {
        context->a >>= 1;
        context->b = context->b >= 0 ? context->b >> 1 : -((1 - context->b) >> 1);
        context->n >>= 1;
    }
    context->n++;
    if (context->b <= -context->n) {
        context->b = context->b + context->n > -context->n ? context->b + context->n : 1 - context->n;
        context->c -= context->c > C_MIN;
    } else if (context->b > 0) {
        context->b = context->b - context->n < 0 ? context->b - context->n : 0;
        context->c += context->c < C_MAX;
    }
}

static int unmap(int mapped, bool inverted) { /* A.5.2 */
    if (inverted)
        return mapped % 2 != 0 ? (mapped - 1) / 2 : -(mapped / 2) - 1;
    return mapped % 2 == 0 ? mapped / 2 : -(mapped + 1) / 2;
}

static int read_regular(struct decoder *decoder, int q, int predicted) {
    const struct coding *coding = &decoder->coding;
    const int sign = q < 0 ? -1 : 1;
    struct context *context = &decoder->contexts[abs(q)];
    const int corrected = clamp(predicted + sign * context->c, 0, coding->maxval);
    const int k = golomb_order(context->n, context->a);
    const bool inverted = coding->near_error == 0 && k == 0 && 2 * context->b <= -context->n;
    const int error = unmap(read_golomb(decoder, k, coding->limit), inverted);
    update(coding, context, error);
    return reconstruct(coding, corrected, sign * error);
}

static int read_interruption(struct decoder *decoder, int ra, int rb) { /* A.7.2 */
    const struct coding *coding = &decoder->coding;
    const int type = abs(ra - rb) <= coding->near_error;
    struct context *context = &decoder->run[type];
    const int k = golomb_order(context->n, type != 0 ? context->a + (context->n >> 1) : context->a);
    const int mapped = read_golomb(decoder, k, coding->limit - RUN_ORDER[decoder->run_index] - 1);
    const int map = (mapped + type) & 1, size = (mapped + type + map) / 2;
    const int negative = k != 0 || 2 * context->b >= context->n;
    const int error = negative == map ? -size : size;
    context->b += error < 0;
    context->a += (mapped + 1 - type) >> 1;
    if (context->n == coding->reset) {
        context->a >>= 1;
        context->n >>= 1;
        context->b >>= 1;
    }
    context->n++;
    return reconstruct(coding, type != 0 ? ra : rb, type == 0 && ra > rb ? -error : error);
}

/* Samples equal to the one before, A.7.1.2; returns the column behind them, or 0 where they reach beyond the line. */
static uint32_t read_run(struct decoder *decoder, uint16_t *line, uint32_t x) {
    const uint16_t value = line[x - 1];
    const uint32_t end = decoder->columns + 1;
    while (read_bits(&decoder->reader, 1) == 1) {
        const uint32_t length = 1U << RUN_ORDER[decoder->run_index];
        const uint32_t stop = length < end - x ? x + length : end;
        decoder->run_index += stop - x == length && decoder->run_index < 31;
        while (x < stop)
            line[x++] = value;
        if (x == end)
            return end;
    }
    const int order = RUN_ORDER[decoder->run_index];
    const uint32_t rest = order > 0 ? read_bits(&decoder->reader, order) : 0;
    if (rest >= end - x)
        return 0;
    for (const uint32_t stop = x + rest; x < stop; x++)
        line[x] = value;
    return x;
}

/* One line; samples lie from index 1, with one column of neighbours on each side. */
static bool read_line(struct decoder *decoder, const uint16_t *above, uint16_t *line) {
    const struct coding *coding = &decoder->coding;
    for (uint32_t x = 1; x <= decoder->columns; x++) {
        const int ra = line[x - 1], rb = above[x], rc = above[x - 1], rd = above[x + 1];
        const int q = 81 * quantise(coding, rd - rb) + 9 * quantise(coding, rb - rc) + quantise(coding, rc - ra);
        if (q != 0) {
            line[x] = (uint16_t)read_regular(decoder, q, predict(ra, rb, rc));
            continue;
        }
        x = read_run(decoder, line, x);
        if (x == 0)
            return false;
        if (x > decoder->columns)
            break;
        line[x] = (uint16_t)read_interruption(decoder, line[x - 1], above[x]);
        decoder->run_index -= decoder->run_index > 0;
    }
    return !is_beyond_end(&decoder->reader);
}

/* ---- headers ----------------------------------------------------------------------------------------- */

static int read_u16(const uint8_t *p) {
    return p[0] << 8 | p[1];
}

static int bits_for(int count) { /* the least n with 2^n >= count */
    int bits = 0;
    while ((1 << bits) < count)
        bits++;
    return bits;
}

static int threshold(int value, int least, int maxval) {
    return value > maxval || value < least ? least : value;
}

static void set_thresholds(struct coding *coding) { /* C.2.4.1.1 */
    const int e = coding->near_error;
    int basic[3] = {3, 7, 21};
    if (coding->maxval >= 128) {
        const int factor = ((coding->maxval < 4095 ? coding->maxval : 4095) + 128) / 256;
        basic[0] = factor * (3 - 2) + 2 + 3 * e;
        basic[1] = factor * (7 - 3) + 3 + 5 * e;
        basic[2] = factor * (21 - 4) + 4 + 7 * e;
    } else {
        const int factor = 256 / (coding->maxval + 1);
        basic[0] = clamp(3 / factor + 3 * e, 2, INT16_MAX);
        basic[1] = clamp(7 / factor + 5 * e, 3, INT16_MAX);
        basic[2] = clamp(21 / factor + 7 * e, 4, INT16_MAX);
    }
    coding->t1 = coding->t1 > 0 ? coding->t1 : threshold(basic[0], e + 1, coding->maxval);
    coding->t2 = coding->t2 > 0 ? coding->t2 : threshold(basic[1], coding->t1, coding->maxval);
    coding->t3 = coding->t3 > 0 ? coding->t3 : threshold(basic[2], coding->t2, coding->maxval);
}

static bool finish_coding(struct coding *coding, struct err *err) {
    const int natural = (1 << coding->precision) - 1;
    coding->maxval = coding->maxval > 0 ? coding->maxval : natural;
    coding->reset = coding->reset > 0 ? coding->reset : RESET_DEFAULT;
    if (coding->maxval > natural || coding->near_error > 255 || 2 * coding->near_error > coding->maxval)
        return err_set(err, ERR_INPUT, "JPEG-LS parameters MAXVAL %d, NEAR %d at %d bits", coding->maxval,
                       coding->near_error, coding->precision);
    set_thresholds(coding);
    if (coding->t1 <= coding->near_error || coding->t2 < coding->t1 || coding->t3 < coding->t2 ||
        coding->t3 > coding->maxval || coding->reset < 3 || coding->reset > RESET_MAX)
        return err_set(err, ERR_INPUT, "JPEG-LS thresholds %d, %d, %d and RESET %d", coding->t1, coding->t2, coding->t3,
                       coding->reset);
    coding->step = 2 * coding->near_error + 1;
    coding->range = (coding->maxval + 2 * coding->near_error) / coding->step + 1;
    coding->qbpp = bits_for(coding->range);
    const int bpp = clamp(bits_for(coding->maxval + 1), 2, 16);
    coding->limit = 2 * (bpp + (bpp > 8 ? bpp : 8));
    return true;
}

struct headers {
    struct coding coding;
    int rows, columns, components;
};

/* One marker segment; *scan_begins with SOS. */
static bool read_segment(uint8_t marker, const uint8_t *p, size_t size, struct headers *out, bool *scan_begins,
                         struct err *err) {
    if (marker == 0xF7 && size >= 6) {
        out->coding.precision = p[0];
        out->rows = read_u16(p + 1);
        out->columns = read_u16(p + 3);
        out->components = p[5];
    } else if (marker == 0xF8 && size >= 11 && p[0] == 1) {
        out->coding.maxval = read_u16(p + 1);
        out->coding.t1 = read_u16(p + 3);
        out->coding.t2 = read_u16(p + 5);
        out->coding.t3 = read_u16(p + 7);
        out->coding.reset = read_u16(p + 9);
    } else if (marker == 0xDA && size >= 6) {
        *scan_begins = true;
        out->coding.near_error = p[3];
        if (p[0] != 1 || p[2] != 0 || p[5] != 0)
            return err_set(err, ERR_UNSUPPORTED, "JPEG-LS scan of %u components, mapped or shifted", p[0]);
    } else if (marker == 0xF8 || marker == 0xDD || marker == 0xF7 || marker == 0xDA) {
        return err_set(err, ERR_UNSUPPORTED, "JPEG-LS marker FF%02X of %zu bytes", marker, size);
    }
    return true;
}

/* Reads up to the scan's first byte. */
static bool read_headers(const struct bytes *stream, struct headers *out, size_t *scan, struct err *err) {
    bool scan_begins = false;
    size_t at = 2;
    if (stream->size < 2 || read_u16(stream->data) != 0xFFD8)
        return err_set(err, ERR_INPUT, "not a JPEG-LS stream");
    while (!scan_begins) {
        if (stream->size - at < 4 || stream->data[at] != 0xFF)
            return err_set(err, ERR_INPUT, "JPEG-LS stream ends before its scan, at byte %zu", at);
        const uint8_t *p = stream->data + at;
        const size_t length = (size_t)read_u16(p + 2);
        if (p[1] == 0xFF) { /* a fill byte */
            at++;
            continue;
        }
        if (length < 2 || length > stream->size - at - 2)
            return err_set(err, ERR_INPUT, "JPEG-LS marker FF%02X reaches beyond the stream", p[1]);
        if (!read_segment(p[1], p + 4, length - 2, out, &scan_begins, err))
            return false;
        at += 2 + length;
    }
    *scan = at;
    return true;
}

static bool check_headers(const struct headers *headers, const struct jpegls_image *image, struct err *err) {
    if (headers->rows != (int)image->rows || headers->columns != (int)image->columns || headers->components != 1)
        return err_set(err, ERR_INPUT, "JPEG-LS stream is %d x %d x %d where the header says %u x %u", headers->columns,
                       headers->rows, headers->components, image->columns, image->rows);
    return (headers->coding.precision >= 2 && headers->coding.precision <= 16) ||
           err_set(err, ERR_INPUT, "JPEG-LS stream of %d bits", headers->coding.precision);
}

/* ---- the image --------------------------------------------------------------------------------------- */

static void reset(struct decoder *decoder) { /* A.2.1 */
    const int a = (decoder->coding.range + 32) / 64;
    const struct context initial = {.a = a > 2 ? a : 2, .n = 1};
    for (size_t i = 0; i < CONTEXTS; i++)
        decoder->contexts[i] = initial;
    decoder->run[0] = decoder->run[1] = initial;
}

bool jpegls_decode(const struct bytes *stream, const struct jpegls_image *image, uint16_t *out, uint32_t *precision,
                   struct err *err) {
    struct headers headers = {.rows = 0};
    struct decoder decoder = {.columns = image->columns};
    size_t scan = 0;
    if (!read_headers(stream, &headers, &scan, err) || !check_headers(&headers, image, err) ||
        !finish_coding(&headers.coding, err))
        return false;
    decoder.coding = headers.coding;
    decoder.reader = (struct reader){.data = stream->data + scan, .size = stream->size - scan};
    reset(&decoder);
    PULMO_SCOPED(pulmo_free_at) uint16_t *lines = pulmo_alloc(2 * ((size_t)image->columns + 2), sizeof *lines, err);
    if (lines == NULL)
        return false;
    uint16_t *above = lines, *line = lines + image->columns + 2;
    for (uint32_t y = 0; y < image->rows; y++) {
        above[image->columns + 1] = above[image->columns]; /* A.2.1: neighbours outside the image */
        line[0] = above[1];
        if (!read_line(&decoder, above, line))
            return err_set(err, ERR_INPUT, "JPEG-LS stream is damaged or cut off in line %u of %u", y, image->rows);
        memcpy(out + (size_t)y * image->columns, line + 1, image->columns * sizeof *out);
        uint16_t *const swap = above;
        above = line;
        line = swap;
    }
    *precision = (uint32_t)headers.coding.precision;
    return true;
}
