/* A backup becomes a store again, or is only checked.
 *
 * While it is being filled the folder holds a file that store_open refuses (store/backup.h), and the database gets its
 * name last: a restore that was cut off never looks like an empty or a whole store. */
#include "store/backup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/blob.h"

struct restore {
    const struct store_restore_config *config;
    struct backup_manifest head, counted;
    struct store *database; /* of the backup, read only */
    struct store_backup_figures figures;
    int64_t done_bytes;
    bool began; /* something was written */
};

static void restore_free(struct restore *restore) {
    store_close(restore->database);
}

static void report(struct restore *restore, const char *format, ...) PULMO_PRINTF(2, 3);
static void report(struct restore *restore, const char *format, ...) {
    char sentence[512];
    va_list values;
    va_start(values, format);
    vsnprintf(sentence, sizeof sentence, format, values);
    va_end(values);
    restore->figures.damaged++;
    if (restore->config->fault)
        restore->config->fault(restore->config->context, sentence);
}

/* ---- the folder -------------------------------------------------------------------------------------- */

static bool is_empty(const char *path, bool *empty, struct err *err) {
    DIR *folder = opendir(path);
    if (!folder)
        return err_set(err, ERR_IO, "cannot read the folder %s: %s", path, strerror(errno));
    *empty = true;
    for (struct dirent *entry; *empty && (entry = readdir(folder));)
        *empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
                 strcmp(entry->d_name, "lost+found") == 0; /* the root of a file system made for it */
    closedir(folder);
    return true;
}

/* By its name alone, in one step: under another name first, a kill would leave a folder that looks like a new store. */
static bool marker_make(const char *folder, const char *marker, struct err *err) {
    int descriptor = open(marker, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    if (descriptor < 0)
        return err_set(err, errno == ENOSPC ? ERR_NO_SPACE : ERR_IO, "cannot make %s: %s", marker, strerror(errno));
    close(descriptor);
    return blob_folder_sync(folder, err);
}

static bool folder_begin(struct restore *restore, struct err *err) {
    const char *folder = restore->config->folder;
    char marker[BACKUP_PATH_SIZE];
    bool empty = false;
    if (mkdir(folder, 0750) != 0 && errno != EEXIST)
        return err_set(err, ERR_IO, "cannot make the folder %s: %s", folder, strerror(errno));
    if (!is_empty(folder, &empty, err))
        return false;
    if (!empty)
        return err_set(err, ERR_CONFLICT, "%s is not empty; a backup is restored into an empty folder only", folder);
    if (!backup_path(folder, BACKUP_RESTORING, marker, err) || !marker_make(folder, marker, err))
        return false;
    restore->began = true;
    return blob_folders_make(folder, err);
}

/* All of it is ours: the folder was empty. The marker goes last. */
static void folder_empty(const char *folder) {
    char marker[BACKUP_PATH_SIZE];
    char *roots[] = {(char *)(uintptr_t)folder, NULL};
    if (!backup_path(folder, BACKUP_RESTORING, marker, NULL))
        return;
    FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    for (FTSENT *entry; tree && (entry = fts_read(tree));)
        if (entry->fts_level > 0 && entry->fts_info != FTS_D && strcmp(entry->fts_path, marker) != 0 &&
            strcmp(entry->fts_name, "lost+found") != 0)
            remove(entry->fts_path);
    if (tree)
        fts_close(tree);
    unlink(marker);
}

/* ---- files ------------------------------------------------------------------------------------------- */

/* Where a listed file goes: target relative to the store, "" when only the manifest of another program could list it.
 */
static void target_of(const struct restore *restore, const char *digest, const char *name,
                      char target[BACKUP_NAME_SIZE]) {
    char expected[BACKUP_NAME_SIZE];
    *target = '\0';
    snprintf(expected, sizeof expected, "database/%s.db", restore->head.database);
    if (strcmp(name, expected) == 0)
        snprintf(target, BACKUP_NAME_SIZE, "tmp/pulmo.db");
    snprintf(expected, sizeof expected, "blobs/%.2s/%s", digest, digest);
    if (strcmp(name, expected) == 0)
        snprintf(target, BACKUP_NAME_SIZE, "%s", name);
    snprintf(expected, sizeof expected, "files/%s-" BACKUP_CONFIG, digest);
    if (strcmp(name, expected) == 0)
        snprintf(target, BACKUP_NAME_SIZE, BACKUP_CONFIG);
    for (size_t index = 0; index < backup_file_count; index++) {
        snprintf(expected, sizeof expected, "files/%s-%s", digest, backup_files[index]);
        if (strcmp(name, expected) == 0)
            snprintf(target, BACKUP_NAME_SIZE, "%s", backup_files[index]);
    }
}

static void count_file(struct restore *restore, const char *target, int64_t size) {
    bool content = strncmp(target, "blobs/", 6) == 0;
    restore->figures.contents += content;
    restore->figures.content_bytes += content ? size : 0;
    restore->figures.files += !content && strcmp(target, "tmp/pulmo.db") != 0;
    if (strcmp(target, "tmp/pulmo.db") == 0)
        restore->figures.database_bytes = size;
    restore->done_bytes += content ? size : 0;
    if (restore->config->progress)
        restore->config->progress(restore->config->context, restore->done_bytes, restore->head.content_bytes);
}

/* A file that is not what the manifest says is named, and the others are looked at all the same: who restores wants to
 * know the extent. False only when the target fails. */
static bool restore_file(void *context, const char *digest, const char *name, struct err *err) {
    struct restore *restore = context;
    char from[BACKUP_PATH_SIZE], to[BACKUP_PATH_SIZE], target[BACKUP_NAME_SIZE];
    const char *folder = restore->config->folder;
    struct backup_copied copied = {.size = 0};
    struct err why = {0};
    target_of(restore, digest, name, target);
    if (!*target)
        return err_set(err, ERR_INPUT, "the manifest lists %s, which is no part of a backup", name);
    if (!backup_path(restore->config->backup, name, from, err) || (folder && !backup_path(folder, target, to, err)))
        return false;
    bool secret = strncmp(name, "files/", 6) == 0;
    if (!backup_copy(from, folder ? to : NULL, secret ? 0600 : 0640, &copied, &why)) {
        if (why.kind != ERR_NOT_FOUND && why.kind != ERR_INPUT)
            return err_set(err, why.kind, "%s", why.text);
        report(restore, "%s: %s", name, why.kind == ERR_NOT_FOUND ? "is missing" : why.text);
    } else if (strcmp(copied.digest, digest) != 0) {
        report(restore, "%s: was changed, its digest is %s", name, copied.digest);
    } else {
        count_file(restore, target, copied.size);
    }
    return true;
}

/* ---- the database ------------------------------------------------------------------------------------ */

static bool check_integrity(struct restore *restore, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(restore->database, "PRAGMA integrity_check(20)", SQL_NO_VALUES, err);
    for (bool row = true; statement;) {
        char sentence[256];
        if (!sql_step(restore->database, statement, &row, err))
            return false;
        if (!row)
            break;
        sql_column_text(statement, 0, sentence, sizeof sentence);
        if (strcmp(sentence, "ok") != 0)
            report(restore, "database: %s", sentence);
    }
    int64_t orphans = 0;
    if (!statement ||
        !sql_integer(restore->database, "SELECT count(*) FROM pragma_foreign_key_check", SQL_NO_VALUES, &orphans, err))
        return false;
    if (orphans)
        report(restore, "database: %lld rows refer to what is not there", (long long)orphans);
    return true;
}

static const struct backup_table *table_find(const struct backup_manifest *head, const char *name) {
    for (size_t index = 0; index < head->table_count; index++)
        if (strcmp(head->tables[index].name, name) == 0)
            return &head->tables[index];
    return NULL;
}

static bool check_counts(struct restore *restore, struct err *err) {
    if (!backup_manifest_count(restore->database, &restore->counted, err))
        return false;
    if (restore->counted.table_count != restore->head.table_count)
        report(restore, "database: %zu tables instead of %zu", restore->counted.table_count, restore->head.table_count);
    for (size_t index = 0; index < restore->counted.table_count; index++) {
        const struct backup_table *table = &restore->counted.tables[index];
        const struct backup_table *listed = table_find(&restore->head, table->name);
        if (!listed || listed->rows != table->rows)
            report(restore, "database: %lld rows of %s instead of %lld", (long long)table->rows, table->name,
                   listed ? (long long)listed->rows : 0);
        restore->figures.rows += table->rows;
    }
    if (restore->counted.audit_rows != restore->head.audit_rows ||
        strcmp(restore->counted.audit_digest, restore->head.audit_digest) != 0)
        report(restore, "database: the audit chain ends elsewhere than the manifest says");
    return true;
}

static bool check_chain(struct restore *restore, struct err *err) {
    int64_t bad = 0;
    char reason[200] = "";
    if (!store_audit_verify(restore->database, &restore->figures.audit_rows, &bad, reason, sizeof reason, err))
        return false;
    if (bad)
        report(restore, "audit chain: row %lld: %s", (long long)bad, reason);
    return true;
}

/* Every content that a row names was listed, copied and digested: its name is its digest. */
static bool check_contents(struct restore *restore, struct err *err) {
    const char *folder = restore->config->folder ? restore->config->folder : restore->config->backup;
    struct backup_sql sql;
    if (!backup_contents_sql(restore->database, &sql, err))
        return false;
    PULMO_SCOPED(sql_done_at) sqlite3_stmt *statement = sql_prepare(restore->database, sql.list, SQL_NO_VALUES, err);
    for (bool row = true; statement;) {
        char sha256[DIGEST_HEX_SIZE];
        if (!sql_step(restore->database, statement, &row, err))
            return false;
        if (!row)
            return true;
        sql_column_text(statement, 0, sha256, sizeof sha256);
        if (!blob_present(folder, sha256, sqlite3_column_int64(statement, 1)))
            report(restore, "content %s is named by the database and not in the backup", sha256);
    }
    return false;
}

static bool database_check(struct restore *restore, struct err *err) {
    char path[BACKUP_PATH_SIZE], name[BACKUP_NAME_SIZE];
    snprintf(name, sizeof name, "database/%s.db", restore->head.database);
    if (!backup_path(restore->config->backup, name, path, err))
        return false;
    restore->database = backup_database_open(path, SQLITE_OPEN_READONLY, err);
    return restore->database && check_integrity(restore, err) && check_counts(restore, err) &&
           check_chain(restore, err) && check_contents(restore, err);
}

/* ---- together ---------------------------------------------------------------------------------------- */

/* The head alone first: the files can only be judged with it. */
static bool files_restore(struct restore *restore, struct err *err) {
    return backup_manifest_read(restore->config->backup, &restore->head, NULL, NULL, err) &&
           (!restore->config->folder || folder_begin(restore, err)) &&
           backup_manifest_read(restore->config->backup, &restore->head, restore_file, restore, err);
}

static bool folder_finish(const struct restore *restore, struct err *err) {
    const char *folder = restore->config->folder;
    char made[BACKUP_PATH_SIZE], final[BACKUP_PATH_SIZE], marker[BACKUP_PATH_SIZE];
    if (!backup_path(folder, "tmp/pulmo.db", made, err) || !backup_path(folder, "pulmo.db", final, err) ||
        !backup_path(folder, BACKUP_RESTORING, marker, err) || !blob_file_system_sync(folder, err))
        return false;
    if (rename(made, final) != 0 || !blob_folder_sync(folder, err) || unlink(marker) != 0)
        return err_set(err, ERR_IO, "cannot finish the restore into %s: %s", folder, strerror(errno));
    return blob_folder_sync(folder, err);
}

static bool restore_make(struct restore *restore, struct err *err) {
    if (!files_restore(restore, err))
        return false;
    if (!restore->figures.damaged && !database_check(restore, err))
        return err_within(err, "backup %s", restore->config->backup);
    if (restore->figures.damaged)
        return err_set(err, ERR_INPUT, "the backup in %s is damaged: %lld faults%s", restore->config->backup,
                       (long long)restore->figures.damaged, restore->config->folder ? "; nothing was restored" : "");
    return !restore->config->folder || folder_finish(restore, err);
}

bool store_restore(const struct store_restore_config *config, struct store_backup_figures *out, struct err *err) {
    PULMO_SCOPED(restore_free) struct restore restore = {.config = config};
    if (!restore_make(&restore, err)) {
        if (restore.began)
            folder_empty(config->folder);
        return false;
    }
    restore.figures.made_ms = restore.head.made_ms;
    *out = restore.figures;
    return true;
}
