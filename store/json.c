#include "store/json.h"

#include <stdio.h>
#include <string.h>

static bool add(struct bytes *json, const char *text, struct err *err) {
    return bytes_append(json, text, strlen(text), JSON_SIZE_MAX, err);
}

/* Length of the UTF-8 sequence at text, 0 when it is none (RFC 3629: no overlong forms, no surrogates). */
static size_t utf8_length(const unsigned char *text) {
    if (text[0] < 0x80)
        return 1;
    size_t length = text[0] >= 0xc2 && text[0] <= 0xdf   ? 2
                    : text[0] >= 0xe0 && text[0] <= 0xef ? 3
                    : text[0] >= 0xf0 && text[0] <= 0xf4 ? 4
                                                         : 0;
    for (size_t index = 1; index < length; index++)
        if ((text[index] & 0xc0) != 0x80) /* also stops at the NUL */
            return 0;
    bool overlong = (text[0] == 0xe0 && text[1] < 0xa0) || (text[0] == 0xf0 && text[1] < 0x90);
    bool beyond = (text[0] == 0xed && text[1] > 0x9f) || (text[0] == 0xf4 && text[1] > 0x8f);
    return overlong || beyond ? 0 : length;
}

/* One character of a string; *used bytes of text were read. */
static bool add_character(struct bytes *json, const unsigned char *text, size_t *used, struct err *err) {
    char escape[8];
    size_t length = utf8_length(text);
    *used = length ? length : 1;
    if (!length)
        return add(json, "\xef\xbf\xbd", err);
    if (text[0] == '"' || text[0] == '\\')
        snprintf(escape, sizeof escape, "\\%c", text[0]);
    else if (text[0] < 0x20 || text[0] == 0x7f)
        snprintf(escape, sizeof escape, "\\u%04x", text[0]);
    else
        return bytes_append(json, text, length, JSON_SIZE_MAX, err);
    return add(json, escape, err);
}

static bool add_string(struct bytes *json, const char *text, struct err *err) {
    if (!add(json, "\"", err))
        return false;
    for (size_t used = 0; *text; text += used)
        if (!add_character(json, (const unsigned char *)text, &used, err))
            return false;
    return add(json, "\"", err);
}

static bool add_name(struct bytes *json, const char *name, struct err *err) {
    return add(json, json->size ? "," : "{", err) && add_string(json, name, err) && add(json, ":", err);
}

bool json_integer(struct bytes *json, const char *name, int64_t value, struct err *err) {
    char digits[24];
    snprintf(digits, sizeof digits, "%lld", (long long)value);
    return add_name(json, name, err) && add(json, digits, err);
}

bool json_text(struct bytes *json, const char *name, const char *value, struct err *err) {
    return !value || (add_name(json, name, err) && add_string(json, value, err));
}

bool json_end(struct bytes *json, struct err *err) {
    if (!add(json, json->size ? "}" : "{}", err) || !bytes_append(json, "", 1, JSON_SIZE_MAX, err))
        return false;
    json->size--;
    return true;
}
