#include "dicom/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 128 };

void socket_set_nodelay(int socket) {
    const int on = 1;
    (void)setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* slower without, not wrong */
}

static int listen_on(const struct addrinfo *where) {
    const int on = 1, off = 0;
    const int listener = socket(where->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0)
        return -1;
    (void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (where->ai_family == AF_INET6)
        (void)setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(listener, where->ai_addr, where->ai_addrlen) != 0 || listen(listener, BACKLOG) != 0) {
        const int why = errno;
        close(listener);
        errno = why;
        return -1;
    }
    return listener;
}

/* Tries IPv6 first, since one such socket serves IPv4 too. */
static int listen_on_first(const struct addrinfo *list) {
    static const int families[] = {AF_INET6, AF_INET};
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        for (const struct addrinfo *where = list; where != NULL; where = where->ai_next) {
            const int listener = where->ai_family == families[i] ? listen_on(where) : -1;
            if (listener >= 0)
                return listener;
        }
    }
    return -1;
}

int socket_listen(const char *address, uint16_t port, struct err *err) {
    const struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    const char *node = address != NULL && address[0] != '\0' ? address : NULL;
    const int fault = getaddrinfo(node, service, &hints, &list);
    if (fault != 0) {
        err_set(err, ERR_CONFIG, "cannot listen on %s: %s", node != NULL ? node : "*", gai_strerror(fault));
        return -1;
    }
    const int listener = listen_on_first(list);
    const int why = errno;
    freeaddrinfo(list);
    if (listener < 0)
        err_set(err, ERR_CONFIG, "cannot listen on %s port %u: %s", node != NULL ? node : "*", port, strerror(why));
    return listener;
}

uint16_t socket_port(int listener) {
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    if (getsockname(listener, (struct sockaddr *)&address, &size) != 0)
        return 0;
    const void *any = &address;
    return ntohs(address.ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)any)->sin6_port
                                               : ((const struct sockaddr_in *)any)->sin_port);
}

static void name_peer(const struct sockaddr_storage *address, socklen_t size, char peer[64]) {
    static const char mapped[] = "::ffff:";
    char name[64] = "";
    if (getnameinfo((const struct sockaddr *)address, size, name, sizeof name, NULL, 0, NI_NUMERICHOST) != 0)
        name[0] = '\0';
    const bool is_mapped = strncmp(name, mapped, sizeof mapped - 1) == 0 && strchr(name, '.') != NULL;
    snprintf(peer, 64, "%s", is_mapped ? name + sizeof mapped - 1 : name);
}

/* A connection that broke between the kernel and us, or a moment without descriptors, is not the listener's end. */
static bool is_passing(int why) {
    return why == EAGAIN || why == EWOULDBLOCK || why == EINTR || why == ECONNABORTED || why == EPROTO ||
           why == EMFILE || why == ENFILE || why == ENOBUFS || why == ENOMEM || why == EPERM;
}

bool socket_accept(int listener, int wait_ms, int *out, char peer[64], struct err *err) {
    struct pollfd waiting = {.fd = listener, .events = POLLIN};
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    *out = -1;
    const int ready = poll(&waiting, 1, wait_ms);
    if (ready <= 0)
        return ready == 0 || errno == EINTR || err_set(err, ERR_INTERNAL, "poll: %s", strerror(errno));
    const int accepted = accept4(listener, (struct sockaddr *)&address, &size, SOCK_CLOEXEC);
    if (accepted < 0) {
        const int why = errno;
        if (why == EMFILE || why == ENFILE)
            poll(NULL, 0, 100); /* the connection stays in the queue: do not spin on it */
        return is_passing(why) || err_set(err, ERR_INTERNAL, "accept: %s", strerror(why));
    }
    socket_set_nodelay(accepted);
    name_peer(&address, size, peer);
    *out = accepted;
    return true;
}
