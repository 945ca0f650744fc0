/* A put through the journal. What is new is acknowledged as soon as its record is durable, content and facts in one
 * sync; its rows are committed a moment later, with those of others. What meets rows that are there already waits for
 * them, since only they tell what it is. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/blob.h"
#include "store/contents.h"
#include "store/handle.h"
#include "store/journal_writer.h"
#include "store/record.h"

/* Acknowledged and without rows, at most: so much is replayed after a crash, and so much memory is held. */
#define LATER_MAX 256

/* ---- places ------------------------------------------------------------------------------------------ */

int journal_segment_in(const struct store_journal *journal, enum segment_state state) {
    for (int index = 0; index < SEGMENTS_MAX; index++)
        if (journal->segments[index].state == state)
            return index;
    return -1;
}

/* Bytes that a checkpoint will still need in blobs/, at most. */
static uint64_t waiting_bytes(struct store_journal *journal) {
    uint64_t bytes = 0;
    pthread_mutex_lock(&journal->lock);
    for (int index = 0; index < SEGMENTS_MAX; index++)
        if (journal->segments[index].state != SEGMENT_FREE && journal->segments[index].state != SEGMENT_ABSENT)
            bytes += journal->segments[index].used;
    pthread_mutex_unlock(&journal->lock);
    return bytes;
}

/* Of the active segment; a full one makes room for a free one. The lock is held. */
static int segment_for(struct store_journal *journal, uint64_t room) {
    int active = journal_segment_in(journal, SEGMENT_ACTIVE);
    if (active >= 0 && journal->segments[active].used + room <= SEGMENT_BYTES)
        return active;
    if (active >= 0) {
        journal->segments[active].state = SEGMENT_USED;
        pthread_cond_signal(&journal->wake);
    }
    int fresh = journal_segment_in(journal, SEGMENT_FREE);
    if (fresh >= 0)
        journal->segments[fresh].state = SEGMENT_ACTIVE;
    return fresh;
}

/* Numbers are given in the order of the list, so that its first one says up to where all rows are there. */
static void number_take(struct store_journal *journal, struct journal_put *put) {
    put->number = journal->number_next++;
    put->before = journal->last;
    *(journal->last ? &journal->last->after : &journal->first) = put;
    journal->last = put;
}

static void place_take(struct store_journal *journal, struct journal_put *put, size_t record_size) {
    uint64_t content = segment_room(record_size), room = content + segment_room(put->instance.part10_size);
    pthread_mutex_lock(&journal->lock);
    int index = room <= SEGMENT_BYTES && !journal->broken ? segment_for(journal, room) : -1;
    if (index >= 0) {
        struct segment *segment = &journal->segments[index];
        put->place = (struct place){index, segment->descriptor, segment->used, segment->used + content};
        segment->used += room;
        segment->writers++;
        number_take(journal, put);
    }
    journal->last_put_ms = pulmo_monotonic_ms();
    pthread_mutex_unlock(&journal->lock);
}

static void put_free(struct journal_put *put) {
    struct store_journal *journal = put->journal;
    if (put->number) {
        pthread_mutex_lock(&journal->lock);
        journal->segments[put->place.segment].writers--;
        *(put->before ? &put->before->after : &journal->first) = put->after;
        *(put->after ? &put->after->before : &journal->last) = put->before;
        pthread_mutex_unlock(&journal->lock);
    }
    free(put);
}

static void put_free_at(struct journal_put **put) {
    if (*put)
        put_free(*put);
}

/* ---- rows -------------------------------------------------------------------------------------------- */

static bool place_row_add(struct store *store, const struct journal_put *put, struct err *err) {
    return sql_run(store,
                   "INSERT INTO journal (blob_sha256, blob_size, segment, position) VALUES (?1, ?2, ?3, ?4)"
                   " ON CONFLICT DO NOTHING", /* the same content lies there already, as durable */
                   SQL_VALUES(sql_text(put->put.input.blob), sql_int((int64_t)put->instance.part10_size),
                              sql_int(put->place.segment), sql_int((int64_t)put->place.content)),
                   err);
}

/* On a copy: the group may run it again. */
static bool put_work(struct store *store, void *context, struct err *err) {
    struct journal_put *put = context;
    struct instance_put rows = put->put;
    return instance_rows(store, &rows, &put->again, err) &&
           (put->again || !put->put.journaled || place_row_add(store, put, err));
}

static bool put_decide(struct store *store, struct journal_put *put, struct err *err) {
    const struct version_decision *decision = &put->put.decision;
    bool durable = false, damaged = false;
    if (!version_decide(store, &put->put.input, &put->put.decision, err) ||
        (decision->version == VERSION_SAME &&
         (!contents_is_damaged(store, decision->same, &damaged, err) ||
          !journal_holds(store, decision->same, decision->same_size, &durable, err))))
        return false;
    put->put.journaled = !durable || damaged;
    return true;
}

/* Without a place, a file of its own; again when it was removed since (retention_blob_needed). */
static bool put_durable(struct store *store, struct journal_put *put, struct err *err) {
    if (put->number || !put->put.journaled)
        return true;
    put->put.journaled = false;
    return blob_put(store->config.folder, put->put.input.blob, put->instance.part10, put->instance.part10_size, err);
}

static bool too_many(const struct journal_put *put, struct err *err) {
    return err_set(err, ERR_BUSY, "instance %s is being stored by too many senders at once",
                   put->instance.sop_instance_uid);
}

/* Rows that knew better ask for a decision. */
static bool put_commit(struct store *store, struct journal_put *put, struct err *err) {
    for (int tries = 0; tries <= INSTANCE_DECISIONS_MAX; tries++) {
        put->ticket = (struct group_ticket){.work = put_work, .context = put};
        if ((tries > 0 && !put_decide(store, put, err)) || !put_durable(store, put, err))
            return false;
        if (!group_run(&put->journal->group, &put->ticket))
            return err_set(err, put->ticket.err.kind, "%s", put->ticket.err.text);
        if (!put->again)
            return true;
    }
    return too_many(put, err);
}

static bool settle_once(struct store *store, struct journal_put *put, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    return put_decide(store, put, err) && put_durable(store, put, err) && sql_begin(store, &transaction, err) &&
           put_work(store, put, err) && (put->again || sql_commit(&transaction, err));
}

bool journal_put_settle(struct store *store, struct journal_put *put, struct err *err) {
    for (int tries = 0; tries <= INSTANCE_DECISIONS_MAX; tries++)
        if (!settle_once(store, put, err))
            return false;
        else if (!put->again)
            return true;
    return too_many(put, err);
}

/* ---- acknowledged before its rows -------------------------------------------------------------------- */

void journal_put_forget(struct group_ticket *ticket) {
    put_free(ticket->context);
}

/* Another process has stored the same UID in the same moment: the content is needed once more. */
static bool later_settle(struct store *store, struct journal_put *put, struct err *err) {
    PULMO_SCOPED(pulmo_free_at) uint8_t *content = pulmo_alloc(put->instance.part10_size, 1, err);
    if (!content || !segment_read(store->config.folder, put->place.segment, put->place.content,
                                  put->instance.part10_size, content, err))
        return false;
    put->instance.part10 = content;
    bool good = journal_put_settle(store, put, err);
    put->instance.part10 = NULL;
    return good;
}

static bool later_ended(struct store *store, struct group_ticket *ticket) {
    struct journal_put *put = ticket->context;
    struct store_journal *journal = put->journal;
    if (!ticket->good || (put->again && !later_settle(store, put, &ticket->err)))
        return false;
    pthread_mutex_lock(&journal->lock);
    journal->later_count--;
    pthread_mutex_unlock(&journal->lock);
    put_free(put);
    return true;
}

/* Another put of the UID has no rows yet: which of them is new, and whether there may be so many versions, is for the
 * rows to say. The lock is held. */
static bool has_rival(const struct journal_put *put) {
    for (const struct journal_put *other = put->journal->first; other; other = other->after)
        if (other != put && strcmp(other->instance.sop_instance_uid, put->instance.sop_instance_uid) == 0)
            return true;
    return false;
}

/* From here on it belongs to the group, when true. */
static bool put_later(struct journal_put *put) {
    struct store_journal *journal = put->journal;
    pthread_mutex_lock(&journal->lock);
    bool may = journal->later_count < LATER_MAX && !has_rival(put);
    journal->later_count += may;
    pthread_mutex_unlock(&journal->lock);
    if (!may)
        return false;
    put->instance.part10 = NULL; /* the caller's */
    put->ticket = (struct group_ticket){.work = put_work, .context = put, .ended = later_ended};
    if (group_later(&journal->group, &put->ticket))
        return true;
    pthread_mutex_lock(&journal->lock);
    journal->later_count--;
    pthread_mutex_unlock(&journal->lock);
    return false;
}

/* ---- a put ------------------------------------------------------------------------------------------- */

static struct journal_put *put_new(struct store_journal *journal, const struct instance *instance, struct err *err) {
    struct journal_put *put = pulmo_alloc(1, sizeof *put, err);
    if (!put)
        return NULL;
    put->journal = journal;
    put->instance = *instance;
    put->place.segment = -1;
    put->put = (struct instance_put){.now_ms = pulmo_now_ms(), .journaled = true};
    bool good = version_input_make(&put->instance, &put->put.input, err);
    put->instance.part10_sha256 = NULL; /* the caller's */
    if (good)
        return put;
    free(put);
    return NULL;
}

static bool is_known(struct store *store, const struct instance *instance, bool *known, struct err *err) {
    int64_t found = 0;
    if (!sql_integer(store, "SELECT EXISTS (SELECT 1 FROM instance WHERE sop_instance_uid = ?1)",
                     SQL_VALUES(sql_text(instance->sop_instance_uid)), &found, err))
        return false;
    *known = found != 0;
    return true;
}

/* Its record is durable; without room for it, nothing was done. */
static bool put_write(struct journal_put *put, struct err *err) {
    struct store_journal *journal = put->journal;
    PULMO_SCOPED(bytes_free) struct bytes record = {0};
    if (!record_begin(&put->instance, put->put.input.blob, put->put.now_ms, &record, err))
        return false;
    place_take(journal, put, record.size);
    if (!put->number)
        return true;
    const struct segment_piece pieces[] = {{record.data, record.size},
                                           {put->instance.part10, put->instance.part10_size}};
    if (!record_number(&record, journal->key, put->number, err) ||
        !segment_write(put->place.descriptor, put->place.position, pieces, 2, err))
        return false;
    if (sync_shared(&journal->syncs, put->place.descriptor, err))
        return true;
    pthread_mutex_lock(&journal->lock);
    journal->broken = true;
    pthread_mutex_unlock(&journal->lock);
    return false;
}

static bool put_try(struct store_journal *journal, struct store *store, const struct instance *instance,
                    struct err *err) {
    PULMO_SCOPED(put_free_at) struct journal_put *put = put_new(journal, instance, err);
    bool known = false;
    if (!put || !is_known(store, instance, &known, err) || (known && !put_decide(store, put, err)) ||
        (put->put.journaled && !put_write(put, err)))
        return false;
    if (!known && put->number && put_later(put)) {
        put = NULL;
        return true;
    }
    put->instance.part10 = instance->part10;
    return put_commit(store, put, err);
}

bool store_journal_put(struct store_journal *journal, struct store *store, const struct instance *instance,
                       struct err *err) {
    struct err fault = {0};
    if (!instance_check(instance, err))
        return false;
    if (!blob_room(store->config.folder, store->config.disk_reserve_bytes + waiting_bytes(journal),
                   instance->part10_size, &fault))
        return instance_refuse(store, instance, &fault, err);
    return put_try(journal, store, instance, &fault) || instance_refuse(store, instance, &fault, err);
}

bool store_journal_run(struct store_journal *journal, store_work *work, void *context, struct err *err) {
    struct group_ticket ticket = {.work = work, .context = context};
    return group_run(&journal->group, &ticket) || err_set(err, ticket.err.kind, "%s", ticket.err.text);
}

static bool work_nothing(struct store *store, void *context, struct err *err) {
    (void)store;
    (void)context;
    (void)err;
    return true;
}

bool store_journal_flush(struct store_journal *journal, struct err *err) {
    struct err why = {0};
    if (!store_journal_run(journal, work_nothing, NULL, err))
        return false;
    return group_is_well(&journal->group, &why) || err_set(err, why.kind, "%s", why.text);
}
