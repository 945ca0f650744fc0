#include "store/version.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/handle.h"
#include "store/journal.h"

/* More versions of one UID than this are an attack or a broken sender. */
#define VERSIONS_MAX 16

const char *version_name(enum version version) {
    static const char *const names[] = {"first", "same", "transcoded", "corrected", "conflict", "foreign"};
    return names[version];
}

/* Reception has digested the content piece by piece, as it came. */
static bool content_digest(const struct instance *instance, char out[DIGEST_HEX_SIZE], struct err *err) {
    if (!instance->part10_sha256)
        return digest_hex(instance->part10, instance->part10_size, out, err);
    snprintf(out, DIGEST_HEX_SIZE, "%s", instance->part10_sha256);
    return true;
}

bool version_input_make(const struct instance *instance, struct version_input *out, struct err *err) {
    char text[2048];
    int length =
        snprintf(text, sizeof text, "%s\n%s\n%s\n%s\n%s\n%s\n%s\n%s\n%s\n%s\n%s\n%lld", instance->sop_class_uid,
                 instance->study_uid, instance->series_uid, instance->patient_name, instance->patient_id,
                 instance->accession_number, instance->study_date, instance->study_time, instance->study_description,
                 instance->series_description, instance->modality, (long long)instance->instance_number);
    if (length < 0 || (size_t)length >= sizeof text)
        return err_set(err, ERR_LIMIT, "the attributes of instance %s are too long", instance->sop_instance_uid);
    struct version_input input = {.instance = instance};
    if (!digest_hex(text, (size_t)length, input.attributes, err) || !content_digest(instance, input.blob, err))
        return false;
    *out = input;
    return true;
}

/* Where the data set begins: after preamble, prefix and file meta information, whose group length (0002,0000) is
 * explicit little endian UL and comes first, PS3.10 7.1. 0 when it is not so. */
static size_t data_set_offset(const uint8_t *part10, size_t size) {
    static const uint8_t start[] = {'D', 'I', 'C', 'M', 2, 0, 0, 0, 'U', 'L', 4, 0};
    if (size < 144 || memcmp(part10 + 128, start, sizeof start) != 0)
        return 0;
    const uint8_t *length = part10 + 140;
    uint64_t meta =
        (uint64_t)length[0] | (uint64_t)length[1] << 8 | (uint64_t)length[2] << 16 | (uint64_t)length[3] << 24;
    return meta <= size - 144 ? (size_t)(144 + meta) : 0;
}

bool version_dataset_digest(const uint8_t *part10, size_t size, char out[DIGEST_HEX_SIZE], struct err *err) {
    size_t offset = data_set_offset(part10, size);
    if (!offset)
        return err_set(err, ERR_INPUT, "no Part 10 file (PS3.10 7.1)");
    return digest_hex(part10 + offset, size - offset, out, err);
}

/* Two ways of sending give the same instance other file meta information: only the data set is compared. */
static bool data_sets_equal(const struct instance *instance, const struct bytes *stored) {
    size_t a = data_set_offset(instance->part10, instance->part10_size),
           b = data_set_offset(stored->data, stored->size);
    return a && b && instance->part10_size - a == stored->size - b &&
           memcmp(instance->part10 + a, stored->data + b, stored->size - b) == 0;
}

/* A stored version of the UID. Of a purged one only the digests are left. */
struct candidate {
    char blob[DIGEST_HEX_SIZE], attributes[DIGEST_HEX_SIZE], transfer_syntax_uid[DICOM_UID_SIZE];
    char dataset[DIGEST_HEX_SIZE], pixels[DIGEST_HEX_SIZE];
    int64_t size;
    bool purged, current;
};
struct candidates {
    struct candidate items[VERSIONS_MAX]; /* the one to compare pixels with first: current, else oldest */
    size_t count;
};

static bool candidates_read(struct store *store, const char *sop_instance_uid, struct candidates *out,
                            struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(
        store,
        "SELECT blob_sha256, attributes_sha256, transfer_syntax_uid, blob_size,"
        " dataset_sha256, pixels_sha256, purged_ms IS NOT NULL, current FROM instance WHERE sop_instance_uid = ?1"
        " ORDER BY current DESC, received_ms",
        SQL_VALUES(sql_text(sop_instance_uid)), err);
    if (!statement)
        return false;
    for (bool row = true; row;) {
        if (!sql_step(store, statement, &row, err))
            return false;
        if (!row)
            break;
        if (out->count == VERSIONS_MAX)
            return err_set(err, ERR_LIMIT, "instance %s has %d versions already", sop_instance_uid, VERSIONS_MAX);
        struct candidate *candidate = &out->items[out->count++];
        sql_column_text(statement, 0, candidate->blob, sizeof candidate->blob);
        sql_column_text(statement, 1, candidate->attributes, sizeof candidate->attributes);
        sql_column_text(statement, 2, candidate->transfer_syntax_uid, sizeof candidate->transfer_syntax_uid);
        candidate->size = sqlite3_column_int64(statement, 3);
        sql_column_text(statement, 4, candidate->dataset, sizeof candidate->dataset);
        sql_column_text(statement, 5, candidate->pixels, sizeof candidate->pixels);
        candidate->purged = sqlite3_column_int(statement, 6) != 0;
        candidate->current = sqlite3_column_int(statement, 7) != 0;
    }
    return true;
}

static void decide_same(const struct candidate *candidate, struct version_decision *out) {
    out->version = VERSION_SAME;
    memcpy(out->same, candidate->blob, sizeof out->same);
    out->same_size = candidate->size;
}

static bool pixels_before(struct store *store, const struct candidate *reference, const struct bytes *stored,
                          char out[DIGEST_HEX_SIZE]) {
    struct err ignored = {0};
    if (stored->data)
        return store->pixel_digest(stored->data, stored->size, out, &ignored);
    memcpy(out, reference->pixels, DIGEST_HEX_SIZE);
    return reference->purged && *out;
}

/* Without a decoder, or when either side cannot be decoded, nothing says that the pixels are equal: a conflict, which
 * keeps both and tells a human. */
static enum version classify(struct store *store, const struct version_input *input, const struct candidate *reference,
                             const struct bytes *stored) {
    const struct instance *instance = input->instance;
    char before[DIGEST_HEX_SIZE], now[DIGEST_HEX_SIZE];
    struct err ignored = {0};
    if (!store->pixel_digest || !pixels_before(store, reference, stored, before) ||
        !store->pixel_digest(instance->part10, instance->part10_size, now, &ignored) || strcmp(before, now) != 0)
        return VERSION_CONFLICT;
    bool same_syntax = strcmp(reference->transfer_syntax_uid, instance->transfer_syntax_uid) == 0;
    bool same_attributes = strcmp(reference->attributes, input->attributes) == 0;
    return same_attributes && !same_syntax ? VERSION_TRANSCODED : VERSION_CORRECTED;
}

static bool is_same_purged(const struct candidate *candidate, const struct version_input *input, const char *dataset) {
    return *dataset && strcmp(candidate->dataset, dataset) == 0 &&
           strcmp(candidate->transfer_syntax_uid, input->instance->transfer_syntax_uid) == 0;
}

static bool decide_among(struct store *store, const struct version_input *input, const struct candidates *candidates,
                         struct version_decision *out, struct err *err) {
    for (size_t index = 0; index < candidates->count; index++)
        if (strcmp(candidates->items[index].blob, input->blob) == 0) {
            decide_same(&candidates->items[index], out);
            return true;
        }
    char dataset[DIGEST_HEX_SIZE] = "";
    struct err ignored = {0};
    if (!version_dataset_digest(input->instance->part10, input->instance->part10_size, dataset, &ignored))
        dataset[0] = '\0';
    /* Stored content that the disk has lost cannot be compared (ERR_IO): a conflict keeps the new bytes. */
    PULMO_SCOPED(bytes_free) struct bytes reference = {0};
    for (size_t index = 0; index < candidates->count; index++) {
        const struct candidate *candidate = &candidates->items[index];
        PULMO_SCOPED(bytes_free) struct bytes stored = {0};
        struct err unreadable = {0};
        if (candidate->purged && is_same_purged(candidate, input, dataset)) {
            decide_same(candidate, out);
            return true;
        }
        if (candidate->purged)
            continue;
        if (!journal_read(store, candidate->blob, candidate->size, &stored, &unreadable)) {
            if (unreadable.kind == ERR_IO)
                continue;
            return err_set(err, unreadable.kind, "%s", unreadable.text);
        }
        if (strcmp(candidate->transfer_syntax_uid, input->instance->transfer_syntax_uid) == 0 &&
            data_sets_equal(input->instance, &stored)) {
            decide_same(candidate, out);
            return true;
        }
        if (index == 0) {
            reference = stored;
            stored = (struct bytes){0};
        }
    }
    out->version = classify(store, input, &candidates->items[0], &reference);
    out->first_purged = candidates->items[0].purged && candidates->items[0].current;
    return true;
}

bool version_is_foreign(struct store *store, const struct instance *instance, bool *foreign, struct err *err) {
    int64_t found = 0;
    if (!sql_integer(store,
                     "SELECT 1 FROM study WHERE study_uid = ?1 AND patient_id <> '' AND ?2 <> '' AND patient_id <> ?2",
                     SQL_VALUES(sql_text(instance->study_uid), sql_text(instance->patient_id)), &found, err))
        return false;
    *foreign = found != 0;
    return true;
}

bool version_decide(struct store *store, const struct version_input *input, struct version_decision *out,
                    struct err *err) {
    PULMO_SCOPED(pulmo_free_at) struct candidates *candidates = pulmo_alloc(1, sizeof *candidates, err);
    if (!candidates || !candidates_read(store, input->instance->sop_instance_uid, candidates, err))
        return false;
    struct version_decision decision = {.version = VERSION_FIRST, .known = (int64_t)candidates->count};
    if (candidates->count && !decide_among(store, input, candidates, &decision, err))
        return false;
    *out = decision;
    return true;
}
