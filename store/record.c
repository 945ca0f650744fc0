#include "store/record.h"

#include <cjson/cJSON.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/json.h"
#include "store/segment.h"

/* "PULMO-RECORD 1 ", the number, the size of the JSON, the digest. */
#define MAGIC "PULMO-RECORD 1 "
#define FACTS_SIZE (20 + 1 + 10)
#define LINE_SIZE (sizeof MAGIC - 1 + FACTS_SIZE + 1 + DIGEST_HEX_SIZE)

/* The texts of struct instance that its rows need. */
#define TEXT(name) \
    { #name, offsetof(struct instance, name), sizeof((struct instance *)NULL)->name }
static const struct text_row {
    const char *name;
    size_t offset, size;
} text_rows[] = {TEXT(sop_class_uid),       TEXT(sop_instance_uid), TEXT(study_uid),         TEXT(series_uid),
                 TEXT(transfer_syntax_uid), TEXT(calling_aet),      TEXT(called_aet),        TEXT(peer_address),
                 TEXT(patient_name),        TEXT(patient_id),       TEXT(modality),          TEXT(accession_number),
                 TEXT(study_date),          TEXT(study_time),       TEXT(study_description), TEXT(series_description)};
#define TEXT_COUNT (sizeof text_rows / sizeof *text_rows)

static void json_free_at(cJSON **json) {
    cJSON_Delete(*json);
}

/* ---- writing ------------------------------------------------------------------------------------------ */

static bool instance_add(struct bytes *json, const struct instance *instance, struct err *err) {
    for (size_t index = 0; index < TEXT_COUNT; index++)
        if (!json_text(json, text_rows[index].name, (const char *)instance + text_rows[index].offset, err))
            return false;
    return json_integer(json, "instance_number", instance->instance_number, err) &&
           json_integer(json, "size", (int64_t)instance->part10_size, err);
}

bool record_begin(const struct instance *instance, const char *blob, int64_t now_ms, struct bytes *out,
                  struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes json = {0}, record = {0};
    char line[LINE_SIZE + 1];
    if (!instance_add(&json, instance, err) || !json_text(&json, "sha256", blob, err) ||
        !json_integer(&json, "received_ms", now_ms, err) || !json_end(&json, err))
        return false;
    snprintf(line, sizeof line, MAGIC "%020d %010zu %064d\n", 0, json.size, 0);
    if (!bytes_append(&record, line, LINE_SIZE, JSON_SIZE_MAX + LINE_SIZE, err) ||
        !bytes_append(&record, json.data, json.size, JSON_SIZE_MAX + LINE_SIZE, err))
        return false;
    *out = record;
    record = (struct bytes){0};
    return true;
}

/* Of key, number and size as they are written, and JSON. */
static bool record_digest(const uint8_t *record, size_t size, const char *key, char out[DIGEST_HEX_SIZE],
                          struct err *err) {
    PULMO_SCOPED(digest_free_at) struct digest *digest = digest_new(err);
    return digest && digest_begin(digest, err) && digest_add(digest, key, strlen(key), err) &&
           digest_add(digest, record + sizeof MAGIC - 1, FACTS_SIZE, err) &&
           digest_add(digest, record + LINE_SIZE, size - LINE_SIZE, err) && digest_end(digest, out, err);
}

bool record_number(struct bytes *record, const char *key, int64_t number, struct err *err) {
    char digits[24], digest[DIGEST_HEX_SIZE];
    snprintf(digits, sizeof digits, "%020lld", (long long)number);
    memcpy(record->data + sizeof MAGIC - 1, digits, 20);
    if (!record_digest(record->data, record->size, key, digest, err))
        return false;
    memcpy(record->data + sizeof MAGIC - 1 + FACTS_SIZE + 1, digest, DIGEST_HEX_SIZE - 1);
    return true;
}

/* ---- reading ------------------------------------------------------------------------------------------ */

/* What was no UTF-8 has grown (store/json.h): it is cut, between characters. */
static bool text_read(const cJSON *json, const struct text_row *row, struct instance *out) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, row->name));
    if (!text)
        return false;
    size_t length = strnlen(text, row->size);
    for (length -= length == row->size; length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80;)
        length--;
    memcpy((char *)out + row->offset, text, length);
    return true;
}

static bool integer_read(const cJSON *json, const char *name, int64_t *out) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, name);
    if (!cJSON_IsNumber(item) || item->valuedouble < -9e15 || item->valuedouble > 9e15)
        return false;
    *out = (int64_t)item->valuedouble;
    return true;
}

static bool json_read(const char *text, struct record *out) {
    PULMO_SCOPED(json_free_at) cJSON *json = cJSON_Parse(text);
    const char *sha256 = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "sha256"));
    int64_t size = 0;
    for (size_t index = 0; json && index < TEXT_COUNT; index++)
        if (!text_read(json, &text_rows[index], &out->instance))
            return false;
    if (!sha256 || strlen(sha256) != DIGEST_HEX_SIZE - 1 || !integer_read(json, "size", &size) || size <= 0 ||
        !integer_read(json, "received_ms", &out->now_ms) ||
        !integer_read(json, "instance_number", &out->instance.instance_number))
        return false;
    memcpy(out->blob, sha256, sizeof out->blob);
    out->instance.part10_size = (size_t)size;
    return true;
}

/* The sizes are digits of a fixed number, so that what is digested has one reading. */
static bool line_read(const char *line, int64_t *number, size_t *json_size) {
    char digits[FACTS_SIZE + 1];
    if (memcmp(line, MAGIC, sizeof MAGIC - 1) != 0)
        return false;
    memcpy(digits, line + sizeof MAGIC - 1, FACTS_SIZE);
    digits[FACTS_SIZE] = '\0';
    if (strspn(digits, "0123456789") != 20 || strspn(digits + 21, "0123456789") != 10)
        return false;
    *number = strtoll(digits, NULL, 10);
    *json_size = (size_t)strtoull(digits + 21, NULL, 10);
    return *number > 0 && *number<INT64_MAX && * json_size> 0 && *json_size <= JSON_SIZE_MAX;
}

static bool body_read(int descriptor, uint64_t position, const char *key, size_t size, struct record *out, bool *found,
                      struct err *err) {
    char digest[DIGEST_HEX_SIZE];
    size_t got = 0;
    PULMO_SCOPED(pulmo_free_at) uint8_t *record = pulmo_alloc(size + 1, 1, err);
    if (!record || !segment_read_at(descriptor, position, size, record, &got, err) ||
        (got == size && !record_digest(record, size, key, digest, err)))
        return false;
    const uint8_t *said = record + sizeof MAGIC - 1 + FACTS_SIZE + 1;
    *found = got == size && memcmp(digest, said, DIGEST_HEX_SIZE - 1) == 0;
    return !*found || json_read((const char *)record + LINE_SIZE, out) ||
           err_set(err, ERR_INPUT, "record %lld of the journal is whole, and not of this version of Pulmo",
                   (long long)out->number);
}

bool record_read(int descriptor, uint64_t position, const char *key, struct record *out, bool *found, struct err *err) {
    uint8_t line[LINE_SIZE];
    size_t json_size = 0, got = 0;
    *out = (struct record){.number = 0};
    *found = false;
    if (!segment_read_at(descriptor, position, sizeof line, line, &got, err))
        return false;
    if (got < sizeof line || !line_read((const char *)line, &out->number, &json_size))
        return true;
    out->content = segment_room(LINE_SIZE + json_size);
    return body_read(descriptor, position, key, LINE_SIZE + json_size, out, found, err);
}
