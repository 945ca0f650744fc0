/* A copy of the store that is whole while the store goes on receiving.
 *
 * The snapshot comes first. Contents are immutable and come before the rows that name them, so everything the snapshot
 * names is there to be copied afterwards; only what is purged meanwhile is not, and then a newer snapshot is taken. */
#include "store/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "store/audit.h"
#include "store/blob.h"

#define SNAPSHOTS_MAX 3

struct backup {
    struct store *store;
    const struct store_backup_config *config;
    struct backup_manifest head;
    struct backup_writer writer;
    struct store *snapshot; /* the copy in the backup, read only */
    struct store_backup_figures figures;
    int64_t vanished; /* named by the snapshot, gone from the store */
    struct backup_files_kept files;
};

static void descriptor_close_at(int *descriptor) {
    if (*descriptor >= 0)
        close(*descriptor);
}

static void backup_free(struct backup *backup) {
    store_close(backup->snapshot);
    backup_writer_free(&backup->writer);
}

/* ---- folders ----------------------------------------------------------------------------------------- */

static bool folders_make(const char *folder, struct err *err) {
    static const char *const names[] = {"tmp", "database", "files", "blobs"};
    for (size_t index = 0; index < sizeof names / sizeof *names; index++)
        if (!backup_folder_make(folder, names[index], err))
            return false;
    for (unsigned index = 0; index < 256; index++) {
        char name[16];
        snprintf(name, sizeof name, "blobs/%02x", index);
        if (!backup_folder_make(folder, name, err))
            return false;
    }
    return true;
}

static bool is_inside(const char *inner, const char *outer) {
    PULMO_SCOPED(pulmo_free_at) char *inner_real = realpath(inner, NULL);
    PULMO_SCOPED(pulmo_free_at) char *outer_real = realpath(outer, NULL);
    size_t size = outer_real ? strlen(outer_real) : 0;
    return inner_real && outer_real && strncmp(inner_real, outer_real, size) == 0 &&
           (inner_real[size] == '/' || !inner_real[size]);
}

/* Names patients: for its owner only. */
static bool folder_make(const char *folder, const char *store_folder, struct err *err) {
    if (mkdir(folder, 0700) != 0 && errno != EEXIST)
        return err_set(err, errno == ENOSPC ? ERR_NO_SPACE : ERR_IO, "cannot make the folder %s: %s", folder,
                       strerror(errno));
    if (!is_inside(folder, store_folder))
        return true;
    rmdir(folder); /* when we made it: one with something in it stays */
    return err_set(err, ERR_CONFIG, "%s lies within the store that it would save", folder);
}

/* One backup at a time into a folder; returns the lock, or -1. */
static int folder_lock(const char *folder, struct err *err) {
    char path[BACKUP_PATH_SIZE];
    if (!backup_path(folder, "lock", path, err))
        return -1;
    int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (lock < 0) {
        err_set(err, errno == ENOSPC ? ERR_NO_SPACE : ERR_IO, "cannot make %s: %s", path, strerror(errno));
        return -1;
    }
    if (flock(lock, LOCK_EX | LOCK_NB) == 0)
        return lock;
    close(lock);
    err_set(err, ERR_BUSY, "another backup into %s is running", folder);
    return -1;
}

/* Held while files are copied: retention removes none meanwhile (store/retention.c takes it alone). -1 = no. */
static int purge_lock(const char *store_folder, struct err *err) {
    char path[BACKUP_PATH_SIZE];
    if (!backup_path(store_folder, "purge.lock", path, err))
        return -1;
    int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (lock < 0 || flock(lock, LOCK_SH) != 0)
        err_set(err, ERR_IO, "cannot lock %s: %s", path, strerror(errno));
    return lock;
}

/* ---- the snapshot ------------------------------------------------------------------------------------ */

/* VACUUM INTO is one read transaction: writers go on, and what it writes is the state of one moment. What the snapshot
 * names and what still lay in the reception journal is a file after the checkpoint. */
static bool snapshot_take(struct backup *backup, struct err *err) {
    char made[BACKUP_PATH_SIZE], name[BACKUP_NAME_SIZE], path[BACKUP_PATH_SIZE];
    const char *folder = backup->config->folder;
    struct backup_copied snapshot = {.size = 0};
    if (!backup_path(folder, "tmp/snapshot.db", made, err))
        return false;
    unlink(made);
    if (!sql_run(backup->store, "VACUUM INTO ?1", SQL_VALUES(sql_text(made)), err) || !blob_file_sync(made, err)) {
        unlink(made);
        return err_within(err, "snapshot of the database into %s", folder);
    }
    /* After the snapshot: then each content that it names is a file, also one that it says lies in the journal. */
    if (!store_journal_checkpoint(backup->store, err) || !backup_copy(made, NULL, 0, &snapshot, err))
        return false;
    snprintf(name, sizeof name, "database/%s.db", snapshot.digest);
    if (!backup_path(folder, name, path, err))
        return false;
    if (rename(made, path) != 0)
        return err_set(err, ERR_IO, "cannot rename to %s: %s", path, strerror(errno));
    backup->head = (struct backup_manifest){.made_ms = pulmo_now_ms()};
    memcpy(backup->head.database, snapshot.digest, sizeof snapshot.digest);
    backup->figures.database_bytes = snapshot.size;
    store_close(backup->snapshot);
    backup->snapshot = backup_database_open(path, SQLITE_OPEN_READONLY, err);
    return backup->snapshot && backup_manifest_count(backup->snapshot, &backup->head, err);
}

/* ---- contents ---------------------------------------------------------------------------------------- */

typedef bool content_visit(struct backup *backup, const char *sha256, int64_t size, struct err *err);

static bool contents_walk(struct backup *backup, content_visit *visit, struct err *err) {
    struct backup_sql sql;
    if (!backup_contents_sql(backup->snapshot, &sql, err))
        return false;
    PULMO_SCOPED(sql_done_at) sqlite3_stmt *statement = sql_prepare(backup->snapshot, sql.list, SQL_NO_VALUES, err);
    for (bool row = true; statement;) {
        char sha256[DIGEST_HEX_SIZE];
        if (!sql_step(backup->snapshot, statement, &row, err))
            return false;
        if (!row)
            return true;
        sql_column_text(statement, 0, sha256, sizeof sha256);
        if (!visit(backup, sha256, sqlite3_column_int64(statement, 1), err))
            return false;
    }
    return false;
}

static bool add_missing(struct backup *backup, const char *sha256, int64_t size, struct err *err) {
    (void)err;
    if (!blob_present(backup->config->folder, sha256, size))
        backup->figures.copied_bytes += size;
    return true;
}

/* Said before the first byte is copied, so that a nightly run into a full disk does not fill it to the brim first. */
static bool room_check(struct backup *backup, struct err *err) {
    struct statvfs status;
    backup->figures.copied_bytes = 0;
    if (!contents_walk(backup, add_missing, err))
        return false;
    uint64_t needed = (uint64_t)backup->figures.copied_bytes;
    backup->figures.copied_bytes = 0;
    if (statvfs(backup->config->folder, &status) != 0)
        return err_set(err, ERR_IO, "cannot ask for the free space of %s: %s", backup->config->folder, strerror(errno));
    uint64_t free_bytes = (uint64_t)status.f_bavail * status.f_frsize;
    return needed <= free_bytes ||
           err_set(err, ERR_NO_SPACE, "%s has %llu bytes free, and %llu are still to be copied", backup->config->folder,
                   (unsigned long long)free_bytes, (unsigned long long)needed);
}

static void report(struct backup *backup, const char *sentence) {
    backup->figures.damaged++;
    if (backup->config->fault)
        backup->config->fault(backup->config->context, sentence);
}

/* True when the backup has the content already: its bytes are read, since a disk that lies unread for years rots. */
static bool is_there(struct backup *backup, const char *sha256, int64_t size) {
    char path[BLOB_PATH_SIZE];
    struct backup_copied there = {.size = 0};
    return blob_present(backup->config->folder, sha256, size) &&
           blob_path(backup->config->folder, sha256, path, NULL) && backup_copy(path, NULL, 0, &there, NULL) &&
           strcmp(there.digest, sha256) == 0;
}

/* False only when the backup cannot go on; a content that the store itself has lost is named and left out. */
static bool content_copy(struct backup *backup, const char *sha256, bool *copied, struct err *err) {
    char from[BLOB_PATH_SIZE], to[BLOB_PATH_SIZE], made[BACKUP_PATH_SIZE];
    struct backup_copied copy = {.size = 0};
    struct err why = {0};
    *copied = false;
    if (!blob_path(backup->store->config.folder, sha256, from, err) ||
        !blob_path(backup->config->folder, sha256, to, err) ||
        !backup_path(backup->config->folder, "tmp/content", made, err))
        return false;
    if (!backup_copy(from, made, 0640, &copy, &why)) {
        if (why.kind != ERR_NOT_FOUND && why.kind != ERR_INPUT)
            return err_set(err, why.kind, "%s", why.text);
        backup->vanished += why.kind == ERR_NOT_FOUND;
        report(backup, why.text);
        return true;
    }
    if (strcmp(copy.digest, sha256) != 0) {
        snprintf(why.text, sizeof why.text, "stored content %s has changed: its digest is %s", sha256, copy.digest);
        unlink(made);
        report(backup, why.text);
        return true;
    }
    *copied = true;
    return rename(made, to) == 0 || err_set(err, ERR_IO, "cannot rename to %s: %s", to, strerror(errno));
}

static bool content_keep(struct backup *backup, const char *sha256, int64_t size, struct err *err) {
    char name[BACKUP_NAME_SIZE];
    bool there = is_there(backup, sha256, size), copied = false;
    if (!there && !content_copy(backup, sha256, &copied, err))
        return false;
    backup->figures.copied += copied;
    backup->figures.copied_bytes += copied ? size : 0;
    backup->figures.content_bytes += there || copied ? size : 0;
    backup->figures.contents += there || copied;
    if (backup->config->progress)
        backup->config->progress(backup->config->context, backup->figures.content_bytes, backup->head.content_bytes);
    snprintf(name, sizeof name, "blobs/%.2s/%s", sha256, sha256);
    return (!there && !copied) || backup_writer_add(&backup->writer, sha256, name, err);
}

/* ---- the rest ---------------------------------------------------------------------------------------- */

static bool file_keep(struct backup *backup, const char *from, const char *base, struct err *err) {
    char name[BACKUP_NAME_SIZE], made[BACKUP_PATH_SIZE], to[BACKUP_PATH_SIZE];
    struct backup_copied copied = {.size = 0};
    if (access(from, F_OK) != 0 && errno == ENOENT)
        return true; /* an installation with a certificate of its own has none of ours */
    if (!backup_path(backup->config->folder, "tmp/file", made, err) || !backup_copy(from, made, 0600, &copied, err))
        return false;
    char *kept = backup->files.names[backup->files.count++];
    snprintf(kept, BACKUP_NAME_SIZE, "%s-%s", copied.digest, base);
    snprintf(name, sizeof name, "files/%.121s", kept);
    if (!backup_path(backup->config->folder, name, to, err))
        return false;
    if (rename(made, to) != 0)
        return err_set(err, ERR_IO, "cannot rename to %s: %s", to, strerror(errno));
    backup->figures.files++;
    return backup_writer_add(&backup->writer, copied.digest, name, err);
}

static bool files_keep(struct backup *backup, struct err *err) {
    backup->files.count = 0;
    char from[BACKUP_PATH_SIZE];
    for (size_t index = 0; index < backup_file_count; index++)
        if (!backup_path(backup->store->config.folder, backup_files[index], from, err) ||
            !file_keep(backup, from, backup_files[index], err))
            return false;
    return !backup->config->config_file || file_keep(backup, backup->config->config_file, BACKUP_CONFIG, err);
}

static bool copy_all(struct backup *backup, struct err *err) {
    char name[BACKUP_NAME_SIZE];
    backup_writer_free(&backup->writer);
    snprintf(name, sizeof name, "database/%s.db", backup->head.database);
    return room_check(backup, err) &&
           backup_writer_begin(backup->config->folder, &backup->head, &backup->writer, err) &&
           backup_writer_add(&backup->writer, backup->head.database, name, err) && files_keep(backup, err) &&
           contents_walk(backup, content_keep, err);
}

static bool audit_backup(struct backup *backup, struct err *err) {
    char detail[256];
    snprintf(detail, sizeof detail, "backup: database %s, %lld contents, %lld copied, %lld damaged",
             backup->head.database, (long long)backup->figures.contents, (long long)backup->figures.copied,
             (long long)backup->figures.damaged);
    struct store_audit audit = {.code = AUDIT_EXPORT,
                                .action = "backup",
                                .actor = backup->config->actor,
                                .detail = detail,
                                .outcome = backup->figures.damaged ? AUDIT_SERIOUS_FAILURE : AUDIT_SUCCESS};
    return store_audit_append(backup->store, &audit, err);
}

static bool backup_tidy(struct backup *backup, struct err *err) {
    const char *folder = backup->config->folder;
    return backup_prune_files(folder, &backup->files, err) &&
           backup_prune_databases(folder, backup->head.database, err) &&
           (!backup->config->prune || backup_prune_contents(folder, backup->snapshot, &backup->figures.pruned, err));
}

static bool backup_make(struct backup *backup, struct err *err) {
    bool good = true;
    for (int round = 1; good; round++) {
        backup->figures = (struct store_backup_figures){.contents = 0};
        backup->vanished = 0;
        good = snapshot_take(backup, err) && copy_all(backup, err);
        if (!backup->vanished || round == SNAPSHOTS_MAX)
            break;
    }
    backup->figures.audit_rows = backup->head.audit_rows;
    backup->figures.made_ms = backup->head.made_ms;
    for (size_t index = 0; index < backup->head.table_count; index++)
        backup->figures.rows += backup->head.tables[index].rows;
    /* Names; contents were synced as they were copied. */
    return good && blob_file_system_sync(backup->config->folder, err) && backup_writer_end(&backup->writer, err) &&
           backup_tidy(backup, err) && audit_backup(backup, err);
}

bool store_backup(struct store *store, const struct store_backup_config *config, struct store_backup_figures *out,
                  struct err *err) {
    PULMO_SCOPED(backup_free) struct backup backup = {.store = store, .config = config};
    if (!folder_make(config->folder, store->config.folder, err))
        return false;
    PULMO_SCOPED(descriptor_close_at) int lock = folder_lock(config->folder, err);
    PULMO_SCOPED(descriptor_close_at) int purge = lock < 0 ? -1 : purge_lock(store->config.folder, err);
    if (lock < 0 || purge < 0 || !folders_make(config->folder, err) || !backup_make(&backup, err))
        return false;
    *out = backup.figures;
    return true;
}
