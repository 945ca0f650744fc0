#include "web/proxies.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROXIES_MAX 32

struct proxies {
    struct in6_addr items[PROXIES_MAX];
    size_t count;
};

/* An address of `length` characters with blanks around it. */
static bool parse(const char *text, size_t length, struct in6_addr *out) {
    char bare[PROXIES_ADDRESS_SIZE] = "";
    while (length && (*text == ' ' || *text == '\t')) {
        text++;
        length--;
    }
    while (length && (text[length - 1] == ' ' || text[length - 1] == '\t'))
        length--;
    if (length >= sizeof bare)
        return false;
    memcpy(bare, text, length);
    struct in_addr four;
    if (inet_pton(AF_INET, bare, &four) != 1)
        return inet_pton(AF_INET6, bare, out) == 1;
    *out = (struct in6_addr){.s6_addr = {[10] = 0xFF, [11] = 0xFF}};
    memcpy(out->s6_addr + 12, &four, sizeof four);
    return true;
}

struct proxies *proxies_new(const char *text, struct err *err) {
    struct proxies *proxies = pulmo_alloc(1, sizeof *proxies, err);
    if (!proxies)
        return NULL;
    for (const char *rest = text ? text : ""; *rest;) {
        size_t length = strcspn(rest, ",");
        if (proxies->count == PROXIES_MAX || !parse(rest, length, &proxies->items[proxies->count])) {
            err_set(err, ERR_CONFIG, "https_proxies: \"%.*s\" is no address, or one more than %d", (int)length, rest,
                    PROXIES_MAX);
            proxies_free(proxies);
            return NULL;
        }
        proxies->count++;
        rest += length + (rest[length] == ',');
    }
    return proxies;
}

void proxies_free(struct proxies *proxies) {
    free(proxies);
}

bool proxies_have(const struct proxies *proxies, const struct in6_addr *address) {
    for (size_t index = 0; index < proxies->count; index++)
        if (memcmp(&proxies->items[index], address, sizeof *address) == 0)
            return true;
    return false;
}

void proxies_client(const struct proxies *proxies, const char *peer, const char *forwarded_for,
                    char out[PROXIES_ADDRESS_SIZE]) {
    struct in6_addr from, client;
    snprintf(out, PROXIES_ADDRESS_SIZE, "%s", peer);
    if (!forwarded_for || !parse(peer, strlen(peer), &from) || !proxies_have(proxies, &from))
        return;
    const char *last = strrchr(forwarded_for, ',');
    last = last ? last + 1 : forwarded_for;
    if (!parse(last, strlen(last), &client))
        return;
    if (IN6_IS_ADDR_V4MAPPED(&client))
        inet_ntop(AF_INET, client.s6_addr + 12, out, PROXIES_ADDRESS_SIZE);
    else
        inet_ntop(AF_INET6, &client, out, PROXIES_ADDRESS_SIZE);
}
