#include "dicom/dicom.h"
#include "digest.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

/* Decimal text of 16 big-endian bytes, by repeated division by ten. */
static void decimal_of(const uint8_t bytes[16], char *out) {
    uint8_t number[16];
    memcpy(number, bytes, sizeof number);
    char digits[40];
    size_t count = 0;
    for (bool more = true; more;) {
        unsigned remainder = 0;
        more = false;
        for (int index = 0; index < 16; index++) {
            unsigned value = remainder * 256 + number[index];
            number[index] = (uint8_t)(value / 10);
            remainder = value % 10;
            more = more || number[index];
        }
        digits[count++] = (char)('0' + remainder);
    }
    for (size_t index = 0; index < count; index++)
        out[index] = digits[count - 1 - index];
    out[count] = '\0';
}

static unsigned hex_digit(char digit) {
    return (unsigned)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
}

bool dicom_uid_new(char out[DICOM_UID_SIZE], struct err *err) {
    uint8_t uuid[16];
    char decimal[40];
    if (getrandom(uuid, sizeof uuid, 0) != (ssize_t)sizeof uuid)
        return err_set(err, ERR_INTERNAL, "no random bytes: %s", strerror(errno));
    uuid[6] = (uint8_t)((uuid[6] & 0x0F) | 0x40); /* RFC 9562 5.4: version 4, random */
    uuid[8] = (uint8_t)((uuid[8] & 0x3F) | 0x80);
    decimal_of(uuid, decimal);
    snprintf(out, DICOM_UID_SIZE, "2.25.%s", decimal);
    return true;
}

bool dicom_uid_derive(const char *text, char out[DICOM_UID_SIZE], struct err *err) {
    char hex[DIGEST_HEX_SIZE];
    if (!digest_hex(text, strlen(text), hex, err))
        return false;
    uint8_t uuid[16];
    for (size_t index = 0; index < 16; index++)
        uuid[index] = (uint8_t)(hex_digit(hex[2 * index]) * 16 + hex_digit(hex[2 * index + 1]));
    uuid[6] = (uint8_t)((uuid[6] & 0x0F) | 0x80); /* RFC 9562 5.8: version 8, custom */
    uuid[8] = (uint8_t)((uuid[8] & 0x3F) | 0x80); /* variant */
    char decimal[40];
    decimal_of(uuid, decimal);
    snprintf(out, DICOM_UID_SIZE, "2.25.%s", decimal);
    return true;
}
