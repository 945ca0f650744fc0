#include "web/session.h"
#include "web/reply.h"
#include "web/throttle.h"

#include <stdio.h>
#include <string.h>

/* The prefix makes browsers insist on Secure, Path=/ and no Domain (RFC 6265bis 4.1.3.2). */
#define COOKIE "__Host-pulmo"
#define COOKIE_ATTRIBUTES "Path=/; Secure; HttpOnly; SameSite=Strict"
#define TOKEN_LENGTH 64
#define NAME_BYTES_MAX 63
#define PASSWORD_BYTES_MAX 256

/* The token of the cookie, if there is one that could be ours. */
static bool cookie_token(const char *header, char out[TOKEN_LENGTH + 1]) {
    for (const char *pair = header; pair && *pair; pair = strchr(pair, ';')) {
        pair += strspn(pair, "; ");
        if (strncmp(pair, COOKIE "=", strlen(COOKIE) + 1) != 0)
            continue;
        const char *value = pair + strlen(COOKIE) + 1;
        if (strspn(value, "0123456789abcdef") != TOKEN_LENGTH)
            return false;
        memcpy(out, value, TOKEN_LENGTH);
        out[TOKEN_LENGTH] = '\0';
        return true;
    }
    return false;
}

bool session_read(struct request *request, struct err *err) {
    const char *header = evhttp_find_header(evhttp_request_get_input_headers(request->http), "Cookie");
    char token[TOKEN_LENGTH + 1];
    if (!cookie_token(header, token))
        return true;
    struct err why = {0};
    struct store_user user;
    if (!store_session_check(request->web->store, token, pulmo_now_ms(), &user, &why))
        return why.kind == ERR_DENIED || why.kind == ERR_NOT_FOUND ? true : err_set(err, why.kind, "%s", why.text);
    request->user = user;
    memcpy(request->token, token, sizeof token);
    return true;
}

static bool set_cookie(struct request *request, const char *token, bool end, struct err *err) {
    char cookie[256];
    snprintf(cookie, sizeof cookie, COOKIE "=%s; " COOKIE_ATTRIBUTES "%s", token, end ? "; Max-Age=0" : "");
    return reply_header(request, "Set-Cookie", cookie, err);
}

static bool reply_user(struct request *request, const struct store_user *user, struct err *err) {
    cJSON *document = cJSON_CreateObject();
    cJSON_AddStringToObject(document, "name", user->name);
    cJSON_AddStringToObject(document, "display_name", user->display_name);
    cJSON_AddStringToObject(document, "role", user->role);
    cJSON_AddBoolToObject(document, "may_read", strcmp(user->role, "auditor") != 0);
    cJSON_AddBoolToObject(document, "may_judge", strcmp(user->role, "radiologist") == 0);
    cJSON_AddStringToObject(document, "notice", PULMO_NOT_FOR_DIAGNOSIS);
    cJSON_AddStringToObject(document, "version", PULMO_VERSION);
    return reply_json(request, 200, document, err);
}

/* A wrong password or a locked account is an answer, not a fault: status_denied or 429. True when answered. */
static bool reply_refusal(struct request *request, int status_denied, struct err *err) {
    if (err->kind != ERR_DENIED && err->kind != ERR_BUSY)
        return false;
    reply_error(request, err->kind == ERR_BUSY ? 429 : status_denied, err);
    *err = (struct err){0};
    return true;
}

static bool check_password(struct request *request, const char *name, const char *password, struct store_user *out,
                           struct err *err) {
    struct throttle *throttle = request->web->throttle;
    if (!throttle_check(throttle, request->address, pulmo_monotonic_ms(), err))
        return false;
    if (store_user_check(request->web->store, name, password, request->address, pulmo_now_ms(), out, err))
        return true;
    if (err->kind == ERR_DENIED || err->kind == ERR_BUSY)
        throttle_failed(throttle, request->address, pulmo_monotonic_ms());
    return false;
}

bool session_login(struct request *request, struct err *err) {
    const char *name = NULL, *password = NULL;
    struct store_user user;
    char token[TOKEN_LENGTH + 1];
    if (!request_text(request, "user", NAME_BYTES_MAX, &name, err) ||
        !request_text(request, "password", PASSWORD_BYTES_MAX, &password, err))
        return false;
    if (!check_password(request, name, password, &user, err))
        return reply_refusal(request, 401, err);
    return store_session_new(request->web->store, user.name, pulmo_now_ms(), token, err) &&
           set_cookie(request, token, false, err) && reply_user(request, &user, err);
}

bool session_logout(struct request *request, struct err *err) {
    return store_session_end(request->web->store, request->token, err) && set_cookie(request, "", true, err) &&
           reply_empty(request, 204, err);
}

bool session_me(struct request *request, struct err *err) {
    return reply_user(request, &request->user, err);
}

bool session_confirm(struct request *request, const char *password, struct err *err) {
    struct store_user user;
    if (check_password(request, request->user.name, password, &user, err))
        return true;
    reply_refusal(request, 403, err);
    return false;
}
