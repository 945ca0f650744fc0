#include "store/artifact.h"

#include <stdlib.h>
#include <string.h>

#include "store/blob.h"
#include "store/disk.h"
#include "store/handle.h"
#include "store/job.h"

#define ARTIFACTS_MAX 20000
#define ARTIFACT_NAME_MAX 63 /* as in struct store_outgoing */
#define MEDIA_TYPE_SIZE 64

void artifact_names_free(struct artifact_names *names) {
    free(names->items);
    *names = (struct artifact_names){0};
}

static bool name_check(const struct store_artifact *artifact, struct err *err) {
    const char *name = artifact->name;
    if (!name || !*name || strlen(name) > ARTIFACT_NAME_MAX || name[0] == '/' || strstr(name, "..") ||
        name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789./_-")])
        return err_set(err, ERR_INPUT, "'%.80s' is no name of an artifact", name ? name : "");
    if (!artifact->media_type || strlen(artifact->media_type) >= MEDIA_TYPE_SIZE)
        return err_set(err, ERR_INPUT, "artifact %s: its media type is missing or too long", name);
    if (!artifact->data && artifact->size)
        return err_set(err, ERR_INPUT, "artifact %s has no content", name);
    return true;
}

bool artifact_write(struct store *store, const struct store_artifact *artifacts, size_t count,
                    struct artifact_names *out, struct err *err) {
    if (count > ARTIFACTS_MAX)
        return err_set(err, ERR_LIMIT, "more than %d artifacts", ARTIFACTS_MAX);
    for (size_t index = 0; index < count; index++)
        if (!name_check(&artifacts[index], err))
            return false;
    PULMO_SCOPED(artifact_names_free)
    struct artifact_names names = {.items = pulmo_alloc(count, sizeof *names.items, err)};
    PULMO_SCOPED(pulmo_free_at) struct blob_content *contents = pulmo_alloc(count, sizeof *contents, err);
    if (!names.items || !contents)
        return false;
    uint64_t size = 0;
    for (size_t index = 0; index < count; index++) {
        const struct store_artifact *artifact = &artifacts[index];
        contents[index] = (struct blob_content){artifact->data ? artifact->data : "", artifact->size};
        size += artifact->size;
    }
    if (!disk_room_for_results(store, size, err) ||
        !blob_put_many(store->config.folder, contents, count, names.items, err))
        return false;
    *out = names;
    names = (struct artifact_names){0};
    return true;
}

/* Under the write lock; see retention_blob_needed. The job is tried again, and writes the content again. */
static bool content_is_here(struct store *store, const struct artifact_set *set, size_t index, struct err *err) {
    return blob_present(store->config.folder, set->names->items[index], (int64_t)set->artifacts[index].size) ||
           err_set(err, ERR_BUSY, "the content of %s is gone before its row was written", set->artifacts[index].name);
}

static bool outbox_queue(struct store *store, int64_t result_id, const char *name, struct err *err) {
    for (size_t index = 0; index < store->destination_count; index++)
        if (!sql_run(
                store,
                "INSERT INTO outbox (destination, result_id, name, due_ms, created_ms) VALUES (?1, ?2, ?3, ?4, ?4)",
                SQL_VALUES(sql_text(store->destinations[index]), sql_int(result_id), sql_text(name),
                           sql_int(pulmo_now_ms())),
                err))
            return false;
    return true;
}

bool artifact_rows(struct store *store, const struct artifact_set *set, struct err *err) {
    for (size_t index = 0; index < set->count; index++) {
        const struct store_artifact *artifact = &set->artifacts[index];
        if (!content_is_here(store, set, index, err) ||
            !sql_run(store,
                     "INSERT INTO artifact (result_id, name, media_type, blob_sha256, blob_size, job_id)"
                     " VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                     SQL_VALUES(sql_int(set->result_id), sql_text(artifact->name), sql_text(artifact->media_type),
                                sql_text(set->names->items[index]), sql_int((int64_t)artifact->size),
                                sql_int(set->job_id)),
                     err) ||
            (artifact->send && !outbox_queue(store, set->result_id, artifact->name, err)))
            return err_within(err, "artifact %s of result %lld", artifact->name, (long long)set->result_id);
    }
    return true;
}

/* A stored artifact. */
struct found {
    char digest[DIGEST_HEX_SIZE], media_type[MEDIA_TYPE_SIZE];
    int64_t size;
};

static bool found_read(struct store *store, sqlite3_stmt *statement, struct found *out, bool *found, struct err *err) {
    if (!statement || !sql_step(store, statement, found, err))
        return false;
    if (*found) {
        sql_column_text(statement, 0, out->digest, sizeof out->digest);
        out->size = sqlite3_column_int64(statement, 1);
        sql_column_text(statement, 2, out->media_type, sizeof out->media_type);
    }
    return true;
}

static bool found_content(struct store *store, const struct found *found, const char *name, struct bytes *out,
                          char media_type[MEDIA_TYPE_SIZE], struct err *err) {
    if (!blob_read(store->config.folder, found->digest, found->size, out, err))
        return err_within(err, "artifact %s", name);
    if (media_type)
        memcpy(media_type, found->media_type, MEDIA_TYPE_SIZE);
    return true;
}

bool store_artifact_read(struct store *store, int64_t result_id, const char *name, struct bytes *out,
                         char media_type[64], struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement =
        sql_prepare(store, "SELECT blob_sha256, blob_size, media_type FROM artifact WHERE result_id = ?1 AND name = ?2",
                    SQL_VALUES(sql_int(result_id), sql_text(name)), err);
    struct found found;
    bool row = false;
    if (!found_read(store, statement, &found, &row, err))
        return false;
    if (!row)
        return err_set(err, ERR_NOT_FOUND, "result %lld has no artifact %s", (long long)result_id, name);
    return found_content(store, &found, name, out, media_type, err);
}

/* The newest decode job that finished for the study holds its artifacts. */
static bool study_find(struct store *store, const char *study_uid, const char *name, struct found *out,
                       struct err *err) {
    PULMO_SCOPED(sql_done_at)
    sqlite3_stmt *statement =
        sql_prepare(store,
                    "SELECT blob_sha256, blob_size, media_type FROM study_artifact WHERE study_uid = ?1 AND name = ?2"
                    " AND job_id = (SELECT max(job_id) FROM study_artifact WHERE study_uid = ?1)",
                    SQL_VALUES(sql_text(study_uid), sql_text(name)), err);
    bool row = false;
    if (!found_read(store, statement, out, &row, err))
        return false;
    return row || err_set(err, ERR_NOT_FOUND, "study %s has no artifact %s", study_uid, name);
}

bool store_study_artifact_read(struct store *store, const char *study_uid, const char *name, struct bytes *out,
                               char media_type[64], struct err *err) {
    struct found found;
    return study_find(store, study_uid, name, &found, err) && found_content(store, &found, name, out, media_type, err);
}

bool store_study_artifact_read_range(struct store *store, const char *study_uid, const char *name, uint64_t offset,
                                     size_t size, struct bytes *out, struct err *err) {
    struct found found;
    if (!study_find(store, study_uid, name, &found, err))
        return false;
    uint64_t whole = (uint64_t)found.size;
    if (offset > whole || size > whole - offset)
        return err_set(err, ERR_INPUT, "artifact %s of study %s has %llu bytes", name, study_uid,
                       (unsigned long long)whole);
    struct blob_range range = {.file_size = found.size, .offset = offset, .size = size};
    return blob_read_range(store->config.folder, found.digest, &range, out, err) ||
           err_within(err, "artifact %s", name);
}

static bool study_rows(struct store *store, const struct store_job *job, const struct artifact_set *set,
                       struct err *err) {
    for (size_t index = 0; index < set->count; index++) {
        const struct store_artifact *artifact = &set->artifacts[index];
        if (!content_is_here(store, set, index, err) ||
            !sql_run(store,
                     "INSERT INTO study_artifact (study_uid, job_id, name, media_type, blob_sha256, blob_size)"
                     " VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                     SQL_VALUES(sql_text(job->study_uid), sql_int(job->id), sql_text(artifact->name),
                                sql_text(artifact->media_type), sql_text(set->names->items[index]),
                                sql_int((int64_t)artifact->size)),
                     err))
            return err_within(err, "artifact %s of study %s", artifact->name, job->study_uid);
    }
    return true;
}

/* What an earlier decoding left is of no use any more: nobody reads but the newest. */
static bool former_drop(struct store *store, const struct store_job *job, struct err *err) {
    return sql_run(store,
                   "INSERT INTO blob_purge SELECT DISTINCT blob_sha256 FROM study_artifact"
                   " WHERE study_uid = ?1 AND job_id < ?2 ON CONFLICT DO NOTHING",
                   SQL_VALUES(sql_text(job->study_uid), sql_int(job->id)), err) &&
           sql_run(store, "DELETE FROM study_artifact WHERE study_uid = ?1 AND job_id < ?2",
                   SQL_VALUES(sql_text(job->study_uid), sql_int(job->id)), err);
}

/* Not audited: derived from the instances alone, it is no fact of its own. */
bool store_decode_finish(struct store *store, const struct store_job *job, const struct store_artifact *artifacts,
                         size_t artifact_count, struct err *err) {
    PULMO_SCOPED(artifact_names_free) struct artifact_names names = {0};
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    if (job->kind != STORE_JOB_DECODE)
        return err_set(err, ERR_INTERNAL, "job %lld does not decode", (long long)job->id);
    if (!job_held(store, job, err) || !artifact_write(store, artifacts, artifact_count, &names, err))
        return false;
    struct artifact_set set = {.artifacts = artifacts, .count = artifact_count, .names = &names};
    return sql_begin(store, &transaction, err) && job_held(store, job, err) && study_rows(store, job, &set, err) &&
           former_drop(store, job, err) && job_done(store, job, err) && sql_commit(&transaction, err);
}
