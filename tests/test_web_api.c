/* LABELS: quick tsan */
/* The REST interface: who may do what, and what comes of it.
 *
 *   test_web_api --serve VIEWER-FOLDER    serves the fixture until standard input ends; prints its port and password
 */
#include "tests/web_client.h"
#include "tests/web_fixture.h"

#include <cjson/cJSON.h>
#include <errno.h>

static int set_up(void **state) {
    struct web_fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    web_open(fixture, NULL);
    web_serve(fixture);
    *state = fixture;
    return 0;
}

static int tear_down(void **state) {
    web_close(*state);
    free(*state);
    return 0;
}

static struct web_client login_as(void **state, const char *user) {
    const struct web_fixture *fixture = *state;
    struct web_client client = client_new(web_port(fixture->server));
    assert_int_equal(client_login(&client, user, PASSWORD), 200);
    return client;
}

static cJSON *json_of(struct web_answer answer, int status) {
    if (answer.status != status)
        fail_msg("%d instead of %d: %s", answer.status, status, answer.body ? answer.body : "");
    cJSON *document = cJSON_ParseWithLength(answer.body, answer.body_size);
    assert_non_null(document);
    answer_free(&answer);
    return document;
}

static const char *text_of(const cJSON *document, const char *name) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(document, name));
    if (!text)
        fail_msg("no text \"%s\"", name);
    return text ? text : "";
}

static double number_of(const cJSON *document, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(document, name);
    if (!cJSON_IsNumber(item))
        fail_msg("no number \"%s\"", name);
    return item ? item->valuedouble : 0;
}

/* ---- login ------------------------------------------------------------------------------------------- */

static void test_login(void **state) {
    const struct web_fixture *fixture = *state;
    struct web_client client = client_new(web_port(fixture->server));
    assert_int_equal(client_status(client_get(&client, "/api/me")), 401);
    struct web_answer answer =
        client_post(&client, "/api/login", "{\"user\":\"reader\",\"password\":\"" PASSWORD "\"}");
    char cookie[256];
    assert_non_null(answer_header(&answer, "Set-Cookie", cookie, sizeof cookie));
    assert_non_null(strstr(cookie, "__Host-"));
    assert_non_null(strstr(cookie, "; Secure"));
    assert_non_null(strstr(cookie, "; HttpOnly"));
    assert_non_null(strstr(cookie, "; SameSite=Strict"));
    cJSON *user = json_of(answer, 200);
    assert_string_equal(text_of(user, "role"), "radiologist");
    assert_string_equal(text_of(user, "notice"), PULMO_NOT_FOR_DIAGNOSIS);
    cJSON_Delete(user);
    assert_int_equal(client_status(client_get(&client, "/api/me")), 200);
    char token[128];
    snprintf(token, sizeof token, "%s", client.cookie);
    assert_int_equal(client_status(client_post(&client, "/api/logout", "{}")), 204);
    snprintf(client.cookie, sizeof client.cookie, "%s", token); /* the session ended, not the cookie alone */
    assert_int_equal(client_status(client_get(&client, "/api/me")), 401);
    client_free(&client);
}

static void test_wrong_passwords_lock(void **state) {
    struct web_fixture *fixture = *state;
    struct err err = {0};
    assert_good(store_user_add(fixture->store, "victim", "Victim", "viewer", PASSWORD, &err));
    struct web_client client = client_new(web_port(fixture->server));
    for (int round = 0; round < 5; round++)
        assert_int_equal(client_login(&client, "victim", "not the password"), 401);
    assert_int_equal(client_login(&client, "victim", PASSWORD), 429);
    assert_int_equal(client_login(&client, "nobody at all", PASSWORD), 401);
    assert_int_equal(client_status(client_post(&client, "/api/login", "{\"user\":\"reader\"}")), 400);
    assert_int_equal(client_status(client_post(&client, "/api/login", "[1]")), 400);
    assert_int_equal(client_status(client_post(&client, "/api/login", "{\"user\":{},\"password\":1}")), 400);
    assert_string_equal(client.cookie, "");
    client_free(&client);
}

/* Names are many: an address that keeps guessing waits too, before any more work is done for it. */
static void test_guessing_is_slowed_down(void **state) {
    const struct web_fixture *fixture = *state;
    struct web_client client = client_new(web_port(fixture->server));
    int status = 0, guesses = 0;
    while (status != 429 && guesses < 40) {
        char name[32];
        snprintf(name, sizeof name, "guess%d", guesses++);
        status = client_login(&client, name, "not the password");
    }
    assert_int_equal(status, 429);
    assert_true(guesses > 5 && guesses <= 21);
    assert_int_equal(client_login(&client, READER, PASSWORD), 429);
    client_free(&client);
}

static void test_forged_cookies(void **state) {
    static const char *const cookies[] = {
        "__Host-pulmo=",
        "__Host-pulmo=0",
        "__Host-pulmo=0000000000000000000000000000000000000000000000000000000000000000",
        "pulmo=0000000000000000000000000000000000000000000000000000000000000000",
        "; ; =;__Host-pulmo",
        ";;;;"};
    const struct web_fixture *fixture = *state;
    struct web_client client = client_new(web_port(fixture->server));
    for (size_t index = 0; index < sizeof cookies / sizeof *cookies; index++) {
        snprintf(client.cookie, sizeof client.cookie, "%s", cookies[index]);
        assert_int_equal(client_status(client_get(&client, "/api/me")), 401);
    }
    client_free(&client);
}

/* ---- who may do what --------------------------------------------------------------------------------- */

static void test_roles(void **state) {
    static const struct {
        const char *user;
        int worklist, study, judge, sign, audit;
    } rows[] = {{READER, 200, 200, 400, 400, 403},
                {VIEWER, 200, 200, 403, 403, 403},
                {ADMINISTRATOR, 200, 200, 403, 403, 200},
                {AUDITOR, 403, 403, 403, 403, 200},
                {NULL, 401, 401, 401, 401, 401}};
    for (size_t index = 0; index < sizeof rows / sizeof *rows; index++) {
        const struct web_fixture *fixture = *state;
        struct web_client client =
            rows[index].user ? login_as(state, rows[index].user) : client_new(web_port(fixture->server));
        assert_int_equal(client_status(client_get(&client, "/api/studies")), rows[index].worklist);
        assert_int_equal(client_status(client_get(&client, "/api/studies/" STUDY_FOUND)), rows[index].study);
        assert_int_equal(client_status(client_post(&client, "/api/results/1/verdicts", "{}")), rows[index].judge);
        assert_int_equal(client_status(client_post(&client, "/api/results/1/sign", "{}")), rows[index].sign);
        assert_int_equal(client_status(client_get(&client, "/api/audit")), rows[index].audit);
        client_free(&client);
    }
}

static void test_other_sites_cannot_post(void **state) {
    struct web_client client = login_as(state, READER);
    static const char path[] = "/api/results/1/verdicts", body[] = "{\"finding_id\":1,\"verdict\":\"accepted\"}";
    char ours[128];
    snprintf(ours, sizeof ours, CLIENT_OURS "Origin: https://127.0.0.1:%u\r\n", client.port);
    assert_int_equal(client_status(client_send(&client, "POST", path, CLIENT_JSON, body)), 403);
    assert_int_equal(
        client_status(client_send(&client, "POST", path, "X-Pulmo: 1\r\nContent-Type: text/plain\r\n", body)), 415);
    assert_int_equal(
        client_status(client_send(&client, "POST", path, CLIENT_OURS "Origin: https://evil.example\r\n", body)), 403);
    assert_int_equal(client_status(client_send(&client, "POST", path, CLIENT_OURS "Origin: null\r\n", body)), 403);
    assert_int_equal(client_status(client_send(&client, "POST", path, ours, body)), 201);
    assert_int_equal(client_status(client_send(&client, "GET", path, "", "")), 405);
    assert_int_equal(client_status(client_post(&client, path, "{\"finding_id\":1,\"verdict\":\"none\"}")), 201);
    client_free(&client);
}

/* ---- reading ----------------------------------------------------------------------------------------- */

static void test_worklist(void **state) {
    static const struct {
        const char *study_uid, *state, *reason;
    } rows[] = {{STUDY_FOUND, "analysed", ""},
                {STUDY_NEGATIVE, "analysed", ""},
                {STUDY_REFUSED, "refused", "NOT_A_CHEST"},
                {STUDY_FAILED, "failed", "slice 31 ends"},
                {STUDY_ARRIVING, "receiving", ""}};
    struct web_client client = login_as(state, VIEWER);
    cJSON *document = json_of(client_get(&client, "/api/studies"), 200);
    const cJSON *studies = cJSON_GetObjectItemCaseSensitive(document, "studies"), *study = NULL;
    assert_int_equal(cJSON_GetArraySize(studies), 5);
    size_t seen = 0;
    cJSON_ArrayForEach(study, studies) {
        for (size_t index = 0; index < sizeof rows / sizeof *rows; index++) {
            if (strcmp(text_of(study, "study_uid"), rows[index].study_uid) != 0)
                continue;
            assert_string_equal(text_of(study, "state"), rows[index].state);
            assert_non_null(strstr(text_of(study, "reason"), rows[index].reason));
            seen++;
        }
    }
    assert_int_equal(seen, 5);
    cJSON_Delete(document);
    client_free(&client);
}

static void test_study(void **state) {
    struct web_client client = login_as(state, VIEWER);
    cJSON *document = json_of(client_get(&client, "/api/studies/" STUDY_FOUND), 200);
    const cJSON *result = cJSON_GetObjectItemCaseSensitive(document, "result");
    const cJSON *analysis = cJSON_GetObjectItemCaseSensitive(result, "analysis");
    const cJSON *findings = cJSON_GetObjectItemCaseSensitive(analysis, "findings");
    assert_int_equal(cJSON_GetArraySize(findings), WEB_NODULES);
    assert_string_equal(text_of(cJSON_GetArrayItem(findings, 0), "sentence"), web_nodules[0].sentence);
    assert_string_equal(text_of(result, "status"), "analysed");
    const cJSON *overlays = cJSON_GetObjectItemCaseSensitive(result, "overlays");
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(overlays, "attention")), 15);
    cJSON_Delete(document);
    document = json_of(client_get(&client, "/api/studies/" STUDY_FAILED), 200);
    assert_true(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(document, "result")));
    cJSON_Delete(document);
    assert_int_equal(client_status(client_get(&client, "/api/studies/1.2.3")), 404);
    assert_int_equal(client_status(client_get(&client, "/api/studies/1.2.3'--")), 404);
    assert_int_equal(client_status(client_get(&client, "/api/studies/")), 404);
    assert_int_equal(client_status(client_get(&client, "/api/results/999")), 404);
    assert_int_equal(client_status(client_get(&client, "/api/results/99999999999999999999")), 404);
    assert_int_equal(client_status(client_get(&client, "/api/results/-1")), 404);
    client_free(&client);
}

/* The study's version of the decoded series, and the address of a slice of it. */
static void slice_path(struct web_client *client, int k, char out[256]) {
    cJSON *series = json_of(client_get(client, "/api/studies/" STUDY_FOUND "/series.json"), 200);
    assert_int_equal((int)number_of(series, "columns"), COLUMNS);
    snprintf(out, 256, "/api/studies/" STUDY_FOUND "/slices/%s/%d", text_of(series, "version"), k);
    cJSON_Delete(series);
}

static void test_slices_are_exact(void **state) {
    struct web_client client = login_as(state, VIEWER);
    const int slices[] = {0, 15, SLICES - 1};
    char path[256], cache[128];
    for (size_t index = 0; index < sizeof slices / sizeof *slices; index++) {
        slice_path(&client, slices[index], path);
        struct web_answer answer = client_get(&client, path);
        assert_int_equal(answer.status, 200);
        assert_int_equal(answer.body_size, (size_t)COLUMNS * ROWS * 2);
        assert_non_null(strstr(answer_header(&answer, "Cache-Control", cache, sizeof cache), "private"));
        for (int j = 0, n = 0; j < ROWS; j++)
            for (int i = 0; i < COLUMNS; i++, n += 2) {
                const uint8_t *at = (const uint8_t *)answer.body + n;
                if ((int16_t)(at[0] | at[1] << 8) != web_hu(i, j, slices[index]))
                    fail_msg("slice %d, pixel (%d, %d)", slices[index], i, j);
            }
        answer_free(&answer);
    }
    slice_path(&client, SLICES, path);
    assert_int_equal(client_status(client_get(&client, path)), 404);
    assert_int_equal(client_status(client_get(&client, "/api/studies/" STUDY_FOUND "/slices/0000000000000000/1")), 409);
    assert_int_equal(client_status(client_get(&client, "/api/studies/" STUDY_FAILED "/series.json")), 404);
    client_free(&client);
}

static void test_artifacts(void **state) {
    const struct web_fixture *fixture = *state;
    struct web_client client = login_as(state, VIEWER);
    char path[256], type[64];
    snprintf(path, sizeof path, "/api/results/%lld/artifacts/overlay/attention/15.png",
             (long long)fixture->result_found);
    struct web_answer answer = client_get(&client, path);
    assert_int_equal(answer.status, 200);
    assert_string_equal(answer_header(&answer, "Content-Type", type, sizeof type), "image/png");
    struct web_text png = web_overlay_png(15);
    assert_int_equal(answer.body_size, png.size);
    assert_memory_equal(answer.body, png.data, png.size);
    free(png.data);
    answer_free(&answer);
    static const char *const absent[] = {
        "overlay/attention/99.png", "../analysis.json", "..%2f..%2fkey.pem", "overlay//", "ANALYSIS.JSON", "a/../../b"};
    for (size_t index = 0; index < sizeof absent / sizeof *absent; index++) {
        snprintf(path, sizeof path, "/api/results/%lld/artifacts/%s", (long long)fixture->result_found, absent[index]);
        assert_int_equal(client_status(client_get(&client, path)), 404);
    }
    client_free(&client);
}

/* Opening a study is one row of the audit, whatever is fetched of it; a refusal is one too. */
static void test_access_is_audited(void **state) {
    struct web_client viewer = login_as(state, VIEWER), auditor = login_as(state, AUDITOR);
    char path[256];
    for (int k = 0; k < 3; k++) {
        slice_path(&viewer, k, path);
        assert_int_equal(client_status(client_get(&viewer, path)), 200);
    }
    assert_int_equal(client_status(client_post(&viewer, "/api/results/1/sign", "{}")), 403);
    struct web_answer answer = client_get(&auditor, "/api/audit");
    assert_int_equal(answer.status, 200);
    int opened = 0, refused = 0;
    for (char *line = answer.body; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        char *end = strchr(line, '\n');
        size_t length = end ? (size_t)(end - line) : strlen(line);
        bool ours = memmem(line, length, "\"viewer\"", 8) != NULL;
        opened += ours && memmem(line, length, "opened in the viewer", 20) && memmem(line, length, STUDY_FOUND, 26);
        refused += ours && memmem(line, length, "not in this role", 16) != NULL;
    }
    assert_int_equal(opened, 1);
    assert_true(refused >= 1);
    answer_free(&answer);
    client_free(&viewer);
    client_free(&auditor);
}

/* ---- judging and signing ----------------------------------------------------------------------------- */

static void result_path(const struct web_fixture *fixture, const char *rest, char out[256]) {
    snprintf(out, 256, "/api/results/%lld%s", (long long)fixture->result_found, rest);
}

static int verdict_count(struct web_client *client, const struct web_fixture *fixture) {
    char path[256];
    result_path(fixture, "", path);
    cJSON *document = json_of(client_get(client, path), 200);
    const cJSON *result = cJSON_GetObjectItemCaseSensitive(document, "result");
    int count = cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(result, "verdicts"));
    cJSON_Delete(document);
    return count;
}

static void test_verdicts(void **state) {
    const struct web_fixture *fixture = *state;
    struct web_client client = login_as(state, READER);
    char path[256], body[256];
    double lps[3];
    result_path(fixture, "/verdicts", path);
    assert_int_equal(client_status(client_post(&client, path, "{\"finding_id\":2,\"verdict\":\"rejected\"}")), 201);
    assert_int_equal(verdict_count(&client, fixture), 1);
    assert_int_equal(client_status(client_post(&client, path, "{\"finding_id\":2,\"verdict\":\"none\"}")), 201);
    assert_int_equal(verdict_count(&client, fixture), 0);
    web_lps(&web_nodules[3], lps);
    snprintf(body, sizeof body, "{\"verdict\":\"added\",\"center_lps_mm\":[%.1f,%.1f,%.1f],\"diameter_mm\":7.5}",
             lps[0], lps[1], lps[2]);
    cJSON *added = json_of(client_post(&client, path, body), 201);
    assert_int_equal((int)number_of(added, "finding_id"), 10001);
    assert_string_equal(text_of(added, "user"), READER);
    cJSON_Delete(added);
    assert_int_equal(client_status(client_post(&client, path, "{\"finding_id\":10001,\"verdict\":\"removed\"}")), 201);
    assert_int_equal(verdict_count(&client, fixture), 0);
    client_free(&client);
}

static void test_bad_verdicts(void **state) {
    static const struct {
        const char *body;
        int status;
    } rows[] = {
        {"{\"finding_id\":99,\"verdict\":\"accepted\"}", 404},
        {"{\"finding_id\":1,\"verdict\":\"removed\"}", 404},
        {"{\"finding_id\":1.5,\"verdict\":\"accepted\"}", 400},
        {"{\"finding_id\":-1,\"verdict\":\"accepted\"}", 400},
        {"{\"finding_id\":1e300,\"verdict\":\"accepted\"}", 400},
        {"{\"finding_id\":\"1\",\"verdict\":\"accepted\"}", 400},
        {"{\"finding_id\":1,\"verdict\":\"maybe\"}", 400},
        {"{\"finding_id\":1,\"verdict\":\"a very long verdict indeed\"}", 400},
        {"{\"verdict\":\"added\",\"center_lps_mm\":[0,0],\"diameter_mm\":5}", 400},
        {"{\"verdict\":\"added\",\"center_lps_mm\":[0,0,\"0\"],\"diameter_mm\":5}", 400},
        {"{\"verdict\":\"added\",\"center_lps_mm\":[0,0,900],\"diameter_mm\":5}", 400},
        {"{\"verdict\":\"added\",\"center_lps_mm\":[0,0,0],\"diameter_mm\":0}", 400},
        {"{\"verdict\":\"added\",\"center_lps_mm\":[0,0,0],\"diameter_mm\":1e9}", 400},
        {"{\"verdict\":\"added\",\"center_lps_mm\":[1e999,0,0],\"diameter_mm\":5}", 400},
        {"{", 400},
        {"", 400},
        {"null", 400},
    };
    const struct web_fixture *fixture = *state;
    struct web_client client = login_as(state, READER);
    char path[256];
    result_path(fixture, "/verdicts", path);
    for (size_t index = 0; index < sizeof rows / sizeof *rows; index++) {
        int status = client_status(client_post(&client, path, rows[index].body));
        if (status != rows[index].status)
            fail_msg("%s: %d instead of %d", rows[index].body, status, rows[index].status);
    }
    assert_int_equal(verdict_count(&client, fixture), 0);
    client_free(&client);
}

static void test_signing(void **state) {
    struct web_fixture *fixture = *state;
    struct err err = {0};
    struct web_client client = login_as(state, READER);
    char verdicts[256], sign[256];
    result_path(fixture, "/verdicts", verdicts);
    result_path(fixture, "/sign", sign);
    assert_int_equal(client_status(client_post(&client, verdicts, "{\"finding_id\":1,\"verdict\":\"accepted\"}")), 201);
    assert_int_equal(client_status(client_post(&client, sign, "{\"password\":\"not the password\"}")), 403);
    /* What the reader saw is not what counts now. */
    assert_int_equal(client_status(client_post(&client, sign, "{\"password\":\"" PASSWORD "\",\"verdicts\":[]}")), 409);
    assert_int_equal(
        client_status(client_post(&client, sign,
                                  "{\"password\":\"" PASSWORD "\",\"verdicts\":[{\"finding_id\":1,\"verdict\":"
                                  "\"rejected\"}]}")),
        409);
    struct store_job job = {0};
    assert_good(store_job_take(fixture->store, 1U << STORE_JOB_SIGN, pulmo_now_ms() + 1000, &job, &err));
    assert_true(job.id == 0);
    assert_int_equal(
        client_status(client_post(&client, sign,
                                  "{\"password\":\"" PASSWORD "\",\"verdicts\":[{\"finding_id\":1,\"verdict\":"
                                  "\"accepted\"}]}")),
        202);
    assert_int_equal(client_status(client_post(&client, sign, "{\"password\":\"" PASSWORD "\"}")), 409);
    assert_int_equal(client_status(client_post(&client, verdicts, "{\"finding_id\":1,\"verdict\":\"none\"}")), 409);
    assert_good(store_job_take(fixture->store, 1U << STORE_JOB_SIGN, pulmo_now_ms() + 1000, &job, &err));
    assert_true(job.id != 0);
    assert_int_equal(job.result_id, fixture->result_found);
    const struct store_artifact artifact = {
        .name = "signed/sr.dcm", .media_type = "application/dicom", .data = "x", .size = 1};
    assert_good(store_sign_finish(fixture->store, &job, &artifact, 1, &err));
    char path[256];
    result_path(fixture, "/state", path);
    cJSON *document = json_of(client_get(&client, path), 200);
    assert_true(cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(document, "signed")));
    assert_string_equal(text_of(document, "study_state"), "signed");
    cJSON_Delete(document);
    client_free(&client);
}

/* A reader who has the first result open can neither judge nor sign it, and learns of the second. */
static void test_superseded_result(void **state) {
    struct web_fixture *fixture = *state;
    web_arrive(fixture);
    int64_t newer = web_supersede(fixture);
    struct web_client client = login_as(state, READER);
    char path[256];
    snprintf(path, sizeof path, "/api/results/%lld/state", (long long)fixture->result_negative);
    cJSON *document = json_of(client_get(&client, path), 200);
    assert_int_equal((int64_t)number_of(document, "superseded_by"), newer);
    cJSON_Delete(document);
    snprintf(path, sizeof path, "/api/results/%lld/verdicts", (long long)fixture->result_negative);
    struct web_answer answer =
        client_post(&client, path, "{\"verdict\":\"added\",\"center_lps_mm\":[0,0,-50],\"diameter_mm\":5}");
    assert_int_equal(answer.status, 409);
    assert_non_null(strstr(answer.body, "superseded"));
    answer_free(&answer);
    snprintf(path, sizeof path, "/api/results/%lld/sign", (long long)fixture->result_negative);
    assert_int_equal(client_status(client_post(&client, path, "{\"password\":\"" PASSWORD "\"}")), 409);
    client_free(&client);
}

/* ---- for the tests in a browser ---------------------------------------------------------------------- */

/* Finishes the signing that is asked for, as the worker would; 0 when none is. */
static int64_t finish_signing(struct web_fixture *fixture) {
    struct err err = {0};
    struct store_job job = {0};
    const struct store_artifact artifact = {
        .name = "signed/sr.dcm", .media_type = "application/dicom", .data = "x", .size = 1};
    assert_good(store_job_take(fixture->store, 1U << STORE_JOB_SIGN, pulmo_now_ms() + 1000, &job, &err));
    if (job.id)
        assert_good(store_sign_finish(fixture->store, &job, &artifact, 1, &err));
    return job.id;
}

/* Does what the lines of standard input say, until they end. */
static void serve_until_end(struct web_fixture *fixture) {
    char line[64];
    printf("{\"port\":%u,\"password\":\"%s\"}\n", web_port(fixture->server), PASSWORD);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        int64_t number = 0;
        if (strcmp(line, "sign\n") == 0)
            number = finish_signing(fixture);
        else if (strcmp(line, "supersede\n") == 0)
            number = web_supersede(fixture);
        else if (strcmp(line, "arrive\n") == 0)
            web_arrive(fixture);
        printf("{\"number\":%lld}\n", (long long)number);
        fflush(stdout);
    }
}

static int serve(const char *viewer) {
    struct web_fixture fixture = {0};
    web_open(&fixture, viewer);
    web_serve(&fixture);
    serve_until_end(&fixture);
    web_close(&fixture);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "--serve") == 0)
        return serve(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_login),
        cmocka_unit_test(test_wrong_passwords_lock),
        cmocka_unit_test(test_forged_cookies),
        cmocka_unit_test(test_roles),
        cmocka_unit_test(test_other_sites_cannot_post),
        cmocka_unit_test(test_worklist),
        cmocka_unit_test(test_study),
        cmocka_unit_test(test_slices_are_exact),
        cmocka_unit_test(test_artifacts),
        cmocka_unit_test(test_access_is_audited),
        cmocka_unit_test(test_bad_verdicts),
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_signing),
        cmocka_unit_test(test_superseded_result),
        cmocka_unit_test(test_guessing_is_slowed_down), /* last: afterwards nobody logs in from here for a minute */
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
