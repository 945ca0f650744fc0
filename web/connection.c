#include "web/connection.h"
#include "log.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define SWEEP_MS 250
#define PATIENCE_MS 500 /* with a request, when others wait for its place */

struct connection {
    struct connection *next, *before; /* the newest first */
    struct connection_pool *pool;
    struct bufferevent *stream;
    int64_t since_ms, due_ms; /* of its state, monotonic: then it is cut off, whatever its peer sends meanwhile */
    bool is_busy;             /* with its handshake or a request; else it rests between two */
    bool is_answered;         /* a request of it was, once */
    bool is_counted, is_cut;
    struct in6_addr origin; /* of whom it is counted */
};

struct connection_pool {
    struct event_base *base;
    SSL_CTX *tls;
    struct connection_limits limits;
    struct connection *first;
    uint32_t count;
    struct evconnlistener *listener;
    struct event *sweep, *arrivals;
    int ssl_index; /* of a connection in its SSL object */
};

/* ---- too many ---------------------------------------------------------------------------------------- */

/* Shut, not freed: evhttp owns the stream, and frees it when it sees the end. */
static void cut(struct connection *connection) {
    connection->is_cut = true;
    shutdown(bufferevent_getfd(connection->stream), SHUT_RDWR);
}

/* How expendable a connection is when there are too many; 0 = not at all. Who has been answered once is more likely a
 * browser, and a browser that finds a resting connection closed opens another. */
static int expendable(const struct connection *connection, int64_t now_ms) {
    bool lingers = now_ms - connection->since_ms > PATIENCE_MS;
    if (connection->is_cut)
        return 0;
    if (connection->is_busy)
        return !lingers ? 0 : connection->is_answered ? 1 : 3;
    return 2;
}

/* The most expendable one, and of those the longest in its state, of an origin or of all (NULL); or NULL. */
static struct connection *find_victim(const struct connection_pool *pool, const struct in6_addr *origin) {
    struct connection *victim = NULL;
    int64_t now_ms = pulmo_monotonic_ms();
    int most = 1;
    for (struct connection *item = pool->first; item; item = item->next) {
        int rank = expendable(item, now_ms);
        if (rank < most || (origin && memcmp(&item->origin, origin, sizeof *origin) != 0))
            continue;
        if (!victim || rank > most || item->since_ms < victim->since_ms)
            victim = item;
        most = rank;
    }
    return victim;
}

static bool is_full(const struct connection_pool *pool) {
    return pool->count >= pool->limits.connections_max;
}

/* Lets go of some when the pool is full; where none is expendable, others wait in the kernel's backlog. */
static void make_room(struct connection_pool *pool, uint32_t places) {
    for (uint32_t index = 0; index < places && is_full(pool); index++) {
        struct connection *victim = find_victim(pool, NULL);
        if (!victim || (index > 0 && !victim->is_busy)) /* of those at rest one is enough */
            return;
        cut(victim);
    }
}

static void listen_again(struct connection_pool *pool) {
    if (pool->listener && !is_full(pool))
        evconnlistener_enable(pool->listener);
}

/* IPv4 as mapped. Zero when the peer is gone already. */
static struct in6_addr peer_of(int descriptor) {
    struct sockaddr_storage address = {0};
    struct in6_addr peer = {0};
    socklen_t size = sizeof address;
    if (getpeername(descriptor, (struct sockaddr *)&address, &size) != 0)
        return peer;
    if (address.ss_family == AF_INET) {
        peer.s6_addr[10] = peer.s6_addr[11] = 0xFF;
        memcpy(peer.s6_addr + 12, &((const struct sockaddr_in *)&address)->sin_addr, 4);
    } else if (address.ss_family == AF_INET6)
        peer = ((const struct sockaddr_in6 *)&address)->sin6_addr;
    return peer;
}

/* Of IPv6 the /64, since that is what one site is given at least (RFC 6177). */
static struct in6_addr origin_of(struct in6_addr peer) {
    if (!IN6_IS_ADDR_V4MAPPED(&peer))
        memset(peer.s6_addr + 8, 0, 8);
    return peer;
}

static uint32_t count_of(const struct connection_pool *pool, const struct in6_addr *origin) {
    uint32_t count = 0;
    for (const struct connection *item = pool->first; item; item = item->next)
        count += item->is_counted && !item->is_cut && memcmp(&item->origin, origin, sizeof *origin) == 0;
    return count;
}

static void count_in(struct connection *connection) {
    struct connection_pool *pool = connection->pool;
    struct in6_addr peer = peer_of(bufferevent_getfd(connection->stream));
    connection->is_counted = true;
    connection->origin = origin_of(peer);
    if (proxies_have(pool->limits.proxies, &peer) ||
        count_of(pool, &connection->origin) <= pool->limits.connections_max_an_origin)
        return;
    struct connection *victim = find_victim(pool, &connection->origin);
    cut(victim ? victim : connection);
}

/* evhttp gives a new stream its socket only after connection_accept returned, so its peer is looked at here. */
static void on_arrivals(evutil_socket_t descriptor, short what, void *context) {
    (void)descriptor, (void)what;
    const struct connection_pool *pool = context;
    struct connection *oldest = NULL;
    for (struct connection *item = pool->first; item && !item->is_counted; item = item->next)
        oldest = item;
    for (struct connection *item = oldest; item; item = item->before)
        count_in(item);
}

/* ---- beginning and end ------------------------------------------------------------------------------- */

static void link_in(struct connection_pool *pool, struct connection *connection) {
    connection->next = pool->first;
    if (pool->first)
        pool->first->before = connection;
    pool->first = connection;
    pool->count++;
    event_active(pool->arrivals, EV_TIMEOUT, 1);
    if (is_full(pool) && pool->listener)
        evconnlistener_disable(pool->listener);
    make_room(pool, 1);
}

static void link_out(struct connection_pool *pool, struct connection *connection) {
    if (connection->next)
        connection->next->before = connection->before;
    if (connection->before)
        connection->before->next = connection->next;
    else
        pool->first = connection->next;
    pool->count--;
    listen_again(pool);
}

static void set_busy(struct connection *connection, bool is_busy) {
    const struct connection_limits *limits = &connection->pool->limits;
    connection->is_busy = is_busy;
    connection->since_ms = pulmo_monotonic_ms();
    connection->due_ms = connection->since_ms + (is_busy ? limits->deadline_ms : limits->rest_ms);
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
    if (info->n_added > 0 && !connection->is_busy)
        set_busy(connection, true);
}

/* A stream over a new SSL object that carries its connection; NULL when memory is short. */
static struct bufferevent *stream_new(struct connection_pool *pool) {
    struct connection *connection = calloc(1, sizeof *connection);
    SSL *ssl = connection ? SSL_new(pool->tls) : NULL;
    if (ssl)
        SSL_up_ref(ssl); /* libevent frees it when it fails, too */
    struct bufferevent *stream =
        ssl ? bufferevent_openssl_socket_new(pool->base, -1, ssl, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE)
            : NULL;
    SSL_free(ssl);
    if (!stream || SSL_set_ex_data(ssl, pool->ssl_index, connection) != 1) {
        if (stream)
            bufferevent_free(stream);
        free(connection);
        return NULL;
    }
    *connection = (struct connection){.pool = pool, .stream = stream};
    set_busy(connection, true);
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
    connection->is_answered = true;
    set_busy(connection, pipelined);
}

bool connection_track(struct evhttp_request *request) {
    struct connection *connection = connection_of(request);
    if (connection)
        evhttp_request_set_on_complete_cb(request, on_answered, connection);
    return connection != NULL;
}

/* A resting connection is cut off too: evhttp's own timeout starts again with every byte of a record that never ends.
 */
static void on_sweep(evutil_socket_t descriptor, short what, void *context) {
    (void)descriptor, (void)what;
    struct connection_pool *pool = context;
    int64_t now_ms = pulmo_monotonic_ms();
    for (struct connection *connection = pool->first; connection; connection = connection->next)
        if (!connection->is_cut && now_ms > connection->due_ms)
            cut(connection);
    make_room(pool, 1 + pool->limits.connections_max / 8);
    listen_again(pool);
}

size_t connection_pool_busy(const struct connection_pool *pool) {
    size_t busy = 0;
    for (const struct connection *connection = pool->first; connection; connection = connection->next)
        busy += connection->is_busy;
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
    pool->arrivals = event_new(base, -1, 0, on_arrivals, pool);
    const struct timeval interval = {.tv_usec = SWEEP_MS * 1000};
    if (pool->ssl_index < 0 || SSL_CTX_set_app_data(tls, pool) != 1 || !pool->sweep || !pool->arrivals ||
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
    if (pool->arrivals)
        event_free(pool->arrivals);
    pool->sweep = pool->arrivals = NULL;
}

void connection_pool_free(struct connection_pool *pool) {
    if (!pool)
        return;
    if (pool->ssl_index >= 0)
        CRYPTO_free_ex_index(CRYPTO_EX_INDEX_SSL, pool->ssl_index);
    free(pool);
}

/* Without descriptors, say: the connection stays in the kernel's queue, so accepting again at once would spin. */
static void on_accept_error(struct evconnlistener *listener, void *context) {
    (void)context; /* evhttp's */
    log_event(LOG_WARNING, "web", "accept-failed", "reason=\"%s\" again_in_ms=%d", strerror(errno), SWEEP_MS);
    evconnlistener_disable(listener);
}

void connection_pool_watch(struct connection_pool *pool, struct evconnlistener *listener) {
    pool->listener = listener;
    if (listener)
        evconnlistener_set_error_cb(listener, on_accept_error);
}
