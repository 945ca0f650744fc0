#include "dicom/inbox.h"

#include <stdlib.h>
#include <string.h>

#define CAPACITY_FIRST ((size_t)4096)
#define CAPACITY_FILE ((size_t)1 << 20) /* a slice of 512 x 512; pages that stay untouched cost nothing */
#define CAPACITY_KEPT CAPACITY_FILE

static bool grow(struct inbox *inbox, size_t needed, size_t first, struct err *err) {
    size_t capacity = inbox->capacity > first ? inbox->capacity : first;
    if (needed > PULMO_ALLOC_MAX)
        return err_set(err, ERR_LIMIT, "a data set of more than %zu bytes", (size_t)PULMO_ALLOC_MAX);
    while (capacity < needed)
        capacity *= 2;
    if (capacity == inbox->capacity)
        return true;
    uint8_t *grown = realloc(inbox->content.data, capacity);
    if (grown == NULL)
        return err_set(err, ERR_MEMORY, "out of memory for %zu bytes", capacity);
    inbox->content.data = grown;
    inbox->capacity = capacity;
    return true;
}

static bool append(struct inbox *inbox, const void *data, size_t size, size_t first, struct err *err) {
    if (!grow(inbox, inbox->content.size + size, first, err))
        return false;
    if (size > 0)
        memcpy(inbox->content.data + inbox->content.size, data, size);
    inbox->content.size += size;
    return true;
}

void inbox_begin(struct inbox *inbox) {
    inbox->content.size = inbox->offset = 0;
}

bool inbox_begin_file(struct inbox *inbox, const struct bytes *meta, struct err *err) {
    if (inbox->digest == NULL)
        inbox->digest = digest_new(err);
    inbox_begin(inbox);
    if (inbox->digest == NULL || !append(inbox, meta->data, meta->size, CAPACITY_FILE, err) ||
        !digest_begin(inbox->digest, err) || !digest_add(inbox->digest, meta->data, meta->size, err))
        return false;
    inbox->offset = meta->size;
    return true;
}

bool inbox_add(struct inbox *inbox, const void *data, size_t size, struct err *err) {
    return append(inbox, data, size, CAPACITY_FIRST, err) &&
           (inbox->offset == 0 || digest_add(inbox->digest, data, size, err));
}

bool inbox_end_file(struct inbox *inbox, char sha256[DIGEST_HEX_SIZE], struct err *err) {
    return digest_end(inbox->digest, sha256, err);
}

void inbox_empty(struct inbox *inbox) {
    inbox_begin(inbox);
    if (inbox->capacity <= CAPACITY_KEPT)
        return;
    free(inbox->content.data);
    inbox->content.data = NULL;
    inbox->capacity = 0;
}

void inbox_free(struct inbox *inbox) {
    free(inbox->content.data);
    digest_free(inbox->digest);
    *inbox = (struct inbox){.capacity = 0};
}
