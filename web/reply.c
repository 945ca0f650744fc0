#include "web/reply.h"
#include "log.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/http.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Scripts, styles and data come from this server alone. Styles of single elements are set through the object model,
 * which the policy allows; "data:" is the cursor and icon images of the style sheet. */
#define CONTENT_POLICY                                                                                          \
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; " \
    "worker-src 'self' blob:; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

static const struct {
    const char *name, *value;
} security_headers[] = {
    {"Content-Security-Policy", CONTENT_POLICY},
    {"Strict-Transport-Security", "max-age=31536000"},
    {"X-Content-Type-Options", "nosniff"},
    {"X-Frame-Options", "DENY"},
    {"Referrer-Policy", "no-referrer"},
    {"Cross-Origin-Opener-Policy", "same-origin"},
    {"Cross-Origin-Resource-Policy", "same-origin"},
    {"Permissions-Policy", "camera=(), microphone=(), geolocation=()"},
};

static const char *const cache_values[] = {
    [REPLY_NO_STORE] = "no-store",
    [REPLY_IMMUTABLE] = "private, max-age=3600, immutable",
    [REPLY_REVALIDATE] = "no-cache",
};

/* ---- memory for JSON --------------------------------------------------------------------------------- */

static _Thread_local bool json_starved;

static void *json_alloc(size_t size) {
    void *memory = malloc(size);
    json_starved = json_starved || !memory;
    return memory;
}

void reply_watch_memory(void) {
    cJSON_InitHooks(&(cJSON_Hooks){.malloc_fn = json_alloc, .free_fn = free});
}

void reply_begin(void) {
    json_starved = false;
}

bool reply_starved(struct err *err) {
    if (json_starved)
        err_set(err, ERR_MEMORY, "out of memory for a document");
    return json_starved;
}

/* ---- headers ----------------------------------------------------------------------------------------- */

bool reply_header(struct request *request, const char *name, const char *value, struct err *err) {
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request->http);
    evhttp_remove_header(headers, name);
    errno = 0;
    if (evhttp_add_header(headers, name, value) != 0)
        return err_set(err, errno == ENOMEM ? ERR_MEMORY : ERR_INTERNAL, "cannot set the header %s", name);
    return true;
}

static bool add_headers(struct request *request, enum reply_cache cache, const char *media_type, struct err *err) {
    for (size_t index = 0; index < sizeof security_headers / sizeof *security_headers; index++)
        if (!reply_header(request, security_headers[index].name, security_headers[index].value, err))
            return false;
    return reply_header(request, "Cache-Control", cache_values[cache], err) &&
           (!media_type || reply_header(request, "Content-Type", media_type, err));
}

static const char *reason_of(int status) {
    static const struct {
        int status;
        const char *reason;
    } rows[] = {{200, "OK"},
                {201, "Created"},
                {202, "Accepted"},
                {204, "No Content"},
                {304, "Not Modified"},
                {400, "Bad Request"},
                {401, "Unauthorized"},
                {403, "Forbidden"},
                {404, "Not Found"},
                {405, "Method Not Allowed"},
                {409, "Conflict"},
                {410, "Gone"},
                {413, "Content Too Large"},
                {415, "Unsupported Media Type"},
                {422, "Unprocessable Content"},
                {429, "Too Many Requests"},
                {503, "Service Unavailable"},
                {507, "Insufficient Storage"}};
    for (size_t index = 0; index < sizeof rows / sizeof *rows; index++)
        if (rows[index].status == status)
            return rows[index].reason;
    return "Internal Server Error";
}

static void free_content(const void *data, size_t size, void *context) {
    (void)data, (void)size;
    free(context);
}

/* owned: data is freed when it was sent, or here when that fails. */
static bool send_content(struct request *request, int status, const void *data, size_t size, void *owned,
                         struct err *err) {
    if (size == 0) {
        free(owned);
        evhttp_send_reply(request->http, status, reason_of(status), NULL);
        return true;
    }
    struct evbuffer *output = evhttp_request_get_output_buffer(request->http);
    if (evbuffer_add_reference(output, data, size, free_content, owned) != 0) {
        free(owned);
        return err_set(err, ERR_MEMORY, "out of memory for an answer");
    }
    evhttp_send_reply(request->http, status, reason_of(status), NULL);
    return true;
}

bool reply_json(struct request *request, int status, cJSON *document, struct err *err) {
    PULMO_SCOPED(request_json_free_at) cJSON *owned = document;
    char *text = owned ? cJSON_PrintUnformatted(owned) : NULL;
    if (!text || reply_starved(err)) { /* a document may lack a member and look whole */
        free(text);
        return err_set(err, ERR_MEMORY, "out of memory for an answer");
    }
    if (!add_headers(request, REPLY_NO_STORE, "application/json", err)) {
        free(text);
        return false;
    }
    return send_content(request, status, text, strlen(text), text, err);
}

bool reply_bytes(struct request *request, const char *media_type, enum reply_cache cache, struct bytes *content,
                 struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes moved = *content;
    *content = (struct bytes){0};
    if (!add_headers(request, cache, media_type, err))
        return false;
    void *data = moved.data;
    moved.data = NULL;
    return send_content(request, 200, data, moved.size, data, err);
}

bool reply_borrowed(struct request *request, const char *media_type, const void *data, size_t size, struct err *err) {
    return add_headers(request, REPLY_REVALIDATE, media_type, err) && send_content(request, 200, data, size, NULL, err);
}

bool reply_empty(struct request *request, int status, struct err *err) {
    enum reply_cache cache = status == 304 ? REPLY_REVALIDATE : REPLY_NO_STORE;
    return add_headers(request, cache, NULL, err) && send_content(request, status, NULL, 0, NULL, err);
}

/* ---- errors ------------------------------------------------------------------------------------------ */

int reply_status_of(enum err_kind kind) {
    switch (kind) {
    case ERR_INPUT: return 400;
    case ERR_UNSUPPORTED: return 415;
    case ERR_LIMIT: return 413;
    case ERR_DENIED: return 403;
    case ERR_NOT_FOUND: return 404;
    case ERR_CONFLICT: return 409;
    case ERR_NO_SPACE: return 507;
    case ERR_NETWORK:
    case ERR_MEMORY:
    case ERR_BUSY: return 503;
    case ERR_NONE:
    case ERR_IO:
    case ERR_CONFIG:
    case ERR_INTERNAL: return 500;
    }
    return 500;
}

void reply_error(struct request *request, int status, const struct err *error) {
    bool ours = status >= 500;
    reply_begin();
    if (ours)
        log_err(LOG_ERROR, "web", "request-failed", error);
    cJSON *document = cJSON_CreateObject();
    cJSON_AddStringToObject(document, "error", err_kind_name(error->kind));
    cJSON_AddStringToObject(document, "message",
                            ours ? "The server could not do this; its log says why." : error->text);
    struct err failed = {0};
    if (!reply_json(request, status, document, &failed)) /* out of memory: the bare status still says it */
        evhttp_send_error(request->http, status, NULL);
}
