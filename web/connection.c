#include "web/connection.h"
#include "log.h"

#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <stdlib.h>
#include <sys/socket.h>

#define SWEEP_MS 250

struct connection {
    struct connection *next, *before;
    struct connection_pool *pool;
    struct bufferevent *stream;
    int64_t begun_ms; /* of the request under way, monotonic; 0 = idle */
};

struct connection_pool {
    struct event_base *base;
    SSL_CTX *tls;
    struct connection_limits limits;
    struct connection *first;
    uint32_t count;
    struct evconnlistener *listener;
    struct event *sweep;
    int ssl_index; /* of a connection in its SSL object */
};

/* ---- beginning and end ------------------------------------------------------------------------------- */

static void link_in(struct connection_pool *pool, struct connection *connection) {
    connection->next = pool->first;
    if (pool->first)
        pool->first->before = connection;
    pool->first = connection;
    if (++pool->count >= pool->limits.connections_max && pool->listener)
        evconnlistener_disable(pool->listener);
}

static void link_out(struct connection_pool *pool, struct connection *connection) {
    if (connection->next)
        connection->next->before = connection->before;
    if (connection->before)
        connection->before->next = connection->next;
    else
        pool->first = connection->next;
    if (--pool->count < pool->limits.connections_max && pool->listener)
        evconnlistener_enable(pool->listener);
}

static void on_ssl_free(void *parent, void *item, CRYPTO_EX_DATA *data, int index, long number, void *pointer) {
    (void)parent, (void)data, (void)index, (void)number, (void)pointer;
    struct connection *connection = item;
    if (!connection)
        return;
    link_out(connection->pool, connection);
    free(connection);
}

static void on_input(struct evbuffer *buffer, const struct evbuffer_cb_info *info, void *context) {
    (void)buffer;
    struct connection *connection = context;
    if (info->n_added > 0 && connection->begun_ms == 0)
        connection->begun_ms = pulmo_monotonic_ms();
}

/* A stream over a new SSL object that carries its connection; NULL when memory is short. */
static struct bufferevent *stream_new(struct connection_pool *pool) {
    struct connection *connection = calloc(1, sizeof *connection);
    SSL *ssl = connection ? SSL_new(pool->tls) : NULL;
    struct bufferevent *stream =
        ssl ? bufferevent_openssl_socket_new(pool->base, -1, ssl, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE)
            : NULL;
    if (!stream || SSL_set_ex_data(ssl, pool->ssl_index, connection) != 1) {
        if (stream)
            bufferevent_free(stream);
        else
            SSL_free(ssl);
        free(connection);
        return NULL;
    }
    *connection = (struct connection){.pool = pool, .stream = stream, .begun_ms = pulmo_monotonic_ms()};
    link_in(pool, connection);
    bufferevent_openssl_set_allow_dirty_shutdown(stream, 1);
    evbuffer_add_cb(bufferevent_get_input(stream), on_input, connection);
    return stream;
}

struct bufferevent *connection_accept(struct event_base *base, void *context) {
    struct connection_pool *pool = context;
    struct bufferevent *stream = stream_new(pool);
    if (stream)
        return stream;
    /* evhttp would speak plain HTTP for NULL. This stream does too, but connection_track refuses its requests. */
    log_event(LOG_ERROR, "web", "no-memory", "connections=%u", pool->count);
    return bufferevent_socket_new(base, -1, 0);
}

/* ---- deadline ---------------------------------------------------------------------------------------- */

static struct connection *connection_of(struct evhttp_request *request) {
    struct evhttp_connection *http = evhttp_request_get_connection(request);
    struct bufferevent *stream = http ? evhttp_connection_get_bufferevent(http) : NULL;
    const SSL *ssl = stream ? bufferevent_openssl_get_ssl(stream) : NULL;
    const struct connection_pool *pool = ssl ? SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)) : NULL;
    return pool ? SSL_get_ex_data(ssl, pool->ssl_index) : NULL;
}

static void on_answered(struct evhttp_request *request, void *context) {
    (void)request;
    struct connection *connection = context;
    bool pipelined = evbuffer_get_length(bufferevent_get_input(connection->stream)) > 0;
    connection->begun_ms = pipelined ? pulmo_monotonic_ms() : 0;
}

bool connection_track(struct evhttp_request *request) {
    struct connection *connection = connection_of(request);
    if (connection)
        evhttp_request_set_on_complete_cb(request, on_answered, connection);
    return connection != NULL;
}

/* Shut, not freed: evhttp owns the stream, and frees it when it sees the end. */
static void on_sweep(evutil_socket_t descriptor, short what, void *context) {
    (void)descriptor, (void)what;
    struct connection_pool *pool = context;
    int64_t now_ms = pulmo_monotonic_ms();
    for (struct connection *connection = pool->first; connection; connection = connection->next)
        if (connection->begun_ms && now_ms - connection->begun_ms > pool->limits.deadline_ms)
            shutdown(bufferevent_getfd(connection->stream), SHUT_RDWR);
}

size_t connection_pool_busy(const struct connection_pool *pool) {
    size_t busy = 0;
    for (const struct connection *connection = pool->first; connection; connection = connection->next)
        busy += connection->begun_ms != 0;
    return busy;
}

/* ---- pool -------------------------------------------------------------------------------------------- */

struct connection_pool *connection_pool_new(struct event_base *base, SSL_CTX *tls, struct connection_limits limits,
                                            struct err *err) {
    struct connection_pool *pool = pulmo_alloc(1, sizeof *pool, err);
    if (!pool)
        return NULL;
    *pool = (struct connection_pool){.base = base, .tls = tls, .limits = limits};
    pool->ssl_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, on_ssl_free);
    pool->sweep = event_new(base, -1, EV_PERSIST, on_sweep, pool);
    const struct timeval interval = {.tv_usec = SWEEP_MS * 1000};
    if (pool->ssl_index < 0 || SSL_CTX_set_app_data(tls, pool) != 1 || !pool->sweep ||
        event_add(pool->sweep, &interval) != 0) {
        connection_pool_stop(pool);
        connection_pool_free(pool);
        err_set(err, ERR_MEMORY, "out of memory for the web server's connections");
        return NULL;
    }
    return pool;
}

void connection_pool_stop(struct connection_pool *pool) {
    pool->listener = NULL;
    if (pool->sweep)
        event_free(pool->sweep);
    pool->sweep = NULL;
}

void connection_pool_free(struct connection_pool *pool) {
    if (!pool)
        return;
    if (pool->ssl_index >= 0)
        CRYPTO_free_ex_index(CRYPTO_EX_INDEX_SSL, pool->ssl_index);
    free(pool);
}

void connection_pool_watch(struct connection_pool *pool, struct evconnlistener *listener) {
    pool->listener = listener;
}
