#include "log.h"
#include "web/access.h"
#include "web/connection.h"
#include "web/reply.h"
#include "web/route.h"
#include "web/static_files.h"
#include "web/throttle.h"
#include "web/tls.h"
#include "web/web.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define HEADER_BYTES_MAX (16 << 10)
#define KEEP_ALIVE_S 60
#define STOP_MS 2000
#define STOP_TICK_MS 20

struct web_server {
    struct event_base *base;
    struct evhttp *http;
    struct evhttp_bound_socket *socket;
    SSL_CTX *tls;
    struct connection_pool *pool;
    struct proxies *proxies;
    struct static_files *files;
    struct web_context context;
    struct event *stop;  /* readable when web_stop was called */
    int stop_descriptor; /* eventfd */
    int64_t stop_deadline_ms;
    pthread_t thread;
    bool running;
    uint16_t port;
};

/* ---- stopping ---------------------------------------------------------------------------------------- */

static void on_stop_tick(evutil_socket_t descriptor, short what, void *context) {
    (void)descriptor, (void)what;
    struct web_server *server = context;
    if (connection_pool_busy(server->pool) == 0 || pulmo_monotonic_ms() > server->stop_deadline_ms) {
        event_base_loopbreak(server->base);
        return;
    }
    const struct timeval tick = {.tv_usec = STOP_TICK_MS * 1000};
    if (event_base_once(server->base, -1, EV_TIMEOUT, on_stop_tick, server, &tick) != 0)
        event_base_loopbreak(server->base);
}

static void on_stop(evutil_socket_t descriptor, short what, void *context) {
    struct web_server *server = context;
    event_del(server->stop);
    evconnlistener_disable(evhttp_bound_socket_get_listener(server->socket));
    connection_pool_watch(server->pool, NULL);
    server->stop_deadline_ms = pulmo_monotonic_ms() + STOP_MS;
    on_stop_tick(descriptor, what, server);
}

/* ---- starting ---------------------------------------------------------------------------------------- */

static int keep_alive_s(const struct web_config *config) {
    return config->keep_alive_s > 0 ? config->keep_alive_s : KEEP_ALIVE_S;
}

static bool open_base(struct web_server *server, const struct web_config *config, struct err *err) {
    server->base = event_base_new();
    server->http = server->base ? evhttp_new(server->base) : NULL;
    server->stop_descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!server->http || server->stop_descriptor < 0)
        return err_set(err, ERR_INTERNAL, "cannot start an event loop: %s", strerror(errno));
    server->stop = event_new(server->base, server->stop_descriptor, EV_READ | EV_PERSIST, on_stop, server);
    if (!server->stop || event_add(server->stop, NULL) != 0)
        return err_set(err, ERR_INTERNAL, "cannot watch for the stop of the web server");
    const uint32_t share = config->connections_max_an_origin;
    const struct connection_limits limits = {.connections_max = config->connections_max,
                                             .connections_max_an_origin = share ? share : config->connections_max,
                                             .deadline_ms = (int64_t)config->request_deadline_s * 1000,
                                             .rest_ms = (int64_t)keep_alive_s(config) * 1000,
                                             .proxies = server->proxies};
    server->pool = connection_pool_new(server->base, server->tls, limits, err);
    return server->pool != NULL;
}

static void set_up_http(struct web_server *server, const struct web_config *config) {
    size_t body_max = config->body_bytes_max < ROUTE_BODY_BYTES_MAX ? config->body_bytes_max : ROUTE_BODY_BYTES_MAX;
    evhttp_set_bevcb(server->http, connection_accept, server->pool);
    evhttp_set_gencb(server->http, route_request, &server->context);
    evhttp_set_allowed_methods(server->http, EVHTTP_REQ_GET | EVHTTP_REQ_POST);
    evhttp_set_max_headers_size(server->http, HEADER_BYTES_MAX);
    evhttp_set_max_body_size(server->http, (ev_ssize_t)body_max);
    /* Between two bytes; the pool's own limits are shorter or absolute. */
    evhttp_set_timeout(server->http, keep_alive_s(config) + config->request_deadline_s);
    /* So that a sender of too much reads the 413 before the connection ends. */
    evhttp_set_flags(server->http, EVHTTP_SERVER_LINGERING_CLOSE);
}

static bool bound_port(int descriptor, uint16_t *out) {
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    if (getsockname(descriptor, (struct sockaddr *)&address, &size) != 0)
        return false;
    *out = ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                               : ((struct sockaddr_in *)&address)->sin_port);
    return true;
}

static bool listen_on(struct web_server *server, const struct web_config *config, struct err *err) {
    const char *address = config->bind_address ? config->bind_address : "0.0.0.0";
    server->socket = evhttp_bind_socket_with_handle(server->http, address, config->port);
    if (!server->socket)
        return err_set(err, errno == EACCES ? ERR_CONFIG : ERR_NETWORK, "cannot listen on %s port %u: %s", address,
                       config->port, strerror(errno));
    int descriptor = evhttp_bound_socket_get_fd(server->socket), on = 1;
    /* Accepted sockets inherit it. */
    if (setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0 || !bound_port(descriptor, &server->port))
        return err_set(err, ERR_NETWORK, "cannot set up the socket of %s: %s", address, strerror(errno));
    connection_pool_watch(server->pool, evhttp_bound_socket_get_listener(server->socket));
    return true;
}

static void *run(void *context) {
    struct web_server *server = context;
    if (event_base_dispatch(server->base) < 0)
        log_event(LOG_ERROR, "web", "loop-ended", "port=%u", server->port);
    return NULL;
}

/* Signals stay with the process' own threads; SIGPIPE of a browser that left is nobody's. */
static bool start_thread(struct web_server *server, struct err *err) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int number = pthread_create(&server->thread, NULL, run, server);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    server->running = number == 0;
    return server->running ? true : err_set(err, ERR_INTERNAL, "cannot start a thread: %s", strerror(number));
}

static bool start(struct web_server *server, const struct web_config *config, struct err *err) {
    reply_watch_memory();
    server->files = static_files_new(config->viewer_folder, err);
    server->tls = server->files ? tls_context_new(config->certificate_file, config->key_file, err) : NULL;
    if (!server->tls)
        return false;
    server->proxies = proxies_new(config->proxies, err);
    if (!server->proxies)
        return false;
    server->context.files = server->files;
    server->context.proxies = server->proxies;
    server->context.notes = access_notes_new(err);
    server->context.throttle = server->context.notes ? throttle_new(err) : NULL;
    server->context.store = server->context.throttle ? store_open(config->store, err) : NULL;
    if (!server->context.store || !open_base(server, config, err))
        return false;
    set_up_http(server, config);
    return listen_on(server, config, err) && start_thread(server, err);
}

struct web_server *web_start(const struct web_config *config, struct err *err) {
    struct web_server *server = pulmo_alloc(1, sizeof *server, err);
    if (!server)
        return NULL;
    server->stop_descriptor = -1;
    if (start(server, config, err))
        return server;
    err_within(err, "web server");
    web_stop(server);
    return NULL;
}

uint16_t web_port(const struct web_server *server) {
    return server->port;
}

static void join(struct web_server *server) {
    const uint64_t one = 1;
    if (server->running && write(server->stop_descriptor, &one, sizeof one) == (ssize_t)sizeof one)
        pthread_join(server->thread, NULL);
}

/* The order matters: libevent destroys connections in the loop or with the base, after evhttp let go of them, and each
 * then leaves the pool. */
void web_stop(struct web_server *server) {
    if (!server)
        return;
    join(server);
    if (server->pool)
        connection_pool_stop(server->pool);
    if (server->http)
        evhttp_free(server->http);
    if (server->stop)
        event_free(server->stop);
    if (server->base) {
        event_base_loop(server->base, EVLOOP_NONBLOCK);
        event_base_free(server->base);
    }
    connection_pool_free(server->pool);
    SSL_CTX_free(server->tls);
    if (server->stop_descriptor >= 0)
        close(server->stop_descriptor);
    store_close(server->context.store);
    throttle_free(server->context.throttle);
    access_notes_free(server->context.notes);
    static_files_free(server->files);
    proxies_free(server->proxies);
    free(server);
}
