/* Upkeep of the journal's writing side, and its two ends. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include "store/blob.h"
#include "store/handle.h"
#include "store/journal_writer.h"
#include "store/wake.h"

/* What is left of the disk, beyond its reserve, for each segment that is made. */
#define ROOM_PER_SEGMENT 8
#define IDLE_MS 300 /* without a put for so long, the journal is emptied */
/* Contents are moved under load when more segments than this are used: it is a second write beside reception. */
#define SEGMENTS_FULL (SEGMENTS_MAX * 3 / 4)

/* ---- upkeep: new segments, checkpoints, recycling ---------------------------------------------------- */

static bool writer_lock_try(struct store_journal *journal) {
    char path[SEGMENT_PATH_SIZE];
    if (journal->writer_lock >= 0)
        return true;
    snprintf(path, sizeof path, "%s/journal/writer.lock", journal->store->config.folder);
    int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) == 0)
        journal->writer_lock = lock;
    else if (lock >= 0)
        close(lock);
    return journal->writer_lock >= 0;
}

static bool state_read(struct store_journal *journal, int64_t *number, bool *in_use, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement =
        sql_prepare(journal->store, "SELECT key, number, in_use FROM journal_state", SQL_NO_VALUES, err);
    bool row = false;
    if (!statement || !sql_step(journal->store, statement, &row, err))
        return false;
    if (!row)
        return err_set(err, ERR_INTERNAL, "the journal's state is missing in the database");
    sql_column_text(statement, 0, journal->key, sizeof journal->key);
    *number = sqlite3_column_int64(statement, 1);
    *in_use = sqlite3_column_int(statement, 2) != 0;
    return true;
}

static bool state_write(struct store_journal *journal, int64_t number, bool in_use, struct err *err) {
    if (!sql_run(journal->store, "UPDATE journal_state SET number = ?1, in_use = ?2",
                 SQL_VALUES(sql_int(number), sql_int(in_use)), err))
        return false;
    journal->number_noted = number;
    return true;
}

/* Up to this record all rows are there. */
static int64_t number_done(struct store_journal *journal) {
    pthread_mutex_lock(&journal->lock);
    int64_t number = (journal->first ? journal->first->number : journal->number_next) - 1;
    pthread_mutex_unlock(&journal->lock);
    return number;
}

static bool number_note(struct store_journal *journal, struct err *err) {
    int64_t number = number_done(journal);
    return number == journal->number_noted || state_write(journal, number, true, err);
}

/* From now on only this process adds rows. What the former one acknowledged gets its rows first. */
static bool writer_begin(struct store_journal *journal, bool *began, struct err *err) {
    int64_t last = 0, number = 0;
    bool in_use = false;
    *began = writer_lock_try(journal);
    if (!*began || journal->store->journal_own_after >= 0)
        return true;
    if (!state_read(journal, &number, &in_use, err) || (in_use && !journal_replay(journal, number, &number, err)) ||
        !state_write(journal, number, true, err) ||
        !sql_integer(journal->store, "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'journal'",
                     SQL_NO_VALUES, &last, err))
        return false;
    journal->number_next = number + 1;
    journal->store->journal_own_after = last;
    return true;
}

/* In order: the next process need not look for records. */
static void writer_end(struct store_journal *journal) {
    struct err ignored = {0};
    if (journal->writer_lock >= 0 && journal->store->journal_own_after >= 0 && !journal->first)
        (void)!state_write(journal, number_done(journal), false, &ignored);
    if (journal->writer_lock >= 0)
        close(journal->writer_lock);
}

/* Of each segment, whether a row names it. */
static bool segments_named(struct store *store, bool named[SEGMENTS_MAX], struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(store, "SELECT DISTINCT segment FROM journal", SQL_NO_VALUES, err);
    for (bool row = statement != NULL; row;) {
        if (!sql_step(store, statement, &row, err))
            return false;
        int64_t segment = row ? sqlite3_column_int64(statement, 0) : -1;
        if (segment >= 0 && segment < SEGMENTS_MAX)
            named[segment] = true;
    }
    return statement != NULL;
}

/* A used segment gets no new writers; without any, a row that names it is there already or never will be. */
static bool segments_recycle(struct store_journal *journal, struct err *err) {
    bool settled[SEGMENTS_MAX], named[SEGMENTS_MAX] = {false}, any = false;
    pthread_mutex_lock(&journal->lock);
    for (int index = 0; index < SEGMENTS_MAX; index++) {
        const struct segment *segment = &journal->segments[index];
        settled[index] = segment->state == SEGMENT_USED && segment->writers == 0;
        any = any || settled[index];
    }
    pthread_mutex_unlock(&journal->lock);
    if (!any)
        return true;
    if (!segments_named(journal->store, named, err))
        return false;
    pthread_mutex_lock(&journal->lock);
    for (int index = 0; index < SEGMENTS_MAX; index++)
        if (settled[index] && !named[index]) {
            journal->segments[index].used = 0;
            journal->segments[index].state = SEGMENT_FREE;
        }
    pthread_mutex_unlock(&journal->lock);
    return true;
}

/* One more where none is free. One that a former process left contents in counts as used. Without room on the disk the
 * journal stays as small as it is. */
static bool segment_add(struct store_journal *journal, struct err *err) {
    const struct store_config *config = &journal->store->config;
    bool named[SEGMENTS_MAX] = {false};
    pthread_mutex_lock(&journal->lock);
    int index = journal_segment_in(journal, SEGMENT_FREE) < 0 ? journal_segment_in(journal, SEGMENT_ABSENT) : -1;
    pthread_mutex_unlock(&journal->lock);
    struct err no_room = {0};
    if (index < 0 || !blob_room(config->folder, config->disk_reserve_bytes, ROOM_PER_SEGMENT * SEGMENT_BYTES, &no_room))
        return true;
    if (!segments_named(journal->store, named, err))
        return false;
    int descriptor = segment_open(config->folder, index, SEGMENT_BYTES, err);
    if (descriptor < 0)
        return false;
    pthread_mutex_lock(&journal->lock);
    journal->segments[index] = (struct segment){.state = named[index] ? SEGMENT_USED : SEGMENT_FREE,
                                                .descriptor = descriptor,
                                                .used = named[index] ? SEGMENT_BYTES : 0};
    pthread_mutex_unlock(&journal->lock);
    return true;
}

/* When reception rests, the active segment is given up, so that it can be written from its start again; under load,
 * when most of the journal is full, or nothing is free. */
static bool is_due(struct store_journal *journal) {
    size_t used = 0;
    pthread_mutex_lock(&journal->lock);
    bool rests = pulmo_monotonic_ms() - journal->last_put_ms >= IDLE_MS;
    int active = journal_segment_in(journal, SEGMENT_ACTIVE);
    if (rests && active >= 0)
        journal->segments[active].state = SEGMENT_USED;
    for (int index = 0; index < SEGMENTS_MAX; index++)
        used += journal->segments[index].state == SEGMENT_USED;
    bool none_free = journal_segment_in(journal, SEGMENT_FREE) < 0;
    pthread_mutex_unlock(&journal->lock);
    return used > 0 && (rests || none_free || used > SEGMENTS_FULL);
}

/* A part at a time: what it empties is free again at once, and a reception that begins again has the disk for itself.
 */
static bool checkpoint_step(struct store_journal *journal, struct err *err) {
    size_t moved = 0;
    if (!journal_checkpoint_some(journal->store, &moved, err))
        return false;
    journal->moving = moved > 0;
    return true;
}

bool store_journal_keep(struct store_journal *journal, int64_t wait_ms, struct err *err) {
    if (wait_ms > 0 && !journal->moving) {
        pthread_mutex_lock(&journal->lock);
        wake_wait(&journal->wake, &journal->lock, wait_ms);
        pthread_mutex_unlock(&journal->lock);
    }
    bool began = false;
    journal->moving = false;
    if (!writer_begin(journal, &began, err))
        return false;
    if (!began)
        return true; /* a former process is still ending */
    struct err why = {0};
    return segment_add(journal, err) && (!is_due(journal) || checkpoint_step(journal, err)) &&
           segments_recycle(journal, err) && number_note(journal, err) &&
           (group_is_well(&journal->group, &why) ||
            err_set(err, why.kind, "acknowledged, not yet in the database: %s", why.text));
}

/* ---- open and close ---------------------------------------------------------------------------------- */

void store_journal_set_pixel_digest(struct store_journal *journal, store_pixel_digest *digest) {
    store_set_pixel_digest(journal->store, digest);
    store_set_pixel_digest(journal->group.store, digest);
}

static void journal_free_at(struct store_journal **journal) {
    store_journal_close(*journal);
}

struct store_journal *store_journal_open(const struct store_config *config, struct err *err) {
    PULMO_SCOPED(journal_free_at) struct store_journal *journal = pulmo_alloc(1, sizeof *journal, err);
    if (!journal)
        return NULL;
    wake_init(&journal->wake);
    pthread_mutex_init(&journal->lock, NULL);
    journal->writer_lock = -1;
    journal->last_put_ms = pulmo_monotonic_ms() - IDLE_MS;
    sync_queue_start(&journal->syncs);
    journal->store = store_open(config, err);
    if (!group_start(&journal->group, journal->store ? store_open(config, err) : NULL, err) ||
        !segment_folder_make(config->folder, err))
        return NULL;
    struct store_journal *opened = journal;
    journal = NULL;
    return opened;
}

void store_journal_close(struct store_journal *journal) {
    if (!journal)
        return;
    group_stop(&journal->group, journal_put_forget);
    writer_end(journal);
    for (int index = 0; index < SEGMENTS_MAX; index++)
        if (journal->segments[index].state != SEGMENT_ABSENT)
            close(journal->segments[index].descriptor);
    sync_queue_stop(&journal->syncs);
    store_close(journal->store);
    pthread_cond_destroy(&journal->wake);
    pthread_mutex_destroy(&journal->lock);
    free(journal);
}
