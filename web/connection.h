/* Connections of the web server: how many there may be, in total and of one origin, and how long a request may take.
 *
 * evhttp's timeout restarts with every byte and it does not count connections, so both are kept here. A connection ends
 * with its SSL object, whose destruction is the one event that no path of evhttp leaves out. One that is too many takes
 * the place of a slow one or of one that rests between two requests; where there is none, one of an origin that has its
 * share is closed, and others wait in the kernel's backlog. */
#ifndef PULMO_WEB_CONNECTION_H
#define PULMO_WEB_CONNECTION_H

#include "web/proxies.h"

#include <event2/bufferevent.h>
#include <event2/http.h>
#include <event2/listener.h>
#include <openssl/ssl.h>

struct connection_limits {
    uint32_t connections_max, connections_max_an_origin; /* an origin: an IPv4 address or a /64 of IPv6 */
    int64_t deadline_ms; /* from a request's first byte (the first request: from the accept) to the answer's last */
    int64_t rest_ms;     /* between two requests */
    const struct proxies *proxies; /* origins without a limit; borrowed */
};
struct connection_pool;
struct connection_pool *connection_pool_new(struct event_base *base, SSL_CTX *tls, struct connection_limits limits,
                                            struct err *err);
/* Before the evhttp of its connections is freed: forgets the listener and the deadlines. */
void connection_pool_stop(struct connection_pool *pool);
/* After their event base was freed: libevent destroys connections late. */
void connection_pool_free(struct connection_pool *pool);
/* The listener stops while the pool is full or accepting fails: the kernel's backlog holds who comes then. Borrowed. */
void connection_pool_watch(struct connection_pool *pool, struct evconnlistener *listener);
/* For evhttp_set_bevcb. */
struct bufferevent *connection_accept(struct event_base *base, void *pool);
/* Ends the deadline with the answer. False when the request did not come over TLS: then nothing may be answered. */
bool connection_track(struct evhttp_request *request);
/* Requests begun and not yet answered. */
size_t connection_pool_busy(const struct connection_pool *pool);

#endif
