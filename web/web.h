/* The HTTPS server: login, worklist, results, slices and overlays, verdicts, signature; and the built viewer.
 *
 * Meets the rest of Pulmo only in the store. Never parses DICOM: worker and decoder leave slices, overlays and JSON as
 * artifacts of a result. libevent's evhttp over OpenSSL, in one thread that owns one store handle. */
#ifndef PULMO_WEB_H
#define PULMO_WEB_H

#include "store/store.h"

struct web_config {
    const char *bind_address;
    uint16_t port;                           /* 0 = any free one */
    const char *certificate_file, *key_file; /* PEM; made (self-signed) at first start when absent */
    const char *viewer_folder;               /* the built viewer: index.html, viewer.js, ... */
    const struct store_config *store;
    size_t body_bytes_max;
    int request_deadline_s; /* absolute, from the first byte */
    int keep_alive_s;       /* how long a connection may rest between two requests; 0 = a minute */
    uint32_t connections_max;
    uint32_t connections_max_an_origin; /* of one IPv4 address or IPv6 /64; 0 = no such limit */
    const char *proxies;                /* addresses of reverse proxies, comma-separated: not limited, believed */
};
struct web_server;
/* Starts the server on a thread of its own. */
struct web_server *web_start(const struct web_config *config, struct err *err);
uint16_t web_port(const struct web_server *server);
void web_stop(struct web_server *server); /* finishes what is in flight for up to 2 s; frees */

#endif
