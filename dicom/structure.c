#include "dicom/structure.h"

#include <ctype.h>
#include <string.h>

static const uint32_t TAG_ITEM = 0xFFFEE000, TAG_ITEM_END = 0xFFFEE00D, TAG_SEQUENCE_END = 0xFFFEE0DD;
static const uint32_t TAG_PIXEL_DATA = 0x7FE00010;
static const uint32_t UNDEFINED_LENGTH = 0xFFFFFFFF; /* PS3.5 7.1.1 */

/* A container that is open: the data set, a sequence (holds items) or an item (holds elements). */
struct level {
    size_t end; /* offset behind its last byte; of an undefined length: that of its parent */
    bool undefined, holds_items, explicit_vr, fragments;
    uint32_t last_tag;
};

struct walk {
    const uint8_t *data;
    size_t offset;
    bool big_endian;
    bool header_only, at_pixel_data;
    struct structure_pixels pixels;
    bool in_pixels; /* of the data set's first Pixel Data; DCMTK ignores a second one as well */
    size_t depth, elements, disorder;
    struct level levels[2 * STRUCTURE_DEPTH_MAX + 1];
};

struct header {
    uint32_t tag, length;
    char vr[3];
};

static uint16_t read_u16(const struct walk *walk, size_t at) {
    const uint8_t *p = walk->data + at;
    return (uint16_t)(walk->big_endian ? p[0] << 8 | p[1] : p[1] << 8 | p[0]);
}

static uint32_t read_u32(const struct walk *walk, size_t at) {
    const uint32_t first = read_u16(walk, at), second = read_u16(walk, at + 2);
    return walk->big_endian ? first << 16 | second : second << 16 | first;
}

/* Short form of PS3.5 7.1.2: these, and what DCMTK reads the same way, a VR that is not two capital letters. */
static bool has_short_length(const char vr[3]) {
    static const char names[] = "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US ";
    for (const char *name = names; *name != '\0'; name += 3)
        if (memcmp(name, vr, 2) == 0)
            return true;
    return vr[0] < 'A' || vr[0] > 'Z' || vr[1] < 'A' || vr[1] > 'Z';
}

static bool read_header(struct walk *walk, const struct level *level, struct header *out, struct err *err) {
    const size_t left = level->end - walk->offset;
    if (left < 8)
        return err_set(err, ERR_INPUT, "data set ends within an element, at byte %zu", walk->offset);
    struct header header = {.tag = (uint32_t)read_u16(walk, walk->offset) << 16 | read_u16(walk, walk->offset + 2)};
    size_t size = 8;
    if (header.tag >> 16 == 0xFFFE || !level->explicit_vr) {
        header.length = read_u32(walk, walk->offset + 4);
    } else {
        memcpy(header.vr, walk->data + walk->offset + 4, 2);
        if (has_short_length(header.vr)) {
            header.length = read_u16(walk, walk->offset + 6);
        } else if (left < 12) {
            return err_set(err, ERR_INPUT, "data set ends within an element, at byte %zu", walk->offset);
        } else {
            header.length = read_u32(walk, walk->offset + 8);
            size = 12;
        }
    }
    walk->offset += size;
    walk->at_pixel_data = walk->depth == 0 && header.tag >= TAG_PIXEL_DATA;
    if (walk->header_only && walk->at_pixel_data) {
        *out = header;
        return true;
    }
    if (header.length != UNDEFINED_LENGTH && header.length > level->end - walk->offset) {
        return err_set(err, ERR_INPUT, "element (%04X,%04X) promises %u bytes where %zu are left", header.tag >> 16,
                       header.tag & 0xFFFF, header.length, level->end - walk->offset);
    }
    *out = header;
    return true;
}

static bool enter(struct walk *walk, const struct header *header, struct level level, struct err *err) {
    if (walk->depth + 1 == sizeof walk->levels / sizeof walk->levels[0])
        return err_set(err, ERR_LIMIT, "sequences are nested more than %d deep", STRUCTURE_DEPTH_MAX);
    level.undefined = header->length == UNDEFINED_LENGTH;
    level.end = level.undefined ? walk->levels[walk->depth].end : walk->offset + header->length;
    walk->levels[++walk->depth] = level;
    return true;
}

static bool step_items(struct walk *walk, const struct level *level, struct err *err) {
    struct header header = {0};
    if (!read_header(walk, level, &header, err))
        return false;
    if (header.tag == TAG_SEQUENCE_END && level->undefined) {
        walk->depth--;
        return true;
    }
    if (header.tag != TAG_ITEM || (level->fragments && header.length == UNDEFINED_LENGTH)) {
        return err_set(err, ERR_INPUT, "(%04X,%04X) where an item must be, before byte %zu", header.tag >> 16,
                       header.tag & 0xFFFF, walk->offset);
    }
    if (level->fragments) {
        walk->offset += header.length;
        walk->pixels.fragments += walk->depth == 1 && walk->in_pixels; /* deeper ones are an icon's */
        return true;
    }
    return enter(walk, &header, (struct level){.explicit_vr = level->explicit_vr}, err);
}

/* Implicit VR hides which elements are sequences: one that begins with an item is walked as such. */
static bool looks_like_items(const struct walk *walk, const struct header *header) {
    return header->length >= 8 && read_u16(walk, walk->offset) == 0xFFFE && read_u16(walk, walk->offset + 2) == 0xE000;
}

static bool is_sequence(const struct walk *walk, const struct level *level, const struct header *header) {
    if (header->length == UNDEFINED_LENGTH || strcmp(header->vr, "SQ") == 0)
        return true;
    return !level->explicit_vr && header->tag != TAG_PIXEL_DATA && looks_like_items(walk, header);
}

/* Elements are in ascending order (PS3.5 7.1); a few that are not are tolerated. */
static bool count_element(struct walk *walk, const struct header *header, struct err *err) {
    uint32_t *last_tag = &walk->levels[walk->depth].last_tag;
    walk->disorder += header->tag < *last_tag;
    *last_tag = header->tag;
    return walk->disorder <= STRUCTURE_DISORDER_MAX ||
           err_set(err, ERR_LIMIT, "more than %d elements are out of order", STRUCTURE_DISORDER_MAX);
}

/* Pixel Data in fragments is OB or OW (PS3.5 A.4); a parser may take any other VR for a sequence of elements. */
static bool is_fragments(const struct level *level, const struct header *header) {
    return header->tag == TAG_PIXEL_DATA && header->length == UNDEFINED_LENGTH &&
           (!level->explicit_vr || strcmp(header->vr, "OB") == 0 || strcmp(header->vr, "OW") == 0);
}

static bool may_be_undefined(const struct level *level, const struct header *header) {
    return !level->explicit_vr || strcmp(header->vr, "SQ") == 0 || strcmp(header->vr, "UN") == 0 ||
           is_fragments(level, header);
}

static void note_pixels(struct walk *walk, const struct level *level, const struct header *header) {
    const bool is_native = !level->explicit_vr || strcmp(header->vr, "OB") == 0 || strcmp(header->vr, "OW") == 0 ||
                           strcmp(header->vr, "UN") == 0;
    if (walk->depth > 0)
        return;
    walk->in_pixels = header->tag == TAG_PIXEL_DATA && !walk->pixels.present;
    if (header->tag < TAG_PIXEL_DATA)
        walk->pixels.is_last = false;
    if (!walk->in_pixels)
        return;
    walk->pixels.present = walk->pixels.is_last = true;
    walk->pixels.size = is_native && header->length != UNDEFINED_LENGTH ? header->length : 0;
}

static bool step_elements(struct walk *walk, const struct level *level, struct err *err) {
    struct header header = {0};
    if (!read_header(walk, level, &header, err))
        return false;
    if (header.tag == TAG_ITEM_END && level->undefined) {
        walk->depth--;
        return true;
    }
    if (header.tag >> 16 == 0xFFFE)
        return err_set(err, ERR_INPUT, "a delimiter without a beginning before byte %zu", walk->offset);
    if (!count_element(walk, &header, err))
        return false;
    note_pixels(walk, level, &header);
    if (walk->header_only && walk->at_pixel_data)
        return true;
    if (!is_sequence(walk, level, &header)) {
        walk->offset += header.length;
        return true;
    }
    if (header.length == UNDEFINED_LENGTH && !may_be_undefined(level, &header))
        return err_set(err, ERR_INPUT, "element (%04X,%04X) with VR %s has no length", header.tag >> 16,
                       header.tag & 0xFFFF,
                       isalpha((unsigned char)header.vr[0]) && isalpha((unsigned char)header.vr[1]) ? header.vr : "?");
    /* A UN of undefined length is a sequence in Implicit VR, whatever surrounds it: PS3.5 6.2.2 note 2, CP-246. */
    const struct level sequence = {.holds_items = true,
                                   .explicit_vr = level->explicit_vr && strcmp(header.vr, "UN") != 0,
                                   .fragments = is_fragments(level, &header)};
    return enter(walk, &header, sequence, err);
}

static bool walk_all(struct walk *walk, struct err *err) {
    for (;;) {
        const struct level level = walk->levels[walk->depth];
        if (walk->offset < level.end) {
            if (++walk->elements > STRUCTURE_ELEMENTS_MAX)
                return err_set(err, ERR_LIMIT, "more than %d elements", STRUCTURE_ELEMENTS_MAX);
            if (!(level.holds_items ? step_items(walk, &level, err) : step_elements(walk, &level, err)))
                return false;
            if (walk->header_only && walk->at_pixel_data)
                return true;
        } else if (walk->depth == 0) {
            return true;
        } else if (level.undefined) {
            return err_set(err, ERR_INPUT, "a sequence or item is cut off at byte %zu", walk->offset);
        } else {
            walk->depth--;
        }
    }
}

bool structure_check_image(const void *data, size_t size, struct part10_encoding encoding, struct structure_pixels *out,
                           struct err *err) {
    struct walk walk = {.data = data, .big_endian = encoding.big_endian};
    walk.levels[0] = (struct level){.end = size, .explicit_vr = encoding.explicit_vr};
    if (!walk_all(&walk, err))
        return false;
    *out = walk.pixels;
    return true;
}

bool structure_check(const void *data, size_t size, struct part10_encoding encoding, struct err *err) {
    struct structure_pixels ignored;
    return structure_check_image(data, size, encoding, &ignored, err);
}

bool structure_check_header(const void *data, size_t size, struct part10_encoding encoding, struct err *err) {
    struct walk walk = {.data = data, .big_endian = encoding.big_endian, .header_only = true};
    walk.levels[0] = (struct level){.end = size, .explicit_vr = encoding.explicit_vr};
    return walk_all(&walk, err);
}
