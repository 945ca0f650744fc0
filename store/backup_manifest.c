/* The manifest: a head of comments, which sha256sum skips, then "digest  name" lines, then its own digest. */
#include "store/backup.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store/blob.h"

#define FIRST_LINE "# Pulmo backup, format 1; check it with: sha256sum -c " BACKUP_MANIFEST
#define LAST_WORD "# end "
#define LINE_SIZE 512

/* ---- what a database holds --------------------------------------------------------------------------- */

static bool count_rows(struct store *database, struct backup_table *table, struct err *err) {
    sqlite3_stmt *statement = NULL;
    char sql[128];
    snprintf(sql, sizeof sql, "SELECT count(*) FROM \"%s\"", table->name); /* a name out of the schema */
    if (sqlite3_prepare_v2(database->database, sql, -1, &statement, NULL) != SQLITE_OK ||
        sqlite3_step(statement) != SQLITE_ROW) {
        sqlite3_finalize(statement);
        return sql_fail(database, table->name, err);
    }
    table->rows = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return true;
}

static bool count_tables(struct store *database, struct backup_manifest *out, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(
        database, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name",
        SQL_NO_VALUES, err);
    out->table_count = 0;
    for (bool row = true; statement;) {
        if (!sql_step(database, statement, &row, err))
            return false;
        if (!row)
            return true;
        if (out->table_count == BACKUP_TABLES_MAX)
            return err_set(err, ERR_LIMIT, "more than %d tables", BACKUP_TABLES_MAX);
        struct backup_table *table = &out->tables[out->table_count++];
        sql_column_text(statement, 0, table->name, sizeof table->name);
        if (!count_rows(database, table, err))
            return false;
    }
    return false;
}

bool backup_knows_purges(struct store *database, bool *purges, struct err *err) {
    int64_t columns = 0;
    if (!sql_integer(database, "SELECT count(*) FROM pragma_table_info('instance') WHERE name = 'purged_ms'",
                     SQL_NO_VALUES, &columns, err))
        return false;
    *purges = columns > 0;
    return true;
}

bool backup_knows_journal(struct store *database, bool *journal, struct err *err) {
    int64_t tables = 0;
    if (!sql_integer(database, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'journal'",
                     SQL_NO_VALUES, &tables, err))
        return false;
    *journal = tables > 0;
    return true;
}

bool backup_knows_models(struct store *database, bool *models, struct err *err) {
    int64_t tables = 0;
    if (!sql_integer(database, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'model_file'",
                     SQL_NO_VALUES, &tables, err))
        return false;
    *models = tables > 0;
    return true;
}

#define CONTENTS(images)                                                                                      \
    "SELECT blob_sha256, blob_size FROM instance" images " UNION SELECT blob_sha256, blob_size FROM artifact" \
    " UNION SELECT blob_sha256, blob_size FROM study_artifact"
#define MODELS " UNION SELECT blob_sha256, blob_size FROM model_file"
#define COUNT(contents) "SELECT count(*), coalesce(sum(blob_size), 0) FROM (" contents ")"
#define KEPT " WHERE purged_ms IS NULL"

bool backup_contents_sql(struct store *database, struct backup_sql *out, struct err *err) {
    static const struct backup_sql all = {CONTENTS("") " ORDER BY 1", COUNT(CONTENTS(""))};
    static const struct backup_sql kept = {CONTENTS(KEPT) " ORDER BY 1", COUNT(CONTENTS(KEPT))};
    static const struct backup_sql with_models = {CONTENTS(KEPT) MODELS " ORDER BY 1", COUNT(CONTENTS(KEPT) MODELS)};
    bool purges = false, models = false;
    if (!backup_knows_purges(database, &purges, err) || !backup_knows_models(database, &models, err))
        return false;
    *out = models ? with_models : purges ? kept : all;
    return true;
}

static bool count_contents(struct store *database, struct backup_manifest *out, struct err *err) {
    struct backup_sql sql;
    if (!backup_contents_sql(database, &sql, err))
        return false;
    PULMO_SCOPED(sql_done_at) sqlite3_stmt *statement = sql_prepare(database, sql.count, SQL_NO_VALUES, err);
    bool row = false;
    if (!statement || !sql_step(database, statement, &row, err))
        return false;
    out->contents = sqlite3_column_int64(statement, 0);
    out->content_bytes = sqlite3_column_int64(statement, 1);
    return true;
}

static bool read_chain_head(struct store *database, struct backup_manifest *out, struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement = sql_prepare(database, "SELECT row_count, digest FROM audit_head", SQL_NO_VALUES, err);
    bool row = false;
    if (!statement || !sql_step(database, statement, &row, err))
        return false;
    if (!row)
        return err_set(err, ERR_IO, "the audit chain has lost its head");
    out->audit_rows = sqlite3_column_int64(statement, 0);
    sql_column_text(statement, 1, out->audit_digest, sizeof out->audit_digest);
    return true;
}

bool backup_manifest_count(struct store *database, struct backup_manifest *out, struct err *err) {
    struct backup_manifest counted = *out;
    if (!sql_integer(database, "PRAGMA user_version", SQL_NO_VALUES, &counted.version, err) ||
        !count_tables(database, &counted, err) || !count_contents(database, &counted, err) ||
        !read_chain_head(database, &counted, err))
        return false;
    *out = counted;
    return true;
}

/* ---- writing ----------------------------------------------------------------------------------------- */

static bool write_failed(const struct backup_writer *writer, struct err *err) {
    enum err_kind kind = errno == ENOSPC || errno == EDQUOT ? ERR_NO_SPACE : ERR_IO;
    return err_set(err, kind, "cannot write %s: %s", writer->path, strerror(errno));
}

static void write_head(FILE *file, const struct backup_manifest *head) {
    fprintf(file, FIRST_LINE "\n# pulmo %s\n# made_ms %" PRId64 "\n# version %" PRId64 "\n", PULMO_VERSION,
            head->made_ms, head->version);
    fprintf(file, "# database %s\n# contents %" PRId64 "\n# content_bytes %" PRId64 "\n", head->database,
            head->contents, head->content_bytes);
    fprintf(file, "# audit_rows %" PRId64 "\n# audit_digest %s\n", head->audit_rows, head->audit_digest);
    for (size_t index = 0; index < head->table_count; index++)
        fprintf(file, "# rows %" PRId64 " %s\n", head->tables[index].rows, head->tables[index].name);
}

bool backup_writer_begin(const char *folder, const struct backup_manifest *head, struct backup_writer *out,
                         struct err *err) {
    struct backup_writer writer = {.files = 0};
    if (!backup_path(folder, BACKUP_MANIFEST, writer.final, err) ||
        !backup_path(folder, BACKUP_MANIFEST ".new", writer.path, err))
        return false;
    FILE *file = fopen(writer.path, "we");
    if (!file)
        return write_failed(&writer, err);
    write_head(file, head);
    writer.file = file;
    *out = writer;
    return true;
}

bool backup_writer_add(struct backup_writer *writer, const char *digest, const char *name, struct err *err) {
    writer->files++;
    return fprintf(writer->file, "%s  %s\n", digest, name) > 0 || write_failed(writer, err);
}

/* Everything listed has been synced by the caller: the rename makes a backup of it. */
bool backup_writer_end(struct backup_writer *writer, struct err *err) {
    char digest[DIGEST_HEX_SIZE], folder[BACKUP_PATH_SIZE];
    FILE *file = writer->file;
    fprintf(file, "# files %" PRId64 "\n", writer->files);
    if (fflush(file) != 0 || ferror(file))
        return write_failed(writer, err);
    if (!digest_file_hex(writer->path, digest, err))
        return false;
    fprintf(file, LAST_WORD "%s\n", digest);
    if (fflush(file) != 0 || ferror(file) || fsync(fileno(file)) != 0 || rename(writer->path, writer->final) != 0)
        return write_failed(writer, err);
    fclose(file);
    writer->file = NULL;
    snprintf(folder, sizeof folder, "%s", writer->final);
    *strrchr(folder, '/') = '\0';
    return blob_folder_sync(folder, err);
}

void backup_writer_free(struct backup_writer *writer) {
    if (!writer->file)
        return;
    fclose(writer->file);
    unlink(writer->path);
    writer->file = NULL;
}

/* ---- reading ----------------------------------------------------------------------------------------- */

static bool is_digest(const char *text) {
    return strspn(text, "0123456789abcdef") == DIGEST_HEX_SIZE - 1;
}

/* One "# key value" line. Unknown keys are of later versions. */
static void read_head_line(const char *line, struct backup_manifest *out) {
    struct backup_table table = {.rows = 0};
    if (sscanf(line, "# rows %" SCNd64 " %63[a-z0-9_]", &table.rows, table.name) == 2) {
        if (out->table_count < BACKUP_TABLES_MAX)
            out->tables[out->table_count++] = table;
        return;
    }
    (void)(sscanf(line, "# made_ms %" SCNd64, &out->made_ms) == 1 ||
           sscanf(line, "# version %" SCNd64, &out->version) == 1 ||
           sscanf(line, "# database %64[0-9a-f]", out->database) == 1 ||
           sscanf(line, "# contents %" SCNd64, &out->contents) == 1 ||
           sscanf(line, "# content_bytes %" SCNd64, &out->content_bytes) == 1 ||
           sscanf(line, "# audit_rows %" SCNd64, &out->audit_rows) == 1 ||
           sscanf(line, "# audit_digest %64[0-9a-f]", out->audit_digest) == 1 ||
           sscanf(line, "# files %" SCNd64, &out->files) == 1);
}

struct reading {
    FILE *file;
    char path[BACKUP_PATH_SIZE], line[LINE_SIZE];
    long end_at; /* where the last line begins */
    struct backup_manifest head;
    int64_t listed;
};

static void reading_close(struct reading *reading) {
    if (reading->file)
        fclose(reading->file);
}

/* The last line is "# end" with the digest of all before it: a manifest that was cut or changed does not get further.
 */
static bool check_end(struct reading *reading, struct err *err) {
    const long size_of_end = (long)(sizeof LAST_WORD - 1 + DIGEST_HEX_SIZE);
    char stored[DIGEST_HEX_SIZE] = "", digest[DIGEST_HEX_SIZE];
    PULMO_SCOPED(bytes_free) struct bytes whole = {0};
    if (!bytes_read_file(reading->path, PULMO_ALLOC_MAX, &whole, err))
        return false;
    reading->end_at = (long)whole.size - size_of_end;
    const char *end = reading->end_at > 0 ? (const char *)whole.data + reading->end_at : "";
    if (strncmp(end, LAST_WORD, sizeof LAST_WORD - 1) != 0)
        return err_set(err, ERR_INPUT, "%s is cut off: it has no end", reading->path);
    snprintf(stored, sizeof stored, "%.64s", end + sizeof LAST_WORD - 1);
    if (!digest_hex(whole.data, (size_t)reading->end_at, digest, err))
        return false;
    return strcmp(stored, digest) == 0 ||
           err_set(err, ERR_INPUT, "%s was changed: its digest is %s", reading->path, digest);
}

static bool read_line(struct reading *reading, backup_file_visit *visit, void *context, struct err *err) {
    char *line = reading->line;
    line[strcspn(line, "\n")] = '\0';
    if (*line == '#') {
        read_head_line(line, &reading->head);
        return true;
    }
    if (!is_digest(line) || strncmp(line + DIGEST_HEX_SIZE - 1, "  ", 2) != 0)
        return err_set(err, ERR_INPUT, "%s: \"%.80s\" is no line of a manifest", reading->path, line);
    line[DIGEST_HEX_SIZE - 1] = '\0';
    reading->listed++;
    return !visit || visit(context, line, line + DIGEST_HEX_SIZE + 1, err);
}

bool backup_manifest_read(const char *folder, struct backup_manifest *out, backup_file_visit *visit, void *context,
                          struct err *err) {
    PULMO_SCOPED(reading_close) struct reading reading = {.file = NULL};
    if (!backup_path(folder, BACKUP_MANIFEST, reading.path, err))
        return false;
    if (access(reading.path, F_OK) != 0)
        return err_set(err, ERR_NOT_FOUND, "%s holds no finished backup: there is no %s", folder, BACKUP_MANIFEST);
    if (!check_end(&reading, err))
        return false;
    reading.file = fopen(reading.path, "re");
    if (!reading.file)
        return err_set(err, ERR_IO, "cannot read %s: %s", reading.path, strerror(errno));
    if (!fgets(reading.line, sizeof reading.line, reading.file) || strcmp(reading.line, FIRST_LINE "\n") != 0)
        return err_set(err, ERR_UNSUPPORTED, "%s is no manifest that this program knows", reading.path);
    while (ftell(reading.file) < reading.end_at && fgets(reading.line, sizeof reading.line, reading.file))
        if (!read_line(&reading, visit, context, err))
            return false;
    if (reading.listed != reading.head.files || !is_digest(reading.head.database))
        return err_set(err, ERR_INPUT, "%s lists %lld files instead of %lld", reading.path, (long long)reading.listed,
                       (long long)reading.head.files);
    *out = reading.head;
    return true;
}
