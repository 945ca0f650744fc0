#include "dicom/part10.h"

#include <string.h>

enum { PREAMBLE_SIZE = 128, META_SIZE_MAX = 64 * 1024 };

static uint16_t read_u16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t read_u32(const uint8_t *p) {
    return (uint32_t)read_u16(p) | (uint32_t)read_u16(p + 2) << 16;
}

/* One element of group 0002: always Explicit VR Little Endian, PS3.10 7.1. */
struct element {
    uint16_t number;
    const uint8_t *value;
    size_t value_size, total_size;
};

static bool has_long_length(const uint8_t *vr) {
    static const char names[][3] = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (memcmp(vr, names[i], 2) == 0)
            return true;
    return false;
}

static bool read_element(const uint8_t *p, size_t left, struct element *out) {
    if (left < 8)
        return false;
    const bool is_long = has_long_length(p + 4);
    const size_t head = is_long ? 12 : 8;
    if (left < head)
        return false;
    const size_t length = is_long ? read_u32(p + 8) : read_u16(p + 6);
    if (length > left - head || length > META_SIZE_MAX)
        return false;
    *out = (struct element){read_u16(p + 2), p + head, length, head + length};
    return true;
}

/* UIDs are padded with one NUL (PS3.5 9.1), by some writers with spaces. */
static void copy_uid(const struct element *element, char out[DICOM_UID_SIZE]) {
    size_t size = element->value_size;
    while (size > 0 && (element->value[size - 1] == 0 || element->value[size - 1] == ' '))
        size--;
    if (size < DICOM_UID_SIZE && memchr(element->value, 0, size) == NULL) {
        memcpy(out, element->value, size);
        out[size] = '\0';
    }
}

static bool read_meta(const uint8_t *file, size_t size, size_t offset, struct part10 *out, struct err *err) {
    while (size - offset >= 4 && read_u16(file + offset) == 0x0002) {
        struct element element;
        if (!read_element(file + offset, size - offset, &element))
            return err_set(err, ERR_INPUT, "file meta information is cut off or oversize at byte %zu", offset);
        switch (element.number) {
        case 0x0002: copy_uid(&element, out->sop_class_uid); break;
        case 0x0003: copy_uid(&element, out->sop_instance_uid); break;
        case 0x0010: copy_uid(&element, out->transfer_syntax_uid); break;
        default: break;
        }
        offset += element.total_size;
    }
    out->dataset_offset = offset;
    return true;
}

static bool is_vr(const uint8_t *p) {
    return p[0] >= 'A' && p[0] <= 'Z' && p[1] >= 'A' && p[1] <= 'Z';
}

/* The first element of a data set tells its layout: its group is small, so the zero byte shows the byte order. */
static const char *guess_syntax(const uint8_t *p, size_t left) {
    if (left < 8)
        return NULL;
    const bool little = p[0] != 0 && p[1] == 0;
    const bool big = p[0] == 0 && p[1] != 0;
    if (little)
        return is_vr(p + 4) ? "1.2.840.10008.1.2.1" : "1.2.840.10008.1.2";
    return big && is_vr(p + 4) ? "1.2.840.10008.1.2.2" : NULL;
}

bool part10_split(const void *file, size_t size, struct part10 *out, struct err *err) {
    const uint8_t *bytes = file;
    struct part10 meta = {.dataset_offset = 0};
    size_t start = 0;
    if (size >= PREAMBLE_SIZE + 4 && memcmp(bytes + PREAMBLE_SIZE, "DICM", 4) == 0)
        start = PREAMBLE_SIZE + 4;
    else if (size >= 4 && memcmp(bytes, "DICM", 4) == 0)
        start = 4;
    if (!read_meta(bytes, size, start, &meta, err))
        return false;
    if (meta.transfer_syntax_uid[0] == '\0') {
        const char *guess = guess_syntax(bytes + meta.dataset_offset, size - meta.dataset_offset);
        if (guess == NULL)
            return err_set(err, ERR_INPUT, "not a DICOM file: no meta information and no data set that can be told");
        memcpy(meta.transfer_syntax_uid, guess, strlen(guess) + 1);
    }
    *out = meta;
    return true;
}

static void put_u16(uint8_t *p, uint32_t value) {
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
}

static bool append_text(struct bytes *out, uint16_t number, const char vr[3], const char *text, struct err *err) {
    uint8_t element[8 + DICOM_UID_SIZE + 1] = {0x02, 0x00};
    size_t length = strnlen(text, DICOM_UID_SIZE - 1);
    put_u16(element + 2, number);
    memcpy(element + 4, vr, 2);
    memcpy(element + 8, text, length);
    if (length % 2 != 0)
        element[8 + length++] = vr[0] == 'U' ? '\0' : ' ';
    put_u16(element + 6, (uint32_t)length);
    return bytes_append(out, element, 8 + length, PULMO_ALLOC_MAX, err);
}

bool part10_write_meta(const struct part10 *meta, const char *calling_aet, struct bytes *out, struct err *err) {
    static const uint8_t version[] = {2, 0, 1, 0, 'O', 'B', 0, 0, 2, 0, 0, 0, 0, 1};
    uint8_t head[PREAMBLE_SIZE + 4 + 12] = {0};
    memcpy(head + PREAMBLE_SIZE, "DICM\2\0\0\0UL\4\0", 12);
    const size_t start = out->size;
    if (!bytes_append(out, head, sizeof head, PULMO_ALLOC_MAX, err) ||
        !bytes_append(out, version, sizeof version, PULMO_ALLOC_MAX, err) ||
        !append_text(out, 0x0002, "UI", meta->sop_class_uid, err) ||
        !append_text(out, 0x0003, "UI", meta->sop_instance_uid, err) ||
        !append_text(out, 0x0010, "UI", meta->transfer_syntax_uid, err) ||
        !append_text(out, 0x0012, "UI", PART10_IMPLEMENTATION_UID, err) ||
        !append_text(out, 0x0013, "SH", PART10_IMPLEMENTATION_NAME, err) ||
        (calling_aet[0] != '\0' && !append_text(out, 0x0016, "AE", calling_aet, err)))
        return false;
    const size_t length = out->size - start - sizeof head;
    put_u16(out->data + start + sizeof head - 4, (uint32_t)length);
    return true;
}

struct part10_encoding part10_encoding_of(const char *uid) {
    static const struct {
        const char *uid;
        struct part10_encoding encoding;
    } native[] = {
        {"1.2.840.10008.1.2", {.explicit_vr = false}},
        {"1.2.840.10008.1.2.1", {.explicit_vr = true}},
        {"1.2.840.10008.1.2.2", {.explicit_vr = true, .big_endian = true}},
        {"1.2.840.10008.1.2.1.99", {.explicit_vr = true, .deflated = true}},
    };
    for (size_t i = 0; i < sizeof native / sizeof native[0]; i++)
        if (strcmp(uid, native[i].uid) == 0)
            return native[i].encoding;
    return (struct part10_encoding){.explicit_vr = true, .encapsulated = true};
}
