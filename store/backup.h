/* What backup and restore share: copying with a digest, and the manifest.
 *
 * A backup is a folder that the store's own tools are not needed to check (sha256sum -c manifest.sha256):
 *   manifest.sha256            written last, by a rename; without it there is no backup
 *   database/<sha256>.db       the snapshot
 *   blobs/ab/<sha256>          as in the store
 *   files/<sha256>-<name>      keys, certificate, configuration
 * A further backup into it adds what is new. All names begin with digests, so the former backup stays whole until the
 * manifest is replaced, also when the configuration was changed in between. */
#ifndef PULMO_STORE_BACKUP_H
#define PULMO_STORE_BACKUP_H

#include "digest.h"
#include "store/handle.h"

#define BACKUP_MANIFEST "manifest.sha256"
#define BACKUP_PATH_SIZE 4096
#define BACKUP_NAME_SIZE 128 /* of a file, relative to the backup */
#define BACKUP_TABLES_MAX 64

/* Files of a data folder beside database and contents: secrets, so that a restored machine has the same identity. */
extern const char *const backup_files[];
extern const size_t backup_file_count;
#define BACKUP_CONFIG "pulmo.conf"
/* In a folder that a restore has not finished; store_open refuses it. */
#define BACKUP_RESTORING "restoring"

bool backup_path(const char *folder, const char *name, char out[BACKUP_PATH_SIZE], struct err *err) PULMO_MUST_USE;
bool backup_folder_make(const char *folder, const char *name, struct err *err) PULMO_MUST_USE;

/* Reads a file to its end; digest receives its SHA-256, *size its length. to: a new file of this content, synced, or
 * NULL. mode: of that file.
 *
 * errors   ERR_NOT_FOUND there is no such file, ERR_INPUT it cannot be read: the source's fault, others may be fine
 *          ERR_NO_SPACE, ERR_IO the new file cannot be written */
struct backup_copied {
    char digest[DIGEST_HEX_SIZE];
    int64_t size;
};
bool backup_copy(const char *from, const char *to, unsigned mode, struct backup_copied *out,
                 struct err *err) PULMO_MUST_USE;

/* A database file as it is: no migration. Its store's folder is the one that the file lies in. flags:
 * SQLITE_OPEN_READONLY or SQLITE_OPEN_READWRITE. */
struct store *backup_database_open(const char *path, int flags, struct err *err);

struct backup_table {
    char name[64];
    int64_t rows;
};
struct backup_manifest { /* its head */
    int64_t made_ms, version;
    char database[DIGEST_HEX_SIZE];
    int64_t contents, content_bytes, audit_rows;
    char audit_digest[DIGEST_HEX_SIZE];
    struct backup_table tables[BACKUP_TABLES_MAX];
    size_t table_count;
    int64_t files; /* listed */
};
/* Counts, version and chain head as the database holds them; made_ms and files stay. */
bool backup_manifest_count(struct store *database, struct backup_manifest *out, struct err *err) PULMO_MUST_USE;

/* Writing: begin, add each file, end (syncs and renames). A writer that leaves its scope unfinished leaves nothing. */
struct backup_writer {
    void *file; /* FILE */
    char path[BACKUP_PATH_SIZE], final[BACKUP_PATH_SIZE];
    int64_t files;
};
bool backup_writer_begin(const char *folder, const struct backup_manifest *head, struct backup_writer *out,
                         struct err *err) PULMO_MUST_USE;
bool backup_writer_add(struct backup_writer *writer, const char *digest, const char *name,
                       struct err *err) PULMO_MUST_USE;
bool backup_writer_end(struct backup_writer *writer, struct err *err) PULMO_MUST_USE;
void backup_writer_free(struct backup_writer *writer);

/* The files that this backup keeps, as they are named in files/. */
#define BACKUP_FILES_MAX 8
struct backup_files_kept {
    char names[BACKUP_FILES_MAX][BACKUP_NAME_SIZE];
    size_t count;
};
/* After the manifest was replaced: removes the files and snapshots of former backups, and contents that no row names
 * any more. */
bool backup_prune_files(const char *folder, const struct backup_files_kept *kept, struct err *err) PULMO_MUST_USE;
bool backup_prune_databases(const char *folder, const char *database, struct err *err) PULMO_MUST_USE;
bool backup_prune_contents(const char *folder, struct store *snapshot, int64_t *removed,
                           struct err *err) PULMO_MUST_USE;

/* Reads the manifest after checking its own digest, calls `file` for each of its lines. */
typedef bool backup_file_visit(void *context, const char *digest, const char *name, struct err *err);
bool backup_manifest_read(const char *folder, struct backup_manifest *out, backup_file_visit *visit, void *context,
                          struct err *err) PULMO_MUST_USE;

/* SQL of every content that rows name and that has to be there, with its size, in the order of digests. Images that
 * retention has given up have rows and no file; stores of before it have no such column. */
struct backup_sql {
    const char *list, *count; /* count: of them, and the sum of their sizes */
};
bool backup_contents_sql(struct store *database, struct backup_sql *out, struct err *err) PULMO_MUST_USE;
/* *purges = images of this database may have been purged. */
bool backup_knows_purges(struct store *database, bool *purges, struct err *err) PULMO_MUST_USE;
/* *journal = contents of its instances may lie in the reception journal. */
bool backup_knows_journal(struct store *database, bool *journal, struct err *err) PULMO_MUST_USE;
/* Whether its version has installed models. */
bool backup_knows_models(struct store *database, bool *models, struct err *err) PULMO_MUST_USE;

#endif
