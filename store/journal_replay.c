/* After a crash of reception: the rows of what it acknowledged and had no time to commit. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/audit.h"
#include "store/handle.h"
#include "store/journal_writer.h"
#include "store/record.h"

/* Where a record begins. */
struct found {
    int64_t number;
    int segment;
    uint64_t position;
};

static void descriptor_close_at(int *descriptor) {
    if (*descriptor >= 0)
        close(*descriptor);
}

static int by_number(const void *a, const void *b) {
    int64_t x = ((const struct found *)a)->number, y = ((const struct found *)b)->number;
    return (x > y) - (x < y);
}

/* ---- looking ----------------------------------------------------------------------------------------- */

/* Each page may begin a record: one that its thread had no time to write may lie before another that was acknowledged,
 * and what is older than the rows may be overwritten in its middle. */
static bool segment_scan(struct store_journal *journal, int segment, int64_t after, struct bytes *out,
                         struct err *err) {
    struct err why = {0};
    PULMO_SCOPED(descriptor_close_at) int descriptor = segment_look(journal->store->config.folder, segment, &why);
    if (descriptor < 0) /* only one that is not there holds nothing for sure */
        return why.kind == ERR_NOT_FOUND || err_set(err, why.kind, "%s", why.text);
    for (uint64_t position = 0; position < SEGMENT_BYTES;) {
        struct record record;
        bool found = false;
        if (!record_read(descriptor, position, journal->key, &record, &found, err))
            return false;
        found = found && record.number > after;
        const struct found item = {record.number, segment, position};
        if (found && !bytes_append(out, &item, sizeof item, PULMO_ALLOC_MAX, err))
            return false;
        position += found ? record.content + segment_room(record.instance.part10_size) : SEGMENT_PAGE;
    }
    return true;
}

/* ---- one record -------------------------------------------------------------------------------------- */

/* Its rows were committed; only the note of it was not. */
static bool has_rows(struct store *store, const struct record *record, bool *has, struct err *err) {
    int64_t rows = 0;
    if (!sql_integer(store, "SELECT EXISTS (SELECT 1 FROM instance WHERE sop_instance_uid = ?1 AND blob_sha256 = ?2)",
                     SQL_VALUES(sql_text(record->instance.sop_instance_uid), sql_text(record->blob)), &rows, err))
        return false;
    *has = rows != 0;
    return true;
}

/* Reception ended before the content was durable, so it was not acknowledged; or the disk has changed it since. */
static bool audit_torn(struct store *store, const struct record *record, struct err *err) {
    char detail[256];
    snprintf(detail, sizeof detail, "SOP Instance UID %s, content %s, was not whole when reception ended",
             record->instance.sop_instance_uid, record->blob);
    struct store_audit audit = {.code = AUDIT_IMPORT,
                                .action = "receive-interrupted",
                                .actor = record->instance.calling_aet,
                                .address = record->instance.peer_address,
                                .study_uid = record->instance.study_uid,
                                .detail = detail,
                                .outcome = AUDIT_MINOR_FAILURE};
    return store_audit_append(store, &audit, err);
}

static bool content_settle(struct store_journal *journal, const struct found *found, const struct record *record,
                           const uint8_t *content, struct err *err) {
    PULMO_SCOPED(pulmo_free_at) struct journal_put *put = pulmo_alloc(1, sizeof *put, err);
    if (!put)
        return false;
    put->journal = journal;
    put->instance = record->instance;
    put->instance.part10 = content;
    put->instance.part10_sha256 = record->blob;
    put->put = (struct instance_put){.now_ms = record->now_ms, .journaled = true};
    put->place = (struct place){found->segment, -1, found->position, found->position + record->content};
    put->number = found->number;
    return version_input_make(&put->instance, &put->put.input, err) && journal_put_settle(journal->store, put, err);
}

static bool record_settle(struct store_journal *journal, const struct found *found, const struct record *record,
                          struct err *err) {
    char digest[DIGEST_HEX_SIZE];
    const size_t size = record->instance.part10_size;
    PULMO_SCOPED(pulmo_free_at) uint8_t *content = pulmo_alloc(size, 1, err);
    if (!content ||
        !segment_read(journal->store->config.folder, found->segment, found->position + record->content, size, content,
                      err) ||
        !digest_hex(content, size, digest, err))
        return false;
    if (strcmp(digest, record->blob) != 0)
        return audit_torn(journal->store, record, err);
    return content_settle(journal, found, record, content, err);
}

static bool found_replay(struct store_journal *journal, const struct found *found, struct err *err) {
    PULMO_SCOPED(pulmo_free_at) struct record *record = pulmo_alloc(1, sizeof *record, err);
    PULMO_SCOPED(descriptor_close_at)
    int descriptor = record ? segment_look(journal->store->config.folder, found->segment, err) : -1;
    bool whole = false, has = false;
    if (descriptor < 0 || !record_read(descriptor, found->position, journal->key, record, &whole, err) ||
        (whole && !has_rows(journal->store, record, &has, err)))
        return false;
    return !whole || has || record_settle(journal, found, record, err);
}

bool journal_replay(struct store_journal *journal, int64_t after, int64_t *last, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes list = {0};
    for (int segment = 0; segment < SEGMENTS_MAX; segment++)
        if (!segment_scan(journal, segment, after, &list, err))
            return err_within(err, "records of the journal");
    struct found *items = (struct found *)(void *)list.data;
    size_t count = list.size / sizeof *items;
    if (count)
        qsort(items, count, sizeof *items, by_number);
    for (size_t index = 0; index < count; index++)
        if (!found_replay(journal, &items[index], err))
            return err_within(err, "record %lld of the journal", (long long)items[index].number);
    *last = count ? items[count - 1].number : after;
    return true;
}
