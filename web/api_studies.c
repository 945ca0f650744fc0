/* Worklist, one study, its decoded slices. */
#include "digest.h"
#include "web/access.h"
#include "web/api.h"
#include "web/reply.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define WORKLIST_MAX 500

bool api_worklist(struct request *request, struct err *err) {
    PULMO_SCOPED(pulmo_free_at) struct store_study *studies = NULL;
    size_t count = 0;
    if (!store_study_list(request->web->store, 0, WORKLIST_MAX, &studies, &count, err))
        return false;
    cJSON *document = cJSON_CreateObject();
    cJSON_AddNumberToObject(document, "now_ms", (double)pulmo_now_ms());
    cJSON_AddNumberToObject(document, "studies_max", WORKLIST_MAX);
    cJSON *array = cJSON_AddArrayToObject(document, "studies");
    for (size_t index = 0; index < count; index++)
        cJSON_AddItemToArray(array, api_study_document(&studies[index]));
    return reply_json(request, 200, document, err);
}

bool api_study(struct request *request, struct err *err) {
    const char *study_uid = NULL;
    struct store_study study;
    struct store_result result;
    if (!request_uid(request, 0, &study_uid, err) || !store_study_get(request->web->store, study_uid, &study, err) ||
        !store_result_current(request->web->store, study_uid, &result, err) || !access_note(request, study_uid, err))
        return false;
    cJSON *result_document = result.id ? api_result_document(request, &result, err) : cJSON_CreateNull();
    if (!result_document)
        return false;
    cJSON *document = cJSON_CreateObject();
    cJSON_AddItemToObject(document, "study", api_study_document(&study));
    cJSON_AddItemToObject(document, "result", result_document);
    return reply_json(request, 200, document, err);
}

/* {"held": true, "reason": "…"} keeps the study's images whatever the settings say, {"held": false} no longer. */
bool api_hold(struct request *request, struct err *err) {
    const char *study_uid = NULL, *reason = "";
    struct store_study study;
    const cJSON *held = cJSON_GetObjectItemCaseSensitive(request->body, "held");
    if (!cJSON_IsBool(held))
        return err_set(err, ERR_INPUT, "\"held\" is missing or not true or false");
    if (!request_uid(request, 0, &study_uid, err) ||
        (cJSON_HasObjectItem(request->body, "reason") && !request_text(request, "reason", 200, &reason, err)))
        return false;
    bool done = cJSON_IsTrue(held) ? store_study_hold(request->web->store, study_uid, reason, request->user.name, err)
                                   : store_study_release(request->web->store, study_uid, request->user.name, err);
    return done && store_study_get(request->web->store, study_uid, &study, err) &&
           reply_json(request, 200, api_study_document(&study), err);
}

/* ---- slices ------------------------------------------------------------------------------------------ */

#define VERSION_DIGITS 16

/* What the decoder left for a study. The version is a digest of it: when a late slice arrives the study is decoded
 * again, and addresses with the old version end, so that no browser mixes slices of two stacks. */
struct series {
    cJSON *document;
    char version[VERSION_DIGITS + 1];
};

static void series_free(struct series *series) {
    cJSON_Delete(series->document);
}

static bool read_series(struct request *request, const char *study_uid, struct series *out, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes content = {0};
    char media_type[64], digest[DIGEST_HEX_SIZE];
    if (!store_study_artifact_read(request->web->store, study_uid, "series.json", &content, media_type, err) ||
        !digest_hex(content.data, content.size, digest, err))
        return false;
    out->document = cJSON_ParseWithLength((const char *)content.data, content.size);
    if (!out->document)
        return err_set(err, ERR_INTERNAL, "series.json of study %s is not JSON", study_uid);
    memcpy(out->version, digest, VERSION_DIGITS);
    out->version[VERSION_DIGITS] = '\0';
    return true;
}

/* 410 with the reason, where there were images and are none any more: a viewer does not wait for them then. */
static bool answer_purged(struct request *request, const char *study_uid, bool *answered, struct err *err) {
    struct store_study study;
    struct err gone = {0};
    char date[32];
    if (!store_study_get(request->web->store, study_uid, &study, err))
        return false;
    *answered = study.purged_ms > 0;
    if (!*answered)
        return true;
    const time_t purged_s = (time_t)(study.purged_ms / 1000);
    struct tm utc;
    strftime(date, sizeof date, "%Y-%m-%d", gmtime_r(&purged_s, &utc));
    err_set(&gone, ERR_NOT_FOUND,
            "the images were removed from this machine on %s, after the PACS had confirmed them; result and report are "
            "kept. Send the study again from the PACS to see them here",
            date);
    reply_error(request, 410, &gone);
    return true;
}

bool api_series(struct request *request, struct err *err) {
    const char *study_uid = NULL;
    bool answered = false;
    PULMO_SCOPED(series_free) struct series series = {0};
    if (!request_uid(request, 0, &study_uid, err) || !access_note(request, study_uid, err) ||
        !answer_purged(request, study_uid, &answered, err))
        return false;
    if (answered)
        return true;
    if (!read_series(request, study_uid, &series, err))
        return false;
    cJSON_AddStringToObject(series.document, "version", series.version);
    cJSON *document = series.document;
    series.document = NULL;
    return reply_json(request, 200, document, err);
}

static bool dimension(const struct series *series, const char *name, uint64_t *out, struct err *err) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(series->document, name);
    if (!cJSON_IsNumber(item) || item->valueint < 1 || item->valueint > UINT16_MAX)
        return err_set(err, ERR_INTERNAL, "series.json has no \"%s\"", name);
    *out = (uint64_t)item->valueint;
    return true;
}

/* Where slice k lies in slices.i16. */
static bool slice_range(const struct series *series, int64_t k, uint64_t *offset, size_t *size, struct err *err) {
    uint64_t columns = 0, rows = 0, slices = 0;
    if (!dimension(series, "columns", &columns, err) || !dimension(series, "rows", &rows, err) ||
        !dimension(series, "slices", &slices, err))
        return false;
    if ((uint64_t)k >= slices)
        return err_set(err, ERR_NOT_FOUND, "the series has %d slices", (int)slices);
    *size = columns * rows * sizeof(int16_t);
    *offset = (uint64_t)k * *size;
    return true;
}

static bool check_version(const struct series *series, const char *version, struct err *err) {
    return strcmp(series->version, version) == 0
               ? true
               : err_set(err, ERR_CONFLICT, "the study's images changed: open it again");
}

/* series.json is read again after the pixels: another process may have decoded the study anew in between. */
static bool read_slice(struct request *request, const char *study_uid, int64_t k, struct bytes *out, struct err *err) {
    PULMO_SCOPED(series_free) struct series before = {0}, after = {0};
    uint64_t offset = 0;
    size_t size = 0;
    const char *version = request->parameters[1];
    return read_series(request, study_uid, &before, err) && check_version(&before, version, err) &&
           slice_range(&before, k, &offset, &size, err) &&
           store_study_artifact_read_range(request->web->store, study_uid, "slices.i16", offset, size, out, err) &&
           read_series(request, study_uid, &after, err) && check_version(&after, version, err);
}

/* int16 little endian, Hounsfield units, rows from the top. */
bool api_slice(struct request *request, struct err *err) {
    const char *study_uid = NULL;
    int64_t k = 0;
    bool answered = false;
    PULMO_SCOPED(bytes_free) struct bytes pixels = {0};
    if (!request_uid(request, 0, &study_uid, err) || !request_number(request, 2, &k, err) ||
        !access_note(request, study_uid, err) || !answer_purged(request, study_uid, &answered, err))
        return false;
    if (answered)
        return true;
    if (!read_slice(request, study_uid, k, &pixels, err))
        return false;
    return reply_bytes(request, "application/octet-stream", REPLY_IMMUTABLE, &pixels, err);
}
