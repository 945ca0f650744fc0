/* What a finished backup needs no longer: snapshots of former ones, and, when asked for, contents that the store has
 * given up since. After the manifest was replaced, and never before. */
#include "store/backup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEEDED(kept)                                                        \
    "SELECT EXISTS (SELECT 1 FROM instance WHERE blob_sha256 = ?1" kept ")" \
    " OR EXISTS (SELECT 1 FROM artifact WHERE blob_sha256 = ?1)"            \
    " OR EXISTS (SELECT 1 FROM study_artifact WHERE blob_sha256 = ?1)"

struct pruning {
    struct store *snapshot;
    const char *needed_sql;
    const char *database; /* the name of the snapshot's file */
    const struct backup_files_kept *files;
    int64_t removed;
};

typedef bool prune_visit(struct pruning *pruning, const char *name, bool *keep, struct err *err);

static bool is_database_needed(struct pruning *pruning, const char *name, bool *keep, struct err *err) {
    (void)err;
    *keep = strcmp(name, pruning->database) == 0;
    return true;
}

static bool is_file_needed(struct pruning *pruning, const char *name, bool *keep, struct err *err) {
    (void)err;
    *keep = false;
    for (size_t index = 0; index < pruning->files->count; index++)
        *keep |= strcmp(name, pruning->files->names[index]) == 0;
    return true;
}

static bool is_content_needed(struct pruning *pruning, const char *name, bool *keep, struct err *err) {
    int64_t needed = 0;
    if (!sql_integer(pruning->snapshot, pruning->needed_sql, SQL_VALUES(sql_text(name)), &needed, err))
        return false;
    *keep = needed != 0;
    return true;
}

static void folder_close_at(DIR **folder) {
    if (*folder)
        closedir(*folder);
}

static bool prune_folder(struct pruning *pruning, const char *path, prune_visit *visit, struct err *err) {
    PULMO_SCOPED(folder_close_at) DIR *folder = opendir(path);
    if (!folder)
        return err_set(err, ERR_IO, "cannot read the folder %s: %s", path, strerror(errno));
    for (struct dirent *entry; (entry = readdir(folder));) {
        struct stat status;
        bool keep = true;
        if (fstatat(dirfd(folder), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(status.st_mode))
            continue;
        if (!visit(pruning, entry->d_name, &keep, err))
            return false;
        if (keep)
            continue;
        if (unlinkat(dirfd(folder), entry->d_name, 0) != 0)
            return err_set(err, ERR_IO, "cannot remove %s/%s: %s", path, entry->d_name, strerror(errno));
        pruning->removed++;
    }
    return true;
}

bool backup_prune_databases(const char *folder, const char *database, struct err *err) {
    char path[BACKUP_PATH_SIZE], name[BACKUP_NAME_SIZE];
    snprintf(name, sizeof name, "%s.db", database);
    struct pruning pruning = {.database = name};
    return backup_path(folder, "database", path, err) && prune_folder(&pruning, path, is_database_needed, err);
}

bool backup_prune_files(const char *folder, const struct backup_files_kept *kept, struct err *err) {
    char path[BACKUP_PATH_SIZE];
    struct pruning pruning = {.files = kept};
    return backup_path(folder, "files", path, err) && prune_folder(&pruning, path, is_file_needed, err);
}

bool backup_prune_contents(const char *folder, struct store *snapshot, int64_t *removed, struct err *err) {
    static const char all[] = NEEDED(""), kept[] = NEEDED(" AND purged_ms IS NULL");
    static const char with_models[] =
        NEEDED(" AND purged_ms IS NULL") " OR EXISTS (SELECT 1 FROM model_file WHERE blob_sha256 = ?1)";
    bool purges = false, models = false;
    if (!backup_knows_purges(snapshot, &purges, err) || !backup_knows_models(snapshot, &models, err))
        return false;
    struct pruning pruning = {.snapshot = snapshot, .needed_sql = models ? with_models : purges ? kept : all};
    for (unsigned index = 0; index < 256; index++) {
        char name[16], path[BACKUP_PATH_SIZE];
        snprintf(name, sizeof name, "blobs/%02x", index);
        if (!backup_path(folder, name, path, err) || !prune_folder(&pruning, path, is_content_needed, err))
            return false;
    }
    *removed = pruning.removed;
    return true;
}
