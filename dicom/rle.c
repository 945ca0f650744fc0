#include "dicom/rle.h"

enum { HEADER_SIZE = 64 };

static size_t read_u32(const uint8_t *p) {
    return (size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 | (size_t)p[3] << 24;
}

/* PackBits, G.3.2: 0 to 127 copies that many bytes and one, 129 to 255 repeats the next byte 257 - n times. Every
 * stride-th byte of `out` is written. */
static bool decode_segment(const uint8_t *data, size_t size, size_t count, size_t stride, uint8_t *out) {
    size_t at = 0, done = 0;
    while (done < count && at < size) {
        const uint8_t control = data[at++];
        const bool repeats = control > 128;
        const size_t run = repeats ? 257U - control : control + 1U;
        if (control == 128)
            continue;
        if (run > count - done || (repeats ? 1 : run) > size - at)
            return false;
        for (size_t i = 0; i < run; i++)
            out[(done + i) * stride] = data[repeats ? at : at + i];
        at += repeats ? 1 : run;
        done += run;
    }
    return done == count;
}

bool rle_decode(const struct bytes *frame, size_t count, size_t sample_size, uint8_t *out, struct err *err) {
    if (frame->size < HEADER_SIZE || read_u32(frame->data) != sample_size)
        return err_set(err, ERR_INPUT, "RLE frame has %zu segments where %zu are needed",
                       frame->size < HEADER_SIZE ? 0 : read_u32(frame->data), sample_size);
    for (size_t segment = 0; segment < sample_size; segment++) {
        const uint8_t *offsets = frame->data + 4 + 4 * segment;
        const size_t begin = read_u32(offsets);
        const size_t end = segment + 1 < sample_size ? read_u32(offsets + 4) : frame->size;
        if (begin < HEADER_SIZE || begin > end || end > frame->size)
            return err_set(err, ERR_INPUT, "RLE segment %zu lies from byte %zu to %zu of %zu", segment, begin, end,
                           frame->size);
        /* the most significant byte comes first, G.2 */
        if (!decode_segment(frame->data + begin, end - begin, count, sample_size, out + sample_size - 1 - segment))
            return err_set(err, ERR_INPUT, "RLE segment %zu does not hold %zu bytes", segment, count);
    }
    return true;
}
