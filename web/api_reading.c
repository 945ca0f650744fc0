/* A result, the reader's verdicts on it, and the signature. */
#include "web/access.h"
#include "web/api.h"
#include "web/reply.h"
#include "web/session.h"

#include <stdlib.h>
#include <string.h>

#define DIAMETER_MM_MIN 1.0
#define DIAMETER_MM_MAX 200.0
#define PASSWORD_BYTES_MAX 256

/* The result of the address; the access is noted. */
static bool read_result(struct request *request, struct store_result *out, struct err *err) {
    int64_t id = 0;
    return request_number(request, 0, &id, err) && store_result_get(request->web->store, id, out, err) &&
           access_note(request, out->study_uid, err);
}

bool api_result(struct request *request, struct err *err) {
    struct store_result result;
    struct store_study study;
    if (!read_result(request, &result, err) || !store_study_get(request->web->store, result.study_uid, &study, err))
        return false;
    cJSON *result_document = api_result_document(request, &result, err);
    if (!result_document)
        return false;
    cJSON *document = cJSON_CreateObject();
    cJSON_AddItemToObject(document, "study", api_study_document(&study));
    cJSON_AddItemToObject(document, "result", result_document);
    return reply_json(request, 200, document, err);
}

/* What may change while a reader looks at a result: small, to be asked often. */
bool api_result_state(struct request *request, struct err *err) {
    struct store_result result;
    struct store_study study;
    if (!read_result(request, &result, err) || !store_study_get(request->web->store, result.study_uid, &study, err))
        return false;
    cJSON *document = cJSON_CreateObject();
    cJSON_AddNumberToObject(document, "superseded_by", (double)result.superseded_by);
    cJSON_AddBoolToObject(document, "signed", result.signed_by_reader);
    cJSON_AddStringToObject(document, "study_state", study.state);
    cJSON_AddStringToObject(document, "sign_failure", result.sign_failure);
    return reply_json(request, 200, document, err);
}

/* Artifacts are immutable, but their media types are data: only those the viewer uses are shown by a browser. */
static const char *safe_media_type(const char *media_type) {
    static const char *const rows[] = {"application/json", "image/png", "application/dicom"};
    for (size_t index = 0; index < sizeof rows / sizeof *rows; index++)
        if (strcmp(rows[index], media_type) == 0)
            return rows[index];
    return "application/octet-stream";
}

bool api_artifact(struct request *request, struct err *err) {
    struct store_result result;
    PULMO_SCOPED(bytes_free) struct bytes content = {0};
    char media_type[64];
    const char *name = request->parameters[1];
    if (name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._/-")] != '\0' || strstr(name, ".."))
        return err_set(err, ERR_NOT_FOUND, "no artifact has such a name");
    if (!read_result(request, &result, err) ||
        !store_artifact_read(request->web->store, result.id, name, &content, media_type, err))
        return false;
    return reply_bytes(request, safe_media_type(media_type), REPLY_IMMUTABLE, &content, err);
}

/* ---- verdicts ---------------------------------------------------------------------------------------- */

/* Reads a grid of a series.json. */
static bool read_grid(const cJSON *series, struct grid *out, struct err *err) {
    static const char *const sides[] = {"columns", "rows", "slices"};
    const cJSON *affine = cJSON_GetObjectItemCaseSensitive(series, "ijk_to_lps_mm");
    for (int axis = 0; axis < 3; axis++) {
        const cJSON *side = cJSON_GetObjectItemCaseSensitive(series, sides[axis]);
        const cJSON *row = cJSON_GetArrayItem(affine, axis);
        if (!cJSON_IsNumber(side) || cJSON_GetArraySize(row) != 4)
            return err_set(err, ERR_INTERNAL, "series.json has no geometry");
        out->size_ijk[axis] = side->valueint;
        for (int column = 0; column < 4; column++)
            out->ijk_to_lps_mm[axis][column] = cJSON_GetArrayItem(row, column)->valuedouble;
    }
    return true;
}

/* A missed nodule lies inside of the images. */
static bool check_place(struct request *request, const char *study_uid, const double lps_mm[3], struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes content = {0};
    char media_type[64];
    if (!store_study_artifact_read(request->web->store, study_uid, "series.json", &content, media_type, err))
        return false;
    PULMO_SCOPED(request_json_free_at)
    cJSON *series = cJSON_ParseWithLength((const char *)content.data, content.size);
    struct grid grid = {0};
    double ijk[3];
    if (!read_grid(series, &grid, err))
        return false;
    if (!grid_to_ijk(&grid, lps_mm, ijk))
        return err_set(err, ERR_INTERNAL, "the series' geometry cannot be inverted");
    for (int axis = 0; axis < 3; axis++)
        if (!(ijk[axis] >= -0.5 && ijk[axis] <= grid.size_ijk[axis] - 0.5))
            return err_set(err, ERR_INPUT, "the place lies outside of the images");
    return true;
}

static bool read_added(struct request *request, const struct store_result *result, struct store_verdict *out,
                       struct err *err) {
    if (!request_vector(request, "center_lps_mm", out->center_lps_mm, err) ||
        !request_real(request, "diameter_mm", &out->diameter_mm, err))
        return false;
    if (out->diameter_mm < DIAMETER_MM_MIN || out->diameter_mm > DIAMETER_MM_MAX)
        return err_set(err, ERR_INPUT, "a diameter of %.1f mm is not between %.0f and %.0f mm", out->diameter_mm,
                       DIAMETER_MM_MIN, DIAMETER_MM_MAX);
    return check_place(request, result->study_uid, out->center_lps_mm, err);
}

/* Whether the result has such a finding, and may still be judged, is the store's to say. */
static bool read_judged(struct request *request, struct store_verdict *out, struct err *err) {
    double id = 0;
    if (!request_real(request, "finding_id", &id, err))
        return false;
    if (id < 1 || id > UINT32_MAX || id != (double)(uint32_t)id)
        return err_set(err, ERR_INPUT, "\"finding_id\" is no finding's");
    out->finding_id = (uint32_t)id;
    return true;
}

static bool read_verdict(struct request *request, const struct store_result *result, struct store_verdict *out,
                         struct err *err) {
    static const char *const known[] = {"accepted", "rejected", "none", "added", "removed"};
    const char *verdict = NULL;
    if (!request_text(request, "verdict", sizeof out->verdict - 1, &verdict, err))
        return false;
    for (size_t index = 0; index < sizeof known / sizeof *known; index++)
        if (strcmp(known[index], verdict) == 0)
            memcpy(out->verdict, verdict, strlen(verdict) + 1);
    if (!*out->verdict)
        return err_set(err, ERR_INPUT, "\"%s\" is no verdict", verdict);
    memcpy(out->user, request->user.name, sizeof out->user);
    out->created_ms = pulmo_now_ms();
    return strcmp(verdict, "added") == 0 ? read_added(request, result, out, err) : read_judged(request, out, err);
}

bool api_verdict(struct request *request, struct err *err) {
    struct store_result result;
    struct store_verdict verdict = {0};
    return read_result(request, &result, err) && read_verdict(request, &result, &verdict, err) &&
           store_verdict_put(request->web->store, result.id, &verdict, err) &&
           reply_json(request, 201, api_verdict_document(&verdict), err);
}

/* ---- signature --------------------------------------------------------------------------------------- */

static const cJSON *seen_verdict(const cJSON *seen, uint32_t finding_id) {
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, seen) {
        const cJSON *id = cJSON_GetObjectItemCaseSensitive(item, "finding_id");
        if (cJSON_IsNumber(id) && id->valuedouble == finding_id)
            return item;
    }
    return NULL;
}

static bool counts(const char *verdict) {
    return strcmp(verdict, "none") != 0 && strcmp(verdict, "removed") != 0;
}

/* What you saw is what you sign: when the body names verdicts, they must be those that count now. */
static bool check_seen(struct request *request, int64_t result_id, struct err *err) {
    const cJSON *seen = cJSON_GetObjectItemCaseSensitive(request->body, "verdicts");
    if (!seen)
        return true;
    PULMO_SCOPED(pulmo_free_at) struct store_verdict *verdicts = NULL;
    size_t count = 0;
    if (!store_verdict_list(request->web->store, result_id, &verdicts, &count, err))
        return false;
    int standing = 0;
    bool same = cJSON_IsArray(seen);
    for (size_t index = 0; same && index < count; index++) {
        if (!counts(verdicts[index].verdict))
            continue;
        standing++;
        const cJSON *item = seen_verdict(seen, verdicts[index].finding_id);
        const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "verdict"));
        same = text && strcmp(text, verdicts[index].verdict) == 0;
    }
    if (!same || standing != cJSON_GetArraySize(seen))
        return err_set(err, ERR_CONFLICT, "another reader changed a verdict meanwhile: look again before signing");
    return true;
}

bool api_sign(struct request *request, struct err *err) {
    struct store_result result;
    const char *password = NULL;
    if (!read_result(request, &result, err) || !request_text(request, "password", PASSWORD_BYTES_MAX, &password, err) ||
        !check_seen(request, result.id, err) || !session_confirm(request, password, err) ||
        !store_sign_request(request->web->store, result.id, request->user.name, err))
        return false;
    cJSON *document = cJSON_CreateObject();
    cJSON_AddStringToObject(document, "state", "signing");
    return reply_json(request, 202, document, err);
}
