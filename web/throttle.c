#include "web/throttle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ADDRESSES_MAX 256

struct failures {
    char address[64];
    int64_t since_ms; /* of the window */
    uint32_t count;   /* 0 = free */
};
struct throttle {
    struct failures items[ADDRESSES_MAX];
};

struct throttle *throttle_new(struct err *err) {
    return pulmo_alloc(1, sizeof(struct throttle), err);
}

void throttle_free(struct throttle *throttle) {
    free(throttle);
}

static bool is_current(const struct failures *failures, int64_t now_ms) {
    return failures->count > 0 && now_ms - failures->since_ms < THROTTLE_WINDOW_MS;
}

bool throttle_check(const struct throttle *throttle, const char *address, int64_t now_ms, struct err *err) {
    for (size_t index = 0; index < ADDRESSES_MAX; index++) {
        const struct failures *item = &throttle->items[index];
        if (is_current(item, now_ms) && item->count >= THROTTLE_FAILURES_MAX && strcmp(item->address, address) == 0)
            return err_set(err, ERR_BUSY, "too many failed logins from this machine: wait a minute");
    }
    return true;
}

/* The item of the address; else a free one, or the one whose window began first. */
static struct failures *slot(struct throttle *throttle, const char *address, int64_t now_ms) {
    struct failures *oldest = &throttle->items[0];
    for (size_t index = 0; index < ADDRESSES_MAX; index++) {
        struct failures *item = &throttle->items[index];
        if (is_current(item, now_ms) && strcmp(item->address, address) == 0)
            return item;
        if (item->count == 0 || (oldest->count > 0 && item->since_ms < oldest->since_ms))
            oldest = item;
    }
    *oldest = (struct failures){.since_ms = now_ms};
    snprintf(oldest->address, sizeof oldest->address, "%s", address);
    return oldest;
}

void throttle_failed(struct throttle *throttle, const char *address, int64_t now_ms) {
    slot(throttle, address, now_ms)->count++;
}
