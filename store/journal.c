/* The writing side of the journal: one a folder, in the reception process. */
#include "store/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "store/blob.h"
#include "store/contents.h"
#include "store/group.h"
#include "store/handle.h"
#include "store/instance.h"
#include "store/segment.h"

/* 1 GiB: the studies of a quarter of an hour at the pace of a busy scanner. */
#define SEGMENT_BYTES ((uint64_t)32 << 20)
#define SEGMENTS_MAX 32
/* What is left of the disk, beyond its reserve, for each segment that is made. */
#define ROOM_PER_SEGMENT 8
#define IDLE_MS 300 /* without a put for so long, the journal is emptied */
/* Contents are moved under load when more segments than this are used: it is a second write beside reception. */
#define SEGMENTS_FULL (SEGMENTS_MAX * 3 / 4)

/* used: full, or given up while reception rests; may hold contents that rows name. */
enum segment_state { SEGMENT_ABSENT, SEGMENT_FREE, SEGMENT_ACTIVE, SEGMENT_USED };
struct segment {
    enum segment_state state;
    int descriptor;
    uint64_t used;
    unsigned writers; /* puts between their place and their commit */
};

struct store_journal {
    struct group group;   /* on a handle of its own */
    struct store *store;  /* of store_journal_keep */
    int writer_lock;      /* -1 while another process has it */
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t wake;
    struct segment segments[SEGMENTS_MAX];
    bool broken;         /* a sync failed: this process takes the direct way from now on */
    bool moving;         /* the last step of a checkpoint was not the last; of store_journal_keep alone */
    int64_t last_put_ms; /* monotonic */
};

/* ---- places ------------------------------------------------------------------------------------------ */

/* Lowest number first: the fewer segments are in use, the warmer they are. */
static int segment_in(const struct store_journal *journal, enum segment_state state) {
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

struct place {
    int segment; /* -1 = none */
    int descriptor;
    uint64_t position;
};

/* Of the active segment; a full one makes room for a free one. The lock is held. */
static int segment_for(struct store_journal *journal, uint64_t room) {
    int active = segment_in(journal, SEGMENT_ACTIVE);
    if (active >= 0 && journal->segments[active].used + room <= SEGMENT_BYTES)
        return active;
    if (active >= 0) {
        journal->segments[active].state = SEGMENT_USED;
        pthread_cond_signal(&journal->wake);
    }
    int fresh = segment_in(journal, SEGMENT_FREE);
    if (fresh >= 0)
        journal->segments[fresh].state = SEGMENT_ACTIVE;
    return fresh;
}

static struct place place_take(struct store_journal *journal, size_t size) {
    uint64_t room = segment_room(size);
    struct place place = {.segment = -1, .descriptor = -1};
    pthread_mutex_lock(&journal->lock);
    int index = room <= SEGMENT_BYTES && !journal->broken ? segment_for(journal, room) : -1;
    if (index >= 0) {
        struct segment *segment = &journal->segments[index];
        place = (struct place){index, segment->descriptor, segment->used};
        segment->used += room;
        segment->writers++;
    }
    journal->last_put_ms = pulmo_monotonic_ms();
    pthread_mutex_unlock(&journal->lock);
    return place;
}

static void place_leave(struct store_journal *journal, const struct place *place, bool sync_failed) {
    pthread_mutex_lock(&journal->lock);
    journal->segments[place->segment].writers--;
    journal->broken = journal->broken || sync_failed;
    pthread_mutex_unlock(&journal->lock);
}

/* ---- a put ------------------------------------------------------------------------------------------- */

struct journal_put {
    struct instance_put put;
    struct place place;
    bool again;
};

static bool place_row_add(struct store *store, const struct journal_put *put, struct err *err) {
    return sql_run(store,
                   "INSERT INTO journal (blob_sha256, blob_size, segment, position) VALUES (?1, ?2, ?3, ?4)"
                   " ON CONFLICT DO NOTHING", /* the same content lies there already, as durable */
                   SQL_VALUES(sql_text(put->put.input.blob), sql_int((int64_t)put->put.input.instance->part10_size),
                              sql_int(put->place.segment), sql_int((int64_t)put->place.position)),
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
    const struct instance *instance = put->put.input.instance;
    if (put->place.segment >= 0 || !put->put.journaled)
        return true;
    put->put.journaled = false;
    return blob_put(store->config.folder, put->put.input.blob, instance->part10, instance->part10_size, err);
}

/* Most instances are new: that is tried before anything is read. Where the rows know better, they ask for a decision.
 */
static bool put_commit(struct store_journal *journal, struct store *store, struct journal_put *put, bool *sync_failed,
                       struct err *err) {
    put->put.decision = (struct version_decision){.version = VERSION_FIRST};
    put->put.journaled = true;
    for (int tries = 0; tries <= INSTANCE_DECISIONS_MAX; tries++) {
        struct group_ticket ticket = {.work = put_work, .context = put};
        if ((tries > 0 && !put_decide(store, put, err)) || !put_durable(store, put, err))
            return false;
        ticket.descriptor = put->put.journaled ? put->place.descriptor : -1;
        if (!group_run(&journal->group, &ticket)) {
            *sync_failed = ticket.sync_failed;
            return err_set(err, ticket.err.kind, "%s", ticket.err.text);
        }
        if (!put->again)
            return true;
    }
    return err_set(err, ERR_BUSY, "instance %s is being stored by too many senders at once",
                   put->put.input.instance->sop_instance_uid);
}

/* The bytes go out before what is not digested yet is: the disk and the processor work at one time. */
static bool put_try(struct store_journal *journal, struct store *store, const struct instance *instance,
                    struct err *err) {
    struct journal_put put = {.put = {.now_ms = pulmo_now_ms()}, .place = place_take(journal, instance->part10_size)};
    const struct place *place = &put.place;
    bool sync_failed = false;
    bool good = (place->segment < 0 ||
                 segment_write(place->descriptor, place->position, instance->part10, instance->part10_size, err)) &&
                version_input_make(instance, &put.put.input, err) &&
                put_commit(journal, store, &put, &sync_failed, err);
    if (place->segment >= 0)
        place_leave(journal, place, sync_failed);
    return good;
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
    struct group_ticket ticket = {.work = work, .context = context, .descriptor = -1};
    return group_run(&journal->group, &ticket) || err_set(err, ticket.err.kind, "%s", ticket.err.text);
}

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

/* From now on only this process adds rows. */
static bool writer_begin(struct store_journal *journal, bool *began, struct err *err) {
    int64_t last = 0;
    *began = writer_lock_try(journal);
    if (!*began || journal->store->journal_own_after >= 0)
        return true;
    if (!sql_integer(journal->store, "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'journal'",
                     SQL_NO_VALUES, &last, err))
        return false;
    journal->store->journal_own_after = last;
    return true;
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
    int index = segment_in(journal, SEGMENT_FREE) < 0 ? segment_in(journal, SEGMENT_ABSENT) : -1;
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
    int active = segment_in(journal, SEGMENT_ACTIVE);
    if (rests && active >= 0)
        journal->segments[active].state = SEGMENT_USED;
    for (int index = 0; index < SEGMENTS_MAX; index++)
        used += journal->segments[index].state == SEGMENT_USED;
    bool none_free = segment_in(journal, SEGMENT_FREE) < 0;
    pthread_mutex_unlock(&journal->lock);
    return used > 0 && (rests || none_free || used > SEGMENTS_FULL);
}

static void wait_for_work(struct store_journal *journal, int64_t wait_ms) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (until.tv_nsec / 1000000 + wait_ms) / 1000;
    until.tv_nsec = (until.tv_nsec / 1000000 + wait_ms) % 1000 * 1000000;
    pthread_mutex_lock(&journal->lock);
    (void)pthread_cond_timedwait(&journal->wake, &journal->lock, &until);
    pthread_mutex_unlock(&journal->lock);
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
    if (wait_ms > 0 && !journal->moving)
        wait_for_work(journal, wait_ms);
    bool began = false;
    journal->moving = false;
    if (!writer_begin(journal, &began, err))
        return false;
    if (!began)
        return true; /* a former process is still ending */
    return segment_add(journal, err) && (!is_due(journal) || checkpoint_step(journal, err)) &&
           segments_recycle(journal, err);
}

/* ---- open and close ---------------------------------------------------------------------------------- */

static void journal_free_at(struct store_journal **journal) {
    store_journal_close(*journal);
}

struct store_journal *store_journal_open(const struct store_config *config, struct err *err) {
    PULMO_SCOPED(journal_free_at) struct store_journal *journal = pulmo_alloc(1, sizeof *journal, err);
    if (!journal)
        return NULL;
    pthread_condattr_t monotonic; /* a clock that is set moves no wait */
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&journal->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&journal->lock, NULL);
    journal->writer_lock = -1;
    journal->last_put_ms = pulmo_monotonic_ms() - IDLE_MS;
    journal->store = store_open(config, err);
    group_start(&journal->group, journal->store ? store_open(config, err) : NULL);
    if (!journal->group.store || !segment_folder_make(config->folder, err))
        return NULL;
    struct store_journal *opened = journal;
    journal = NULL;
    return opened;
}

void store_journal_close(struct store_journal *journal) {
    if (!journal)
        return;
    for (int index = 0; index < SEGMENTS_MAX; index++)
        if (journal->segments[index].state != SEGMENT_ABSENT)
            close(journal->segments[index].descriptor);
    group_stop(&journal->group);
    store_close(journal->store);
    if (journal->writer_lock >= 0)
        close(journal->writer_lock);
    pthread_cond_destroy(&journal->wake);
    pthread_mutex_destroy(&journal->lock);
    free(journal);
}
