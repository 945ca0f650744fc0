/* A small HTTPS client: what a test sends, byte for byte, and what comes back. For tests/test_web_*.c. */
#ifndef PULMO_TESTS_WEB_CLIENT_H
#define PULMO_TESTS_WEB_CLIENT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pulmo.h"

#include <arpa/inet.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define CLIENT_ANSWER_MAX ((size_t)4 << 20)

struct web_client {
    uint16_t port;
    SSL_CTX *context;
    int descriptor;
    SSL *ssl;
    char cookie[128]; /* "name=value" of the last Set-Cookie */
};

struct web_answer {
    int status; /* 0 = the server closed without an answer */
    char *head, *body;
    size_t body_size;
};

static inline void client_hang_up(struct web_client *client) {
    SSL_free(client->ssl);
    client->ssl = NULL;
    if (client->descriptor >= 0)
        close(client->descriptor);
    client->descriptor = -1;
}

static inline int client_socket(uint16_t port) {
    int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct timeval patience = {.tv_sec = 20};
    assert_true(descriptor >= 0);
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(descriptor, (const struct sockaddr *)&address, sizeof address), 0);
    return descriptor;
}

static inline bool client_dial(struct web_client *client) {
    client_hang_up(client);
    client->descriptor = client_socket(client->port);
    client->ssl = SSL_new(client->context);
    assert_non_null(client->ssl);
    SSL_set_fd(client->ssl, client->descriptor);
    return SSL_connect(client->ssl) == 1;
}

static inline struct web_client client_new(uint16_t port) {
    signal(SIGPIPE, SIG_IGN);
    struct web_client client = {.port = port, .context = SSL_CTX_new(TLS_client_method()), .descriptor = -1};
    assert_non_null(client.context);
    return client; /* self-signed: the certificate is looked at in a test of its own */
}

static inline void client_free(struct web_client *client) {
    client_hang_up(client);
    SSL_CTX_free(client->context);
}

static inline void answer_free(struct web_answer *answer) {
    free(answer->head);
    *answer = (struct web_answer){0};
}

static inline const char *answer_header(const struct web_answer *answer, const char *name, char *out, size_t size) {
    for (const char *line = answer->head; line; line = strstr(line, "\r\n")) {
        line += line == answer->head ? 0 : 2;
        size_t length = strlen(name);
        if (strncasecmp(line, name, length) != 0 || line[length] != ':')
            continue;
        const char *value = line + length + 1 + strspn(line + length + 1, " ");
        snprintf(out, size, "%.*s", (int)strcspn(value, "\r\n"), value);
        return out;
    }
    return NULL;
}

/* Bytes until the server closes, or until the promised body is here. */
static inline struct web_answer client_read(struct web_client *client) {
    struct web_answer answer = {.head = calloc(1, CLIENT_ANSWER_MAX)};
    assert_non_null(answer.head);
    size_t size = 0, wanted = SIZE_MAX;
    while (size < wanted && size < CLIENT_ANSWER_MAX - 1) {
        int got = SSL_read(client->ssl, answer.head + size, (int)(CLIENT_ANSWER_MAX - 1 - size));
        if (got <= 0)
            break;
        size += (size_t)got;
        char *end = wanted == SIZE_MAX ? strstr(answer.head, "\r\n\r\n") : NULL;
        if (!end)
            continue;
        char length[32];
        answer.body = end + 4;
        const char *value = answer_header(&answer, "Content-Length", length, sizeof length);
        wanted = (size_t)(answer.body - answer.head) + (value ? strtoul(value, NULL, 10) : 0);
    }
    if (answer.body) {
        answer.body_size = size - (size_t)(answer.body - answer.head);
        answer.body[-2] = '\0';
        answer.status = (int)strtol(answer.head + strlen("HTTP/1.1 "), NULL, 10);
    }
    return answer;
}

static inline void client_write(struct web_client *client, const char *text) {
    int size = (int)strlen(text);
    assert_true(SSL_write(client->ssl, text, size) == size);
}

/* Sends text as it is over a new connection. */
static inline struct web_answer client_raw(struct web_client *client, const char *text) {
    assert_true(client_dial(client));
    client_write(client, text);
    return client_read(client);
}

static inline void client_keep_cookie(struct web_client *client, const struct web_answer *answer) {
    char value[256];
    if (answer->head && answer_header(answer, "Set-Cookie", value, sizeof value))
        snprintf(client->cookie, sizeof client->cookie, "%.*s", (int)strcspn(value, ";"), value);
}

/* extra: further header lines, each with its line end. */
static inline struct web_answer client_send(struct web_client *client, const char *method, const char *path,
                                            const char *extra, const char *body) {
    size_t room = strlen(body) + 4096;
    char *text = malloc(room);
    assert_non_null(text);
    snprintf(text, room, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nConnection: close\r\nCookie: %s\r\n%s", method, path,
             client->port, client->cookie, extra);
    size_t used = strlen(text);
    if (strcmp(method, "POST") == 0)
        snprintf(text + used, room - used, "Content-Length: %zu\r\n\r\n%s", strlen(body), body);
    else
        snprintf(text + used, room - used, "\r\n");
    struct web_answer answer = client_raw(client, text);
    client_keep_cookie(client, &answer);
    free(text);
    return answer;
}

static inline struct web_answer client_get(struct web_client *client, const char *path) {
    return client_send(client, "GET", path, "", "");
}

#define CLIENT_JSON "Content-Type: application/json\r\n"
#define CLIENT_OURS "X-Pulmo: 1\r\n" CLIENT_JSON

static inline struct web_answer client_post(struct web_client *client, const char *path, const char *body) {
    return client_send(client, "POST", path, CLIENT_OURS, body);
}

static inline int client_status(struct web_answer answer) {
    int status = answer.status;
    answer_free(&answer);
    return status;
}

static inline int client_login(struct web_client *client, const char *user, const char *password) {
    char body[256];
    snprintf(body, sizeof body, "{\"user\":\"%s\",\"password\":\"%s\"}", user, password);
    return client_status(client_post(client, "/api/login", body));
}

#endif
