/* From the journal into blobs/. Any process may do it; one at a time, by the lock of journal/lock. */
#include "store/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "store/audit.h"
#include "store/blob.h"
#include "store/handle.h"
#include "store/segment.h"

/* Contents that are moved with one pair of syncs. */
#define BATCH_MAX 64
#define BATCH_BYTES_MAX ((int64_t)32 << 20)

static void descriptor_close_at(int *descriptor) {
    if (*descriptor >= 0)
        close(*descriptor);
}

/* ---- looking ----------------------------------------------------------------------------------------- */

static void place_row(sqlite3_stmt *statement, struct journal_place *out) {
    *out = (struct journal_place){.id = sqlite3_column_int64(statement, 0),
                                  .size = sqlite3_column_int64(statement, 2),
                                  .segment = sqlite3_column_int64(statement, 3),
                                  .position = sqlite3_column_int64(statement, 4)};
    sql_column_text(statement, 1, out->sha256, sizeof out->sha256);
}

/* id 0 = not in the journal. */
static bool place_find(struct store *store, const char *sha256, struct journal_place *out, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement =
        sql_prepare(store, "SELECT id, blob_sha256, blob_size, segment, position FROM journal WHERE blob_sha256 = ?1",
                    SQL_VALUES(sql_text(sha256)), err);
    bool row = false;
    if (!statement || !sql_step(store, statement, &row, err))
        return false;
    *out = (struct journal_place){.id = 0};
    if (row)
        place_row(statement, out);
    return true;
}

/* ERR_CONFLICT or ERR_NOT_FOUND when what lies there is not the content. out: of the place's size. */
static bool place_load(const char *folder, const struct journal_place *place, bool digested, uint8_t *out,
                       struct err *err) {
    char digest[DIGEST_HEX_SIZE];
    if (!segment_read(folder, place->segment, (uint64_t)place->position, (size_t)place->size, out, err))
        return false;
    if (!digested)
        return true;
    if (!digest_hex(out, (size_t)place->size, digest, err))
        return false;
    return strcmp(digest, place->sha256) == 0 ||
           err_set(err, ERR_CONFLICT, "content %s has changed in the journal: its digest is %s", place->sha256, digest);
}

static bool place_check(const struct journal_place *place, struct err *err) {
    return (place->size > 0 && place->position >= 0) ||
           err_set(err, ERR_CONFLICT, "the journal's row of content %s is damaged", place->sha256);
}

static bool place_read(const char *folder, const struct journal_place *place, struct bytes *out, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes bytes = {0};
    if (!place_check(place, err))
        return false;
    bytes = (struct bytes){pulmo_alloc((size_t)place->size, 1, err), (size_t)place->size};
    if (!bytes.data || !place_load(folder, place, true, bytes.data, err))
        return false;
    *out = bytes;
    bytes = (struct bytes){0};
    return true;
}

/* Between the look at the row and the read, a checkpoint may have moved the content and the segment been written over:
 * then the row is gone, and the blob there. */
bool journal_read(struct store *store, const char *sha256, int64_t size, struct bytes *out, struct err *err) {
    struct journal_place place;
    struct err moved = {0};
    if (!place_find(store, sha256, &place, err))
        return false;
    if (place.id && place.size == size && place_read(store->config.folder, &place, out, &moved))
        return true;
    if (moved.kind == ERR_MEMORY) /* says nothing of the content, which no file needs to have yet */
        return err_set(err, moved.kind, "%s", moved.text);
    return blob_read(store->config.folder, sha256, size, out, err);
}

bool journal_holds(struct store *store, const char *sha256, int64_t size, bool *durable, struct err *err) {
    struct journal_place place;
    if (!place_find(store, sha256, &place, err))
        return false;
    *durable = (place.id && place.size == size) || blob_present(store->config.folder, sha256, size);
    return true;
}

bool journal_holds_study(struct store *store, const char *study_uid, bool *waiting, struct err *err) {
    int64_t found = 0;
    if (!sql_integer(store,
                     "SELECT EXISTS (SELECT 1 FROM instance JOIN journal USING (blob_sha256)"
                     " WHERE study_uid = ?1)",
                     SQL_VALUES(sql_text(study_uid)), &found, err))
        return false;
    *waiting = found != 0;
    return true;
}

/* ---- moving ------------------------------------------------------------------------------------------ */

struct move {
    struct journal_place places[BATCH_MAX];
    size_t count;
    bool lost[BATCH_MAX];
    struct bytes room; /* for one content after the other */
};

static void move_free_at(struct move **move) {
    if (*move)
        bytes_free(&(*move)->room);
    free(*move);
}

/* The next rows up to an id: of one study, or of all ("" = all). */
static bool move_take(struct store *store, const char *study_uid, int64_t id_max, struct move *move, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement =
        sql_prepare(store,
                    "SELECT id, blob_sha256, blob_size, segment, position FROM journal WHERE id <= ?1 AND (?2 = '' OR"
                    " blob_sha256 IN (SELECT blob_sha256 FROM instance WHERE study_uid = ?2))"
                    " ORDER BY id LIMIT ?3",
                    SQL_VALUES(sql_int(id_max), sql_text(study_uid), sql_int(BATCH_MAX)), err);
    int64_t bytes = 0;
    if (!statement)
        return false;
    for (bool row = true; move->count < BATCH_MAX && bytes < BATCH_BYTES_MAX;) {
        if (!sql_step(store, statement, &row, err))
            return false;
        if (!row)
            break;
        place_row(statement, &move->places[move->count]);
        bytes += move->places[move->count++].size;
    }
    return true;
}

/* Not zeroed, and kept: a page that is touched for the first time costs more than to copy it. */
static bool room_make(struct move *move, size_t size, struct err *err) {
    if (move->room.size >= size)
        return true;
    if (size > PULMO_ALLOC_MAX)
        return err_set(err, ERR_CONFLICT, "a content of %zu bytes in the journal", size);
    bytes_free(&move->room);
    move->room.data = malloc(size);
    move->room.size = move->room.data ? size : 0;
    return move->room.data || err_set(err, ERR_MEMORY, "out of memory for %zu bytes", size);
}

/* What this process wrote and synced, it need not digest again: the kernel still has it, or reads it from where the
 * sync has put it. What a former process wrote has come through a crash, perhaps of the machine. Either is digested
 * again before anything is concluded from it (store/contents.c). */
static bool move_load(struct store *store, struct move *move, const struct journal_place *place, struct err *err) {
    bool own = store->journal_own_after >= 0 && place->id > store->journal_own_after;
    return place_check(place, err) && room_make(move, (size_t)place->size, err) &&
           place_load(store->config.folder, place, !own, move->room.data, err);
}

/* A content that its segment does not hold may be in blobs/ already: in a store that was restored from a backup, and
 * after a resend. Otherwise it is lost: the syncs' order excludes it, so the disk has lost or changed it. */
static bool move_look(struct store *store, const struct journal_place *place, bool *lost, struct err *err) {
    struct err gone = {0};
    PULMO_SCOPED(bytes_free) struct bytes stored = {0};
    *lost = !blob_read(store->config.folder, place->sha256, place->size, &stored, &gone);
    return !*lost || gone.kind != ERR_MEMORY || err_set(err, gone.kind, "%s", gone.text);
}

static bool move_files(struct store *store, struct move *move, struct err *err) {
    PULMO_SCOPED(blob_batch_free) struct blob_batch batch = {.count = 0};
    if (!blob_batch_begin(&batch, store->config.folder, move->count, err))
        return false;
    for (size_t index = 0; index < move->count; index++) {
        const struct journal_place *place = &move->places[index];
        struct err why = {0};
        if (move_load(store, move, place, &why)) {
            if (!blob_batch_put(&batch, place->sha256, move->room.data, (size_t)place->size, err))
                return false;
            continue;
        }
        if (why.kind != ERR_CONFLICT && why.kind != ERR_NOT_FOUND)
            return err_set(err, why.kind, "%s", why.text);
        if (!move_look(store, place, &move->lost[index], err))
            return false;
    }
    return blob_batch_end(&batch, err);
}

static bool lost_audit(struct store *store, const struct journal_place *place, struct err *err) {
    char detail[160];
    snprintf(detail, sizeof detail, "content %s, segment %lld, position %lld", place->sha256, (long long)place->segment,
             (long long)place->position);
    struct store_audit audit = {.code = AUDIT_SECURITY_ALERT,
                                .action = "journal-content-lost",
                                .detail = detail,
                                .outcome = AUDIT_SERIOUS_FAILURE};
    return audit_add(store, &audit, err);
}

static bool move_commit(struct store *store, const struct move *move, struct err *err) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    if (!sql_begin(store, &transaction, err))
        return false;
    for (size_t index = 0; index < move->count; index++)
        if (!sql_run(store, "DELETE FROM journal WHERE id = ?1", SQL_VALUES(sql_int(move->places[index].id)), err) ||
            (move->lost[index] && !lost_audit(store, &move->places[index], err)))
            return false;
    return sql_commit(&transaction, err);
}

/* *moved = rows that are no longer in the journal; 0 = there were none. */
static bool move_some(struct store *store, const char *study_uid, int64_t id_max, size_t *moved, struct err *err) {
    PULMO_SCOPED(move_free_at) struct move *move = pulmo_alloc(1, sizeof *move, err);
    if (!move || !move_take(store, study_uid, id_max, move, err))
        return false;
    *moved = move->count;
    return move->count == 0 || (move_files(store, move, err) && move_commit(store, move, err));
}

static int lock_take(struct store *store, struct err *err) {
    char path[SEGMENT_PATH_SIZE];
    if (!segment_folder_make(store->config.folder, err))
        return -1;
    snprintf(path, sizeof path, "%s/journal/lock", store->config.folder);
    int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (lock < 0) {
        err_set(err, errno == ENOSPC ? ERR_NO_SPACE : ERR_IO, "cannot open %s: %s", path, strerror(errno));
        return -1;
    }
    while (flock(lock, LOCK_EX) != 0)
        if (errno != EINTR) {
            err_set(err, ERR_IO, "cannot lock %s: %s", path, strerror(errno));
            close(lock);
            return -1;
        }
    return lock;
}

static bool move_all(struct store *store, const char *study_uid, struct err *err) {
    int64_t id_max = 0;
    PULMO_SCOPED(descriptor_close_at) int lock = lock_take(store, err);
    if (lock < 0)
        return false;
    /* Up to what is there now: reception may add faster than this moves. */
    if (!sql_integer(store, "SELECT coalesce(max(id), 0) FROM journal", SQL_NO_VALUES, &id_max, err))
        return false;
    for (size_t moved = 1; moved > 0;)
        if (!move_some(store, study_uid, id_max, &moved, err))
            return err_within(err, "journal");
    return true;
}

bool store_journal_checkpoint(struct store *store, struct err *err) {
    int64_t waiting = 0;
    if (!sql_integer(store, "SELECT EXISTS (SELECT 1 FROM journal)", SQL_NO_VALUES, &waiting, err))
        return false;
    return !waiting || move_all(store, "", err);
}

bool journal_checkpoint_study(struct store *store, const char *study_uid, struct err *err) {
    return move_all(store, study_uid, err);
}

bool journal_checkpoint_some(struct store *store, size_t *moved, struct err *err) {
    PULMO_SCOPED(descriptor_close_at) int lock = lock_take(store, err);
    return lock >= 0 && (move_some(store, "", INT64_MAX, moved, err) || err_within(err, "journal"));
}
