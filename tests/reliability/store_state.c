/* What a data folder holds, as one JSON document for the tests of reliability: rows as they are, each content read and
 * digested. Reads as any other process of the appliance would, beside the running ones or after they ended.
 *
 *   store_state FOLDER               prints the document
 *   store_state FOLDER load FILE     makes FOLDER/pulmo.db from SQL, for stores of former versions
 *   store_state FOLDER replay        adds the rows of what was acknowledged before a crash, as reception does first */
#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "digest.h"
#include "store/blob.h"
#include "store/store.h"

static const char *folder;
static sqlite3_stmt *journal_place; /* NULL: this store has no journal */

/* The data set of a Part 10 file follows its meta group, whose length stands in its first element (PS3.10 7.1). */
static size_t dataset_start(const struct bytes *content) {
    static const uint8_t group_length[] = {2, 0, 0, 0, 'U', 'L', 4, 0};
    if (content->size < 144 || memcmp(content->data + 128, "DICM", 4) != 0 ||
        memcmp(content->data + 132, group_length, sizeof group_length) != 0)
        return 0;
    const uint8_t *length = content->data + 140;
    size_t start = 144 + ((size_t)length[0] | (size_t)length[1] << 8 | (size_t)length[2] << 16);
    return start < content->size ? start : 0;
}

/* A content that was received and has no file of its own yet: <folder>/journal/NNN.seg at a position, as its row says.
 * The row may be gone and the place written over when it is read: then the file is there. */
static bool journal_read(const char *sha256, size_t size, struct bytes *out) {
    char path[4096], digest[DIGEST_HEX_SIZE];
    PULMO_SCOPED(bytes_free) struct bytes bytes = {0};
    sqlite3_reset(journal_place);
    sqlite3_bind_text(journal_place, 1, sha256, -1, SQLITE_TRANSIENT);
    if (sqlite3_step(journal_place) != SQLITE_ROW)
        return false;
    snprintf(path, sizeof path, "%s/journal/%03lld.seg", folder, sqlite3_column_int64(journal_place, 0));
    FILE *file = fopen(path, "re");
    bytes.data = file ? pulmo_alloc(size, 1, NULL) : NULL;
    bool good = bytes.data && fseeko(file, (off_t)sqlite3_column_int64(journal_place, 1), SEEK_SET) == 0 &&
                fread(bytes.data, 1, size, file) == size && digest_hex(bytes.data, size, digest, NULL) &&
                strcmp(digest, sha256) == 0;
    if (file)
        fclose(file);
    if (!good)
        return false;
    bytes.size = size;
    *out = bytes;
    bytes = (struct bytes){0};
    return true;
}

/* SQL: content(sha256, size) is the digest of the data set, or of all bytes of what is no DICOM, or "bad: why". */
static void content(sqlite3_context *context, int count, sqlite3_value **values) {
    (void)count;
    struct err err = {0};
    PULMO_SCOPED(bytes_free) struct bytes bytes = {0};
    char digest[DIGEST_HEX_SIZE], text[DIGEST_HEX_SIZE + sizeof err.text];
    const char *sha256 = (const char *)sqlite3_value_text(values[0]);
    int64_t size = sqlite3_value_int64(values[1]);
    bool good = sha256 && ((journal_place && journal_read(sha256, (size_t)size, &bytes)) ||
                           blob_read(folder, sha256, size, &bytes, &err));
    size_t start = good ? dataset_start(&bytes) : 0;
    good = good && digest_hex(bytes.data + start, bytes.size - start, digest, &err);
    int length = snprintf(text, sizeof text, "%s%s", good ? "" : "bad: ", good ? digest : err.text);
    sqlite3_result_text(context, text, length, SQLITE_TRANSIENT);
}

/* A store of version 1 could not purge: these stand in for what it lacks. */
static const char version_1[] = "CREATE TEMP TABLE blob_purge (x);"
                                "CREATE TEMP VIEW instance AS SELECT *, NULL AS purged_ms FROM main.instance";

static const struct section {
    const char *name, *sql; /* one JSON value */
} sections[] = {
    {"integrity", "SELECT json_group_array(integrity_check) FROM pragma_integrity_check"},
    {"foreign_keys", "SELECT count(*) FROM pragma_foreign_key_check"},
    {"version", "SELECT user_version FROM pragma_user_version"},
    {"instances", "SELECT json_group_array(json_object('sop', sop_instance_uid, 'study', study_uid, 'version', version,"
                  " 'current', current, 'purged', purged_ms IS NOT NULL, 'content', content(blob_sha256, blob_size))) "
                  "FROM instance"},
    {"studies", "SELECT json_group_array(json_object('study', study_uid, 'revision', revision,"
                " 'queued_revision', queued_revision)) FROM study"},
    {"worklist", "SELECT json_group_array(json_object('study', study_uid, 'state', state, 'reason', reason,"
                 " 'instances', instances, 'result', result_id)) FROM worklist"},
    {"jobs", "SELECT json_group_array(json_object('id', id, 'kind', kind, 'study', study_uid, 'state', state,"
             " 'revision', revision, 'result', result_id, 'attempt', attempt, 'reason', reason)) FROM job"},
    {"results", "SELECT json_group_array(json_object('id', id, 'job', job_id, 'study', study_uid,"
                " 'revision', study_revision, 'status', status, 'superseded_by', superseded_by,"
                " 'signed', EXISTS (SELECT 1 FROM signature WHERE result_id = result.id))) FROM result"},
    {"artifacts", "SELECT json_group_array(json_object('result', result_id, 'name', name, 'job', job_id,"
                  " 'content', content(blob_sha256, blob_size))) FROM artifact"},
    {"study_artifacts", "SELECT json_group_array(json_object('study', study_uid, 'name', name, 'job', job_id,"
                        " 'content', content(blob_sha256, blob_size))) FROM study_artifact"},
    {"outbox", "SELECT json_group_array(json_object('id', id, 'result', result_id, 'name', name,"
               " 'destination', destination, 'state', state, 'attempt', attempt, 'reason', reason)) FROM outbox"},
    {"verdicts", "SELECT json_group_array(json_object('id', id, 'result', result_id, 'finding', finding_id,"
                 " 'verdict', verdict)) FROM verdict"},
    {"signatures", "SELECT json_group_array(json_object('result', result_id, 'job', job_id, 'user', user))"
                   " FROM signature"},
    {"blob_purge", "SELECT count(*) FROM blob_purge"},
    {"associations", "SELECT count(*) FROM association"},
    {"audit", "SELECT json_group_array(json(content)) FROM audit"},
};

static int fail(sqlite3 *database, const char *what) {
    fprintf(stderr, "store_state: %s: %s\n", what, database ? sqlite3_errmsg(database) : strerror(errno));
    return 1;
}

static bool is_version_1(sqlite3 *database) {
    sqlite3_stmt *statement = NULL;
    bool is = sqlite3_prepare_v2(database, "PRAGMA user_version", -1, &statement, NULL) == SQLITE_OK &&
              sqlite3_step(statement) == SQLITE_ROW && sqlite3_column_int(statement, 0) == 1;
    sqlite3_finalize(statement);
    return is;
}

static bool print_section(sqlite3 *database, const struct section *section) {
    sqlite3_stmt *statement = NULL;
    bool good = sqlite3_prepare_v2(database, section->sql, -1, &statement, NULL) == SQLITE_OK &&
                sqlite3_step(statement) == SQLITE_ROW;
    if (good)
        printf(",\n\"%s\": %s", section->name, (const char *)sqlite3_column_text(statement, 0));
    sqlite3_finalize(statement);
    return good;
}

/* One transaction, so that the parts belong to one moment. */
static int print_state(sqlite3 *database) {
    if (sqlite3_create_function(database, "content", 2, SQLITE_UTF8, NULL, content, NULL, NULL) != SQLITE_OK ||
        sqlite3_exec(database, "BEGIN", NULL, NULL, NULL) != SQLITE_OK)
        return fail(database, "begin");
    if (is_version_1(database) && sqlite3_exec(database, version_1, NULL, NULL, NULL) != SQLITE_OK)
        return fail(database, "version 1");
    if (sqlite3_prepare_v2(database, "SELECT segment, position FROM journal WHERE blob_sha256 = ?1", -1, &journal_place,
                           NULL) != SQLITE_OK)
        journal_place = NULL;
    printf("{\"folder\": \"%s\"", folder);
    for (size_t index = 0; index < sizeof sections / sizeof *sections; index++)
        if (!print_section(database, &sections[index]))
            return fail(database, sections[index].name);
    printf("}\n");
    sqlite3_finalize(journal_place);
    return 0;
}

static int load(sqlite3 *database, const char *path) {
    PULMO_SCOPED(bytes_free) struct bytes sql = {0};
    char part[8192];
    struct err err = {0};
    FILE *file = fopen(path, "re");
    if (!file)
        return fail(NULL, path);
    bool good = true;
    for (size_t size; good && (size = fread(part, 1, sizeof part, file)) > 0;)
        good = bytes_append(&sql, part, size, 64U << 20, &err);
    good = good && !ferror(file) && bytes_append(&sql, "", 1, 64U << 20, &err);
    fclose(file);
    if (!good || sqlite3_exec(database, (const char *)sql.data, NULL, NULL, NULL) != SQLITE_OK)
        return fail(database, path);
    return 0;
}

/* As reception does at its start, before it takes anything. */
static int replay(void) {
    const struct store_config config = {.folder = folder, .quiet_ms = 1000, .lease_ms = 1000, .attempts_max = 1};
    struct err err = {0};
    struct store_journal *journal = store_journal_open(&config, &err);
    bool good = journal && store_journal_keep(journal, 0, &err);
    store_journal_close(journal);
    if (!good)
        fprintf(stderr, "replay: %s\n", err.text);
    return !good;
}

int main(int argc, char **argv) {
    bool loads = argc == 4 && strcmp(argv[2], "load") == 0, replays = argc == 3 && strcmp(argv[2], "replay") == 0;
    if (argc != 2 && !loads && !replays) {
        fprintf(stderr, "usage: store_state FOLDER [load FILE | replay]\n");
        return 2;
    }
    folder = argv[1];
    if (replays)
        return replay();
    char path[4096];
    snprintf(path, sizeof path, "%s/pulmo.db", folder);
    sqlite3 *database = NULL;
    int flags = SQLITE_OPEN_READWRITE | (loads ? SQLITE_OPEN_CREATE : 0);
    int status = 1;
    if (sqlite3_open_v2(path, &database, flags, NULL) != SQLITE_OK)
        fail(database, path);
    else {
        sqlite3_busy_timeout(database, 20000);
        status = loads ? load(database, argv[3]) : print_state(database);
    }
    sqlite3_close(database);
    return status;
}
