/* One HTTP request on its way to its answer. */
#ifndef PULMO_WEB_REQUEST_H
#define PULMO_WEB_REQUEST_H

#include "store/store.h"

#include <cjson/cJSON.h>
#include <event2/http.h>

#define REQUEST_PARAMETERS_MAX 3
#define REQUEST_PARAMETER_SIZE 160

struct access_notes;
struct proxies;
struct static_files;
struct throttle;

/* What every request may use; one for the server's life, on its thread. */
struct web_context {
    struct store *store;
    const struct static_files *files;
    struct access_notes *notes;
    struct throttle *throttle;
    const struct proxies *proxies;
};

struct request {
    const struct web_context *web;
    struct evhttp_request *http;
    const char *path;                                                /* borrowed from http */
    const char *address;                                             /* of the client; borrowed from the route */
    char parameters[REQUEST_PARAMETERS_MAX][REQUEST_PARAMETER_SIZE]; /* what the route's stars matched */
    struct store_user user;                                          /* empty name: nobody is logged in */
    char token[65];                                                  /* of the session */
    cJSON *body;                                                     /* of a POST; owned by the route */
};

/* Answers, or returns false with err set and nothing answered. */
typedef bool request_handler(struct request *request, struct err *err);

/* A whole number in a parameter; ERR_NOT_FOUND when it is none, because such a path does not exist. */
bool request_number(const struct request *request, size_t parameter, int64_t *out, struct err *err) PULMO_MUST_USE;
/* A UID in a parameter (PS3.5 9.1). */
bool request_uid(const struct request *request, size_t parameter, const char **out, struct err *err) PULMO_MUST_USE;
/* A text of the body, at most size_max bytes; ERR_INPUT. Borrowed from the body. */
bool request_text(const struct request *request, const char *name, size_t size_max, const char **out,
                  struct err *err) PULMO_MUST_USE;
/* Three finite numbers. */
bool request_vector(const struct request *request, const char *name, double out[3], struct err *err) PULMO_MUST_USE;
bool request_real(const struct request *request, const char *name, double *out, struct err *err) PULMO_MUST_USE;

void request_json_free_at(cJSON **json); /* for PULMO_SCOPED */

#endif
