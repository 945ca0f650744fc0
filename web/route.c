#include "web/route.h"
#include "web/access.h"
#include "web/api.h"
#include "web/connection.h"
#include "web/proxies.h"
#include "web/reply.h"
#include "web/session.h"
#include "web/static_files.h"

#include <event2/buffer.h>
#include <event2/keyvalq_struct.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum role {
    ROLE_NOBODY = 0, /* the route needs no login */
    ROLE_VIEWER = 1 << 0,
    ROLE_RADIOLOGIST = 1 << 1,
    ROLE_ADMINISTRATOR = 1 << 2,
    ROLE_AUDITOR = 1 << 3,
    ROLE_ANY = 15,
    ROLE_READS = ROLE_VIEWER | ROLE_RADIOLOGIST | ROLE_ADMINISTRATOR,
    ROLE_AUDITS = ROLE_AUDITOR | ROLE_ADMINISTRATOR
};

/* "*" is one segment of the path; "**" at the end is all that is left. */
static const struct route {
    enum evhttp_cmd_type method;
    const char *pattern;
    unsigned roles;
    request_handler *handler;
} routes[] = {
    {EVHTTP_REQ_POST, "/api/login", ROLE_NOBODY, session_login},
    {EVHTTP_REQ_POST, "/api/logout", ROLE_ANY, session_logout},
    {EVHTTP_REQ_GET, "/api/me", ROLE_ANY, session_me},
    {EVHTTP_REQ_GET, "/api/health", ROLE_NOBODY, api_health},
    {EVHTTP_REQ_GET, "/metrics", ROLE_NOBODY, api_metrics}, /* refuses itself, by address */
    {EVHTTP_REQ_GET, "/api/audit", ROLE_AUDITS, api_audit},
    {EVHTTP_REQ_GET, "/api/studies", ROLE_READS, api_worklist},
    {EVHTTP_REQ_GET, "/api/studies/*", ROLE_READS, api_study},
    {EVHTTP_REQ_GET, "/api/studies/*/series.json", ROLE_READS, api_series},
    {EVHTTP_REQ_GET, "/api/studies/*/slices/*/*", ROLE_READS, api_slice},
    {EVHTTP_REQ_POST, "/api/studies/*/hold", ROLE_RADIOLOGIST | ROLE_ADMINISTRATOR, api_hold},
    {EVHTTP_REQ_GET, "/api/results/*", ROLE_READS, api_result},
    {EVHTTP_REQ_GET, "/api/results/*/state", ROLE_READS, api_result_state},
    {EVHTTP_REQ_GET, "/api/results/*/artifacts/**", ROLE_READS, api_artifact},
    {EVHTTP_REQ_POST, "/api/results/*/verdicts", ROLE_RADIOLOGIST, api_verdict},
    {EVHTTP_REQ_POST, "/api/results/*/sign", ROLE_RADIOLOGIST, api_sign},
};

static unsigned role_of(const struct store_user *user) {
    static const struct {
        const char *name;
        unsigned role;
    } rows[] = {{"viewer", ROLE_VIEWER},
                {"radiologist", ROLE_RADIOLOGIST},
                {"administrator", ROLE_ADMINISTRATOR},
                {"auditor", ROLE_AUDITOR}};
    for (size_t index = 0; index < sizeof rows / sizeof *rows; index++)
        if (strcmp(rows[index].name, user->role) == 0)
            return rows[index].role;
    return ROLE_NOBODY;
}

/* ---- match ------------------------------------------------------------------------------------------- */

static bool keep_parameter(struct request *request, size_t *used, const char *text, size_t length) {
    if (*used == REQUEST_PARAMETERS_MAX || length == 0 || length >= REQUEST_PARAMETER_SIZE)
        return false;
    memcpy(request->parameters[*used], text, length);
    request->parameters[(*used)++][length] = '\0';
    return true;
}

static bool matches(struct request *request, const char *pattern) {
    size_t used = 0;
    const char *path = request->path;
    while (*pattern) {
        if (strcmp(pattern, "**") == 0)
            return keep_parameter(request, &used, path, strlen(path));
        if (*pattern == '*') {
            size_t length = strcspn(path, "/");
            if (!keep_parameter(request, &used, path, length))
                return false;
            path += length;
            pattern++;
        } else if (*pattern++ != *path++)
            return false;
    }
    return *path == '\0';
}

/* NULL with err set: no such address, or not with this method (*status). */
static const struct route *find_route(struct request *request, int *status, struct err *err) {
    enum evhttp_cmd_type method = evhttp_request_get_command(request->http);
    bool known = false;
    for (size_t index = 0; index < sizeof routes / sizeof *routes; index++) {
        if (!matches(request, routes[index].pattern))
            continue;
        if (routes[index].method == method)
            return &routes[index];
        known = true;
    }
    *status = known ? 405 : 404;
    err_set(err, ERR_NOT_FOUND, known ? "this address takes another method" : "there is nothing at this address");
    return NULL;
}

/* ---- checks ------------------------------------------------------------------------------------------ */

static const char *header_of(const struct request *request, const char *name) {
    return evhttp_find_header(evhttp_request_get_input_headers(request->http), name);
}

/* Another site's page can send a form with the cookie of a browser that ignores SameSite, but neither this header nor
 * this media type without asking first, which is never granted; and browsers name the page's origin. */
static bool is_from_our_pages(const struct request *request, struct err *err) {
    const char *mark = header_of(request, "X-Pulmo"), *type = header_of(request, "Content-Type");
    const char *origin = header_of(request, "Origin"), *host = header_of(request, "Host");
    if (!mark || strcmp(mark, "1") != 0)
        return err_set(err, ERR_DENIED, "the header \"X-Pulmo: 1\" is missing");
    if (!type || strncmp(type, "application/json", strlen("application/json")) != 0)
        return err_set(err, ERR_UNSUPPORTED, "the body must be application/json");
    if (origin && (!host || strncmp(origin, "https://", 8) != 0 || strcmp(origin + 8, host) != 0))
        return err_set(err, ERR_DENIED, "the request comes from a page of another site");
    return true;
}

static bool read_body(struct request *request, struct err *err) {
    struct evbuffer *input = evhttp_request_get_input_buffer(request->http);
    size_t size = evbuffer_get_length(input);
    if (size > ROUTE_BODY_BYTES_MAX)
        return err_set(err, ERR_LIMIT, "the body has %zu bytes, more than %zu", size, ROUTE_BODY_BYTES_MAX);
    if (size == 0)
        return true;
    const char *text = (const char *)evbuffer_pullup(input, -1);
    request->body = text ? cJSON_ParseWithLength(text, size) : NULL;
    return cJSON_IsObject(request->body) ? true : err_set(err, ERR_INPUT, "the body is not a JSON object");
}

static bool check_role(struct request *request, const struct route *route, int *status, struct err *err) {
    if (route->roles == ROLE_NOBODY)
        return true;
    if (!*request->user.name) {
        *status = 401;
        return err_set(err, ERR_DENIED, "log in first");
    }
    if (role_of(&request->user) & route->roles)
        return true;
    if (!access_refused(request, "not in this role", err))
        return false;
    return err_set(err, ERR_DENIED, "a %s may not do this", request->user.role);
}

static bool check_origin(struct request *request, struct err *err) {
    struct err why = {0};
    if (is_from_our_pages(request, &why))
        return true;
    if (*request->user.name && !access_refused(request, why.text, err))
        return false;
    return err_set(err, why.kind, "%s", why.text);
}

/* ---- dispatch ---------------------------------------------------------------------------------------- */

/* *status: of the answer to an error, when the kind alone does not tell it. */
static bool answer(struct request *request, int *status, struct err *err) {
    bool is_api = strncmp(request->path, "/api/", 5) == 0 || strcmp(request->path, "/metrics") == 0;
    if (!is_api && evhttp_request_get_command(request->http) == EVHTTP_REQ_GET)
        return static_files_reply(request, err);
    const struct route *route = find_route(request, status, err);
    if (!route || !session_read(request, err) || !check_role(request, route, status, err))
        return false;
    if (route->method == EVHTTP_REQ_POST && (!check_origin(request, err) || !read_body(request, err)))
        return false;
    return route->handler(request, err);
}

/* The last line of that name: some proxies merge theirs with the client's, others add one. */
static const char *last_header(struct evhttp_request *http, const char *name) {
    const char *value = NULL;
    for (const struct evkeyval *line = evhttp_request_get_input_headers(http)->tqh_first; line;
         line = line->next.tqe_next)
        if (strcasecmp(line->key, name) == 0)
            value = line->value;
    return value;
}

static void read_address(const struct web_context *web, struct evhttp_request *http, char out[PROXIES_ADDRESS_SIZE]) {
    char *address = NULL;
    ev_uint16_t port = 0;
    evhttp_connection_get_peer(evhttp_request_get_connection(http), &address, &port);
    proxies_client(web->proxies, address ? address : "", last_header(http, "X-Forwarded-For"), out);
}

void route_request(struct evhttp_request *http, void *context) {
    if (!connection_track(http)) {
        evhttp_connection_free(evhttp_request_get_connection(http));
        return;
    }
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(http);
    const char *path = uri ? evhttp_uri_get_path(uri) : NULL;
    char address[PROXIES_ADDRESS_SIZE];
    read_address(context, http, address);
    struct request request = {.web = context, .http = http, .path = path && *path ? path : "/", .address = address};
    struct err err = {0};
    int status = 0;
    reply_begin();
    if (!answer(&request, &status, &err) && err.kind != ERR_NONE) {
        status = reply_starved(&err) ? 0 : status; /* what seemed wrong was not read */
        reply_error(&request, status ? status : reply_status_of(err.kind), &err);
    }
    cJSON_Delete(request.body);
    explicit_bzero(request.token, sizeof request.token);
}
