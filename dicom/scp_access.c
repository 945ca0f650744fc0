#include "dicom/scp_access.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

enum { ENTRIES_MAX = 256, ADDRESS_TEXT_SIZE = 64 };

/* An address of either family as 16 bytes, IPv4 mapped into IPv6 (RFC 4291 2.5.5.2), and the bits that count. */
struct network {
    uint8_t address[16];
    unsigned bits;
};

struct access {
    char called[ENTRIES_MAX][DICOM_AET_SIZE], calling[ENTRIES_MAX][DICOM_AET_SIZE];
    struct network networks[ENTRIES_MAX];
    size_t called_count, calling_count, network_count;
};

/* ---- parsing ----------------------------------------------------------------------------------------- */

bool access_is_aet(const char *aet) {
    const size_t length = strnlen(aet, DICOM_AET_SIZE);
    bool any = false;
    for (size_t i = 0; i < length; i++) {
        if (aet[i] < 0x20 || aet[i] > 0x7E || aet[i] == '\\')
            return false;
        any = any || aet[i] != ' ';
    }
    return any && length < DICOM_AET_SIZE;
}

static bool parse_address(const char *text, uint8_t out[16]) {
    static const uint8_t mapped[12] = {[10] = 0xFF, [11] = 0xFF};
    if (inet_pton(AF_INET6, text, out) == 1)
        return true;
    memcpy(out, mapped, sizeof mapped);
    return inet_pton(AF_INET, text, out + 12) == 1;
}

static bool parse_network(const char *text, struct network *out) {
    char address[ADDRESS_TEXT_SIZE];
    const char *slash = strchr(text, '/');
    const size_t length = slash != NULL ? (size_t)(slash - text) : strlen(text);
    if (length == 0 || length >= sizeof address)
        return false;
    memcpy(address, text, length);
    address[length] = '\0';
    if (!parse_address(address, out->address))
        return false;
    const unsigned skipped = strchr(address, ':') == NULL ? 96 : 0; /* bits before an IPv4 address */
    out->bits = 128;
    if (slash == NULL)
        return true;
    char *end = NULL;
    const unsigned long bits = strtoul(slash + 1, &end, 10);
    out->bits = skipped + (unsigned)bits;
    return slash[1] >= '0' && slash[1] <= '9' && *end == '\0' && bits <= 128 - skipped;
}

/* Takes the next entry of a comma-separated list, without the spaces around it. */
static bool next_entry(const char **list, char *out, size_t out_size, bool *too_long) {
    const char *p = *list + strspn(*list, ", \t");
    if (*p == '\0')
        return false;
    size_t length = strcspn(p, ",");
    *list = p + length;
    while (length > 0 && (p[length - 1] == ' ' || p[length - 1] == '\t'))
        length--;
    *too_long = length >= out_size;
    if (!*too_long) {
        memcpy(out, p, length);
        out[length] = '\0';
    }
    return true;
}

static bool parse_aets(const char *list, char out[ENTRIES_MAX][DICOM_AET_SIZE], size_t *count, struct err *err) {
    char entry[DICOM_AET_SIZE];
    bool too_long = false;
    while (list != NULL && next_entry(&list, entry, sizeof entry, &too_long)) {
        if (too_long || !access_is_aet(entry))
            return err_set(err, ERR_CONFIG, "not an AE title in the allow-list (entry %zu)", *count + 1);
        if (*count == ENTRIES_MAX)
            return err_set(err, ERR_CONFIG, "more than %d AE titles in an allow-list", ENTRIES_MAX);
        memcpy(out[(*count)++], entry, sizeof entry);
    }
    return true;
}

static bool parse_networks(const char *list, struct access *access, struct err *err) {
    char entry[ADDRESS_TEXT_SIZE];
    bool too_long = false;
    while (list != NULL && next_entry(&list, entry, sizeof entry, &too_long)) {
        if (access->network_count == ENTRIES_MAX)
            return err_set(err, ERR_CONFIG, "more than %d networks in the allow-list", ENTRIES_MAX);
        if (too_long || !parse_network(entry, &access->networks[access->network_count]))
            return err_set(err, ERR_CONFIG, "not an address or network in the allow-list: %s", too_long ? "" : entry);
        access->network_count++;
    }
    return true;
}

struct access *access_new(const struct dicom_scp_config *config, struct err *err) {
    const bool only_own = config->called_aets == NULL || config->called_aets[0] == '\0';
    struct access *access = pulmo_alloc(1, sizeof *access, err);
    if (access == NULL)
        return NULL;
    if (!parse_aets(only_own ? config->ae_title : config->called_aets, access->called, &access->called_count, err) ||
        !parse_aets(config->calling_aets, access->calling, &access->calling_count, err) ||
        !parse_networks(config->addresses, access, err)) {
        access_free(access);
        return NULL;
    }
    return access;
}

void access_free(struct access *access) {
    free(access);
}

/* ---- asking ------------------------------------------------------------------------------------------ */

static bool has_aet(const char list[ENTRIES_MAX][DICOM_AET_SIZE], size_t count, const char *aet) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i], aet) == 0)
            return true;
    return false;
}

bool access_called_ok(const struct access *access, const char *aet) {
    return has_aet(access->called, access->called_count, aet);
}

bool access_calling_ok(const struct access *access, const char *aet) {
    return access->calling_count == 0 || has_aet(access->calling, access->calling_count, aet);
}

static bool contains(const struct network *network, const uint8_t address[16]) {
    const unsigned bytes = network->bits / 8, rest = network->bits % 8;
    if (memcmp(network->address, address, bytes) != 0)
        return false;
    return rest == 0 || (network->address[bytes] ^ address[bytes]) >> (8 - rest) == 0;
}

bool access_address_ok(const struct access *access, const char *address) {
    uint8_t bytes[16];
    if (access->network_count == 0)
        return true;
    char bare[ADDRESS_TEXT_SIZE] = "";
    const size_t length = strcspn(address, "%"); /* a zone: fe80::1%eth0 */
    if (length >= sizeof bare)
        return false;
    memcpy(bare, address, length);
    if (!parse_address(bare, bytes))
        return false;
    for (size_t i = 0; i < access->network_count; i++)
        if (contains(&access->networks[i], bytes))
            return true;
    return false;
}
