#include "dicom/guard.h"

#include <stdlib.h>
#include <string.h>

enum { HEAD_SIZE = 6, FIXED_SIZE = 74, REQUEST_BYTES_MAX = 128 * 1024 };
enum { ITEM_APPLICATION = 0x10, ITEM_CONTEXT = 0x20, ITEM_ABSTRACT = 0x30, ITEM_TRANSFER = 0x40, ITEM_USER = 0x50 };
enum { ITEM_MAX_LENGTH = 0x51, ITEM_CLASS_UID = 0x52, ITEM_ROLE = 0x54, ITEM_VERSION = 0x55, ITEM_EXTENDED = 0x56 };
enum { ITEM_IDENTITY = 0x58, UID_LENGTH_MAX = 64 };

struct item {
    uint8_t type;
    const uint8_t *data;
    size_t size;
};

struct view {
    const uint8_t *data;
    size_t size;
};

static size_t read_u16(const uint8_t *p) {
    return (size_t)p[0] << 8 | p[1];
}

/* Takes the next item of type, reserved byte and length, or says that the rest is none. */
static bool next_item(struct view *rest, struct item *out) {
    if (rest->size < 4 || read_u16(rest->data + 2) > rest->size - 4)
        return false;
    *out = (struct item){rest->data[0], rest->data + 4, read_u16(rest->data + 2)};
    rest->data += 4 + out->size;
    rest->size -= 4 + out->size;
    return true;
}

static bool is_uid_sized(const struct item *item) {
    return item->size >= 1 && item->size <= UID_LENGTH_MAX;
}

static bool check_context(const struct item *item, uint8_t seen[256]) {
    size_t abstracts = 0, transfers = 0;
    struct item sub;
    if (item->size < 4 || item->data[0] % 2 == 0 || seen[item->data[0]]++ > 0)
        return false;
    struct view rest = {item->data + 4, item->size - 4};
    while (rest.size > 0) {
        if (!next_item(&rest, &sub) || !is_uid_sized(&sub))
            return false;
        abstracts += sub.type == ITEM_ABSTRACT;
        transfers += sub.type == ITEM_TRANSFER;
    }
    return abstracts == 1 && transfers >= 1;
}

/* A UID with its own length at the beginning and `behind` bytes after it at least. */
static bool check_inner_uid(const struct item *item, size_t behind) {
    return item->size >= 2 + behind && read_u16(item->data) <= UID_LENGTH_MAX &&
           read_u16(item->data) <= item->size - 2 - behind;
}

/* User identity, PS3.7 D.3.3.7: kind, wish for an answer, two fields with their lengths. */
static bool check_identity(const struct item *item) {
    if (item->size < 6 || read_u16(item->data + 2) > item->size - 6)
        return false;
    const size_t primary = read_u16(item->data + 2);
    return read_u16(item->data + 4 + primary) == item->size - 6 - primary;
}

static bool check_user(const struct item *item) {
    struct view rest = {item->data, item->size};
    struct item sub;
    size_t identities = 0;
    while (rest.size > 0) {
        if (!next_item(&rest, &sub))
            return false;
        bool ok = true;
        switch (sub.type) {
        case ITEM_MAX_LENGTH: ok = sub.size == 4; break;
        case ITEM_CLASS_UID:
        case ITEM_VERSION: ok = sub.size <= UID_LENGTH_MAX; break;
        case ITEM_ROLE: ok = check_inner_uid(&sub, 2) && read_u16(sub.data) == sub.size - 4; break;
        case ITEM_EXTENDED: ok = check_inner_uid(&sub, 0); break;
        case ITEM_IDENTITY: ok = check_identity(&sub) && identities++ == 0; break;
        default: break;
        }
        if (!ok)
            return false;
    }
    return true;
}

bool guard_check_request(const uint8_t *pdu, size_t size, struct err *err) {
    uint8_t seen[256] = {0};
    size_t applications = 0, contexts = 0, users = 0;
    if (size < FIXED_SIZE || (pdu[7] & 1) == 0)
        return err_set(err, ERR_INPUT, "A-ASSOCIATE-RQ of %zu bytes, or of another protocol version", size);
    struct view rest = {pdu + FIXED_SIZE, size - FIXED_SIZE};
    while (rest.size > 0) {
        struct item item;
        bool ok = next_item(&rest, &item);
        if (ok && item.type == ITEM_APPLICATION)
            ok = is_uid_sized(&item) && applications++ == 0;
        else if (ok && item.type == ITEM_CONTEXT)
            ok = check_context(&item, seen) && contexts++ < 128;
        else if (ok && item.type == ITEM_USER)
            ok = check_user(&item) && users++ == 0;
        if (!ok)
            return err_set(err, ERR_INPUT, "A-ASSOCIATE-RQ with a malformed item before byte %zu", size - rest.size);
    }
    return (applications == 1 && contexts > 0 && users == 1) ||
           err_set(err, ERR_INPUT, "A-ASSOCIATE-RQ with %zu application contexts, %zu contexts, %zu user items",
                   applications, contexts, users);
}

/* ---- reading ----------------------------------------------------------------------------------------- */

static bool fill(struct guard *guard, size_t size, guard_source *source, void *context) {
    while (guard->size < size) {
        const ssize_t got = source(context, guard->pdu + guard->size, size - guard->size);
        if (got <= 0)
            return false;
        guard->size += (size_t)got;
    }
    return true;
}

/* Other PDUs than a request are left to the toolkit, which answers them with an abort: only their head is kept. */
static bool collect(struct guard *guard, guard_source *source, void *context) {
    guard->pdu = malloc(HEAD_SIZE + REQUEST_BYTES_MAX);
    if (guard->pdu == NULL)
        return err_set(guard->err, ERR_MEMORY, "out of memory for an association request");
    const bool has_head = fill(guard, HEAD_SIZE, source, context);
    if (!has_head)
        return guard->size > 0 &&
               err_set(guard->err, ERR_INPUT, "%zu bytes that are no association request", guard->size);
    if (guard->pdu[0] != 0x01) {
        err_set(guard->err, ERR_INPUT, "does not speak DICOM: first byte 0x%02X", guard->pdu[0]);
        return true;
    }
    const uint8_t *p = guard->pdu + 2;
    const size_t length = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
    if (length > REQUEST_BYTES_MAX || !fill(guard, HEAD_SIZE + length, source, context))
        return err_set(guard->err, ERR_INPUT, "A-ASSOCIATE-RQ of %zu bytes is too long or cut off", length);
    return guard_check_request(guard->pdu, guard->size, guard->err);
}

static ssize_t serve(struct guard *guard, void *buffer, size_t size) {
    const size_t left = guard->size - guard->served;
    const size_t count = size < left ? size : left;
    memcpy(buffer, guard->pdu + guard->served, count);
    guard->served += count;
    if (guard->served == guard->size) {
        guard_free(guard);
        guard->state = GUARD_PASSING;
    }
    return (ssize_t)count;
}

ssize_t guard_read(struct guard *guard, void *buffer, size_t size, guard_source *source, void *context) {
    if (guard->state == GUARD_COLLECTING)
        guard->state = collect(guard, source, context) ? GUARD_SERVING : GUARD_BROKEN;
    guard->err = NULL;
    switch (guard->state) {
    case GUARD_SERVING: return serve(guard, buffer, size);
    case GUARD_PASSING: return source(context, buffer, size);
    default: return 0;
    }
}

bool guard_has_bytes(const struct guard *guard) {
    return guard->state == GUARD_SERVING || guard->state == GUARD_BROKEN;
}

void guard_free(struct guard *guard) {
    free(guard->pdu);
    guard->pdu = NULL;
}
