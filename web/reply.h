/* Answers: JSON, bytes, errors. Every answer carries the security headers. */
#ifndef PULMO_WEB_REPLY_H
#define PULMO_WEB_REPLY_H

#include "web/request.h"

/* How long a browser may keep an answer. */
enum reply_cache {
    REPLY_NO_STORE,  /* whatever holds patient data or changes */
    REPLY_IMMUTABLE, /* pixels under an address that names their version; in this user's cache only */
    REPLY_REVALIDATE /* the viewer's own files */
};

/* cJSON leaves out what it has no memory for, and most of its callers cannot tell. So it is watched: once a process...
 */
void reply_watch_memory(void);
/* ... from the begin of each request on this thread; then no answer is made of what was left out or could not be read.
 */
void reply_begin(void);
bool reply_starved(struct err *err);

bool reply_header(struct request *request, const char *name, const char *value, struct err *err) PULMO_MUST_USE;
/* Takes the document, whether it succeeds or not. */
bool reply_json(struct request *request, int status, cJSON *document, struct err *err) PULMO_MUST_USE;
/* Moves *content into the answer, whether it succeeds or not. */
bool reply_bytes(struct request *request, const char *media_type, enum reply_cache cache, struct bytes *content,
                 struct err *err) PULMO_MUST_USE;
/* Content that outlives the server's connections. */
bool reply_borrowed(struct request *request, const char *media_type, const void *data, size_t size,
                    struct err *err) PULMO_MUST_USE;
bool reply_empty(struct request *request, int status, struct err *err) PULMO_MUST_USE;

/* The one table from error kinds to HTTP status codes (RFC 9110 15). */
int reply_status_of(enum err_kind kind);
/* {"error": kind, "message": sentence} with that status; server faults are logged and their sentence kept back. */
void reply_error(struct request *request, int status, const struct err *error);

#endif
